"""The assistant: a short-lived process that reads and opens a share of a project's files for the builder."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from orchestrator.context.digest import LARGEST_BYTES, Digest, Task, digest
from orchestrator.context.excerpts import View, open_view
from orchestrator.context.frames import framed, receive
from orchestrator.context.models import Stamp
from orchestrator.context.outline import Block
from orchestrator.context.reading import Reader, Refused, reading
from orchestrator.context.secrets import redact
from orchestrator.context.words import vocabulary


class ReadFiles(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Wanted: the digests of files, ``(path, stamp, checksum)`` as in ``Task``, with ``words`` as ``digest`` has
    them. Paths are bytes, since a path need not be Unicode."""

    root: bytes
    files: list[tuple[bytes, Stamp, str]]
    words: list[str] | None = None


class OpenFiles(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Wanted: the text to show and the blocks of files, ``(path, checksum, language)``. ``is_idle``: nobody waits for
    it, so the assistant gives way to everything else on this machine."""

    root: bytes
    files: list[tuple[bytes, str, str]]
    is_idle: bool = False


_LEAST_PRIORITY = 19
#: The digests in the order that was asked for.
FilesRead = list[Digest]
#: In the order that was asked for: text, blocks and vocabulary, or None where the file cannot be shown as it was
#: indexed.
FilesOpened = list[tuple[bytes, list[Block], bytes] | None]


def tasks_to_send(root: str, tasks: list[Task], words: Sequence[str] | None = None) -> ReadFiles:
    """The wish for these tasks."""
    files = [(os.fsencode(task.path), task.stamp, task.checksum) for task in tasks]
    return ReadFiles(os.fsencode(root), files, None if words is None else list(words))


def open_file(reader: Reader, path: str, checksum: str, language: str) -> View:
    """The view of a file as it was indexed. Raises Refused, with ``changing`` when its bytes are others now."""
    content = reader.read(path, LARGEST_BYTES)
    if content.checksum != checksum:
        raise Refused("changing")
    text = content.data.decode("utf-8", "replace")
    words = vocabulary(content.data.lower()) if content.data.isascii() else None
    shown = redact(text, words)
    return open_view(shown.encode(), language, words if shown is text else None)


def serve(connection: socket.socket) -> None:
    """Answer wishes from a connection until its end."""
    decoder = msgspec.msgpack.Decoder(ReadFiles | OpenFiles)
    with suppress(OSError):  # the builder has ended, or the project is gone: nobody waits for this answer
        while (payload := receive(connection)) is not None:
            wish = decoder.decode(payload)
            answer = _read(wish) if isinstance(wish, ReadFiles) else _opened(wish)
            connection.sendall(framed(msgspec.msgpack.encode(answer)))


def _read(wish: ReadFiles) -> FilesRead:
    with reading(os.fsdecode(wish.root)) as reader:
        tasks = [Task(os.fsdecode(path), stamp, checksum) for path, stamp, checksum in wish.files]
        return [digest(reader, task, wish.words) for task in tasks]


def _opened(wish: OpenFiles) -> FilesOpened:
    if wish.is_idle:
        os.setpriority(os.PRIO_PROCESS, 0, _LEAST_PRIORITY)
    found: FilesOpened = []
    with reading(os.fsdecode(wish.root)) as reader:
        for path, checksum, language in wish.files:
            try:
                view = open_file(reader, os.fsdecode(path), checksum, language)
            except Refused:
                found.append(None)
            else:
                found.append((view.lines.data, list(view.blocks), view.words))
    return found
