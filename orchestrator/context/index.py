"""The inverted index of one project: which words stand where, by path, by definitions and by body."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable

from orchestrator.context.outline import Definition
from orchestrator.context.words import Splitter, raw_identifiers

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

    def add(self, document: int, counts: dict[int, int], length: int) -> None:
        """Append a document; numbers must grow by one."""
        lists = self.lists
        shifted = document << _SHIFT
        for token, count in counts.items():
            posting = shifted | (count if count < _MOST else _MOST)
            known = lists.get(token)
            if known is None:
                lists[token] = array("I", (posting,))
            else:
                known.append(posting)
        self.lengths.append(length)
        self.total += length


class Index:
    """Words of documents. A changed document gets a new number; the old one is dead until ``is_sparse`` says
    that rebuilding pays.

    Attributes:
        alive: 1 for documents that count, by number.
        names: by exact defined name the documents that define it.
        spans: by document the number of its bytes.
    """

    def __init__(self, splitter: Splitter | None = None) -> None:
        self.splitter = splitter or Splitter()
        self.tokens: dict[str, int] = {}
        self.fields = {name: Postings() for name in FIELDS}
        self.alive = bytearray()
        self.names: dict[str, array[int]] = {}
        self.size_bytes = 0
        self._identifiers: dict[bytes, tuple[int, ...]] = {}
        self._dead = 0

    @property
    def count(self) -> int:
        """Number of documents that count."""
        return len(self.alive) - self._dead

    @property
    def is_sparse(self) -> bool:
        """Whether more than a third of a sizeable index is dead."""
        return self._dead > 500 and self._dead * 2 > self.count

    def add(self, path: str, data: bytes, found: Iterable[Definition]) -> int:
        """Index a document and return its number. ``data`` is its text (empty: only the path counts)."""
        document = len(self.alive)
        self.alive.append(1)
        body, length = self._body(data)
        self.fields["body"].add(document, body, length)
        names = {definition.name for definition in found}
        defined: Counter[int] = Counter()
        for name in names:
            defined.update(self._tokens(self.splitter.split(name)))
            self.names.setdefault(name, array("I")).append(document)
        self.fields["definitions"].add(document, defined, defined.total())
        parts: Counter[int] = Counter(self._tokens(self.splitter.words(path)))
        self.fields["path"].add(document, parts, parts.total())
        self.size_bytes += 4 * (len(body) + len(defined) + len(parts)) + 24 * len(names) + 400
        return document

    def remove(self, document: int) -> None:
        """A document counts no more."""
        if 0 <= document < len(self.alive) and self.alive[document]:
            self.alive[document] = 0
            self._dead += 1
            for field in self.fields.values():
                field.total -= field.lengths[document]

    def restore(self, alive: bytearray, names: dict[str, array[int]]) -> None:
        """Take over which documents count and what they define, as kept from an earlier run."""
        self.alive = alive
        self.names = names
        self._dead = alive.count(0)

    def _body(self, data: bytes) -> tuple[dict[int, int], int]:
        known = self._identifiers
        counts: dict[int, int] = {}
        length = 0
        for identifier, count in Counter(raw_identifiers(data)).items():
            tokens = known.get(identifier)
            if tokens is None:
                tokens = self._identifier(identifier)
            for token in tokens:
                if token in counts:
                    counts[token] += count
                else:
                    counts[token] = count
            length += count
        return counts, length

    def _identifier(self, identifier: bytes) -> tuple[int, ...]:
        tokens = tuple(self._tokens(self.splitter.split(identifier.decode("utf-8", "replace"))))
        if len(self._identifiers) < 1_000_000:
            self._identifiers[identifier] = tokens
            self.size_bytes += 150
        return tokens

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
        if token is None:
            return _NONE
        return self.fields[field].lists.get(token, _NONE)

    def frequency(self, word: str) -> int:
        """In how many bodies ``word`` stands (an upper bound while documents are dead)."""
        return len(self.postings("body", word))

    def defining(self, name: str) -> list[int]:
        """The documents that define ``name`` exactly."""
        return [document for document in self.names.get(name, ()) if self.alive[document]]


_NONE: array[int] = array("I")
