"""What is published: three files of one as_of, whole; and the table that people read."""

from __future__ import annotations

import csv
import re
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from quantgate.model.enums import KernelMode, Validity
from quantgate.model.errors import ConfigError, RunError
from warehouse.load import load_bundles
from warehouse.query import query
from warehouse.report import publish as publishing
from warehouse.report.publish import publish
from warehouse.report.summary import summary_table

AS_OF = datetime(2026, 6, 1, tzinfo=UTC)
NAMES = ["validated_table.csv", "validated_table.md", "validated_table.parquet"]


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_a_warehouse_of_another_version_is_one_line(loaded: Any, tmp_path: Path) -> None:
    older = tmp_path / "warehouse.duckdb"
    shutil.copy(loaded.warehouse, older)
    with duckdb.connect(str(older)) as connection:
        connection.execute("CREATE OR REPLACE VIEW validated_table AS SELECT 1 AS run_id")
        connection.execute("CREATE OR REPLACE MACRO validated_table_at(ts) AS TABLE SELECT 1 AS run_id")
    with pytest.raises(
        RunError, match=r"it is another version's \(.*`quantgate load` brings it to this version"
    ):
        publish(older, tmp_path / "published", AS_OF)


def test_three_files_of_one_as_of(loaded: Any, tmp_path: Path) -> None:
    published = publish(loaded.warehouse, tmp_path / "published", AS_OF)
    assert visible(tmp_path / "published") == NAMES
    parquet, text, page = published.files
    expected = query(loaded.warehouse, "FROM validated_table_at('2026-06-01')")
    table = pq.read_table(parquet)
    assert published.rows == table.num_rows == expected.num_rows == 36
    assert table.drop_columns("as_of").to_pylist() == expected.to_pylist()
    assert set(table.column("as_of").to_pylist()) == {AS_OF}
    assert pq.read_metadata(parquet).metadata[b"as_of"] == b"2026-06-01T00:00:00Z"
    with text.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["run_id"] for row in rows] == expected.column("run_id").to_pylist()
    assert {row["as_of"] for row in rows} == {"2026-06-01T00:00:00Z"}
    assert "as_of: 2026-06-01T00:00:00Z" in page.read_text(encoding="utf-8")


def test_publishing_again_replaces_all_three(loaded: Any, tmp_path: Path) -> None:
    publish(loaded.warehouse, tmp_path, AS_OF)
    (tmp_path / ".validated_table.csv.next-1-dead").write_text("left by a killed one")
    publish(loaded.warehouse, tmp_path, datetime(2026, 6, 2, tzinfo=UTC))
    assert visible(tmp_path) == NAMES
    for name in ("validated_table.csv", "validated_table.md"):
        assert "2026-06-02T00:00:00Z" in (tmp_path / name).read_text(encoding="utf-8")


