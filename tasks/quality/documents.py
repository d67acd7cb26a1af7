"""Order a task's documents, and make lm-eval ask some of them with the prompts that they have among all."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from lm_eval.utils import handle_non_serializable, hash_string

from quantgate.judge.document_order import DocumentKey, document_order
from tasks.quality.content.document import Content
from tasks.quality.content.task import Part
from tasks.quality.jsonl import CLUSTER_FIELDS, PASSAGE_FIELDS, SUBJECT_FIELDS, TEXT_FIELDS

LONGEST_CLUSTER = 80
"""Characters up to which a cluster goes by its text; a longer one, a passage, by its hash."""


FEW_SHARING = 0.01
"""Share of documents that may share another's passage before passages count as clusters."""


class Placed(NamedTuple):
    """A document's key and its place in the order that documents are asked in, from 0."""

    key: DocumentKey
    position: int


def keys_of(
    documents: Sequence[Any], contents: Sequence[Content], *, fixed_subjects: bool = False
) -> list[DocumentKey]:
    """Return each document's key: its `id`, or the hash that lm-eval logs of its content.

    Args:
        documents: every document that the task has, in the data set's order: those that share an id are numbered.
        contents: of each.
        fixed_subjects: True if subjects are strata and not clusters.
    """
    names = PASSAGE_FIELDS if fixed_subjects else CLUSTER_FIELDS
    seen: Counter[str] = Counter()
    keys = []
    for document, content in zip(documents, contents, strict=True):
        fields = _fields(document)
        given = fields.get("id")
        doc_id = str(given) if given is not None else _hash(document)
        subject = _shared(fields, SUBJECT_FIELDS) if fixed_subjects else None
        keys.append(DocumentKey(doc_id, seen[doc_id], content.normalised, _shared(fields, names), subject))
        seen[doc_id] += 1
    return keys


def _fields(document: Any) -> Mapping[str, Any]:
    return document if isinstance(document, Mapping) else {}


class _Found(NamedTuple):
    """A document of a task, where it lies in its data set."""

    part: str
    place: int
    key: DocumentKey
    passage: str | None
    exact: str


def _once(found: Iterable[_Found]) -> list[_Found]:
    """Return one of each document and its copies, always the same one, whatever the order in the data set."""
    kept: dict[str, _Found] = {}
    for one in found:
        other = kept.setdefault(one.key.content, one)
        if _rank(one) < _rank(other):
            kept[one.key.content] = one
    return list(kept.values())


def _rank(one: _Found) -> tuple[str, ...]:
    return (one.exact, one.part, one.key.cluster or "", one.key.stratum or "")


def _passage(document: Any) -> str | None:
    """Return the passage that a document is about, where it has one in a column of its own."""
    fields = _fields(document)
    name = next((name for name in TEXT_FIELDS if fields.get(name)), None)
    return None if name is None else f"{name}:{_hash(fields[name])[:16]}"


def _with_passages(found: Sequence[_Found]) -> list[_Found]:
    """Make passages that several documents share their clusters, where they have none; a few are left alone."""
    count = Counter(one.passage for one in found if one.passage)
    if count.total() - len(count) <= FEW_SHARING * len(found):
        return list(found)
    return [
        one._replace(key=one.key._replace(cluster=one.key.cluster or one.passage))
        if one.passage and count[one.passage] > 1
        else one
        for one in found
    ]


def placed_in(
    parts: Mapping[str, Part],
    start: int,
    end: int | None,
    *,
    seed: int = 0,
    grouped: bool = False,
    fixed_subjects: bool = False,
) -> dict[str, dict[int, Placed]]:
    """Return the documents at positions from ``start`` to before ``end``, by the part of the task that has them.

    Of documents that are equal after normalising one is asked.

    Args:
        parts: a group's subtasks by name, else the task itself, each with every document.
        start: the first position.
        end: the position after the last; all that there are if None.
        seed: the policy's.
        grouped: True for a group's subtasks: a subtask's name is part of its documents' keys, and is their cluster,
            whatever else they share.
        fixed_subjects: True if subtasks and other subjects are strata and not clusters.

    Returns:
        By part, and within it by place in its data set, ascending; a part without such documents isn't there.
    """
    kept: list[_Found] = []
    every = _once(one for name, part in parts.items() for one in _found(name, part, fixed=fixed_subjects))
    for name in parts:
        kept += _with_passages([one for one in every if one.part == name])
    keys = [
        _in_part(one.part, one.key, fixed_subjects=fixed_subjects) if grouped else one.key for one in kept
    ]
    order = document_order(keys, seed)
    asked = {order[position]: position for position in range(start, min(end or len(order), len(order)))}
    placed: dict[str, dict[int, Placed]] = {name: {} for name in parts}
    for number, position in asked.items():
        placed[kept[number].part][kept[number].place] = Placed(keys[number], position)
    return {name: dict(sorted(places.items())) for name, places in placed.items() if places}


def _found(name: str, part: Part, *, fixed: bool) -> Iterator[_Found]:
    keys = keys_of(part.documents, part.contents, fixed_subjects=fixed)
    for index, (key, document) in enumerate(zip(keys, part.documents, strict=True)):
        yield _Found(name, index, key, _passage(document), part.contents[index].exact)


def _in_part(part: str, key: DocumentKey, *, fixed_subjects: bool) -> DocumentKey:
    """Return the key of a subtask's document in its group."""
    name = f"{part}/{key.doc_id}"
    if not fixed_subjects:
        return key._replace(doc_id=name, cluster=part)
    return key._replace(doc_id=name, cluster=key.cluster and f"{part}/{key.cluster}", stratum=part)


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
