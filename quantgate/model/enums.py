"""Closed enumerations of the public contract; SQL and files store their values."""

from __future__ import annotations

from enum import StrEnum


class Evidence(StrEnum):
    """Source of a figure."""

    MEASURED = "measured"
    IMPORTED = "imported"
    PUBLISHED = "published"
    ESTIMATED = "estimated"


class KernelMode(StrEnum):
    """How the hardware computed the quantized layers, worst first.

    ``emulated`` dequantizes before an ordinary product: evidence of quality, not of speed.
    """

    EMULATED = "emulated"
    WEIGHT_ONLY = "weight_only"
    NATIVE = "native"


class Weights(StrEnum):
    """Origin of the weights: a checkpoint, or random (``--load-format dummy``)."""

    REAL = "real"
    DUMMY = "dummy"


class Validity(StrEnum):
    """Validity of a measurement; ``quarantined`` comes with reasons."""

    VALID = "valid"
    QUARANTINED = "quarantined"


class Verdict(StrEnum):
    """Decision on a checkpoint for one use."""

    BASELINE = "BASELINE"
    VALIDATED = "VALIDATED"
    REJECTED = "REJECTED"
    INCONCLUSIVE = "INCONCLUSIVE"
    NOT_COMPARABLE = "NOT_COMPARABLE"
    UNVALIDATED = "UNVALIDATED"


class Outcome(StrEnum):
    """Decision on one task of a candidate."""

    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    UNDECIDED = "undecided"
    INSENSITIVE = "insensitive"
    """The baseline scores too little for a loss of the margin to show; the task can't pass."""


class TestKind(StrEnum):
    """Statistical test that decides a task."""

    __test__ = False  # no test class of pytest's

    EXACT = "exact"
    """Exact test of right/wrong scores."""
    BETTING = "bounded"
    """Betting test of any scores from 0 to 1; stored under its first name."""
    CLUSTER = "cluster"
    """Tests of clusters, where documents share subjects or passages."""


class Family(StrEnum):
    """Task families that a policy gives margins to."""

    CONVERSATION = "conversation"
    KNOWLEDGE = "knowledge"
    MATH = "math"
    REASONING = "reasoning"
    SCIENCE = "science"
    CODE = "code"
    LONG_CONTEXT = "long_context"
    CUSTOM = "custom"


class PriceKind(StrEnum):
    """The terms a GPU is rented on."""

    ON_DEMAND = "on_demand"
    SPOT = "spot"
    RESERVED = "reserved"


class EngineKind(StrEnum):
    """Origin of an engine's environment: made with uv, or an interpreter that has vLLM already."""

    UV = "uv"
    PYTHON = "python"
