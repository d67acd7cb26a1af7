"""Planning the matrix: from configs/ and real bundles to what would run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from flows.parameters import MatrixParameters
from flows.planning import matrix_plan
from flows.planning.cells import CellState, Plan
from flows.planning.matrix_plan import plan
from flows.planning.table import markdown_of, text_of
from quantgate.model.config.models import Allowed, CheckpointConfig, ModelConfig, load_model
from quantgate.model.errors import ConfigError
from quantgate.model.home import ROOT, Home
from tasks.checkpoint.hub import NotAskedError
from tests.support.cached_listings import cached_url
from tests.support.demo_bundles import BUNDLES, manifests
from warehouse.configuration import configured_in_memory
from warehouse.database import Connection

SHA = "0123456789abcdef0123456789abcdef01234567"
FLEET = """
pools:
  cpu: {gpu: cpu, hosts: [{name: here, gpus_per_worker: 0}]}
  b200: {gpu: b200, hosts: [{name: b, gpus_per_worker: 2}]}
  h100: {gpu: h100, hosts: [{name: h, gpus_per_worker: 2}]}
  one: {gpu: h100, hosts: [{name: h}]}
  b300: {gpu: b300, engine: image, hosts: [{name: b, gpus_per_worker: 8}]}
matrix: {models: [quantgate-demo], pools: [cpu]}
"""


@pytest.fixture(autouse=True)
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "fleet.yaml"
    file.write_text(FLEET)
    monkeypatch.setenv("QUANTGATE_FLEET", str(file))
    monkeypatch.setenv("QUANTGATE_BUNDLES", str(BUNDLES))
    return file


@pytest.fixture(scope="module")
def db() -> Iterator[Connection]:
    with configured_in_memory() as connection:
        yield connection


@pytest.fixture(autouse=True)
def one_configuration(db: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """The warehouse of the configuration is made once for all tests: it takes a second."""
    monkeypatch.setattr(matrix_plan, "configured_in_memory", lambda **_: nullcontext(db))


def demo(**change: object) -> ModelConfig:
    return load_model("quantgate-demo").model_copy(update=change)


def seventy() -> ModelConfig:
    return ModelConfig(
        name="seventy",
        architecture="Llama-3.1-70B",
        baseline=CheckpointConfig(source="org/bf16", precision="bf16"),
        candidates=(
            CheckpointConfig(source="org/fp8", precision="fp8", revision="f" * 40),
            CheckpointConfig(source="org/nvfp4", precision="nvfp4"),
            CheckpointConfig(source="org/int8", precision="int8"),
        ),
        suite="demo",
        workload="chat",
        policy="demo",
        engine_arguments={"max-model-len": 8192},
    )


def planned(*models: ModelConfig, commit: Callable[[str], str] = lambda _: SHA, **parameters: object) -> Plan:
    chosen = MatrixParameters.model_validate({"models": [m.name for m in models]} | parameters)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(matrix_plan, "load_models", lambda: {m.name: m for m in models})
        patched.setattr(matrix_plan, "commit_of", lambda source, *_, **__: commit(source))
        return plan(chosen, Home.current())


def states(found: Plan, pool: str | None = None) -> dict[str | None, str]:
    return {c.precision: c.state.name for c in found.cells if pool in {None, c.pool}}


def test_a_baseline_that_is_none_is_shown(tmp_path: Path) -> None:
    declared = demo()
    quantized = planned(demo(baseline=declared.candidates[0], candidates=declared.candidates[1:]))
    assert states(quantized) == {"fp8": "WRONG", "nvfp4": "NO_BASELINE"}
    assert "a baseline has 16 or 32 bits" in quantized.cells[0].reason
    copy = Path(shutil.copytree(ROOT / declared.baseline.source, tmp_path / "copy"))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 5}))
    other = planned(demo(baseline=declared.baseline.model_copy(update={"source": str(copy)})))
    assert states(other)["fp8"] == states(other)["nvfp4"] == "WRONG"
    assert "num_hidden_layers 5, 4" in other.cells[1].reason


def test_what_another_process_measured_is_seen_through_cached_listings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundles = tmp_path / "bundles"
    monkeypatch.setenv("QUANTGATE_BUNDLES", cached_url(bundles))
    assert states(planned(demo())) == dict.fromkeys(("bf16", "fp8", "nvfp4"), "RUN")
    copies = "import shutil, sys; shutil.copytree(*sys.argv[1:], dirs_exist_ok=True)"
    subprocess.run([sys.executable, "-c", copies, str(BUNDLES), str(bundles)], check=True)
    assert states(planned(demo())) == dict.fromkeys(("bf16", "fp8", "nvfp4"), "MEASURED")


def test_what_is_measured_and_unchanged_is_left_out() -> None:
    found = planned(demo())
    assert states(found) == dict.fromkeys(("bf16", "fp8", "nvfp4"), "MEASURED")
    assert found.units[0].parameters == {}
    told = text_of(found)
    assert "cpu quantgate-demo bf16, fp8, nvfp4: measured on 2026-11-24 and unchanged" in told
    assert told.endswith("Nothing is to be run.")
    again = planned(demo(), everything=True)
    assert states(again) == dict.fromkeys(("bf16", "fp8", "nvfp4"), "RUN")
    assert [cell.basis for cell in again.cells] == ["measured"] * 3
    assert again.units[0].parameters == {
        "model": "quantgate-demo",
        "precisions": ["fp8", "nvfp4"],
        "gpu": "cpu",
        "revisions": {},
        "afterwards": "nobody",
    }
    # 87.5 + 75.5 + 147.2 s of one machine, at the 0.10 USD/h that prices.yaml assumes.
    hours = sum(cell.gpu_hours or 0 for cell in again.cells)
    assert hours == pytest.approx((87.5 + 75.5 + 147.2) / 3600, rel=0.01)
    assert sum(cell.usd or 0 for cell in again.cells) == pytest.approx(hours * 0.10)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"policy": "standard"}, "policy"),
        ({"workload": "short"}, "workload"),
        ({"engine_arguments": {"max-num-seqs": 16}}, "arguments"),
    ],
)
def test_what_changed_is_planned_again_and_named(change: dict[str, object], part: str) -> None:
    found = planned(demo(**change))
    assert states(found) == dict.fromkeys(("bf16", "fp8", "nvfp4"), "RUN")
    assert {cell.reason for cell in found.cells} == {f"{part} changed since it was measured"}


def test_a_baseline_is_not_due_for_what_no_candidate_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a policy with looks; but where the run that the candidates are held against is gone, it is."""
    baseline, *candidates = manifests()
    looks = baseline.policy.model_copy(update={"looks": (0.2,)})
    suite = {**(baseline.inputs.suite or {}), "limit": 60}
    limited = baseline.model_copy(
        update={"policy": looks, "inputs": baseline.inputs.model_copy(update={"suite": suite})}
    )
    there = [limited, *(one.model_copy(update={"policy": looks}) for one in candidates)]
    monkeypatch.setattr(matrix_plan.BundleStore, "manifests", lambda _: there)
    found = planned(demo())
    assert states(found) == dict.fromkeys(("bf16", "fp8", "nvfp4"), "MEASURED")
    assert "need no more of it" in text_of(found)
    assert states(planned(demo(), everything=True)) == dict.fromkeys(("bf16", "fp8", "nvfp4"), "RUN")

    there[0] = limited.model_copy(update={"run_id": "another"})
    assert states(planned(demo())) == {"bf16": "RUN", "fp8": "MEASURED", "nvfp4": "MEASURED"}


