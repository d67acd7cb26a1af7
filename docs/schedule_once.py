"""Schedule one run of a deployment in some seconds, with parameters; or print the id of its last scheduled run.

python docs/schedule_once.py validate/l40s '{"model": "quantgate-demo"}'
python docs/schedule_once.py --run validate/l40s

Every night is configs/fleet.yaml's `matrix`; Prefect's form makes schedules with parameters as well.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime, timedelta

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.schedules import RRuleSchedule

from flows.server import server

IN_S = 15
WAIT_S = 120


def schedule(client: SyncPrefectClient, name: str, parameters: str) -> None:
    """Add a schedule that has one moment."""
    deployment = client.read_deployment_by_name(name)
    moment = datetime.now(UTC) + timedelta(seconds=IN_S)
    rule = RRuleSchedule(rrule=f"DTSTART:{moment:%Y%m%dT%H%M%SZ}\nRRULE:FREQ=DAILY;COUNT=1")
    whole = {"parameters": deployment.parameters["parameters"] | json.loads(parameters)}
    client.create_deployment_schedules(
        deployment.id, [DeploymentScheduleCreate(schedule=rule, active=True, parameters=whole)]
    )
    print(f"{name}: at {moment:%H:%M:%S} UTC")


def run_id(client: SyncPrefectClient, name: str) -> str:
    """The deployment's newest run that a schedule made; waits for the scheduler."""
    deployment = client.read_deployment_by_name(name)
    chosen = DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id]))
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        runs = [run for run in client.read_flow_runs(deployment_filter=chosen) if run.auto_scheduled]
        if runs:
            return str(
                max(runs, key=lambda run: run.expected_start_time or datetime.min.replace(tzinfo=UTC)).id
            )
        time.sleep(1)
    raise SystemExit(f"{name}: nothing was scheduled within {WAIT_S} s")


if __name__ == "__main__":
    with server() as client:
        if sys.argv[1] == "--run":
            print(run_id(client, sys.argv[2]))
        else:
            schedule(client, *sys.argv[1:])
