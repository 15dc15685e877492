"""One event is one line of the log, whatever its fields hold."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from orchestrator.audit import AuditLog
from orchestrator.config import LogSettings
from orchestrator.logfile import LogFile, Terminal
from orchestrator.logs import configure_logging
from tests.support.disks import NoSmallDisk, fill, small_disk

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


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    try:
        with small_disk(tmp_path / "disk", 1 << 20) as path:
            yield path
    except NoSmallDisk as reason:
        pytest.skip(str(reason))


def lines_of(path: Path) -> list[dict[str, Any]]:
    """All lines of a log, each of which has to be JSON."""
    return [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]


def test_a_full_disk_is_told_once_and_the_gap_is_counted(disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each line that found no room put a traceback of 40 lines on stderr, and half a line into the file."""
    configure_logging(LogSettings(format="json"), disk / "logs")
    log = structlog.get_logger("test")
    log.info("before")
    filler = fill(disk)
    for number in range(300):
        log.info("meanwhile", number=number, padding="x" * 100)
    filler.unlink()
    log.info("after")
    for handler in logging.getLogger().handlers:
        handler.flush()
    kept = lines_of(disk / "logs" / "sidecar.log")
    (gap,) = [line for line in kept if line["event"] == "log_lines_dropped"]
    written = [line for line in kept if line["event"] == "meanwhile"]
    assert [line["event"] for line in (kept[0], *kept[-2:])] == ["before", "log_lines_dropped", "after"]
    assert gap["reason"] == os.strerror(28)
    # The last block of the file still had room for some; the line that tells of the full disk found none either.
    assert gap["lines"] == 300 - len(written) + 1
    assert gap["lines"] > 200
    said = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in said if line["event"] == "log_file_takes_nothing"] == ["log_file_takes_nothing"]
    assert len(said) == 303


def test_a_log_that_cannot_even_be_begun_keeps_nobody_from_starting(disk: Path) -> None:
    """A start on a full disk ended with the traceback of the log's own handler."""
    filler = fill(disk)
    file = LogFile(disk / "logs" / "sidecar.log", max_bytes=1 << 20)
    record = logging.makeLogRecord({"msg": "x" * 5000, "levelno": logging.INFO})
    file.handle(record)
    assert file.dropped >= 1
    filler.unlink()
    file.handle(record)
    file.close()
    lines = (disk / "logs" / "sidecar.log").read_text().splitlines()
    assert json.loads(lines[0])["lines"] == file.dropped
    assert lines[1] == "x" * 5000


def test_a_log_of_bounded_size_keeps_one_old_file(tmp_path: Path) -> None:
    """A log that grew without end, or lost lines where one file followed the other."""
    path = tmp_path / "sidecar.log"
    file = LogFile(path, max_bytes=1000)
    for number in range(30):
        file.handle(logging.makeLogRecord({"msg": f"{number:099d}"}))
    file.close()
    kept = path.with_name("sidecar.log.1").read_text() + path.read_text()
    assert [int(line) for line in kept.splitlines()] == list(range(10, 30))
    assert path.stat().st_mode & 0o777 == 0o600
    assert file.dropped == 0


def test_a_log_that_is_a_link_is_kept_where_it_leads(tmp_path: Path) -> None:
    """A log that somebody had linked elsewhere took nothing; renaming the link would have lost the way there."""
    (tmp_path / "elsewhere").mkdir(mode=0o755)
    path, target = tmp_path / "sidecar.log", tmp_path / "elsewhere" / "kept.log"
    path.symlink_to(target)
    file = LogFile(path, max_bytes=1000)
    for number in range(30):
        file.handle(logging.makeLogRecord({"msg": f"{number:099d}"}))
    file.close()
    kept = target.with_name("kept.log.1").read_text() + path.read_text()
    assert [int(line) for line in kept.splitlines()] == list(range(10, 30))
    assert path.is_symlink()
    assert target.stat().st_mode & 0o777 == 0o600
    assert target.parent.stat().st_mode & 0o777 == 0o755
    assert file.dropped == 0


def test_a_fifo_in_place_of_a_log_holds_up_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Opening a FIFO waits for a reader: the start of the sidecar hung, or its first line in the audit log."""
    for name in ("sidecar.log", "audit.log"):
        os.mkfifo(tmp_path / name)
    configure_logging(LogSettings(format="json"), tmp_path)
    log = structlog.get_logger("test")
    log.info("nobody_reads")
    audit = AuditLog(tmp_path / "audit.log")
    audit.record("token_made", subject="test")
    said = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    (told,) = [line for line in said if line["event"] == "log_file_takes_nothing"]
    assert told["reason"] == "it is a FIFO or socket; put a file there"
    assert told["path"] == str(tmp_path / "sidecar.log")
    assert [line["reason"] for line in said if line["event"] == "audit_line_lost"] == [told["reason"]]
    reader = os.open(tmp_path / "sidecar.log", os.O_RDONLY | os.O_NONBLOCK)
    try:
        log.info(
            "somebody_reads", padding="x" * (1 << 20)
        )  # more than a pipe holds: a part of it spoiled the next line
        assert os.read(reader, 1 << 16) == b""
    finally:
        for handler in logging.getLogger().handlers:
            handler.close()
        os.close(reader)


def test_a_log_that_leads_to_a_device_never_renames_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A line longer than the bound renamed /dev/null."""
    renamed: list[object] = []
    monkeypatch.setattr(os, "replace", lambda *names: renamed.append(names))
    path = tmp_path / "sidecar.log"
    path.symlink_to("/dev/null")
    file = LogFile(path, max_bytes=10)
    file.handle(logging.makeLogRecord({"msg": "x" * 100}))
    file.close()
    assert renamed == []
    assert file.dropped == 0


def test_a_stream_that_takes_nothing_gets_no_tracebacks(capsys: pytest.CaptureFixture[str]) -> None:
    """A stderr on a full disk made each line raise in its own handler, which wrote a traceback there as well."""
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full here")
    descriptor = os.open(full, os.O_WRONLY)
    stream = os.fdopen(descriptor, "w", buffering=1)
    terminal = Terminal(stream)
    for number in range(3):
        terminal.handle(logging.makeLogRecord({"msg": f"line {number}"}))
    with pytest.raises(OSError, match="No space left"):
        stream.close()
    assert capsys.readouterr().err == ""
