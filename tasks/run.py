"""One run, from top to bottom: a checkpoint on a device, its quality tasks and its load levels, to a bundle."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quantgate.bundles import batches, seal
from quantgate.bundles.claims import counts_as_try, declaration_of
from quantgate.bundles.history import RunHistory
from quantgate.bundles.identity import comparison_id, run_fingerprint
from quantgate.bundles.manifest import Manifest
from quantgate.bundles.order import counts_as_fresh, declared_order
from quantgate.bundles.staging import RUN_ID_DIGITS, Staging, open_staging, staged
from quantgate.bundles.store import BundleStore
from quantgate.model.config.suites import SuiteTask
from quantgate.model.errors import QuantgateError
from quantgate.model.home import Home
from quantgate.model.records import RunPlan
from quantgate.model.words import counted
from tasks.device.idle import idle_devices
from tasks.device.lock import locked_devices, locked_run
from tasks.engine import server, telemetry
from tasks.engine.argument_files import ResolvedArguments
from tasks.engine.environment import EngineEnvironment
from tasks.engine.permission import CODE_ARGUMENT
from tasks.fidelity.measure import measure_fidelity, with_max_logprobs
from tasks.fidelity.text import Text, read_text
from tasks.progress import Reporter
from tasks.quality.evaluate import ChatTemplate, Evaluation, evaluate_task
from tasks.quality.requirements import request_needs
from tasks.resume import aa_repeat, interim_looks
from tasks.resume.continuation import begin
from tasks.resume.decision import Decision, Refuse, Reuse, unchanged
from tasks.throughput import bench
from tasks.time_left import AGAIN, FIDELITY_KEY, level_key, task_key


@dataclass(frozen=True)
class ActiveRun:
    """A run that is being measured: its plan, its parts so far, and what its steps need."""

    plan: RunPlan
    staging: Staging
    context: Context
    again: str = ""
    """What the keys of its parts begin with: those of the second answers are parts of their own."""

    @property
    def name(self) -> str:
        """Return the checkpoint's name, which begins every line about the run."""
        return self.plan.checkpoint.name

    @property
    def second_answers(self) -> ActiveRun:
        """Return the A/A repeat of a baseline's run: the first documents of each task, in parts of their own."""
        return replace(self, plan=aa_repeat.once_more(self.plan), staging=self.staging.controls, again=AGAIN)

    def finished(self, *keys: str) -> None:
        """Count no time for parts that need nothing more."""
        for key in keys:
            if self.context.report.time_left:
                self.context.report.time_left.done(f"{self.again}{key}")

    def report(self, text: str) -> None:
        """Report a line about the run."""
        self.context.report.line(f"{self.name}: {text}")


def evaluate(engine: server.RunningEngine, run: ActiveRun, task: SuiteTask) -> None:
    """Evaluate one task of the suite on the running engine, batch by batch where it has interim looks."""
    url, report = run.context.home.bundles, run.context.report
    while asked := interim_looks.next_documents(run.plan, task, run.staging, url, report):
        _ask(engine, run, task, asked)
    run.finished(task_key(task.task))
    judged = interim_looks.has_interim_looks(run.plan)
    result = batches.join(run.staging, task.task, judged=judged)
    if result.truncated_prompts:
        run.report(
            f"{task.task}: {result.truncated_prompts} of its prompts did not fit the engine's context and were cut on "
            "the left; raise max-model-len (--engine-arg max-model-len=…)"
        )


def _ask(engine: server.RunningEngine, run: ActiveRun, task: SuiteTask, asked: interim_looks.Asked) -> None:
    """Ask some of a task's documents; the batch is kept once it is whole."""
    context, staging = run.context, run.staging
    title = f"{run.name}: {task.task}"
    if interim_looks.has_interim_looks(run.plan):
        title += f": documents {asked.start + 1:,} to {asked.end:,}" if asked.end else ""
    with (
        context.report.step(
            title,
            unit="requests",
            parts=[f"{run.again}{task_key(task.task)}"],
            size=asked.end - asked.start if asked.end else None,
        ) as step,
        telemetry.watch(engine, task.task) as rows,
    ):
        evaluate_task(
            Evaluation(
                task=task,
                engine=engine.endpoint,
                start=asked.start,
                end=asked.end,
                seed=run.plan.policy.seed,
                tokenizer=run.plan.checkpoint.path,
                chat_template=context.chat_template,
                trust_remote_code=context.trust_remote_code,
                timeout_s=run.plan.suite.task_timeout_s,
            ),
            out_dir=batches.batch_dir(staging, task.task, asked.start),
            log=context.home.logs / staging.run_id / f"lm-eval-{task.task}.log",
            on_progress=step.update,
        )
    staging.add_telemetry(rows)
    _mark_scored(run)


