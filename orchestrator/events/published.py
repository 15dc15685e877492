"""What publishing answers, and the bus's figures."""

from __future__ import annotations

import msgspec

from orchestrator.models import Event


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """A durable event; ``subscribers`` are the names (each once) of the readers that it reaches now."""

    event: Event
    is_duplicate: bool
    subscribers: tuple[str, ...]


class EventStats(msgspec.Struct, frozen=True, kw_only=True):
    """Counts since the start of this bus; times in milliseconds."""

    total_published: int
    total_delivered: int
    active_subscriptions: int
    queue_depth: int
    avg_delivery_time_ms: float
    dead_letter_queue_size: int
