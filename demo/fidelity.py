"""Write the demo's fidelity text, some held-out documents of each family: `python demo/fidelity.py`.

Only the solutions count: a prompt is random, so no model can predict it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from demo.documents import held_out  # noqa: E402

DOCUMENTS = 16
"""Documents of each family."""


def text() -> str:
    """Return one passage per line; a space joins a prompt and its solution."""
    chosen = [document for family in held_out(count=DOCUMENTS).values() for document in family]
    lines = [json.dumps({"prompt": d.prompt, "answer": f" {d.solution}"}) for d in chosen]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (HERE / "fidelity.jsonl").write_text(text(), encoding="utf-8")
