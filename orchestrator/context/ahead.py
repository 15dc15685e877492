"""Opening files ahead: an assistant opens what new tasks will ask for, so that they need not wait for it.

A new task looks at the blocks of some 60 files. Reading, redacting and dividing them takes several times as long as
ranking; behind the first answer it costs an idle processor's time.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

import msgspec

from orchestrator.context.assistant import FilesOpened, OpenFiles
from orchestrator.context.chronicle import Chronicle
from orchestrator.context.excerpts import View, view_of
from orchestrator.context.frames import framed, receive
from orchestrator.context.models import FileFacts
from orchestrator.context.outline import Lines

_A_PORTION = 16
#: An assistant that gave no answer for so long (seconds) is given up.
_PATIENCE_S = 30.0
_KINDS = ("code", "test", "config", "doc")
#: What a view takes, relative to its file's bytes, and at least (measured on Python's standard library).
_VIEW_SHARE = 1.6
_LEAST_VIEW_BYTES = 8000


def likeliest(files: Iterable[FileFacts], chronicle: Chronicle, most_bytes: int) -> list[FileFacts]:
    """The files that tasks will ask for most likely, as many as ``most_bytes`` of views hold: sources first, of one
    kind those that changed most often."""
    places = {kind: place for place, kind in enumerate(_KINDS)}
    changes = chronicle.by_file
    chosen = []
    for facts in sorted(
        (facts for facts in files if facts.kind in places),
        key=lambda facts: (places[facts.kind], -len(changes.get(facts.path, ())), facts.path),
    ):
        most_bytes -= max(_LEAST_VIEW_BYTES, int(facts.stamp.size * _VIEW_SHARE))
        if most_bytes < 0:
            break
        chosen.append(facts)
    return chosen


def open_ahead(
    hire: Callable[[], socket.socket], root: str, files: Iterable[FileFacts]
) -> Iterator[tuple[FileFacts, View]]:
    """The views of files, opened by one assistant that gives way to everything else on this machine. What cannot be
    shown is missing, and everything from where the assistant was lost or silent for too long."""
    left = list(files)
    portions = deque(left[at : at + _A_PORTION] for at in range(0, len(left), _A_PORTION))
    asked: deque[list[FileFacts]] = deque()
    decode = msgspec.msgpack.Decoder(FilesOpened).decode
    with suppress(OSError), hire() as connection:
        connection.settimeout(_PATIENCE_S)
        while portions or asked:
            while portions and len(asked) < 2:  # it need not wait for the next one
                asked.append(portions.popleft())
                connection.sendall(framed(msgspec.msgpack.encode(_wish(root, asked[-1]))))
            payload = receive(connection)
            if payload is None:
                return
            for facts, found in zip(asked.popleft(), decode(payload), strict=True):
                if found is not None:
                    yield facts, view_of(Lines(found[0]), *found[1:])


def _wish(root: str, portion: list[FileFacts]) -> OpenFiles:
    files = [(os.fsencode(facts.path), facts.checksum, facts.language) for facts in portion]
    return OpenFiles(os.fsencode(root), files, is_idle=True)
