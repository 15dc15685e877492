"""What to launch: plain values that can cross a process or a network."""

from __future__ import annotations

import msgspec

#: The smallest and the largest value of a limit; of one that is not named here 1 and LARGEST.
RANGES: dict[str, tuple[float, float]] = {
    "wall_s": (0.001, 30 * 86400),
    "idle_s": (0.001, 30 * 86400),
    "open_files": (4, 1 << 30),  # its pipes, and the program that is loaded
    "processes": (1, 1 << 22),
    "nice": (0, 19),
}
#: What a limit of the system can hold; a larger one does not even reach a worker.
LARGEST = 2**63 - 1


def range_of(limit: str) -> tuple[float, float]:
    """The values that mean something for a limit, the first and the last of them included."""
    return RANGES.get(limit, (1, LARGEST))


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds on one agent; ``None`` leaves a thing unbounded (or to the platform).

    Units are in the names. ``idle_s`` is the longest time with neither output nor CPU use before
    the agent counts as stalled. ``output_bytes`` caps what is kept of each of the two streams, in files of
    ``output_file_bytes``.
    """

    wall_s: float | None = None
    idle_s: float | None = None
    cpu_s: int | None = None
    memory_bytes: int | None = None
    open_files: int | None = None
    processes: int | None = None
    file_size_bytes: int | None = None
    output_bytes: int = 1 << 30
    output_file_bytes: int = 256 << 20
    nice: int = 0


class Verifier(msgspec.Struct, frozen=True, kw_only=True):
    """A command that checks the work of an attempt, in its workspace, once that has ended well and none of it is left.

    Its exit code 0 means that the work is good. It runs under the attempt's limits and in its sandbox, as a tree that
    is ended and swept like the attempt's own; its output is in ``verify-<attempt>`` of the record directory.

    Attributes:
        argv: program and arguments.
        env: the whole environment, which must hold the attempt's nonce.
        timeout_s: its longest time, in seconds.
    """

    argv: tuple[str, ...]
    env: dict[str, str]
    timeout_s: float


class LaunchSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt of one agent, ready to start.

    Attributes:
        agent_id: whose attempt it is.
        attempt: 1 for the first.
        nonce: unguessable; also in the environment, so that a process found later can be told to be ours. For
            ``python`` at most 256 bytes.
        runtime: name of a runtime of ``agentpool.runtimes`` (``jsonl``, ``text``, ``python``, ...).
        argv: program and arguments; for ``python`` one item, ``module:function``.
        env: the whole environment, nothing is added.
        workspace: directory that the process starts in; must exist.
        record_dir: directory for ``stdout.log`` and ``stderr.log``; must exist.
        output_begins: the first byte of this attempt in each stream, where an earlier one wrote to it: should the
            worker die, its logs alone tell its end.
        grace_s: seconds between TERM and KILL when it is ended.
        limits: see Limits.
        sandbox: ``none`` or ``workspace`` (bubblewrap).
        sandbox_network: whether a sandboxed agent keeps the network.
        readonly_paths: what a sandbox shows read-only beside the system (the project, the record directory).
        verifier: who checks its work, or None.
    """

    agent_id: str
    attempt: int
    nonce: str
    runtime: str
    argv: tuple[str, ...]
    env: dict[str, str]
    workspace: str
    record_dir: str
    output_begins: dict[str, int] = {}
    grace_s: float = 5.0
    limits: Limits = Limits()
    sandbox: str = "none"
    sandbox_network: bool = True
    readonly_paths: tuple[str, ...] = ()
    verifier: Verifier | None = None
