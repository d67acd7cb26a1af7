"""Compare what the hub says of a model's checkpoints with configs/models; only small files are fetched.

HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE are read from the environment at each call; a saved token is not used.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from huggingface_hub import HfApi, ModelInfo, hf_hub_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from pydantic import AliasChoices

from quantgate.model.bounded import named_path
from quantgate.model.config.architectures import ModelConfigKeys
from quantgate.model.config.models import CheckpointConfig
from quantgate.model.errors import ConfigError
from quantgate.model.home import ROOT
from tasks.checkpoint.files import check_listing, is_served, read_json, read_json_if_any, read_weights
from tasks.checkpoint.formats.precision import classify, stated_format
from tasks.checkpoint.formats.quant_config import QUANT_FILE, sections
from tasks.checkpoint.hub import endpoint, offline, token
from tasks.checkpoint.resolve import check_source
from tasks.checkpoint.retry import GaveUpError, Patience, Waiting
from tasks.progress import Reporter

TIMEOUT_S = 20.0
PATIENCE = Patience(tries=3, longest_wait_s=60, total_wait_s=90)
"""Short, since a user waits for the answer."""
IDENTITY = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "num_experts")
"""Keys of config.json that differ between models."""


class CheckpointStatus(IntEnum):
    """Result of checking a checkpoint, the worst last."""

    OK = 0
    UNREACHED = 1
    NOTE = 2
    PROBLEM = 3


class Report(NamedTuple):
    """Status of one checkpoint, and all remarks in one line."""

    status: CheckpointStatus
    line: str


class _Seen:
    """Facts and remarks about one checkpoint, and the worst status among them."""

    def __init__(self, source: str) -> None:
        self.source, self.status = source, CheckpointStatus.OK
        self.facts: list[str] = []
        self.remarks: list[str] = []

    def add(self, status: CheckpointStatus, remark: str) -> None:
        self.status = max(self.status, status)
        self.remarks.append(remark)

    def problem(self, remark: str) -> None:
        self.add(CheckpointStatus.PROBLEM, remark)

    def note(self, remark: str) -> None:
        self.add(CheckpointStatus.NOTE, remark)

    def report(self) -> Report:
        said = "; ".join((", ".join(self.facts), *self.remarks) if self.facts else self.remarks)
        return Report(self.status, " ".join(f"{self.source}: {said}".split()))


class HubAudit:
    """The hub as one round of checks sees it: once it can't be reached, it isn't asked again.

    Args:
        pins: the commit that an id without a revision stands for, by id.
        patience: how long a hub in trouble is waited for.
    """

    def __init__(self, pins: Mapping[str, str], patience: Patience | None = None) -> None:
        """Read the settings of the environment; the hub is not asked yet."""
        self.pins = pins
        self.patience, self.endpoint, self.token = patience or PATIENCE, endpoint(), token()
        self.api = HfApi(endpoint=self.endpoint, token=self.token)
        self.unreachable = "HF_HUB_OFFLINE is set" if offline() else ""

    def check(self, checkpoint: CheckpointConfig, shape: ModelConfigKeys | None) -> Report:
        """Compare one checkpoint with its declaration; a fault is reported as a line, never raised.

        Args:
            checkpoint: as configs/models declares it.
            shape: what configs/architectures says of its model; not compared if None.

        Returns:
            The worst that was seen, and all of it in one line. UNREACHED: the hub could not be asked.
        """
        seen = _Seen(checkpoint.source)
        folder = ROOT / named_path(checkpoint.source)
        try:
            if folder.is_dir():
                _check_folder(folder, checkpoint, shape, seen)
            else:
                check_source(checkpoint.source)
                self._check_repository(checkpoint, shape, seen)
        except ConfigError as error:
            seen.problem(f"{error.what}. {error.hint}".rstrip(". "))
        except (
            Exception
        ) as error:  # a service of others and three network libraries: whatever it is, one line
            self._add_refusal(error, seen)
        return seen.report()

    def _check_repository(
        self, checkpoint: CheckpointConfig, shape: ModelConfigKeys | None, seen: _Seen
    ) -> None:
        if self.unreachable:
            seen.add(CheckpointStatus.UNREACHED, f"not checked: {self.unreachable}")
            return
        repo, pin = checkpoint.source, checkpoint.revision or self.pins.get(checkpoint.source)
        waiting = Waiting(self.patience, repo, Reporter.current())
        info = self._info(repo, pin, waiting)
        served = [file for file in info.siblings or [] if is_served(file.rfilename)]
        size_gb = sum(file.size or 0 for file in served) / 1e9
        seen.facts += [f"{size_gb:,.1f} GB", f"{str(info.sha)[:12]} {'pinned' if pin else 'is main'}"]
        if pin:
            newest = self._info(repo, None, waiting).sha
            if newest != info.sha:
                seen.note(f"main has moved to {str(newest)[:12]} since")
        names = [file.rfilename for file in info.siblings or []]
        seen.facts += _license(info)
        _compare_gating(checkpoint, info, seen)
        check_listing(names, repo)
        config, hf_quant = self._small_files(repo, str(info.sha), QUANT_FILE in names, waiting)
        if info.gated:
            seen.facts.append("gated, access granted")
        _compare_config(config, shape, seen)
        stated = stated_format(config, hf_quant, repo)
        _compare_precision(checkpoint, stated.precision, stated.weight_format, stated.declared.remarks, seen)

    def _info(self, repo: str, revision: str | None, waiting: Waiting) -> ModelInfo:
        return waiting.call(
            lambda: self.api.model_info(repo, revision=revision, files_metadata=True, timeout=TIMEOUT_S)
        )

    def _small_files(
        self, repo: str, sha: str, quantized: bool, waiting: Waiting
    ) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """Fetch config.json and hf_quant_config.json outside the cache, which a partial snapshot would mislead."""
        with TemporaryDirectory(prefix="quantgate-") as cache:
            get = partial(
                hf_hub_download, repo, revision=sha, cache_dir=cache, endpoint=self.endpoint, token=self.token
            )
            contents = [
                read_json(Path(waiting.call(partial(get, filename=name))), repo)
                for name in ("config.json", *([QUANT_FILE] if quantized else []))
            ]
        return contents[0], contents[1] if quantized else None

    def _add_refusal(self, error: Exception, seen: _Seen) -> None:
        """Report an error of the hub's client, as a problem or as bad luck."""
        if isinstance(error, GaveUpError):
            error = error.error
        response = getattr(error, "response", None)
        status = getattr(response, "status_code", None)
        if isinstance(error, GatedRepoError):
            token = "the token may not read it" if self.token else "no token is set"
            hint = "Accept its terms on the hub, and set HF_TOKEN to a token that may read it"
            seen.problem(f"gated, and {token} (HTTP {status}). {hint}")
        elif isinstance(error, RepositoryNotFoundError):
            hint = "Correct the id; a private one needs HF_TOKEN"
            seen.problem(f"the hub shows no such repository (HTTP {status}). {hint}")
        elif isinstance(error, RevisionNotFoundError):
            seen.problem("it has no such revision any more. Pin another commit")
        elif isinstance(error, HfHubHTTPError) and status in {401, 403}:
            seen.problem(
                f"the hub refused the token (HTTP {status}). Renew HF_TOKEN or unset it",
            )
        elif isinstance(error, HfHubHTTPError) and status is not None:
            seen.note(f"not checked: the hub answered HTTP {status}. Try again later")
        else:
            cause = error.__cause__ or error
            reason = (str(cause).strip() or type(cause).__name__).splitlines()[0][:120]
            self.unreachable = f"the hub can't be reached ({reason})"
            seen.add(CheckpointStatus.UNREACHED, f"not checked: {self.unreachable}")


