"""A home with small bundles in it, and a warehouse loaded from them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from quantgate.bundles.manifest import Manifest
from tests.support.written_runs import BASELINE, FP8, NVFP4, Spec, build_manifest, write_bundle
from warehouse.load import load_bundles


@dataclass(frozen=True)
class Place:
    """A home in a test's folder."""

    path: Path

    @property
    def bundles(self) -> Path:
        return self.path / "bundles"

    @property
    def warehouse(self) -> Path:
        return self.path / "warehouse.duckdb"

    def write(self, *specs: Spec) -> None:
        for spec in specs:
            write_bundle(self.bundles, spec)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """An empty home."""
    return Place(tmp_path)


@pytest.fixture(scope="session")
def without_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warehouse of the committed configuration that no run was loaded into; a new one takes a CPU second."""
    place = Place(tmp_path_factory.mktemp("without-runs"))
    place.bundles.mkdir()
    load_bundles(place.warehouse, place.bundles)
    return place.warehouse


@pytest.fixture
def begun(place: Place, without_runs: Path) -> None:
    """The home's warehouse is there and holds no run, for a test of what a load of runs gives."""
    shutil.copy(without_runs, place.warehouse)


@pytest.fixture(scope="module")
def module_place(tmp_path_factory: pytest.TempPathFactory, without_runs: Path) -> Place:
    """A home that the tests of a module share; they only read what a fixture loads."""
    place = Place(tmp_path_factory.mktemp("home"))
    shutil.copy(without_runs, place.warehouse)
    return place


@pytest.fixture(scope="module")
def loaded(module_place: Place, three: tuple[Spec, Spec, Spec]) -> Place:
    """The three runs, loaded and judged; shared, to be read only."""
    module_place.write(*three)
    load_bundles(module_place.warehouse, module_place.bundles)
    return module_place


@pytest.fixture(scope="session")
def manifest_of() -> Callable[[Spec], Manifest]:
    """The manifest of a run, without files."""
    return lambda spec: build_manifest(spec, {})


@pytest.fixture(scope="session")
def spec() -> Callable[..., Spec]:
    """The record that describes a run to write."""
    return Spec


@pytest.fixture(scope="session")
def three() -> tuple[Spec, Spec, Spec]:
    """A BF16 baseline, an FP8 candidate without a loss, an emulated NVFP4 one that loses 30 points."""
    return BASELINE, FP8, NVFP4
