"""Small file systems for full-disk faults; only root of Linux can have them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class NoSmallDisk(Exception):
    """No small file system can be had here; the text says why."""


@contextmanager
def small_disk(path: Path, size_bytes: int) -> Iterator[Path]:
    """An empty tmpfs of ``size_bytes`` at ``path``, which is made, private, and unmounted at the end.

    Raises NoSmallDisk where the system or the user cannot mount one.
    """
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        raise NoSmallDisk("only root of Linux may mount a tmpfs")
    path.mkdir(mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=700", "tmpfs", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NoSmallDisk(f"mount refused: {done.stderr.strip()}")
    try:
        yield path
    finally:
        # Lazily: whatever a failed test left open must not keep it mounted.
        subprocess.run(["umount", "-l", str(path)], check=False)


def free_bytes(path: Path) -> int:
    """What is free on the file system of a path."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def leave(path: Path, size_bytes: int) -> Path:
    """Take room below ``path`` until only ``size_bytes`` are free; the file to delete to give it back."""
    filler = path / "filler"
    with filler.open("wb", buffering=0) as file:
        while (missing := free_bytes(path) - size_bytes) > 0:
            file.write(bytes(min(1 << 16, missing)))
    return filler


def fill(path: Path, name: str = "filler") -> Path:
    """Take all the room below ``path`` with a file of this name; the file to delete to give it back."""
    filler = path / name
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(1 << 16)):
                pass
            while file.write(b"\0"):
                pass
        except OSError:
            pass
    return filler
