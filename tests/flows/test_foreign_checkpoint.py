"""A checkpoint of another vocabulary, size and quantizer, with a JSONL of its own, through the same flow."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from quantgate.model.home import Home
from tasks.engine import environment
from tasks.progress import Reporter
from tests.support.command import nothing_left, quantgate

DOCUMENTS = 60
"""Fewer than the policy's least number for mathematics: on no CPU are they VALIDATED, whatever flips."""


def write_documents(path: Path) -> None:
    """Multiple choice over words that only this vocabulary has."""
    choose = random.Random(5)
    lines = []
    for _ in range(DOCUMENTS):
        prompt = " ".join(f"word{choose.randrange(316)}" for _ in range(8))
        choices = [f"word{i}" for i in choose.sample(range(316), 3)]
        lines.append(json.dumps({"prompt": prompt, "choices": choices, "answer": choose.choice(choices)}))
    path.write_text("\n".join(lines))


@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_compressed_tensors_fp8_of_another_vocabulary_and_size(home: Path, tmp_path: Path) -> None:
    name, config = environment.load_engine(None, "cpu")
    python = environment.prepare(name, config, Home.current(), Reporter(print)).python
    maker = Path(__file__).parents[1] / "support" / "make_foreign.py"
    subprocess.run([python, maker, tmp_path], check=True, capture_output=True)
    write_documents(tmp_path / "mine.jsonl")
    arguments = [
        *("validate", "--baseline", str(tmp_path / "BF16"), "--candidate", str(tmp_path / "W8A8")),
        *(
            "--tasks",
            str(tmp_path / "mine.jsonl"),
            "--family",
            "math",
            "--workload",
            "demo",
            "--concurrency",
            "2",
            "--require-validated",
        ),
    ]
    done = quantgate(*arguments)
    assert done.status == 3, f"60 documents can't show a point: {done.err}"
    assert nothing_left(home) == []
    query = "SELECT * FROM validated_table WHERE use = 'all' ORDER BY verdict"
    baseline, candidate = json.loads(quantgate("sql", "--format", "json", query).out)
    assert (baseline["verdict"], baseline["precision"], baseline["kernel_mode"]) == (
        "BASELINE",
        "bf16",
        "native",
    )
    assert (candidate["verdict"], candidate["precision"]) == ("INCONCLUSIVE", "fp8")
    assert candidate["weight_format"].startswith("compressed-tensors")
    assert candidate["kernel_mode"] == "emulated"
    assert candidate["gpu"] == "cpu"
    assert candidate["speedup_vs_baseline"] is None
    assert candidate["null_reasons"]["speedup_vs_baseline"] == "emulated_no_speed"
    assert candidate["worst_task"] == "mine"
    scores = {}
    for bundle in sorted((home / "bundles").glob("[!.]*")):
        rows = pq.read_table(bundle / "samples.parquet").to_pylist()
        assert len(rows) == DOCUMENTS
        scores[bundle] = {row["doc_id"]: row["score"] for row in rows}
    first, second = scores.values()
    assert set(first) == set(second)
    assert 0.1 < sum(first.values()) / DOCUMENTS < 0.7, "a random model guesses among three"
    delta = sum(second[key] - first[key] for key in first) / DOCUMENTS
    assert candidate["quality_delta"] == pytest.approx(delta)
    price = candidate["usd_per_hour"] / (candidate["output_tok_s"] * 3600) * 1e6
    assert candidate["usd_per_mtok_output"] == pytest.approx(price)

    again = quantgate(*arguments)
    assert again.status == 3
    assert "nothing was measured again" in again.err
    assert "start" not in again.err
