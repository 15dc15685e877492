"""The context engine as a selector of the context benchmark, in this process: ``py:perf/context_selector.py``.

``CONTEXT_WITHOUT=votes,path`` switches signals of the ranking off, for measuring what each is worth.
``CONTEXT_PROVISIONAL=1`` gives the provisional answers, also of projects that are too small to be served one.
"""

from __future__ import annotations

import os
from typing import Any

import msgspec

from orchestrator.context.library import Library
from orchestrator.context.models import BuildOrder, Role
from orchestrator.context.project import Limits
from orchestrator.context.provisional import glance
from orchestrator.context.rank import Weights

ROLES = {"developer": ("fullstack-developer", "development"), "tester": ("test-engineer", "testing")}


class Selector:
    """Answers the benchmark's requests; a project is looked at once per task text."""

    def __init__(self, without: tuple[str, ...] = (), *, is_provisional: bool = False) -> None:
        self._is_provisional = is_provisional
        self._library = Library(Limits(), 1 << 30)
        self._library.weights = msgspec.structs.replace(Weights(), **dict.fromkeys(without, 0.0))
        self._seen: tuple[str, str] | None = None

    def select(self, request: dict[str, Any]) -> list[Any]:
        """Paths, best first, whole or with line ranges."""
        name, category = ROLES.get(request["agent_type"], (request["agent_type"], ""))
        order = BuildOrder(
            project_id="bench",
            root=os.path.realpath(request["repo_dir"]),
            issue_id="bench",
            role=Role(agent_type=name, category=category),
            task=request["task"],
            max_bytes=request["budget_bytes"],
        )
        if self._is_provisional:
            answer = glance(order, Limits(), least_bytes=0)
            assert answer is not None
            files = msgspec.json.decode(answer.body)["context"]["relevant_files"]
            return [{"path": f["path"], "ranges": f["ranges"]} if "ranges" in f else f["path"] for f in files]
        state = self._library.state(order.root)
        if self._seen != (order.root, order.task):
            state.refresh()
            self._seen = (order.root, order.task)
        chosen = self._library.choose(state, order).chosen
        return [
            {"path": pick.ranked.facts.path, "ranges": [list(part) for part in pick.ranges]}
            if pick.ranges is not None
            else pick.ranked.facts.path
            for pick in chosen
        ]


_SELECTOR = Selector(
    tuple(filter(None, os.environ.get("CONTEXT_WITHOUT", "").split(","))),
    is_provisional=os.environ.get("CONTEXT_PROVISIONAL") == "1",
)
select = _SELECTOR.select
