"""Decide what a secret is, by its name and by its form: the one rule for arguments, variables, files, URLs and logs.

The standard library is all it needs, since the launcher of child processes runs it too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

STRUCK = "***"
CLOUDS = ("AWS_", "AZURE_", "CLOUDSDK_", "FSSPEC_", "GCLOUD_", "GOOGLE_")
"""Beginnings of a cloud's variables: each may hold a credential."""
NAMES = re.compile(
    r"SECRET(?!AR)|TOKEN(?:_?\d*$|_(?:FILE|ID|PATH|VALUE)$)|(?:PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|CONNECTION_STRING)(?:_|$)"
    r"|(?:_|API|ACCESS)KEY(?:_|$)|(?:^|_)(?:AUTH|OAUTH|AUTHORIZATION|BEARER|COOKIE|JWT)(?:_|$)|_(?:PAT|PWD)$"
)
"""Words of a secret's name, in upper case with underscores."""
TEXT_TOKENS = re.compile(
    r"(?:^|_)(?:BOS|EOS|EO[A-Z]|BO[A-Z]|SO[A-Z]|PAD|UNK|SEP|CLS|MASK|BEGIN|START|END|STOP|BREAK|CALL|THINK|NEWLINE|PREFIX"
    r"|MIDDLE|SUFFIX|IMAGE|VISION|VIDEO|AUDIO|TEXT|LANG|LANGUAGE|PROMPT|PREFILL|DRAFT|SPECULATIVE|SPECIAL|PLACEHOLDER|PER"
    r"|FIRST|LAST|NEXT|STEP|SPLIT|PRE)_TOKEN(?:_|$)"
    r"|(?:^|_)(?:ANSWER|CACHE|DATASET|DOC|FOREIGN|GROUP|LABEL|PRIMARY|SORT|TEXT|VALUE|WEIGHT)_KEY(?:_|$)"
)
"""Names of a tokenizer's or an engine's tokens, which are pieces of text, and of keys that open nothing."""

