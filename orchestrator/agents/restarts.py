"""When an ended agent is started again: policy, intensity, backoff (pure but for the random jitter given to it)."""

from __future__ import annotations

from collections import deque

from agentpool.states import Outcome
from orchestrator.models import JSON

POLICIES = ("never", "on-failure", "always")
#: Outcomes after which ``on-failure`` starts again; a kill by somebody's wish is not a failure.
FAILURES = frozenset({Outcome.FAILED, Outcome.TIMED_OUT, Outcome.STALLED, Outcome.LOST, Outcome.NO_OUTPUT})
BACKOFF_FIRST_S = 0.5
BACKOFF_LIMIT_S = 30.0


def wants_restart(policy: str, outcome: Outcome) -> bool:
    """Whether ``policy`` starts an agent again after ``outcome``; ``killed`` and ``quota`` never do."""
    if policy == "always":
        return outcome not in (Outcome.KILLED, Outcome.QUOTA)
    return policy == "on-failure" and outcome in FAILURES


def backoff_s(restarts: int, jitter: float) -> float:
    """Seconds to wait before restart number ``restarts`` (1 is the first).

    Exponential from BACKOFF_FIRST_S to BACKOFF_LIMIT_S, of which a random half is taken away ("equal jitter");
    ``jitter`` is in 0–1.
    """
    full: float = min(BACKOFF_LIMIT_S, BACKOFF_FIRST_S * 2.0 ** min(restarts - 1, 16))
    return full / 2 + jitter * full / 2


class RestartIntensity:
    """At most ``limit`` restarts in ``window_s`` seconds for each key, then quarantine until the window has passed.

    The rule is that of Erlang/OTP's supervisors (intensity and period).
    """

    def __init__(self, limit: int, window_s: float) -> None:
        self._default = (limit, window_s)
        self._bounds: dict[tuple[str, str], tuple[int, float]] = {}
        self._restarts: dict[tuple[str, str], deque[float]] = {}

    def allow(
        self, key: tuple[str, str], now: float, *, limit: int | None = None, window_s: float | None = None
    ) -> bool:
        """Count a restart and return True, or return False when the key is in quarantine.

        ``limit`` and ``window_s`` are the key's own bounds (a profile's); None takes the common one.
        """
        self._bounds[key] = (
            self.limit(limit),
            self._default[1] if window_s is None else window_s,
        )
        times = self._restarts.setdefault(key, deque())
        self._forget(key, now)
        if len(times) >= self._bounds[key][0]:
            return False
        times.append(now)
        return True

    def limit(self, own: int | None) -> int:
        """How many restarts are allowed where ``own`` (a profile's) or, with None, the common number counts."""
        return self._default[0] if own is None else own

    def bounds(self, key: tuple[str, str]) -> JSON:
        """The bounds by which a restart of ``key`` was decided last."""
        limit, window_s = self._bounds[key]
        return {"restart_limit": limit, "restart_window_seconds": window_s}

    def quarantined(self, now: float) -> list[tuple[str, str]]:
        """Keys that get no restart now."""
        held = []
        for key in list(self._restarts):
            self._forget(key, now)
            if not self._restarts[key]:
                del self._restarts[key], self._bounds[key]
            elif len(self._restarts[key]) >= self._bounds[key][0]:
                held.append(key)
        return held

    def _forget(self, key: tuple[str, str], now: float) -> None:
        times, window_s = self._restarts[key], self._bounds[key][1]
        while times and now - times[0] > window_s:
            times.popleft()
