"""One command under fire: its processes by their part, a signal to one of them, and how all of it ended."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from quantgate.model.home import ROOT
from tests.support.command import QUANTGATE, hear_ctrl_c, own_processes, processes_of

PARTS = {
    "launcher": "tasks/engine/launcher.py",
    "lm-eval worker": "tasks.quality.worker",
    "bench": "tasks/throughput/bench_driver.py",
    "engine": "vllm.entrypoints.openai.api_server",
    "engine's core": "sleep 7200",
    "Prefect server": "prefect",
}
"""What a command line holds that belongs to each part of a run; the first that fits decides."""

STAGES = ("start-up", "engine start", "quality", "load", "sealing", "warehouse load", "publish", "teardown")
"""What a run is at, in the order in which it comes to them; the second checkpoint begins with its engine again."""

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
STOPPED = {
    signal.SIGTERM: (
        143,
        "quantgate: terminated; finished parts are kept, the same command goes on from there",
    ),
    signal.SIGINT: (130, "quantgate: stopped; finished parts are kept, the same command goes on from there"),
}
ENDS_WITHIN_S = 30.0
"""A spot host is gone so long after its SIGTERM."""
NOTHING_LEFT_WITHIN_S = 10.0


@dataclass
class Kill:
    """One signal that was sent, and what came of it."""

    verb: str
    stage: str
    victim: str
    sent: str
    after_s: float
    status: int | None = None
    ended_in_s: float | None = None
    last_line: str = ""


class Command:
    """``quantgate …`` in a home of its own."""

    def __init__(self, arguments: list[str], home: Path, environment: dict[str, str], log: Path) -> None:
        self.verb, self.home, self.log = arguments[0], home, log
        if "--fresh" in arguments:
            self.verb += " --fresh"
        self.started = time.monotonic()
        with log.open("w") as err:
            self.process = subprocess.Popen(
                [QUANTGATE, *arguments],
                stdout=subprocess.DEVNULL,
                stderr=err,
                env=environment | {"QUANTGATE_HOME": str(home), "QUANTGATE_LOCKS": str(home / "locks")},
                cwd=ROOT,
                preexec_fn=hear_ctrl_c,  # noqa: PLW1509 - no threads here
            )

    def told(self) -> str:
        """Standard error so far."""
        return self.log.read_text()

    def stage(self) -> str:
        """What the progress lines say it is at."""
        at = "start-up"
        for line in self.told().splitlines():
            if ": start …" in line:
                at = "engine start"
            elif ": start: done" in line or (": qg_demo_" in line and "…" in line):
                at = "quality"
            elif re.search("load levels? …", line):
                at = "load"
            elif re.search("load levels?: done", line):
                at = "sealing"
            elif line.startswith("load: bundles"):
                at = "warehouse load"
            elif self.verb == "load" and " loaded before, " in line:
                at = "teardown"
            elif line.startswith("publish: "):
                at = "publish"
                if ": done" in line:
                    at = "teardown"
        return at

    def wait_until(self, moment_s: float, stage: str = "") -> bool:
        """Wait for a moment after the start, or after the stage or a later one was seen; False if it ended before."""
        begun = None if stage else self.started
        while self.process.poll() is None:
            if begun is None and STAGES.index(self.stage()) >= STAGES.index(stage):
                begun = time.monotonic()
            if begun is not None and time.monotonic() - begun >= moment_s:
                return True
            time.sleep(0.05)
        return False

    def parts(self) -> dict[str, list[int]]:
        """Process ids by part."""
        found: dict[str, list[int]] = {"command": [self.process.pid]}
        for pid, line in own_processes(self.home):
            part = next((part for part, marker in PARTS.items() if marker in line), None)
            if part and pid != self.process.pid:
                found.setdefault(part, []).append(pid)
        return found

    def kill(self, chance: random.Random, victim: str = "", signal_name: str = "") -> Kill:
        """Send one signal to one process, each chosen by chance unless it is named."""
        parts = self.parts()
        others = sorted(parts.keys() - {"command"})
        if victim not in parts:
            victim = "command" if not others or chance.random() < 0.4 else chance.choice(others)
        sent = signal.Signals[signal_name] if signal_name else chance.choice(SIGNALS)
        kill = Kill(self.verb, self.stage(), victim, sent.name, time.monotonic() - self.started)
        try:
            os.kill(chance.choice(parts[victim]), sent)
        except ProcessLookupError:
            kill.victim += " (gone by itself)"
        at = time.monotonic()
        try:
            kill.status = self.process.wait(timeout=300)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        kill.ended_in_s = time.monotonic() - at
        kill.last_line = (self.told().strip().splitlines() or [""])[-1]
        return kill

    def wait(self) -> int:
        """Let it end by itself."""
        return self.process.wait(timeout=600)


def faults_of(kill: Kill, told: str, home: Path) -> list[str]:
    """What went wrong after a kill; empty is good."""
    faults = []
    if "Traceback" in told:
        faults.append("a traceback")
    if kill.status is None:
        faults.append("it did not end within 300 s")
    elif kill.victim == "command":
        faults += _own_end(kill, signal.Signals[kill.sent])
    elif kill.status == 1:
        line = kill.last_line
        names_it = any(word in line for word in (" ended with ", " was ended by ", " did not ", " stopped "))
        if not (line.startswith("quantgate: ") and names_it):
            faults.append(f"its last line does not say what ended: {line!r}")
    elif kill.status != 0:
        faults.append(f"status {kill.status} after the {kill.victim} got {kill.sent}")
    end = time.monotonic() + NOTHING_LEFT_WITHIN_S
    while (left := processes_of(home)) and time.monotonic() < end:
        time.sleep(0.1)
    if left:
        faults.append(f"still running: {left}")
    return faults


def _own_end(kill: Kill, sent: signal.Signals) -> list[str]:
    """How a command ends that got the signal itself; one that was done already may end well."""
    if sent is signal.SIGKILL:
        done = kill.status == 0 and kill.stage == "teardown"  # it ended by itself as the signal was sent
        return [] if done or kill.status == -signal.SIGKILL else [f"status {kill.status} after SIGKILL"]
    faults = []
    status, line = STOPPED[sent]
    if kill.ended_in_s is not None and kill.ended_in_s > ENDS_WITHIN_S:
        faults.append(f"it ended {kill.ended_in_s:.0f} s after {sent.name}")
    if kill.stage == "start-up" and kill.status == -sent:
        return faults  # Python was not up yet
    if kill.status == status:
        if kill.last_line != line:
            faults.append(f"its last line is {kill.last_line!r}")
    elif not (kill.status == 0 and kill.stage == "teardown"):
        faults.append(f"status {kill.status} after {sent.name}")
    return faults
