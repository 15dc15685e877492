"""Diffs of uncommitted changes by file, as git tells them whatever its configuration."""

from __future__ import annotations

import re
from collections.abc import Sequence

from orchestrator.context.git import Repository

#: Stands where the rest of a diff, or all of it, is not shown.
CUT = "(cut)\n"
#: So many files are asked for by their names, with which git compares them only.
_NAMED = 200
_CALL_BYTES = 800_000
#: What the configuration could say otherwise, or what could start a program.
_OPTIONS = (
    "diff",
    "--no-ext-diff",
    "--no-textconv",
    "--no-color",
    "--no-renames",
    "--submodule=short",
    "--ignore-submodules=dirty",
    "--src-prefix=a/",
    "--dst-prefix=b/",
    "--unified=3",
    "--inter-hunk-context=0",
    "--relative",
)
_ESCAPE = re.compile(rb"\\([0-7]{3}|.)", re.DOTALL)
_LETTERS = {b"a": b"\a", b"b": b"\b", b"t": b"\t", b"n": b"\n", b"v": b"\v", b"f": b"\f", b"r": b"\r"}


def changed_texts(
    repository: Repository, paths: Sequence[str], revision: Sequence[str], one_size: int, whole_size: int
) -> dict[str, str]:
    """The diffs of ``paths`` against ``revision`` (none: the index), those that git tells; ``CUT`` for what was not
    asked any more once these were ``whole_size`` characters, of each at most ``one_size``. Raises GitFailed.
    """
    found: dict[str, str] = {}
    waiting = list(paths)
    size = 0
    while waiting and size < whole_size:
        # later calls are for what the first one was too long for, so they name it
        asked = waiting[:_NAMED] if found or len(waiting) <= _NAMED else ["."]
        answer = repository.call([*_OPTIONS, *revision, "--", *asked], limit=_CALL_BYTES, uses_filters=True)
        texts = _by_file(answer.output)
        if not answer.is_cut:
            done = set(asked) if asked != ["."] else set(waiting)
        else:
            if len(texts) > 1:
                texts.popitem()  # it is not whole
            done = set(texts)
        found |= texts
        size += sum(min(len(text), one_size) for text in texts.values())
        if not done:
            break
        waiting = [path for path in waiting if path not in done]
    return found | dict.fromkeys(waiting, CUT)


def _by_file(output: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in (b"\n" + output).split(b"\ndiff --git ")[1:]:
        found[_path(part.partition(b"\n")[0])] = "diff --git " + part.decode("utf-8", "replace") + "\n"
    return found


def _path(names: bytes) -> str:
    """The path in ``a/path b/path``: without renames both are the same, so it is in the first half."""
    half = names[: (len(names) - 1) // 2]
    if half.startswith(b'"'):
        half = _ESCAPE.sub(_unescaped, half[1:-1])
    return half[2:].decode("utf-8", "surrogateescape")


def _unescaped(match: re.Match[bytes]) -> bytes:
    code = match[1]
    return bytes((int(code, 8) & 0xFF,)) if len(code) == 3 else _LETTERS.get(code, code)
