"""The validated table for people: for a terminal and as Markdown, from the same rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from quantgate.model.enums import Outcome
from quantgate.model.words import counted
from warehouse.controls import control_notes, note_lines
from warehouse.database import Connection, fetch
from warehouse.fidelity import alarm_lines
from warehouse.query import read_only
from warehouse.report.blocks import WIDTH, Block, Column, block_of, plain
from warehouse.report.blocks import markdown as write_markdown
from warehouse.report.published_table import published_block
from warehouse.report.render import NULL

Row = dict[str, Any]

_POINTS = """
    SELECT v.* REPLACE (r.policy AS policy), r.is_baseline, r.fingerprint, d.standing_reason AS reason,
        d.verdict AS own_verdict, d.documents AS own_documents,
        coalesce(decider.verdict_key <> d.verdict_key, false) AS is_later_question,
        p.alpha, p.stale_after_days, o.price_source, o.price_note
    FROM validated_table_at($ts) v
    JOIN runs r USING (run_id)
    JOIN verdicts d ON d.run_id = v.run_id AND d.use = v.use AND d.declared = 'declared'
    JOIN store.policies p ON p.policy = r.policy AND p.policy_fingerprint = r.policy_fingerprint
    LEFT JOIN store.runs decider ON decider.run_id = v.verdict_run_id
    LEFT JOIN run_prices_at($ts) o
      ON o.run_id = v.run_id AND o.provider = v.provider AND o.region = v.region
     AND o.price_kind = v.price_kind
    WHERE $run_ids IS NULL OR list_contains($run_ids, v.run_id)
    QUALIFY dense_rank() OVER (
        PARTITION BY v.run_id
        ORDER BY v.price_kind <> 'on_demand', v.usd_per_hour, v.provider, v.region
    ) = 1
    ORDER BY v.model, v.gpu, v.engine, v.engine_version, v.workload, r.policy, NOT r.is_baseline,
        r.started_at, v.run_id, v.concurrency, v.use
"""
_TASKS = """
    SELECT * FROM quality_delta WHERE run_id = $run_id AND use = $use AND declared = 'declared' ORDER BY family, task
"""
_OFFERS = """
    SELECT DISTINCT provider, region, price_kind, usd_per_hour, price_as_of
    FROM run_prices_at($ts) WHERE run_id = $run_id ORDER BY ALL
"""

_MODE_NOTES = {
    None: (
        f"kernel {NULL}: the engine's log does not say what computes the quantized layers (unknown_kernel). Such rows "
        "are priced, and no speed claim and no comparison of speed rests on them."
    ),
    "emulated": (
        "emulated: no kernel here computes in this precision, so weights are dequantized before an ordinary "
        "product. These rows show how good the checkpoint is. Their tok/s and cost are this machine's and "
        "say nothing of hardware that has the kernel: no speed claim rests on them."
    ),
    "weight_only": (
        "weight_only: weights are stored quantized and computed in 16 bits, so this shows less speed than "
        "hardware with a native kernel would."
    ),
}

_INSENSITIVE_NOTE = (
    "insensitive: the baseline scores too little for a loss of the margin to show: it can't validate."
)

_NO_RIGHT_ANSWER = (
    "No answer of {baseline} to {task} is right. Compare targets and answers, blanks included; the task may lack a "
    "filter: quantgate sql \"SELECT target, answer FROM samples WHERE task = '{task}' LIMIT 5\""
)

_TASK_NOTE = (
    "n: paired documents; base, cand, flips (where they fit): % of them; p: the chance of figures this good if "
    "the loss were the margin (where a task fails: this bad, after Holm)."
)


def summary_table(
    warehouse: Path,
    as_of: datetime | None = None,
    *,
    run_ids: Sequence[str] | None = None,
    markdown: bool = False,
    published: bool = True,
    width: int = WIDTH,
) -> str:
    """Return the validated table for people: a row for each precision and operating point, with its evidence.

    Costs use the cheapest on-demand offer or, without one, the cheapest other offer.

    Args:
        warehouse: the DuckDB file.
        as_of: the time whose prices are used; now if empty.
        run_ids: the runs to show; all of them if empty.
        markdown: Markdown instead of plain text.
        published: True for a separate table of published figures after it (`warehouse.report.published_table`).
        width: of plain text, in columns of a terminal.

    Raises:
        ConfigError: the warehouse doesn't exist.
        RunError: it can't be read.
    """
    with read_only(warehouse) as connection:
        moment = as_of or datetime.now(UTC)
        return summarize(
            connection, moment, run_ids=run_ids, markdown=markdown, published=published, width=width
        )


def summarize(
    connection: Connection,
    moment: datetime,
    *,
    run_ids: Sequence[str] | None = None,
    markdown: bool = False,
    published: bool = True,
    width: int = WIDTH,
) -> str:
    """Return the `summary_table` of an open connection."""
    blocks = list(blocks_of(connection, moment, run_ids))
    if not blocks:
        return "The warehouse has no run yet."
    comparison = published_block(connection, moment) if published else None
    if comparison is not None:
        blocks.append(comparison)
    return "\n\n".join(write_markdown(block) if markdown else plain(block, width) for block in blocks)


def blocks_of(connection: Connection, moment: datetime, run_ids: Sequence[str] | None) -> Iterator[Block]:
    """Yield the blocks of the table: for each model and setting its runs, its uses, and each candidate's tasks."""

    def section(row: Row) -> tuple[Any, ...]:
        return tuple(row[name] for name in ("model", "gpu", "engine", "engine_version", "workload", "policy"))

    controls = control_notes(connection, run_ids)
    for _, members in groupby(points_of(connection, moment, run_ids), key=section):
        rows = list(members)
        labels = labels_of(rows)
        use = headline_of(rows)
        shown = [row for row in rows if row["use"] == use]
        uses, unmeasured = _uses(rows, labels)
        notes = _notes(connection, moment, shown, labels, controls)
        yield _main(shown, labels, (*notes, *(() if uses else unmeasured)))
        if uses:
            yield replace(uses, notes=(*uses.notes, *unmeasured))
        candidates = {row["run_id"]: row for row in shown if not row["is_baseline"]}
        for row in candidates.values():
            tasks = fetch(connection, _TASKS, run_id=row["verdict_run_id"], use=use)
            if tasks:
                yield _tasks(row, labels[row["run_id"]], tasks)


