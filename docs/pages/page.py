"""Fill the template of a generated page; it lies beside the page's module as ``<page>.md.tmpl``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_TEMPLATES = Environment(  # noqa: S701  Markdown, not HTML
    loader=FileSystemLoader(Path(__file__).parent),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters["g"] = "{:g}".format
_TEMPLATES.filters["cell"] = lambda text: text.replace("|", "\\|")


def fill(page: str, **values: Any) -> str:
    """Return the page as Markdown.

    Args:
        page: the name of its template, without ``.md.tmpl``.
        values: what the template names.
    """
    return _TEMPLATES.get_template(f"{page}.md.tmpl").render(values).rstrip() + "\n"
