"""A client that costs next to nothing, so that what is measured is the server."""

from __future__ import annotations

import asyncio
import json
from typing import Any


class Line:
    """One keep-alive connection to this machine."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> Line:
        """Connect."""
        # the limit bounds what is read ahead; the largest answers here are lists of a thousand records
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 20))

    async def ask(self, raw: bytes) -> bytes:
        """Send a request; the body of its answer, which must be a success of known length."""
        self._writer.write(raw)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        assert head.startswith(b"http/1.1 2"), head
        start = head.index(b"content-length:") + 15
        return await self._reader.readexactly(int(head[start : head.index(b"\r\n", start)]))

    def close(self) -> None:
        """Disconnect."""
        self._writer.close()


def request(method: str, path: str, token: str, body: Any = None) -> bytes:
    """A whole request with a bearer token; ``body`` goes as JSON."""
    payload = b"" if body is None else json.dumps(body).encode()
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {token}",
        "Content-Type: application/json",
        f"Content-Length: {len(payload)}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + payload
