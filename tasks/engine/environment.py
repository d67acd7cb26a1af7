"""The engine's own environment: made with uv on first use, or an interpreter that has the engine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import uv
from filelock import FileLock

from quantgate.model.config.engines import EngineConfig, EngineFile
from quantgate.model.enums import EngineKind
from quantgate.model.errors import ConfigError, RunError
from quantgate.model.home import ROOT, Home
from quantgate.model.yaml_file import choose, fingerprint_of, load_yaml
from tasks.engine.process import PROXIES, child_environment, run_tied
from tasks.progress import Reporter

INSTALL_TIMEOUT_S = 3600.0
_INDEXES = (*PROXIES, "PIP_", "UV_")
"""Variables that say where packages come from, and their passwords."""


@dataclass(frozen=True)
class EngineEnvironment:
    """A ready interpreter that can serve."""

    name: str
    config: EngineConfig
    python: Path
    version: str


def _file() -> Path:
    """Return configs/engines.yaml, or the file that QUANTGATE_ENGINES_FILE names."""
    return Path(os.environ.get("QUANTGATE_ENGINES_FILE") or ROOT / "configs" / "engines.yaml")


def engines() -> dict[str, EngineConfig]:
    """Read every engine that is configured."""
    return load_yaml(_file(), EngineFile).engines


def load_engine(name: str | None, hardware_kind: str) -> tuple[str, EngineConfig]:
    """Read the engine called ``name``, the host's (QUANTGATE_ENGINE), or the default for ``cpu`` or ``gpu``.

    Raises:
        ConfigError: the file is wrong or nothing is called that.
    """
    path = _file()
    file = load_yaml(path, EngineFile)
    chosen: str = (
        name
        or os.environ.get("QUANTGATE_ENGINE")
        or choose(file.default, hardware_kind, f"{path.name}: default")
    )
    config: EngineConfig = choose(file.engines, chosen, path.name)
    needs = {EngineKind.UV: ("python", "requirements"), EngineKind.PYTHON: ("interpreter",)}[config.kind]
    for key in needs:
        if getattr(config, key) is None:
            raise ConfigError(
                f"key 'engines.{chosen}.{key}' is missing",
                where=path.name,
                hint=f"An engine of kind {config.kind} needs it.",
            )
    return chosen, config


def environment_folder(name: str, config: EngineConfig, home: Home) -> Path:
    """Return the folder of a uv environment; its name changes with everything it is made from."""
    files = [ROOT / str(config.requirements)]
    for plugin in config.plugins:
        files += [*sorted((ROOT / plugin).rglob("*.py")), ROOT / plugin / "pyproject.toml"]
    for file in files:
        if not file.is_file():
            raise ConfigError("no such file", where=f"engines.yaml: {name}: {file}", hint="Correct the path.")
    content = {str(f.relative_to(ROOT)): f.read_text() for f in files} | {"python": config.python}
    return home.engines / f"{name}-{fingerprint_of(content)[:12]}"


def plugins_content(config: EngineConfig) -> dict[str, str]:
    """Return the hash of each plugin's code: a kernel of ours that changes makes another run."""
    return {
        plugin: fingerprint_of([file.read_text() for file in sorted((ROOT / plugin).rglob("*.py"))])
        for plugin in config.plugins
    }


def is_ready(name: str, config: EngineConfig, home: Home) -> bool:
    """Return True if nothing has to be installed before the engine can start."""
    if config.kind is EngineKind.PYTHON:
        return Path(str(config.interpreter)).exists()
    return (environment_folder(name, config, home) / ".ready").exists()


