"""Dockerfile, compose.yaml and docs/schedule-and-deploy.md name what exists. (No container is built.)"""

from __future__ import annotations

import fnmatch
import re
import shlex

import pytest
import yaml

from commands.main import cli
from quantgate.model.config.engines import EngineFile
from quantgate.model.config.fleet import load_fleet
from quantgate.model.home import ROOT
from quantgate.model.yaml_file import load_yaml

DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
DEPLOY = (ROOT / "docs" / "schedule-and-deploy.md").read_text()
IGNORED = (ROOT / ".dockerignore").read_text().split()


def test_what_is_copied_exists_and_is_not_left_out() -> None:
    sources = [
        word for line in re.findall(r"^COPY (.*)", DOCKERFILE, re.MULTILINE) for word in line.split()[:-1]
    ]
    assert {"flows", "tasks", "warehouse", "quantgate", "configs", "plugins", "prefect.yaml"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists(), source
        assert not any(fnmatch.fnmatch(source, pattern) for pattern in IGNORED), source


def test_the_image_carries_the_pinned_engine_and_uv() -> None:
    base = re.search(r"^ARG BASE=vllm/vllm-openai:v(.*)$", DOCKERFILE, re.MULTILINE)
    uv = re.search(r"^ARG UV_VERSION=(.*)$", DOCKERFILE, re.MULTILINE)
    assert base is not None
    assert uv is not None
    engines = load_yaml(ROOT / "configs" / "engines.yaml", EngineFile).engines
    assert base[1] == engines["vllm"].version
    assert f"uv=={uv[1]}" in (ROOT / "requirements" / "pipeline.txt").read_text()
    assert engines["image"].interpreter == "/usr/bin/python3"
    assert re.search(r"^USER 10001$", DOCKERFILE, re.MULTILINE), "never root, and numeric for runAsNonRoot"


def _commands() -> list[str]:
    services = [service.get("command", "") for service in COMPOSE["services"].values()]
    blocks = re.findall(r"```console\n(.*?)```", DEPLOY, re.DOTALL)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return services + lines


OURS = [
    m[1]
    for c in _commands()
    if (m := re.search(r"(?:^|[ /])(quantgate (?!prefect)[a-z].*)$", c)) and "clone" not in c
]


@pytest.mark.parametrize("command", OURS)
def test_quantgate_takes_these_arguments(command: str) -> None:
    _, verb, *arguments = shlex.split(command)
    assert verb in cli.commands, command
    cli.commands[verb].make_context(verb, arguments, resilient_parsing=False).close()


def test_workers_serve_pools_of_the_fleet() -> None:
    named = re.findall(r"--pool[ ,]+([a-z0-9]+)", (ROOT / "compose.yaml").read_text() + DEPLOY)
    assert set(named) >= {"cpu", "h100"}
    assert set(named) <= set(load_fleet().pools)


def test_nothing_is_published_beyond_loopback_and_no_secret_stands_here() -> None:
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert ports == ["127.0.0.1:4200:4200"]
    for service in COMPOSE["services"].values():
        for key, value in service.get("environment", {}).items():
            if re.search("PASSWORD|TOKEN|AUTH", key):
                # Passed on where it is set; an empty one would be a password, of no letters.
                assert value is None or re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), key


def test_every_service_is_confined() -> None:
    """An ordinary user, a root that it can't write, no capabilities, and no way to more privileges."""
    for name, service in COMPOSE["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert any(mount.split(":")[0] == "/tmp" for mount in service["tmpfs"]), name
        assert "privileged" not in service, name
        assert name == "database" or "cap_add" not in service, name
    assert "--cap-drop ALL --security-opt no-new-privileges" in DEPLOY
    assert "allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}" in DEPLOY


def test_every_long_service_is_checked_and_volumes_are_declared() -> None:
    for name, service in COMPOSE["services"].items():
        if service.get("restart") == "unless-stopped":
            assert service["healthcheck"]["test"], name
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in COMPOSE["volumes"], volume


def test_variables_are_those_that_the_code_reads() -> None:
    code = "".join(
        path.read_text() for room in ("flows", "tasks", "quantgate") for path in (ROOT / room).rglob("*.py")
    )
    named = set(re.findall(r"QUANTGATE_[A-Z_]+", DOCKERFILE + (ROOT / "compose.yaml").read_text() + DEPLOY))
    assert "QUANTGATE_LOCKS" in named
    for name in named - {"QUANTGATE_ROOT"}:  # the deployments' pull step reads that one
        assert name in code, name
    assert "QUANTGATE_ROOT" in (ROOT / "prefect.yaml").read_text()


def test_the_kubernetes_example_parses() -> None:
    (manifest,) = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", DEPLOY, re.DOTALL)]
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 1}
    assert manifest["spec"]["selector"]["matchLabels"] == manifest["spec"]["template"]["metadata"]["labels"]
