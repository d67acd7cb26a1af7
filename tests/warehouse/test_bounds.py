"""The physical limit: figures by hand, what bounds what, and the share of it that a run reached."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from quantgate.model.enums import KernelMode
from warehouse.configuration import CONFIGS, configured_in_memory
from warehouse.database import Connection, fetch
from warehouse.load import load_bundles
from warehouse.query import query

LLAMA_70B_LAYERS = 80 * (2 * 8192 * 128 * (64 + 8) + 3 * 8192 * 28672)
"""Weights of Llama 3.1 70B's linear layers."""
LLAMA_70B_REST = 128256 * 8192 + (2 * 80 + 1) * 8192
"""Its head and norms, which are read in 16 bits."""
KV_BYTES = 80 * 2 * 8 * 128 * 2


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


POINT = {
    "model": "meta-llama/Llama-3.1-70B-Instruct",
    "precision": "fp8",
    "kernel_mode": None,
    "kv_cache_dtype": "auto",
    "gpu": "h200",
    "gpu_count": 1,
    "mig_slice": None,
    "tensor_parallel": 1,
    "isl": 1024,
    "osl": 1024,
    "concurrency": 1,
}
NUMBERS = {"gpu_count", "tensor_parallel", "isl", "osl", "concurrency"}


def bound(db: Connection, routing: str = "", **changes: Any) -> dict[str, Any]:
    """The limit of one point."""
    point = POINT | changes
    columns = ", ".join(f"${name}::{'INTEGER' if name in NUMBERS else 'VARCHAR'} AS {name}" for name in point)
    sql = f"WITH one_point AS (SELECT {columns}) FROM bounds_of('one_point'{routing and ', ' + routing})"
    (row,) = fetch(db, sql, **point)
    return dict(row)


def test_a_decode_step_by_hand(db: Connection) -> None:
    row = bound(db)
    step_bytes = LLAMA_70B_LAYERS + 2 * LLAMA_70B_REST + 1536 * KV_BYTES
    assert row["decode_gb"] == pytest.approx(step_bytes / 1e9, rel=1e-12)
    assert row["decode_step_ms"] == pytest.approx(step_bytes / 4800e9 * 1e3, rel=1e-12)
    assert row["decode_tok_s"] == pytest.approx(4800e9 / step_bytes, rel=1e-12)
    flops = 2 * (LLAMA_70B_LAYERS + 128256 * 8192) + 80 * 4 * 64 * 128 * 1536
    assert row["decode_tflop"] == pytest.approx(flops / 1e12, rel=1e-12)
    assert (row["decode_by"], row["bound_by"], row["no_bound"]) == ("bandwidth", "bandwidth", None)
    assert row["bound_tok_s"] == pytest.approx(row["decode_tok_s"]), "the prompt is computed meanwhile"
    batch = bound(db, concurrency=32)
    assert batch["decode_gb"] == pytest.approx((step_bytes + 31 * 1536 * KV_BYTES) / 1e9, rel=1e-12)


def test_prefill_by_hand(db: Connection) -> None:
    row = bound(db)
    flops = 2 * (1024 * LLAMA_70B_LAYERS + 128256 * 8192) + 80 * 4 * 64 * 128 * 1024**2 / 2
    assert row["prefill_ms"] == pytest.approx(flops / 1979e12 * 1e3, rel=1e-9)
    assert row["prefill_tok_s"] == pytest.approx(1024 / flops * 1979e12, rel=1e-9)
    assert row["prefill_by"] == "compute"
    assert bound(db, isl=16)["prefill_by"] == "bandwidth"


def test_long_prompts_make_a_load_compute_bound(db: Connection) -> None:
    row = bound(db, isl=8192, osl=128, concurrency=16)
    prompts_s = 16 * row["prefill_ms"] / 1e3
    steps_s = 128 * row["decode_tflop"] / 1979
    assert row["bound_by"] == "compute"
    assert row["bound_tok_s"] == pytest.approx(16 * 128 / (prompts_s + steps_s), rel=1e-9)
    assert row["decode_by"] == "bandwidth"


