"""Check before anything is measured that a baseline is what it is named as: the unquantized original of its candidates.

A folder's name proves nothing. What the files show is compared: precision, architecture, shape and tokenizer. What the
candidate's own files say of their source is compared too, and only reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from quantgate.bundles.identity import baseline_weights, weights
from quantgate.bundles.manifest import Manifest
from quantgate.bundles.store import Declared
from quantgate.model.bounded import PlainLoader, parse_yaml, read_bytes, read_text
from quantgate.model.config.answer_settings import answer_settings
from quantgate.model.config.models import CheckpointConfig
from quantgate.model.errors import ConfigError
from quantgate.model.records import Checkpoint
from tasks.checkpoint.files import read_json, read_json_if_any, source_folders
from tasks.checkpoint.formats.precision import UNQUANTIZED
from tasks.checkpoint.formats.quant_config import sections
from tasks.checkpoint.hub import HUB_ID
from tasks.checkpoint.resolve import is_folder
from tasks.engine.arguments import dashed
from tasks.progress import Reporter

SHAPE = (
    "model_type",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "num_local_experts",
    "num_experts",
    "n_routed_experts",
)
"""Keys of config.json, and of its text_config, that no quantizer changes."""

PADDING = 1024
"""Rows by which two vocabularies may differ: exporters pad the embedding."""

_OTHER_TOKENIZERS = (
    "tokenizer.model",
    "tiktoken.model",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tekken.json",
    "spiece.model",
)
"""Tokenizer files that are compared where not both checkpoints have a tokenizer.json."""

_NOT_ONLY_QUANTIZED = ("finetune", "adapter", "merge")
"""Values of a model card's base_model_relation by which a checkpoint is another model."""


def check_role(
    precision: str | None, native: str | None, where: str, arguments: Mapping[str, Any] | None = None
) -> None:
    """Refuse a quantized baseline; its model may declare that its own weights are.

    Args:
        precision: the baseline's, by its files; None where it isn't known yet.
        native: the precision that the model declares for its own weights.
        where: the baseline as messages name it.
        arguments: its own serving arguments.

    Raises:
        ConfigError: its precision is neither 16 or 32 bits nor the model's own, or the engine would quantize it.
    """
    if precision is not None and precision not in {*UNQUANTIZED.values(), (native or "").lower()}:
        raise ConfigError(
            f"a baseline has 16 or 32 bits, and the files hold {precision}",
            where=where,
            hint="Name the unquantized checkpoint; if the model has none, declare "
            f"'native_precision: {precision}' in a file of configs/models.",
        )
    if native is None and (method := dashed(arguments or {}).get("quantization")) is not None:
        raise ConfigError(
            f"'quantization={method}' would quantize the baseline",
            where=where,
            hint="Give it to the candidate alone: engine_arguments of a checkpoint in configs/models.",
        )


def check_serving(arguments: Sequence[Mapping[str, Any]], where: str) -> None:
    """Refuse a baseline that is served as another model, or with another KV cache, where a candidate is not.

    Args:
        arguments: each checkpoint's own serving arguments, the baseline's first.
        where: the baseline as messages name it.

    Raises:
        ConfigError: such an argument isn't the same for every candidate.
    """
    listed = {
        "kv-cache-dtype",
        *(name for name, rule in answer_settings().items() if rule.changes == "model"),
    }
    baseline, *candidates = [dashed(given) for given in arguments]
    for name, value in baseline.items():
        if name in listed and value != "auto" and any(other.get(name) != value for other in candidates):
            raise ConfigError(
                f"the baseline alone is served with '{name}={value}', which can change its answers",
                where=where,
                hint="Give it to the candidates too, or leave it out.",
            )


def check_pairs(checkpoints: Sequence[Checkpoint], report: Reporter) -> None:
    """Check each candidate against its baseline, and report what its own files say of its source.

    Args:
        checkpoints: resolved, the baseline first.
        report: gets a line for each candidate that names another source.

    Raises:
        ConfigError: as for `check_same_model`.
    """
    baseline, *candidates = checkpoints
    for candidate in candidates:
        check_same_model(Path(baseline.path), Path(candidate.path), candidate.source, baseline.source)
        for line in source_lines(candidate, baseline):
            report.line(line)


