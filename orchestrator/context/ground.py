"""The ground of a ranking: what does not depend on the task. Made once for a state of a project and a role."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from orchestrator.context.chronicle import Chronicle
from orchestrator.context.models import FileFacts
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
        names: by lower-case file name, with and without its extension, ``(document, worth)``.
    """

    def __init__(self, files: Iterable[FileFacts], chronicle: Chronicle, focus: Focus) -> None:
        self.files: dict[int, FileFacts] = {}
        self.by_path: dict[str, int] = {}
        self.factors: dict[int, float] = {}
        self.shares: dict[int, dict[str, float]] = {}
        self.recency: dict[int, float] = {}
        self.activity: dict[int, float] = {}
        self.names: dict[str, list[tuple[int, float]]] = {}
        for facts in files:
            if facts.document >= 0 and not (focus.excluded is not None and focus.excluded.match(facts.path)):
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
        name = facts.path.rsplit("/", 1)[-1].lower()
        bare = name.rsplit(".", 1)[0].strip("_")
        if "." in name:
            self.names.setdefault(name, []).append((document, 1.0))
        if len(bare) > 2:
            self.names.setdefault(bare, []).append((document, 0.6))


class GroundCache:
    """Grounds by project, generation and role; the least recently used go beyond ``capacity`` files in all."""

    def __init__(self, capacity: int = 100_000) -> None:
        self._capacity = capacity
        self._grounds: OrderedDict[tuple[str, int, bytes], Ground] = OrderedDict()

    def get(self, key: tuple[str, int, bytes]) -> Ground | None:
        """The ground, now the most recently used."""
        ground = self._grounds.get(key)
        if ground is not None:
            self._grounds.move_to_end(key)
        return ground

    def put(self, key: tuple[str, int, bytes], ground: Ground) -> None:
        """Keep a ground; older generations of its project go."""
        for old in [k for k in self._grounds if k[0] == key[0] and k[1] != key[1]]:
            del self._grounds[old]
        self._grounds[key] = ground
        while len(self._grounds) > 1 and sum(len(g.files) for g in self._grounds.values()) > self._capacity:
            self._grounds.popitem(last=False)
