"""Counting a few words of a text instead of all its identifiers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.context.counts import count_words, needle
from orchestrator.context.words import stem


def test_words_are_counted_in_any_case_and_within_others() -> None:
    """``retries`` and ``HTTPRetry`` were no places of the task's "retry"."""
    found = count_words(b"HTTPRetry RETRIES retry_all = 1\n" * 3, [stem("retry"), stem("pool")])
    assert (found.identifiers, found.counts) == (b"retri", b"\x09")
    assert count_words(b"pool " * 1000, ["pool"]).counts == b"\xff"
    assert count_words(b"", ["pool"]).total == 0


@given(st.text(min_size=1, max_size=30))
def test_every_word_has_a_needle(word: str) -> None:
    """An odd word of a task was looked for as nothing, which stands everywhere, or failed the answer."""
    assert needle(word)
    count_words(b"x" * 100, [word])
