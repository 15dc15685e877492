"""What can go wrong in the pool; each error has a stable ``code`` and typed attributes."""

from __future__ import annotations


class PoolError(Exception):
    """Base of every error of this package."""

    code = "POOL_ERROR"


class PoolFull(PoolError):
    """The queue in front of the pool takes no more.

    Attributes:
        queued: how many wait now.
        position: the place in the queue that the request would have had (1 is next).
        retry_after_s: seconds after which trying again is sensible (> 0).
    """

    code = "POOL_FULL"

    def __init__(self, *, queued: int, position: int, retry_after_s: float) -> None:
        super().__init__(f"the pool and its queue are full ({queued} waiting); try again in {retry_after_s:.0f} s")
        self.queued = queued
        self.position = position
        self.retry_after_s = retry_after_s


class PoolDraining(PoolFull):
    """An operator lets the pool run empty: it takes nothing new until it is resumed."""

    code = "POOL_DRAINING"

    def __str__(self) -> str:
        return f"the pool is draining and takes nothing new; try again in {self.retry_after_s:.0f} s"


class PoolClosed(PoolError):
    """The pool is stopping or stopped and starts nothing more."""

    code = "POOL_CLOSED"


class SlotLost(PoolError):
    """The last pool worker died after the slot was granted: nothing ran, and the slot is given back."""

    code = "SLOT_LOST"


class LaunchFailed(PoolError):
    """A process could not be started; nothing of it is left behind.

    Attributes:
        reason: a stable word: ``not_found``, ``not_executable``, ``workspace``, ``limits``,
            ``sandbox``, ``resources`` (descriptors, processes, memory; may pass) or ``worker_lost``.
        command: the program that was to start.
        is_permanent: trying again without a change cannot help.
    """

    code = "LAUNCH_FAILED"

    def __init__(self, reason: str, message: str, *, command: str, is_permanent: bool) -> None:
        super().__init__(message)
        self.reason = reason
        self.command = command
        self.is_permanent = is_permanent


class UnknownAgent(PoolError):
    """No process of this agent is known to the pool (never started, or already ended)."""

    code = "UNKNOWN_AGENT"

    def __init__(self, agent_id: str) -> None:
        super().__init__(f"no running process for agent {agent_id}")
        self.agent_id = agent_id


class IllegalTransition(PoolError):
    """An agent was asked to move between two states that the table does not join."""

    code = "ILLEGAL_TRANSITION"

    def __init__(self, source: str, target: str) -> None:
        super().__init__(f"an agent cannot go from {source} to {target}")
        self.source = source
        self.target = target


class ProtocolViolation(PoolError):
    """A frame between supervisor and worker could not be read; that worker is discarded."""

    code = "PROTOCOL_VIOLATION"


class UnknownRuntime(PoolError):
    """No runtime has this name.

    Attributes:
        name: what was asked for.
        known: the names that there are, sorted.
    """

    code = "UNKNOWN_RUNTIME"

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f"there is no runtime {name!r}; known are: {', '.join(known)}")
        self.name = name
        self.known = known