def test_a_weight_only_kernel_reads_few_bytes_and_computes_in_16_bits(db: Connection) -> None:
    native, widened = (bound(db, gpu=gpu, precision="nvfp4") for gpu in ("b200", "h200"))
    assert native["decode_gb"] == widened["decode_gb"]
    assert native["decode_gb"] * 1e9 == pytest.approx(
        LLAMA_70B_LAYERS * 0.5625 + 2 * LLAMA_70B_REST + 1536 * KV_BYTES
    )
    assert widened["prefill_ms"] / native["prefill_ms"] == pytest.approx(9000 / 989)
    assert bound(db, gpu="b200", precision="nvfp4", kernel_mode="weight_only")["prefill_ms"] == pytest.approx(
        native["prefill_ms"] * 4
    )


@settings(max_examples=30, deadline=None)
@given(data=st.data(), experts=st.integers(1, 256), share=st.floats(0, 1), tokens=st.integers(1, 64))
def test_no_router_reads_fewer_experts(
    db: Connection, data: st.DataObject, experts: int, share: float, tokens: int
) -> None:
    """However tokens choose, skewed or not, they touch at least as many as the limit counts."""
    chosen = max(1, round(share * experts))
    favourites = data.draw(st.integers(chosen, experts), label="experts that the router uses")
    seed = data.draw(st.integers(0, 1 << 32))
    router = random.Random(seed)
    touched = {expert for _ in range(tokens) for expert in router.sample(range(favourites), chosen)}
    shape = f"{{'experts': {experts}, 'experts_per_token': {chosen}}}"
    (least, one, many, more) = db.sql(
        f"SELECT experts_read({shape}, {tokens}, false), experts_read({shape}, 1, true), "
        f"experts_read({shape}, {tokens}, true), experts_read({shape}, {tokens + 1}, true)"
    ).fetchall()[0]
    assert least == chosen <= len(touched)
    assert one == pytest.approx(chosen)
    assert chosen <= many + 1e-9
    assert many <= more + 1e-9
    assert more <= min(experts, chosen * (tokens + 1)) + 1e-9


def test_a_limit_holds_for_a_router_that_sends_all_tokens_to_the_same_experts(db: Connection) -> None:
    """Such an engine reads the active parameters at any batch, and may be as fast as the limit."""
    point = {"model": "Mixtral-8x7B", "precision": "bf16", "gpu": "b200", "isl": 1, "osl": 2}
    (shape,) = fetch(db, "FROM model_shapes WHERE model = 'Mixtral-8x7B'")
    read_bytes = 2 * (shape["active_parameters"] - shape["embedding_parameters"])
    assert bound(db, **point)["decode_gb"] * 1e9 == pytest.approx(read_bytes, rel=1e-3)
    kv_bytes = 64 * 2 * 32 * 2 * 8 * 128 * 2  # of 64 requests, two tokens each at most
    row = bound(db, **point, concurrency=64)
    assert row["decode_gb"] * 1e9 == pytest.approx(read_bytes + kv_bytes, rel=1e-3)
    assert row["bound_tok_s"] >= 64 * 8000e9 / (read_bytes + kv_bytes)


def test_even_routing_reads_all_experts_for_a_large_batch(db: Connection) -> None:
    point = {"model": "Mixtral-8x7B", "precision": "bf16", "gpu": "b200", "isl": 1, "osl": 2}
    (shape,) = fetch(db, "FROM model_shapes WHERE model = 'Mixtral-8x7B'")
    many = bound(db, "even_routing := true", **point, concurrency=512)
    assert many["decode_gb"] * 1e9 == pytest.approx(
        2 * (shape["parameters"] - shape["embedding_parameters"]), rel=2e-3
    )
    assert bound(db, **point, concurrency=512)["bound_tok_s"] > many["bound_tok_s"]


@pytest.mark.parametrize(
    "model", ["Llama-3.1-8B", "Mixtral-8x7B", "Qwen3-30B-A3B", "DeepSeek-R1", "Gemma-3-27B"]
)
def test_at_the_crossover_reading_takes_as_long_as_computing(db: Connection, model: str) -> None:
    point = {
        "model": model,
        "precision": "fp8",
        "gpu_count": 8,
        "tensor_parallel": None,
        "isl": 16,
        "osl": 16,
    }
    crossover = bound(db, **point)["crossover_batch"]
    assert crossover > 20
    below, above = (bound(db, **point, concurrency=round(crossover * f)) for f in (0.98, 1.02))
    assert (below["decode_by"], above["decode_by"]) == ("bandwidth", "compute")
    assert bound(db, **point)["crossover_batch_least"] < crossover


