"""A baseline must be what it is named as, before anything is measured."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.parameters import ValidateParameters
from flows.planning.request import declare_work
from quantgate.model.config import models
from quantgate.model.config.models import load_model
from quantgate.model.errors import ConfigError
from quantgate.model.home import ROOT, Home
from tasks.resume.baseline_role import check_role, check_same_model, check_serving, source_lines
from tests.support.looked_runs import LookedRuns, looked_runs
from tests.support.tiny_checkpoints import bare_checkpoint, checkpoint_files, write_checkpoint

__all__ = ["looked_runs"]

DEMO = ROOT / "demo" / "checkpoints"
BF16, FP8, NVFP4 = (DEMO / f"quantgate-demo-{precision}" for precision in ("BF16", "FP8", "NVFP4"))
TOKENIZER: dict[str, Any] = {
    "added_tokens": [{"id": 4, "content": "</s>", "special": True}],
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "c": 3}, "merges": ["a b"]},
}


@pytest.mark.parametrize(
    ("precision", "native"),
    [("bf16", None), ("fp16", None), ("fp32", None), ("fp8", "fp8"), ("bf16", "fp8"), (None, None)],
)
def test_a_baseline_of_16_bits_or_of_the_model_s_own_is_taken(
    precision: str | None, native: str | None
) -> None:
    check_role(precision, native, "x")


@pytest.mark.parametrize(("precision", "native"), [("fp8", None), ("nvfp4", "fp8"), ("mixed", None)])
def test_any_other_is_refused(precision: str, native: str | None) -> None:
    with pytest.raises(ConfigError, match=f"a baseline has 16 or 32 bits, and the files hold {precision}"):
        check_role(precision, native, "x")


def test_the_engine_may_not_quantize_it() -> None:
    with pytest.raises(ConfigError, match="'quantization=fp8' would quantize the baseline"):
        check_role("bf16", None, "x", {"quantization": "fp8"})
    check_role("bf16", None, "x", {"quantization": None})


def test_the_models_of_configs_pass() -> None:
    for name, model in models.load_models().items():
        check_role(model.baseline.precision, model.native_precision, name)
    assert load_model("DeepSeek-R1").native_precision == "fp8"


def test_a_model_file_may_not_name_a_quantized_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = load_model("quantgate-demo")
    wrong = declared.model_copy(
        update={"baseline": declared.candidates[0], "candidates": declared.candidates[1:]}
    )
    monkeypatch.setattr("flows.planning.request.load_model", lambda _: wrong)
    with pytest.raises(ConfigError, match="native_precision: fp8"):
        declare_work(ValidateParameters(model="quantgate-demo"), Home(tmp_path))
    native = wrong.model_copy(update={"native_precision": "fp8"})
    monkeypatch.setattr("flows.planning.request.load_model", lambda _: native)
    assert declare_work(ValidateParameters(model="quantgate-demo"), Home(tmp_path)).model == native


def test_another_commit_than_the_model_declares_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = load_model("Llama-3.1-8B")
    pinned = declared.baseline.model_copy(update={"revision": "a" * 40})
    monkeypatch.setattr(
        "flows.planning.request.load_model", lambda _: declared.model_copy(update={"baseline": pinned})
    )
    asked = ValidateParameters(model="Llama-3.1-8B", revisions={pinned.source: "b" * 40})
    with pytest.raises(
        ConfigError, match="declares commit aaaaaaaaaaaa of the baseline, and bbbbbbbbbbbb is asked for"
    ):
        declare_work(asked, Home(tmp_path))


def edited(folder: Path, file: str, edit: Callable[[dict[str, Any]], None]) -> Path:
    content = json.loads((folder / file).read_text())
    edit(content)
    (folder / file).write_text(json.dumps(content))
    return folder


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Folders of a baseline and a candidate with one tokenizer."""
    files = checkpoint_files(num_hidden_layers=1) | {"tokenizer.json": json.dumps(TOKENIZER).encode()}
    return write_checkpoint(tmp_path / "base", files), write_checkpoint(tmp_path / "cand", files)


def compare(pair: tuple[Path, Path]) -> None:
    check_same_model(*pair, "cand", "base")


