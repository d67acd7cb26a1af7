"""Every test has a home of its own; engine environments are shared, they take gigabytes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from quantgate.model.config import ROOT

sys.path.insert(0, str(ROOT))


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
