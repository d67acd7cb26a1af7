"""A task's documents: what tells them apart, and in which order they are asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from quantgate.judge.document_order import DocumentKey, document_order
from tasks.quality.content.document import content_of
from tasks.quality.content.task import Part
from tasks.quality.documents import Placed, keys_of, placed_in


def part_of(documents: Sequence[Any]) -> Part:
    """Documents that no task renders: all their columns but the id are what they ask."""
    return Part(None, documents, [None] * len(documents), [content_of(one, None) for one in documents])


def keys(documents: Sequence[Any], **settings: Any) -> list[DocumentKey]:
    return keys_of(documents, part_of(documents).contents, **settings)


def placed(documents: Sequence[Any], start: int = 0, end: int | None = None, **how: Any) -> dict[int, Placed]:
    """The documents that are asked, in the order of the data set."""
    return placed_in({"t": part_of(documents)}, start, end, **how).get("t", {})


def in_order(documents: Sequence[Any], **how: Any) -> list[Any]:
    found = placed(documents, **how)
    return [documents[index] for index in sorted(found, key=lambda index: found[index].position)]


def test_documents_that_share_an_id_are_numbered_whatever_they_ask() -> None:
    documents = [{"id": 5}, {"id": 5, "q": 1}, {"id": 0}, {"q": 1}, {"id": 5}, {"q": 1}]
    made = [(key.doc_id, key.doc_repeat) for key in keys(documents)]
    content = made[3][0]
    assert made == [("5", 0), ("5", 1), ("0", 0), (content, 0), ("5", 2), (content, 1)]
    assert len(content) == 64


@pytest.mark.parametrize(
    ("document", "cluster"),
    [
        ({"subject": "law"}, "law"),
        ({"passage": "p" * 80}, "p" * 80),
        ({"passage": "p" * 81, "subject": "law"}, "37b96d774fd96fc8"),
        ({"cluster": 3, "subject": "law"}, "3"),
        ({"subject": None}, None),
        ("only text", None),
    ],
)
def test_what_a_document_shares_with_others(document: Any, cluster: str | None) -> None:
    assert [key.cluster for key in keys([document])] == [cluster]


def test_places_are_of_the_order_and_numbers_of_the_data_set() -> None:
    documents = [{"id": number, "q": number} for number in range(10)]
    order = document_order(keys(documents))
    first, rest = (placed(documents, start, end) for start, end in ((0, 4), (4, None)))
    assert [index for index, _ in sorted(first.items(), key=lambda one: one[1].position)] == order[:4]
    assert list(first) == sorted(order[:4])
    assert sorted({**first, **rest}) == list(range(10))
    assert [one.position for one in rest.values()] == [order.index(index) for index in rest]
    assert placed(documents, 8, 99).keys() == set(order[8:])
    assert in_order(documents, seed=1) != in_order(documents)


def test_copies_are_asked_once_always_the_same_one_whatever_their_ids() -> None:
    documents = [{"id": number, "q": f"Q {number // 2}{' ' * (number % 2)}"} for number in range(10)]
    found = in_order(documents)
    assert [one["q"] for one in found] == [one["q"] for one in in_order(documents[::-1])]
    assert sorted(one["q"].strip() for one in found) == [f"Q {number}" for number in range(5)]
    assert {place.key.cluster for place in placed(documents).values()} == {None}
    assert {place.key.doc_repeat for place in placed([{"q": 1}] * 5).values()} == {0}
    assert len(placed([{"q": "it is 3.5"}, {"q": "it is 35"}])) == 2


def test_lines_that_are_left_out_reversed_or_numbered_move_no_others() -> None:
    documents = [{"id": number, "q": f"w{number}"} for number in range(100)]
    whole = [one["q"] for one in in_order(documents)]
    assert [one["q"] for one in in_order(documents[::-1])] == whole
    fewer = [one for one in documents if one["id"] % 10]
    assert [one["q"] for one in in_order(fewer)] == [q for q in whole if int(q[1:]) % 10]
    renamed = [{"id": json.dumps(one), "q": one["q"]} for one in documents]
    assert [one["q"] for one in in_order(renamed)] == whole


def test_a_story_that_several_are_asked_about_is_their_passage() -> None:
    documents = [{"narrative": f"story {number // 4}", "q": number} for number in range(40)]
    documents += [{"context": f"its own {number}", "q": number} for number in range(10)]
    documents += [{"context": "its own 3", "q": 3}]
    clusters = [place.key.cluster for place in placed(documents, fixed_subjects=True).values()]
    assert len(set(clusters[:40])) == 10
    assert set(clusters[40:]) == {None}, "copies share no passage, as one of them is asked"
    few = [{"context": str(min(number, 198))} | {"q": number} for number in range(200)]
    assert {place.key.cluster for place in placed(few).values()} == {None}, "as few share one"


def test_fixed_subjects_are_strata_and_passages_stay_clusters() -> None:
    documents = [
        {"subject": "law"},
        {"subject": "law", "passage": "p1"},
        {"category": "art", "q": 1},
        {"q": 2},
    ]
    fixed = keys(documents, fixed_subjects=True)
    assert [(key.cluster, key.stratum) for key in fixed] == [
        (None, "law"),
        ("p1", "law"),
        (None, "art"),
        (None, None),
    ]
    assert [key.cluster for key in keys(documents)] == ["law", "p1", "art", None]


def test_a_groups_subtasks_are_clusters_or_fixed() -> None:
    parts = {
        "law": part_of([{"q": number} for number in range(60)]),
        "art": part_of([{"q": 100 + number, "passage": str(number // 2)} for number in range(20)]),
    }
    found = {fixed: placed_in(parts, 0, 40, grouped=True, fixed_subjects=fixed) for fixed in (False, True)}
    for asked in found.values():
        shares = {part: len(placed) for part, placed in asked.items()}
        assert shares == pytest.approx({"law": 30, "art": 10}, abs=1)
    clusters = {
        fixed: {place.key.cluster for placed in asked.values() for place in placed.values()}
        for fixed, asked in found.items()
    }
    assert clusters[False] == {"law", "art"}
    assert None in clusters[True]
    assert all(cluster.startswith("art/") for cluster in clusters[True] - {None})
    assert len(clusters[True]) > 5
    assert all(place.key.doc_id.startswith("law/") for place in found[True]["law"].values())
    again = placed_in({"law": parts["law"], "tal": parts["law"]}, 0, None, grouped=True)
    assert {name: len(placed) for name, placed in again.items()} == {"law": 60}, "what both ask is asked once"
