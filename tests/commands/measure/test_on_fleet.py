"""The hint that starts a worker is a command that can be pasted."""

from __future__ import annotations

from commands.measure.on_fleet import _start
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
