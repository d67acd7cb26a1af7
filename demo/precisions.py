"""Save the BF16 checkpoint; make FP8 and NVFP4 ones from it with NVIDIA ModelOpt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import modelopt.torch.quantization as mtq
import torch
from modelopt.torch.export import export_hf_checkpoint
from transformers import GenerationConfig, LlamaForCausalLM

from demo.documents import Document
from demo.lexicon import EOS, IDS, PAD
from demo.tokenizer import save_tokenizer

CONFIGS: dict[str, dict[str, Any]] = {"FP8": mtq.FP8_DEFAULT_CFG, "NVFP4": mtq.NVFP4_DEFAULT_CFG}
"""ModelOpt's configuration by the suffix of a checkpoint's name."""


def _finish(folder: Path, max_tokens: int) -> None:
    """Add the files that every checkpoint has beside weights and config.json; make all files readable."""
    GenerationConfig(eos_token_id=IDS[EOS], pad_token_id=IDS[PAD]).save_pretrained(folder)
    save_tokenizer(folder, max_tokens)
    for file in folder.iterdir():
        file.chmod(0o644)


def save_bf16(model: LlamaForCausalLM, folder: Path) -> None:
    """Save a model that is in bfloat16."""
    model.save_pretrained(folder)
    _finish(folder, model.config.max_position_embeddings)


def quantize(source: Path, precision: str, calibration: Sequence[Document], folder: Path) -> None:
    """Quantize a checkpoint and export it.

    Args:
        source: the BF16 checkpoint's folder.
        precision: a key of ``CONFIGS``.
        calibration: training documents, which set the scales of the activations.
        folder: where the checkpoint goes, in the layout of the nvidia/ namespace.
    """

    def calibrate(model: torch.nn.Module) -> None:
        for document in calibration:
            words = f"{document.prompt} {document.solution} {EOS}".split()
            model(input_ids=torch.tensor([[IDS[word] for word in words]]), use_cache=False)

    model = LlamaForCausalLM.from_pretrained(source, dtype=torch.bfloat16).eval()
    with torch.no_grad():
        quantized = mtq.quantize(model, CONFIGS[precision], calibrate)
        export_hf_checkpoint(quantized, export_dir=folder)
    _finish(folder, model.config.max_position_embeddings)