def test_a_window_ends_what_a_step_reads(db: Connection) -> None:
    """Contexts from 1,000 to 1,100: a layer of window 1,024 reads as many, and its window from there on."""
    row = bound(db, model="Gemma-3-27B", isl=1000, osl=100)
    seen = (1024**2 - 1000**2) / 2 + 76 * 1024
    kv_bytes = (10 * 1050 + 52 * seen / 100) * 2 * 16 * 128 * 2
    none = bound(db, model="Gemma-3-27B", isl=0, osl=1)["decode_gb"] * 1e9 - 62 * 0.5 * 2 * 16 * 128 * 2
    assert row["decode_gb"] * 1e9 == pytest.approx(none + kv_bytes, rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(tokens=st.integers(0, 500), chunk=st.integers(1, 120))
def test_a_token_attends_to_its_own_chunk(db: Connection, tokens: int, chunk: int) -> None:
    ((found,),) = db.sql(f"SELECT attended_in_chunks({tokens}::BIGINT, {chunk}::BIGINT)").fetchall()
    assert found == pytest.approx(sum(position % chunk + 0.5 for position in range(tokens)))


@pytest.mark.parametrize(
    ("isl", "osl", "local"),
    [(1024, 1024, 1536), (16384, 1024, 512), (8192, 8192, 4096), (12288, 8192, 4096)],
)
def test_a_chunk_s_layer_reads_its_mean_length(db: Connection, isl: int, osl: int, local: int) -> None:
    """Llama 4: 36 of 48 layers attend within chunks of 8,192; a new chunk begins empty."""
    point = {"model": "Llama-4-Scout", "gpu_count": 8, "tensor_parallel": 8, "isl": isl, "osl": osl}
    one, two = (bound(db, **point, concurrency=requests)["decode_gb"] for requests in (1, 2))
    kv_bytes = (12 * (isl + osl / 2) + 36 * local) * 2 * 8 * 128 * 2
    assert (two - one) * 8e9 == pytest.approx(kv_bytes, rel=1e-9)


def test_reading_a_long_context_never_gives_way_to_computing(db: Connection) -> None:
    row = bound(db, isl=8192)
    assert row["crossover_batch"] is None
    weights_only = (LLAMA_70B_LAYERS + 2 * LLAMA_70B_REST) / (
        2 * (LLAMA_70B_LAYERS + 128256 * 8192) * 4800e9 / 1979e12
    )
    assert row["crossover_batch_least"] == pytest.approx(weights_only, rel=1e-9)
    assert row["crossover_batch_least"] == pytest.approx(209, abs=1)


def test_all_reduces_of_tensor_parallelism(db: Connection) -> None:
    two = bound(db, gpu_count=2, tensor_parallel=2, concurrency=8)
    assert two["decode_all_reduce_gb"] * 1e9 == pytest.approx(2 * 80 * 8 * 8192 * 2 * 2 * (2 - 1) / 2)
    one = bound(db, concurrency=8)
    assert one["decode_all_reduce_gb"] == 0
    assert two["decode_gb"] == pytest.approx(one["decode_gb"] / 2)
    pcie = bound(db, gpu="l40s", gpu_count=4, tensor_parallel=4)
    assert pcie["prefill_by"] == "interconnect"
    assert pcie["prefill_ms"] == pytest.approx(2 * 80 * 1024 * 8192 * 2 * 2 * 3 / 4 / 32e9 * 1e3)
    copies = bound(db, gpu_count=2, tensor_parallel=1, concurrency=16)
    assert copies["decode_tok_s"] == pytest.approx(2 * one["decode_tok_s"])
    unknown = bound(db, gpu_count=2, tensor_parallel=None, concurrency=8)
    assert unknown["bound_tok_s"] >= two["bound_tok_s"]


def test_no_more_requests_decode_than_memory_holds(db: Connection) -> None:
    row = bound(db, gpu="h100", concurrency=512)
    expected = (81_559 * 2**20 - LLAMA_70B_LAYERS - 2 * (LLAMA_70B_REST + 128256 * 8192)) / (1536 * KV_BYTES)
    assert row["decode_batch"] == pytest.approx(expected)
    assert row["bound_tok_s"] == bound(db, gpu="h100", concurrency=None)["bound_tok_s"]
    assert bound(db, gpu="h200", concurrency=20)["decode_batch"] == 20


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": "no-such-model"}, "unknown_model"),
        ({"precision": "mixed"}, "unknown_format"),
        ({"kv_cache_dtype": "odd"}, "unknown_format"),
        ({"gpu": "NVIDIA A10"}, "unknown_gpu"),
        ({"mig_slice": "1g.18gb"}, "mig_slice"),
        ({"kernel_mode": "emulated"}, "emulated_no_speed"),
        ({"gpu": "b200", "precision": "int8"}, "no_kernel"),
        ({"precision": "int8"}, "no_tflops"),
        ({"gpu": "cpu", "kernel_mode": "native"}, "no_bandwidth"),
        ({"isl": None}, "no_lengths"),
        ({"gpu": "l40s"}, "does_not_fit"),
        ({"model": "Phi-4", "gpu_count": 4, "tensor_parallel": 4}, "heads_not_divisible"),
    ],
)
def test_why_there_is_no_limit(db: Connection, changes: dict[str, Any], reason: str) -> None:
    row = bound(db, **changes)
    assert row["no_bound"] == reason
    assert {name for name, value in row.items() if value is None} >= {
        "bound_tok_s",
        "bound_by",
        "decode_tok_s",
    }


