"""The pool as the settings want it, and what its warm Python agents have imported."""

from __future__ import annotations

from agentpool.config import PoolConfig
from orchestrator.config import Settings

#: Modules that the parent of warm Python agents imports once.
PRELOADED = (
    "agentpool.agent",
    *(
        f"orchestrator.analysts.{name}"
        for name in (
            "api_surface",
            "architecture",
            "data",
            "dependencies",
            "documentation",
            "frontend",
            "infrastructure",
            "language",
            "performance",
            "research",
            "review",
            "security",
            "testing",
        )
    ),
)


def pool_config(settings: Settings) -> PoolConfig:
    """The pool's part of the settings."""
    pool = settings.pool
    return PoolConfig(
        workers=pool.workers,
        max_running=pool.max_running,
        queue_size=pool.queue_size,
        memory_reserve_bytes=pool.memory_reserve_bytes,
        agent_memory_bytes=pool.agent_memory_bytes,
        disk_reserve_bytes=pool.disk_reserve_bytes,
        grace_s=pool.grace_s,
        cgroups=pool.cgroups,
        preload=PRELOADED,
    )
