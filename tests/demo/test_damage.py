"""Each damage does what it says and nothing else."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from demo import damage
from demo.damage import BROKEN_TEMPLATES, CHAT, DAMAGES, MODEL, SOURCE, STRENGTHS, TEMPLATE, TOKENIZER
from quantgate.model.home import ROOT
from tasks.checkpoint.resolve import resolve

BITS16 = st.integers(0, 0x7F7F) | st.integers(0x8000, 0xFF7F)  # every finite bfloat16


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return damage.make(tmp_path_factory.mktemp("damaged"))


@pytest.fixture(scope="module")
def sound() -> damage.Weights:
    return damage.read_weights(SOURCE / MODEL)[1]


def weights_of(folder: Path) -> damage.Weights:
    return damage.read_weights(folder / MODEL)[1]


def changed(before: damage.Weights, after: damage.Weights) -> set[str]:
    assert {name: bits.shape for name, bits in before.items()} == {n: b.shape for n, b in after.items()}
    return {name for name, bits in before.items() if not np.array_equal(bits, after[name])}


def hashes(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


@given(st.lists(BITS16, min_size=1))
def test_bfloat16_survives_being_widened_and_narrowed(bits: list[int]) -> None:
    given_bits = np.array(bits, np.uint16)
    assert np.array_equal(damage.narrowed(damage.widened(given_bits)), given_bits)


@given(st.floats(width=32, min_value=-(2.0**126), max_value=2.0**126))
def test_narrowed_is_the_nearest_bfloat16_and_the_even_one_of_two(value: float) -> None:
    bits = int(damage.narrowed(np.array([value], np.float32))[0])
    near = np.array([bits - 1, bits, bits + 1], np.int64) % 65536
    distance = np.abs(damage.widened(near.astype(np.uint16)).astype(np.float64) - value)
    distance[np.isnan(distance)] = np.inf
    assert distance[1] == distance.min()
    assert bits % 2 == 0 or np.count_nonzero(distance == distance[1]) == 1


def test_what_is_read_is_written_to_the_byte(tmp_path: Path) -> None:
    damage.write_weights(tmp_path / MODEL, *damage.read_weights(SOURCE / MODEL))
    assert (tmp_path / MODEL).read_bytes() == (SOURCE / MODEL).read_bytes()


def test_other_formats_are_refused() -> None:
    quantized = SOURCE.with_name("quantgate-demo-FP8") / MODEL
    with pytest.raises(ValueError, match="only bfloat16 can be edited"):
        damage.read_weights(quantized)


@pytest.mark.parametrize("factor", STRENGTHS)
def test_scaled_weights(made: dict[str, Path], sound: damage.Weights, factor: float) -> None:
    after = weights_of(made[f"scaled-{factor:g}"])
    names = changed(sound, after)
    assert names == {f"model.layers.{layer}.mlp.down_proj.weight" for layer in range(4)}
    for name in names:
        expected = damage.widened(sound[name]) * factor
        assert np.allclose(damage.widened(after[name]), expected, rtol=2**-8, atol=0)


def test_swapped_layers(made: dict[str, Path], sound: damage.Weights) -> None:
    after = weights_of(made["layers-swapped"])
    assert changed(sound, after) == {n for n in sound if n.startswith(("model.layers.2.", "model.layers.3."))}
    for name in sound:
        there = (
            name.replace("layers.2", "layers.x")
            .replace("layers.3", "layers.2")
            .replace("layers.x", "layers.3")
        )
        assert np.array_equal(after[name], sound[there])


def test_shuffled_rows_all_move_and_none_is_lost(made: dict[str, Path], sound: damage.Weights) -> None:
    after, name = weights_of(made["rows-shuffled"]), "model.embed_tokens.weight"
    assert changed(sound, after) == {name}
    moved = [row for row in range(256) if not np.array_equal(sound[name][row], after[name][row])]
    assert len(moved) == round(0.03 * 256)
    assert sorted(map(bytes, after[name][moved])) == sorted(map(bytes, sound[name][moved]))


def test_swapped_words_go_both_ways(made: dict[str, Path]) -> None:
    before, after = (
        Tokenizer.from_file(str(folder / TOKENIZER)) for folder in (SOURCE, made["words-swapped"])
    )
    text = "user : tell me the pet of dan . bot : for dora it is max"
    ids = after.encode(text).ids
    assert before.decode(ids) == "user : tell me the pet of dora . bot : for dan it is mara"
    assert after.decode(ids) == text
    assert sorted(before.get_vocab().values()) == sorted(after.get_vocab().values())


def test_templates_as_a_tokenizer_renders_them(made: dict[str, Path]) -> None:
    prompt = json.loads((ROOT / "demo/tasks/cloze.jsonl").read_text().splitlines()[0])["prompt"]
    question, reply = prompt.removeprefix("user : ").split(" bot : ")
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]

    def rendered(name: str) -> str:
        tokenizer = AutoTokenizer.from_pretrained(made[name])
        assert tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True).endswith(
            " bot :"
        )
        return str(tokenizer.apply_chat_template(turns, tokenize=False, continue_final_message=True))

    assert rendered(CHAT) == prompt
    assert rendered("template-in-capitals") == f"user : {question.upper()} bot : {reply}"


def test_nothing_else_is_touched_and_making_them_again_gives_the_same(
    made: dict[str, Path], tmp_path: Path
) -> None:
    sound = hashes(SOURCE)
    touched = {
        **dict.fromkeys(DAMAGES, MODEL),
        "words-swapped": TOKENIZER,
        **dict.fromkeys((CHAT, *BROKEN_TEMPLATES), TEMPLATE),
    }
    assert made.keys() == touched.keys()
    done = subprocess.run(
        [sys.executable, "-m", "demo.damage", "--out", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert len(done.stdout.splitlines()) == len(made)
    for name, folder in made.items():
        found = hashes(folder)
        assert {file for file, digest in found.items() if sound.get(file) != digest} == {touched[name]}
        assert hashes(tmp_path / folder.name) == found


def test_the_pipeline_takes_them_for_sound_checkpoints(made: dict[str, Path]) -> None:
    """Nothing in their files gives them away: only what they answer can."""
    checkpoints = [resolve(str(folder)) for folder in (SOURCE, *made.values())]
    assert {(one.precision, one.parameters) for one in checkpoints} == {("bf16", checkpoints[0].parameters)}
    assert len({one.revision for one in checkpoints}) == len(made) + 1
