"""One run: a checkpoint on a device, with an engine, its quality tasks and its load levels, to a bundle."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from quantgate.bundles import batches, seal
from quantgate.bundles.history import RunHistory
from quantgate.bundles.manifest import Manifest
from quantgate.bundles.staging import Staging, open_staging
from quantgate.bundles.store import BundleStore
from quantgate.model.config.suites import SuiteTask
from quantgate.model.errors import QuantgateError
from quantgate.model.home import Home
from quantgate.model.records import RunPlan
from tasks.device.idle import idle
from tasks.device.lock import held, run_held
from tasks.engine import server, telemetry
from tasks.engine.environment import EngineEnvironment
from tasks.engine.process import last_words
from tasks.fidelity import measure as fidelity
from tasks.fidelity.text import Text, read_text
from tasks.progress import Reporter
from tasks.quality import evaluate as quality
from tasks.resume import aa_controls, continuation, interim_looks
from tasks.resume.baseline_reuse import take_over
from tasks.resume.preflight import is_passed_over
from tasks.throughput import bench


@dataclass(frozen=True)
class Context:
    """What every step of a run needs beside its plan."""

    home: Home
    environment: EngineEnvironment
    overrides: dict[str, Any]
    report: Reporter
    expected_start_s: float | None = None
    adapter: str | None = None
    chat_template: bool | str = False

    @property
    def trust_remote_code(self) -> bool:
        """Whoever reads the tokenizer may run its code where the engine may."""
        return self.overrides.get("trust-remote-code") is True


@task(name="quality", task_run_name="quality {suite_task.task}", cache_policy=NO_CACHE)
def evaluate(
    running: server.RunningEngine, plan: RunPlan, suite_task: SuiteTask, staging: Staging, context: Context
) -> None:
    """Evaluate one task of the suite on the running engine, batch by batch where it is judged on its way."""
    place = context.home.bundles
    while asked := interim_looks.next_documents(plan, suite_task, staging, place, context.report):
        _ask(running, plan, suite_task, staging, context, asked)
    result = batches.join(staging, suite_task.task, judged=interim_looks.is_judged(plan))
    if result.truncated_prompts:
        context.report.line(
            f"{plan.checkpoint.name}: {suite_task.task}: {result.truncated_prompts} of its prompts did not fit the "
            "engine's context and were cut on the left; raise max-model-len (--engine-arg max-model-len=…)"
        )


def _ask(
    running: server.RunningEngine,
    plan: RunPlan,
    suite_task: SuiteTask,
    staging: Staging,
    context: Context,
    asked: interim_looks.Asked,
) -> None:
    """Ask some of a task's documents; the batch is kept once it is whole."""
    assert plan.suite is not None
    title = f"{plan.checkpoint.name}: {suite_task.task}"
    if interim_looks.is_judged(plan):
        title += f": documents {asked.start + 1:,} to {asked.end:,}" if asked.end else ""
    with (
        context.report.step(title, unit="requests") as step,
        telemetry.watch(running, suite_task.task) as rows,
    ):
        quality.evaluate(
            suite_task,
            start=asked.start,
            end=asked.end,
            base_url=running.base_url,
            api_key=running.api_key,
            served_model=running.served_model,
            checkpoint_path=plan.checkpoint.path,
            engine_start_id=running.start.engine_start_id,
            out_dir=batches.batch_dir(staging, suite_task.task, asked.start),
            log=context.home.logs / staging.run_id / f"lm-eval-{suite_task.task}.log",
            timeout_s=plan.suite.task_timeout_s,
            on_progress=step.update,
            check_alive=running.check_alive,
            engine_words=lambda: last_words(running.process.output()),
            chat_template=context.chat_template,
            trust_remote_code=context.trust_remote_code,
        )
    staging.add_telemetry(rows)


@task(name="fidelity", task_run_name="fidelity {plan.checkpoint.name}", cache_policy=NO_CACHE)
def compare_tokens(
    running: server.RunningEngine, plan: RunPlan, text: Text, staging: Staging, context: Context
) -> None:
    """Ask the running engine what it thinks of each token of the fixed text."""
    title = f"{plan.checkpoint.name}: fidelity"
    with context.report.step(title, unit="passages") as step:
        told = fidelity.measure(
            text,
            fidelity.Engine(
                running.base_url,
                running.api_key,
                running.served_model,
                running.start.engine_start_id,
                running.check_alive,
            ),
            vocab_size=plan.checkpoint.vocab_size,
            out_dir=staging.fidelity_dir,
            on_progress=step.update,
        )
    if told.skipped:
        context.report.line(f"{title} is not measured, and no verdict needs it: {told.skipped}")