def check_same_model(baseline: Path, candidate: Path, where: str, reference: str) -> None:
    """Refuse a candidate that isn't the baseline quantized: another architecture, shape, vocabulary or tokenizer.

    Args:
        baseline: its folder.
        candidate: its folder.
        where: the candidate as messages name it.
        reference: the baseline as messages name it.

    Raises:
        ConfigError: they differ; the message names in what.
    """
    try:
        tokenizer = list(_tokenizer_differences(baseline, candidate, where, reference))
    except (OSError, KeyError, TypeError, AttributeError, IndexError) as error:
        hint = "Export it again, or copy the original's tokenizer files."
        raise ConfigError(f"the tokenizer can't be read ({error!r})", where=where, hint=hint) from None
    differences = [
        *_config_differences(
            read_json(baseline / "config.json", reference), read_json(candidate / "config.json", where)
        ),
        *tokenizer,
    ]
    if differences:
        raise ConfigError(
            f"is not {reference} quantized: {'; '.join(differences[:3])} (baseline, candidate)",
            where=where,
            hint="Name the checkpoint that the candidate was made from as its baseline.",
        )


def folder_of(source: str) -> Path | None:
    """Return the local folder that a source names; None for a hub id."""
    folders = (Path(source), *source_folders(source))
    return next((path for path in folders if path.is_dir()), None)


def _config_differences(baseline: Mapping[str, Any], candidate: Mapping[str, Any]) -> Iterator[str]:
    """Yield what differs of the architecture and the shape; a key that one of them leaves out says nothing."""
    architectures = [(config.get("architectures") or [None])[0] for config in (baseline, candidate)]
    if architectures[0] != architectures[1]:
        yield f"architecture {architectures[0]}, {architectures[1]}"
    for key in SHAPE:
        values = [_value(config, key) for config in (baseline, candidate)]
        if None not in values and values[0] != values[1]:
            yield f"{key} {values[0]}, {values[1]}"
    sizes = [_value(config, "vocab_size") for config in (baseline, candidate)]
    if all(type(size) is int for size in sizes) and abs(sizes[0] - sizes[1]) >= PADDING:
        yield f"vocab_size {sizes[0]}, {sizes[1]}"


def _value(config: Mapping[str, Any], key: str) -> Any:
    """Return what a configuration says under a key: its text_config's if it has one, else its own."""
    return next(
        (section[key] for section in reversed(list(sections(config))) if section.get(key) is not None), None
    )


def _tokenizer_differences(baseline: Path, candidate: Path, where: str, reference: str) -> Iterator[str]:
    """Yield what differs of the parts that make tokens; nothing where the two have no kind of file in common."""
    both = ((baseline, reference), (candidate, where))
    files = [read_json_if_any(folder / "tokenizer.json", name) for folder, name in both]
    if files[0] is not None and files[1] is not None:
        yield from _token_differences(files[0], files[1])
        return
    for name in _OTHER_TOKENIZERS:
        if all((folder / name).is_file() for folder, _ in both):
            contents = [_content(folder / name, shown) for folder, shown in both]
            if contents[0] != contents[1]:
                yield f"{name} differs"


def _content(path: Path, where: str) -> Any:
    """Return what a tokenizer's file says, without the comment that its writer puts first."""
    if path.suffix == ".json":
        return read_json(path, where)
    raw = read_bytes(path)
    return raw.split(b"\n", 1)[-1].split() if raw.startswith(b"#version") else raw


def _token_differences(baseline: Mapping[str, Any], candidate: Mapping[str, Any]) -> Iterator[str]:
    """Yield which parts of two tokenizer.json differ.

    A special token that only one has is no difference: exporters add a token to pad with, and no text contains it.
    """
    tokens, added = [_tokens(file) for file in (baseline, candidate)], [_added(baseline), _added(candidate)]
    one_has = tokens[0].keys() ^ tokens[1].keys()
    special = {token for side in added for token, is_special in side.items() if is_special}
    if one_has - special or any(
        tokens[0][token] != tokens[1][token] for token in tokens[0].keys() & tokens[1].keys()
    ):
        yield "the tokenizer's vocabulary"
    if _merges(baseline) != _merges(candidate):
        yield "the tokenizer's merges"
    if any(added[0][token] != added[1][token] for token in added[0].keys() & added[1].keys()):
        yield "the tokenizer's special tokens"


