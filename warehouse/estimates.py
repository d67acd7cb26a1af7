"""Estimate what a planned run needs and costs, from a warehouse that holds only the configuration."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quantgate.judge.power import KnownScore, SeenFlips
from quantgate.model.errors import QuantgateError
from warehouse.database import Connection


@dataclass(frozen=True)
class Shape:
    """A model's name in the view ``model_shapes``, and its longest context, tokens."""

    model: str
    context_max_tokens: int | None


def shape_of(connection: Connection, model: str) -> Shape | None:
    """Return the model's shape by any of its names, with or without its organization; None if unknown."""
    rows = connection.execute(
        "SELECT model, context_max_tokens FROM model_shapes "
        "JOIN model_names USING (model) WHERE name_key = model_key(?)",
        [model],
    ).fetchall()
    return Shape(*rows[0]) if rows else None


@dataclass(frozen=True)
class Fit:
    """A row of ``memory_fit``, practical model; figures are of all GPUs together."""

    gpu_count: int
    memory_gb: float
    weights_gb: float
    kv_cache_tokens: int
    fits: bool


def memory_fits(  # noqa: PLR0913 - each is a column or a parameter of the view
    connection: Connection,
    model: str,
    precision: str,
    gpu: str,
    *,
    context_tokens: int,
    utilization: float,
    kv_dtype: str,
    counts: Sequence[int],
    mixed_bytes: int | None = None,
) -> list[Fit]:
    """Return the rows of ``memory_fit`` for a model on a GPU, fewest GPUs first.

    Args:
        connection: a warehouse with the configuration.
        model: a name of the view ``model_shapes``.
        precision: of the weights.
        gpu: a key of gpus.yaml.
        context_tokens: length of the request that has to fit, tokens.
        utilization: the engine's share of each GPU's memory, 0 to 1.
        kv_dtype: the engine's name of the KV cache's type.
        counts: numbers of GPUs.
        mixed_bytes: size of a checkpoint's weights, for the precision mixed, which has no other.

    Returns:
        One row per count that can share the model's attention heads; none if the precision, the KV cache's type or the
        GPU's memory is unknown.
    """
    rows = connection.execute(
        "SELECT gpu_count, memory_gb, weights_gb, kv_cache_tokens, fits FROM memory_fit_at("  # noqa: S608
        f"context := {int(context_tokens)}, utilization := {float(utilization)}, kv_dtype := $kv_dtype, "
        f"counts := {[int(count) for count in counts]}, mixed_bytes := {int(mixed_bytes) if mixed_bytes else 'NULL'}) "
        "WHERE memory_model = 'practical' AND null_reason IS NULL AND model = $model "
        "AND precision = $precision AND gpu = $gpu ORDER BY gpu_count",
        {"kv_dtype": kv_dtype, "model": model, "precision": precision, "gpu": gpu},
    ).fetchall()
    return [Fit(*row) for row in rows]


def weights_gb(connection: Connection, model: str, precision: str) -> float | None:
    """Return the size of a model's weights in GB (10^9 bytes); None if its shape or the precision is unknown.

    Args:
        connection: a warehouse with the configuration.
        model: any of its names.
        precision: of the weights.
    """
    ((size_gb,),) = connection.execute(
        "SELECT max(weights_gb) FROM memory_fit JOIN model_names USING (model) "
        "WHERE name_key = model_key($model) AND precision = $precision AND gpu_count = 1",
        {"model": model, "precision": precision},
    ).fetchall()
    return None if size_gb is None else float(size_gb)


def parameters_of(connection: Connection, model: str) -> int | None:
    """Return the parameters that a model's shape has; None if it is unknown.

    Args:
        connection: a warehouse with the configuration.
        model: any of its names.
    """
    rows = connection.execute(
        "SELECT parameters FROM model_shapes JOIN model_names USING (model) WHERE name_key = model_key(?)",
        [model],
    ).fetchall()
    return int(rows[0][0]) if rows else None


def on_demand_price(connection: Connection, gpu: str) -> float | None:
    """Return the USD per hour of one GPU by the cheapest current on-demand offer; None without an offer."""
    rows = connection.execute(
        "SELECT min(usd_per_gpu_hour) FROM gpu_prices "
        "WHERE gpu = ? AND price_kind = 'on_demand' AND null_reason IS NULL",
        [gpu],
    ).fetchall()
    return rows[0][0] if rows else None


