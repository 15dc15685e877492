"""Plain commands: all of stdout is the outcome, the exit status decides."""

from __future__ import annotations

from agentpool.runtimes.base import Invocation
from agentpool.specs import LaunchSpec


class TextRuntime:
    """Any command; it reads nothing, and nothing of its output is parsed."""

    name = "text"
    has_stdin = False
    is_warm = False

    def invocation(self, spec: LaunchSpec) -> Invocation:
        """The spec's command as it is."""
        return Invocation(argv=spec.argv, env=spec.env)

    def parser(self) -> None:
        """Nothing is parsed."""
        return

    def encode_input(self, line: bytes) -> bytes:
        """Not used: there is no stdin."""
        return line
