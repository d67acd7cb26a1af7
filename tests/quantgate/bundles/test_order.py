"""Which run came first, on hosts whose clocks are wrong; and bundles that another process wrote meanwhile."""

from __future__ import annotations

import random
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantgate.bundles import staging as staging_module
from quantgate.bundles.history import RunHistory
from quantgate.bundles.identity import run_fingerprint
from quantgate.bundles.order import declared_order
from quantgate.bundles.seal import seal
from quantgate.bundles.staging import open_staging, staged
from quantgate.bundles.store import BundleStore
from quantgate.model.home import ROOT, Home
from tests.quantgate.bundles.test_seal import finished, plan
from tests.support.cached_listings import cached_url
from tests.support.declared import declaration
from tests.support.demo_bundles import manifests
from tests.support.loaded_homes import Place
from tests.support.written_runs import BASELINE, START, Spec
from warehouse.load import load_bundles
from warehouse.query import query

HOSTS = {"fast": timedelta(hours=1), "right": timedelta(0), "slow": timedelta(hours=-1)}
"""Hosts by what their clocks are off."""


class Clock(datetime):
    """A host's clock."""

    off = timedelta(0)

    @classmethod
    def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
        return datetime.now(tz) + cls.off


def test_three_hosts_with_skewed_clocks_declare_in_the_order_that_they_can_see(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By their clocks the order would be slow, right, fast; each run is sealed before the next is declared."""
    monkeypatch.setattr(staging_module, "datetime", Clock)
    home, store = Home.current(), BundleStore(Home.current().bundles)
    sealed = []
    for off in HOSTS.values():
        monkeypatch.setattr(Clock, "off", off)
        open_staging(home, plan().inputs, {}, store.declare)
        sealed.append(seal(finished(home), home.bundles, plan()))
    assert [run.declared_order for run in sealed] == [1, 2, 3]
    assert sealed[2].started_at < sealed[1].started_at < sealed[0].started_at
    history = RunHistory.read(store)
    assert list(history) == sealed
    assert history.of(run_fingerprint(plan().inputs))[-1] == sealed[2]
    assert history.latest_order == 3


def test_the_first_declared_verdict_stands_whatever_the_clocks_say(place: Place) -> None:
    """The right host's run is VALIDATED first; the slow one's repeat, an hour "earlier", takes nothing from it."""
    wrong = {"sums": range(1, 60, 2)}
    first = Spec("run-b", "fp8", BASELINE, started_at=START, declared_order=2)
    slow = Spec("run-a", "fp8", BASELINE, wrong, started_at=START - timedelta(hours=1), declared_order=3)
    fast = Spec("run-c", "fp8", BASELINE, wrong, started_at=START + timedelta(hours=1), declared_order=4)
    place.write(BASELINE, first, slow, fast)
    load_bundles(place.warehouse, place.bundles)
    rows = query(place.warehouse, "SELECT run_id, decided_by FROM verdicts WHERE use = 'all'").to_pylist()
    decided = {row["run_id"]: row["decided_by"] for row in rows}
    assert {decided[run] for run in ("run-a", "run-b", "run-c")} == {"run-b"}
    shown = query(place.warehouse, "SELECT run_id FROM runs WHERE latest AND NOT is_baseline").to_pylist()
    assert shown == [{"run_id": "run-c"}], "validated_table shows the last that was declared"


def test_declarations_of_one_number_are_in_the_order_of_the_rule(tmp_path: Path) -> None:
    """Two hosts that did not see each other share a number; their run ids sort the other way."""
    store = BundleStore(tmp_path)
    for run_id, declared_at in (("run-a", START + timedelta(hours=1)), ("run-b", START)):
        store.declare_question(declaration(run_id, declared_order=1, declared_at=declared_at))
    questions = [declared.question for declared in store.declarations()]
    assert [question.run_id for question in questions] == ["run-b", "run-a"]
    assert questions == sorted(questions, key=declared_order)


@pytest.mark.parametrize(
    ("first", "second", "decided_by"),
    [({}, range(1, 60, 2), "first"), (range(1, 60, 2), {}, "first"), (range(1, 16, 2), {}, "second")],
    ids=["validated, rejected", "rejected, validated", "inconclusive, validated"],
)
def test_of_two_hosts_that_continue_one_run_the_first_decision_stands(
    place: Place, first: Any, second: Any, decided_by: str
) -> None:
    """As tasks/resume/chains.py has it."""
    root = Spec("root", "fp8", BASELINE, {"sums": range(1, 16, 2)}, declared_order=1)
    runs = [
        Spec(run_id, "fp8", BASELINE, {"sums": wrong}, continues="root", declared_order=order)
        for run_id, wrong, order in (("second", second, 3), ("first", first, 2))
    ]
    place.write(BASELINE, root, *runs)
    load_bundles(place.warehouse, place.bundles)
    rows = query(
        place.warehouse,
        "SELECT DISTINCT decided_by FROM verdicts WHERE use = 'math' AND run_id <> 'run-bf16'",
    ).to_pylist()
    assert rows == [{"decided_by": decided_by}]


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(-3, 3), st.text("abc", min_size=1, max_size=3)),
        unique_by=lambda run: run[2],
        min_size=1,
        max_size=8,
    )
)
def test_python_and_sql_sort_alike(given_runs: list[tuple[int, int, str]]) -> None:
    import duckdb

    (some, *_) = manifests()
    runs = [
        some.model_copy(
            update={"declared_order": order, "started_at": START + timedelta(hours=hours), "run_id": run_id}
        )
        for order, hours, run_id in given_runs
    ]
    random.Random(0).shuffle(runs)
    connection = duckdb.connect()
    connection.execute((ROOT / "warehouse" / "views" / "005_order.sql").read_text())
    connection.execute("CREATE TABLE r (declared_order BIGINT, started_at TIMESTAMPTZ, run_id VARCHAR)")
    connection.executemany(
        "INSERT INTO r VALUES (?, ?, ?)", [[run.declared_order, run.started_at, run.run_id] for run in runs]
    )
    rows = connection.execute(
        "SELECT run_id FROM r ORDER BY run_order(declared_order, started_at, run_id)"
    ).fetchall()
    assert [row[0] for row in rows] == [run.run_id for run in sorted(runs, key=declared_order)]


def test_a_run_that_another_process_declared_is_seen_before_it_has_a_bundle() -> None:
    store = BundleStore(Home.current().bundles)
    assert store.declare("first") == 1
    assert BundleStore(Home.current().bundles).declare("second") == 2
    assert store.latest_order() == 2
    assert store.run_ids() == [], "a declaration is no bundle"
    assert store.declare("third", after=7) == 8, "bundles may have come from another store"


def test_a_run_keeps_its_number_over_a_kill() -> None:
    home, store = Home.current(), BundleStore(Home.current().bundles)
    first = open_staging(home, plan().inputs, {}, store.declare)
    store.declare("another")
    again = open_staging(home, plan().inputs, {}, store.declare)
    assert (again, staged(home, run_fingerprint(plan().inputs))) == (first, first)
    first.discard()
    assert open_staging(home, plan().inputs, {}, store.declare).declared_order == 3


WRITES = """
import sys
from quantgate.bundles.store import BundleStore
from tests.support.written_runs import BASELINE, Spec, write_bundle
from pathlib import Path
write_bundle(Path(sys.argv[1]), Spec("by-another-process"))
BundleStore(sys.argv[1]).declare("declared-by-another")
"""


def test_what_another_process_writes_is_seen_through_cached_listings(tmp_path: Path) -> None:
    """The matrix lists the bundles before and after its runs; hosts on S3 wrote them meanwhile."""
    bundles = tmp_path / "bundles"
    store = BundleStore(cached_url(bundles))
    assert list(RunHistory.read(store)) == []
    subprocess.run([sys.executable, "-c", WRITES, str(bundles)], cwd=ROOT, check=True)
    history = RunHistory.read(store)
    assert [run.run_id for run in history] == ["by-another-process"]
    assert history.latest_order == 1
