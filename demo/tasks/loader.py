"""Give lm-eval the documents that lie beside the task files, wherever the checkout is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets


def documents(data_file: str, **_metadata: Any) -> dict[str, datasets.Dataset]:
    """The held-out documents of a task as its ``test`` split.

    Args:
        data_file: name of the JSONL file beside this module (the task's ``dataset_kwargs``).
        **_metadata: the task's ``metadata``, which lm-eval passes along.
    """
    with (Path(__file__).parent / data_file).open(encoding="utf-8") as lines:
        return {"test": datasets.Dataset.from_list([json.loads(line) for line in lines])}
