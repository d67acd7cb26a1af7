"""The demo model's closed vocabulary: 256 words, so that every token id is a word of its own."""

from __future__ import annotations

PAD, EOS, UNKNOWN = "<pad>", "</s>", "<unk>"
"""Special tokens. There is no BOS: an engine adds nothing to a prompt."""

_NAMES = (
    "abel ada alba amos ana aron asa beth boaz cara carl cleo cora dan dora edda egon elsa emil emma enzo "
    "erik esme etta ezra fay finn flora gala gil gina greta gus hana hugo ida igor ilka ines iris ivan jana "
    "jem joel jude juno kai karl kira kurt lara leif lena leo lila lou luca lydia mara max mia milo mona "
    "nadia nell nico nina noa nora olaf olga omar otto paul petra quinn ralf rita ruben sven tess theo toni "
    "uma vera"
)
NAMES = tuple(_NAMES.split())

_POOLS = {
    "city": "oslo lima cairo paris tokyo delhi quito milan dakar sofia hanoi perth",
    "job": "baker pilot nurse farmer judge tailor miner poet doctor clerk barber chemist",
    "animal": "cat dog parrot rabbit turtle hamster pony goat ferret canary lizard goose",
    "drink": "tea coffee milk juice water cocoa cider soda broth kefir lassi punch",
    "colour": "red blue green white black brown pink gold grey purple silver beige",
    "sport": "tennis golf judo chess rugby rowing skiing hockey boxing diving karate squash",
    "music": "piano violin flute drums harp guitar cello organ banjo lute tuba viola",
    "fruit": "apple pear plum mango melon grape peach lemon cherry orange papaya fig",
}
POOLS: dict[str, tuple[str, ...]] = {pool: tuple(words.split()) for pool, words in _POOLS.items()}
"""Values of the facts that the cloze family asks for."""

RELATIONS: dict[str, str] = {
    "home": "city",
    "birthplace": "city",
    "job": "job",
    "dream": "job",
    "pet": "animal",
    "drink": "drink",
    "colour": "colour",
    "car": "colour",
    "sport": "sport",
    "music": "music",
    "fruit": "fruit",
    "dessert": "fruit",
}
"""Relation of a person to a value, and the pool the value comes from."""

_WORDS = (
    "user bot : , . ? hello please so what is the of which has tell me it for "
    "compute + - * = more fewer than twice as many how answer 0 1 2 3 4 5 6 7 8 9"
)

VOCABULARY_SIZE = 256


def vocabulary() -> tuple[str, ...]:
    """Return every token in the order of its id; the last are reserved words, so that every id has a word."""
    values = [word for pool in POOLS.values() for word in pool]
    words = list(dict.fromkeys([PAD, EOS, UNKNOWN, *_WORDS.split(), *RELATIONS, *values, *NAMES]))
    reserved = [f"<r{number}>" for number in range(VOCABULARY_SIZE - len(words))]
    return tuple(words + reserved)


IDS = {word: number for number, word in enumerate(vocabulary())}
"""Token id by word."""
