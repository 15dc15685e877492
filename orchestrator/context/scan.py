"""Scan: which files a project has, as git sees them, or by the same rules where there is no git."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec
import pathspec

from orchestrator.context.git import GitFailed, Repository, personal_ignore
from orchestrator.context.gitindex import Stamp
from orchestrator.context.globs import compile_globs
from orchestrator.context.history import WorkTree, tracked_files, work_tree
from orchestrator.context.reading import shown

#: More files than this are not looked at (a bound on memory, far above real projects).
MOST_FILES = 300_000
#: Directories that are never part of a project's own text, for trees without git.
_NEVER = frozenset(
    {
        ".git",
        ".hg",
        ".svn",
        "__pycache__",
        "node_modules",
        ".tox",
        ".nox",
        ".mypy_cache",
        ".pytest_cache",
        ".ruff_cache",
    }
)
_SUBMODULE_DEPTH = 4
_RULES_BYTES = 1 << 20
#: Ignore rules with the directory that they are of (``""`` or ``sub/dir/``), the weakest first.
Rules = list[tuple[str, pathspec.GitIgnoreSpec]]


class Tracked(msgspec.Struct, frozen=True):
    """What an index file with this stamp names; None when there was none."""

    stamp: Stamp | None
    files: list[str]
    submodules: list[str]


class Listing(msgspec.Struct, frozen=True):
    """Paths relative to the project (unordered), the work tree's state where there is git, and what is missing."""

    paths: list[str]
    tree: WorkTree | None
    problems: tuple[str, ...] = ()
    tracked: Tracked | None = None


def list_files(
    root: str,
    repository: Repository | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    known: Tracked | None = None,
) -> Listing:
    """List the files of ``root``; ``include`` and ``exclude`` are globs, ``known`` what an earlier
    listing found tracked.

    Never raises for a broken repository: the files are then listed without git, and ``problems`` says why.
    """
    problems: list[str] = []
    tree: WorkTree | None = None
    paths: list[str] | None = None
    if repository is not None:
        try:
            tree = work_tree(repository)
            known = tracked(repository, known)
            paths = _with_git(root, repository, tree, known, problems)
            problems += _limits_of(repository)
        except GitFailed as error:
            problems.append(str(error))
    if paths is None:
        paths = [] if repository is not None and repository.is_bare else walk(root)
    taken, refused = compile_globs(include), compile_globs(exclude)
    if refused is not None:
        paths = [path for path in paths if not refused.match(path)]
    if taken is not None:
        there = set(paths)
        paths += [path for path in walk(root, is_ignoring=False) if path not in there and taken.match(path)]
    if len(paths) > MOST_FILES:
        problems.append(f"only {MOST_FILES} of {len(paths)} files are looked at")
    return Listing(paths[:MOST_FILES], tree, tuple(problems), known)


def tracked(repository: Repository, known: Tracked | None) -> Tracked:
    """What the index names; ``known`` again when the index is still the same. Raises GitFailed."""
    stamp = repository.index_stamp
    if known is not None and stamp is not None and known.stamp == stamp:
        return known
    return Tracked(stamp, *tracked_files(repository))


def _limits_of(repository: Repository) -> list[str]:
    """What a repository of this form cannot tell."""
    if repository.is_bare:
        return ["a bare repository has no work tree: history is shown, files are not; register a clone of it"]
    if repository.is_shallow:
        return ["the clone is shallow: history before its first commit is missing; `git fetch --unshallow` gets it"]
    return []


def _with_git(
    root: str, repository: Repository, tree: WorkTree, named: Tracked, problems: list[str], depth: int = 0
) -> list[str]:
    """All paths, those of submodules too; what of them cannot be listed is added to ``problems``."""
    known = dict.fromkeys((*named.files, *tree.untracked))
    paths = [path for path in known if path]
    for submodule in named.submodules if depth < _SUBMODULE_DEPTH else ():
        paths += [f"{submodule}/{path}" for path in _submodule(root, submodule, repository, problems, depth)]
    return paths


def _submodule(root: str, path: str, parent: Repository, problems: list[str], depth: int) -> list[str]:
    directory = os.path.join(root, path)
    if os.path.realpath(directory) != directory or not os.path.exists(os.path.join(directory, ".git")):
        problems.append(f"the submodule {shown(path)} is not checked out; `git submodule update --init` gets it")
        return []
    try:
        repository = Repository(directory, parent.timeout_s)
        known = tracked(repository, None)
        return _with_git(directory, repository, work_tree(repository), known, problems, depth + 1)
    except GitFailed as error:
        problems.append(f"the submodule {shown(path)} cannot be listed: {error}")
        return []


def walk(root: str, *, is_ignoring: bool = True) -> list[str]:
    """All files below ``root`` that no ``.gitignore`` excludes (nested ones count, the person's own and the
    repository's ``info/exclude`` too); links are not followed."""
    found: list[str] = []
    pending: list[tuple[str, Rules]] = [("", _common_rules(root) if is_ignoring else [])]
    while pending and len(found) <= MOST_FILES:
        prefix, rules = pending.pop()
        try:
            entries = sorted(os.scandir(os.path.join(root, prefix)), key=lambda entry: entry.name)
        except OSError:
            continue
        if is_ignoring:
            rules = _more_rules(root, prefix, entries, rules)
        if any(entry.name == "pyvenv.cfg" for entry in entries):
            continue
        for entry in entries:
            path = prefix + entry.name
            if entry.is_symlink() or entry.name == ".git":
                continue
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in _NEVER and not _is_ignored(path + "/", rules):
                    pending.append((path + "/", rules))
            elif entry.is_file(follow_symlinks=False) and not _is_ignored(path, rules):
                found.append(path)
    return found


def _common_rules(root: str) -> Rules:
    """What git ignores beside the tree's own files (gitignore(5)): the person's default file, then the repository's."""
    rules: Rules = []
    for path in (personal_ignore(), Path(root, ".git", "info", "exclude")):
        rules = _with_rules(rules, "", path)
    return rules


def _with_rules(rules: Rules, prefix: str, path: Path) -> Rules:
    """``rules`` and those of the file at ``path``, if it is one and not absurdly large."""
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _RULES_BYTES:
            return rules
        text = path.read_text(encoding="utf-8", errors="replace")
        return [*rules, (prefix, pathspec.GitIgnoreSpec.from_lines(text.splitlines()))]
    except (OSError, ValueError):
        return rules


def _more_rules(root: str, prefix: str, entries: list[os.DirEntry[str]], rules: Rules) -> Rules:
    if not any(entry.name == ".gitignore" and entry.is_file(follow_symlinks=False) for entry in entries):
        return rules
    return _with_rules(rules, prefix, Path(root, prefix, ".gitignore"))


def _is_ignored(path: str, rules: Rules) -> bool:
    """Whether the innermost rule that speaks of ``path`` ignores it, as in gitignore(5)."""
    for prefix, spec in reversed(rules):
        verdict = spec.check_file(path[len(prefix) :]).include
        if verdict is not None:
            return verdict
    return False
