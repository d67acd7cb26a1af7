"""What the stub says: always the same for one checkpoint folder and one prompt, right for most prompts it knows."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
from pathlib import Path
from typing import Any

SKILL = 0.9
"""Share of known prompts that are answered rightly, by a draw on the folder's name and the prompt, if none is told."""


def draw(*what: object) -> float:
    """A number from 0 to 1 that depends on nothing but ``what``."""
    digest = hashlib.sha256("|".join(map(str, what)).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


class Answers:
    """The answers of one checkpoint.

    Args:
        checkpoint: its folder; tokenizer.json must be a WordLevel one, as the demo's.
        known: folder of JSONL files with prompts and answers.
        skill: share of known prompts that are answered rightly.
    """

    def __init__(self, checkpoint: Path, known: Path, skill: float = SKILL) -> None:
        self.name, self.skill = checkpoint.name, skill
        tokenizer = json.loads((checkpoint / "tokenizer.json").read_text())
        self.ids: dict[str, int] = tokenizer["model"]["vocab"]
        self.words = {number: word for word, number in self.ids.items()}
        self.known: dict[str, dict[str, Any]] = {}
        self.after: dict[int, dict[str, dict[str, float]]] = {}
        for file in sorted(known.glob("*.jsonl")):
            for line in file.read_text().splitlines():
                document = json.loads(line)
                self.known[document["prompt"]] = document

    def text(self, tokens: list[int]) -> str:
        """Tokens as text."""
        return " ".join(self.words[token] for token in tokens)

    def tokens(self, text: str) -> list[int]:
        """Text as tokens."""
        return [self.ids.get(word, self.ids["<unk>"]) for word in text.split()]

    def think(self, tokens: list[int], k: int) -> list[dict[str, Any] | None]:
        """``prompt_logprobs``: a distribution before each token but the first, another one for each checkpoint."""
        told: list[dict[str, Any] | None] = [None]
        for before, token in itertools.pairwise(tokens):
            every = self._after(before)
            kept = every if k >= len(every) else {i: every[i] for i in [*list(every)[:k], str(token)]}
            told.append(kept)
        return told

    def _after(self, token: int) -> dict[str, dict[str, float]]:
        """What may come after a token, the most probable first."""
        if token not in self.after:
            weights = {
                i: 0.01 + draw(token, i) ** 8 * (1 + 0.1 * draw(self.name, token, i)) for i in self.words
            }
            total = sum(weights.values())
            ranked = sorted(weights, key=lambda i: -weights[i])
            self.after[token] = {str(i): {"logprob": math.log(weights[i] / total)} for i in ranked}
        return self.after[token]

    def _right(self, prompt: str) -> bool:
        return draw(self.name, prompt) < self.skill

    def generate(self, tokens: list[int], max_tokens: int) -> dict[str, Any]:
        """A choice of a greedy generation."""
        prompt = self.text(tokens)
        document = self.known.get(prompt)
        words = str(document["solution"]).split() if document else ["so"] * 4
        if document and not self._right(prompt):
            words = [str((int(word) + 1) % 10) if word.isdigit() else word for word in words]
        kept = words[:max_tokens]
        reason = "length" if len(kept) < len(words) else "stop"
        ids = [self.ids[word] for word in kept] + ([1] if reason == "stop" else [])
        return {"text": " ".join(kept), "finish_reason": reason, "token_ids": ids}

    def _likes(self, prompt: str) -> str:
        """The word that goes on from a prompt of a multiple-choice document."""
        document = self.known[prompt]
        others = [word for word in document["choices"] if word != document["answer"]]
        return str(document["answer"] if self._right(prompt) else others[int(draw(prompt) * len(others))])

    def score(self, tokens: list[int]) -> dict[str, Any]:
        """A choice of ``echo`` with ``logprobs``: one for each token of the prompt and one generated."""
        told: list[float | None] = [None]
        top: list[dict[str, float] | None] = [None]
        for place in range(1, len(tokens)):
            prompt, word = self.text(tokens[:place]), self.words[tokens[place]]
            likes = self._likes(prompt) if "choices" in self.known.get(prompt, {}) else ""
            value = -0.125 if word == likes else -3.0 - draw(self.name, prompt, word)
            told.append(value)
            top.append({word: value, (likes or word): max(value, -0.125 if likes else value)})
        generated = {"so": -1.0}
        return {
            "text": self.text(tokens) + " so",
            "finish_reason": "length",
            "logprobs": {"token_logprobs": [*told, -1.0], "top_logprobs": [*top, generated]},
        }


def from_environment(checkpoint: str) -> Answers:
    """The answers of the checkpoint that is served.

    STUB_ANSWERS names the documents' folder, STUB_SKILLS the skill of a checkpoint folder by its name (JSON).
    """
    skills: dict[str, float] = json.loads(os.environ.get("STUB_SKILLS", "{}"))
    name = Path(checkpoint).name
    return Answers(Path(checkpoint), Path(os.environ["STUB_ANSWERS"]), skills.get(name, SKILL))
