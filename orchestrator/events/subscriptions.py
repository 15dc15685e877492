"""Wakes for readers inside the supervisor."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.events.subscribers import Subscriber


class Subscription:
    """A project's changes for a reader that reads by its own cursor; made by ``EventBus.subscribe``."""

    def __init__(self, subscriber: Subscriber, release: Callable[[], None], is_closed: Callable[[], bool]) -> None:
        self._subscriber = subscriber
        self._release = release
        self._is_closed = is_closed
        self._is_done = False

    async def changed(self) -> bool:
        """Return when there were new matching events since the last call; False: the bus has stopped."""
        if not self._is_closed() and not self._is_done:
            # The end of the bus, and ``close``, wake it too.
            await self._subscriber.woken(None)
            self._subscriber.clear()
        return not self._is_closed() and not self._is_done

    def close(self) -> None:
        """Listen no more; idempotent."""
        if not self._is_done:
            self._is_done = True
            self._release()
            self._subscriber.wake(0.0)
