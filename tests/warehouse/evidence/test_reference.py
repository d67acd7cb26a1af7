"""Published evidence: what the files say, what counts once, what is other hardware, and what it costs."""

from __future__ import annotations

import csv
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from quantgate.model.config.gpus import GpuFile
from quantgate.model.errors import ConfigError
from quantgate.model.yaml_file import load_yaml
from tests.support.paper import paper_connection
from warehouse.configuration import CONFIGS
from warehouse.database import Connection
from warehouse.evidence.records import MlperfRow, ScoreRow, TrtllmRow
from warehouse.evidence.reference import read_csv, read_reference


@pytest.fixture
def paper() -> Iterator[Connection]:
    """A warehouse that holds the configuration only."""
    with paper_connection() as connection:
        yield connection


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    """A copy of configs/ to spoil."""
    return Path(shutil.copytree(CONFIGS, tmp_path / "configs"))


def newcombe(first: int, second: int, n: int) -> tuple[float, float]:
    """Newcombe (1998), method 10, at 90 %: interval of the second proportion less the first, from SciPy's Wilson."""
    a, b = (binomtest(k, n).proportion_ci(0.9, method="wilson") for k in (first, second))
    delta = (second - first) / n
    low = delta - math.hypot(second / n - b.low, a.high - first / n)
    return low, delta + math.hypot(b.high - second / n, first / n - a.low)


def rows(connection: Connection, sql: str) -> list[tuple[Any, ...]]:
    return connection.execute(sql).fetchall()


