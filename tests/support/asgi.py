"""Requests to an ASGI application in this process, as the server would make them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from quart import Quart


class Answer:
    """An answer with its headers in lower case."""

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.status = status
        self.headers = {name.decode().lower(): value.decode() for name, value in headers}
        self.body = body

    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The error code of the contract."""
        return str(self.json()["code"])


class AsgiClient:
    """Calls one application; ``token`` goes along when there is one."""

    def __init__(self, app: Quart, token: str | None = None) -> None:
        self.app = app
        self.token = token

    def as_bearer(self, token: str) -> AsgiClient:
        """The same application with another token."""
        return AsgiClient(self.app, token)

    def _scope(self, method: str, target: str, headers: Sequence[tuple[bytes, bytes]]) -> dict[str, Any]:
        path, _, query = target.partition("?")
        return {
            "type": "http",
            "http_version": "1.1",
            "asgi": {"spec_version": "2.1", "version": "3.0"},
            "method": method,
            "scheme": "http",
            "path": unquote(path),
            "raw_path": path.encode("ascii"),
            "query_string": query.encode("ascii"),
            "root_path": "",
            "headers": list(headers),
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 3001),
            "state": {},
            "extensions": {},
        }

    def _headers(self, given: Mapping[str, str | None], body: bytes | None) -> list[tuple[bytes, bytes]]:
        headers: dict[str, str | None] = {"host": "127.0.0.1:3001"}
        if self.token is not None:
            headers["authorization"] = f"Bearer {self.token}"
        if body:
            headers |= {"content-type": "application/json", "content-length": str(len(body))}
        headers |= {name.lower(): value for name, value in given.items()}
        return [(name.encode(), value.encode("latin-1")) for name, value in headers.items() if value is not None]

    async def request(
        self,
        method: str,
        target: str,
        *,
        json_body: Any = None,
        body: bytes | None = None,
        headers: Mapping[str, str | None] | None = None,
        chunks: Sequence[bytes] | None = None,
        disconnect: asyncio.Event | None = None,
        never_ends: bool = False,
    ) -> Answer:
        """One request. ``chunks`` sends the body in pieces; ``never_ends`` leaves its end out."""
        if json_body is not None:
            body = json.dumps(json_body).encode()
        scope = self._scope(method, target, self._headers(headers or {}, body))
        pieces = list(chunks) if chunks is not None else ([body] if body else [])
        messages: list[dict[str, Any]] = [
            {"type": "http.request", "body": piece, "more_body": True} for piece in pieces
        ]
        if not never_ends:
            messages.append({"type": "http.request", "body": b"", "more_body": False})
        sent: list[Any] = []
        gone = disconnect or asyncio.Event()

        async def receive() -> Any:
            if messages:
                return messages.pop(0)
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                gone.set()  # as a server says when the answer is complete

        await self.app(scope, receive, send)  # type: ignore[arg-type]
        assert sent, "no answer was sent"
        payload = b"".join(message.get("body", b"") for message in sent[1:])
        return Answer(sent[0]["status"], sent[0]["headers"], payload)

    async def get(self, target: str, headers: Mapping[str, str | None] | None = None) -> Answer:
        """GET."""
        return await self.request("GET", target, headers=headers)

    async def post(self, target: str, json_body: Any = None, headers: Mapping[str, str | None] | None = None) -> Answer:
        """POST with a JSON body."""
        return await self.request("POST", target, json_body=json_body, headers=headers)

    async def delete(self, target: str) -> Answer:
        """DELETE."""
        return await self.request("DELETE", target)

    async def stream(self, target: str, headers: Mapping[str, str | None] | None = None) -> AsyncIterator[bytes]:
        """The pieces of a streamed answer as they come; leaving the loop disconnects."""
        pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        gone = asyncio.Event()
        first = [{"type": "http.request", "body": b"", "more_body": False}]

        async def receive() -> Any:
            if first:
                return first.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body" and message.get("body"):
                await pieces.put(message["body"])
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                gone.set()

        scope = self._scope("GET", target, self._headers(headers or {}, None))

        async def run() -> None:
            try:
                await self.app(scope, receive, send)  # type: ignore[arg-type]
            finally:
                await pieces.put(None)

        task = asyncio.create_task(run())
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
        finally:
            gone.set()
            await task
