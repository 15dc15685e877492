"""A run's progress as plain lines."""

from __future__ import annotations

from typing import Any

import pytest

from api.cli.agents import progress_text
from api.cli.output import Output
from api.cli.progress import RunProgress

STEP = {"step": "look", "agent_type": "code-reviewer", "agent_id": "agt_1", "status": "running"}


def test_steps_never_go_back(capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents "running" before "starting": a step runs from when its agent was asked for, before that one exists."""
    progress = RunProgress(Output("table"), "Look", monotonic=iter(range(100)).__next__)
    agents: dict[str, dict[str, Any]] = {}
    progress.update({"steps": [STEP], "status": "running"}, agents)
    for status in ("starting", "running", "completed"):
        agents["agt_1"] = {"status": status}
        progress.update({"steps": [{**STEP, "status": status}], "status": "running"}, agents)
    said = [line.split()[1] for line in capsys.readouterr().err.splitlines()]
    assert said == ["queued", "starting", "running", "completed"]


@pytest.mark.parametrize(
    ("agent", "text"),
    [
        ({}, ""),
        ({"progress": None, "is_verifying": False}, ""),
        ({"progress": "reading"}, "reading"),
        ({"progress": {"message": "reading", "percent": 20.0}}, "reading (20%)"),
        ({"progress": {"message": "done"}, "is_verifying": True}, "its work is being verified"),
    ],
)
def test_who_waits_sees_what_for(agent: dict[str, Any], text: str) -> None:
    """An agent that was done and went on running while its tests ran showed the last words of its own."""
    assert progress_text(agent) == text
