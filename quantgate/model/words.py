"""Words for people, that more than one room writes."""

from __future__ import annotations


def counted(number: int, noun: str, spec: str = "") -> str:
    """Return a number with its noun, in the singular or the plural: ``1 task``, ``2 tasks``.

    Args:
        number: how many.
        noun: in the singular; its plural ends in s.
        spec: format of the number, such as ``,``.
    """
    return f"{number:{spec}} {noun}{'' if number == 1 else 's'}"
