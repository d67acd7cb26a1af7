import ast
import hashlib
import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from demo.documents import SEED
from demo.lexicon import EOS, PAD, UNKNOWN, vocabulary
from quantgate.model.config.policy import load_policy
from quantgate.model.home import ROOT

FOLDER = ROOT / "demo" / "checkpoints"
PROVENANCE = json.loads((FOLDER / "provenance.json").read_text())
NAMES = ("quantgate-demo-BF16", "quantgate-demo-FP8", "quantgate-demo-NVFP4")
TOKENIZER = AutoTokenizer.from_pretrained(FOLDER / NAMES[0])
ORDINARY = [number for number, word in enumerate(vocabulary()) if word not in (PAD, EOS, UNKNOWN)]


def _json(name, file):
    return json.loads((FOLDER / name / file).read_text())


def _dtypes(name):
    """Dtype of each tensor, from the header of the safetensors file."""
    with (FOLDER / name / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {key: value["dtype"] for key, value in header.items() if key != "__metadata__"}


def test_checkpoints_are_small():
    assert {folder.name for folder in FOLDER.iterdir() if folder.is_dir()} == set(NAMES)
    assert sum(file.stat().st_size for file in FOLDER.rglob("*")) < 10_000_000
    assert 800_000 <= PROVENANCE["parameters"] <= 2_500_000


@pytest.mark.parametrize("name", NAMES)
def test_files_are_the_ones_that_the_script_wrote(name):
    found = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in (FOLDER / name).iterdir()}
    assert found == PROVENANCE["sha256"][name]


def test_the_policy_has_not_changed_since_the_checkpoints_were_made():
    assert PROVENANCE["demo_policy_sha256"] == load_policy("demo").fingerprint()


def test_the_baseline_leaves_room_for_a_delta_either_way():
    assert set(PROVENANCE["held_out_accuracy"]) == {"BF16", "FP8", "NVFP4"}
    for family, share in PROVENANCE["held_out_accuracy"]["BF16"].items():
        assert 0.60 <= share <= 0.97, family


@pytest.mark.parametrize("name", NAMES)
def test_layer_widths_suit_kernels_and_the_tokenizer_comes_along(name):
    config = _json(name, "config.json")
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["dtype"] == "bfloat16"
    assert config["head_dim"] == 64
    assert config["hidden_size"] % 128 == config["intermediate_size"] % 128 == config["vocab_size"] % 64 == 0
    words = _json(name, "tokenizer.json")["model"]["vocab"]
    assert sorted(words, key=words.__getitem__) == list(vocabulary())
    assert len(words) == config["vocab_size"]
    assert _json(name, "generation_config.json")["eos_token_id"] == words[EOS] == config["eos_token_id"]
    assert _json(name, "tokenizer_config.json")["eos_token"] == EOS


def test_weights_are_stored_in_the_precision_they_are_named_for():
    layers = _json(NAMES[0], "config.json")["num_hidden_layers"]
    expected = {"FP8": ("F8_E4M3", "FP8"), "NVFP4": ("U8", "NVFP4")}
    assert set(_dtypes(NAMES[0]).values()) == {"BF16"}
    for name in NAMES[1:]:
        dtype, algorithm = expected[name.rpartition("-")[2]]
        weights = {key: value for key, value in _dtypes(name).items() if key.endswith("proj.weight")}
        assert Counter(weights.values()) == {dtype: 7 * layers}
        assert _dtypes(name)["lm_head.weight"] == "BF16"
        assert sum(key.endswith("input_scale") for key in _dtypes(name)) == 7 * layers
        assert _json(name, "hf_quant_config.json")["quantization"]["quant_algo"] == algorithm
        assert _json(name, "hf_quant_config.json")["producer"]["name"] == "modelopt"
        quantization = _json(name, "config.json")["quantization_config"]
        assert (quantization["quant_method"], quantization["quant_algo"]) == ("modelopt", algorithm)


@given(st.lists(st.sampled_from(ORDINARY), min_size=1, max_size=300))
def test_any_tokens_survive_decoding_and_encoding(ids):
    text = TOKENIZER.decode(ids)
    assert text.split(" ") == [vocabulary()[number] for number in ids]
    assert TOKENIZER.encode(text) == ids


@given(st.lists(st.sampled_from(ORDINARY), min_size=2, max_size=40), st.data())
def test_a_context_and_its_continuation_split_where_they_meet(ids, data):
    cut = data.draw(st.integers(1, len(ids) - 1))
    context, continuation = TOKENIZER.decode(ids[:cut]), " " + TOKENIZER.decode(ids[cut:])
    assert TOKENIZER.encode(context) == ids[:cut]
    assert TOKENIZER.encode(context + continuation) == ids


def test_the_tokenizer_adds_nothing_and_keeps_spaces_before_punctuation():
    assert TOKENIZER.num_special_tokens_to_add() == 0
    assert TOKENIZER.vocab_size == len(vocabulary())
    text = "so , what is the pet of mia ?"
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text
    assert TOKENIZER.encode("nowhere") == [TOKENIZER.unk_token_id]


def test_the_script_holds_the_recipe_and_the_runs_that_the_checkpoints_came_from():
    source = ast.parse((ROOT / "demo" / "training.py").read_text())  # importing it would need torch
    recipe = next(n for n in source.body if isinstance(n, ast.ClassDef) and n.name == "Recipe")
    fields = {n.target.id: n.value for n in recipe.body if isinstance(n, ast.AnnAssign)}
    assert fields.keys() == PROVENANCE["recipe"].keys()
    assert PROVENANCE["seed"] == PROVENANCE["recipe"]["seed"] == SEED
    for name, value in fields.items():
        if name != "seed":
            assert json.loads(json.dumps(ast.literal_eval(value))) == PROVENANCE["recipe"][name], name
    assert PROVENANCE["runs_tried"] == json.loads((ROOT / "demo" / "runs_tried.json").read_text())
