"""The newest retained events of one project in memory, by type too, so that readers touch no database."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque

from orchestrator.models import Event

#: Events beyond the bound are forgotten so many at a time; ``oldest`` hides them at once.
_FORGET_AT_ONCE = 128


class Series:
    """Events in order of their sequence numbers; cheap at both ends, found by bisection."""

    __slots__ = ("_events", "_seqs", "_start")

    def __init__(self) -> None:
        self._seqs: list[int] = []
        self._events: list[Event] = []
        self._start = 0

    def __len__(self) -> int:
        return len(self._seqs) - self._start

    def append(self, event: Event) -> None:
        """Add the newest."""
        self._seqs.append(event.seq)
        self._events.append(event)

    def after(self, seq: int, count: int) -> list[Event]:
        """The first ``count`` events above ``seq``, in order."""
        first = bisect_right(self._seqs, seq, self._start)
        return self._events[first : first + count]

    def drop_through(self, seq: int) -> None:
        """Forget events up to ``seq``."""
        self._start = bisect_right(self._seqs, seq, self._start)
        # Cutting a list's head moves all of it: do so once for many, yet keep few that are dead.
        if self._start > 512 and self._start * 8 > len(self._seqs):
            del self._seqs[: self._start]
            del self._events[: self._start]
            self._start = 0


class Tail:
    """What is known of one project's log.

    Attributes:
        newest: sequence number of the newest event.
        oldest: that of the oldest retained one (``newest + 1`` when none is).
        floor: every retained event above it is in memory.
    """

    def __init__(self, *, keep: int, max_bytes: int) -> None:
        self._keep = keep
        self._max_bytes = max_bytes
        self._all = Series()
        self._by_type: dict[str, Series] = {}
        self._sizes: deque[tuple[int, int, str]] = deque()
        self._bytes = 0
        self._early: dict[int, tuple[Event, int]] = {}
        self.newest = 0
        self.oldest = 1
        self.floor = 0

    def reset(self, *, oldest: int, newest: int) -> None:
        """Begin empty, above ``newest``."""
        self.oldest, self.newest, self.floor = oldest, newest, newest

    def load(self, floor: int) -> None:
        """Begin to hold what is above ``floor``; ``extend`` follows."""
        self.floor = floor

    def extend(self, events: list[Event], sizes: list[int]) -> None:
        """Add retained events in order, while loading."""
        for event, size in zip(events, sizes, strict=True):
            self._put(event, size)
        self._bound()

    def add(self, event: Event, size: int) -> list[Event]:
        """Add a new event; one that comes before its turn waits for it. Those now to be seen, in order."""
        if event.seq <= self.newest:
            return []
        if event.seq != self.newest + 1:
            self._early[event.seq] = (event, size)
            return []
        self._put(event, size)
        seen = [event, *self._settle()] if self._early else [event]
        self._bound()
        return seen

    def skip_to(self, seq: int) -> list[Event]:
        """Count sequence numbers up to ``seq`` as passed: what is missing expired before it was read."""
        seen = self._settle()
        while self.newest < seq:
            self.newest += 1
            seen += self._settle()
        self._bound()
        return seen

    def after(self, seq: int, types: frozenset[str] | None, count: int) -> list[Event]:
        """The first ``count`` events in memory above ``seq`` (at least ``floor``), perhaps of more types than asked."""
        if types is not None and len(types) == 1:
            series = self._by_type.get(next(iter(types)))
            return series.after(seq, count) if series is not None else []
        return self._all.after(seq, count)

    def drop_through(self, seq: int) -> None:
        """Events up to ``seq`` are not retained any more."""
        self.oldest = max(self.oldest, min(seq, self.newest) + 1)
        self._forget(seq)

    def _settle(self) -> list[Event]:
        settled = []
        while (following := self._early.pop(self.newest + 1, None)) is not None:
            self._put(*following)
            settled.append(following[0])
        return settled

    def _put(self, event: Event, size: int) -> None:
        self._all.append(event)
        series = self._by_type.get(event.event_type)
        if series is None:
            series = self._by_type[event.event_type] = Series()
        series.append(event)
        self._sizes.append((event.seq, size, event.event_type))
        self._bytes += size
        self.newest = max(self.newest, event.seq)

    def _bound(self) -> None:
        self.oldest = max(self.oldest, self.newest - self._keep + 1)
        limit = self.oldest - 1
        excess = self._bytes - self._max_bytes
        if excess > 0:
            for seq, size, _ in self._sizes:
                if excess <= 0:
                    break
                excess -= size
                limit = max(limit, seq)
            self._forget(limit)
        elif limit - self.floor >= _FORGET_AT_ONCE:
            self._forget(limit)

    def _forget(self, seq: int) -> None:
        self.floor = max(self.floor, min(seq, self.newest))
        self._all.drop_through(seq)
        types = set()
        while self._sizes and self._sizes[0][0] <= seq:
            _, size, event_type = self._sizes.popleft()
            self._bytes -= size
            types.add(event_type)
        for event_type in types:
            series = self._by_type[event_type]
            series.drop_through(seq)
            if not len(series):
                del self._by_type[event_type]