def test_nothing_published_exceeds_its_limit(db: Connection) -> None:
    """NVIDIA's own maxima of TensorRT-LLM lie below it, and not absurdly far."""
    path = CONFIGS / "reference" / "trtllm-performance.csv"
    (row,) = fetch(
        db,
        f"""
        WITH published AS (
            SELECT
                model, CASE precision WHEN 'FP8' THEN 'fp8' WHEN 'FP4' THEN 'nvfp4' END AS precision,
                NULL::VARCHAR AS kernel_mode, 'fp8' AS kv_cache_dtype, lower(gpu) AS gpu, gpu_count,
                CASE WHEN starts_with(parallelism, 'TP') THEN gpu_count END AS tensor_parallel,
                NULL::VARCHAR AS mig_slice, isl, osl, NULL::INTEGER AS concurrency, output_tok_s_total AS tok_s
            FROM read_csv('{path}')
        )
        SELECT
            count(*) FILTER (no_bound <> 'unknown_gpu') AS without,
            count(bound_tok_s) AS bounded,
            max(100 * tok_s / bound_tok_s) AS greatest_pct,
            median(100 * tok_s / bound_tok_s) AS median_pct
        FROM bounds_of('published')
        """,
    )
    assert row["without"] == 0
    assert row["bounded"] > 200
    assert 50 < row["greatest_pct"] <= 100
    assert 20 < row["median_pct"] < 60


def test_one_row_per_model_precision_gpu_count_and_level(db: Connection) -> None:
    (row,) = fetch(
        db,
        "SELECT count(*) AS n, count(DISTINCT (model, precision, gpu, gpu_count, concurrency)) AS keys, "
        "count(*) FILTER ((bound_tok_s IS NULL) <> (no_bound IS NOT NULL)) AS unexplained FROM bounds",
    )
    assert row["n"] == row["keys"] > 10_000
    assert row["unexplained"] == 0


def test_a_bandwidth_changes_exactly_the_rows_that_rest_on_it(change: Connection) -> None:
    grid = "FROM bounds_at(counts := [1, 4], levels := [1, 32, 512])"
    change.execute(f"CREATE TEMP TABLE before AS {grid}")
    change.execute("UPDATE store.gpus SET bandwidth_gb_s = 2 * bandwidth_gb_s WHERE gpu = 'h200'")
    change.execute(f"CREATE TEMP TABLE after AS {grid}")
    (row,) = fetch(
        change,
        """
        SELECT
            count(*) AS n,
            count(*) FILTER (b.gpu <> 'h200' AND b IS DISTINCT FROM a) AS elsewhere,
            count(*) FILTER (b.gpu = 'h200'
                AND (b.bound_tok_s <> a.bound_tok_s) <> (b.bound_by = 'bandwidth')) AS wrong,
            count(*) FILTER (b.bound_tok_s <> a.bound_tok_s) AS changed,
            max(a.bound_tok_s / b.bound_tok_s) AS most
        FROM before b JOIN after a USING (model, precision, gpu, gpu_count, concurrency)
        """,
    )
    assert (row["elsewhere"], row["wrong"]) == (0, 0)
    assert 300 < row["changed"] < row["n"] / 3
    assert row["most"] == pytest.approx(2)


