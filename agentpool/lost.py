"""The end of an attempt that nobody saw, because its worker or its supervisor died: told by what its logs hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from agentpool.messages import AgentExited, Survivors, Usage
from agentpool.streams import STREAMS, TAIL_BYTES, Truncation, end_of_stream, find_truncation, read_stream


class _Part(NamedTuple):
    """What was kept of one attempt's stream."""

    size_bytes: int = 0
    tail: bytes = b""
    truncation: Truncation | None = None


def lost_exit(
    *,
    agent_id: str,
    attempt: int,
    record_dir: str,
    output_begins: Mapping[str, int],
    ended_by: str,
    survivors: Survivors,
    cpu_seconds: float | None = None,
    max_rss_bytes: int | None = None,
) -> AgentExited:
    """The end of an attempt whose exit code nobody knows. Blocks.

    Args:
        record_dir: where its logs are, which it shares with the attempts before it.
        output_begins: the first byte of this attempt in each stream, where that is not 0.
        ended_by: ``worker_lost`` or ``supervisor_lost``.
        survivors, cpu_seconds, max_rss_bytes: what was found and measured when its tree was ended.
    """
    kept = {stream: _kept(record_dir, stream, output_begins.get(stream, 0)) for stream in STREAMS}
    cut = {stream: part.truncation for stream, part in kept.items() if part.truncation is not None}
    return AgentExited(
        agent_id=agent_id,
        attempt=attempt,
        exit_code=None,
        signal=None,
        ended_by=ended_by,
        terminal=b"",
        usage=Usage(
            cpu_seconds=cpu_seconds,
            max_rss_bytes=max_rss_bytes,
            stdout_bytes=kept["stdout"].size_bytes,
            stderr_bytes=kept["stderr"].size_bytes,
        ),
        survivors=survivors,
        stdout_tail=kept["stdout"].tail,
        stderr_tail=kept["stderr"].tail,
        truncated_at={stream: truncation.at for stream, truncation in cut.items()},
        truncated_by={stream: truncation.by for stream, truncation in cut.items()},
    )


def _kept(record_dir: str, stream: str, begin: int) -> _Part:
    try:
        end = end_of_stream(record_dir, stream)
        start = max(begin, end - TAIL_BYTES)
        tail = read_stream(record_dir, stream, start, end - start) if end > start else b""
        truncation = find_truncation(record_dir, stream)
    except OSError:
        return _Part()
    if truncation is not None and truncation.begin not in (begin, None):
        truncation = None  # an earlier attempt's, after which this one wrote nothing
    return _Part(max(0, end - begin), tail, truncation)