_URL = r"\b[a-z][a-z0-9+.-]{0,30}://"
_SIGNED = (
    r"X-(?:Amz|Goog)-(?:Signature|Credential)|AWSAccessKeyId|sig|signature|auth|pwd|password|passwd|apikey"
    r"|(?:[a-z]{1,20}(?:[-_]|%5F|%2D)){0,3}(?:token|key|secret)"
)
_NAMED = (
    r"(?:(?:x-)?api[-_ ]?key|(?:account|shared[-_]?access)[-_]?key"
    r"|(?:hf|hub|access|auth|session|private|refresh)[-_]token|secret[\w-]{0,40}|password|passwd|passphrase)"
)
_RANDOM = r"(?=[\w-]{0,60}?(?:[A-Za-z0-9]{20}|(?=[A-Za-z]{0,9}\d)[A-Za-z0-9]{10}))[\w-]{16,}"
"""What words joined by dashes are not: a long run of letters, or a shorter one with a digit."""
_ISSUERS = (
    r"gh[opsur]_|github_pat_|gl(?:agent|cbt|dt|ft|imt|pat|ptt|rt|soat)-|xox[a-z]-|xoxe\.|xapp-|xwfp-|nvapi-|sk-(?:ant|proj)-"
    r"|[rs]k_(?:live|test)_|dckr_[op]at_|hv[bs]\.|GOCSPX-|ya29\.|do[op]_v1_|figd_|glsa_|ATATT|tskey-|dp\.[a-z]{2}\.|lsv2_"
    r"|wandb_v1_|pcsk_|tgp_v1_|pplx-|AGE-SECRET-KEY-|NRAK-|PMAK-|shp[a-z]{2}_|lin_api_|SG\."
)
"""Beginnings of tokens that begin nothing else."""
_SHORT_ISSUERS = r"(?:hf|api_org)(?:_|%5F)|sk-|npm_|pypi-|gsk_|r8_|xai-|csk-|fw_|rpa_|pn[bu]_|ntn_|sess-"
_PEM = r"[A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
_PEM_LINE = r"[\s\\]{1,4}n?[a-z-]{1,30}: [^\n\\]{0,200}"
_HEADER = "(?:authorization|private-token|cookie)"
_BASE64 = r"(?=[a-z0-9+/]{0,99}[A-Z])(?=[A-Z0-9+/]{0,99}[a-z])(?=[A-Za-z+/]{0,99}\d)[A-Za-z0-9+/]{12,}"
FORMS = tuple(
    re.compile(form, re.IGNORECASE | re.DOTALL)
    for form in (
        rf"()-----BEGIN {_PEM}(?:{_PEM_LINE}){{0,5}}[\w+/=\s\\]{{0,9999}}(?:-----END {_PEM})?",
        rf"()(?-i:(?<![A-Za-z0-9])(?:{_ISSUERS})[A-Za-z0-9_.-]{{10,}})",
        rf"()(?-i:(?<![A-Za-z0-9])(?:{_SHORT_ISSUERS}){_RANDOM})",
        r"()(?-i:\b(?:AKIA|ASIA)[A-Z0-9]{16}\b)",
        r"()(?-i:\b(?:AIza[A-Za-z0-9_-]{30,}|(?:dapi|SK)[0-9a-f]{32}\b|\d{8,10}:AA[A-Za-z0-9_-]{33}))",
        r"(\bhooks\.slack\.com/\w{1,20}/|\bdiscord(?:app)?\.com/api/webhooks/)[\w/-]{10,}",
        r"()(?-i:\beyJ[A-Za-z0-9_-]{5,999}+(?:\.[A-Za-z0-9_-]{0,9999}){2,4})",
        r"(\bbearer\s{1,9})(?:(?=\S*[0-9=])[A-Za-z0-9._~+/=-]{8,}|[A-Za-z._~+/-]{20,})",
        rf"(\bbasic\s{{1,9}})(?-i:[A-Za-z0-9+/]{{8,}}={{1,2}}|{_BASE64})",
        rf"({_HEADER}['\"]?\s{{0,9}}:\s{{0,9}}['\"]?(?:[a-z]{{1,20}}\s{{1,9}})?)(?=\S*\d)[^\s'\"]{{8,}}[^\r\n'\"]*",
        rf"({_URL})[^/@\s:'\"]*:(?!\d{{1,5}}[/?#])[^/\s\"<>]+(?=@)",
        rf"({_URL})[^/@\s:'\"]{{1,99}}:(?!\d{{1,5}}[/?#])[^\s\"<>]{{1,200}}(?=@)",
        r"(\bhttps?://)(?=[^/@\s]{0,99}\d)[\w.~%-]{16,}(?=@)",
        rf"([?&;#](?:{_SIGNED})=)[^&;\s'\"]+",
        rf"({_NAMED}\s?=\s?\\?['\"]?)[^\s'\"&;,)]{{4,}}",
        rf"({_NAMED}\\?['\"]\s{{0,9}}:\s{{0,9}}\\?['\"])[^'\"]{{4,}}",
        rf"({_NAMED}\s{{0,9}}:\s{{1,9}})(?=\S*\d)[^\s'\"]{{8,}}",
        r"(\btoken\\?['\"]?\s{0,9}[:=]\s{0,9}\\?['\"]?)(?-i:(?=[A-Za-z]*\d)[A-Za-z0-9]{20,})",
        r"((?-i:\b(?:[A-Z][A-Z0-9]{0,20}_){0,4}(?:TOKEN|PASSWORD|KEY|PAT|PWD)=))[^\s'\"&;,)]{8,}",
        rf"(--(?:[\w-]{{0,40}}{_NAMED}|token)[\s=]\s{{0,9}})[^\s'\"-]\S{{3,}}",
    )
)
"""Forms of a secret in a text; the first group is what may stay before it. What repeats before a form's end has a most,
so that no text takes longer than its length."""
_ANY_FORM = re.compile("|".join(form.pattern for form in FORMS), re.IGNORECASE | re.DOTALL)
_NEEDED = re.compile("[=:]|.{12}", re.DOTALL)
"""What a text of every form has: each needs an assignment, or a dozen letters."""
_PASSWORD_IN_URL = re.compile(r"://[^/@\s:]*:([^/@\s]+)@")
_SHORTEST = 6
"""Letters of a variable's value from which on it is looked for in texts: shorter ones are parts of common words."""
_SHORT = 200
"""Letters of a text below which the answer is kept: names and prices come again and again."""
_PART_BYTES = 1 << 22