_SEEN_FLIPS = """
    WITH asked AS (SELECT unnest($tasks) AS task, unnest($families) AS family),
    changed AS (
        SELECT a.task, q.precision, q.task = a.task AS own, sum(q.worse + q.better) / sum(q.pairs) AS rate
        FROM asked a
        JOIN quality_delta q ON q.task = a.task OR q.family = a.family
        WHERE q.use = 'all' AND q.declared = 'declared' AND q.latest AND q.pairs > 0
        GROUP BY ALL
    )
    SELECT DISTINCT ON (task) task, rate, precision, own
    FROM changed
    ORDER BY task, list_contains($precisions, precision) DESC, own DESC, rate DESC, precision
"""


def seen_flips(
    warehouse: Path, tasks: Mapping[str, str], precisions: Collection[str]
) -> dict[str, SeenFlips]:
    """Return for each task the share of answers that earlier candidates changed; those that nothing is known of lack.

    Candidates of these precisions go before others, the task's own answers before those of other tasks of its family,
    and of several precisions the one that changes most.

    Args:
        warehouse: the DuckDB file; it need not exist.
        tasks: the family of each.
        precisions: of the candidates that are to run.
    """
    from warehouse.query import query  # it loads pandas, which no other estimate needs

    values = {"tasks": [*tasks], "families": [*tasks.values()], "precisions": sorted(precisions)}
    try:
        rows = query(warehouse, _SEEN_FLIPS, values).to_pylist()
    except QuantgateError:  # none yet, or of another version: the next load says so
        return {}
    return {
        row["task"]: SeenFlips(row["rate"], row["precision"], "this task" if row["own"] else "this family")
        for row in rows
    }


def known_scores(warehouse: Path, checkpoint: str) -> list[KnownScore]:
    """Return the published scores of a baseline by its name; none where the warehouse has none.

    Args:
        warehouse: the DuckDB file; it need not exist.
        checkpoint: the baseline's name.
    """
    from warehouse.query import query  # it loads pandas, which no other estimate needs

    wanted = "SELECT task, metric, filter, score FROM store.known_scores WHERE checkpoint = $name"
    try:
        rows = query(warehouse, wanted, {"name": checkpoint}).to_pylist()
    except QuantgateError:  # none yet, or of another version: the next load says so
        return []
    return [KnownScore(**row, source="published") for row in rows]


@dataclass(frozen=True)
class Load:
    """A number of equal requests at a concurrency."""

    isl_tokens: int
    osl_tokens: int
    concurrency: int
    requests: int


def published_share(connection: Connection) -> float:
    """Return the share of a roofline that published engines reach: the median, a fraction.

    It is the roofline that `seconds_of` uses, with experts routed evenly.
    """
    ((percent,),) = connection.execute(
        "SELECT median(pct_of(t.output_tok_s, b.bound_tok_s)) FROM published_throughput t "
        "JOIN bounds_of('published_points', even_routing := true) b USING (evidence_id) WHERE t.counts"
    ).fetchall()
    return float(percent) / 100


def seconds_of(
    connection: Connection,
    loads: Sequence[Load],
    *,
    model: str,
    precision: str,
    gpu: str,
    gpu_count: int,
    share: float,
) -> tuple[float | None, str | None]:
    """Estimate how long loads take one after the other: sum of requests x osl / (share x bound_tok_s).

    A mixture of experts reads what even routing would, since its limit (the experts of one token) lies far above what
    an engine reaches.

    Args:
        connection: a warehouse with the configuration.
        loads: the requests that the engine serves.
        model: any of its names.
        precision: of the weights.
        gpu: a key of gpus.yaml.
        gpu_count: GPUs that share the model.
        share: share of the limit that an engine reaches, a fraction (`published_share`).

    Returns:
        Seconds and None; or None and the reason why there is no limit (``no_bound`` of the view ``bounds``).
    """
    if not loads:
        return 0.0, None
    values = ", ".join(
        f"({number}, {load.isl_tokens}, {load.osl_tokens}, {load.concurrency})"
        for number, load in enumerate(loads)
    )
    rows = connection.execute(
        "WITH points AS (SELECT number, isl, osl, concurrency, $model AS model, $precision AS precision, "  # noqa: S608
        "NULL::VARCHAR AS kernel_mode, 'auto' AS kv_cache_dtype, $gpu AS gpu, $gpus::INTEGER AS gpu_count, "
        "NULL::VARCHAR AS mig_slice, $gpus::INTEGER AS tensor_parallel "
        f"FROM (VALUES {values}) v(number, isl, osl, concurrency)) "
        "SELECT number, bound_tok_s, no_bound FROM bounds_of('points', even_routing := true) ORDER BY number",
        {"model": model, "precision": precision, "gpu": gpu, "gpus": gpu_count},
    ).fetchall()
    missing = [no_bound for _, _, no_bound in rows if no_bound]
    if missing:
        return None, missing[0]
    return sum(
        loads[number].requests * loads[number].osl_tokens / (share * bound_tok_s)
        for number, bound_tok_s, _ in rows
    ), None
