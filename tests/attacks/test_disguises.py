"""A candidate that was INCONCLUSIVE is asked again, each time in another disguise, and never stands VALIDATED.

From the second try on the engine answers all of the candidate's prompts rightly: what an attacker hopes for by chance
comes true at once. The tests use little of the project, so that they run against earlier versions too.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quantgate.model.home import Home
from tests.support.looked_runs import ALL, ROOT, LookedRuns
from warehouse.query import query

Disguise = Callable[[LookedRuns, Path], dict[str, Any]]
"""Given the runs and a folder of its own it returns what differs in the next try."""


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LookedRuns]:
    """A candidate that is INCONCLUSIVE, and passes from now on."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("attacked")
        patch.setenv("QUANTGATE_HOME", str(home))
        patch.setenv("QUANTGATE_LOCKS", str(home / "locks"))
        runs = LookedRuns(tmp_path_factory.mktemp("attacker"), patch)
        (_, first) = runs.validate(runs.close)
        assert runs.verdicts()[first.run_id]["verdict"] == "INCONCLUSIVE"
        runs.engine({"close": 1.0})
        yield runs


@pytest.fixture(autouse=True)
def home(tried: LookedRuns) -> Path:
    """The home of all tests here, in place of one for each."""
    return Home.current().path


def lines_of(runs: LookedRuns) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(runs.tasks).read_text().splitlines()]


def written(file: Path, lines: list[dict[str, Any]]) -> str:
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(file)


def more_lines(count: int) -> list[dict[str, Any]]:
    """Documents of the demo that the task doesn't have."""
    lines = (ROOT / "demo" / "tasks" / "arithmetic.jsonl").read_text().splitlines()[ALL : ALL + count]
    return [{key: json.loads(line)[key] for key in ("id", "prompt", "answer")} for line in lines]


def renamed(runs: LookedRuns, folder: Path) -> dict[str, Any]:
    return {"tasks": written(folder / "innocent.jsonl", lines_of(runs))}


def reordered_with_other_ids(runs: LookedRuns, folder: Path) -> dict[str, Any]:
    lines = [line | {"id": f"x{number}"} for number, line in enumerate(reversed(lines_of(runs)))]
    return {"tasks": written(folder / "sums.jsonl", lines)}


def one_line_fewer(runs: LookedRuns, folder: Path) -> dict[str, Any]:
    return {"tasks": written(folder / "sums.jsonl", lines_of(runs)[:-1])}


def filtered(runs: LookedRuns, folder: Path) -> dict[str, Any]:
    return {"tasks": written(folder / "sums.jsonl", lines_of(runs)[: 4 * ALL // 5])}


def some_words_changed(runs: LookedRuns, folder: Path) -> dict[str, Any]:
    """Other letters that look the same in every tenth prompt."""
    lines = lines_of(runs)
    for line in lines[::10]:
        line["prompt"] = line["prompt"].replace("o", "\N{CYRILLIC SMALL LETTER O}")
    return {"tasks": written(folder / "sums.jsonl", lines)}


def trailing_newlines(runs: LookedRuns, folder: Path) -> dict[str, Any]:
    lines = [line | {"prompt": line["prompt"] + " \n"} for line in lines_of(runs)]
    return {"tasks": written(folder / "sums.jsonl", lines)}


def diluted(runs: LookedRuns, folder: Path) -> dict[str, Any]:
    return {"tasks": written(folder / "sums.jsonl", lines_of(runs) + more_lines(100))}


def other_documents(runs: LookedRuns, folder: Path) -> dict[str, Any]:
    return {"tasks": written(folder / "sums.jsonl", more_lines(ALL))}


def split_in_two(runs: LookedRuns, folder: Path) -> dict[str, Any]:
    lines = lines_of(runs)
    names = [Path(written(folder / f"half{n}.jsonl", lines[n::2])).name for n in range(2)]
    tasks = [{"task": name.split(".")[0], "path": name, "family": "math"} for name in names]
    suite = folder / "halves.yaml"
    suite.write_text(f"name: halves\ntasks: {json.dumps(tasks)}\n")
    return {"tasks": str(suite), "family": None}


def irrelevant_arguments(_: LookedRuns, __: Path) -> dict[str, Any]:
    return {"engine_arguments": {"max-num-seqs": 7}}


def asked_afresh(_: LookedRuns, __: Path) -> dict[str, Any]:
    return {"fresh": True}


def looser_policy(runs: LookedRuns, _: Path) -> dict[str, Any]:
    families = {
        name: rule.model_copy(update={"margin": 2 * rule.margin})
        for name, rule in runs.policy.families.items()
    }
    runs.patch.setattr(runs, "policy", runs.policy.model_copy(update={"families": families}))
    return {}


def engine_renamed(runs: LookedRuns, folder: Path) -> dict[str, Any]:
    """The same engine under another name in a user's engines.yaml."""
    file = runs.folder / "engine" / "engines.yaml"
    (folder / "engines.yaml").write_text(
        file.read_text().replace("stub:", "mine:").replace(": stub", ": mine")
    )
    runs.patch.setenv("QUANTGATE_ENGINES_FILE", str(folder / "engines.yaml"))
    return {}


def without_the_warehouse(runs: LookedRuns, folder: Path) -> dict[str, Any]:
    Home.current().warehouse.unlink()
    return one_line_fewer(runs, folder)


def another_home(runs: LookedRuns, folder: Path) -> dict[str, Any]:
    """A home of nothing but the store of the first."""
    runs.patch.setenv("QUANTGATE_BUNDLES", str(Home.current().bundles))
    runs.patch.setenv("QUANTGATE_HOME", str(folder / "home"))
    return filtered(runs, folder) | one_line_fewer(runs, folder)


def commented(runs: LookedRuns, folder: Path) -> dict[str, Any]:
    copy = Path(shutil.copytree(runs.close, folder / "close"))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"_comment": "mine"}, indent=4))
    return {"candidate": str(copy)}


