"""Plan the matrix: which checkpoints on which pools, what is measured already, what fits, what the rest would cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from flows.fleet.deployments import validate_parameters
from flows.parameters import MatrixParameters, PublishMode, ValidateParameters
from flows.planning import gpu_fit, measured
from flows.planning.answers import earlier_answers, looks_of, task_size
from flows.planning.cells import FAULTS, Cell, CellState, Plan, Unit, within_budget
from flows.planning.cpu_fit import too_large, weights_bytes
from flows.planning.estimate import RunSize, estimate
from flows.planning.pools import PoolFacts, configured_environment, left_out, pool_facts
from flows.planning.request import checkpoints_of, with_precisions, work_of
from quantgate.bundles.history import RunHistory
from quantgate.bundles.identity import Expected
from quantgate.bundles.manifest import Manifest
from quantgate.bundles.store import BundleStore
from quantgate.model.config.fleet import Pool, load_fleet
from quantgate.model.config.models import CheckpointConfig, ModelConfig, load_models
from quantgate.model.config.policy import Policy
from quantgate.model.config.suites import SuiteTask
from quantgate.model.errors import ConfigError
from quantgate.model.home import Home
from quantgate.model.yaml_file import choose
from tasks.checkpoint.hub import NotAskedError
from tasks.checkpoint.pins import Pins, pins_file
from tasks.checkpoint.resolve import commit_of, is_folder, resolve
from tasks.engine import argument_files, environment
from tasks.engine.arguments import gpu_count, serving_arguments
from tasks.quality.requirements import document_requests, prompt_characters
from tasks.quality.suite import suite_content
from tasks.resume.baseline_role import check_role, check_same_model, folder_of
from warehouse.configuration import configured_in_memory
from warehouse.database import Connection
from warehouse.estimates import published_share

T = TypeVar("T")


def plan(parameters: MatrixParameters, home: Home) -> Plan:
    """Plan what the matrix would run; nothing is started and no checkpoint is pulled.

    The hub is asked once for each checkpoint, so that every host measures the same commit.

    Args:
        parameters: the choice.
        home: whose bundles, pins and imported prices count.

    Returns:
        Each model's units over the pools, in declared order.

    Raises:
        ConfigError: the fleet's file, or a name among the parameters, is wrong. A fault of one model or one
            checkpoint becomes the state of its cells instead, and the others are planned.
    """
    fleet = load_fleet()
    nightly = fleet.matrix
    pools = pool_facts(fleet, parameters.pools or nightly.pools)
    configured_models = load_models()
    models: list[ModelConfig] = [
        choose(configured_models, name, "configs/models") for name in parameters.models or nightly.models
    ]
    precisions = parameters.precisions or nightly.precisions
    available = dict.fromkeys(c.precision for model in models for c in model.candidates if c.precision)
    for precision in precisions:
        choose(available, precision, "precisions of the models' candidates")
    commit = partial(commit_of, pins=Pins(pins_file(home)), keep=not parameters.dry_run)
    store = BundleStore(home.bundles)
    manifests = RunHistory.read(store).runs
    with configured_in_memory(warehouse=home.warehouse) as connection:
        requests = _once(lambda name: _request(configured_models[name], home, manifests, store))
        planner = _Planner(connection, manifests, commit, requests, everything=parameters.everything)
        units = [planner.unit(model, pool, precisions) for model in models for pool in pools]
    budget_usd = parameters.budget_usd or nightly.budget_usd
    if budget_usd:
        units = list(within_budget(units, budget_usd))
    estimated = dict.fromkeys(cell.model for unit in units for cell in unit.due if cell.basis == "estimated")
    return Plan(
        tuple(_with_parameters(unit, fleet.pools[unit.pool]) for unit in units),
        budget_usd,
        {model: requests(model).size.lengths for model in estimated},
        left_out(fleet, [pool.name for pool in pools], by_hand=bool(parameters.pools)),
        tuple(pool.name for pool in pools if not pool.gpu_config.nvml_names and pool.memory_bytes is None),
    )


def _with_parameters(unit: Unit, pool: Pool) -> Unit:
    """Return the unit with the parameters of its deployment's run.

    A run names the candidates that are due. Where only the baseline is due, it names those that are measured.
    """
    if not unit.due:
        return unit
    due = [cell for cell in unit.due if not cell.is_baseline]
    measured_cells = [
        cell for cell in unit.cells if cell.state is CellState.MEASURED and not cell.is_baseline
    ]
    parameters: dict[str, Any] = {
        "model": unit.model,
        "precisions": list(dict.fromkeys(cell.precision for cell in due or measured_cells)),
        "revisions": {
            cell.source: cell.expected.checkpoint
            for cell in unit.cells
            if cell.expected and cell.expected.checkpoint and not is_folder(cell.source)
        },
        **validate_parameters(pool),
        "afterwards": PublishMode.NOBODY.value,
    }
    return replace(unit, parameters=parameters)


@dataclass(frozen=True)
class ModelRequest:
    """The suite, workload and policy that the matrix asks of a model: the same for its checkpoints on every pool."""

    suite: dict[str, Any]
    workload: dict[str, Any]
    policy: str
    size: RunSize


def _request(
    model: ModelConfig, home: Home, manifests: Sequence[Manifest], store: BundleStore
) -> ModelRequest:
    """Resolve suite, workload and policy; a task whose documents can't be counted yet has the policy's least.

    Args:
        model: that is measured.
        home: of this host.
        manifests: every bundle's, oldest first: what they say of the answers' lengths counts for any model.
        store: that holds them.

    Raises:
        ConfigError: one of them is wrong.
    """
    # Whether generated code may run is for the host to decide: it is no part of what is measured.
    work = work_of(model, ValidateParameters(model=model.name, run_generated_code=True), home)
    sizes = []
    for task in work.suite.tasks:
        count = work.documents[task.task]
        documents = work.policy.families[task.family].min_documents if count is None else count
        samples = earlier_answers(task.task, manifests, store)
        size = task_size(task.task, documents, document_requests(task), samples)
        sizes.append(
            replace(
                size,
                prompt_characters=prompt_characters(task),
                least_documents=_least_documents(task, documents, work.policy),
            )
        )
    return ModelRequest(
        suite=suite_content(work.suite, chat_template=work.chat_template),
        workload=work.workload.model_dump(mode="json", exclude={"description"}),
        policy=work.policy.fingerprint(),
        size=RunSize(work.workload, tuple(sizes), work.policy.aa_documents),
    )


def _least_documents(task: SuiteTask, documents: int, policy: Policy) -> int | None:
    """Return the documents at a candidate's first interim look; None where it has none before its last document."""
    looks = looks_of(task, documents, policy)
    return looks[0] if looks else None


