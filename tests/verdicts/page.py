"""Write the tables of docs/verdicts.md, "What it catches", from the recordings: ``python -m tests.verdicts.page``."""

from __future__ import annotations

import pyarrow as pa

from demo.damage import BROKEN_TEMPLATES, CHAT, DAMAGES
from quantgate.model.enums import Outcome
from tests.verdicts import same, scores
from tests.verdicts.claims import BASELINE, LOOSE, OF_WEIGHTS, judged
from tests.verdicts.looks import LOOKS, followed

NAMES = {"qg_demo_cloze": "dialogues", "qg_demo_arithmetic": "arithmetic", "qg_demo_chain": "chains"}


def damaged_table() -> list[str]:
    """Write the verdict on each damaged checkpoint, on all documents and at interim looks."""
    runs = scores.read("damaged")
    lines = [
        "| what was done | it lost most in | Δ, points | verdict | at interim looks |",
        "|---|---|---|---|---|",
    ]
    for name in OF_WEIGHTS:
        verdict = judged(runs[BASELINE], runs[name])["all"]
        worst = min(verdict.tasks, key=lambda task: task.quality_delta)
        end = _end(runs[BASELINE], runs[name], worst.task)
        lines.append(
            _row(
                DAMAGES[name].about,
                NAMES[worst.task],
                f"{100 * worst.quality_delta:+.1f}",
                verdict.verdict,
                end,
            )
        )
    chats = scores.read("chat")
    for name in BROKEN_TEMPLATES:
        verdict = judged(chats[CHAT], chats[name])["all"]
        delta = scores.deltas(chats[CHAT], chats[name])["qg_demo_chat"]
        lines.append(
            _row(
                DAMAGES[name].about,
                "dialogues",
                f"{100 * delta:+.1f}",
                verdict.verdict,
                "other prompts: no pairs",
            )
        )
    return lines


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _end(baseline: pa.Table, candidate: pa.Table, worst: str) -> str:
    task = next(task for task in scores.tasks_of(candidate) if task.task == worst)
    end = followed(baseline, candidate, task, LOOSE.model_copy(update={"looks": LOOKS}), required=3)
    ends = {Outcome.FAIL: "fails after", Outcome.PASS: "passes after", Outcome.UNDECIDED: "undecided after"}
    return f"{ends[end.outcome]} {end.pairs:,} of 1,000"


def same_table() -> list[str]:
    """Write the verdicts on 200 trials of the checkpoint against itself."""
    runs = [run.sort_by("position") for run in scores.read("sampled").values()]
    lines = [
        "| trials | margin, points | flips | VALIDATED | REJECTED | `degraded` |",
        "|---|---|---|---|---|---|",
    ]
    for what, trials, margin in (
        ("200 pairs of 21 runs, 1,000 documents", same.overlapping(runs), 0.02),
        ("200 independent ones of 50 documents", same.independent(runs), 0.15),
    ):
        rates = same.rates(trials, margin)
        shares = " | ".join(f"{share:.1%}" for share in (rates.validated, rates.rejected, rates.degraded))
        lines.append(f"| {what} | {100 * margin:g} | {rates.flip_rate:.1%} | {shares} |")
    return lines


if __name__ == "__main__":
    print("\n".join([*damaged_table(), "", *same_table()]))
