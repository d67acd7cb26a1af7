"""Schedule one run of a deployment in some seconds, with parameters; prints the id of the run that came of it.

python docs/schedule_once.py validate/l40s '{"model": "quantgate-demo"}'

Every night is configs/fleet.yaml's `matrix`; Prefect's form makes schedules with parameters as well.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime, timedelta

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.schedules import RRuleSchedule

from flows.fleet.server import server

DELAYS_S = (15, 40, 90)
"""The scheduler makes no run of a moment that is past: a slow machine needs more."""


def schedule(client: SyncPrefectClient, name: str, parameters: str) -> str:
    """Give the deployment a schedule that has one moment; the id of its run."""
    deployment = client.read_deployment_by_name(name)
    chosen = DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id]))
    known = {run.id for run in client.read_flow_runs(deployment_filter=chosen)}
    whole = {"parameters": deployment.parameters["parameters"] | json.loads(parameters)}
    for delay_s in DELAYS_S:
        moment = datetime.now(UTC) + timedelta(seconds=delay_s)
        rule = RRuleSchedule(rrule=f"DTSTART:{moment:%Y%m%dT%H%M%SZ}\nRRULE:FREQ=DAILY;COUNT=1")
        new = DeploymentScheduleCreate(schedule=rule, active=True, parameters=whole)
        (made,) = client.create_deployment_schedules(deployment.id, [new])
        # A deployment that was just updated is looked at within seconds, a new schedule alone within a minute.
        client.update_deployment(deployment.id, DeploymentUpdate(description=deployment.description))
        while datetime.now(UTC) < moment + timedelta(seconds=10):
            for run in client.read_flow_runs(deployment_filter=chosen):
                if run.auto_scheduled and run.id not in known:
                    print(f"{name}: at {moment:%H:%M:%S} UTC", file=sys.stderr)
                    return str(run.id)
            time.sleep(1)
        client.delete_deployment_schedule(deployment.id, made.id)
    raise SystemExit(f"{name}: the scheduler made no run within {sum(DELAYS_S)} s")


if __name__ == "__main__":
    with server() as client:
        print(schedule(client, *sys.argv[1:]))
