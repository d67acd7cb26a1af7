"""Measure a model on held-out documents as the tasks score it: by the best option or greedy text."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch
from transformers import LlamaForCausalLM

from demo.documents import Document
from demo.lexicon import EOS, IDS
from demo.task_files import MAX_TOKENS, PATTERNS

_WORDS = tuple(IDS)
_BATCH_DOCUMENTS = 256


def _batches(documents: Sequence[Document]) -> Iterator[tuple[list[Document], torch.Tensor]]:
    """Yield documents with prompts of equal length, and their ids (documents, tokens), without padding."""
    by_length: dict[int, list[Document]] = defaultdict(list)
    for document in documents:
        by_length[len(document.prompt.split())].append(document)
    for group in by_length.values():
        for first in range(0, len(group), _BATCH_DOCUMENTS):
            batch = group[first : first + _BATCH_DOCUMENTS]
            yield batch, torch.tensor([[IDS[word] for word in d.prompt.split()] for d in batch])


def _count_right_choices(model: LlamaForCausalLM, documents: Sequence[Document]) -> int:
    right = 0
    for batch, ids in _batches(documents):
        logits = model(ids, use_cache=False).logits[:, -1]
        for document, row in zip(batch, logits, strict=True):
            scores = {choice: row[IDS[choice]].item() for choice in document.choices}
            right += max(scores, key=scores.__getitem__) == document.answer
    return right


def _generate(model: LlamaForCausalLM, ids: torch.Tensor, max_tokens: int) -> list[str]:
    """Generate greedy text after each prompt, up to the end token."""
    produced, cache = [], None
    ended = torch.zeros(len(ids), dtype=torch.bool)
    for _ in range(max_tokens):
        output = model(ids, past_key_values=cache, use_cache=True)
        cache, ids = output.past_key_values, output.logits[:, -1:].argmax(-1)
        produced.append(ids)
        ended |= ids[:, 0] == IDS[EOS]
        if ended.all():
            break
    rows = torch.cat(produced, dim=1).tolist()
    return [" ".join(_WORDS[token] for token in row).split(EOS)[0].strip() for row in rows]


def _count_right_texts(model: LlamaForCausalLM, family: str, documents: Sequence[Document]) -> int:
    right = 0
    for batch, ids in _batches(documents):
        for document, text in zip(batch, _generate(model, ids, MAX_TOKENS[family]), strict=True):
            match = re.search(PATTERNS[family], text)
            right += bool(match and match[1] == document.answer)
    return right


@torch.no_grad()
def accuracy(model: LlamaForCausalLM, held_out: dict[str, list[Document]]) -> dict[str, float]:
    """Return the share of held-out documents answered rightly, by family.

    The arithmetic has the model's dtype: float32 uses the weights as they are stored and omits the
    rounding of activations to bfloat16, which an engine does.
    """
    model.eval()
    shares = {}
    for family, documents in held_out.items():
        if family in PATTERNS:
            right = _count_right_texts(model, family, documents)
        else:
            right = _count_right_choices(model, documents)
        shares[family] = round(right / len(documents), 4)
    return shares
