"""Gather what is known of a checkpoint before it runs: its format, kernels and GPUs, and what an engine refuses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flows.planning.gpu_fit import Stored, fitting
from quantgate.model.config.architectures import FormatFile
from quantgate.model.config.gpus import GpuConfig, load_gpus
from quantgate.model.config.models import load_models
from quantgate.model.errors import ConfigError
from quantgate.model.home import ROOT, Home
from quantgate.model.records import Hardware
from quantgate.model.served import served_precision
from quantgate.model.yaml_file import choose, load_yaml
from tasks.checkpoint.formats.precision import CONFIG_DTYPES, UNQUANTIZED
from tasks.checkpoint.formats.quant_config import sections
from tasks.checkpoint.pins import Pins, pins_file
from tasks.checkpoint.resolve import Described, describe
from tasks.engine.environment import load_engine
from tasks.engine.refusals import is_known, refused
from warehouse.architectures import add_shape
from warehouse.configuration import configured_in_memory
from warehouse.database import Connection
from warehouse.estimates import parameters_of

CPU = "cpu"
_MODES = ("native", "weight_only", "none")
"""How a GPU computes a format, the best first."""


@dataclass
class Inspected:
    """A checkpoint as ``quantgate inspect`` shows it."""

    source: str
    described: Described
    native_precision: str | None
    parameters: int | None
    context_tokens: int | None
    kernel_modes: dict[str, str | None]
    gpus_needed: dict[str, int | None]
    problems: list[str]

    def as_json(self) -> dict[str, Any]:
        """Return it by the keys that the command promises."""
        seen = self.described
        return {
            "precision": seen.precision,
            "weight_format": seen.weight_format,
            "schemes": dict(seen.schemes),
            "kv_cache_dtype": seen.kv_cache_dtype,
            "parameters": self.parameters,
            "size_bytes": seen.size_bytes,
            "native_precision": self.native_precision,
            "kernel_modes": self.kernel_modes,
            "gpus_needed": self.gpus_needed,
            "problems": self.problems,
        }


def sources_of(checkpoint: str) -> list[str]:
    """Return the sources that a name stands for: a configured model's checkpoints, else itself."""
    model = load_models().get(checkpoint)
    if model is None:
        return [checkpoint]
    return [f"{of.source}@{of.revision}" if of.revision else of.source for of in model.checkpoints]


def inspect(source: str, home: Home, gpu: str | None, context_tokens: int | None) -> Inspected:
    """Read a checkpoint and compare it with what is known of GPUs and engines.

    Args:
        source: a folder or a hub id.
        home: whose pins.
        gpu: the only GPU to show; every one if None.
        context_tokens: longest request that must fit; the model's own longest if None.

    Raises:
        ConfigError: it can't be read, or nothing is called like the GPU.
    """
    gpus = load_gpus()
    shown = {gpu: choose(gpus, gpu, "--gpu")} if gpu else gpus
    seen = describe(source, pins=Pins(pins_file(home)))
    problems = [*seen.problems, *_served_otherwise(seen)]
    boards = {key: board for key, board in shown.items() if key != CPU}
    needed: dict[str, int | None] = dict.fromkeys(boards)
    parameters = seen.parameters
    with configured_in_memory() as connection:
        name = f"{seen.name.rpartition('/')[2]} (its config.json)"
        try:
            add_shape(connection, name, seen.config_file)
        except ConfigError as error:
            problems.append(f"its shape is unknown: {error.what}")
        else:
            if parameters is None:
                parameters = parameters_of(connection, name)
                problems.append(f"parameters are computed from config.json: {parameters or 0:,}")
            for key in boards if seen.precision else ():
                needed[key] = _gpus_needed(connection, name, seen, key, context_tokens, problems)
    problems += _refusals(seen, shown)
    return Inspected(
        source,
        seen,
        _native(seen),
        parameters,
        context_tokens,
        {key: _kernel_mode(seen, board) for key, board in boards.items()},
        needed,
        list(dict.fromkeys(problems)),
    )


def _served_otherwise(seen: Described) -> Iterator[str]:
    """Yield a line if the weights are served in another precision than they are stored in."""
    if seen.precision and (served := served_precision(seen.precision, {})) != seen.precision:
        yield f"stored in {seen.precision}, served in {served}: memory and GPUs are counted for {served}"


