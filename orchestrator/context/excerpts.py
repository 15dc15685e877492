"""Excerpts: which blocks of a file match the task, and how well."""

from __future__ import annotations

import math
import threading
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import accumulate

import msgspec

from orchestrator.context.index import Index
from orchestrator.context.models import FileFacts
from orchestrator.context.outline import Block, Lines, blocks, definitions
from orchestrator.context.query import Query
from orchestrator.context.words import vocabulary


class View(msgspec.Struct, frozen=True):
    """A file opened for excerpts: the bytes that may be shown, its blocks and where terms were found in them.

    Attributes:
        starts: the offsets in the text at which the blocks begin; ``sizes`` are their bytes.
        words: the text's vocabulary.
        titles: the blocks' names in lower case, a line each; ``title_starts`` are the offsets of these lines.
        matches: by term the blocks that have it and what it is worth there, as far as somebody asked.
        openings: by block the lines that open the scopes around it, as far as somebody asked.
    """

    lines: Lines
    blocks: tuple[Block, ...]
    starts: tuple[int, ...]
    sizes: tuple[int, ...]
    words: bytes
    titles: bytes
    title_starts: tuple[int, ...]
    matches: dict[bytes, tuple[bytes | array[int], array[float]]] = {}
    openings: dict[int, tuple[int, ...]] = {}

    def has(self, term: bytes) -> bool:
        """Whether ``term`` may stand in the text or in a title. No term goes beyond an identifier, so that the text
        itself, which is some ten times longer, need not be searched."""
        if term in self.titles:
            return True
        if len(term) > _SHORT:
            return term in self.words
        return term in self.words and bool(_words(self.words, term))

    @property
    def cost(self) -> int:
        """Bytes that keeping it takes, roughly."""
        return (
            len(self.lines.data)
            + len(self.words)
            + 4 * self.lines.count
            + len(self.titles)
            + 400 * len(self.blocks)
            + 100 * _REMEMBERED
        )


def open_view(data: bytes, language: str, words: bytes | None = None) -> View:
    """The view of ``data`` (already redacted); ``words`` is its vocabulary where that is known."""
    lines = Lines(data)
    divided = blocks(lines, definitions(data, language))
    return view_of(lines, divided, vocabulary(data.lower()) if words is None else words)


def view_of(lines: Lines, divided: Sequence[Block], words: bytes) -> View:
    """The view of a text whose blocks and vocabulary are known."""
    names = [block.name.lower().encode("utf-8", "replace") for block in divided]
    return View(
        lines,
        tuple(divided),
        tuple(lines.start(block.first) for block in divided),
        tuple(block.size for block in divided),
        words,
        b"\n".join(names),
        tuple(accumulate((len(name) + 1 for name in names[:-1]), initial=0)),
    )


class ViewCache:
    """Views by checksum, the least recently used dropped beyond ``capacity`` bytes. Thread-safe, as all projects share
    it."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._views: OrderedDict[tuple[str, str], View] = OrderedDict()
        self.size_bytes = 0

    def get(self, checksum: str, language: str, load: Callable[[], View]) -> View:
        """The view of the file with this checksum; ``load`` opens it when it is not known."""
        key = (checksum, language)
        with self._lock:
            view = self._views.get(key)
            if view is not None:
                self._views.move_to_end(key)
                return view
        view = load()
        self.put(checksum, language, view)
        return view

    def __contains__(self, facts: FileFacts) -> bool:
        return (facts.checksum, facts.language) in self._views

    def put(self, checksum: str, language: str, view: View) -> None:
        """Keep a view; it takes the place of the same file's, which may have been opened twice at a time."""
        key = (checksum, language)
        with self._lock:
            known = self._views.pop(key, None)
            self._views[key] = view
            self.size_bytes += view.cost - (known.cost if known is not None else 0)
            while self.size_bytes > self._capacity and len(self._views) > 1:
                self.size_bytes -= self._views.popitem(last=False)[1].cost


