"""Controls: checks of a run's samples (empty answers, token limits, unexpected gains), and its baseline's noise.

The loader counts them once per run (`refresh_controls`); the view ``controls`` adds alarms by the thresholds of the
view ``alarm_rules``. An alarm never changes a verdict.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.stats import binom, binomtest, norm

from quantgate.judge.stats.betting import betting_interval
from quantgate.judge.stats.exact import flip_rate_upper
from quantgate.judge.stats.tango import tango_interval
from warehouse.database import Connection, fetch, insert_rows, transaction

_DUE = """
    CREATE OR REPLACE TEMP TABLE due AS
    SELECT r.run_id, r.baseline_run_id, b.run_id IS NOT NULL AS baseline_loaded
    FROM store.runs r
    LEFT JOIN store.runs b ON b.run_id = r.baseline_run_id
    WHERE EXISTS (SELECT 1 FROM store.run_tasks t WHERE t.run_id = r.run_id)
      AND NOT EXISTS (
        SELECT 1 FROM store.task_controls c
        WHERE c.run_id = r.run_id AND c.baseline_loaded = (b.run_id IS NOT NULL)
      )
"""
_COUNTS = r"""
    INSERT INTO store.task_controls BY NAME
    WITH own AS (
        SELECT
            s.run_id,
            s.task,
            any_value(d.baseline_run_id) AS baseline_run_id,
            any_value(d.baseline_loaded) AS baseline_loaded,
            count(*) AS documents,
            avg(score) FILTER (NOT isnan(score)) AS mean_score,
            count(*) FILTER (isnan(score)) AS nan_scores,
            count(*) FILTER (regexp_full_match(responses, '([\[\]",\s]|\\[nrt])*')) AS empty_answers,
            count(finish_reason) AS ended,
            count(*) FILTER (finish_reason = 'length') AS cap_hits,
            avg(output_tokens) AS output_tokens_mean
        FROM store.samples s
        JOIN due d USING (run_id)
        GROUP BY ALL
    ),
    baseline AS (
        SELECT
            o.run_id,
            o.task,
            count(*) AS documents,
            avg(b.output_tokens) AS output_tokens_mean,
            count(*) FILTER (b.finish_reason = 'length') / nullif(count(b.finish_reason), 0) AS cap_hit_rate
        FROM own o
        JOIN store.run_tasks t ON t.run_id = o.baseline_run_id AND t.task = o.task
        JOIN store.samples b
          ON b.run_id = o.baseline_run_id
         AND b.task = o.task
         AND (t.documents = o.documents OR b.position < o.documents)
        GROUP BY ALL
    )
    SELECT
        o.* EXCLUDE (baseline_run_id),
        o.output_tokens_mean / nullif(b.output_tokens_mean, 0) AS output_length_ratio,
        b.cap_hit_rate AS baseline_cap_hit_rate,
        g.p_gain
    FROM own o
    LEFT JOIN baseline b ON b.run_id = o.run_id AND b.task = o.task AND b.documents = o.documents
    LEFT JOIN gains g ON g.run_id = o.run_id AND g.task = o.task
"""
"""A candidate that stopped early answered the first documents of the order; only its baseline's answers to those
count."""
_FLIPS = """
    SELECT DISTINCT ON (run_id, task) run_id, task, worse, better
    FROM store.task_verdicts JOIN due USING (run_id)
"""
_AA = """
    SELECT
        a.run_id,
        a.task,
        any_value(p.alpha) AS alpha,
        any_value(p.planned_power) AS power,
        any_value(t.documents) AS task_documents,
        count(*) AS documents,
        count(*) FILTER (a.responses <> s.responses) AS changed_responses,
        count(*) FILTER (a.score < s.score) AS worse,
        count(*) FILTER (a.score > s.score) AS better,
        bool_and(a.score IN (0, 1) AND s.score IN (0, 1)) AS right_wrong,
        list(a.score - s.score) AS differences
    FROM store.control_samples a
    JOIN store.samples s USING (run_id, task, filter, doc_id, doc_repeat, prompt_hash)
    JOIN store.runs r USING (run_id)
    JOIN store.run_tasks t USING (run_id, task)
    JOIN store.policies p ON p.policy = r.policy AND p.policy_fingerprint = r.policy_fingerprint
    WHERE NOT EXISTS (SELECT 1 FROM store.aa_controls k WHERE k.run_id = a.run_id AND k.task = a.task)
      AND NOT isnan(a.score) AND NOT isnan(s.score)
    GROUP BY ALL