class _Planner:
    """Plan units against one reading of warehouse and manifests; the revision of a source is asked once."""

    def __init__(
        self,
        connection: Connection,
        manifests: Sequence[Manifest],
        commit: Callable[..., str],
        request: Callable[[str], ModelRequest],
        *,
        everything: bool,
    ) -> None:
        """Take what they all share."""
        self.connection, self.everything, self.manifests = connection, everything, manifests
        self.share = published_share(connection)
        self.request = request
        self.commit = _once(commit)
        self.content = _once(_content)

    def unit(self, model: ModelConfig, pool: PoolFacts, precisions: Sequence[str]) -> Unit:
        """Plan the model's baseline, and its candidates of these precisions, on a pool."""
        chosen = with_precisions(model, precisions)
        if not chosen.candidates:
            return Unit(pool.name, model.name, ())
        baseline_config, *candidate_configs = checkpoints_of(chosen, ValidateParameters(model=model.name))
        blank = _blank(baseline_config, model, pool, is_baseline=True)
        blanks = [_blank(checkpoint, model, pool) for checkpoint in candidate_configs]
        try:
            request = self.request(model.name)
        except ConfigError as error:
            wrong = (replace(cell, state=CellState.WRONG, reason=str(error)) for cell in (blank, *blanks))
            return Unit(pool.name, model.name, tuple(wrong))
        baseline = self.cell(blank, baseline_config, model, pool, request, None)
        candidates = _without_faulty_twins(
            [
                _of_one_model(self.cell(cell, checkpoint, model, pool, request, baseline), baseline)
                for cell, checkpoint in zip(blanks, candidate_configs, strict=True)
            ]
        )
        if not baseline.is_sound:
            # A candidate that has a fault of its own keeps it: that has to be fixed too.
            candidates = [
                replace(cell, state=CellState.NO_BASELINE, reason="") if cell.is_sound else cell
                for cell in candidates
            ]
        elif not any(cell.is_sound for cell in candidates):
            baseline = replace(baseline, state=CellState.NO_CANDIDATE, reason="")
        elif not any(cell.state is CellState.RUN for cell in candidates) and self._is_enough(
            baseline, candidates
        ):
            why = "its candidates are measured, unchanged and need no more of it"
            baseline = replace(
                baseline, state=CellState.MEASURED, reason=why, gpu_hours=0.0, usd=0.0, basis=""
            )
        return Unit(pool.name, model.name, (baseline, *candidates))

    def _is_enough(self, baseline: Cell, candidates: Sequence[Cell]) -> bool:
        """Return whether a baseline that is due has answered fewer documents, and its candidates need no more."""
        if baseline.state is not CellState.RUN or baseline.expected is None:
            return False
        runs = [
            measured.measured_run(cell.expected, self.manifests)[0] for cell in candidates if cell.expected
        ]
        baseline_runs = {run.baseline.run_id for run in runs if run and run.baseline}
        return baseline_runs <= {manifest.run_id for manifest in self.manifests} and bool(
            measured.measured_run(baseline.expected, self.manifests, however_many=True)[0]
        )

    def cell(
        self,
        cell: Cell,
        checkpoint: CheckpointConfig,
        model: ModelConfig,
        pool: PoolFacts,
        request: ModelRequest,
        baseline: Cell | None,
    ) -> Cell:
        """Plan one checkpoint on a pool."""
        try:
            if baseline is None:
                native = model.native_precision
                check_role(checkpoint.precision, native, checkpoint.source, checkpoint.engine_arguments)
            fit = self._fitting(checkpoint, model, pool)
        except ConfigError as error:
            return replace(cell, state=CellState.WRONG, reason=str(error))
        cell = replace(cell, gpus=fit.gpus)
        unable = _unable(checkpoint, pool, fit)
        if unable or fit.gpus is None:
            state, reason = unable or (CellState.TOO_LARGE, fit.reason)
            return replace(cell, state=state, reason=reason)
        try:
            revision, unpinned = self._revision(checkpoint)
            arguments, unasked = self._recorded(pool, gpu_fit.with_gpus(checkpoint, fit))
        except ConfigError as error:
            state = CellState.WRONG if is_folder(checkpoint.source) else CellState.MISSING
            return replace(cell, state=state, reason=str(error))
        expected = Expected(
            checkpoint=None if unasked else revision,
            baseline=baseline.expected.checkpoint if baseline and baseline.expected else None,
            gpu=pool.gpu,
            gpus=fit.gpus,
            engine=pool.config.engine,
            engine_version=pool.engine.version,
            arguments=arguments,
            environment=configured_environment(pool.engine),
            plugins=environment.plugins_content(pool.engine),
            suite=request.suite,
            workload=request.workload,
            policy=request.policy,
        )
        run, changed = measured.measured_run(expected, self.manifests)
        cell = replace(cell, expected=expected, reason=unpinned or unasked or changed)
        if run and not self.everything:
            day = f"measured on {run.measured_at:%Y-%m-%d} and unchanged"
            return replace(cell, state=CellState.MEASURED, reason=day, gpu_hours=0.0, usd=0.0)
        architecture = model.architecture or model.name
        return estimate(self.connection, cell, architecture, request.size, self.manifests, self.share)

    def _fitting(self, checkpoint: CheckpointConfig, model: ModelConfig, pool: PoolFacts) -> gpu_fit.Fitting:
        arguments = serving_arguments(pool.engine, checkpoint.engine_arguments)
        architecture = model.architecture or model.name
        if not pool.gpu_config.nvml_names:
            size = weights_bytes(self.connection, architecture, checkpoint.precision, checkpoint.source)
            large = ""
            if size is not None and pool.memory_bytes is not None:
                large = too_large(size, pool.engine, arguments, pool.memory_bytes)
            return gpu_fit.Fitting(None if large else gpu_count(arguments), False, large)
        files = gpu_fit.stored(checkpoint)
        return gpu_fit.fitting(
            self.connection, architecture, checkpoint.precision, pool.gpu, arguments, files
        )

    def _recorded(self, pool: PoolFacts, checkpoint: CheckpointConfig) -> tuple[dict[str, Any], str]:
        """Return the serving arguments that a run records, and why the commit of a draft model isn't known."""
        overrides = argument_files.with_code(checkpoint).engine_arguments
        try:
            return argument_files.recorded_arguments(pool.engine, overrides, self.commit), ""
        except NotAskedError as error:
            return serving_arguments(pool.engine, overrides), f"{error.where}: {error.what}"

    def _revision(self, checkpoint: CheckpointConfig) -> tuple[str | None, str]:
        """Return the revision, or None and why it isn't known; a folder is hashed, a hub asked unless it is pinned."""
        if is_folder(checkpoint.source):
            return self.content(checkpoint.source, checkpoint.precision), ""
        if checkpoint.revision:
            return checkpoint.revision, ""
        try:
            return self.commit(checkpoint.source, checkpoint.precision), ""
        except NotAskedError as error:
            return None, error.what


