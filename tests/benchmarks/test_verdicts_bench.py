"""The sums of the verdicts' benchmark decide what the shipped test decides, and say how often as every path does."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.verdicts.cells import Rule, outcome_of, rule_of
from benchmarks.verdicts.command import main
from benchmarks.verdicts.draws import drawn
from benchmarks.verdicts.estimates import bias_of
from quantgate.judge.stats.group_sequential import Design, p_inferior_at, p_noninferior_at
from quantgate.judge.stats.tango import score_at_loss
from tests.support.interim_looks import ending

DESIGN = Design((6, 11, 16), 0.2, 0.1)


def in_rule(rule: Rule, look: int, b: int, c: int) -> bool:
    statistic = rule.sign * float(score_at_loss(b, c, rule.design.looks[look], rule.design.margin))
    return bool(statistic >= rule.least(look, np.array(b), np.array(c)))


@pytest.mark.parametrize("sign", [1, -1])
def test_a_rule_decides_what_the_shipped_test_decides(sign: int) -> None:
    rule = rule_of(DESIGN, (0.2, 1.0), sign)
    test = p_noninferior_at if sign == 1 else p_inferior_at
    decided = 0
    for look, n in enumerate(DESIGN.looks):
        for b in range(n + 1):
            for c in range(n + 1 - b):
                p = test(b, c, look, DESIGN)
                if abs(p - DESIGN.alpha) > 0.001:
                    assert in_rule(rule, look, b, c) == (p <= DESIGN.alpha), (look, b, c, p)
                decided += p <= DESIGN.alpha
    assert decided > 30


def test_an_outcome_is_the_sum_over_every_path() -> None:
    rule = rule_of(DESIGN, (0.2, 0.6))
    for flip_rate, delta in ((0.3, -0.2), (0.3, 0.0), (0.6, 0.1)):
        found = outcome_of(rule, flip_rate, delta)
        stops = ending(
            DESIGN.looks,
            lambda *at: in_rule(rule, *at),
            (flip_rate - delta) / 2,
            (flip_rate + delta) / 2,
        )
        assert found.decided == pytest.approx(sum(stops), abs=2e-6)
        assert found.stops[:-1] == pytest.approx(stops[:-1], abs=2e-6)
        average, most = found.documents(DESIGN.looks)
        assert 6 <= average <= most <= 16
    assert outcome_of(rule, 0.3, -0.2).decided <= DESIGN.alpha


def test_the_command_writes_its_figures_and_holds_them_against_the_guarantee(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(tmp_path), "--sizes", "100", "--parts", "cells"]) == 0
    shown = capsys.readouterr().out
    assert shown.strip() == (tmp_path / "result.md").read_text().strip()
    assert "100 documents and 1 point; 100 documents and 2 points." in shown
    cells = json.loads((tmp_path / "result.json").read_text())["cells"]
    assert len(cells) == 6 + 5 + 4 + 3, "every flip rate that is at least the margin"
    assert max(cell["sequential"]["false"] for cell in cells) <= 0.05


def test_simulated_candidates_are_judged_as_the_sums_say() -> None:
    fixed, sequential = (rule_of(Design(looks, 0.1, 0.05), (0.1, 0.1)) for looks in ((60,), (30, 60)))
    row = drawn(fixed, sequential, 0.1, 25, seed=1)
    assert row["disagree"] == 0
    for name in ("fixed_false", "sequential_false", "fixed_power", "sequential_power"):
        assert abs(row[name] - row[f"{name}_expected"]) < 0.3
    assert row["sequential_documents"] < row["fixed_documents"] == 60


def test_the_corrected_estimate_is_off_by_less_at_delta_0_over_every_end() -> None:
    design = Design((40, 70, 100), 0.1, 0.1)
    passes, fails = (rule_of(design, (0.15, 0.15), sign) for sign in (1, -1))
    found = bias_of(passes, fails, 0.15, 0.0)
    assert found["left_out"] < 1e-4
    assert 0.2 < found["early"] < 1
    for figure in ("mean", "early_mean"):
        assert 0 < found["corrected"][figure] < found["raw"][figure]
    assert abs(found["corrected"]["median"]) < abs(found["raw"]["median"])
    stops = outcome_of(passes, 0.15, 0.0).stops
    assert found["early"] >= sum(stops[:-1]) - 1e-6, "stops for a loss count too"


def test_the_command_shows_the_bias_of_estimates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path), "--sizes", "300", "--parts", "estimates"]) == 0
    rows = json.loads((tmp_path / "result.json").read_text())["estimates"]
    assert [(row["n"], row["delta"]) for row in rows] == [(300, -0.03), (300, 0.0)]
    assert "mean error, points, corrected" in capsys.readouterr().out