def _run(python: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a line of Python under an interpreter, without our secrets."""
    return subprocess.run(
        [python, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=child_environment(),
    )


def _version(name: str, config: EngineConfig, python: Path) -> str:
    """Return the engine's version in its environment."""
    code = (
        "import sys; from importlib.metadata import version, PackageNotFoundError\n"
        "try: print(version(sys.argv[1]))\nexcept PackageNotFoundError: sys.exit(3)"
    )
    try:
        done = _run(python, code, config.distribution)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(
            f"can't be run ({error})",
            where=f"engines.yaml: {name}: {python}",
            hint="Name an interpreter that has the engine.",
        ) from None
    if done.returncode != 0:
        raise ConfigError(
            f"has no package '{config.distribution}'",
            where=f"engines.yaml: {name}: {python}",
            hint="Install the engine there, or choose another with --engine.",
        )
    installed_version = done.stdout.strip()
    if config.version and installed_version != config.version:
        raise ConfigError(
            f"version {installed_version} was found where {config.version} is declared",
            where=f"engines.yaml: {name}",
            hint="Correct the version, or remove the environment so that it is made again.",
        )
    return installed_version


def plugins_of(environment: EngineEnvironment) -> list[str]:
    """Return the packages in the engine's environment that bring vLLM plugins."""
    code = (
        "from importlib.metadata import entry_points\n"
        "print(*sorted({e.dist.name for e in entry_points(group='vllm.general_plugins')}))"
    )
    return _run(environment.python, code).stdout.split()


def _find_links() -> str | None:
    """Return where pip looks for wheels beside its index; uv does not read pip's settings by itself."""
    named = os.environ.get("UV_FIND_LINKS") or os.environ.get("PIP_FIND_LINKS")
    if named:
        return named
    done = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.find-links"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or None


def _install(name: str, config: EngineConfig, target: Path, log: Path, report: Reporter) -> None:
    """Make the environment: requirements as pinned, then the plugins."""
    tool = uv.find_uv_bin()
    environment = child_environment(keep=_INDEXES) | {"UV_NO_PROGRESS": "1"}
    log.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    with report.step(f"engine {name}: making its environment (once; log {log})", expected_s=45) as step:

        def run(*command: str, **extra: str) -> None:
            run_tied(
                [tool, *command],
                what=f"engine {name}: set-up",
                log=log,
                environment=environment | extra,
                timeout_s=INSTALL_TIMEOUT_S,
                poll=step.update,
            )

        try:
            run("venv", "--python", str(config.python), str(target))
        except RunError as error:
            raise RunError(
                f"needs Python {config.python} and none was found or could be fetched",
                where=f"engine {name}",
                hint=f"Install Python {config.python} (Debian: apt install python{config.python} "
                f"python{config.python}-venv; or uv python install {config.python}). {error}",
            ) from None
        install = ("pip", "install", "--python", str(target / "bin" / "python"), "--compile-bytecode")
        pinned = ("--no-deps",) if config.plugins or config.torch_backend else ()
        requirements = ("-r", str(ROOT / str(config.requirements)))
        # Local wheels first, if pip knows of any; then torch's own index, by uv's name for it.
        links = _find_links()
        attempts: list[tuple[str, ...]] = [("--find-links", links)] if links else []
        attempts.append(("--torch-backend", config.torch_backend) if config.torch_backend else ())
        for source in attempts:
            try:
                run(*install, *pinned, *source, *requirements, UV_HTTP_TIMEOUT="60")
                break
            except RunError:
                if source is attempts[-1]:
                    raise
        for plugin in config.plugins:
            # Built from a copy: setuptools leaves its build folder beside the sources.
            copy = target / "plugins" / Path(plugin).name
            shutil.copytree(ROOT / plugin, copy, ignore=shutil.ignore_patterns("*.egg-info", "build"))
            run(*install, "--no-deps", str(copy))
        (target / ".ready").touch()


def installed(name: str, config: EngineConfig, home: Home) -> EngineEnvironment:
    """Return the environment as it is; call it once the environment is ready."""
    if config.kind is EngineKind.PYTHON:
        python = Path(str(config.interpreter))
    else:
        python = environment_folder(name, config, home) / "bin" / "python"
    return EngineEnvironment(name, config, python, _version(name, config, python))


def prepare(name: str, config: EngineConfig, home: Home, report: Reporter) -> EngineEnvironment:
    """Return the engine's environment; make it if it does not exist yet.

    Raises:
        ConfigError: the interpreter or the version is not what engines.yaml declares.
        RunError: the environment can't be made.
    """
    if config.kind is EngineKind.UV and not is_ready(name, config, home):
        target = environment_folder(name, config, home)
        with FileLock(home.engines / f".{target.name}.lock"):
            if not is_ready(name, config, home):
                _install(name, config, target, home.logs / f"engine-env-{target.name}.log", report)
    return installed(name, config, home)
