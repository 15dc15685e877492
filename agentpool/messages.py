"""The small frozen messages between supervisor and pool workers: commands go down, facts come up.

They are encoded as MessagePack, tagged by class name, one per frame (see ``channel``).
"""

from __future__ import annotations

import msgspec

from agentpool.specs import LaunchSpec


class Message(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Base of all messages."""


# -- commands ---------------------------------------------------------------------------------


class Spawn(Message, frozen=True, kw_only=True):
    """Start this attempt; answered by AgentStarted or AgentLaunchFailed."""

    spec: LaunchSpec


class Kill(Message, frozen=True, kw_only=True):
    """End an agent: TERM, ``grace_s`` seconds, KILL, sweep. ``reason`` is kept as evidence."""

    agent_id: str
    grace_s: float
    reason: str


class Input(Message, frozen=True, kw_only=True):
    """Write one line (without its newline) to an agent's stdin; answered by InputState."""

    agent_id: str
    message_id: str
    line: bytes


class FeedLine(msgspec.Struct, frozen=True, array_like=True):
    """One line (without its newline) of a feed; ``sequence`` is its place in it and grows from line to line."""

    sequence: int
    line: bytes


class Feed(Message, frozen=True, kw_only=True):
    """Write lines in this order to the stdin of several agents. Where there is room nothing is answered.

    From the first line on that an agent's queue has no room for (FeedState ``full``), its lines are refused, so
    that none overtakes another, until a Feed comes with ``is_retry``; that one is answered in any case.
    """

    agent_ids: tuple[str, ...]
    lines: tuple[FeedLine, ...]
    is_retry: bool = False


class CloseInput(Message, frozen=True, kw_only=True):
    """Close an agent's stdin once all that is queued for it is written."""

    agent_id: str


class Ping(Message, frozen=True, kw_only=True):
    """Ask a worker for a sign of life; answered by Pong."""

    sequence: int


class Shutdown(Message, frozen=True, kw_only=True):
    """End all agents with at most ``grace_s`` seconds of grace, report their ends, then exit."""

    grace_s: float


Command = Spawn | Kill | Input | Feed | CloseInput | Ping | Shutdown


# -- facts ------------------------------------------------------------------------------------


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What an attempt used, as wait4 or its cgroup measured it; None where nobody could."""

    cpu_seconds: float | None = None
    max_rss_bytes: int | None = None
    stdin_bytes: int | None = None
    stdout_bytes: int = 0
    stderr_bytes: int = 0


class Survivors(msgspec.Struct, frozen=True, kw_only=True):
    """How many processes of an ended agent were left, and how that was checked."""

    count: int
    checked_by: tuple[str, ...] = ()
    swept: int = 0


class WorkerReady(Message, frozen=True, kw_only=True):
    """A worker's first message."""

    pid: int
    features: tuple[str, ...] = ()


class ZygoteStarted(Message, frozen=True, kw_only=True):
    """The worker's parent of warm Python agents exists; the supervisor notes it for the case of the worker's death."""

    pid: int


class Pong(Message, frozen=True, kw_only=True):
    """The answer to Ping."""

    sequence: int
    agents: int


class AgentStarted(Message, frozen=True, kw_only=True):
    """The process exists. ``start_ticks`` (clock ticks since boot) with ``pid`` is its identity."""

    agent_id: str
    attempt: int
    pid: int
    start_ticks: int


class AgentLaunchFailed(Message, frozen=True, kw_only=True):
    """The process could not be started; see ``agentpool.errors.LaunchFailed`` for the fields."""

    agent_id: str
    attempt: int
    reason: str
    message: str
    command: str
    is_permanent: bool


class AgentRecord(Message, frozen=True, kw_only=True):
    """One parsed line of stdout.

    ``kind`` is ``result``, ``event``, ``progress``, ``log``, ``heartbeat``, ``ack`` or ``bad_line``;
    ``payload`` is the line's JSON text (for ``bad_line`` a JSON object ``{"reason", "size_bytes"}``);
    ``offset`` is the byte in stdout at which the line begins.
    """

    agent_id: str
    attempt: int
    kind: str
    offset: int
    payload: bytes


class AgentOutput(Message, frozen=True, kw_only=True):
    """How far the two streams have been written (bytes on disk so far); sent at most a few times a second."""

    agent_id: str
    attempt: int
    stdout_bytes: int
    stderr_bytes: int


class InputState(Message, frozen=True, kw_only=True):
    """What became of an input line: ``queued``, ``written``, ``acknowledged`` or ``dead`` (with the reason)."""

    agent_id: str
    message_id: str
    state: str
    reason: str = ""


class FeedState(Message, frozen=True, kw_only=True):
    """What became of an agent's feed.

    ``full``: no room for the line ``sequence`` and those after it; ``ready``: there is room again; ``taken``: all
    lines of a retry were queued, the last of which is ``sequence``; ``closed``: the agent has no open stdin.
    """

    agent_id: str
    attempt: int
    state: str
    sequence: int = 0


class VerifierStarted(Message, frozen=True, kw_only=True):
    """The agent's own processes are gone, and the check of its work runs as ``pid``; AgentExited follows it.

    ``start_ticks`` is as in AgentStarted; ``usage`` is what the attempt itself used, should nobody live to sum it up.
    """

    agent_id: str
    attempt: int
    pid: int
    start_ticks: int
    usage: Usage


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What the check of an attempt's work came to; see ``specs.Verifier``.

    ``exit_code``, ``signal`` and ``ended_by`` are as in AgentExited; ``error`` says why it could not be started, then
    they are not set. ``output_tail`` has the last words of its stdout, then of its stderr (at most 2 KiB of each).
    """

    command: tuple[str, ...]
    exit_code: int | None = None
    signal: int | None = None
    ended_by: str = ""
    error: str = ""
    output_tail: bytes = b""

    @property
    def is_passed(self) -> bool:
        """Whether the work was found good."""
        return self.exit_code == 0 and not self.ended_by


class AgentExited(Message, frozen=True, kw_only=True):
    """The attempt is over: its process tree is gone and its pipes are drained to the logs.

    ``exit_code`` is set when it exited, ``signal`` when it was killed by one. ``ended_by`` is empty when
    it ended by itself, else the reason of the Kill, or ``wall_limit``, ``idle_limit``, ``cpu_limit``,
    ``memory_limit``, ``worker_lost``. ``terminal`` is the runtime's own verdict read from the pipe, a JSON
    object ``{"outcome": ..., "evidence": ...}`` (empty when it said nothing). ``stdout_tail`` and
    ``stderr_tail`` hold the last bytes of each stream (at most 4 KiB). ``truncated_at`` has the byte from which a
    stream was not kept, ``truncated_by`` why: ``cap`` (its limit) or ``disk`` (full, or down to its reserve).
    ``verification`` is None where nothing was checked: there was no verifier, or the attempt had failed without one.
    ``usage`` (but for the bytes) and ``survivors`` are of both.
    """

    agent_id: str
    attempt: int
    exit_code: int | None
    signal: int | None
    ended_by: str
    terminal: bytes
    usage: Usage
    survivors: Survivors
    stdout_tail: bytes
    stderr_tail: bytes
    truncated_at: dict[str, int] = {}
    truncated_by: dict[str, str] = {}
    verification: Verification | None = None


class WorkerLost(Message, frozen=True, kw_only=True):
    """A worker is gone (made by the supervisor's side, which then sends AgentExited for each of its agents)."""

    worker: int
    pid: int
    exit_code: int | None
    agents: tuple[str, ...]
    is_replaced: bool


Fact = (
    WorkerReady
    | ZygoteStarted
    | Pong
    | AgentStarted
    | AgentLaunchFailed
    | AgentRecord
    | AgentOutput
    | InputState
    | FeedState
    | VerifierStarted
    | AgentExited
    | WorkerLost
)
