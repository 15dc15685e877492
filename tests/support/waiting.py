"""Waiting for facts: poll a condition until it holds or a deadline passes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: Seconds between two looks; small, since most waits are short.
PAUSE_S = 0.02


def until(
    condition: Callable[[], T | None], *, timeout_s: float = 20.0, what: str | Callable[[], str] = "a condition"
) -> T:
    """The first true value of ``condition()``. Raises AssertionError, saying ``what``, after ``timeout_s`` seconds."""
    deadline = time.monotonic() + timeout_s
    while True:
        if value := condition():
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what() if callable(what) else what} (last: {value!r})")
        time.sleep(PAUSE_S)


async def until_async(
    condition: Callable[[], T | None], *, timeout_s: float = 20.0, what: str | Callable[[], str] = "a condition"
) -> T:
    """As ``until``, leaving the event loop free between two looks."""
    deadline = time.monotonic() + timeout_s
    while True:
        if value := condition():
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what() if callable(what) else what} (last: {value!r})")
        await asyncio.sleep(PAUSE_S)
