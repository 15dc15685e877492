"""What git tells of a project: its state now, and who changed which files together, when and why."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from orchestrator.context.git import GitFailed, Repository
from orchestrator.context.gitdiff import CUT, changed_texts
from orchestrator.context.models import Change, Commit, FileFacts

#: How far back is looked: enough for co-change and votes, bounded for time (about 0.1 ms a commit).
COMMITS = 3000
_MESSAGE_BYTES = 4000
_FORMAT = "%x01%H%x02%ct%x02%an%x02%B%x03"
_STATUS = {
    "M": "modified",
    "A": "added",
    "D": "deleted",
    "R": "renamed",
    "C": "added",
    "T": "type-changed",
    "U": "conflicted",
}
_DIFF_BYTES = 200_000
_ONE_DIFF_BYTES = 20_000
_CHANGES = 2000


class WorkTree(msgspec.Struct, frozen=True):
    """The state of a work tree. ``branch`` and ``head`` are None when detached or unborn.

    ``untracked`` are paths that are not ignored, relative to the project, as are ``changes``. ``is_staged``: the
    index may differ from ``head``.
    """

    branch: str | None
    head: str | None
    changes: tuple[tuple[str, str], ...]
    untracked: tuple[str, ...]
    is_staged: bool = True


def work_tree(repository: Repository, paths: Sequence[str] = ()) -> WorkTree:
    """Ask for branch, head, changed and untracked files in one call; of ``paths`` only, without untracked ones, when
    there are any. Raises GitFailed.
    """
    if repository.is_bare:
        return _bare(repository)
    arguments = [
        "status",
        "--porcelain=v2",
        "--branch",
        "-z",
        "--untracked-files=no" if paths else "--untracked-files=all",
        "--no-renames",
        "--ignore-submodules=dirty",
        "--",
        *(paths or ["."] * bool(repository.prefix)),
    ]
    output = repository.call(arguments, uses_filters=True).output.decode("utf-8", "surrogateescape")
    branch = head = None
    changes: list[tuple[str, str]] = []
    untracked: list[str] = []
    is_staged = False
    for record in output.split("\0"):
        if record.startswith("# branch.oid "):
            head = None if record.endswith("(initial)") else record[13:]
        elif record.startswith("# branch.head "):
            branch = None if record.endswith("(detached)") else record[14:]
        elif record.startswith("? "):
            untracked.append(record[2:])
        elif record[:2] in ("1 ", "u "):
            status, path = _changed(record)
            changes.append((path, status))
            is_staged |= record[2] != "."  # the first of two letters compares the index with HEAD
    strip = len(repository.prefix)
    return WorkTree(
        branch=branch,
        head=head,
        changes=tuple((path[strip:], status) for path, status in changes if path.startswith(repository.prefix)),
        untracked=tuple(path[strip:] for path in untracked if path.startswith(repository.prefix) and path[-1:] != "/"),
        is_staged=is_staged,
    )


def _changed(record: str) -> tuple[str, str]:
    if record.startswith("u "):
        return "conflicted", record.split(" ", 10)[10]
    fields = record.split(" ", 8)
    codes = fields[1]
    code = codes[1] if codes[1] != "." else codes[0]
    return _STATUS.get(code, "modified"), fields[8]


def _bare(repository: Repository) -> WorkTree:
    branch = head = None
    try:
        head = repository.call(["rev-parse", "--verify", "-q", "HEAD"]).output.decode().strip() or None
    except GitFailed as error:
        if error.reason != "git_failed":
            raise
    try:
        branch = repository.call(["symbolic-ref", "-q", "--short", "HEAD"]).output.decode().strip() or None
    except GitFailed as error:
        if error.reason != "git_failed":
            raise
    return WorkTree(branch=branch, head=head, changes=(), untracked=())


def tracked_files(repository: Repository) -> tuple[list[str], list[str]]:
    """``(files, submodules)``: paths in the index, relative to the project. Raises GitFailed."""
    if repository.is_bare:
        return [], []
    output = repository.call(["ls-files", "-z", "-s"]).output.decode("utf-8", "surrogateescape")
    files: dict[str, None] = {}
    submodules: list[str] = []
    for entry in output.split("\0"):
        meta, _, path = entry.partition("\t")
        if meta.startswith("100"):
            files[path] = None
        elif meta.startswith("160000"):
            submodules.append(path)
    return list(files), submodules


def commits(repository: Repository, head: str | None, known: list[Commit], most: int = COMMITS) -> list[Commit]:
    """The last ``most`` commits up to ``head``, newest first, without merges.

    ``known``: what an earlier call gave; their trees are not compared again, whatever ``head`` was moved to.
    Raises GitFailed.
    """
    if head is None:
        return []
    if known and known[0].hash == head:
        return known
    if not known:
        return _log(repository, [f"-n{most}", head])
    by_hash = {commit.hash: commit for commit in known}
    hashes = _hashes(repository, head, most)
    new = [name for name in hashes if name not in by_hash]
    if new:
        by_hash |= {commit.hash: commit for commit in _log(repository, ["--no-walk=unsorted", *new])}
    return [by_hash[name] for name in hashes if name in by_hash]


def _hashes(repository: Repository, head: str, most: int) -> list[str]:
    within = ["--", "."] if repository.prefix else []
    return _asked(repository, ["rev-list", "--no-merges", f"-n{most}", head, *within]).split()


def _asked(repository: Repository, arguments: list[str]) -> str:
    """Git's answer; none where it has none (a commit that a shallow or broken clone lacks). Raises GitFailed."""
    try:
        return repository.call(arguments).output.decode("utf-8", "replace")
    except GitFailed as error:
        if error.reason == "git_failed":
            return ""
        raise


