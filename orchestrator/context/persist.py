"""Keeping indexes over restarts: one file a project, private, replaced atomically; a bad one is thrown away."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import zlib
from array import array
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from orchestrator.context.gitindex import IndexCopy
from orchestrator.context.index import FIELDS, Index, Postings
from orchestrator.context.models import Commit, FileFacts
from orchestrator.privacy import make_private_directory

#: Changes whenever what is indexed, or how, changes: files of another version are not used.
VERSION = 6


class StoredField(msgspec.Struct, array_like=True):
    """One field's postings: token numbers with their arrays' bytes, lengths and their sum."""

    tokens: list[int]
    lists: list[bytes]
    lengths: bytes
    total: int


class Stored(msgspec.Struct, array_like=True):
    """What is kept of a project."""

    version: int
    platform: str
    root: str
    settings: str
    words: list[str]
    fields: list[StoredField]
    alive: bytes
    names: dict[str, bytes]
    size_bytes: int
    files: list[FileFacts]
    history: list[Commit]


class Kept(msgspec.Struct):
    """What was read back."""

    index: Index
    files: dict[str, FileFacts]
    history: list[Commit]


_PLATFORM = f"{sys.byteorder}-{array('I').itemsize}"


def path_of(directory: str, root: str) -> Path:
    """The file that keeps the project at ``root``."""
    return Path(directory, hashlib.sha256(root.encode("utf-8", "surrogateescape")).hexdigest()[:32] + ".index")


def keep_only(directory: str, roots: Iterable[str]) -> None:
    """Remove what is kept of other projects than those at ``roots``, and what a write that was cut off left. For the
    time before anything is written. Never raises: what cannot be removed costs only its room."""
    known = {path_of(directory, root).stem for root in roots}
    with suppress(OSError):
        for path in Path(directory).iterdir():
            if _OURS.fullmatch(path.name) and (path.stem not in known or path.suffix not in _KEPT):
                with suppress(OSError):
                    path.unlink()


#: Names of this module's files and of their temporary ones; what else is in the directory is not ours.
_OURS = re.compile(r"[0-9a-f]{32}\.[a-z0-9.]+")
_KEPT = (".index", ".gitindex")


def index_copy(directory: str, root: str) -> IndexCopy:
    """The copy of git's index of the project at ``root``."""
    return IndexCopy(str(path_of(directory, root).with_suffix(".gitindex")))


def encode(root: str, settings: str, index: Index, files: dict[str, FileFacts], history: list[Commit]) -> bytes:
    """A project's index for ``write``; paths that are not Unicode are left out."""
    stored = Stored(
        version=VERSION,
        platform=_PLATFORM,
        root=root,
        settings=settings,
        words=list(index.tokens),
        fields=[_field(index.fields[name]) for name in FIELDS],
        alive=bytes(index.alive),
        names={name: documents.tobytes() for name, documents in index.names.items()},
        size_bytes=index.size_bytes,
        files=[facts for path, facts in files.items() if _is_unicode(path)],
        history=[commit for commit in history if all(map(_is_unicode, commit.files))],
    )
    return msgspec.msgpack.encode(stored)


def write(directory: str, root: str, encoded: bytes) -> None:
    """Keep what ``encode`` gave. Raises OSError."""
    payload = zlib.compress(encoded, 1)
    target = path_of(directory, root)
    make_private_directory(target.parent)
    temporary = target.with_suffix(f".{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(payload)
        os.replace(temporary, target)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def load(directory: str, root: str, settings: str) -> Kept | None:
    """What was saved of ``root`` under the same settings and version; None when nothing usable is there."""
    try:
        payload = path_of(directory, root).read_bytes()
        stored = msgspec.msgpack.decode(zlib.decompress(payload), type=Stored)
    except (OSError, zlib.error, msgspec.DecodeError, ValueError):
        return None
    if (stored.version, stored.platform, stored.root, stored.settings) != (VERSION, _PLATFORM, root, settings):
        return None
    index = Index()
    index.tokens = {word: number for number, word in enumerate(stored.words)}
    for name, field in zip(FIELDS, stored.fields, strict=True):
        postings = index.fields[name] = Postings()
        postings.lists = {token: _array(data) for token, data in zip(field.tokens, field.lists, strict=True)}
        postings.lengths = _array(field.lengths)
        postings.total = field.total
    index.restore(bytearray(stored.alive), {name: _array(data) for name, data in stored.names.items()})
    index.size_bytes = stored.size_bytes
    files = {facts.path: facts for facts in stored.files}
    known = {facts.document for facts in stored.files}
    for document, is_alive in enumerate(index.alive):
        if is_alive and document not in known:
            index.remove(document)
    return Kept(index, files, stored.history)


def _field(postings: Postings) -> StoredField:
    return StoredField(
        tokens=list(postings.lists),
        lists=[found.tobytes() for found in postings.lists.values()],
        lengths=postings.lengths.tobytes(),
        total=postings.total,
    )


def _array(data: bytes) -> array[int]:
    found = array("I")
    found.frombytes(data)
    return found


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
