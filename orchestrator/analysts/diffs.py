"""What changed: the uncommitted work, else the branch, else the last commit — as files with their added lines."""

from __future__ import annotations

import re

import msgspec

from orchestrator.analysts.git import Git

#: The tree without files, whose id is the same in every repository: what a first commit is compared with.
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
_HUNK = re.compile(r"^@@ -\d+(?:,\d+)? \+(\d+)(?:,(\d+))? @@")
_MAX_DIFF_BYTES = 24_000_000
_OPTIONS = (
    "--no-color",
    "--no-ext-diff",
    "--no-textconv",
    "--submodule=short",
    "--ignore-submodules=dirty",
    "--find-renames",
    "--relative",
    "-U0",
    "--src-prefix=a/",
    "--dst-prefix=b/",
)


class FileChange(msgspec.Struct, frozen=True):
    """One changed file.

    Attributes:
        path: its present path (the former one of a deleted file).
        status: added | modified | deleted | renamed | untracked.
        added: (1-based line, text) of each new line.
        removed: text of each line that is gone.
        is_binary: whether git shows no lines of it.
    """

    path: str
    status: str
    added: tuple[tuple[int, str], ...] = ()
    removed: tuple[str, ...] = ()
    is_binary: bool = False

    def touches(self, first: int, last: int) -> bool:
        """Whether a new line lies within the lines ``first``–``last``."""
        return any(first <= line <= last for line, _ in self.added)


class Change(msgspec.Struct, frozen=True):
    """A set of changed files and, for the reader, what it was taken from (``basis``)."""

    basis: str
    files: tuple[FileChange, ...]


def find_change(git: Git) -> Change:
    """The change to look at; one without files when there is none.

    Uncommitted work comes first, then the branch against the default branch, then the last commit.
    """
    if not git.is_repository:
        return Change("not a git repository", ())
    status = git.status()
    if status:
        tracked = _diff(git, git.head or EMPTY_TREE)
        known = {change.path for change in tracked}
        untracked = [FileChange(path, "untracked") for code, path in status if code == "??" and path not in known]
        return Change("uncommitted work" + ("" if git.head else " before the first commit"), (*tracked, *untracked))
    if not git.head:
        return Change("an empty repository", ())
    base, name = _branch_base(git)
    if base:
        return Change(f"branch {git.branch} since {name}", tuple(_diff(git, base, "HEAD")))
    parent = git.run("rev-parse", "--verify", "--quiet", "HEAD^1")
    before = parent.stdout.strip() if parent.ok else EMPTY_TREE
    return Change(f"last commit {git.head[:10]}", tuple(_diff(git, before, "HEAD")))


def _branch_base(git: Git) -> tuple[str, str]:
    """Where the current branch left the default branch; empty on the default branch itself."""
    default = git.run("symbolic-ref", "--short", "--quiet", "refs/remotes/origin/HEAD").stdout.strip()
    for name in (default, "origin/main", "origin/master", "main", "master"):
        if not name or name.removeprefix("origin/") == git.branch:
            continue
        found = git.run("merge-base", name, "HEAD")
        base = found.stdout.strip()
        if found.ok and base and base != git.head:
            return base, name
    return "", ""


def _diff(git: Git, *revisions: str) -> list[FileChange]:
    run = git.run("diff", *_OPTIONS, *revisions, "--", limit_bytes=_MAX_DIFF_BYTES)
    return parse_diff(run.stdout) if run.ok else []


def parse_diff(text: str) -> list[FileChange]:
    """Parse ``git diff -U0``."""
    return [
        _file(section)
        for section in re.split(r"^(?=diff --git )", text, flags=re.MULTILINE)
        if section.startswith("diff --git ")
    ]


def _file(section: str) -> FileChange:
    head, _, body = section.partition("\n@@")
    lines = head.split("\n")
    old = next((_path(line[4:]) for line in lines if line.startswith("--- ")), "")
    new = next((_path(line[4:]) for line in lines if line.startswith("+++ ")), "")
    status = "modified"
    for line in lines:
        if line.startswith("new file"):
            status = "added"
        elif line.startswith("deleted file"):
            status = "deleted"
        elif line.startswith("rename to "):
            status, new = "renamed", line[10:]
    if not (old or new):
        match = re.match(r"diff --git \"?a/(.*?)\"? \"?b/(.*?)\"?$", lines[0])
        new = match[2] if match else ""
    is_binary = any(line.startswith(("Binary files ", "GIT binary patch")) for line in lines)
    added, removed = _lines("@@" + body if body else "")
    return FileChange(new or old, status, tuple(added), tuple(removed), is_binary)


def _path(field: str) -> str:
    """The path of a ``---`` or ``+++`` line; empty for ``/dev/null``."""
    path = field.rstrip("\t").strip('"')
    return "" if path == "/dev/null" else path[2:]


def _lines(body: str) -> tuple[list[tuple[int, str]], list[str]]:
    added: list[tuple[int, str]] = []
    removed: list[str] = []
    at = 0
    for line in body.split("\n"):
        hunk = _HUNK.match(line)
        if hunk:
            at = int(hunk[1])
        elif line.startswith("+"):
            added.append((at, line[1:]))
            at += 1
        elif line.startswith("-"):
            removed.append(line[1:])
    return added, removed
