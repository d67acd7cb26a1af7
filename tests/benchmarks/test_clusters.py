"""The simulated documents of the clusters' benchmark are what it says they are, and its command prints its tables."""

import numpy as np
import pytest

from benchmarks.clusters import (
    Clustered,
    broken_share,
    cluster_sizes,
    clustered_flips,
    false_validation_cells,
    main,
    partial_credit,
)


@pytest.mark.parametrize("kind", ["f1", "repeats", "thirds"])
@pytest.mark.parametrize("delta", [0.0, -0.05])
def test_partial_credit_loses_what_it_should(kind, delta):
    found = partial_credit(np.random.default_rng(1), kind, 400_000, delta)
    assert found.mean() == pytest.approx(delta, abs=4 * found.std() / np.sqrt(found.size))
    assert np.abs(found).max() <= 1
    assert not np.isin(found, (-1, 0, 1)).all()


@pytest.mark.parametrize("how", ["mixed", "flips", "broken"])
@pytest.mark.parametrize("correlation", [0.1, 0.3])
def test_clusters_lose_what_they_should_and_as_correlated_as_they_should(how, correlation):
    cell = Clustered(how, 60_000, 20, "equal", correlation, 0.1, 0.03, -0.03)
    sizes = cluster_sizes(np.random.default_rng(2), cell)
    found = clustered_flips(np.random.default_rng(3), cell, sizes)
    n = sizes.sum()
    delta = (found.better - found.worse).sum() / n
    assert delta == pytest.approx(-0.03, abs=0.004)
    rate = (found.better + found.worse).sum() / n
    assert rate == pytest.approx(0.1, abs=0.006)
    # Of pairs of documents of a cluster, from the variance of its totals: var = n v (1 + (n - 1) correlation).
    of = found.better + found.worse if how == "flips" else found.better - found.worse
    variance = rate * (1 - rate) if how == "flips" else rate - delta**2
    seen = (of.var() / (20 * variance) - 1) / 19
    assert seen == pytest.approx(correlation, rel=0.15)
    if how == "broken":
        assert 0 < broken_share(cell) < 1


@pytest.mark.parametrize(("how", "variation"), [("uneven", 0.3), ("unequal", 1.0)])
def test_unequal_sizes_keep_their_mean(how, variation):
    cell = Clustered("mixed", 100_000, 60, how, 0.1, 0.1, 0.03, -0.03)
    sizes = cluster_sizes(np.random.default_rng(4), cell)
    assert sizes.mean() == pytest.approx(60, rel=0.05)
    assert sizes.std() / sizes.mean() == pytest.approx(variation, rel=0.1)
    assert sizes.min() >= 1


def test_where_the_largest_clusters_break_the_delta_is_the_cells():
    cell = Clustered("large", 200_000, 60, "unequal", 0.0, 0.1, 0.02, -0.02)
    found = clustered_flips(np.random.default_rng(5), cell, cluster_sizes(np.random.default_rng(6), cell))
    n = found.documents.sum()
    assert (found.better - found.worse).sum() / n == pytest.approx(-0.02, abs=0.003)
    big = found.documents > np.quantile(found.documents, 0.9)
    assert found.worse[big].sum() / found.worse.sum() > found.documents[big].sum() / n


def test_the_grid_is_the_declared_one():
    cells = false_validation_cells("mixed")
    assert {cell.clusters for cell in cells} == {20, 100, 400}
    assert {cell.correlation for cell in cells} == {0.0, 0.1, 0.3}
    assert (min(cell.flip_rate for cell in cells), max(cell.flip_rate for cell in cells)) == (0.01, 0.2)
    for how in ("mixed", "flips", "broken", "large"):
        assert all(
            cell.delta == -cell.margin <= 0 and cell.flip_rate >= cell.margin
            for cell in false_validation_cells(how)
        )


def test_the_command_prints_rates_with_their_error(capsys):
    assert main(["--trials", "1", "--part", "power", "--seed", "5"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("±") == 3 * 27
    assert main(["--trials", "1", "--part", "power", "--seed", "5"]) == 0
    assert capsys.readouterr().out == printed
