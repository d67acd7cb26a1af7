"""Read from the engine's log and metrics how it computes: linear layers, experts, attention, KV cache."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

from quantgate.model.bounded import parse_json, read_bytes
from quantgate.model.config.architectures import has_experts
from quantgate.model.config.engines import KernelFile, KernelRule
from quantgate.model.enums import KernelMode
from quantgate.model.home import ROOT
from quantgate.model.records import Checkpoint
from quantgate.model.yaml_file import load_yaml

_KERNEL = re.compile(
    r"\b(?:Selected|Using) '?(?P<kernel>\w+Kernel\w*)'? for (?P<layer>[\w .-]+?)\s*(?:\.|,|$)",
    re.MULTILINE | re.IGNORECASE,
)
_EXPERTS = tuple(
    re.compile(pattern, re.MULTILINE | re.IGNORECASE)
    for pattern in (
        # Using 'MARLIN' NvFp4 MoE backend out of …; the class of 16-bit or emulated experts has no format before MoE.
        r"\bUsing '?(?P<kernel>\w[\w ]*?)'? (?P<layer>(?:(?:W4A8 )?\w+ )?MoE) backend\b",
        r"\bUsing '?(?P<kernel>\w*Experts\w*)'?(?: \([^)\n]*\))? for (?P<layer>[\w ]*MoE)\b",
        r"\bUsing '?(?P<kernel>\w[\w ]*?)'? backend for (?P<layer>w_\w+|[\w ()]*\bMoE)\b",
        r"\bUsing '?(?P<kernel>\w+Experts)'?(?P<layer>)\.?$",
        # MXFP4 until 0.19: "Using Marlin backend", "Using FlashInfer MXFP4 BF16 backend for SM100, …".
        r"\bUsing (?P<kernel>Marlin|Triton|FlashInfer MXFP4 [\w ]+)(?P<layer>) backend(?: for SM\d+|$)",
    )
)
_MARLIN = re.compile(r"does not have native support for (FP[48]) computation", re.IGNORECASE)
_SIMULATED = re.compile(r"does not support native MXFP4/MXFP6 computation", re.IGNORECASE)
_ATTENTION = (
    re.compile(  # XPU; with a dot, where MXFP4's experts have none
        r"\bUsing (Flash Attention(?: MLA)?|Triton(?: MLA)?|XPU MLA Sparse) backend(?: on XPU)?\.$",
        re.MULTILINE | re.IGNORECASE,
    ),
    re.compile(
        r"\bUsing (?:AttentionBackendEnum\.)?(\w+) attention backend\b(?! on V1| for vit)", re.IGNORECASE
    ),
    re.compile(r"\bUsing AttentionBackendEnum\.(\w+) backend\b", re.IGNORECASE),
    re.compile(r"\bUsing ([A-Z][A-Z0-9_]+) backend(?:\.$| out of potential| \(selected via)", re.MULTILINE),
    re.compile(r"\bUsing ([\w ]+?) backend on V1 engine\b"),  # until 0.10
    re.compile(r"'attention_backend': <?(?:AttentionBackendEnum\.)?'?(\w+)"),
)
_KV_CACHE = re.compile(
    r"\bUsing (?:DeepSeek's |standard )?(\w+) (?:data type to store kv cache|KV cache format)\b",
    re.IGNORECASE,
)
_METRIC = re.compile(r"^(?P<name>[\w:]+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def kernels_in(log: str, rules: tuple[KernelRule, ...] | None = None) -> dict[str, str]:
    """Return the kernels by what the log says that they are chosen for: linear layers and experts.

    Where several are chosen for one kind of layer, by shape, all are named.

    Args:
        log: the engine's output so far.
        rules: of configs/kernels.yaml, which is read if None.
    """
    rules = kernel_rules() if rules is None else rules
    names: dict[str, set[str]] = {}
    for pattern in (_KERNEL, *_EXPERTS):
        for match in pattern.finditer(log):
            layer = match["layer"].strip() or "experts"
            rule = _rule_of(layer, match["kernel"], rules)
            rounded = f" ({rule.activations} activations)" if rule and rule.activations else ""
            names.setdefault(layer, set()).add(match["kernel"] + rounded)
    kernels = {layer: ", ".join(sorted(chosen)) for layer, chosen in names.items()}
    return kernels | _warned_of(log, kernels)


def _warned_of(log: str, kernels: dict[str, str]) -> dict[str, str]:
    """Return kernels that only a warning names; where a line names one, that line counts."""
    warned = {}
    if not any("marlin" in chosen.lower() for chosen in kernels.values()):
        warned = {f"{precision} layers": "Marlin" for precision in _MARLIN.findall(log)}
    layers = {layer.lower() for layer in kernels}
    if _SIMULATED.search(log) and not layers & {"mxfp4 gemm", "mxfp6 gemm"}:
        warned["MXFP4/MXFP6 layers"] = "Simulated"
    return warned


def names_experts(kernels: dict[str, str]) -> bool:
    """Return True if a kernel of experts is among them."""
    return any(layer.lower().endswith("moe") or layer.startswith(("w_", "experts")) for layer in kernels)


def attention_backend_in(log: str) -> str | None:
    """Return the attention backends that the log names, in the order of their first use; None where it names none."""
    for pattern in _ATTENTION:
        names = list(dict.fromkeys(pattern.findall(log)))
        if names:
            return ", ".join(names)
    return None


def kv_cache_dtype_in(log: str, metrics: str = "") -> str | None:
    """Return the dtype of the KV cache as the engine reports it, else as its log says; None where neither does."""
    for labels, _ in metric_values(metrics, "vllm:cache_config_info"):
        reported = labels.get("cache_dtype", "auto").lower()
        if reported != "auto":
            return reported
    stored = _KV_CACHE.findall(log)
    return str(stored[-1]).lower() if stored else None


def kernel_rules() -> tuple[KernelRule, ...]:
    """Read configs/kernels.yaml; call it before an engine starts, so that a fault costs nothing."""
    return load_yaml(ROOT / "configs" / "kernels.yaml", KernelFile).rules


def _rule_of(layer: str, kernel: str, rules: tuple[KernelRule, ...]) -> KernelRule | None:
    """Return the first rule that fits, without regard to case."""
    return next(
        (
            rule
            for rule in rules
            if fnmatch.fnmatchcase(kernel.lower(), rule.pattern.lower())
            and fnmatch.fnmatchcase(layer.lower(), rule.layer.lower())
        ),
        None,
    )


def kernel_mode_of(kernels: dict[str, str], rules: tuple[KernelRule, ...]) -> KernelMode | None:
    """Return the worst mode among the kernels (emulated < weight_only < native); None where it is unknown.

    Args:
        kernels: of `kernels_in`.
        rules: of configs/kernels.yaml.
    """
    chosen = [(layer, kernel) for layer, names in kernels.items() for kernel in names.split(", ")]
    fitting = [_rule_of(layer, kernel, rules) for layer, kernel in chosen]
    modes = {rule.kernel_mode for rule in fitting if rule is not None} - {None}
    worst = next((mode for mode in KernelMode if mode in modes), None)
    return worst if worst is KernelMode.EMULATED or None not in fitting else None


def served_mode(
    checkpoint: Checkpoint, kernels: dict[str, str], rules: tuple[KernelRule, ...]
) -> KernelMode | None:
    """Return the kernel mode of a checkpoint that is served; None where the log says nothing of its layers.

    Layers of 16 bits need no line. A quantized model with experts whose kernel is not named is unknown, whatever
    its other layers are.

    Args:
        checkpoint: what is served.
        kernels: of `kernels_in`.
        rules: of configs/kernels.yaml.
    """
    said = {
        layer: names
        for layer, names in kernels.items()
        if (rule := _rule_of(layer, names, rules)) is None or rule.kernel_mode is not None
    }
    if checkpoint.weight_format == "unquantized" and not said:
        return KernelMode.NATIVE
    config = Path(checkpoint.path) / "config.json"
    if config.is_file() and has_experts(parse_json(read_bytes(config))) and not names_experts(kernels):
        return None
    return kernel_mode_of(kernels, rules)


def metric_values(text: str, name: str) -> list[tuple[dict[str, str], float]]:
    """Return every sample of a Prometheus metric: its labels and its value."""
    return [
        (dict(_LABEL.findall(match["labels"] or "")), float(match["value"]))
        for match in _METRIC.finditer(text)
        if match["name"] == name
    ]


def metric_sum(text: str, name: str) -> float | None:
    """Return the sum of a metric over its label sets, or None if the engine has no such metric."""
    values = metric_values(text, name)
    return sum(value for _, value in values) if values else None


def kv_cache_tokens_in(metrics: str) -> int | None:
    """Return the capacity of the KV cache in tokens, from ``vllm:cache_config_info``."""
    for labels, _ in metric_values(metrics, "vllm:cache_config_info"):
        if labels.get("kv_cache_size_tokens", "").isdigit():
            return int(labels["kv_cache_size_tokens"])
        blocks, size = labels.get("num_gpu_blocks", ""), labels.get("block_size", "")
        if blocks.isdigit() and size.isdigit():
            return int(blocks) * int(size)
    return None