def test_the_demo_s_checkpoints_are_one_model() -> None:
    for candidate in (FP8, NVFP4):
        check_same_model(BF16, candidate, candidate.name, BF16.name)


def test_what_quantizers_and_exporters_change_is_no_difference(pair: tuple[Path, Path]) -> None:
    def config(content: dict[str, Any]) -> None:
        del content["dtype"]
        content |= {"torch_dtype": "float16", "quantization_config": {}, "vocab_size": 128, "head_dim": 32}

    def tokenizer(content: dict[str, Any]) -> None:
        content["model"]["merges"] = [["a", "b"]]
        content["model"]["vocab"]["</s>"] = 4
        content["added_tokens"].append({"id": 5, "content": "<pad>", "special": True})

    edited(pair[1], "config.json", config)
    edited(pair[1], "tokenizer.json", tokenizer)
    compare(pair)


@pytest.mark.parametrize(
    ("file", "edit", "told"),
    [
        (
            "config.json",
            lambda c: c.update(architectures=["Qwen3ForCausalLM"]),
            "architecture LlamaForCausalLM, Qwen3",
        ),
        ("config.json", lambda c: c.update(num_hidden_layers=2), "num_hidden_layers 1, 2"),
        ("config.json", lambda c: c.update(hidden_size=256), "hidden_size 128, 256"),
        ("config.json", lambda c: c.update(vocab_size=9000), "vocab_size 64, 9000"),
        ("tokenizer.json", lambda t: t["model"]["vocab"].update(a=1, b=0), "the tokenizer's vocabulary"),
        ("tokenizer.json", lambda t: t["model"]["vocab"].update(d=9), "the tokenizer's vocabulary"),
        ("tokenizer.json", lambda t: t["model"].update(merges=[]), "the tokenizer's merges"),
        (
            "tokenizer.json",
            lambda t: t["added_tokens"][0].update(special=False),
            "the tokenizer's special tokens",
        ),
        ("tokenizer.json", lambda t: t["added_tokens"][0].update(id=7), "the tokenizer's vocabulary"),
        ("tokenizer.json", lambda t: t.update(added_tokens=[{"id": 4}]), "the tokenizer can't be read"),
    ],
)
def test_another_model_is_refused_by_what_differs(
    pair: tuple[Path, Path], file: str, edit: Callable[[dict[str, Any]], None], told: str
) -> None:
    edited(pair[1], file, edit)
    with pytest.raises(ConfigError) as caught:
        compare(pair)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tokenizers_of_other_kinds_are_compared_too(pair: tuple[Path, Path]) -> None:
    for folder, comment in zip(pair, ("#version: 0.2\n", "#version: 0.2 - by a trainer\n"), strict=True):
        (folder / "tokenizer.json").unlink()
        (folder / "vocab.json").write_text('{"a": 0, "b": 1}')
        (folder / "merges.txt").write_text(f"{comment}a b\n")
    compare(pair)
    (pair[1] / "merges.txt").write_text("b a\n")
    with pytest.raises(ConfigError, match=r"merges\.txt differs"):
        compare(pair)


@pytest.mark.parametrize(
    ("card", "told"),
    [
        ("---\nbase_model: org/base\n---\n# Card", ""),
        ("---\nbase_model: [Org/Base]\nbase_model_relation: quantized\n---\n", ""),
        (
            "---\nbase_model: org/other\n---\n",
            "its README.md names org/other as its source, and the baseline is org/base",
        ),
        (
            "---\nbase_model: org/base\nbase_model_relation: finetune\n---\n",
            "calls it a finetune of org/base",
        ),
        ("# No front matter", ""),
        ("---\n: [\n---\n", ""),
    ],
)
def test_what_a_card_says_of_its_source_is_reported(tmp_path: Path, card: str, told: str) -> None:
    folder = write_checkpoint(tmp_path / "cand", checkpoint_files() | {"README.md": card.encode()})
    candidate = bare_checkpoint(source="org/cand", name="org/cand", path=str(folder))
    lines = list(source_lines(candidate, bare_checkpoint(source="org/base@main", name="org/base")))
    assert len(lines) == bool(told)
    assert told in "".join(lines)
    local = bare_checkpoint(source=str(BF16), name="base")
    assert list(source_lines(candidate, local)) == [], "a folder has no hub id to compare with"


