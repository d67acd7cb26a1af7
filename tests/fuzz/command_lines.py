"""Command lines of junk: every verb with options that it has, or has not, and values that it does not expect."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import click

from commands.main import cli

WORDS = (
    *(
        "",
        " ",
        "\udcff\udc80",
        "\u202e\x1b[2J",
        "a" * 5000,
        "a/" * 3000,
        "-1",
        "0",
        "1e999",
        "nan",
        "9" * 400,
    ),
    *(
        "../../..",
        "/",
        "/dev/zero",
        "/dev/null",
        "/nowhere/x.yaml",
        "~nobody-here/x",
        "--",
        "-",
        "=",
        "a=",
        "=b",
    ),
    *("a=b", "a={b: [", "a: &a [*a]", "a=&a [*a]", f"a={'[' * 5000}", "a=2026-02-30", f"a={'9' * 400}"),
    *("max-model-len=.nan", "max-model-len=-1", "tensor-parallel-size=0", "lora-modules={a: {b: [1]}}"),
    *(
        "speculative-config={model: [1]}",
        "chat-template={{",
        "seed=!!python/name:os.sep ''",
        "hf-overrides={<<: x}",
    ),
    *(
        "gsm8k",
        "demo",
        "quantgate-demo",
        "h100",
        "standard",
        "a/b@c",
        "org/name",
        "00000000-0000-0000-0000-000000000000",
    ),
    *(
        "'",
        '"; --',
        "SELECT 1",
        "SELECT * FROM runs",
        "{}",
        "[]",
        "null",
        "\n",
        "1,,2",
        "1,1",
        "%s%n",
        "é\u2028",
    ),
)


def _verbs(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for verb, inner in command.commands.items():
            yield from _verbs(inner, f"{name} {verb}".strip())
    else:
        yield name, command


VERBS = dict(_verbs(cli, ""))


def words(verb: str, random: Random) -> list[str]:
    """Return a command line of a verb."""
    line = verb.split()
    for parameter in random.sample(VERBS[verb].params, random.randint(0, min(5, len(VERBS[verb].params)))):
        for _ in range(random.choice([1, 1, 1, 2])):
            if isinstance(parameter, click.Option):
                line.append(random.choice([*parameter.opts, *parameter.secondary_opts]))
            if not (isinstance(parameter, click.Option) and parameter.is_flag):
                known = parameter.type.choices if isinstance(parameter.type, click.Choice) else ()
                line.append(str(random.choice([*WORDS, *known, *known])))
    if random.random() < 0.2:
        line.insert(
            random.randrange(len(line) + 1), random.choice([*WORDS, "--no-such-option", "-h", "--version"])
        )
    return line
