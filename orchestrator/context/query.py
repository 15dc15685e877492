"""The task text as a query: weighted stems, named identifiers, named files."""

from __future__ import annotations

import re
from collections import Counter

import msgspec

from orchestrator.context.words import Splitter, is_significant

_CODED = re.compile(
    r"[A-Za-z]+_\w+|_\w+|[a-z]+[A-Z]\w*|[A-Z][a-z0-9]+[A-Z]\w*|[A-Za-z_]\w*(?=\()|(?<=\W)[A-Z][a-z]{3,}\w*|[A-Z]{2,}[a-z]\w+"
)
_QUOTED = re.compile(r"`+([^`\n]{1,200})`+")
_DOTTED = re.compile(r"\b\w+(?:(?:\.|::)\w+)+\b")
_WORD = re.compile(r"[A-Za-z_]\w+")
_FILE_LIKE = re.compile(r"[\w.-]+(?:/[\w.-]+)*")
#: What a word of the first line (the subject) counts more than one of the explanation below.
_FIRST_LINE = 2.0
#: Longest text that is looked at, and most terms that are searched, rarest first.
LONGEST = 20_000


class Query(msgspec.Struct, frozen=True):
    """What a task text asks for.

    Attributes:
        terms: stems with weights (repetition counts, with saturation; the first line counts more).
        names: identifiers that the text names as code.
        words: lower-case words and dotted or slashed names, for mentions of files.
    """

    terms: dict[str, float]
    names: frozenset[str]
    words: frozenset[str]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is asked for."""
        return not self.terms


def parse(text: str, splitter: Splitter) -> Query:
    """The query of a task text. Text beyond 20,000 characters is ignored."""
    text = text[:LONGEST]
    subject, _, rest = text.strip().partition("\n")
    counts: Counter[str] = Counter()
    counts.update(word for word in splitter.words(text) if is_significant(word))
    first = set(splitter.words(subject)) if rest.strip() else set()
    terms = {
        word: count * 2.2 / (count + 1.2) * (_FIRST_LINE if word in first else 1.0) for word, count in counts.items()
    }
    return Query(terms=terms, names=_names(text), words=_words(text))


def _names(text: str) -> frozenset[str]:
    found = set(_CODED.findall(text))
    for quoted in _QUOTED.findall(text):
        found.update(_WORD.findall(quoted))
    for dotted in _DOTTED.findall(text):
        found.update(re.split(r"\.|::", dotted))
    return frozenset(name for name in found if len(name) > 2 and is_significant(name.lower()))


def _words(text: str) -> frozenset[str]:
    low = text.lower()
    found = {word.strip(".-/") for word in _FILE_LIKE.findall(low)}
    for word in list(found):
        found.update(word.split("/"))
        found.update(word.split("."))
    found.update(re.findall(r"\w+", low))
    return frozenset(word for word in found if len(word) > 2)
