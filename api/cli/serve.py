"""``serve`` and ``stop``: the sidecar's life."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import click

from api.cli.failures import FAILED, UNREACHABLE, USAGE, Failure
from api.cli.options import Command
from api.cli.session import Session

#: Seconds that ``stop`` waits beyond the bound that the contract gives a graceful end (20 s).
STOP_WAIT_S = 25.0


@click.command(cls=Command)
@click.option("--host", metavar="HOST", help="Address to listen on (default 127.0.0.1).")
@click.option("--port", type=click.IntRange(0, 65535), metavar="PORT", help="Port (default 3001; 0 takes a free one).")
@click.option("--project", "projects", multiple=True, metavar="[ID=]DIR", help="A project; may be repeated.")
@click.option("--certificate", metavar="FILE", help="TLS certificate (PEM), with --private-key.")
@click.option("--private-key", metavar="FILE", help="TLS private key (PEM).")
@click.option("--check", is_flag=True, help="Check the configuration and exit.")
@click.option("--exit-with-stdin", is_flag=True, hidden=True, help="End when standard input is closed.")
@click.pass_obj
def serve(session: Session, /, projects: tuple[str, ...], check: bool, exit_with_stdin: bool, **flags: Any) -> int:
    """Run the sidecar in the foreground until SIGTERM or Ctrl-C.

    Prints one line, `listening on http://HOST:PORT`, when it is ready. Without --project the current directory
    is the project when it is a git checkout or has an orchestrator.toml.

    \b
    Examples:
      orchestrator serve
      orchestrator serve --project ~/src/shop --project api=~/src/shop-api
      orchestrator serve --port 0 --storage /tmp/sidecar
      orchestrator serve --check
    """
    given = [parse_project(text) for text in projects] or _project_here(session.directory)
    settings_flags = {f"server.{name}": value for name, value in flags.items()}
    loaded = session.load(project_dir=_first_directory(given, session.directory), flags=settings_flags)
    given += [(name, path) for name, path in loaded.settings.projects.items() if name not in {i for i, _ in given}]
    if check:
        return _check(session, loaded.settings, given)
    if exit_with_stdin:
        threading.Thread(target=_end_with_stdin, name="stdin-watch", daemon=True).start()
    from api.server import serve as run_server

    return run_server(loaded.settings, projects=given)


def parse_project(text: str) -> tuple[str | None, str]:
    """``[ID=]DIR`` as (id or None, absolute path). Raises Failure for a bad id or what is no directory."""
    from orchestrator.identifiers import is_identifier

    name, separator, path = text.partition("=")
    # A directory whose own name holds a "=" is taken as it is.
    if not separator or Path(text).expanduser().is_dir():
        name, path = "", text
    if separator and name and not is_identifier(name):
        raise Failure(f"--project {text}: {name!r} is not an id (letters, digits, '.', '_', '-')", USAGE)
    directory = Path(path).expanduser().absolute()
    if not directory.is_dir():
        raise Failure(f"--project {text}: {directory} is not a directory; name an existing one", USAGE)
    return name or None, str(directory)


def _project_here(directory: Path) -> list[tuple[str | None, str]]:
    from orchestrator.projects import is_project

    return [(None, str(directory))] if is_project(directory) else []


def _first_directory(projects: list[tuple[str | None, str]], fallback: Path) -> Path:
    return Path(projects[0][1]) if projects else fallback


def _check(session: Session, settings: Any, projects: list[tuple[str | None, str]]) -> int:
    from api.readiness import problems_of

    problems: list[str] = []
    for name, path in projects:
        if not Path(path).expanduser().is_dir():
            problems.append(f"projects.{name}: {path} is not a directory")
    problems += [f"{problem.setting}: {problem.text}" for problem in problems_of(settings)]
    for problem in problems:
        click.echo(f"Error: {problem}", err=True)
    if not problems:
        session.out.text("configuration is good")
    return USAGE if problems else 0


def _end_with_stdin() -> None:
    # The read end outlives no writer: when the parent is gone, however it went, this returns.
    while os.read(0, 1 << 16):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


@click.command(cls=Command)
@click.option(
    "--timeout",
    type=click.FloatRange(0),
    default=STOP_WAIT_S,
    show_default=True,
    metavar="SECONDS",
    help="Longest wait for its end.",
)
@click.pass_obj
def stop(session: Session, timeout: float) -> int:
    """Stop the sidecar of this storage gracefully and wait until it has ended.

    Its agents are ended first. Exits with 3 when none runs.

    \b
    Examples:
      orchestrator stop
      orchestrator stop --storage /tmp/sidecar --timeout 60
    """
    from api.cli.discovery import is_alive

    running = session.running
    if running is None:
        raise Failure(
            f"no sidecar runs on the storage {session.storage}: nothing to stop (--storage names another one)",
            UNREACHABLE,
        )
    _check_identity(session, running.pid)
    os.kill(running.pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout
    while is_alive(running.pid):
        if time.monotonic() >= deadline:
            raise Failure(f"the sidecar (process {running.pid}) has not ended within {timeout:g} s", FAILED)
        time.sleep(0.05)
    session.out.note(f"stopped (process {running.pid})")
    return 0


def _check_identity(session: Session, pid: int) -> None:
    """Refuse to signal a stranger that was given the process id of a killed sidecar."""
    import psutil

    try:
        command = " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return  # ended meanwhile, or another user's: the signal itself will tell
    if not any(word in command for word in ("orchestrator", "api.cli")):
        raise Failure(
            f"process {pid}, named by {session.storage / 'sidecar.json'}, is not a sidecar ({command[:80]}); "
            "remove that file if no sidecar runs",
            FAILED,
        )
