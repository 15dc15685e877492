"""The fork server: a process split off while the builder had a single thread, which forks the assistants.

A process with several threads cannot be forked safely, and starting Python anew takes longer than an assistant works.
"""

from __future__ import annotations

import os
import signal
import socket

from orchestrator.context import kinds, outline, secrets
from orchestrator.context.assistant import serve


class ForkServer:
    """Forks one assistant for each call of ``assistant``.

    To be made while the process has one thread. ``closing``: descriptors that the children must not keep open.
    """

    def __init__(self, closing: tuple[int, ...] = ()) -> None:
        _warm()
        self._channel, theirs = socket.socketpair()
        self._process_id = os.fork()
        if self._process_id == 0:
            self._channel.close()
            for descriptor in closing:
                os.close(descriptor)
            _serve(theirs)
        theirs.close()

    def assistant(self) -> socket.socket:
        """The connection to a new assistant, which ends when it is closed. Raises OSError."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._channel, [b"+"], [theirs.fileno()])
            except OSError:
                ours.close()
                raise
        return ours

    def close(self) -> None:
        """End the fork server and wait for its end; assistants end with their connections. Idempotent."""
        if self._process_id:
            self._channel.close()
            os.waitpid(self._process_id, 0)
            self._process_id = 0


def _warm() -> None:
    """Read the tables that every assistant needs, so that they are read once and shared."""
    kinds.kind_of("a.py")
    secrets.is_secret_file("a.py")
    outline.defined_names(b"", "python")


def _serve(channel: socket.socket) -> None:
    """Fork on demand until the builder closes the channel; never returns."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how an assistant ended
    while True:
        try:
            message, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
        except OSError:
            os._exit(0)
        if not message:
            os._exit(0)
        if descriptors:
            _fork(channel, descriptors[0])


def _fork(channel: socket.socket, descriptor: int) -> None:
    try:
        is_child = os.fork() == 0
    except OSError:  # no more processes: the builder sees the connection end and does the work itself
        is_child = False
    if not is_child:
        os.close(descriptor)
        return
    try:
        channel.close()
        serve(socket.socket(fileno=descriptor))
    finally:
        os._exit(0)
