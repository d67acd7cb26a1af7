"""Import price offers from a CSV or JSON file, checked line by line, and keep them where a rebuild reads them.

docs/decisions/0006-imported-prices.md says why they lie in files beside the warehouse.
"""

from __future__ import annotations

import hashlib
from bisect import bisect, insort
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path

from pydantic import Field, ValidationError

from quantgate.model.bounded import read_bytes
from quantgate.model.config.gpus import GpuConfig, choose_gpu
from quantgate.model.config.prices import PriceFile, PriceOffer
from quantgate.model.enums import Evidence
from quantgate.model.errors import ConfigError, QuantgateError
from quantgate.model.yaml_file import Strict, explained, fingerprint_of, load_yaml
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


@dataclass(frozen=True)
class Imported:
    """The content of a folder of imported offers."""

    offers: tuple[LocatedOffer, ...] = ()
    problems: tuple[str, ...] = ()
    """One line for each file that can't be read; it stays where it is."""
    digest: str = ""
    """SHA-256 (hex) of the files."""


@dataclass
class _Known:
    """The offers of a series."""

    terms: set[tuple[float, date, date | None]] = field(default_factory=set)
    by_day: list[LocatedOffer] = field(default_factory=list)
    """Sorted by the first day."""
    is_disjoint: bool = True

    def add(self, located: LocatedOffer) -> None:
        self.terms.add(terms(located.offer))
        insort(self.by_day, located, key=_first_day)

    def overlapped(self, offer: PriceOffer) -> LocatedOffer | None:
        """Return an offer whose days overlap those of another; of offers that don't, only the nearest two can."""
        at = bisect(self.by_day, offer.valid_from, key=_first_day)
        others = self.by_day[max(at - 1, 0) : at + 1] if self.is_disjoint else self.by_day
        return next((other for other in others if _overlap(offer, other.offer)), None)


def _first_day(located: LocatedOffer) -> date:
    return located.offer.valid_from


def _overlap(offer: PriceOffer, other: PriceOffer) -> bool:
    """Return True if there are two prices at a time; an offer without an end ends where the next begins."""
    first, second = (offer, other) if offer.valid_from < other.valid_from else (other, offer)
    return first.valid_from == second.valid_from or (
        first.valid_to is not None and second.valid_from < first.valid_to
    )


BySeries = defaultdict[Series, _Known]

_KEPT_HEAD, _KEPT_LINE = "prices:", "- {"
"""How `_keep` writes a file: YAML of which each offer is a line of JSON, read a hundred times as fast as other YAML."""


def series(offer: PriceOffer) -> Series:
    """Return the key of what an offer prices; of a series, the latest offer in force counts."""
    return (offer.provider, offer.region, offer.gpu, offer.gpu_count, str(offer.price_kind))


def terms(offer: PriceOffer) -> tuple[float, date, date | None]:
    """Return price and dates: two offers of a series with the same terms are one, whatever their sources."""
    return (offer.usd_per_hour, offer.valid_from, offer.valid_to)


def imported_folder(warehouse: Path) -> Path:
    """Return the folder of offers imported into a warehouse: beside it, so that a rebuild reads them again."""
    return warehouse.parent / "prices"


def read_imported(folder: Path) -> Imported:
    """Read the offers of all files of a folder, in the order of the file names; the folder may be missing.

    A file that can't be read stops no other: it is a line of ``problems``.
    """
    offers: list[LocatedOffer] = []
    problems: list[str] = []
    digests: list[tuple[str, str]] = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            content = read_bytes(path)
            digests.append((path.name, hashlib.sha256(content).hexdigest()))
            offers += _read_file(path, content)
        except QuantgateError as error:
            problems.append(str(error))
        except (OSError, ValueError, RecursionError) as error:
            problems.append(f"{folder.name}/{path.name}: can't be read ({error})")
    return Imported(tuple(offers), tuple(problems), fingerprint_of(digests))


