"""The backlog of an index: documents whose identifiers are counted and not yet taken apart.

Counting identifiers is done by C code; taking each apart into stems is most of the work of indexing. A first answer
needs it only for the few identifiers that hold a word of its task, and those are found by searching.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator

from orchestrator.context.counts import MOST, Counted
from orchestrator.context.words import Splitter

#: More bytes should not wait: the documents are then taken before more come.
_LARGEST = 64 << 20

Tokens = Callable[[Iterable[str]], list[int]]
#: The part of an identifier's line from its first byte that is no ASCII.
_ODD = re.compile(rb"[\x80-\xff].*")


class Backlog:
    """Documents by number, in order.

    Attributes:
        size_bytes: memory that the waiting documents take, estimated.
    """

    def __init__(self, splitter: Splitter) -> None:
        self._splitter = splitter
        self._waiting: dict[int, Counted] = {}
        self._tokens: dict[bytes, tuple[int, ...]] = {}
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether so much waits that it should be taken before more comes."""
        return self.size_bytes > _LARGEST

    def add(self, document: int, counted: Counted) -> None:
        """Take in a document."""
        self._waiting[document] = counted
        self.size_bytes += counted.cost

    def discard(self, document: int) -> None:
        """A document counts no more."""
        counted = self._waiting.pop(document, None)
        self.size_bytes -= counted.cost if counted is not None else 0

    def take(self, most: int, tokens: Tokens) -> Iterator[tuple[int, dict[int, int], dict[int, int]]]:
        """Hand out up to ``most`` documents, ``(number, body, definitions)``, each a count by token."""
        known = self._tokens
        for document in list(self._waiting)[:most]:
            counted = self._waiting[document]
            self.discard(document)
            identifiers, defined = counted.identifiers.split(b"\n"), counted.defined
            for identifier in {*identifiers, *defined}.difference(known):
                known[identifier] = tuple(tokens(self._split(identifier)))
            body: dict[int, int] = {}
            for identifier, count in zip(identifiers, counted.counts, strict=False):  # no text is one empty line
                for token in known[identifier]:
                    if token in body:
                        body[token] += count
                    else:
                        body[token] = count
            yield document, body, Counter(token for name in defined for token in known[name])
        if not self._waiting:
            self._tokens = {}  # it only saves taking the same identifiers of many documents apart

    def _split(self, identifier: bytes) -> tuple[str, ...]:
        return self._splitter.split(identifier.decode("utf-8", "replace")) if identifier else ()

    def postings(self, words: frozenset[str]) -> dict[tuple[str, str], array[int]]:
        """By field and word the postings (``document << 8 | count``) of all waiting documents."""
        # a stem is the beginning of a word of the text but for a last "i" that was a "y"
        parts = [word.removesuffix("i").encode("utf-8", "surrogatepass") or word.encode() for word in words]
        held: dict[bytes, tuple[str, ...]] = {}
        result: defaultdict[tuple[str, str], array[int]] = defaultdict(lambda: array("I"))
        for document, counted in self._waiting.items():
            for field, text, counts in (
                ("body", counted.identifiers, counted.counts),
                ("definitions", counted.names, None),
            ):
                sums: dict[str, int] = {}
                for start, end in _holding(text, parts):
                    identifier = text[start:end]
                    stems = held.get(identifier)
                    if stems is None:
                        stems = held[identifier] = tuple(stem for stem in self._split(identifier) if stem in words)
                    if stems:
                        number = 1 if counts is None else counts[text.count(b"\n", 0, start)]
                        for stem in stems:
                            sums[stem] = sums.get(stem, 0) + number
                for word, number in sums.items():
                    result[field, word].append(document << 8 | min(number, MOST))
        return dict(result)


def _holding(text: bytes, parts: Iterable[bytes]) -> Iterable[tuple[int, int]]:
    """Where the lines are that hold one of ``parts`` in any case, or bytes beyond ASCII; each line once."""
    low = text.lower()
    found: dict[int, int] = {}
    for part in parts:
        place = low.find(part)
        while place >= 0:
            end = low.find(b"\n", place)
            end = len(low) if end < 0 else end
            found[low.rfind(b"\n", 0, place) + 1] = end
            place = low.find(part, end)
    if not low.isascii():
        found |= {low.rfind(b"\n", 0, odd.start()) + 1: odd.end() for odd in _ODD.finditer(low)}
    return found.items()
