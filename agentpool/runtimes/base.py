"""What a runtime is: how a command is started, fed, and how its stdout is read. All of it pure."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import msgspec

from agentpool.lines import Line
from agentpool.specs import LaunchSpec


class Record(NamedTuple):
    """What one line says: ``kind`` and ``payload`` as in ``messages.AgentRecord``."""

    kind: str
    payload: bytes


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the pipe itself said about the outcome: an ``Outcome`` value and what shows it."""

    outcome: str
    evidence: dict[str, object]


class Invocation(msgspec.Struct, frozen=True, kw_only=True):
    """The command to start: the spec's, with what the runtime adds."""

    argv: tuple[str, ...]
    env: dict[str, str]


class LineParser(Protocol):
    """Reads one attempt's stdout, line after line."""

    def feed(self, line: Line) -> list[Record]:
        """The records of a line; none when it is mere output. Never raises."""

    def is_mute(self, block: bytes) -> bool:
        """Whether no line that lies wholly in this block can give a record; may err to False. Must be fast."""

    def verdict(self) -> Verdict | None:
        """What the stream said about the outcome; None when it said nothing."""


class Runtime(Protocol):
    """One way to run an agent."""

    @property
    def name(self) -> str:
        """The name that profiles use."""

    @property
    def has_stdin(self) -> bool:
        """Whether the agent reads messages on stdin; if not, stdin is the null device."""

    @property
    def is_warm(self) -> bool:
        """Whether agents are forked from a warm Python process instead of executed."""

    def invocation(self, spec: LaunchSpec) -> Invocation:
        """The command for a spec."""

    def parser(self) -> LineParser | None:
        """A fresh parser; None when stdout needs no reading."""

    def encode_input(self, line: bytes) -> bytes:
        """A line of the native protocol (contract, section 5) in the form that this agent reads."""
