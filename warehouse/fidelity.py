"""Compare a candidate's next-token distributions with its baseline's on a fixed text: an alarm, never a gate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from quantgate.bundles.schema import LEAST_LOGPROB
from quantgate.judge.stats.tango import Floats
from warehouse.database import Connection, fetch, insert_rows, transaction

Ints = npt.NDArray[np.int64]

_ROUNDING = 1e-6
"""Mass that rounding may take from a sum of float32 probabilities. It is added to the candidate's rest, so that the
lower bound stays one."""
_ROWS_AT_ONCE = 4096


class Tops(NamedTuple):
    """The k most probable tokens at each of n positions of a text, and the text's own token."""

    token_ids: Ints
    """Shape (n, k), most probable first; ids of a row are distinct."""
    logprobs: Floats
    """Shape (n, k), natural logarithms."""
    own_ids: Ints
    """Shape (n,)."""
    own_logprobs: Floats
    """Shape (n,)."""


def kl_whole(baseline: Tops, candidate: Tops) -> Floats:
    """Return KL(baseline || candidate) at each position, in nats, shape (n,); both list the whole vocabulary."""
    logp, logq = (
        np.take_along_axis(_floored(side.logprobs), np.argsort(side.token_ids, axis=1), axis=1)
        for side in (baseline, candidate)
    )
    nats: Floats = np.maximum(np.sum(np.exp(logp) * (logp - logq), axis=1), 0.0)
    return nats


def kl_top(baseline: Tops, candidate: Tops) -> Floats:
    """Return a lower bound of KL(baseline || candidate) at each position, in nats, from the top k: shape (n,).

    Let S be the tokens whose probability both sides report: those in both lists, and the text's own token, which
    an engine reports even if it is not among the top k. Cut the vocabulary into the tokens of S, each alone,
    and all the others together. The masses P' and Q' of these cells are known exactly: a token s of S has p(s)
    and q(s), and the others have the rest, 1 - sum p(s) and 1 - sum q(s). A token in only one of the lists has an
    unknown probability on the other side; that does not matter, since it lies in the last cell on both sides.

    P' and Q' are what P and Q become when a token is replaced by its cell, and such a map never raises the
    divergence: with the log sum inequality (Cover and Thomas, Elements of Information Theory, 2nd ed. 2006,
    theorem 2.7.1), sum over x in C of p(x) log(p(x)/q(x)) >= p(C) log(p(C)/q(C)) for every cell C, and the sum
    over the cells is KL(P' || Q') <= KL(P || Q) (the data-processing inequality). The choice of cells may
    depend on P and Q, since the inequality holds for every partition. The mass that rounding may have lost is added
    to the last cell of Q, which can only make the bound smaller.
    """
    pieces = [
        _kl_top(_slice(baseline, start), _slice(candidate, start))
        for start in range(0, len(baseline.own_ids), _ROWS_AT_ONCE)
    ]
    return np.concatenate(pieces) if pieces else np.empty(0)


def _slice(tops: Tops, start: int) -> Tops:
    rows = slice(start, start + _ROWS_AT_ONCE)
    return Tops(tops.token_ids[rows], tops.logprobs[rows], tops.own_ids[rows], tops.own_logprobs[rows])


def _kl_top(baseline: Tops, candidate: Tops) -> Floats:
    ids_p, logp = _with_own(baseline, absent=-1)
    ids_q, listed_logq = _with_own(candidate, absent=-2)
    same = ids_p[:, :, None] == ids_q[:, None, :]
    shared = same.any(axis=2)
    logq = np.take_along_axis(listed_logq, same.argmax(axis=2), axis=1)
    p, q = np.where(shared, np.exp(logp), 0.0), np.where(shared, np.exp(logq), 0.0)
    alone = np.sum(np.where(shared, p * (logp - logq), 0.0), axis=1)
    rest_p = np.maximum(1.0 - p.sum(axis=1), 0.0)
    rest_q = np.maximum(1.0 - q.sum(axis=1), 0.0) + _ROUNDING
    together = rest_p * np.log(np.where(rest_p > 0.0, rest_p, 1.0) / rest_q)
    nats: Floats = np.maximum(alone + np.where(rest_p > 0.0, together, 0.0), 0.0)
    return nats


