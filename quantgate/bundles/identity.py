"""Every answer to "is this the same run?", from one table of which input counts for which purpose.

``COUNTS`` is the table. Whatever compares two runs, or a plan with a run, asks a function of this module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any

from quantgate.bundles.manifest import EngineStart, Manifest, TaskResult
from quantgate.model.config.answer_settings import answer_settings
from quantgate.model.config.policy import Policy
from quantgate.model.config.suites import SuiteTask
from quantgate.model.enums import Validity, Weights
from quantgate.model.records import RunInputs, RunPlan
from quantgate.model.served import served_kv_cache_dtype
from quantgate.model.yaml_file import fingerprint_of

Run = Manifest | RunPlan
"""A measured run, or one that is planned."""


class Purpose(StrEnum):
    """A purpose for which two runs are compared."""

    FINGERPRINT = "fingerprint"
    """Nothing changed since it was measured: the run is not measured again."""
    CONTINUATION = "continuation"
    """One run may go on from the other's answers."""
    SETTING = "setting"
    """A baseline may reuse the other's answers, whatever tasks each was asked."""
    COMPARISON = "comparison"
    """Both answer one question, so that one verdict stands for both; kernels are added once they are known."""
    SERVING = "serving"
    """Both serve one checkpoint alike, so that fidelity and load are the same, whatever else is asked or judged."""


# Of a suite: how much of it is asked, and which tasks and documents. Of a task: what a verdict alone depends on.
_HOW_MUCH = frozenset({"limit", "limit_of", "full"})
_WHICH = frozenset({"tasks", "fidelity"}) | _HOW_MUCH
_JUDGED_BY = frozenset({"family"})


