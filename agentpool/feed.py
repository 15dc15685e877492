"""The facts on their way to their one consumer: in order, none lost, and bounded by slowing the workers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from agentpool.messages import AgentExited, AgentRecord, Fact

#: What a fact is reckoned to take beside its payload.
FACT_BYTES = 256


class FactFeed:
    """A queue of facts. ``hold(True)`` is called when it is full, ``hold(False)`` when half of it is read."""

    def __init__(self, bound_bytes: int, hold: Callable[[bool], None]) -> None:
        self._bound = bound_bytes
        self._hold = hold
        self._facts: deque[Fact] = deque()
        self._bytes = 0
        self._is_held = False
        self._is_closed = False
        self._wake = asyncio.Event()

    def put(self, fact: Fact) -> None:
        """Add a fact; never refused, since it has happened."""
        self._facts.append(fact)
        self._bytes += size_of(fact)
        self._wake.set()
        if self._bytes > self._bound and not self._is_held:
            self._is_held = True
            self._hold(True)

    def close(self) -> None:
        """End the iteration once all is read."""
        self._is_closed = True
        self._wake.set()

    async def facts(self) -> AsyncIterator[Fact]:
        """All facts in order, until closed and empty."""
        while True:
            while self._facts:
                fact = self._facts.popleft()
                self._bytes -= size_of(fact)
                if self._is_held and self._bytes <= self._bound // 2:
                    self._is_held = False
                    self._hold(False)
                yield fact
            if self._is_closed:
                return
            self._wake.clear()
            await self._wake.wait()


def size_of(fact: Fact) -> int:
    """About how much memory a fact takes, in bytes."""
    if isinstance(fact, AgentRecord):
        return FACT_BYTES + len(fact.payload)
    if isinstance(fact, AgentExited):
        return FACT_BYTES + len(fact.stdout_tail) + len(fact.stderr_tail) + len(fact.terminal)
    return FACT_BYTES
