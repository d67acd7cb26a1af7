"""Turn a user's JSONL into a task of lm-eval's: a generated YAML beside typed data."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from quantgate.model.errors import ConfigError, nearest_hint
from quantgate.model.yaml_file import Strict, fingerprint_of

PASSAGE_FIELDS = ("cluster", "passage_id", "passage", "article")
SUBJECT_FIELDS = ("subject", "category")
CLUSTER_FIELDS = (*PASSAGE_FIELDS, *SUBJECT_FIELDS)
"""Fields of a document that say which others it belongs with; the first one that it has counts."""

TEXT_FIELDS = ("context", "narrative", "story")
"""Fields of lm-eval's tasks that hold a passage, which several documents may share."""

KEYS = ("id", "prompt", "answer", "choices", *CLUSTER_FIELDS)
"""Keys that a line may have."""

EXAMPLE = 'A line is {"prompt": "…", "answer": "…"}, with "choices": ["…", "…"] for multiple choice.'

MAX_GENERATED_TOKENS = 1024
"""Longest reply in tokens, however long the answers are."""


class Document(Strict):
    """One document, normalized. ``choices`` and ``gold`` are empty where the answer is generated."""

    id: str
    prompt: str
    answer: str
    choices: tuple[str, ...] = ()
    gold: int = -1
    cluster: str | None = None
    subject: str | None = None


def read_documents(path: Path) -> list[Document]:
    """Read the documents of a JSONL file: all generated, or all multiple choice.

    Args:
        path: a file with one JSON object a line; blank lines are skipped.

    Raises:
        ConfigError: the first thing that is wrong, with file and line.
    """
    documents: list[Document] = []
    lines: dict[str, int] = {}
    for number, line in _lines(path):
        where = f"{path}:{number}"
        document, has_id = _document(_object(line, where), where)
        if documents and bool(document.choices) != bool(documents[0].choices):
            kinds = ("multiple choice", "generated")[:: 1 if document.choices else -1]
            raise ConfigError(
                f"is {kinds[0]} while the lines above are {kinds[1]}",
                where=where,
                hint="Give each kind a file of its own.",
            )
        if has_id and document.id in lines:
            raise ConfigError(
                f"id '{document.id}' is on line {lines[document.id]} already",
                where=where,
                hint="Make it unique, or leave ids out.",
            )
        lines.setdefault(document.id, number)
        documents.append(document)
    if not documents:
        raise ConfigError("holds no documents", where=str(path), hint=EXAMPLE)
    return documents


def write_task(path: Path, out_dir: Path, name: str = "") -> Path:
    """Turn a JSONL file into a task of lm-eval's.

    The folder's name carries a hash of the content, so that another file of the same name never
    replaces one that a run is reading.

    Args:
        path: the user's JSONL.
        out_dir: folder below which the task's own folder is made.
        name: the task's, fit for a file's; the sanitized stem of ``path`` if empty.

    Returns:
        The YAML's path; its ``task`` is the name.

    Raises:
        ConfigError: the JSONL is missing or wrong.
    """
    documents = read_documents(path)
    by_file = not name
    name = name or re.sub(r"[^a-z0-9]+", "_", path.stem.lower()).strip("_") or "documents"
    content = fingerprint_of([document.model_dump() for document in documents])
    folder = out_dir / f"{name}-{content[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    # Parquet and not JSON: from JSON, `datasets` would make timestamps of answers that look like dates.
    schema = _schema(documents)
    rows = [{name: getattr(document, name) for name in schema.names} for document in documents]
    data = folder / f"{name}.parquet"
    _replace(data, lambda part: pq.write_table(pa.Table.from_pylist(rows, schema=schema), part))
    settings = {"task": name, **_settings(documents), "metadata": {"version": 1}}
    settings["dataset_kwargs"] = {"data_files": {"test": data.name}}
    # A suite names the task, so that the file may be called otherwise and it is the same task.
    text = f"# Made from {path.name if by_file else 'a JSONL'}; edit that file, not this one.\n"
    text += yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    target = folder / f"{name}.yaml"
    _replace(target, lambda part: part.write_text(text, encoding="utf-8"))
    return target


def _settings(documents: list[Document]) -> dict[str, Any]:
    """Return lm-eval's settings for these documents."""
    shared = {"dataset_path": "parquet", "test_split": "test", "doc_to_text": "prompt"}
    if documents[0].choices:
        return {
            **shared,
            "output_type": "multiple_choice",
            "doc_to_choice": "choices",
            "doc_to_target": "gold",
            "target_delimiter": "",  # the choices bring theirs
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        }
    # A token holds a byte at least, so a reply of more tokens than the longest answer has bytes is wrong.
    longest = max(len(document.answer.encode()) for document in documents)
    one_line = not any("\n" in document.answer for document in documents)
    return {
        **shared,
        "output_type": "generate_until",
        "doc_to_target": "answer",
        "generation_kwargs": {
            "until": ["\n"] if one_line else [],
            "do_sample": False,
            "temperature": 0.0,
            "max_gen_toks": min(max(32, longest + 16), MAX_GENERATED_TOKENS),
        },
        "filter_list": [
            {"name": "trimmed", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]}
        ],
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }


