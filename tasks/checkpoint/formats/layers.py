"""Find which scheme a configuration names for a layer: by its name, a pattern of it, or that of a module around it."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from typing import NamedTuple

from tasks.checkpoint.formats.schemes import Scheme

_CLASS = re.compile(r"[A-Z]\w*")
"""A class of modules (Linear, LlamaAttention): what module has it, no file says."""
_SPECIAL = re.compile(r"[*+?^$()\[\]{}|\\]")


class Layers(NamedTuple):
    """Schemes by layer; None for a layer that is left unquantized."""

    exact: Mapping[str, Scheme | None] = {}
    patterns: tuple[tuple[re.Pattern[str], Scheme | None], ...] = ()

    @property
    def schemes(self) -> tuple[Scheme, ...]:
        """Return the schemes that are named, each once."""
        named = (*self.exact.values(), *(scheme for _, scheme in self.patterns))
        return tuple(dict.fromkeys(scheme for scheme in named if scheme))

    def scheme_of(self, tensor: str) -> Scheme | None:
        """Return the scheme that is named for a tensor, or None.

        The name of its module counts first, then the nearest module around it, then the patterns in their order.
        """
        module = tensor.rpartition(".")[0]
        parts = module.split(".")
        for length in range(len(parts), 0, -1):
            if (name := ".".join(parts[:length])) in self.exact:
                return self.exact[name]
        return next((scheme for pattern, scheme in self.patterns if pattern.search(module)), None)


def read_layers(named: Mapping[str, Scheme | None], *, marked: str = "", search: bool = False) -> Layers:
    """Sort the names of layers into exact ones and patterns.

    Args:
        named: scheme by name; a class of modules names no layer.
        marked: what a regular expression begins with; it must fit from the beginning of a layer's name.
        search: whether any name with special characters is a regular expression, which may fit anywhere.

    Returns:
        The layers; an expression that is none fits nothing.
    """
    exact: dict[str, Scheme | None] = {}
    patterns: list[tuple[re.Pattern[str], Scheme | None]] = []
    for name, scheme in named.items():
        if marked and name.startswith(marked):
            expression = r"\A(?:" + name.removeprefix(marked) + ")"
        elif not _SPECIAL.search(name):
            if not _CLASS.fullmatch(name):
                exact[name] = scheme
            continue
        else:
            expression = name if search else r"\A" + fnmatch.translate(name)
        try:
            patterns.append((re.compile(expression), scheme))
        except re.error:
            continue
    return Layers(exact, tuple(patterns))
