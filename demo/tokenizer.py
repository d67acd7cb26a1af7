"""Build the demo's word-level tokenizer and save it as a fast Hugging Face tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from demo.lexicon import EOS, IDS, PAD, UNKNOWN


def build_tokenizer() -> Tokenizer:
    """Return a tokenizer that splits at white space and joins by single spaces; it adds nothing to a prompt.

    Every id is a word, and a word is never split: encoding a decoded text gives the same ids, which
    keeps the length of a load generator's random prompts.
    """
    tokenizer = Tokenizer(WordLevel(IDS, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in (PAD, EOS, UNKNOWN)])
    return tokenizer


def save_tokenizer(folder: Path, max_tokens: int) -> None:
    """Write tokenizer.json and tokenizer_config.json.

    Args:
        folder: the checkpoint's folder.
        max_tokens: longest sequence of the model.
    """
    build_tokenizer().save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,  # it would glue "." and "?" to the word before
        "eos_token": EOS,
        "pad_token": PAD,
        "unk_token": UNKNOWN,
        "model_max_length": max_tokens,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
