"""Options of a command are made from the record of its parameters."""

from __future__ import annotations

import click
import pytest

from commands.main import cli
from commands.measure import demo, matrix, validate
from commands.verb import overwrites
from docs.pages.commands import walk
from flows.parameters import FORM_ONLY, DemoParameters, MatrixParameters, Parameters, ValidateParameters

VALIDATE = (
    "--precision --baseline --candidate --name --tasks --family --limit --full --workload --concurrency --policy --gpu "
    "--watch --engine --engine-arg --chat-template --run-generated-code --fresh --update-pins --require-validated model"
)
LINE = (
    "m --precision fp8 --precision nvfp4 --family math --limit 7 --concurrency 1,8 --no-chat-template --fresh "
    "--engine-arg max-model-len=4096 --engine-arg --enforce-eager=true --engine-arg lora-modules={a:"
)
MATRIX = "--model --precision --pool --dry-run --budget-usd --format --everything"


@pytest.mark.parametrize(
    ("command", "names"),
    [
        (validate.command, VALIDATE),
        (matrix.command, MATRIX),
        (demo.command, "--fresh --quick --require-validated"),
    ],
)
def test_public_names_of_options_stay(command: click.Command, names: str) -> None:
    assert sorted(option.opts[0] for option in command.params) == sorted(names.split())


@pytest.mark.parametrize(
    ("command", "record", "own"),
    [
        (validate.command, ValidateParameters, {"gpu", "watch", "require_validated"}),
        (matrix.command, MatrixParameters, {"form"}),
        (demo.command, DemoParameters, {"require_validated"}),
    ],
)
def test_without_options_a_command_has_the_defaults_of_its_record(
    command: click.Command, record: type[Parameters], own: set[str]
) -> None:
    given = command.make_context("x", []).params
    offered = {name for name, field in record.model_fields.items() if FORM_ONLY not in field.metadata}
    assert given.keys() == offered | own
    assert record(**{name: value for name, value in given.items() if name in offered}) == record()


OVERWRITTEN = [
    pytest.param(command, option, id=f"{path} {option.opts[-1]}")
    for command, path in walk(cli)
    for option in command.params
    if isinstance(option, click.Option) and not (option.multiple or option.count)
]


@pytest.mark.parametrize(("command", "option"), OVERWRITTEN)
def test_no_option_is_silently_overwritten_by_its_repetition(
    command: click.Command, option: click.Option
) -> None:
    """A flag that can only be set may be set again; every other option that is not multiple is refused."""
    name, off = option.opts[-1], option.secondary_opts
    value = (
        [] if option.is_flag else [option.type.choices[0] if isinstance(option.type, click.Choice) else "1"]
    )
    repeated = [name, *value, *(off or [name]), *value]
    if overwrites(option):
        with pytest.raises(click.UsageError, match=rf"Option {name}.* is given 2 times\. Give it once"):
            command.make_context("x", repeated)
    else:
        assert (option.is_flag, off) == (True, [])


def test_every_option_is_covered_and_tasks_may_be_repeated() -> None:
    assert len(OVERWRITTEN) > 30
    given = validate.command.make_context(
        "x", ["m", "--tasks", "gsm8k", "--tasks", "./mine.jsonl", "--tasks", "demo"]
    )
    assert ValidateParameters(tasks=given.params["tasks"]).tasks == ["gsm8k", "./mine.jsonl", "demo"]


def test_each_kind_of_value_is_read() -> None:
    given = validate.command.make_context("x", LINE.split()).params
    own = {"gpu", "watch", "require_validated"}
    parameters = ValidateParameters(**{name: value for name, value in given.items() if name not in own})
    assert parameters.model_dump(exclude_defaults=True) == {
        "model": "m",
        "precisions": ["fp8", "nvfp4"],
        "family": "math",
        "limit": 7,
        "concurrency": [1, 8],
        "chat_template": False,
        "fresh": True,
        "engine_arguments": {"max-model-len": 4096, "enforce-eager": True, "lora-modules": "{a:"},
    }
    with pytest.raises(click.BadParameter, match="0 is not in the range x>=1"):
        validate.command.make_context("x", ["--limit", "0"])
