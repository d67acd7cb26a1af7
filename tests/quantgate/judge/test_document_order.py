"""The order of documents."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantgate.judge.document_order import DocumentKey, document_order

GROUPS = st.sampled_from([None, "a", "b", "c"])
KEYS = st.builds(DocumentKey, st.text(max_size=5), st.integers(0, 3), st.text(max_size=5), GROUPS, GROUPS)
DOCUMENTS = st.lists(KEYS, unique_by=lambda key: key.content, max_size=60)


def contents(documents: list[DocumentKey], seed: int = 0) -> list[str]:
    return [documents[index].content for index in document_order(documents, seed)]


def group_of(key: DocumentKey) -> str | None:
    return key.cluster if key.stratum is None else key.stratum


@given(DOCUMENTS, st.randoms())
def test_each_document_once_wherever_it_stood(documents, random) -> None:
    ordered = contents(documents)
    assert sorted(ordered) == sorted(key.content for key in documents)
    assert contents(random.sample(documents, len(documents))) == ordered


@given(DOCUMENTS)
def test_no_id_and_no_name_of_a_subject_moves_a_document(documents) -> None:
    names = {None: None, "a": "zebra", "b": "ant", "c": ""}
    renamed = [
        DocumentKey(f"other {number}", 7, key.content, names[key.cluster], names[key.stratum])
        for number, key in enumerate(documents)
    ]
    assert contents(renamed) == contents(documents)


@given(DOCUMENTS, st.data())
def test_a_document_left_out_moves_no_two_others_of_its_subject(documents, data) -> None:
    kept = [key for key in documents if data.draw(st.booleans())]
    groups = {key.content: group_of(key) for key in documents}
    left = {key.content for key in kept}
    for group in {group_of(key) for key in kept}:
        before, after = (
            [content for content in contents(some) if groups[content] == group and content in left]
            for some in (documents, kept)
        )
        assert before == after


def test_another_seed_is_another_order() -> None:
    documents = [DocumentKey("", 0, str(n)) for n in range(50)]
    orders = [tuple(contents(documents, seed)) for seed in range(3)]
    assert len({*orders, tuple(map(str, range(50)))}) == 4


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_the_first_documents_hold_each_clusters_and_each_stratums_share(fixed, seed) -> None:
    sizes = {"law": 600, "physics": 300, "virology": 100}
    documents = [
        DocumentKey(f"{name} {n}", 0, f"{name} {n}", None if fixed else name, name if fixed else None)
        for name, size in sizes.items()
        for n in range(size)
    ]
    order = document_order(documents, seed)
    for first in range(10, 1000, 10):
        counts = Counter(documents[index].doc_id.split()[0] for index in order[:first])
        for name, size in sizes.items():
            assert counts[name] == pytest.approx(first * size / 1000, abs=2), (first, name)
