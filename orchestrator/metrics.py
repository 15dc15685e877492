"""Measured figures: Prometheus metrics and the recent latencies that ``/status`` shows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.metrics_core import Metric

from orchestrator.clock import Clock, SystemClock

#: Requests that the percentiles look back on; enough for a stable p99 and small enough to sort on demand.
RECENT_REQUESTS = 2048
#: Seconds that rates look back on.
RATE_WINDOW_S = 60.0


class Performance(msgspec.Struct, frozen=True, kw_only=True):
    """Figures over the last RECENT_REQUESTS requests (times) and the last RATE_WINDOW_S seconds (rates)."""

    avg_response_time_ms: float
    p95_response_time_ms: float
    p99_response_time_ms: float
    requests_per_second: float
    errors_per_minute: float


class Metrics:
    """All metrics of one sidecar, on a registry of its own; no label holds a project's or an issue's name."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nobody reads
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "sidecar_requests", "HTTP requests answered.", ["method", "route", "status"], registry=self.registry
        )
        self._durations = Histogram(
            "sidecar_request_duration_seconds",
            "Seconds from a request's start to its answer's start (long polls and streams left out).",
            ["route"],
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
            registry=self.registry,
        )
        self.agents_spawned = Counter("sidecar_agents_spawned", "Agents accepted.", registry=self.registry)
        self.agents_ended = Counter("sidecar_agents_ended", "Attempts ended.", ["outcome"], registry=self.registry)
        self.results_stored = Counter("sidecar_results_stored", "Results stored.", registry=self.registry)
        self.bad_lines = Counter("sidecar_bad_lines", "Lines of agents that could not be read.", registry=self.registry)
        self.workers_lost = Counter("sidecar_pool_workers_lost", "Pool workers that died.", registry=self.registry)
        self._recent: deque[tuple[float, float, bool]] = deque(maxlen=RECENT_REQUESTS)
        self._counters: dict[tuple[str, str, int], Counter] = {}
        self._histograms: dict[str, Histogram] = {}

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """A gauge whose value is read when it is asked for."""
        Gauge(name, text, registry=self.registry).set_function(read)

    def counter_from(self, name: str, text: str, read: Callable[[], float]) -> None:
        """A counter kept elsewhere, read when it is asked for (``_total`` is added to its name)."""
        self.registry.register(_ReadCounter(name, text, read))

    def observe_request(self, method: str, route: str, status: int, seconds: float, *, is_waiting: bool) -> None:
        """Count one answer. ``route`` is the pattern, not the path. Waiting ones (polls, streams) are not timed."""
        key = (method, route, status)
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = self._requests.labels(method, route, str(status))
        counter.inc()
        if is_waiting:
            return
        histogram = self._histograms.get(route)
        if histogram is None:
            histogram = self._histograms[route] = self._durations.labels(route)
        histogram.observe(seconds)
        self._recent.append((self._clock.monotonic(), seconds, status >= 500))

    def performance(self) -> Performance:
        """The recent figures; zeros before the first request."""
        now = self._clock.monotonic()
        times = sorted(seconds for _, seconds, _ in self._recent)
        window = [entry for entry in self._recent if now - entry[0] <= RATE_WINDOW_S]
        span = max(now - window[0][0], 1.0) if window else 1.0
        errors = sum(1 for _, _, is_error in window if is_error)
        return Performance(
            avg_response_time_ms=round(1000 * sum(times) / len(times), 3) if times else 0.0,
            p95_response_time_ms=_percentile_ms(times, 0.95),
            p99_response_time_ms=_percentile_ms(times, 0.99),
            requests_per_second=round(len(window) / span, 3),
            errors_per_minute=round(60 * errors / span, 3) if span >= RATE_WINDOW_S else float(errors),
        )

    def exposition(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self.registry)


def _percentile_ms(ordered: list[float], share: float) -> float:
    """Nearest-rank percentile of ordered seconds, in milliseconds."""
    if not ordered:
        return 0.0
    rank = max(0, min(len(ordered) - 1, round(share * len(ordered)) - 1))
    return round(1000 * ordered[rank], 3)


class _ReadCounter:
    def __init__(self, name: str, text: str, read: Callable[[], float]) -> None:
        self._name, self._text, self._read = name, text, read

    def collect(self) -> list[Metric]:
        from prometheus_client.core import CounterMetricFamily

        family = CounterMetricFamily(self._name, self._text)
        family.add_metric([], self._read())
        return [family]
