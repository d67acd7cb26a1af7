"""Run the project's own three checkpoints through the flow ``validate``."""

from __future__ import annotations

from prefect import flow

from flows.parameters import DemoParameters
from flows.validate import validate
from flows.validation import Validation


@flow(name="demo", validate_parameters=True)
def demo(parameters: DemoParameters | None = None) -> Validation:
    """Validate the demo's FP8 and NVFP4 checkpoints against its BF16 one on this machine."""
    return validate((parameters or DemoParameters()).validation())
