"""``quantgate doctor --models``: compare the checkpoints of configs/models with the hub, and check the files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Generic, NamedTuple

from commands.operate.doctor.findings import Finding
from quantgate.model.config.architectures import Architecture
from quantgate.model.config.fleet import fleet_path
from quantgate.model.config.models import ModelConfig, load_model, load_models
from quantgate.model.config.policy import load_policy
from quantgate.model.config.suites import Suite
from quantgate.model.config.workloads import Workload
from quantgate.model.errors import ConfigError
from quantgate.model.home import ROOT, Home
from quantgate.model.words import counted
from quantgate.model.yaml_file import M, choose, load_yaml

CONFIGS = ROOT / "configs"
AT_ONCE = 8
"""Number of checkpoints to ask about at the same time."""


def chosen(names: Sequence[str]) -> list[ModelConfig]:
    """Return the models of these names; all models if no name is given.

    Raises:
        ConfigError: there is no model of that name.
    """
    if names:
        return [load_model(name) for name in names]
    return sorted(load_models().values(), key=lambda model: model.name.casefold())


def check_models(models: Sequence[ModelConfig]) -> Iterator[Finding]:
    """Compare checkpoints with what the hub says of them now; yield a line for each, as the answers come.

    A model whose checkpoints the hub gave no answer about gets one line, and a last line counts such models.

    Raises:
        ConfigError: the home's pins or configs/architectures can't be read.
    """
    from huggingface_hub.utils.tqdm import disable_progress_bars

    from tasks.checkpoint.hub_audit import CheckpointStatus, HubAudit
    from tasks.checkpoint.pins import pins_file, read_pins
    from warehouse.architectures import read_shapes

    hub = HubAudit({repo: pin.commit for repo, pin in read_pins(pins_file(Home.current())).items()})
    shapes = {name: shape.config for name, shape in read_shapes(CONFIGS).architectures.items()}
    pairs = [(model, checkpoint) for model in models for checkpoint in model.checkpoints]
    with disable_progress_bars(), ThreadPoolExecutor(AT_ONCE) as pool:
        reports = pool.map(lambda pair: hub.check(pair[1], shapes.get(pair[0].architecture or "")), pairs)
        answered = zip((model.name for model, _ in pairs), reports, strict=True)
        unreached = 0
        for name, members in groupby(answered, key=lambda pair: pair[0]):
            answers = [report for _, report in members]
            if all(report.status is CheckpointStatus.UNREACHED for report in answers):
                unreached += 1
                yield Finding("note", name, f"not checked: {hub.unreachable}")
                continue
            for report in answers:
                state = "note" if report.status is CheckpointStatus.UNREACHED else report.status.name.lower()
                yield Finding(state, name, report.line)
    if unreached:
        yield Finding("note", "hub", f"{unreached} of {len(models)} models not checked")


def check_files() -> Iterator[Finding]:
    """Read every model, suite and workload, and the fleet's file; yield a line for each fault."""
    from flows.fleet.check import checked_fleet
    from warehouse.architectures import read_shapes, refresh_shapes, size_differences
    from warehouse.configuration import configured_in_memory

    suites, workloads = _Read("suites", Suite), _Read("workloads", Workload)
    models = _Read("models", ModelConfig)
    shapes = read_shapes(CONFIGS)
    names = _Names(suites.names, workloads.names, shapes.architectures)
    with configured_in_memory() as connection:
        refresh_shapes(connection, shapes)
        yield from (Finding("problem", "architectures", line) for line in size_differences(connection))
    for path, model in models.records.items():
        models.attempt(partial(_check_references, model, f"configs/models/{path.name}", names))
    models.attempt(load_models)  # refuses a name that is listed twice
    for read in (models, suites, workloads):
        yield from read.findings()
    try:
        fleet = checked_fleet({model.name: model for model in models.records.values()})
    except ConfigError as error:
        yield Finding("problem", "fleet", str(error))
    else:
        yield Finding("ok", "fleet", f"{fleet_path().name}: {counted(len(fleet.pools), 'pool')}")


class _Read(Generic[M]):
    """Read the records of one folder of configs/, and keep what is wrong with its files."""

    def __init__(self, folder: str, kind: type[M]) -> None:
        self.folder, self.faults = folder, list[str]()
        self.records: dict[Path, M] = {}
        self.paths = sorted((CONFIGS / folder).glob("*.yaml"))
        for path in self.paths:
            self.attempt(partial(self._load, path, kind))

    @property
    def names(self) -> dict[str, None]:
        """Return the names of its files, also of those that can't be read."""
        return dict.fromkeys(path.stem for path in self.paths)

    def _load(self, path: Path, kind: type[M]) -> None:
        self.records[path] = load_yaml(path, kind)

    def attempt(self, check: Callable[[], object]) -> None:
        """Run a check and keep the fault that it finds."""
        try:
            check()
        except ConfigError as error:
            if str(error) not in self.faults:
                self.faults.append(str(error))

    def findings(self) -> Iterator[Finding]:
        yield from (Finding("problem", self.folder, fault) for fault in self.faults)
        if not self.faults:
            verb = "is" if len(self.paths) == 1 else "are"
            yield Finding("ok", self.folder, f"{counted(len(self.paths), 'file')} {verb} valid")


class _Names(NamedTuple):
    """Names that a model may use."""

    suites: dict[str, None]
    workloads: dict[str, None]
    architectures: dict[str, Architecture]


def _check_references(model: ModelConfig, where: str, names: _Names) -> None:
    """Check that every name in a model's file exists.

    Raises:
        ConfigError: a name does not exist.
    """
    from tasks.checkpoint.formats.precision import PRECISIONS
    from tasks.quality.sources import suite_from

    for checkpoint in model.checkpoints:
        if checkpoint.precision is not None:
            choose(
                dict.fromkeys(PRECISIONS), checkpoint.precision, f"{where}: precision of {checkpoint.source}"
            )
    if model.architecture is not None:
        choose(names.architectures, model.architecture, f"{where}: architecture")
    if model.suite not in names.suites and not Path(model.suite).suffix:
        suite_from([model.suite], family=None, limit=None, out_dir=Home.current().path / "tasks")
    if not Path(model.workload).suffix:
        choose(names.workloads, model.workload, f"{where}: workload")
    load_policy(model.policy)