def configs_with(folder: Path, **gpu: Any) -> Path:
    """A configuration whose H100 has other figures, and in which the tests' model has a shape."""
    configs = folder / "configs"
    shutil.copytree(CONFIGS, configs, ignore=shutil.ignore_patterns("reference", "*.csv"), dirs_exist_ok=True)
    shape = {
        "hidden_size": 8192,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "intermediate_size": 28672,
        "vocab_size": 128256,
    }
    entry = {"names": ["TOY"], "config": shape, "source": "test"}
    (configs / "architectures" / "toy.yaml").write_text(yaml.safe_dump({"architectures": {"big-toy": entry}}))
    path = configs / "gpus.yaml"
    data = yaml.safe_load(path.read_text())
    data["gpus"]["h100"].update(gpu)
    path.write_text(yaml.safe_dump(data))
    return configs


def test_a_run_s_share_of_its_limit(place: Any, spec: Any, three: Any) -> None:
    baseline, fp8, nvfp4 = (
        replace(one, gpu_count=2, points={1: 40.0, 8: 200.0}, run_id=f"{one.run_id}-2") for one in three
    )
    fp8, nvfp4 = replace(fp8, baseline=baseline), replace(nvfp4, baseline=baseline)
    widened = replace(nvfp4, run_id="run-wo", checkpoint="wo", kernel_mode=KernelMode.WEIGHT_ONLY)
    rest = 2 * (LLAMA_70B_REST + 128256 * 8192)
    mixed = replace(
        fp8,
        precision="mixed",
        run_id="run-mixed",
        checkpoint="mixed",
        size_bytes=LLAMA_70B_LAYERS * 3 // 4 + rest,
        layers={"bf16": 2, "fp8": 240, "nvfp4": 320},
    )
    wide = replace(baseline, precision="fp32", run_id="run-fp32", checkpoint="wide")
    too_fast = replace(fp8, run_id="run-fast", checkpoint="fast", points={1: 1e6})
    slice_ = replace(baseline, run_id="run-slice", mig_slice="1g.10gb")
    place.write(baseline, fp8, nvfp4, widened, mixed, wide, too_fast, slice_)
    table = (
        "SELECT DISTINCT run_id, concurrency, output_tok_s, pct_of_bound, null_reasons['pct_of_bound'] AS why "
        "FROM validated_table"
    )

    def shares() -> dict[tuple[str, int], tuple[float | None, str | None]]:
        found = query(place.warehouse, table).to_pylist()
        return {(row["run_id"], row["concurrency"]): (row["pct_of_bound"], row["why"]) for row in found}

    load_bundles(place.warehouse, place.bundles, configs=configs_with(place.path))
    before = shares()
    context = 128 + 64 / 2
    step_s = (LLAMA_70B_LAYERS + 2 * LLAMA_70B_REST + context * KV_BYTES) / 2 / 3350e9
    assert before["run-fp8-2", 1] == (pytest.approx(100 * 40 * step_s), None)
    step_s = (LLAMA_70B_LAYERS * 0.5625 + 2 * LLAMA_70B_REST + context * KV_BYTES) / 2 / 3350e9
    assert before["run-wo", 1] == (pytest.approx(100 * 40 * step_s), None)
    step_s = (LLAMA_70B_LAYERS * 0.75 + 2 * LLAMA_70B_REST + context * KV_BYTES) / 2 / 3350e9
    assert before["run-mixed", 1] == (pytest.approx(100 * 40 * step_s), None), "its files' own bytes"
    assert before["run-fp32", 1] == before["run-bf16-2", 1], "it is served in 16 bits"
    assert before["run-nvfp4-2", 1] == (None, "emulated_no_speed")
    assert before["run-fast", 1] == (None, "above_bound")
    assert before["run-slice", 1] == (None, "no_bounds")

    report = load_bundles(
        place.warehouse, place.bundles, configs=configs_with(place.path, bandwidth_gb_s=6700)
    )
    assert (report.loaded, report.swapped) == ((), True)
    assert shares()["run-fp8-2", 1] == (pytest.approx(before["run-fp8-2", 1][0] / 2), None)
    stored = "SELECT run_id, operating_point, bound_tok_s, bound_by, no_bound FROM {} ORDER BY ALL"
    recomputed = query(place.warehouse, stored.format("bounds_of('run_points')")).to_pylist()
    assert query(place.warehouse, stored.format("store.run_bounds")).to_pylist() == recomputed
    assert len(recomputed) == 15
