"""Reading a request's body with bounds on type, size and time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from api.errors import RequestTimedOut, UnsupportedMediaType
from orchestrator.errors import BadRequest, BodyTooLarge

JSON_TYPE = "application/json"
CLOUDEVENT_TYPE = "application/cloudevents+json"
#: Types that some route reads; which one does is checked there.
BODY_TYPES = frozenset({JSON_TYPE, CLOUDEVENT_TYPE})
#: How much of a body that is refused is still taken in, so that a client that sends first and reads then gets the
#: answer instead of a reset connection; and for how many seconds.
DISCARD_BYTES = 64 << 20
DISCARD_S = 5.0


def media_type(header: bytes | None) -> str:
    """The type of a ``Content-Type`` header in lower case; empty when it is missing or names a charset not UTF-8."""
    if header is None:
        return ""
    kind, _, parameters = header.decode("latin-1").partition(";")
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip().strip('"').lower() not in ("utf-8", "utf8"):
            return ""
    return kind.strip().lower()


async def read_body(
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    headers: dict[bytes, bytes],
    limit_bytes: int,
    timeout_s: float,
) -> bytes:
    """The whole body.

    Raises BodyTooLarge over ``limit_bytes`` (declared or counted), RequestTimedOut when it has not arrived in
    ``timeout_s`` seconds, UnsupportedMediaType for a type or encoding that no route reads, BadRequest when the
    client goes away in the middle.
    """
    declared = headers.get(b"content-length", b"0")
    if not declared.isdigit():
        raise BadRequest("Content-Length must be a number", details={"header": "Content-Length"})
    if int(declared) > limit_bytes:
        if b"expect" not in headers:
            await _discard(receive)
        raise _too_large(limit_bytes)
    try:
        async with asyncio.timeout(timeout_s):
            body = await _read_whole(receive, limit_bytes)
    except TimeoutError as error:
        raise RequestTimedOut(f"the body did not arrive within {timeout_s:g} s") from error
    if body:
        _check_type(headers)
    return body


async def _read_whole(receive: Callable[[], Awaitable[MutableMapping[str, Any]]], limit_bytes: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise BadRequest("the body ended early", details={"field": "body"})
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit_bytes:
            chunks.clear()
            await _discard(receive)
            raise _too_large(limit_bytes)
        if chunk:
            chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _discard(receive: Callable[[], Awaitable[MutableMapping[str, Any]]]) -> None:
    taken = 0
    try:
        async with asyncio.timeout(DISCARD_S):
            while taken < DISCARD_BYTES:
                message = await receive()
                taken += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return


def _check_type(headers: dict[bytes, bytes]) -> None:
    encoding = headers.get(b"content-encoding", b"identity").strip().lower()
    if encoding not in (b"identity", b""):
        raise UnsupportedMediaType(
            "compressed bodies are not read; send the body as it is", details={"header": "Content-Encoding"}
        )
    if media_type(headers.get(b"content-type")) not in BODY_TYPES:
        raise UnsupportedMediaType(
            f"a body needs 'Content-Type: {JSON_TYPE}'", details={"header": "Content-Type", "supported": [JSON_TYPE]}
        )


def _too_large(limit_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than {limit_bytes} bytes", details={"limit_bytes": limit_bytes})
