"""What an attempt wrote, from the logs that all attempts of an agent share."""

from __future__ import annotations

import asyncio

from agentpool.base import Pool
from agentpool.messages import AgentExited
from agentpool.streams import end_of_stream
from orchestrator.agents.ends import MAX_OUTPUT_BYTES


async def output_begin(record_dir: str, attempt: int) -> int:
    """Where in the stdout log the output of an attempt that is about to start will begin (bytes)."""
    return await asyncio.to_thread(end_of_stream, record_dir, "stdout") if attempt > 1 else 0


async def output_of(pool: Pool, record_dir: str, begin: int, exited: AgentExited) -> str:
    """The last MAX_OUTPUT_BYTES that an attempt wrote to its stdout; ``begin`` (bytes) is what ``output_begin`` gave.

    Of a stream that its cap or the disk cut, the log lacks the end, so only the last few kilobytes before the cut are
    given: results of many such agents would fill the last room of a full disk.
    """
    tail = exited.stdout_tail.decode(errors="replace")
    if not record_dir or exited.usage.stdout_bytes <= len(exited.stdout_tail):
        return tail
    end = await asyncio.to_thread(end_of_stream, record_dir, "stdout")
    if end - begin < exited.usage.stdout_bytes:
        return tail
    start = max(begin, end - MAX_OUTPUT_BYTES)
    parts = []
    while start < end:
        chunk = await pool.read_output(record_dir, "stdout", start, end - start)
        if not chunk.data:
            break
        parts.append(chunk.data)
        start = chunk.next_offset
    return b"".join(parts).decode(errors="replace")