def _log(repository: Repository, revisions: list[str]) -> list[Commit]:
    arguments = [
        "log",
        "--no-merges",
        "--no-renames",
        "--no-show-signature",
        "--no-ext-diff",
        "--no-textconv",
        "--no-relative",
        "--no-follow",
        "--encoding=UTF-8",
    ]
    arguments += ["--name-only", "-z", f"--format={_FORMAT}", *revisions]
    if repository.prefix:
        arguments += ["--", "."]
    found = []
    for record in _asked(repository, arguments).split("\x01")[1:]:
        head, _, tail = record.partition("\x03")
        fields = head.split("\x02")
        if len(fields) != 4 or not fields[1].isdigit():
            continue
        paths = [path.lstrip("\n") for path in tail.split("\0")]
        strip = len(repository.prefix)
        files = tuple(path[strip:] for path in paths if path and path.startswith(repository.prefix))
        found.append(Commit(fields[0], int(fields[1]), fields[2], fields[3].strip()[:_MESSAGE_BYTES], files))
    return found


def diffs(repository: Repository, tree: WorkTree) -> tuple[tuple[Change, ...], bool]:
    """The uncommitted changes with their diffs against HEAD, each at most 20 kB, 200 kB together; what is longer ends
    in ``(cut)``. And whether git told them."""
    # the index alone is compared several times faster
    revision = ["HEAD"] if tree.is_staged else []
    paths = [path for path, _ in tree.changes[:_CHANGES]] if tree.head is not None else []
    try:
        texts, has_answered = changed_texts(repository, paths, revision, _ONE_DIFF_BYTES, _DIFF_BYTES), True
    except GitFailed:
        texts, has_answered = dict.fromkeys(paths, CUT), False
    left = _DIFF_BYTES
    result = []
    for path, status in tree.changes[:_CHANGES]:
        text = texts.get(path, "")
        if len(text) > min(_ONE_DIFF_BYTES, left):
            text = text[: text.rfind("\n", 0, max(1, min(_ONE_DIFF_BYTES, left))) + 1] + CUT
        left = max(0, left - len(text))
        result.append(Change(path, status, text))
    result += [Change(path, "untracked") for path in tree.untracked[: max(0, _CHANGES - len(result))]]
    return tuple(result), has_answered


def change_states(repository: Repository, tree: WorkTree, files: Mapping[str, FileFacts]) -> list[object]:
    """What tells one state of the changed files from the next: a checksum, or what ``_unread_state`` says."""
    checksums = {path: files[path].checksum for path, _ in tree.changes if path in files}
    return [checksums.get(path) or _unread_state(repository, path) for path, _ in tree.changes]


def _unread_state(repository: Repository, path: str) -> object:
    """A file's or link's stamp; of a submodule also where its HEAD is."""
    full = os.path.join(repository.root, path)
    try:
        status = os.lstat(full)
    except OSError:
        return None
    stamp = (status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    if not stat.S_ISDIR(status.st_mode):
        return stamp
    try:
        return stamp, Repository(full, repository.timeout_s).state()
    except GitFailed:
        return stamp


def remote(repository: Repository) -> tuple[str, str] | None:
    """``(name, URL)`` of ``origin`` or of the first remote, without user name and password; None when there is none."""
    try:
        settings = repository.settings()
    except GitFailed:
        return None
    found = {
        _shown(key[len("remote.") : -len(".url")]): _without_credentials(_shown(url))
        for _, key, url in settings
        if key.startswith("remote.") and key.endswith(".url")
    }
    name = "origin" if "origin" in found else next(iter(found), None)
    return (name, found[name]) if name is not None else None


def _shown(text: str) -> str:
    """``text`` of a setting without bytes that are no UTF-8."""
    return os.fsencode(text).decode("utf-8", "replace")


def _without_credentials(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def describe(
    tree: WorkTree, history: list[Commit], changes: tuple[Change, ...], origin: tuple[str, str] | None
) -> dict[str, Any]:
    """The contract's ``git_context`` and ``uncommitted_changes`` parts, before redaction."""
    recent = [
        {
            "hash": commit.hash,
            "message": commit.message,
            "author": commit.author,
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(commit.timestamp)),
            "files_changed": list(commit.files[:100]),
        }
        for commit in history
    ]
    return {
        "branch": tree.branch,
        "head": tree.head,
        "recent_commits": recent,
        "uncommitted_changes": [{"path": c.path, "status": c.status, "diff": c.diff} for c in changes],
        "remote": origin[0] if origin else None,
        "remote_url": origin[1] if origin else None,
    }
