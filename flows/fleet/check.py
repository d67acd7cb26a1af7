"""Check that the names in a fleet's file exist in the other files of configs/."""

from __future__ import annotations

from collections.abc import Mapping
from zoneinfo import available_timezones

from prefect.client.schemas.schedules import CronSchedule

from quantgate.model.config.fleet import FleetFile, Pool, fleet_path, load_fleet
from quantgate.model.config.gpus import choose_gpu, load_gpus
from quantgate.model.config.models import ModelConfig, load_models
from quantgate.model.errors import ConfigError
from quantgate.model.yaml_file import choose
from tasks.engine import environment


def checked_fleet(models: Mapping[str, ModelConfig] | None = None) -> FleetFile:
    """Read the fleet's file and check every name in it.

    Args:
        models: by name; those of configs/models if None.

    Raises:
        ConfigError: a GPU, engine, model, precision, cron or timezone does not exist; the hint is the nearest name.
    """
    fleet, where = load_fleet(), fleet_path().name
    for name, pool in fleet.pools.items():
        _check_pool(pool, f"{where}: pools.{name}")
    nightly = fleet.matrix
    by_name = load_models() if models is None else dict(models)
    chosen: list[ModelConfig] = [choose(by_name, name, f"{where}: matrix.models") for name in nightly.models]
    precisions = dict.fromkeys(c.precision for model in chosen for c in model.candidates if c.precision)
    for precision in nightly.precisions:
        choose(precisions, precision, f"{where}: matrix.precisions")
    _check_schedule(nightly.cron, nightly.timezone, f"{where}: matrix")
    return fleet


def _check_pool(pool: Pool, where: str) -> None:
    gpus = load_gpus()
    choose_gpu(gpus, pool.gpu, f"{where}.gpu")
    if pool.simulated_by is not None:
        choose(gpus, pool.simulated_by, f"{where}.simulated_by")
    if pool.engine is not None:
        choose(environment.engines(), pool.engine, f"{where}.engine")


def _check_schedule(cron: str, timezone: str, where: str) -> None:
    """Check the schedule as the server would, which only sees it after the pools are made."""
    choose(dict.fromkeys(available_timezones()), timezone, f"{where}.timezone")
    try:
        CronSchedule(cron=cron, timezone=timezone)
    except ValueError:
        hint = 'Write five fields: minute, hour, day, month, weekday ("0 1 * * *": every night at 1).'
        raise ConfigError(f"'{cron}' is not a cron schedule", where=f"{where}.cron", hint=hint) from None
