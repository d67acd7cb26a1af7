"""Say before an engine starts what its version does not serve of a checkpoint: rows of configs/refusals.yaml."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

from quantgate.model.config.engines import Refusal, RefusalFile
from quantgate.model.errors import ConfigError
from quantgate.model.home import ROOT
from quantgate.model.records import Checkpoint, Hardware
from quantgate.model.served import served_kv_cache_dtype
from quantgate.model.yaml_file import load_yaml
from tasks.progress import Reporter


@lru_cache(maxsize=1)
def known_refusals() -> RefusalFile:
    """Read configs/refusals.yaml.

    Raises:
        ConfigError: the file is wrong.
    """
    return load_yaml(ROOT / "configs" / "refusals.yaml", RefusalFile)


def is_known(distribution: str, version: str) -> bool:
    """Return True if it is known what an engine's version refuses."""
    known = known_refusals()
    return distribution in known.distributions and _release(version) in known.versions


def refused(
    traits: tuple[str, ...],
    declared_kv: str,
    arguments: Mapping[str, Any],
    version: str,
    hardware: Hardware,
) -> Iterator[Refusal]:
    """Yield what a known version of an engine does not serve.

    Args:
        traits: of the checkpoint.
        declared_kv: KV-cache dtype that its files declare.
        arguments: all serving arguments, named as vLLM's help does.
        version: of the engine.
        hardware: what it runs on.
    """
    kind = "gpu" if hardware.gpu != "cpu" else "cpu"
    kv = f"kv:{served_kv_cache_dtype(declared_kv, arguments)}"
    all_traits = (*traits, kv, *([f"mla:{kv}"] if "attention:mla" in traits else []))
    for refusal in known_refusals().refusals:
        on_it = refusal.hardware in {None, kind} and (
            not refusal.sm_arch or _any_fits([hardware.sm_arch], refusal.sm_arch)
        )
        lifted = refusal.unless is not None and arguments.get(refusal.unless)
        concerned = _release(version) in refusal.versions and on_it and not lifted
        if concerned and _any_fits(all_traits, refusal.traits):
            yield refusal


def _any_fits(names: Iterable[str], patterns: Iterable[str]) -> bool:
    """Return True if any name fits any shell pattern."""
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in names)


def check_served(
    checkpoint: Checkpoint,
    engine: tuple[str, str],
    arguments: Mapping[str, Any],
    hardware: Hardware,
    report: Reporter,
) -> None:
    """Refuse a checkpoint or a KV-cache dtype that the engine would refuse, or serve wrongly.

    Args:
        checkpoint: as it was read from its files for this plan.
        engine: distribution and version.
        arguments: all serving arguments, named as vLLM's help does.
        hardware: what it runs on.
        report: gets a line if nothing is known of the version, and the checkpoint is quantized.

    Raises:
        ConfigError: one is.
    """
    distribution, version = engine
    if not is_known(distribution, version):
        if checkpoint.traits:
            what = f"what {distribution} {version} refuses is not known (configs/refusals.yaml)"
            report.line(f"{checkpoint.source}: {what}")
        return
    dtype = str(arguments.get("kv-cache-dtype", "auto"))
    dtypes = known_refusals().versions[_release(version)].kv_cache_dtypes
    if not _any_fits([dtype], dtypes):
        what = f"{distribution} {version} has no kv-cache-dtype '{dtype[:40]}'"
        raise ConfigError(what, where="engine arguments", hint=f"Known: {', '.join(dtypes)}.")
    for refusal in refused(checkpoint.traits, checkpoint.kv_cache_dtype, arguments, version, hardware):
        kv = served_kv_cache_dtype(checkpoint.kv_cache_dtype, arguments)
        served = f"{checkpoint.weight_format} weights with KV cache {kv}"
        what = f"{distribution} {version} does not serve {served}: {refusal.why}"
        raise ConfigError(what, where=checkpoint.source, hint=refusal.hint)


def _release(version: str) -> str:
    """Return a version without what a builder added to it (0.32.0+cpu)."""
    return version.partition("+")[0]
