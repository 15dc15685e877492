"""Identifiers, stems and the query of a task text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.context.query import parse
from orchestrator.context.words import Splitter, raw_identifiers, stem


@pytest.mark.parametrize(
    ("identifier", "parts"),
    [
        ("getUserName", ("get", "user", "name", "getusername")),
        ("HTTPServer", ("http", "server", "httpserver")),
        ("parse_rfc3339", ("parse", "rfc", "parse_rfc3339")),
        ("x", ()),
        ("user", ("user",)),
    ],
)
def test_an_identifier_is_split_where_people_see_words(identifier: str, parts: tuple[str, ...]) -> None:
    """A task that says "user name" missed getUserName."""
    stems = {stem(part) for part in parts[:-1]} | set(parts[-1:])
    assert set(Splitter().split(identifier)) == (stems if len(parts) > 1 else set(parts))


@pytest.mark.parametrize(
    "forms",
    [
        ("validate", "validates", "validating", "validated", "validation"),
        ("parse", "parsed", "parsing"),
        ("file", "files"),
    ],
)
def test_forms_of_a_word_share_a_stem(forms: tuple[str, ...]) -> None:
    """The task's "validation" did not find "validate"."""
    assert len({stem(form) for form in forms}) == 1


@given(st.binary(max_size=300))
def test_any_bytes_give_identifiers_without_separators(data: bytes) -> None:
    """Odd bytes stopped the indexer."""
    for identifier in raw_identifiers(data):
        assert identifier
        assert b" " not in identifier
        Splitter().split(identifier.decode("utf-8", "replace"))


@given(st.text(max_size=400))
def test_any_text_is_a_query(text: str) -> None:
    """A task text with lone surrogates or control characters raised."""
    query = parse(text, Splitter())
    assert all(weight > 0 for weight in query.terms.values())


def test_the_first_line_counts_more_than_the_explanation() -> None:
    """A squash message's long body drowned its subject."""
    query = parse("repair the tokenizer\n\nwhile there the renderer was read", Splitter())
    assert query.terms[stem("tokenizer")] > query.terms[stem("renderer")]


def test_named_code_is_recognised() -> None:
    """`Pool.submit()` in a task was only three words."""
    query = parse("`Pool.submit` hangs when do_work() raises a TimeoutError", Splitter())
    assert {"Pool", "submit", "do_work", "TimeoutError"} <= query.names
