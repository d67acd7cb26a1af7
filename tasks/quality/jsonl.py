"""Turn a user's JSONL into a task of lm-eval's: a generated YAML beside typed data."""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pydantic import Field

from quantgate.model.bounded import DATA_BYTES, RefusedError, parse_json, read_text, reason
from quantgate.model.disk import writing_to
from quantgate.model.errors import ConfigError
from quantgate.model.yaml_file import Strict, fingerprint_of
from tasks.progress import Reporter

PASSAGE_FIELDS = ("cluster", "passage_id", "passage", "article")
SUBJECT_FIELDS = ("subject", "category")
CLUSTER_FIELDS = (*PASSAGE_FIELDS, *SUBJECT_FIELDS)
"""Fields of a document that say which others it belongs with; the first one that it has counts."""

TEXT_FIELDS = ("context", "narrative", "story")
"""Fields of lm-eval's tasks that hold a passage, which several documents may share."""

KEYS = ("id", "prompt", "answer", "choices", *CLUSTER_FIELDS)
"""Keys of a line that mean something; others are metadata."""

OTHER_NAMES = {
    "prompt": ("question", "input", "messages"),
    "answer": ("target", "expected"),
    "choices": ("options",),
}
"""Names that a key may have instead, in a line without it."""
_SUGGESTED = {
    "prompt": ("instruction", "query", "problem", "text"),
    "answer": (
        *("output", "ideal", "completion", "response", "reference", "solution", "label", "gold"),
        *("expected_output", "expected_answer", "correct_answer", "answerKey"),
    ),
}
"""Names that may mean a key, for a hint only."""
_MORE_TO_ASK = ("instruction", "context", "system", "passage", "article")
"""Names of texts that belong to a question: a prompt without them would ask something else."""

EXAMPLE = 'A line is {"prompt": "…", "answer": "…"}, with "choices": ["…", "…"] for multiple choice.'

MOST_NAMED = 10
"""Keys of metadata that are named."""

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
    metadata: dict[str, Any] = Field(default_factory=dict, exclude=True)
    """Other keys of the line; no part of the question, its hash or its id."""


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
    _report_metadata(documents, path)
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
    extra = folder / f"{name}.metadata.jsonl"
    if any(document.metadata for document in documents):
        lines = (json.dumps({"id": document.id, **document.metadata}) for document in documents)
        _replace(extra, lambda part: part.write_text("\n".join(lines) + "\n", encoding="utf-8"))
    else:
        extra.unlink(missing_ok=True)
    # A suite names the task, so that the file may be called otherwise and it is the same task.
    text = f"# Made from {path.name if by_file else 'a JSONL'}; edit that file, not this one.\n"
    text += yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    target = folder / f"{name}.yaml"
    _replace(target, lambda part: part.write_text(text, encoding="utf-8"))
    return target


def _report_metadata(documents: list[Document], path: Path) -> None:
    """Name the keys that are not asked, in one line, each with what it may have been meant as."""
    names = dict.fromkeys(key for document in documents for key in document.metadata)
    shown = []
    for name in names:
        near = difflib.get_close_matches(name.lower(), KEYS, n=1, cutoff=0.8)
        shown.append(f"{name} (is '{near[0]}' meant?)" if near else name)
    if shown:
        more = f" and {len(shown) - MOST_NAMED} more" if len(shown) > MOST_NAMED else ""
        listed = ", ".join(shown[:MOST_NAMED])
        Reporter.current().line(f"{path.name}: kept as metadata, not asked: {listed}{more}")


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
    """Write beside ``target``, then put it in place at once.

    Raises:
        RunError: the disk is full; nothing stays beside it.
    """
    part = target.with_name(f".{target.name}.part")
    with writing_to(target):
        try:
            write(part)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)


