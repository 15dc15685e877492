"""Streams whose clients do not read, over real sockets."""

from __future__ import annotations

import json
import socket
import sys

import pytest

from tests.support.http import Api
from tests.support.server import Server
from tests.support.waiting import until

BLOB = "x" * 20_000
#: Together far more than a connection may hold, on either side.
COUNT = 400


def silent_stream(server: Server, token: str, kind: str) -> socket.socket:
    """A stream that is open and of which nothing more is read, with a small buffer on this side."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(60)
    connection.connect(("127.0.0.1", server.port))
    lines = [
        f"GET /api/events/stream?type={kind} HTTP/1.1",
        f"Host: 127.0.0.1:{server.port}",
        f"Authorization: Bearer {token}",
        "",
        "",
    ]
    connection.sendall("\r\n".join(lines).encode())
    assert connection.recv(64).startswith(b"HTTP/1.1 200")
    return connection


def delivered(api: Api) -> int:
    """How many events readers have been given so far."""
    count: int = api.get("/status").expect(200).json["events"]["total_delivered"]
    return count


@pytest.mark.skipif(sys.platform != "linux", reason="other systems size socket buffers as they like")
def test_a_stream_that_is_not_read_is_read_no_further(server: Server) -> None:
    """The log was read, and megabytes were buffered, for a client that never reads; then what it missed was lost."""
    api = server.api()
    with silent_stream(server, str(api.token), "big") as silent:
        cursors = []
        for n in range(COUNT):
            body = {"topic": "testing", "data": {"n": n, "blob": BLOB}}
            cursors.append(api.post("/api/events/big", body).expect(202).json["cursor"])
        # 400 events are 8 MB; buffers of both sides and a page read ahead are not a tenth of it.
        assert delivered(api) < 100
        received = bytearray()

        def ids() -> list[str]:
            return [line[4:].decode() for line in bytes(received).split(b"\n") if line.startswith(b"id: ")]

        def has_all() -> bool:
            received.extend(silent.recv(1 << 20))
            return received.count(b"id: ") >= COUNT and received.endswith(b"\r\n")

        until(has_all, timeout_s=60, what="the stream goes on where it was")
        assert ids() == cursors
        assert json.dumps({"n": COUNT - 1})[:-1].replace(" ", "").encode() in received
