"""Run one program of the project with a time limit, in a process group of its own, and leave nothing of it behind."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

_TICK_S = 0.2
_TICKS_PER_BEAT = 10
#: How long the last output is awaited once the program itself has ended and its group is killed.
_DRAIN_S = 1.0


class ToolRun(msgspec.Struct, frozen=True):
    """How a program ended.

    Attributes:
        exit_code: the exit status, negative for a signal; None when it could not be started.
        stdout, stderr: the first and last parts of each stream, decoded; the middle is cut when it is too long.
        timed_out: whether the time limit ended it.
        duration_s: wall time.
        error: why it could not be started, else empty.
    """

    exit_code: int | None
    stdout: str
    stderr: str
    timed_out: bool
    duration_s: float
    error: str = ""

    @property
    def ok(self) -> bool:
        """Whether it ended by itself with status 0."""
        return self.exit_code == 0 and not self.timed_out


class _Tail:
    """Keeps the first and last ``limit / 2`` bytes of a stream."""

    def __init__(self, limit: int) -> None:
        self._half = limit // 2
        self._head = bytearray()
        self._tail = bytearray()
        self._cut = False

    def add(self, chunk: bytes) -> None:
        room = self._half - len(self._head)
        self._head += chunk[:room]
        self._tail += chunk[room:] if room > 0 else chunk
        if len(self._tail) > 2 * self._half:
            del self._tail[: -self._half]
            self._cut = True

    def text(self) -> str:
        middle = b"\n... (output cut) ...\n" if self._cut else b""
        return bytes(self._head + middle + self._tail).decode("utf-8", "replace")


def run_tool(
    argv: Sequence[str],
    *,
    cwd: Path,
    timeout_s: float,
    environ: Mapping[str, str],
    limit_bytes: int = 4_000_000,
    beat: Callable[[], None] | None = None,
) -> ToolRun:
    """Run ``argv`` to its end or to ``timeout_s``, then kill all that is left of its process group.

    The group stays in the caller's session, so that whoever ends the caller's session ends the program too.

    Args:
        argv: program and arguments; no shell.
        cwd: where it runs.
        timeout_s: wall time in seconds.
        environ: its whole environment.
        limit_bytes: how much of each stream is kept.
        beat: called about every two seconds while it runs.
    """
    began = time.monotonic()
    try:
        process = subprocess.Popen(
            list(argv),
            cwd=cwd,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,
        )
    except (OSError, ValueError) as error:
        return ToolRun(None, "", "", False, time.monotonic() - began, f"{type(error).__name__}: {error}")
    tails = (_Tail(limit_bytes), _Tail(limit_bytes))
    try:
        timed_out = _follow(process, tails, began + timeout_s, beat)
    finally:
        _end_group(process)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
    return ToolRun(process.returncode, tails[0].text(), tails[1].text(), timed_out, time.monotonic() - began)


def _follow(
    process: subprocess.Popen[bytes], tails: tuple[_Tail, _Tail], end: float, beat: Callable[[], None] | None
) -> bool:
    """Read both pipes until the program has ended (then a bounded drain) or the time is over (returns True)."""
    ticks = 0
    drain_end: float | None = None
    with selectors.DefaultSelector() as selector:
        for pipe, tail in zip((process.stdout, process.stderr), tails, strict=True):
            if pipe is not None:
                os.set_blocking(pipe.fileno(), False)
                selector.register(pipe, selectors.EVENT_READ, tail)
        while True:
            now = time.monotonic()
            if drain_end is None and _has_ended(process):
                _kill_group(process)
                drain_end = now + _DRAIN_S
            if drain_end is not None and (not selector.get_map() or now >= drain_end):
                return False
            if drain_end is None and now >= end:
                return True
            ticks += 1
            if beat is not None and ticks % _TICKS_PER_BEAT == 0:
                beat()
            if not selector.get_map():
                time.sleep(_TICK_S / 10)
            for key, _ in selector.select(min(_TICK_S, max(0.0, end - now)) if selector.get_map() else 0):
                chunk = _read(key.fd)
                if chunk:
                    key.data.add(chunk)
                elif chunk == b"":
                    selector.unregister(key.fileobj)


def _read(descriptor: int) -> bytes | None:
    try:
        return os.read(descriptor, 1 << 16)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether the leader has exited, without reaping it: its pid, the group's id, must stay taken until the kill."""
    if process.returncode is not None:
        return True
    if not hasattr(os, "waitid"):
        return process.poll() is not None
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return process.poll() is not None


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None:
        _kill_group(process)
    process.wait()
