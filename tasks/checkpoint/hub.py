"""A checkpoint from a model hub: the revision pinned by its commit, only the files that serving needs.

HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE are read from the environment at each call; a token that `hf auth login` has
saved is not used.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from huggingface_hub import (
    HfApi,
    constants,
    get_cached_repo_tree,
    hf_hub_download,
    hf_hub_url,
    snapshot_download,
)
from huggingface_hub.errors import CachedRepoTreeNotFoundError, LocalEntryNotFoundError
from huggingface_hub.utils.tqdm import disable_progress_bars

from quantgate.model.config.models import SHA, Allowed
from quantgate.model.errors import ConfigError
from tasks.checkpoint.download import RemoteFile, RepositoryCache, check_room, fetch
from tasks.checkpoint.files import (
    NOT_SERVED,
    PROCESSORS,
    check_listing,
    is_weight,
    served_patterns,
    served_under,
)
from tasks.checkpoint.formats.quant_config import QUANT_FILE
from tasks.checkpoint.hub_errors import quiet_client, refusal
from tasks.checkpoint.pins import Pins
from tasks.checkpoint.retry import Patience, Waiting, causes, is_called, response_of
from tasks.progress import Reporter

HUB_ID = re.compile(
    r"(?!.*(?:--|\.\.))(?P<repo>\w(?:[\w.-]*\w)?/\w(?:[\w.-]*\w)?)(?:@(?P<revision>\w[\w./-]*))?", re.ASCII
)
"""``org/name`` or ``org/name@revision``, by the hub's own rules for names."""

CONFIGURATION = ("config.json", QUANT_FILE, "tokenizer_config.json", *PROCESSORS, "README.md")
"""Small files that show most faults of a checkpoint without its weights, and what it was made from."""

ANSWER_TIMEOUT_S = 30.0
"""Limit for the hub's answer; its client would wait without end."""


Inspect = Callable[[Path, Mapping[str, int]], None]
"""Check of a checkpoint's configuration, in a folder, and of the bytes of all its files by name; raises for what is
wrong."""


def pull(
    repo: str,
    revision: str | None,
    *,
    where: str,
    cache: Path | None,
    allow: Allowed,
    pins: Pins | None,
    patience: Patience | None,
    inspect: Inspect,
) -> tuple[Path, str]:
    """Return the local folder of a repository at a pinned commit; only what the cache lacks is fetched.

    Args:
        repo: ``org/name``.
        revision: a branch, a tag or a commit; where there is none the pin, or the default branch, which is
            then pinned.
        where: the checkpoint as messages name it.
        cache: the hub's cache folder; None for its own default.
        allow: what this checkpoint may do that none may otherwise; a commit must be given then.
        pins: the commits that ids without a revision stand for; None pins nothing.
        patience: how long a hub in trouble is waited for; None for the usual bounds.
        inspect: called before the weights are fetched.

    Returns:
        The folder and the full SHA of the commit.

    Raises:
        ConfigError: the hub refuses, doesn't know it or can't be reached, its listing shows that the repository
            can't be served, or the disk has no room for it.
    """
    hub = _Hub(repo, cache, allow, Waiting(patience or Patience(), where, Reporter.current()), inspect)
    asked = revision
    try:
        with quiet_client(where, Reporter.current()):
            if pins is None or revision is not None:
                sha = hub.commit(revision)
            else:
                pin = pins.pin_of(repo)
                asked = pin.commit if pin else None
                newest = hub.newest() if pin and not pins.update else hub.commit(None)
                if hub.answered or (pin and not pins.update):
                    sha = pins.settle(repo, newest, hub.check)
                else:  # only what the hub says now is pinned, not what the cache remembers of it
                    sha = pin.commit if pin else str(newest)
            return hub.cached(sha) or hub.download(sha), sha
    except ConfigError:
        raise
    except Exception as error:  # a service of others and three network libraries: whatever it is, one line
        raise refusal(error, asked, where, offline=offline()) from None


class Listed(NamedTuple):
    """A repository without its weights: the folder that holds its configuration, all its files, and what they take."""

    folder: Path
    names: list[str]
    weights_bytes: int


def look(
    repo: str,
    revision: str | None,
    *,
    where: str,
    cache: Path | None,
    pins: Pins | None,
    patience: Patience | None,
) -> Listed:
    """Return what a repository holds at a commit; only its configuration is fetched, and nothing is pinned.

    Args:
        repo: ``org/name``.
        revision: a branch, a tag or a commit; where there is none the pin, or the default branch.
        where: the checkpoint as messages name it.
        cache: the hub's cache folder; None for its own default.
        pins: the commits that ids without a revision stand for.
        patience: how long a hub in trouble is waited for; None for the usual bounds.

    Raises:
        ConfigError: the hub refuses, doesn't know it or can't be reached, and the cache does not hold it.
    """
    waiting = Waiting(patience or Patience(), where, Reporter.current())
    hub = _Hub(repo, cache, Allowed(), waiting, lambda _folder, _names: None)
    pin = pins.pin_of(repo) if pins and revision is None else None
    try:
        with quiet_client(where, Reporter.current()):
            sha = pin.commit if pin else hub.commit(revision)
            if (folder := hub.cached(sha)) is not None:
                files = [path for path in folder.iterdir() if path.is_file()]
                size_bytes = sum(path.stat().st_size for path in files if is_weight(path.name))
                return Listed(folder, [path.name for path in files], size_bytes)
            names = [file.name for file in hub.listing(sha)]
            size_bytes = sum(file.size_bytes for file in hub.served(sha) if is_weight(file.name))
            return Listed(hub.configuration(sha, names), names, size_bytes)
    except ConfigError:
        raise
    except Exception as error:  # a service of others and three network libraries: whatever it is, one line
        raise refusal(error, revision, where, offline=offline()) from None


