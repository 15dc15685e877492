"""From the bytes of stdout to records: whole lines only, and no line can break the reader."""

from __future__ import annotations

import json
import math
from typing import Any, NamedTuple

#: A longer line is kept in the log and not parsed (contract, section 5).
MAX_LINE_BYTES = 1 << 20
#: Nesting that a record may have; deeper ones exhaust the recursion of readers further up.
MAX_DEPTH = 64
#: JSON integers beyond 64 bits do not survive the stores and clients that records go to (RFC 8259, section 6).
INTEGER_BOUNDS = (-(1 << 63), (1 << 64) - 1)
#: After this many bad lines of one stream the rest are only counted: a binary flood must not go up.
MAX_BAD_LINES = 100


class BadLine(ValueError):
    """A line that is meant as JSON and is not acceptable; the text is the reason, a stable word."""


class Line(NamedTuple):
    """A complete line without its newline, or one that was too long: then ``data`` is empty and ``size`` tells."""

    offset: int
    data: bytes
    size: int

    @property
    def is_too_long(self) -> bool:
        """Whether the line was over MAX_LINE_BYTES and so not kept in memory."""
        return self.size > len(self.data)


class LineSplitter:
    """Cuts a stream into lines with bounded memory; ``offset`` is the stream position of the first byte."""

    def __init__(self, offset: int = 0) -> None:
        self._position = offset
        self._line_start = offset
        self._pending = bytearray()
        self._is_skipping = False

    def feed(self, data: bytes) -> list[Line]:
        """The lines that ``data`` completes. A final line without newline is never given: it may be torn."""
        lines: list[Line] = []
        begin = 0
        end = data.find(b"\n")
        while end >= 0:
            size = self._position + end - self._line_start
            if self._is_skipping or size > MAX_LINE_BYTES:
                lines.append(Line(self._line_start, b"", size))
            elif self._pending:
                self._pending += data[begin:end]
                lines.append(Line(self._line_start, bytes(self._pending), size))
            else:
                lines.append(Line(self._line_start, data[begin:end], size))
            self._pending.clear()
            self._is_skipping = False
            begin = end + 1
            self._line_start = self._position + begin
            end = data.find(b"\n", begin)
        self._hold(data, begin)
        self._position += len(data)
        return lines

    def feed_mute(self, data: bytes) -> list[Line]:
        """As ``feed`` for a block in which no whole line matters: only the line that it completes is given."""
        first = data.find(b"\n")
        last = data.rfind(b"\n")
        if first < 0 or first == last:
            return self.feed(data)
        lines = self.feed(data[: first + 1])
        self._position += last - first
        self._line_start = self._position
        self._hold(data, last + 1)
        self._position += len(data) - last - 1
        return lines

    def _hold(self, data: bytes, begin: int) -> None:
        if self._is_skipping or begin >= len(data):
            return
        if len(self._pending) + len(data) - begin > MAX_LINE_BYTES:
            self._pending.clear()
            self._is_skipping = True
        else:
            self._pending += data[begin:]


def parse_object(line: bytes) -> dict[str, Any]:
    """A line as one JSON object, strictly.

    Raises BadLine: ``not_utf8``, ``not_json``, ``not_an_object``, ``too_deep``, ``duplicate_key``,
    ``not_finite``, ``integer_too_large`` or ``lone_surrogate``.
    """
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadLine("not_utf8") from error
    if line.count(b"{") + line.count(b"[") > MAX_DEPTH and _depth(line) > MAX_DEPTH:
        raise BadLine("too_deep")
    try:
        value = _DECODER.decode(text)
    except BadLine:
        raise
    except (ValueError, RecursionError) as error:
        raise BadLine("not_json") from error
    if not isinstance(value, dict):
        raise BadLine("not_an_object")
    if b"\\u" in line:
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as error:
            raise BadLine("lone_surrogate") from error
    return value


def _depth(line: bytes) -> int:
    """The greatest nesting of brackets outside strings."""
    depth = greatest = 0
    in_string = is_escaped = False
    for byte in line:
        if in_string:
            if is_escaped:
                is_escaped = False
            elif byte == 0x5C:
                is_escaped = True
            elif byte == 0x22:
                in_string = False
        elif byte == 0x22:
            in_string = True
        elif byte in b"{[":
            depth += 1
            greatest = max(greatest, depth)
            if greatest > MAX_DEPTH:
                break
        elif byte in b"}]":
            depth -= 1
    return greatest


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise BadLine("duplicate_key")
    return result


def _integer(text: str) -> int:
    if len(text) > 20:
        raise BadLine("integer_too_large")
    value = int(text)
    if not INTEGER_BOUNDS[0] <= value <= INTEGER_BOUNDS[1]:
        raise BadLine("integer_too_large")
    return value


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise BadLine("not_finite")
    return value


def _constant(_name: str) -> float:
    raise BadLine("not_finite")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=_integer, parse_float=_float, parse_constant=_constant, strict=True
)
