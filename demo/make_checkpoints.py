"""Make the demo's tasks and its three checkpoints: `python demo/make_checkpoints.py [--out DIR]`.

It is seeded and takes well under fifteen minutes on two cores. It needs requirements/demo-checkpoints.txt.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import sys
import time
import warnings
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from demo import documents, task_files  # noqa: E402
from quantgate.model.config.policy import load_policy  # noqa: E402

THREADS = 2
CALIBRATION_DOCUMENTS = 128
PACKAGES = ("nvidia-modelopt", "numpy", "safetensors", "tokenizers", "torch", "transformers")
RUNS_TRIED = HERE / "runs_tried.json"


def say(text: str) -> None:
    """Print a line of progress at once."""
    print(text, flush=True)


def sha256_by_file(folder: Path) -> dict[str, str]:
    """Return the SHA-256 (hex) of every file of a checkpoint."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


def write_task_folder(folder: Path) -> dict[str, list[documents.Document]]:
    """Write the tasks with the loader they name; return their documents."""
    held_out = documents.held_out()
    task_files.write_tasks(folder, held_out)
    if folder.resolve() != HERE / "tasks":
        shutil.copy(HERE / "tasks" / "loader.py", folder)
    return held_out


def make(out: Path) -> None:
    """Write ``out``/tasks and ``out``/checkpoints; existing checkpoint folders are replaced."""
    started = time.monotonic()
    policy_sha256 = load_policy("demo").fingerprint()  # before anything is trained
    say(f"policy demo: {policy_sha256}")
    held_out = write_task_folder(out / "tasks")
    say(f"tasks: {', '.join(f'{family} {len(scored)}' for family, scored in held_out.items())} documents")

    # Waiting threads that spin starve the working ones as soon as anything else runs on this machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    warnings.simplefilter("ignore")
    import torch
    from transformers.utils import logging

    from demo import measure, precisions, simulate, training

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(THREADS)

    recipe = training.Recipe()
    families = documents.training(recipe.cloze_exposures, recipe.made)
    model, figures = training.train(recipe, families, say)
    model = model.to(torch.bfloat16).eval()

    folders = {name: out / "checkpoints" / f"quantgate-demo-{name}" for name in ("BF16", *precisions.CONFIGS)}
    for folder in folders.values():
        shutil.rmtree(folder, ignore_errors=True)
    say("BF16: saving and measuring")
    precisions.save_bf16(model, folders["BF16"])
    accuracy = {"BF16": measure.accuracy(model.float(), held_out)}
    calibration = [d for family in families.values() for d in family[:CALIBRATION_DOCUMENTS]]
    for name in precisions.CONFIGS:
        say(f"{name}: quantizing and measuring")
        precisions.quantize(folders["BF16"], name, calibration, folders[name])
        simulated = simulate.load_simulated(folders[name], training.new_model(recipe))
        accuracy[name] = measure.accuracy(simulated, held_out)
    provenance = {
        "demo_policy_sha256": policy_sha256,
        "seed": recipe.seed,
        "parameters": sum(p.numel() for p in model.parameters()),
        "recipe": asdict(recipe),
        "training_documents": {family: len(made) for family, made in families.items()},
        "calibration_documents_per_family": CALIBRATION_DOCUMENTS,
        "training": figures,
        "held_out_documents": {family: len(scored) for family, scored in held_out.items()},
        "held_out_accuracy": accuracy,
        "held_out_accuracy_method": "float32 arithmetic on the stored weights, the activations of FP8 "
        "and NVFP4 rounded as their checkpoints say (demo/simulate.py)",
        "runs_tried": json.loads(RUNS_TRIED.read_text(encoding="utf-8")),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "total_s": round(time.monotonic() - started, 1),
        "sha256": {folder.name: sha256_by_file(folder) for folder in folders.values()},
    }
    text = json.dumps(provenance, indent=2) + "\n"
    (out / "checkpoints" / "provenance.json").write_text(text, encoding="utf-8")
    for name, shares in accuracy.items():
        say(f"{name:>5}: " + ", ".join(f"{family} {share:.1%}" for family, share in shares.items()))
    say(f"done in {provenance['total_s']:.0f} s: {out / 'checkpoints'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=HERE, help="where tasks/ and checkpoints/ go (default: demo)"
    )
    make(parser.parse_args().out)
