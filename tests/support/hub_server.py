"""A small model hub on 127.0.0.1: as much of the protocol as huggingface_hub's client asks for, and faults on order.

As the real hub does it, weights are stored by their SHA-256 ("LFS") and a request for one is redirected to a signed
address on another host, which serves ranges and must not see the token.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple

LFS = (".safetensors", ".bin", ".pt", ".pth", ".model", ".parquet")
"""Files stored by their SHA-256."""

DATASETS = "datasets/"
"""Prefix of the name of a data repository."""


@dataclass
class Repository:
    """Files by commit, and the commit that each branch or tag names."""

    commits: dict[str, dict[str, bytes]]
    refs: dict[str, str]
    token: str | None = None
    gated: bool = False


@dataclass
class Fault:
    """Fault of requests whose path matches, ``times`` times."""

    path: str
    times: int = 1
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    drop_after_bytes: int | None = None
    """Of the body: then the connection is reset."""
    stall_after_bytes: int | None = None
    """Of the body: then nothing comes until the hub closes."""
    ignores_ranges: bool = False
    damages: bool = False
    """The body has the right length and a wrong byte."""


class Request(NamedTuple):
    """One request, and the bytes of content that went out in answer."""

    method: str
    path: str
    range: str | None
    sent_bytes: int


@dataclass
class HubServer:
    """Serves repositories while it is entered; ``requests`` lists (method, path) of what was asked."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    transfers: list[Request] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    """Paths of the storage host that were asked for with a token."""
    blobs: dict[str, bytes] = field(default_factory=dict)

    def add(self, name: str, files: dict[str, bytes], *, branch: str = "main", **access: Any) -> str:
        """Commit files to a branch of a repository, which is made if need be; returns the commit's SHA."""
        repository = self.repositories.setdefault(name, Repository({}, {}, **access))
        sha = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        repository.commits[sha] = files
        repository.refs[branch] = sha
        self.blobs |= {hashlib.sha256(content).hexdigest(): content for content in files.values()}
        return sha

    def __enter__(self) -> HubServer:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.closing = threading.Event()
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def endpoint(self) -> str:
        """Value for HF_ENDPOINT."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def storage(self) -> str:
        """The other host, by its other name."""
        return f"http://localhost:{self._server.server_port}"

    def downloaded(self) -> set[str]:
        """Names of the files whose content was fetched."""
        return {
            path.split("/", 5)[5] for method, path in self.requests if method == "GET" and "/resolve/" in path
        }

    def content_of(self, content: bytes) -> list[Request]:
        """Transfers of that content from the storage host."""
        path = f"/storage/{hashlib.sha256(content).hexdigest()}"
        return [one for one in self.transfers if one.path == path and one.method == "GET"]

    def sent_bytes(self) -> int:
        """Content that went out so far, unfinished transfers among it."""
        return sum(one.sent_bytes for one in self.transfers)

    def wait_for_bytes(self, count: int, timeout_s: float = 20) -> None:
        """Return once so much content went out."""
        end = time.monotonic() + timeout_s
        while self.sent_bytes() < count:
            assert time.monotonic() < end, f"{self.sent_bytes()} of {count} bytes went out"
            time.sleep(0.01)

    def fault_for(self, path: str) -> Fault | None:
        """The next fault that matches, used up by one."""
        for fault in self.faults:
            if fault.times > 0 and re.search(fault.path, path):
                fault.times -= 1
                return fault
        return None


Answer = tuple[int, bytes, dict[str, str]]


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.requests.append((self.command, path))
        authorization = self.headers.get("Authorization")
        fault = self.hub.fault_for(path) or Fault(path)
        if fault.status is not None:
            echoed = {name: value.format(token=authorization) for name, value in fault.headers.items()}
            status, body, headers = fault.status, fault.body, echoed
        elif path.startswith("/storage/"):
            if authorization is not None:
                self.hub.leaks.append(path)
            status, body, headers = self.stored(path, fault)
        else:
            status, body, headers = _respond(self.hub, path, authorization)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.send_body(path, body, fault)

    def stored(self, path: str, fault: Fault) -> Answer:
        content = self.hub.blobs.get(path.removeprefix("/storage/"))
        if content is None or "signature=" not in self.path:
            return 403, b"", {}
        if fault.damages:
            content = content[:-1] + bytes([content[-1] ^ 1])
        etag = {"ETag": f'"{path[-32:]}"', "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked is None or fault.ignores_ranges:
            return 200, content, etag
        begin = int(asked[1])
        if begin >= len(content):
            return 416, b"", {"Content-Range": f"bytes */{len(content)}"}
        span = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        return 206, content[begin:], {**etag, "Content-Range": span}

    def send_body(self, path: str, body: bytes, fault: Fault) -> None:
        ends = [e for e in (fault.drop_after_bytes, fault.stall_after_bytes) if e is not None]
        end = min([len(body), *ends])
        index = len(self.hub.transfers)
        asked = self.headers.get("Range")
        self.hub.transfers.append(Request(self.command, path, asked, 0))
        for begin in range(0, end, 1 << 16):
            self.wfile.write(body[begin : min(end, begin + (1 << 16))])
            sent = min(end, begin + (1 << 16))
            self.hub.transfers[index] = Request(self.command, path, asked, sent)
        if fault.stall_after_bytes is not None:
            self.hub.closing.wait(30)
        if ends:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)


def _error(status: int, code: str) -> Answer:
    return status, b"", {"X-Error-Code": code}


def _respond(hub: HubServer, path: str, authorization: str | None) -> Answer:
    found = re.fullmatch(
        r"/api/(?:models/|(?=datasets/))((?:datasets/)?[^/]+/[^/]+)(?:/(revision|tree)/([^/]+)(?:/(.+))?)?",
        path,
    )
    file = re.fullmatch(r"/((?:datasets/|spaces/)?[^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
    name = found[1] if found else file[1] if file else ""
    repository = hub.repositories.get(name)
    if repository is None:
        return _error(404, "RepoNotFound")
    if repository.gated:
        return _error(403, "GatedRepo")
    if repository.token is not None and authorization != f"Bearer {repository.token}":
        if authorization is None:
            return _error(401, "RepoNotFound")
        return 401, b"", {"X-Error-Message": "Invalid credentials in Authorization header"}
    revision = (found[3] if found else file[2] if file else None) or "main"
    sha = repository.refs.get(revision, revision)
    files = repository.commits.get(sha)
    if files is None:
        return _error(404, "RevisionNotFound")
    if file:
        return _file(hub, file[3], files.get(file[3]), sha)
    if found and found[2] == "tree":
        entries = _tree(files, found[4]) if name.startswith(DATASETS) else [_entry(*i) for i in files.items()]
        return 200, json.dumps(entries).encode(), {}
    info = {"id": name, "sha": sha, "private": False, "tags": [], "downloads": 0, "likes": 0}
    siblings = [_sibling(*item) for item in files.items()]
    return 200, json.dumps({**info, "siblings": siblings}).encode(), {}


def _file(hub: HubServer, name: str, content: bytes | None, sha: str) -> Answer:
    if content is None:
        return _error(404, "EntryNotFound")
    if not name.endswith(LFS):
        return 200, content, {"X-Repo-Commit": sha, "ETag": f'"{_blob_id(content)}"'}
    digest = hashlib.sha256(content).hexdigest()
    linked = {"X-Linked-ETag": f'"{digest}"', "X-Linked-Size": str(len(content)), "X-Repo-Commit": sha}
    return 302, b"", {**linked, "Location": f"{hub.storage}/storage/{digest}?signature=1"}


def _blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _lfs(name: str, content: bytes, key: str) -> dict[str, Any]:
    if not name.endswith(LFS):
        return {}
    digest = hashlib.sha256(content).hexdigest()
    return {"lfs": {key: digest, "size": len(content), "pointerSize": 134}}


def _sibling(name: str, content: bytes) -> dict[str, Any]:
    own = {"rfilename": name, "size": len(content), "blobId": _blob_id(content)}
    return {**own, **_lfs(name, content, "sha256")}


def _tree(files: dict[str, bytes], folder: str | None) -> list[dict[str, Any]]:
    """List a folder of a data set, its folders included."""
    begun = f"{folder}/" if folder else ""
    within = {name.removeprefix(begun): content for name, content in files.items() if name.startswith(begun)}
    folders = sorted({name.partition("/")[0] for name in within if "/" in name})
    return [
        *({"type": "directory", "path": f"{begun}{name}", "oid": "0" * 40, "size": 0} for name in folders),
        *(_entry(f"{begun}{name}", content) for name, content in within.items() if "/" not in name),
    ]


def _entry(name: str, content: bytes) -> dict[str, Any]:
    own = {"type": "file", "path": name, "size": len(content), "oid": _blob_id(content)}
    return {**own, **_lfs(name, content, "oid")}