def test_another_engine_version_is_planned_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engines = tmp_path / "engines.yaml"
    engines.write_text((ROOT / "configs/engines.yaml").read_text().replace("0.32.0", "0.33.0"))
    monkeypatch.setenv("QUANTGATE_ENGINES_FILE", str(engines))
    found = planned(demo(), precisions=["fp8"])
    assert {cell.reason for cell in found.cells} == {"engine version changed since it was measured"}
    assert states(found) == {"bf16": "RUN", "fp8": "RUN"}


def test_bundles_that_appear_while_a_run_goes_on_leave_it_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTGATE_BUNDLES", str(tmp_path / "bundles"))
    seen = [planned(demo()).units[0]]
    for precision in ("bf16", "fp8"):
        for manifest in BUNDLES.glob("*/manifest.json"):
            if json.loads(manifest.read_text())["checkpoint"]["precision"] == precision:
                shutil.copytree(manifest.parent, tmp_path / "bundles" / manifest.parent.name)
        seen.append(planned(demo()).units[0])
    assert [len(unit.due) for unit in seen] == [3, 2, 1]
    assert len({unit.fingerprint for unit in seen}) == 1
    assert seen[2].parameters["precisions"] == ["nvfp4"]
    others = (planned(demo(), precisions=["nvfp4"]), planned(demo(policy="standard")))
    assert not {one.units[0].fingerprint for one in others} & {seen[0].fingerprint}


