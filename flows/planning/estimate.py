"""Estimate what a run of the matrix takes: GPU-hours as measured before, or from the physical limit; and USD."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from flows.planning.cells import Cell
from flows.planning.measured import duration_s, measured_start_s, similar_run
from quantgate.bundles.manifest import Manifest
from quantgate.model.config.workloads import Workload
from warehouse.database import Connection
from warehouse.estimates import Load, on_demand_price, seconds_of

ASSUMED_START_S = 300.0
"""Assumed duration of an engine's start with large weights, where none was measured on that GPU."""
DOCUMENT = Load(isl_tokens=1024, osl_tokens=256, concurrency=8, requests=1)
"""Assumed load of one document of a suite; the concurrency is that of the quality task's requests."""


@dataclass(frozen=True)
class RunSize:
    """The load that a run puts on an engine."""

    workload: Workload
    documents: int

    def loads(self) -> list[Load]:
        """Return the load of the suite's documents, and that of each concurrency level with its warm-up."""
        workload = self.workload
        levels = [
            Load(
                workload.isl_tokens,
                workload.osl_tokens,
                level,
                max(workload.prompts_per_concurrency * level, workload.min_prompts) + level,
            )
            for level in workload.concurrency
        ]
        return [replace(DOCUMENT, requests=self.documents), *levels]


def estimate(
    connection: Connection,
    cell: Cell,
    architecture: str,
    size: RunSize,
    manifests: Sequence[Manifest],
    share: float,
) -> Cell:
    """Return the cell with GPU-hours, USD and their basis.

    ``measured``: duration of a run of the model with the same GPUs, suite and workload, from start to bundle.
    ``estimated``: (engine start + documents x 256 / rate(1,024 in, 256 out, 8 at once) + sum over levels of
    (requests + warm-up) x osl / rate(level)) / 3600 x GPUs, where rate is `bound_tok_s` of the view ``bounds``
    times what published engines reach of it (median of ``published_evidence``). The download of the checkpoint
    isn't counted. USD = GPU-hours x the cheapest current on-demand offer of the GPU.

    Args:
        connection: a warehouse with the configuration.
        cell: with precision, gpus and expected.
        architecture: of its model, a key of configs/architectures.
        size: documents and workload.
        manifests: every bundle's.
        share: `warehouse.estimates.published_share`.
    """
    assert cell.expected is not None
    assert cell.gpus is not None
    assert cell.precision is not None
    similar = similar_run(cell.expected, cell.model, cell.precision, manifests)
    if similar:
        seconds, precision = duration_s(similar), similar.checkpoint.precision
        basis = "measured" if precision == cell.precision else f"measured ({precision})"
    else:
        busy_s, unbounded = seconds_of(
            connection,
            size.loads(),
            model=architecture,
            precision=cell.precision,
            gpu=cell.gpu,
            gpu_count=cell.gpus,
            share=share,
        )
        if busy_s is None:
            what = f"nothing like it was measured yet, and no physical limit is known: {unbounded}"
            return replace(cell, no_usd=what)
        start_s = measured_start_s(cell.gpu, manifests)
        seconds, basis = (ASSUMED_START_S if start_s is None else start_s) + busy_s, "estimated"
    gpu_hours = seconds / 3600 * cell.gpus
    usd_per_gpu_hour = on_demand_price(connection, cell.gpu)
    cell = replace(cell, gpu_hours=gpu_hours, basis=basis)
    if usd_per_gpu_hour is None:
        return replace(cell, no_usd=f"no_price: no on-demand offer for a {cell.gpu}")
    return replace(cell, usd=gpu_hours * usd_per_gpu_hour, usd_per_gpu_hour=usd_per_gpu_hour)
