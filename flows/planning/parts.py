"""List the parts of a validation's runs, with what each is assumed to take before anything like it was measured.

Assumptions count only in proportion to one another (`tasks.time_left`). They are rough figures of a small model on a
CPU: a prompt, a token of an answer at many requests at once, and a step of decoding at each load level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flows.planning.answers import TaskSize, earlier_answers, looks_of, task_size
from flows.planning.runs import PlannedRun, PlannedRuns
from quantgate.bundles.manifest import Manifest
from quantgate.bundles.store import BundleStore
from quantgate.model.config.architectures import FormatFile
from quantgate.model.config.suites import SuiteTask
from quantgate.model.config.workloads import Workload
from quantgate.model.home import ROOT
from quantgate.model.records import RunPlan
from quantgate.model.yaml_file import load_yaml
from tasks.fidelity.text import read_text
from tasks.quality.requirements import document_requests
from tasks.resume import interim_looks
from tasks.resume.decision import Refuse, Reuse
from tasks.time_left import AGAIN, FIDELITY_KEY, START_KEY, Part, TimeLeft, level_key, task_key

START_S, TASK_START_S, FIDELITY_S = 20.0, 3.0, 4.0
DEQUANTIZED_BITS = 8
PROMPT_S, TOKEN_S, STEP_S, STEP_REQUEST_S = 0.0025, 0.0005, 0.004, 0.0004
"""Seconds of a prompt, of an answer's token, and of a decoding step: in all, and for each request in it."""


def time_left_of(planned: PlannedRuns, store: BundleStore) -> TimeLeft:
    """Return what a validation has to do, with all of it left.

    Args:
        planned: its runs.
        store: whose bundles say how long the tasks' answers are.
    """
    left = TimeLeft()
    todo = [run for run in planned.runs if not isinstance(run.decision, Reuse | Refuse)]
    if not todo:
        return left
    request, sizes = planned.request, {}
    for task in request.suite.tasks:
        documents = request.documents[task.task] or request.policy.families[task.family].min_documents
        samples = earlier_answers(task.task, planned.history.runs, store)
        sizes[task.task] = task_size(task.task, documents, document_requests(task), samples)
    for run in todo:
        left.plan(run.plan.checkpoint.name, parts_of(run, sizes), slowdown_of(run.plan, planned.history.runs))
    return left


def slowdown_of(plan: RunPlan, earlier: Sequence[Manifest]) -> float:
    """Return how many times longer a run's work is expected to take than that of its baseline.

    As earlier runs of the same weight format took with this engine on such a device; else assumed. On a CPU no kernel
    computes in a quantized precision: weights are dequantized before each product, which takes as long as the product
    at 8 bits, and longer with fewer.

    Args:
        plan: the run.
        earlier: runs of the bundles store, oldest first.
    """
    if plan.checkpoint.weight_format == "unquantized":
        return 1.0
    by_id = {run.run_id: run for run in earlier}
    taken = [
        _seconds(run, by_id[run.baseline.run_id])
        for run in earlier
        if run.baseline and run.baseline.run_id in by_id and _measured_with(run) == _measured_with(plan)
    ]
    own_s, baseline_s = (sum(seconds) for seconds in zip(*taken, strict=True)) if taken else (0.0, 0.0)
    if baseline_s:
        return own_s / baseline_s
    if plan.hardware.uuids:
        return 1.0
    stored = load_yaml(ROOT / "configs" / "formats.yaml", FormatFile).weights.get(plan.checkpoint.precision)
    return 1 + DEQUANTIZED_BITS / stored.bits if stored else 1.0


def _measured_with(run: Manifest | RunPlan) -> tuple[object, ...]:
    return run.checkpoint.weight_format, run.hardware, run.inputs.engine, run.inputs.engine_version


def _seconds(run: Manifest, baseline: Manifest) -> tuple[float, float]:
    """Return the seconds of the tasks that a run shares with its baseline, and the baseline's for as many documents."""
    each_s = {task.task: task.duration_s / task.documents for task in baseline.tasks if task.documents}
    shared = [task for task in run.tasks if task.task in each_s]
    return sum(task.duration_s for task in shared), sum(each_s[task.task] * task.documents for task in shared)


def parts_of(run: PlannedRun, sizes: Mapping[str, TaskSize]) -> list[Part]:
    """Return the parts of a run that measures everything, in order.

    Args:
        run: the run.
        sizes: of its tasks.
    """
    plan = run.plan
    may_stop = interim_looks.has_interim_looks(plan) and not interim_looks.is_full(plan)
    tasks = [
        _task(
            sizes[task.task], sizes[task.task].documents, looks=_looks(task, sizes, plan) if may_stop else 0
        )
        for task in plan.suite.tasks
    ]
    text = [Part(FIDELITY_KEY, FIDELITY_KEY, 1, 0, FIDELITY_S)] if read_text(plan.suite) else []
    start = Part(START_KEY, START_KEY, 1, START_S, 0)
    parts = [start, *tasks, *text, *_levels(plan.workload)]
    repeated = plan.policy.aa_documents
    if plan.baseline is None and repeated:
        again = [
            _task(sizes[task.task], min(repeated, sizes[task.task].documents), AGAIN)
            for task in plan.suite.tasks
            if sizes[task.task].documents >= plan.policy.families[task.family].min_documents
        ]
        parts += [start, *(Part(f"{AGAIN}{p.key}", p.kind, p.size, p.boot_s, p.work_s) for p in text), *again]
    return parts


def _looks(task: SuiteTask, sizes: Mapping[str, TaskSize], plan: RunPlan) -> int:
    """Return how often a candidate is judged on a task at most: its answers are asked for anew each time."""
    return len(looks_of(task, sizes[task.task].documents, plan.policy)) or 1


def _task(size: TaskSize, documents: int, prefix: str = "", *, looks: int = 0) -> Part:
    asked, tokens = size.requests, (size.low_tokens + size.high_tokens) / 2
    each_s = asked.scored * (PROMPT_S + TOKEN_S) + asked.generated * (PROMPT_S + tokens * TOKEN_S)
    key = task_key(size.task)
    return Part(
        f"{prefix}{key}",
        key,
        documents,
        TASK_START_S,
        documents * each_s,
        may_stop=bool(looks),
        begins=max(1, looks),
    )


def _levels(workload: Workload) -> list[Part]:
    parts = []
    for concurrency in workload.concurrency:
        requests = concurrency + max(workload.min_prompts, workload.prompts_per_concurrency * concurrency)
        steps = requests * workload.osl_tokens / concurrency
        work_s = requests * PROMPT_S + steps * (STEP_S + STEP_REQUEST_S * concurrency)
        key = level_key(concurrency)
        parts.append(Part(key, key, 1, 0, work_s))
    return parts
