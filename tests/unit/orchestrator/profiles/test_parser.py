"""Profile files: types, names, and the two dialects."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.profiles.model import Check
from orchestrator.profiles.parser import Dialect, Layer, parse_layer, parse_tools
from orchestrator.profiles.problems import ProfileInvalid


def _parse(header: str, dialect: Dialect = "own") -> Layer:
    return parse_layer(f"---\n{header}\n---\nDo it.\n".encode(), "file.md", dialect)


def test_only_what_was_written_becomes_a_value() -> None:
    """A key that was left out must come from the layer below and not be reset by this one."""
    layer = _parse("name: x\ncontext: {max_bytes: 2048}\nlimits: {cpu_s: 5}")
    assert layer.values == {"context": {"max_bytes": 2048}, "limits": {"cpu_s": 5}}
    assert layer.body == "Do it."


@pytest.mark.parametrize(
    ("header", "line", "reason"),
    [
        ("model: opus", 2, "'name' is missing"),
        ("name: ../evil", 2, "name"),
        ("name: [x]", 2, "expected `str`"),
        ("name: x\ntimeout_seconds: soon", 3, "timeout_seconds"),
        ("name: x\ntimeout_seconds: 0", 3, "timeout_seconds"),
        ("name: x\npermission_class: root", 3, "permission_class"),
        ("name: x\nworkspace: home", 3, "workspace"),
        ("name: x\nrestart: sometimes", 3, "restart"),
        ("name: x\ncontext:\n  max_bytes: 3", 4, "context.max_bytes"),
        ("name: x\ncontext:\n  includes: [a]", 3, "includes"),
        ("name: x\ncontext:\n  requirements:\n    - readme_files\n    - read_me_files", 6, "'readme_files'"),
        ("name: x\nhands_over_to:\n  - agent_type: a\n  - agent_type: b\n    when: later", 6, "hands_over_to.1.when"),
        ("name: x\nhands_over_to:\n  - reason: none", 4, "agent_type"),
        ("name: x\ntriggers:\n  - topic: testing", 4, "`on`"),
        ("name: x\nlimits: {memory_bytes: -1}", 3, "memory_bytes"),
        ("name: x\nlimits: {nice: -5}", 3, "nice"),
        ("name: x\nlimits: {open_files: 3}", 3, "open_files must be 4 to"),  # every spawn of it was a 400
        ("name: x\nlimits: {memory_bytes: 9223372036854775808}", 3, "memory_bytes must be 1 to"),
        ("name: x\nlimits: {wall_s: 5}", 3, "timeout_seconds"),
        ("name: x\nlimits: {memory: 5}", 3, "memory"),
        ('name: x\ncommand: "unclosed \'quote"', 3, "command"),
        ("name: x\ncommand: '   '", 3, "program"),
        ("name: x\nverify: {timeout_seconds: 5}", 3, "`command`"),
        ("name: x\nverify:\n  command: '  '", 4, "verify.command must name a program"),
        ("name: x\nverify:\n  command: pytest\n  timeout_seconds: 0", 5, "verify.timeout_seconds"),
        ("name: x\nends:\n  expects: much", 4, "ends.expects"),
        ("name: x\nends:\n  quota_exit_codes: [0]", 4, "ends.quota_exit_codes"),
        ("name: x\nends: {quota_phrases: ['']}", 3, "ends.quota_phrases"),
        ("name: x\nenvironment: ['A=B']", 3, "environment"),
        ("name: x\ntimout_seconds: 5", 3, "did you mean 'timeout_seconds'"),
    ],
)
def test_errors_name_key_and_line(header: str, line: int, reason: str) -> None:
    """An author must find the fault without searching, wherever it is nested."""
    with pytest.raises(ProfileInvalid) as caught:
        _parse(header)
    assert reason in caught.value.reason
    assert caught.value.line == line


def test_hand_overs_may_be_plain_names() -> None:
    """The shortest way to write a hand-over must work beside the full one."""
    layer = _parse("name: x\nhands_over_to:\n  - test-engineer\n  - {agent_type: debugger, when: failed}")
    assert [(entry.agent_type, entry.when) for entry in layer.values["hands_over_to"]] == [
        ("test-engineer", "always"),
        ("debugger", "failed"),
    ]


def test_a_command_is_split_as_a_shell_would() -> None:
    """Quoted arguments with blanks must stay whole; a list is taken as it is."""
    assert _parse("name: x\ncommand: my-agent --note 'two words'").values["command"] == (
        "my-agent",
        "--note",
        "two words",
    )
    assert _parse("name: x\ncommand: [my agent, a b]").values["command"] == ("my agent", "a b")


def test_a_check_is_a_command_with_a_time() -> None:
    """A layer must be able to take the check of the one below away."""
    assert _parse("name: x\nverify: {command: pytest -q}").values["verify"] == Check(command=("pytest", "-q"))
    assert _parse("name: x\nverify: null").values == {"verify": None}
    assert _parse("name: x\nends: {quota_exit_codes: [75]}").values == {"ends": {"quota_exit_codes": (75,)}}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("Read, Grep , Read", ("Read", "Grep")),
        ("Bash(git log:*, git diff:*), Edit", ("Bash(git log:*, git diff:*)", "Edit")),
        ("*", ()),
        ("", ()),
        (("Read", "Grep, Glob"), ("Read", "Grep", "Glob")),
        ("- Read\n- mcp__server__tool", ("Read", "mcp__server__tool")),
    ],
)
def test_tools_are_read_in_every_form(written: str | tuple[str, ...], read: tuple[str, ...]) -> None:
    """Commas within a tool's own parentheses do not separate tools."""
    assert parse_tools(written) == read


