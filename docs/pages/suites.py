"""docs/suites.md: the suites of configs/suites, with what each task can decide under the policy `standard`.

``python -m docs.pages.suites`` writes it from ``configs/`` alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from quantgate.judge.cluster_figures import least_clusters
from quantgate.judge.stats.clustered import clusters_needed
from quantgate.model.config.policy import Policy, load_policy
from quantgate.model.config.suites import Suite, SuiteTask
from quantgate.model.home import ROOT
from quantgate.model.yaml_file import load_yaml
from warehouse.evidence.published_scores import ASSUMED_FLIP_RATE, resolvable_points, shown_points
from warehouse.report.render import NULL

PAGE = ROOT / "docs" / "suites.md"
POLICY = "standard"
LOCAL = "demo"
"""The suite whose data are the checkout's own; docs/verdicts.md works through it."""

_INTRODUCTION = """\
# Suites

Generated from `configs/suites` by `python -m docs.pages.suites`; a test compares. `--tasks NAME` takes a suite, and
a model of `configs/models` names its own. Margins are those of the policy `{policy}`, α = {alpha:g} (one-sided).

"Resolves" is the least margin, in points, within which so many documents show a candidate with power {power:g} at
Δ = 0 if {flips:g} % of the answers change between two precisions; with fewer flips it is less. A run prints the same
before anything is pulled, and says `cannot decide` where a task can't. It is a normal approximation for independent
documents, judged once: looks on the way take about a tenth more of them (`--full` doesn't), and partial credit up to a
third more.

"Fixed" subjects: the verdict is about new documents of these very subjects, in these shares. Where a task says nothing,
its subjects are clusters and the verdict is about new subjects too; of a candidate that doesn't gain that takes {one}
of them at a margin of 1 point and {two} at 2, which none of these tasks has ([figures](benchmarks-clusters.md)).
"""
_NOTES = """\
## Groups

lm-eval's groups (`mmlu`, `leaderboard_bbh`, `longbench` …) are one task each, in a suite or by name (`--tasks mmlu
--family knowledge`). Its documents are those of all subtasks, nested groups and tags included; each one's subtask is
its cluster, or with `fixed_subjects` its stratum, and stands before its id. A group asked for by name is asked as a
suite has it. All subtasks need one metric, filter and output type: a group that mixes them
(`openllm`, `leaderboard`) is refused with the name of the suite that has its members.

The score is the mean over documents. That is lm-eval's aggregate where the group says `weight_by_size: true`, as mmlu,
bbh and the leaderboard's do; LongBench's groups say false, so lm-eval's figure is the mean of the subtasks' means, and
differs where subtasks differ in size.

## What a task may need

- Packages beyond the pipeline's: `leaderboard_ifeval` (`lm_eval[ifeval]`), `leaderboard_math_hard` (`lm_eval[math]`)
  and `longbench` (`lm_eval[longbench]`). A run names what is missing, with the line that installs it, before an engine
  starts. They are not in the lock, since nothing else uses them. ifeval fetches NLTK's `punkt_tab`, and `code` the
  metric `code_eval` from the hub.
- Permission: `code` runs the programs that the model wrote, on the host that evaluates. It needs
  `--run-generated-code`, or `run_generated_code: true` in a suite of your own (a matrix takes it from there). The
  programs see neither the hub's token nor the engine's key, but it is no sandbox: use a container.
- Terms: GPQA (`gpqa_diamond_cot_zeroshot`, `leaderboard_gpqa_extended`) is gated at the hub; accept its terms there and
  set HF_TOKEN.
- Context: LongBench's prompts and the reasoning suite's answers are long; what doesn't fit `max-model-len` is cut on
  the left and counted, and a limit that can't fit is refused.

## Questions of your own

A JSONL is a task without a line of code: `quantgate validate … --tasks questions.jsonl --family knowledge`. A line is a
document:

```json
{"prompt": "What colour is the sky at noon?", "answer": "blue", "subject": "nature"}
{"prompt": "What colour is fresh snow?", "answer": "white", "subject": "nature"}
{"prompt": "How many legs has a spider?", "answer": "8", "subject": "animals"}
```

`prompt` and `answer` are needed. With `choices` (two or more texts) it is multiple choice, and the answer is a choice's
text or its index from 0; without, the model writes, and its answer must be the same text after trimming. `id` names a
document (a hash of it if left out). `subject` (or `category`) says of what kind it is, and `cluster` (or `passage_id`,
`passage`, `article`) which documents belong together. Where several documents have the same of either, the verdict
counts these clusters in place of documents, and with few of them decides little; `fixed_subjects: true` in a suite
keeps subjects from that. A file holds one kind, generated or multiple choice.

A suite says more of it, and asks several at once; its `path` is the file:

```yaml
name: own
tasks:
  - {task: colours, path: questions.jsonl, family: knowledge, fixed_subjects: true}
  - {task: gsm8k, family: math, num_fewshot: 5}
```

The file lies beside the suite, or its path starts at the checkout's root. Its content is part of a run's identity: with
another line it is another question.

## Settings of a suite's task

| key | what it does |
|---|---|
| `task`, `path` | the task's name, and where it isn't lm-eval's own the folder of its YAML, or a JSONL |
| `family` | decides the margin |
| `metric`, `filter` | the score; the task's first where left out |
| `num_fewshot` | solved examples in each prompt, in place of the YAML's |
| `max_gen_toks` | tokens that an answer may take, in place of the YAML's; a model of `configs/models` may set it too |
| `thinking_end` | what ends a model's thinking (`</think>`): only what follows is scored; a model may set it too |
| `fixed_subjects` | a group's subtasks, or a document's `subject` or `category`, are fixed (above) |
| `documents`, `clusters` | how many a hub holds, to be told before they are pulled; they change no question |
| `run_generated_code` | see above |

## Repeats

A task with `repeats: n` and a temperature is asked n times a document, each with a seed that follows from task,
document and repeat: repeats differ, and every checkpoint samples with the same seeds. Each answer is scored by the
task's metric and the document's score is their mean, from 0 to 1; the n answers stay one unit for the judge. That
holds for a task without a filter and for one whose filter keeps several (`take_first_k`). A filter that makes one
answer of them (`take_first`, `majority_vote`), or a task's own `process_results`, scores as it always did. A task that
says `do_sample: false` is greedy, whatever temperature stands beside it.
"""
_HEAD = "| task | family | documents | subjects | resolves | margin | |\n|---|---|---:|---:|---:|---:|---|"


