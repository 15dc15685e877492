"""Frames between the supervisor and the builder process: four bytes of length, then MessagePack."""

from __future__ import annotations

import socket
import struct
from typing import Any, Literal

import msgspec

from orchestrator.context.models import JSON, BuildOrder

_LENGTH = struct.Struct("!I")
#: Longest frame: the largest answer (10 MiB) with room; anything longer is a broken stream.
LONGEST = 64 << 20


class Ask(msgspec.Struct, frozen=True, kw_only=True, tag="ask", tag_field="t"):
    """Supervisor to builder: what is wanted; ``known_generation`` lets a build answer ``is_same``."""

    number: int
    what: Literal["build", "glance", "warm", "verify", "search", "explain", "forget", "stats"]
    root: str = ""
    order: BuildOrder | None = None
    known_generation: int = 0
    query: str = ""
    limit: int = 20


class Told(msgspec.Struct, frozen=True, kw_only=True, tag="told", tag_field="t"):
    """Builder to supervisor: the answer to an ``Ask``; ``error`` is set when it failed, ``problems`` go to the log."""

    number: int
    body: bytes = b""
    etag: str = ""
    generation: int = 0
    epoch: int = 0
    is_watched: bool = False
    is_same: bool = False
    data: JSON = {}
    problems: tuple[str, ...] = ()
    error: str | None = None


class Stale(msgspec.Struct, frozen=True, kw_only=True, tag="stale", tag_field="t"):
    """Builder to supervisor: something below ``root`` changed; answers of an earlier epoch are not to be given."""

    root: str
    epoch: int


_ENCODER = msgspec.msgpack.Encoder()


def encode(message: Ask | Told | Stale) -> bytes:
    """The frame of a message."""
    return framed(_ENCODER.encode(message))


def framed(payload: bytes) -> bytes:
    """The frame around encoded bytes."""
    return _LENGTH.pack(len(payload)) + payload


def receive(connection: socket.socket) -> bytes | None:
    """The next payload of a blocking socket, or None at its end (a torn frame counts as the end)."""
    head = _exactly(connection, _LENGTH.size)
    if head is None:
        return None
    (length,) = _LENGTH.unpack(head)
    return _exactly(connection, length) if length <= LONGEST else None


def length_of(head: bytes) -> int:
    """The length that a frame's first four bytes name."""
    (length,) = _LENGTH.unpack(head)
    return int(length)


def _exactly(connection: socket.socket, size: int) -> bytes | None:
    chunks: list[bytes] = []
    while size:
        try:
            chunk = connection.recv(min(size, 1 << 20))
        except OSError:
            return None
        if not chunk:
            return None
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)


def decode_ask(payload: bytes) -> Ask:
    """An ``Ask`` of a payload. Raises msgspec.DecodeError."""
    return msgspec.msgpack.decode(payload, type=Ask)


def decode_answer(payload: bytes) -> Told | Stale:
    """A ``Told`` or ``Stale`` of a payload. Raises msgspec.DecodeError."""
    answer: Any = msgspec.msgpack.decode(payload, type=Told | Stale)
    return answer  # type: ignore[no-any-return]
