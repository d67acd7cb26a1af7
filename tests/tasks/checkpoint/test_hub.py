"""The hub's own client against a small hub on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import hf_hub_download

from quantgate.model.errors import ConfigError
from quantgate.model.records import Checkpoint
from tasks.checkpoint.hub import HUB_ID
from tasks.checkpoint.resolve import resolve
from tests.support.hub_server import HubServer
from tests.support.tiny_checkpoints import checkpoint_files

ORG = "acme/tiny-7B-FP8"
SERVED = checkpoint_files()
NOT_SERVED = {
    "README.md": b"# tiny",
    "modeling_tiny.py": b"raise SystemExit",
    "pytorch_model.bin": b"pickle",
    "original/consolidated.00.pth": b"pickle",
    "original/params.json": b"{}",
    "consolidated.safetensors": b"the same weights again",
}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def refusal(source: str, cache: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve(source, cache=cache)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_main_is_pinned_and_only_what_is_served_is_fetched(hub: HubServer, cache: Path) -> None:
    sha = hub.add(ORG, SERVED | NOT_SERVED)
    found = resolve(ORG, cache=cache)
    assert found == Checkpoint(
        source=ORG,
        path=found.path,
        name=ORG,
        revision=sha,
        model="tiny-7B",
        architecture="LlamaForCausalLM",
        precision="bf16",
        weight_format="unquantized",
        kv_cache_dtype="auto",
        parameters=32896,
        size_bytes=len(SERVED["model.safetensors"]),
        vocab_size=64,
        max_position_embeddings=256,
        layers={"bf16": 3},
    )
    fetched = {*SERVED, "README.md"}  # the card names what it was made from
    assert hub.downloaded() == fetched
    assert {path.name for path in Path(found.path).iterdir()} == fetched
    assert all(sha in path for _, path in hub.requests if "/resolve/" in path)


def test_weights_that_are_refused_for_their_size_are_not_fetched(hub: HubServer, cache: Path) -> None:
    hub.add(ORG, SERVED | NOT_SERVED)

    def refuse(size_bytes: int) -> None:
        assert size_bytes == len(SERVED["model.safetensors"])
        raise ConfigError("too large", where=ORG)

    with pytest.raises(ConfigError, match="too large"):
        resolve(ORG, cache=cache, check_bytes=refuse)
    assert not {name for name in hub.downloaded() if name.endswith(".safetensors")}


def test_a_second_time_nothing_is_fetched_and_a_pinned_commit_asks_nothing(
    hub: HubServer, cache: Path
) -> None:
    sha = hub.add(ORG, SERVED)
    first = resolve(ORG, cache=cache)
    hub.requests.clear()
    assert resolve(ORG, cache=cache) == first
    assert [path for _, path in hub.requests] == [f"/api/models/{ORG}"]
    hub.requests.clear()
    pinned = resolve(f"{ORG}@{sha}", cache=cache)
    assert hub.requests == []
    assert (pinned.revision, pinned.path) == (sha, first.path)


def test_a_moved_branch_is_another_revision_and_the_old_one_stays(hub: HubServer, cache: Path) -> None:
    old = resolve(ORG, cache=cache).revision if hub.add(ORG, SERVED) else ""
    new = hub.add(ORG, SERVED | {"generation_config.json": b'{"temperature": 0.5}'})
    assert new != old
    assert resolve(f"{ORG}@main", cache=cache).revision == new
    assert resolve(f"{ORG}@{old}", cache=cache).revision == old


def test_a_tag_is_resolved(hub: HubServer, cache: Path) -> None:
    sha = hub.add(ORG, SERVED, branch="v1.0")
    assert resolve(f"{ORG}@v1.0", cache=cache).revision == sha


def test_an_unknown_repository_is_one_line(hub: HubServer, cache: Path) -> None:
    assert refusal("acme/none", cache) == (
        "acme/none: neither a folder here nor a repository the hub shows (HTTP 404). "
        "Check the id; for a private repository set HF_TOKEN."
    )


def test_an_unknown_revision_is_one_line(hub: HubServer, cache: Path) -> None:
    hub.add(ORG, SERVED)
    for revision in ("v9", "0" * 40):
        assert refusal(f"{ORG}@{revision}", cache) == (
            f"{ORG}@{revision}: the repository has no revision '{revision}' (HTTP 404). "
            "Give a branch, a tag or a commit; a pin that is gone is replaced by `--update-pins`."
        )


def test_a_private_repository_needs_the_token(
    hub: HubServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = hub.add(ORG, SERVED, token="secret")
    assert refusal(ORG, cache) == (
        f"{ORG}: neither a folder here nor a repository the hub shows (HTTP 401). "
        "Check the id; for a private repository set HF_TOKEN."
    )
    monkeypatch.setenv("HF_TOKEN", "stale")
    assert refusal(ORG, cache) == f"{ORG}: the hub refused (HTTP 401). Renew HF_TOKEN or unset it."
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert resolve(ORG, cache=cache).revision == sha


def test_a_gated_repository_says_what_to_accept(hub: HubServer, cache: Path) -> None:
    hub.add(ORG, SERVED, gated=True)
    assert refusal(ORG, cache) == (
        f"{ORG}: the hub grants no access to this gated repository (HTTP 403). "
        "Accept its terms on the hub, and set HF_TOKEN to a token that may read it."
    )


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        ("config.json", "no config.json"),
        ("tokenizer.json", "no tokenizer"),
        ("model.safetensors", "pickle weights only (pytorch_model.bin)"),
    ],
)
def test_what_cannot_be_served_is_refused_before_a_download(
    hub: HubServer, cache: Path, missing: str, says: str
) -> None:
    hub.add(
        ORG,
        {
            name: content
            for name, content in (SERVED | NOT_SERVED).items()
            if name not in {missing, "consolidated.safetensors"}
        },
    )
    assert refusal(ORG, cache).startswith(f"{ORG}: {says}")
    assert hub.downloaded() == set()


def test_a_truncated_file_of_the_hub_is_refused(hub: HubServer, cache: Path) -> None:
    hub.add(ORG, SERVED | {"model.safetensors": SERVED["model.safetensors"][:-1]})
    assert "model.safetensors is truncated" in refusal(ORG, cache)


def test_offline_only_the_cache_counts(hub: HubServer, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("acme/other", SERVED)
    hub.add(ORG, SERVED)
    first = resolve(ORG, cache=cache)
    hub.requests.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert resolve(ORG, cache=cache) == first
    assert refusal("acme/other", cache) == (
        "acme/other: not a folder here, and not in the hub's cache while HF_HUB_OFFLINE is set. "
        "Unset HF_HUB_OFFLINE to pull it, or give a local folder."
    )
    assert hub.requests == []


@pytest.mark.parametrize("revision", ["", "@" + "0" * 40])
def test_a_hub_that_is_not_there_is_one_line(
    cache: Path, monkeypatch: pytest.MonkeyPatch, hub: HubServer, revision: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    message = refusal(ORG + revision, cache)
    assert message.startswith(f"{ORG}{revision}: not a folder here, and pulling it from the hub failed (")
    assert "Connection refused" in message
    assert message.endswith("Check the network and HF_ENDPOINT, or give a local folder.")


def test_what_the_cache_holds_needs_no_hub(
    hub: HubServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(ORG, SERVED)
    first = resolve(ORG, cache=cache)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert resolve(ORG, cache=cache) == first


def test_an_interrupted_download_is_completed(hub: HubServer, cache: Path) -> None:
    hub.add(ORG, SERVED)
    first = resolve(ORG, cache=cache)
    weights = Path(first.path) / "model.safetensors"
    weights.resolve().unlink()
    weights.unlink()
    hub.requests.clear()
    assert resolve(f"{ORG}@{first.revision}", cache=cache).path == first.path
    assert hub.downloaded() == {"model.safetensors"}


def test_a_tokenizer_that_something_else_fetched_is_no_snapshot(hub: HubServer, cache: Path) -> None:
    sha = hub.add(ORG, SERVED)
    hf_hub_download(ORG, "tokenizer.json", revision=sha, cache_dir=cache, endpoint=hub.endpoint)
    assert resolve(f"{ORG}@{sha}", cache=cache).parameters == 32896


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("org/name", ("org/name", None)),
        ("nvidia/Llama-3.1-8B-Instruct-FP8@main", ("nvidia/Llama-3.1-8B-Instruct-FP8", "main")),
        ("a/b@refs/pr/4", ("a/b", "refs/pr/4")),
        ("name", None),
        ("a/b/c", None),
        ("./a", None),
        ("a/..", None),
        ("a/b--c", None),
        ("a/b.", None),
        ("/a", None),
        ("a/b@", None),
        ("a/b\n", None),
    ],
)
def test_hub_ids(source: str, parts: tuple[str, str | None] | None) -> None:
    found = HUB_ID.fullmatch(source)
    assert (found and found.group("repo", "revision")) == parts
