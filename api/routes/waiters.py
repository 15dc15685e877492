"""Requests that wait (long polls, streams): known, so that a stopping server can let them go."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Waiters:
    """The tasks that hold a request open now.

    Hypercorn's graceful stop waits for open requests, so each must be released first: ``release`` cancels the waits,
    and those turn this into their ordinary empty answer or the end of their stream.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[object]] = set()
        self.is_released = False

    def __len__(self) -> int:
        return len(self._tasks)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Around a wait. Raises Released inside when the server stops, or has begun to."""
        if self.is_released:
            raise Released
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            yield
        except asyncio.CancelledError:
            # Whoever cancelled a wait of a released set was release(), or came too late to matter.
            if not self.is_released:
                raise
            task.uncancel()
            raise Released from None
        finally:
            self._tasks.discard(task)

    def release(self) -> int:
        """End all waits, now and in future; how many there were."""
        self.is_released = True
        waiting = list(self._tasks)
        for task in waiting:
            task.cancel()
        return len(waiting)


class Released(Exception):
    """The server is stopping; the wait is over without what was waited for."""
