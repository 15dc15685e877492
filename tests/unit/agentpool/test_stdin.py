"""What waits for an agent's stdin."""

from __future__ import annotations

import os

from agentpool.stdin import StdinQueue


def test_a_message_larger_than_the_bound_reaches_an_agent_that_reads() -> None:
    """A long message was accepted and then dead (``stdin_full``), though nothing waited and the agent was reading."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    told: list[tuple[str, str, str]] = []
    queue = StdinQueue(
        writer, 1000, lambda *state: told.append(state), lambda state, sequence: None, release=lambda fd: None
    )
    line = b"x" * 300_000
    queue.put("long", line)
    queue.put("next", b"y" * 900)
    seen = b""
    while queue.wants_write:
        seen += os.read(reader, 1 << 16)
        queue.flush()
    queue.put("after", b"z")
    queue.close("")
    while piece := os.read(reader, 1 << 16):
        seen += piece
    os.close(reader)
    assert seen == line + b"\nz\n"
    # It goes alone: the bound still holds for what would wait behind it.
    assert [state for state in told if state[1] != "queued"] == [
        ("next", "dead", "stdin_full"),
        ("long", "written", ""),
        ("after", "written", ""),
    ]
