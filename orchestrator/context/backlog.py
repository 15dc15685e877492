"""The backlog of an index: documents whose identifiers are counted and not yet taken apart.

Counting identifiers is done by C code; taking each apart into stems is most of the work of indexing. A first answer
needs it only for the few identifiers that hold a word of its task, and those are found by searching the vocabulary.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate

from orchestrator.context.words import Splitter

_MOST = 255
#: A vocabulary of more identifiers is begun anew as soon as nothing waits that is told in its numbers.
_LARGEST = 1_000_000

Tokens = Callable[[Iterable[str]], list[int]]
#: A document's identifiers by number, how often each stands there, and the numbers of its defined names.
Waiting = tuple["array[int]", bytes, "array[int]"]


class Backlog:
    """Documents by number, in order."""

    def __init__(self, splitter: Splitter) -> None:
        self._splitter = splitter
        self._waiting: dict[int, Waiting] = {}
        self._begin()

    def _begin(self) -> None:
        self._numbers: defaultdict[bytes, int] = defaultdict()
        self._numbers.default_factory = self._numbers.__len__
        self._tokens: dict[int, tuple[int, ...]] = {}
        self._listed: list[bytes] = []
        self._text = b""
        self._ends: list[int] = []
        self._odd: list[int] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, document: int, identifiers: Mapping[bytes, int], names: Iterable[str]) -> int:
        """Take in a document; the bytes that it takes, estimated."""
        if len(self._numbers) > _LARGEST and not self._waiting:
            self._begin()
        before = len(self._numbers)
        number = self._numbers.__getitem__
        found = array("I", map(number, identifiers))
        try:
            counts = bytes(identifiers.values())
        except ValueError:
            counts = bytes([min(count, _MOST) for count in identifiers.values()])
        defined = array("I", map(number, (name.encode("utf-8", "surrogateescape") for name in names)))
        self._waiting[document] = (found, counts, defined)
        return 300 * (len(self._numbers) - before) + 5 * len(found) + 4 * len(defined) + 200

    def discard(self, document: int) -> None:
        """A document counts no more."""
        self._waiting.pop(document, None)

    def take(self, most: int, tokens: Tokens) -> Iterator[tuple[int, dict[int, int], dict[int, int]]]:
        """Hand out up to ``most`` documents, ``(number, body, definitions)``, each a count by token."""
        self._list()
        known = self._tokens
        for document in list(self._waiting)[:most]:
            found, counts, defined = self._waiting.pop(document)
            for identifier in {*found, *defined}.difference(known):
                known[identifier] = tuple(tokens(self._split(identifier)))
            body: dict[int, int] = {}
            for identifier, count in zip(found, counts, strict=True):
                for token in known[identifier]:
                    if token in body:
                        body[token] += count
                    else:
                        body[token] = count
            yield document, body, Counter(token for identifier in defined for token in known[identifier])
        if not self._waiting:  # what only serves searching is made again when something waits again
            self._listed, self._text, self._ends, self._odd = [], b"", [], []

    def _split(self, identifier: int) -> tuple[str, ...]:
        return self._splitter.split(self._listed[identifier].decode("utf-8", "replace"))

    def _list(self) -> None:
        """Number the identifiers that came since the last call."""
        if len(self._listed) != len(self._numbers):
            self._listed = list(self._numbers)

    def postings(self, words: frozenset[str]) -> dict[tuple[str, str], array[int]]:
        """By field and word the postings (``document << 8 | count``) of all waiting documents."""
        relevant = self._relevant(words)
        result: defaultdict[tuple[str, str], array[int]] = defaultdict(lambda: array("I"))
        for document, (found, counts, defined) in self._waiting.items():
            for field, numbers, weights in (("body", found, counts), ("definitions", defined, b"\1" * len(defined))):
                common = relevant.keys() & numbers
                if not common:
                    continue
                count_of = dict(zip(numbers, weights, strict=True))
                sums: dict[str, int] = {}
                for identifier in common:
                    for word in relevant[identifier]:
                        sums[word] = sums.get(word, 0) + count_of[identifier]
                for word, count in sums.items():
                    result[field, word].append(document << 8 | min(count, _MOST))
        return dict(result)

    def _relevant(self, words: frozenset[str]) -> dict[int, tuple[str, ...]]:
        """The identifiers that hold one of ``words``, with these words (repeated as in the identifier)."""
        self._search_text()
        candidates = set(self._odd)
        text, ends = self._text, self._ends
        for word in words:
            # a stem is the beginning of a word of the text but for a last "i" that was a "y"
            part = word.removesuffix("i").encode("utf-8", "surrogatepass") or word.encode()
            place = text.find(part)
            while place >= 0:
                number = bisect_right(ends, place)
                candidates.add(number)
                place = text.find(part, ends[number])
        split = ((number, self._split(number)) for number in candidates)
        held = ((number, tuple(stem for stem in stems if stem in words)) for number, stems in split)
        return {number: stems for number, stems in held if stems}

    def _search_text(self) -> None:
        """All identifiers in lower case in one text, and where each ends; made again when new ones came."""
        if len(self._ends) == len(self._numbers):
            return
        self._list()
        self._text = b"\n".join(self._listed).lower() + b"\n"
        self._ends = list(accumulate(map(len, self._listed), lambda end, size: end + size + 1, initial=0))[1:]
        self._odd = [number for number, word in enumerate(self._listed) if not word.isascii()]
