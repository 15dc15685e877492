"""The task text as a query: weighted stems, named identifiers, named files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import msgspec

from orchestrator.context.words import Splitter, is_significant

_CODED = re.compile(
    r"[A-Za-z]+_\w+|_\w+|[a-z]+[A-Z]\w*|[A-Z][a-z0-9]+[A-Z]\w*|[A-Za-z_]\w*(?=\()|(?<=\W)[A-Z][a-z]{3,}\w*|[A-Z]{2,}[a-z]\w+"
)
_QUOTED = re.compile(r"`+([^`\n]{1,200})`+")
_DOTTED = re.compile(r"\b\w+(?:(?:\.|::)\w+)+\b")
_WORD = re.compile(r"[A-Za-z_]\w+")
_FILE_LIKE = re.compile(r"[\w.-]+(?:/[\w.-]+)*")
_PATH = re.compile(r"[\w@.-]+(?:[/\\][\w@.-]+)+")
#: What many projects write before a subject's colon: ``[area] ...``, ``fix(area): ...``, ``area, other/part: ...``.
_SCOPE = re.compile(r"\W*(?:\[([^\]\n]{2,60})\]\s*|\w+\(([^)\n]{2,60})\)\s*!?:\s|([\w./,* -]{2,40}?)!?:\s)")
_MOST_SCOPES = 4
#: Words before a colon that name the sort of a change, not a place.
_SORTS_TEXT = """
feat fix feature bugfix hotfix chore refactor perf style build ci docs doc test tests revert new update breaking bug
types issue wip enhance enhancement change
"""
_SORTS = frozenset(_SORTS_TEXT.split())
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
        scopes: parts of the project that the subject names before its colon, as ``plain`` writes them.
        paths: paths and dotted names in lower case, by their parts; of dotted ones also without the last parts.
    """

    terms: dict[str, float]
    names: frozenset[str]
    words: frozenset[str]
    scopes: frozenset[str]
    paths: frozenset[tuple[str, ...]]

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
    return Query(
        terms=terms, names=_names(text), words=_words(text), scopes=_scopes(subject), paths=frozenset(_paths(text))
    )


def plain(word: str) -> str:
    """``word`` in lower case without what joins its parts, so that ``no-shadow`` and ``no_shadow`` are alike."""
    return word.lower().replace("-", "").replace("_", "")


def _scopes(subject: str) -> frozenset[str]:
    found: set[str] = set()
    while (match := _SCOPE.match(subject)) is not None:
        subject = subject[match.end() :]
        parts = re.split(r"[,/\s*]+", next(group for group in match.groups() if group))
        if len(parts) > _MOST_SCOPES:
            break
        found.update(plain(part.rsplit(".", 1)[0] or part) for part in parts)
    return frozenset(scope for scope in found - _SORTS if len(scope) > 1)


def _paths(text: str) -> Iterator[tuple[str, ...]]:
    low = text.lower()
    for match in _PATH.findall(low):
        yield tuple(part for part in re.split(r"[/\\]", match.strip(".-")) if part not in ("", ".", ".."))
    for match in _DOTTED.findall(low):
        parts = re.split(r"\.|::", match)
        for count in range(len(parts), max(1, len(parts) - 3), -1):  # ``package.module.Class.method``
            yield tuple(parts[:count])


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
