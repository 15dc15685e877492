"""The event log's readers: waits, streams, consumers, filters, deliveries, triggers."""

from orchestrator.events.bus import EventBus
from orchestrator.events.durable import ConsumerLag
from orchestrator.events.mirror import LogMirror, rebuild_mirror
from orchestrator.events.published import EventStats, Published
from orchestrator.events.query import EventPage, EventQuery
from orchestrator.events.stream import EventStream, Gap
from orchestrator.events.subscriptions import Subscription

__all__ = [
    "ConsumerLag",
    "EventBus",
    "EventPage",
    "EventQuery",
    "EventStats",
    "EventStream",
    "Gap",
    "LogMirror",
    "Published",
    "Subscription",
    "rebuild_mirror",
]
