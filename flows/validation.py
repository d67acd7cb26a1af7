"""A validation from its planned runs to its table, with or without a Prefect server around it.

The flow ``validate`` calls it with Prefect's shells; a command whose runs are all measured calls it without, and starts
no server.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pydantic import BaseModel, Field

from flows.command_line import validate_command
from flows.parameters import PublishMode, ValidateParameters
from flows.planning.parts import time_left_of
from flows.planning.runs import PlannedRuns, fresh_key
from flows.results import load_new, not_loaded, publish_files
from quantgate.bundles.manifest import Manifest
from quantgate.bundles.staging import end_fresh
from quantgate.bundles.store import BundleStore
from quantgate.model.errors import ConfigError, QuantgateError, RunError
from quantgate.model.home import Home
from quantgate.model.records import BaselineRef
from tasks import run
from tasks.progress import Reporter
from tasks.quality.evaluate import ChatTemplate
from tasks.resume.decision import Refuse

Measured = tuple[Manifest, bool]
"""A run's bundle, and whether anything was measured now."""
Finish = Callable[[list[str]], tuple[list[str], str | None]]
"""Load and publish these runs: a line for each that was not loaded, and the folder of the table if it is here."""


class Validation(BaseModel):
    """Result of a validation."""

    run_ids: list[str] = Field(description="Baseline first.")
    measured: int = Field(description="Runs that were measured now.")
    published: str | None = Field(description="Folder of the published table, where it was published here.")


def complete(
    planned: PlannedRuns,
    parameters: ValidateParameters,
    home: Home,
    report: Reporter,
    *,
    finish: Finish,
    measure: Callable[..., Measured] = run.measure,
    steps: run.Steps = run.STEPS,
) -> Validation:
    """Measure the planned runs, then load and publish them.

    Args:
        planned: the runs, with what was decided of each.
        parameters: of the validation.
        home: whose bundles and warehouse.
        report: gets lines about what is measured and reused.
        finish: loads and publishes.
        measure: measures one run; a flow puts Prefect's shell around it.
        steps: the steps on a running engine, with their shells.

    Raises:
        RunError: a run failed, was refused or is not loaded; all others were done.
    """
    command = validate_command(parameters)
    done, failures = measure_all(planned, home, report, command=command, measure=measure, steps=steps)
    if not failures and not any(now for _, now in done):
        report.line("validate: all of it was measured before and is unchanged; nothing was measured again")
    run_ids = [manifest.run_id for manifest, _ in done]
    lost, published = finish(run_ids)
    if not lost and _are_refusals(failures):
        # Not before: the same command, killed while it loads, would measure all of it once more.
        end_fresh(home, fresh_key(parameters))
    if failures or lost:
        raise incomplete(failures, lost, len(planned.runs), parameters.afterwards)
    return Validation(run_ids=run_ids, measured=sum(now for _, now in done), published=published)


def measure_all(
    planned: PlannedRuns,
    home: Home,
    report: Reporter,
    *,
    command: str = "",
    measure: Callable[..., Measured] = run.measure,
    steps: run.Steps = run.STEPS,
) -> tuple[list[Measured], list[QuantgateError]]:
    """Measure the baseline, then every candidate; one that fails or is refused keeps no other from its turn."""
    done: list[Measured] = []
    failures: list[QuantgateError] = []
    baseline: BaselineRef | None = None
    expected_start_s: float | None = None
    time_left = report.time_left = time_left_of(planned, BundleStore(home.bundles))
    for index, planned_run in enumerate(planned.runs, 1):
        if isinstance(planned_run.decision, Refuse):
            failures.append(planned_run.decision.error)
            continue
        served, checkpoint = planned_run.served, planned_run.plan.checkpoint
        context = run.Context(
            home,
            planned.environment,
            served,
            report,
            planned.history,
            planned.fresh_after,
            expected_start_s,
            chat_template=ChatTemplate(text=served.chat_template or None)
            if planned.request.chat_template
            else None,
            command=command,
            steps=steps,
        )
        plan = planned_run.plan.model_copy(update={"baseline": baseline})
        time_left.begin_run(checkpoint.name)
        try:
            manifest, now = measure(plan, planned_run.decision, context)
        except QuantgateError as error:
            if baseline is None:
                raise
            report.line(f"{checkpoint.name}: failed: {error}")
            failures.append(error)
            continue
        finally:
            time_left.end_run(checkpoint.name)
        done.append((manifest, now))
        baseline = baseline or BaselineRef(
            name=checkpoint.name,
            revision=checkpoint.revision,
            run_id=manifest.run_id,
            weights_sha256=checkpoint.weights_sha256,
        )
        if manifest.engine_starts:
            expected_start_s = manifest.engine_starts[-1].start_duration_s
        if now and index < len(planned.runs):
            report.line(f"validate: {index} of {len(planned.runs)} checkpoints measured")
            report.show_time_left()
    report.time_left = None
    return done, failures


def finish_here(home: Home, report: Reporter, run_ids: Sequence[str]) -> tuple[list[str], str]:
    """Load and publish on this host, without a Prefect server: `Finish` of a command."""
    loaded = load_new(home, report)
    publish_files(home, report)
    return not_loaded(run_ids, loaded.problems), str(home.published)


def _are_refusals(failures: Sequence[QuantgateError]) -> bool:
    """Return True if nothing died: what is refused will be again."""
    return all(isinstance(failure, ConfigError) for failure in failures)


def incomplete(
    failures: Sequence[QuantgateError], lost: Sequence[str], checkpoints: int, afterwards: PublishMode
) -> RunError:
    """Return an error that says what has no result and why, and where the rest is."""
    what = [f"{len(failures)} of {checkpoints} checkpoints were not measured"] if failures else []
    what += ["what was measured is not all loaded"] if lost else []
    measured = "All that was measured is kept" if lost or afterwards is PublishMode.NOBODY else ""
    tries = "; the same command tries the rest again" if lost or not _are_refusals(failures) else ""
    return RunError(
        f"{', and '.join(what)}: {' | '.join([*map(str, failures), *lost])}".rstrip("."),
        hint=f"{measured or 'What was measured is in the table'}{tries}.",
    )
