from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from quantgate.model.errors import ConfigError, RunError
from tasks.progress import Reporter
from tasks.quality.jsonl import read_documents, write_task


def jsonl(folder: Path, *lines: Any, name: str = "own.jsonl") -> Path:
    path = folder / name
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


def rows_of(task: Path) -> list[dict[str, Any]]:
    return pq.read_table(task.with_suffix(".parquet")).to_pylist()


def test_a_generated_answer_is_trimmed_and_everything_else_kept(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path,
        {"prompt": " 1 + 1 =\n", "answer": "  2 \n", "subject": "sums"},
        "",
        {"id": 7, "prompt": "half?", "answer": 0.5, "article": "halves"},
    )
    first, second = read_documents(path)
    assert (first.prompt, first.answer, first.cluster, first.subject) == (" 1 + 1 =\n", "2", None, "sums")
    assert (second.id, second.answer, second.cluster, second.subject) == ("7", "0.5", "halves", None)
    assert first.id == read_documents(path)[0].id
    assert len(first.id) == 16


@pytest.mark.parametrize(
    ("choices", "answer", "gold"),
    [
        (["red", "blue"], "blue", 1),
        ([" red ", "blue"], "red", 0),
        (["red", "blue"], 1, 1),
        (["10", "20", "30"], 2, 2),
        (["1", "2"], "1", 0),
        ([3, 4, 5], 4, 1),
        ([1, 2, 3], 1, 0),
    ],
)
def test_the_right_choice_by_text_by_index_or_by_value(
    tmp_path: Path, choices: list[Any], answer: Any, gold: int
) -> None:
    path = jsonl(tmp_path, {"prompt": "which?", "choices": choices, "answer": answer})
    document = read_documents(path)[0]
    assert document.gold == gold
    assert document.choices == tuple(f" {str(choice).strip()}" for choice in choices)
    assert document.choices[gold] == f" {document.answer}"


def test_a_prompt_that_ends_in_space_gets_no_second_one(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"prompt": "which?\n", "choices": ["a", "b"], "answer": "a"})
    assert read_documents(path)[0].choices == ("a", "b")


GOOD = {"prompt": "p", "answer": "a"}
CHOICE = {"prompt": "p", "answer": "a", "choices": ["a", "b"]}


@pytest.mark.parametrize(
    ("lines", "line", "told"),
    [
        ([GOOD, "{oops"], 2, "is not JSON: Expecting property name enclosed in double quotes at column 2"),
        (["[1]"], 1, "is not a JSON object"),
        ([GOOD, "", {"prompt": "p"}], 3, "has no 'answer'"),
        ([{"answer": "a"}], 1, "has no 'prompt'"),
        ([{"prompt": None, "answer": "a"}], 1, "has no 'prompt'"),
        ([{"prompt": "", "answer": "a"}], 1, "'prompt' is empty"),
        ([{"prompt": "p", "answer": " "}], 1, "'answer' is empty"),
        ([{"prompt": ["p"], "answer": "a"}], 1, "'prompt' is neither text nor a number"),
        ([{"prompt": "p", "answer": True}], 1, "'answer' is neither text nor a number"),
        (['{"prompt": "\\ud800", "answer": "a"}'], 1, "is not JSON: holds half of a surrogate pair"),
        ([{"prompt": "p", "answr": "x"}], 1, "has no 'answer'. Is it 'answr'? Call it 'answer'."),
        ([{"prompt": "p", "output": "x"}], 1, "has no 'answer'. Is it 'output'? Call it 'answer'."),
        ([{"problem": "p", "answer": "x"}], 1, "has no 'prompt'. Is it 'problem'? Call it 'prompt'."),
        ([{**GOOD, "choice": ["a", "b"]}], 1, "unknown key 'choice'. Did you mean 'choices'?"),
        ([{"question": "p", "input": "q", "answer": "x"}], 1, "has no 'prompt', but 'question' and 'input'"),
        (
            [{"prompt": "p", "target": "p", "expected": "x"}],
            1,
            "has no 'answer', but 'target' and 'expected'",
        ),
        (
            [{"instruction": "add", "input": "1 1", "answer": "2"}],
            1,
            "has 'instruction' beside 'input'. Write all that is asked as 'prompt'.",
        ),
        (
            [{"question": ["p"], "answer": "a"}],
            1,
            "'question' is not one user's message and an answer (None)",
        ),
        ([{"question": {}, "answer": "a"}], 1, "'prompt' is neither text nor a number"),
        (
            [
                {
                    "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
                    "answer": "a",
                }
            ],
            1,
            "'messages' is not one user's message and an answer (system, user). Write as 'prompt'",
        ),
        ([{"messages": [{"role": "user", "content": "u"}]}], 1, "has no 'answer'"),
        (
            [
                {
                    "messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}],
                    "expected": "b",
                }
            ],
            1,
            "has an answer, and 'messages' another one. Leave out the assistant's message.",
        ),
        (
            [{"messages": [{"role": "user", "content": [{"type": "image_url"}]}], "answer": "a"}],
            1,
            "'messages' holds more than text",
        ),
        ([{**CHOICE, "answer": "c"}], 1, 'answer "c" is not among the choices'),
        (
            [{**CHOICE, "answer": 2}],
            1,
            "answer 2 is not among the choices. Give one choice's text, or its index",
        ),
        ([{**CHOICE, "answer": -1}], 1, "answer -1 is not among the choices"),
        ([{**CHOICE, "answer": False}], 1, "answer false is not among the choices"),
        ([{**CHOICE, "choices": "ab"}], 1, "'choices' is not a list"),
        ([{**CHOICE, "choices": ["a"]}], 1, "'choices' holds fewer than two"),
        ([{**CHOICE, "choices": ["a", " "]}], 1, "a choice is empty"),
        ([{**CHOICE, "choices": ["a", "a "]}], 1, "choice 'a' is listed twice"),
        ([GOOD, CHOICE], 2, "is multiple choice while the lines above are generated"),
        ([CHOICE, GOOD], 2, "is generated while the lines above are multiple choice"),
        ([{**GOOD, "id": "x"}, GOOD, {**GOOD, "id": "x"}], 3, "id 'x' is on line 1 already"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_line(
    tmp_path: Path, lines: list[Any], line: int, told: str
) -> None:
    path = jsonl(tmp_path, *lines)
    with pytest.raises(ConfigError) as raised:
        read_documents(path)
    message = str(raised.value)
    assert message.startswith(f"{path}:{line}: ")
    assert told in message
    assert "\n" not in message
    assert raised.value.exit_status == 2


CHAT = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "a"}]


@pytest.mark.parametrize(
    "line",
    [
        {"question": "p", "answer": "a"},
        {"input": "p", "target": "a"},
        {"prompt": None, "question": "p", "expected": "a"},
        {"messages": CHAT},
        {"messages": CHAT[:1], "answer": "a"},
        {"input": CHAT[:1], "expected": "a"},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "p"}]}], "target": "a"},
    ],
)
def test_other_names_make_the_same_task(tmp_path: Path, line: dict[str, Any]) -> None:
    (tmp_path / "other").mkdir()
    usual = write_task(jsonl(tmp_path, GOOD), tmp_path / "made")
    before = usual.with_suffix(".parquet").read_bytes()
    assert write_task(jsonl(tmp_path / "other", line), tmp_path / "made") == usual
    assert usual.with_suffix(".parquet").read_bytes() == before


