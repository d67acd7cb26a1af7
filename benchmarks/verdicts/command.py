"""Measure error rates, power and documents to a verdict: `python -m benchmarks.verdicts --seed 0 --out FOLDER`.

Four parts. *cells*: false validation at the margin and power at delta 0 of the fixed and the sequential test, over
flip rates, sizes and margins, as sums over outcomes (benchmarks/verdicts/cells.py). *documents*: what unpaired
fixed-n, paired fixed-n and the sequential test take at equal alpha and power. *draws*: simulated candidates that the
shipped judge follows from look to look; its decisions are compared with the sums. *estimates*: how far the observed
delta and the corrected one are off (benchmarks/verdicts/estimates.py).
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scipy.stats import norm

from benchmarks.verdicts.cells import Rule, outcome_of, rule_of
from benchmarks.verdicts.draws import drawn
from benchmarks.verdicts.estimates import bias_of
from benchmarks.verdicts.tables import markdown
from benchmarks.warehouse import numbers, save
from quantgate.judge.interim import look_sizes
from quantgate.judge.stats.exact import p_noninferior
from quantgate.judge.stats.group_sequential import Design
from quantgate.model.config.policy import load_policy

Row = dict[str, Any]

SIZES = (100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)
MARGINS = (0.01, 0.02, 0.03, 0.05)
FLIP_RATES = (0.01, 0.02, 0.03, 0.05, 0.1, 0.2)
ALPHA, POWER, LEAST = 0.05, 0.8, 100
SCENARIOS = ((0.05, 0.02, 0.7), (0.02, 0.01, 0.7), (0.1, 0.03, 0.7))
"""Flip rate, margin, accuracy."""
BIASED = ((300, 0.03, 0.03), (1000, 0.02, 0.05), (1319, 0.01, 0.03))
"""Documents, margin, flip rate of the cells whose estimates are examined."""
DRAWN = ((200, 0.05, 0.05), (200, 0.05, 0.1), (300, 0.03, 0.03), (500, 0.05, 0.1))
"""Documents, margin, flip rate of the simulated cells."""


def main(argv: list[str] | None = None) -> int:
    """Run the chosen parts and write `result.json` and `result.md`; 1 if a guarantee does not hold."""
    options = _parser().parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    result: Row = {
        "command": " ".join(["python -m benchmarks.verdicts", *(sys.argv[1:] if argv is None else argv)]),
        "seed": options.seed,
        "looks": load_policy("standard").looks,
        "seconds": {},
    }
    parts = {
        "cells": lambda: list(_cells(options.sizes)),
        "documents": lambda: [_documents(*scenario) for scenario in SCENARIOS],
        "draws": lambda: list(_draws(options.draws, options.seed)),
        "estimates": lambda: list(_estimates(options.sizes)),
    }
    for name in options.parts:
        begin = time.monotonic()
        result[name] = parts[name]()
        result["seconds"][name] = time.monotonic() - begin
        save(result, options.out, markdown)
    print(markdown(result))
    return 0 if _holds(result) else 1


def _cells(sizes: list[int]) -> Iterator[Row]:
    """Compute every feasible cell: the flip rate is at least the margin."""
    for n in sizes:
        for margin in MARGINS:
            rates = [rate for rate in FLIP_RATES if rate >= margin]
            provable = p_noninferior(0, 0, n, margin) <= ALPHA
            fixed, sequential = _rules(n, margin, rates)
            for rate in rates:
                row: Row = {"n": n, "margin": margin, "flip_rate": rate, "provable": provable}
                for name, rule in (("fixed", fixed), ("sequential", sequential)):
                    equal = outcome_of(rule, rate, 0.0)
                    average, most = equal.documents(rule.design.looks)
                    row[name] = {
                        "false": outcome_of(rule, rate, -margin).decided,
                        "power": equal.decided,
                        "documents": average,
                        "documents_p90": most,
                    }
                yield row
            _say(f"{n} documents, margin {margin:g}")


def _draws(draws: int, seed: int) -> Iterator[Row]:
    """Simulate candidates of some cells, which the judge follows."""
    for n, margin, rate in DRAWN:
        yield drawn(*_rules(n, margin, (rate,)), rate, draws, seed)
        _say(f"{draws} candidates of {n} documents, margin {margin:g}")


def _estimates(sizes: list[int]) -> Iterator[Row]:
    """Compute how far estimates are off, at the margin and at delta 0, in cells up to the greatest size."""
    for n, margin, rate in BIASED:
        if n > max(sizes):
            continue
        _, passes = _rules(n, margin, (rate,))
        fails = rule_of(passes.design, (rate, rate), -1)
        for delta in (-margin, 0.0):
            yield bias_of(passes, fails, rate, delta)
            _say(f"estimates of {n} documents, margin {margin:g}, delta {delta:g}")


def _rules(n: int, margin: float, rates: list[float] | tuple[float, ...]) -> tuple[Rule, Rule]:
    """Return the fixed test and the sequential one under the policy `standard`."""
    span = min(rates), max(rates)
    looks = look_sizes(n, load_policy("standard").looks, min(LEAST, n))
    return rule_of(Design((n,), margin, ALPHA), span), rule_of(Design(looks, margin, ALPHA), span)


def _documents(flip_rate: float, margin: float, accuracy: float) -> Row:
    """Count candidate documents to a verdict at delta 0, where the size is just enough for the power, and more."""
    z = float(norm.isf(ALPHA) + norm.ppf(POWER))
    unpaired = 2 * accuracy * (1 - accuracy) * z**2 / margin**2
    row: Row = {
        "flip_rate": flip_rate,
        "margin": margin,
        "accuracy": accuracy,
        "unpaired": math.ceil(unpaired),
    }
    start = flip_rate * z**2 / margin**2
    for index, name in enumerate(("fixed", "sequential")):
        n = _enough(start, flip_rate, margin, index)
        sizes = (n,) if name == "fixed" else (n, 2 * n, 4 * n)
        designs = []
        for size in sizes:
            rule = _rules(size, margin, (flip_rate,))[index]
            equal, edge = outcome_of(rule, flip_rate, 0.0), outcome_of(rule, flip_rate, -margin)
            average, most = equal.documents(rule.design.looks)
            designs.append(
                {"n": size, "average": average, "p90": most, "power": equal.decided, "false": edge.decided}
                | {"share": average / unpaired}
            )
        row[name] = designs
    _say(f"documents at {flip_rate:g} flips, margin {margin:g}")
    return row


def _enough(start: float, flip_rate: float, margin: float, index: int) -> int:
    """Return the least size, in steps of about a hundredth, that reaches the planned power."""
    step = max(1, round(start / 100))
    n = math.ceil(start)
    while outcome_of(_rules(n, margin, (flip_rate,))[index], flip_rate, 0.0).decided < POWER:
        n += step
    return n


def _holds(result: Row) -> bool:
    """Check that false validation is at most alpha everywhere and that power falls behind nowhere."""
    cells, draws = result.get("cells", []), result.get("draws", [])
    errors = [cell[name]["false"] for cell in cells for name in ("fixed", "sequential")]
    behind = [
        cell
        for cell in cells
        if cell["fixed"]["power"] >= 0.5 and cell["sequential"]["power"] < 0.9 * cell["fixed"]["power"]
    ]
    return max(errors, default=0) <= ALPHA and not behind and all(row["disagree"] == 0 for row in draws)


def _say(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verdicts", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draws", type=int, default=1000, help="simulated candidates a cell")
    parser.add_argument("--sizes", type=numbers, default=list(SIZES))
    parser.add_argument(
        "--parts", type=lambda text: text.split(","), default=["cells", "documents", "draws", "estimates"]
    )
    return parser
