"""The ladder by which an attempt ends: TERM to the group, grace, KILL, sweep until nothing is left."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from agentpool.reactor import Timer

if TYPE_CHECKING:
    from agentpool.attempt import Attempt

#: What the rest of a tree is given between TERM and KILL once its leader is gone.
REST_GRACE_S = 0.25
#: Sweeping is given up after this long; what is left is reported as survivors (processes in
#: uninterruptible sleep cannot be killed by anybody).
SWEEP_LIMIT_S = 5.0
#: Waits between two looks at a tree that is dying; the last is repeated.
LOOK_DELAYS_S = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.05)
#: Without a cgroup a look reads the process table: the first one waits so that many ends share it.
SHARED_LOOK_DELAY_S = 0.008


class Ending:
    """Runs the ladder for one attempt. It begins by ``begin`` (a kill) or by ``leader_died``."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._reason = ""
        self._kill_at: float | None = None
        self._give_up_at: float | None = None
        self._timer: Timer | None = None
        self._looks = 0
        self._has_started = False

    @property
    def is_begun(self) -> bool:
        """Whether it was asked to end."""
        return self._kill_at is not None

    def started(self) -> None:
        """The program runs: a kill that came during the start is carried out now."""
        self._has_started = True
        if self._kill_at is None:
            return
        if time.monotonic() < self._kill_at:
            self._signal_term()
        else:
            self._look()  # without grace, or when that is over: KILL, and nothing before it

    def begin(self, grace_s: float, reason: str) -> None:
        """TERM now, KILL after ``grace_s``. Again: only ever sooner; the first reason stands."""
        kill_at = time.monotonic() + max(0.0, grace_s)
        is_first = self._kill_at is None
        if not is_first and self._kill_at is not None and self._kill_at <= kill_at:
            return
        self._kill_at = kill_at
        if is_first and self._attempt.exit is None:
            self._reason = reason
        if self._attempt.exit is not None:
            return
        if self._has_started and is_first and grace_s > 0:
            self._signal_term()
        self._schedule(max(0.0, grace_s))

    def leader_died(self) -> None:
        """The leader is a zombie: its group can still be signalled by number."""
        if self._kill_at is None:
            self._kill_at = time.monotonic() + REST_GRACE_S
        else:
            self._kill_at = min(self._kill_at, time.monotonic() + REST_GRACE_S)
        past = time.monotonic() >= self._kill_at
        self._attempt.signal_leader(signal.SIGKILL if past else signal.SIGTERM)

    def leader_reaped(self) -> None:
        """Look at once: most trees are their leader alone."""
        attempt = self._attempt
        if self._kill_at is None:
            self._kill_at = time.monotonic() + REST_GRACE_S
        self._give_up_at = self._kill_at + SWEEP_LIMIT_S
        if attempt.leaf is not None:
            self._look()
        else:
            self._schedule(SHARED_LOOK_DELAY_S)

    def _signal_term(self) -> None:
        attempt, tree = self._attempt, self._attempt.tree
        if tree is not None:
            tree.remember()
        if attempt.pipes is not None:
            attempt.pipes.announce_end()  # before the signal, so that who handles it finds the word there
        is_sandboxed = attempt.spec.sandbox != "none"
        if tree is None or not (is_sandboxed and tree.terminate_inside()):
            attempt.signal_leader(signal.SIGTERM)

    def _schedule(self, delay_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._attempt.host.reactor.later(delay_s, self._look)

    def _look(self) -> None:
        attempt = self._attempt
        tree, now = attempt.tree, time.monotonic()
        if attempt.is_over or self._kill_at is None:
            return
        if tree is None:
            # It has not reached its program yet; its one process is ours and unreaped.
            attempt.signal_leader(signal.SIGKILL)
            self._schedule(LOOK_DELAYS_S[-1])
            return
        if attempt.exit is not None and tree.is_empty(ignore_leader=False):
            attempt.over(self._reason, was_empty=True)
            return
        if self._give_up_at is not None and now > self._give_up_at:
            attempt.over(self._reason)
            return
        if now >= self._kill_at:
            tree.kill()
            attempt.signal_leader(signal.SIGKILL)
        elif attempt.exit is not None and self._looks == 0:
            tree.terminate()
        delay_s = LOOK_DELAYS_S[min(self._looks, len(LOOK_DELAYS_S) - 1)]
        if attempt.exit is None:
            delay_s = max(delay_s, self._kill_at - now) if now < self._kill_at else 0.25
        elif attempt.leaf is None:
            delay_s = max(delay_s, SHARED_LOOK_DELAY_S)
        self._looks += 1
        self._schedule(delay_s)
