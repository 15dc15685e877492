"""An agent that does not take its events: tried again and again, each event given up after so many tries.

While it is stalled nothing of its events is held in memory: it has a cursor, and its lines are read from the log
again for each try.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import msgspec
import structlog

from agentpool.base import Pool
from agentpool.messages import FeedLine, FeedState
from orchestrator.agents.feedlines import event_line, gap_line
from orchestrator.agents.registry import LiveAgent
from orchestrator.errors import StorageReadFailed, StorageWriteFailed
from orchestrator.events.bus import EventBus
from orchestrator.events.delivery import backoff_s
from orchestrator.events.query import EventPage, EventQuery
from orchestrator.models import Event

#: Events read from the log at a time.
PAGE = 64
#: Seconds after which the log is read again when storage could not be read.
RETRY_S = 1.0
#: Bytes offered to an agent at a time (one line at least): a quarter of what may wait for its stdin.
OFFER_BYTES = 256 << 10
#: The kind of target under which dead letters name an agent's stdin.
TARGET = "stdin"
REASON = "stdin_full"
log = structlog.get_logger(__name__)


class Stall:
    """How far a stalled agent has come.

    Attributes:
        position: sequence number up to which its events are written, passed over or given up.
        tries: of each failed try since it last took something, the newest event that was waiting then.
        has_hole: whether events up to ``position`` were given up, of which the agent is still to be told.
        is_open: whether the worker would take the next line now, were it sent to all.
    """

    def __init__(self, live: LiveAgent, position: int) -> None:
        self.live = live
        self.position = position
        self.tries: deque[int] = deque()
        self.has_hole = False
        self.is_open = False
        self.room = asyncio.Event()
        self._answer: asyncio.Future[FeedState] | None = None

    def note(self, fact: FeedState) -> None:
        """Take an answer of the pool, or its word that there is room again."""
        if fact.state == "ready":
            self.room.set()
        elif self._answer is not None and not self._answer.done():
            self._answer.set_result(fact)

    async def answer(self) -> FeedState:
        """The pool's next answer."""
        self._answer = asyncio.get_running_loop().create_future()
        return await self._answer

    def attempts_of(self, seq: int) -> int:
        """How many of the failed tries an event was among."""
        return sum(newest >= seq for newest in self.tries)


class Offer(msgspec.Struct, frozen=True):
    """Lines to be written now; ``reached`` is how far the log is read when all are taken."""

    lines: list[FeedLine]
    reached: int
    has_more: bool


class StallReader:
    """Brings stalled agents back to the newest event.

    Args:
        concerns: whether an event is for an agent.
        chance: gives uniform numbers in [0, 1) for the jitter between tries.
    """

    def __init__(
        self,
        bus: EventBus,
        pool: Pool,
        concerns: Callable[[Event, LiveAgent], bool],
        *,
        chance: Callable[[], float],
    ) -> None:
        self._bus = bus
        self._pool = pool
        self._concerns = concerns
        self._chance = chance

    async def catch_up(self, stall: Stall, is_level: Callable[[int], bool]) -> None:
        """Return when nothing of the log is left for the agent and ``is_level`` holds of its position."""
        # The refusal that made it stall was the first try.
        await self._failed(stall)
        while True:
            offer = await self._offer(stall)
            if not offer.lines:
                stall.position = offer.reached
                if not offer.has_more and stall.is_open and is_level(stall.position):
                    return
                if offer.has_more or stall.is_open:
                    continue
                # All was given up: what comes next is to be tried all the same, so the worker must not refuse it.
            if await self._is_taken(stall, offer):
                stall.position = offer.reached
            else:
                await self._failed(stall)

    async def _is_taken(self, stall: Stall, offer: Offer) -> bool:
        """Write an offer; False when there was no room for all of it."""
        stall.room.clear()
        self._pool.feed([stall.live.record.agent_id], offer.lines, is_retry=True)
        state = await stall.answer()
        stall.is_open = state.state == "taken"
        # A gap has the position itself as its place. It is short and may fit where no event does: no progress.
        first_event = next((line.sequence for line in offer.lines if line.sequence > stall.position), state.sequence)
        if stall.is_open or state.sequence > first_event:
            stall.tries.clear()
        if stall.is_open or state.sequence > stall.position:
            stall.has_hole = False
        if not stall.is_open:
            stall.position = max(stall.position, state.sequence - 1)
        return stall.is_open

    async def _offer(self, stall: Stall) -> Offer:
        page = await self._page(stall, stall.position)
        lines: list[FeedLine] = []
        if page.gap and page.oldest_cursor is not None:
            log.warning("feed_fell_behind", agent_id=stall.live.record.agent_id, oldest=page.oldest_cursor)
            lines.append(FeedLine(stall.position, gap_line(page.oldest_cursor)))
        elif stall.has_hole:
            lines.append(FeedLine(stall.position, gap_line(str(stall.position))))
        size = 0
        for event in page.events:
            if not self._concerns(event, stall.live):
                continue
            line = event_line(self._bus.encoded(event))
            size += len(line)
            if lines and size > OFFER_BYTES:
                return Offer(lines, event.seq - 1, True)
            lines.append(FeedLine(event.seq, line))
        return Offer(lines, int(page.next_cursor), page.more_available)

    async def _page(self, stall: Stall, position: int) -> EventPage:
        project_id = stall.live.record.project_id
        while True:
            try:
                return await self._bus.replay(project_id, EventQuery(since=str(position), limit=PAGE))
            except StorageReadFailed as error:
                log.warning("feed_cannot_read", project_id=project_id, reason=error.message)
                await asyncio.sleep(RETRY_S)

    async def _failed(self, stall: Stall) -> None:
        """Count a try, give up what has had all of its tries, and wait for the next."""
        most = self._bus.settings.max_deliveries
        stall.tries.append(int(await self._bus.position(stall.live.record.project_id)))
        if len(stall.tries) >= most:
            await self._give_up(stall, stall.tries.popleft(), most)
        try:
            async with asyncio.timeout(backoff_s(max(1, stall.attempts_of(stall.position + 1)), self._chance())):
                await stall.room.wait()
        except TimeoutError:
            pass

    async def _give_up(self, stall: Stall, last: int, attempts: int) -> None:
        """Make dead letters of the agent's events up to the sequence number ``last``."""
        while stall.position < last:
            page = await self._page(stall, stall.position)
            events = [event for event in page.events if event.seq <= last and self._concerns(event, stall.live)]
            await asyncio.gather(*(self._bury(stall.live, event, attempts) for event in events))
            stall.has_hole = stall.has_hole or bool(events)
            stall.position = min(last, int(page.next_cursor))

    async def _bury(self, live: LiveAgent, event: Event, attempts: int) -> None:
        try:
            await self._bus.letters.add(
                live.record.project_id,
                event,
                target=f"{TARGET}:{live.record.agent_id}",
                reason=REASON,
                attempts=attempts,
                last_error="the agent does not read its stdin",
            )
        except StorageWriteFailed as error:
            log.error("dead_letter_lost", agent_id=live.record.agent_id, reason=error.message)
