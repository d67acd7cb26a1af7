"""One engine process: vLLM's OpenAI server, started, watched and stopped as a whole."""

from __future__ import annotations

import json
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from quantgate.bundles.manifest import EngineStart
from quantgate.model.config.engines import EngineConfig
from quantgate.model.config.models import Allowed
from quantgate.model.errors import ConfigError, RunError
from quantgate.model.records import Checkpoint
from quantgate.model.secrets import is_secret
from tasks.engine.arguments import serving_arguments
from tasks.engine.endpoint import EngineEndpoint
from tasks.engine.environment import EngineEnvironment
from tasks.engine.log import (
    attention_backend_in,
    kernel_rules,
    kernels_in,
    kv_cache_dtype_in,
    kv_cache_tokens_in,
    served_mode,
)
from tasks.engine.permission import check_permitted
from tasks.engine.process import Tied, child_environment, how_ended, last_words
from tasks.progress import Reporter, Step
from tasks.time_left import START_KEY

HOST = "127.0.0.1"
SERVED_MODEL = "quantgate"
API_KEY_VARIABLE = "VLLM_API_KEY"
DEVICES_VARIABLE = "CUDA_VISIBLE_DEVICES"
# Recorded with every start: what changes an engine's numbers, and where it ran. Never a token or a key.
ENVIRONMENT_ALLOW_LIST = (
    "VLLM_",
    "OMP_",
    "KMP_",
    DEVICES_VARIABLE,
    "NCCL_",
    "TORCH_",
    "MKL_",
    "OPENBLAS_",
)
STOP_STRINGS_VARIABLE = "VLLM_MAX_STOP_STRINGS"
STOP_STRINGS = 4
"""Most stop strings of one request that vLLM accepts by itself; more are answered with status 400."""
# An engine serves what was pulled, and reports nothing to anybody.
_BASE_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}


@dataclass(frozen=True)
class RunningEngine:
    """An engine that answers."""

    endpoint: EngineEndpoint
    start: EngineStart
    process: Tied
    environment: EngineEnvironment


def _endpoint(
    process: Tied, name: str, port: int, api_key: str, adapter: str | None, started_at: datetime
) -> EngineEndpoint:
    """Return how the engine of a process is asked, under an id for this start."""
    return EngineEndpoint(
        base_url=f"http://{HOST}:{port}",
        served_model=adapter or SERVED_MODEL,
        engine_start_id=f"{started_at:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}",
        api_key=api_key,
        check_alive=partial(_check_alive, name, process),
        last_words=lambda: last_words(process.output()),
    )


def _check_alive(name: str, process: Tied) -> None:
    """Check that the engine's process has not ended.

    Raises:
        RunError: it has; with its last words.
    """
    status = process.exit_status()
    if status is not None:
        raise RunError(
            f"the engine {how_ended(status)}; {last_words(process.output())}",
            where=f"engine {name}",
            hint=f"Its log: {process.log}",
        )


def recorded_environment(config: EngineConfig) -> dict[str, str]:
    """Return the allowed variables that an engine would run with, inherited ones included, for the run's identity.

    Which of a host's GPUs it runs on is not: another worker of the host asks for the same run.
    """
    everything = _allowed(child_environment() | _BASE_ENVIRONMENT | config.environment)
    everything.pop(DEVICES_VARIABLE, None)
    return everything


def _allowed(variables: Mapping[str, str]) -> dict[str, str]:
    return {
        key: value
        for key, value in sorted(variables.items())
        if key.startswith(ENVIRONMENT_ALLOW_LIST) and not is_secret(key, value)
    }


def _port(config: EngineConfig, name: str) -> int:
    """Return the configured port, or a free one.

    Raises:
        ConfigError: the configured port is in use.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, config.port or 0))
        except OSError:
            raise ConfigError(
                f"port {config.port} is in use",
                where=f"engines.yaml: {name}",
                hint="Stop what listens there, or leave 'port' out to use a free one.",
            ) from None
        return int(probe.getsockname()[1])


def _command(
    python: Path, checkpoint: Checkpoint, arguments: Mapping[str, Any], port: int
) -> tuple[str, ...]:
    own = {"model": checkpoint.path, "served-model-name": SERVED_MODEL, "host": HOST, "port": port}
    flags = [part for key, value in {**own, **arguments}.items() for part in _flag(key, value)]
    return (str(python), "-m", "vllm.entrypoints.openai.api_server", *flags)


def _flag(key: str, value: Any) -> list[str]:
    """Write one argument for vLLM's parser: a map as JSON, a list as several values, true as a bare flag."""
    if isinstance(value, bool):
        return [f"--{key}"] if value else []
    values = value if isinstance(value, list) else [value]
    return [f"--{key}", *(json.dumps(v) if isinstance(v, dict | list) else str(v) for v in values)]


