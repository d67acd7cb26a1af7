"""docs/models.md: the models of configs/models, generated with the view ``memory_fit``.

``python -m docs.pages.models`` writes it from the configuration alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from docs.pages.page import fill
from quantgate.model.config.models import ModelConfig, load_models
from quantgate.model.home import ROOT
from warehouse.configuration import configured_in_memory
from warehouse.database import Connection
from warehouse.report.render import NULL

PAGE = ROOT / "docs" / "models.md"
DEFAULT_CONTEXT_TOKENS = 8192
_GPUS = "SELECT gpu FROM store.gpus WHERE vram_gb IS NOT NULL ORDER BY vram_gb, gpu"
_FIT = """
    SELECT model, precision, gpu, min(gpu_count), any_value(kernel_mode)
    FROM memory_fit_at(context := {context:d})
    WHERE memory_model = 'practical' AND fits
    GROUP BY ALL
"""

Least = dict[tuple[str | None, str | None, str], str]
"""The least number of GPUs, and how they compute, by architecture, precision and GPU."""


def models_page(connection: Connection, models: Sequence[ModelConfig]) -> str:
    """Return the page as Markdown.

    Args:
        connection: a warehouse with the configuration.
        models: in the order of their rows.
    """
    gpus = [str(gpu) for (gpu,) in connection.sql(_GPUS).fetchall()]
    least = {context: _least(connection, context) for context in {_context_tokens(model) for model in models}}
    rows = [cells for model in models for cells in _cells(model, gpus, least[_context_tokens(model)])]
    return fill("models", gpus=gpus, rows=rows, models=models)


def _cells(model: ModelConfig, gpus: Sequence[str], least: Least) -> Iterator[list[str]]:
    """Yield a row for each checkpoint; only the first row shows the model."""
    total, active = model.parameters_billions, model.active_parameters_billions
    parameters = f"{total:g}" if total == active else f"{total:g}, {active:g} active"
    own = [f"**{model.name}**", parameters, model.suite]
    for checkpoint in model.checkpoints:
        precision = f"{checkpoint.precision}{' (baseline)' if checkpoint is model.baseline else ''}"
        counts = [least.get((model.architecture, checkpoint.precision, gpu), NULL) for gpu in gpus]
        yield [*own, precision, f"`{checkpoint.source}`", "yes" if checkpoint.gated else "", *counts]
        own = ["", "", ""]


def _context_tokens(model: ModelConfig) -> int:
    """Return the length of the longest request that is served, tokens."""
    return int(model.engine_arguments.get("max-model-len", DEFAULT_CONTEXT_TOKENS))


def _least(connection: Connection, context_tokens: int) -> Least:
    """Return the least number of GPUs for each model, precision and GPU, for requests of that length."""
    rows = connection.execute(_FIT.format(context=context_tokens)).fetchall()
    return {
        (model, precision, gpu): f"{count} w" if mode == "weight_only" else str(count)
        for model, precision, gpu, count, mode in rows
    }


def listed_models() -> list[ModelConfig]:
    """Return the models whose number of parameters is published, by name."""
    published = [model for model in load_models().values() if model.parameters_billions is not None]
    return sorted(published, key=lambda model: model.name.casefold())


if __name__ == "__main__":
    PAGE.write_text(models_page(configured_in_memory(), listed_models()), encoding="utf-8")
