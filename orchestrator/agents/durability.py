"""Doing what must be recorded although storage refuses for a while (a full disk, for instance)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol, TypeVar

import structlog

from orchestrator.errors import StorageWriteFailed

T = TypeVar("T")
FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 5.0
#: Seconds for which storage has to refuse before somebody who waits for a record is told so; a moment's refusal
#: (a busy database, a file that is deleted just then) is over by then.
PATIENCE_S = 3.0
#: Seconds between two looks of somebody whose wait could be over now.
LOOK_S = 0.25
log = structlog.get_logger(__name__)


class Refusal(NamedTuple):
    """Why storage takes nothing, and since which moment of the monotonic clock."""

    error: StorageWriteFailed
    since: float


class Recorded(Protocol):
    """Something that is recorded; ``refusal`` says that this cannot be done now."""

    refusal: Refusal | None


class Recorder:
    """Records facts that nobody can be told to repeat, however long storage refuses; knows whether it does.

    Attributes:
        refusal: why the newest try of any fact was refused, and since when none succeeded.
    """

    def __init__(self) -> None:
        self.refusal: Refusal | None = None
        self._waiting = 0

    async def until_stored(self, action: Callable[[], Awaitable[T]], whose: Recorded | None = None) -> T:
        """Call ``action`` until storage takes it, waiting longer each time (FIRST_WAIT_S, doubled to LONGEST_WAIT_S).

        Meanwhile ``whose.refusal`` says why. Cancellation ends it; a later sidecar then settles the agent from its
        record.
        """
        concerned: list[Recorded] = [self] if whose is None else [self, whose]
        wait_s = FIRST_WAIT_S
        self._waiting += 1
        try:
            while True:
                try:
                    stored = await action()
                except StorageWriteFailed as error:
                    if self.refusal is None:
                        log.warning("storage_refuses", reason=error.message)
                    for one in concerned:
                        one.refusal = Refusal(error, one.refusal.since if one.refusal else time.monotonic())
                    await asyncio.sleep(wait_s)
                    wait_s = min(LONGEST_WAIT_S, wait_s * 2)
                else:
                    self._note_success()
                    return stored
        finally:
            self._waiting -= 1
            if whose is not None:
                whose.refusal = None  # one that still waits says so at its next try
            if not self._waiting:
                self.refusal = None  # nobody who waits would find out that it is over

    async def patiently(
        self, work: asyncio.Future[T], whose: Recorded | None = None, *, is_due: Callable[[], bool] = lambda: True
    ) -> T:
        """What ``work`` gives, waited for as long as storage takes what comes; ``work`` goes on in any case.

        Args:
            whose: what it concerns, if only what is recorded of that can hold it up: nobody else's refusal then counts.
            is_due: whether nothing but storage can be what ``work`` still waits for.

        Raises:
            StorageWriteFailed: it is due, and storage has refused what ``whose`` needs (all, without ``whose``) for
                PATIENCE_S. Also what ``work`` raises.
        """
        while True:
            refusal = self.refusal if whose is None else whose.refusal
            refused_s = time.monotonic() - refusal.since if refusal is not None else 0.0
            # Nothing can be said before storage has refused for so long: hundreds who wait need not look meanwhile.
            done, _ = await asyncio.wait({work}, timeout=max(LOOK_S, PATIENCE_S - refused_s))
            if done:
                return work.result()
            refusal = self.refusal if whose is None else whose.refusal
            if refusal is not None and time.monotonic() - refusal.since >= PATIENCE_S and is_due():
                error = refusal.error
                raise StorageWriteFailed(error.message, slug=error.slug, retry_after_s=error.retry_after_s)

    def _note_success(self) -> None:
        if self.refusal is not None:
            log.warning("storage_takes_again", refused_s=round(time.monotonic() - self.refusal.since, 1))
        self.refusal = None
