"""Read from the engine's log and metrics how it computes."""

from __future__ import annotations

import fnmatch
import re

from quantgate.model.config.engines import KernelFile, KernelRule
from quantgate.model.enums import KernelMode
from quantgate.model.home import ROOT
from quantgate.model.yaml_file import load_yaml

_KERNEL = re.compile(r"\b(?:Selected|Using) '?(\w+Kernel\w*)'? for ([\w .]+?)\s*(?:\.|,|$)", re.MULTILINE)
_ATTENTION = (
    re.compile(r"Using (?:AttentionBackendEnum\.)?(\w+) (?:attention )?backend\b"),
    re.compile(r"'attention_backend': <?(?:AttentionBackendEnum\.)?'?(\w+)"),
)
_METRIC = re.compile(r"^(?P<name>[\w:]+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def kernels_in(log: str) -> dict[str, str]:
    """Return the linear kernel of each layer type, as vLLM names them in its log."""
    return {layer.strip(): kernel for kernel, layer in _KERNEL.findall(log)}


def attention_backend_in(log: str) -> str | None:
    """Return the attention backend that the log names last, or None."""
    for pattern in _ATTENTION:
        names = pattern.findall(log)
        if names:
            return str(names[-1])
    return None


def kernel_rules() -> tuple[KernelRule, ...]:
    """Read configs/kernels.yaml; call it before an engine starts, so that a fault costs nothing."""
    return load_yaml(ROOT / "configs" / "kernels.yaml", KernelFile).rules


def kernel_mode_of(kernels: dict[str, str], rules: tuple[KernelRule, ...]) -> KernelMode:
    """Return the worst mode among the kernels (emulated < weight_only < native); native if no rule fits."""
    modes = {
        next((r.kernel_mode for r in rules if fnmatch.fnmatchcase(kernel, r.pattern)), KernelMode.NATIVE)
        for kernel in kernels.values()
    }
    return next((mode for mode in KernelMode if mode in modes), KernelMode.NATIVE)


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
