"""Typed records of the files of published evidence: the catalogue, the guide's tables, a row of each format."""

from __future__ import annotations

from datetime import date
from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field, model_validator

from quantgate.model.enums import PriceKind
from quantgate.model.yaml_file import Strict

Positive = Annotated[float, Field(gt=0, le=1e12, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, lt=2**31)]


class SourceFormat(StrEnum):
    """The layout of a file of published figures."""

    MLPERF = "mlperf"
    TRTLLM = "trtllm"
    SCORES = "scores"
    GUIDE = "guide"


class Dataset(Strict):
    """One file of the catalogue."""

    file: str
    format: SourceFormat
    source: str
    licence: str
    published: dict[str, date] = Field(
        default_factory=dict, description="Date by round; unknown where absent."
    )


class Correction(Strict):
    """The real number format of rows that declared another; an empty condition fits every row."""

    round: str
    submitter: str | None = None
    accelerators: tuple[str, ...] = ()
    declared: str
    precision: str | None = Field(default=None, description="Empty: unknown.")
    why: str

    def fits(self, row: MlperfRow) -> bool:
        """Return True if the correction is for that entry."""
        return (
            row.round == self.round
            and row.weight_data_types == self.declared
            and self.submitter in (None, row.submitter)
            and (not self.accelerators or row.accelerator in self.accelerators)
        )


class PublishedModel(Strict):
    """A model with published figures."""

    names: tuple[str, ...] = Field(default=(), description="Its other names in the files.")
    billion_parameters: Positive


class PrimaryScore(Strict):
    """The score that stands for a task."""

    metric: str
    filter: str


class Catalogue(Strict):
    """configs/reference/catalogue.yaml."""

    datasets: dict[str, Dataset]
    hardware: dict[str, str] = Field(description="GPU of gpus.yaml by the files' name of an accelerator.")
    precisions: dict[str, str] = Field(description="Precision by the files' name of it, lower case.")
    corrections: tuple[Correction, ...] = ()
    models: dict[str, PublishedModel]
    primary_scores: dict[str, PrimaryScore]
    score_baseline: str
    shown: tuple[str, ...] = Field(description="Models that the table of published costs shows.")

    def model_of(self, name: str) -> tuple[str, float | None]:
        """Return the model of a name in a file, and its 10^9 parameters; the name itself if unknown."""
        for model, entry in self.models.items():
            if name == model or name in entry.names:
                return model, entry.billion_parameters
        return name, None


class ReferenceCost(Strict):
    """A row of the guide's cost table, by its inputs."""

    config: str = Field(max_length=24)
    gpu: str
    precision: str
    price_kind: PriceKind
    dataset: str
    entry: str
    model: str = "llama2-70b"
    scaled_from: str | None = Field(default=None, description="GPU whose throughput is scaled by TFLOPS.")
    stated_usd_per_mtok: Positive | None = None


class ReferenceRatio(Strict):
    """A ratio of the guide, by the two quantities that it compares."""

    ratio: str = Field(max_length=30)
    quantity: str
    of: str
    to: str
    stated: Positive | None = None
    note: str | None = None


class BreakEven(Strict):
    """Two configurations of the cost table, whose costs are equal at a price to compute."""

    ratio: str = Field(max_length=30)
    of: str
    to: str


class Guide(Strict):
    """configs/reference/guide.yaml."""

    provider: str
    prices_of: date
    costs: tuple[ReferenceCost, ...]
    ratios: tuple[ReferenceRatio, ...] = ()
    break_evens: tuple[BreakEven, ...] = ()


class MlperfRow(Strict):
    """An entry of MLPerf's results."""

    round: str = Field(min_length=1)
    entry: str = Field(min_length=1)
    submitter: str
    availability: str
    system: str
    accelerator: str = Field(min_length=1)
    accelerators_per_node: Count
    nodes: Count
    model: str = Field(min_length=1)
    scenario: str
    weight_data_types: str
    software: str
    tokens_per_s: Positive
    accuracy: str | None = None
    tokens_per_s_per_accelerator: Positive

    @model_validator(mode="after")
    def _countable(self) -> MlperfRow:
        if self.accelerators_per_node * self.nodes >= 2**31:
            raise ValueError("nobody has so many accelerators")
        return self


class TrtllmRow(Strict):
    """A cell of TensorRT-LLM's performance overview."""

    model: str
    precision: str
    gpu: str
    gpu_count: Count
    parallelism: str
    isl: Count
    osl: Count
    load: str
    output_tok_s_total: Positive
    output_tok_s_per_gpu: Positive
    engine: str
    source: str


class ScoreRow(Strict):
    """An lm-eval score of one checkpoint and run."""

    model: str
    precision: str
    checkpoint: str
    revision: str | None = None
    task: str
    task_version: str
    metric: str
    filter: str
    n_docs: Count
    score: float = Field(ge=0, le=1)
    run: str
    engine: str
    gpu: str
    lm_eval: str
    source: str


class GuideRow(Strict):
    """A throughput that only the guide states."""

    entry: str
    stated_source: str
    gpu: str
    gpu_count: Count
    model: str
    precision: str
    scenario: str
    concurrency: Count | None = None
    tokens_per_s: Positive


class SummaryResult(Strict):
    """An element of MLPerf's official summary_results.json; other keys are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    entry: str = Field(alias="ID", min_length=1)
    submitter: str = Field(alias="Submitter")
    availability: str = Field(alias="Availability")
    category: str = Field(alias="Category")
    suite: str = Field(alias="Suite")
    system: str = Field(alias="System")
    model: str = Field(alias="Model")
    scenario: str = Field(alias="Scenario")
    accuracy: str | None = Field(default=None, alias="Accuracy")
    nodes: Count = Field(alias="Nodes")
    accelerator: str | None = Field(default=None, alias="Accelerator")
    accelerators_per_node: float | None = Field(default=None, allow_inf_nan=False, alias="a#")
    software: str = Field(alias="Software")
    round: str = Field(alias="version", min_length=1)
    weight_data_types: str | None = None
    result: float = Field(alias="Performance_Result")
    units: str = Field(alias="Performance_Units")
