"""The steps of a run as Prefect shows them: each a line around a function of ``tasks.run``."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from quantgate.bundles.manifest import Manifest
from quantgate.model.config.suites import SuiteTask
from quantgate.model.records import RunPlan
from tasks import run
from tasks.engine.server import RunningEngine
from tasks.fidelity.text import Text
from tasks.resume.decision import Decision


@task(name="quality", task_run_name="quality {suite_task.task}", cache_policy=NO_CACHE)
def evaluate(engine: RunningEngine, active: run.ActiveRun, suite_task: SuiteTask) -> None:
    """Evaluate one task of the suite on the running engine."""
    run.evaluate(engine, active, suite_task)


@task(name="fidelity", task_run_name="fidelity {active.name}", cache_policy=NO_CACHE)
def compare_tokens(engine: RunningEngine, active: run.ActiveRun, text: Text) -> None:
    """Ask the running engine for its distribution before each token of the fixed text."""
    run.compare_tokens(engine, active, text)


@task(name="throughput", task_run_name="throughput {active.name}", cache_policy=NO_CACHE)
def load(engine: RunningEngine, active: run.ActiveRun) -> None:
    """Measure the load levels on the running engine."""
    run.load(engine, active)


@task(name="measure", task_run_name="measure {plan.checkpoint.name}", cache_policy=NO_CACHE)
def measure(plan: RunPlan, decision: Decision, context: run.Context) -> tuple[Manifest, bool]:
    """Return the run's bundle, and whether anything was measured now."""
    return run.measure(plan, decision, context)


STEPS = run.Steps(evaluate, compare_tokens, load)