def test_another_revision_is_planned_again_alone_a_baseline_s_with_its_candidates(tmp_path: Path) -> None:
    def changed(precision: str) -> CheckpointConfig:
        folder = tmp_path / f"quantgate-demo-{precision}"
        shutil.copytree(ROOT / "demo/checkpoints" / folder.name, folder)
        config = folder / "config.json"
        config.write_text(config.read_text().replace("{", '{"changed": true,', 1))
        return CheckpointConfig(source=str(folder), precision=precision.lower())

    nvfp4 = demo().candidates[1]
    found = planned(demo(candidates=(changed("FP8"), nvfp4)))
    assert states(found) == {"bf16": "MEASURED", "fp8": "RUN", "nvfp4": "MEASURED"}
    assert found.units[0].parameters["precisions"] == ["fp8"]
    found = planned(demo(baseline=changed("BF16")), precisions=["nvfp4"])
    assert states(found) == {"bf16": "RUN", "nvfp4": "RUN"}
    assert found.cells[1].reason == "baseline changed since it was measured"


def test_a_70b_over_gpu_types() -> None:
    asked: list[str] = []

    def commit(source: str) -> str:
        asked.append(source)
        return SHA

    found = planned(seventy(), pools=["h100", "one", "b200", "b300"], commit=commit)
    assert sorted(asked) == ["org/bf16", "org/int8", "org/nvfp4"], "once each, and not what is pinned"
    on = {(c.pool, c.precision): c for c in found.cells}
    assert {p: c.gpus for (pool, p), c in on.items() if pool == "h100"} == {
        "bf16": 2,
        "fp8": 1,
        "nvfp4": 1,
        "int8": 1,
    }
    assert states(found, "one") == {"bf16": "TOO_LARGE"} | dict.fromkeys(
        ("fp8", "nvfp4", "int8"), "NO_BASELINE"
    )
    assert on["one", "bf16"].reason.startswith("needs 2 h100, a worker has 1 (141.1 GB of bf16 weights")
    assert states(found, "b200") == dict.fromkeys(("bf16", "fp8", "nvfp4"), "RUN") | {"int8": "UNSUPPORTED"}
    h100, one, b200, b300 = found.units
    assert one.parameters == {}
    assert b200.parameters["precisions"] == ["fp8", "nvfp4"]
    assert b300.parameters["engine"] == "image"
    assert h100.parameters["revisions"] == {
        "org/bf16": SHA,
        "org/fp8": "f" * 40,
        "org/nvfp4": SHA,
        "org/int8": SHA,
    }
    assert h100.cells[0].expected is not None
    assert h100.cells[0].expected.arguments["tensor-parallel-size"] == 2
    assert len({unit.fingerprint for unit in found.units}) == 4
    # Two GPUs take fewer seconds than one, and cost both of them an hour; what can't be priced has no price.
    h, b = on["h100", "bf16"], on["b300", "bf16"]
    assert h.basis == b.basis == "estimated"
    assert h.usd == pytest.approx((h.gpu_hours or 0) * 2.01)
    assert 2 * 300 / 3600 < (h.gpu_hours or 0) < 20
    assert (b.usd, b.no_usd) == (None, "no_price: no on-demand offer for a b300")
    _check_text(text_of(found), markdown_of(found, {}, {}, {}))


