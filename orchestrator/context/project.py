"""One project's state in the builder: files, index, history; brought up to date only where something changed."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from orchestrator.config import PROJECT_FILE
from orchestrator.context.choice import choice_of
from orchestrator.context.chronicle import Chronicle
from orchestrator.context.digest import LARGEST_BYTES, Digest, Task, digest
from orchestrator.context.division import Division
from orchestrator.context.git import GitFailed, Repository
from orchestrator.context.gitindex import Stamp as GitStamp
from orchestrator.context.gitsettings import SettingsCache
from orchestrator.context.globs import compile_globs
from orchestrator.context.history import COMMITS, WorkTree, change_states, commits, diffs, remote, work_tree
from orchestrator.context.index import Index
from orchestrator.context.models import Change, Commit, FileFacts, Stamp
from orchestrator.context.persist import encode, index_copy, load
from orchestrator.context.reading import Reader, reading
from orchestrator.context.scan import Listing, Tracked, list_files, tracked
from orchestrator.context.secrets import is_secret_file
from orchestrator.context.words import Splitter

#: Smaller projects are indexed anew faster than they are read back.
_SAVED_FILES = 200
_SAVE_S = 60.0
#: So few new documents are taken apart before the answer; more wait until after it (``absorb``).
_ABSORBED_AT_ONCE = 50
#: Starting git takes no longer (seconds), unless it cannot be started.
_START_S = 0.02


#: Files that say what belongs to the project, and how git sees it.
_RULES = frozenset((".gitignore", ".gitattributes", ".gitmodules", ".git", PROJECT_FILE))


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that a project's state depends on."""

    git_timeout_s: float = 10.0
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


