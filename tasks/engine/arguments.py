"""The arguments that an engine knows, as its own help lists them: a misspelt one is told before a start of 20 s."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from quantgate.model.errors import ConfigError, RunError
from quantgate.model.home import Home
from quantgate.model.yaml_file import fingerprint_of
from tasks.engine.environment import EngineEnvironment
from tasks.engine.process import child_environment, run_tied
from tasks.progress import Reporter

EVERY_VLLM = frozenset(
    {
        "chat-template",
        "data-parallel-size",
        "dtype",
        "enable-lora",
        "enforce-eager",
        "gpu-memory-utilization",
        "kv-cache-dtype",
        "lora-modules",
        "max-lora-rank",
        "max-model-len",
        "max-num-seqs",
        "pipeline-parallel-size",
        "quantization",
        "speculative-config",
        "tensor-parallel-size",
        "trust-remote-code",
    }
)
"""What no help has to be asked for."""

HELP_TIMEOUT_S = 180.0
_HELP = (
    "import runpy, sys\nsys.argv = ['serve', '--help=all']\n"
    "runpy.run_module('vllm.entrypoints.openai.api_server', run_name='__main__')"
)
_FLAG = re.compile(r"--([a-z0-9][a-z0-9-]*)")


def check_known(names: Iterable[str], environment: EngineEnvironment, home: Home, report: Reporter) -> None:
    """Refuse an argument that the engine doesn't know.

    Its help is asked once an environment (some 10 s) and kept; an engine that doesn't tell lets everything through.

    Args:
        names: a run's own arguments, without dashes.
        environment: the engine.
        home: where the list is kept, beside the engines.
        report: progress, while the help is asked.

    Raises:
        ConfigError: one is unknown; the message suggests the nearest.
    """
    unsure = [name for name in names if name not in EVERY_VLLM]
    known = _known(environment, home, report) if unsure else frozenset()
    for name in unsure:
        if known and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean '{near[0]}'?" if near else "See `vllm serve --help=all` of that version."
            raise ConfigError(
                f"{environment.name} {environment.version} has no argument '{name}'",
                where="engine arguments",
                hint=hint,
            )


def _known(environment: EngineEnvironment, home: Home, report: Reporter) -> frozenset[str]:
    """Every argument of the engine, or none where it can't be told."""
    identity = fingerprint_of([str(environment.python), environment.version])
    kept = home.engines / f".arguments-{identity[:12]}.json"
    try:
        return frozenset(json.loads(kept.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        pass
    with report.step(f"engine {environment.name} {environment.version}: asking for its arguments (once)"):
        found = frozenset(
            _FLAG.findall(_help(environment, home.logs / f"engine-arguments-{identity[:12]}.log"))
        )
    if "max-model-len" not in found:
        return frozenset()
    _keep(kept, sorted(found))
    return found


def _keep(path: Path, names: list[str]) -> None:
    """Write the list for the next run; a place that can't be written only costs the asking."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(names), encoding="utf-8")
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)


def _help(environment: EngineEnvironment, log: Path) -> str:
    """What the engine's server prints for --help; empty where it fails."""
    try:
        return run_tied(
            [str(environment.python), "-c", _HELP],
            what=f"engine {environment.name}: help",
            log=log,
            environment=child_environment() | environment.config.environment,
            timeout_s=HELP_TIMEOUT_S,
        )
    except RunError:
        return ""
