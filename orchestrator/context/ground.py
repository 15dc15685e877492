"""The ground of a ranking: what does not depend on the task. Made once for a state of a project and a role."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

from orchestrator.context.models import FileFacts
from orchestrator.context.project import ProjectState
from orchestrator.context.roles import DEMAND, WISH, Focus, is_entry_point, share_of_size
from orchestrator.context.terrain import Terrain


class Ground:
    """A terrain as a role sees it: how much each file counts for it.

    Attributes:
        terrain: the project's files.
        version: the terrain's version that this was made for.
        ordered: the documents that the role may get, in the order of their paths.
        factors: by document (``size`` in all) how much its kind counts; 0 for what the role never gets and for dead
            documents.
        shares: by document what the role's wishes add, by name.
    """

    def __init__(self, terrain: Terrain, focus: Focus, size: int) -> None:
        self.terrain = terrain
        self.version = terrain.version
        self.ordered: Sequence[int] = terrain.ordered
        self.factors = [0.0] * size
        self.shares: dict[int, dict[str, float]] = {}
        self._focus = focus
        self._kept: dict[object, list[float]] = {}
        for (kind, language), documents in terrain.kinds.items():
            factor = focus.factor(kind, language)
            for document in documents:
                self.factors[document] = factor
        self._wish()
        if focus.excluded is not None and (excluded := terrain.chosen(focus.excluded.match)):
            for path in excluded:
                self.factors[terrain.by_path[path]] = 0.0
                self.shares.pop(terrain.by_path[path], None)
            self.ordered = [document for document in terrain.ordered if terrain.files[document].path not in excluded]

    def __len__(self) -> int:
        return len(self.ordered)

    @property
    def size_bytes(self) -> int:
        """Memory that this takes beside its terrain, estimated."""
        return 16 * len(self.factors) + 300 * len(self.shares) + 1000  # with the numbers that ``keep`` keeps

    def _wish(self) -> None:
        terrain, focus, by_path = self.terrain, self._focus, self.terrain.by_path
        wishes: dict[str, tuple[str, float]] = {}
        for name, share, is_wanted in focus.wishes():
            wishes.update(dict.fromkeys(terrain.chosen(is_wanted), (name, share)))
        for path, (name, share) in wishes.items():
            document = by_path[path]
            self.shares[document] = {name: share}
            if share >= DEMAND:
                self.factors[document] = max(self.factors[document], 1.0)
        for path in terrain.chosen(is_entry_point) if focus.wants_entries else ():
            self.shares.setdefault(by_path[path], {})["entry"] = WISH
        for (kind, _), documents in terrain.kinds.items() if focus.wants_large else ():
            for document in documents if kind == "code" else ():
                self.shares.setdefault(document, {})["large"] = share_of_size(terrain.files[document])

    def keep(self, key: object, make: Callable[[], list[float]]) -> list[float]:
        """What ``make`` gave for ``key``: a number for each document that depends on nothing but this ground, and of
        a file only on its path. One key at a time is kept."""
        if key not in self._kept:
            self._kept = {key: make()}
        return self._kept[key]

    def follow(self, size: int) -> bool:
        """Take over the terrain's last change; whether that was possible, so that no new ground is needed."""
        terrain = self.terrain
        if terrain.version == self.version:
            return True
        replaced = terrain.replaced
        if terrain.version != self.version + 1 or replaced is None or self.ordered is not terrain.ordered:
            return False
        if self._focus.wants_large or any(_kind(old) != _kind(new) for old, new in replaced):
            return False
        # what all had is taken before anything is written: a number may be given up by one and taken by another
        for values in (self.factors, *self._kept.values()):
            values += [0.0] * (size - len(values))
            had = [values[old.document] for old, _ in replaced]
            for old, _ in replaced:
                values[old.document] = 0.0
            for (_, new), value in zip(replaced, had, strict=True):
                values[new.document] = value
        shares = [(new.document, self.shares.pop(old.document, None)) for old, new in replaced]
        self.shares.update((document, share) for document, share in shares if share is not None)
        self.version = terrain.version
        return True


def _kind(facts: FileFacts) -> tuple[str, str]:
    return facts.kind, facts.language


class GroundCache:
    """Grounds by project and role with the terrains that they share; the least recently used go beyond ``capacity``
    bytes in all.

    Thread-safe for projects that are worked on at the same time, each by one thread.
    """

    def __init__(self, capacity: int = 100 << 20) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._terrains: dict[str, tuple[int, int, Terrain]] = {}
        self._grounds: OrderedDict[tuple[str, bytes], Ground] = OrderedDict()
        #: What each took when it was last asked for, and all of them together.
        self._sizes: dict[tuple[str, bytes], int] = {}
        self._size = 0

    def get(self, state: ProjectState, role: bytes, focus: Focus) -> Ground:
        """The ground of a project as it is now for a role, brought up to date or made anew."""
        key = (state.root, role)
        terrain, size = self._terrain(state), len(state.index.alive)
        with self._lock:
            ground = self._grounds.get(key)
        if ground is None or ground.terrain is not terrain or not ground.follow(size):
            ground = Ground(terrain, focus, size)
        with self._lock:
            self._grounds[key] = ground
            self._grounds.move_to_end(key)
            self._size += ground.size_bytes - self._sizes.get(key, 0)
            self._sizes[key] = ground.size_bytes
            self._shrink()
        return ground

    def _terrain(self, state: ProjectState) -> Terrain:
        with self._lock:
            generation, depth, terrain = self._terrains.get(state.root, (0, 0, None))
        chronicle = state.chronicle
        # the newest commit stays the same when a shallow clone is completed
        if terrain is None or (terrain.newest, depth) != (chronicle.newest, len(chronicle.commits)):
            terrain = Terrain(state.readable(), state.chronicle)
        elif generation != state.generation:
            terrain.update(state.readable(), state.chronicle)
        with self._lock:
            self._terrains[state.root] = (state.generation, len(chronicle.commits), terrain)
        return terrain

    def _shrink(self) -> None:
        """Drop what was not used for longest; the caller holds the lock."""
        terrains = sum(terrain.size_bytes for _, _, terrain in self._terrains.values())
        while self._size + terrains > self._capacity and len(self._grounds) > 1:
            key, _ = self._grounds.popitem(last=False)
            self._size -= self._sizes.pop(key)
            root = key[0]
            if root in self._terrains and not any(other == root for other, _ in self._grounds):
                terrains -= self._terrains.pop(root)[2].size_bytes