class ProjectState:
    """Everything known of the project at ``root``; not thread-safe, callers hold ``lock``.

    Attributes:
        files: by path what is known of each file.
        generation: grows whenever anything that an answer shows has changed; 0 before the first look.
        layout: grows whenever a file came or went.
        problems: what is missing and why, in words.
        most_commits: how far back history is looked at.
    """

    most_commits = COMMITS

    def __init__(self, root: str, limits: Limits, state_dir: str = "") -> None:
        self.root = root
        self.limits = limits
        self.lock = threading.RLock()
        self.files: dict[str, FileFacts] = {}
        self.index = Index(Splitter())
        self.history: list[Commit] = []
        self._state_dir = state_dir
        self._settings = msgspec.json.encode(limits).decode()
        self._saved: tuple[int, float] = (0, 0.0)
        self._restore()
        self.chronicle = Chronicle(self.index.splitter)
        self.tree: WorkTree | None = None
        self.changes: tuple[Change, ...] = ()
        self.remote: tuple[str, str] | None = None
        self.problems: tuple[str, ...] = ()
        # Counting begins with the clock: nothing that was made of an earlier state of this project, which was given up
        # or ended with its process, is taken for something made of this one.
        self._begin = time.monotonic_ns()
        self.generation = 0
        #: when the last look at everything began, in monotonic seconds
        self.looked_at = -math.inf
        self.layout = self._begin
        #: parts of answers that are the same for all of a generation or layout, with its number; the renderer's
        self.rendered: dict[str, tuple[int, Any]] = {}
        self._withheld: tuple[int, list[tuple[str, str]]] | None = None
        self._tracked: Tracked | None = None
        self._repository: Repository | None = None
        self._change_key: object = None
        self._git_state: dict[str, GitStamp | None] = {}
        #: where the known history begins, and where it ends when it was cut off; "" before the first look at it
        self._history_head: str | None = ""
        self._history_end: GitStamp | None = None
        self._index_copy = index_copy(state_dir, root) if state_dir else None
        self._git_settings = SettingsCache()

    @property
    def size_bytes(self) -> int:
        """Memory that this state takes, estimated."""
        return self.index.size_bytes + self.index.waiting_bytes + 600 * len(self.files) + 1000 * len(self.history)

    def refresh(self, division: Division | None = None) -> bool:
        """Bring everything up to date; whether anything changed. ``division`` shares the reading of many files.

        Raises FileNotFoundError when the root is gone.
        """
        began = time.monotonic()
        self._open_repository()
        division = division or Division(None, self.root)
        with reading(self.root) as reader, ThreadPoolExecutor(1, thread_name_prefix="git") as aside:
            # git works in processes of its own, while files are compared and indexed here
            named = aside.submit(self._named) if not (self.files or self.generation) else None
            listed = aside.submit(self._list)
            history = aside.submit(lambda: self._commits(listed.result().tree))
            has_changed = False
            if named is None:
                if self._repository is not None:
                    # a thread that goes from one short call to the next would hardly let another one start git
                    self._repository.is_asked.wait(_START_S)
                stamps = {path: reader.stamp(path) for path in self.files}
            else:
                # to tell what is tracked takes git a moment, to tell what has changed may take as long as reading it
                has_changed = self._update_files(reader, named.result(), {}, division)
                stamps = {path: facts.stamp for path, facts in self.files.items()}
            listing = listed.result()
            has_changed |= self._update_files(reader, listing.paths, stamps, division)
            has_changed |= self._update_history(listing.tree, history.result())
        self._tracked = listing.tracked
        problems = tuple(dict.fromkeys((*self._repository_problems, *listing.problems)))
        has_changed |= problems != self.problems
        self.problems = problems
        self.looked_at = began
        return self._refreshed(has_changed)

    def refresh_some(self, paths: Collection[str], division: Division | None = None) -> bool:
        """``refresh`` when the caller knows that at most these paths changed. It looks at them only, unless one is
        new, gone, or decides what belongs to the project."""
        with reading(self.root) as reader:
            stamps = {path: reader.stamp(path) for path in paths if not self._is_passing(reader, path)}
            if not self.generation or not all(self._is_plain(path, stamp) for path, stamp in stamps.items()):
                return self.refresh(division)
            tree = self.tree
            if tree is not None:
                known = self._git_state
                self._open_repository()
                if self._git_state != known:
                    return self.refresh(division)
                tree = self._tree_after(tree, sorted(stamps))
                if tree is None:
                    return self.refresh(division)
            has_changed = self._update_some(reader, stamps)
        has_changed |= self._update_history(tree, self.history)
        return self._refreshed(has_changed)

    def _refreshed(self, has_changed: bool) -> bool:
        if self.index.waiting <= _ABSORBED_AT_ONCE:
            self.index.absorb(_ABSORBED_AT_ONCE)
        if has_changed or self.generation == 0:
            self.generation = max(self.generation, self._begin) + 1
        return has_changed

    def _named(self) -> list[str]:
        """The paths that git tracks, for a first look: what else belongs to the project is told by ``_list``."""
        try:
            self._tracked = tracked(self._repository, self._tracked) if self._repository is not None else None
        except GitFailed:
            return []  # it fails ``_list`` too, which says so
        exclude = compile_globs(self.limits.exclude + choice_of(self.root).exclude)
        paths = self._tracked.files if self._tracked is not None else []
        return [path for path in paths if exclude is None or not exclude.match(path)]

    def _list(self) -> Listing:
        own = choice_of(self.root)
        include, exclude = self.limits.include + own.include, self.limits.exclude + own.exclude
        listing = list_files(self.root, self._repository, include, exclude, self._tracked)
        if not own.problem:
            return listing
        return msgspec.structs.replace(listing, problems=(*listing.problems, own.problem))

    def _is_passing(self, reader: Reader, path: str) -> bool:
        """Whether nothing is at ``path`` and nothing is known to have been there: a file that came and went."""
        if path in self.files or path.rsplit("/", 1)[-1] in _RULES:  # rules count though they may be ignored themselves
            return False
        if reader.stamp(path) is not None or reader.is_directory(path) or os.path.islink(os.path.join(self.root, path)):
            return False
        return not any(known.startswith(path + "/") for known in self.files)

    def _is_plain(self, path: str, stamp: Stamp | None) -> bool:
        """Whether a look at this file alone is enough."""
        if stamp is None or path not in self.files or path.rsplit("/", 1)[-1] in _RULES:
            return False
        submodules = self._tracked.submodules if self._tracked is not None else ()
        return not any(path.startswith(submodule + "/") for submodule in submodules)

    def _tree_after(self, tree: WorkTree, paths: list[str]) -> WorkTree | None:
        """``tree`` when at most ``paths`` changed since; None when something else did, or git does not answer."""
        if not paths:
            return tree
        try:
            found = work_tree(self._repository, paths) if self._repository is not None else None
        except GitFailed:
            return None
        if found is None or (found.head, found.branch) != (tree.head, tree.branch):
            return None
        changes = {path: status for path, status in tree.changes if path not in paths} | dict(found.changes)
        return msgspec.structs.replace(
            tree,
            changes=tuple(sorted(changes.items(), key=lambda change: os.fsencode(change[0]))),
            is_staged=tree.is_staged or found.is_staged,
        )

    def _restore(self) -> None:
        """Begin with what an earlier run left; every file is still compared with its stamp by ``refresh``."""
        kept = load(self._state_dir, self.root, self._settings) if self._state_dir else None
        if kept is not None:
            self.index, self.files, self.history = kept.index, kept.files, kept.history

    def absorb(self) -> bool:
        """Take some of the files apart that only their identifiers are known of; whether more are waiting."""
        return self.index.absorb(_ABSORBED_AT_ONCE) > 0

    def to_save(self) -> bytes | None:
        """What ``persist.write`` keeps for the next run: after the first look, then at most once a minute; None when
        nothing is due."""
        generation, saved_at = self._saved
        is_due = generation == 0 or time.monotonic() - saved_at > _SAVE_S
        if self._state_dir and len(self.files) >= _SAVED_FILES and generation != self.generation and is_due:
            self.index.absorb(self.index.waiting)
            self._saved = (self.generation, time.monotonic())
            # of a shallow clone the next run could not tell that it was completed meanwhile
            history = self.history if self._history_end is None else []
            return encode(self.root, self._settings, self.index, self.files, history)
        return None

    def is_unchanged(self) -> bool:
        """Whether git and every known file still have their stamps (new files are not looked for)."""
        if self.has_git_moved():
            return False
        try:
            with reading(self.root) as reader:
                return all(reader.stamp(path) == facts.stamp for path, facts in self.files.items())
        except OSError:
            return False

    def has_git_moved(self) -> bool:
        """Whether git was told something since the last look. A watch sees nothing of it where git's directory is
        outside of the project: for work trees and subdirectories."""
        return self._repository is not None and self._repository.state() != self._git_state

    def _open_repository(self) -> None:
        self._repository_problems: tuple[str, ...] = ()
        try:
            self._repository = Repository(
                self.root, self.limits.git_timeout_s, index_copy=self._index_copy, settings=self._git_settings
            )
            self._git_state = self._repository.state()
        except GitFailed as error:
            self._repository, self._git_state = None, {}
            if error.reason != "not_a_repository":
                self._repository_problems = (str(error),)

    def _update_files(
        self, reader: Reader, paths: list[str], stamps: dict[str, Stamp | None], division: Division
    ) -> bool:
        """Look at all files; ``stamps`` are those that the known ones have now."""
        stale: list[Task] = []
        seen: dict[str, FileFacts] = {}
        for path in paths:
            stamp = stamps[path] if path in stamps else reader.stamp(path)
            if stamp is None:
                continue
            known = self.files.get(path)
            if known is not None and known.stamp == stamp:
                seen[path] = known
            else:
                stale.append(Task(path, stamp, known.checksum if known is not None else ""))
        gone = [facts for path, facts in self.files.items() if path not in seen]
        replaced = {facts.path: facts for facts in gone}
        has_changed = len(seen) + len(stale) != len(self.files)
        if has_changed or any(task.path not in replaced for task in stale):
            self.layout += 1
        stale.sort(key=lambda task: task.path)
        for task, found in division.digests(reader, stale):
            facts = self._take(task, found, replaced.get(task.path))
            # a file that is not read has no checksum: its stamp alone tells
            has_changed |= task.path not in replaced or facts.checksum != task.checksum or not facts.checksum
            seen[task.path] = facts
        for facts in gone:
            if seen.get(facts.path) is None or seen[facts.path].document != facts.document:
                self.index.remove(facts.document)
        self.files = seen
        if self.index.is_sparse:
            self._rebuild(reader, division)
            has_changed = True  # documents have other numbers now: what was made for the old ones is not to be used
        return has_changed

    def _update_some(self, reader: Reader, stamps: dict[str, Stamp | None]) -> bool:
        """Look at these known files."""
        has_changed = False
        for path, stamp in stamps.items():
            known = self.files[path]
            if stamp is None or stamp == known.stamp:
                continue
            task = Task(path, stamp, known.checksum)
            facts = self.files[path] = self._take(task, digest(reader, task), known)
            has_changed |= facts.checksum != known.checksum or not facts.checksum
            if facts.document != known.document:
                self.index.remove(known.document)
        return has_changed

    def _take(self, task: Task, found: Digest, old: FileFacts | None) -> FileFacts:
        """Facts of a file that was read; its document is kept when the content is the same."""
        facts = FileFacts(task.path, found.stamp, found.kind, found.language, found.checksum, -1, found.is_text)
        facts.refusal = found.refusal
        if found.is_same and old is not None:
            facts.kind, facts.document, facts.is_text = old.kind, old.document, old.is_text
        elif found.counted is not None:
            if self.index.is_full:
                self.index.absorb(self.index.waiting)
            facts.document = self.index.add(task.path, found.counted)
        return facts

    def _rebuild(self, reader: Reader, division: Division) -> None:
        """Index everything anew, to be rid of dead documents."""
        self.index = Index(self.index.splitter)
        tasks = [Task(facts.path, facts.stamp) for _, facts in sorted(self.files.items()) if facts.document >= 0]
        for task, found in division.digests(reader, tasks):
            self.files[task.path] = self._take(task, found, None)

    def _commits(self, tree: WorkTree | None) -> list[Commit]:
        if tree is None or self._repository is None:
            return []
        end = self._repository.history_end
        is_deeper = end != self._history_end
        if tree.head == self._history_head and not is_deeper:
            return self.history
        # where history ended, a commit looked as if it had brought every file
        known = [] if is_deeper else self.history
        try:
            found = commits(self._repository, tree.head, known, self.most_commits)
        except GitFailed as error:
            self._repository_problems += (str(error),)
            return self.history  # the next look at everything asks again
        self._history_head, self._history_end = tree.head, end
        return found

    def _update_history(self, tree: WorkTree | None, history: list[Commit]) -> bool:
        has_changed = tree != self.tree
        if tree is None or self._repository is None:
            self.tree, self.changes, self.history, self.remote = None, (), [], None
            self._history_head = ""
            self.chronicle.update([])
            return has_changed
        if self.tree is None or history is not self.history:
            has_changed = True
            self.history = history
            self.chronicle.update(history)
        key = (tree, change_states(self._repository, tree, self.files))
        if key != self._change_key:
            self.changes, has_answered = diffs(self._repository, tree)
            self._change_key = key if has_answered else None  # then the next look asks again
            has_changed = True
        origin = remote(self._repository)
        has_changed |= origin != self.remote
        self.tree, self.remote = tree, origin
        return has_changed

    def withheld(self) -> list[tuple[str, str]]:
        """Text files that are never shown, with the reason: ``secret``, ``too_large``, ``lfs_pointer``, or why they
        could not be read; made once for a state."""
        if self._withheld is None or self._withheld[0] != self.generation:
            found = []
            for path, facts in self.files.items():
                if facts.document < 0 and (facts.is_text or facts.refusal):
                    if is_secret_file(path):
                        found.append((path, "secret"))
                    elif facts.refusal:
                        found.append((path, facts.refusal))
                    elif facts.stamp.size > LARGEST_BYTES:
                        found.append((path, "too_large"))
                    elif facts.kind == "lfs":
                        found.append((path, "lfs_pointer"))
            self._withheld = (self.generation, sorted(found))
        return self._withheld[1]

    def readable(self) -> list[FileFacts]:
        """The files whose text may be shown."""
        return [facts for facts in self.files.values() if facts.document >= 0]
