"""What the command reads, a kind of input each: content that is right, and the command line that reads it."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from quantgate.model.home import ROOT
from tests.fuzz.junk import MUTATIONS, NO_FILES
from tests.support.offers import OFFER, written
from tests.support.tiny_checkpoints import REST, Q, checkpoint_files
from tests.warehouse.evidence.test_mlperf import result

BASELINE, CANDIDATE = (
    str(ROOT / "demo" / "checkpoints" / f"quantgate-demo-{precision}") for precision in ("BF16", "FP8")
)
TASKS = ROOT / "demo" / "tasks"
BUNDLES = ROOT / "tests" / "fixtures" / "bundles"
VALIDATE = ("validate", "--baseline", BASELINE, "--candidate", CANDIDATE)


@dataclass(frozen=True)
class Kind:
    """A kind of input; the words of its command and its variables name the file as ``{file}`` and ``{folder}``."""

    form: str
    name: str
    seed: Callable[[], bytes]
    command: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    beside: Callable[[Path], None] = lambda folder: None
    """Writes what lies beside the file."""

    @property
    def mutations(self) -> list[str]:
        """What can be wrong with it."""
        return [*MUTATIONS[self.form], *NO_FILES]

    def write(self, folder: Path, mutation: str, random: Random) -> tuple[list[str], dict[str, str]]:
        """Write the input with something wrong; return the command that reads it, and its variables."""
        self.beside(folder)
        file = folder / self.name
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.is_file():
            file.unlink()
        if mutation in NO_FILES:
            NO_FILES[mutation](file)
        else:
            file.write_bytes(MUTATIONS[self.form][mutation](self.seed(), random))
        named = {"{file}": str(file), "{folder}": str(folder)}
        words = [
            functools.reduce(lambda word, old: word.replace(old, named[old]), named, w) for w in self.command
        ]
        return words, {name: named.get(value, value) for name, value in self.environment}


def _stored(path: str) -> Callable[[], bytes]:
    return (ROOT / path).read_bytes


SETTINGS = {"max_position_embeddings": 2048, "num_attention_heads": 4, "num_key_value_heads": 2}
TASK = str(TASKS / "cloze.yaml")
FP8 = checkpoint_files(
    **SETTINGS,
    layout={f"{Q}.weight": ("F8_E4M3", (128, 128)), f"{Q}.weight_scale": ("F32", ()), **REST},
    hf_quant={
        "producer": {"name": "modelopt"},
        "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"},
    },
)
INDEX = json.dumps(
    {"weight_map": dict.fromkeys([f"{Q}.weight", f"{Q}.weight_scale", *REST], "model.safetensors")}
)
_ADAPTER = {
    "adapter_config.json": b'{"r": 8, "lora_alpha": 16}',
    "adapter_model.safetensors": b"\2\0\0\0\0\0\0\0{}",
}


def _beside(files: dict[str, bytes]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for name, content in files.items():
            (folder / name).write_bytes(content)

    return write


def _checkpoints(folder: Path) -> None:
    for name, files in {"tiny": checkpoint_files(**SETTINGS), "tiny-fp8": FP8}.items():
        (folder / name).mkdir()
        _beside(files)(folder / name)


def _checkpoint(name: str, form: str = "json", content: bytes | None = None) -> Kind:
    seed = FP8[name] if content is None else content
    line = ("validate", "--baseline", "{folder}/tiny", "--candidate", "{folder}/tiny-fp8", "--tasks", TASK)
    return Kind(form, f"tiny-fp8/{name}", lambda: seed, line, beside=_checkpoints)


def _task_files(folder: Path) -> None:
    for file in TASKS.iterdir():
        if file.is_file():
            shutil.copy(file, folder)


@functools.cache
def warehouse() -> bytes:
    """A warehouse that holds no run."""
    import tempfile

    from warehouse.load import load_bundles

    with tempfile.TemporaryDirectory() as made:
        load_bundles(Path(made) / "warehouse.duckdb", made)
        return (Path(made) / "warehouse.duckdb").read_bytes()


def _bundle(folder: Path) -> None:
    shutil.copytree(BUNDLES / _RUN, folder / "bundles" / _RUN)
    written(folder / "offer.csv", OFFER)
    (folder / "warehouse.duckdb").write_bytes(warehouse())


_RUN = sorted(BUNDLES.iterdir())[0].name


def _of_bundle(name: str, form: str) -> Kind:
    path, line = f"bundles/{_RUN}/{name}", ("prices", "import", "{folder}/offer.csv")
    return Kind(
        form, path, _stored(f"tests/fixtures/{path}"), line, (("QUANTGATE_HOME", "{folder}"),), _bundle
    )


def _offers(name: str) -> Callable[[], bytes]:
    def seed() -> bytes:
        import tempfile

        with tempfile.TemporaryDirectory() as made:
            return written(Path(made) / name, OFFER, OFFER | {"gpu": "h200"}).read_bytes()

    return seed


def _run_in_progress(folder: Path) -> None:
    (folder / "staging" / "f").mkdir(parents=True)
    (folder / "staging" / "f" / "state.json").write_bytes(STATE)


def _offer(folder: Path) -> None:
    written(folder / "offer.csv", OFFER)


DEMO = ("validate", "quantgate-demo")
STATE = b'{"run_id": "a", "started_at": "2026-01-01T00:00:00+00:00", "declared_order": 1, "checkpoint": "a"}'

KINDS: dict[str, Kind] = {
    "policy": Kind(
        "yaml",
        "mine.yaml",
        _stored("configs/policy.yaml"),
        ("judge", "--policy", "standard", "--policy-file", "{file}"),
    ),
    "suite": Kind("yaml", "mine.yaml", _stored("configs/suites/demo.yaml"), (*VALIDATE, "--tasks", "{file}")),
    "task": Kind(
        "yaml",
        "arithmetic.yaml",
        _stored("demo/tasks/arithmetic.yaml"),
        (*VALIDATE, "--tasks", "{file}"),
        (),
        _task_files,
    ),
    "data of a task": Kind(
        "json",
        "arithmetic.jsonl",
        lambda: b"".join((TASKS / "arithmetic.jsonl").read_bytes().splitlines(keepends=True)[:5]),
        (*VALIDATE, "--tasks", "{folder}/arithmetic.yaml"),
        (),
        _task_files,
    ),
    "documents": Kind(
        "json",
        "mine.jsonl",
        lambda: (
            b'{"id": 1, "prompt": "a", "answer": "b"}\n{"id": 2, "prompt": "c", "answer": "d", "subject": "x"}\n'
        ),
        (*VALIDATE, "--tasks", "{file}"),
    ),
    "choices": Kind(
        "json",
        "mine.jsonl",
        lambda: b'{"messages": [{"role": "user", "content": "a"}], "answer": 0, "choices": ["x", "y"]}\n' * 2,
        (*VALIDATE, "--tasks", "{file}"),
    ),
    "workload": Kind(
        "yaml",
        "mine.yaml",
        _stored("configs/workloads/short.yaml"),
        (*VALIDATE, "--tasks", "demo", "--workload", "{file}"),
    ),
    "fleet": Kind(
        "yaml",
        "mine.yaml",
        _stored("docs/local-fleet.yaml"),
        ("fleet", "show"),
        (("QUANTGATE_FLEET", "{file}"),),
    ),
    "engines": Kind(
        "yaml", "mine.yaml", _stored("configs/engines.yaml"), DEMO, (("QUANTGATE_ENGINES_FILE", "{file}"),)
    ),
    "prices, CSV": Kind("csv", "mine.csv", _offers("mine.csv"), ("prices", "import", "{file}")),
    "prices, JSON": Kind("json", "mine.json", _offers("mine.json"), ("prices", "import", "{file}")),
    "prices, kept": Kind(
        "yaml",
        "prices/0123.yaml",
        lambda: (
            b"prices:\n- {provider: acme, gpu: h100, price_kind: spot, usd_per_hour: 1.5, "
            b"valid_from: 2026-06-01, source: a}\n"
        ),
        ("prices", "import", "{folder}/offer.csv"),
        (("QUANTGATE_HOME", "{folder}"),),
        _offer,
    ),
    "published results": Kind(
        "json",
        "summary_results.json",
        lambda: json.dumps([result(), result()]).encode(),
        ("import", "{file}"),
    ),
    "config.json": _checkpoint("config.json"),
    "hf_quant_config.json": _checkpoint("hf_quant_config.json"),
    "tokenizer.json": _checkpoint(
        "tokenizer.json", content=_stored("demo/checkpoints/quantgate-demo-FP8/tokenizer.json")()
    ),
    "tokenizer_config.json": _checkpoint("tokenizer_config.json"),
    "index of weights": _checkpoint("model.safetensors.index.json", content=INDEX.encode()),
    "safetensors": _checkpoint("model.safetensors", "safetensors"),
    "adapter": Kind(
        "json",
        "adapter_config.json",
        lambda: _ADAPTER["adapter_config.json"],
        (*VALIDATE, "--tasks", "demo", "--engine-arg", "lora-modules={a: '{folder}'}"),
        (),
        _beside(_ADAPTER),
    ),
    "chat template": Kind(
        "text",
        "chat.jinja",
        lambda: b"{{ messages }}",
        (*VALIDATE, "--tasks", "demo", "--engine-arg", "chat-template={file}"),
    ),
    "state of a run": Kind(
        "json", "staging/f/state.json", lambda: STATE, ("status",), (("QUANTGATE_HOME", "{folder}"),)
    ),
    "failure of a run": Kind(
        "json",
        "staging/f/failure.json",
        lambda: b'{"at": "2026-01-01T00:00:00+00:00", "message": "a", "log": null}',
        ("status",),
        (("QUANTGATE_HOME", "{folder}"),),
        _run_in_progress,
    ),
    "pins": Kind(
        "json",
        "pins.json",
        lambda: json.dumps({"a/b": {"commit": "0" * 40, "pinned_at": "2026-01-01T00:00:00Z"}}).encode(),
        ("validate", "--baseline", "a/b", "--candidate", CANDIDATE, "--tasks", "demo"),
        (("QUANTGATE_HOME", "{folder}"), ("HF_HUB_OFFLINE", "1")),
    ),
    "manifest of a bundle": _of_bundle("manifest.json", "json"),
    "samples of a bundle": _of_bundle("samples.parquet", "binary"),
    "warehouse": Kind(
        "binary",
        "warehouse.duckdb",
        warehouse,
        ("sql", "SELECT count(*) FROM runs"),
        (("QUANTGATE_HOME", "{folder}"),),
    ),
}
