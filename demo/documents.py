"""Generate the demo's documents from seeds: three families, each with held-out and training documents.

Everything is plain Python, so that a test can regenerate the committed files without training.
Words are separated by single spaces; a number is written digit by digit.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass

from demo.lexicon import NAMES, POOLS, RELATIONS

SEED = 20261124
HELD_OUT_DOCUMENTS = 1000
CHAIN_LINKS = 2
"""Amounts of a chain that depend on another one."""

_OPENINGS = ("", "hello , ", "please , ", "so , ")
_QUESTIONS = ("what is the {0} of {1} ?", "which {0} has {1} ?", "tell me the {0} of {1} .")
_REPLIES = ("the {0} of {1} is", "for {1} it is", "{1} has the {0}")


@dataclass(frozen=True)
class Document:
    """One document: the prompt, the right continuation, and the answer that is scored."""

    prompt: str
    solution: str
    answer: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fact:
    """Fact about a person in the dialogues."""

    name: str
    relation: str
    value: str


def digits(number: int) -> str:
    """Write a non-negative number as space-separated digits."""
    return " ".join(str(number))


def _facts(seed: int) -> list[Fact]:
    """Draw a fact for every name and relation, shuffled."""
    rng = random.Random(f"facts {seed}")
    facts = [
        Fact(name, relation, rng.choice(POOLS[pool]))
        for name in NAMES
        for relation, pool in RELATIONS.items()
    ]
    rng.shuffle(facts)
    return facts


def _phrasings(seed: int, number: int) -> list[str]:
    """Return every way to ask for a fact, shuffled; the first one is the held-out document's."""
    rng = random.Random(f"phrasings {seed} {number}")
    forms = [f"user : {o}{q} bot : {r}" for o in _OPENINGS for q in _QUESTIONS for r in _REPLIES]
    rng.shuffle(forms)
    return forms


def _cloze_held_out(seed: int, count: int) -> list[Document]:
    """Make one document per fact, in a phrasing that training never shows for it, with four options."""
    rng = random.Random(f"cloze held out {seed}")
    documents = []
    for number, fact in enumerate(_facts(seed)[:count]):
        others = [word for word in POOLS[RELATIONS[fact.relation]] if word != fact.value]
        choices = [fact.value, *rng.sample(others, 3)]
        rng.shuffle(choices)
        prompt = _phrasings(seed, number)[0].format(fact.relation, fact.name)
        documents.append(Document(prompt, fact.value, fact.value, tuple(choices)))
    return documents


def _cloze_training(seed: int, exposures: tuple[int, int]) -> list[Document]:
    """Make facts in several phrasings, some facts seldom and some often, so that recall is partial."""
    rng = random.Random(f"cloze training {seed}")
    fewest, most = exposures
    facts = _facts(seed)
    ranks = rng.sample(range(len(facts)), len(facts))
    documents = []
    for number, (fact, rank) in enumerate(zip(facts, ranks, strict=True)):
        times = fewest + round((most - fewest) * rank / (len(facts) - 1))
        forms = _phrasings(seed, number)[1:]
        prompts = [forms[i % len(forms)].format(fact.relation, fact.name) for i in range(times)]
        documents += [Document(prompt, fact.value, fact.value) for prompt in prompts]
    rng.shuffle(documents)
    return documents


def _arithmetic(rng: random.Random) -> Document:
    """Make a sum or difference with a number of two digits, or (a quarter) a product with one of one digit."""
    sign = rng.choice("+++---**")
    a = rng.randint(100, 999)
    b = rng.randint(2, 9) if sign == "*" else rng.randint(10, 99)
    result = digits({"+": a + b, "-": a - b, "*": a * b}[sign])
    return Document(f"compute {digits(a)} {sign} {digits(b)} =", result, result)


def _chain(rng: random.Random) -> Document:
    """Make amounts under 100 that depend on one another, in any order, solved in the order of dependence."""
    people = rng.sample(NAMES, 1 + CHAIN_LINKS)
    amount = rng.randint(2, 40)
    sentences, steps = [f"{people[0]} has {digits(amount)} ."], [f"{people[0]} {digits(amount)} ."]
    for before, person in itertools.pairwise(people):
        possible = [("twice", amount < 50), ("fewer", amount > 2), ("more", amount < 80)]
        kind = rng.choice([name for name, fits in possible if fits])
        if kind == "twice":
            result = 2 * amount
            sentences.append(f"{person} has twice as many as {before} .")
            steps.append(f"{person} 2 * {digits(amount)} = {digits(result)} .")
        else:
            change = rng.randint(1, 19 if kind == "more" else min(19, amount - 1))
            result = amount + change if kind == "more" else amount - change
            sentences.append(f"{person} has {digits(change)} {kind} than {before} .")
            sign = "+" if kind == "more" else "-"
            steps.append(f"{person} {digits(amount)} {sign} {digits(change)} = {digits(result)} .")
        amount = result
    rng.shuffle(sentences)
    prompt = f"{' '.join(sentences)} how many has {people[-1]} ?"
    return Document(prompt, f"{' '.join(steps)} answer {digits(amount)}", digits(amount))


_MAKERS: dict[str, Callable[[random.Random], Document]] = {"arithmetic": _arithmetic, "chain": _chain}


def _made_held_out(family: str, seed: int, count: int) -> list[Document]:
    """Make documents with distinct prompts."""
    rng = random.Random(f"{family} held out {seed}")
    documents: dict[str, Document] = {}
    while len(documents) < count:
        document = _MAKERS[family](rng)
        documents.setdefault(document.prompt, document)
    return list(documents.values())


def _made_training(family: str, seed: int, count: int) -> list[Document]:
    """Make documents none of which is held out."""
    rng = random.Random(f"{family} training {seed}")
    scored = {document.prompt for document in _made_held_out(family, seed, HELD_OUT_DOCUMENTS)}
    documents: list[Document] = []
    while len(documents) < count:
        document = _MAKERS[family](rng)
        if document.prompt not in scored:
            documents.append(document)
    return documents


def held_out(seed: int = SEED, count: int = HELD_OUT_DOCUMENTS) -> dict[str, list[Document]]:
    """Make the documents that are scored, by family, in their committed order.

    Args:
        seed: of the facts and of every choice.
        count: documents of each family; there are no more facts than names times relations.
    """
    cloze = {"cloze": _cloze_held_out(seed, count)}
    return cloze | {family: _made_held_out(family, seed, count) for family in _MAKERS}


def training(exposures: tuple[int, int], made: dict[str, int], seed: int = SEED) -> dict[str, list[Document]]:
    """Make the documents to train on, by family, shuffled; none is held out.

    Args:
        exposures: fewest and most documents about a fact; the facts are spread evenly between them.
        made: documents of each other family.
        seed: the seed of ``held_out``.
    """
    cloze = {"cloze": _cloze_training(seed, exposures)}
    return cloze | {family: _made_training(family, seed, count) for family, count in made.items()}
