"""What an agent's function uses, without a process of its own."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from agentpool.agent import Agent
from agentpool.lines import Line
from agentpool.runtimes.jsonl import JsonLinesParser


def circle() -> dict[str, Any]:
    """A mapping that holds itself."""
    found: dict[str, Any] = {}
    found["self"] = found
    return found


@pytest.mark.parametrize(
    ("data", "error"), [({"n": float("nan")}, ValueError), (circle(), ValueError), ({"n": object()}, TypeError)]
)
def test_what_is_no_json_is_refused_whole(data: dict[str, Any], error: type[Exception]) -> None:
    """A circle raised RecursionError where an agent looked for the ValueError of ``json``."""
    out = io.StringIO()
    agent = Agent({}, out=out)
    with pytest.raises(error):
        agent.result(data)
    assert out.getvalue() == ""
    agent.log("é\ud800")
    assert json.loads(out.getvalue()) == {"type": "log", "level": "info", "message": "é\ud800"}


def test_a_result_may_tell_why_there_is_none() -> None:
    """An agent in Python could not say that its model's service gave no more."""
    out = io.StringIO()
    agent = Agent({}, out=out)
    agent.result({"status": "failed"}, outcome="quota")
    agent.result({})
    said = [json.loads(line) for line in out.getvalue().splitlines()]
    assert said == [
        {"type": "result", "result": {"status": "failed"}, "outcome": "quota"},
        {"type": "result", "result": {}},
    ]


@pytest.mark.parametrize(
    ("lines", "outcome"),
    [
        ([{"result": {"status": "failed"}, "outcome": "quota"}], "quota"),
        ([{"result": {}, "outcome": "no_output"}], "no_output"),
        ([{"result": {}, "outcome": "quota"}, {"result": {}}], "succeeded"),
        ([{"result": {"status": "partial"}, "outcome": "something"}], "partial"),
        ([{"result": {}, "outcome": ["quota"]}], "succeeded"),
    ],
)
def test_the_pipe_takes_the_last_results_outcome(lines: list[dict[str, Any]], outcome: str) -> None:
    """A word of an earlier result, or of another program's own, that decides the end."""
    parser = JsonLinesParser()
    for line in lines:
        data = json.dumps({"type": "result", **line}).encode()
        assert [record.kind for record in parser.feed(Line(0, data, len(data)))] == ["result"]
    verdict = parser.verdict()
    assert verdict is not None
    assert verdict.outcome == outcome
