"""A small HTTP client for tests: one object for one token, answers with their JSON decoded."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import httpx


class Answer:
    """One answer: ``status``, ``headers`` (case-insensitive), ``body`` (bytes), ``json`` (decoded)."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.headers = response.headers
        self.body = response.content
        self.request = f"{response.request.method} {response.request.url}"

    @property
    def json(self) -> Any:
        """The decoded body. Raises AssertionError with the body when it is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            raise AssertionError(f"{self!r} is not JSON") from None

    def expect(self, *statuses: int) -> Self:
        """This answer. Raises AssertionError unless its status is one of ``statuses``."""
        assert self.status in statuses, f"{self!r}, expected {' or '.join(map(str, statuses))}"
        return self

    def refused(self, status: int, code: str | None = None) -> dict[str, Any]:
        """The error body, whose shape is checked, of an answer with this status (and code)."""
        error: dict[str, Any] = self.expect(status).json
        missing = {"error", "message", "code", "timestamp", "request_id"} - error.keys()
        assert not missing, f"{self!r} lacks {sorted(missing)}"
        assert error["request_id"] == self.headers["X-Request-ID"]
        if code is not None:
            assert error["code"] == code, f"{self!r}, expected code {code}"
        return error

    def __repr__(self) -> str:
        return f"{self.request} -> {self.status} {self.body[:500]!r}"


class Api:
    """Calls with one bearer token (or none). Use as a context manager, or ``close`` it."""

    def __init__(self, base_url: str, token: str | None = None, *, timeout_s: float = 60.0) -> None:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self.base_url = base_url
        self.token = token
        self._client = httpx.Client(base_url=base_url, headers=headers, timeout=timeout_s, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        **parameters: Any,
    ) -> Answer:
        """One request; ``body`` is sent as JSON, ``content`` as it is; a parameter that is None is left out."""
        sent = {key.rstrip("_"): value for key, value in parameters.items() if value is not None}
        extra: dict[str, Any] = {} if body is None else {"json": body}
        if content is not None:
            extra["content"] = content
        return Answer(self._client.request(method, path, params=sent or None, headers=headers, **extra))

    def get(self, path: str, *, headers: Mapping[str, str] | None = None, **parameters: Any) -> Answer:
        """GET; ``from_`` is sent as ``from``."""
        return self.request("GET", path, headers=headers, **parameters)

    def post(
        self, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None, **parameters: Any
    ) -> Answer:
        """POST a JSON body."""
        return self.request("POST", path, body=body, headers=headers, **parameters)

    def delete(self, path: str, *, headers: Mapping[str, str] | None = None, **parameters: Any) -> Answer:
        """DELETE."""
        return self.request("DELETE", path, headers=headers, **parameters)


def raw_exchange(port: int, request: bytes, *, timeout_s: float = 20.0) -> bytes:
    """Send these bytes to the server and read until it closes the connection (ask for ``Connection: close``)."""
    received = bytearray()
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
        connection.sendall(request)
        while chunk := connection.recv(65536):
            received += chunk
    return bytes(received)
