"""``quantgate prices``: import dated offers, and list those that the warehouse prices with."""

from __future__ import annotations

import gc
from pathlib import Path

import click

from commands.options import format_option
from commands.outcome import say_left_out
from commands.output import say, say_rows
from commands.verb import VerbGroup
from quantgate.model.home import Home
from quantgate.model.words import counted

OFFERS = """
    SELECT provider, region, gpu, gpu_count AS gpus, price_kind AS kind, usd_per_hour AS "USD/h",
           valid_from, valid_to, evidence, CASE WHEN current THEN 'yes' ELSE '' END AS current
    FROM prices
"""
RANGES = """
    SELECT provider, region, gpu, gpu_count AS gpus, usd_per_hour_low AS "USD/h from",
           usd_per_hour_high AS "USD/h to", evidence
    FROM reserved_ranges
"""
NO_ON_DEMAND = """
    SELECT gpu, string_agg(DISTINCT price_kind, ' and ' ORDER BY price_kind) AS kinds
    FROM gpu_prices
    WHERE null_reason IS NULL AND list_contains($gpus, gpu)
    GROUP BY gpu
    HAVING NOT bool_or(price_kind = 'on_demand')
    ORDER BY gpu
"""
NO_PRICE = """
    SELECT string_agg(gpu || ' ' || replace(price_kind, '_', '-'), ', ' ORDER BY gpu, price_kind) AS missing
    FROM gpu_prices WHERE null_reason IS NOT NULL AND price_kind <> 'reserved' AND gpu <> 'cpu'
"""


@click.group("prices", cls=VerbGroup, context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Import and list dated price offers of GPUs."""


@command.command("import")
@click.argument("file", type=click.Path(path_type=Path))
def import_file(file: Path) -> int:
    """Import the offers of a CSV or JSON FILE, and recompute costs.

    If one offer is wrong, none is imported. Required fields: provider, gpu, price_kind (on_demand, spot or reserved),
    usd_per_hour, valid_from, source. Optional fields: region, gpu_count (default 1), currency (default USD), valid_to,
    note. Importing a file again changes nothing.
    """
    from warehouse.configuration import import_prices
    from warehouse.load import load_bundles
    from warehouse.prices.offers import BadOffersError
    from warehouse.query import query

    home = Home.current()
    gc.disable()  # it would walk 100,000 offers again and again, for two fifths of the time; nothing here is cyclic
    try:
        done = import_prices(file, home.warehouse)
    except BadOffersError as error:
        for problem in error.problems:
            say(f"quantgate: {problem}", err=True)
        raise
    say_left_out(load_bundles(home.warehouse, home.bundles).problems)
    kept = f", kept in {done.file}" if done.file else ""
    say(f"{counted(done.imported, 'offer')} imported, {done.known} known already{kept}")
    for row in query(home.warehouse, NO_ON_DEMAND, {"gpus": [*done.gpus]}).to_pylist():
        say(
            f"{row['gpu']} has no on-demand price now, costs are at its {row['kinds']} price: import an on-demand "
            "offer to compare"
        )
    return 0


@command.command("list")
@format_option(default="table", show_default=True)
def list_offers(form: str) -> int:
    """List every offer, also those of the past.

    The table is followed by the GPUs that have no price, and by what a reservation may cost.
    """
    from warehouse.query import query
    from warehouse.report.render import render

    warehouse = Home.current().warehouse
    say_rows(render(query(warehouse, OFFERS), form), form)
    if form == "table":
        missing = query(warehouse, NO_PRICE).column("missing")[0].as_py()
        if missing:
            say(f"\nno price: {missing}")
        ranges = query(warehouse, RANGES)
        if ranges.num_rows:
            say(
                "\nreserved: derived from on-demand prices. These are no offers, and no cost is computed from them."
            )
            say_rows(render(ranges, form), form)
    return 0
