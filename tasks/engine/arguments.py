"""Serving arguments of an engine: merged, and checked before it is started for nothing.

The names are checked against the engine's own help, the values against the checkpoint and the workload.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from quantgate.bundles.staging import write_json
from quantgate.model.bounded import parse_json, read_bytes
from quantgate.model.config.engines import EngineConfig
from quantgate.model.config.workloads import Workload
from quantgate.model.errors import ConfigError, RunError, nearest_hint
from quantgate.model.home import Home
from quantgate.model.secrets import refuse_secrets
from quantgate.model.yaml_file import fingerprint_of
from tasks.checkpoint.files import read_json
from tasks.checkpoint.formats.quant_config import sections
from tasks.checkpoint.resolve import POSITION_KEYS
from tasks.engine.environment import EngineEnvironment
from tasks.engine.process import child_environment, run_tied
from tasks.progress import Reporter

WHERE = "engine arguments"
OWN_ARGUMENTS = frozenset({"model", "served-model-name", "host", "port", "api-key", "uds", "config"})
"""Quantgate's to set; a file of arguments (config) would carry others past every check."""
HUB_LOGIN = "hf-token"
PARALLEL_ARGUMENTS = ("tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size")
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
"""Arguments that need no help text to be accepted."""

HELP_TIMEOUT_S = 180.0
_HELP = (
    "import runpy, sys\nsys.argv = ['serve', '--help=all']\n"
    "runpy.run_module('vllm.entrypoints.openai.api_server', run_name='__main__')"
)
_FLAG = re.compile(r"--([a-z0-9][a-z0-9-]*)")

ALLOW_LONG = "VLLM_ALLOW_LONG_MAX_MODEL_LEN"
SCALED_ALREADY = ("default", "su", "longrope", "llama3")
"""RoPE types whose positions are never multiplied; yarn's are by some versions of vLLM (its config/model.py)."""

_SUFFIXES = {"k": 10**3, "m": 10**6, "g": 10**9, "K": 2**10, "M": 2**20, "G": 2**30}


def serving_arguments(config: EngineConfig, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the engine's arguments with a run's own on top; None removes one.

    Raises:
        ConfigError: one of them is Quantgate's to set, holds a secret, or would pass for another one.
    """
    merged = dashed(config.arguments) | dashed(overrides)
    # The engine's parser completes a name that is shortened.
    reserved = sorted(name for name in merged if any(own.startswith(name) for own in OWN_ARGUMENTS))
    if reserved:
        raise ConfigError(
            f"'{reserved[0]}' is set by Quantgate",
            where=WHERE,
            hint="Leave it out; a port is the key 'port' of the engine in engines.yaml.",
        )
    refuse_secrets(
        {HUB_LOGIN if HUB_LOGIN.startswith(name) else name: merged[name] for name in merged}, WHERE
    )
    for name, value in merged.items():
        _check_plain(name, value)
    return {key: value for key, value in merged.items() if value is not None}


def _check_plain(name: str, value: Any) -> None:
    """Refuse what the engine's parser would take for another argument."""
    values = value if isinstance(value, list) else [value]
    smuggled = next((v for v in values if isinstance(v, str) and re.match(r"--|-[A-Za-z]", v)), None)
    if smuggled is not None or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*", name):
        what = f"'{name}' is no name" if smuggled is None else f"the value of '{name}' is an argument itself"
        raise ConfigError(
            what, where=WHERE, hint="Give each argument by its own name, without dashes before it."
        )


def dashed(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Name arguments as vLLM's help does; ``map.key`` sets a key of a map, as in its parser.

    Raises:
        ConfigError: a key of what is no map.
    """
    renamed: dict[str, Any] = {}
    for key, value in arguments.items():
        name, *inner = key.lstrip("-").split(".")
        name = name.replace("_", "-")
        nested = value
        for part in reversed(inner):
            nested = {part: nested}
        renamed[name] = _merged(name, renamed[name], nested) if inner and name in renamed else nested
    return renamed


def _merged(name: str, base: Any, more: dict[str, Any]) -> dict[str, Any]:
    """Lay one map over another, key by key."""
    if not isinstance(base, dict):
        raise ConfigError(f"'{name}' is not a map", where=WHERE, hint="Give all of it as one map.")
    both = base.keys() & more.keys()
    return {**base, **more} | {k: _merged(name, base[k], more[k]) for k in both if isinstance(more[k], dict)}


def gpu_count(arguments: Mapping[str, Any]) -> int:
    """Return the GPUs that the engine spreads over: tensor x pipeline x data parallel.

    Raises:
        ConfigError: one of them is not a whole number above 0.
    """
    count = 1
    for key in PARALLEL_ARGUMENTS:
        value = arguments.get(key, 1)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(f"'{key}' is {value!r}", where=WHERE, hint="Give a whole number above 0.")
        count *= value
    return count


def check_known(names: Iterable[str], environment: EngineEnvironment, home: Home, report: Reporter) -> None:
    """Refuse an argument that the engine doesn't know.

    Its help is asked once an environment (some 10 s) and kept; without a help every argument is accepted.

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
            what = f"{environment.name} {environment.version} has no argument '{name}'"
            hint = nearest_hint(name, known, "See `vllm serve --help=all` of that version.")
            raise ConfigError(what, where=WHERE, hint=hint)


def _known(environment: EngineEnvironment, home: Home, report: Reporter) -> frozenset[str]:
    """Return every argument of the engine; none if its help does not say."""
    identity = fingerprint_of([str(environment.python), environment.version])
    kept = home.engines / f".arguments-{identity[:12]}.json"
    try:
        return frozenset(parse_json(read_bytes(kept)))
    except (OSError, ValueError):
        pass
    with report.step(f"engine {environment.name} {environment.version}: asking for its arguments (once)"):
        names = frozenset(
            _FLAG.findall(_help(environment, home.logs / f"engine-arguments-{identity[:12]}.log"))
        )
    if "max-model-len" not in names:
        return frozenset()
    with contextlib.suppress(OSError):  # a folder that can't be written only costs the asking
        write_json(kept, sorted(names))
    return names


def _help(environment: EngineEnvironment, log: Path) -> str:
    """Return what the engine's server prints for --help; empty if it fails."""
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


def check_limits(
    arguments: Mapping[str, Any],
    folder: Path,
    workload: Workload | None,
    answers: tuple[str, int] | None = None,
) -> None:
    """Check parallel sizes and the context's length against a checkpoint and the requests that are declared.

    Args:
        arguments: serving arguments by name, without dashes.
        folder: the checkpoint's folder; its config.json is read.
        workload: the concurrency sweep, whose requests must fit the context.
        answers: the task with the longest answers and their length in tokens, which must fit with a prompt.

    Raises:
        ConfigError: the first that doesn't fit, with what does.
    """
    config = read_json(folder / "config.json", str(folder))
    settings = {key: value for section in sections(config) for key, value in section.items()}
    _check_heads(arguments.get("tensor-parallel-size", 1), settings, folder.name)
    asked = tokens_of(arguments.get("max-model-len"))
    most = None if "hf-overrides" in arguments or os.environ.get(ALLOW_LONG) == "1" else _positions(settings)
    if asked is not None and most is not None and asked > most:
        raise ConfigError(
            f"'max-model-len' is {asked} tokens, and {folder.name} has {most} positions",
            where=WHERE,
            hint=f"Lower it to {most} at most, or leave it out.",
        )
    context = asked if asked is not None else most
    if workload and context is not None and workload.isl_tokens + workload.osl_tokens > context:
        needed = workload.isl_tokens + workload.osl_tokens
        raise ConfigError(
            f"workload '{workload.name}' needs {needed} tokens ({workload.isl_tokens} in, {workload.osl_tokens} out), "
            f"and the engine's context is {context}",
            where=folder.name,
            hint=f"Give --engine-arg max-model-len={needed} or more, or choose a shorter workload.",
        )
    if answers and context is not None and answers[1] + 1 >= context:
        raise ConfigError(
            f"task '{answers[0]}' generates up to {answers[1]} tokens, and the engine's context is {context}",
            where=folder.name,
            hint="Give --engine-arg max-model-len with room for prompts too, or a lower max_gen_toks in a suite.",
        )


def tokens_of(value: Any) -> int | None:
    """Return a context's length in tokens; None if the engine chooses it ("auto", -1, nothing).

    vLLM reads 32k as 32,000 and 32K as 32,768.

    Raises:
        ConfigError: it is no length.
    """
    if value is None or value == -1 or str(value).lower() == "auto":
        return None
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmgKMG])", str(value).strip())
    if not match:
        raise ConfigError(
            f"'max-model-len' is {value!r}", where=WHERE, hint="Give a number of tokens, e.g. 4096 or 32K."
        )
    return int(float(match[1]) * _SUFFIXES[match[2]])


