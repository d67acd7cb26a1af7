"""Make damaged copies of the demo's BF16 checkpoint, which no verdict may let pass.

``python -m demo.damage --out FOLDER`` writes one folder for each entry of ``DAMAGES``, and ``CHAT``, the undamaged
checkpoint with a chat template. It edits weights as they are stored, so it needs only numpy, and the same
input gives the same bytes.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SOURCE = Path(__file__).parent / "checkpoints" / "quantgate-demo-BF16"
SEED = 20261124

Weights = dict[str, np.ndarray]
"""Tensors by name, bfloat16 as the uint16 of its bits."""

MODEL, TOKENIZER, TEMPLATE = "model.safetensors", "tokenizer.json", "chat_template.jinja"

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ ('' if loop.first else ' ') + ('user : ' if message.role == 'user' else 'bot : ') + message.content }}"
    "{%- endfor -%}"
    "{{ ' bot :' if add_generation_prompt else '' }}"
)
"""Template of a dialogue as the model was trained on it."""

_SHOUTED = "(message.content | upper if message.role == 'user' else message.content)"
BROKEN_TEMPLATES = {"template-in-capitals": CHAT_TEMPLATE.replace("message.content", _SHOUTED)}
"""Templates that change the user's text to words that the tokenizer doesn't know."""

CHAT = "chat"
"""The undamaged checkpoint to which a broken template is compared."""


def read_weights(file: Path) -> tuple[bytes, Weights]:
    """Read a safetensors file of bfloat16 tensors.

    Its layout: eight bytes with the header's length, the header, which is JSON, and the tensors' bytes.

    Args:
        file: a checkpoint's only weight file.

    Returns:
        The bytes before the tensors, and the tensors in the order of their bytes.

    Raises:
        ValueError: a tensor is not bfloat16.
    """
    content = file.read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:begin])
    header.pop("__metadata__", None)
    weights: Weights = {}
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        if entry["dtype"] != "BF16":
            raise ValueError(f"{name} is {entry['dtype']}: only bfloat16 can be edited")
        first, end = entry["data_offsets"]
        bits = np.frombuffer(content[begin + first : begin + end], "<u2")
        weights[name] = bits.reshape(entry["shape"]).copy()
    return content[:begin], weights


def write_weights(file: Path, header: bytes, weights: Weights) -> None:
    """Write the result of ``read_weights``: the same tensors, with the same shapes and in the same order."""
    file.write_bytes(header + b"".join(bits.astype("<u2").tobytes() for bits in weights.values()))


def widened(bits: np.ndarray) -> np.ndarray:
    """Convert bfloat16 bits to float32 of the same values."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def narrowed(values: np.ndarray) -> np.ndarray:
    """Round finite float32 to the nearest bfloat16, ties to the even one, as bits."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def scale(weights: Weights, names: Sequence[str], factor: float) -> None:
    """Multiply matrices by a factor, as a wrong scale in a quantized file would."""
    for name in names:
        weights[name] = narrowed(widened(weights[name]) * np.float32(factor))


def swap_layers(weights: Weights, layer: int, other: int) -> None:
    """Swap two layers."""
    first, second = f"model.layers.{layer}.", f"model.layers.{other}."
    for name in [name for name in weights if name.startswith(first)]:
        counterpart = second + name.removeprefix(first)
        weights[name], weights[counterpart] = weights[counterpart], weights[name]


def shuffle_rows(weights: Weights, name: str, share: float, seed: int) -> None:
    """Permute a share of a matrix's rows, in one cycle through them all."""
    rows = np.random.default_rng(seed).permutation(len(weights[name]))[: round(share * len(weights[name]))]
    weights[name][rows] = weights[name][np.roll(rows, 1)]


def swap_words(tokenizer: Path, pairs: Sequence[tuple[str, str]]) -> None:
    """Swap the ids of words in a word-level tokenizer.json."""
    content = json.loads(tokenizer.read_text(encoding="utf-8"))
    ids = content["model"]["vocab"]
    for word, other in pairs:
        ids[word], ids[other] = ids[other], ids[word]
    content["model"]["vocab"] = dict(sorted(ids.items(), key=lambda item: int(item[1])))
    tokenizer.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")


@dataclass(frozen=True)
class Damage:
    """Damage that is done to a copy of the checkpoint."""

    about: str
    weights: Callable[[Weights], None] | None = None
    words: tuple[tuple[str, str], ...] = ()
    template: str | None = None

    def apply(self, folder: Path) -> None:
        """Damage the files of a copy."""
        if self.weights is not None:
            header, weights = read_weights(folder / MODEL)
            self.weights(weights)
            write_weights(folder / MODEL, header, weights)
        if self.words:
            swap_words(folder / TOKENIZER, self.words)
        if self.template is not None:
            (folder / TEMPLATE).write_text(self.template, encoding="utf-8")


def _scaled(factor: float) -> Damage:
    names = [f"model.layers.{layer}.mlp.down_proj.weight" for layer in range(4)]
    return Damage(f"every down_proj times {factor:g}", weights=lambda weights: scale(weights, names, factor))


STRENGTHS = (0.65, 0.6, 0.5)
"""Factors of the scaled weights, from the weakest damage to the strongest."""

DAMAGES = {
    **{f"scaled-{factor:g}": _scaled(factor) for factor in STRENGTHS},
    "layers-swapped": Damage("layers 2 and 3 swapped", weights=lambda weights: swap_layers(weights, 2, 3)),
    "rows-shuffled": Damage(
        "3 % of the embedding's rows shuffled",
        weights=lambda weights: shuffle_rows(weights, "model.embed_tokens.weight", 0.03, SEED),
    ),
    "words-swapped": Damage(
        "a tokenizer that has three pairs of names the other way round",
        words=(("dan", "dora"), ("lou", "luca"), ("mara", "max")),
    ),
    **{name: Damage("a broken chat template", template=text) for name, text in BROKEN_TEMPLATES.items()},
}
"""Damages by name; each costs more than twice the policy's margin on some task (`make test-damage` confirms it)."""


def make(out: Path, source: Path = SOURCE) -> dict[str, Path]:
    """Write a damaged copy of a checkpoint for every entry of ``DAMAGES``, and the undamaged one for chats.

    Args:
        out: folder for the copies; existing ones of the same names are replaced.
        source: the checkpoint.

    Returns:
        Folders by the damage's name, ``CHAT`` among them.
    """
    made = {}
    for name, damage in {CHAT: Damage("with a chat template", template=CHAT_TEMPLATE), **DAMAGES}.items():
        folder = out / f"{source.name}-{name}"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, folder)
        damage.apply(folder)
        made[name] = folder
    return made


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoints")
    for name, folder in make(parser.parse_args().out).items():
        print(f"{name}: {folder}")


if __name__ == "__main__":
    main()
