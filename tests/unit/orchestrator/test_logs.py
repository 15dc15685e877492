"""One event is one line of the log, whatever its fields hold."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import structlog

from orchestrator.config import LogSettings
from orchestrator.logs import configure_logging

_FORGED = '{"event": "agent_started"}'


@pytest.mark.parametrize(
    "text",
    [f"a\r\n{_FORGED}", f"a\u2028{_FORGED}", f"a\u0085{_FORGED}", "\x1b[2J\x1b]0;title\x07", "\0\x08", "\udce9"],
)
def test_control_characters_are_escaped(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A name with a line end forged an entry; an escape sequence took over a reader's terminal (fault 74)."""
    configure_logging(LogSettings(format="json"), tmp_path)
    structlog.get_logger("test").warning("odd_field", path=text, nested={text: [text]})
    logging.getLogger("library").warning("a message with %s", text)
    for handler in logging.getLogger().handlers:
        handler.flush()
    for written in ((tmp_path / "sidecar.log").read_bytes().decode("ascii"), capsys.readouterr().err):
        lines = written.splitlines()
        assert [json.loads(line)["event"] for line in lines] == ["odd_field", f"a message with {text}"]
        assert json.loads(lines[0])["path"] == text
        assert not any(character < " " for line in lines for character in line)