def _check_text(text: str, markdown: str) -> None:
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0].split() == ["pool", "model", "precision", "state", "GPUs", "GPU-hours", "USD", "basis"]
    assert "one   seventy  bf16 *     does not fit      2" in text
    assert "the engine does not support int8 on b200 (gpus.yaml: formats)" in text
    last = " ".join(lines[-2:])
    assert "10 of 16 to be run, about" in last
    assert "USD for 6 of them" in last, "no price of a b300, no limit of int8"
    assert markdown.count("| planned |") == 10
    assert markdown.count("| skipped |") == 6


def test_a_cpu_pool_is_checked_against_its_memory(fleet: Path) -> None:
    small = FLEET.replace(
        "{name: here, gpus_per_worker: 0}", "{name: here, gpus_per_worker: 0, memory_gb: 25.3}"
    )
    fleet.write_text(small)
    found = planned(seventy(), demo(), pools=["cpu"])
    assert states(Plan(found.units[:1])) == dict.fromkeys(("bf16", "fp8", "nvfp4", "int8"), "TOO_LARGE")
    assert "141.1 GB of weights" in found.cells[0].reason
    assert found.cells[0].reason.endswith("do not fit 25.3 GB of memory")
    assert states(Plan(found.units[1:])) == dict.fromkeys(("bf16", "fp8", "nvfp4"), "MEASURED")
    fleet.write_text(FLEET)
    unknown = planned(seventy(), pools=["cpu"])
    assert states(unknown)["bf16"] == "RUN"
    assert "Not checked: memory of pool cpu unknown" in text_of(unknown)


def test_arguments_from_which_no_count_follows_are_a_fault_of_their_own() -> None:
    found = planned(
        seventy().model_copy(update={"engine_arguments": {"gpu-memory-utilization": "abc"}}),
        demo(),
        pools=["h100", "cpu"],
    )
    assert {cell.state for cell in found.units[0].cells} == {CellState.WRONG}
    assert "'gpu-memory-utilization' is 'abc'" in found.cells[0].reason
    assert states(Plan(found.units[-1:])) == dict.fromkeys(("bf16", "fp8", "nvfp4"), "MEASURED")


def test_a_draft_s_commit_and_code_of_its_own_are_planned_as_a_run_records_them() -> None:
    asked: list[str] = []

    def commit(source: str) -> str:
        asked.append(source)
        return SHA

    draft = {"speculative-config": {"model": "org/draft", "num_speculative_tokens": 3}}
    coded = CheckpointConfig(
        source="org/coded", precision="fp8", revision="f" * 40, allow=Allowed(remote_code=True)
    )
    model = seventy().model_copy(
        update={"engine_arguments": {"max-model-len": 8192} | draft, "candidates": (coded,)}
    )
    baseline, candidate = planned(model, pools=["h100"], commit=commit).cells
    assert sorted(asked) == ["org/bf16", "org/draft"]
    assert baseline.expected is not None
    assert candidate.expected is not None
    assert baseline.expected.arguments["speculative-config"] == {
        "model": f"org/draft@{SHA}",
        "num_speculative_tokens": 3,
    }
    assert "trust-remote-code" not in baseline.expected.arguments
    assert candidate.expected.arguments["trust-remote-code"] is True

    def none(source: str) -> str:
        if source == "org/draft":
            raise NotAskedError("the hub could not be asked for its commit", where=source)
        return SHA

    baseline, _ = planned(model, pools=["h100"], commit=none).cells
    assert baseline.reason == "org/draft: the hub could not be asked for its commit"
    assert baseline.expected is not None
    assert baseline.expected.checkpoint is None, "such a unit isn't dispatched"


