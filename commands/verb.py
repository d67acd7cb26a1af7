"""Classes of every command: no option is silently overwritten by its repetition, and help breaks no word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import click

_HYPHEN = "\ue000"
"""Stands for a hyphen while lines are wrapped."""


class _Help(click.HelpFormatter):
    """Help whose lines do not end inside a word such as --require-validated."""

    def write_text(self, text: str) -> None:
        super().write_text(text.replace("-", _HYPHEN))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        super().write_dl([(name, text.replace("-", _HYPHEN)) for name, text in rows], col_max, col_spacing)

    def getvalue(self) -> str:
        return super().getvalue().replace(_HYPHEN, "-")


class _Context(click.Context):
    formatter_class = _Help


class Verb(click.Command):
    """A command whose options either may be repeated, or are refused when they are."""

    context_class = _Context

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments.

        Raises:
            click.UsageError: an option that takes one value is given more than once.
        """
        if not ctx.resilient_parsing:  # a shell that completes a line gets no errors
            _, _, given = self.make_parser(ctx).parse_args(args=list(args))
            for parameter, count in Counter(given).items():
                if count > 1 and isinstance(parameter, click.Option) and overwrites(parameter):
                    names = " or ".join((*parameter.opts, *parameter.secondary_opts))
                    raise click.UsageError(f"Option {names} is given {count} times. Give it once.", ctx)
        return super().parse_args(ctx, args)


class VerbGroup(Verb, click.Group):
    """A command that has commands of its own."""

    command_class = Verb


def overwrites(option: click.Option) -> bool:
    """Return True if a repeated option would have only its last value; a flag without an opposite loses nothing."""
    return not (
        option.multiple or option.count or option.is_eager or (option.is_flag and not option.secondary_opts)
    )
