"""Lines and strict JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentpool.lines import MAX_DEPTH, MAX_LINE_BYTES, BadLine, LineSplitter, parse_object


@given(st.lists(st.binary(max_size=40), max_size=20), st.data())
def test_lines_do_not_depend_on_how_the_pipe_cuts_them(parts: list[bytes], data: st.DataObject) -> None:
    """Prevents records that are lost or doubled at the edge of a read, whichever way a block was fed."""
    stream = b"\n".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    splitter = LineSplitter(7)
    found = []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += splitter.feed(stream[begin:end])
    expected = stream.split(b"\n")[:-1]
    assert [line.data for line in found] == expected
    for line in found:
        assert stream[line.offset - 7 :].startswith(line.data + b"\n")


@given(st.lists(st.tuples(st.binary(max_size=30), st.booleans()), max_size=12))
def test_a_mute_block_moves_the_offsets_as_any_other(blocks: list[tuple[bytes, bool]]) -> None:
    """Prevents records with wrong offsets after text that was passed over whole."""
    whole, splitter = LineSplitter(), LineSplitter()
    expected, found = [], []
    for block, is_mute in blocks:
        expected += whole.feed(block)
        found += splitter.feed_mute(block) if is_mute else splitter.feed(block)
    assert set(found) <= set(expected)
    last = splitter.feed(b"\n")
    assert last == whole.feed(b"\n")


def test_a_long_line_is_told_once_with_its_size() -> None:
    """Prevents memory that grows with a line, and a skipped line that swallows the next."""
    splitter = LineSplitter()
    found = []
    for _ in range(5):
        found += splitter.feed(b"x" * (MAX_LINE_BYTES // 2))
    found += splitter.feed(b"\nnext\n")
    assert [(line.is_too_long, line.size, line.data) for line in found] == [
        (True, MAX_LINE_BYTES // 2 * 5, b""),
        (False, 4, b"next"),
    ]


def test_a_line_of_exactly_the_limit_is_kept() -> None:
    """Prevents an off-by-one that refuses the longest legal line."""
    (line,) = LineSplitter().feed(b"x" * MAX_LINE_BYTES + b"\n")
    assert not line.is_too_long


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"[]", "not_an_object"),
        (b'{"a":Infinity}', "not_finite"),
        (b'{"a":-1e999}', "not_finite"),
        (b'{"a":18446744073709551616}', "integer_too_large"),
        (b'{"a":-9223372036854775809}', "integer_too_large"),
        (b'{"a":{"b":1,"b":1}}', "duplicate_key"),
        (b'{"a":"\\udfff"}', "lone_surrogate"),
        (b'{"\\ud800":1}', "lone_surrogate"),
        (b'{"a":"\xc3"}', "not_utf8"),
        (b'{"a":1} x', "not_json"),
        (b'{"a":"\x01"}', "not_json"),
        (b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), "too_deep"),
    ],
)
def test_unacceptable_json_is_refused_with_a_stable_word(line: bytes, reason: str) -> None:
    """Prevents values that break stores and clients further up."""
    with pytest.raises(BadLine, match=f"^{reason}$"):
        parse_object(line)


def test_brackets_in_strings_are_not_depth() -> None:
    """Prevents code in a message from being taken for nesting."""
    text = '\\"{[' * 500
    assert parse_object(json.dumps({"a": text}).encode()) == {"a": text}


def test_surrogate_pairs_are_text() -> None:
    """Prevents escaped emoji from being refused."""
    assert parse_object(b'{"a":"\\ud83d\\ude00"}') == {"a": "😀"}
    assert parse_object(b'{"a":18446744073709551615}') == {"a": 2**64 - 1}
