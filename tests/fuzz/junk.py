"""Harmful content, made from content that is right: what a mutation does is its name."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import yaml

DEEP = 100_000
JUNK_VALUES: tuple[Any, ...] = (
    *(None, True, "", " ", "\0", "é\u2028\u202e", "a" * 5000, "../../etc", "/", "~nobody-here/x", "%s{}"),
    *(0, -1, 1 << 63, -(1 << 70), 10**400, 0.1, -0.0, 1e308, float("nan"), float("inf"), float("-inf")),
    *([], {}, [[]], [None], {"": None}, {"a": {"b": [1]}}, [0] * 50, "2026-02-30", "0x1F", "1_000", "on"),
)
YAML_LINES = (
    "a: 2026-02-30",
    "a: 2026-02-28T25:61:61Z",
    "? [a]: b",
    "? {a: b}\n: c",
    "{[a]: b}",
    "a: !!binary 'no base64!'",
    "a: !!int x",
    "a: !!float x",
    "a: !!timestamp x",
    "a: !!set [a]",
    "a: !!omap {a: b}",
    "a: !!pairs {a: b}",
    "a: !!python/name:os.sep ''",
    "a: !unknown b",
    "a: !<tag:%C3%28> b",
    "a: !!bool maybe",
    "<<: [a]",
    "<<: {a: b}\n<<: {a: c}",
    "a: *nowhere",
    "a: &a [*a]",
    "a: &a {<<: *a}",
    "a: 0b",
    "a: 0x_",
    "a: 1:99:99",
    "a: 0o8",
    "a: -_",
    "a: ._",
    "=: b\na: =",
    "a: 1" + "0" * 5000,
    "a: 0x" + "f" * 5000,
    "a: 1" + ":59" * 3000,
    "---\na: b\n---\na: c",
    "%YAML 9.9\n---\na: b",
    'a: "\\ud800"',
    'a: "\\x00"',
    "a: \t- b",
    "a: ? ",
    "- a",
    "5",
    "~",
    "a: .nan",
    "a: .inf",
    "null: 1",
    "2026-01-01: b",
    "1.5: b",
    "true: b",
)
BOMB = "".join(
    ["a0: &a0 [x, x]\n", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))]
)
MERGE_BOMB = "".join(
    ["a0: &a0 {x: 1}\n", *(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12))]
)
JSON_TEXTS = (
    "[" * DEEP + "]" * DEEP,
    '{"a":' * DEEP + "1" + "}" * DEEP,
    "1" + "0" * 5000,
    '{"a": 1' + "0" * 5000 + "}",
    "NaN",
    '{"a": NaN, "b": -Infinity}',
    '{"a": 1, "a": 2}',
    '{"a": "\\ud800"}',
    '{"a": 1e999}',
    "null",
    "[]",
    "{}",
    '"text"',
    "\ufeff{}",
)

Mutation = Callable[[bytes, Random], bytes]


def _cut(seed: bytes, random: Random) -> bytes:
    return seed[: random.randrange(len(seed) + 1)]


def _flipped(seed: bytes, random: Random) -> bytes:
    changed = bytearray(seed)
    for _ in range(random.randint(1, 8)):
        changed[random.randrange(len(changed))] = random.randrange(256)
    return bytes(changed)


def _without_a_part(seed: bytes, random: Random) -> bytes:
    begin = random.randrange(len(seed))
    return seed[:begin] + seed[begin + random.randint(1, 40) :]


def _with_a_part_twice(seed: bytes, random: Random) -> bytes:
    begin = random.randrange(len(seed))
    part = seed[begin : begin + random.randint(1, 200)]
    return seed[:begin] + part * random.randint(2, 5) + seed[begin:]


def _with_bytes(seed: bytes, random: Random) -> bytes:
    at = random.randrange(len(seed) + 1)
    stray = random.choice(
        [b"\0", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\r", b"\x1b[2J", b"\xe2\x80\xa8", b"\t"]
    )
    return seed[:at] + stray + seed[at:]


def _encoded(seed: bytes, random: Random) -> bytes:
    return seed.decode("utf-8", "replace").encode(
        random.choice(["utf-16", "utf-8-sig", "utf-32", "utf-16-be"])
    )


def _yaml_line(seed: bytes, random: Random) -> bytes:
    line = random.choice(YAML_LINES).encode()
    return random.choice([line, seed + b"\n" + line, line + b"\n" + seed])


def _yaml_bomb(seed: bytes, random: Random) -> bytes:
    bombs = [BOMB, MERGE_BOMB, "a: " + "[" * DEEP, "a: " + "{a: " * 5000, "- " * 20_000, "? " * 20_000]
    return random.choice(bombs).encode() + random.choice([b"", b"\n" + seed])


def _json_text(seed: bytes, random: Random) -> bytes:
    text = random.choice(JSON_TEXTS).encode()
    return random.choice([text, text, seed.replace(b"}", b', "a": ' + text + b"}", 1)])


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every part of a value, as what holds it and the key there."""
    for key in (
        list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    ):
        yield value, key
        yield from places(value[key])


