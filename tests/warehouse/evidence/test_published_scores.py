"""What others' scores and counts can conclude, against enumeration and against figures known from elsewhere."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest

from docs.pages.outside_cases import PAGE, outside_page
from quantgate.judge.stats.exact import p_inferior, p_noninferior
from tests.support.paper import paper_connection
from warehouse.evidence.published_scores import (
    Concluded,
    read_pairs,
    read_scores,
    unpaired_interval,
)

ALPHA, POWER = 0.05, 0.8


def arrangements(before: int, after: int, n: int) -> list[tuple[int, int]]:
    """Every (worse, better) that two counts allow, by the documents that both got right."""
    return [
        (before - both, after - both) for both in range(max(0, before + after - n), min(before, after) + 1)
    ]


@pytest.mark.parametrize(
    ("before", "after", "n", "margin"),
    [
        (90, 90, 100, 0.10),
        (95, 99, 100, 0.10),
        (100, 100, 100, 0.05),
        (99, 60, 100, 0.10),
        (70, 55, 100, 0.05),
        (50, 48, 100, 0.01),
        (97, 96, 100, 0.10),
    ],
)
def test_scores_conclude_what_every_arrangement_says(before: int, after: int, n: int, margin: float) -> None:
    """Against all arrangements of the documents: shown means in each of them, undecidable in none."""
    every = arrangements(before, after, n)
    within = {b + c for b, c in every if p_noninferior(b, c, n, margin) <= ALPHA}
    beyond = {b + c for b, c in every if p_inferior(b, c, n, margin) <= ALPHA}
    expected = Concluded.UNDECIDABLE
    if within:
        expected = Concluded.WITHIN if len(within) == len(every) else Concluded.WITHIN_IF
    elif beyond:
        expected = Concluded.BEYOND if len(beyond) == len(every) else Concluded.BEYOND_IF
    read = read_scores(before / n, after / n, n, margin, ALPHA, POWER)
    assert read.concluded is expected
    assert (read.fewest_flips, read.most_flips) == (min(map(sum, every)), max(map(sum, every)))
    assert read.flips_allowed == (max(within) if expected is Concluded.WITHIN_IF else None)


def test_rounding_counts_against_what_is_claimed() -> None:
    exact = read_scores(0.9, 0.9, 100, 0.05, ALPHA, POWER)
    rounded = read_scores(0.9, 0.9, 100, 0.05, ALPHA, POWER, rounding=0.02)
    assert exact.flips_allowed is not None
    assert rounded.flips_allowed is None or rounded.flips_allowed < exact.flips_allowed
    with pytest.raises(ValueError, match="no share of 30 documents"):
        read_scores(0.815, 0.8, 30, 0.05, ALPHA, POWER, rounding=0.0005)


def pairs_of_mcnemar(net_loss: int, p: float, n: int, rounding: float = 5e-5) -> list[tuple[int, int]]:
    """Every (worse, better) with that difference whose two-sided exact McNemar p-value reads ``p``.

    Args:
        net_loss: worse - better, documents.
        p: the published p-value.
        n: paired documents.
        rounding: half of its last digit.
    """
    return [
        (net_loss + better, better)
        for better in range((n - net_loss) // 2 + 1)
        if abs(float(binomtest(better, net_loss + 2 * better, 0.5).pvalue) - p) <= rounding
    ]


def test_counts_are_recovered_from_a_published_p_value() -> None:
    assert pairs_of_mcnemar(41 - 28, 0.0044, 110) == [(16, 3)]
    assert (round(100 * 41 / 110, 1), round(100 * 28 / 110, 1)) == (37.3, 25.5)
    read = read_pairs(16, 3, 110, 0.02, ALPHA, POWER)
    assert read.concluded is Concluded.BEYOND
    assert read.delta == pytest.approx(-13 / 110)


def test_many_pairs_at_the_margin_stay_undecided() -> None:
    read = read_pairs(1994, 1427, 56227, 0.01, ALPHA, POWER)
    assert read.concluded is Concluded.UNDECIDED
    assert read.interval.low < -0.01 < read.interval.high < 0, "a loss, about as large as the margin"


def test_the_unpaired_interval_is_the_views() -> None:
    with paper_connection() as paper:
        low, high = paper.sql(
            "SELECT newcombe_low(0.96, 0.94, 500), newcombe_high(0.96, 0.94, 500)"
        ).fetchall()[0]
        page = outside_page(paper)
    interval = unpaired_interval(0.96, 0.94, 500, ALPHA)
    assert (interval.low, interval.high) == (pytest.approx(low), pytest.approx(high))
    assert PAGE.read_text(encoding="utf-8") == page, "`python -m docs.pages.outside_cases` writes it anew"
    gpqa = next(line for line in page.splitlines() if line.startswith("| GPQA-diamond"))
    assert "can't be decided" in gpqa
    assert "| 5.6 | 1 |" in gpqa
