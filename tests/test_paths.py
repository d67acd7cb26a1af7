"""No name that others wrote leads out of the folder that it belongs in, and files keep who may read them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from quantgate.bundles.manifest import MANIFEST
from quantgate.bundles.store import BundleStore
from quantgate.model.config.suites import SuiteTask
from quantgate.model.errors import ConfigError, RunError
from tasks.quality.task_yaml import read_source
from warehouse.swap import replacing

PATHS = ("../outside", "../../outside", "/etc/passwd", "..", ".hidden", "a/b", "a\\b", "")


@pytest.mark.parametrize("name", PATHS)
def test_no_run_id_leads_out_of_the_store(name: str, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / MANIFEST).write_text(json.dumps({"run_id": name}))
    store = BundleStore(tmp_path / "bundles")
    assert not store.is_bundle(name)
    with pytest.raises(RunError, match="a path is no run's id"):
        store.read_manifest(name)


@pytest.mark.parametrize("name", PATHS)
def test_no_task_leads_out_of_staging(name: str, tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(json.dumps({"task": name}))
    with pytest.raises(ConfigError, match="is a path"):
        read_source(path)
    with pytest.raises(ValidationError):
        SuiteTask(task=name)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
def test_a_replaced_file_keeps_its_permissions(mode: int, tmp_path: Path) -> None:
    """Of the warehouse and of published files."""
    target = tmp_path / "warehouse.duckdb"
    target.touch()
    target.chmod(mode)
    with replacing(target) as temporary:
        temporary.write_text("next")
    assert target.read_text() == "next"
    assert target.stat().st_mode & 0o777 == mode
