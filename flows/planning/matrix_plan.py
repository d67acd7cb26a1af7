"""The matrix before it runs: which checkpoints on which pools, what is known, what fits, what it would cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from flows.parameters import MatrixParameters, PublishMode, ValidateParameters
from flows.planning import gpu_fit, measured
from flows.planning.cells import FAULTS, Cell, Plan, State, Unit, within_budget
from flows.planning.estimate import Asked, estimate
from flows.planning.pools import Place, configured_environment, places_of
from flows.planning.request import checkpoints_of, with_precisions, work_of
from quantgate.bundles.history import RunHistory
from quantgate.bundles.identity import Expected
from quantgate.bundles.manifest import Manifest
from quantgate.bundles.store import BundleStore
from quantgate.model.config.fleet import Pool, load_fleet
from quantgate.model.config.models import CheckpointConfig, ModelConfig, load_models
from quantgate.model.errors import ConfigError
from quantgate.model.home import Home
from quantgate.model.yaml_file import choose
from tasks.checkpoint.hub import NotAskedError
from tasks.checkpoint.pins import Pins, pins_file
from tasks.checkpoint.resolve import resolve
from tasks.checkpoint.revisions import commit_of, is_folder
from tasks.engine import argument_files, environment, server
from tasks.quality import evaluate
from warehouse.database import Connection
from warehouse.estimates import configured, published_share


def plan(parameters: MatrixParameters, home: Home) -> Plan:
    """What the matrix would run; nothing is started and no checkpoint pulled.

    A hub is asked once for each checkpoint, so that every host measures the same commit.

    Args:
        parameters: the choice.
        home: whose bundles, pins and imported prices count.

    Returns:
        Each model's units over the pools, in declared order.

    Raises:
        ConfigError: the fleet's file, or a name among the parameters, is wrong. What is wrong with one model
            or one checkpoint is its cells' state instead: the others go on.
    """
    fleet = load_fleet()
    nightly = fleet.matrix
    places = places_of(fleet, parameters.pools or nightly.pools)
    known_models = load_models()
    chosen: list[ModelConfig] = [
        choose(known_models, name, "configs/models") for name in parameters.models or nightly.models
    ]
    wanted = parameters.precisions or nightly.precisions
    have = dict.fromkeys(c.precision for model in chosen for c in model.candidates if c.precision)
    for precision in wanted:
        choose(have, precision, "precisions of the models' candidates")
    commit = partial(commit_of, pins=Pins(pins_file(home)), keep=not parameters.dry_run)
    with configured(home.warehouse) as connection:
        planner = _Planner(connection, home, commit, everything=parameters.everything)
        units = [planner.unit(model, place, wanted) for model in chosen for place in places]
    budget_usd = parameters.budget_usd or nightly.budget_usd
    if budget_usd:
        units = list(within_budget(units, budget_usd))
    return Plan(tuple(_with_parameters(unit, fleet.pools[unit.pool]) for unit in units), budget_usd)


def _with_parameters(unit: Unit, pool: Pool) -> Unit:
    """The unit with what its deployment run is given; where only a baseline is due, with what it has besides."""
    if not unit.due:
        return unit
    due = [cell for cell in unit.due if not cell.is_baseline]
    beside = [cell for cell in unit.cells if cell.state is State.KNOWN and not cell.is_baseline]
    parameters: dict[str, Any] = {
        "model": unit.model,
        "precisions": list(dict.fromkeys(cell.precision for cell in due or beside)),
        "gpu": pool.measured_gpu,
        "revisions": {
            cell.source: cell.expected.checkpoint
            for cell in unit.cells
            if cell.expected and cell.expected.checkpoint and not is_folder(cell.source)
        },
        "afterwards": PublishMode.NOBODY.value,
    }
    if pool.engine:
        parameters["engine"] = pool.engine
    return replace(unit, parameters=parameters)


@dataclass(frozen=True)
class ModelRequest:
    """What the matrix asks of a model, the same for its checkpoints on every pool."""

    suite: dict[str, Any]
    workload: dict[str, Any]
    policy: str
    asked: Asked


def _request(model: ModelConfig, home: Home) -> ModelRequest:
    """Resolve suite, workload and policy; a task whose documents can't be counted yet has the policy's least.

    Raises:
        ConfigError: one of them is wrong.
    """
    # Whether generated code may run is for the host to decide: it is no part of what is measured.
    work = work_of(model, ValidateParameters(model=model.name, run_generated_code=True), home)
    documents = 0
    for task in work.suite.tasks:
        count = work.documents[task.task]
        documents += work.policy.families[task.family].min_documents if count is None else count
    return ModelRequest(
        suite=evaluate.suite_content(work.suite, chat_template=work.chat_template),
        workload=work.workload.model_dump(mode="json", exclude={"description"}),
        policy=work.policy.fingerprint(),
        asked=Asked(work.workload, documents),
    )


class _Planner:
    """What planning asks again and again: the warehouse, the manifests, each source's revision once."""

    def __init__(
        self, connection: Connection, home: Home, commit: Callable[..., str], *, everything: bool
    ) -> None:
        """Read the manifests."""
        self.connection, self.everything = connection, everything
        self.manifests: tuple[Manifest, ...] = RunHistory.read(BundleStore(home.bundles)).runs
        self.share = published_share(connection)
        self.commit = _once(commit)
        self.content = _once(_content)
        self.home = home
        self._by_model: dict[str, ModelRequest] = {}

    def request(self, model: ModelConfig) -> ModelRequest:
        """Return the model's suite, workload and policy, read once."""
        if model.name not in self._by_model:
            self._by_model[model.name] = _request(model, self.home)
        return self._by_model[model.name]

    def unit(self, model: ModelConfig, place: Place, wanted: Sequence[str]) -> Unit:
        """The model's baseline and wanted candidates on a pool."""
        chosen = with_precisions(model, wanted)
        if not chosen.candidates:
            return Unit(place.name, model.name, ())
        checkpoints = checkpoints_of(chosen, ValidateParameters(model=model.name))
        try:
            request = self.request(model)
        except ConfigError as error:
            wrong = [
                replace(
                    _blank(one, model, place, one is checkpoints[0]), state=State.WRONG, reason=str(error)
                )
                for one in checkpoints
            ]
            return Unit(place.name, model.name, tuple(wrong))
        baseline = self.cell(checkpoints[0], model, place, request, None)
        cells = _without_faulty_twins(
            [self.cell(one, model, place, request, baseline) for one in checkpoints[1:]]
        )
        if baseline.state not in {State.RUN, State.KNOWN}:
            # One that has a fault of its own keeps it: it has to be fixed too.
            cells = [
                replace(cell, state=State.NO_BASELINE, reason="")
                if cell.state in {State.RUN, State.KNOWN}
                else cell
                for cell in cells
            ]
        elif not any(cell.state in {State.RUN, State.KNOWN} for cell in cells):
            baseline = replace(baseline, state=State.NO_CANDIDATE, reason="")
        elif not any(cell.state is State.RUN for cell in cells) and self._is_enough(baseline, cells):
            why = "its candidates are measured and unchanged, and ask nothing more of it"
            baseline = replace(baseline, state=State.KNOWN, reason=why, gpu_hours=0.0, usd=0.0, basis="")
        return Unit(place.name, model.name, (baseline, *cells))

    def _is_enough(self, baseline: Cell, candidates: Sequence[Cell]) -> bool:
        """Whether a baseline that is due has answered fewer documents already, and its candidates asked for no more."""
        if baseline.state is not State.RUN or baseline.expected is None:
            return False
        found = [measured.known(cell.expected, self.manifests)[0] for cell in candidates if cell.expected]
        against = {one.baseline.run_id for one in found if one and one.baseline}
        there = {one.run_id for one in self.manifests}
        return against <= there and bool(
            measured.known(baseline.expected, self.manifests, however_many=True)[0]
        )

    def cell(
        self,
        one: CheckpointConfig,
        model: ModelConfig,
        place: Place,
        request: ModelRequest,
        baseline: Cell | None,
    ) -> Cell:
        """One checkpoint on a pool."""
        cell = _blank(one, model, place, baseline is None)
        try:
            fit = self._fitting(one, model, place)
        except ConfigError as error:
            return replace(cell, state=State.WRONG, reason=str(error))
        unable = _unable(one, place, fit)
        if unable or fit.gpus is None:
            state, reason = unable or (State.TOO_LARGE, fit.reason)
            return replace(cell, state=state, gpus=fit.gpus, reason=reason)
        try:
            revision, unpinned = self._revision(one)
            recorded, unasked = self._recorded(place, gpu_fit.with_gpus(one, fit))
        except ConfigError as error:
            state = State.WRONG if is_folder(one.source) else State.MISSING
            return replace(cell, state=state, gpus=fit.gpus, reason=str(error))
        expected = Expected(
            checkpoint=None if unasked else revision,
            baseline=baseline.expected.checkpoint if baseline and baseline.expected else None,
            gpu=place.gpu,
            gpus=fit.gpus,
            engine=place.pool.engine,
            engine_version=place.engine.version,
            arguments=recorded,
            environment=configured_environment(place.engine),
            plugins=environment.plugins_content(place.engine),
            suite=request.suite,
            workload=request.workload,
            policy=request.policy,
        )
        found, changed = measured.known(expected, self.manifests)
        cell = replace(cell, gpus=fit.gpus, expected=expected, reason=unpinned or unasked or changed)
        if found and not self.everything:
            day = f"measured on {found.measured_at:%Y-%m-%d} and unchanged"
            return replace(cell, state=State.KNOWN, reason=day, gpu_hours=0.0, usd=0.0)
        return estimate(
            self.connection,
            cell,
            model.architecture or model.name,
            request.asked,
            self.manifests,
            self.share,
        )

    def _fitting(self, one: CheckpointConfig, model: ModelConfig, place: Place) -> gpu_fit.Fitting:
        arguments = server.serving_arguments(place.engine, one.engine_arguments)
        if not place.facts.nvml_names:
            return gpu_fit.Fitting(server.gpu_count(arguments), False, "")
        return gpu_fit.fitting(
            self.connection, model.architecture or model.name, one.precision, place.gpu, arguments
        )

    def _recorded(self, place: Place, one: CheckpointConfig) -> tuple[dict[str, Any], str]:
        """Serving arguments as a run records them, or why a draft model's commit, pinned like any, isn't known."""
        overrides = argument_files.with_code(one).engine_arguments
        try:
            return argument_files.recorded(place.engine, overrides, self.commit), ""
        except NotAskedError as error:
            return server.serving_arguments(place.engine, overrides), f"{error.where}: {error.what}"

    def _revision(self, one: CheckpointConfig) -> tuple[str | None, str]:
        """The revision, or None and why it isn't known; a folder is hashed, a hub asked unless it is pinned."""
        if is_folder(one.source):
            return self.content(one.source, one.precision), ""
        if one.revision:
            return one.revision, ""
        try:
            return self.commit(one.source, one.precision), ""
        except NotAskedError as error:
            return None, error.what