def points_of(connection: Connection, moment: datetime, run_ids: Sequence[str] | None) -> list[Row]:
    """Return a row for each run, operating point and use, at the price that the table shows."""
    return fetch(connection, _POINTS, ts=moment, run_ids=run_ids)


def headline_of(rows: Sequence[Row]) -> str:
    """Return the use of the main table: `all`, or the policy's first use if it has no `all`."""
    uses = [str(row["use"]) for row in rows]
    return "all" if "all" in uses else uses[0]


def labels_of(rows: Sequence[Row]) -> dict[str, str]:
    """Name each run by its precision; add the number of GPUs if it varies, and #1, #2 if names repeat."""
    counts = {row["gpu_count"] for row in rows}
    precisions = {
        row["run_id"]: row["precision"] + (f" ×{row['gpu_count']}" if len(counts) > 1 else "") for row in rows
    }
    count, seen, labels = Counter(precisions.values()), Counter[str](), {}
    for run_id, precision in precisions.items():
        seen[precision] += 1
        labels[run_id] = precision if count[precision] == 1 else f"{precision} #{seen[precision]}"
    return labels


def _main(rows: list[Row], labels: dict[str, str], notes: tuple[str, ...]) -> Block:
    first = rows[0]
    level = f"{100 * (1 - 2 * first['alpha']):g} %"
    counts = sorted({row["gpu_count"] for row in rows})
    gpus = first["gpu"] if counts == [1] else f"{' or '.join(map(str, counts))} × {first['gpu']}"
    shape = f", {first['isl']} tokens in, {first['osl']} out" if first["isl"] else ""
    load = f"load '{first['workload']}'{shape}" if first["workload"] else "no load measured"
    engine = f"{first['engine']} {first['engine_version']}"
    heading = f"{first['model']} on {gpus} ({first['sm_arch']}), {engine}, {load}"
    columns = (
        Column("precision", lambda row: labels[row["run_id"]]),
        Column("at", lambda row: (row["operating_point"] or NULL) + "*" * (row["validity"] != "valid")),
        Column("verdict", _verdict),
        Column("tasks/n", amount, right=True),
        Column(f"Δ points [{level}]", delta_of, right=True),
        Column("USD/1M out", lambda row: _number(row["usd_per_mtok_output"], money_of), right=True),
        Column("tok/s", lambda row: _number(row["output_tok_s"], "{:,.0f}".format), right=True),
        Column("TTFT ms", lambda row: _pair(row["ttft_p50_ms"], row["ttft_p99_ms"]), right=True),
        Column("kernel", lambda row: row["kernel_mode"] or NULL),
        Column("evidence", itemgetter("evidence")),
    )
    says_nothing = ("evidence",) if len({row["evidence"] for row in rows}) == 1 else ()  # a note has it
    return block_of(
        heading,
        columns,
        rows,
        notes=notes,
        droppable=(*says_nothing, "TTFT ms", "tok/s", "evidence", "tasks/n"),
    )


