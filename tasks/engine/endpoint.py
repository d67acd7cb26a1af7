"""Send requests to a running engine, and notice its end."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable

from pydantic import Field

from quantgate.model.yaml_file import Strict

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""A host's proxy can't reach its loopback."""


class EngineEndpoint(Strict):
    """A running engine, as everything sees it that sends it requests; written as JSON, it holds no secret."""

    base_url: str = Field(description="Root of the server, such as http://127.0.0.1:8000.")
    served_model: str = Field(description="Name at the server of the model or the adapter to ask.")
    engine_start_id: str = Field(description="Start of the engine that rows name.")
    api_key: str = Field(default="", exclude=True, repr=False)
    check_alive: Callable[[], None] = Field(
        default=lambda: None,
        exclude=True,
        repr=False,
        description="Raises a RunError with the engine's last words if the engine has ended.",
    )
    last_words: Callable[[], str] = Field(
        default=lambda: "",
        exclude=True,
        repr=False,
        description="Returns the last lines of the engine's log that say something.",
    )

    def answers(self) -> bool:
        """Return True once the server is ready and accepts the key."""
        return all(self._answers(path) for path in ("/health", "/v1/models"))

    def _answers(self, path: str) -> bool:
        request = urllib.request.Request(  # noqa: S310 - an engine of ours
            f"{self.base_url}{path}", headers={"Authorization": f"Bearer {self.api_key}"}
        )
        try:
            with _DIRECT.open(request, timeout=2) as answer:
                return int(answer.status) == 200
        except (OSError, http.client.HTTPException):
            return False

    def metrics(self) -> str:
        """Return the engine's Prometheus metrics, as text; empty if it does not answer."""
        try:
            with _DIRECT.open(f"{self.base_url}/metrics", timeout=5) as answer:
                return str(answer.read().decode())
        except (OSError, urllib.error.URLError):
            return ""