@task(name="throughput", task_run_name="throughput {plan.checkpoint.name}", cache_policy=NO_CACHE)
def load(running: server.RunningEngine, plan: RunPlan, staging: Staging, context: Context) -> None:
    """Measure the load levels on the running engine."""
    assert plan.workload is not None
    with telemetry.watch(running, "load") as rows:
        bench.measure(
            running,
            plan.workload,
            tokenizer=plan.checkpoint.path,
            out_dir=staging.load_dir,
            log=context.home.logs / staging.run_id / "bench.log",
            report=context.report,
            title=plan.checkpoint.name,
            trust_remote_code=context.trust_remote_code,
        )
    staging.add_telemetry(rows)


def _settle(plan: RunPlan, staging: Staging, context: Context) -> None:
    """Finish the tasks whose batches are enough already: a kill came between, or an earlier run had answered them."""
    for suite_task in plan.suite.tasks if plan.suite else ():
        begun = batches.finished(staging, suite_task.task) and not staging.task_result(suite_task.task)
        if begun and interim_looks.next_documents(plan, suite_task, staging, context.home.bundles) is None:
            batches.join(staging, suite_task.task, judged=interim_looks.is_judged(plan))


def _missing(plan: RunPlan, staging: Staging) -> tuple[list[SuiteTask], Text | None, bool]:
    """Quality tasks that are not finished, the fidelity text where it is not, and whether a load level is not."""
    tasks = [t for t in plan.suite.tasks if staging.task_result(t.task) is None] if plan.suite else []
    text = read_text(plan.suite) if plan.suite else None
    told = staging.fidelity_result()
    text_missing = text if text and (told is None or told.text_id != text.text_id) else None
    return tasks, text_missing, bool(plan.workload and bench.unfinished(plan.workload, staging.load_dir))


@contextmanager
def _serving(plan: RunPlan, staging: Staging, context: Context) -> Iterator[server.RunningEngine]:
    """The engine on the plan's checkpoint, with the devices held."""
    log = context.home.logs / staging.run_id / f"engine-{time.strftime('%H%M%S')}.log"
    with (
        held(plan.hardware, context.report),
        idle(plan.hardware, context.report),
        server.serve(
            plan.checkpoint,
            context.environment,
            fidelity.serving_arguments(plan.checkpoint.vocab_size, context.overrides),
            adapter=context.adapter,
            uuids=plan.hardware.uuids,
            log=log,
            report=context.report,
            expected_s=context.expected_start_s,
        ) as running,
    ):
        yield running


def _measure_parts(plan: RunPlan, staging: Staging, context: Context) -> None:
    """Start the engine and measure what is missing; each part is kept as it ends."""
    with _serving(plan, staging, context) as running:
        continued = batches.continues(staging)
        staging.add_start(running.start)
        if continued and not batches.continues(staging):
            context.report.line(
                f"{plan.checkpoint.name}: its engine chose other kernels than in run {continued}, which is not "
                "continued: this is a run of its own"
            )
        tasks, text, load_missing = _missing(plan, staging)
        for suite_task in tasks:
            evaluate(running, plan, suite_task, staging, context)
        if text:
            compare_tokens(running, plan, text, staging, context)
        if load_missing:
            load(running, plan, staging, context)
        _answer_again(running, plan, staging, context)


def _answer_again(running: server.RunningEngine, plan: RunPlan, staging: Staging, context: Context) -> None:
    """A/A of the tasks that another start of the engine answered."""
    tasks = [
        suite_task
        for suite_task in aa_controls.missing(plan, staging)
        if aa_controls.over_a_restart(plan, staging, suite_task, running.start)
    ]
    if tasks and plan.suite and aa_controls.text_missing(staging, running.start):
        compare_tokens(running, aa_controls.once_more(plan), read_text(plan.suite), staging.controls, context)
    for suite_task in tasks:
        evaluate(running, aa_controls.once_more(plan), suite_task, staging.controls, context)


def _measure_controls(plan: RunPlan, staging: Staging, context: Context) -> None:
    """Start the engine once more for the A/A; parts that are there never suffer from it."""
    name = plan.checkpoint.name
    context.report.line(
        f"{name}: its engine is started once more and answers the first {plan.policy.aa_documents} documents of each "
        "task again (A/A): what changes is noise"
    )
    with _serving(plan, staging, context) as running:
        if not staging.joins(running.start):
            context.report.line(
                f"{name}: the engine chose other kernels at this start than before; there is no A/A, since its "
                "answers would not join the others"
            )
            return
        staging.add_start(running.start)
        _answer_again(running, plan, staging, context)


