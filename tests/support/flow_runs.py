"""The flow's own steps in this process, without Prefect around them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from flows import steps, validate
from flows.parameters import ValidateParameters
from flows.planning.request import declare
from quantgate.bundles.history import RunHistory
from quantgate.bundles.manifest import Manifest
from quantgate.bundles.store import BundleStore
from quantgate.model.errors import QuantgateError
from quantgate.model.home import Home
from tasks import run
from tasks.checkpoint.pins import Pins, pins_file
from tasks.engine import environment as engine_env
from tasks.progress import Reporter


def without_prefect(patch: pytest.MonkeyPatch) -> None:
    """Let the flow call its steps as plain functions."""
    patch.setattr(steps, "STEPS", run.Steps())
    patch.setattr(steps, "measure", steps.measure.fn)


def measured(
    parameters: Mapping[str, Any],
    lines: list[str],
    *,
    fresh: bool = False,
    checkpoints: int | None = None,
) -> tuple[list[Manifest], list[QuantgateError]]:
    """Measure what is declared, or the first so many checkpoints of it; their manifests, and what failed."""
    home, report = Home.current(), Reporter(lines.append)
    with report.used():
        declared = declare(ValidateParameters.model_validate(parameters), home)
        declared = dataclasses.replace(declared, checkpoints=declared.checkpoints[:checkpoints])
        pins = Pins(pins_file(home))
        found = validate._checkpoints(declared, pins, report)
        environment = engine_env.prepare(declared.engine_name, declared.engine, home, report)
        history = RunHistory.read(BundleStore(home.bundles))
        done, failures = validate._measure_all(
            found,
            environment,
            declared,
            home=home,
            report=report,
            fresh_after=history.latest_order if fresh else None,
            history=history,
            pins=pins,
        )
    return [manifest for manifest, _ in done], failures
