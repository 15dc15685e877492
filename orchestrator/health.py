"""Health and status: measured when they are asked for."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import psutil

from agentpool.base import Pool
from agentpool.states import AgentState
from orchestrator.agents.registry import AgentRegistry
from orchestrator.clock import Clock, rfc3339
from orchestrator.config import Settings
from orchestrator.context.engine import ContextEngine
from orchestrator.events.bus import EventBus
from orchestrator.metrics import Metrics
from orchestrator.models import JSON
from orchestrator.storage.base import Storage

SERVICE = "orchestration-sidecar"
#: Less free disk than this is ``degraded``: results and logs will soon find no room.
LOW_DISK_MB = 100
#: Seconds for which the count of stored bytes is good; it walks a directory.
SIZE_AGE_S = 5.0


class Reporter:
    """Answers ``/health`` and ``/status``; reads only, never raises for a part that is down."""

    def __init__(
        self,
        *,
        settings: Settings,
        directory: Path,
        version: str,
        storage: Storage,
        bus: EventBus,
        pool: Pool,
        registry: AgentRegistry,
        context: ContextEngine,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._directory = directory
        self._version = version
        self._storage = storage
        self._bus = bus
        self._pool = pool
        self._registry = registry
        self._context = context
        self._metrics = metrics
        self._clock = clock
        self._started = clock.monotonic()
        self._meter = Meter(directory)
        self._size = (float("-inf"), 0)

    async def health(self) -> JSON:
        """The answer of ``GET /health``; ``status`` is ``healthy``, ``degraded`` or ``unhealthy``."""
        storage = await self._storage.check()
        pool = self._pool.stats()
        bus = self._bus.stats()
        memory_mb, cpu_percent, disk_mb = await asyncio.to_thread(self._meter.read)
        storage_state = str(storage.get("status", "failed"))
        pool_state = "failed" if pool.workers == 0 else "degraded" if pool.workers_held_back else "ok"
        bus_state = "failed" if storage_state == "failed" else "degraded" if self._bus.letters.full else "ok"
        states = {storage_state, pool_state, bus_state}
        if "failed" in states:
            status = "unhealthy"
        elif "degraded" in states or disk_mb < LOW_DISK_MB or pool.is_paused:
            status = "degraded"
        else:
            status = "healthy"
        return {
            "status": status,
            "service": SERVICE,
            "version": self._version,
            "uptime_seconds": round(self._clock.monotonic() - self._started, 3),
            "rate_limits": "on" if self._settings.rate_limits.enabled else "off",
            "checks": {
                "storage": storage_state,
                "event_bus": bus_state,
                "pool": pool_state,
                "memory_usage_mb": memory_mb,
                "cpu_usage_percent": cpu_percent,
                "active_agents": pool.running,
                "event_queue_size": bus.queue_depth,
                "disk_space_available_mb": disk_mb,
                "pool_workers": pool.workers,
                "pool_workers_lost": pool.workers_lost,
                "pool_capacity": pool.capacity,
                "pool_limited_by": pool.limited_by,
            },
            "timestamp": rfc3339(self._clock.now()),
        }

    async def status(self) -> JSON:
        """The answer of ``GET /status``: counts only."""
        counts = self._registry.counts()
        ended = self._registry.ended
        bus = self._bus.stats()
        context = self._context.stats()
        performance = self._metrics.performance()
        average_s = await self._storage.average_duration_s()
        reads = context.hits + context.misses
        not_completed = (AgentState.FAILED, AgentState.KILLED, AgentState.TIMED_OUT)
        return {
            "agents": {
                "active": sum(counts.values()) - counts[AgentState.QUEUED],
                "queued": counts[AgentState.QUEUED],
                "completed": ended[AgentState.COMPLETED],
                "failed": sum(ended[state] for state in not_completed),
                "spawned_total": self._registry.spawned_total,
                "by_type": self._registry.by_type(),
                "avg_execution_time_ms": round(1000 * average_s, 3) if average_s is not None else 0.0,
            },
            "storage": {
                "context_cache_entries": context.entries,
                "results_stored": await self._storage.count_results(),
                "total_size_mb": round(await self._stored_bytes() / 2**20, 3),
                "cache_hit_rate": round(context.hits / reads, 4) if reads else 0.0,
            },
            "events": {
                "total_published": bus.total_published,
                "total_delivered": bus.total_delivered,
                "active_subscriptions": bus.active_subscriptions,
                "queue_depth": bus.queue_depth,
                "avg_delivery_time_ms": bus.avg_delivery_time_ms,
                "dead_letter_queue_size": await self._storage.count_dead_letters(),
            },
            "performance": {
                "avg_response_time_ms": performance.avg_response_time_ms,
                "p95_response_time_ms": performance.p95_response_time_ms,
                "p99_response_time_ms": performance.p99_response_time_ms,
                "requests_per_second": performance.requests_per_second,
                "errors_per_minute": performance.errors_per_minute,
            },
            "timestamp": rfc3339(self._clock.now()),
        }

    async def _stored_bytes(self) -> int:
        measured, size = self._size
        now = self._clock.monotonic()
        if now - measured > SIZE_AGE_S:
            size = await self._storage.size_bytes()
            self._size = (now, size)
        return size

    def register_gauges(self) -> None:
        """Add the figures that are read elsewhere to ``/metrics``."""
        metrics, bus, context = self._metrics, self._bus, self._context
        metrics.gauge("sidecar_active_agents", "Agents with a process.", lambda: self._pool.stats().running)
        metrics.gauge("sidecar_queued_agents", "Agents that wait for a slot.", lambda: self._pool.stats().queued)
        metrics.gauge("sidecar_storage_bytes", "Bytes in storage when last measured.", lambda: self._size[1])
        metrics.gauge("sidecar_cache_entries", "Contexts in the cache.", lambda: context.stats().entries)
        metrics.gauge(
            "sidecar_event_subscriptions", "Readers that wait or stream.", lambda: bus.stats().active_subscriptions
        )
        metrics.counter_from("sidecar_events_published", "Events published.", lambda: bus.stats().total_published)
        metrics.counter_from(
            "sidecar_events_delivered", "Events given to readers.", lambda: bus.stats().total_delivered
        )
        metrics.gauge("sidecar_dead_letters", "Dead letters that are kept.", lambda: bus.letters.count)
        metrics.counter_from("sidecar_dead_letters_dropped", "Dead letters dropped.", lambda: bus.letters.dropped)
        metrics.counter_from("sidecar_cache_hits", "Contexts answered from the cache.", lambda: context.stats().hits)
        metrics.counter_from("sidecar_cache_misses", "Contexts built anew.", lambda: context.stats().misses)


class Meter:
    """Measures this process and its disk; reads files, so call it in a thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: psutil.Process | None = None

    def read(self) -> tuple[float, float, int]:
        """Resident memory in MB, CPU use in percent of a core since the last call, free disk in MB."""
        if self._process is None:
            self._process = psutil.Process()
        cpu_percent = self._process.cpu_percent()
        try:
            free_mb = shutil.disk_usage(self._directory).free // 2**20
        except OSError:
            free_mb = 0
        return round(self._process.memory_info().rss / 2**20, 1), cpu_percent, free_mb
