"""Runs in the engine's environment: a checkpoint unlike the demo's, and its compressed-tensors FP8 twin.

Another vocabulary (320 words), another size (hidden 256, 3 layers), another quantizer's format (per-channel weights,
dynamic per-token inputs, as llm-compressor's FP8_DYNAMIC writes it). The weights are random.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = 320


def main(out: Path) -> None:
    """Write ``BF16`` and ``W8A8`` below ``out``."""
    torch.manual_seed(3)
    words = ["<pad>", "<s>", "</s>", "<unk>"] + [f"word{i}" for i in range(WORDS - 4)]
    model = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    model.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=model, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    config = LlamaConfig(
        vocab_size=WORDS,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=False,
        initializer_range=0.08,
    )
    plain = LlamaForCausalLM(config).to(torch.bfloat16)
    plain.save_pretrained(out / "BF16")
    tokenizer.save_pretrained(out / "BF16")
    weights: dict[str, torch.Tensor] = {}
    for name, tensor in plain.state_dict().items():
        if name.endswith("proj.weight"):
            scale = tensor.float().abs().amax(dim=1, keepdim=True) / 448.0
            weights[name] = (tensor.float() / scale).to(torch.float8_e4m3fn)
            weights[name + "_scale"] = scale.to(torch.bfloat16)
        else:
            weights[name] = tensor.contiguous()
    folder = out / "W8A8"
    folder.mkdir(parents=True)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save_pretrained(folder)
    settings = json.loads((out / "BF16" / "config.json").read_text())
    fp8 = {"num_bits": 8, "type": "float", "symmetric": True}
    settings["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": {**fp8, "strategy": "channel", "dynamic": False},
                "input_activations": {**fp8, "strategy": "token", "dynamic": True},
            }
        },
    }
    (folder / "config.json").write_text(json.dumps(settings, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
