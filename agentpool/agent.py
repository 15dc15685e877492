"""The agent's side of the pipes: standard library only, for ``python`` agents and anything else in Python."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:  # ``typing`` costs each forked agent a tenth of its start
    from typing import IO, Any

_ENCODER = json.JSONEncoder(allow_nan=False)
#: What ``JSONEncoder`` makes anew for each text: made once, it saves a forked agent 18 copied pages.
_MAKE = getattr(json.encoder, "c_make_encoder", None)
_ENCODE = _MAKE and _MAKE(
    None, _ENCODER.default, json.encoder.encode_basestring_ascii, None, ": ", ", ", False, False, False
)


class Agent:
    """One running agent: what it was given, and how it tells what it does.

    Made from the environment that the sidecar prepares. Everything said goes to stdout as one JSON line.

    Attributes:
        id, type, issue_id, project_id: who and where.
        task: the task text.
        url, token: the sidecar's API and this agent's bearer token.
    """

    def __init__(
        self,
        environ: Mapping[str, str] | None = None,
        *,
        out: IO[str] | None = None,
        source: IO[str] | None = None,
    ) -> None:
        env = os.environ if environ is None else environ
        self.id = env.get("AGENT_ID", "")
        self.type = env.get("AGENT_TYPE", "")
        self.issue_id = env.get("ISSUE_ID", "")
        self.project_id = env.get("PROJECT_ID", "")
        self.task = env.get("AGENT_TASK", "")
        self._workspace = env.get("AGENT_WORKSPACE") or "."
        self._context_file = env.get("AGENT_CONTEXT_FILE") or "context.json"
        self.url = env.get("SIDECAR_URL", "")
        self.certificate_file = env.get("SIDECAR_CERTIFICATE", "")
        self.token = env.get("JWT_TOKEN", "")
        self._out = out
        self._in = source

    @property
    def workspace(self) -> Path:
        """The directory to work in."""
        return Path(self._workspace)

    @property
    def context_file(self) -> Path:
        """``context.json``, the answer of the context endpoint."""
        return Path(self._context_file)

    def context(self) -> dict[str, Any]:
        """The context document; an empty one when the file is missing or torn."""
        try:
            document = json.loads(self.context_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return document if isinstance(document, dict) else {}

    def progress(self, message: str, percent: float | None = None) -> None:
        """Tell how far the work is; ``percent`` 0–100."""
        record: dict[str, Any] = {"type": "progress", "message": message}
        if percent is not None:
            record["percent"] = percent
        self._say(record)

    def log(self, message: str, level: str = "info") -> None:
        """Say something for the record."""
        self._say({"type": "log", "level": level, "message": message})

    def heartbeat(self) -> None:
        """Show that the agent lives though it has nothing to say."""
        self._say({"type": "heartbeat"})

    def publish(self, event_type: str, topic: str, data: Mapping[str, Any], **fields: Any) -> None:
        """Publish an event (the optional ``fields`` are those of the events endpoint)."""
        self._say({"type": "event", "event_type": event_type, "topic": topic, "data": dict(data), **fields})

    def result(self, result: Mapping[str, Any], *, outcome: str | None = None) -> None:
        """Give the result; the last one given counts.

        ``outcome`` is ``quota`` where the model's service gave no more, ``no_output`` where there was nothing to give.
        """
        record: dict[str, Any] = {"type": "result", "result": dict(result)}
        if outcome is not None:
            record["outcome"] = outcome
        self._say(record)

    def messages(self) -> Iterator[dict[str, Any]]:
        """What the sidecar sends on stdin: events, messages, ``shutdown``; ends when stdin is closed."""
        for line in self._in or sys.stdin:
            try:
                message = json.loads(line)
            except ValueError:
                continue
            if isinstance(message, dict):
                yield message

    def _say(self, record: dict[str, Any]) -> None:
        out = self._out or sys.stdout
        out.write(_encode(record) + "\n")
        out.flush()


def _encode(record: dict[str, Any]) -> str:
    """As ``JSONEncoder.encode``; raises ValueError (NaN, a circle), TypeError or RecursionError (too deep)."""
    if _ENCODE:
        try:
            return "".join(_ENCODE(record, 0))
        except RecursionError:
            pass  # a circle, perhaps, which this one does not look for: the other one says so
    return _ENCODER.encode(record)
