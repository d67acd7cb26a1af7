"""A fleet on a real Prefect server: made, repeated, changed; runs on a schedule and by hand end in rows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from prefect.blocks.system import Secret
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName
from prefect.client.schemas.schedules import RRuleSchedule
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.fleet.secrets import hub_token
from quantgate.model.home import ROOT
from tests.stub_engine.make import make
from tests.support import prefect_server
from tests.support.command import QUANTGATE, nothing_left, quantgate
from tests.support.prefect_server import Server

OURS, WORKERS_OWN = "hf_planted0in0a0secret", "hf_planted0in0an0environment"
FLEET: dict[str, Any] = {
    "cpu_pool": "cpu",
    "pools": {
        "cpu": {"gpu": "cpu", "hosts": [{"name": "local", "gpus_per_worker": 0}]},
        "h100": {"gpu": "h100", "simulated_by": "cpu", "hosts": [{"name": "one"}]},
        "l40s": {"gpu": "l40s", "simulated_by": "cpu", "hosts": [{"name": "two"}]},
    },
    "matrix": {"models": ["quantgate-demo"], "active": False},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, prefect_database: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("prefect")
    prefect_server.place(prefect_database, folder)
    with prefect_server.running(folder) as found:
        yield found


@pytest.fixture
def fleet(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "fleet.yaml"
    file.write_text(yaml.safe_dump(FLEET))
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("QUANTGATE_FLEET", str(file))
    monkeypatch.setenv("QUANTGATE_ROOT", str(ROOT))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return file


@pytest.fixture
def client(server: Server, fleet: Path) -> Iterator[SyncPrefectClient]:
    with temporary_settings({PREFECT_API_URL: server.url}), get_client(sync_client=True) as found:
        yield found


def states(out: str) -> dict[str, str]:
    """What became of each thing, by its name."""
    told = [
        line.partition(":")[0]
        for line in out.partition("\n\n")[0].splitlines()
        if not line.startswith("nothing")
    ]
    return {line[9:].strip(): line[:9].strip() for line in told}


def test_init_makes_repeats_changes_and_tells_leftovers(fleet: Path, client: SyncPrefectClient) -> None:
    first = quantgate("fleet", "init")
    assert first.status == 0, first.err
    assert set(states(first.out).values()) == {"made"}
    assert "CUDA_VISIBLE_DEVICES" not in first.out, "a CPU stands for these"
    assert "prefect worker start --type process --pool h100 --limit 1 --name one" in first.out

    again = quantgate("fleet", "init")
    assert set(states(again.out).values()) == {"unchanged"}
    assert set(states(again.out)) == set(states(first.out))
    assert "nothing to change" in again.out

    found = client.read_deployment_by_name("validate/h100")
    assert found.global_concurrency_limit is not None
    assert found.global_concurrency_limit.limit == 1
    assert found.concurrency_options is not None
    assert found.concurrency_options.collision_strategy == "ENQUEUE"
    assert found.parameters == {"parameters": {"gpu": "cpu", "afterwards": "fleet"}}
    assert "$QUANTGATE_ROOT" in str(found.pull_steps)
    assert found.work_pool_name == "h100"
    assert client.read_work_pool("h100").concurrency_limit is None, (
        "a killed worker's run would keep its slot"
    )
    assert found.enforce_parameter_schema
    (form,) = (found.parameter_openapi_schema or {})["definitions"].values()
    assert form["properties"]["gpu"]["enum"] == ["cpu"]

    nightly = client.read_deployment_by_name("matrix/nightly")
    (schedule,) = nightly.schedules
    assert not schedule.active
    own = RRuleSchedule(rrule="DTSTART:20300101T000000Z\nRRULE:FREQ=DAILY;COUNT=1")
    client.create_deployment_schedules(found.id, [DeploymentScheduleCreate(schedule=own, slug="mine")])
    pools = {name: pool for name, pool in FLEET["pools"].items() if name != "l40s"}
    pools["h100"] = pools["h100"] | {"hosts": [{"name": "one", "workers": 2}]}
    matrix = FLEET["matrix"] | {"active": True, "cron": "30 2 * * *"}
    fleet.write_text(yaml.safe_dump(FLEET | {"pools": pools, "matrix": matrix}))
    changed = quantgate("fleet", "init")
    became = states(changed.out)
    assert became["deployment validate/h100"] == "changed"
    assert became["schedule of matrix/nightly"] == "changed"
    assert became["deployment validate/l40s"] == "left"
    assert became["pool l40s"] == "left"
    assert became["schedule of validate/h100"] == "left", "a user's own"
    assert [one.slug for one in client.read_deployment_by_name("validate/h100").schedules] == ["mine"]
    (schedule,) = client.read_deployment_by_name("matrix/nightly").schedules
    assert (schedule.active, schedule.schedule.cron) == (True, "30 2 * * *")
    wider = client.read_deployment_by_name("validate/h100").global_concurrency_limit
    assert wider is not None
    assert wider.limit == 2


def test_the_token_comes_from_the_secret_where_the_environment_has_none(
    client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hub_token():
        assert "HF_TOKEN" not in os.environ
    Secret(value=OURS).save("hf-token", overwrite=True)
    with hub_token():
        assert os.environ["HF_TOKEN"] == OURS
    assert "HF_TOKEN" not in os.environ
    monkeypatch.setenv("HF_TOKEN", WORKERS_OWN)
    with hub_token():
        assert os.environ["HF_TOKEN"] == WORKERS_OWN
    assert os.environ["HF_TOKEN"] == WORKERS_OWN


@pytest.mark.timeout(600)
def test_one_run_on_a_schedule_and_one_by_hand(
    server: Server,
    fleet: Path,
    client: SyncPrefectClient,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("QUANTGATE_ENGINES_FILE", str(make(tmp_path)))
    Secret(value=OURS).save("hf-token", overwrite=True)
    assert quantgate("fleet", "init").status == 0
    task = {"tasks": "demo/tasks/cloze.yaml", "family": "conversation", "limit": 12}
    common = [
        *("quantgate-demo", "--precision", "fp8", "--tasks", task["tasks"], "--family", task["family"]),
        *("--limit", "12", "--concurrency", "2"),
    ]
    with ExitStack() as stack:
        stack.enter_context(prefect_server.worker(server, "cpu"))
        own = {"HF_TOKEN": WORKERS_OWN}
        stack.enter_context(prefect_server.worker(server, "l40s", "--limit", "1", environment=own))
        scheduled = _scheduled("validate/l40s", precisions=["nvfp4"], concurrency=[1], **task)
        by_hand = subprocess.Popen(
            [QUANTGATE, "validate", *common, "--gpu", "h100", "--watch", "--require-validated"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        h100 = DeploymentFilter(name=DeploymentFilterName(any_=["h100"]))
        while not client.read_flow_runs(deployment_filter=h100):
            assert by_hand.poll() is None
            time.sleep(0.5)
        stack.enter_context(prefect_server.worker(server, "h100", "--limit", "1"))
        out, err = by_hand.communicate(timeout=400)
        assert by_hand.returncode == 3, err
        assert "no worker of pool h100 is online" in err
        assert "--pool h100 --limit 1 --name one" in err
        assert "quantgate-demo-FP8: qg_demo_cloze" in err, "the flow's own lines"
        assert ": Completed" in err
        assert "quantgate-demo on cpu" in out
        assert "For comparison, not measured here" not in out
        run_id = err.split("/flow-run/")[1].split()[0]
        assert quantgate("fleet", "watch", run_id).out == out
        on_schedule = quantgate("fleet", "watch", scheduled)
        assert on_schedule.status == 0, on_schedule.err
        assert client.read_flow_run(UUID(scheduled)).auto_scheduled
    rows = _rows()
    assert len(rows) == 4, "a baseline and a candidate each"
    assert {row["gpu"] for row in rows} == {"cpu"}
    assert {(row["precision"], row["concurrency"]) for row in rows} == {
        *(("bf16", 1), ("bf16", 2), ("fp8", 2), ("nvfp4", 1))
    }
    assert nothing_left(home) == []
    told = out + err + on_schedule.out + on_schedule.err
    _no_token(server, home, told)


def _scheduled(deployment: str, **parameters: object) -> str:
    """The id of the run that the documented script's schedule made."""
    given = json.dumps({"model": "quantgate-demo", **parameters})
    script = ROOT / "docs" / "schedule_once.py"
    done = subprocess.run(
        [sys.executable, script, deployment, given], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _rows() -> list[dict[str, Any]]:
    done = quantgate(
        "sql", "--format", "json", "SELECT DISTINCT run_id, precision, gpu, concurrency FROM validated_table"
    )
    return list(json.loads(done.out)) if done.status == 0 else []


def _no_token(server: Server, home: Path, told: str) -> None:
    """Neither planted token stands anywhere that a run writes; only the Secret's own block, encrypted."""
    places = {"output": told, **server.tables()}
    files = [path for folder in (home, server.folder) for path in folder.rglob("*") if path.is_file()]
    assert any("manifest.json" in path.name for path in files)
    for token in (OURS, WORKERS_OWN):
        assert [name for name, text in places.items() if token in text] == []
        assert [path for path in files if token.encode() in path.read_bytes()] == []
