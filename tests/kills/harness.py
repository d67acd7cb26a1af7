"""Kill a run again and again at random moments; what comes out must be what an undisturbed run gives.

``python -m tests.kills.harness --seed 1 --kills 50``: homes one after the other, each killed several times in
``validate`` (any process of it, SIGKILL, SIGTERM or SIGINT), completed by the same command, then killed in ``load``
and ``publish``. The engine is the stub of tests/stub_engine.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import yaml

from quantgate.model.home import ROOT
from tests.kills import state
from tests.kills.run import Command, Kill, faults_of
from tests.stub_engine.make import make
from tests.support import prefect_server

ON_PURPOSE = ("", "engine start", "quality", "load", "sealing", "warehouse load", "publish")
"""The kills of each home: one at any moment of the run, then one in each stage (or the next that comes)."""
WINDOW_S = {"engine start": 0.5, "load": 2.0, "sealing": 0.3}


class Harness:
    """Homes, the reference and the kills so far.

    Args:
        seed: of the moments and the victims.
        folder: where homes and logs go.
        database: Prefect's, for the private server of each home; it makes one of its own if left out.
        tasks: of the demo's suite.
        concurrency: load levels.
        limit: documents of each task.
    """

    def __init__(
        self,
        seed: int,
        folder: Path,
        *,
        database: Path | None = None,
        tasks: tuple[str, ...] = ("qg_demo_cloze", "qg_demo_arithmetic"),
        concurrency: str = "1,4",
        limit: int = 24,
    ) -> None:
        self.chance = random.Random(seed)
        self.folder, self.kills, self.faults = folder, list[Kill](), list[str]()
        self.database = database
        self.environment = dict(os.environ) | {"QUANTGATE_ENGINES_FILE": str(make(folder / "engine"))}
        self.environment.pop("QUANTGATE_BUNDLES", None)
        checkpoints = ROOT / "demo" / "checkpoints"
        self.validate = [
            *("validate", "--tasks", str(_suite(folder, tasks)), "--limit", str(limit), "--policy", "demo"),
            *("--workload", "demo", "--concurrency", concurrency),
            *("--baseline", str(checkpoints / "quantgate-demo-BF16")),
            *("--candidate", str(checkpoints / "quantgate-demo-NVFP4")),
        ]
        self.duration_s: dict[str, float] = {}
        self.reference: dict[str, list[str]] = {}
        self.counts: dict[str, int] = {}

    def command(self, verb: str, home: Path) -> Command:
        """Start a verb."""
        arguments = {"validate": self.validate, "fresh": [*self.validate, "--fresh"]}.get(verb, [verb])
        log = self.folder / f"{home.name}-{verb}-{len(self.kills)}-{time.monotonic_ns()}.log"
        return Command(arguments, home, self.environment, log)

    def undisturbed(self) -> None:
        """The run that all others are held against; its duration spreads the kills."""
        home, begun = self._new_home("undisturbed"), time.monotonic()
        self.complete("validate", home)
        whole_s = time.monotonic() - begun
        self.duration_s = {"validate": whole_s, "fresh": whole_s, "load": whole_s / 3, "publish": whole_s / 3}
        self.reference = state.measured(home)
        self._fault(home, state.leftovers(home))

    def _new_home(self, name: str) -> Path:
        home = self.folder / name
        if self.database:
            prefect_server.place(self.database, home / "prefect")
        return home

    def complete(self, verb: str, home: Path) -> None:
        """Let the verb end by itself; it must end well."""
        command = self.command(verb, home)
        status = command.wait()
        if status != 0 or "Traceback" in command.told():
            self._fault(home, [f"`{verb}` undisturbed ended with {status}: {command.told()[-2000:]}"])

    def strike(self, verb: str, home: Path, stage: str = "", victim: str = "") -> bool:
        """Start a verb and kill part of it; False once it has ended well."""
        command = self.command(verb, home)
        whole_s = self.duration_s[verb]
        moment_s = self.chance.uniform(0, WINDOW_S.get(stage, 3.0) if stage else whole_s)
        if not command.wait_until(moment_s, stage):
            if command.wait() != 0:
                self._fault(
                    home, [f"`{verb}` ended by itself with {command.wait()}: {command.told()[-2000:]}"]
                )
                return True
            return False
        kill = command.kill(self.chance, victim)
        self.kills.append(kill)
        faults = faults_of(kill, command.told(), home) + state.damaged(home)
        try:
            now = state.counts(home)
            faults += state.shrunk(self.counts, now)
            self.counts = now
        except Exception as error:
            faults.append(f"the warehouse does not open: {error}")
        print(
            f"{len(self.kills):3} {home.name} {verb} +{kill.after_s:.1f} s, {kill.stage}: {kill.sent} to the "
            f"{kill.victim}: status {kill.status} after {kill.ended_in_s:.1f} s: {kill.last_line[:150]}",
            flush=True,
        )
        self._fault(home, [f"kill {len(self.kills)}: {fault} (log {command.log})" for fault in faults])
        return kill.status != 0

    def home(self, number: int, stages: tuple[str, ...] = ON_PURPOSE, *, rebuilds: bool = True) -> None:
        """One home: `validate` killed in each stage, completed, compared, then killed in `load` and `publish`."""
        home = self._new_home(f"home-{number}")
        self.counts = {}
        unfinished = True
        for stage in stages:
            unfinished = self.strike("validate", home, stage)
            if not unfinished:
                break
        if unfinished:
            self.complete("validate", home)
        self.compare(home)
        if rebuilds:
            self.rebuild(home)
        if rebuilds and number % 3 == 0:
            self.fresh(home)

    def rebuild(self, home: Path) -> None:
        """Kills while the warehouse, which is disposable, is loaded anew from the bundles and published."""
        (home / "warehouse.duckdb").unlink()
        self.counts = {}
        for verb, stage in (("load", "warehouse load"), ("publish", "publish")):
            if self.strike(verb, home, stage) and self.strike(verb, home):
                self.complete(verb, home)
        self.compare(home)

    def fresh(self, home: Path) -> None:
        """Measuring anew, killed while it is loaded, goes on too: each fingerprint has two bundles then, not three."""
        for stage, victim in (("", ""), ("warehouse load", "command")):
            if not state.measured_anew(home):
                self.strike("fresh", home, stage, victim)
        if not state.measured_anew(home):
            self.complete("fresh", home)
        self._fault(home, state.leftovers(home, bundles_each=2))

    def compare(self, home: Path) -> None:
        """A finished home against the undisturbed one."""
        try:
            self._fault(home, state.leftovers(home) + state.differences(self.reference, state.measured(home)))
        except Exception as error:
            self._fault(home, [f"it can't be compared: {type(error).__name__}: {error}"])

    def run(self, kills: int) -> None:
        """Homes until there were so many kills."""
        self.undisturbed()
        number = 0
        while len(self.kills) < kills:
            self.home(number, ON_PURPOSE[: kills - len(self.kills)])
            number += 1

    def _fault(self, home: Path, faults: list[str]) -> None:
        for fault in faults:
            self.faults.append(f"{home.name}: {fault}")
            print(f"FAULT {self.faults[-1]}", flush=True)

    def figures(self) -> str:
        """Kills by what they were."""
        lines = [f"{len(self.kills)} kills, {len(self.faults)} faults"]
        for what in ("verb", "sent", "victim", "stage", "status"):
            counted = collections.Counter(str(getattr(kill, what)) for kill in self.kills)
            lines.append(
                f"by {what}: " + ", ".join(f"{name} {count}" for name, count in counted.most_common())
            )
        return "\n".join(lines)


def _suite(folder: Path, tasks: tuple[str, ...]) -> Path:
    """Some of the demo's tasks as a suite of their own."""
    demo = yaml.safe_load((ROOT / "configs" / "suites" / "demo.yaml").read_text())
    file = folder / "suite.yaml"
    chosen = [task for task in demo["tasks"] if task["task"] in tasks]
    file.write_text(yaml.safe_dump(demo | {"name": "kills", "tasks": chosen}))
    return file


def main() -> int:
    """Entry point; 1 where anything was wrong."""
    parser = argparse.ArgumentParser(description="Kill runs at random moments and compare what comes out.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--folder", type=Path, help="Keep homes and logs here; a temporary one if left out.")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="quantgate-kills-"))
    folder.mkdir(parents=True, exist_ok=True)
    harness = Harness(given.seed, folder)
    harness.run(given.kills)
    (folder / "kills.json").write_text(json.dumps([asdict(kill) for kill in harness.kills], indent=1))
    print(harness.figures())
    if given.folder is None and not harness.faults:
        shutil.rmtree(folder)
    return 1 if harness.faults else 0


if __name__ == "__main__":
    sys.exit(main())
