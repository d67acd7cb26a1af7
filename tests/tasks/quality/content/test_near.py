"""Near-copies are counted by what they ask: numbers are content, a template is no likeness, and nothing is chained."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from quantgate.model.home import ROOT
from tasks.quality.content.document import Question
from tasks.quality.content.near import near_clusters, near_copies

DEMO = sorted((ROOT / "demo" / "tasks").glob("*.jsonl"))


def story(seed: int, words: int = 40) -> list[str]:
    draw = random.Random(seed)
    return ["".join(draw.choices("abcdefgh", k=5)) for _ in range(words)]


def asked(words: list[str], target: str = "yes", prefix: str = "") -> Question:
    return Question(prefix + " ".join(words), None, target)


def changed(words: list[str], *places: int) -> list[str]:
    return [f"other{'x' * place}" if place in places else word for place, word in enumerate(words)]


def test_a_document_with_a_word_or_two_changed_is_a_near_copy_of_the_earlier_one() -> None:
    first, other = story(1), story(2)
    assert near_copies([asked(first), asked(other), asked(changed(first, 5, 20))]) == [None, None, 0]
    assert near_copies([asked(first), asked(changed(first, 3, 9, 15, 21, 27))]) == [None, None]


def test_numbers_are_content() -> None:
    words = story(1)
    first, second = ([*words[:20], number, *words[20:]] for number in ("3", "4"))
    assert near_copies([asked(first), asked(second)]) == [None, None]
    assert near_copies([asked(first), asked(changed(first, 30))]) == [None, 0]


def test_a_template_that_all_prompts_have_is_no_likeness() -> None:
    prefix = " ".join(story(0, 400)) + " "
    assert near_copies([asked(story(seed), prefix=prefix) for seed in range(1, 30)]) == [None] * 29


def test_near_copies_are_not_chained() -> None:
    first = story(1)
    middle = changed(first, 8)
    last = changed(middle, 25, 33)
    documents = [asked(first), asked(middle), asked(last), *(asked(story(seed)) for seed in range(3, 9))]
    assert near_copies(documents)[:3] == [None, 0, 1]
    assert near_clusters(documents)[:3] == [0, 0, None], "the last is near the second and not the first"


@pytest.mark.parametrize(("copies", "clustered"), [(4, 0), (8, 9)])
def test_near_copies_with_one_target_are_clusters_where_they_are_many(copies: int, clustered: int) -> None:
    first = story(1)
    near = [asked(changed(first, number + 2)) for number in range(copies)]
    others = [asked(story(seed)) for seed in range(2, 50)]
    clusters = near_clusters([asked(first), *near, *others])
    assert [place for place in clusters if place is not None] == [0] * clustered
    other_targets = [asked(changed(first, number + 2), f"t{number}") for number in range(copies)]
    assert set(near_clusters([asked(first), *other_targets, *others])) == {None}


def test_a_very_long_text_is_sampled_alike() -> None:
    first = story(1, 300_000)
    documents = [asked(story(seed, 300_000)) for seed in range(2, 8)]
    assert near_copies([asked(first), *documents, asked(changed(first, 99))]) == [None] * 7 + [0]


@pytest.mark.parametrize("file", DEMO, ids=lambda file: file.stem)
def test_no_task_of_the_demo_has_near_copies(file: Path) -> None:
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    questions = [Question(line["prompt"], line.get("choices"), line["answer"]) for line in lines]
    assert set(near_copies(questions)) == {None}
