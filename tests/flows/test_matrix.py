"""The matrix against a real Prefect server; a stand-in for the hosts copies bundles that were really measured."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey, FlowRunFilter
from prefect.flow_engine import run_flow_sync
from prefect.testing.utilities import prefect_test_harness

from flows.fleet import dispatch as dispatching
from flows.load import load
from flows.matrix import matrix
from flows.parameters import MatrixParameters
from flows.planning.cells import Unit
from flows.planning.matrix_plan import plan
from flows.publish import publish
from quantgate.model.errors import RunError
from quantgate.model.home import Home
from tests.support.demo_bundles import BUNDLES
from warehouse.query import query

FLEET = """
pools:
  cpu: {gpu: cpu, hosts: [{name: here}]}
  b200: {gpu: b200, simulated_by: cpu, hosts: [{name: here}]}
  h200: {gpu: h200, simulated_by: cpu, hosts: [{name: here}]}
  h100: {gpu: h100, simulated_by: cpu, hosts: [{name: here}]}
matrix: {models: [quantgate-demo], pools: [cpu]}
"""


@flow(name="validate")
def copies_bundles(parameters: dict[str, Any]) -> None:
    """A host that has measured what it is asked for: real bundles under today's date."""
    for manifest in sorted(BUNDLES.glob("*/manifest.json")):
        data = json.loads(manifest.read_text())
        if data["checkpoint"]["precision"] not in {"bf16", *parameters["precisions"]}:
            continue
        arrives(manifest, data)


def arrives(manifest: Path, data: dict[str, Any]) -> None:
    place = Path(Home.current().bundles) / manifest.parent.name
    if place.exists():
        return
    shutil.copytree(manifest.parent, place)
    now = datetime.now(UTC).isoformat()
    (place / "manifest.json").write_text(json.dumps(data | {"started_at": now, "measured_at": now}))


@flow(name="validate")
def keeps_its_bundles(parameters: dict[str, Any]) -> None:
    """A host that measures into a folder of its own."""


@flow(name="validate")
def loses_its_engine(parameters: dict[str, Any]) -> None:
    raise RunError("the engine was killed by signal 9", where=f"engine of {parameters['model']}")


DEPLOYMENTS = {
    "validate/cpu": copies_bundles,
    "validate/b200": loses_its_engine,
    "validate/h200": keeps_its_bundles,
    "load/warehouse": load,
    "publish/warehouse": publish,
}


class Hosts:
    """What workers do, in a thread: take scheduled runs of the deployments and run their flows."""

    def __init__(self) -> None:
        self.awake, self.ended = threading.Event(), threading.Event()
        with get_client(sync_client=True) as client:
            self.flows = {
                client.create_deployment(client.create_flow(one), name.split("/")[1]): one
                for name, one in DEPLOYMENTS.items()
            }

    def work(self) -> None:
        taken = set()
        while not self.ended.wait(0.1):
            if not self.awake.is_set():
                continue
            for run in self.runs():
                if run.id not in taken and run.state.is_scheduled():
                    taken.add(run.id)
                    with contextlib.suppress(RunError):
                        run_flow_sync(self.flows[run.deployment_id], run, parameters=run.parameters)

    def runs(self) -> list[Any]:
        with get_client(sync_client=True) as client:
            return client.read_flow_runs(
                flow_run_filter=FlowRunFilter.model_validate({"deployment_id": {"any_": list(self.flows)}})
            )

    def dispatched(self) -> dict[str, int]:
        counts = dict.fromkeys(DEPLOYMENTS, 0)
        names = dict(zip(self.flows, DEPLOYMENTS, strict=True))
        for run in self.runs():
            counts[names[run.deployment_id]] += 1
        return counts


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text(FLEET)
    monkeypatch.setenv("QUANTGATE_FLEET", str(fleet))
    monkeypatch.setattr(dispatching, "POLL_S", 0.1)
    with prefect_test_harness(server_startup_timeout=120):
        hosts = Hosts()
        thread = threading.Thread(target=hosts.work)
        thread.start()
        yield hosts
        hosts.ended.set()
        thread.join()