def _notes(
    connection: Connection,
    moment: datetime,
    rows: list[Row],
    labels: dict[str, str],
    controls: dict[str, list[Row]],
) -> Iterator[str]:
    first, runs = rows[0], {row["run_id"]: row for row in rows}
    for run_id, row in runs.items():
        if not row["is_baseline"]:
            yield f"{labels[run_id]}: {row['checkpoint']}; {_judgement(row)}"
    yield (
        "at: requests in flight. tasks/n: tasks and documents that the verdict rests on. Δ points: candidate − "
        "baseline of the worst task, in points of 100, with its interval. USD/1M out: per million output tokens. "
        "TTFT ms, where it fits: median/99th percentile of the time to the first token."
    )
    evidence = sorted({row["evidence"] for row in rows})
    if len(evidence) == 1:
        yield f"Evidence of every row: {evidence[0]}."
    for mode in dict.fromkeys(row["kernel_mode"] for row in rows):
        if mode in _MODE_NOTES:
            yield _MODE_NOTES[mode]
    yield (
        f"Policy {first['policy']}: VALIDATED where an exact test shows on every task that the loss is "
        f"smaller than the task's margin (one-sided α {first['alpha']:g} each)."
    )
    for run_id in runs:
        yield from note_lines(labels[run_id], controls.get(run_id, ()))
    yield from alarm_lines(connection, {run_id: labels[run_id] for run_id in runs})
    yield from _quarantined(rows, labels)
    yield from _prices(connection, moment, rows)
    stale = sorted({reason for row in rows for reason in row["stale_reasons"]})
    if stale:
        yield f"Stale (older than {first['stale_after_days']} days): {', '.join(stale)}."


def _quarantined(rows: Sequence[Row], labels: Mapping[str, str]) -> Iterator[str]:
    """Yield a line about the operating points of a run that are quarantined for the same reason."""
    quarantined: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["validity"] != "valid":
            why = ", ".join(row["validity_reasons"]) or "no reason given"
            points = quarantined.setdefault((labels[row["run_id"]], why), [])
            points.append(row["operating_point"] or NULL)
    for (label, why), points in quarantined.items():
        at = ", ".join(points)
        yield f"* quarantined, not to be used: {label} at {at} ({why}). --fresh measures again."


def _verdict(row: Row) -> str:
    """Return the verdict, with the baseline's precision where that is quantized: ``VALIDATED against FP8``."""
    precision = row["baseline_precision"]
    unsaid = row["is_baseline"] or precision in {None, "bf16", "fp16", "fp32"}
    return str(row["verdict"]) if unsaid else f"{row['verdict']} against {precision.upper()}"


def _judgement(row: Row) -> str:
    parts = [_rests_on(row) if row["documents"] else "no quality was measured"]
    if row["worst_task"]:
        parts.append(f"worst task {row['worst_task']}")
    if row["reason"] and row["documents"]:
        parts.append(row["reason"])
    if row["is_later_question"]:
        parts.append(
            f"decided by run {row['verdict_run_id']}. This run asked another question of the same claim "
            f"({counted(row['own_documents'], 'document', ',')}: {row['own_verdict']} alone), which can lower a "
            "verdict that stands, and not raise it: quantgate sql 'FROM questions' --format record"
        )
    elif row["verdict_run_id"] != row["run_id"]:
        parts.append(f"decided by run {row['verdict_run_id']}; later ones are drift checks")
    return "; ".join(parts) + "."


def _rests_on(row: Row) -> str:
    """Return the suite and the amount of quality behind a verdict: ``suite demo, 3 tasks, 3,000 documents``."""
    suite = f"suite {row['suite']}, " if row["suite"] else ""
    return f"{suite}{counted(len(row['tasks']), 'task')}, {counted(row['documents'], 'document', ',')}"


def _prices(connection: Connection, moment: datetime, rows: list[Row]) -> Iterator[str]:
    priced = {row["gpu_count"]: row for row in rows if row["usd_per_hour"] is not None}
    if not priced:
        yield f"No price of {rows[0]['gpu']} is valid at this time: configs/prices.yaml has none."
    for gpu_count, row in priced.items():
        note = f" {row['price_note']}" if row["price_note"] else ""
        for_all = f" for {gpu_count} × {row['gpu']}" if gpu_count > 1 else ""
        yield f"Price{for_all}: {_offer(row)}; {row['price_source']}.{note}"
        if row["price_kind"] != "on_demand":
            yield f"No on-demand price of {row['gpu']} is valid at this time, so costs are at this one."
        others = [
            offer
            for offer in fetch(connection, _OFFERS, ts=moment, run_id=row["run_id"])
            if any(offer[name] != row[name] for name in ("provider", "region", "price_kind"))
        ]
        if others:
            yield f"Other offers{for_all}, in the view validated_table: {'; '.join(map(_offer, others))}."


