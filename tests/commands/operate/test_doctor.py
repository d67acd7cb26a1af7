"""``quantgate doctor``: what it says of a GPU host."""

from __future__ import annotations

from pathlib import Path

import pytest

from commands.operate.doctor import doctor
from commands.operate.doctor.findings import Finding
from flows.parameters import ValidateParameters
from flows.planning.request import declare
from quantgate.model.errors import ConfigError
from quantgate.model.home import Home
from tasks.device import hardware
from tests.support.nvml_fake import Device, FakeNvml, h100


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, home: Path) -> pytest.MonkeyPatch:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return monkeypatch


def test_a_board_that_is_not_listed_is_a_note_that_says_where_to_add_it(host: pytest.MonkeyPatch) -> None:
    host.setattr(hardware, "pynvml", FakeNvml([Device("NVIDIA H100 PCIe", "GPU-0")]))
    found, note = doctor._hardware()
    assert (found.state, note.state) == ("ok", "note")
    assert note.detail.startswith("configs/gpus.yaml has no board called 'NVIDIA H100 PCIe'")
    assert "nvml_names" in note.detail


def test_a_driver_that_is_too_old_is_a_problem_and_refuses_a_run(host: pytest.MonkeyPatch) -> None:
    host.setattr(hardware, "pynvml", FakeNvml([h100(0)], driver="570.124.06", cuda=12080))
    fault = "the NVIDIA driver 570.124.06 is too old for engine vllm 0.25.1: its CUDA 13.0 needs 580 or later"
    assert next(iter(doctor._engine())) == Finding("problem", "versions", fault)
    with pytest.raises(ConfigError) as caught:
        declare(ValidateParameters(model="quantgate-demo"), Home.current())
    assert caught.value.what == fault
