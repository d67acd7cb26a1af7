"""configs/policy.yaml: requirements of a validation, declared in advance."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

from pydantic import Field, field_validator

from quantgate.model.enums import Family
from quantgate.model.home import ROOT
from quantgate.model.yaml_file import Strict, choose, fingerprint_of, load_yaml, shown_path


class FamilyPolicy(Strict):
    """Requirements of a policy for one task family."""

    margin: float = Field(gt=0, lt=1, description="Non-inferiority margin, a fraction of the score.")
    min_documents: int = Field(ge=1, description="Fewer paired documents than this validate nothing.")


class Policy(Strict):
    """A named, declared-in-advance policy of validation."""

    description: str
    alpha: float = Field(gt=0, lt=0.5, description="One-sided error rate of a false validation, per task.")
    planned_power: float = Field(gt=0, lt=1, description="Power that 'documents still needed' plans for.")
    stale_after_days: int = Field(gt=0, description="Age at which a verdict or price counts as stale.")
    families: dict[Family, FamilyPolicy]
    uses: dict[str, tuple[Family, ...]] = Field(description="Required families per use; empty: every one.")
    looks: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        default=(),
        description="Shares of a task's documents at which a candidate is judged (interim looks) and may stop; "
        "empty: only at the end.",
    )
    min_clusters: int = Field(
        default=20, ge=2, description="Fewer clusters (subjects, passages) than this decide nothing."
    )
    aa_documents: int = Field(
        default=200,
        ge=0,
        description="Documents of each task that the baseline answers again after an engine restart (A/A repeat).",
    )
    reserve: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of alpha kept for later questions about a claim: the first is judged at the rest, the "
        "second at half of the reserve, the third at a quarter, and so on, if none of their documents was asked "
        "before.",
    )
    seed: int = Field(default=0, description="Seed of the order in which documents are asked.")

    @field_validator("uses")
    @classmethod
    def _has_all(cls, uses: dict[str, tuple[Family, ...]]) -> dict[str, tuple[Family, ...]]:
        """Require the use `all`, which tables show first."""
        if uses.get("all") != ():
            raise ValueError("it must have 'all: []', the use that requires every declared family")
        return uses

    def at_question(self, number: int) -> Policy:
        """Return the policy that judges a claim's question of this number: its alphas together are at most alpha.

        Args:
            number: 1 for the first question that was asked about the claim.
        """
        if not self.reserve:
            return self
        share = 1 - self.reserve if number == 1 else self.reserve / 2 ** (number - 1)
        return self.model_copy(update={"alpha": self.alpha * share})

    def fingerprint(self) -> str:
        """Return the SHA-256 of the policy's content; settings of later versions count only where not the default."""
        content = self.model_dump(mode="json")
        later = {name: type(self).model_fields[name].default for name in _LATER}
        return fingerprint_of(
            {
                name: value
                for name, value in content.items()
                if name not in later or getattr(self, name) != later[name]
            }
        )


_LATER = ("looks", "min_clusters", "aa_documents", "reserve", "seed")
"""Settings that early policies lacked: at their defaults they leave fingerprints unchanged."""


class PolicyFile(Strict):
    """configs/policy.yaml."""

    policies: dict[str, Policy]


def load_policy(name: str, path: Path | None = None) -> Policy:
    """Read a named policy of configs/policy.yaml (or of another such file)."""
    path = path or ROOT / "configs" / "policy.yaml"
    return cast("Policy", choose(load_yaml(path, PolicyFile).policies, name, shown_path(path)))
