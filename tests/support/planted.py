"""Tokens of the known forms, obviously fake and joined here, so that no scanner of this repository reports one."""

from __future__ import annotations

FAKE = "FAKE0FAKE0"
"""In each of them, and in nothing else."""
_LONG = FAKE * 3

PLANTED = {
    "hub token": "hf" + "_" + _LONG,
    "API key": "sk" + "-proj-" + _LONG,
    "GitHub token": "gh" + "p_" + _LONG,
    "fine-grained GitHub token": "github" + "_pat_" + _LONG,
    "GitLab token": "glpat" + "-" + _LONG,
    "AWS key": "AK" + "IA" + FAKE + "FAKE00",
    "Slack token": "xox" + "b-" + _LONG,
    "Google key": "AI" + "za" + _LONG + "abcde",
    "JWT": "ey" + "J" + ".eyJ".join([FAKE, FAKE]) + "." + FAKE,
    "bearer": "Authorization: Bea" + "rer " + _LONG,
    "basic": "Ba" + "sic " + _LONG + "==",
    "private key": "-----BEGIN " + f"PRIVATE KEY-----\n{FAKE}\n{FAKE}\n-----END " + "PRIVATE KEY-----",
    "option": "--hf" + "-token " + _LONG,
    "assignment": "api" + "_key=" + _LONG,
}
"""By form."""
URLS = {
    "bundles": f"s3://KEY:{FAKE}@bucket/folder",
    "basic auth": f"https://name:{FAKE}@host/path",
    "signed": f"https://host/file?X-Amz-Credential={FAKE}&X-Amz-Signature={FAKE}&part=1",
    "sig": f"https://host/file?sv=1&sig={FAKE}",
    "token": f"https://host/file?token={FAKE}",
}
"""Addresses that hold one."""
