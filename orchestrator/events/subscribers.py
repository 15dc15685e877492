"""Who listens now: woken without payload, so that each reads again by its own cursor."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from orchestrator.events.query import Matcher
from orchestrator.models import Event


class Subscriber:
    """One waiting reader.

    ``names`` tells publishers whom an event that matches reaches: a name, or a function of the event for one
    reader that hands on to several.
    """

    __slots__ = ("_names", "_signal", "matcher", "woken_at")

    def __init__(self, names: str | Callable[[Event], Iterable[str]], matcher: Matcher) -> None:
        self._names = names
        self.matcher = matcher
        self.woken_at = 0.0
        self._signal = asyncio.Event()

    def names(self, event: Event) -> Iterable[str]:
        """Whom ``event`` reaches through this reader."""
        return (self._names,) if isinstance(self._names, str) else self._names(event)

    def clear(self) -> None:
        """Forget earlier wakes; call before reading."""
        self._signal.clear()

    def wake(self, now: float) -> None:
        """Let the reader read again; ``now`` is monotonic."""
        if not self._signal.is_set():
            self.woken_at = now
            self._signal.set()

    async def woken(self, timeout_s: float | None) -> bool:
        """Whether it was woken within ``timeout_s``; None waits for ever."""
        if self._signal.is_set():
            return True
        if timeout_s is None:
            return await self._signal.wait()
        try:
            async with asyncio.timeout(timeout_s):
                await self._signal.wait()
        except TimeoutError:
            return False
        return True


class Subscribers:
    """The readers of one project, found by event type."""

    def __init__(self) -> None:
        self._by_type: dict[str, dict[Subscriber, None]] = {}
        self._of_all: dict[Subscriber, None] = {}
        self._durable: dict[tuple[str, str], Matcher] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, subscriber: Subscriber) -> None:
        """Begin to wake it."""
        self._count += 1
        for group in self._groups(subscriber):
            group[subscriber] = None

    def remove(self, subscriber: Subscriber) -> None:
        """Wake it no more."""
        self._count -= 1
        for group in self._groups(subscriber):
            group.pop(subscriber, None)
        for event_type in subscriber.matcher.types or ():
            if not self._by_type.get(event_type, True):
                del self._by_type[event_type]

    def set_durable(self, name: str, key: str, matcher: Matcher) -> None:
        """Count a durable reader as a subscriber although it is not connected."""
        self._durable[(name, key)] = matcher

    def drop_durable(self, name: str, key: str) -> None:
        """Stop counting a durable reader."""
        self._durable.pop((name, key), None)

    def wake(self, event: Event, now: float) -> tuple[str, ...]:
        """Wake all whose query matches; the names of all who will get it, each once."""
        names: dict[str, None] = {}
        for group in (self._by_type.get(event.event_type), self._of_all):
            if group:
                for subscriber in group:
                    if subscriber.matcher(event):
                        subscriber.wake(now)
                        for name in subscriber.names(event):
                            names[name] = None
        for (name, _), matcher in self._durable.items():
            if matcher(event):
                names[name] = None
        return tuple(names)

    def wake_all(self, now: float) -> None:
        """Wake everyone, at the end of the bus."""
        for group in (*self._by_type.values(), self._of_all):
            for subscriber in group:
                subscriber.wake(now)

    def _groups(self, subscriber: Subscriber) -> list[dict[Subscriber, None]]:
        types = subscriber.matcher.types
        if types is None:
            return [self._of_all]
        return [self._by_type.setdefault(event_type, {}) for event_type in types]
