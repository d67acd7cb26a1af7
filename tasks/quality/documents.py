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
from tasks.quality.content.near import near_clusters
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


class _Document(NamedTuple):
    """A document of a task, where it lies in its data set."""

    part: str
    row: int
    key: DocumentKey
    passage: str | None
    exact: str


def _once(documents: Iterable[_Document]) -> list[_Document]:
    """Return one of each document and its copies, always the same one, whatever the order in the data set."""
    kept: dict[str, _Document] = {}
    for document in documents:
        other = kept.setdefault(document.key.content, document)
        if _rank(document) < _rank(other):
            kept[document.key.content] = document
    return list(kept.values())


def _rank(document: _Document) -> tuple[str, ...]:
    return (document.exact, document.part, document.key.cluster or "", document.key.stratum or "")


def _passage(document: Any) -> str | None:
    """Return the passage that a document is about, where it has one in a column of its own."""
    fields = _fields(document)
    name = next((name for name in TEXT_FIELDS if fields.get(name)), None)
    return None if name is None else f"{name}:{_hash(fields[name])[:16]}"


def _with_passages(documents: Sequence[_Document]) -> list[_Document]:
    """Make passages that several documents share their clusters, where they have none; a few are left alone."""
    count = Counter(document.passage for document in documents if document.passage)
    if count.total() - len(count) <= FEW_SHARING * len(documents):
        return list(documents)
    return [
        document._replace(key=document.key._replace(cluster=document.key.cluster or document.passage))
        if document.passage and count[document.passage] > 1
        else document
        for document in documents
    ]


def _with_near_copies(part: Part, documents: Sequence[_Document]) -> list[_Document]:
    """Make near-copies with the same target a cluster, where they are many and have none."""
    ordered = sorted(documents, key=lambda document: document.key.content)
    first = near_clusters([part.questions[document.row] for document in ordered])
    return [
        document
        if leader is None or document.key.cluster
        else document._replace(key=document.key._replace(cluster=f"near:{ordered[leader].key.content[:16]}"))
        for document, leader in zip(ordered, first, strict=True)
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
    kept: list[_Document] = []
    distinct = _once(
        document
        for name, part in parts.items()
        for document in _documents_of(name, part, fixed=fixed_subjects)
    )
    for name in parts:
        of_part = _with_passages([document for document in distinct if document.part == name])
        kept += of_part if grouped and not fixed_subjects else _with_near_copies(parts[name], of_part)
    keys = [
        _in_part(document.part, document.key, fixed_subjects=fixed_subjects) if grouped else document.key
        for document in kept
    ]
    order = document_order(keys, seed)
    asked = {order[position]: position for position in range(start, min(end or len(order), len(order)))}
    placed: dict[str, dict[int, Placed]] = {name: {} for name in parts}
    for number, position in asked.items():
        placed[kept[number].part][kept[number].row] = Placed(keys[number], position)
    return {name: dict(sorted(places.items())) for name, places in placed.items() if places}


def _documents_of(name: str, part: Part, *, fixed: bool) -> Iterator[_Document]:
    keys = keys_of(part.documents, part.contents, fixed_subjects=fixed)
    for index, (key, document) in enumerate(zip(keys, part.documents, strict=True)):
        yield _Document(name, index, key, _passage(document), part.contents[index].exact)


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