def compare_tokens(engine: server.RunningEngine, run: ActiveRun, text: Text) -> None:
    """Ask the running engine for its distribution before each token of the fixed text."""
    title = f"{run.name}: fidelity"
    parts = [f"{run.again}{FIDELITY_KEY}"]
    with run.context.report.step(title, unit="passages", parts=parts) as step:
        result = measure_fidelity(
            text,
            engine.endpoint,
            vocab_size=run.plan.checkpoint.vocab_size,
            out_dir=run.staging.fidelity_dir,
            on_progress=step.update,
        )
    if result.skipped:
        run.context.report.line(f"{title} is not measured, and no verdict needs it: {result.skipped}")


def load(engine: server.RunningEngine, run: ActiveRun) -> None:
    """Measure the load levels on the running engine."""
    with telemetry.watch(engine, "load") as rows:
        bench.measure_load(
            engine,
            run.plan.workload,
            tokenizer=run.plan.checkpoint.path,
            out_dir=run.staging.load_dir,
            log=run.context.home.logs / run.staging.run_id / "bench.log",
            report=run.context.report,
            title=run.name,
            trust_remote_code=run.context.trust_remote_code,
        )
    run.staging.add_telemetry(rows)


@dataclass(frozen=True)
class Steps:
    """The steps on a running engine; a flow puts its own shells around them."""

    evaluate: Callable[[server.RunningEngine, ActiveRun, SuiteTask], None] = evaluate
    compare_tokens: Callable[[server.RunningEngine, ActiveRun, Text], None] = compare_tokens
    load: Callable[[server.RunningEngine, ActiveRun], None] = load


STEPS = Steps()


@dataclass(frozen=True)
class Context:
    """Everything that a run's steps need beside its plan and its parts."""

    home: Home
    environment: EngineEnvironment
    served: ResolvedArguments
    """The serving arguments, with the files that they name."""
    report: Reporter
    history: RunHistory
    """The runs of the bundles store as the decision knew them."""
    fresh_after: int | None = None
    """Parts of a run that was declared earlier are measured anew; None reuses whatever is there."""
    expected_start_s: float | None = None
    chat_template: ChatTemplate | None = None
    command: str = ""
    """The command that goes on with the run if it stops, for ``status``."""
    steps: Steps = STEPS

    @property
    def trust_remote_code(self) -> bool:
        """Return True if whoever reads the tokenizer may run its code, as the engine may."""
        return self.served.arguments.get(CODE_ARGUMENT) is True

    def counts(self, run: Manifest | Staging) -> bool:
        """Return True if a run is new enough to be reused."""
        return counts_as_fresh(run.declared_order, self.fresh_after)


def measure(plan: RunPlan, decision: Decision, context: Context) -> tuple[Manifest, bool]:
    """Return the run's bundle: reused, completed from finished parts, or measured.

    Args:
        plan: what is declared.
        decision: what earlier runs leave it to do.
        context: home, engine, progress.

    Returns:
        The bundle's manifest, and whether anything was measured now.

    Raises:
        QuantgateError: the run is refused, or the engine or a step failed; finished parts are kept.
    """
    if isinstance(decision, Refuse):
        raise decision.error
    home, name, fingerprint = context.home, plan.checkpoint.name, run_fingerprint(plan.inputs)
    store = BundleStore(home.bundles)
    with locked_run(home, fingerprint, name, context.report):
        decision = _finished_meanwhile(plan, store, context) or decision
        staging = staged(home, fingerprint)
        if isinstance(decision, Reuse):
            _reuse(plan, decision, staging, store, context.report)
            return decision.run, False
        if staging and not context.counts(staging):
            staging.discard()
        staging = open_staging(
            home,
            plan.inputs,
            _state(plan, context.command),
            lambda run_id: store.declare(run_id, context.history.latest_order),
        )
        run = ActiveRun(plan, staging, context)
        begin(plan, decision, staging, store, context.report)
        return _complete(run), True