def _of_one_model(cell: Cell, baseline: Cell) -> Cell:
    """Mark a candidate that shows in its folder that it isn't the baseline quantized; hosts check what is pulled."""
    folders = folder_of(baseline.source), folder_of(cell.source)
    if cell.is_sound and baseline.is_sound and folders[0] and folders[1]:
        try:
            check_same_model(folders[0], folders[1], cell.source, baseline.source)
        except ConfigError as error:
            return replace(cell, state=CellState.WRONG, reason=str(error))
    return cell


def _without_faulty_twins(cells: list[Cell]) -> list[Cell]:
    """Mark candidates that share their precision with a faulty one: they are run together, or not at all."""
    faulty = {cell.precision: cell.source for cell in cells if cell.state in FAULTS}
    return [
        replace(
            cell,
            state=CellState.WRONG,
            reason=f"a run chooses by precision, and {faulty[cell.precision]} has the same precision and a fault",
        )
        if cell.state is CellState.RUN and cell.precision in faulty
        else cell
        for cell in cells
    ]


def _once(ask: Callable[..., T]) -> Callable[..., T]:
    """Return the function with its answers kept; refusals too, which may have taken a hub's time-out."""
    answers: dict[tuple[str | None, ...], T | ConfigError] = {}

    def asked(*arguments: str | None) -> T:
        if arguments not in answers:
            try:
                answers[arguments] = ask(*arguments)
            except ConfigError as error:
                answers[arguments] = error
        answer = answers[arguments]
        if isinstance(answer, ConfigError):
            raise answer
        return answer

    return asked


