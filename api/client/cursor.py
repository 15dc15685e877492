"""Where a reader of events is: which request comes next, and what a page changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from api.client import calls, types
from api.client.errors import EventGap
from api.client.request import Request


class EventCursor:
    """The state of one endless read over long polls; shared by both clients, does no input or output."""

    def __init__(
        self,
        event_type: str,
        filter: str | None,
        since: str | None,
        consumer: str | None,
        project_id: str | None,
        poll_ms: int,
        on_gap: Callable[[types.EventPage], None] | None,
    ) -> None:
        self._event_type = event_type
        self._filter = filter
        self._since = since
        self._consumer = consumer
        self._project_id = project_id
        self._poll_ms = poll_ms
        self._on_gap = on_gap
        self._ack: str | None = "none" if consumer else None

    @property
    def position(self) -> str | None:
        """The cursor after the last event that was taken; None before the first answer."""
        return self._since

    def request(self) -> Request[types.EventPage]:
        """The next long poll."""
        return calls.wait_events(
            self._event_type,
            timeout_ms=self._poll_ms,
            filter=self._filter,
            since=self._since,
            consumer=self._consumer,
            ack=self._ack,
            project_id=self._project_id,
        )

    def take(self, page: types.EventPage) -> Iterator[types.Event]:
        """Yield the page's events; the place moves past them when the last one has been taken.

        Raises EventGap when events were lost and nobody wants to be told otherwise.
        """
        if page.get("gap"):
            if self._on_gap is None:
                events = page["events"]
                resume = events[0]["cursor"] if events else page["next_cursor"]
                raise EventGap(self._since, page.get("oldest_cursor"), resume)
            self._on_gap(page)
        yield from page["events"]
        if self._consumer:
            # Acknowledged with the next poll: what was yielded last may still be in work now.
            self._ack = page["next_cursor"] if page["events"] else self._ack
        else:
            self._since = page["next_cursor"]
