"""Run the project's own three checkpoints through the flow ``validate``."""

from __future__ import annotations

from prefect import flow

from flows.parameters import QUICK_DOCUMENTS, DemoParameters, ValidateParameters
from flows.validate import Validation, validate
from quantgate.model.config.models import load_model

QUICK_CONCURRENCY = 4


@flow(name="demo", validate_parameters=True)
def demo(parameters: DemoParameters | None = None) -> Validation:
    """Validate the demo's FP8 and NVFP4 checkpoints against its BF16 one on this machine."""
    parameters = parameters or DemoParameters()
    model = load_model("quantgate-demo")
    return validate(
        ValidateParameters(
            model=model.name,
            precisions=[str(model.candidates[-1].precision)] if parameters.quick else [],
            limit=QUICK_DOCUMENTS if parameters.quick else None,
            concurrency=[QUICK_CONCURRENCY] if parameters.quick else None,
            fresh=parameters.fresh,
        )
    )
