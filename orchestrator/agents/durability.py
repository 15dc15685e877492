"""Doing what must be done although storage refuses for a while (a full disk, for instance)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from orchestrator.errors import StorageWriteFailed

T = TypeVar("T")
FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 5.0
log = structlog.get_logger(__name__)


async def until_stored(action: Callable[[], Awaitable[T]]) -> T:
    """Call ``action`` until storage takes it, waiting longer each time (FIRST_WAIT_S, doubled to LONGEST_WAIT_S).

    An agent's end is a fact that nobody can be told to repeat, so it waits for the disk. Cancellation ends it;
    a later sidecar then settles the agent from its record.
    """
    wait_s = FIRST_WAIT_S
    while True:
        try:
            return await action()
        except StorageWriteFailed as error:
            log.warning("storage_refused", reason=error.message, retry_in_s=wait_s)
            await asyncio.sleep(wait_s)
            wait_s = min(LONGEST_WAIT_S, wait_s * 2)
