"""Structured logging: set up once per process; JSON lines unless on a terminal."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import structlog

from orchestrator.config import LogSettings
from orchestrator.logfile import LogFile, Terminal

#: Keys that never reach a log, whoever passes them.
FORBIDDEN_KEYS = frozenset({"token", "jwt_token", "authorization", "prompt", "task", "environment", "env", "password"})


def configure_logging(settings: LogSettings, directory: Path | None = None) -> None:
    """Send structlog and the standard library's logging to stderr, and to ``directory/sidecar.log`` as JSON.

    The file rotates at ``file_bytes`` (one old file is kept); it is made with mode 0600. What neither takes, on a full
    disk for instance, is dropped without a word but the file's own (see ``LogFile``).
    """
    handlers: list[logging.Handler] = []
    is_console = settings.format == "console" or (settings.format == "auto" and sys.stderr.isatty())
    stream = Terminal(sys.stderr)
    stream.setFormatter(_formatter(structlog.dev.ConsoleRenderer() if is_console else _json()))
    handlers.append(stream)
    if directory is not None:
        file = LogFile(directory / "sidecar.log", max_bytes=settings.file_bytes)
        file.setFormatter(_formatter(_json()))
        handlers.append(file)
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(settings.level.upper())
    logging.getLogger("hypercorn.access").setLevel(logging.WARNING)
    structlog.configure(
        processors=[*_shared(), structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _json() -> structlog.typing.Processor:
    # ensure_ascii escapes control characters and U+2028, so one event is one line whatever it holds.
    return structlog.processors.JSONRenderer(ensure_ascii=True)


def _formatter(renderer: structlog.typing.Processor) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_shared(),
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            renderer,
        ],
    )


def _shared() -> list[structlog.typing.Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        drop_forbidden,
    ]


def drop_forbidden(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace the values of keys that must not be logged."""
    for key in FORBIDDEN_KEYS & event.keys():
        event[key] = "[not logged]"
    return event