def _lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines that are not blank, with their numbers."""
    try:
        lines = read_text(path, DATA_BYTES, "utf-8-sig").split(
            "\n"
        )  # not splitlines: a prompt may have U+2028
        return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    except FileNotFoundError:
        raise ConfigError("no such file", where=str(path), hint="Give the path of a JSONL file.") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"is not UTF-8 ({error.reason})", where=str(path), hint="Convert it.") from None
    except OSError as error:
        raise ConfigError(f"can't be read ({reason(error)})", where=str(path), hint="Check it.") from None


def _object(line: str, where: str) -> dict[str, Any]:
    """Parse the JSON object of one line, and give its keys their own names."""
    try:
        value = parse_json(line)
    except RefusedError as error:
        column = f" at column {error.column}" if error.column else ""
        raise ConfigError(f"is not JSON: {error}{column}", where=where, hint=EXAMPLE) from None
    if not isinstance(value, dict):
        raise ConfigError("is not a JSON object", where=where, hint=EXAMPLE)
    return _named(value, where)


def _named(value: dict[str, Any], where: str) -> dict[str, Any]:
    """Return a line's object with `prompt`, `answer` and `choices` under these names, whatever it calls them.

    Raises:
        ConfigError: it has no prompt or answer, or more than one thing that could be it.
    """
    named = dict(value)
    for key in OTHER_NAMES:
        other = _other_name(key, value, where)
        if other is not None:
            named[key] = named.pop(other)
            if key == "prompt" and isinstance(named[key], list):
                named |= _of_messages(named[key], value, other, where)
    for key, names in _SUGGESTED.items():
        if named.get(key) is None:
            near = [name for name in names if name in value]
            near = near or difflib.get_close_matches(key, [name for name in value if name != key], n=1)
            hint = f"Is it '{near[0]}'? Call it '{key}'." if near else EXAMPLE
            raise ConfigError(f"has no '{key}'", where=where, hint=hint)
    if "choices" not in named:
        for name in value:
            if difflib.get_close_matches("choices", [name.lower()], cutoff=0.8):
                raise ConfigError(f"unknown key '{name}'", where=where, hint="Did you mean 'choices'?")
    return named


def _other_name(key: str, value: dict[str, Any], where: str) -> str | None:
    """Return the other name that a line has for a key; None where it has the key, or no name for it."""
    given = [name for name in OTHER_NAMES[key] if value.get(name) is not None]
    if value.get(key) is not None or not given:
        return None
    if len(given) > 1:
        hint = f"Call one '{key}'."
        raise ConfigError(f"has no '{key}', but '{given[0]}' and '{given[1]}'", where=where, hint=hint)
    beside = [name for name in _MORE_TO_ASK if value.get(name) is not None]
    if key == "prompt" and beside:
        hint = "Write all that is asked as 'prompt'."
        raise ConfigError(f"has '{beside[0]}' beside '{given[0]}'", where=where, hint=hint)
    return given[0]


def _of_messages(messages: list[Any], value: dict[str, Any], name: str, where: str) -> dict[str, Any]:
    """Return the prompt of a chat of one user's message, and the answer where the assistant's follows it.

    Raises:
        ConfigError: it is another chat, whose messages one prompt does not hold.
    """
    roles = [message.get("role") if isinstance(message, dict) else None for message in messages]
    answered = roles == ["user", "assistant"]
    if roles != ["user"] and not answered:
        shown = ", ".join(map(str, roles)) or "none"
        hint = "Write as 'prompt' what is asked, and as 'answer' what is right."
        raise ConfigError(
            f"'{name}' is not one user's message and an answer ({shown})", where=where, hint=hint
        )
    if answered and any(value.get(key) is not None for key in ("answer", *OTHER_NAMES["answer"])):
        raise ConfigError(
            f"has an answer, and '{name}' another one", where=where, hint="Leave out the assistant's message."
        )
    contents = [_content(message.get("content"), name, where) for message in messages]
    return dict(zip(("prompt", "answer"), contents, strict=False))


def _content(content: Any, name: str, where: str) -> str:
    """Return the text of a message, which may be given in parts."""
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    texts = [part.get("text") if isinstance(part, dict) else None for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise ConfigError(f"'{name}' holds more than text", where=where, hint=EXAMPLE)
    return "".join(map(str, texts))


def _text(value: Any, key: str, where: str) -> str:
    """Return a string, or a number as JSON writes it."""
    if isinstance(value, str):
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
        id=name,
        prompt=prompt,
        answer=answer,
        choices=choices,
        gold=gold,
        cluster=cluster,
        subject=subject,
        metadata={key: given for key, given in value.items() if key not in KEYS},
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
    twice = next((choice for choice, times in Counter(choices).items() if times > 1), None)
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
