"""The warm parent's loop, in this process."""

from __future__ import annotations

import ctypes
import json
import socket
import subprocess

from agentpool.platforms import ProcessFlags
from agentpool.zygote import Zygote


def test_a_signal_reaches_a_child_that_has_no_session_yet() -> None:
    """TERM for an agent that had been forked just now went to a group that was not there, and was lost."""
    ours, theirs = socket.socketpair()
    zygote = Zygote(theirs, ProcessFlags(), ctypes.create_string_buffer(0), is_guarded=False)
    child = subprocess.Popen(["/bin/sleep", "600"])  # in this process's group
    zygote._children.add(child.pid)
    try:
        ours.sendall(json.dumps(["Signal", child.pid, 15]).encode() + b"\n")
        assert zygote._serve()
        assert child.wait(timeout=10) == -15
    finally:
        child.kill()
        child.wait()
        ours.close()
        theirs.close()
