"""The hint that starts a worker is a command that can be pasted, and a signal says how the run is followed again."""

from __future__ import annotations

from typing import cast
from uuid import uuid4

import pytest
from prefect.client.orchestration import SyncPrefectClient

from commands.measure.on_fleet import _start, follow
from commands.terminated import Terminated
from flows.fleet import watch
from flows.fleet.watch import Ended
from quantgate.model.config.fleet import FleetFile

FLEET = FleetFile.model_validate(
    {
        "pools": {
            "cpu": {"gpu": "cpu"},
            "fast": {"gpu": "h100"},
            "known": {"gpu": "l40s", "hosts": [{"name": "one"}]},
        },
        "matrix": {"models": ["quantgate-demo"]},
    }
)


def test_a_pool_without_hosts_names_none_that_does_not_exist() -> None:
    hint = _start(FLEET, "fast")
    assert hint.startswith("Start one on a host with h100, in the checkout: CUDA_VISIBLE_DEVICES=0 ")
    assert hint.endswith(" --pool fast --limit 1 --name fast-1")
    assert "HOSTNAME" not in hint
    assert _start(FLEET, "known").startswith("Start one on one, in the checkout: ")


@pytest.mark.parametrize(("stop", "status"), [(KeyboardInterrupt, 130), (Terminated, 143)])
def test_a_signal_ends_the_watching_and_not_the_run(
    stop: type[BaseException],
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stopped(*_: object) -> Ended:
        raise stop

    run_id = uuid4()
    monkeypatch.setattr(watch, "watch", stopped)
    assert follow(cast("SyncPrefectClient", None), run_id, require_validated=True) == status
    assert capsys.readouterr().err == (
        f"the run goes on: `quantgate fleet watch {run_id}` follows it again, "
        f"`prefect flow-run cancel {run_id}` cancels it\n"
    )
