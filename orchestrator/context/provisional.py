"""The provisional answer of a project that nothing is known of yet: a glance at its files, ranked like any other.

Instead of counting every identifier, the glance counts a few words of the task, the rarest of a sample; history goes
back some hundred commits, and fewer files are opened. Files, ranking, excerpts, redaction and form are those of the
full answer, so it is worse only where the glance saw less. Nothing of it is kept.
"""

from __future__ import annotations

import math
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from orchestrator.context.chronicle import Chronicle
from orchestrator.context.counts import Counted, needle
from orchestrator.context.digest import Digest, Task
from orchestrator.context.division import Division
from orchestrator.context.index import Index
from orchestrator.context.kinds import kind_of
from orchestrator.context.library import Library
from orchestrator.context.metadata import Metadata
from orchestrator.context.models import BuildAnswer, BuildOrder
from orchestrator.context.project import Limits, ProjectState
from orchestrator.context.query import Query, parse
from orchestrator.context.reading import Reader, Refused
from orchestrator.context.render import render
from orchestrator.context.words import Splitter

#: So many words of the task are looked for, each a pass over all texts.
_WORDS = 6
#: Shorter words stand within too many others.
_LEAST_LETTERS = 3
#: So many files, of so many bytes at most, tell which words of the task are rare.
_SAMPLE = 24
_SAMPLE_BYTES = 1 << 18
_COMMITS = 300
#: So many times the budget is opened of the best files: opening is most of what is left beside reading the project.
_BREADTH = 4
#: A project of fewer bytes is indexed as fast as it is glanced at.
LEAST_BYTES = 1 << 20


#: How the document begins, so that nobody takes it for the full answer.
_MARK = b'{"partial":true,'


class Stems(Splitter):
    """Takes identifiers apart, except for ``stems``, which are parts already."""

    def __init__(self, stems: frozenset[str]) -> None:
        super().__init__()
        self._own = stems

    def split(self, identifier: str) -> tuple[str, ...]:
        """As for any splitter."""
        return (identifier,) if identifier in self._own else super().split(identifier)


class Sketch(Index):
    """The index of a glance: all that it holds is about ``stems``, which is little enough for no document to wait."""

    def __init__(self, stems: frozenset[str]) -> None:
        super().__init__(Stems(stems))
        self._needles = [needle(stem).decode("utf-8", "surrogatepass") for stem in stems]

    def add(self, path: str, counted: Counted) -> int:
        """Take in a document and return its number; a path without the task's words is not taken apart."""
        document = len(self.alive)
        self.alive.append(1)
        body, definitions, names = (self.fields[field] for field in ("body", "definitions", "path"))
        body.reserve(counted.total)
        definitions.reserve(0)
        if counted.identifiers:
            words = counted.identifiers.decode("utf-8", "surrogatepass").split("\n")
            body.add(document, dict(zip(self._tokens(words), counted.counts, strict=True)))
        low = path.lower()
        parts = Counter(self.splitter.words(path)) if [1 for part in self._needles if part in low] else _NO_WORDS
        names.reserve(parts.total() or _COMMON_WORDS)
        names.add(document, dict(zip(self._tokens(parts), parts.values(), strict=True)))
        return document


_NO_WORDS: Counter[str] = Counter()
#: Words of a path of common length.
_COMMON_WORDS = 4


class Glimpse(ProjectState):
    """What a glance saw of a project; used for one answer."""

    most_commits = _COMMITS

    def __init__(self, root: str, limits: Limits, query: Query) -> None:
        super().__init__(root, limits)
        self.index = Sketch(frozenset(query.terms))
        self.chronicle = Chronicle(self.index.splitter)


class Glance(Division):
    """Looks for the words of a task instead of counting everything.

    Args:
        hire, root: as for any division.
        query: the task.
    """

    def __init__(self, hire: Callable[[], socket.socket] | None, root: str, query: Query) -> None:
        super().__init__(hire, root)
        self._query = query
        self._words: list[str] | None = None

    def digests(
        self, reader: Reader, tasks: Sequence[Task], words: Sequence[str] | None = None
    ) -> Iterator[tuple[Task, Digest]]:
        """As for any division; ``words`` are the rarest of the query, as the first tasks have them."""
        if self._words is None and tasks:
            self._words = self._rarest(reader, tasks)
        return super().digests(reader, tasks, words or self._words or ())

    def _rarest(self, reader: Reader, tasks: Sequence[Task]) -> list[str]:
        """The words of the query that tell most, by their weight and how few files of a sample have them."""
        terms = {word: weight for word, weight in self._query.terms.items() if len(word) >= _LEAST_LETTERS}
        if len(terms) <= _WORDS:
            return list(terms)
        texts = self._sample(reader, tasks)
        total = len(texts)

        def worth(word: str) -> float:
            part = needle(word)
            having = sum(part in text for text in texts)
            return terms[word] * math.log(1 + (total - having + 0.5) / (having + 0.5))

        return sorted(terms, key=worth, reverse=True)[:_WORDS]

    def _sample(self, reader: Reader, tasks: Sequence[Task]) -> list[bytes]:
        """Texts of code from all over the project, in lower case."""
        small = [task.path for task in tasks if task.stamp.size <= _SAMPLE_BYTES]
        texts: list[bytes] = []
        for path in small[:: max(1, len(small) // _SAMPLE)]:
            if kind_of(path) in ("code", "test"):
                with suppress(Refused):
                    texts.append(reader.read(path, _SAMPLE_BYTES).data.lower())
        return texts


def glance(
    order: BuildOrder,
    limits: Limits,
    *,
    hire: Callable[[], socket.socket] | None = None,
    least_bytes: int = LEAST_BYTES,
) -> BuildAnswer | None:
    """A provisional answer; None when the project has less than ``least_bytes``, so that the full one takes no longer.

    Raises OSError when the project's directory cannot be read.
    """
    query = parse(order.task, Splitter())
    library = Library(limits, 0, breadth=_BREADTH)
    state = Glimpse(order.root, limits, query)
    with Glance(hire, order.root, query) as division:
        state.refresh(division)
        if sum(facts.stamp.size for facts in state.files.values()) < least_bytes:
            return None
        selection = library.choose(state, order, division)
        body, etag = render(order, state, selection, Metadata().describe(state))
    return BuildAnswer(body=_MARK + body[1:], etag=f'"partial-{etag[1:]}', generation=0)