def _read_file(path: Path, content: bytes) -> list[LocatedOffer]:
    name = f"{path.parent.name}/{path.name}"
    head, _, kept = content.decode().partition(f"\n{_KEPT_HEAD}\n")
    lines = kept.removesuffix("\n").split("\n") if kept and head.startswith("#") else []
    if not lines or not all(line.startswith(_KEPT_LINE) for line in lines):
        read = load_yaml(path, PriceFile).prices
        return [LocatedOffer(f"{name}: prices.{number}", offer) for number, offer in enumerate(read)]
    offers = []
    for number, line in enumerate(lines):
        where = f"{name}: prices.{number}"
        try:
            offers.append(LocatedOffer(where, PriceOffer.model_validate_json(line.removeprefix("- "))))
        except ValidationError as error:
            raise explained(PriceOffer, error, where) from None
    return offers


def import_offers(
    file: Path,
    folder: Path,
    known: Iterable[LocatedOffer],
    gpus: Mapping[str, GpuConfig],
    today: date | None = None,
    rehearse: Callable[[Sequence[PriceOffer]], None] = lambda _offers: None,
) -> PriceImport:
    """Import all offers of a CSV or JSON file into a folder of imported offers, or none of them.

    An offer that is known already stays as it is, so the same file can be imported again.

    Args:
        file: CSV with a header, or a JSON list of objects; the fields are those of configs/prices.yaml.
        folder: folder of imported offers; created if it doesn't exist.
        known: offers from elsewhere (configs/prices.yaml).
        gpus: configs/gpus.yaml, by short name.
        today: the day (UTC) after which no offer may begin; the present one if empty.
        rehearse: loads the new offers into a scratch warehouse; they are kept if it raises nothing.

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
        offers: BySeries = defaultdict(_Known)
        for located in (*known, *read_imported(folder).offers):
            stored = offers[series(located.offer)]
            stored.is_disjoint &= stored.overlapped(located.offer) is None
            stored.add(located)
        new, problems = _sift(lines, offers, gpus, day)
        if problems:
            raise BadOffersError(str(file), problems, len(lines))
        if not new:
            return PriceImport(imported=0, known=len(lines), file=None)
        rehearse(new)
        kept = _keep(file, folder, new)
    return PriceImport(
        imported=len(new),
        known=len(lines) - len(new),
        file=kept,
        gpus=tuple(sorted({offer.gpu for offer in new})),
    )


def _sift(
    lines: Sequence[Line], offers: BySeries, gpus: Mapping[str, GpuConfig], day: date
) -> tuple[list[PriceOffer], list[ConfigError]]:
    """Add the new offers to ``offers``; return them, and an error for each wrong line."""
    new: list[PriceOffer] = []
    problems: list[ConfigError] = []
    first_at: dict[tuple[object, object], str] = {}
    for line in lines:
        try:
            offer = parse_offer(line, Evidence.IMPORTED)
            choose_gpu(gpus, offer.gpu, line.where)
            _check_dates(offer, line.where, day)
            key = (series(offer), terms(offer))
            known = offers[key[0]]
            if key in first_at:
                raise ConfigError(f"the same offer as {first_at[key]}", where=line.where, hint="Remove one.")
            first_at[key] = line.where
            if key[1] in known.terms:
                continue
            _check_overlap(offer, line.where, known)
        except ConfigError as error:
            problems.append(error)
            continue
        known.add(LocatedOffer(line.where, offer))
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


def _check_overlap(offer: PriceOffer, where: str, known: _Known) -> None:
    other = known.overlapped(offer)
    if other is not None:
        raise ConfigError(
            f"overlaps the offer of {other.offer.usd_per_hour:g} USD/h, {_period(other.offer)}, at {other.where}",
            where=where,
            hint="Give both valid_from and valid_to so that one ends before the other begins.",
        )


def _period(offer: PriceOffer) -> str:
    return f"{offer.valid_from} to {offer.valid_to or 'the next'}"


def _keep(file: Path, folder: Path, offers: Sequence[PriceOffer]) -> Path:
    """Write the new offers into a file of their own, named by its content."""
    lines = [f"- {offer.model_dump_json(exclude_none=True)}\n" for offer in offers]
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    head = (
        f"# Imported by `quantgate prices import` from {file.name!r} (SHA-256 {digest}).\n"
        "# The loader reads it beside configs/prices.yaml; a rebuilt warehouse needs it.\n"
    )
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{fingerprint_of(lines)[:16]}.yaml"
    remove_leftovers(target)
    with replacing(target) as temporary:
        temporary.write_text("".join((head, f"{_KEPT_HEAD}\n", *lines)), encoding="utf-8")
    return target