def _changed(value: Any, random: Random) -> Any:
    """Return the value with one part replaced, removed or renamed."""
    whole = [copy.deepcopy(value)]
    holder, key = random.choice(list(places(whole)))
    match random.randrange(4):
        case 0 if isinstance(holder, dict):
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[random.choice(["", "\0", "x" * 300, f"{key}x"])] = holder.pop(key)
        case _:
            holder[key] = random.choice(JUNK_VALUES)
    return whole[0]


def _json_part(seed: bytes, random: Random) -> bytes:
    lines = seed.splitlines()
    try:
        return json.dumps(_changed(json.loads(seed), random)).encode()
    except ValueError:
        at = random.randrange(len(lines))
        lines[at] = json.dumps(_changed(json.loads(lines[at]), random)).encode()
        return b"\n".join(lines) + b"\n"


def _yaml_part(seed: bytes, random: Random) -> bytes:
    return yaml.safe_dump(_changed(yaml.safe_load(seed.replace(b"!function ", b"")), random)).encode()


def _cell(seed: bytes, random: Random) -> bytes:
    lines = [line.split(b",") for line in seed.splitlines()]
    row = random.choice(lines)
    row[random.randrange(len(row))] = str(random.choice(JUNK_VALUES)).encode("utf-8", "replace")
    return b"\n".join(b",".join(line) for line in lines)


def _header(seed: bytes, random: Random) -> bytes:
    """A safetensors header with one part changed, or a wrong length before it."""
    size = int.from_bytes(seed[:8], "little")
    if random.random() < 0.3:
        lengths = [0, 1, size - 1, size + 1, len(seed), 99_000_000, 1 << 32, (1 << 63) + 1, (1 << 64) - 1]
        return random.choice(lengths).to_bytes(8, "little") + seed[8:]
    part = random.choice([_json_part, _json_text])
    header = part(seed[8 : 8 + size], random)
    return len(header).to_bytes(8, "little") + header + seed[8 + size :]


ANY: dict[str, Mutation] = {
    "cut": _cut,
    "bytes changed": _flipped,
    "a part missing": _without_a_part,
    "a part repeated": _with_a_part_twice,
    "stray bytes": _with_bytes,
    "empty": lambda _seed, random: random.choice([b"", b" ", b"\n\n", b"\xef\xbb\xbf"]),
    "random bytes": lambda _seed, random: random.randbytes(random.randint(1, 400)),
}
TEXT = ANY | {"another encoding": _encoded}
MUTATIONS: dict[str, dict[str, Mutation]] = {
    "yaml": TEXT | {"odd YAML": _yaml_line, "YAML bomb": _yaml_bomb, "another value": _yaml_part},
    "json": TEXT | {"odd JSON": _json_text, "another value": _json_part},
    "csv": TEXT | {"another value": _cell},
    "text": TEXT,
    "safetensors": ANY | {"another header": _header},
    "binary": ANY,
}


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


NO_FILES: dict[str, Callable[[Path], None]] = {
    "missing": lambda path: None,
    "a folder": lambda path: path.mkdir(),
    "a pipe": _fifo,
    "a link to itself": _loop,
    "a link to nowhere": lambda path: path.symlink_to("nowhere"),
    "an endless device": lambda path: path.symlink_to("/dev/zero"),
    "an empty device": lambda path: path.symlink_to("/dev/null"),
    "larger than any": _sparse,
}
