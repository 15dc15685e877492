"""When an ended agent is started again: policy, intensity, backoff (pure but for the random jitter given to it)."""

from __future__ import annotations

from collections import deque

from agentpool.states import Outcome

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
        self._limit = limit
        self._window_s = window_s
        self._restarts: dict[tuple[str, str], deque[float]] = {}

    def allow(self, key: tuple[str, str], now: float) -> bool:
        """Count a restart and return True, or return False when the key is in quarantine."""
        times = self._restarts.setdefault(key, deque())
        self._forget(times, now)
        if len(times) >= self._limit:
            return False
        times.append(now)
        return True

    def quarantined(self, now: float) -> list[tuple[str, str]]:
        """Keys that get no restart now."""
        for key in [key for key, times in self._restarts.items() if times and now - times[-1] > self._window_s]:
            del self._restarts[key]
        held = []
        for key, times in self._restarts.items():
            self._forget(times, now)
            if len(times) >= self._limit:
                held.append(key)
        return held

    def _forget(self, times: deque[float], now: float) -> None:
        while times and now - times[0] > self._window_s:
            times.popleft()
