"""What an agent's function uses, without a process of its own."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from agentpool.agent import Agent


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