def is_secret(name: str, value: object = None) -> bool:
    """Return True if something holds a secret: by its name, by its cloud, or by the form of its value.

    Args:
        name: of a variable, an argument or a key, however it is spelled.
        value: what it holds; a number, a switch or nothing is no secret, and None asks about the name alone.
    """
    if isinstance(value, bool | int | float) or value == "":
        return False
    return _is_named_or_clouds(name) or (isinstance(value, str) and _has_form(value))


def _has_form(text: str) -> bool:
    return _NEEDED.search(text) is not None and redact_forms(text) != text


@lru_cache(4096)
def _is_named_or_clouds(name: str) -> bool:
    return _is_named(name) or name.upper().startswith(CLOUDS)


@lru_cache(4096)
def _is_named(name: str) -> bool:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)  # of a name like apiKey
    upper = re.sub(r"[-. ]", "_", words.upper().lstrip("-"))
    return NAMES.search(TEXT_TOKENS.sub("_", upper)) is not None


def redact_forms(text: str) -> str:
    """Return a text without whatever has the form of a secret."""
    return _redacted(text) if len(text) < _SHORT else _struck(text)


@lru_cache(4096)
def _redacted(text: str) -> str:
    return _struck(text)


def _struck(text: str) -> str:
    if not _ANY_FORM.search(text):
        return text
    for form in FORMS:
        text = form.sub(rf"\g<1>{STRUCK}", text)
    return text


def redact(text: str) -> str:
    """Return a text without secrets: neither their forms, nor the values of this process's own variables."""
    for value in _values():
        text = text.replace(value, STRUCK)
    return redact_forms(text)


def _values() -> list[str]:
    """Return the secret values of the environment, and the passwords in its URLs, the longest first."""
    values = {value.strip() for name, value in os.environ.items() if _is_named(name)}
    values |= {password for value in os.environ.values() for password in _PASSWORD_IN_URL.findall(value)}
    return sorted((value for value in values if len(value) >= _SHORTEST), key=len, reverse=True)


def secret_in(value: Any, name: str = "") -> str | None:
    """Return the dotted key of the first secret in nested maps and lists, or None."""
    return next(_secrets(value, name, name), None)


def _secrets(value: Any, name: str, path: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            text = str(key)
            if _has_form(text):
                yield redact_forms(_dotted(path, text))
            if isinstance(item, dict | list | tuple):
                yield from _secrets(item, text, _dotted(path, text))
            elif item is not None and is_secret(text, item):
                yield _dotted(path, text)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _secrets(item, name, path)
    elif value is not None and is_secret(name, value):
        yield path


def _dotted(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def refuse_secrets(value: Any, where: str) -> None:
    """Refuse a setting that holds a secret: settings are stored with a run, in its bundle and in Prefect's database.

    Args:
        value: a setting, or nested maps and lists of them.
        where: the file, option or parameter.

    Raises:
        ConfigError: one of them is a secret; the message names its key and never its value.
    """
    from quantgate.model.errors import ConfigError  # which needs this module for its messages

    path = secret_in(value)
    if path is not None:
        raise ConfigError(
            f"'{path}' holds a secret, which would be stored with the run" if path else "holds a secret",
            where=where,
            hint="Leave it out, and set it in the environment of the host (HF_TOKEN for the hub's).",
        )


def mask_file(path: Path, begin: int = 0) -> None:
    """Overwrite the secrets in a log by stars of the same length, so that whoever else writes to it is not disturbed.

    Args:
        path: the log; nothing happens where it can't be read or written.
        begin: bytes of it to leave as they are.
    """
    try:
        with path.open("r+b") as file:
            file.seek(begin)
            while part := file.read(_PART_BYTES):
                part += file.readline(_PART_BYTES)
                text = part.decode("latin-1")
                masked = _mask(text)
                if masked != text:
                    file.seek(-len(part), os.SEEK_CUR)
                    file.write(masked.encode("latin-1"))
    except OSError:
        return


def _mask(text: str) -> str:
    """Return a text with stars for each letter of its secrets."""
    for value in _values():
        seen = value.encode().decode("latin-1")
        text = text.replace(seen, "*" * len(seen))
    for form in FORMS:
        text = form.sub(lambda match: match[1] + "*" * (len(match[0]) - len(match[1])), text)
    return text
