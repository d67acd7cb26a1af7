"""Damaged checkpoints through the whole pipeline on the real engine: `make test-damage`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from demo import damage
from demo.damage import BROKEN_TEMPLATES, CHAT
from quantgate.model.enums import Verdict
from quantgate.model.home import ROOT
from tests.support.command import nothing_left, quantgate
from tests.verdicts import scores
from tests.verdicts.claims import (
    BASELINE,
    OF_WEIGHTS,
    check_that_it_grows,
    check_that_it_is_damage,
    check_that_it_is_not_validated,
)
from tests.verdicts.live import bundles, recorded_to

pytestmark = [pytest.mark.damage, pytest.mark.timeout(3600)]

CHAT_TASK = ROOT / "tests" / "verdicts" / "tasks" / "chat.yaml"
SHORT = ("--policy", "demo", "--workload", "demo", "--concurrency", "8", "--require-validated")


def verdicts(home: Path) -> dict[str, dict[str, Verdict]]:
    """Of every candidate by its checkpoint's name, by use."""
    assert nothing_left(home) == []
    query = "SELECT checkpoint, use, verdict, reason FROM verdicts WHERE verdict <> 'BASELINE'"
    found: dict[str, dict[str, Verdict]] = {}
    for row in json.loads(quantgate("sql", "--format", "json", query).out):
        print(f"{row['checkpoint']}, {row['use']}: {row['verdict']}: {row['reason']}", flush=True)
        found.setdefault(row["checkpoint"], {})[row["use"]] = Verdict(row["verdict"])
    return found


def test_damaged_weights_and_tokenizers(home: Path, tmp_path: Path) -> None:
    made = damage.make(tmp_path)
    candidates = [part for name in OF_WEIGHTS for part in ("--candidate", str(made[name]))]
    done = quantgate(
        *(
            "validate",
            "--baseline",
            str(damage.SOURCE),
            *candidates,
            "--name",
            "damaged",
            "--tasks",
            "demo",
            *SHORT,
        ),
        timeout_s=3000,
    )
    assert done.status == 3, done.err
    found = bundles(home)
    runs = {BASELINE: found[damage.SOURCE.name][1]} | {name: found[made[name].name][1] for name in OF_WEIGHTS}
    if (file := recorded_to("damaged")) is not None:
        scores.write(scores.compact(runs), file)
    said = verdicts(home)
    for name in OF_WEIGHTS:
        check_that_it_is_damage(runs[BASELINE], runs[name], name)
        full = scores.deltas(runs[BASELINE], runs[name])
        print(name, {task: f"{delta:+.1%}" for task, delta in full.items()}, flush=True)
        check_that_it_is_not_validated(said[made[name].name], full, name)
    check_that_it_grows(runs)


def test_broken_chat_templates(home: Path, tmp_path: Path) -> None:
    made = damage.make(tmp_path)
    candidates = [part for name in BROKEN_TEMPLATES for part in ("--candidate", str(made[name]))]
    done = quantgate(
        *(
            "validate",
            "--baseline",
            str(made[CHAT]),
            *candidates,
            "--name",
            "chat",
            "--tasks",
            str(CHAT_TASK),
        ),
        *("--family", "conversation", "--chat-template", *SHORT),
        timeout_s=3000,
    )
    assert done.status == 3, done.err
    found = bundles(home)
    runs = {name: found[made[name].name][1] for name in (CHAT, *BROKEN_TEMPLATES)}
    if (file := recorded_to("chat")) is not None:
        scores.write(scores.compact(runs), file)
    said = verdicts(home)
    for name in BROKEN_TEMPLATES:
        check_that_it_is_damage(runs[CHAT], runs[name], name)
        print(name, scores.deltas(runs[CHAT], runs[name]), flush=True)
        assert said[made[name].name]["all"] is Verdict.NOT_COMPARABLE, "the prompts are others"
