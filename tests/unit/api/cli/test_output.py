"""What commands print, for people and for programs."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from api.cli.app import run
from api.cli.discovery import find_running, is_alive
from api.cli.failures import Failure, explain
from api.cli.output import Column, Output
from api.cli.serve import parse_project
from api.cli.service import launchd_plist, systemd_unit

ROWS = [{"id": "a", "note": "=1+1", "deep": {"n": -3}}, {"id": "b", "note": "x\x1b[31m,\n", "deep": {}}]
COLUMNS = (Column("Id", "id"), Column("A note", "note"), Column("N", "deep.n"))


def printed(format: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The rows in a format."""
    Output(format).rows(ROWS, COLUMNS)
    return capsys.readouterr().out


def test_programs_get_everything(capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents JSON and YAML that hold only what the table shows."""
    assert json.loads(printed("json", capsys)) == ROWS
    assert yaml.safe_load(printed("yaml", capsys)) == ROWS


def test_csv_is_no_formula(capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents a spreadsheet from running what an agent wrote; numbers stay numbers."""
    rows = list(csv.reader(io.StringIO(printed("csv", capsys))))
    assert rows[0] == ["id", "a_note", "n"]
    assert rows[1] == ["a", "'=1+1", "-3"]


def test_table_is_safe_and_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents escape sequences on the terminal, cut cells and blanks at the ends of lines in a pipe."""
    Output("table").rows([{"id": "x" * 300, "note": "\x1b[2J"}], COLUMNS)
    out = capsys.readouterr().out
    assert "x" * 300 in out
    assert "\x1b" not in out
    assert all(line == line.rstrip() for line in out.splitlines())


def test_empty_lists_stay_quiet_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents 'no agents' from being read as an agent."""
    Output("table").rows([], COLUMNS, nothing="no agents")
    assert capsys.readouterr() == ("", "no agents\n")
    Output("json").rows([], COLUMNS, nothing="no agents")
    assert capsys.readouterr() == ("[]\n", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion(shell: str) -> None:
    """Prevents a completion script that knows no command."""
    line = {"COMP_WORDS": "orchestrator agent sp", "COMP_CWORD": "2" if shell != "fish" else "sp"}
    env = {**os.environ, **line, "_ORCHESTRATOR_COMPLETE": f"{shell}_complete"}
    program = "from api.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert "spawn" in done.stdout, done.stderr


def test_nearest_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents a typing error from ending in a bare refusal."""
    assert run(["staus"]) == 2
    assert "Did you mean 'status'?" in capsys.readouterr().err


def test_unexpected_error_leaves_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents a traceback on the terminal, and its loss for whoever mends it."""
    assert explain(RuntimeError("secret of the inside")) == 1
    said = capsys.readouterr().err
    assert "secret of the inside" not in said
    path = Path(said.rstrip().rsplit(" ", 1)[1])
    assert "secret of the inside" in path.read_text(encoding="utf-8")
    assert path.stat().st_mode & 0o077 == 0
    path.unlink()


@pytest.mark.parametrize("text", ["{", "[]", '{"pid": "x", "url": "u"}', '{"pid": 1}', '{"pid": 4194305, "url": "u"}'])
def test_stale_or_torn_discovery_is_ignored(tmp_path: Path, text: str) -> None:
    """Prevents a killed sidecar's file from sending every command to a dead address."""
    (tmp_path / "sidecar.json").write_text(text, encoding="utf-8")
    assert find_running(tmp_path) is None


def test_ended_child_is_not_alive() -> None:
    """Prevents waiting for ever for a process that has ended but was not collected yet."""
    with subprocess.Popen(["true"]) as process:
        while is_alive(process.pid):
            pass
        assert process.poll() == 0
    assert is_alive(os.getpid())
    assert not is_alive(0)


def test_projects_of_serve(tmp_path: Path) -> None:
    """Prevents a directory with '=' in its name from being read as an id."""
    odd = tmp_path / "a=b"
    odd.mkdir()
    assert parse_project(str(odd)) == (None, str(odd))
    assert parse_project(f"shop={tmp_path}") == ("shop", str(tmp_path))
    for bad in ("../x=" + str(tmp_path), str(tmp_path / "nowhere"), f"shop={tmp_path}/nowhere"):
        with pytest.raises(Failure):
            parse_project(bad)


def test_unit_files_quote_what_is_odd(tmp_path: Path) -> None:
    """Prevents a directory with a blank or a percent sign from breaking the service."""
    argv = ["/opt/o/bin/orchestrator", "serve", "--storage", "/srv/my 100% $data"]
    unit = systemd_unit(argv)
    assert 'ExecStart=/opt/o/bin/orchestrator serve --storage "/srv/my 100%% $$data"\n' in unit
    assert "<string>/srv/my 100% $data</string>" in launchd_plist(argv, tmp_path)


def test_service_file_is_written_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prevents an uninstall that fails where no service manager answers, and leaves the file."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "/nonexistent")
    assert run(["service", "install", "--no-start", "--storage", str(tmp_path / "s")]) == 0
    written = [path for path in tmp_path.rglob("*orchestration-sidecar*") if path.is_file()]
    assert len(written) == 1
    assert str(tmp_path / "s") in written[0].read_text(encoding="utf-8")
    assert run(["service", "uninstall"]) == 0
    assert not written[0].exists()
    assert "Warning" in capsys.readouterr().err
    assert run(["service", "uninstall"]) == 1