def asked_of(suite: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return what a suite asks, however many of its documents and in whatever order its tasks are listed."""
    if suite is None:
        return None
    asked = {key: value for key, value in suite.items() if key not in _HOW_MUCH}
    return asked | {"tasks": sorted(asked.get("tasks", []), key=str)}


def deciding_settings(policy: Policy) -> dict[str, Any]:
    """Return what of a policy decides a verdict; its description and planned power are left out."""
    deciding = policy.model_dump(mode="json", include={"alpha", "looks", "families", "uses", "min_clusters"})
    return deciding | ({"reserve": policy.reserve} if policy.reserve else {})


def kv_cache_dtype(run: Run) -> str:
    """Return the dtype that the KV cache is served in: the engine's argument, else what the files declare."""
    return served_kv_cache_dtype(run.checkpoint.kv_cache_dtype, run.inputs.serving.get("arguments") or {})


def _asked(run: Run) -> Any:
    return asked_of(run.inputs.suite)


def _question(run: Run) -> Any:
    """Return what is asked by its content; by its names and files where the content was not recorded."""
    families = {task.task: str(task.family) for task in (run.suite.tasks if run.suite else ())}
    contents = {
        task.task: task.content_sha256 for task in (run.contents if isinstance(run, RunPlan) else run.tasks)
    }
    if not contents or contents.keys() != families.keys() or None in contents.values():
        return _asked(run)
    return sorted([content, families[task]] for task, content in contents.items())


def _question_if_deciding(run: Run) -> Any:
    """Return what is asked; with its limit where so few documents can't validate anything and so spend no alpha."""
    limit, tasks = (run.inputs.suite or {}).get("limit"), run.suite.tasks if run.suite else ()
    families = run.policy.families
    least = [families[task.family].min_documents for task in tasks if task.family in families]
    could_decide = bool(run.policy.looks) or limit is None or limit >= min(least, default=0)
    return _question(run) if could_decide else [_question(run), limit]


def _checkpoint(run: Run) -> Any:
    """Return a checkpoint's content; its revision where its tensors were not read."""
    checkpoint = run.checkpoint
    return (
        [checkpoint.weights_sha256, checkpoint.settings_sha256] if checkpoint.weights_sha256 else weights(run)
    )


def weights(run: Run) -> str:
    """Return what a checkpoint's weights are known by: the hash of its tensors, else its revision."""
    return run.checkpoint.weights_sha256 or run.inputs.checkpoint_revision


def baseline_weights(run: Run) -> str | None:
    """Return what the baseline's weights are known by; None for the baseline itself."""
    return (run.baseline and run.baseline.weights_sha256) or run.inputs.baseline_revision


def answer_arguments(run: Run, changes: tuple[str, ...] = ("model", "answers")) -> dict[str, Any]:
    """Return the serving arguments that can change what is answered (configs/answer_settings.yaml).

    Args:
        run: measured or planned.
        changes: the kinds of them.
    """
    listed, plugins = answer_settings(), run.inputs.serving.get("plugins") or {}
    given = {
        name.replace("_", "-"): value for name, value in (run.inputs.serving.get("arguments") or {}).items()
    }
    counting = {
        name: value for name, value in given.items() if name in listed and listed[name].changes in changes
    }
    return counting | ({"plugins": plugins} if plugins and "answers" in changes else {})


def _how_asked(run: Run) -> Any:
    return {key: value for key, value in (run.inputs.suite or {}).items() if key not in _WHICH}


def _deciding(run: Run) -> Any:
    return deciding_settings(run.policy)


def _deciding_in_order(run: Run) -> Any:
    """Return what decides, and the seed of the order: another order asks the same question, but none goes on in it."""
    return _deciding(run) | ({"seed": run.policy.seed} if run.policy.seed else {})


_Part = Callable[[Run], Any] | bool
"""How an input counts: whole, not at all, or a part of it."""
COUNTS: dict[str, tuple[_Part, _Part, _Part, _Part, _Part]] = {
    # input               fingerprint  continuation  setting  comparison  serving
    "checkpoint_revision": (True, True, True, _checkpoint, True),
    "baseline_revision": (True, True, True, baseline_weights, False),
    "gpu": (True, True, True, False, True),
    "gpu_count": (True, True, True, False, True),
    "mig_slice": (True, True, True, False, True),
    "sm_arch": (True, True, True, True, True),
    "device_name": (True, True, True, False, True),
    "cpu_cores": (True, True, True, False, True),
    "engine": (True, True, True, True, True),
    "engine_version": (True, True, True, True, True),
    "serving": (True, True, True, answer_arguments, True),
    "suite": (True, _asked, _how_asked, _question_if_deciding, False),
    "workload": (True, False, False, False, False),
    "policy_fingerprint": (True, _deciding_in_order, False, _deciding, False),
    # Of the checkpoint's files and the serving arguments.
    "kv_cache_dtype": (False, False, False, kv_cache_dtype, False),
}
"""Which input of a run counts for which purpose, in the order of `Purpose`."""


def compared(run: Run, purpose: Purpose) -> dict[str, Any]:
    """Return what of a run counts for a purpose, by the input's name: equal for two runs that are the same for it."""
    column = list(Purpose).index(purpose)
    values = {}
    for name, row in COUNTS.items():
        part = row[column]
        if part is True:
            values[name] = getattr(run.inputs, name)
        elif part is not False:
            values[name] = part(run)
    return values


def run_fingerprint(inputs: RunInputs) -> str:
    """Return the SHA-256 (hex) of a run's inputs: measured and unchanged means the same fingerprint."""
    content = inputs.model_dump(mode="json")
    column = list(Purpose).index(Purpose.FINGERPRINT)
    return fingerprint_of({name: content[name] for name, row in COUNTS.items() if row[column]})


_KEY_NAMES = {
    "checkpoint_revision": "candidate",
    "baseline_revision": "baseline",
    "policy_fingerprint": "policy",
}
"""What the first warehouses called an input of a verdict's key; they keep the hashes."""


def comparison_key(run: Run) -> dict[str, Any]:
    """Return what a run's verdict belongs to, but for the kernels that its engine chooses when it starts."""
    values = compared(run, Purpose.COMPARISON)
    values["engine"] = [values["engine"], values.pop("engine_version")]
    return {_KEY_NAMES.get(name, name): value for name, value in values.items()}


def comparison_id(run: Run) -> str:
    """Return the SHA-256 (hex) of `comparison_key`."""
    return fingerprint_of(comparison_key(run))


VERDICT_KEYS = "6"
"""Changes with what makes a verdict's key, so that a warehouse of before gives its runs new keys, once."""


def verdict_key(manifest: Manifest) -> str:
    """Return what a verdict belongs to, as a SHA-256 (hex): `comparison_key` and the kernels that were chosen.

    Runs of one key ask the same question, so the first that was declared answers it: judging again until it
    passes would validate anything. A run with a limit asks what one without asks, unless its documents are too few to
    validate anything and there are no interim looks.
    """
    return question_id(manifest, answering_starts(manifest))


def question_id(run: Run, starts: Iterable[EngineStart]) -> str:
    """Return the key of a question, as a SHA-256 (hex), by the starts that answer it."""
    return fingerprint_of(comparison_key(run) | {"kernels": kernels_of(starts)})


def answering_starts(manifest: Manifest) -> list[EngineStart]:
    """Return the engine starts that answered a run's tasks."""
    used = {task.engine_start_id for task in manifest.tasks}
    return [start for start in manifest.engine_starts if start.engine_start_id in used]


def kernels_of(starts: Iterable[EngineStart]) -> dict[str, str]:
    """Return the kernels of starts by layer: those of linear layers and of experts, and attention's."""
    kernels: dict[str, str] = {}
    for start in starts:
        kernels |= start.kernels
        if start.attention_backend:
            kernels["attention"] = start.attention_backend
    return kernels


def in_order(run: Manifest) -> bool:
    """Return True if a run's documents are the first of the order; none was recorded in the first bundles."""
    return bool(run.tasks) and all(task.documents_available is not None for task in run.tasks)


def may_continue(plan: RunPlan, run: Manifest) -> bool:
    """Return True if a plan may go on from a run's answers: all is the same but the limit and the load.

    A run that was measured before the order of documents was recorded can't be continued.
    """
    return in_order(run) and compared(plan, Purpose.CONTINUATION) == compared(run, Purpose.CONTINUATION)


def setting_differences(plan: RunPlan, run: Manifest) -> str:
    """Name what keeps a run of the same question from being continued; empty where nothing does."""
    if may_continue(plan, run):
        return ""
    planned, measured = compared(plan, Purpose.SETTING), compared(run, Purpose.SETTING)
    differ = [
        f"{name.replace('_', ' ')} ({measured[name]} in that run, {planned[name]} now)"
        if name != "serving"
        else name
        for name in planned
        if name != "suite" and measured[name] != planned[name]
    ]
    return ", ".join(differ) or "setting"


def is_reusable_baseline(plan: RunPlan, run: Manifest) -> bool:
    """Return True if a plan is a baseline's, and a run's answers are those that it would get."""
    return (
        plan.baseline is None
        and run.validity is Validity.VALID
        and compared(plan, Purpose.SETTING) == compared(run, Purpose.SETTING)
    )


def is_served_alike(plan: RunPlan, run: Manifest) -> bool:
    """Return True if a run served the plan's checkpoint as the plan does: its fidelity and its load are the same."""
    served = compared(plan, Purpose.SERVING) == compared(run, Purpose.SERVING)
    return served and run.validity is Validity.VALID


def reusable_result(plan: RunPlan, task: SuiteTask, run: Manifest) -> TaskResult | None:
    """Return a task's result in a run that `is_reusable_baseline`, if the task's content is the same there.

    None too where it was measured before the order of documents was recorded. A part of a task's documents is reused
    only where it is the first of the plan's order.
    """
    planned, measured = (_task_content(inputs, task.task) for inputs in (plan.inputs, run.inputs))
    result = next((result for result in run.tasks if result.task == task.task), None)
    if planned is None or planned != measured or result is None or result.documents_available is None:
        return None
    content = next((content for content in plan.contents if content.task == task.task), None)
    if content is None:
        return result
    if result.content_sha256 not in {None, content.content_sha256}:
        return None
    in_plans_order = result.content_sha256 is not None and run.policy.seed == plan.policy.seed
    is_whole = result.documents == result.documents_available == content.documents
    return result if in_plans_order or (is_whole and plan.suite.limit is None) else None


def _task_content(inputs: RunInputs, task: str) -> dict[str, Any] | None:
    for content in (inputs.suite or {}).get("tasks", []):
        if content["task"] == task:
            return {key: value for key, value in content.items() if key not in _JUDGED_BY}
    return None


def same_engine(first: EngineStart, second: EngineStart) -> bool:
    """Return True if two starts are of one engine version with the same kernels, so that their parts join."""
    return _engine_of(first) == _engine_of(second)


def _engine_of(start: EngineStart) -> tuple[Any, ...]:
    return (start.engine, start.engine_version, sorted(start.kernels.items()), start.attention_backend)


def same_kernels(first: Manifest, second: Manifest) -> bool:
    """Return True if two runs' engines chose the same kernels, as far as their first starts show."""
    starts = [*first.engine_starts[:1], *second.engine_starts[:1]]
    return all(same_engine(starts[0], start) for start in starts)


def comparable(baseline: Manifest, candidate: Manifest) -> str | None:
    """Return why a candidate's quality can't be compared with a baseline's, or None where it can.

    Both must have run the same tasks, on the same engine version and GPU architecture, with real weights,
    under the same policy. Kernels differ between precisions and belong to the verdict's key; ``gpu_count``
    may differ, since a large model's baseline needs more GPUs.
    """
    reasons: list[str] = []
    if candidate.baseline is not None and candidate.baseline.revision != baseline.checkpoint.revision:
        reasons.append(
            f"declared against baseline {candidate.baseline.revision}, not {baseline.checkpoint.revision}"
        )
    for what, reference, measured in (
        ("engine", _engine_name(baseline), _engine_name(candidate)),
        ("GPU architecture", baseline.hardware.sm_arch, candidate.hardware.sm_arch),
        ("policy", _policy_name(baseline), _policy_name(candidate)),
    ):
        if reference != measured:
            reasons.append(f"{what} differs: baseline {reference}, candidate {measured}")
    for role, manifest in (("baseline", baseline), ("candidate", candidate)):
        if manifest.checkpoint.weights is Weights.DUMMY:
            reasons.append(f"the {role}'s weights are random")
        if len({(start.engine, start.engine_version) for start in manifest.engine_starts}) > 1:
            reasons.append(f"the {role}'s parts ran on different engine versions")
    reasons += _task_differences(baseline, candidate)
    return "; ".join(reasons) or None


def _engine_name(manifest: Manifest) -> str:
    return f"{manifest.inputs.engine} {manifest.inputs.engine_version}"


def _policy_name(manifest: Manifest) -> str:
    return f"'{manifest.policy_name}' ({manifest.policy.fingerprint()[:12]})"


def _task_differences(baseline: Manifest, candidate: Manifest) -> list[str]:
    """Name what differs between the tasks of two runs, task by task, or else between their suites."""
    reasons: list[str] = []
    measured = {result.task: result for result in baseline.tasks}
    for result in candidate.tasks:
        other = measured.get(result.task)
        if other is None:
            reasons.append(f"the baseline did not run task {result.task}")
            continue
        for name in ("version", "metric", "filter", "output_type", "family"):
            values = getattr(other, name), getattr(result, name)
            if values[0] != values[1]:
                what = name.replace("_", " ")
                reasons.append(
                    f"task {result.task}: {what} differs: baseline {values[0]}, candidate {values[1]}"
                )
    # A run that was to answer everything did so, whatever the policy that judges it now.
    suites = [
        {key: value for key, value in (run.inputs.suite or {}).items() if key != "full"}
        for run in (baseline, candidate)
    ]
    if candidate.policy.looks:  # then a candidate may have answered the first of its baseline's documents
        suites = [asked_of(suite) or {} for suite in suites]
    if not reasons and suites[0] != suites[1]:
        parts = sorted(
            key for key in suites[0].keys() | suites[1].keys() if suites[0].get(key) != suites[1].get(key)
        )
        reasons.append(f"the suites differ in {', '.join(parts)}")
    return reasons


@dataclass(frozen=True)
class Expected:
    """A run's inputs as far as the host that plans it can know them.

    The device's own name, its SM architecture (a CPU's instruction set), the number of a CPU's cores and the
    variables that a host sets itself are known on the measuring host alone: its fingerprint check has the last
    word, and finds what this one dispatched needlessly.
    """

    checkpoint: str | None
    """Revision; None where it, or its draft model's, could not be learnt, and then nothing measured is the same."""
    baseline: str | None
    gpu: str
    gpus: int
    engine: str | None
    """None: the pool names none, and its hosts may have one of their own (QUANTGATE_ENGINE)."""
    engine_version: str | None
    """None: the configuration takes any."""
    arguments: dict[str, Any]
    environment: dict[str, str]
    """What engines.yaml sets and a run records."""
    plugins: dict[str, str]
    suite: dict[str, Any]
    workload: dict[str, Any]
    policy: str


def differences(expected: Expected, inputs: RunInputs, *, however_many: bool = False) -> tuple[str, ...]:
    """Name the parts in which a measured run differs from a planned one; empty: it is measured.

    Args:
        expected: what is planned.
        inputs: what a bundle's fingerprint is made of.
        however_many: whether the same question counts, however many of its documents were to be asked.
    """
    if however_many:
        expected = replace(expected, suite=asked_of(expected.suite) or {})
    recorded: dict[str, str] = inputs.serving.get("environment") or {}
    measured = Expected(
        checkpoint=inputs.checkpoint_revision,
        baseline=inputs.baseline_revision,
        gpu=inputs.gpu if inputs.mig_slice is None else f"{inputs.gpu} {inputs.mig_slice}",
        gpus=inputs.gpu_count,
        engine=inputs.engine if expected.engine else None,
        engine_version=inputs.engine_version if expected.engine_version else None,
        arguments=inputs.serving.get("arguments") or {},
        environment={key: value for key, value in recorded.items() if key in expected.environment},
        plugins=inputs.serving.get("plugins") or {},
        suite=(asked_of(inputs.suite) if however_many else inputs.suite) or {},
        workload=inputs.workload or {},
        policy=inputs.policy_fingerprint,
    )
    return tuple(
        field.name.replace("_", " ")
        for field in fields(Expected)
        if getattr(expected, field.name) != getattr(measured, field.name)
    )
