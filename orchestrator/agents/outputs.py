"""What an attempt wrote, from the logs that all attempts of an agent share."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from agentpool.base import Pool
from agentpool.messages import AgentExited
from agentpool.streams import STREAMS, end_of_stream
from orchestrator.agents.ends import MAX_OUTPUT_BYTES


async def output_begins(record_dir: str, attempt: int) -> dict[str, int]:
    """Where in each stream an attempt that is about to start will begin (bytes), unless at 0. Raises OSError."""
    if attempt <= 1:
        return {}

    def look() -> dict[str, int]:
        return {stream: end for stream in STREAMS if (end := end_of_stream(record_dir, stream))}

    return await asyncio.to_thread(look)


async def output_of(pool: Pool, record_dir: str, begins: Mapping[str, int], exited: AgentExited) -> str:
    """The last MAX_OUTPUT_BYTES that an attempt wrote to its stdout; ``begins`` is what ``output_begins`` gave.

    Of a stream that its cap or the disk cut, the log lacks the end, so only the last few kilobytes before the cut are
    given: results of many such agents would fill the last room of a full disk.
    """
    tail = exited.stdout_tail.decode(errors="replace")
    if exited.usage.stdout_bytes <= len(exited.stdout_tail) or "stdout" in exited.truncated_at:
        return tail
    begin = begins.get("stdout", 0)
    end = await asyncio.to_thread(end_of_stream, record_dir, "stdout")
    if end - begin < exited.usage.stdout_bytes:
        return tail  # somebody removed the log
    start = max(begin, end - MAX_OUTPUT_BYTES)
    parts = []
    while start < end:
        chunk = await pool.read_output(record_dir, "stdout", start, end - start)
        if not chunk.data:
            break
        parts.append(chunk.data)
        start = chunk.next_offset
    return b"".join(parts).decode(errors="replace")