def test_config_json_names_a_source_where_no_card_does(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "cand", checkpoint_files(_name_or_path="org/other"))
    candidate = bare_checkpoint(source="org/cand", name="org/cand", path=str(folder))
    baseline = bare_checkpoint(source="org/base", name="org/base")
    assert [line.split(" as ")[0] for line in source_lines(candidate, baseline)] == [
        "org/cand: its config.json names org/other"
    ]
    edited(folder, "config.json", lambda content: content.update(_name_or_path="/data/base"))
    assert list(source_lines(candidate, baseline)) == []


def refused(runs: LookedRuns, candidate: str, **parameters: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        runs.validate(candidate, **parameters)
    assert runs.asked == []
    return str(caught.value)


def test_a_validation_refuses_them_before_it_asks_anything(looked_runs: LookedRuns) -> None:
    told = refused(looked_runs, looked_runs.good, baseline=str(FP8))
    assert told.startswith(
        f"{FP8}: a baseline has 16 or 32 bits, and the files hold fp8. Name the unquantized"
    )
    other = Path(shutil.copytree(BF16, looked_runs.folder / "other" / "quantgate-demo-BF16"))
    edited(other, "tokenizer.json", lambda content: content["model"]["vocab"].update(invented=255))
    told = refused(looked_runs, looked_runs.good, baseline=str(other))
    assert f"is not {other} quantized: the tokenizer's vocabulary (baseline, candidate)" in told


def test_what_was_a_candidate_is_no_baseline(
    looked_runs: LookedRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(BF16, looked_runs.folder / "half" / "half-precision"))
    file = next(copy.glob("*.safetensors"))
    raw = file.read_bytes()
    file.write_bytes(raw[:-2] + bytes(byte ^ 1 for byte in raw[-2:]))
    (_, first) = looked_runs.validate(str(copy))
    told = refused(looked_runs, looked_runs.good, baseline=str(copy))
    assert told == (
        f"{copy}: the baseline was itself a candidate, compared with quantgate-demo-BF16 in run {first.run_id}. "
        "Compare with quantgate-demo-BF16, or declare a model with this baseline in configs/models."
    )
    looked_runs.validate(looked_runs.good)  # what was only a baseline stays one
    declared = load_model("quantgate-demo")
    own = declared.model_copy(
        update={
            "baseline": declared.baseline.model_copy(update={"source": str(copy)}),
            "candidates": (declared.candidates[1].model_copy(update={"source": looked_runs.good}),),
        }
    )
    monkeypatch.setattr("flows.planning.request.load_model", lambda _: own)
    looked_runs.validate(model="quantgate-demo", baseline=None)


def test_a_checkpoint_compared_with_itself_stays_a_baseline(looked_runs: LookedRuns) -> None:
    same = shutil.copytree(BF16, looked_runs.folder / "same" / "quantgate-demo-BF16")
    looked_runs.validate(str(same))
    looked_runs.validate(looked_runs.good)


@pytest.mark.parametrize(
    ("arguments", "refused_for"),
    [
        ([{"kv_cache_dtype": "fp8"}, {}], "kv-cache-dtype=fp8"),
        ([{"hf-overrides": "{}"}, {"hf-overrides": "{}"}, {}], "hf-overrides={}"),
        ([{"kv-cache-dtype": "fp8"}, {"kv-cache-dtype": "fp8"}], None),
        ([{"kv-cache-dtype": "auto"}, {"kv-cache-dtype": "fp8"}], None),
        ([{"max-num-seqs": 4, "tensor-parallel-size": 2}, {}], None),
    ],
)
def test_a_baseline_is_not_served_worse_than_its_candidates(
    arguments: list[dict[str, Any]], refused_for: str | None
) -> None:
    if refused_for is None:
        check_serving(arguments, "base")
        return
    with pytest.raises(ConfigError, match=refused_for):
        check_serving(arguments, "base")