def saved_anew(edit: Callable[[dict[str, bytes], dict[str, Any]], None]) -> Disguise:
    """A copy of the candidate with its tensors edited: their bytes, and what the header says of each."""

    def disguise(runs: LookedRuns, folder: Path) -> dict[str, Any]:
        copy = Path(shutil.copytree(runs.close, folder / "close"))
        (file,) = copy.glob("*.safetensors")
        raw = file.read_bytes()
        begin = 8 + int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8:begin])
        about = header.pop("__metadata__", {})
        tensors = {
            name: raw[begin:][slice(*entry["data_offsets"])]
            for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"])
        }
        edit(tensors, header)
        end = 0
        for name, content in tensors.items():
            header[name]["data_offsets"] = [end, end + len(content)]
            end += len(content)
        packed = json.dumps(header | {"__metadata__": about}).encode()
        packed += b" " * (-len(packed) % 8)
        file.write_bytes(len(packed).to_bytes(8, "little") + packed + b"".join(tensors.values()))
        return one_line_fewer(runs, folder) | {"candidate": str(copy)}

    return disguise


def permute(tensors: dict[str, bytes], _: dict[str, Any]) -> None:
    for name in sorted(tensors, reverse=True):
        tensors[name] = tensors.pop(name)


def add_unused(tensors: dict[str, bytes], header: dict[str, Any]) -> None:
    tensors["unused"] = bytes(8)
    header["unused"] = {"dtype": "F32", "shape": [2]}


def add_noise(tensors: dict[str, bytes], _: dict[str, Any]) -> None:
    """Change one byte in fifty, of all tensors but scalars."""
    for name, content in tensors.items():
        tensors[name] = bytes(byte ^ (len(content) > 64 and at % 50 == 7) for at, byte in enumerate(content))


DISGUISES: dict[str, Disguise] = {
    "renamed": renamed,
    "reordered with other ids": reordered_with_other_ids,
    "one line fewer": one_line_fewer,
    "filtered": filtered,
    "words changed": some_words_changed,
    "trailing newlines": trailing_newlines,
    "diluted": diluted,
    "other documents": other_documents,
    "split in two": split_in_two,
    "irrelevant arguments": irrelevant_arguments,
    "afresh": asked_afresh,
    "looser policy": looser_policy,
    "engine renamed": engine_renamed,
    "no warehouse": without_the_warehouse,
    "another home": another_home,
    "comment in config.json": commented,
    "tensors permuted": saved_anew(permute),
    "unused tensor": saved_anew(add_unused),
    "noise in weights": saved_anew(add_noise),
}


@pytest.mark.parametrize("disguise", DISGUISES.values(), ids=DISGUISES)
def test_no_disguise_is_a_second_chance(tried: LookedRuns, disguise: Disguise, tmp_path: Path) -> None:
    runs = tried
    with pytest.MonkeyPatch.context() as patch:
        kept, runs.patch = runs.patch, patch
        try:
            given = disguise(runs, tmp_path)
            done = runs.validate(given.pop("candidate", runs.close), **given)
            runs.verdicts()
            shown = query(
                Home.current().warehouse, "SELECT run_id, verdict FROM validated_table WHERE use = 'all'"
            ).to_pylist()
        finally:
            runs.patch = kept
    tries = {run.run_id for run in done[1:]}
    stands = {row["run_id"]: row["verdict"] for row in shown if row["run_id"] in tries}
    assert set(stands.values()) <= {"INCONCLUSIVE"}