def _without_faulty_twins(cells: list[Cell]) -> list[Cell]:
    """Candidates that share a precision are run together, so that a fault of one is the other's too."""
    faulty = {cell.precision: cell.source for cell in cells if cell.state in FAULTS}
    return [
        replace(
            cell,
            state=State.WRONG,
            reason=f"a run chooses by precision, and {faulty[cell.precision]} has the same and a fault",
        )
        if cell.state is State.RUN and cell.precision in faulty
        else cell
        for cell in cells
    ]


def _once(ask: Callable[..., str]) -> Callable[..., str]:
    """Ask the same only once: an answer, and a refusal too, which may have taken a hub's time-out."""
    answers: dict[tuple[str | None, ...], str | ConfigError] = {}

    def asked(*question: str | None) -> str:
        if question not in answers:
            try:
                answers[question] = ask(*question)
            except ConfigError as error:
                answers[question] = error
        answer = answers[question]
        if isinstance(answer, ConfigError):
            raise answer
        return answer

    return asked


def _blank(one: CheckpointConfig, model: ModelConfig, place: Place, is_baseline: bool) -> Cell:
    return Cell(place.name, place.gpu, model.name, one.precision, one.source, is_baseline, State.RUN)


def _unable(one: CheckpointConfig, place: Place, fit: gpu_fit.Fitting) -> tuple[State, str] | None:
    """Why a checkpoint can't be measured on a pool, before anything is asked of it; None where it can."""
    if one.precision is None:
        return State.WRONG, "configs/models declares no precision for it, by which a run would choose it"
    if place.facts.formats.get(one.precision) == "none":
        return (
            State.UNSUPPORTED,
            f"the engine makes nothing of {one.precision} on a {place.gpu} (gpus.yaml: formats)",
        )
    if fit.gpus is not None and place.facts.nvml_names and fit.gpus > place.pool.gpus:
        return (
            State.TOO_LARGE,
            f"needs {fit.gpus} {place.gpu}, a worker has {place.pool.gpus} ({fit.reason})",
        )
    return None


def _content(source: str, precision: str | None) -> str:
    """The content hash of a local folder, which must be what is declared."""
    return resolve(source, declared=precision).revision
