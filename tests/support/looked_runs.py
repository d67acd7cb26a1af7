"""Validations under a policy with looks, on the stub engine (tests/stub_engine), in this process.

The worker is the real one; it runs here, so that a test doesn't wait for lm-eval's import at each batch. No load is
measured. Neither Prefect nor a server is there.
"""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from flows.planning import request, runs
from quantgate.bundles.manifest import Manifest
from quantgate.bundles.seal import NO_LOAD
from quantgate.model.enums import Family
from quantgate.model.errors import RunError
from quantgate.model.home import ROOT, Home
from quantgate.model.records import RunPlan
from tasks import run
from tasks.quality import evaluate, worker
from tasks.quality.content import describe, reader
from tasks.resume.interim_looks import baseline_of
from tasks.throughput import bench
from tests.stub_engine.make import make
from tests.support.flow_runs import measured
from tests.support.sample_rows import policy_of
from warehouse.load import load_bundles
from warehouse.query import query

CHECKPOINTS = ROOT / "demo" / "checkpoints"
ALL = 300
"""Documents that the task has: the first of the demo's arithmetic."""

LOOKS = policy_of({Family.MATH: (0.05, 40)}, looks=(0.2, 0.4, 0.6, 0.8), aa_documents=0)
"""Five looks, and margins that few documents can show."""


class Killed(Exception):  # noqa: N818 - no error, what a kill leaves
    """The process is gone."""


def with_other_weights(folder: Path, seed: str) -> None:
    """Give a copy of a checkpoint weights of its own: a candidate is known by its tensors. The stub reads none."""
    for file in folder.glob("*.safetensors"):
        raw = bytearray(file.read_bytes())
        begin = 8 + int.from_bytes(raw[:8], "little")
        raw[begin:] = random.Random(seed).randbytes(len(raw) - begin)
        file.write_bytes(raw)


class LookedRuns:
    """Validations of quantgate-demo-BF16 and its candidates in the home of the test.

    ``good`` answers as the baseline does, ``bad`` is right on half of the prompts, ``close`` on nearly as many but
    on others.

    Args:
        folder: where engine and checkpoints go.
        patch: undone at the end of the test.
    """

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch, self.policy = folder, patch, LOOKS
        self.lines: list[str] = []
        self.asked: list[tuple[str, int, int | None]] = []
        self.kill_before: int | None = None
        self.failures: list[str] = []
        self.baseline = str(CHECKPOINTS / "quantgate-demo-BF16")
        self.good = self._copy("good", "quantgate-demo-BF16")  # the stub answers by the folder's name
        self.bad = self._copy("bad", "bad")
        self.close = self._copy("close", "close")
        self.tasks = self._documents()
        self.engine()
        patch.setattr(request, "load_policy", lambda _: self.policy)
        patch.setattr(run, "read_text", lambda _: None)  # no fidelity
        patch.setattr(bench, "unfinished", lambda *_: [])
        patch.setattr(bench, "rows", lambda *_: NO_LOAD)
        patch.setattr(evaluate, "run_tied", self._worker)
        patch.setattr(describe, "run_tied", lambda command, **_: reader.main(command[3:]))
        patch.setenv("KMP_DUPLICATE_LIB_OK", "True")  # lm-eval's import sets it, and a run records it
        patch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "datasets")

    def _copy(self, place: str, name: str) -> str:
        folder = shutil.copytree(CHECKPOINTS / "quantgate-demo-NVFP4", self.folder / place / name)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"copy": place}))
        with_other_weights(folder, place)
        return str(folder)

    def _documents(self) -> str:
        lines = (ROOT / "demo" / "tasks" / "arithmetic.jsonl").read_text().splitlines()
        kept = [{key: json.loads(line)[key] for key in ("id", "prompt", "answer")} for line in lines[:ALL]]
        file = self.folder / "sums.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in kept))
        return str(file)

    def engine(self, skills: dict[str, float] | None = None, **settings: str) -> None:
        """Start using the stub engine, whose settings may differ from before."""
        all_skills = json.dumps({"bad": 0.5, "close": 0.89} | (skills or {}))
        file = make(self.folder / "engine", STUB_SKILLS=all_skills, STUB_START_S="0", **settings)
        self.patch.setenv("QUANTGATE_ENGINES_FILE", str(file))

    def _worker(self, command: list[str], *, environment: dict[str, str], **_: Any) -> None:
        """Do the worker's part in this process, or kill the run before it."""
        if self.kill_before == len(self.asked):
            raise Killed
        spec = json.loads(Path(command[3]).read_text())
        self.asked.append((Path(spec["tokenizer"]).parent.name, spec["start"], spec["end"]))
        self.patch.setenv("OPENAI_API_KEY", environment["OPENAI_API_KEY"])
        if worker.main(command[3:]) != 0:
            raise RunError("the worker failed")

    def validate(
        self, *candidates: str, fresh: bool = False, failing: int = 0, **parameters: Any
    ) -> list[Manifest]:
        """Measure the baseline and candidates, of which so many have no result; the manifests of the others."""
        given = {"baseline": self.baseline, "candidates": list(candidates), "tasks": self.tasks}
        given |= {"policy": "looks", "family": "math", "workload": "demo"}
        self.asked.clear()
        baseline_of.cache_clear()
        done, failures = measured(given | parameters, self.lines, fresh=fresh)
        self.failures = [str(failure) for failure in failures]
        assert len(failures) == failing, self.failures
        return done

    def elsewhere(self, patch: pytest.MonkeyPatch, *, candidates: bool = True, **inputs: Any) -> None:
        """Let all runs, or the baseline's alone, be measured in another setting: on another device, say."""
        plan = runs.plan_of

        def planned(*given: Any) -> RunPlan:
            made = plan(*given)
            if made.baseline and not candidates:
                return made
            return made.model_copy(update={"inputs": made.inputs.model_copy(update=inputs)})

        patch.setattr(runs, "plan_of", planned)

    def asked_of(self, checkpoint: str) -> list[tuple[int, int | None]]:
        """Documents that a checkpoint was asked in the last validation, from and to, a pair for each batch."""
        return [(start, end) for name, start, end in self.asked if name == Path(checkpoint).parent.name]

    def verdicts(self) -> dict[str, dict[str, Any]]:
        """The rows of `verdicts` by run, after a load."""
        home = Home.current()
        report = load_bundles(home.warehouse, home.bundles)
        assert report.problems == ()
        table = query(home.warehouse, "SELECT * FROM verdicts WHERE use = 'all'")
        return {row["run_id"]: row for row in table.to_pylist()}


@pytest.fixture
def looked_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LookedRuns:
    """Validations under a policy with looks."""
    return LookedRuns(tmp_path, monkeypatch)