def _with_own(tops: Tops, absent: int) -> tuple[Ints, Floats]:
    """Append the text's own token to the lists, as ``absent`` if a list has it already."""
    listed = (tops.token_ids == tops.own_ids[:, None]).any(axis=1)
    own = np.where(listed, absent, tops.own_ids)
    return (
        np.column_stack([tops.token_ids, own]),
        np.column_stack([_floored(tops.logprobs), _floored(tops.own_logprobs)]),
    )


def _floored(logprobs: Floats) -> Floats:
    floored: Floats = np.maximum(logprobs, LEAST_LOGPROB)
    return floored


class Figures(NamedTuple):
    """A candidate's distributions compared with its baseline's; if they can't be, None and a ``reason``."""

    text_id: str | None
    tokens: int
    k: int | None
    vocab_size: int | None
    nan_tokens: int
    perplexity_baseline: float | None = None
    perplexity: float | None = None
    top1_agreement: float | None = None
    kl_mean_nats: float | None = None
    kl_median_nats: float | None = None
    kl_p99_nats: float | None = None
    kl_p999_nats: float | None = None
    reason: str | None = None


def figures(baseline: pa.Table, candidate: pa.Table) -> Figures:
    """Compare two runs token by token.

    Args:
        baseline: the baseline's rows (``quantgate.bundles.schema.FIDELITY``), in any order; maybe none.
        candidate: the candidate's rows.

    Returns:
        Divergences in nats, the share of positions at which both rank the same token first, and the perplexities.
        If the runs can't be compared, ``reason`` is one of the codes ``not_measured``, ``baseline_not_measured``,
        ``other_text``, ``other_tokens`` (another tokenizer or context), ``other_k``, ``other_vocabulary``,
        ``nan_logprobs`` and ``baseline_nan_logprobs``.
    """
    baseline, candidate = (rows.sort_by("token_index") for rows in (baseline, candidate))
    described = candidate if candidate.num_rows else baseline
    measured = Figures(
        text_id=_only(described, "text_id"),
        tokens=described.num_rows,
        k=_only(described, "k"),
        vocab_size=_only(described, "vocab_size"),
        nan_tokens=pc.sum(pc.is_nan(candidate["logprob"])).as_py() or 0,
    )
    reason = _why_not(baseline, candidate)
    if reason is not None:
        return measured._replace(reason=reason)
    p, q = _tops(baseline), _tops(candidate)
    whole = measured.k is not None and measured.k == measured.vocab_size
    nats = kl_whole(p, q) if whole else kl_top(p, q)
    quantiles = np.quantile(nats, [0.5, 0.99, 0.999])
    return measured._replace(
        perplexity_baseline=_perplexity(p),
        perplexity=_perplexity(q),
        top1_agreement=float(np.mean(p.token_ids[:, 0] == q.token_ids[:, 0])),
        kl_mean_nats=float(nats.mean()),
        kl_median_nats=float(quantiles[0]),
        kl_p99_nats=float(quantiles[1]),
        kl_p999_nats=float(quantiles[2]),
    )


def _why_not(baseline: pa.Table, candidate: pa.Table) -> str | None:
    """Return the code of why two runs can't be compared; None if they can."""
    if candidate.num_rows == 0:
        return "not_measured"
    if baseline.num_rows == 0:
        return "baseline_not_measured"
    for column, code in (("text_id", "other_text"), ("k", "other_k"), ("vocab_size", "other_vocabulary")):
        if _only(baseline, column) != _only(candidate, column):
            return code
    if any(not baseline[column].equals(candidate[column]) for column in ("token_index", "token_id")):
        return "other_tokens"
    for rows, code in ((candidate, "nan_logprobs"), (baseline, "baseline_nan_logprobs")):
        if pc.any(pc.is_nan(rows["logprob"])).as_py():
            return code
    return None


def _only(rows: pa.Table, column: str) -> Any:
    """Return the value that all rows of a run share."""
    return rows[column][0].as_py() if rows.num_rows else None