def test_a_budget_leaves_out_what_exceeds_it_and_what_has_no_price() -> None:
    found = planned(seventy(), pools=["h100", "b300"], precisions=["fp8", "nvfp4"])
    first = sum(cell.usd or 0 for cell in found.cells[:2])
    kept = planned(
        seventy(), pools=["h100", "b300"], precisions=["fp8", "nvfp4"], budget_usd=round(first + 0.01, 2)
    )
    assert states(kept, "h100") == {"bf16": "RUN", "fp8": "RUN", "nvfp4": "OVER_BUDGET"}
    assert states(kept, "b300") == dict.fromkeys(("bf16", "fp8", "nvfp4"), "NO_PRICE")
    assert kept.units[0].parameters["precisions"] == ["fp8"]
    assert "(budget" in text_of(kept)


def test_a_hub_that_can_t_be_asked_is_asked_once() -> None:
    asked: list[str] = []

    def commit(source: str) -> str:
        asked.append(source)
        raise NotAskedError("the hub could not be asked for its commit", where=source)

    found = planned(seventy(), pools=["h100", "b200"], precisions=["nvfp4"], commit=commit)
    assert sorted(asked) == ["org/bf16", "org/nvfp4"]
    assert {cell.reason for cell in found.cells} == {"the hub could not be asked for its commit"}


def test_a_checkpoint_that_is_wrong_or_missing_stops_no_other() -> None:
    def commit(source: str) -> str:
        if source == "org/nvfp4":
            raise ConfigError("the hub shows no such repository or revision (HTTP 404)", where=source)
        if source == "org/int8":
            raise NotAskedError("the hub could not be asked for its commit", where=source)
        return SHA

    found = planned(seventy(), pools=["h100"], commit=commit)
    assert states(found) == {"bf16": "RUN", "fp8": "RUN", "nvfp4": "MISSING", "int8": "RUN"}
    assert found.cells[2].reason == "org/nvfp4: the hub shows no such repository or revision (HTTP 404)"
    assert found.cells[3].expected is not None
    assert found.cells[3].expected.checkpoint is None
    assert found.units[0].parameters["precisions"] == ["fp8", "int8"]
    twin = CheckpointConfig(source="org/other-nvfp4", precision="nvfp4")
    twins = seventy().model_copy(update={"candidates": (*seventy().candidates[:2], twin)})
    found = planned(twins, pools=["h100"], commit=commit)
    assert [cell.state.name for cell in found.cells] == ["RUN", "RUN", "MISSING", "WRONG"]
    assert found.units[0].parameters["precisions"] == ["fp8"]
    assert "org/nvfp4 has the same precision and a fault" in found.cells[3].reason
    mislabelled = CheckpointConfig(source="demo/checkpoints/quantgate-demo-FP8", precision="nvfp4")
    nameless = CheckpointConfig(source="demo/checkpoints/quantgate-demo-FP8")
    found = planned(demo(candidates=(mislabelled, nameless)), demo(name="b", suite="no/such"))
    assert states(Plan(found.units[:1])) == {"bf16": "NO_CANDIDATE", "nvfp4": "WRONG", None: "WRONG"}
    assert "declared as nvfp4, but the files hold fp8" in found.cells[1].reason
    assert {cell.state for cell in found.units[1].cells} == {CellState.WRONG}
    assert found.cells[-1].reason.startswith("no/such: no such file")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"models": ["quantgate-dem"]}, "Did you mean 'quantgate-demo'?"),
        ({"pools": ["h10"]}, "Did you mean 'h100'?"),
        ({"precisions": ["nvfp5"]}, "Did you mean 'nvfp4'?"),
    ],
)
def test_a_name_that_is_none_suggests_the_nearest(parameters: dict[str, list[str]], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        plan(MatrixParameters.model_validate(parameters), Home.current())