def artifact() -> str:
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["matrix"])), limit=10
        )
    return str(max(found, key=lambda one: one.created).data)


async def killed_once_dispatched(unit: Unit, hosts: Hosts) -> None:
    task = asyncio.create_task(dispatching.dispatch([unit], 600))
    while not task.done() and not (await asyncio.to_thread(hosts.dispatched))["validate/cpu"]:
        await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_joined_after_a_kill_and_a_failed_run_stops_no_other(
    hosts: Hosts, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free_key = dispatching.free_key

    async def told_when_asked(client: PrefectClient, stem: str) -> tuple[str, bool]:
        found = await free_key(client, stem)
        if found[1]:
            hosts.awake.set()
        return found

    monkeypatch.setattr(dispatching, "free_key", told_when_asked)
    fp8 = MatrixParameters(precisions=["fp8"])

    # A matrix that is killed while its run waits for a worker …
    (unit,) = plan(fp8, Home.current()).units
    asyncio.run(killed_once_dispatched(unit, hosts))
    assert hosts.dispatched()["validate/cpu"] == 1

    # … and started again, when the baseline's bundle is there, joins that run, and loads and publishes all of it.
    for manifest in BUNDLES.glob("*/manifest.json"):
        data = json.loads(manifest.read_text())
        if data["checkpoint"]["precision"] == "bf16":
            arrives(manifest, data)
    done = matrix(fp8)
    assert (done.dispatched, done.measured, done.skipped) == (["quantgate-demo on cpu"], 1, 1)
    assert hosts.dispatched() == {
        "validate/cpu": 1,
        "validate/b200": 0,
        "validate/h200": 0,
        "load/warehouse": 1,
        "publish/warehouse": 1,
    }
    assert artifact().count("| measured | 0.00 |") == 1
    rows = query(home / "warehouse.duckdb", "SELECT DISTINCT precision FROM validated_table ORDER BY 1")
    assert [row["precision"] for row in rows.to_pylist()] == ["bf16", "fp8"]
    assert (home / "published" / "validated_table.csv").is_file()

    # A run that completed, and whose bundle is nowhere here, is none.
    nvfp4 = MatrixParameters(precisions=["nvfp4"], pools=["h200"])
    with pytest.raises(
        RunError, match=r"1 of it failed: h200 quantgate-demo nvfp4: .* share QUANTGATE_BUNDLES"
    ):
        matrix(nvfp4)
    assert "| failed |" in artifact()

    # The baseline is known now. One run fails, one has no deployment: neither stops the third.
    nvfp4 = MatrixParameters(precisions=["nvfp4"], pools=["b200", "h100", "cpu"])
    failing = plan(nvfp4, Home.current()).units[0]
    with pytest.raises(RunError) as failed:
        matrix(nvfp4)
    told = str(failed.value)
    assert told.startswith("matrix: 2 of it failed: quantgate-demo on b200: failed: ")
    assert "the engine was killed by signal 9" in told
    assert "the server has no deployment 'validate/h100'; `quantgate fleet init` makes it" in told
    assert hosts.dispatched() == {
        "validate/cpu": 2,
        "validate/b200": 1,
        "validate/h200": 1,
        "load/warehouse": 3,
        "publish/warehouse": 3,
    }
    rows = query(home / "warehouse.duckdb", "SELECT DISTINCT precision FROM validated_table ORDER BY 1")
    assert [row["precision"] for row in rows.to_pylist()] == ["bf16", "fp8", "nvfp4"]

    # What failed is tried under a key of its own; what is measured isn't dispatched any more.
    stem = f"matrix b200 quantgate-demo {failing.fingerprint[:16]}"

    async def next_key() -> tuple[str, bool]:
        async with get_client() as client:
            return await free_key(client, stem)

    assert asyncio.run(next_key()) == (f"{stem} 2", False)
    assert [unit.due for unit in plan(nvfp4, Home.current()).units] == [[], [], []]