def divides(size: int, heads: int, kv_heads: int | None) -> bool:
    """Return True if vLLM can split the attention over so many devices.

    Key-value heads are divided as well, or replicated where there are fewer of them than devices.

    Args:
        size: of the tensor parallel group, devices.
        heads: attention heads.
        kv_heads: key-value heads; None for multi-head latent attention, which keeps none in its cache.
    """
    return heads % size == 0 and (kv_heads is None or kv_heads % size == 0 or size % kv_heads == 0)


def _check_heads(size: Any, settings: Mapping[str, Any], name: str) -> None:
    """Refuse a tensor parallel size that attention heads can't be divided by, as vLLM would after its imports."""
    heads = settings.get("num_attention_heads")
    if not isinstance(size, int) or size <= 1 or not isinstance(heads, int):
        return
    latent = settings.get("kv_lora_rank") is not None
    kv_heads = heads if latent else settings.get("num_key_value_heads") or heads
    fitting = [n for n in range(1, heads + 1) if divides(n, heads, None if latent else kv_heads)]
    if size not in fitting:
        shared = "" if kv_heads == heads else f" and {kv_heads} key-value heads"
        raise ConfigError(
            f"'tensor-parallel-size' is {size}, which doesn't divide the {heads} attention heads{shared} of {name}",
            where=WHERE,
            hint=f"Sizes that do: {', '.join(map(str, fitting))}.",
        )


def _positions(settings: Mapping[str, Any]) -> int | None:
    """Return the most positions that any vLLM version gives the checkpoint; None if its config does not say."""
    most = next(
        (settings[k] for k in POSITION_KEYS if type(settings.get(k)) is int and settings[k] > 0), None
    )
    if most is None:
        return None
    longest = settings.get("model_max_length")
    if isinstance(longest, int):
        most = max(most, longest)
    rope = settings.get("rope_scaling") or settings.get("rope_parameters")
    if not isinstance(rope, dict) or "gemma3" in str(settings.get("model_type")):
        return int(most)
    if any(isinstance(value, dict) for value in rope.values()):  # one set for each kind of layer
        return None
    kind, factor = rope.get("rope_type", rope.get("type", "default")), rope.get("factor")
    if kind in SCALED_ALREADY or not isinstance(factor, int | float):
        return int(most)
    original = rope.get("original_max_position_embeddings")
    return max(int(most), int((original if isinstance(original, int) else most) * factor))