def _tokens(tokenizer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the id of every token, the added ones among them."""
    vocabulary = (tokenizer.get("model") or {}).get("vocab") or {}
    if isinstance(vocabulary, list):  # of a unigram model: piece and score
        vocabulary = {str(entry[0]): number for number, entry in enumerate(vocabulary)}
    return dict(vocabulary) | {token["content"]: token["id"] for token in tokenizer.get("added_tokens") or []}


def _added(tokenizer: Mapping[str, Any]) -> dict[str, bool]:
    """Return whether each added token is special."""
    return {token["content"]: bool(token.get("special")) for token in tokenizer.get("added_tokens") or []}


def _merges(tokenizer: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the merges in order; older versions of the library write a pair as one text."""
    merges = (tokenizer.get("model") or {}).get("merges") or []
    return [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in merges]


def source_lines(candidate: Checkpoint, baseline: Checkpoint) -> Iterator[str]:
    """Yield what a candidate's own files say of their source, where it isn't the baseline.

    Says nothing of a baseline that is a local folder: it has no hub id to compare with.
    """
    identity = None if is_folder(baseline.source) else HUB_ID.fullmatch(baseline.source)
    if identity is None:
        return
    folder, own = Path(candidate.path), identity["repo"]
    card = _front_matter(folder / "README.md")
    named = card.get("base_model") or []
    sources = [str(name) for name in ([named] if isinstance(named, str) else named)]
    stated_in = "README.md"
    if not sources:
        stated_in = "config.json"
        sources = [
            str((read_json_if_any(folder / "config.json", candidate.source) or {}).get("_name_or_path") or "")
        ]
    sources = [
        name for name in sources if HUB_ID.fullmatch(name) and name.casefold() != candidate.name.casefold()
    ]
    relation = card.get("base_model_relation")
    if sources and own.casefold() not in map(str.casefold, sources):
        yield (
            f"{candidate.name}: its {stated_in} names {', '.join(sources[:3])} as its source, and the baseline is "
            f"{own}: check that the baseline is what it was made from"
        )
    elif sources and relation in _NOT_ONLY_QUANTIZED:
        yield f"{candidate.name}: its README.md calls it a {relation} of {own}, so more was changed than its precision"


def _front_matter(card: Path) -> dict[str, Any]:
    """Return the facts at the head of a model card; nothing where it has none that can be read."""
    try:
        text = read_text(card)
        head = text.split("\n---", 1)[0].removeprefix("---") if text.startswith("---") else ""
        facts = parse_yaml(head, PlainLoader)
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def check_revision(config: CheckpointConfig, asked: Mapping[str, str]) -> None:
    """Refuse another commit of the baseline than its model declares.

    Args:
        config: the baseline, as its model declares it.
        asked: the commits that the run is asked to measure, by source.

    Raises:
        ConfigError: they differ.
    """
    revision = asked.get(config.source)
    if config.revision and revision and revision != config.revision:
        raise ConfigError(
            f"the model declares commit {config.revision[:12]} of the baseline, and {revision[:12]} is asked for",
            where=config.source,
            hint="Leave the revision out, or change it in configs/models.",
        )


def check_no_candidate(baseline: Checkpoint, runs: Iterable[Manifest], declared: Sequence[Declared]) -> None:
    """Refuse a baseline that was a candidate itself: losses within the margin would add up unseen.

    A comparison of a checkpoint with itself does not count. Whoever means it declares a model with this baseline.

    Raises:
        ConfigError: an earlier run compared it with a baseline of its own.
    """
    own = baseline.weights_sha256 or baseline.revision
    compared = [
        (run.run_id, run.baseline.name)
        for run in runs
        if run.baseline and weights(run) == own and baseline_weights(run) != own
    ] + [
        (question.run_id, question.baseline)
        for _, question, _ in declared
        if question.weights == own and question.baseline_weights != own
    ]
    if compared:
        run_id, name = compared[0]
        raise ConfigError(
            f"the baseline was itself a candidate, compared with {name} in run {run_id}",
            where=baseline.source,
            hint=f"Compare with {name}, or declare a model with this baseline in configs/models.",
        )
