"""Every test has a home of its own; engine environments are shared, they take gigabytes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from quantgate.model.home import ROOT

sys.path.insert(0, str(ROOT))

from tasks.progress import Reporter
from tests.support import prefect_server
from tests.support.hub_server import HubServer

settings.register_profile("untimed", deadline=None)  # a busy machine is no fault
settings.load_profile("untimed")

pytest_plugins = ["tests.support.loaded_homes"]


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path_factory.mktemp("home")
    engines = os.environ.get("QUANTGATE_ENGINES") or str(ROOT / ".quantgate" / "engines")
    monkeypatch.setenv("QUANTGATE_HOME", str(place))
    monkeypatch.setenv("QUANTGATE_ENGINES", engines)
    # vLLM names its processes, which overwrites the environment that `processes_of` tells them by.
    monkeypatch.setenv("SPT_NOENV", "1")
    monkeypatch.setenv("QUANTGATE_LOCKS", str(place / "locks"))
    monkeypatch.delenv("QUANTGATE_BUNDLES", raising=False)
    return place


@pytest.fixture(scope="session")
def prefect_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prefect's database with its tables, one for all workers of a test run."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    return prefect_server.migrated(shared / "prefect-database")


@pytest.fixture
def prefect_ready(home: Path, prefect_database: Path) -> None:
    """The private server of the test's home need not make its tables first."""
    prefect_server.place(prefect_database, home / "prefect")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub of the test's own, which no token of the machine reaches; its storage never saw one."""
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        yield server
        assert server.leaks == []


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """Progress lines of this process."""
    told: list[str] = []
    with Reporter(told.append).used():
        yield told