def _schema(documents: Sequence[Document]) -> pa.Schema:
    fields = [("id", pa.string()), ("prompt", pa.string()), ("answer", pa.string()), ("cluster", pa.string())]
    if any(document.subject is not None for document in documents):
        fields.append(("subject", pa.string()))
    if documents[0].choices:
        fields += [("choices", pa.list_(pa.string())), ("gold", pa.int64())]
    return pa.schema(fields)


def _replace(target: Path, write: Callable[[Path], object]) -> None:
    """Write beside ``target``, then put it in place at once."""
    part = target.with_name(f".{target.name}.part")
    write(part)
    part.replace(target)


def _lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines that are not blank, with their numbers."""
    try:
        with path.open(encoding="utf-8-sig") as file:  # not str.splitlines: a prompt may have U+2028
            return [(number, line) for number, line in enumerate(file, 1) if line.strip()]
    except FileNotFoundError:
        raise ConfigError("no such file", where=str(path), hint="Give the path of a JSONL file.") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"is not UTF-8 ({error.reason})", where=str(path), hint="Convert it.") from None
    except OSError as error:
        raise ConfigError(f"can't be read ({error.strerror})", where=str(path), hint="Check it.") from None


def _object(line: str, where: str) -> dict[str, Any]:
    """Parse the JSON object of one line, which has known keys only."""
    try:
        value = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        problem = (
            f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else "too deep"
        )
        raise ConfigError(f"is not JSON: {problem}", where=where, hint=EXAMPLE) from None
    if not isinstance(value, dict):
        raise ConfigError("is not a JSON object", where=where, hint=EXAMPLE)
    for key in value:
        if key not in KEYS:
            hint = nearest_hint(key, KEYS, f"Known keys: {', '.join(KEYS)}.")
            raise ConfigError(f"unknown key '{key}'", where=where, hint=hint)
    for key in ("prompt", "answer"):
        if value.get(key) is None:
            raise ConfigError(f"has no '{key}'", where=where, hint=EXAMPLE)
    return value


def _text(value: Any, key: str, where: str) -> str:
    """Return a string, or a number as JSON writes it."""
    if isinstance(value, str):
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise ConfigError(
                f"'{key}' holds half of a surrogate pair", where=where, hint="Correct the text."
            )
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return json.dumps(value)
    raise ConfigError(f"'{key}' is neither text nor a number", where=where, hint=EXAMPLE)


def _document(value: dict[str, Any], where: str) -> tuple[Document, bool]:
    """Return the document of one line, and True if it brought an id."""
    prompt = _text(value["prompt"], "prompt", where)
    if not prompt:
        raise ConfigError("'prompt' is empty", where=where, hint=EXAMPLE)
    choices: tuple[str, ...] = ()
    gold = -1
    if value.get("choices") is None:
        answer = _text(value["answer"], "answer", where).strip()
        if not answer:
            raise ConfigError("'answer' is empty", where=where, hint=EXAMPLE)
    else:
        choices = _choices(value["choices"], where)
        gold = _gold(value["answer"], value["choices"], choices, where)
        answer = choices[gold]
        between = "" if prompt[-1].isspace() else " "
        choices = tuple(between + choice for choice in choices)
    given = value.get("id")
    has_id = given is not None
    name = _text(given, "id", where) if has_id else fingerprint_of([prompt, answer, choices])[:16]
    cluster, subject = (_first(value, keys, where) for keys in (PASSAGE_FIELDS, SUBJECT_FIELDS))
    return Document(
        id=name, prompt=prompt, answer=answer, choices=choices, gold=gold, cluster=cluster, subject=subject
    ), has_id


def _first(value: dict[str, Any], keys: Sequence[str], where: str) -> str | None:
    given = next((key for key in keys if value.get(key) is not None), None)
    return None if given is None else _text(value[given], given, where)


def _choices(value: Any, where: str) -> tuple[str, ...]:
    """Return the choices' texts, trimmed: at least two, none empty, all different."""
    if not isinstance(value, list):
        raise ConfigError("'choices' is not a list", where=where, hint=EXAMPLE)
    choices = tuple(_text(choice, "choices", where).strip() for choice in value)
    if len(choices) < 2:
        raise ConfigError("'choices' holds fewer than two", where=where, hint=EXAMPLE)
    if not all(choices):
        raise ConfigError("a choice is empty", where=where, hint="Give it a text.")
    twice = next((choice for choice in choices if choices.count(choice) > 1), None)
    if twice is not None:
        raise ConfigError(f"choice '{twice}' is listed twice", where=where, hint="Make the choices differ.")
    return choices


def _gold(value: Any, given: list[Any], choices: tuple[str, ...], where: str) -> int:
    """Return the index of the right choice, given as that choice or as an index from 0.

    A number that is itself one of the choices is that choice: among 3, 4 and 5 no one means the index.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and value in [choice for choice in given if isinstance(choice, int | float)]:
        return given.index(value)
    if isinstance(value, str) and value.strip() in choices:
        return choices.index(value.strip())
    if number and value in range(len(choices)):
        return int(value)
    shown = json.dumps(value, ensure_ascii=False)[:60]
    hint = f"Give one choice's text, or its index, 0 to {len(choices) - 1}."
    raise ConfigError(f"answer {shown} is not among the choices", where=where, hint=hint)
