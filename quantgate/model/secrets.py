"""Decide what a secret is, by its name and by its form: the one rule for arguments, variables, files, URLs and logs.

The standard library is all it needs, since the launcher of child processes runs it too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

STRUCK = "***"
CLOUDS = ("AWS_", "AZURE_", "CLOUDSDK_", "FSSPEC_", "GCLOUD_", "GOOGLE_")
"""Beginnings of a cloud's variables: each may hold a credential."""
NAMES = re.compile(
    r"SECRET|(?:TOKEN|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|CONNECTION_STRING)(?:_|$)"
    r"|(?:_|API|ACCESS)KEY(?:_|$)|(?:^|_)AUTH(?:_|$)"
)
"""Words of a secret's name, in upper case with underscores."""
TEXT_TOKENS = re.compile(
    r"(?:^|_)(?:BOS|EOS|PAD|UNK|SEP|CLS|MASK|BEGIN|END|STOP|IMAGE|VIDEO|AUDIO|PROMPT|PREFILL|DRAFT|SPECULATIVE)"
    r"_TOKEN(?:_|$)"
)
"""Names of a tokenizer's or an engine's tokens, which are pieces of text."""

_URL = r"\b[a-z][a-z0-9+.-]{0,30}://"
_SIGNED = (
    r"X-(?:Amz|Goog)-(?:Signature|Credential|Security-Token)|AWSAccessKeyId|sig|signature|(?:[a-z]{1,20}[-_]){0,3}token"
    r"|(?:api[-_]?|access[-_]?)?key|password|passwd|(?:client[-_]?)?secret"
)
_NAMED = r"(?:api[-_]?key|hf[-_]token|(?:access|auth|session)[-_]token|secret[\w-]{0,40}|password|passwd|passphrase)"
FORMS = tuple(
    re.compile(form, re.IGNORECASE | re.DOTALL)
    for form in (
        r"()-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----[\w+/=\s\\]{0,9999}(?:-----END [A-Z ]{0,40}PRIVATE KEY-----)?",
        r"()(?-i:\b(?:hf|api_org)_(?=\w*[0-9A-Z])\w{16,})",
        r"()(?-i:\bsk-[A-Za-z0-9_-]{16,})",
        r"()(?-i:\b(?:gh[opsur]_|github_pat_|glpat-|npm_|pypi-|xox[abeprs]-)[A-Za-z0-9_-]{10,})",
        r"()(?-i:\b(?:AKIA|ASIA)[A-Z0-9]{16}\b)",
        r"()(?-i:\b(?:AIza[A-Za-z0-9_-]{30,}|ya29\.[A-Za-z0-9_-]{10,}))",
        r"()(?-i:\beyJ[A-Za-z0-9_-]{5,999}\.[A-Za-z0-9_-]{5,9999}\.[A-Za-z0-9_-]*)",
        r"(\b(?:bearer|basic)\s+)(?:(?=\S*[0-9=])[A-Za-z0-9._~+/=-]{8,}|[A-Za-z._~+/-]{20,})",
        rf"({_URL})[^/@\s:'\"]*:[^/@\s]+(?=@)",
        rf"([?&;](?:{_SIGNED})=)[^&;\s'\"]+",
        rf"({_NAMED}=)[^\s'\"&;,)]{{4,}}",
        rf"({_NAMED}['\"]\s{{0,9}}:\s{{0,9}}['\"])[^'\"]{{4,}}",
        rf"(--[\w-]{{0,40}}{_NAMED}\s+)[^\s'\"-]\S{{3,}}",
    )
)
"""Forms of a secret in a text; the first group is what may stay before it. What repeats before a form's end has a most,
so that no text takes longer than its length."""
_PASSWORD_IN_URL = re.compile(r"://[^/@\s:]*:([^/@\s]+)@")
_SHORTEST = 6
"""Letters of a variable's value from which on it is looked for in texts: shorter ones are parts of common words."""
_PART_BYTES = 1 << 22


def is_secret(name: str, value: object = None) -> bool:
    """Return True if something holds a secret: by its name, by its cloud, or by the form of its value.

    Args:
        name: of a variable, an argument or a key, however it is spelled.
        value: what it holds; a number, a switch or nothing is no secret, and None asks about the name alone.
    """
    if isinstance(value, bool | int | float) or value == "":
        return False
    if _is_named(name) or name.upper().startswith(CLOUDS):
        return True
    return isinstance(value, str) and redact_forms(value) != value


def _is_named(name: str) -> bool:
    upper = re.sub(r"[-. ]", "_", name.upper().lstrip("-"))
    return NAMES.search(TEXT_TOKENS.sub("_", upper)) is not None


def redact_forms(text: str) -> str:
    """Return a text without whatever has the form of a secret."""
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
            inner = f"{path}.{key}" if path else str(key)
            if is_secret("", str(key)):
                yield redact_forms(inner)
            yield from _secrets(item, str(key), inner)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _secrets(item, name, path)
    elif value is not None and is_secret(name, value):
        yield path


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
