"""A checkpoint from a model hub: the revision pinned by its commit, only the files that serving needs.

HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE are read from the environment at each call.
"""

from __future__ import annotations

import os
import re
from contextlib import nullcontext
from pathlib import Path

from huggingface_hub import HfApi, constants, get_cached_repo_tree, snapshot_download
from huggingface_hub.errors import (
    CachedRepoTreeNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.tqdm import disable_progress_bars

from quantgate.model.errors import ConfigError
from tasks.checkpoint_files import NOT_SERVED, SERVED, check_listing, is_served
from tasks.progress import Reporter

HUB_ID = re.compile(
    r"(?!.*(?:--|\.\.))(?P<repo>\w(?:[\w.-]*\w)?/\w(?:[\w.-]*\w)?)(?:@(?P<revision>\w[\w./-]*))?", re.ASCII
)
"""``org/name`` or ``org/name@revision``, by the hub's own rules for names."""


def pull(repo: str, revision: str | None, *, where: str, cache: Path | None = None) -> tuple[Path, str]:
    """The local folder of a repository at a pinned commit; nothing is asked for that the cache holds.

    Args:
        repo: ``org/name``.
        revision: a branch, a tag or a commit; the default branch where there is none.
        where: the checkpoint as messages name it.
        cache: the hub's cache folder, its own default where there is none.

    Returns:
        The folder and the full SHA of the commit.

    Raises:
        ConfigError: the hub refuses, doesn't know it or can't be reached, or its listing shows that the
            repository can't be served.
    """
    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or None
    api = HfApi(endpoint=endpoint)
    try:
        resolved = api.resolve_revision(repo, revision=revision, cache_dir=cache, local_files_only=_offline())
        sha = resolved.resolved
        cached = _cached(repo, sha, cache)
        if cached is not None:
            return cached, sha
        if _offline():
            raise LocalEntryNotFoundError("not in the cache")
        listing = api.model_info(repo, revision=sha, files_metadata=True).siblings or []
        check_listing([file.rfilename for file in listing], where)
        size_bytes = sum(file.size or 0 for file in listing if is_served(file.rfilename))
        reporter = Reporter.current()
        bars = nullcontext() if reporter.moving else disable_progress_bars()
        with reporter.step(f"pulling {repo} at {sha[:12]} ({size_bytes / 1e9:,.2f} GB)"), bars:
            folder = snapshot_download(
                repo,
                revision=sha,
                cache_dir=cache,
                endpoint=endpoint,
                allow_patterns=list(SERVED),
                ignore_patterns=list(NOT_SERVED),
            )
    except ConfigError:
        raise
    except Exception as error:  # a service of others and three network libraries: whatever it is, one line
        raise _refusal(error, revision, where) from None
    return Path(folder), sha


def _offline() -> bool:
    """Whether the hub must not be asked."""
    asked = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    return asked or constants.is_offline_mode()


def _cached(repo: str, sha: str, cache: Path | None) -> Path | None:
    """The cached snapshot, if it is there and complete.

    A snapshot without a listing may hold no more than a tokenizer that something else fetched: it counts only
    where the hub must not be asked.
    """
    try:
        folder = snapshot_download(
            repo,
            revision=sha,
            cache_dir=cache,
            local_files_only=True,
            allow_patterns=list(SERVED),
            ignore_patterns=list(NOT_SERVED),
        )
        if not _offline():
            get_cached_repo_tree(repo, revision=sha, cache_dir=cache)
    except (LocalEntryNotFoundError, CachedRepoTreeNotFoundError):
        return None
    return Path(folder)


def _refusal(error: Exception, revision: str | None, where: str) -> ConfigError:
    """What the hub's client complains of, in one line with its mend."""
    response = getattr(error, "response", None)
    status = f" (HTTP {response.status_code})" if response is not None else ""
    if isinstance(error, GatedRepoError):
        what = f"the hub grants no access to this gated repository{status}"
        mend = "Accept its terms on the hub, and set HF_TOKEN to a token that may read it."
    elif isinstance(error, RepositoryNotFoundError):
        what = f"neither a folder here nor a repository the hub shows{status}"
        mend = "Check the id; for a private repository set HF_TOKEN."
    elif isinstance(error, RevisionNotFoundError):
        what = f"the repository has no revision '{revision}'{status}"
        mend = "Give a branch, a tag or a commit."
    elif isinstance(error, HfHubHTTPError):
        what = f"the hub refused{status}"
        mend = "Renew HF_TOKEN or unset it." if "401" in status or "403" in status else "Try again later."
    elif _offline():
        what = "not a folder here, and not in the hub's cache while HF_HUB_OFFLINE is set"
        mend = "Unset HF_HUB_OFFLINE to pull it, or give a local folder."
    else:
        cause = error.__cause__ or error
        reason = (str(cause).strip() or type(cause).__name__).splitlines()[0][:160]
        what = f"not a folder here, and pulling it from the hub failed ({reason})"
        mend = "Check the network and HF_ENDPOINT, or give a local folder."
    return ConfigError(what, where=where, mend=mend)