def test_options_are_choices(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"question": "which?", "options": ["red", "blue"], "answer": "blue"})
    assert read_documents(path)[0].gold == 1


def test_other_keys_are_metadata_and_named_once(tmp_path: Path) -> None:
    """They are no part of the question: data, ids and hashes are those of the lines without them."""
    usual = write_task(jsonl(tmp_path, GOOD, {**GOOD, "id": "x"}), tmp_path / "made")
    before = usual.read_bytes(), usual.with_suffix(".parquet").read_bytes()
    more = {"level": 3, "target": "the mark", "subjct": None}
    lines: list[str] = []
    with Reporter(lines.append).used():
        path = jsonl(tmp_path, {**GOOD, "level": [1]}, {**GOOD, "id": "x", **more})
        assert write_task(path, tmp_path / "made") == usual
    assert lines == [
        "own.jsonl: kept as metadata, not asked: level, target, subjct (is 'subject' meant?)",
    ]
    assert (usual.read_bytes(), usual.with_suffix(".parquet").read_bytes()) == before
    kept = [json.loads(line) for line in (usual.parent / "own.metadata.jsonl").read_text().splitlines()]
    assert kept == [{"id": rows_of(usual)[0]["id"], "level": [1]}, {"id": "x", **more}]
    write_task(jsonl(tmp_path, GOOD, {**GOOD, "id": "x"}), tmp_path / "made")
    assert sorted(file.name for file in usual.parent.iterdir()) == ["own.parquet", "own.yaml"]


def test_many_keys_are_counted(tmp_path: Path) -> None:
    lines: list[str] = []
    with Reporter(lines.append).used():
        write_task(jsonl(tmp_path, GOOD | {f"k{number}": 1 for number in range(13)}), tmp_path / "made")
    assert lines == [
        f"own.jsonl: kept as metadata, not asked: {', '.join(f'k{n}' for n in range(10))} and 3 more"
    ]


def test_the_data_of_a_file_of_before_are_what_they_were(tmp_path: Path) -> None:
    """Its hash is part of every fingerprint: it was taken of the same lines at commit 210338b."""
    path = jsonl(tmp_path, {**GOOD, "subject": "s"}, {"id": 7, "prompt": "q", "answer": 0.5, "article": "t"})
    task = write_task(path, tmp_path / "made")
    assert task.parent.name == "own-68df5e1eb056"
    assert rows_of(task) == [
        {"id": "f968393e6bf69e76", "prompt": "p", "answer": "a", "cluster": None, "subject": "s"},
        {"id": "7", "prompt": "q", "answer": "0.5", "cluster": "t", "subject": None},
    ]


