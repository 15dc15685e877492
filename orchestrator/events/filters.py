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

import math
from collections.abc import Callable

from orchestrator.errors import BadFilter
from orchestrator.events.fields import ENVELOPE, NEVER_NULL, lookup
from orchestrator.models import Event

Predicate = Callable[[Event], bool]
#: Decides about one scalar; None stands for null and absent.
Test = Callable[[object], bool]

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
    terms = _Parser(text).parse()
    if len(terms) == 1:
        return terms[0]
    if len(terms) == 2:
        first, second = terms
        return lambda event: first(event) and second(event)
    return lambda event: all(term(event) for term in terms)


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
        return _term_predicate(path, tests, is_negated)

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
            return _comparison(operator, pieces, start)
        return _equality(pieces[0]) if len(pieces) == 1 else _glob(pieces)

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


def _term_predicate(path: tuple[str, ...], tests: list[Test], is_negated: bool) -> Predicate:
    def matches(event: Event) -> bool:
        value = lookup(event, path)
        if isinstance(value, (list, tuple)) and value:
            return any(test(item) for item in value for test in tests) is not is_negated
        return any(test(value) for test in tests) is not is_negated

    if len(tests) > 1:
        return matches
    test = tests[0]
    if len(path) == 1 and path[0] in NEVER_NULL:
        text_of = ENVELOPE[path[0]]
        return lambda event: test(text_of(event)) is not is_negated
    if len(path) == 1 and path[0] not in ENVELOPE:
        return _data_predicate(path[0], test, is_negated)

    def matches_one(event: Event) -> bool:
        value = lookup(event, path)
        if isinstance(value, (list, tuple)) and value:
            return any(map(test, value)) is not is_negated
        return test(value) is not is_negated

    return matches_one


def _data_predicate(field: str, test: Test, is_negated: bool) -> Predicate:
    """The commonest term, one field of ``data``, with as few calls as possible."""

    def matches(event: Event) -> bool:
        value = event.data.get(field)
        if isinstance(value, (list, tuple)) and value:
            return any(map(test, value)) is not is_negated
        return test(value) is not is_negated

    return matches


def _equality(text: str) -> Test:
    number = _number(text)
    constant: object = {"true": True, "false": False}.get(text)
    is_null = text == "null"

    def test(value: object) -> bool:
        if isinstance(value, str):
            return value == text
        if value is None:
            return is_null
        if isinstance(value, bool):
            return value is constant
        if isinstance(value, (int, float)):
            return number is not None and value == number
        return False

    return test


def _comparison(operator: str, pieces: list[str], position: int) -> Test:
    bound = _number(pieces[0].strip()) if len(pieces) == 1 else None
    if bound is None:
        raise _bad(position, f"a number after {operator!r}")
    compare: dict[str, Callable[[float], bool]] = {
        ">": lambda value: value > bound,
        "<": lambda value: value < bound,
        ">=": lambda value: value >= bound,
        "<=": lambda value: value <= bound,
    }
    holds = compare[operator]
    return lambda value: isinstance(value, (int, float)) and not isinstance(value, bool) and holds(value)


def _glob(pieces: list[str]) -> Test:
    """Pieces in order, the first at the start, the last at the end; leftmost matches suffice, so it is linear."""
    first, last = pieces[0], pieces[-1]
    middle = [piece for piece in pieces[1:-1] if piece]
    shortest = len(first) + len(last)

    def test(value: object) -> bool:
        text = value if isinstance(value, str) else _text_of(value)
        if text is None or len(text) < shortest or not text.startswith(first) or not text.endswith(last):
            return False
        at, end = len(first), len(text) - len(last)
        for piece in middle:
            found = text.find(piece, at, end)
            if found < 0:
                return False
            at = found + len(piece)
        return True

    return test


def _text_of(value: object) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        # Longer integers cannot be printed (sys.set_int_max_str_digits).
        return str(value) if value.bit_length() < 4096 else None
    if isinstance(value, float):
        return repr(value)
    # An object has no text, but it is there: "field:*" says so.
    return None if value is None else ""


def _number(text: str) -> int | float | None:
    if not text or not text[-1].isdigit() or text[0] not in "+-.0123456789" or len(text) > 400:
        return None
    try:
        value = int(text) if text.lstrip("+-").isdigit() else float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in text else None


def _bad(position: int, expected: str) -> BadFilter:
    return BadFilter(
        f"filter: at character {position}: expected {expected}",
        details={"position": position, "expected": expected, "field": "filter"},
    )