def _finished_meanwhile(plan: RunPlan, store: BundleStore, context: Context) -> Reuse | None:
    """Reuse what another process has measured since the decision, while this one waited for it."""
    fingerprint = run_fingerprint(plan.inputs)
    earlier = {run.run_id for run in context.history.of(fingerprint)}
    runs = []
    for run_id in store.run_ids():
        if run_id.endswith(fingerprint[:RUN_ID_DIGITS]) and run_id not in earlier and store.is_bundle(run_id):
            with contextlib.suppress(QuantgateError):  # the loader reports it
                runs.append(store.read_manifest(run_id))
    runs = [run for run in runs if run.fingerprint == fingerprint and context.counts(run)]
    return unchanged(plan, max(runs, key=declared_order)) if runs else None


def _reuse(
    plan: RunPlan, decision: Reuse, staging: Staging | None, store: BundleStore, report: Reporter
) -> None:
    """Report what is reused, and remove what a kill between the bundle and the end of its staging left."""
    run, name = decision.run, plan.checkpoint.name
    if staging and (staging.run_id == run.run_id or not staging.starts()):
        staging.discard()
    for line in decision.lines:
        report.line(line)
    if run.fingerprint != run_fingerprint(plan.inputs):
        return
    text = read_text(plan.suite)
    if text and run.fidelity and run.fidelity.text_id != text.text_id:
        report.line(
            f"{name}: its fidelity was measured on {run.fidelity.text_id}, not on {text.text_id}, "
            "and the two are never compared; --fresh measures it anew"
        )
    if run.baseline and not store.is_bundle(run.baseline.run_id):
        report.line(
            f"{name}: run {run.baseline.run_id} of its baseline, which it is compared with, has no bundle at "
            f"{store.url} any more: a new warehouse can't judge it; --fresh measures both anew"
        )


def _state(plan: RunPlan, command: str) -> dict[str, Any]:
    """Describe what runs; of a candidate with interim looks also what it asks, so that a second try is noticed."""
    state: dict[str, Any] = {
        "checkpoint": plan.checkpoint.name,
        "precision": plan.checkpoint.precision,
        "model": plan.checkpoint.model,
        "gpu": plan.hardware.gpu,
        "suite": plan.suite.name,
        "tasks": [task.task for task in plan.suite.tasks],
        "documents": {task.task: task.documents for task in plan.suite.tasks},
        "documents_most": plan.suite.limit,
        "levels": len(plan.workload.concurrency),
        "policy": plan.policy_name,
        "command": command,
        "folder": str(Path.cwd()),
    }
    if not interim_looks.has_interim_looks(plan) or interim_looks.is_full(plan):
        return state
    return state | {
        "question": comparison_id(plan),
        "limit": plan.suite.limit,
        "workload": plan.workload.name,
    }


def _complete(run: ActiveRun) -> Manifest:
    """Measure what is missing and make the bundle."""
    plan, staging, context = run.plan, run.staging, run.context
    staging.clear_failure()
    try:
        _join_answered(run)
        tasks, text, load_missing = _missing(run)
        kept_tasks = [task_key(task.task) for task in plan.suite.tasks if task not in tasks]
        levels = bench.unfinished(plan.workload, staging.load_dir)
        left = {level["operating_point"] for level in levels}
        kept_levels = [
            level_key(c) for c in plan.workload.concurrency if bench.operating_point(c) not in left
        ]
        run.finished(*kept_tasks, *([] if text else [FIDELITY_KEY]), *kept_levels)
        if tasks or text or load_missing:
            if kept := len(plan.suite.tasks) - len(tasks):
                run.report(f"{counted(kept, 'finished task')} kept from before")
            _measure_parts(run)
        if aa_repeat.missing(plan, staging):
            _repeat_answers(run)
        rows = bench.rows(plan.workload, staging.load_dir)
        return seal.seal(staging, context.home.bundles, plan, rows)
    except QuantgateError as error:
        staging.fail(str(error), context.home.logs / staging.run_id)
        raise


def _join_answered(run: ActiveRun) -> None:
    """Finish the tasks whose batches are enough already: a kill came between, or an earlier run had answered them."""
    plan, staging = run.plan, run.staging
    for task in plan.suite.tasks:
        begun = batches.finished(staging, task.task) and not staging.task_result(task.task)
        if begun and interim_looks.next_documents(plan, task, staging, run.context.home.bundles) is None:
            batches.join(staging, task.task, judged=interim_looks.has_interim_looks(plan))


