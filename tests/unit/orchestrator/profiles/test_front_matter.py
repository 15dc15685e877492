"""Front matter: what is read, what is refused, and that the refusal names the line."""

from __future__ import annotations

import pytest

from orchestrator.profiles.front_matter import MAX_DEPTH, MAX_FILE_BYTES, MAX_FRONT_MATTER_BYTES, read_document
from orchestrator.profiles.problems import ProfileInvalid


def _document(header: str, body: str = "text") -> bytes:
    return f"---\n{header}\n---\n{body}\n".encode()


def _refusal(data: bytes, *, lenient: bool = False) -> ProfileInvalid:
    with pytest.raises(ProfileInvalid) as caught:
        read_document(data, lenient=lenient)
    return caught.value


def test_values_lines_and_body_are_taken_apart() -> None:
    """A wrong line number sends the author of a bad file to the wrong place."""
    document = read_document(
        _document("name: x\ncontext:\n  include:\n    - a\n    - b\nlimits: {cpu_s: 3}", "\nDo.\n")
    )
    assert document.values == {"name": "x", "context": {"include": ["a", "b"]}, "limits": {"cpu_s": 3}}
    assert document.lines["context"] == 3
    assert document.lines["context.include.1"] == 6
    assert document.lines["limits.cpu_s"] == 7
    assert document.body == "Do."
    assert not document.is_lenient


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("1.5", 1.5),
        ("true", True),
        ("~", None),
        ('"3"', "3"),
        ("1_000", 1000),
        ("plain words", "plain words"),
    ],
)
def test_scalars_are_read_as_yaml_does(text: str, value: object) -> None:
    """Building values from events must not turn numbers into text, or quoted text into numbers."""
    read = read_document(_document(f"key: {text}")).values["key"]
    assert (read, type(read)) == (value, type(value))


def test_byte_order_mark_and_windows_line_ends_are_accepted() -> None:
    """Files saved by Windows editors were refused as having no front matter."""
    data = "\ufeff---\r\nname: x\r\nmodel: opus\r\n---\r\nOne\r\nTwo\r\n".encode()
    document = read_document(data)
    assert document.values == {"name": "x", "model": "opus"}
    assert document.lines["model"] == 3
    assert document.body == "One\nTwo"


def test_a_rule_in_the_body_is_not_taken_for_a_fence() -> None:
    """A horizontal rule in the instructions must not cut them off."""
    assert read_document(b"---\nname: x\n---\nabove\n\n---\n\nbelow\n").body == "above\n\n---\n\nbelow"


@pytest.mark.parametrize(
    ("data", "line", "reason"),
    [
        (b"", 1, "no front matter"),
        (b"# A page\n", 1, "no front matter"),
        (b"---- \nname: x\n---\n", 1, "alone"),
        (b"---\nname: x\n", 1, "not closed"),
        (b"---\nname: x\n---\n\x00", 4, "binary"),
        (b"---\nname: \xff\n---\n", 2, "not UTF-8"),
        (b"---\n- a\n---\n", 2, "must be a mapping"),
        (b"---\nname: x\nname: y\n---\n", 3, "given twice"),
        (b"---\nname: x\ndescription: one: two\n---\n", 3, "not valid YAML"),
        (b"---\nname: x\nlist: [a\n---\n", None, "not valid YAML"),
        (b"---\nname: x\n--- again\n---\n", 3, "single document"),
        (b"---\n? [a, b]\n: c\n---\n", 2, "plain words"),
        (b"---\nname: 2024-13-40\n---\n", 2, "cannot be read"),
        (b"---\nname: !!python/object/apply:os.getcwd []\n---\n", 2, "tags"),
    ],
)
def test_bad_files_are_refused_with_line_and_reason(data: bytes, line: int | None, reason: str) -> None:
    """Each kind of bad file must be told apart; none may escape as another exception."""
    error = _refusal(data)
    assert reason in error.reason
    if line is not None:
        assert error.line == line


def test_an_alias_bomb_is_refused_before_it_grows() -> None:
    """A few hundred bytes of nested aliases stand for billions of values."""
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    error = _refusal(_document("\n".join(levels)))
    assert "anchors and aliases" in error.reason
    assert error.line == 2


@pytest.mark.parametrize(
    "value", ["[" * 5000, "{a: " * 1000, "- " * 5000, "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)]
)
def test_deep_nesting_is_refused(value: str) -> None:
    """Deep nesting must end in an error and not in a RecursionError or a crash of the C parser."""
    error = _refusal(_document(f"key:\n  {value}"))
    assert "nested deeper" in error.reason or "nesting depth" in error.reason  # libyaml 0.2.6 has a bound of its own


def test_too_many_values_are_refused() -> None:
    """A long list is cheap to write and expensive to hold."""
    assert "more than" in _refusal(_document("key: [" + "a," * 5000 + "]")).reason


def test_a_number_of_thousands_of_digits_is_refused() -> None:
    """Python refuses to convert it with a ValueError, which escaped the YAML errors."""
    assert "cannot be read" in _refusal(_document("key: " + "9" * 5000)).reason


def test_size_is_bounded() -> None:
    """A huge file must be refused by its size and not parsed."""
    assert "file over" in _refusal(_document("name: x", "a" * MAX_FILE_BYTES)).reason
    assert "front matter over" in _refusal(_document("name: " + "a" * MAX_FRONT_MATTER_BYTES)).reason


def test_nearly_yaml_is_read_as_lines_when_lenient() -> None:
    """Coding CLIs' own agent files have unquoted colons in their descriptions and work there."""
    header = "name: x\ndescription: Use when: asked.\n  Example: user: hi\ntools: Read, Grep\ncolor: red"
    document = read_document(_document(header), lenient=True)
    assert document.is_lenient
    assert document.values["description"] == "Use when: asked.\nExample: user: hi"
    assert document.values["tools"] == "Read, Grep"
    assert document.lines["tools"] == 5


def test_lenient_reading_still_refuses_what_has_no_keys() -> None:
    """Anything at all must not pass as front matter."""
    assert "not valid YAML" in _refusal(_document("}{ nonsense"), lenient=True).reason
