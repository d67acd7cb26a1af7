"""Write the results of the verdicts' benchmark as tables in markdown."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

Row = dict[str, Any]


def markdown(result: Row) -> str:
    """Write a section for each part that was run."""
    lines = [f"`{result['command']}`", ""]
    seconds = ", ".join(f"{name} {spent:.0f} s" for name, spent in result["seconds"].items())
    lines += [f"Looks at {', '.join(f'{share:g}' for share in result['looks'])} and 1. {seconds}.", ""]
    for name, section in (
        ("cells", _cells),
        ("documents", _documents),
        ("draws", _draws),
        ("estimates", _estimates),
    ):
        if name in result:
            lines += [*section(result[name]), ""]
    return "\n".join(lines)


def _table(names: list[str], rows: list[list[str]]) -> Iterator[str]:
    yield "| " + " | ".join(names) + " |"
    yield "|" + "---:|" * len(names)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def _cells(cells: list[Row]) -> Iterator[str]:
    """Write the worst false validation of each size and margin, the least relative power, and the undecidable."""
    rows, hopeless, undecided = [], [], []
    for (n, margin), group in groupby(cells, key=lambda cell: (cell["n"], cell["margin"])):
        several = list(group)
        if not several[0]["provable"]:
            hopeless.append(f"{n} documents and {_points(margin)}")
        half = [cell for cell in several if cell["fixed"]["power"] >= 0.5]
        less = [cell for cell in several if cell["fixed"]["power"] < 0.5]
        if less:
            undecided.append(
                [f"{n:,}", _points(margin), ", ".join(f"{cell['flip_rate']:.0%}" for cell in less)]
            )
        ratio = min((cell["sequential"]["power"] / cell["fixed"]["power"] for cell in half), default=None)
        rows.append(
            [
                f"{n:,}",
                _points(margin),
                *(f"{max(cell[kind]['false'] for cell in several):.4f}" for kind in ("fixed", "sequential")),
                str(len(half)),
                "–" if ratio is None else f"{ratio:.3f}",
                "–"
                if ratio is None
                else ", ".join(f"{cell['sequential']['documents'] / n:.2f}" for cell in half),
            ]
        )
    yield from _table(
        [
            "documents",
            "margin",
            "worst false validation, fixed",
            "sequential",
            "cells with half the power or more",
            "least power of sequential / fixed",
            "documents used there, share",
        ],
        rows,
    )
    yield ""
    yield f"Not to be validated even without a flip: {'; '.join(hopeless)}."
    yield ""
    yield "Flip rates at which the fixed test validates fewer than half of the candidates with delta 0:"
    yield ""
    yield from _table(["documents", "margin", "flip rates"], undecided)


def _documents(rows: list[Row]) -> Iterator[str]:
    """Write the candidate documents to a verdict."""
    lines = []
    for row in rows:
        what = f"{row['flip_rate']:.0%} flips, {row['accuracy']:.0%} right, {_points(row['margin'])}"
        lines.append([what, "unpaired", *[f"{row['unpaired']:,}"] * 3, "0.800", "1"])
        for kind in ("fixed", "sequential"):
            for design in row[kind]:
                name = "paired, fixed" if kind == "fixed" else f"sequential, task of {design['n']:,}"
                lines.append(
                    [
                        "",
                        name,
                        f"{design['n']:,}",
                        f"{design['average']:,.0f}",
                        f"{design['p90']:,}",
                        f"{design['power']:.3f}",
                        f"{design['share']:.4f}",
                    ]
                )
    yield from _table(["", "design", "at most", "average", "90 %", "power", "average / unpaired"], lines)


def _draws(rows: list[Row]) -> Iterator[str]:
    """Write simulated shares beside the sums."""

    def figure(row: Row, name: str) -> str:
        return f"{row[name]:.4f} ± {row[f'{name}_error']:.4f} ({row[f'{name}_expected']:.4f})"

    kinds = ("fixed", "sequential")
    figures = [f"{kind}_{name}" for name in ("false", "power") for kind in kinds]
    lines = [
        [
            f"{row['n']:,}",
            _points(row["margin"]),
            f"{row['flip_rate']:.0%}",
            *(figure(row, name) for name in figures),
            f"{row['sequential_documents']:,.0f} ({row['sequential_documents_p90']:,.0f})",
            str(row["disagree"]),
        ]
        for row in rows
    ]
    yield f"{rows[0]['draws']:,} candidates a figure; ± one standard error; in brackets what the sums say."
    yield ""
    yield from _table(
        [
            "documents",
            "margin",
            "flips",
            "false validation, fixed",
            "sequential",
            "power, fixed",
            "sequential",
            "documents (90 %)",
            "decisions unlike the sums'",
        ],
        lines,
    )
    yield ""
    lines = [
        [
            f"{row['n']:,}",
            _points(row["margin"]),
            f"{row['flip_rate']:.0%}",
            *(f"{row[f'{kind}_{name}_covered']:.3f}" for name in ("false", "power") for kind in kinds),
            *(f"{100 * row[f'{kind}_power_bias']:+.3f}" for kind in kinds),
            *(f"{row[f'{kind}_degraded']:.3f}" for kind in kinds),
        ]
        for row in rows
    ]
    yield from _table(
        [
            "documents",
            "margin",
            "flips",
            *(f"interval holds the {what}, {kind}" for what in ("margin", "0") for kind in kinds),
            *(f"estimate - 0, points, {kind}" for kind in kinds),
            *(f"degraded at 0, {kind}" for kind in kinds),
        ],
        lines,
    )


def _estimates(rows: list[Row]) -> Iterator[str]:
    """Write how far the observed and the corrected delta are off."""
    kinds = ("raw", "corrected")
    lines = [
        [
            f"{row['n']:,}",
            _points(row["margin"]),
            f"{row['flip_rate']:.0%}",
            f"{100 * row['delta']:g}",
            f"{row['early']:.3f}",
            *(
                f"{100 * row[kind][figure] + 0.0:+.3f}"
                for figure in ("mean", "median", "early_mean")
                for kind in kinds
            ),
        ]
        for row in rows
    ]
    yield from _table(
        [
            "documents",
            "margin",
            "flips",
            "true delta, points",
            "stops early",
            *(
                f"{what}, {kind}"
                for what in ("mean error, points", "median error", "mean error of early stops")
                for kind in kinds
            ),
        ],
        lines,
    )
    yield ""
    yield f"Outcomes left out, at most: {max(row['left_out'] for row in rows):.1e}."


def _points(fraction: float) -> str:
    return f"{100 * fraction:g} points" if fraction != 0.01 else "1 point"