def _offer(row: Row) -> str:
    where = "" if row["region"] == "any" else f" {row['region']}"
    kind = row["price_kind"].replace("_", "-")
    return f"{row['provider']}{where} {kind}, {row['usd_per_hour']:g} USD/h of {row['price_as_of']}"


def _uses(rows: list[Row], labels: dict[str, str]) -> tuple[Block | None, tuple[str, ...]]:
    """Return the verdicts of the other uses, None if there is none, and lines about the uses without a verdict."""
    headline = headline_of(rows)
    others = {
        (row["run_id"], row["use"]): row for row in rows if row["use"] != headline and not row["is_baseline"]
    }
    verdicts = {key: row for key, row in others.items() if row["documents"]}
    without: dict[str, list[str]] = {}
    for run_id, use in others.keys() - verdicts.keys():
        without.setdefault(run_id, []).append(use)
    runs: dict[str, list[str]] = {}
    for run_id, label in labels.items():
        if run_id in without:
            runs.setdefault(", ".join(sorted(without[run_id])), []).append(label)
    unmeasured = tuple(
        f"No verdict for {names}: {', '.join(together)} answered no task of their families."
        for names, together in runs.items()
    )
    columns = (
        Column("precision", lambda row: labels[row["run_id"]]),
        Column("use", itemgetter("use")),
        Column("verdict", itemgetter("verdict")),
        Column("tasks/n", amount, right=True),
        Column("worst task", lambda row: row["worst_task"] or NULL),
        Column("Δ points", delta_of, right=True),
    )
    if not verdicts:
        return None, unmeasured
    incomplete = [
        row
        for row in verdicts.values()
        if row["reason"] and (not row["worst_task"] or row["reason"].startswith("not measured"))
    ]
    notes = tuple(f"{labels[row['run_id']]}, {row['use']}: {row['reason']}." for row in incomplete)
    values = list(verdicts.values())
    return block_of("Verdict per use", columns, values, notes=notes, droppable=("tasks/n",)), unmeasured


def _tasks(row: Row, label: str, tasks: list[Row]) -> Block:
    level = f"{100 * (1 - 2 * row['alpha']):g} %"
    heading = f"{label} per task: {row['checkpoint']} against {row['baseline']}"
    columns = (
        Column("task", itemgetter("task")),
        Column("family", itemgetter("family")),
        Column("n", lambda task: f"{task['pairs']:,}", right=True),
        Column("base", lambda task: f"{100 * task['baseline_score']:.1f}", right=True),
        Column("cand", lambda task: f"{100 * task['candidate_score']:.1f}", right=True),
        Column(f"Δ points [{level}]", delta_of, right=True),
        Column("margin", lambda task: f"{100 * task['margin']:g}", right=True),
        Column("flips", lambda task: f"{100 * task['flip_rate']:.1f}", right=True),
        Column("p", _p, right=True),
        Column("outcome", _outcome),
    )
    notes = [_TASK_NOTE]
    if any(task["outcome"] == Outcome.INSENSITIVE for task in tasks):
        notes.append(_INSENSITIVE_NOTE)
    notes += [
        _NO_RIGHT_ANSWER.format(baseline=row["baseline"], task=task["task"])
        for task in tasks
        if not task["baseline_score"]
    ]
    return block_of(heading, columns, tasks, notes=tuple(notes), droppable=("flips", "family", "cand"))


def amount(row: Row) -> str:
    """Return the number of tasks and of documents behind a verdict: ``3/3,000``."""
    return f"{len(row['tasks'])}/{row['documents']:,}" if row["documents"] else NULL


def _number(value: float | None, write: Callable[[float], str]) -> str:
    return NULL if value is None else write(value)


def money_of(value: float) -> str:
    """Return an amount of money in at least three digits."""
    return f"{value:,.2f}" if value >= 1 else f"{value:.3g}"


def _pair(low: float | None, high: float | None) -> str:
    return f"{_number(low, '{:.0f}'.format)}/{_number(high, '{:.0f}'.format)}"


def delta_of(row: Row) -> str:
    """Return a quality delta in points of 100, with its interval: ``-0.70 [-1.40, -0.12]``."""
    if row["quality_delta"] is None:
        return NULL
    delta = f"{100 * row['quality_delta']:+.2f}"
    low, high = row["quality_delta_ci_low"], row["quality_delta_ci_high"]
    return delta if low is None or high is None else f"{delta} [{100 * low:+.2f}, {100 * high:+.2f}]"


def _p(task: Row) -> str:
    value = task["p_inferior_holm"] if task["outcome"] == Outcome.FAIL else task["p_noninferior"]
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _outcome(task: Row) -> str:
    degraded = task["degraded"] and task["outcome"] == Outcome.PASS
    return f"{task['outcome']}, degraded" if degraded else str(task["outcome"])
