"""Send requests to a running engine, and notice its end."""

from __future__ import annotations

import http.client
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
        return all(self._get(path, timeout_s=2) is not None for path in ("/health", "/v1/models"))

    def metrics(self) -> str:
        """Return the engine's Prometheus metrics, as text; empty if it does not answer."""
        return self._get("/metrics", timeout_s=5) or ""

    def _get(self, path: str, *, timeout_s: float) -> str | None:
        """Return the text that the server has at a path; None if it does not answer, or refuses."""
        request = urllib.request.Request(  # noqa: S310 - an engine of ours
            f"{self.base_url}{path}", headers={"Authorization": f"Bearer {self.api_key}"}
        )
        try:
            with _DIRECT.open(request, timeout=timeout_s) as answer:
                return str(answer.read().decode(errors="replace")) if answer.status == 200 else None
        except (OSError, http.client.HTTPException):
            return None
