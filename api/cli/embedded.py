"""A sidecar of a command's own: a child process on the same storage that ends with the command."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

from api.cli.failures import FAILED, Failure

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

#: Seconds until it must listen; a first start makes a 3072-bit key and the database.
START_S = 30.0
#: Seconds for a graceful end (the contract bounds it at 20).
STOP_S = 22.0
_READY = "listening on "


class EmbeddedSidecar:
    """``orchestrator serve --port 0`` as a child; use it as a context manager.

    It runs in a session of its own, so that Ctrl-C reaches only the command, which then ends it in order; and it
    ends by itself when the command is killed, because its standard input closes.

    Attributes:
        url: where it listens, once entered.
        log_path: where its log goes.
    """

    def __init__(self, storage: Path, projects: list[str], directory: Path) -> None:
        self._storage = storage
        self._projects = projects
        self._directory = directory
        self._child: subprocess.Popen[bytes] | None = None
        self.url = ""
        self.log_path = storage / "logs" / "embedded.log"

    def __enter__(self) -> Self:
        self.log_path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        arguments = [sys.executable, "-P", "-m", "api.cli", "serve", "--exit-with-stdin"]
        arguments += ["--host", "127.0.0.1", "--port", "0", "--storage", str(self._storage)]
        for project in self._projects:
            arguments += ["--project", project]
        descriptor = self._open_log()
        with open(descriptor, "ab") as log:
            begin = log.tell()
            self._child = subprocess.Popen(
                arguments,
                cwd=self._directory,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        try:
            self.url = self._wait_until_ready(begin)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End it gracefully, and for certain."""
        child, self._child = self._child, None
        if child is None:
            return
        child.terminate()
        try:
            child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        finally:
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()

    def _open_log(self) -> int:
        from orchestrator.privacy import open_log

        try:
            return open_log(self.log_path.resolve())
        except OSError as error:
            raise Failure(f"{self.log_path} cannot be written: {error.strerror}", FAILED) from error

    def _wait_until_ready(self, log_begin: int) -> str:
        assert self._child is not None
        assert self._child.stdout is not None
        deadline = time.monotonic() + START_S
        text = ""
        while (line := _read_line(self._child.stdout, deadline)) is not None:
            text += line
            if line.startswith(_READY):
                return line.removeprefix(_READY).strip()
        if self._child.poll() is None and time.monotonic() < deadline:
            self._child.wait(1.0)
        raise Failure(f"the embedded sidecar did not start: {self._reason(log_begin)}", FAILED)

    def _reason(self, log_begin: int) -> str:
        """What it said last, for a person."""
        with self.log_path.open("rb") as log:
            log.seek(log_begin)
            said = [line for line in log.read(1 << 16).decode("utf-8", "replace").splitlines() if line.strip()]
        errors = [line for line in said if line.startswith("Error: ")]
        chosen = errors[-1].removeprefix("Error: ") if errors else (said[-1] if said else "it said nothing")
        return f"{chosen} (its log: {self.log_path})"


def _read_line(pipe: IO[bytes], deadline: float) -> str | None:
    """One line, or None at the end of the stream or at ``deadline`` (monotonic seconds)."""
    line = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while not line.endswith(b"\n"):
            if not selector.select(max(0.0, deadline - time.monotonic())):
                return None
            byte = os.read(pipe.fileno(), 1)
            if not byte:
                return None
            line += byte
    return line.decode("utf-8", "replace")