def test_a_failure_leaves_the_old_files_whole(
    loaded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(loaded.warehouse, tmp_path, AS_OF)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def disk_full(*arguments: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(publishing, "render", disk_full)
    with pytest.raises(OSError, match="no space"):
        publish(loaded.warehouse, tmp_path, datetime(2026, 6, 2, tzinfo=UTC))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_without_a_warehouse_nothing_is_published(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no warehouse yet"):
        publish(tmp_path / "warehouse.duckdb", tmp_path / "published")
    assert not (tmp_path / "published").exists()


def test_the_summary_has_a_row_for_each_precision_and_point(loaded: Any) -> None:
    lines = summary_table(loaded.warehouse, AS_OF).splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0] == "toy on h100 (sm_90), vllm 0.25.1, load 'short', 128 tokens in, 64 out"
    cells = [line.split() for line in lines[3:9]]
    assert [(c[0], c[1], c[2]) for c in cells] == [
        ("bf16", "c1", "BASELINE"),
        ("bf16", "c8", "BASELINE"),
        ("fp8", "c1", "VALIDATED"),
        ("fp8", "c8", "VALIDATED"),
        ("nvfp4", "c1", "REJECTED"),
        ("nvfp4", "c8", "REJECTED"),
    ]
    assert cells[3][3:] == ["2/200", "+0.00", "[-2.63,", "+2.63]", "0.698", "800", "10/10", "native"]
    assert cells[5][-1] == "emulated"
    text = " ".join(" ".join(lines).split())
    assert "say nothing of hardware that has the kernel: no speed claim rests on them" in text
    assert "Policy toys: VALIDATED where an exact test shows" in text
    assert "Evidence of every row: measured." in text
    assert "nvfp4: toy-nvfp4; suite toys, 2 tasks, 200 documents; worst task sums" in text
    assert "Price: spheron on-demand, 2.01 USD/h of 2026-03-20" in text
    assert "Other offers, in the view validated_table: spheron spot, 0.99 USD/h of 2026-03-20." in text
    assert "nvfp4 math REJECTED 1/100 sums -30.00 [-37.98, -23.07]" in text
    assert "nvfp4 conversation VALIDATED 1/100 cloze +0.00 [-2.63, +2.63]" in text
    assert "fp8 per task: toy-fp8 against toy-bf16" in text
    assert "sums math 100 90.0 60.0 -30.00 [-37.98, -23.07] 10 30.0 0.002 fail" in text


def test_markdown_and_plain_text_show_the_same_cells(loaded: Any) -> None:
    plain = summary_table(loaded.warehouse, AS_OF)
    page = summary_table(loaded.warehouse, AS_OF, markdown=True)
    rows = [line.strip("|").split("|") for line in page.splitlines() if line.startswith("|")]
    cells = [" ".join(cell.strip() for cell in row) for row in rows if not row[0].startswith("-")]
    assert cells
    flat = [" ".join(line.split()) for line in plain.splitlines()]
    shown = {*flat, *(f"{line} evidence" for line in flat), *(f"{line} measured" for line in flat)}
    assert [cell for cell in cells if cell not in shown] == [], (
        "a note has the evidence where it is every row's"
    )


@pytest.mark.usefixtures("begun")
def test_a_task_that_the_baseline_cannot_do_is_named(place: Any, three: Any) -> None:
    """Of 100 sums the baseline gets one right, and the candidate none: within the margin of 10 points."""
    baseline = replace(three[0], wrong={"sums": range(1, 99)})
    place.write(baseline, replace(three[1], baseline=baseline, wrong={"sums": range(100)}))
    load_bundles(place.warehouse, place.bundles)
    text = " ".join(summary_table(place.warehouse, AS_OF).split())
    assert "sums: insensitive: the baseline scores 1 % of 100 documents, at least 0.0513 %" in text
    assert "fp8 math INCONCLUSIVE" in text
    assert "fp8 conversation VALIDATED" in text
    assert "insensitive: the baseline scores too little for a loss of the margin to show" in text
    (outcome,) = query(
        place.warehouse, "SELECT outcome FROM quality_delta WHERE use = 'math' AND declared = 'declared'"
    )["outcome"].to_pylist()
    assert outcome == "insensitive"
    assert "is right" not in text


@pytest.mark.usefixtures("begun")
def test_a_task_without_a_right_answer_names_the_query_that_shows_why(place: Any, three: Any) -> None:
    baseline = replace(three[0], wrong={"sums": range(100)})
    place.write(baseline, replace(three[1], baseline=baseline, wrong={"sums": range(100)}))
    load_bundles(place.warehouse, place.bundles)
    text = " ".join(summary_table(place.warehouse, AS_OF).split())
    assert "No answer of toy-bf16 to sums is right." in text
    asked = re.search(r'quantgate sql "(SELECT target, answer [^"]+)"', text)
    assert asked is not None
    assert query(place.warehouse, asked[1]).num_rows == 5


@pytest.mark.usefixtures("begun")
def test_the_reason_of_each_candidate_stands_before_the_legend(place: Any, three: Any) -> None:
    place.write(*three[:2])
    load_bundles(place.warehouse, place.bundles)
    text = summary_table(place.warehouse, AS_OF)
    assert text.index("\nfp8: toy-fp8; suite") < text.index("\nat: requests in flight")


@pytest.mark.usefixtures("begun")
def test_an_inconclusive_verdict_says_how_many_documents_it_needs(place: Any, three: Any) -> None:
    baseline = replace(three[0], documents=30)
    place.write(baseline, replace(three[1], baseline=baseline, documents=30))
    load_bundles(place.warehouse, place.bundles)
    text = " ".join(summary_table(place.warehouse, AS_OF).split())
    assert "INCONCLUSIVE" in text
    assert "30 documents, and the policy asks for at least 50" in text


@pytest.mark.usefixtures("begun")
def test_a_use_whose_family_was_not_measured_says_so(place: Any, three: Any) -> None:
    tasks = {"sums": three[0].tasks["sums"]}
    baseline = replace(three[0], tasks=tasks)
    place.write(baseline, replace(three[1], baseline=baseline, tasks=tasks))
    load_bundles(place.warehouse, place.bundles)
    flat = " ".join(summary_table(place.warehouse, AS_OF).split())
    assert "UNVALIDATED" not in flat
    assert "fp8 math VALIDATED 1/100" in flat
    assert flat.count("No verdict for conversation: fp8 answered no task of their families.") == 1
    assert "fp8 c8 VALIDATED 1/100" in flat, "`all` from one task does not look like `all` from two"
    assert "fp8: toy-fp8; suite toys, 1 task, 100 documents" in flat


@pytest.mark.usefixtures("begun")
def test_marks_of_what_is_not_to_be_used(place: Any, three: Any, spec: Any) -> None:
    place.write(
        replace(three[0], gpu="cpu", point_validity=Validity.QUARANTINED),
        replace(three[2], gpu="cpu", kernel_mode=KernelMode.WEIGHT_ONLY, tasks={}),
        spec("run-other", gpu="rtx-6000", points={}),
    )
    load_bundles(place.warehouse, place.bundles)
    text = summary_table(place.warehouse)
    assert max(map(len, text.splitlines())) <= 100
    flat = " ".join(text.split())
    assert "bf16 c1* BASELINE" in flat
    assert "* quarantined, not to be used: bf16 at c1, c8 (client_bound). --fresh measures again." in flat
    assert "nvfp4: toy-nvfp4; no quality was measured." in flat
    assert "An assumed price for a 2-core machine" in flat
    assert "No price of rtx-6000 is valid at this time: configs/prices.yaml has none." in flat
    assert "no load measured" in flat


@pytest.mark.usefixtures("begun")
def test_long_names_and_twins_fit_a_terminal(place: Any, three: Any, spec: Any) -> None:
    name = "an-organisation/a-model-with-a-very-long-name-indeed-instruct-2507-fp8-dynamic"
    task = "leaderboard_math_intermediate_algebra_hard_with_a_suffix_that_goes_on"
    tasks = {task: next(iter(three[0].tasks.values()))}
    baseline = replace(three[0], tasks=tasks)
    place.write(
        baseline,
        spec("run-a", "fp8", baseline=baseline, checkpoint=name, tasks=tasks),
        spec("run-b", "fp8", baseline=baseline, checkpoint=name + "-2", tasks=tasks),
    )
    load_bundles(place.warehouse, place.bundles)
    text = summary_table(place.warehouse)
    assert max(map(len, text.splitlines())) <= 100
    assert "fp8 #1     c1  VALIDATED" in text
    assert "fp8 #2     c8  VALIDATED" in text
    assert "leaderboard_math_i" in text


@pytest.mark.usefixtures("begun")
def test_a_baseline_on_more_gpus_than_its_candidate(place: Any, three: Any) -> None:
    baseline = replace(three[0], gpu_count=2)
    place.write(baseline, replace(three[1], baseline=baseline))
    load_bundles(place.warehouse, place.bundles)
    flat = " ".join(summary_table(place.warehouse, AS_OF).split())
    assert "toy on 1 or 2 × h100 (sm_90)" in flat
    assert "bf16 ×2 c8 BASELINE 2/200 – 2.79" in flat
    assert "fp8 ×1 c8 VALIDATED 2/200 +0.00 [-2.63, +2.63] 0.698" in flat
    assert "Price for 2 × h100: spheron on-demand, 4.02 USD/h of 2026-03-20" in flat
    assert "Price: spheron on-demand, 2.01 USD/h of 2026-03-20" in flat


@pytest.mark.usefixtures("begun")
def test_an_empty_warehouse_says_so(place: Any) -> None:
    load_bundles(place.warehouse, place.bundles)
    assert summary_table(place.warehouse) == "The warehouse has no run yet."