"""

_NOTES = """
    SELECT run_id, task, is_baseline, aa_documents, aa_flips, aa_changed_responses, alarms, alarm_texts
    FROM controls
    WHERE ($run_ids IS NULL OR list_contains($run_ids, run_id))
      AND (len(alarms) > 0 OR is_baseline AND aa_documents > 0)
"""


def refresh_controls(connection: Connection) -> None:
    """Count the controls of every run that has none yet, or whose baseline was loaded since."""
    with transaction(connection):
        connection.execute(_DUE)
        flips = connection.sql(_FLIPS).to_arrow_table()
        gains = flips.select(["run_id", "task"]).append_column("p_gain", pa.array(_p_gain(flips)))
        connection.register("gains", gains)
        connection.execute("DELETE FROM store.task_controls WHERE run_id IN (SELECT run_id FROM due)")
        connection.execute(_COUNTS)
        connection.unregister("gains")
        connection.execute("DROP TABLE due")
        insert_rows(connection, "aa_controls", map(_aa_row, fetch(connection, _AA)))


def _p_gain(flips: pa.Table) -> Any:
    """Return the p-values of no gain: the exact sign test of the flips (McNemar's for 0/1 scores), one-sided."""
    worse, better = (flips.column(name).to_numpy() for name in ("worse", "better"))
    return binom.sf(better - 1, worse + better, 0.5)


def _aa_row(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of ``store.aa_controls`` from the counts of one task."""
    n, alpha, flips = row["documents"], row["alpha"], row["worse"] + row["better"]
    differences = np.array(row["differences"], dtype=np.float64)
    if row["right_wrong"]:
        interval = tango_interval(row["worse"], row["better"], n, alpha)
    else:
        interval = betting_interval(differences, alpha)
    z = float(norm.isf(alpha) + norm.ppf(row["power"]))
    return row | {
        "flips": flips,
        "flip_rate_upper": flip_rate_upper(flips, n, alpha),
        "delta": float(differences.mean()),
        "delta_ci_low": interval.low,
        "delta_ci_high": interval.high,
        "p_moved": float(binomtest(row["worse"], flips, 0.5).pvalue) if flips else 1.0,
        # The mean square is the flip rate where scores are right or wrong.
        "resolution": z * float(np.sqrt(np.mean(differences**2) / row["task_documents"])),
    }


def control_notes(connection: Connection, run_ids: Sequence[str] | None) -> dict[str, list[dict[str, Any]]]:
    """Return the tasks with an alarm or an A/A repeat, by run.

    Args:
        connection: a warehouse.
        run_ids: the runs; all of them if None.
    """
    notes: dict[str, list[dict[str, Any]]] = {}
    for row in fetch(connection, _NOTES, run_ids=run_ids):
        notes.setdefault(row["run_id"], []).append(row)
    return notes


def note_lines(label: str, rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Describe the noise of a baseline and each alarm of a run as lines below a report's table.

    Args:
        label: the report's name of the run.
        rows: the run's tasks, from `control_notes`.
    """
    repeated = [row for row in rows if row["is_baseline"] and row["aa_documents"]]
    if repeated:
        documents, flips = (sum(row[name] for row in repeated) for name in ("aa_documents", "aa_flips"))
        changed = round(sum(row["aa_changed_responses"] * row["aa_documents"] for row in repeated))
        yield (
            f"A/A: {label} against itself over a restart of its engine: of {documents:,} answers {flips} changed "
            f"their score, {changed} changed at all."
        )
    for row in rows:
        for code, text in zip(row["alarms"], row["alarm_texts"], strict=True):
            yield f"Alarm {code}, {label}, {row['task']}: {text}. It changes no verdict."