def _tops(rows: pa.Table) -> Tops:
    """Return rows of the same k as arrays."""
    k = rows["k"][0].as_py()
    return Tops(
        pc.list_flatten(rows["top_token_ids"]).to_numpy().astype(np.int64).reshape(-1, k),
        pc.list_flatten(rows["top_logprobs"]).to_numpy().astype(np.float64).reshape(-1, k),
        rows["token_id"].to_numpy().astype(np.int64),
        rows["logprob"].to_numpy().astype(np.float64),
    )


def _perplexity(tops: Tops) -> float:
    """Return the inverse of the geometric mean probability of the text's own tokens."""
    return float(np.exp(-np.mean(_floored(tops.own_logprobs))))


_UNCOMPARED = """
    SELECT c.run_id, b.run_id AS baseline_run_id
    FROM store.runs c
    JOIN store.runs b ON b.run_id = coalesce(c.baseline_run_id, c.run_id)
    ANTI JOIN store.fidelity_figures f ON f.run_id = c.run_id
    WHERE EXISTS (SELECT 1 FROM store.fidelity t WHERE t.run_id IN (c.run_id, b.run_id))
    ORDER BY b.run_id, c.run_id
"""
_ROWS = """
    SELECT t.* EXCLUDE (run_id)
    FROM store.fidelity t
    JOIN store.runs r USING (run_id)
    WHERE t.run_id = $run_id
      AND (t.engine_start_id = coalesce(r.manifest->>'$.fidelity.engine_start_id', t.engine_start_id)) = $first
"""
"""Rows of the engine start that the manifest names (``$first``), or of the A/A repeat of a baseline."""


def compare_all(connection: Connection) -> None:
    """Fill store.fidelity_figures for each new candidate whose baseline's run is loaded.

    A baseline with an A/A repeat (the same text after a restart of its engine) is compared with itself.
    """
    rows = []
    for baseline_run_id, pairs in groupby(connection.execute(_UNCOMPARED).fetchall(), key=itemgetter(1)):
        baseline = _rows_of(connection, baseline_run_id)
        for run_id, _ in pairs:
            own = _rows_of(connection, run_id, first=run_id != baseline_run_id)
            if own.num_rows or run_id != baseline_run_id:
                compared = figures(baseline, own)._asdict()
                rows.append({**compared, "run_id": run_id, "baseline_run_id": baseline_run_id})
    with transaction(connection):
        insert_rows(connection, "fidelity_figures", rows)


def _rows_of(connection: Connection, run_id: str, *, first: bool = True) -> pa.Table:
    return connection.sql(_ROWS, params={"run_id": run_id, "first": first}).to_arrow_table()


_ALARMS = """
    SELECT f.run_id, f.kl_mean_nats, f.kl_aa_mean_nats, f.nan_tokens, f.tokens, alarm, rule.threshold
    FROM (SELECT *, unnest(alarms) AS alarm FROM fidelity WHERE list_contains($run_ids, run_id)) f
    JOIN alarm_rules rule ON rule.code = alarm
    ORDER BY list_position($run_ids, run_id), alarm
"""


def alarm_lines(connection: Connection, labels: Mapping[str, str]) -> Iterator[str]:
    """Describe each fidelity alarm as a line below a report's table.

    Args:
        connection: a warehouse.
        labels: the report's name of each run, by run id.
    """
    for row in fetch(connection, _ALARMS, run_ids=list(labels)):
        if row["alarm"] == "nan_logprobs":
            what = (
                f"at {row['nan_tokens']:,} of {row['tokens']:,} tokens of the fixed text "
                "a probability is not a number"
            )
        else:
            noise = row["kl_aa_mean_nats"]
            beside = "" if noise is None else f", the baseline's own noise {noise:.4f}"
            what = (
                f"its next-token distributions lie {row['kl_mean_nats']:.3f} nats from the baseline's on average "
                f"(alarm above {row['threshold']:g}{beside})"
            )
        yield f"Alarm {row['alarm']}, {labels[row['run_id']]}: {what}. It changes no verdict."
