"""Order a task's documents, and make lm-eval ask some of them with the prompts that they have among all."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from lm_eval.utils import handle_non_serializable, hash_string

from quantgate.judge.document_order import DocumentKey, document_order
from tasks.quality.jsonl import CLUSTER_FIELDS, PASSAGE_FIELDS, SUBJECT_FIELDS, TEXT_FIELDS

LONGEST_CLUSTER = 80
"""Characters up to which a cluster goes by its text; a longer one, a passage, by its hash."""


FEW_COPIES = 0.01
"""Share of documents that may be copies of others before they count as clusters."""


class Placed(NamedTuple):
    """A document's key and its place in the order that documents are asked in, from 0."""

    key: DocumentKey
    position: int


def keys_of(documents: Sequence[Any], *, fixed_subjects: bool = False) -> list[DocumentKey]:
    """Return each document's key: its `id`, or the hash that lm-eval logs of its content.

    Args:
        documents: every document that the task has, in the data set's order: those that share an id are numbered.
        fixed_subjects: True if subjects are strata and not clusters.
    """
    names = PASSAGE_FIELDS if fixed_subjects else CLUSTER_FIELDS
    seen: Counter[str] = Counter()
    keys = []
    for document, content, passage in zip(documents, _copies(documents), _passages(documents), strict=True):
        fields = document if isinstance(document, Mapping) else {}
        given = fields.get("id")
        doc_id = str(given) if given is not None else _hash(document)
        subject = _shared(fields, SUBJECT_FIELDS) if fixed_subjects else None
        keys.append(DocumentKey(doc_id, seen[doc_id], _shared(fields, names) or passage or content, subject))
        seen[doc_id] += 1
    return keys


def _passages(documents: Sequence[Any]) -> list[str | None]:
    """Return for each document the passage that it shares with others, or None."""
    passages = []
    for document in documents:
        fields = document if isinstance(document, Mapping) else {}
        name = next((name for name in TEXT_FIELDS if fields.get(name)), None)
        passages.append(None if name is None else f"{name}:{_hash(fields[name])[:16]}")
    return _in_common(passages)


def _copies(documents: Sequence[Any]) -> list[str | None]:
    """Return for each document what it has in common with its copies, whatever their ids; else None.

    Copies are answered alike and say no more than one of them, so they are a cluster.
    """
    contents = [
        _hash({k: v for k, v in document.items() if k != "id"} if isinstance(document, Mapping) else document)
        for document in documents
    ]
    return _in_common([f"copies:{content[:16]}" for content in contents])


def _in_common(contents: Sequence[str | None]) -> list[str | None]:
    """Return the contents that several documents share; up to `FEW_COPIES` are left alone."""
    count = Counter(filter(None, contents))
    if count.total() - len(count) <= FEW_COPIES * len(contents):
        return [None] * len(contents)
    return [content if content and count[content] > 1 else None for content in contents]


def placed_in(
    task: str,
    parts: Mapping[str, Sequence[Any]],
    start: int,
    end: int | None,
    *,
    grouped: bool = False,
    fixed_subjects: bool = False,
) -> dict[str, dict[int, Placed]]:
    """Return the documents at positions from ``start`` to before ``end``, by the part of the task that has them.

    Args:
        task: the task's name.
        parts: every document of each of its parts: of a group's subtasks, else of the task itself.
        start: the first position.
        end: the position after the last; all that there are if None.
        grouped: True for a group's subtasks: a subtask's name is part of its documents' keys, and is their cluster,
            whatever else they share.
        fixed_subjects: True if subtasks and other subjects are strata and not clusters.

    Returns:
        By part, and within it by place in its data set, ascending; a part without such documents isn't there.
    """
    places = [(part, index) for part, documents in parts.items() for index in range(len(documents))]
    keys = [
        _in_part(part, key, fixed_subjects=fixed_subjects) if grouped else key
        for part, documents in parts.items()
        for key in keys_of(documents, fixed_subjects=fixed_subjects)
    ]
    order = document_order(task, keys)
    placed: dict[str, dict[int, Placed]] = {}
    asked = {order[position]: position for position in range(start, min(end or len(order), len(order)))}
    for number in sorted(asked):
        part, index = places[number]
        placed.setdefault(part, {})[index] = Placed(keys[number], asked[number])
    return placed


def _in_part(part: str, key: DocumentKey, *, fixed_subjects: bool) -> DocumentKey:
    """Return the key of a subtask's document in its group."""
    name = f"{part}/{key.doc_id}"
    if not fixed_subjects:
        return DocumentKey(name, key.doc_repeat, part)
    return DocumentKey(name, key.doc_repeat, key.cluster and f"{part}/{key.cluster}", part)


def ask_only(task: Any, documents: Sequence[Any], indices: Sequence[int]) -> None:
    """Make lm-eval's task ask some documents, each with the very prompt that it has among all of them.

    lm-eval's own `samples=` would not do: it draws few-shot examples with one random generator, document after
    document, so that a prompt would depend on what else is asked; it numbers documents by their place in the list
    and not in the data set; and it reads the data set again each time, which shuffles some tasks' choices again.

    Args:
        task: an lm-eval task (0.4.13); changed in place.
        documents: every document that it has.
        indices: of those to ask, ascending.
    """
    build, waiting, drawn = task.fewshot_context, iter(indices), 0

    def iterate(**_: Any) -> Iterator[tuple[int, Any]]:
        return ((index, documents[index]) for index in indices)

    def context(document: Any, num_fewshot: int, **settings: Any) -> Any:
        nonlocal drawn
        index = next(waiting)
        if num_fewshot > 0:
            for passed in documents[drawn:index]:
                _draw(task, passed, num_fewshot)
        drawn = index + 1
        return build(document, num_fewshot, **settings)

    task.doc_iterator = iterate
    task.fewshot_context = context


def _draw(task: Any, document: Any, num_fewshot: int) -> None:
    """Draw the examples of a document that isn't asked, as lm-eval does for one that is."""
    among_them = task.fewshot_cfg.split == task.config.test_split
    task.sampler.sample(n=num_fewshot, eval_doc=document if among_them else None)


def _hash(document: Any) -> str:
    """Return the hash of a document's content that lm-eval logs."""
    text = json.dumps(document, indent=2, default=handle_non_serializable, ensure_ascii=False)
    return str(hash_string(text))


def _shared(fields: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """Return what the document shares with others: the first of the fields that it has."""
    value = next((fields[name] for name in names if fields.get(name) is not None), None)
    text = None if value is None else str(value)
    if text is None or len(text) <= LONGEST_CLUSTER:
        return text
    return hashlib.sha256(text.encode()).hexdigest()[:16]
