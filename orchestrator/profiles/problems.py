"""What is wrong with a profile file, told so that it can be mended."""

from __future__ import annotations

from typing import Literal

import msgspec

Severity = Literal["error", "warning", "note"]


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing found.

    Attributes:
        severity: ``error``: the file (or what is wrong in it) is not in force; ``warning``: it is, but will
            disappoint; ``note``: something was ignored on purpose.
        source: the file.
        line: 1-based line, or None where no line is to blame.
        reason: what is wrong and what would be right.
        agent_type: the role, where it is known.
    """

    severity: Severity
    source: str
    reason: str
    line: int | None = None
    agent_type: str = ""

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}" if self.line else self.source
        return f"{place}: {self.severity}: {self.reason}"


class ProfileInvalid(Exception):
    """A file that cannot be used. ``line`` is 1-based, None where no line is to blame."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line