def term_weights(index: Index, query: Query, limit: int = 40) -> list[tuple[bytes, float]]:
    """The rarest ``limit`` terms of the query as bytes with their weights (idf times repetition)."""
    total = max(1, index.count)
    weighted = []
    for word, weight in query.terms.items():
        frequency = min(index.frequency(word), total)
        if frequency:
            weighted.append((word.encode(), weight * math.log(1 + (total - frequency + 0.5) / (frequency + 0.5))))
    weighted.sort(key=lambda item: -item[1])
    return weighted[:limit]


def score_blocks(view: View, terms: list[tuple[bytes, float]]) -> list[float]:
    """By block how well it matches: saturated counts of the terms (as substrings), damped by the block's length.

    A term counts more the fewer of the file's blocks have it (what all have tells none apart), and twice its weight
    more where it stands in the block's name.
    """
    found = [0.0] * len(view.blocks)
    if not found:
        return found
    lowered = b""
    for term, weight in terms:
        matches = view.matches.get(term)
        if matches is None and not view.has(term):
            matches = _NOTHING
        elif matches is None:
            lowered = lowered or view.lines.data.lower()
            if len(view.matches) >= _REMEMBERED:
                view.matches.clear()
            matches = view.matches[term] = _matches(view, lowered, term)
        for block, worth in zip(*matches, strict=True):
            found[block] += weight * worth
    return found


def _matches(view: View, lowered: bytes, term: bytes) -> tuple[bytes | array[int], array[float]]:
    """The blocks that have ``term``, and what it is worth in each before its weight."""
    counts = _by_block(lowered, view.starts, term)
    titles = _by_block(view.titles, view.title_starts, term)
    if not counts and not titles:
        return _NOTHING
    total = len(view.blocks)
    spread = len(counts)
    common = _COMMON + math.log(1 + (total - spread + 0.5) / (spread + 0.5)) / math.log(total + 2)
    slope = 1.2 * 0.3 * total / max(total, len(lowered))
    worth = {
        block: common * count * 2.2 / (count + 1.2 * 0.7 + slope * view.sizes[block]) for block, count in counts.items()
    }
    for block in titles:
        worth[block] = worth.get(block, 0.0) + _NAMED
    return array("I", worth), array("d", worth.values())


#: Of so many terms a view remembers where they stand: agents of one project ask in the same words.
_REMEMBERED = 64
_NOTHING: tuple[bytes, array[float]] = (b"", array("d"))
#: What a term counts that stands in every block of a file, and what it counts in a block's name.
_COMMON = 0.3
_NAMED = 2.0


def _by_block(text: bytes, starts: tuple[int, ...], term: bytes) -> dict[int, int]:
    """How often ``term`` stands in each part of ``text`` (of the first 400 places); parts without it are left out.

    Short terms must be whole words.
    """
    counts: dict[int, int] = {}
    if len(term) <= _SHORT:
        for position in _words(text, term):
            block = bisect_right(starts, position) - 1
            counts[block] = counts.get(block, 0) + 1
        return counts
    pieces = text.split(term, _MOST_HITS)
    if len(pieces) == 1:
        return counts
    step = len(term)
    position = -step
    for piece in pieces[:-1]:
        position += len(piece) + step
        block = bisect_right(starts, position) - 1
        counts[block] = counts.get(block, 0) + 1
    return counts


_SHORT = 3
_MOST_HITS = 400


def _words(text: bytes, term: bytes) -> list[int]:
    """Where ``term`` begins as a whole word (an ``s`` may follow), at most 400 places."""
    found: list[int] = []
    position = text.find(term)
    while position >= 0 and len(found) < _MOST_HITS:
        end = position + len(term)
        if not (
            text[position - 1 : position].isalpha() or (text[end : end + 1].isalpha() and text[end : end + 1] != b"s")
        ):
            found.append(position)
        position = text.find(term, end)
    return found
