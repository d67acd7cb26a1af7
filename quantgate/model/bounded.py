"""The one way to parse what others wrote: its size, its depth, its numbers and its references are bounded.

A file is read only if it is a regular one. Nothing is built from YAML before its events have been counted.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from quantgate.model.errors import ConfigError

FILE_BYTES = 256 << 20
"""Most bytes of a file that is parsed whole; the largest tokenizers and indexes of weights have a tenth of it."""
DATA_BYTES = 4 << 30
"""Most bytes of a file of documents."""
YAML_BYTES = 32 << 20
DEPTH = 64
"""Most levels of maps and lists in each other."""
NODES = 2_000_000
"""Most values of a YAML, with each reference counted as all that it stands for."""
INTEGER_DIGITS = 300
"""Most digits of a whole number in JSON: every such number is finite as a float, and tokenizers write 10^30."""
INTEGER_MAX = (1 << 63) - 1
"""Largest whole number in YAML: what a column holds."""

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_QUOTED_CHARACTERS = 1 << 20
"""Most characters of a faulty YAML that is read again, slowly, for a message that quotes the fault."""


class RefusedError(ValueError):
    """Content that is not read.

    Args:
        what: what is wrong with it, in a few words.
        line: the line, from 1 on; 0 where none is known.
        column: the column, from 1 on; 0 where none is known.
    """

    def __init__(self, what: str, line: int = 0, column: int = 0) -> None:
        """Keep where it is."""
        super().__init__(what)
        self.line, self.column = line, column


class TooMuchError(RefusedError):
    """Content beyond a bound: no fault of its syntax."""


def reason(error: Exception) -> str:
    """Return why a file can't be read, in a few words."""
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def open_file(path: Path, most_bytes: int = FILE_BYTES) -> BinaryIO:
    """Open a regular file of at most so many bytes, and never wait for a pipe or a device.

    Raises:
        OSError: it can't be read, is no regular file, or is larger.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError:
        raise OSError(errno.EINVAL, "No file has such a name", ascii(str(path))) from None
    facts = os.fstat(descriptor)
    if stat.S_ISREG(facts.st_mode) and facts.st_size <= most_bytes:
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(facts.st_mode):
        raise IsADirectoryError(errno.EISDIR, "Is a directory", str(path))
    if not stat.S_ISREG(facts.st_mode):
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    raise OSError(errno.EFBIG, f"Larger than {most_bytes >> 20:,} MiB", str(path))


def read_bytes(path: Path, most_bytes: int = FILE_BYTES) -> bytes:
    """Read a file as `open_file` opens it."""
    with open_file(path, most_bytes) as file:
        return file.read()


def read_text(path: Path, most_bytes: int = FILE_BYTES, encoding: str = "utf-8") -> str:
    """Read a text as `read_bytes` reads a file; every end of a line is a newline.

    Raises:
        OSError: as `read_bytes`.
        UnicodeDecodeError: it is in another encoding.
    """
    return read_bytes(path, most_bytes).decode(encoding).replace("\r\n", "\n").replace("\r", "\n")


def parse_json(text: str | bytes, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """Parse JSON.

    Args:
        text: in UTF-8 if it is bytes.
        pairs: makes an object of its names and values; a dict by default.

    Raises:
        RefusedError: it is no JSON, or beyond a bound.
    """
    try:
        written = text.decode("utf-8") if isinstance(text, bytes) else text
        value = json.loads(written, parse_int=_integer, object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        raise RefusedError(error.msg, error.lineno, error.colno) from None
    except UnicodeDecodeError as error:
        raise RefusedError(f"not UTF-8: {error.reason}") from None
    except RecursionError:
        raise TooMuchError(f"nested more than {DEPTH} deep") from None
    _check_depth(value)
    if _SURROGATE.search(written):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise RefusedError("holds half of a surrogate pair") from None
    return value


def _integer(digits: str) -> int:
    if len(digits) > INTEGER_DIGITS:
        raise TooMuchError(f"holds a number of {len(digits):,} digits")
    return int(digits)


def _check_depth(value: Any) -> None:
    """Refuse a value of too many levels, without recursion."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(DEPTH):
        if not level:
            return
        level = [
            part
            for whole in level
            for part in (whole.values() if isinstance(whole, dict) else whole)
            if isinstance(part, dict | list)
        ]
    if level:
        raise TooMuchError(f"nested more than {DEPTH} deep")


class _Bounded(yaml.constructor.SafeConstructor):
    """Build values; whatever does not fit its tag is an error with its line."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Build a value."""
        try:
            value = super().construct_object(node, deep)
        except yaml.YAMLError:
            raise
        except (ValueError, TypeError, LookupError, OverflowError, AttributeError) as error:
            kind = str(node.tag).rpartition(":")[2]
            shown = repr(node.value)[:60] if isinstance(node, yaml.ScalarNode) else "it"
            raise _problem(f"{shown} is no {kind} ({str(error)[:100]})", node) from None
        if isinstance(value, int) and abs(value) > INTEGER_MAX:
            raise _problem("a number is too large", node)
        return value


