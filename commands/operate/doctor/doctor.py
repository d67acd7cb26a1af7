"""``quantgate doctor``: check whether this machine can measure, and what is missing."""

from __future__ import annotations

import os
import platform
import shutil
import socket
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version

import click
from pydantic import BaseModel

from commands.operate.doctor.findings import Finding, show
from commands.output import say
from commands.verb import Verb
from quantgate.model.errors import ConfigError, QuantgateError
from quantgate.model.home import Home
from quantgate.model.words import counted

ENGINE_GB = {"cpu": 4.0, "gpu": 10.0}
"""Disk that an engine's environment takes, by kind of hardware."""
PACKAGES = (
    "quantgate",
    "prefect",
    "lm-eval",
    "transformers",
    "huggingface-hub",
    "duckdb",
    "pandas",
    "pyarrow",
)


def _packages() -> Iterator[Finding]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            yield Finding("problem", "packages", f"{name} is missing: make setup")
    yield Finding("ok", "Python", platform.python_version())
    yield Finding("ok", "packages", ", ".join(f"{name} {number}" for name, number in versions.items()))


def _configs() -> Iterator[Finding]:
    from quantgate.model.config.engines import EngineFile, KernelFile, RefusalFile
    from quantgate.model.config.gpus import GpuFile
    from quantgate.model.config.policy import PolicyFile
    from quantgate.model.config.prices import PriceFile
    from quantgate.model.home import ROOT
    from quantgate.model.yaml_file import load_yaml

    kinds: dict[str, type[BaseModel]] = {
        "engines.yaml": EngineFile,
        "gpus.yaml": GpuFile,
        "kernels.yaml": KernelFile,
        "refusals.yaml": RefusalFile,
        "policy.yaml": PolicyFile,
        "prices.yaml": PriceFile,
    }
    for name, kind in kinds.items():
        load_yaml(ROOT / "configs" / name, kind)
    yield Finding("ok", "configs", f"{', '.join(kinds)} are valid")


def _declarations() -> Iterator[Finding]:
    from commands.operate.doctor.models import check_files

    yield from check_files()


def _hardware() -> Iterator[Finding]:
    from quantgate.model.config.gpus import load_gpus, unlisted
    from tasks.device import hardware

    devices = hardware.detect()
    memory = f", {devices.memory_bytes / 1e9:.0f} GB memory" if devices.memory_bytes else ""
    yield Finding("ok", "hardware", f"{devices.device_name} ({devices.gpu}, {devices.sm_arch}){memory}")
    if missing := unlisted(devices.gpu, load_gpus()):
        yield Finding("note", "hardware", missing)
    unfit = None if devices.uuids else hardware.cpu_unsuitable()
    if unfit:
        yield Finding("problem", "CPU", unfit)


def _engine() -> Iterator[Finding]:
    from quantgate.model.config.gpus import load_gpus
    from tasks.device import hardware
    from tasks.device.versions import too_old
    from tasks.engine import environment

    home = Home.current()
    devices = hardware.detect()
    kind = "gpu" if devices.uuids else "cpu"
    name, config = environment.load_engine(None, kind)
    for fault in too_old(devices, name, config, load_gpus()):
        yield Finding("problem", "versions", fault)
    if not environment.is_ready(name, config, home):
        detail = f"{name} is not installed yet; the first run installs it (about {ENGINE_GB[kind]:.0f} GB)"
        yield Finding("note", "engine", detail)
        yield from _disk(home, ENGINE_GB[kind] + 1)
        return
    installed = environment.installed(name, config, home)
    yield Finding("ok", "engine", f"{name} {installed.version} in {installed.python.parent.parent}")
    plugins = environment.plugins_of(installed)
    missing = [plugin for plugin in config.plugins if plugin.rpartition("/")[2] not in plugins]
    state = "problem" if missing else "ok"
    detail = (
        f"{', '.join(missing)} is not installed: remove the environment" if missing else ", ".join(plugins)
    )
    yield Finding(state, "plugins", detail or "none")
    yield from _disk(home, 1)


def _disk(home: Home, needed_gb: float) -> Iterator[Finding]:
    folder = next(p for p in (home.path, *home.path.parents) if p.exists())
    free_gb = shutil.disk_usage(folder).free / 1e9
    state = "ok" if free_gb > needed_gb else "problem"
    yield Finding(state, "disk", f"{free_gb:.0f} GB free at {folder}, {needed_gb:.0f} GB needed")
    yield Finding("ok" if os.access(folder, os.W_OK) else "problem", "home", str(home.path))


def _ports() -> Iterator[Finding]:
    from tasks.engine import environment

    for name, config in environment.engines().items():
        if config.port is None:
            continue
        with socket.socket() as probe:
            busy = probe.connect_ex(("127.0.0.1", config.port)) == 0
        detail = f"{config.port} of engine {name} is {'in use: stop what listens there' if busy else 'free'}"
        yield Finding("problem" if busy else "ok", "port", detail)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield Finding("ok", "ports", f"loopback ports are available (e.g. {probe.getsockname()[1]})")


def _prefect() -> Iterator[Finding]:
    from prefect.settings import get_current_settings

    url = get_current_settings().api.url  # from the environment, or a profile
    if url:
        detail = (
            f"{url} is configured: `fleet`, `matrix` and `validate --gpu` use it; runs in this process do not"
        )
    else:
        detail = (
            "none configured: runs use a private server that ends with them; a worker needs PREFECT_API_URL"
        )
    yield Finding("ok" if not url else "note", "Prefect API", detail)


def _warehouse() -> Iterator[Finding]:
    from warehouse.query import query

    home = Home.current()
    if not home.warehouse.exists():
        yield Finding("note", "warehouse", f"none yet at {home.warehouse}; the first run makes it")
        return
    runs = query(home.warehouse, "SELECT count(*) AS n FROM runs").column("n")[0].as_py()
    yield Finding("ok", "warehouse", f"{counted(runs, 'run')} in {home.warehouse}")


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    _packages,
    _configs,
    _declarations,
    _hardware,
    _engine,
    _ports,
    _prefect,
    _warehouse,
)


def _machine() -> Iterator[Finding]:
    for check in CHECKS:
        try:
            yield from check()
        except QuantgateError as error:
            yield Finding("problem", check.__name__.strip("_"), str(error))


@click.command("doctor", cls=Verb)
@click.argument("names", metavar="[MODEL]...", nargs=-1)
@click.option(
    "--models", is_flag=True, help="Compare the checkpoints of configs/models with the hub instead."
)
def command(names: tuple[str, ...], models: bool) -> int:
    """Check this machine, or models on the hub.

    The check covers packages, configuration, engine and plugin, disk, ports, Prefect API and warehouse. With --models,
    it covers the checkpoints of each MODEL (default: all of configs/models) on the hub: existence, newest commit,
    access, declared precision. No weights are downloaded.
    """
    os.environ["DO_NOT_TRACK"] = (
        "1"  # or Prefect, when it is first imported, prints a notice among the findings
    )
    if models:
        from commands.operate.doctor.models import check_models, chosen

        wanted = chosen(names)
        width = max(13, *(len(model.name) + 2 for model in wanted))
        problems = show(check_models(wanted), width)
    elif names:
        raise ConfigError("models are named, but --models is not given", where="doctor", hint="Add --models.")
    else:
        problems = show(_machine())
    say(counted(problems, "problem") if problems else "no problems")
    return 2 if problems else 0
