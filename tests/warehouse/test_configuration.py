"""Prices and GPUs: the guide's figures, and what is wrong in one line."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from quantgate.model.errors import ConfigError
from warehouse.configuration import CONFIGS, read_configuration


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    for name in ("gpus.yaml", "prices.yaml", "policy.yaml"):
        shutil.copy(CONFIGS / name, tmp_path / name)
    return tmp_path


def test_the_guide_s_prices_and_gpus() -> None:
    configuration = read_configuration()
    prices = {
        (o.gpu, str(o.price_kind)): o.usd_per_hour
        for o in configuration.prices.prices
        if o.provider == "spheron"
    }
    assert prices == {
        ("l40s", "on_demand"): 0.91,
        ("h100", "on_demand"): 2.01,
        ("h200", "on_demand"): 4.54,
        ("b200", "on_demand"): 6.03,
        ("l40s", "spot"): 0.41,
        ("h100", "spot"): 0.99,
        ("h200", "spot"): 1.78,
    }
    gpus = configuration.gpus.gpus
    assert {
        key: (gpu.vram_gb, gpu.bandwidth_gb_s, gpu.sm_arch) for key, gpu in gpus.items() if gpu.sm_arch
    } == {
        "l40s": (48, 864, "sm_89"),
        "h100": (80, 3350, "sm_90"),
        "h200": (141, 4800, "sm_90"),
        "b200": (192, 8000, "sm_100"),
        "b300": (288, 8000, "sm_103"),
    }
    names = [name for gpu in gpus.values() for name in gpu.nvml_names]
    assert len(names) == len(set(names)), "a device has one entry"


def test_the_cpu_s_price_says_that_it_is_an_assumption() -> None:
    (offer,) = (offer for offer in read_configuration().prices.prices if offer.gpu == "cpu")
    assert offer.provider == "assumed"
    assert "assum" in offer.source
    assert "assumed" in (offer.note or "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gpu": "h10"}, r"nothing is called 'h10'. Did you mean 'h100'\?"),
        ({"valid_to": "2026-01-01"}, "valid_to 2026-01-01 isn't after valid_from 2026-03-20"),
        ({"usd_per_hour": 0}, r"usd_per_hour': input should be greater than or equal to"),
        ({"gpus": 2}, r"unknown key 'prices.0.gpus'. Did you mean 'gpu'\?"),
    ],
)
def test_a_wrong_price_is_one_clear_line(configs: Path, change: dict[str, Any], message: str) -> None:
    offer = {
        "provider": "p",
        "gpu": "h100",
        "price_kind": "spot",
        "usd_per_hour": 1.0,
        "valid_from": "2026-03-20",
        "source": "test",
    }
    (configs / "prices.yaml").write_text(yaml.safe_dump({"prices": [offer | change]}))
    with pytest.raises(ConfigError, match=message) as caught:
        read_configuration(configs)
    assert "prices.yaml" in str(caught.value)


def test_two_offers_of_one_series_and_day_are_refused(configs: Path) -> None:
    data = yaml.safe_load((configs / "prices.yaml").read_text())
    data["prices"].append(data["prices"][0] | {"usd_per_hour": 0.5})
    (configs / "prices.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(ConfigError, match="two offers for spheron, any, l40s, 1, on_demand, 2026-03-20"):
        read_configuration(configs)