class _Strict(_Bounded):
    """Refuse a key that is listed twice or comes from elsewhere, and what is no finite number."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Build a value."""
        value = super().construct_object(node, deep)
        if isinstance(value, float) and not math.isfinite(value):
            raise _problem(f"{value} is not finite", node)
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping of keys that differ."""
        seen = set()
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if key_node.tag.endswith(":merge"):
                raise _problem("'<<' is not read here", key_node)
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float | None):
                raise _problem("a key is neither text nor a number", key_node)
            if key in seen:
                raise _problem(f"key '{key}' is listed twice", key_node)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _problem(what: str, node: yaml.Node) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, what, node.start_mark)


# libyaml's parser, where PyYAML has it: about five times as fast.
_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
PlainLoader: Any = type("PlainLoader", (_Bounded, _PARSER), {})
"""Of files whose meaning another program decides."""
FileLoader: Any = type("FileLoader", (_Strict, _PARSER), {})
"""Of our own files."""
ValueLoader: Any = type("ValueLoader", (_Strict, _PARSER), {})
"""Of one value on the command line: a date is a text."""
_OLD_NUMBER = r"(?![-+]?(?:0[0-7_]+|[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?)$)"
"""Numbers of YAML 1.1 in base 8 (010) and base 60 (12:30)."""


def _resolvers(timestamps: bool) -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """Return what a plain text may stand for; numbers as YAML 1.2 has them."""
    return {
        first: [
            (tag, re.compile(f"{_OLD_NUMBER}(?:{pattern.pattern})", pattern.flags))
            if tag.endswith((":int", ":float"))
            else (tag, pattern)
            for tag, pattern in resolvers
            if timestamps or not tag.endswith(":timestamp")
        ]
        for first, resolvers in _PARSER.yaml_implicit_resolvers.items()
    }


FileLoader.yaml_implicit_resolvers = _resolvers(timestamps=True)
ValueLoader.yaml_implicit_resolvers = _resolvers(timestamps=False)


def parse_yaml(text: str, loader: Any = FileLoader) -> Any:
    """Parse one document of YAML.

    Args:
        text: the document.
        loader: a loader of PyYAML's that builds plain values only.

    Raises:
        RefusedError: it is no YAML, or beyond a bound.
    """
    try:
        _count(text, _PARSER)
        return yaml.load(text, Loader=loader)  # noqa: S506 - a safe one
    except yaml.YAMLError as error:
        raise _explained(text, error) from None
    except UnicodeEncodeError:
        raise RefusedError("holds half of a surrogate pair") from None


def _explained(text: str, error: yaml.YAMLError) -> RefusedError:
    """Return the error, in the words of the parser that quotes the faulty text."""
    if len(text) <= _QUOTED_CHARACTERS:
        try:
            _count(text, yaml.SafeLoader)
        except (yaml.YAMLError, TooMuchError) as quoted:
            if not isinstance(quoted, TooMuchError):
                error = quoted
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or "not valid YAML"
    return RefusedError(problem, mark.line + 1 if mark else 0)


def _count(text: str, parser: Any) -> None:
    """Refuse a YAML of too many levels or values, from its events; a reference counts as what it stands for.

    Raises:
        TooMuchError: it is beyond a bound.
        yaml.YAMLError: it is no YAML.
    """
    values: dict[str | None, int | None] = {}
    begun: list[tuple[str | None, int]] = []
    total = 0
    for event in yaml.parse(text, Loader=parser):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, before = begun.pop()
            values[anchor] = total - before
        elif isinstance(event, yaml.AliasEvent):
            size = values.get(event.anchor, 1)
            if size is None:
                raise TooMuchError(f"'{event.anchor}' contains itself", line)
            total += size
        elif isinstance(event, yaml.NodeEvent):
            is_begun = isinstance(event, yaml.CollectionStartEvent)
            values[event.anchor] = None if is_begun else 1
            begun += [(event.anchor, total)] * is_begun
            total += 1
        if len(begun) > DEPTH:
            raise TooMuchError(f"nested more than {DEPTH} deep", line)
        if total > NODES:
            raise TooMuchError(f"stands for more than {NODES:,} values", line)


def named_path(text: str) -> Path:
    """Return the path that a text names, whether there is such a file or not; ``~`` stands for a home.

    Raises:
        ConfigError: no file can have this name.
    """
    path = Path(os.path.expanduser(text))  # noqa: PTH111 - Path's raises where there is no such user
    try:
        path.lstat()
    except ValueError:  # a NUL, half of a surrogate pair
        problem = "no file can have this name"
    except OSError as error:
        problem = "the name is too long for a file" if error.errno == errno.ENAMETOOLONG else ""
    else:
        problem = ""
    if problem:
        raise ConfigError(problem, where=ascii(text)[:80], hint="Give the path of a file.")
    return path


def real_path(path: Path) -> Path:
    """Return the path without links; a loop of links is left as it is."""
    return Path(os.path.realpath(path))
