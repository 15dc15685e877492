"""Words: identifiers of bytes, their parts, stems, and the words of a task text."""

from __future__ import annotations

import re
from collections.abc import Iterable

#: Bytes that belong to an identifier: ASCII letters, digits, ``_`` and everything beyond ASCII.
_SEPARATED = bytes(
    byte if 48 <= byte <= 57 or 65 <= byte <= 90 or 97 <= byte <= 122 or byte == 95 or byte > 127 else 32
    for byte in range(256)
)
_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_a-zA-Z]+")
#: Longest identifier that is taken apart; longer ones are data (encoded blobs, digests).
_LONGEST = 64

#: Words of English prose and of commit messages that say nothing about a place in the code.
_STOP_TEXT = """
a about above after again all allow allowed allowing allows also an and another any are as at be because been
before being below better between both bug but by can cannot cause caused causes change changed changes changing
could did do does doing don done down due during each either ensure even every few fix fixed fixes fixing follow
for from further get gets got had has have having he help hence her here his how however i if improve in instead
into is issue it its itself just keep let like made make makes making may me might more most must my need needed
needs never new no nor not now of off ok old on once one only or other our out over own patch please pr
previously properly rather really remove removed removes removing same see set she should simply since so some
still such support supported supporting take than that the their them then there these they thing this those
through thus to too two under until up update updated updates updating upon us use used useful uses using very
via want was way we well were what when where whether which while who why will with within without work works
would yet you your add added adding adds when implement implemented implementation introduce
"""
STOP_WORDS = frozenset(_STOP_TEXT.split())

_SUFFIXES = (
    ("izations", "iz"), ("ization", "iz"), ("isation", "is"), ("ations", "at"), ("ation", "at"), ("ators", "at"),
    ("ator", "at"), ("ating", "at"), ("ated", "at"), ("ates", "at"), ("ments", "ment"), ("ities", "iti"),
    ("ity", "iti"), ("ically", "ic"), ("ally", "al"), ("ingly", ""), ("ings", ""), ("ies", "i"), ("ied", "i"),
    ("ing", ""), ("ers", "er"), ("sses", "ss"), ("xes", "x"), ("ches", "ch"), ("shes", "sh"), ("ed", ""), ("es", "e"),
    ("ly", ""), ("s", ""),
)  # fmt: skip


_ENDS = tuple(suffix for suffix, _ in _SUFFIXES)


def stem(word: str) -> str:
    """The stem of a lower-case word: a short suffix table in the manner of Porter's first steps.

    Stems only need to be equal for the forms of one word (``validates``, ``validating``, ``validation``).
    """
    if len(word) <= 3 or not word.isascii():
        return word
    if word.endswith(_ENDS):
        for suffix, replacement in _SUFFIXES:
            if word.endswith(suffix) and len(word) - len(suffix) >= 3 and not (suffix == "s" and word[-2] in "su"):
                word = word[: len(word) - len(suffix)] + replacement
                break
    if len(word) > 4 and word[-1] == word[-2] and word[-1] not in "lsz":
        word = word[:-1]
    if len(word) > 4 and word[-1] == "e":
        word = word[:-1]
    if len(word) > 3 and word[-1] == "y":
        word = word[:-1] + "i"
    return word


def raw_identifiers(data: bytes) -> list[bytes]:
    """All identifiers and numbers of a text, in order, as bytes (one pass in C)."""
    return data.translate(_SEPARATED).split()


def vocabulary(low: bytes) -> bytes:
    """The identifiers of a text in lower case, each once, a line each: a tenth of the text, and quickly searched."""
    return b"\n".join(set(raw_identifiers(low)))


class Splitter:
    """Takes identifiers apart; remembers what it has seen, up to ``capacity`` identifiers."""

    def __init__(self, capacity: int = 400_000) -> None:
        self._capacity = capacity
        self._known: dict[str, tuple[str, ...]] = {}
        self._stems: dict[str, str] = {}

    def stem(self, word: str) -> str:
        """``stem`` with memory."""
        known = self._stems.get(word)
        if known is None:
            known = stem(word)
            if len(self._stems) < self._capacity:
                self._stems[word] = known
        return known

    def split(self, identifier: str) -> tuple[str, ...]:
        """Stems of the parts of ``identifier`` and, when there are several, the whole in lower case as well.

        ``getUserName2`` gives ``get user name getusername2``; single characters and lone digits are left out.
        """
        known = self._known.get(identifier)
        if known is None:
            known = self._split(identifier)
            if len(self._known) < self._capacity:
                self._known[identifier] = known
        return known

    def _split(self, identifier: str) -> tuple[str, ...]:
        if len(identifier) > _LONGEST:
            return ()
        bare = identifier.replace("_", "")
        if bare.islower() and bare.isalpha() and bare.isascii():  # most identifiers: no need for the pattern
            if bare is identifier:
                return (self.stem(bare),) if len(bare) > 1 else ()
            parts = [part for part in identifier.split("_") if part]
        elif identifier[0].isdigit():
            return ()
        else:
            parts = [part.lower() for part in _PARTS.findall(identifier)]
        stems = [self.stem(part) for part in parts if len(part) > 1 and not part.isdigit()]
        if len(parts) > 1:
            whole = identifier.strip("_").lower()
            if whole not in stems:
                stems.append(whole)
        return tuple(stems)

    def words(self, text: str) -> list[str]:
        """Stems of all identifiers of ``text``, in order, with repetitions."""
        found: list[str] = []
        for raw in raw_identifiers(text.encode("utf-8", "surrogatepass")):
            found.extend(self.split(raw.decode("utf-8", "replace")))
        return found


def is_significant(word: str) -> bool:
    """Whether a stem may carry meaning: two characters or more and no stop word."""
    return len(word) > 1 and word not in STOP_STEMS


STOP_STEMS = frozenset(stem(word) for word in STOP_WORDS) | STOP_WORDS


def significant(words: Iterable[str]) -> list[str]:
    """The significant ones of ``words``, in order."""
    return [word for word in words if is_significant(word)]
