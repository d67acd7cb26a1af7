"""The order of documents."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantgate.judge.document_order import DocumentKey, document_order

KEYS = st.builds(DocumentKey, st.text(max_size=5), st.integers(0, 3), st.sampled_from([None, "a", "b", "c"]))


@given(st.lists(KEYS, unique=True, max_size=60), st.randoms())
def test_each_document_once_wherever_it_stood(documents, random) -> None:
    ordered = [documents[index] for index in document_order("sums", documents)]
    assert sorted(ordered, key=str) == sorted(documents, key=str)
    shuffled = random.sample(documents, len(documents))
    assert [shuffled[index] for index in document_order("sums", shuffled)] == ordered


def test_another_task_has_another_order() -> None:
    documents = [DocumentKey(str(n), 0, None) for n in range(50)]
    assert document_order("sums", documents) != document_order("cloze", documents)
    assert document_order("sums", documents) != list(range(50))


@pytest.mark.parametrize("fixed", [False, True])
def test_the_first_documents_hold_each_clusters_and_each_stratums_share(fixed) -> None:
    sizes = {"law": 600, "physics": 300, "virology": 100}
    documents = [
        DocumentKey(f"{name} {n}", 0, None if fixed else name, name if fixed else None)
        for name, size in sizes.items()
        for n in range(size)
    ]
    order = document_order("exam", documents)
    for first in (100, 250, 500):
        counts = Counter(documents[index].doc_id.split()[0] for index in order[:first])
        for name, size in sizes.items():
            assert counts[name] == pytest.approx(first * size / 1000, abs=1.01), (first, name)
