"""The terrain: what is known of a project's files whatever the task and the role are. Shared by all of its grounds."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable

from orchestrator.context.chronicle import Chronicle
from orchestrator.context.models import FileFacts
from orchestrator.context.query import plain

#: So many choices of paths are kept, more than all profiles together have: requests bring requirements of their own.
_MOST_CHOSEN = 256


class Terrain:
    """The readable files of a project, and what their paths and the history say of them.

    Attributes:
        files: by document the file.
        ordered: the documents in the order of their paths.
        by_path: by path the document.
        recency: by document how recently it changed (0 to 1).
        activity: by document how often it changed.
        once: the documents that a single commit brought and none changed since.
        names: by lower-case file name, with and without its extension, ``(document, worth)``.
        places: by plain name of a directory or of a file without its extension the documents there.
        kinds: by kind and language the documents.
        newest: the newest commit that it knows of.
        version: grows with every change.
        replaced: what the last change consisted of when the paths stayed the same, ``(before, now)`` of each file;
            None when files came or went.
    """

    def __init__(self, files: Iterable[FileFacts], chronicle: Chronicle) -> None:
        self.files: dict[int, FileFacts] = {}
        self.ordered: list[int] = []
        self.by_path: dict[str, int] = {}
        self.recency: dict[int, float] = {}
        self.activity: dict[int, float] = {}
        self.once: set[int] = set()
        self.names: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
        self.places: defaultdict[str, set[int]] = defaultdict(set)
        self.kinds: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
        self.newest = chronicle.newest
        self.version = 0
        self.replaced: list[tuple[FileFacts, FileFacts]] | None = None
        self._paths: list[str] = []
        self._chosen: dict[Callable[[str], object], frozenset[str]] = {}
        self._folders: dict[str, frozenset[str]] = {}
        self.update(files, chronicle)

    @property
    def size_bytes(self) -> int:
        """Memory that this takes, estimated."""
        return 1000 * len(self.files)

    def update(self, files: Iterable[FileFacts], chronicle: Chronicle) -> None:
        """Take over which files there are now; only what is not the same object as before is looked at."""
        now = list(files)
        known = self.files
        fresh = [facts for facts in now if known.get(facts.document) is not facts]
        before = [self.by_path[facts.path] for facts in fresh if facts.path in self.by_path]
        if len(known) - len(before) + len(fresh) != len(now) or len({*before}) != len(before):
            before = [*{*before, *(known.keys() - {facts.document for facts in now})}]
        gone = [known[document] for document in before]
        if not (fresh or gone):
            return
        self.version += 1
        for facts in gone:
            self._drop(facts)
        for facts in fresh:
            self._add(facts, chronicle)
        old = {facts.path: facts for facts in gone}
        if old.keys() == {facts.path for facts in fresh}:
            self.replaced = [(old[facts.path], facts) for facts in fresh]
            for facts in fresh:
                self.ordered[bisect_left(self._paths, facts.path)] = facts.document
        else:
            self.replaced = None
            self._chosen = {}
            self._paths = sorted(self.by_path)
            self.ordered = [self.by_path[path] for path in self._paths]

    def chosen(self, is_wanted: Callable[[str], object]) -> frozenset[str]:
        """The paths for which ``is_wanted`` is true: asked once for all roles that share it."""
        found = self._chosen.get(is_wanted)
        if found is None:
            if len(self._chosen) >= _MOST_CHOSEN:
                self._chosen.clear()
            found = self._chosen[is_wanted] = frozenset(filter(is_wanted, self._paths))
        return found

    def _add(self, facts: FileFacts, chronicle: Chronicle) -> None:
        document = facts.document
        self.files[document] = facts
        self.by_path[facts.path] = document
        changes = chronicle.by_file.get(facts.path)
        if changes:
            self.recency[document] = chronicle.recency(facts.path)
            self.activity[document] = chronicle.activity(facts.path)
            if len(changes) == 1:
                self.once.add(document)
        for name, worth in _names(facts.path):
            self.names[name].append((document, worth))
        for place in self._places(facts.path):
            self.places[place].add(document)
        self.kinds[facts.kind, facts.language].add(document)

    def _drop(self, facts: FileFacts) -> None:
        document = facts.document
        del self.files[document]
        del self.by_path[facts.path]
        self.recency.pop(document, None)
        self.activity.pop(document, None)
        self.once.discard(document)
        for name, worth in _names(facts.path):
            self.names[name].remove((document, worth))
        for place in self._places(facts.path):
            self.places[place].discard(document)
        self.kinds[facts.kind, facts.language].discard(document)

    def _places(self, path: str) -> set[str]:
        """The plain names of the directories above a file and of the file without its extension."""
        folder, _, name = path.rpartition("/")
        above = self._folders.get(folder)
        if above is None:
            above = self._folders[folder] = frozenset(map(plain, folder.split("/") if folder else ()))
        return {plain(name.rsplit(".", 1)[0]), *above}


def _names(path: str) -> list[tuple[str, float]]:
    """A file's lower-case name with and without its extension, and what a mention of each is worth."""
    name = path.rpartition("/")[2]
    stem, dot, _ = name.rpartition(".")
    bare = (stem if dot else name).strip("_")
    found = [(name.lower(), 1.0)] if dot else []
    if len(bare) > 2:
        found.append((bare.lower(), 1.0 if _COMPOUND.search(bare) else 0.6))
    return found


#: A name of several words is no word of prose, so a text that has it means the file.
_COMPOUND = re.compile(r"[-_.]|[a-z0-9][A-Z]")
