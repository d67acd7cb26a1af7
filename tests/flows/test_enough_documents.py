"""Before a run: whether its documents are enough, by what earlier runs of the warehouse changed."""

from __future__ import annotations

from dataclasses import replace

from flows.parameters import ValidateParameters
from flows.planning.request import declare
from flows.planning.runs import plan_runs
from quantgate.model.home import Home
from tasks.progress import Reporter
from tests.support.stub_runs import ARITHMETIC, BF16, NVFP4, StubRuns, stub_runs  # noqa: F401 - a fixture
from tests.support.written_runs import BASELINE, write_bundle
from tests.support.written_runs import NVFP4 as MEASURED
from warehouse.load import load_bundles


def test_a_validation_says_what_earlier_runs_changed(stub_runs: StubRuns) -> None:  # noqa: F811 - the fixture
    home = Home.current()
    for spec in (BASELINE, replace(MEASURED, wrong={"sums": [1, 2, 3]})):
        write_bundle(home.path / "bundles", spec)
    load_bundles(home.warehouse, home.bundles)
    chosen = ValidateParameters(
        baseline=BF16, candidates=[NVFP4], tasks=ARITHMETIC, family="math", policy="demo", workload="demo"
    )
    plan_runs(chosen, declare(chosen, home), home, Reporter(stub_runs.lines.append))
    (line,) = (line for line in stub_runs.lines if "2 points" in line)
    assert line.endswith("earlier nvfp4 runs changed 3 % of the answers of this family: needs about 1,000"), (
        "as the policy asks"
    )
