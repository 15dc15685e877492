"""Deliveries that were given up: kept for a person to look at, to try again, or to throw away."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import structlog

from orchestrator.clock import Clock
from orchestrator.errors import NotFound
from orchestrator.events.filters import compile_filter
from orchestrator.identifiers import new_id
from orchestrator.models import DeadLetter, Delivery, Event
from orchestrator.storage.base import EventStore

log = structlog.get_logger(__name__)

_PAGE = 200
#: Whether who asks may know of a letter.
MaySee = Callable[[DeadLetter], bool]


def _everything(letter: DeadLetter) -> bool:
    return True


class DeadLetters:
    """The dead letters of all projects, at most ``keep`` of each.

    Attributes:
        count: how many there are now.
        dropped: how many old ones were dropped since the start because a project had ``keep`` of them.
        full: projects that dropped some and of which none has been redriven or purged since.
    """

    def __init__(self, store: EventStore, clock: Clock, *, keep: int) -> None:
        self._store = store
        self._clock = clock
        self._keep = keep
        self.count = 0
        self.dropped = 0
        self.full: set[str] = set()

    async def refresh(self) -> None:
        """Count anew."""
        self.count = await self._store.count_dead_letters()

    async def page(self, project_id: str, *, after: str | None = None, limit: int = 100) -> list[DeadLetter]:
        """Oldest first, after the id ``after``."""
        return await self._store.list_dead_letters(project_id, after=after, limit=limit)

    async def get(self, project_id: str, letter_id: str) -> DeadLetter:
        """One. Raises NotFound."""
        letter = await self._store.get_dead_letter(project_id, letter_id)
        if letter is None:
            raise NotFound(f"no dead letter {letter_id}", details={"id": letter_id})
        return letter

    async def give_up(self, delivery: Delivery, reason: str, last_error: str) -> DeadLetter:
        """Turn a delivery into a dead letter, in one transaction."""
        letter = DeadLetter(
            id=new_id("dlq"),
            event=delivery.event,
            target=delivery.target,
            reason=reason,
            attempts=delivery.attempts,
            last_error=last_error[:500],
            created_at=self._clock.now(),
        )
        dropped = await self._store.give_up_delivery(delivery, letter, keep=self._keep)
        self.count += 1 - dropped
        log.error("dead_letter", project_id=delivery.project_id, target=delivery.target, reason=reason, id=letter.id)
        if dropped:
            self.dropped += dropped
            self.full.add(delivery.project_id)
            log.error("dead_letters_full", project_id=delivery.project_id, keep=self._keep, dropped=dropped)
        return letter

    async def add(
        self, project_id: str, event: Event, *, target: str, reason: str, attempts: int, last_error: str
    ) -> DeadLetter:
        """Keep a failed push that was not in the outbox (an agent's stdin, for instance)."""
        now = self._clock.now()
        delivery = Delivery(
            id=f"{target}:{event.event_id}",
            project_id=project_id,
            event=event,
            target=target,
            created_at=now,
            next_at=now,
            attempts=attempts,
        )
        return await self.give_up(delivery, reason, last_error)

    async def redrive(self, project_id: str, letter_id: str) -> Delivery:
        """Put it back among the deliveries, with no attempts counted. Raises NotFound."""
        letter = await self.get(project_id, letter_id)
        now = self._clock.now()
        delivery = Delivery(
            id=f"{letter.target}:{letter.event.event_id}",
            project_id=project_id,
            event=letter.event,
            target=letter.target,
            created_at=now,
            next_at=now,
        )
        if not await self._store.redrive_dead_letter(project_id, letter_id, delivery):
            raise NotFound(f"no dead letter {letter_id}", details={"id": letter_id})
        self._left(project_id)
        return delivery

    async def redrive_matching(
        self, project_id: str, filter_text: str | None, *, may_see: MaySee = _everything
    ) -> list[Delivery]:
        """Redrive those whose event matches (None: all) and ``may_see`` allows. Raises BadFilter."""
        redriven = []
        for letter in await self._matching(project_id, filter_text, may_see):
            with suppress(NotFound):  # it was redriven, purged or dropped meanwhile
                redriven.append(await self.redrive(project_id, letter.id))
        return redriven

    async def purge(self, project_id: str, letter_id: str) -> None:
        """Throw one away. Raises NotFound."""
        if not await self._store.drop_dead_letter(project_id, letter_id):
            raise NotFound(f"no dead letter {letter_id}", details={"id": letter_id})
        self._left(project_id)

    def _left(self, project_id: str) -> None:
        self.count -= 1
        self.full.discard(project_id)

    async def purge_matching(self, project_id: str, filter_text: str | None, *, may_see: MaySee = _everything) -> int:
        """Throw away those whose event matches (None: all) and ``may_see`` allows; how many. Raises BadFilter."""
        count = 0
        for letter in await self._matching(project_id, filter_text, may_see):
            with suppress(NotFound):
                await self.purge(project_id, letter.id)
                count += 1
        return count

    async def _matching(self, project_id: str, filter_text: str | None, may_see: MaySee) -> list[DeadLetter]:
        predicate = compile_filter(filter_text)
        found: list[DeadLetter] = []
        after: str | None = None
        while page := await self._store.list_dead_letters(project_id, after=after, limit=_PAGE):
            found += [letter for letter in page if may_see(letter) and (predicate is None or predicate(letter.event))]
            after = page[-1].id
        return found
