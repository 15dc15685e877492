"""The inverted index of one project: which words stand where, by path, by definitions and by body."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping

from orchestrator.context.backlog import Backlog
from orchestrator.context.counts import Counted
from orchestrator.context.words import Splitter

FIELDS = ("body", "definitions", "path")
#: A posting is ``document << 8 | count``, the count capped at 255.
_SHIFT = 8
_MOST = 255


class Postings:
    """One field: by token the documents with their counts, and by document its length."""

    def __init__(self) -> None:
        self.lists: dict[int, array[int]] = {}
        self.lengths: array[int] = array("I")
        self.total = 0

    def reserve(self, length: int) -> None:
        """The next document is so long (its number is one more than the last one's)."""
        self.lengths.append(length)
        self.total += length

    def add(self, document: int, counts: Mapping[int, int]) -> None:
        """Add a document's tokens."""
        lists = self.lists
        shifted = document << _SHIFT
        for token, count in counts.items():
            posting = shifted | (count if count < _MOST else _MOST)
            if token in lists:
                lists[token].append(posting)
            else:
                lists[token] = array("I", (posting,))


class Index:
    """Words of documents. A changed document gets a new number; the old one is dead until ``is_sparse`` says
    that rebuilding pays.

    A new document is only counted by its identifiers, which is cheap, and waits in the backlog until ``absorb``
    takes the identifiers apart. ``prepare`` makes a query see the backlog too, so the scores are the same before
    and after.

    Attributes:
        alive: 1 for documents that count, by number.
        names: by exact defined name the documents that define it.
        size_bytes: memory that the index takes, estimated.
    """

    def __init__(self, splitter: Splitter | None = None) -> None:
        self.splitter = splitter or Splitter()
        self.tokens: dict[str, int] = {}
        self.fields = {name: Postings() for name in FIELDS}
        self.alive = bytearray()
        self.names: dict[str, array[int]] = {}
        self.size_bytes = 0
        self._backlog = Backlog(self.splitter)
        self._early: dict[tuple[str, str], array[int]] = {}
        self._dead = 0

    @property
    def count(self) -> int:
        """Number of documents that count."""
        return len(self.alive) - self._dead

    @property
    def waiting(self) -> int:
        """Number of documents in the backlog."""
        return len(self._backlog)

    @property
    def is_sparse(self) -> bool:
        """Whether more than a third of a sizeable index is dead."""
        return self._dead > 500 and self._dead * 2 > self.count

    @property
    def waiting_bytes(self) -> int:
        """Memory that the backlog takes, estimated; not in ``size_bytes``."""
        return self._backlog.size_bytes

    @property
    def is_full(self) -> bool:
        """Whether the backlog should be absorbed before more documents come, lest it take too much memory."""
        return self._backlog.is_full

    def add(self, path: str, counted: Counted) -> int:
        """Take in a document and return its number."""
        document = len(self.alive)
        self.alive.append(1)
        known = self.names
        names = [name.decode("utf-8", "replace") for name in counted.defined]
        for name in names:
            if name in known:
                known[name].append(document)
            else:
                known[name] = array("I", (document,))
        self._backlog.add(document, counted)
        self.fields["body"].reserve(counted.total)
        self.fields["definitions"].reserve(len(names))
        parts = Counter(self._tokens(self.splitter.words(path)))
        self.fields["path"].reserve(parts.total())
        self.fields["path"].add(document, parts)
        self.size_bytes += 4 * len(parts) + 24 * len(names) + 400
        return document

    def absorb(self, most: int) -> int:
        """Move up to ``most`` documents from the backlog into the postings; how many still wait."""
        self._early = {}
        for document, body, defined in self._backlog.take(most, self._tokens):
            self.fields["body"].add(document, body)
            self.fields["definitions"].add(document, defined)
            self.size_bytes += 4 * (len(body) + len(defined))
        return len(self._backlog)

    def prepare(self, words: Iterable[str]) -> None:
        """Let ``postings`` of these words tell of the documents in the backlog too, until the next call."""
        self._early = self._backlog.postings(frozenset(words)) if self._backlog else {}

    def remove(self, document: int) -> None:
        """A document counts no more."""
        if 0 <= document < len(self.alive) and self.alive[document]:
            self.alive[document] = 0
            self._dead += 1
            self._backlog.discard(document)
            for field in self.fields.values():
                field.total -= field.lengths[document]

    def restore(self, alive: bytearray, names: dict[str, array[int]]) -> None:
        """Take over which documents count and what they define, as kept from an earlier run."""
        self.alive = alive
        self.names = names
        self._dead = alive.count(0)

    def _tokens(self, words: Iterable[str]) -> list[int]:
        tokens = self.tokens
        found = []
        for word in words:
            token = tokens.get(word)
            if token is None:
                token = tokens[word] = len(tokens)
                self.size_bytes += 160
            found.append(token)
        return found

    def postings(self, field: str, word: str) -> array[int]:
        """Postings (``document << 8 | count``) of ``word`` in ``field``; dead documents are among them."""
        token = self.tokens.get(word)
        found = _NONE if token is None else self.fields[field].lists.get(token, _NONE)
        early = self._early.get((field, word))
        return found if early is None else found + early

    def frequency(self, word: str) -> int:
        """In how many bodies ``word`` stands (an upper bound while documents are dead)."""
        return len(self.postings("body", word))

    def defining(self, name: str) -> list[int]:
        """The documents that define ``name`` exactly."""
        return [document for document in self.names.get(name, ()) if self.alive[document]]


_NONE: array[int] = array("I")
