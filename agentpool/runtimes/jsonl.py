"""The native runtime: JSON lines both ways (contract, section 5)."""

from __future__ import annotations

from typing import Any

import msgspec

from agentpool.lines import MAX_BAD_LINES, MAX_DEPTH, BadLine, Line, parse_object
from agentpool.runtimes.base import Invocation, Record, Verdict
from agentpool.specs import LaunchSpec

RECORD_KINDS = frozenset({"result", "event", "progress", "log", "heartbeat", "ack"})

#: No list of a real program begins so; decoders recurse into it until their stack ends.
DEEP = b"[" * (MAX_DEPTH + 1)

#: The result's own status as an outcome.
OUTCOME_OF_STATUS = {"success": "succeeded", "failed": "failed", "partial": "partial"}
#: What a ``result`` line may say beside the result: why there is none worth the name.
TOLD_OUTCOMES = frozenset({"quota", "no_output"})


def bad_line(reason: str, size_bytes: int) -> Record:
    """The record of a line that is kept as output and could not be taken."""
    return Record("bad_line", msgspec.json.encode({"reason": reason, "size_bytes": size_bytes}))


class JsonLinesParser:
    """Takes the lines that are objects of a known ``type``; anything else is output."""

    def __init__(self) -> None:
        self._bad_lines = 0
        self._last_status: object = None
        self._told: str | None = None
        self._results = 0

    def feed(self, line: Line) -> list[Record]:
        """See LineParser. A line that claims to be a record and is not acceptable gives ``bad_line``."""
        if line.is_too_long:
            return self._bad("too_long", line)
        data = line.data
        if not data.isascii():
            try:
                data.decode("utf-8")
            except UnicodeDecodeError:
                return self._bad("not_utf8", line)
        first = data[:1]
        if first in (b" ", b"\t"):
            first = data.lstrip()[:1]
        if first == b"{" and b'"type"' in data:
            return self._take(line)
        if first == b"[" and data.lstrip().startswith(DEEP):
            return self._bad("too_deep", line)
        return []

    def is_mute(self, block: bytes) -> bool:
        """True for plain text: most floods are, and need not be looked at line by line."""
        # One byte is sought at ten times the pace of a word.
        has_record = b"{" in block and b'"type"' in block
        has_deep = b"[" in block and DEEP in block
        return not (has_record or has_deep) and block.isascii()

    def verdict(self) -> Verdict | None:
        """The status of the last result given, or the outcome that its line told beside it."""
        if not self._results:
            return None
        outcome = self._told or OUTCOME_OF_STATUS.get(str(self._last_status), "failed")
        return Verdict(outcome=outcome, evidence={"result_status": self._last_status, "results": self._results})

    def _take(self, line: Line) -> list[Record]:
        try:
            value = parse_object(line.data)
        except BadLine as error:
            return self._bad(str(error), line)
        kind = value.get("type")
        if not isinstance(kind, str) or kind not in RECORD_KINDS:
            return []
        problem = _problem(kind, value)
        if problem:
            return self._bad(problem, line)
        if kind == "result":
            self._results += 1
            self._last_status = value["result"].get("status", "success")
            told = value.get("outcome")
            self._told = told if isinstance(told, str) and told in TOLD_OUTCOMES else None
        return [Record(kind, line.data)]

    def _bad(self, reason: str, line: Line) -> list[Record]:
        self._bad_lines += 1
        return [bad_line(reason, line.size)] if self._bad_lines <= MAX_BAD_LINES else []


def _problem(kind: str, value: dict[str, Any]) -> str:
    if kind == "result" and not isinstance(value.get("result"), dict):
        return "result_not_an_object"
    if kind == "event" and not (isinstance(value.get("event_type"), str) and isinstance(value.get("topic"), str)):
        return "event_without_type_or_topic"
    if kind == "ack" and not isinstance(value.get("message_id"), str):
        return "ack_without_message_id"
    return ""


class JsonLinesRuntime:
    """Any command that speaks JSON lines."""

    name = "jsonl"
    has_stdin = True
    is_warm = False

    def invocation(self, spec: LaunchSpec) -> Invocation:
        """The spec's command as it is."""
        return Invocation(argv=spec.argv, env=spec.env)

    def parser(self) -> JsonLinesParser:
        """A parser of records."""
        return JsonLinesParser()

    def encode_input(self, line: bytes) -> bytes:
        """The line as it is."""
        return line