def test_every_row_of_every_file_is_there_with_its_source(paper: Connection) -> None:
    found = dict(rows(paper, "SELECT dataset, count(*) FROM published_evidence GROUP BY ALL"))
    files = {"mlperf": "mlperf-inference-llm", "trtllm": "trtllm-performance"}
    files |= {"nvfp4-benchmark": "quality-by-precision", "guide": "guide-figures"}
    for dataset, name in files.items():
        with (CONFIGS / "reference" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            assert found.pop(dataset) == len(list(csv.DictReader(file)))
    assert not found
    assert rows(
        paper,
        "SELECT count(*) FROM published_evidence WHERE evidence <> 'published' OR source = '' OR licence = ''",
    ) == [(0,)]
    assert rows(paper, "SELECT count(*) - count(DISTINCT evidence_id) FROM published_evidence") == [(0,)]


def test_an_entry_keeps_round_date_hardware_and_figure(paper: Connection) -> None:
    sql = """
        SELECT round, published_on::VARCHAR, submitter, hardware, gpu, gpu_count, precision, output_tok_s
        FROM published_evidence WHERE entry = '5.1-0060' AND benchmark = 'llama2-70b-99' AND scenario = 'Offline'
    """
    assert rows(paper, sql) == [
        ("v5.1", "2025-09-09", "Lambda", "B200-SXM-180GB", "b200", 8, "nvfp4", 102725.0)
    ]


def test_a_total_is_over_all_accelerators_of_all_nodes(paper: Connection) -> None:
    sql = """
        SELECT DISTINCT nodes, gpu_count, round(output_tok_s / tok_s_per_gpu)
        FROM published_throughput WHERE hardware = 'GB200' AND nodes = 18
    """
    assert rows(paper, sql) == [(18, 72, 72.0)]


def test_one_of_two_accuracy_targets_counts(paper: Connection) -> None:
    sql = """
        SELECT benchmark, repeat_of, counts FROM published_evidence
        WHERE entry = 'v4.1-0043' AND model = 'llama2-70b' AND scenario = 'Offline' ORDER BY benchmark
    """
    assert rows(paper, sql) == [
        ("llama2-70b-99", None, True),
        ("llama2-70b-99.9", "llama2-70b-99", False),
    ]
    sql = """
        SELECT count(*) FILTER (NOT counts), count(*) FILTER (benchmark = 'llama2-70b-99.9' AND counts)
        FROM published_throughput WHERE model = 'llama2-70b'
    """
    repeats, alone = rows(paper, sql)[0]
    assert repeats == 131, "entries with both targets"
    assert alone == 10, "entries with the stricter target only still count"


def test_unlike_hardware_is_no_gpu_of_ours_and_has_no_price(paper: Connection) -> None:
    sql = "SELECT DISTINCT hardware FROM published_throughput WHERE gpu IS NOT NULL AND dataset = 'mlperf'"
    assert {name for (name,) in rows(paper, sql)} == {
        "B200-SXM-180GB",
        "H100-SXM-80GB",
        "H200-SXM-141GB",
        "L40S",
    }
    sql = """
        SELECT count(*), count(usd_per_mtok_output), any_value(null_reason) FROM published_costs
        WHERE hardware IN ('Virtualized H200-SXM-141GB', 'H200-SXM-141GB-CTS', 'H200-NVL-141GB', 'H100-PCIe-80GB')
    """
    assert rows(paper, sql) == [(38, 0, "other_hardware")]


def test_v4_1_is_not_taken_at_its_word(paper: Connection) -> None:
    sql = """
        SELECT submitter = 'NVIDIA', gpu, precision, count(*)
        FROM published_throughput
        WHERE round = 'v4.1' AND precision_declared = 'fp16' AND gpu IN ('h100', 'b200', 'l40s')
        GROUP BY ALL ORDER BY ALL
    """
    assert rows(paper, sql) == [
        (False, "h100", None, 74),
        (False, "l40s", None, 6),
        (True, "b200", None, 4),
        (True, "h100", "fp8", 6),
    ]
    sql = "SELECT count(*) FROM published_throughput WHERE precision IN ('fp16', 'bf16') AND NOT by_guide"
    assert rows(paper, sql) == [(0,)], "nobody published a 16-bit throughput"
    sql = "SELECT count(*) FROM published_evidence WHERE precision IS NULL AND precision_note IS NULL"
    assert rows(paper, sql) == [(0,)], "what is unknown says why"


def test_cost_beside_each_throughput_at_any_offer_and_date(paper: Connection) -> None:
    sql = """
        SELECT price_kind, usd_per_mtok_output, usd_per_hour, null_reason
        FROM published_costs_at('{}')
        WHERE entry = 'v4.1-0043' AND model = 'llama2-70b' AND scenario = 'Offline' AND counts
        ORDER BY price_kind
    """
    on_demand, reserved, spot = rows(paper, sql.format("2026-04-01"))
    assert on_demand[1] == pytest.approx(2.01 / (24524.9 / 8 * 3600) * 1e6)
    assert on_demand[2] == pytest.approx(8 * 2.01)
    assert reserved == ("reserved", None, None, "no_price")
    assert spot[1] == pytest.approx(0.99 / (24524.9 / 8 * 3600) * 1e6)
    assert {row[3] for row in rows(paper, sql.format("2026-03-19"))} == {"no_price"}, "before any offer"


def test_a_published_throughput_stands_beside_its_limit(paper: Connection) -> None:
    sql = """
        SELECT count(pct_of_bound), min(pct_of_bound) > 0, max(pct_of_bound) <= 100,
            count(*) FILTER (bound_tok_s < output_tok_s)
        FROM published_evidence WHERE dataset = 'trtllm' AND gpu IS NOT NULL
    """
    assert rows(paper, sql) == [(222, True, True, 0)]
    sql = """
        SELECT count(*) FROM published_evidence
        WHERE kind = 'throughput' AND pct_of_bound IS NULL AND no_bound IS NULL
    """
    assert rows(paper, sql) == [(0,)], "what has no limit says why"


def test_quality_deltas_say_what_can_be_said_without_samples(paper: Connection) -> None:
    sql = """
        SELECT score - baseline_score, quality_delta, quality_delta_ci_low, quality_delta_ci_high, run_noise, reading
        FROM published_quality
        WHERE model = 'gemma4-31b' AND precision = 'fp8' AND task = 'humaneval_instruct'
    """
    ((difference, delta, low, high, noise, reading),) = rows(paper, sql)
    assert delta == pytest.approx(difference)
    assert delta == pytest.approx(149 / 164 - 153 / 164, abs=1e-6)
    assert (low, high) == pytest.approx(newcombe(153, 149, 164), abs=1e-6), "scores have six digits"
    assert noise == 0
    assert reading == "undecided without samples"
    sql = "SELECT count(*) FROM published_quality WHERE reading = 'within the noise of repeated runs'"
    within = rows(paper, sql)[0][0]
    assert 0 < within < 108
    sql = """
        SELECT DISTINCT metric FROM published_quality WHERE quality_delta_ci_low IS NULL ORDER BY metric
    """
    assert rows(paper, sql) == [("inst_level_loose_acc",), ("inst_level_strict_acc",)], (
        "no counts of documents"
    )


@pytest.mark.parametrize(
    ("first", "second", "n"), [(50, 50, 50), (0, 0, 299), (30, 37, 100), (600, 541, 700), (0, 5, 5)]
)
def test_the_interval_is_newcombe_s(paper: Connection, first: int, second: int, n: int) -> None:
    sql = (
        f"SELECT newcombe_low({first / n}, {second / n}, {n}), newcombe_high({first / n}, {second / n}, {n})"
    )
    assert rows(paper, sql)[0] == pytest.approx(newcombe(first, second, n), abs=1e-12)


def test_two_runs_of_one_checkpoint_differ_by_what_the_data_says(paper: Connection) -> None:
    sql = """
        SELECT 100 * avg(abs(a.score - b.score)), 100 * max(abs(a.score - b.score))
        FROM store.published_scores a
        JOIN store.published_scores b USING (checkpoint, task, metric, filter)
        WHERE a.run = 'A' AND b.run = 'B' AND a.is_primary
    """
    assert rows(paper, sql) == [(pytest.approx(0.35, abs=0.005), pytest.approx(3.2, abs=1e-6))]


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "mlperf-inference-llm.csv",
            "11264.4,ROUGE1",
            "-1,ROUGE1",
            r"mlperf-inference-llm.csv:2: .*tokens_per_s",
        ),
        (
            "mlperf-inference-llm.csv",
            ",11264.4\n",
            ",9999\n",
            "v4.1-0074: 11264.4 tokens/s over 1 GPUs aren't 9999",
        ),
        ("mlperf-inference-llm.csv", "tokens_per_s,", "token_s,", "unknown key 'token_s'. Did you mean"),
        ("trtllm-performance.csv", "128,128,", "128,", r"trtllm-performance.csv:2: expected 12 cells"),
        ("quality-by-precision.csv", ",0.951667,", ",95.1667,", r"quality-by-precision.csv:2: key 'score'"),
        (
            "catalogue.yaml",
            "L40S: l40s",
            "L40S: l40",
            r"hardware.L40S: nothing is called 'l40'. Did you mean 'l40s'",
        ),
        ("catalogue.yaml", "guide-figures.csv", "guide-figure.csv", "guide-figure.csv: no such file"),
        ("guide.yaml", "entry: 5.1-0060", "entry: 5.1-0600", "mlperf has no entry '5.1-0600' of llama2-70b"),
        (
            "guide.yaml",
            "scaled_from: h100",
            "scaled_from: h10",
            "costs.4.scaled_from: nothing is called 'h10'",
        ),
    ],
)
def test_a_wrong_file_is_one_clear_line(configs: Path, file: str, old: str, new: str, message: str) -> None:
    path = configs / "reference" / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as caught:
        read_reference(configs, load_yaml(configs / "gpus.yaml", GpuFile))
    assert "\n" not in str(caught.value)


def test_a_configuration_without_evidence_has_none(tmp_path: Path) -> None:
    assert read_reference(tmp_path, GpuFile(gpus={})).rows == {}


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.one_of(
        st.binary(max_size=300),
        st.lists(st.lists(st.text(max_size=8), max_size=14), max_size=5).map(
            lambda lines: "\n".join(",".join(line) for line in lines).encode("utf-8", "surrogatepass")
        ),
    ),
    model=st.sampled_from([MlperfRow, TrtllmRow, ScoreRow]),
)
def test_no_text_breaks_the_reader(tmp_path: Path, data: bytes, model: type[Any]) -> None:
    path = tmp_path / "any.csv"
    path.write_bytes(data)
    problem = ""
    found: list[Any] = []
    try:
        found = list(read_csv(path, model))
    except ConfigError as error:
        problem = str(error)
    assert all(isinstance(row, model) for row in found)
    assert not problem or ("any.csv" in problem and "\n" not in problem)
