"""MLPerf's official summary: which results are imported, and which claims they settle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantgate.model.errors import ConfigError
from warehouse.evidence.mlperf import evidence_folder, import_summary, read_summary
from warehouse.load import load_bundles
from warehouse.query import query


def result(**change: Any) -> dict[str, Any]:
    """An element as the official files have it; the figure is made up."""
    return {
        "ID": "5.0-0999",
        "Submitter": "Nobody",
        "Availability": "available",
        "Category": "closed",
        "Suite": "datacenter",
        "System": "8x H200-SXM-141GB",
        "Platform": "H200x8",
        "UsedModel": "llama2-70b-99",
        "Model": "llama2-70b-99",
        "Scenario": "Offline",
        "Accuracy": "ROUGE1: 44.4  ROUGE2: 22.0",
        "Nodes": 1,
        "host_processor_core_count": "64",
        "Accelerator": "NVIDIA H200-SXM-141GB",
        "a#": 8.0,
        "Software": "TensorRT 10.8, CUDA 12.8",
        "version": "v5.0",
        "has_power": False,
        "weight_data_types": "fp8",
        "p#": 2,
        "Performance_Result": 34990.0,
        "Performance_Units": "Tokens/s",
    } | change


def write(path: Path, *elements: Any) -> Path:
    path.write_text(json.dumps(elements))
    return path


def test_token_rates_of_the_closed_division_are_taken(tmp_path: Path) -> None:
    file = write(
        tmp_path / "summary_results.json",
        result(),
        result(Model="bert-99", Performance_Units="Samples/s"),
        result(Category="open"),
        result(Suite="edge"),
        {key: value for key, value in result().items() if key not in {"Accelerator", "a#"}},
    )
    (row,), left_out = read_summary(file)
    assert left_out == 4
    assert (row.accelerator, row.accelerators_per_node, row.tokens_per_s_per_accelerator) == (
        "H200-SXM-141GB",
        8,
        34990 / 8,
    )


@pytest.mark.usefixtures("begun")
def test_an_imported_round_settles_a_claim(place: Any, tmp_path: Path) -> None:
    known = result(ID="v4.1-0043", version="v4.1", Performance_Result=1.0, Accelerator="NVIDIA H100-SXM-80GB")
    file = write(tmp_path / "summary_results.json", result(), known)
    folder = evidence_folder(place.warehouse)
    done = import_summary(file, folder)
    assert (done.imported, done.left_out, import_summary(file, folder)) == (2, 0, done)
    assert sorted(path.suffix for path in folder.iterdir()) == [".csv", ".lock"]
    load_bundles(place.warehouse, place.bundles)
    sql = "SELECT status, value_max FROM claims WHERE claim_id = 'h200_best_throughput'"
    assert query(place.warehouse, sql).to_pylist() == [{"status": "supported", "value_max": 34990.0}]
    sql = "SELECT gpu, published_on::VARCHAR AS day, source FROM published_evidence WHERE entry = '5.0-0999'"
    (row,) = query(place.warehouse, sql).to_pylist()
    assert (row["gpu"], row["day"]) == ("h200", "2025-04-02")
    assert row["source"].startswith("MLPerf Inference v5.0, imported: mlperf-v5.0-")
    sql = "SELECT output_tok_s FROM published_throughput WHERE entry = 'v4.1-0043' AND scenario = 'Offline'"
    assert 1.0 not in query(place.warehouse, sql).column(0).to_pylist(), "a known entry stays as it is"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no JSON in UTF-8"),
        ("{}", "no list of results. Give the summary_results.json"),
        ("[]", "no list of results"),
        ("[1]", "element 0: expected a mapping"),
        (json.dumps([result(), {}]), "element 1: key 'ID' is missing"),
        (json.dumps([result(Performance_Result=-1)]), "element 0: key 'tokens_per_s'"),
        (json.dumps([result(Performance_Result="much")]), "element 0: key 'Performance_Result'"),
        (json.dumps([result(**{"a#": 1.5})]), "element 0: key 'accelerators_per_node'"),
        (json.dumps([result(Category="open")]), "it has no token rate"),
    ],
)
def test_a_wrong_file_is_one_clear_line_and_nothing_is_kept(
    tmp_path: Path, content: str, message: str
) -> None:
    file = tmp_path / "summary_results.json"
    file.write_text(content)
    with pytest.raises(ConfigError, match=message) as caught:
        import_summary(file, tmp_path / "evidence")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "evidence").exists()


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(list(result())), inner, max_size=5)
        ),
        max_leaves=8,
    )
)
def test_no_json_breaks_the_reader(tmp_path: Path, data: Any) -> None:
    file = tmp_path / "any.json"
    file.write_text(json.dumps([result() | data] if isinstance(data, dict) else data))
    problem, found = "", []
    try:
        found, _ = read_summary(file)
    except ConfigError as error:
        problem = str(error)
    assert "\n" not in problem
    assert bool(problem) or all(row.tokens_per_s > 0 for row in found)
