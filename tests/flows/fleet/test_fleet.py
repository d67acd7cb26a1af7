"""A fleet on a real Prefect server: made, repeated, changed; runs on a schedule and by hand end in rows."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
import yaml
from prefect.blocks.system import Secret
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    DeploymentFilter,
    DeploymentFilterName,
)
from prefect.client.schemas.schedules import RRuleSchedule
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelling, Completed, Running

from flows.fleet import submit as submitting
from flows.fleet.check import checked_fleet
from flows.fleet.deployments import TAG, Deployment, deployments
from flows.fleet.form import form_of
from flows.fleet.provision import initialize
from flows.fleet.secrets import hub_token
from flows.fleet.submit import Submission, prepare, submit
from flows.parameters import ValidateParameters
from quantgate.model.errors import ConfigError
from quantgate.model.home import ROOT, Home
from tests.stub_engine.make import make
from tests.support import prefect_server
from tests.support.command import QUANTGATE, nothing_left, quantgate
from tests.support.prefect_server import Server
from tests.tasks.engine.test_process import wait_for

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
    assert found.parameter_openapi_schema == form_of(_deployment_of("validate/h100"))

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


def _deployment_of(name: str) -> Deployment:
    return next(one for one in deployments(checked_fleet()) if one.full_name == name)


@pytest.fixture
def submission(client: SyncPrefectClient, home: Path) -> Iterator[Submission]:
    """A validation that nobody runs; the runs that come of it are removed."""
    initialize(client, checked_fleet())
    before = {run.id for run in client.read_flow_runs()}
    parameters = ValidateParameters(model="quantgate-demo", precisions=["fp8"])
    yield prepare(checked_fleet(), "h100", parameters, Home(home))
    for run in client.read_flow_runs():
        if run.id not in before:
            client.delete_flow_run(run.id)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"model": "quantgate-demo"}, "Additional properties are not allowed ('model' was unexpected)"),
    ({"parameters": {"model": "no-such"}}, "'no-such' is not one of ["),
    ({"parameters": {"model": "quantgate-demo", "limitt": 3}}, "('limitt' was unexpected)"),
    ({"parameters": {"model": "quantgate-demo", "gpu": "b200"}}, "'b200' is not one of ['cpu']"),
    ({"parameters": {"limit": 3}}, "'model' is a required property"),
    ({"parameters": {"baseline": "a", "candidates": ["b"]}}, "'tasks' is a required property"),
]


@pytest.mark.usefixtures("submission")
def test_what_a_form_does_not_offer_is_refused_when_it_is_submitted(
    server: Server, client: SyncPrefectClient
) -> None:
    deployment = client.read_deployment_by_name("validate/h100")
    address = f"{server.url}/deployments/{deployment.id}/create_flow_run"
    before = len(client.read_flow_runs())
    for given, reason in REFUSED:
        answer = httpx.post(address, json={"parameters": given})
        assert answer.status_code == 409, given
        assert reason in answer.json()["detail"]
    assert len(client.read_flow_runs()) == before


def test_a_server_with_older_names_says_how_it_gets_these(
    client: SyncPrefectClient, submission: Submission
) -> None:
    newer = submission.parameters.model_copy(update={"policy": "newer"})
    with pytest.raises(
        ConfigError, match=r"'newer' is not one of .* `quantgate fleet init` gives the server"
    ):
        submit(client, submission._replace(parameters=newer))


def test_the_same_run_is_joined_until_it_has_ended(
    client: SyncPrefectClient, submission: Submission, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, joined = submit(client, submission)
    assert not joined
    assert first.name == "quantgate-demo fp8 on cpu"
    assert {"model:quantgate-demo", "precision:fp8", "gpu:cpu", "policy:demo", TAG} <= set(first.tags)
    assert submit(client, submission) == (first, True)

    with monkeypatch.context() as race:  # another submitter asks before the first one's run is there
        race.setattr(submitting, "_free_key", lambda *_: (first.idempotency_key, None))
        run, joined = submit(client, submission)
        assert (run.id, joined) == (first.id, True)

    client.set_flow_run_state(first.id, Running(), force=True)
    run, joined = submit(client, submission)
    assert (run.id, joined) == (first.id, True)
    other, joined = submit(client, submission._replace(digest="of-other-questions"))
    assert (other.id != first.id, joined) == (True, False)

    client.set_flow_run_state(first.id, Cancelling(), force=True)
    second, joined = submit(client, submission)
    assert (second.id != first.id, joined) == (True, False)
    client.set_flow_run_state(second.id, Completed(), force=True)
    third, joined = submit(client, submission)
    assert (third.id in {first.id, second.id}, joined) == (False, False)


def test_a_fresh_run_is_joined_only_while_it_is_queued(
    client: SyncPrefectClient, submission: Submission
) -> None:
    fresh = submission._replace(parameters=submission.parameters.model_copy(update={"fresh": True}))
    first, _ = submit(client, fresh)
    again, joined = submit(client, fresh)
    assert (again.id, joined) == (first.id, True)
    client.set_flow_run_state(first.id, Running(), force=True)
    second, joined = submit(client, fresh)
    assert (second.id != first.id, joined) == (True, False)


def test_sigterm_ends_the_watching_and_the_run_goes_on(
    client: SyncPrefectClient, submission: Submission, tmp_path: Path
) -> None:
    queued, _ = submit(client, submission)
    log = tmp_path / "log"
    with log.open("w") as err:
        command = [QUANTGATE, "validate", "quantgate-demo", "--precision", "fp8", "--gpu", "h100", "--watch"]
        watching = subprocess.Popen(command, stderr=err)
    assert wait_for(lambda: f"{queued.name}: Scheduled" in log.read_text(), 60)
    watching.terminate()
    assert watching.wait(timeout=60) == 143
    told = log.read_text().splitlines()
    assert any(line.startswith(f"joined {queued.name} in pool h100, scheduled since ") for line in told)
    assert told[-1] == (
        f"the run goes on: `quantgate fleet watch {queued.id}` follows it again, "
        f"`prefect flow-run cancel {queued.id}` cancels it"
    )
    assert client.read_flow_run(queued.id).state_name == "Scheduled"


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
        _says_its_verdict(client, UUID(run_id))
        on_schedule = quantgate("fleet", "watch", scheduled)
        assert on_schedule.status == 0, on_schedule.err
        by_schedule = client.read_flow_run(UUID(scheduled))
        assert by_schedule.auto_scheduled
        assert by_schedule.name == "quantgate-demo nvfp4 on cpu"
        assert "precision:nvfp4" in by_schedule.tags
    rows = _rows()
    assert len(rows) == 4, "a baseline and a candidate each"
    assert {row["gpu"] for row in rows} == {"cpu"}
    assert {(row["precision"], row["concurrency"]) for row in rows} == {
        *(("bf16", 1), ("bf16", 2), ("fp8", 2), ("nvfp4", 1))
    }
    assert nothing_left(home) == []
    told = out + err + on_schedule.out + on_schedule.err
    _no_token(server, home, told)


def _says_its_verdict(client: SyncPrefectClient, run_id: UUID) -> None:
    """The run's own page has name, tags, verdict and artifact; a verdict that isn't VALIDATED fails no run."""
    run = client.read_flow_run(run_id)
    assert run.name == "quantgate-demo fp8 on cpu"
    assert {"precision:fp8", "gpu:cpu", "suite:cloze.yaml"} <= set(run.tags)
    assert run.state is not None
    assert run.state.is_completed()
    assert re.fullmatch(r"[A-Z]+ for all: fp8 \(.* points\)", run.state.message or "")
    own = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run_id]))
    (page,) = client.read_artifacts(artifact_filter=own)
    assert page.key == "verdict-quantgate-demo-cpu"
    assert str(page.data).startswith(f"**{run.state.message}**")


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
