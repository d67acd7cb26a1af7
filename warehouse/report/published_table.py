"""The second table of a report: costs of GPUs by published figures, apart from measured ones."""

from __future__ import annotations

from datetime import datetime
from operator import itemgetter

from warehouse.database import Connection, fetch
from warehouse.report.blocks import Block, Column, block_of
from warehouse.report.render import NULL

_PRICES = """
    SELECT gpu, price_kind, provider, region, usd_per_gpu_hour, price_as_of
    FROM gpu_prices_at($ts)
    WHERE price_kind IN ('on_demand', 'spot') AND usd_per_gpu_hour IS NOT NULL
    QUALIFY row_number() OVER (PARTITION BY gpu, price_kind ORDER BY usd_per_gpu_hour, provider, region) = 1
"""
_ROWS = f"""
    WITH prices AS ({_PRICES}),
    rounds AS (
        SELECT
            s.position, t.model, t.gpu, t.precision, t.dataset, t.round, t.published_on, t.engine_name, t.evidence,
            count(*) AS entries, median(t.tok_s_per_gpu) AS tok_s
        FROM published_throughput t
        JOIN store.shown_models s USING (model)
        WHERE t.counts AND NOT t.by_guide AND t.scenario = 'Offline' AND t.published_on IS NOT NULL
          AND t.gpu IS NOT NULL AND t.precision IS NOT NULL
        GROUP BY ALL
    ),
    latest AS (
        SELECT * FROM rounds
        QUALIFY dense_rank() OVER (PARTITION BY model, gpu, precision ORDER BY published_on DESC) = 1
    )
    SELECT
        l.*,
        usd_per_mtok(d.usd_per_gpu_hour, l.tok_s) AS on_demand,
        usd_per_mtok(p.usd_per_gpu_hour, l.tok_s) AS spot
    FROM latest l
    LEFT JOIN prices d ON d.gpu = l.gpu AND d.price_kind = 'on_demand'
    LEFT JOIN prices p ON p.gpu = l.gpu AND p.price_kind = 'spot'
    ORDER BY l.position, on_demand NULLS LAST, l.gpu, l.engine_name
"""  # noqa: S608
_OFFERS = f"""
    WITH prices AS ({_PRICES})
    SELECT DISTINCT provider, price_as_of
    FROM prices
    WHERE gpu IN (SELECT gpu FROM published_throughput)
    ORDER BY ALL
"""  # noqa: S608

_WARNING = (
    "Results of tuned stacks as their submitters published them, per GPU: the median of n entries. Other "
    "hardware, software and loads than the rows above: don't mix the two."
)
_MORE = "More in the views published_costs, published_evidence, reference_costs and claims."


def published_block(connection: Connection, moment: datetime) -> Block | None:
    """Return costs per GPU and precision at maximum load by published figures, at the prices of a moment.

    A row is the median of the entries of the latest round with any, on one engine. None if the warehouse has no
    published figures of the models to show.
    """
    rows = fetch(connection, _ROWS, ts=moment)
    if not rows:
        return None
    offers = fetch(connection, _OFFERS, ts=moment)
    prices = "; ".join(f"{row['provider']}, of {row['price_as_of']}" for row in offers)
    heading = "For comparison, not measured here: what others published for these GPUs, at maximum load"
    notes = (_WARNING, f"Prices: the lowest of {prices or 'no valid offer'}. {_MORE}")
    return block_of(heading, _COLUMNS, rows, notes=notes, droppable=("evidence", "spot"))


def _money(value: float | None) -> str:
    return NULL if value is None else f"{value:,.3f}"


_COLUMNS = (
    Column("model", itemgetter("model")),
    Column("GPU", itemgetter("gpu")),
    Column("precision", itemgetter("precision")),
    Column("USD/1M out", lambda row: _money(row["on_demand"]), right=True),
    Column("spot", lambda row: _money(row["spot"]), right=True),
    Column("tok/s GPU", lambda row: f"{row['tok_s']:,.0f}", right=True),
    Column("n", lambda row: str(row["entries"]), right=True),
    Column("source", lambda row: f"{row['dataset']} {row['round']}, {row['engine_name']}"),
    Column("evidence", itemgetter("evidence")),
)
