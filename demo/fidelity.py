"""Write the demo's fidelity text, some held-out documents of each family: `python demo/fidelity.py`.

Only the solutions count: a prompt is as random as its generator, and there is nothing in it to be faithful to.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from demo.documents import held_out  # noqa: E402

DOCUMENTS = 16
"""Of each family."""


def text() -> str:
    """A passage a line; the words of a prompt and its solution are joined by a space."""
    chosen = [document for family in held_out(count=DOCUMENTS).values() for document in family]
    lines = [json.dumps({"prompt": one.prompt, "answer": f" {one.solution}"}) for one in chosen]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (HERE / "fidelity.jsonl").write_text(text(), encoding="utf-8")