def _blank(
    checkpoint: CheckpointConfig, model: ModelConfig, pool: PoolFacts, *, is_baseline: bool = False
) -> Cell:
    """Return the cell of a checkpoint on a pool before anything is known of it."""
    precision, source = checkpoint.precision, checkpoint.source
    return Cell(pool.name, pool.gpu, model.name, precision, source, is_baseline, CellState.RUN)


def _unable(
    checkpoint: CheckpointConfig, pool: PoolFacts, fit: gpu_fit.Fitting
) -> tuple[CellState, str] | None:
    """Return why a pool can't measure a checkpoint, as far as the configuration shows it; None where it can."""
    precision, gpu = checkpoint.precision, pool.gpu
    if precision is None:
        return CellState.WRONG, "configs/models declares no precision for it, and a run chooses by precision"
    if pool.gpu_config.formats.get(precision) == "none":
        return CellState.UNSUPPORTED, f"the engine does not support {precision} on {gpu} (gpus.yaml: formats)"
    if fit.gpus is not None and pool.gpu_config.nvml_names and fit.gpus > pool.config.gpus:
        return CellState.TOO_LARGE, f"needs {fit.gpus} {gpu}, a worker has {pool.config.gpus} ({fit.reason})"
    return None


def _content(source: str, precision: str | None) -> str:
    """Return the content hash of a local folder, which must be what is declared."""
    return resolve(source, declared=precision).revision
