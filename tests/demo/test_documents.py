import json
import re
from collections import Counter

import pytest

from demo import documents, task_files
from demo.lexicon import NAMES, POOLS, RELATIONS, VOCABULARY_SIZE, vocabulary
from quantgate.model.home import ROOT

HELD_OUT = documents.held_out()
FAMILIES = tuple(HELD_OUT)


def _training():
    recipe = json.loads((ROOT / "demo/checkpoints/provenance.json").read_text())["recipe"]
    steps = recipe["steps"]
    made = {"arithmetic": recipe["arithmetic_per_step"] * steps, "chain": recipe["chain_per_step"] * steps}
    return documents.training(tuple(recipe["cloze_exposures"]), made)


def _number(text):
    return int(text.replace(" ", ""))


def test_families_are_the_three():
    assert FAMILIES == ("cloze", "arithmetic", "chain")


@pytest.mark.parametrize("family", FAMILIES)
def test_regenerated_task_files_equal_the_committed_ones(family):
    folder = ROOT / "demo" / "tasks"
    assert task_files.task_jsonl(family, HELD_OUT[family]) == (folder / f"{family}.jsonl").read_text()
    assert task_files.task_yaml(family) == (folder / f"{family}.yaml").read_text()


@pytest.mark.parametrize("family", FAMILIES)
def test_committed_documents_are_enough_distinct_and_identified(family):
    rows = [json.loads(line) for line in (ROOT / f"demo/tasks/{family}.jsonl").read_text().splitlines()]
    assert len(rows) >= 1000
    assert len({row["id"] for row in rows}) == len(rows)
    assert len({row["prompt"] for row in rows}) == len(rows)


def test_no_training_document_is_held_out():
    training = _training()
    for family in FAMILIES:
        scored = {document.prompt for document in HELD_OUT[family]}
        assert training[family], family
        assert not scored & {document.prompt for document in training[family]}, family


def test_training_is_deterministic_and_depends_on_the_seed():
    made = {"arithmetic": 50, "chain": 50}
    first = documents.training((1, 3), made)
    assert documents.training((1, 3), made) == first
    other = documents.training((1, 3), made, seed=1)
    assert all(other[family] != first[family] for family in FAMILIES)


def test_facts_are_shown_within_the_exposures_and_held_out_facts_are_taught():
    training = documents.training((2, 9), {})["cloze"]
    taught = {}
    for document in training:
        name = next(word for word in document.prompt.split() if word in NAMES)
        relation = next(word for word in document.prompt.split() if word in RELATIONS)
        taught.setdefault((name, relation), []).append(document.answer)
    assert len(taught) == len(NAMES) * len(RELATIONS)
    assert all(len(set(values)) == 1 for values in taught.values())
    counts = Counter(len(values) for values in taught.values())
    assert (min(counts), max(counts)) == (2, 9)
    for document in HELD_OUT["cloze"]:
        name = next(word for word in document.prompt.split() if word in NAMES)
        relation = next(word for word in document.prompt.split() if word in RELATIONS)
        assert taught[name, relation][0] == document.answer


def test_options_are_four_of_one_kind_and_hold_the_answer_anywhere():
    places = Counter()
    for document in HELD_OUT["cloze"]:
        relation = next(word for word in document.prompt.split() if word in RELATIONS)
        assert len(set(document.choices)) == 4
        assert set(document.choices) <= set(POOLS[RELATIONS[relation]])
        places[document.choices.index(document.answer)] += 1
    assert min(places.values()) > 200, places


def test_arithmetic_answers_are_right():
    signs = Counter()
    for document in HELD_OUT["arithmetic"]:
        a, sign, b = re.fullmatch(r"compute ([\d ]+) ([-+*]) ([\d ]+) =", document.prompt).groups()
        a, b = _number(a), _number(b)
        assert _number(document.answer) == {"+": a + b, "-": a - b, "*": a * b}[sign]
        assert document.solution == document.answer
        signs[sign] += 1
    assert min(signs.values()) > 200, signs


def _solve_chain(prompt):
    story, asked = re.fullmatch(r"(.*) how many has (\w+) \?", prompt).groups()
    known, open_sentences = {}, [s.strip() for s in story.split(" .") if s.strip()]
    while asked not in known:
        for sentence in open_sentences:
            if found := re.fullmatch(r"(\w+) has ([\d ]+)", sentence):
                known[found[1]] = _number(found[2])
            elif (found := re.fullmatch(r"(\w+) has twice as many as (\w+)", sentence)) and found[2] in known:
                known[found[1]] = 2 * known[found[2]]
            elif (found := re.fullmatch(r"(\w+) has (.+) (more|fewer) than (\w+)", sentence)) and found[
                4
            ] in known:
                change = _number(found[2]) * (1 if found[3] == "more" else -1)
                known[found[1]] = known[found[4]] + change
    return known[asked]


def test_chain_answers_follow_from_the_story_and_from_the_steps():
    links = Counter()
    for document in HELD_OUT["chain"]:
        answer = _solve_chain(document.prompt)
        assert 0 < answer < 100
        assert _number(document.answer) == answer
        assert document.solution.endswith(f" answer {document.answer}")
        for left, sign, right, result in re.findall(
            r"([\d ]+) ([-+*]) ([\d ]+) = ([\d ]+) \.", document.solution
        ):
            a, b = _number(left), _number(right)
            assert _number(result) == {"+": a + b, "-": a - b, "*": a * b}[sign]
        links[document.solution.count("=")] += 1
    assert set(links) == {documents.CHAIN_LINKS}


def test_every_word_of_every_document_is_in_the_vocabulary():
    words = vocabulary()
    assert len(words) == len(set(words)) == VOCABULARY_SIZE
    assert not any(re.search(r"\s", word) for word in words)
    known = set(words)
    for family, scored in HELD_OUT.items():
        for document in scored:
            text = f"{document.prompt} {document.solution} {' '.join(document.choices)}"
            assert set(text.split()) <= known, family
            assert text == " ".join(text.split()) or not document.choices
