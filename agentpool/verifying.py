"""The check of an attempt's work by a command of its own, between the attempt's last process and the report of its end.

A verifier is an attempt too, of the same agent and in the same slot: started, limited, ended and swept by the same
code. Only what is said of it does not go up by itself; it becomes a part of the end that it belongs to.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from agentpool.messages import (
    AgentExited,
    AgentLaunchFailed,
    AgentStarted,
    Fact,
    Survivors,
    Usage,
    Verification,
    VerifierStarted,
)
from agentpool.specs import LaunchSpec
from agentpool.states import Outcome

if TYPE_CHECKING:
    from agentpool.attempt import Attempt, Host

#: What a verifier may write; more is cut as an agent's output is.
OUTPUT_BYTES = 16 << 20
TAIL_BYTES = 2048
#: What a runtime may have read from the pipe of an attempt that ended well.
GOOD = frozenset({Outcome.SUCCEEDED.value, Outcome.PARTIAL.value})


def is_to_be_verified(spec: LaunchSpec, exited: AgentExited) -> bool:
    """Whether this end is one that a verifier has anything to say on: by itself, with code 0, and without complaint."""
    if spec.verifier is None or exited.exit_code != 0 or exited.ended_by:
        return False
    return not exited.terminal or msgspec.json.decode(exited.terminal)["outcome"] in GOOD


def verifier_spec(spec: LaunchSpec) -> LaunchSpec:
    """How to launch the verifier of ``spec``, which must have one; makes its record directory. Raises OSError."""
    verifier = spec.verifier
    assert verifier is not None
    directory = os.path.join(spec.record_dir, f"verify-{spec.attempt}")
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory, mode=0o700)
    limits = msgspec.structs.replace(
        spec.limits,
        wall_s=verifier.timeout_s,
        idle_s=None,
        output_bytes=min(spec.limits.output_bytes, OUTPUT_BYTES),
    )
    return msgspec.structs.replace(
        spec,
        runtime="text",
        argv=verifier.argv,
        env=verifier.env,
        record_dir=directory,
        output_begins={},
        limits=limits,
        verifier=None,
    )


def join(exited: AgentExited, checked: AgentExited | AgentLaunchFailed, spec: LaunchSpec, wish: str) -> AgentExited:
    """The end of an attempt with what came of its verifier; pure.

    Args:
        exited: the attempt's own end.
        checked: the verifier's, or why it did not start.
        spec: the attempt's.
        wish: why somebody wanted the attempt ended while it was being verified; empty when nobody did.
    """
    if isinstance(checked, AgentLaunchFailed):
        return without_word(msgspec.structs.replace(exited, ended_by=wish), spec, checked.message)
    verification = Verification(
        command=_command(spec),
        exit_code=checked.exit_code,
        signal=checked.signal,
        ended_by=checked.ended_by,
        output_tail=_last_words(checked),
    )
    return msgspec.structs.replace(
        exited,
        # A wish that came when it had ended already has ended nothing.
        ended_by=wish if checked.ended_by == wish else "",
        verification=verification,
        usage=both_usages(exited.usage, checked.usage.cpu_seconds, checked.usage.max_rss_bytes),
        survivors=Survivors(
            count=checked.survivors.count,  # of the attempt itself nothing was left
            checked_by=tuple(dict.fromkeys(exited.survivors.checked_by + checked.survivors.checked_by)),
            swept=exited.survivors.swept + checked.survivors.swept,
        ),
    )


def without_word(exited: AgentExited, spec: LaunchSpec, error: str) -> AgentExited:
    """The end of an attempt that could not be verified, and why; pure."""
    return msgspec.structs.replace(exited, verification=Verification(command=_command(spec), error=error))


def _command(spec: LaunchSpec) -> tuple[str, ...]:
    return spec.verifier.argv if spec.verifier is not None else ()


def _last_words(checked: AgentExited) -> bytes:
    tails = [tail[-TAIL_BYTES:].strip() for tail in (checked.stdout_tail, checked.stderr_tail)]
    return b"\n".join(tail for tail in tails if tail)


def both_usages(own: Usage, cpu_seconds: float | None, max_rss_bytes: int | None) -> Usage:
    """What an attempt used with what its verifier did after it, as far as that was measured."""
    return msgspec.structs.replace(
        own,
        cpu_seconds=(own.cpu_seconds or 0.0) + (cpu_seconds or 0.0),
        max_rss_bytes=max(own.max_rss_bytes or 0, max_rss_bytes or 0),
    )


class VerifierHost:
    """Stands for the worker before the verifier of an attempt.

    ``usage`` is what the attempt itself used. ``ended`` is called once, last of all: with the verifier's end, or with
    why it did not start.
    """

    def __init__(self, host: Host, usage: Usage, ended: Callable[[AgentExited | AgentLaunchFailed], None]) -> None:
        self._host = host
        self._usage = usage
        self._ended = ended
        self._end: AgentExited | AgentLaunchFailed | None = None
        self.config = host.config
        self.rations = host.rations
        self.reactor = host.reactor
        self.table = host.table
        self.flags = host.flags
        self.sandbox = host.sandbox
        self.spawner = host.spawner
        self.adopt = host.adopt
        self.claim = host.claim
        self.is_own = host.is_own
        self.zygote = host.zygote
        self.is_congested = host.is_congested

    def emit(self, fact: Fact) -> None:
        """Take what the end is made of; of the rest only the start is told."""
        if isinstance(fact, AgentStarted):
            self._host.emit(
                VerifierStarted(
                    agent_id=fact.agent_id,
                    attempt=fact.attempt,
                    pid=fact.pid,
                    start_ticks=fact.start_ticks,
                    usage=self._usage,
                )
            )
        elif isinstance(fact, AgentExited | AgentLaunchFailed):
            self._end = fact

    def mark_output(self, attempt: Attempt) -> None:
        """Its positions interest nobody."""

    def finished(self, attempt: Attempt) -> None:
        """The worker forgets its process; then the attempt that it checked may end."""
        self._host.finished(attempt)
        if self._end is not None:
            self._ended(self._end)
