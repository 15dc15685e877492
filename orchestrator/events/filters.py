"""Filters over events: the contract's grammar, parsed once into a predicate.

    filter       = term *( "," term )                    all terms must match
    term         = [ "!" ] field ":" [ "!" ] alternatives
    alternatives = value *( "|" value )                  one of them must match
    value        = ( ">=" | "<=" | ">" | "<" ) number | text, in which "*" stands for any characters

``field`` is a dotted path, looked up in the envelope first and, where that is null or absent, in ``data``.
Spaces around fields and values do not count. A list matches when one of its items does. ``null`` matches
what is null or absent. A backslash takes the special meaning from the character after it.
"""

from __future__ import annotations

from orchestrator.errors import BadFilter
from orchestrator.events.terms import Comparison, Equality, Glob, Predicate, Test, all_of, number_of, term_of

#: Bounds on a filter, so that evaluating it costs microseconds whatever is asked.
MAX_LENGTH = 2000
MAX_TERMS = 32
MAX_VALUES = 128
MAX_PATH = 16

_FIELD_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.@$/")
_SPECIAL = frozenset(",|*!:><=\\")


def compile_filter(text: str | None) -> Predicate | None:
    """The predicate of a filter; None for no (or an empty) filter, which matches everything.

    Raises BadFilter with ``details`` ``position`` (characters from 0) and ``expected``.
    """
    if text is None or not text.strip():
        return None
    if len(text) > MAX_LENGTH:
        raise _bad(MAX_LENGTH, f"at most {MAX_LENGTH} characters")
    return all_of(_Parser(text).parse())


class _Parser:
    """Reads a filter from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._values = 0

    def parse(self) -> list[Predicate]:
        terms: list[Predicate] = []
        while True:
            if len(terms) == MAX_TERMS:
                raise _bad(self._at, f"at most {MAX_TERMS} terms")
            terms.append(self._term())
            if self._at == len(self._text):
                return terms
            self._at += 1  # the comma

    def _term(self) -> Predicate:
        self._skip_spaces()
        is_negated = self._take("!")
        path = self._field()
        tests = []
        is_negated ^= self._take("!")
        while True:
            tests.append(self._value())
            if not self._take("|"):
                break
        return term_of(path, tests, is_negated)

    def _field(self) -> tuple[str, ...]:
        start = self._at
        while self._at < len(self._text) and self._text[self._at] in _FIELD_CHARACTERS:
            self._at += 1
        path = tuple(self._text[start : self._at].split("."))
        if not all(path):
            raise _bad(start, "a field name, with dots between its parts")
        if len(path) > MAX_PATH:
            raise _bad(start, f"at most {MAX_PATH} parts in a field")
        self._skip_spaces()
        # "percent>50" is taken for "percent:>50".
        if not self._take(":") and self._peek() not in (">", "<"):
            raise _bad(self._at, "':' after the field name")
        return path

    def _value(self) -> Test:
        self._values += 1
        if self._values > MAX_VALUES:
            raise _bad(self._at, f"at most {MAX_VALUES} values")
        operator = ""
        if self._peek() in (">", "<"):
            operator = self._text[self._at]
            self._at += 1
            if self._take("="):
                operator += "="
        elif self._peek() == "!":
            raise _bad(self._at, "'!' only before the first value, where it negates all of them")
        start = self._at
        pieces = self._pieces()
        if pieces == [""]:
            raise _bad(start, "a number" if operator else "a value")
        if operator:
            bound = number_of(pieces[0].strip()) if len(pieces) == 1 else None
            if bound is None:
                raise _bad(start, f"a number after {operator!r}")
            return Comparison(operator, bound)
        return Equality(pieces[0]) if len(pieces) == 1 else Glob(pieces)

    def _pieces(self) -> list[str]:
        """The value's text, split where an unescaped ``*`` stands."""
        pieces: list[list[str]] = [[]]
        while self._at < len(self._text):
            character = self._text[self._at]
            if character in ",|":
                break
            if character == "\\":
                self._at += 1
                if self._peek() not in _SPECIAL:
                    raise _bad(self._at, "one of , | * ! : > < = \\ after a backslash")
                pieces[-1].append(self._text[self._at])
            elif character == "*":
                pieces.append([])
            else:
                pieces[-1].append(character)
            self._at += 1
        texts = ["".join(piece) for piece in pieces]
        texts[0] = texts[0].lstrip(" ")
        texts[-1] = texts[-1].rstrip(" ")
        return texts

    def _peek(self) -> str:
        return self._text[self._at] if self._at < len(self._text) else ""

    def _take(self, character: str) -> bool:
        if self._peek() != character:
            return False
        self._at += 1
        return True

    def _skip_spaces(self) -> None:
        while self._peek() == " ":
            self._at += 1


def _bad(position: int, expected: str) -> BadFilter:
    return BadFilter(
        f"filter: at character {position}: expected {expected}",
        details={"position": position, "expected": expected, "field": "filter"},
    )
