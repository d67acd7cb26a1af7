"""The flow's own steps in this process, without Prefect around them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from flows.parameters import ValidateParameters
from flows.planning.request import declare
from flows.planning.runs import fresh_key, plan_runs
from flows.validation import measure_all
from quantgate.bundles.manifest import Manifest
from quantgate.bundles.staging import end_fresh
from quantgate.model.errors import QuantgateError
from quantgate.model.home import Home
from tasks import run
from tasks.progress import Reporter

STEPS = run.Steps()
"""The steps on a running engine; a test may put others in their place."""


def measured(
    parameters: Mapping[str, Any],
    lines: list[str],
    *,
    fresh: bool = False,
    checkpoints: int | None = None,
) -> tuple[list[Manifest], list[QuantgateError]]:
    """Measure what is declared, or the first so many checkpoints of it; their manifests, and what failed."""
    home, report = Home.current(), Reporter(lines.append)
    chosen = ValidateParameters.model_validate(dict(parameters) | {"fresh": fresh})
    with report.used():
        declared = declare(chosen, home)
        declared = dataclasses.replace(declared, checkpoints=declared.checkpoints[:checkpoints])
        try:
            done, failures = measure_all(plan_runs(chosen, declared, home, report), home, report, steps=STEPS)
        finally:
            end_fresh(home, fresh_key(chosen))
    return [manifest for manifest, _ in done], failures
