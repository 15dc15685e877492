"""The report of a run."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from api.cli.report import build_report, markdown, merged_findings, missing_outcome, outcome_of, render_report

RUN = {"run_id": "run_1", "task": "Look", "workflow": "team", "status": "completed", "error": None}


def stored(agent_type: str, **result: Any) -> dict[str, Any]:
    """A stored result."""
    return {"id": f"res_{agent_type}", "agent_type": agent_type, "agent_id": "agt_1", "result": result}


def drawn(*results: dict[str, Any], width: int = 80) -> str:
    """The report as a terminal shows it."""
    console = Console(file=io.StringIO(), width=width, no_color=True, highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        render_report(console, RUN, [outcome_of(result) for result in results], 12.34)
    return captured.get()


def finding(severity: str, message: str, path: str = "", line: int | None = None) -> dict[str, Any]:
    """A finding as the analysts give it."""
    return {"severity": severity, "message": message, "path": path, "line": line}


def test_gravest_come_first_with_their_place() -> None:
    """Prevents a critical finding from hiding below trifles."""
    text = drawn(
        stored("a", status="success", findings=[finding("info", "trifle"), finding("low", "small", "x.py", 3)]),
        stored("b", status="success", findings=[finding("critical", "key in the open", "keys.py", 7)]),
    )
    assert text.index("key in the open") < text.index("small") < text.index("trifle")
    assert "keys.py:7: key in the open [b]" in text
    assert "1 critical, 1 low, 1 info" in text
    assert "12.3 s" in text


def test_repeated_findings_count_once() -> None:
    """Prevents a reviewer's summary from doubling every finding."""
    outcomes = [
        outcome_of(stored("tester", findings=[finding("high", "no test", "x.py", 1)])),
        outcome_of(stored("reviewer", findings=[finding("high", "no test [tester]", "x.py", 1)])),
        outcome_of(stored("other", findings=[finding("high", "no test [tester in the change]", "x.py", 1)])),
    ]
    assert [(found.message, found.agent_type) for found in merged_findings(outcomes)] == [("no test", "tester")]
    assert build_report(RUN, outcomes)["findings_by_severity"] == {"high": 1}


def test_where_work_was_left_is_told() -> None:
    """What an agent wrote in a worktree of its own was nowhere to be found: the report did not say where that is."""
    agent = {"status": "completed", "workspace": "worktree", "workspace_path": "/state/worktrees/agt_1"}
    delivered = outcome_of(stored("writer", status="success"), agent=agent)
    console = Console(file=io.StringIO(), width=80)
    with console.capture() as captured:
        render_report(console, RUN, [delivered], None)
    for text in (captured.get(), markdown(RUN, [delivered]), str(build_report(RUN, [delivered]))):
        assert "/state/worktrees/agt_1" in text
    assert missing_outcome({}, agent).worktree == "/state/worktrees/agt_1"
    assert outcome_of(stored("reader"), agent={**agent, "workspace": "shared"}).worktree is None


def test_a_reviewer_adds_to_what_was_said() -> None:
    """Prevents a report of which half is said a second time below the reviewer; what is in the change stays there."""
    text = drawn(
        stored("tester", findings=[finding("high", "no test", "x.py", 1), finding("low", "slow test", "y.py", 2)]),
        stored(
            "reviewer",
            findings=[
                finding("high", "no test [tester]", "x.py", 1),
                finding("low", "slow test [tester in the change]", "y.py", 2),
                finding("low", "own view", "z.py", 3),
            ],
        ),
    )
    reviewer = text.rpartition(" reviewer  ")[2]
    assert "no test" not in reviewer
    assert "slow test" in reviewer
    assert "own view" in reviewer
    assert "and 1 of the findings above" in reviewer


def test_agents_cannot_steer_the_terminal() -> None:
    """Prevents escape sequences and markup in an agent's words from reaching the terminal."""
    evil = "\x1b]0;owned\x07 [bold]x[/bold] \x9b31m"
    text = drawn(stored("a", status="failed", errors=[evil], findings=[finding("high", evil)], decisions=[evil]))
    assert not {"\x1b", "\x07", "\x9b"} & set(text)
    assert "[bold]x[/bold]" in text
    assert "\x1b" not in markdown(RUN, [outcome_of(stored("a", errors=[evil]))])


def test_it_fits_80_columns() -> None:
    """Prevents a report that a small terminal breaks in the middle of words."""
    long = "a sentence of many words " * 20
    text = drawn(stored("a", summary=long, warnings=[long], findings=[finding("low", long, "a/b.py", 2)]))
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80


def test_step_without_a_result_says_why() -> None:
    """Prevents an agent that could not be started from looking as if it had found nothing."""
    step = {"agent_type": "go-specialist", "agent_id": None, "status": "failed"}
    outcome = missing_outcome(step, {"status": "failed", "error": "command 'gopls' was not found"})
    assert outcome.errors == ["command 'gopls' was not found"]
    assert "gopls" in markdown(RUN, [outcome])


@pytest.mark.parametrize(
    ("given_word", "wanted"), [("ERROR", "high"), ("warning", "medium"), ("note", "info"), ("weird", "info")]
)
def test_words_of_other_tools(given_word: str, wanted: str) -> None:
    """Prevents a linter's 'error' from being ranked as a trifle."""
    assert outcome_of(stored("a", findings=[{"level": given_word, "title": "x"}])).findings[0].severity == wanted


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
_KEYS = ("findings", "decisions", "errors", "warnings", "next_steps", "files_created", "summary", "status")


@given(st.dictionaries(st.sampled_from(_KEYS), _JSON))
def test_any_result_can_be_shown(result: dict[str, Any]) -> None:
    """Prevents an agent's odd result from ending the whole report in an error."""
    outcome = outcome_of(stored("a", **result))
    assert drawn(stored("a", **result))
    assert markdown(RUN, [outcome])
    json.dumps(build_report(RUN, [outcome]))
