"""Server-sent events (WHATWG HTML, section 9.2): how they are written, and streams that end when the server stops."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from api.routes.base import Call, Reply
from api.routes.waiters import Released

EVENT_STREAM = "text/event-stream"
HEARTBEAT = b": heartbeat\n\n"
_HEADERS = (("Cache-Control", "no-store"), ("X-Accel-Buffering", "no"))


def message(data: bytes, *, event: str | None = None, id: str | None = None) -> bytes:
    """One message. ``data`` is JSON and so holds no line break."""
    head = b""
    if id is not None:
        head += b"id: " + id.encode() + b"\n"
    if event is not None:
        head += b"event: " + event.encode() + b"\n"
    return head + b"data: " + data + b"\n\n"


def stream_reply(call: Call, messages: AsyncIterator[bytes]) -> Reply:
    """An endless answer of ``messages``; it ends with them, with the server or with the token."""
    return Reply(content_type=EVENT_STREAM, headers=_HEADERS, stream=_until_released(call, messages))


async def _until_released(call: Call, messages: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    # Something at once, so that the client sees the stream open before the first event.
    yield b": open\n\n"
    async with aclosing(messages):  # type: ignore[type-var]
        while True:
            try:
                with call.waiters.hold():
                    piece = await anext(messages, None)
            except Released:
                return
            if piece is None or not await call.is_still_admitted():
                return
            yield piece
