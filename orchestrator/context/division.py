"""Dividing work between this process and its assistants: whoever is done takes the next portion."""

from __future__ import annotations

import os
import select
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Generic, TypeVar

import msgspec

from agentpool.platforms import processor_count
from orchestrator.context.assistant import FilesOpened, FilesRead, OpenFiles, ReadFiles, open_file, tasks_to_send
from orchestrator.context.digest import LARGEST_BYTES, Digest, Task, digest
from orchestrator.context.excerpts import View, view_of
from orchestrator.context.frames import framed, receive
from orchestrator.context.models import FileFacts
from orchestrator.context.outline import Lines
from orchestrator.context.reading import Reader, Refused, reading

#: More assistants gain little: what they found is merged by one process.
_MOST = 3
#: A portion: so many bytes or files. Small enough that the last one does not keep the others waiting.
_PORTION_BYTES = 256 << 10
_PORTION_FILES = 64
#: A byte of a path weighs as much as so many of a file. Two wishes then stay far below what a socket holds, so that
#: sending one never waits for an assistant, who may be waiting for its own answer to be read.
_PATH_WEIGHT = 16
#: Less is done faster alone than shared: forking and sending take some milliseconds.
_LEAST_BYTES = 1 << 20
_LEAST_VIEWS = 8
#: A portion of files to open: so many bytes, as opening takes much longer than reading.
_VIEW_BYTES = 24 << 10
#: An assistant that gave no answer for so long (seconds) is given up, and its share done here.
_PATIENCE_S = 30.0
#: Portions that an assistant has at a time, so that it need not wait for the next.
_AHEAD = 2

P = TypeVar("P")


class Colleague(Generic[P]):
    """The connection to an assistant and the portions that it has."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.portions: deque[P] = deque()


class Division:
    """Work on one project, shared with assistants that are started when there is enough of it.

    Args:
        hire: starts an assistant and gives its connection; None when this process shall do everything.
        root: the project.
        most: the most assistants.
    """

    def __init__(self, hire: Callable[[], socket.socket] | None, root: str, most: int | None = None) -> None:
        self._hire = hire
        self._root = root
        self._most = min(_MOST, processor_count() - 1) if most is None else most
        self._colleagues: list[Colleague[Any]] | None = None
        self._decode_read = msgspec.msgpack.Decoder(FilesRead).decode
        self._decode_opened = msgspec.msgpack.Decoder(FilesOpened).decode

    def __enter__(self) -> Division:
        return self

    def __exit__(self, *_: object) -> None:
        for colleague in self._colleagues or ():
            colleague.connection.close()
        self._colleagues = []

    def digests(
        self, reader: Reader, tasks: Sequence[Task], words: Sequence[str] | None = None
    ) -> Iterator[tuple[Task, Digest]]:
        """The digest of every task, in any order; ``words`` as for ``digest``."""
        is_large = sum(task.stamp.size for task in tasks) >= _LEAST_BYTES
        shared = self._shared(_portions(tasks), lambda portion: tasks_to_send(self._root, portion, words), is_large)
        for portion, colleague, payload in shared:
            if colleague is None:
                for task in portion:
                    yield task, digest(reader, task, words)
            else:
                yield from zip(portion, self._decode_read(payload), strict=True)

    def views(self, files: Sequence[FileFacts]) -> Iterator[tuple[FileFacts, View]]:
        """Views of files, opened together with the assistants of ``digests``; what cannot be shown, and all of it when
        there are few or no assistants, is missing: starting them for this alone gains nothing on a busy machine."""
        if len(files) < _LEAST_VIEWS or not self._colleagues:
            return
        portions: list[list[FileFacts]] = [[]]
        for facts in files:
            if sum(other.stamp.size for other in portions[-1]) >= _VIEW_BYTES:
                portions.append([])
            portions[-1].append(facts)
        with reading(self._root) as reader:
            for portion, colleague, payload in self._shared(portions, self._to_open, is_large=True):
                if colleague is None:
                    for facts in portion:
                        with suppress(Refused):
                            yield facts, open_file(reader, facts.path, facts.checksum, facts.language)
                    continue
                for facts, found in zip(portion, self._decode_opened(payload), strict=True):
                    if found is not None:
                        yield facts, view_of(Lines(found[0]), *found[1:])

    def _to_open(self, portion: Sequence[FileFacts]) -> OpenFiles:
        files = [(os.fsencode(facts.path), facts.checksum, facts.language) for facts in portion]
        return OpenFiles(os.fsencode(self._root), files)

    def _shared(
        self, portions: Sequence[P], wish: Callable[[P], ReadFiles | OpenFiles], is_large: bool
    ) -> Iterator[tuple[P, Colleague[P] | None, bytes]]:
        """Every portion once, with the assistant that did it and its answer, or None and nothing: to be done here,
        before the next is asked for."""
        left = deque(portions)
        team: list[Colleague[P]] = self._team() if is_large else []
        while left or any(colleague.portions for colleague in team):
            for colleague in team:
                while left and len(colleague.portions) < _AHEAD:
                    self._give(colleague, left.pop(), wish)
            busy = [colleague for colleague in team if colleague.portions]
            ready = _readable([colleague.connection for colleague in busy], 0.0 if left else _PATIENCE_S)
            if left and not ready:  # who has answered gets its next portion first
                yield left.popleft(), None, b""
                continue
            for colleague in busy:
                payload = receive(colleague.connection) if colleague.connection in ready else None
                if payload is not None:
                    yield colleague.portions.popleft(), colleague, payload
                elif colleague.connection in ready or not (ready or left):
                    # it has ended, or nothing came from anyone for too long
                    left.extend(colleague.portions)
                    self._dismiss(colleague)

    def _give(self, colleague: Colleague[P], portion: P, wish: Callable[[P], ReadFiles | OpenFiles]) -> None:
        colleague.portions.append(portion)
        with suppress(OSError):  # it has ended, as the next look at it will tell
            colleague.connection.sendall(framed(msgspec.msgpack.encode(wish(portion))))

    def _team(self) -> list[Colleague[Any]]:
        """The assistants, started when first needed; none when that is impossible."""
        if self._colleagues is None:
            self._colleagues = []
            with suppress(OSError):
                while self._hire is not None and len(self._colleagues) < self._most:
                    connection = self._hire()
                    connection.settimeout(_PATIENCE_S)
                    self._colleagues.append(Colleague(connection))
        return self._colleagues

    def _dismiss(self, colleague: Colleague[Any]) -> None:
        colleague.portions.clear()
        colleague.connection.close()
        self._team().remove(colleague)


def _readable(connections: Sequence[socket.socket], timeout_s: float) -> list[socket.socket]:
    """Those with an answer or at their end; polled, since ``select`` takes no descriptor from 1024 on."""
    poll = select.poll()
    for connection in connections:
        poll.register(connection, select.POLLIN)
    found = {descriptor for descriptor, _ in poll.poll(timeout_s * 1000)}
    return [connection for connection in connections if connection.fileno() in found]


def _portions(tasks: Sequence[Task]) -> list[list[Task]]:
    portions: list[list[Task]] = []
    size = _PORTION_BYTES
    for task in tasks:
        if size >= _PORTION_BYTES or len(portions[-1]) >= _PORTION_FILES:
            portions.append([])
            size = 0
        portions[-1].append(task)
        size += task.stamp.size if task.stamp.size <= LARGEST_BYTES else 0
        size += _PATH_WEIGHT * len(os.fsencode(task.path))
    return portions
