"""Write the demo's lm-eval tasks: their YAML, and their held-out documents as JSONL."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from demo.documents import Document

_YAML = """\
# Written by demo/make_checkpoints.py. {about}
task: {task}
custom_dataset: !function loader.documents
dataset_kwargs:
  data_file: {stem}.jsonl
test_split: test
{body}metadata:
  version: 1.0
"""

_CHOICE = """\
output_type: multiple_choice
doc_to_text: "{{prompt}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
target_delimiter: " "
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""

_GENERATION = """\
output_type: generate_until
doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs:
  until: ["</s>"]
  do_sample: false
  temperature: 0.0
  max_gen_toks: {max_tokens}
filter_list:
  - name: answer
    filter:
      - function: regex
        regex_pattern: '{pattern}'
        fallback: "[no answer]"
      - function: take_first
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
"""

MAX_TOKENS = {"arithmetic": 12, "chain": 48}
"""Most tokens of an answer; the longest right ones take 5 and 39 with the end token."""

PATTERNS = {"arithmetic": r"^\s*([0-9](?: [0-9])*)", "chain": r"answer ([0-9](?: [0-9])*)"}
"""Pattern of the answer in each generation task's only filter."""

_ABOUT = {
    "cloze": "Recall of facts in a short dialogue, four options.",
    "arithmetic": "Sums, differences and products, written digit by digit.",
    "chain": "Amounts that depend on one another, told in any order, worked out step by step.",
}


def task_yaml(family: str) -> str:
    """Return the lm-eval task file of a family: cloze, arithmetic or chain."""
    body = _CHOICE
    if family in PATTERNS:
        body = _GENERATION.format(max_tokens=MAX_TOKENS[family], pattern=PATTERNS[family])
    return _YAML.format(about=_ABOUT[family], task=f"qg_demo_{family}", stem=family, body=body)


def task_jsonl(family: str, documents: Sequence[Document]) -> str:
    """Return the documents of a family, one JSON object a line, each with an ``id``."""
    lines = []
    for number, document in enumerate(documents):
        row: dict[str, object] = {"id": f"{family}-{number:04d}", "prompt": document.prompt}
        row |= {"choices": list(document.choices)} if document.choices else {"solution": document.solution}
        lines.append(json.dumps(row | {"answer": document.answer}))
    return "\n".join(lines) + "\n"


def write_tasks(folder: Path, held_out: dict[str, list[Document]]) -> None:
    """Write the YAML and the JSONL of every family into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for family, documents in held_out.items():
        (folder / f"{family}.jsonl").write_text(task_jsonl(family, documents), encoding="utf-8")
        (folder / f"{family}.yaml").write_text(task_yaml(family), encoding="utf-8")
