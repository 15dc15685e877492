"""An agent's output in files of bounded size."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from agentpool import streams
from agentpool.streams import OutputLog


def test_want_of_descriptors_loses_no_output(tmp_path: Path) -> None:
    """A process at its limit of descriptors could not begin the next file, and cut the output there for good."""
    log = OutputLog(str(tmp_path), "stdout", cap_bytes=1 << 20, file_bytes=streams.MIN_FILE_BYTES)
    parts = [bytes([65 + number]) * 3000 for number in range(6)]
    log.write(parts[0])
    log.write(parts[1])  # the second file has begun
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        log.write(parts[2])
        log.write(parts[3])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    for part in parts[4:]:
        log.write(part)
    log.close()
    assert log.truncated_at is None
    assert streams.read_stream(str(tmp_path), "stdout", 0, 1 << 20) == b"".join(parts)
    assert len(streams.log_starts(str(tmp_path), "stdout")) >= 3
