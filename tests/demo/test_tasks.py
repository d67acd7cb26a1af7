import json

import lm_eval
import pytest
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from demo.task_files import MAX_TOKENS, PATTERNS
from quantgate.model.config.models import load_model
from quantgate.model.config.policy import load_policy
from quantgate.model.config.suites import Suite
from quantgate.model.home import ROOT
from quantgate.model.yaml_file import load_yaml

SUITE = load_yaml(ROOT / "configs/suites/demo.yaml", Suite)
NAMES = [task.task for task in SUITE.tasks]


def _manager():
    return TaskManager(include_path=str(ROOT / "demo" / "tasks"), include_defaults=False)


def _documents(stem):
    return [json.loads(line) for line in (ROOT / f"demo/tasks/{stem}.jsonl").read_text().splitlines()]


class Scripted(LM):
    """Answers from a table: text after a prompt, and the option it finds likeliest."""

    def __init__(self, texts, options):
        super().__init__()
        self.texts, self.options = texts, options

    def generate_until(self, requests, disable_tqdm=False):
        settings = [request.args[1] for request in requests]
        assert all(s["until"] == ["</s>"] and not s["do_sample"] for s in settings)
        return [self.texts[request.args[0]] for request in requests]

    def loglikelihood(self, requests, disable_tqdm=False):
        assert all(request.args[1].startswith(" ") for request in requests)
        return [(0.0 if self.options[r.args[0]] == r.args[1].strip() else -1.0, False) for r in requests]

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        raise NotImplementedError


def test_the_suite_names_the_tasks_of_the_folder_with_their_metrics(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # nothing may depend on the working directory
    tasks = _manager().load(NAMES)["tasks"]
    assert {task.family for task in SUITE.tasks} == {"conversation", "math", "reasoning"}
    for entry in SUITE.tasks:
        task = tasks[entry.task]
        assert entry.path == "demo/tasks"
        assert len(task.eval_docs) >= 1000
        assert [metric["metric"] for metric in task.config.metric_list] == [entry.metric]
        assert [ensemble.name for ensemble in task._filters] == [entry.filter]
        assert {"id", "prompt", "answer"} <= set(task.eval_docs[0])


def test_the_model_file_declares_suite_policy_and_checkpoints():
    model = load_model("quantgate-demo")
    assert (model.suite, model.workload, model.policy) == ("demo", "demo", "demo")
    assert all((ROOT / one.source / "config.json").is_file() for one in (model.baseline, *model.candidates))
    families = load_policy(model.policy).families
    assert all(families[task.family].min_documents <= 1000 for task in SUITE.tasks)


@pytest.mark.parametrize("wrong", [0, 10])
def test_lm_eval_scores_right_and_wrong_answers(wrong):
    arithmetic, chain, cloze = (_documents(stem) for stem in ("arithmetic", "chain", "cloze"))
    texts = {d["prompt"]: f" {d['solution']}" for d in arithmetic + chain}  # as vLLM gives it: a space first
    options = {d["prompt"]: d["answer"] for d in cloze}
    for d in arithmetic[:wrong]:
        texts[d["prompt"]] = f" {d['answer']} 0"
    for d in chain[:wrong]:
        texts[d["prompt"]] = f" {d['solution'].rpartition(' answer ')[0]}"  # cut off before the answer
    for d in cloze[:wrong]:
        options[d["prompt"]] = next(choice for choice in d["choices"] if choice != d["answer"])
    results = lm_eval.simple_evaluate(
        Scripted(texts, options), tasks=NAMES, task_manager=_manager(), limit=100, bootstrap_iters=0
    )["results"]
    for entry in SUITE.tasks:
        assert results[entry.task][f"{entry.metric},{entry.filter}"] == pytest.approx(1 - wrong / 100)


@pytest.mark.parametrize("family", PATTERNS)
def test_right_solutions_fit_in_the_tokens_allowed(family):
    assert max(len(d["solution"].split()) for d in _documents(family)) < MAX_TOKENS[family]
