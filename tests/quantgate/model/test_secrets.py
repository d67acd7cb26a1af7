"""What a secret is: every known form and name, in every kind of setting, and nothing else. All tokens here are fake."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import Any

import pytest

from flows.parameters import ValidateParameters
from flows.planning.measured import why_missing
from flows.progress import without_secrets
from quantgate.model.config.models import ModelConfig
from quantgate.model.errors import ConfigError, RunError
from quantgate.model.home import ROOT, Home
from quantgate.model.secrets import is_secret, mask_file, redact, refuse_secrets
from quantgate.model.yaml_file import load_yaml
from tasks.checkpoint.resolve import resolve
from tasks.engine.arguments import serving_arguments
from tasks.engine.environment import load_engine
from tasks.engine.process import run_tied
from tasks.progress import Reporter
from tasks.quality.task_yaml import read_source
from tests.support.planted import FAKE, PLANTED, URLS
from tests.support.tiny_checkpoints import checkpoint_files, write_checkpoint
from warehouse.evidence.mlperf import read_summary
from warehouse.prices.offer_file import Line, parse_offer


@pytest.mark.parametrize("form", [*PLANTED, *URLS])
def test_every_known_form_is_a_secret_wherever_a_text_has_it(form: str) -> None:
    planted = (PLANTED | URLS)[form]
    shown = redact(f"before {planted} after")
    assert shown.startswith("before ")
    assert shown.endswith(" after")
    assert FAKE not in shown
    assert "***" in shown
    assert is_secret("", planted)
    assert FAKE not in str(RunError(f"it said {planted}", where=planted, hint=planted))


ISSUERS = [
    "glptt-",
    "glrt-",
    "xapp-1-",
    "xoxc-",
    "xoxd-",
    "nvapi-",
    "sk-ant-api03-",
    "sk-or-v1-",
    "sk_live_",
    "rk_live_",
    "dckr_pat_",
    "hvs.",
    "GOCSPX-",
    "dop_v1_",
    "figd_",
    "glsa_",
    "ATATT3",
    "tskey-auth-",
    "dp.pt.",
    "lsv2_pt_",
    "wandb_v1_",
    "pcsk_",
    "tgp_v1_",
    "pplx-",
    "AGE-SECRET-KEY-1",
    "NRAK-",
    "shpat_",
    "lin_api_",
    "SG.",
    "hf_oauth_",
    "gsk_",
    "r8_",
    "xai-",
    "csk-",
    "fw_",
    "rpa_",
    "pnu_",
    "pnb_",
    "ntn_",
    "sess-",
    "my_hf_",
    "hf%5F",
]
PARTS = (
    "Authorization: tok|en {}",
    "X-Api|-Key: {}",
    "PRIVATE|-TOKEN: {}",
    "Coo|kie: session={}",
    "AccountName=x;Account|Key={}==;Suffix=x",
    "sb://x/;SharedAccess|Key={}=",
    "aws_secret_access|_key = {}",
    "hf_tok|en: {}",
    '{{"tok|en": "{}"}}',
    '{{\\"api|_key\\": \\"{}\\"}}',
    "api|_key='{}'",
    "HUGGING_FACE_HUB_TOK|EN={}",
    "--tok|en {}",
    "--tok|en={}",
    "https://|{}@host/path",
    "s3://|KEY:ab/{}+cd@bucket/x",
    "postgres://|u:p@{}@host/db",
    "https://host/?auth|={}",
    "https://host/?account_k|ey={}",
    "https://host/?access%5Ftok|en={}",
    "https://hooks.slack|.com/services/T0/B0/{}",
    "-----BEGIN RSA PRIVATE| KEY-----\nDEK-Info: AES-128-CBC,0A\n\n{}\n-----END RSA PRIVATE| KEY-----",
    "-----BEGIN PGP PRIVATE| KEY BLOCK-----\n\n{}\n-----END PGP PRIVATE| KEY BLOCK-----",
    "sk-|{}",
)
"""What is around a token; the bar keeps scanners of this repository quiet."""


@pytest.mark.parametrize("part", [*(f"{issuer}|{{}}" for issuer in ISSUERS), *PARTS])
def test_a_token_of_any_issuer_is_one_however_it_is_written(part: str) -> None:
    planted = part.replace("|", "").format(FAKE * 3)
    assert is_secret("", planted)
    shown = redact(f"before {planted} after")
    assert FAKE not in shown
    assert shown.startswith("before ")


@pytest.mark.parametrize(
    "text",
    [
        "hf_hub",
        "hf_quant_config_FP8",
        "/models/hf_Llama_3_8B_Instruct",
        "sk-learn-regression-model-v2",
        "npm_config_registry",
        "xai-org/grok-2-1212-instruct",
        "RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w4a16",
        "acme/tiny@" + "0123456789abcdef0123456789abcdef01234567",
        "Basic GSM8K-style questions",
        "Basic Llama-3.1-8B",
        "password: required",
        "time to first token: 0.25",
        "--eos-token </s>",
        "http://127.0.0.1:8000/v1/models/a@b",
        "abfs://container@account.dfs.core.windows.net/folder",
        "hf_quant_config.json",
        "disk-usage-of-the-whole-machine",
        "s3://bucket/folder",
        "http://127.0.0.1:4200/api",
        "https://host/page?isl=128&key_words=",
        "git@github.com:org/name",
        "a basic understanding of things",
        "sha256:" + "0123456789abcdef" * 4,
        "quantgate-demo-BF16",
    ],
)
def test_what_only_resembles_a_secret_stays(text: str) -> None:
    assert redact(text) == text
    assert not is_secret("", text)


@pytest.mark.parametrize(
    "name",
    [
        "hf-token",
        "hf_token",
        "--hf-token",
        "HF_TOKEN",
        "hubToken",
        "token2",
        "api-key",
        "privateKey",
        "connectionString",
        "Authorization",
        "GH_PAT",
        "MYSQL_PWD",
        "ssl.keyfile-password",
    ],
)
def test_a_name_makes_a_secret_of_a_text_however_it_is_spelled(name: str) -> None:
    assert is_secret(name, "x")
    assert not is_secret(name, 4096)
    assert not is_secret(name, "")


@pytest.mark.parametrize(
    "piece",
    [
        "a",
        "a-",
        "a_",
        "eyJ-",
        "eyJaaaaa.",
        "x://",
        "x://a:",
        "Bearer ",
        "'",
        "-----BEGIN PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\na: ",
        "?a_",
        "hf_",
        "A_",
        "basic a",
        "x://a:/",
        "cookie: a ",
    ],
)
def test_no_text_takes_longer_than_its_length(piece: str) -> None:
    """It would run into the tests' own limit."""
    assert redact(piece * (1_000_000 // len(piece)))


@pytest.mark.parametrize(
    "name",
    [
        "tokenizer",
        "eos_token",
        "max-num-batched-tokens",
        "speculative-token-tree",
        "eosToken",
        "boi_token",
        "image_break_token",
        "token_type",
        "per_token",
        "answer_key",
        "secretary",
        "PWD",
        "max_gen_toks",
        "key",
        "keys",
    ],
)
def test_names_of_a_tokenizers_pieces_are_none(name: str) -> None:
    assert not is_secret(name, "text")


def test_values_of_the_environment_are_struck_out_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "of-no-known-form")
    monkeypatch.setenv("QUANTGATE_BUNDLES", "s3://name:pass-phrase@bucket")
    assert redact("of-no-known-form or pass-phrase") == "*** or ***"


def test_a_key_says_where_a_nested_secret_is() -> None:
    with pytest.raises(ConfigError) as refused:
        refuse_secrets({"a": [{"b": PLANTED["hub token"]}]}, "mine.yaml")
    assert str(refused.value).startswith(
        "mine.yaml: 'a.b' holds a secret, which would be stored with the run. "
    )


def engine_arguments(planted: str) -> None:
    serving_arguments(load_engine(None, "cpu")[1], {"seed": planted})


def nested_arguments(planted: str) -> None:
    serving_arguments(load_engine(None, "cpu")[1], {"hf-overrides": {"note": [planted]}})


def parameters(planted: str) -> None:
    ValidateParameters(model="quantgate-demo", engine_arguments={"seed": planted})


def every_parameter(planted: str) -> None:
    for name in ("model", "baseline", "name", "workload", "policy", "gpu", "engine"):
        with pytest.raises(ConfigError, match="holds a secret"):
            ValidateParameters.model_validate({name: planted})
    ValidateParameters(candidates=[planted])


def model_file(planted: str) -> None:
    path = Path("model.yaml")
    path.write_text(json.dumps({"name": "x", "note": planted}))
    load_yaml(path, ModelConfig)


def task_file(planted: str) -> None:
    path = Path("task.yaml")
    path.write_text(json.dumps({"task": "mine", "metadata": {"note": planted}}))
    read_source(path)


def price_import(planted: str) -> None:
    parse_offer(Line("prices.csv:2", {"provider": "x", "source": planted}))


def summary_import(planted: str) -> None:
    path = Path("summary.json")
    path.write_text(json.dumps([{"Details": planted}]))
    read_summary(path)


def model_configuration(planted: str) -> None:
    resolve(str(write_checkpoint(Path("checkpoint"), checkpoint_files(architectures=[planted]))))


WAYS_IN = (
    model_configuration,
    engine_arguments,
    nested_arguments,
    parameters,
    every_parameter,
    model_file,
    task_file,
    price_import,
    summary_import,
)


@pytest.mark.parametrize("way_in", WAYS_IN, ids=lambda way: way.__name__)
@pytest.mark.parametrize("form", [*PLANTED, *URLS])
def test_no_way_in_takes_a_secret(
    form: str, way_in: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="holds a secret") as refused:
        way_in((PLANTED | URLS)[form])
    assert FAKE not in str(refused.value)
    assert FAKE not in "".join(traceback.format_exception_only(refused.value))


@pytest.mark.parametrize("name", ["hf-token", "hf_token", "--hf-token", "hf-tok", "hf_t", "api_key"])
def test_an_engine_argument_is_a_secret_by_its_name(name: str) -> None:
    with pytest.raises(ConfigError) as refused:
        serving_arguments(load_engine(None, "cpu")[1], {name: "of-no-known-form"})
    assert "of-no-known-form" not in str(refused.value)


def test_progress_has_no_secret() -> None:
    lines: list[str] = []
    Reporter(lines.append).line(f"bundles: {URLS['bundles']}")
    assert lines == ["bundles: s3://***@bucket/folder"]


def test_what_ends_a_flow_has_no_secret() -> None:
    planted = PLANTED["hub token"]
    with pytest.raises(RunError) as ended, without_secrets():
        raise ValueError(planted)
    assert str(ended.value) == "ValueError: ***"
    assert ended.value.__suppress_context__
    with pytest.raises(ValueError, match="harmless"), without_secrets():
        raise ValueError("harmless")
    with pytest.raises(ConfigError, match=r"\*\*\*"), without_secrets():
        raise ConfigError(planted)


def test_why_a_bundle_is_missing_has_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for changed in ("", "its suite"):
        monkeypatch.setattr(
            "flows.planning.measured.measured_run", lambda *_, said=changed, **__: (None, said)
        )
        reason = why_missing(None, [], URLS["bundles"])  # type: ignore[arg-type]
        assert "s3://***@bucket/folder" in reason
        assert FAKE not in reason


def test_an_unexpected_error_is_printed_without_its_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from commands.main import _show_unexpected

    planted = PLANTED["hub token"]
    _show_unexpected(ValueError, ValueError(planted), None)
    printed = capsys.readouterr().err
    assert "ValueError: ***" in printed
    assert FAKE not in printed


def test_a_log_is_masked_once_its_command_has_ended(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text("first\n")
    program = "import sys; print(*sys.argv[1:], sep=chr(10))"
    words = ["begin", *PLANTED.values(), "end"]
    import sys

    run_tied([sys.executable, "-c", program, *words], what="x", log=log, environment={}, timeout_s=60)
    written = log.read_text()
    assert FAKE not in written
    assert written.startswith("first\nbegin\n")
    assert written.endswith("\nend\n")


def test_masking_keeps_every_other_byte_in_its_place(tmp_path: Path) -> None:
    log, token = tmp_path / "a.log", PLANTED["hub token"]
    before = b"\xff caf\xc3\xa9 " + token.encode() + b" \x00 after\n"
    log.write_bytes(token.encode() + b"\n" + before)
    mask_file(log, begin=len(token) + 1)
    assert log.read_bytes() == token.encode() + b"\n" + before.replace(token.encode(), b"*" * len(token))


def test_the_database_and_staging_are_their_owners_alone(tmp_path: Path) -> None:
    from commands.runtime import _keep_private

    home = Home(tmp_path)
    (home.prefect / "deep").mkdir(parents=True, mode=0o755)
    database, other = home.prefect / "prefect.db", home.prefect / "deep" / "file"
    for path in (database, other):
        path.touch(mode=0o644)
        path.chmod(0o644)
    _keep_private(home)
    home.private(home.staging)
    for folder in (home.prefect, other.parent, home.staging, home.logs):
        assert folder.stat().st_mode & 0o777 == 0o700, folder
    for file in (database, other):
        assert file.stat().st_mode & 0o777 == 0o600, file
    new = Home(tmp_path / "new")
    _keep_private(new)
    assert (new.prefect / "prefect.db").stat().st_mode & 0o777 == 0o600


def test_a_record_of_a_workers_log_has_no_secret() -> None:
    """In a process of its own: what makes records is replaced for the whole process."""
    import subprocess
    import sys

    program = (
        "import logging, sys; from flows.progress import _redact_records; _redact_records();"
        "logging.basicConfig(stream=sys.stderr); token = sys.argv[1]\n"
        "logging.warning('with %s', token)\n"
        "try: raise ValueError(token)\nexcept ValueError: logging.exception('failed')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, PLANTED["hub token"]],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert "with ***" in done.stderr
    assert "ValueError: ***" in done.stderr
    assert FAKE not in done.stderr