def test_files_that_are_missing_empty_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.jsonl: no such file"):
        read_documents(tmp_path / "gone.jsonl")
    with pytest.raises(ConfigError, match=r"own\.jsonl: holds no documents"):
        read_documents(jsonl(tmp_path, "", "  "))
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "\xe9", "answer": "a"}\n')
    with pytest.raises(ConfigError, match=r"latin\.jsonl: is not UTF-8"):
        read_documents(tmp_path / "latin.jsonl")


def test_documents_without_ids_may_be_the_same(tmp_path: Path) -> None:
    first, second = read_documents(jsonl(tmp_path, GOOD, GOOD))
    assert first == second


def test_answers_that_look_like_dates_stay_text(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"id": "2024-01-01", "prompt": "when?", "answer": "2024-01-02 10:00:00"})
    row = rows_of(write_task(path, tmp_path / "made"))[0]
    assert (row["id"], row["answer"]) == ("2024-01-01", "2024-01-02 10:00:00")


def test_the_task_of_generated_answers(tmp_path: Path) -> None:
    path = jsonl(tmp_path, GOOD, {"prompt": "q", "answer": "x" * 40}, name="My Task-2.jsonl")
    task = write_task(path, tmp_path / "made")
    config = yaml.safe_load(task.read_text())
    assert config["task"] == "my_task_2"
    assert config["dataset_kwargs"] == {"data_files": {"test": "my_task_2.parquet"}}
    assert config["generation_kwargs"]["until"] == ["\n"]
    assert config["generation_kwargs"]["max_gen_toks"] == 56
    assert [one["function"] for one in config["filter_list"][0]["filter"]] == [
        "remove_whitespace",
        "take_first",
    ]
    assert config["metric_list"][0]["metric"] == "exact_match"


def test_answers_of_several_lines_are_not_cut_at_the_first(tmp_path: Path) -> None:
    config = yaml.safe_load(
        write_task(jsonl(tmp_path, {"prompt": "q", "answer": "a\nb"}), tmp_path / "made").read_text()
    )
    assert config["generation_kwargs"]["until"] == []


def test_the_same_content_is_the_same_task_and_another_has_a_place_of_its_own(tmp_path: Path) -> None:
    first = write_task(jsonl(tmp_path, GOOD), tmp_path / "made")
    before = first.read_bytes(), first.with_suffix(".parquet").read_bytes()
    again = write_task(jsonl(tmp_path, GOOD), tmp_path / "made")
    other = write_task(jsonl(tmp_path, {**GOOD, "answer": "b"}), tmp_path / "made")
    assert again == first
    assert (again.read_bytes(), again.with_suffix(".parquet").read_bytes()) == before
    assert other.parent != first.parent
    assert sorted(path.name for path in first.parent.iterdir()) == ["own.parquet", "own.yaml"]


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@settings(deadline=None, max_examples=30)
@given(prompts=st.lists(texts, min_size=1, max_size=4), answer=texts.filter(lambda text: text.strip()))
def test_any_text_arrives_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, prompts: list[str], answer: str
) -> None:
    folder = tmp_path_factory.mktemp("texts")
    path = folder / "any.jsonl"
    lines = [json.dumps({"prompt": prompt, "answer": answer}, ensure_ascii=False) for prompt in prompts]
    path.write_text("\n".join(lines), encoding="utf-8")
    rows = rows_of(write_task(path, folder))
    assert [row["prompt"] for row in rows] == prompts
    assert {row["answer"] for row in rows} == {answer.strip()}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from(["id", "prompt", "answer", "choices", "subject", "messages", "target", "level"])


@settings(deadline=None, max_examples=120)
@given(line=st.dictionaries(keys, json_values, max_size=5).map(json.dumps) | st.text(max_size=20))
def test_no_line_brings_anything_but_documents_or_one_clear_line(
    tmp_path_factory: pytest.TempPathFactory, line: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.jsonl"
    path.write_text(line, encoding="utf-8", errors="replace")
    told, documents = None, []
    try:
        documents = read_documents(path)
    except ConfigError as error:
        told = str(error)
    assert (told is None) == bool(documents)
    assert told is None or (told.startswith(str(path)) and "\n" not in told)
    assert all(document.prompt and document.answer for document in documents)


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = jsonl(tmp_path, {"prompt": "1 + 1 =", "answer": "2"})

    def full(_table: Any, part: Path) -> None:
        part.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(RunError, match=r"own\.parquet: it can't be written"):
        write_task(path, tmp_path / "made")
    assert not [file for file in (tmp_path / "made").rglob("*") if file.is_file()]
