"""What a user's type checker sees: checked by mypy with everything else, never run."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import assert_type

from agentpool.agent import Agent
from api.client import AsyncClient, Client
from api.client.types import Health, ResultPage, StoredResult


def blocking(client: Client) -> None:
    """Each call returns its value."""
    assert_type(client.health(), Health)
    assert_type(client.results(issue_id="i", limit=5), ResultPage)
    assert_type(client.store_result("i", {"status": "success"}), StoredResult)
    client.results(issue=5)  # type: ignore[call-arg]


async def asynchronous(client: AsyncClient) -> None:
    """The same calls, awaited."""
    assert_type(client.health(), Awaitable[Health])
    assert_type(await client.results(), ResultPage)
    client.store_result(5, {})  # type: ignore[arg-type]


def inside(agent: Agent) -> None:
    """The agent's side."""
    agent.progress("half", 50)
    agent.result({"status": "success"})
    agent.publish("found", "security", {"file": "a.py"}, priority="high")
    agent.progress(5)  # type: ignore[arg-type]
