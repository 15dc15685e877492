"""A load of one request over keep-alive connections; runs in a process of its own and prints its figures as JSON.

    python perf/http_load.py PORT REQUEST_FILE CONNECTIONS SECONDS

``{n}`` in the request's body is replaced by a number that differs each time, padded to keep the length.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

#: Width of the number that takes the place of ``{n}``.
DIGITS = 12


class Connection(asyncio.Protocol):
    """Sends the request again as soon as its answer is complete."""

    def __init__(self, request: bytes, until: float, latencies: list[float], errors: list[int]) -> None:
        self._parts = request.split(b"{n}")
        self._until = until
        self._latencies = latencies
        self._errors = errors
        self._buffer = b""
        self._need = -1
        self._sent_at = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def _send(self) -> None:
        assert self._transport is not None
        self._sent_at = time.perf_counter()
        if len(self._parts) == 1:
            self._transport.write(self._parts[0])
        else:
            number = b"%0*d" % (DIGITS, time.perf_counter_ns() % 10**DIGITS)
            self._transport.write(number.join(self._parts))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._need < 0:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._buffer[:end].lower()
            if not head.startswith(b"http/1.1 2"):
                self._errors.append(int(head[9:12]))
            start = head.index(b"content-length:") + 15
            stop = head.find(b"\r\n", start)
            self._need = end + 4 + int(head[start : stop if stop > 0 else None])
        if len(self._buffer) < self._need:
            return
        now = time.perf_counter()
        self._latencies.append(now - self._sent_at)
        self._buffer, self._need = b"", -1
        if now < self._until:
            self._send()
        else:
            assert self._transport is not None
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def load(port: int, request: bytes, connections: int, seconds: float) -> dict[str, float]:
    """Requests per second and latencies in milliseconds."""
    latencies: list[float] = []
    errors: list[int] = []
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    opened = [
        await loop.create_connection(lambda: Connection(request, began + seconds, latencies, errors), "127.0.0.1", port)
        for _ in range(connections)
    ]
    await asyncio.gather(*(connection.done for _, connection in opened))
    took = time.perf_counter() - began
    latencies.sort()
    return {
        "rate": len(latencies) / took,
        "p50_ms": 1000 * latencies[len(latencies) // 2],
        "p99_ms": 1000 * latencies[int(len(latencies) * 0.99)],
        "requests": len(latencies),
        "errors": len(errors),
        "first_error": errors[0] if errors else 0,
    }


def main() -> None:
    """Read the arguments, load, print."""
    port, file, connections, seconds = sys.argv[1:]
    request = Path(file).read_bytes()
    print(json.dumps(asyncio.run(load(int(port), request, int(connections), float(seconds)))))


if __name__ == "__main__":
    main()
