"""What changes a question, and what does not."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tasks.quality.content.text import normalised

WORDS = st.text(st.sampled_from("abcXYZ"), min_size=1, max_size=5)
NUMBERS = st.from_regex(r"-?[0-9]{1,3}(\.[0-9]{1,2})?", fullmatch=True)
SENTENCES = st.lists(
    WORDS | NUMBERS | st.sampled_from(["+", "-", "*", "/", "=", "<", ">", "^", "%", "(", ")"]),
    min_size=1,
    max_size=8,
)
OF_INTEREST = st.text(
    st.sampled_from("aB1٣2 .,:;!?'\"-²½ß\u0130\u200b\u2019(\u0301\u0345\ufb01="), max_size=12
)


@given(st.text() | OF_INTEREST)
@example("5''6.'.5")
@example("e\u200b\u0301")
@example("3 .5,,5")
def test_normalising_again_changes_nothing(text: str) -> None:
    assert normalised(normalised(text)) == normalised(text)


@given(SENTENCES, st.data())
def test_case_blanks_quotes_and_the_last_mark_change_nothing(words: list[str], data: st.DataObject) -> None:
    plain = " ".join([*words, "end"])
    blanks = st.sampled_from([" ", "  ", "\n", "\t ", "\u00a0", "\u2009"])
    quotes = st.sampled_from(["{}", '"{}"', "'{}'", "\u201c{}\u201d", "\u00ab{}\u00bb"])
    quoted = [data.draw(quotes).format(data.draw(st.sampled_from([str.upper, str.lower]))(w)) for w in words]
    other = "".join(word + data.draw(blanks) for word in quoted) + "End"
    other = (
        data.draw(blanks)
        + other
        + data.draw(st.sampled_from(["", ".", "?", "!", "...", "\u3002", " ", "?!"]))
    )
    assert normalised(other) == normalised(plain)


@given(
    st.text(max_size=6) | OF_INTEREST, st.integers(0, 9), st.integers(0, 9), st.text(max_size=6) | OF_INTEREST
)
def test_a_changed_digit_changes_it(before: str, one: int, other: int, after: str) -> None:
    first, second = (normalised(f"{before}{digit}{after}") for digit in (one, other))
    assert (first == second) == (one == other)


@given(
    st.text(st.characters(exclude_categories=["M", "C"]), max_size=6), st.sampled_from("-+*/=<>^%"), NUMBERS
)
def test_a_sign_or_operator_changes_it(before: str, sign: str, number: str) -> None:
    assert normalised(f"{before}{sign}{number}") != normalised(f"{before}{number}")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("3.5", "35"),
        (".5", "5"),
        ("-1", "1"),
        ("\u22121", "1"),
        ("3-2", "32"),
        ("3\u20132", "32"),
        ("1,000", "1 000"),
        ("3:2", "3 2"),
        ("3\u00b2", "32"),
        ("x\u2082", "x2"),
        ("1\u00bd", "11/2"),
        ("5!", "5"),
        ("a != b", "a = b"),
        ("5'6\"", "56"),
        ("(1 + 2) * 3", "1 + 2 * 3"),
        ("$5", "5"),
        ("5%", "5"),
        ("x < y", "x > y"),
        (",", "."),
        ("?", "!"),
    ],
)
def test_what_stays_apart(one: str, other: str) -> None:
    assert normalised(one) != normalised(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Is it 5?", "is it 5"),
        ("yes, no", "Yes,no"),
        ("don't", "don\u2019t"),
        ("\uff13\uff0e\uff15", "3.5"),
        ("\u22121", "-1"),
        ("x^2", "x\u00b2"),
        ("STRASSE", "stra\u00dfe"),
        ("a\u200b b\ufeff", "a b"),
        ("He said: \u201cgo!\u201d", "he said go"),
    ],
)
def test_what_is_the_same(one: str, other: str) -> None:
    assert normalised(one) == normalised(other)
    assert not re.search(r"\s\s|^\s|\s$", normalised(one))
