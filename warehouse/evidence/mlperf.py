"""Import token rates from MLPerf's official ``summary_results.json`` as a file of published evidence."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import Field

from quantgate.model.bounded import RefusedError, parse_json, read_bytes, reason
from quantgate.model.errors import ConfigError
from quantgate.model.secrets import refuse_secrets
from quantgate.model.yaml_file import Strict, parse_record
from warehouse.evidence.records import MlperfRow, SummaryResult
from warehouse.swap import exclusive, remove_leftovers, replacing

_VENDOR = "NVIDIA "


class SummaryImport(Strict):
    """The result of an import."""

    imported: int = Field(description="Results imported.")
    left_out: int = Field(description="Results of another division, suite, unit, or without accelerators.")
    file: Path = Field(description="The file of the imported results.")


def evidence_folder(warehouse: Path) -> Path:
    """Return the folder of figures imported into a warehouse: beside it, so that a rebuild reads them again."""
    return warehouse.parent / "evidence"


def read_summary(file: Path) -> tuple[list[MlperfRow], int]:
    """Read the token rates of an official summary: closed division, datacenter, on accelerators, in tokens/s.

    Returns:
        The results, and the number of other results in the file.

    Raises:
        ConfigError: the file is no such summary; the message numbers the first wrong element.
    """
    try:
        elements = parse_json(read_bytes(file))
    except FileNotFoundError:
        raise ConfigError("no such file", where=str(file), hint="Give the path of a file.") from None
    except (OSError, RefusedError) as error:
        raise _no_summary(file, f"no JSON in UTF-8 ({reason(error)})") from None
    refuse_secrets(elements, str(file))
    if not isinstance(elements, list) or not elements:
        raise _no_summary(file, "no list of results")
    rows = [_row(element, f"{file.name}: element {n}") for n, element in enumerate(elements)]
    rates = [row for row in rows if row is not None]
    return rates, len(rows) - len(rates)


def _no_summary(file: Path, what: str) -> ConfigError:
    return ConfigError(
        what,
        where=str(file),
        hint="Give the summary_results.json of an MLPerf Inference round (mlcommons/inference_results_v…).",
    )


def _row(element: Any, where: str) -> MlperfRow | None:
    result = parse_record(SummaryResult, element, where)
    accelerators = result.accelerators_per_node or 0
    wanted = (
        result.category == "closed"
        and "datacenter" in result.suite
        and result.units.lower() == "tokens/s"
        and result.accelerator
        and accelerators >= 1
    )
    if not wanted:
        return None
    return parse_record(
        MlperfRow,
        {
            **result.model_dump(include=set(MlperfRow.model_fields)),
            "accelerator": str(result.accelerator).removeprefix(_VENDOR),
            "accelerators_per_node": accelerators,
            "weight_data_types": result.weight_data_types or "unknown",
            "tokens_per_s": result.result,
            "tokens_per_s_per_accelerator": result.result / (accelerators * result.nodes),
        },
        where,
    )


def import_summary(
    file: Path, folder: Path, rehearse: Callable[[Path], None] = lambda _path: None
) -> SummaryImport:
    """Store an official summary's token rates in a folder of published evidence, for the next load.

    The stored file is named by its content, so importing it again changes nothing.

    Args:
        file: the summary.
        folder: the folder of published evidence.
        rehearse: loads the written file into a scratch warehouse; it is kept if that raises nothing.

    Raises:
        ConfigError: see `read_summary`; or the summary has no token rate.
        RunError: another import is in progress.
    """
    rows, left_out = read_summary(file)
    if not rows:
        raise _no_summary(file, "it has no token rate of the closed division, datacenter")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    kept = folder / f"mlperf-{rows[0].round}-{digest}.csv"
    with exclusive(kept):
        remove_leftovers(kept)
        with replacing(kept) as temporary:
            with temporary.open("w", newline="", encoding="utf-8") as out:
                writer = csv.DictWriter(out, list(MlperfRow.model_fields))
                writer.writeheader()
                writer.writerows(row.model_dump() for row in rows)
            rehearse(temporary)
    return SummaryImport(imported=len(rows), left_out=left_out, file=kept)
