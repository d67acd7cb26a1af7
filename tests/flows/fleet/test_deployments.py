"""What a fleet's file becomes: deployments, prefect.yaml, commands that start workers."""

from __future__ import annotations

import pytest

from flows.fleet.deployments import deployments, prefect_yaml, worker_commands
from flows.validate import validate
from quantgate.model.config.fleet import FleetFile, load_fleet
from quantgate.model.home import ROOT


def fleet(**pools: object) -> FleetFile:
    cpu = {"gpu": "cpu", "hosts": [{"name": "local", "gpus_per_worker": 0}]}
    return FleetFile.model_validate({"pools": {"cpu": cpu} | pools, "matrix": {"models": ["quantgate-demo"]}})


def test_the_committed_prefect_yaml_is_what_the_fleets_file_says() -> None:
    assert (ROOT / "prefect.yaml").read_text() == prefect_yaml(load_fleet(ROOT / "configs" / "fleet.yaml"))


def test_each_pool_is_deployed_to_and_load_and_publish_to_the_cpu() -> None:
    found = {one.full_name: one for one in deployments(load_fleet(ROOT / "configs" / "fleet.yaml"))}
    assert {f"validate/{gpu}" for gpu in ("cpu", "l40s", "h100", "h200", "b200", "b300")} < set(found)
    for name in ("matrix/nightly", "load/warehouse", "publish/warehouse"):
        assert found[name].pool == "cpu"
    assert {one.full_name for one in found.values() if one.cron} == {"matrix/nightly"}


@pytest.mark.parametrize("flow", ["validate", "matrix", "load", "publish"])
def test_the_entrypoint_is_a_flow_of_that_name(flow: str) -> None:
    chosen = [one for one in deployments(fleet()) if one.flow == flow]
    assert chosen
    for one in chosen:
        path, function = one.entrypoint.split(":")
        assert (ROOT / path).is_file()
        assert one.load_flow().name == flow
        assert one.load_flow().fn.__name__ == function
        if one.parameters:
            one.load_flow().validate_parameters(one.parameters)


def test_a_simulated_pool_asks_for_what_stands_in() -> None:
    (one,) = [d for d in deployments(fleet(h100={"gpu": "h100", "simulated_by": "cpu"})) if d.name == "h100"]
    parameters = validate.validate_parameters(one.parameters)["parameters"]
    assert (parameters.gpu, parameters.afterwards) == ("cpu", "fleet")
    assert one.limit == 1


def test_workers_of_one_host_share_no_gpu() -> None:
    host = {"name": "gpu1", "workers": 2, "gpus_per_worker": 4}
    made = fleet(h100={"gpu": "h100", "hosts": [host]})
    first, second = worker_commands(made, "h100", made.pools["h100"].hosts[0])
    assert first.startswith("CUDA_VISIBLE_DEVICES=0,1,2,3 ")
    assert first.endswith("--pool h100 --limit 1 --name gpu1-0")
    assert second.startswith("CUDA_VISIBLE_DEVICES=4,5,6,7 ")
    assert second.endswith("--name gpu1-1")
    (validations,) = [d for d in deployments(made) if d.name == "h100"]
    assert validations.limit == 2


def test_the_cpu_pools_worker_has_no_limit() -> None:
    """A validation there waits for load and publish, which the same worker runs."""
    made = fleet()
    (command,) = worker_commands(made, "cpu", made.pools["cpu"].hosts[0])
    assert "--limit" not in command
    assert "CUDA_VISIBLE_DEVICES" not in command


@pytest.mark.parametrize(
    ("file", "told"),
    [
        (ROOT / "configs" / "fleet.yaml", ""),
        (ROOT / "docs" / "local-fleet.yaml", "QUANTGATE_FLEET=$PWD/docs/local-fleet.yaml "),
        ("/there/my fleet.yaml", "QUANTGATE_FLEET='/there/my fleet.yaml' "),
    ],
)
def test_a_worker_reads_the_same_fleet(monkeypatch: pytest.MonkeyPatch, file: object, told: str) -> None:
    """What it runs as `matrix` reads the file on its host."""
    monkeypatch.setenv("QUANTGATE_FLEET", str(file))
    made = fleet()
    (command,) = worker_commands(made, "cpu", made.pools["cpu"].hosts[0])
    assert command.startswith(f"{told}QUANTGATE_ROOT=$PWD .venv/bin/prefect worker start ")
