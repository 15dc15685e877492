"""The filter grammar, held against a naive evaluator."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.clock import rfc3339
from orchestrator.errors import BadFilter
from orchestrator.events.filters import MAX_LENGTH, MAX_TERMS, compile_filter
from orchestrator.models import Event
from tests.support.events import make_event


def matches(text: str, event: Event) -> bool:
    """What the compiled filter says, of one event and of it among others."""
    predicate = compile_filter(text)
    assert predicate is not None
    is_match = predicate(event)
    selected = predicate.select([event, OTHER, event])
    assert [one for one in selected if one is event] == [event, event] * is_match
    assert [one for one in selected if one is OTHER] == [OTHER] * predicate(OTHER)
    return is_match


#: An event with none of the fields that filters ask for.
OTHER = make_event({"unrelated": 1}, event_id="evt-other")


EVENT = make_event(
    {
        "agent_type": "go-specialist",
        "count": 7,
        "ratio": 0.5,
        "ok": True,
        "topic": "shadowed",
        "round": 4,
        "nothing": None,
        "tags": ["a", "b"],
        "deep": {"er": {"x": "y"}, "list": [{"n": 1}]},
        "odd": "a,b|c*d",
    },
    priority="high",
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("priority:high", True),
        ("priority:low|high", True),
        ("!priority:low", True),
        ("priority:!low|high", False),
        ("!priority:!high", True),
        ("topic:testing", True),
        ("topic:shadowed", False),
        ("data.topic:shadowed", True),
        ("round:4", True),
        ("agent_type:go-*", True),
        ("agent_type:*-spec*ist", True),
        ("agent_type:*-", False),
        ("count:7", True),
        ("count:7.0", True),
        ("count:>6,count:<8", True),
        ("count:>=7,count:<=7", True),
        ("count>6", True),
        ("count:>7", False),
        ("ratio:<1", True),
        ("agent_type:>1", False),
        ("ok:true", True),
        ("ok:1", False),
        ("ok:>0", False),
        ("nothing:null", True),
        ("absent:null", True),
        ("absent:*", False),
        ("!absent:*", True),
        ("deep:*", True),
        ("deep.er.x:y", True),
        ("deep.list.0.n:1", True),
        ("deep.list.1.n:null", True),
        ("tags:b", True),
        ("tags:c|a", True),
        ("!tags:a", False),
        ("odd:a\\,b\\|c\\*d", True),
        ("odd:a\\,b*", True),
        (f"timestamp:{rfc3339(1_000_000.0)}", True),
        (" priority:high , count:7", True),
    ],
)
def test_grammar(text: str, expected: bool) -> None:
    """A filter meant something else than the contract says."""
    assert matches(text, EVENT) is expected


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("nocolon", 7),
        (":x", 0),
        ("a:", 2),
        ("a:b,", 4),
        ("a:b|", 4),
        ("a:>x", 3),
        ("a:>1*", 3),
        ("a..b:c", 0),
        ("a:b|!c", 4),
        ("a:\\x", 3),
        ("a:x,b", 5),
        ("a" * (MAX_LENGTH + 1), MAX_LENGTH),
        (",".join(["a:b"] * (MAX_TERMS + 1)), 4 * MAX_TERMS),
    ],
)
def test_bad_filters_say_where(text: str, position: int) -> None:
    """A bad filter was taken for one that matches nothing, or the answer did not say what is wrong."""
    with pytest.raises(BadFilter) as caught:
        compile_filter(text)
    assert caught.value.details["position"] == position
    assert caught.value.code == "EVT_003"


@pytest.mark.parametrize("text", [None, "", "  "])
def test_no_filter_matches_everything(text: str | None) -> None:
    """An empty filter parameter was refused."""
    assert compile_filter(text) is None


def test_globs_take_linear_time() -> None:
    """A glob with many stars took exponential time on a long text."""
    predicate = compile_filter("x:" + "a*" * 60 + "b")
    assert predicate is not None
    started = time.process_time()
    assert not predicate(make_event({"x": "a" * 1_000_000}))
    # A backtracking matcher needs longer than the age of the universe; any bound tells the two apart.
    assert time.process_time() - started < 30


@given(st.text(max_size=60))
def test_any_text_parses_or_is_refused(text: str) -> None:
    """Odd characters raised something else than BadFilter."""
    position = 0
    try:
        predicate = compile_filter(text)
    except BadFilter as error:
        position, predicate = error.details["position"], None
    assert 0 <= position <= len(text)
    assert predicate is None or predicate(EVENT) in (True, False)


# -- the naive evaluator ----------------------------------------------------------------------

_NAMES = ["topic", "round", "priority", "a", "b", "a.b", "data.a", "references"]
_WORDS = st.text(alphabet="ab*1", min_size=1, max_size=4)
_SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-3, 12), st.text(alphabet="ab1", max_size=4))
_DATA = st.fixed_dictionaries(
    {},
    optional={
        "a": st.one_of(_SCALARS, st.lists(_SCALARS, max_size=3), st.fixed_dictionaries({"b": _SCALARS})),
        "b": _SCALARS,
        "round": _SCALARS,
        "topic": _SCALARS,
    },
)
_VALUE = st.one_of(
    _WORDS, st.builds(lambda op, n: f"{op}{n}", st.sampled_from([">", "<", ">=", "<="]), st.integers(-3, 12))
)
_TERM = st.tuples(st.booleans(), st.sampled_from(_NAMES), st.lists(_VALUE, min_size=1, max_size=3))


def _naive_lookup(event: Event, path: list[str]) -> Any:
    envelope: dict[str, Any] = {
        "topic": event.topic,
        "round": event.round,
        "priority": event.priority,
        "references": event.references,
        "data": event.data,
    }
    for start in (envelope, event.data):
        value: Any = start
        for part in path:
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            return value
    return None


def _naive_value(value: Any, text: str) -> bool:
    comparison = re.fullmatch(r"(>=|<=|>|<)(-?\d+)", text)
    if comparison:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        bound = int(comparison[2])
        return {">": value > bound, "<": value < bound, ">=": value >= bound, "<=": value <= bound}[comparison[1]]
    if "*" in text:
        if value is None:
            return False
        shown = {True: "true", False: "false"}[value] if isinstance(value, bool) else value
        shown = "" if isinstance(shown, (dict, list, tuple)) else str(shown)
        pattern = "".join(".*" if character == "*" else re.escape(character) for character in text)
        return re.fullmatch(pattern, shown) is not None
    if isinstance(value, str):
        return value == text
    if value is None or isinstance(value, (bool, dict, list, tuple)):
        return False
    return text.isdigit() and value == int(text)


@given(st.lists(_TERM, min_size=1, max_size=3), _DATA, st.one_of(st.none(), st.integers(0, 12)))
def test_filters_agree_with_a_naive_evaluator(
    terms: list[tuple[bool, str, list[str]]], data: dict[str, Any], round_: int | None
) -> None:
    """An optimised path of the compiled predicate decided differently."""
    event = make_event(data, topic="ab", round=round_, references=("a", "b1"))
    text = ",".join(f"{'!' if negated else ''}{name}:{'|'.join(values)}" for negated, name, values in terms)
    expected = True
    for negated, name, values in terms:
        found = _naive_lookup(event, name.split("."))
        items = list(found) if isinstance(found, (list, tuple)) and found else [found]
        expected = expected and (any(_naive_value(item, value) for item in items for value in values) != negated)
    assert matches(text, event) is expected
