"""What an analyst may be told through its profile's or spawn request's ``environment``."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

import msgspec

PREFIX = "ANALYST_"


class AnalystSettings(msgspec.Struct, frozen=True):
    """Limits of one analyst.

    Attributes:
        time_s: wall time for reading and checking (``ANALYST_TIME_S``, 1–600).
        tool_time_s: wall time for the project's linter (``ANALYST_TOOL_TIME_S``, 1–600).
        test_time_s: wall time for the project's tests (``ANALYST_TEST_TIME_S``, 1–7200).
        test_command: run this instead of what is detected (``ANALYST_TEST_COMMAND``, shell-quoted words, no shell).
        run_tools: whether programs of the project (linters, tests) may be started (``ANALYST_RUN_TOOLS``: on, off).
        max_findings: how many findings a result keeps (``ANALYST_MAX_FINDINGS``, 1–500).
    """

    time_s: float = 15.0
    tool_time_s: float = 8.0
    test_time_s: float = 120.0
    test_command: tuple[str, ...] = ()
    run_tools: bool = True
    max_findings: int = 60

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> AnalystSettings:
        """Settings from ``ANALYST_*``; a value that is no number or out of range leaves the default in force."""
        return cls(
            time_s=_number(environ, "TIME_S", cls().time_s, 1, 600),
            tool_time_s=_number(environ, "TOOL_TIME_S", cls().tool_time_s, 1, 600),
            test_time_s=_number(environ, "TEST_TIME_S", cls().test_time_s, 1, 7200),
            test_command=_words(environ.get(PREFIX + "TEST_COMMAND", "")),
            run_tools=environ.get(PREFIX + "RUN_TOOLS", "on").lower() not in {"off", "0", "no", "false"},
            max_findings=int(_number(environ, "MAX_FINDINGS", cls().max_findings, 1, 500)),
        )


def _number(environ: Mapping[str, str], name: str, default: float, low: float, high: float) -> float:
    try:
        value = float(environ.get(PREFIX + name, ""))
    except ValueError:
        return default
    return value if low <= value <= high else default


def _words(command: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(command))
    except ValueError:
        return ()
