from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.pages.suites import PAGE, POLICY, listed_suites, suites_page
from quantgate.judge.power import ASSUMED_FLIP_RATE, documents_needed, least_without_flips
from quantgate.judge.stats.exact import p_noninferior
from quantgate.model.config.policy import load_policy
from quantgate.model.config.suites import Suite
from quantgate.model.enums import Family
from quantgate.model.home import ROOT
from tasks.quality.sources import group_of, sources_of, suite_from
from tasks.quality.suite import check_suite


def test_the_page_is_what_the_suites_say() -> None:
    made = suites_page(listed_suites(), load_policy(POLICY))
    assert PAGE.read_text(encoding="utf-8") == made, "run `python -m docs.pages.suites`"


def test_questions_of_your_own_are_asked_as_the_page_has_them(tmp_path: Path) -> None:
    """Its JSONL and its suite, side by side as it says."""
    kinds = ("json", "yaml")
    lines, suite = (
        re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)[0] for kind in kinds
    )
    (tmp_path / "questions.jsonl").write_text(lines)
    (tmp_path / "own.yaml").write_text(suite)
    read = suite_from([str(tmp_path / "own.yaml")], family=None, limit=None, out_dir=tmp_path / "made")
    assert check_suite(read) == {"colours": 3, "gsm8k": None}
    assert [task.family for task in read.tasks] == [Family.KNOWLEDGE, Family.MATH]
    alone = suite_from(
        [str(tmp_path / "questions.jsonl")], family=Family.KNOWLEDGE, limit=None, out_dir=tmp_path / "made"
    )
    assert check_suite(alone) == {"questions": 3}


@pytest.mark.parametrize("suite", listed_suites(), ids=lambda suite: suite.name)
def test_every_task_says_what_can_be_told_before_it_is_pulled(suite: Suite) -> None:
    policy = load_policy(POLICY)
    assert suite.description.endswith(".")
    for task in suite.tasks:
        assert task.documents is not None
        assert task.family is not Family.CUSTOM
        assert task.family in policy.families
        assert task.metric is not None, "what is judged is declared"
        assert task.filter is not None
        if group_of(task) is not None:
            assert task.clusters == len(sources_of(task))


@pytest.mark.parametrize("page", ["README.md", "docs/validate-your-model.md", "docs/suites.md"])
def test_pages_say_how_many_questions_of_ones_own_can_decide(page: str) -> None:
    policy = load_policy(POLICY)
    rule = policy.families[Family.CUSTOM]
    least = least_without_flips(rule.margin, policy, rule.min_documents)
    assert p_noninferior(0, 0, least, rule.margin) <= policy.alpha
    usual = documents_needed(ASSUMED_FLIP_RATE, rule.margin, policy.alpha, policy.planned_power)
    text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
    assert f"{least:,} questions can validate a candidate that changes no answer" in text
    assert f"about {usual:,} take one that changes 10 %" in text


def test_a_task_that_cannot_decide_says_so() -> None:
    rows = {
        row.split("`")[1]: row
        for row in PAGE.read_text(encoding="utf-8").splitlines()
        if row.startswith("| `")
    }
    assert rows["mmlu"] == "| `mmlu` | knowledge | 14,042 | 57, fixed | 0.66 | 1 |  |"
    assert rows["leaderboard_gpqa_extended"].endswith("| 3.4 | 1 | may be too few |")
    assert rows["leaderboard_musr"].endswith("| 3, fixed | 2.9 | 1 | may be too few |")
    assert rows["gpqa_diamond_cot_zeroshot"].endswith("| 5.6 | 1 | cannot decide |"), "it takes 299"
    mmlu = next(task for suite in listed_suites() for task in suite.tasks if task.task == "mmlu")
    of_clusters = Suite(name="own", tasks=(mmlu.model_copy(update={"fixed_subjects": False}),))
    assert "| 57 | 0.66 | 1 | too few subjects to validate |" in suites_page(
        [of_clusters], load_policy(POLICY)
    )
