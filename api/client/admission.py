"""Requests about the pool's door; as pure as ``calls``."""

from __future__ import annotations

from api.client import types
from api.client.forms import get, path_of
from api.client.request import Answer, Request


def pool() -> Request[types.Pool]:
    """The pool's state, slots and queue (an operator's token)."""
    return get(path_of("api", "pool"))


def pause_pool() -> Request[types.Pool]:
    """Start no more agents; what is spawned waits in the queue."""
    return _change("pause")


def drain_pool() -> Request[types.Pool]:
    """Start no more agents and refuse spawns, until what runs has ended."""
    return _change("drain")


def resume_pool() -> Request[types.Pool]:
    """Start agents again."""
    return _change("resume")


def _change(name: str) -> Request[types.Pool]:
    # Asked twice it is the same, so a lost answer is no reason to fail.
    return Request("POST", path_of("api", "pool", name), Answer.json, is_repeatable=True)
