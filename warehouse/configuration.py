"""The configuration that lies in the warehouse too: prices, GPUs and policies, replaced when they change."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from quantgate.model.config import (
    ROOT,
    GpuFile,
    Policy,
    PolicyFile,
    PriceFile,
    PriceOffer,
    choose,
    fingerprint_of,
    load_yaml,
)
from quantgate.model.errors import ConfigError
from warehouse.database import Connection, insert_rows
from warehouse.rows import policy_row

CONFIGS = ROOT / "configs"


@dataclass(frozen=True)
class Configuration:
    """What ``configs/`` says of prices, GPUs and policies."""

    gpus: GpuFile
    prices: PriceFile
    policies: PolicyFile

    def digest(self) -> str:
        """SHA-256 (hex) of its content."""
        return fingerprint_of(
            [part.model_dump(mode="json") for part in (self.gpus, self.prices, self.policies)]
        )


def read_configuration(configs: Path = CONFIGS) -> Configuration:
    """Read gpus.yaml, prices.yaml and policy.yaml of a folder.

    Raises:
        ConfigError: a file is missing or wrong, a price names no known GPU, ends before it begins, or stands
            twice.
    """
    configuration = Configuration(
        load_yaml(configs / "gpus.yaml", GpuFile),
        load_yaml(configs / "prices.yaml", PriceFile),
        load_yaml(configs / "policy.yaml", PolicyFile),
    )
    for number, offer in enumerate(configuration.prices.prices):
        choose(configuration.gpus.gpus, offer.gpu, f"prices.yaml: prices.{number}.gpu")
        if offer.valid_to is not None and offer.valid_to <= offer.valid_from:
            raise ConfigError(
                f"valid_to {offer.valid_to} isn't after valid_from {offer.valid_from}",
                where=f"prices.yaml: prices.{number}",
                mend="Correct the dates.",
            )
    twice = [key for key, count in Counter(map(_series, configuration.prices.prices)).items() if count > 1]
    if twice:
        raise ConfigError(
            f"two offers for {', '.join(map(str, twice[0]))}",
            where="prices.yaml",
            mend="Keep one, or give the newer its own valid_from.",
        )
    return configuration


def _series(offer: PriceOffer) -> tuple[object, ...]:
    return (offer.provider, offer.region, offer.gpu, offer.gpu_count, str(offer.price_kind), offer.valid_from)


def refresh(connection: Connection, configuration: Configuration) -> None:
    """Replace prices, GPUs and the list of current policies; policies that runs declared stay."""
    connection.execute("DELETE FROM store.price_offers")
    insert_rows(connection, "price_offers", (offer.model_dump() for offer in configuration.prices.prices))
    connection.execute("DELETE FROM store.gpus")
    insert_rows(
        connection,
        "gpus",
        ({**gpu.model_dump(), "gpu": key} for key, gpu in configuration.gpus.gpus.items()),
    )
    connection.execute("DELETE FROM store.current_policies")
    for name, policy in configuration.policies.policies.items():
        add_policy(connection, name, policy)
        insert_rows(connection, "current_policies", [policy_row(name, policy)])


def add_policy(connection: Connection, name: str, policy: Policy) -> None:
    """Store a policy unless it is there already."""
    known = connection.execute(
        "SELECT 1 FROM store.policies WHERE policy = ? AND policy_fingerprint = ?",
        [name, policy.fingerprint()],
    ).fetchall()
    if not known:
        insert_rows(connection, "policies", [policy_row(name, policy)])
