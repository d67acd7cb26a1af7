"""Import price offers from a CSV or JSON file, checked line by line, and keep them where a rebuild reads them.

docs/decisions/0006-imported-prices.md says why they lie in files beside the warehouse.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from operator import attrgetter
from pathlib import Path

import yaml
from pydantic import Field

from quantgate.model.config.prices import PriceFile, PriceOffer
from quantgate.model.enums import Evidence
from quantgate.model.errors import ConfigError
from quantgate.model.yaml_file import Strict, choose, fingerprint_of, load_yaml
from warehouse.prices.offer_file import Line, parse_offer, read_lines
from warehouse.swap import exclusive, remove_leftovers, replacing

Series = tuple[str, str, str, int, str]


class PriceImport(Strict):
    """The result of an import."""

    imported: int = Field(description="Offers that are new.")
    known: int = Field(description="Offers that were known already; they stay as they are.")
    file: Path | None = Field(description="The file of the new offers; None without any.")
    gpus: tuple[str, ...] = Field(default=(), description="GPUs of the new offers.")


class BadOffersError(ConfigError):
    """Some lines of a price file are wrong; nothing was imported."""

    def __init__(self, where: str, problems: Sequence[ConfigError], lines: int) -> None:
        """Summarize the wrong lines; ``problems`` has one error for each."""
        self.problems = tuple(problems)
        super().__init__(
            f"{len(problems)} of {lines} offers are wrong, nothing was imported",
            where=where,
            hint="Correct them and import the file again.",
        )


@dataclass(frozen=True)
class LocatedOffer:
    """An offer, and where it is written."""

    where: str
    offer: PriceOffer


BySeries = defaultdict[Series, list[LocatedOffer]]


def series(offer: PriceOffer) -> Series:
    """Return the key of what an offer prices; of a series, the latest offer in force counts."""
    return (offer.provider, offer.region, offer.gpu, offer.gpu_count, str(offer.price_kind))


def terms(offer: PriceOffer) -> tuple[float, date, date | None]:
    """Return price and dates: two offers of a series with the same terms are one, whatever their sources."""
    return (offer.usd_per_hour, offer.valid_from, offer.valid_to)


def imported_folder(warehouse: Path) -> Path:
    """Return the folder of offers imported into a warehouse: beside it, so that a rebuild reads them again."""
    return warehouse.parent / "prices"


def read_imported(folder: Path) -> list[LocatedOffer]:
    """Read the offers of all files of a folder, in the order of the file names; the folder may be missing.

    Raises:
        ConfigError: a file is wrong.
    """
    return [
        LocatedOffer(f"{folder.name}/{path.name}: prices.{number}", offer)
        for path in sorted(folder.glob("*.yaml"))
        for number, offer in enumerate(load_yaml(path, PriceFile).prices)
    ]


def import_offers(
    file: Path,
    folder: Path,
    known: Iterable[LocatedOffer],
    gpus: Mapping[str, object],
    today: date | None = None,
) -> PriceImport:
    """Import all offers of a CSV or JSON file into a folder of imported offers, or none of them.

    An offer that is known already stays as it is, so the same file can be imported again.

    Args:
        file: CSV with a header, or a JSON list of objects; the fields are those of configs/prices.yaml.
        folder: folder of imported offers; created if it doesn't exist.
        known: offers from elsewhere (configs/prices.yaml).
        gpus: configs/gpus.yaml, by short name.
        today: the day (UTC) after which no offer may begin; the present one if empty.

    Raises:
        BadOffersError: lines are wrong, each with its error: an unknown or missing field, an unknown GPU, a price that
            isn't above zero, another currency, an end before the beginning, a beginning in the future, a
            repeated line, or offers of one series that overlap.
        ConfigError: the file can't be read as a whole.
        RunError: another import is in progress.
    """
    day = today or datetime.now(UTC).date()
    with exclusive(folder):
        lines = read_lines(file)
        offers: BySeries = defaultdict(list)
        for located in [*known, *read_imported(folder)]:
            offers[series(located.offer)].append(located)
        new, problems = _sift(lines, offers, gpus, day)
        if problems:
            raise BadOffersError(str(file), problems, len(lines))
        if not new:
            return PriceImport(imported=0, known=len(lines), file=None)
        kept = _keep(file, folder, new)
    return PriceImport(
        imported=len(new),
        known=len(lines) - len(new),
        file=kept,
        gpus=tuple(sorted({offer.gpu for offer in new})),
    )


def _sift(
    lines: Sequence[Line], offers: BySeries, gpus: Mapping[str, object], day: date
) -> tuple[list[PriceOffer], list[ConfigError]]:
    """Add the new offers to ``offers``; return them, and an error for each wrong line."""
    new: list[PriceOffer] = []
    problems: list[ConfigError] = []
    first_at: dict[tuple[object, object], str] = {}
    for line in lines:
        try:
            offer = parse_offer(line).model_copy(update={"evidence": Evidence.IMPORTED})
            choose(dict(gpus), offer.gpu, line.where)
            _check_dates(offer, line.where, day)
            key = (series(offer), terms(offer))
            if key in first_at:
                raise ConfigError(f"the same offer as {first_at[key]}", where=line.where, hint="Remove one.")
            first_at[key] = line.where
            if terms(offer) in (terms(other.offer) for other in offers[series(offer)]):
                continue
            _check_overlap(offer, line.where, offers)
        except ConfigError as error:
            problems.append(error)
            continue
        offers[series(offer)].append(LocatedOffer(line.where, offer))
        new.append(offer)
    return new, problems


def _check_dates(offer: PriceOffer, where: str, day: date) -> None:
    if offer.valid_from > day:
        raise ConfigError(
            f"valid_from {offer.valid_from} lies in the future (today is {day}, UTC)",
            where=where,
            hint="Import it on that day.",
        )
    check_end(offer, where)


def check_end(offer: PriceOffer, where: str) -> None:
    """Refuse an offer that ends before it begins.

    Raises:
        ConfigError: its valid_to isn't after its valid_from.
    """
    if offer.valid_to is not None and offer.valid_to <= offer.valid_from:
        raise ConfigError(
            f"valid_to {offer.valid_to} isn't after valid_from {offer.valid_from}",
            where=where,
            hint="Correct the dates.",
        )


def _check_overlap(offer: PriceOffer, where: str, offers: BySeries) -> None:
    """Refuse two prices at a time; an offer without an end ends where the next begins."""
    for other in offers[series(offer)]:
        first, second = sorted((offer, other.offer), key=attrgetter("valid_from"))
        if first.valid_from == second.valid_from or (
            first.valid_to is not None and second.valid_from < first.valid_to
        ):
            raise ConfigError(
                f"overlaps the offer of {other.offer.usd_per_hour:g} USD/h, {_period(other.offer)}, at {other.where}",
                where=where,
                hint="Give both valid_from and valid_to so that one ends before the other begins.",
            )


def _period(offer: PriceOffer) -> str:
    return f"{offer.valid_from} to {offer.valid_to or 'the next'}"


def _keep(file: Path, folder: Path, offers: Sequence[PriceOffer]) -> Path:
    """Write the new offers into a file of their own, named by its content."""
    rows = [offer.model_dump(mode="json", exclude_none=True) for offer in offers]
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    head = (
        f"# Imported by `quantgate prices import` from {file.name!r} (SHA-256 {digest}).\n"
        "# The loader reads it beside configs/prices.yaml; a rebuilt warehouse needs it.\n"
    )
    text = head + yaml.safe_dump({"prices": rows}, sort_keys=False, allow_unicode=True, width=120)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{fingerprint_of(rows)[:16]}.yaml"
    remove_leftovers(target)
    with replacing(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return target