def _check_folder(
    folder: Path, checkpoint: CheckpointConfig, shape: ModelConfigKeys | None, seen: _Seen
) -> None:
    """Check a local folder by its files' headers."""
    where = checkpoint.source
    check_listing([path.name for path in folder.iterdir() if path.is_file()], where)
    config = read_json(folder / "config.json", where)
    weights = read_weights(folder, where)
    size_gb = sum(path.stat().st_size for path in weights.files) / 1e9
    seen.facts += [f"{size_gb:,.3g} GB", "a local folder"]
    _compare_config(config, shape, seen)
    hf_quant = read_json_if_any(folder / QUANT_FILE, where)
    stored = classify(config, hf_quant, weights.tensors, where)
    _compare_precision(checkpoint, stored.precision, stored.weight_format, stored.remarks, seen)


def _license(info: ModelInfo) -> list[str]:
    """Return the license that the model card names."""
    card = info.card_data
    named = (card.get("license_name") or card.get("license")) if card else None
    return [f"license {named}"] if isinstance(named, str) else []


def _compare_gating(checkpoint: CheckpointConfig, info: ModelInfo, seen: _Seen) -> None:
    """Compare the declared gating with the hub's, if the hub says."""
    if info.gated and not checkpoint.gated:
        seen.problem("the hub gates it: write 'gated: true' in its file")
    if info.gated is False and checkpoint.gated:
        seen.note("declared as gated, but the hub does not gate it")


def _compare_config(config: Mapping[str, Any], shape: ModelConfigKeys | None, seen: _Seen) -> None:
    """Note the architecture's class, and compare the keys that show another model."""
    classes = config.get("architectures")
    seen.facts.append(str(classes[0]) if isinstance(classes, list) and classes else "no architecture named")
    if shape is None:
        return
    merged = {key: value for section in sections(config) for key, value in section.items()}
    for name in IDENTITY:
        alias = ModelConfigKeys.model_fields[name].validation_alias
        keys = [str(key) for key in alias.choices] if isinstance(alias, AliasChoices) else [name]
        stated = next((merged[key] for key in keys if merged.get(key) is not None), None)
        expected = getattr(shape, name)
        if stated is not None and expected is not None and stated != expected:
            seen.problem(f"config.json has {name} {stated}, configs/architectures {expected}")


def _compare_precision(
    checkpoint: CheckpointConfig,
    precision: str | None,
    weight_format: str,
    remarks: tuple[str, ...],
    seen: _Seen,
) -> None:
    """Compare the declared precision with what the files say, if they do; note what is odd about them."""
    for remark in remarks:
        seen.note(remark)
    if precision is None:
        seen.note("config.json doesn't state its dtype: the weights show it at the pull")
        return
    seen.facts.append(f"{precision} ({weight_format})")
    if checkpoint.precision is not None and checkpoint.precision != precision:
        seen.problem(f"declared as {checkpoint.precision}, but its files say {precision}")
