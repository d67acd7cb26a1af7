"""The configuration as the warehouse stores it: prices, GPUs and policies, replaced when they change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import duckdb
import pyarrow as pa

from quantgate.model.config.gpus import GpuConfig, GpuFile, choose_gpu
from quantgate.model.config.models import load_models
from quantgate.model.config.policy import Policy, PolicyFile
from quantgate.model.config.prices import PriceFile, PriceOffer
from quantgate.model.errors import ConfigError
from quantgate.model.home import ROOT
from quantgate.model.yaml_file import fingerprint_of, load_yaml
from warehouse.architectures import Shapes, read_shapes, refresh_shapes
from warehouse.database import Connection, create_views, insert_rows, migrate, replace_rows
from warehouse.evidence.mlperf import SummaryImport, evidence_folder, import_summary
from warehouse.evidence.records import Catalogue
from warehouse.evidence.reference import (
    CATALOGUE,
    FOLDER,
    Reference,
    read_reference,
    read_results,
    store_reference,
)
from warehouse.prices.offers import (
    Imported,
    LocatedOffer,
    PriceImport,
    check_end,
    import_offers,
    imported_folder,
    read_imported,
    series,
    terms,
)
from warehouse.rows import policy_row

CONFIGS = ROOT / "configs"


@dataclass(frozen=True)
class Configuration:
    """The contents of ``configs/``, and the imported offers."""

    gpus: GpuFile
    prices: PriceFile
    policies: PolicyFile
    shapes: Shapes
    own_offers: tuple[LocatedOffer, ...]
    """The offers of prices.yaml."""
    imported: tuple[LocatedOffer, ...]
    imported_digest: str
    """SHA-256 (hex) of the files of imported offers."""
    reference: Reference
    scores: tuple[dict[str, object], ...]
    """Published scores of baselines, as rows of ``store.baseline_scores``."""
    problems: tuple[str, ...] = ()
    """One line for each imported file, or some of its offers, that is left out."""

    def digest(self) -> str:
        """Return the SHA-256 (hex) of its content."""
        return fingerprint_of(
            [
                *(part.model_dump(mode="json") for part in (self.gpus, self.prices, self.policies)),
                self.imported_digest,
                self.shapes.digest(),
                self.reference.digest,
                self.scores,
            ]
        )


def read_configuration(
    configs: Path = CONFIGS, imported: Path | None = None, published: Path | None = None
) -> Configuration:
    """Read gpus.yaml, prices.yaml and policy.yaml, model shapes, published evidence and imported offers.

    Args:
        configs: the folder.
        imported: folder of imported offers; an offer that prices.yaml lists too counts once.
        published: folder of imported MLPerf results.

    What is wrong with imported files and offers leaves them out, with a line in ``problems``.

    Raises:
        ConfigError: a file of the folder is missing or wrong; or an offer of prices.yaml names an unknown GPU, ends
            before it begins, or has the series and the first day of another offer.
    """
    gpus = load_yaml(configs / "gpus.yaml", GpuFile)
    prices = load_yaml(configs / "prices.yaml", PriceFile)
    policies = load_yaml(configs / "policy.yaml", PolicyFile)
    shapes = read_shapes(configs)
    own = tuple(
        LocatedOffer(f"prices.yaml: prices.{number}", offer) for number, offer in enumerate(prices.prices)
    )
    kept = read_imported(imported) if imported else Imported()
    further, problems = _further_offers(own, kept.offers, gpus)
    reference = read_reference(configs, gpus, published)
    return Configuration(
        gpus,
        prices,
        policies,
        shapes,
        own,
        further,
        kept.digest,
        reference,
        _published_scores(configs / "models"),
        (*kept.problems, *problems, *reference.problems),
    )


def _further_offers(
    own: Sequence[LocatedOffer], imported: Sequence[LocatedOffer], gpus: GpuFile
) -> tuple[tuple[LocatedOffer, ...], list[str]]:
    """Check all offers; return the imported ones that prices.yaml lacks, and a line for each file with wrong ones."""
    offers: dict[tuple[object, ...], LocatedOffer] = {}
    problems: dict[str, list[ConfigError]] = {}
    for number, located in enumerate([*own, *imported]):
        try:
            _check_offer(located, offers, gpus, is_own=number < len(own))
        except ConfigError as error:
            if number < len(own):
                raise
            problems.setdefault(located.where.partition(":")[0], []).append(error)
    lines = [
        f"{errors[0]}" + (f" So are {len(errors) - 1} more offers of that file." if errors[1:] else "")
        for errors in problems.values()
    ]
    return tuple(offers.values())[len(own) :], lines


def _check_offer(
    located: LocatedOffer, offers: dict[tuple[object, ...], LocatedOffer], gpus: GpuFile, *, is_own: bool
) -> None:
    """Add an offer to those that are checked, unless it is among them.

    Raises:
        ConfigError: it is wrong, or another price of its series begins that day.
    """
    choose_gpu(gpus.gpus, located.offer.gpu, f"{located.where}.gpu")
    check_end(located.offer, located.where)
    key = (*series(located.offer), located.offer.valid_from)
    first = offers.setdefault(key, located)
    if first is not located and (is_own or terms(first.offer) != terms(located.offer)):
        raise ConfigError(
            f"two offers for {', '.join(map(str, key))}, the other at {first.where}",
            where=located.where,
            hint="Keep one, or give the newer its own valid_from.",
        )


def _published_scores(folder: Path) -> tuple[dict[str, object], ...]:
    return tuple(
        {**score.model_dump(), "checkpoint": model.baseline.source}
        for model in load_models(folder).values()
        for score in model.published
    )


def import_prices(file: Path, warehouse: Path, *, today: date | None = None) -> PriceImport:
    """Import the offers of a CSV or JSON file beside a warehouse; the next load prices with them.

    Args:
        file: see `warehouse.prices.offers.import_offers`, also for the errors.
        warehouse: the DuckDB file; it needn't exist yet.
        today: the day (UTC) after which no offer may begin; the present one if empty.
    """
    own = read_configuration()

    def rehearse(offers: Sequence[PriceOffer]) -> None:
        imported = tuple(LocatedOffer(str(file), offer) for offer in offers)
        rehearse_configuration(replace(own, imported=imported), str(file))

    return import_offers(file, imported_folder(warehouse), own.own_offers, own.gpus.gpus, today, rehearse)


def import_results(file: Path, warehouse: Path) -> SummaryImport:
    """Import an official summary of MLPerf beside a warehouse; the next load inserts its token rates.

    Args:
        file: see `warehouse.evidence.mlperf.import_summary`, also for the errors.
        warehouse: the DuckDB file; it needn't exist yet.
    """
    own = read_configuration()

    def rehearse(path: Path) -> None:
        try:
            rows = read_results(path, load_yaml(CONFIGS / FOLDER / CATALOGUE, Catalogue))
        except ConfigError as error:
            raise ConfigError(error.what, where=str(file), hint=error.hint) from None
        reference = replace(own.reference, rows={**own.reference.rows, "published_throughput": rows})
        rehearse_configuration(replace(own, reference=reference), str(file))

    return import_summary(file, evidence_folder(warehouse), rehearse)


def rehearse_configuration(configuration: Configuration, where: str) -> None:
    """Load a configuration into a scratch warehouse, in memory.

    Args:
        configuration: as `read_configuration` reads it.
        where: what is new in it, for the message.

    Raises:
        ConfigError: a table or a view refuses it.
    """
    try:
        with _in_memory(configuration) as connection:
            for view in ("prices", "gpu_prices", "reserved_ranges", "published_evidence", "published_costs"):
                connection.sql(f"FROM {view}").to_arrow_table()
    except (duckdb.Error, pa.ArrowException, ValueError, TypeError, ArithmeticError) as error:
        raise ConfigError(
            f"the warehouse refuses it ({error})",
            where=where,
            hint="Correct the values, and import it again.",
        ) from None


def refresh(connection: Connection, configuration: Configuration) -> None:
    """Replace prices, GPUs and the list of current policies; keep the policies that runs declared."""
    offers = (
        {**vars(located.offer), "origin": located.where.partition(":")[0]}
        for located in (*configuration.own_offers, *configuration.imported)
    )
    replace_rows(connection, "price_offers", offers)
    reserved = configuration.prices.reserved
    replace_rows(connection, "reserved_rule", [reserved.model_dump()] if reserved else [])
    replace_rows(connection, "gpus", (_gpu_row(key, gpu) for key, gpu in configuration.gpus.gpus.items()))
    refresh_shapes(connection, configuration.shapes)
    store_reference(connection, configuration.reference)
    replace_rows(connection, "baseline_scores", configuration.scores)
    policies = configuration.policies.policies
    for name, policy in policies.items():
        add_policy(connection, name, policy)
    rows = (policy_row(name, policy) for name, policy in policies.items())
    replace_rows(connection, "current_policies", rows)


def configured_in_memory(configs: Path = CONFIGS, *, warehouse: Path | None = None) -> Connection:
    """Open a warehouse in memory that holds the configuration and no run; ``with`` closes it.

    Args:
        configs: folder of the configuration.
        warehouse: the user's warehouse, beside which imported prices lie; it needn't exist.

    Raises:
        ConfigError: a file of the configuration is wrong.
    """
    return _in_memory(read_configuration(configs, imported_folder(warehouse) if warehouse else None))


def _in_memory(configuration: Configuration) -> Connection:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    migrate(connection)
    refresh(connection, configuration)
    create_views(connection)
    return connection


def _gpu_row(key: str, gpu: GpuConfig) -> dict[str, object]:
    """Return a row of ``store.gpus``; maps become lists of pairs, as Arrow needs them."""
    maps = {name: list(getattr(gpu, name).items()) for name in ("mig_profiles", "formats", "sources")}
    return {**gpu.model_dump(), **maps, "gpu": key}


def add_policy(connection: Connection, name: str, policy: Policy) -> None:
    """Store a policy unless it is stored already."""
    stored = connection.execute(
        "SELECT 1 FROM store.policies WHERE policy = ? AND policy_fingerprint = ?",
        [name, policy.fingerprint()],
    ).fetchall()
    if not stored:
        insert_rows(connection, "policies", [policy_row(name, policy)])