class NotAskedError(ConfigError):
    """The hub didn't answer, so nobody knows if it has the checkpoint."""


def commit_of(
    repo: str,
    revision: str | None,
    *,
    where: str,
    pins: Pins | None,
    keep: bool,
    cache: Path | None,
    patience: Patience | None,
    inspect: Inspect,
) -> str:
    """Return the full SHA of the commit that a repository is to be measured at; no weights are fetched.

    Args:
        repo: ``org/name``.
        revision: a branch, a tag or a commit; where there is none the pin, or what the default branch names now.
        where: the checkpoint as messages name it.
        pins: the commits that ids without a revision stand for.
        keep: pin what the default branch names, once its listing and configuration were found good.
        cache: the hub's cache folder, its own default where there is none.
        patience: how long a hub in trouble is waited for.
        inspect: as for ``pull``.

    Raises:
        NotAskedError: the hub can't be reached or is in trouble, and nothing is pinned; what the cache remembers of a
            branch counts only where HF_HUB_OFFLINE is set.
        ConfigError: the hub says no, or what it holds can't be served.
    """
    pin = pins.pin_of(repo) if pins and revision is None else None
    if pin and not keep:
        return pin.commit
    hub = _Hub(repo, cache, Allowed(), Waiting(patience or Patience(), where, Reporter.current()), inspect)
    try:
        with quiet_client(where, Reporter.current()):
            sha = hub.newest() if pin else hub.commit(revision, remembered=False)
            if pins and keep and revision is None and (pin or hub.answered):
                return pins.settle(repo, sha, partial(hub.check, room=False))
            return str(sha)
    except ConfigError:
        raise
    except Exception as error:  # a service of others and three network libraries: whatever it is, one line
        error_line = refusal(error, revision, where, offline=offline())
        answer = response_of(error)
        if answer is not None and int(answer.status_code) in {401, 403, 404}:
            raise error_line from None
        hint = "Check the network and HF_ENDPOINT, or write the commit to 'revision' in configs/models."
        raise NotAskedError(
            f"the hub could not be asked for its commit ({error_line.what})", where=where, hint=hint
        ) from None