def suites_page(suites: Sequence[Suite], policy: Policy) -> str:
    """The page as markdown.

    Args:
        suites: in the order of their sections; each task says how many documents it has.
        policy: whose margins they are held against.
    """
    introduction = _INTRODUCTION.format(
        policy=POLICY,
        alpha=policy.alpha,
        power=policy.planned_power,
        flips=100 * ASSUMED_FLIP_RATE,
        one=clusters_needed(0.01, policy.alpha),
        two=clusters_needed(0.02, policy.alpha),
    )
    return "\n".join([introduction, *(line for suite in suites for line in _section(suite, policy)), _NOTES])


def _section(suite: Suite, policy: Policy) -> Iterator[str]:
    yield f"## {suite.name}\n\n{suite.description}\n\n{_HEAD}"
    for task in suite.tasks:
        yield _row(task, policy)
    yield ""


def _row(task: SuiteTask, policy: Policy) -> str:
    margin = policy.families[task.family].margin
    if task.documents is None:
        return f"| `{task.task}` | {task.family} | {NULL} | {NULL} | {NULL} | {100 * margin:g} | |"
    best = resolvable_points(task.documents, ASSUMED_FLIP_RATE, policy.alpha, policy.planned_power)
    told = [] if best <= 100 * margin else ["cannot decide"]
    too_few = task.clusters is not None and task.clusters < least_clusters(margin, policy)
    if too_few and not task.fixed_subjects:
        told.append("too few subjects to validate")
    subjects = NULL if task.clusters is None else f"{task.clusters}{', fixed' * task.fixed_subjects}"
    cells = [f"{task.documents:,}", subjects, shown_points(best, margin)]
    return f"| `{task.task}` | {task.family} | {' | '.join(cells)} | {100 * margin:g} | {'; '.join(told)} |"


def listed_suites() -> list[Suite]:
    """The suites of configs/suites but the demo's, by name."""
    paths = sorted((ROOT / "configs" / "suites").glob("*.yaml"))
    return [load_yaml(path, Suite) for path in paths if path.stem != LOCAL]


if __name__ == "__main__":
    PAGE.write_text(suites_page(listed_suites(), load_policy(POLICY)), encoding="utf-8")
