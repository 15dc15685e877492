"""Bodies of rows: JSON made and read once, checked against flipped bytes.

What JSON from outside can hold and a database or a later reader cannot is dealt with here: lone surrogates
become U+FFFD, NaN and infinities become null (as msgspec has it); what cannot be written at all is refused.
"""

from __future__ import annotations

import zlib
from typing import Any, TypeVar

import msgspec

from orchestrator.errors import BadRequest, StorageReadFailed

T = TypeVar("T")

#: Deeper nesting is refused: decoders count recursion against the interpreter's limit of 1,000 frames, of
#: which a caller's own frames take an unknown part.
MAX_DEPTH = 200

_OPENING = b"[{"
_CLOSING = b"]}"


def encode(value: Any) -> bytes:
    """JSON of ``value`` (UTF-8). Raises BadRequest for what JSON cannot hold or what nests over MAX_DEPTH."""
    try:
        try:
            raw = msgspec.json.encode(value)
        except UnicodeEncodeError:
            raw = msgspec.json.encode(without_surrogates(msgspec.to_builtins(value)))
    except RecursionError as error:
        raise BadRequest(f"data nests more than {MAX_DEPTH} levels deep", slug="too_deep") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise BadRequest(f"data cannot be written as JSON: {_clip(str(error))}", slug="not_json") from error
    # Fewer brackets than the limit cannot nest past it: the exact count is for suspicious bodies alone.
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH and _depth(raw) > MAX_DEPTH:
        raise BadRequest(f"data nests more than {MAX_DEPTH} levels deep", slug="too_deep")
    return raw


def decode(raw: bytes, kind: type[T]) -> T:
    """The value of ``kind`` in ``raw``. Raises StorageReadFailed when it is damaged."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise StorageReadFailed(f"a stored record is damaged: {_clip(str(error))}", slug="damaged_record") from error


def checksum(raw: bytes) -> int:
    """CRC-32 of a body, kept beside it."""
    return zlib.crc32(raw)


def decode_checked(raw: bytes, check: int, kind: type[T]) -> T:
    """As ``decode``, after comparing the body with its checksum. Raises StorageReadFailed."""
    if not isinstance(raw, bytes) or zlib.crc32(raw) != check:
        raise StorageReadFailed("a stored record is damaged: its checksum differs", slug="damaged_record")
    return decode(raw, kind)


def without_surrogates(value: Any) -> Any:
    """``value`` with each lone surrogate in its strings replaced by U+FFFD."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict):
        return {without_surrogates(key): without_surrogates(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_surrogates(item) for item in value]
    return value


def clean_text(text: str) -> str:
    """``text`` as a database can hold it: no lone surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _depth(raw: bytes) -> int:
    deepest = level = 0
    is_text = is_escaped = False
    for byte in raw:
        if is_text:
            if is_escaped:
                is_escaped = False
            elif byte == 0x5C:
                is_escaped = True
            elif byte == 0x22:
                is_text = False
        elif byte == 0x22:
            is_text = True
        elif byte in _OPENING:
            level += 1
            deepest = max(deepest, level)
        elif byte in _CLOSING:
            level -= 1
    return deepest


def _clip(text: str) -> str:
    return text if len(text) <= 200 else text[:200] + "…"