CLAUDE_FILE = """name: code-helper
description: Use this agent when code was written. Examples: <example>user: "check this" assistant: "I will"</example>
model: inherit
color: green
permissionMode: acceptEdits
tools:"""


def test_a_coding_clis_own_file_works_unchanged() -> None:
    """Its unquoted colons, foreign keys and empty values must not keep it out."""
    layer = _parse(CLAUDE_FILE, "claude")
    assert layer.name == "code-helper"
    assert layer.values["description"].startswith("Use this agent")
    assert layer.values["description"].endswith("</example>")
    assert layer.values["model"] == "inherit"
    assert "tools" not in layer.values
    reasons = [problem.reason for problem in layer.problems]
    assert any("'color'" in reason for reason in reasons)
    assert all(problem.severity == "note" for problem in layer.problems)


def test_unknown_keys_are_noted_in_a_coding_clis_file_and_refused_in_ours() -> None:
    """There an unknown key belongs to the other program, here it is a typing error."""
    layer = _parse("name: x\nfuture_key: 1", "claude")
    assert [(problem.severity, problem.line) for problem in layer.problems] == [("note", 3)]
    with pytest.raises(ProfileInvalid, match="future_key"):
        _parse("name: x\nfuture_key: 1")


def test_a_coding_clis_known_keys_are_only_noted_in_our_files() -> None:
    """Copying such a file into the project's own directory must not break it."""
    assert _parse("name: x\ncolor: red").problems[0].severity == "note"


_FRAGMENTS = st.sampled_from(
    [
        "---",
        "name: x",
        "model: opus",
        "limits: {cpu_s: 1}",
        "context:",
        "  include: [a, '**']",
        "- ",
        "[",
        "{",
        "&a",
        "*a",
        "hands_over_to:",
        "  - agent_type: b",
        "? ",
        "!!int",
        "<<: {a: 1}",
        "1e999",
        ".inf",
        "0x",
        "2001-01-01",
        "\t",
        '"',
    ]
)


@pytest.mark.parametrize("dialect", ["own", "claude"])
@given(data=st.one_of(st.binary(max_size=300), st.lists(_FRAGMENTS, max_size=12).map(lambda p: "\n".join(p).encode())))
@example(data=b"---\nname: x\ntimeout_seconds: .nan\n---\n")
@example(data=b"---\nname: x\ntimeout_seconds: .inf\n---\n")
@example(data="---\nname: x\ndescription: \U0001f600\u2028\n---\n".encode())
def test_whatever_the_bytes_only_one_kind_of_error_escapes(dialect: Dialect, data: bytes) -> None:
    """One odd file in a project must never take the whole catalogue down with an unforeseen exception."""
    for candidate in (data, b"---\n" + data + b"\n---\nbody"):
        outcome = _outcome(candidate, dialect)
        if isinstance(outcome, ProfileInvalid):
            assert outcome.reason
            assert outcome.line is None or 1 <= outcome.line <= candidate.count(b"\n") + candidate.count(b"\r") + 3
        else:
            assert outcome.name
            assert 0 < outcome.values.get("timeout_seconds", 1.0) < float("inf")


def _outcome(data: bytes, dialect: Dialect) -> Layer | ProfileInvalid:
    try:
        return parse_layer(data, "file.md", dialect)
    except ProfileInvalid as error:
        return error
