"""The digest of a file: everything that the index wants of it, from reading it once. Pure but for the reading."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from orchestrator.context import kinds
from orchestrator.context.counts import Counted, count, count_words
from orchestrator.context.models import Stamp
from orchestrator.context.outline import defined_names
from orchestrator.context.reading import Reader, Refused
from orchestrator.context.secrets import is_secret_file

#: Larger files are listed, not read.
LARGEST_BYTES = 2 << 20
#: Kinds that are found by their paths only: nobody writes them by hand.
_NAMES_ONLY = frozenset(("lock", "data", "generated", "vendored"))
_CODE = frozenset(("code", "test"))
_SETTINGS_OR_CODE = frozenset(("code", "test", "config"))
#: A file younger than this when it was read may change again within its timestamp's grain, so it is read again.
_RACY_NS = 50_000_000


class Task(msgspec.Struct, frozen=True, array_like=True):
    """A file to read: its path, the stamp that it was seen with, and the checksum that it had (or empty)."""

    path: str
    stamp: Stamp
    checksum: str = ""


class Digest(msgspec.Struct, array_like=True):
    """What is known of a file after it was read; fields as in ``FileFacts``.

    ``counted`` is None when the file is not indexed. ``is_same``: it still has its task's checksum, and was not
    looked at any further. ``refusal``: why it could not be read.
    """

    stamp: Stamp
    kind: str
    language: str
    checksum: str = ""
    is_text: bool = True
    is_same: bool = False
    counted: Counted | None = None
    refusal: str = ""


def digest(reader: Reader, task: Task, words: Sequence[str] | None = None) -> Digest:
    """Read a file; one that is refused has no checksum. ``words``: only these stems are counted, and no definitions
    looked for; None counts everything."""
    kind, language = kinds.kind_of(task.path), kinds.language_of(task.path)
    found = Digest(task.stamp, kind, language)
    if kind == "binary" or task.stamp.size > LARGEST_BYTES:
        found.is_text = kind != "binary"
        return found
    try:
        content = reader.read(task.path, LARGEST_BYTES)
    except Refused as error:
        found.is_text, found.refusal = False, error.reason
        return found
    found.checksum = content.checksum
    found.stamp = lasting(content.stamp)
    if task.checksum and task.checksum == content.checksum:
        found.is_same = True
        return found
    _look(found, task.path, content.data, words)
    return found


def lasting(stamp: Stamp) -> Stamp:
    """``stamp`` of a file that was just read, or one that no file has when it may yet change under this one."""
    if time.time_ns() - stamp.mtime_ns < _RACY_NS:
        return Stamp(stamp.size, stamp.mtime_ns, -1, stamp.inode)
    return stamp


def _look(found: Digest, path: str, data: bytes, words: Sequence[str] | None) -> None:
    """Tell what the text is, and count it."""
    if kinds.is_binary(data):
        found.kind, found.is_text = "binary", False
        return
    if kinds.is_lfs_pointer(data):
        found.kind = "lfs"
        return
    is_minified = kinds.is_minified(data)
    if found.kind in _SETTINGS_OR_CODE and (is_minified or kinds.is_generated(data[:1000])):
        found.kind = "generated"
    if is_secret_file(path):
        return
    searched = data if found.kind not in _NAMES_ONLY and not is_minified else b""
    if words is not None:
        found.counted = count_words(searched, words)
        return
    names = defined_names(data, found.language) if found.kind in _CODE else ()
    found.counted = count(searched, names)
