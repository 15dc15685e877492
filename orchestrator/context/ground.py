"""The ground of a ranking: what does not depend on the task. Made once for a state of a project and a role."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Iterable

from orchestrator.context.chronicle import Chronicle
from orchestrator.context.models import FileFacts
from orchestrator.context.project import ProjectState
from orchestrator.context.query import plain
from orchestrator.context.roles import Focus


class Ground:
    """Files with their priors and what speaks for them whatever the task is.

    Attributes:
        files: by document the file.
        by_path: by path the document.
        factors: by document how much its kind counts.
        shares: by document what the role's wishes add, by name.
        recency: by document how recently it changed (0 to 1).
        activity: by document how often it changed.
        once: the documents that a single commit brought and none changed since.
        names: by lower-case file name, with and without its extension, ``(document, worth)``.
        places: by plain name of a directory or of a file without its extension the documents there.
    """

    def __init__(self, files: Iterable[FileFacts], chronicle: Chronicle, focus: Focus) -> None:
        self.files: dict[int, FileFacts] = {}
        self.by_path: dict[str, int] = {}
        self.factors: dict[int, float] = {}
        self.shares: dict[int, dict[str, float]] = {}
        self.recency: dict[int, float] = {}
        self.activity: dict[int, float] = {}
        self.once: set[int] = set()
        self.names: dict[str, list[tuple[int, float]]] = {}
        self.places: dict[str, set[int]] = {}
        self.newest = chronicle.newest
        self._excluded: dict[int, FileFacts] = {}
        self.update(files, chronicle, focus)

    def update(self, files: Iterable[FileFacts], chronicle: Chronicle, focus: Focus) -> None:
        """Take over which files there are now; only what is not the same object as before is looked at."""
        now = {facts.document: facts for facts in files}
        for known in (self._excluded, self.files):
            for document in [number for number, facts in known.items() if now.get(number) is not facts]:
                self._drop(known.pop(document))
        for document, facts in now.items():
            if document in self.files or document in self._excluded:
                continue
            if focus.excluded is not None and focus.excluded.match(facts.path):
                self._excluded[document] = facts
            else:
                self._add(facts, chronicle, focus)

    def _add(self, facts: FileFacts, chronicle: Chronicle, focus: Focus) -> None:
        document = facts.document
        self.files[document] = facts
        self.by_path[facts.path] = document
        self.factors[document], shares = focus.prior(facts)
        if shares:
            self.shares[document] = shares
        if facts.path in chronicle.by_file:
            self.recency[document] = chronicle.recency(facts.path)
            self.activity[document] = chronicle.activity(facts.path)
            if len(chronicle.by_file[facts.path]) == 1:
                self.once.add(document)
        for name, worth in _names(facts.path):
            self.names.setdefault(name, []).append((document, worth))
        for place in _places(facts.path):
            self.places.setdefault(place, set()).add(document)

    def _drop(self, facts: FileFacts) -> None:
        document = facts.document
        if self.by_path.get(facts.path) == document:
            del self.by_path[facts.path]
        for known in (self.factors, self.shares, self.recency, self.activity):
            known.pop(document, None)
        self.once.discard(document)
        for name, worth in _names(facts.path):
            if (document, worth) in self.names.get(name, ()):
                self.names[name].remove((document, worth))
        for place in _places(facts.path):
            self.places[place].discard(document)


def _names(path: str) -> list[tuple[str, float]]:
    """A file's lower-case name with and without its extension, and what a mention of each is worth."""
    name = path.rsplit("/", 1)[-1]
    bare = name.rsplit(".", 1)[0].strip("_")
    worth = 1.0 if _COMPOUND.search(bare) else 0.6
    return [(name.lower(), 1.0)] * ("." in name) + [(bare.lower(), worth)] * (len(bare) > 2)


#: A name of several words is no word of prose, so a text that has it means the file.
_COMPOUND = re.compile(r"[-_.]|[a-z0-9][A-Z]")


def _places(path: str) -> set[str]:
    """The plain names of the directories above a file and of the file without its extension."""
    *folders, name = path.split("/")
    return {plain(part) for part in (*folders, name.rsplit(".", 1)[0])}


class GroundCache:
    """Grounds by project and role; the least recently used go beyond ``capacity`` files in all.

    Thread-safe for projects that are worked on at the same time, each by one thread.
    """

    def __init__(self, capacity: int = 100_000) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._grounds: OrderedDict[tuple[str, bytes], tuple[int, Ground]] = OrderedDict()

    def get(self, state: ProjectState, role: bytes, focus: Focus) -> Ground:
        """The ground of a project as it is now for a role, brought up to date or made anew."""
        key = (state.root, role)
        with self._lock:
            generation, ground = self._grounds.get(key, (0, None))
        if ground is None or ground.newest != state.chronicle.newest:
            ground = Ground(state.readable(), state.chronicle, focus)
        elif generation != state.generation:
            ground.update(state.readable(), state.chronicle, focus)
        with self._lock:
            self._grounds[key] = (state.generation, ground)
            self._grounds.move_to_end(key)
            while len(self._grounds) > 1 and sum(len(g.files) for _, g in self._grounds.values()) > self._capacity:
                self._grounds.popitem(last=False)
        return ground