class _Hub:
    """One repository of the hub, and its folder in the cache."""

    def __init__(
        self, repo: str, cache: Path | None, allow: Allowed, waiting: Waiting, inspect: Inspect
    ) -> None:
        folder = Path(cache or constants.HF_HUB_CACHE).expanduser().resolve()
        self.repository = RepositoryCache(folder, repo)
        self.repo, self.where = repo, waiting.where
        self.allow, self.waiting, self.inspect = allow, waiting, inspect
        self.endpoint, self.token = endpoint(), token()
        self.api = HfApi(endpoint=self.endpoint, token=self.token)
        self.listings: dict[str, list[RemoteFile]] = {}
        self.checked: set[str] = set()
        self.answered = False

    def commit(self, revision: str | None, *, remembered: bool = True) -> str:
        """Return the commit that a revision names; with ``remembered`` the last known one if the hub is down."""
        if revision is not None and re.fullmatch(SHA, revision):
            return revision
        from_cache = partial(
            self.api.resolve_revision,
            self.repo,
            revision=revision,
            cache_dir=self.repository.cache,
            local_files_only=True,
        )
        if offline():
            return from_cache().resolved
        ask = partial(self.api.repo_info, self.repo, revision=revision, timeout=ANSWER_TIMEOUT_S)
        try:
            sha = ask().sha
        except Exception as error:
            if not _down(error):
                raise
            last = _last(from_cache) if remembered else None
            if last:
                named = revision or constants.DEFAULT_REVISION
                Reporter.current().line(
                    f"{self.where}: the hub can't be reached; going on with {last[:12]}, which {named} named last"
                )
                return last
            sha = self.waiting.call(ask).sha
        if sha is None:
            raise ConfigError("the hub names no commit of it", where=self.where, hint="Check HF_ENDPOINT.")
        self.answered = True
        self.repository.remember_ref(revision or constants.DEFAULT_REVISION, sha)
        return sha

    def newest(self) -> str | None:
        """Return the commit that the default branch names now; None if the hub can't say, which is no error."""
        if offline():
            return None
        try:
            return self.api.repo_info(self.repo, timeout=ANSWER_TIMEOUT_S).sha
        except Exception:  # whatever it is, the pinned commit may still be at hand
            return None

    def listing(self, sha: str) -> list[RemoteFile]:
        """Return the files of the repository at a commit."""
        if sha not in self.listings:
            info = self.waiting.call(
                lambda: self.api.model_info(
                    self.repo, revision=sha, files_metadata=True, timeout=ANSWER_TIMEOUT_S
                )
            )
            self.listings[sha] = [
                RemoteFile(file.rfilename, file.size or 0, file.lfs.sha256 if file.lfs else None)
                for file in info.siblings or []
            ]
        return self.listings[sha]

    def check(self, sha: str, *, room: bool = True) -> None:
        """Refuse a commit that can't be served before it is pinned or its weights are fetched.

        Args:
            sha: the commit.
            room: refuse also what has no room here.
        """
        if sha in self.checked or self.cached(sha) is not None or offline():
            return
        names = [file.name for file in self.listing(sha)]
        check_listing(names, self.where, self.allow)
        if room:
            check_room(self.missing_bytes(sha), self.repository.cache, self.where)
        sizes = {file.name: file.size_bytes for file in self.listing(sha)}
        self.inspect(self.configuration(sha, names), sizes)
        self.checked.add(sha)

    def served(self, sha: str) -> list[RemoteFile]:
        """Return the listed files that serving needs."""
        return [file for file in self.listing(sha) if served_under(self.allow, file.name)]

    def missing_bytes(self, sha: str) -> int:
        """Return the bytes of those files that are still to fetch."""
        return sum(self.repository.missing_bytes(file, sha) for file in self.served(sha))

    def cached(self, sha: str) -> Path | None:
        """Return the cached snapshot if it is complete.

        A snapshot without a listing may hold no more than a tokenizer that something else fetched, or what a killed
        pull left: it counts only where the hub must not be asked, and with weights.
        """
        try:
            folder = self.snapshot(sha, local=True)
            if not offline() or not any(map(is_weight, (path.name for path in folder.iterdir()))):
                get_cached_repo_tree(self.repo, revision=sha, cache_dir=self.repository.cache)
        except (LocalEntryNotFoundError, CachedRepoTreeNotFoundError):
            return None
        return folder

    def configuration(self, sha: str, names: list[str]) -> Path:
        """Fetch the configuration, some kilobytes, and return the snapshot's folder."""
        for name in CONFIGURATION:
            if name in names:
                self.waiting.call(partial(hf_hub_download, self.repo, name, **self._client_settings(sha)))
        return self.repository.folder / "snapshots" / sha

    def download(self, sha: str) -> Path:
        """Fetch what serving needs: large files so that they resume, the rest by the hub's own client."""
        if offline():
            raise LocalEntryNotFoundError("not in the cache")
        self.check(sha)
        files, needed_bytes = self.served(sha), self.missing_bytes(sha)
        size_bytes = sum(file.size_bytes for file in files)
        had = f", {(size_bytes - needed_bytes) / 1e9:,.2f} of it here" if needed_bytes < size_bytes else ""
        disable_progress_bars()
        title = f"pulling {self.repo} at {sha[:12]} ({size_bytes / 1e9:,.2f} GB{had})"
        with Reporter.current().step(title, unit="MB") as step:
            address: Callable[[str], str] = partial(
                hf_hub_url, self.repo, revision=sha, endpoint=self.endpoint
            )
            large = [file for file in files if file.resumable]
            fetch(
                large, self.repository, url=address, token=self.token or None, waiting=self.waiting, step=step
            )
            return self.waiting.call(lambda: self.snapshot(sha, local=False))

    def _client_settings(self, sha: str) -> dict[str, Any]:
        """Return what the hub's own client is to use in place of its defaults."""
        return {
            "revision": sha,
            "cache_dir": self.repository.cache,
            "endpoint": self.endpoint,
            "token": self.token,
        }

    def snapshot(self, sha: str, *, local: bool) -> Path:
        """Pull what serving needs with the hub's own client; with ``local`` from the cache alone."""
        folder = snapshot_download(
            self.repo,
            **self._client_settings(sha),
            local_files_only=local,
            allow_patterns=list(served_patterns(self.allow)),
            ignore_patterns=list(NOT_SERVED),
        )
        return Path(folder)


def _down(error: Exception) -> bool:
    """Return True if the hub could not answer, which says nothing about the repository."""
    response = response_of(error)
    if response is not None:
        return int(response.status_code) >= 500 or int(response.status_code) == 429
    return any(is_called(cause, "TransportError") for cause in causes(error))


def _last(from_cache: Callable[[], Any]) -> str | None:
    """Return the commit that the cache remembers for a revision."""
    try:
        return str(from_cache().resolved)
    except Exception:  # what counts is why the hub could not be asked
        return None


def endpoint() -> str | None:
    """Return the hub's address; None means the client's default."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


def token() -> str | Literal[False]:
    """Return HF_TOKEN; False without one, so that no token saved on this machine is used either."""
    return os.environ.get("HF_TOKEN", "").strip() or False


def offline() -> bool:
    """Return True if the hub must not be asked."""
    asked = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    return asked or constants.is_offline_mode()
