"""The bundles of a real run of the demo, kept as a fixture (tests/fixtures/README.md), and a warehouse of them."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from quantgate.bundles.manifest import Manifest
from quantgate.model.home import ROOT
from warehouse.load import load_bundles
from warehouse.report.blocks import WIDTH
from warehouse.report.summary import summary_table

BUNDLES = ROOT / "tests" / "fixtures" / "bundles"


def manifests() -> list[Manifest]:
    """Baseline first."""
    found = [Manifest.model_validate_json(p.read_text()) for p in sorted(BUNDLES.glob("*/manifest.json"))]
    return sorted(found, key=lambda m: m.started_at)


def measured_at() -> datetime:
    """A moment after the last run, for prices and ages that do not change with the day of the test."""
    return max(m.measured_at for m in manifests()).astimezone(UTC) + timedelta(minutes=1)


def warehouse(folder: Path) -> Path:
    """A warehouse that holds the fixture."""
    file = folder / "warehouse.duckdb"
    report = load_bundles(file, BUNDLES)
    assert report.problems == ()
    return file


def summary(width: int = WIDTH) -> str:
    """Return the demo's printed output."""
    with tempfile.TemporaryDirectory() as folder:
        return summary_table(warehouse(Path(folder)), measured_at(), width=width)
