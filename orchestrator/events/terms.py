"""The terms of a filter: each decides about one event, or takes those that match out of a list.

Taking many at once is what reading a full log costs. It goes by columns: the field's values of all events, then the
events whose value passes, in list comprehensions that call nothing for texts, numbers and null (a tenth of the time
that asking each event takes).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

from orchestrator.events.fields import ENVELOPE, NEVER_NULL, lookup
from orchestrator.models import Event


class Predicate(Protocol):
    """A compiled filter, or one of its terms. ``cost`` orders terms: the cheapest is asked first."""

    cost: int

    def __call__(self, event: Event) -> bool:
        """Whether the event matches."""

    def select(self, events: list[Event]) -> list[Event]:
        """Those that match, in order."""


class Test(Protocol):
    """Decides about one value of a field."""

    cost: int

    def __call__(self, value: object) -> bool:
        """Whether a scalar passes; None stands for null and absent."""

    def select(self, events: list[Event], values: list[Any]) -> list[Event]:
        """Events whose value (at the same place of ``values``) passes; of a list, one item must."""


class Equality:
    """The value is this text, number, ``true``, ``false`` or ``null``."""

    cost = 0

    def __init__(self, text: str) -> None:
        self._text = text
        self._number = number_of(text)
        self._constant: object = {"true": True, "false": False}.get(text)
        self._is_null = text == "null"

    def __call__(self, value: object) -> bool:
        if isinstance(value, str):
            return value == self._text
        if value is None:
            return self._is_null
        if isinstance(value, bool):
            return value is self._constant
        if isinstance(value, (int, float)):
            return self._number is not None and value == self._number
        return False

    def select(self, events: list[Event], values: list[Any]) -> list[Event]:
        text, number, is_null = self._text, self._number, self._is_null
        return [
            event
            for event, value in zip(events, values, strict=True)
            if (
                value == text
                if (kind := value.__class__) is str
                else value == number
                if kind is int or kind is float
                else is_null
                if value is None
                else passes(self, value)
            )
        ]


class Comparison:
    """The value is a number on this side of a bound."""

    cost = 1
    _HOLDS: ClassVar[dict[str, Callable[[Any, Any], bool]]] = {
        ">": operator.gt,
        "<": operator.lt,
        ">=": operator.ge,
        "<=": operator.le,
    }

    def __init__(self, sign: str, bound: float) -> None:
        self._holds = self._HOLDS[sign]
        self._bound = bound

    def __call__(self, value: object) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and self._holds(value, self._bound)

    def select(self, events: list[Event], values: list[Any]) -> list[Event]:
        holds, bound = self._holds, self._bound
        return [
            event
            for event, value in zip(events, values, strict=True)
            if (
                holds(value, bound)
                if (kind := value.__class__) is int or kind is float
                else kind is not str and value is not None and passes(self, value)
            )
        ]


class Glob:
    """Pieces in order, the first at the start, the last at the end; leftmost matches suffice, so it is linear."""

    cost = 2

    def __init__(self, pieces: list[str]) -> None:
        self._first, self._last = pieces[0], pieces[-1]
        self._middle = [piece for piece in pieces[1:-1] if piece]
        self._shortest = len(self._first) + len(self._last)

    def __call__(self, value: object) -> bool:
        text = value if isinstance(value, str) else _text_of(value)
        return text is not None and self._matches(text)

    def _matches(self, text: str) -> bool:
        first, last = self._first, self._last
        if len(text) < self._shortest or not text.startswith(first) or not text.endswith(last):
            return False
        at, end = len(first), len(text) - len(last)
        for piece in self._middle:
            found = text.find(piece, at, end)
            if found < 0:
                return False
            at = found + len(piece)
        return True

    def select(self, events: list[Event], values: list[Any]) -> list[Event]:
        first, last, matches = self._first, self._last, self._matches
        return [
            event
            for event, value in zip(events, values, strict=True)
            if (
                value.startswith(first) and value.endswith(last) and matches(value)
                if value.__class__ is str
                else value is not None and passes(self, value)
            )
        ]


def passes(test: Test, value: object) -> bool:
    """Whether a value passes; of a list that is not empty, one item must."""
    if isinstance(value, (list, tuple)) and value:
        return any(map(test, value))
    return test(value)


class Term:
    """A field and the values of which it must have one, or none when negated.

    Args:
        value_of: gives the field's value of an event.
        column: gives the field's values of many, faster.
        column_cost: what that costs, in the units of ``cost``.
    """

    def __init__(
        self,
        value_of: Callable[[Event], Any],
        column: Callable[[list[Event]], list[Any]],
        tests: list[Test],
        is_negated: bool,
        *,
        column_cost: int = 0,
    ) -> None:
        self._value_of = value_of
        self._column = column
        self._tests = tests
        self._is_negated = is_negated
        self.cost = column_cost + (3 * len(tests) if is_negated or len(tests) > 1 else tests[0].cost)

    def __call__(self, event: Event) -> bool:
        value = self._value_of(event)
        return any(passes(test, value) for test in self._tests) is not self._is_negated

    def select(self, events: list[Event]) -> list[Event]:
        values = self._column(events)
        if len(self._tests) == 1 and not self._is_negated:
            return self._tests[0].select(events, values)
        passed = {id(event) for test in self._tests for event in test.select(events, values)}
        return [event for event in events if (id(event) in passed) is not self._is_negated]


class _All:
    """Several terms that must all match."""

    def __init__(self, terms: list[Predicate]) -> None:
        self._terms = sorted(terms, key=lambda term: term.cost)
        self.cost = sum(term.cost for term in terms)

    def __call__(self, event: Event) -> bool:
        return all(term(event) for term in self._terms)

    def select(self, events: list[Event]) -> list[Event]:
        for term in self._terms:
            events = term.select(events)
        return events


def term_of(path: tuple[str, ...], tests: list[Test], is_negated: bool) -> Term:
    """The term ``[!]path:test|test…``."""
    head, last = path[0], path[-1]
    if len(path) == 1 and head in NEVER_NULL:
        get = ENVELOPE[head]
        return Term(get, lambda events: list(map(get, events)), tests, is_negated)
    if len(path) == 1 and head not in ENVELOPE:
        return Term(
            lambda event: event.data.get(head),
            lambda events: [event.data.get(head) for event in events],
            tests,
            is_negated,
        )

    def value_of(event: Event) -> Any:
        return lookup(event, path)

    def column(events: list[Event]) -> list[Any]:
        if len(path) == 2 and head == "data":
            # What it lacks may stand in an object "data" inside it.
            return [
                value if (value := event.data.get(last)) is not None or head not in event.data else value_of(event)
                for event in events
            ]
        return [value_of(event) for event in events]

    return Term(value_of, column, tests, is_negated, column_cost=20)


def all_of(terms: list[Predicate]) -> Predicate:
    """All of these (one at least) must match."""
    return terms[0] if len(terms) == 1 else _All(terms)


def number_of(text: str) -> int | float | None:
    """The number that a text is; None for any other text, and for what is not finite."""
    if not text or not text[-1].isdigit() or text[0] not in "+-.0123456789" or len(text) > 400:
        return None
    try:
        value = int(text) if text.lstrip("+-").isdigit() else float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in text else None


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