@task(name="measure", task_run_name="measure {plan.checkpoint.name}", cache_policy=NO_CACHE)
def measure(
    plan: RunPlan,
    context: Context,
    *,
    since: datetime | None = None,
    without: frozenset[str] = frozenset(),
) -> tuple[Manifest, bool]:
    """The run's bundle: found, completed from finished parts, or measured.

    Args:
        plan: what is declared.
        context: home, engine, progress.
        since: what was begun before is measured anew; None takes whatever is there.
        without: bundles of a baseline that don't count (``tasks.resume.preflight``).

    Returns:
        The bundle's manifest, and whether anything was measured now.

    Raises:
        QuantgateError: the engine or a step failed; finished parts are kept.
    """
    name, fingerprint = plan.checkpoint.name, plan.inputs.fingerprint()
    with run_held(context.home, fingerprint, name, context.report):
        place = context.home.bundles
        runs = [
            run for run in RunHistory.read(BundleStore(place)).of(fingerprint) if run.run_id not in without
        ]
        known = runs[-1] if runs else None
        if known and since is None and is_passed_over(plan, known, place):
            known = None
        staging = open_staging(context.home, plan.inputs, _what(plan))
        if known and (since is None or known.started_at >= since):
            _drop_leftover(staging, known)
            context.report.line(
                f"{name}: measured on {known.measured_at:%Y-%m-%d %H:%M} UTC and unchanged, nothing to do"
            )
            _tell_other_text(plan, known, context)
            _tell_lost_baseline(plan, known, context)
            return known, False
        if since and staging.started_at < since:
            staging.discard()
            staging = open_staging(context.home, plan.inputs, _what(plan))
        answered = None if since else continuation.take_up(plan, staging, place, context.report, without)
        if answered:
            _drop_leftover(staging, answered)
            return answered, False
        if since is None:
            take_over(plan, staging, place, context.report, without)
        return _complete(plan, staging, context), True


def _what(plan: RunPlan) -> dict[str, Any]:
    """What runs; of a candidate that is judged on its way also what it asks, so that a second try can tell."""
    what = {"checkpoint": plan.checkpoint.name, "precision": plan.checkpoint.precision}
    if plan.suite is None or not interim_looks.is_judged(plan) or interim_looks.is_full(plan):
        return what
    workload = plan.workload.name if plan.workload else None
    return what | {
        "question": interim_looks.question_id(plan),
        "limit": plan.suite.limit,
        "workload": workload,
    }


def _tell_other_text(plan: RunPlan, known: Manifest, context: Context) -> None:
    """A text is no part of a run's fingerprint: whether to measure anew for it is the user's choice."""
    text = read_text(plan.suite) if plan.suite else None
    if text and known.fidelity and known.fidelity.text_id != text.text_id:
        context.report.line(
            f"{plan.checkpoint.name}: its fidelity was measured on {known.fidelity.text_id}, not on {text.text_id}, "
            "and the two are never compared; --fresh measures it anew"
        )


def _tell_lost_baseline(plan: RunPlan, known: Manifest, context: Context) -> None:
    """A candidate's verdict is drawn from two bundles, one of which somebody may have removed."""
    place, against = context.home.bundles, known.baseline
    if against and not BundleStore(place).is_bundle(against.run_id):
        context.report.line(
            f"{plan.checkpoint.name}: run {against.run_id} of its baseline, which it is held against, has no bundle at "
            f"{place} any more: a new warehouse can't judge it; --fresh measures both anew"
        )


def _drop_leftover(staging: Staging, known: Manifest) -> None:
    """Staging that was just opened, or whose bundle is there; that of a new attempt stays for who resumes it."""
    if staging.run_id == known.run_id or not staging.starts():
        staging.discard()


def _complete(plan: RunPlan, staging: Staging, context: Context) -> Manifest:
    """Measure what is missing and make the bundle."""
    staging.clear_failure()
    try:
        _settle(plan, staging, context)
        tasks, text, load_missing = _missing(plan, staging)
        if tasks or text or load_missing:
            kept = (len(plan.suite.tasks) if plan.suite else 0) - len(tasks)
            if kept:
                context.report.line(f"{plan.checkpoint.name}: {kept} finished tasks are kept from before")
            _measure_parts(plan, staging, context)
        if aa_controls.missing(plan, staging):
            _measure_controls(plan, staging, context)
        rows = bench.rows(plan.workload, staging.load_dir) if plan.workload else seal.NO_LOAD
        return seal.seal(staging, context.home.bundles, plan, rows, continues=batches.continues(staging))
    except QuantgateError as error:
        staging.fail(str(error), context.home.logs / staging.run_id)
        raise
