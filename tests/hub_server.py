"""A small model hub on 127.0.0.1: as much of the protocol as huggingface_hub's client asks for."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType


@dataclass
class Repository:
    """Files by commit, and the commit that each branch or tag names."""

    commits: dict[str, dict[str, bytes]]
    refs: dict[str, str]
    token: str | None = None
    gated: bool = False


@dataclass
class HubServer:
    """Serves repositories while it is entered; ``requests`` lists (method, path) of what was asked."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)

    def add(self, name: str, files: dict[str, bytes], *, branch: str = "main", **access: object) -> str:
        """Commit files to a branch of a repository, which is made if need be; returns the commit's SHA."""
        repository = self.repositories.setdefault(name, Repository({}, {}, **access))  # type: ignore[arg-type]
        sha = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        repository.commits[sha] = files
        repository.refs[branch] = sha
        return sha

    def __enter__(self) -> HubServer:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def endpoint(self) -> str:
        """What HF_ENDPOINT is to be."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def downloaded(self) -> set[str]:
        """Names of the files whose content was fetched."""
        return {
            path.split("/", 5)[5] for method, path in self.requests if method == "GET" and "/resolve/" in path
        }


def _handler(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            hub.requests.append((self.command, path))
            status, body, headers = _respond(hub, path, self.headers.get("Authorization"))
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    return Handler


Answer = tuple[int, bytes, dict[str, str]]


def _error(status: int, code: str) -> Answer:
    return status, b"", {"X-Error-Code": code}


def _respond(hub: HubServer, path: str, authorization: str | None) -> Answer:
    found = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path)
    file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
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
        return _file(files.get(file[3]), sha)
    if found and found[2] == "tree":
        return 200, json.dumps([_entry(*item) for item in files.items()]).encode(), {}
    info = {"id": name, "sha": sha, "private": False, "tags": [], "downloads": 0, "likes": 0}
    return (
        200,
        json.dumps(
            {**info, "siblings": [{"rfilename": file, "size": len(files[file])} for file in files]}
        ).encode(),
        {},
    )


def _file(content: bytes | None, sha: str) -> Answer:
    if content is None:
        return _error(404, "EntryNotFound")
    return 200, content, {"X-Repo-Commit": sha, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}


def _entry(name: str, content: bytes) -> dict[str, object]:
    return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
