"""What the pool asks of the platform, and gives back."""

from __future__ import annotations

import ctypes
import sys

import pytest

from agentpool.config import PoolConfig
from agentpool.local import LocalPool

PR_GET_CHILD_SUBREAPER = 37


def is_subreaper() -> bool:
    """Whether orphaned descendants come to this process."""
    flag = ctypes.c_int(-1)
    assert ctypes.CDLL(None, use_errno=True).prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(flag), 0, 0, 0) == 0
    return flag.value == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has subreapers")
async def test_a_stopped_pool_takes_no_more_orphans() -> None:
    """Orphans of other programs became zombies of a process that had long stopped its pool."""
    pool = LocalPool(PoolConfig(workers=1))
    await pool.start()
    try:
        assert is_subreaper()
    finally:
        await pool.stop(grace_s=0.1)
    assert not is_subreaper()
