"""Load and publish with the CPU pool's deployments, for runs that were measured on another host."""

from __future__ import annotations

from typing import Any, cast

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import ArtifactSort
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run as current

from flows.fleet.deployments import LOAD, PUBLISH
from quantgate.model.bounded import parse_json
from quantgate.model.errors import RunError
from tasks.progress import Reporter

TIMEOUT_S = 1800.0
POLL_S = 2.0
_KEPT = "What was measured is kept in its bundles: the next load finds it."


def load_and_publish(run_ids: list[str], report: Reporter) -> list[str]:
    """Have the fleet load these runs into the warehouse and publish the table.

    Args:
        run_ids: the runs that were measured.
        report: receives a line about each deployment that is waited for.

    Returns:
        A line for each failure to load.

    Raises:
        RunError: no deployment or worker loads or publishes; what was measured is kept.
    """
    lost = []
    loaded = _run(LOAD, {"run_ids": run_ids}, report)
    if not _completed(loaded):
        lost.append(_reason(LOAD, loaded))
    own = {"run_ids": run_ids, "key": artifact_key(str(current.id)), "flow_run_id": str(current.id)}
    published = _run(PUBLISH, own, report)
    if not _completed(published):
        raise RunError(" | ".join([*lost, _reason(PUBLISH, published)]), hint=_KEPT)
    return lost


def artifact_key(flow_run_id: str) -> str:
    """Return the key of a validation's own table among a server's artifacts."""
    return f"runs-{flow_run_id}"


def artifact(client: SyncPrefectClient, key: str) -> Any:
    """Return the content of the newest artifact of a key; None if there is none."""
    artifacts = client.read_artifacts(
        artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])),
        sort=ArtifactSort.CREATED_DESC,
        limit=1,
    )
    if not artifacts:
        return None
    data = artifacts[0].data
    if isinstance(data, str) and artifacts[0].type == "table":
        return parse_json(data)
    return data


def _run(name: str, parameters: dict[str, Any], report: Reporter) -> FlowRun:
    """Run a deployment to its end; a retry of this flow run joins the run that it started before."""
    with report.step(f"waiting for {name}"):
        try:
            # The stub's type includes the coroutine; a flow that is not a coroutine gets the run.
            run = cast(
                "FlowRun",
                run_deployment(
                    name,
                    parameters={"parameters": parameters},
                    idempotency_key=f"{current.id}-{current.run_count}-{name}",
                    timeout=TIMEOUT_S,
                    poll_interval=POLL_S,
                ),
            )
        except ObjectNotFound:
            raise RunError(
                "the server has no such deployment", where=name, hint=f"`quantgate fleet init`. {_KEPT}"
            ) from None
    if run.state is None or not run.state.is_final():
        where = run.work_pool_name or "?"
        raise RunError(
            f"not done within {TIMEOUT_S / 60:.0f} min ({run.state_name}): is a worker of pool {where} online?",
            where=name,
            hint=f"`quantgate fleet init` prints the command that starts one. {_KEPT}",
        )
    return run


def _completed(run: FlowRun) -> bool:
    return run.state is not None and run.state.is_completed()


def _reason(name: str, run: FlowRun) -> str:
    message = (run.state.message or "") if run.state else ""
    return f"{name} ended {run.state_name}: {message}".removesuffix(": ")
