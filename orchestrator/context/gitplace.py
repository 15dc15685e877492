"""Where a project's repository is, found without running anything, and whether it is the project's own.

Whoever writes into a project, as agents in a sandbox do, must not get at another repository by a ``.git`` file or a
link that names it: a git directory outside of the work tree counts only when it names that work tree itself.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

#: What git reads commits, files and names from; none of it may be a link to somewhere else.
_PARTS = ("HEAD", "index", "packed-refs", "objects", "refs", "reftable", "config", "config.worktree")
_CONFIG_BYTES = 1 << 20
_PATH_BYTES = 4096
#: So many references to references git follows.
_REFERENCES = 5
_SECTION = re.compile(r"^\s*\[\s*([^\s\]]+)")
_WORK_TREE = re.compile(r"^\s*(?:\[\s*core\s*\]\s*)?worktree\s*=\s*(.*?)\s*$", re.IGNORECASE)


class NoPlace(Exception):
    """There is no repository here."""


class Elsewhere(Exception):
    """There is one that is not known to be the project's."""


def is_bare(root: str) -> bool:
    """Whether the directory is a git directory itself."""
    return all(os.path.exists(os.path.join(root, name)) for name in ("HEAD", "objects", "refs")) and not os.path.exists(
        os.path.join(root, ".git")
    )


def find_top(root: str) -> str:
    """The work tree that holds a directory. Raises NoPlace."""
    for directory in (Path(root), *Path(root).parents):
        if (directory / ".git").exists():
            return str(directory)
    raise NoPlace("no .git here or above")


def find_git_dir(top: str) -> str:
    """The git directory of a work tree: ``.git`` itself, or what a ``.git`` file or link (worktree, submodule) names.

    Raises NoPlace; Elsewhere when it is outside of the work tree and does not name it in turn.
    """
    marker = os.path.join(top, ".git")
    path = marker
    try:
        if not os.path.isdir(marker):
            key, _, target = beginning(marker).strip().partition(":")
            path = os.path.join(top, target.strip()) if key == "gitdir" else ""
        if path != marker or os.path.islink(marker):
            path = os.path.realpath(path)
    except (OSError, ValueError) as error:
        raise NoPlace(str(error)) from error
    if not os.path.isdir(path):
        raise NoPlace(".git names no git directory")
    if not _is_within(path, (top, os.path.realpath(top))) and not _is_named_back(path, os.path.realpath(top)):
        raise Elsewhere(
            ".git leads out of the project, to a git directory that does not say that it is this one's; "
            "if it is, set core.worktree there (`git config core.worktree`) to the project's directory"
        )
    return path


def find_common_dir(git_dir: str, top: str) -> str:
    """The git directory that work trees share. Raises Elsewhere when it, or what is read in it, is not the project's:
    by links to another repository's index and branches, git would tell of that one.
    """
    common = git_dir
    if os.path.lexists(os.path.join(git_dir, "commondir")):
        try:
            named = beginning(os.path.join(git_dir, "commondir"), _PATH_BYTES)
            common = os.path.realpath(os.path.join(git_dir, named.rstrip("\r\n")))
        except (OSError, ValueError) as error:
            raise Elsewhere("commondir in the git directory cannot be read") from error
        is_apart = not _is_within(common, (os.path.realpath(top), os.path.realpath(git_dir)))
        if len(named) == _PATH_BYTES or (is_apart and os.path.dirname(git_dir) != os.path.join(common, "worktrees")):
            raise Elsewhere("commondir in the git directory leads to another repository")
    own = tuple(os.path.realpath(path) for path in (top, git_dir, common))
    for directory in dict.fromkeys((git_dir, common)):
        for part in (*_PARTS, *_tables(directory)):
            _check_link(directory, part, own)
    _check_branch(git_dir, common, own)
    return common


def _tables(directory: str) -> list[str]:
    try:
        return [f"reftable/{name}" for name in os.listdir(os.path.join(directory, "reftable"))]
    except OSError:
        return []


def _check_branch(git_dir: str, common: str, own: tuple[str, ...]) -> None:
    """Follow HEAD as git does, to see that it ends in a file of the repository."""
    name = "HEAD"
    for _ in range(_REFERENCES):
        parts = name.split("/")
        for directory in dict.fromkeys((git_dir, common)):
            for count in range(1, len(parts) + 1):
                _check_link(directory, "/".join(parts[:count]), own)
        path = os.path.join(git_dir if name == "HEAD" else common, name)
        try:
            # a link of this form is a reference to git, whether it leads to a file or not
            is_reference = os.path.islink(path) and os.readlink(path).startswith("refs/")
            said = f"ref:{os.readlink(path)}" if is_reference else beginning(path)
        except (OSError, ValueError):
            return
        if not said.startswith("ref:"):
            return
        name = said.removeprefix("ref:").strip()


def _check_link(directory: str, part: str, own: tuple[str, ...]) -> None:
    path = os.path.join(directory, part)
    if os.path.islink(path) and not _is_within(os.path.realpath(path), own):
        raise Elsewhere(f"{part.partition('/')[0]} in the git directory leads out of the project by a link")


def _is_within(path: str, directories: tuple[str, ...]) -> bool:
    return any(path == directory or path.startswith(directory.rstrip("/") + "/") for directory in directories)


def _is_named_back(git_dir: str, top: str) -> bool:
    """Whether a git directory says that ``top`` is its work tree (gitrepository-layout(5): ``gitdir``; git-config(1):
    ``core.worktree``, as submodules have it)."""
    try:
        named = os.path.join(git_dir, beginning(os.path.join(git_dir, "gitdir")).strip())
        if os.path.basename(named) == ".git" and os.path.realpath(os.path.dirname(named)) == top:
            return True
    except (OSError, ValueError):
        pass
    setting = _work_tree_setting(git_dir)
    return setting != "" and "\0" not in setting and os.path.realpath(os.path.join(git_dir, setting)) == top


def _work_tree_setting(git_dir: str) -> str:
    """``core.worktree`` of a git directory's own files; empty when there is none."""
    found = ""
    for file in ("config", "config.worktree"):
        try:
            lines = beginning(os.path.join(git_dir, file), _CONFIG_BYTES).split("\n")
        except OSError:
            continue
        section = ""
        for line in lines:
            if heading := _SECTION.match(line):
                section = heading[1].lower()
            if section == "core" and (setting := _WORK_TREE.match(line)):
                found = setting[1]
    if found[:1] == found[-1:] == '"':
        found = found[1:-1]
    return re.sub(r"\\(.)", r"\1", found)


def beginning(path: str, size: int = _PATH_BYTES) -> str:
    """The first bytes of a regular file. Raises OSError; a FIFO is not waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path} is no regular file")
        return os.fsdecode(os.read(descriptor, size))
    finally:
        os.close(descriptor)