def allowing(environment: EngineEnvironment, stop_strings: int) -> EngineEnvironment:
    """Return an engine that accepts so many stop strings in a request; the same one where it does already.

    That changes no answer, so it is no part of a run's identity.

    Raises:
        ConfigError: the variable that limits them is no number.
    """
    config = environment.config
    set_to = (child_environment() | config.environment).get(STOP_STRINGS_VARIABLE, str(STOP_STRINGS))
    if not set_to.isdigit():
        raise ConfigError(
            f"{STOP_STRINGS_VARIABLE} is {set_to!r}",
            where=f"engine {environment.name}",
            hint="Give a number, or unset it.",
        )
    if stop_strings <= int(set_to):
        return environment
    variables = config.environment | {STOP_STRINGS_VARIABLE: str(stop_strings)}
    return replace(environment, config=config.model_copy(update={"environment": variables}))


def _environment(config: EngineConfig, api_key: str, uuids: tuple[str, ...]) -> dict[str, str]:
    """Return the engine's environment: ours for a child, with the engine's settings.

    It sees the GPUs that the run holds and no others.
    """
    devices = {DEVICES_VARIABLE: ",".join(uuids)} if uuids else {}
    return (
        child_environment() | _BASE_ENVIRONMENT | config.environment | devices | {API_KEY_VARIABLE: api_key}
    )


def _await_ready(endpoint: EngineEndpoint, environment: EngineEnvironment, log: Path, step: Step) -> None:
    """Return when the engine answers; a server at its port that refuses its key is another one.

    Raises:
        RunError: it ended, or did not answer within its time.
    """
    limit_s, pause_s = environment.config.start_timeout_s, 0.02
    while not endpoint.answers():
        endpoint.check_alive()
        if time.monotonic() - step.started > limit_s:
            raise RunError(
                f"did not answer within {limit_s:.0f} s; {endpoint.last_words()}",
                where=f"engine {environment.name}",
                hint=f"Raise start_timeout_s in engines.yaml, or see its log: {log}",
            )
        step.update()
        time.sleep(pause_s)
        pause_s = min(1.5 * pause_s, 0.25)


@contextmanager
def serve(
    checkpoint: Checkpoint,
    environment: EngineEnvironment,
    overrides: Mapping[str, Any],
    *,
    adapter: str | None = None,
    uuids: tuple[str, ...] = (),
    log: Path,
    report: Reporter,
    expected_s: float | None = None,
) -> Iterator[RunningEngine]:
    """Start the engine on a checkpoint; stop all of it at the end, however it ends.

    Args:
        checkpoint: what to serve.
        environment: the engine.
        overrides: serving arguments of this run, resolved by :mod:`tasks.engine.argument_files`.
        adapter: the LoRA adapter that requests go to, by its served name; the model itself if None.
        uuids: the GPUs it may use; those that are visible if empty.
        log: where the engine's output goes.
        report: progress.
        expected_s: how long the start took before, in seconds.

    Raises:
        ConfigError: the configured port is in use, or an argument would run code that isn't permitted.
        RunError: it ended or did not answer within its time; with its last words.
    """
    config, rules = environment.config, kernel_rules()
    port, api_key = _port(config, environment.name), secrets.token_urlsafe(24)
    variables = _environment(config, api_key, uuids)
    arguments = serving_arguments(config, overrides)
    # Pickles were decided on when the checkpoint was resolved.
    check_permitted(arguments, Allowed(remote_code=checkpoint.remote_code, pickle=True))
    command = _command(environment.python, checkpoint, arguments, port)
    started_at, clock = datetime.now(UTC), time.monotonic()
    with Tied(command, log=log, environment=variables) as process:
        endpoint = _endpoint(process, environment.name, port, api_key, adapter, started_at)
        with report.step(
            f"engine {environment.name} {environment.version}: start",
            expected_s=expected_s,
            parts=[START_KEY],
        ) as step:
            _await_ready(endpoint, environment, log, step)
        output, metrics = process.output(), endpoint.metrics()
        kernels = kernels_in(output, rules)
        start = EngineStart(
            engine_start_id=endpoint.engine_start_id,
            engine=environment.name,
            engine_version=environment.version,
            kernels=kernels,
            kernel_mode=served_mode(checkpoint, kernels, rules),
            attention_backend=attention_backend_in(output),
            start_duration_s=time.monotonic() - clock,
            environment=_allowed(variables),
            command=command,
            started_at=started_at,
            kv_cache_tokens=kv_cache_tokens_in(metrics),
            kv_cache_dtype=kv_cache_dtype_in(output, metrics),
        )
        yield RunningEngine(endpoint, start, process, environment)