def _gpus_needed(
    connection: Connection,
    name: str,
    seen: Described,
    gpu: str,
    context_tokens: int | None,
    problems: list[str],
) -> int | None:
    """Return the GPUs that weights and one request of that length need; None with a problem where that is unknown."""
    arguments = {"max-model-len": context_tokens} if context_tokens else {}
    files = Stored(seen.kv_cache_dtype, seen.size_bytes)
    try:
        need = fitting(connection, name, served_precision(str(seen.precision), {}), gpu, arguments, files)
    except ConfigError as error:
        problems.append(error.what.replace(f"{gpu} {name}", "GPUs it"))
        return None
    if need.gpus is None:
        problems.append(need.reason.replace(name, "it"))
    return need.gpus


def _kernel_mode(seen: Described, board: GpuConfig) -> str | None:
    """Return how a GPU computes the checkpoint: the worst of its formats; None where one is unknown."""
    quantized = {scheme.partition("-")[0] for scheme in seen.schemes} - set(UNQUANTIZED.values())
    if quantized and seen.weight_only:
        return "weight_only"
    served = quantized or {served_precision(str(seen.precision), {})}
    modes = [board.formats.get(precision) for precision in served]
    known = [mode for mode in modes if mode is not None]
    return max(known, key=_MODES.index) if len(known) == len(modes) else None


def _native(seen: Described) -> str | None:
    """Return the precision of the model's own weights; None where nothing says."""
    if seen.precision in UNQUANTIZED.values():
        return seen.precision
    families = load_yaml(ROOT / "configs" / "formats.yaml", FormatFile).native
    stated = {key: value for section in sections(seen.config) for key, value in section.items()}
    family = families.get(str(seen.config.get("model_type"))) or families.get(str(stated.get("model_type")))
    dtype = str(stated.get("dtype") or stated.get("torch_dtype") or "").removeprefix("torch.")
    return family or CONFIG_DTYPES.get(dtype)


def _refusals(seen: Described, shown: Mapping[str, GpuConfig]) -> Iterator[str]:
    """Yield what the configured engines would refuse, each once with the hardware that it concerns."""
    concerned: dict[str, list[str]] = {}
    for key, board in shown.items():
        _, engine = load_engine(None, CPU if key == CPU else "gpu")
        version = engine.version or "of any version"
        named = f"{engine.distribution} {version}"
        if not is_known(engine.distribution, version):
            concerned.setdefault(f"what {named} refuses is not known", []).append(key)
            continue
        hardware = Hardware(gpu=key, device_name=board.name, sm_arch=board.sm_arch or "")
        for refusal in refused(seen.traits, seen.kv_cache_dtype, {}, version, hardware):
            what = f"{named} does not serve it: {refusal.why}. {refusal.hint}"
            concerned.setdefault(what, []).append(key)
    yield from (f"on {', '.join(keys)}: {what}" for what, keys in concerned.items())


def text_of(entry: Inspected) -> str:
    """Return the text that the command prints: facts, a table of GPUs, problems."""
    seen = entry.described
    schemes = ", ".join(f"{name} {count or '?'}" for name, count in seen.schemes.items())
    native = entry.native_precision or "not known"
    quantized = "quantized" if seen.precision and native != seen.precision else "its own"
    facts = {
        "precision": seen.precision or "not known",
        "weight format": seen.weight_format or "not known",
        "layers": schemes or "not read",
        "KV cache": f"{seen.kv_cache_dtype} (declared, and served unless kv-cache-dtype says otherwise)",
        "parameters": f"{entry.parameters:,}" if entry.parameters else "not known",
        "size": f"{seen.size_bytes / 1e9:,.3g} GB" if seen.size_bytes else "not known",
        "native": f"{native} ({quantized})",
    }
    context = (
        f"GPUs at {entry.context_tokens:,} tokens" if entry.context_tokens else "GPUs at its longest context"
    )
    lines = [entry.source, *(f"  {name:<13}  {value}" for name, value in facts.items())]
    if entry.kernel_modes:
        lines += ["", f"  {'GPU':<6}  {'kernel':<11}  {context}"]
    for gpu, mode in entry.kernel_modes.items():
        lines.append(f"  {gpu:<6}  {mode or 'not known':<11}  {entry.gpus_needed[gpu] or 'not known'}")
    lines += ["", *(f"  problem: {problem}" for problem in entry.problems)]
    return "\n".join(lines).rstrip()