def _missing(run: ActiveRun) -> tuple[list[SuiteTask], Text | None, bool]:
    """Return the unfinished tasks, the fidelity text where it is not measured, and whether a load level is missing."""
    suite, staging = run.plan.suite, run.staging
    tasks = [task for task in suite.tasks if staging.task_result(task.task) is None]
    text, result = read_text(suite), staging.fidelity_result()
    text_missing = text if text and (result is None or result.text_id != text.text_id) else None
    return tasks, text_missing, bool(bench.unfinished(run.plan.workload, staging.load_dir))


@contextmanager
def _serving(run: ActiveRun) -> Iterator[server.RunningEngine]:
    """Serve the run's checkpoint on locked, idle devices."""
    plan, context = run.plan, run.context
    log = context.home.logs / run.staging.run_id / f"engine-{time.strftime('%H%M%S')}.log"
    with (
        locked_devices(plan.hardware, context.report),
        idle_devices(plan.hardware, context.report),
        server.serve(
            plan.checkpoint,
            server.allowing(context.environment, request_needs(plan.suite).stop_strings),
            with_max_logprobs(plan.checkpoint.vocab_size, context.served.arguments),
            adapter=context.served.adapter,
            uuids=plan.hardware.uuids,
            log=log,
            report=context.report,
            expected_s=context.expected_start_s,
        ) as engine,
    ):
        yield engine


def _measure_parts(run: ActiveRun) -> None:
    """Start the engine and measure what is missing; each part is kept as it ends."""
    staging, steps = run.staging, run.context.steps
    with _serving(run) as engine:
        continued = batches.continues(staging)
        staging.add_start(engine.start)
        if continued and not batches.continues(staging):
            run.report(
                f"its engine chose other kernels than in run {continued}, which is not continued: this is a run of "
                "its own"
            )
        tasks, text, load_missing = _missing(run)
        if tasks:
            _declare_question(engine, run)
        for task in tasks:
            steps.evaluate(engine, run, task)
        if text:
            steps.compare_tokens(engine, run, text)
        if load_missing:
            steps.load(engine, run)
        _answer_again(engine, run)


def _declare_question(engine: server.RunningEngine, run: ActiveRun) -> None:
    """Record in the bundles store what a candidate is about to be asked: a run that is killed counts as a try too."""
    plan, staging = run.plan, run.staging
    if plan.baseline is not None:
        question = declaration_of(
            plan,
            staging.run_id,
            staging.declared_order,
            staging.started_at,
            engine.start,
            batches.continues(staging),
        )
        documents = {content.task: content.document_hashes for content in plan.contents}
        BundleStore(run.context.home.bundles).declare_question(question, documents)


def _mark_scored(run: ActiveRun) -> None:
    """Record in the bundles store, once, that a candidate has scored enough answers to decide something."""
    plan, staging = run.plan, run.staging
    marked = staging.path / "scored"
    if plan.baseline is None or marked.exists():
        return
    documents = [
        (task.family, sum(batch.documents for batch in batches.finished(staging, task.task)))
        for task in plan.suite.tasks
    ]
    if counts_as_try(documents, plan.policy):
        BundleStore(run.context.home.bundles).mark_scored(staging.run_id, staging.declared_order)
        marked.touch()


def _answer_again(engine: server.RunningEngine, run: ActiveRun) -> None:
    """Repeat (A/A) the tasks that another start of the engine answered."""
    plan, staging, steps = run.plan, run.staging, run.context.steps
    tasks = [
        task
        for task in aa_repeat.missing(plan, staging)
        if aa_repeat.over_a_restart(plan, staging, task, engine.start)
    ]
    if tasks and aa_repeat.text_missing(staging, engine.start):
        steps.compare_tokens(engine, run.second_answers, read_text(plan.suite))
    for task in tasks:
        steps.evaluate(engine, run.second_answers, task)


def _repeat_answers(run: ActiveRun) -> None:
    """Start the engine once more for the A/A repeat; finished parts never suffer from it."""
    run.report(
        f"its engine is started once more and answers the first {run.plan.policy.aa_documents} documents of each "
        "task again (A/A): what changes is noise"
    )
    with _serving(run) as engine:
        if not run.staging.joins(engine.start):
            run.report(
                "the engine chose other kernels at this start than before; there is no A/A, since its answers would "
                "not join the others"
            )
            return
        run.staging.add_start(engine.start)
        _answer_again(engine, run)
