"""Normalise a text, so that two that ask the same are equal."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_INVISIBLE = ("Cc", "Cf", "Cs")
_DASHES = (
    "\N{HYPHEN}\N{NON-BREAKING HYPHEN}\N{FIGURE DASH}\N{EN DASH}\N{EM DASH}\N{HORIZONTAL BAR}\N{MINUS SIGN}"
)
_PREFIXES = {"<super>": "^", "<sub>": "_", "<fraction>": " "}
"""What stands before a character that NFKC makes a plain digit or letter: 3² is no 32."""

_QUOTES = (
    "\"'\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u00ab\u00bb\u2039\u203a\u300c\u300d\u300e\u300f"
)
_BETWEEN_DIGITS = re.compile(rf"(?<=\d)[{_QUOTES}]+(?=\d)")
_SENTENCE = re.compile(
    r"\.(?!\d)"  # 3.5 and .5 keep theirs
    r"|(?<!\d)[,:]|[,:](?!\d)"  # so do 1,000 and 3:2
    r"|(?<![\d)\]!])!+(?!=)"  # so do 5!, (n - 1)! and !=
    r"|[;?\u00a1\u00bf\u3001\u3002]"
)


def normalised(text: str) -> str:
    """Return a text without what changes no question: case, runs of blanks, quotes, punctuation of sentences.

    Digits are content, and so are signs and operators: 3.5 and 35, -1 and 1, 3-2 and 32 stay apart. A text of
    punctuation alone is kept.

    Args:
        text: a prompt, a choice or an answer.

    Source of the folding: The Unicode Standard, definition D146 (compatibility caseless matching).
    """
    folded = text.lower() if text.isascii() else _folded(text)
    folded = _BETWEEN_DIGITS.sub("\0", folded.translate(_CONTROL))
    plain = folded.translate(_UNQUOTED).replace("\0", "'")
    plain = " ".join(_SENTENCE.sub(" ", plain).split())
    kept = plain or " ".join(folded.replace("\0", "'").split())
    return unicodedata.normalize("NFKC", kept)  # a mark may have come to stand behind a letter


_CONTROL = {code: None for code in (*range(32), 127) if not chr(code).isspace()}
_UNQUOTED = dict.fromkeys(map(ord, _QUOTES))


def _folded(text: str) -> str:
    """Return a text in compatibility form, case folded, its dashes one character."""
    folded = "".join(map(_plain, text))
    for _ in range(2):
        folded = unicodedata.normalize("NFKD", folded).casefold()
    return unicodedata.normalize("NFKC", "".join(map(_plain, folded)))


@lru_cache(maxsize=4096)
def _plain(character: str) -> str:
    """Return a character as it counts: nothing for one that can't be seen, a hyphen for a dash."""
    if character.isascii() or character.isspace():
        return character
    if unicodedata.category(character) in _INVISIBLE or "\ufe00" <= character <= "\ufe0f":
        return ""
    if character in _DASHES:
        return "-"
    return _PREFIXES.get(unicodedata.decomposition(character).partition(" ")[0], "") + character
