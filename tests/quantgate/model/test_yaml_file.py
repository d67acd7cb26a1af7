"""Configuration files: unknown keys suggest the nearest, and every fault is one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from quantgate.model.config.engines import EngineFile, KernelFile, RefusalFile
from quantgate.model.config.fleet import FleetFile
from quantgate.model.config.gpus import GpuFile
from quantgate.model.config.models import ModelConfig
from quantgate.model.config.policy import PolicyFile, load_policy
from quantgate.model.config.prices import PriceFile
from quantgate.model.config.suites import Suite
from quantgate.model.config.workloads import Workload
from quantgate.model.errors import ConfigError
from quantgate.model.home import ROOT
from quantgate.model.yaml_file import fingerprint_of, load_yaml, parse_record

POLICY = {
    "description": "x",
    "alpha": 0.05,
    "planned_power": 0.8,
    "stale_after_days": 90,
    "families": {"math": {"margin": 0.02, "min_documents": 10}},
    "uses": {"all": []},
}


@pytest.mark.parametrize(
    ("file", "model"),
    [
        ("engines.yaml", EngineFile),
        ("gpus.yaml", GpuFile),
        ("kernels.yaml", KernelFile),
        ("refusals.yaml", RefusalFile),
        ("policy.yaml", PolicyFile),
        ("prices.yaml", PriceFile),
        ("models/demo.yaml", ModelConfig),
        ("fleet.yaml", FleetFile),
        ("suites/demo.yaml", Suite),
        ("workloads/demo.yaml", Workload),
    ],
)
def test_every_committed_file_reads(file: str, model: type) -> None:
    load_yaml(ROOT / "configs" / file, model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alfa": 0.1}, "x.yaml: unknown key 'policies.p.alfa'. Did you mean 'alpha'?"),
        (
            {"families": {"math": {"margn": 0.02, "min_documents": 1}}},
            "x.yaml: unknown key 'policies.p.families.math.margn'. Did you mean 'margin'?",
        ),
        (
            {"alpha": "much"},
            "x.yaml: key 'policies.p.alpha': input should be a valid number, unable to parse string",
        ),
        (
            {"alpha": 0.7},
            "x.yaml: key 'policies.p.alpha': input should be less than 0.5 (found 0.7). Correct the value.",
        ),
        ({"zzz": 1}, "x.yaml: unknown key 'policies.p.zzz'. Known keys: description, alpha,"),
    ],
)
def test_a_fault_names_the_place_and_the_hint(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(yaml.safe_dump({"policies": {"p": POLICY | change}}))
    with pytest.raises(ConfigError) as caught:
        load_yaml(file, PolicyFile)
    assert message in str(caught.value)
    assert caught.value.exit_status == 2


def test_a_missing_key(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(yaml.safe_dump({"policies": {"p": {k: v for k, v in POLICY.items() if k != "alpha"}}}))
    with pytest.raises(ConfigError, match=r"key 'policies.p.alpha' is missing. Add it."):
        load_yaml(file, PolicyFile)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1, 2", r"x.yaml:1: expected ',' or '\]'"),
        ("policies: {}\npolicies: {}", r"x.yaml:2: key 'policies' is listed twice"),
        ("- 1\n- 2", r"expected a mapping"),
        ("", r"expected a mapping"),
    ],
)
def test_malformed_yaml_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_yaml(file, PolicyFile)


def test_a_missing_file_suggests_its_neighbour() -> None:
    with pytest.raises(ConfigError, match=r"configs/polcy.yaml: no such file. Did you mean 'policy.yaml'\?"):
        load_yaml(ROOT / "configs" / "polcy.yaml", PolicyFile)


def test_a_policy_by_name() -> None:
    assert load_policy("demo").families["math"].margin == 0.02  # type: ignore[index]
    with pytest.raises(
        ConfigError, match=r"configs/policy.yaml: nothing is called 'standart'. Did you mean 'standard'\?"
    ):
        load_policy("standart")


@given(st.text())
def test_any_text_is_read_or_refused_in_one_line(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.mktemp("yaml") / "x.yaml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        load_yaml(file, PolicyFile)
    except ConfigError as error:
        assert "\n" not in str(error)  # noqa: PT017


@given(
    st.recursive(st.none() | st.integers() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s))
)
def test_any_data_is_parsed_or_refused_in_one_line(data: object) -> None:
    try:
        parse_record(PolicyFile, {"policies": {"p": data}}, "x")
    except ConfigError as error:
        assert "\n" not in str(error)  # noqa: PT017


@given(st.dictionaries(st.text(), st.integers(), min_size=2))
def test_a_fingerprint_does_not_depend_on_order(data: dict[str, int]) -> None:
    assert fingerprint_of(data) == fingerprint_of(dict(reversed(list(data.items()))))
