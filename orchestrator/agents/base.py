"""What the agents service needs from those above it."""

from __future__ import annotations

from typing import Protocol

from agentpool.base import PoolStats
from orchestrator.models import AgentRecord, Event, EventDraft, Model


class Publish(Protocol):
    """Appends an event durably and returns it."""

    async def __call__(self, project_id: str, draft: EventDraft, *, role: str | None = None) -> Event:
        """``role`` is the agent type that asks, for the project's topic rules; None is the supervisor itself."""


class Admission(Protocol):
    """Who may start agents: the pool, as those see it who operate it."""

    def stats(self) -> PoolStats:
        """Counts of the moment."""

    def pause(self) -> None:
        """Start nothing more until ``resume``; what is spawned meanwhile waits in the queue."""

    def drain(self) -> None:
        """Start nothing more, and refuse spawns, until ``resume``."""

    def resume(self) -> None:
        """Undo ``pause`` and ``drain``."""


class TokenMinter(Protocol):
    """Gives agents their tokens; implemented by ``api.auth``."""

    def mint(
        self,
        agent_id: str,
        agent_type: str,
        project_id: str,
        permissions: tuple[str, ...],
        ttl_s: float,
        *,
        attempt: int | None = None,
    ) -> str:
        """A bearer token for this attempt, valid for ``ttl_s`` seconds or until the attempt ends."""

    def end(self, agent_id: str) -> None:
        """Refuse all tokens of this agent from now on."""

    def end_attempt(self, agent_id: str, attempt: int) -> None:
        """Refuse the tokens of this attempt and those before it from now on."""


class Spawned(Model, frozen=True, kw_only=True):
    """An accepted agent: its record, its token, and whether it waits in the queue (then nothing runs yet)."""

    record: AgentRecord
    token: str
    context_injected: bool
    queued: bool


class InputReceipt(Model, frozen=True, kw_only=True):
    """A message to an agent: ``state`` is ``queued``, ``written``, ``acknowledged`` or ``dead``."""

    message_id: str
    state: str
    reason: str = ""
