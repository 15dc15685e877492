"""The lines of a feed, as the contract's pipe protocol has them."""

from __future__ import annotations

import msgspec


def event_line(encoded: bytes) -> bytes:
    """``{"type":"event",…}`` of an event's JSON."""
    return b'{"type":"event",' + encoded[1:]


def gap_line(oldest_cursor: str) -> bytes:
    """``{"type":"gap",…}``: events before this agent's next one were not retained until they could be written to it."""
    return msgspec.json.encode({"type": "gap", "gap": True, "oldest_cursor": oldest_cursor})
