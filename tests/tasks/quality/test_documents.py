"""A task's documents: what tells them apart, and in which order they are asked."""

from __future__ import annotations

from typing import Any

import pytest

from quantgate.judge.document_order import document_order
from tasks.quality.documents import keys_of, placed_in


def test_documents_that_share_an_id_are_numbered_whatever_they_ask() -> None:
    documents = [{"id": 5}, {"id": 5, "q": 1}, {"id": 0}, {"q": 1}, {"id": 5}, {"q": 1}]
    made = [(key.doc_id, key.doc_repeat) for key in keys_of(documents)]
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
    assert [key.cluster for key in keys_of([document])] == [cluster]


def test_places_are_of_the_order_and_numbers_of_the_data_set() -> None:
    documents = [{"id": number} for number in range(10)]
    order = document_order("t", keys_of(documents))
    first, rest = (placed_in("t", {"t": documents}, start, end)["t"] for start, end in ((0, 4), (4, None)))
    assert [index for index, _ in sorted(first.items(), key=lambda one: one[1].position)] == order[:4]
    assert list(first) == sorted(order[:4])
    assert sorted({**first, **rest}) == list(range(10))
    assert [one.position for one in rest.values()] == [order.index(index) for index in rest]
    assert placed_in("t", {"t": documents}, 8, 99)["t"].keys() == set(order[8:])


def test_copies_are_a_cluster_whatever_their_ids_unless_they_are_few() -> None:
    documents = [{"id": number, "q": number // 2} for number in range(10)] + [{"id": 10, "q": 10}]
    clusters = [key.cluster for key in keys_of(documents)]
    assert clusters[-1] is None
    assert len(set(clusters[:10])) == 5
    assert all(one == other and one for one, other in zip(clusters[:10:2], clusters[1:10:2], strict=True))
    few = [{"q": number} for number in range(200)] + [{"q": 0}]
    assert {key.cluster for key in keys_of(few)} == {None}
    named = [{"q": 1, "subject": "law"} for _ in range(5)]
    assert {key.cluster for key in keys_of(named)} == {"law"}


def test_a_story_that_several_are_asked_about_is_their_passage() -> None:
    documents = [{"narrative": f"story {number // 4}", "q": number} for number in range(40)]
    documents += [{"context": f"its own {number}", "q": number} for number in range(10)]
    clusters = [key.cluster for key in keys_of(documents, fixed_subjects=True)]
    assert len(set(clusters[:40])) == 10
    assert set(clusters[40:]) == {None}
    few = [{"context": str(min(number, 198))} | {"q": number} for number in range(200)]
    assert {key.cluster for key in keys_of(few)} == {None}, "as few copies are"


def test_fixed_subjects_are_strata_and_passages_stay_clusters() -> None:
    documents = [
        {"subject": "law"},
        {"subject": "law", "passage": "p1"},
        {"category": "art", "q": 1},
        {"q": 2},
    ]
    keys = keys_of(documents, fixed_subjects=True)
    assert [(key.cluster, key.stratum) for key in keys] == [
        (None, "law"),
        ("p1", "law"),
        (None, "art"),
        (None, None),
    ]
    assert [key.cluster for key in keys_of(documents)] == ["law", "p1", "art", None]


def test_a_groups_subtasks_are_clusters_or_fixed() -> None:
    parts = {
        "law": [{"q": number} for number in range(60)],
        "art": [{"q": number, "passage": str(number // 2)} for number in range(20)],
    }
    found = {
        fixed: placed_in("exam", parts, 0, 40, grouped=True, fixed_subjects=fixed) for fixed in (False, True)
    }
    for asked in found.values():
        assert {part: len(placed) for part, placed in asked.items()} == {"law": 30, "art": 10}
    clusters = {
        fixed: {place.key.cluster for placed in asked.values() for place in placed.values()}
        for fixed, asked in found.items()
    }
    assert clusters[False] == {"law", "art"}
    assert None in clusters[True]
    assert "art/3" in clusters[True]
    assert "law" not in clusters[True]
    assert all(place.key.doc_id.startswith("law/") for place in found[True]["law"].values())
