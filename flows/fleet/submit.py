"""Submit a run to the pool that has the GPU, after checking what can be checked on this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from flows.fleet.deployments import validate_parameters
from flows.fleet.dispatch import ATTEMPTS, in_progress, is_queued, runs_by_key, with_keys
from flows.fleet.server import OUTDATED, is_refusal, what_went_wrong
from flows.naming import name_of, tags_of
from flows.parameters import PublishMode, ValidateParameters
from flows.planning.pools import pool_facts
from flows.planning.request import check_arguments, checkpoints_of, chosen_model, declare_work
from quantgate.model.bounded import named_path
from quantgate.model.config.engines import EngineConfig
from quantgate.model.config.fleet import FleetFile, fleet_path
from quantgate.model.config.policy import load_policy
from quantgate.model.errors import ConfigError
from quantgate.model.home import ROOT, Home
from quantgate.model.yaml_file import choose, fingerprint_of
from tasks.engine import environment
from tasks.engine.argument_files import LORA, PATHS, SPECULATIVE
from tasks.engine.arguments import dashed, gpu_count, serving_arguments
from tasks.quality import sources
from tasks.quality.suite import suite_content

MARK = "quantgate.submission"
"""Label of a run that says which submission made it: the server gives a key's second submitter the first one's run."""


class Submission(NamedTuple):
    """A pool, the parameters of a run on it, and notes for the user."""

    pool: str
    parameters: ValidateParameters
    notes: list[str]
    digest: str
    """Of the parameters and of what they name on this machine (hex)."""


def pool_of(fleet: FleetFile, gpu: str) -> str:
    """Return the pool of that name, or the only one that has that GPU type.

    Raises:
        ConfigError: no pool or several pools have it.
    """
    if gpu in fleet.pools:
        return gpu
    by_gpu: dict[str, list[str]] = {}
    for name, pool in fleet.pools.items():
        by_gpu.setdefault(pool.gpu, []).append(name)
    pools: list[str] = choose(by_gpu | {name: [name] for name in fleet.pools}, gpu, fleet_path().name)
    if len(pools) > 1:
        raise ConfigError(
            f"several pools have {gpu}", where=fleet_path().name, hint=f"Name one: {', '.join(pools)}."
        )
    return pools[0]


def prepare(fleet: FleetFile, gpu: str, parameters: ValidateParameters, home: Home) -> Submission:
    """Make a run's parameters valid on another host, and check them.

    Args:
        fleet: the pools.
        gpu: a GPU type, or a pool's name.
        parameters: as given on this machine; paths may be relative.
        home: the check writes the task of a JSONL there.

    Raises:
        ConfigError: the first thing that is wrong.
    """
    name = pool_of(fleet, gpu)
    pool = fleet.pools[name]
    local: list[str] = []
    absolute = partial(_absolute, local=local)
    paths = {
        "baseline": parameters.baseline and absolute(parameters.baseline),
        "candidates": [absolute(source) for source in parameters.candidates],
        "tasks": [absolute(tasks) for tasks in parameters.tasks],
        "workload": parameters.workload and absolute(parameters.workload),
        "engine_arguments": _arguments_absolute(dashed(parameters.engine_arguments), absolute),
    }
    for suite in (named_path(tasks) for tasks in parameters.tasks):
        if sources.is_suite(suite):
            questions = [path.resolve() for path in sources.jsonl_files(suite)]
            local += [str(path) for path in questions if not path.is_relative_to(ROOT)]
    given = parameters.model_dump(mode="json", exclude_none=True)
    own = {"gpu": pool.measured_gpu, "afterwards": PublishMode.FLEET}
    sent = ValidateParameters.model_validate({**validate_parameters(pool), **given, **paths, **own})
    notes = []
    if local:
        notes.append(f"must have the same path on the hosts of pool {name}: {', '.join(local)}")
    named: list[Any] = [sent.model_dump(mode="json")]
    elsewhere = [path for path in local if not Path(path).exists()]
    config = _engine(fleet, name, sent.engine)
    if elsewhere:
        # Only the pool's hosts can check what is not on this machine; the rest is checked.
        notes.append(f"not on this machine, so only the pool's hosts check it: {', '.join(elsewhere)}")
        model = chosen_model(sent)
        load_policy(sent.policy or model.policy)
        for checkpoint in checkpoints_of(model, sent):
            gpu_count(serving_arguments(config, checkpoint.engine_arguments))
    else:
        work = declare_work(sent, home)
        named += [
            suite_content(work.suite),
            work.workload.model_dump(mode="json"),
            work.policy.model_dump(mode="json"),
        ]
        named += [checkpoint.model_dump(mode="json") for checkpoint in work.checkpoints]
        for checkpoint in work.checkpoints:
            check_arguments(checkpoint, config, work)
    if pool.simulated_by:
        notes.append(
            f"pool {name} has no {pool.gpu}, {pool.simulated_by} stands for it: its rows say gpu={pool.simulated_by}"
        )
    return Submission(name, sent, notes, fingerprint_of(named)[:16])


def _engine(fleet: FleetFile, pool: str, name: str | None) -> EngineConfig:
    """Return the engine that a run names, or that of the pool's hosts as far as this machine knows it.

    Raises:
        ConfigError: there is no engine of that name.
    """
    if name:
        return environment.load_engine(name, "")[1]
    (facts,) = pool_facts(fleet, [pool])
    return facts.engine


def _arguments_absolute(arguments: Mapping[str, Any], absolute: Callable[[str], str]) -> dict[str, Any]:
    """Return engine arguments with absolute paths of the files and folders that they name."""
    resolved = dict(arguments)
    for key in PATHS:
        # A chat template may be given as text, which is not a path.
        if isinstance(resolved.get(key), str) and not {"\n", "{"} & set(resolved[key]):
            resolved[key] = absolute(resolved[key])
    if LORA in resolved:
        adapters = resolved[LORA]
        resolved[LORA] = (
            [_adapter_absolute(adapter, absolute) for adapter in adapters]
            if isinstance(adapters, list)
            else _adapter_absolute(adapters, absolute)
        )
    draft = resolved.get(SPECULATIVE)
    if isinstance(draft, dict) and isinstance(draft.get("model"), str):
        resolved[SPECULATIVE] = {**draft, "model": absolute(draft["model"])}
    return resolved


def _adapter_absolute(given: Any, absolute: Callable[[str], str]) -> Any:
    """Make one value of ``lora-modules`` absolute; ``argument_files.adapter_of`` has its forms and checks it."""
    if isinstance(given, str):
        name, equals, path = given.partition("=")
        return f"{name}={absolute(path)}" if equals and path else given
    if not isinstance(given, dict):
        return given
    folders = {"path"} if {"name", "path"} <= given.keys() else given.keys()
    return {
        key: absolute(value) if key in folders and isinstance(value, str) and value else value
        for key, value in given.items()
    }


def _absolute(given: str, local: list[str]) -> str:
    """Return a path as another process understands it, and add it to the local ones if only this host has it.

    A name or a hub id stays as it is, and so does a part of the checkout, which every host has.
    """
    path = named_path(given)
    if not path.is_absolute():
        if not (path.exists() and (path.is_dir() or path.suffix)):
            return given
        path = path.resolve()
        if path.is_relative_to(ROOT) and (ROOT / given).resolve() == path:
            return given
    local.append(str(path))
    return str(path)


class Submitted(NamedTuple):
    """A run on the server."""

    run: FlowRun
    joined: bool
    """True if the run was queued or running already."""


def submit(client: SyncPrefectClient, submission: Submission) -> Submitted:
    """Give the run to its pool's deployment, or join the same run that is queued or running there.

    It is the same run if pool, parameters and everything that they name on this machine are the same; one that a form,
    a schedule or a matrix started is not looked at. A run that has ended is not joined: a new one reuses what was
    measured. With ``fresh`` a run that has begun isn't joined either, since it may have measured a part long ago; one
    that is still queued will measure all of it, so it is joined.

    Two submitters at the same moment get the same run: they choose the same idempotency key.

    Raises:
        ConfigError: the server has no such deployment, or refuses the parameters.
    """
    name = f"validate/{submission.pool}"
    try:
        deployment = client.read_deployment_by_name(name)
    except ObjectNotFound:
        raise ConfigError(
            "the server has no such deployment", where=name, hint="`quantgate fleet init` makes it."
        ) from None
    stem = f"validate {submission.pool} {submission.digest}"
    joinable = is_queued if submission.parameters.fresh else in_progress
    while True:
        key, same = _free_key(client, stem, joinable)
        if same is not None:
            return Submitted(same, joined=True)
        mark = {MARK: uuid4().hex}
        run = _create(client, deployment.id, submission, key, mark)
        if run.labels.get(MARK) == mark[MARK]:
            return Submitted(run, joined=False)
        if joinable(run):
            return Submitted(run, joined=True)


def _create(
    client: SyncPrefectClient, deployment_id: UUID, submission: Submission, key: str, mark: dict[str, str]
) -> FlowRun:
    """Return the run of a key, which another submitter may have made."""
    try:
        return client.create_flow_run_from_deployment(
            deployment_id,
            parameters={"parameters": submission.parameters.model_dump(mode="json", exclude_defaults=True)},
            name=name_of(submission.parameters),
            tags=tags_of(submission.parameters),
            idempotency_key=key,
            labels={**mark},
        )
    except PrefectHTTPStatusError as error:
        if not is_refusal(error):
            raise
        raise ConfigError(
            what_went_wrong(error), where=f"validate/{submission.pool}", hint=OUTDATED
        ) from None


def _free_key(
    client: SyncPrefectClient, stem: str, joinable: Callable[[FlowRun], bool]
) -> tuple[str, FlowRun | None]:
    """Return the first key of a stem that no run has used up, and the run to join, if it has one."""
    first = 1
    while True:
        keys = [f"{stem} {attempt}" for attempt in range(first, first + ATTEMPTS)]
        runs = client.read_flow_runs(flow_run_filter=with_keys(keys), limit=ATTEMPTS)
        for key, run in runs_by_key(keys, runs):
            if run is None or joinable(run):
                return key, run
        first += ATTEMPTS
