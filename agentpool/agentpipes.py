"""The three pipes of one attempt: its output to the logs and up as records, its input from the queue."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from agentpool.config import WorkerConfig
from agentpool.disk import Rations
from agentpool.launching import Pipes
from agentpool.lines import LineSplitter
from agentpool.messages import AgentOutput, AgentRecord, Fact, Feed, FeedLine, FeedState, InputState
from agentpool.pump import Pump
from agentpool.reactor import WRITE, Reactor
from agentpool.runtimes import LineParser, Runtime
from agentpool.specs import LaunchSpec
from agentpool.stdin import StdinQueue
from agentpool.streams import STREAMS, OutputLog, log_path

#: The native protocol's word that the agent is being ended.
SHUTDOWN = b'{"type":"shutdown"}'


class PipesHost(Protocol):
    """What the pipes need of their worker."""

    @property
    def config(self) -> WorkerConfig:
        """The worker's settings."""

    @property
    def rations(self) -> Rations:
        """What may still be written to disks."""

    @property
    def reactor(self) -> Reactor:
        """The worker's loop."""

    def emit(self, fact: Fact) -> None:
        """Send a fact up."""

    def is_congested(self) -> bool:
        """Whether what can wait should not be sent now."""


class AgentPipes:
    """Opens the logs at once (raises OSError when it cannot), and the pipes by ``open``.

    ``moved`` is called after output has moved. All methods may be called in any state.
    """

    def __init__(self, host: PipesHost, spec: LaunchSpec, runtime: Runtime, moved: Callable[[], None]) -> None:
        self._host = host
        self._spec = spec
        self._runtime = runtime
        self._moved = moved
        self._parser: LineParser | None = runtime.parser()
        self._pumps: list[Pump] = []
        self._stdin: StdinQueue | None = None
        self.last_output_at = time.monotonic()
        self.logs: dict[str, OutputLog] = {}
        try:
            for stream in STREAMS:
                limits = spec.limits
                self.logs[stream] = OutputLog(
                    spec.record_dir, stream, limits.output_bytes, limits.output_file_bytes, host.rations
                )
        except OSError:
            self.close()
            raise
        self._splitter = LineSplitter(self.logs["stdout"].position)

    def open(self, pipes: Pipes) -> None:
        """Take the worker's ends; nothing is read before ``begin``."""
        reactor = self._host.reactor
        consume = self._consume if self._parser is not None else None
        self._pumps = [
            Pump(reactor, pipes.stdout, self.logs["stdout"], consume, self._on_moved),
            Pump(reactor, pipes.stderr, self.logs["stderr"], None, self._on_moved),
        ]
        if pipes.stdin is not None:
            bound = self._host.config.input_bytes
            self._stdin = StdinQueue(pipes.stdin, bound, self._report_input, self._report_feed, reactor.forget)

    def begin(self) -> None:
        """Start to read."""
        for pump in self._pumps:
            pump.begin()

    @property
    def is_throttled(self) -> bool:
        """Whether reading is stopped because the supervisor is behind."""
        return any(pump.is_paused for pump in self._pumps)

    def relieve(self) -> None:
        """The supervisor has caught up: read on."""
        for pump in self._pumps:
            pump.resume()

    def drain(self) -> None:
        """Take what is left in the pipes of an agent that is gone."""
        for pump in self._pumps:
            pump.drain()

    def send(self, message_id: str, line: bytes) -> None:
        """Queue a line of the native protocol for stdin."""
        if self._stdin is None:
            self._report_input(message_id, "dead", "no_stdin")
            return
        self._stdin.put(message_id, self._runtime.encode_input(line))
        self._watch_stdin()

    def feed(self, command: Feed) -> None:
        """Queue lines of the native protocol for stdin, as far as there is room."""
        if self._stdin is None:
            self._report_feed("closed", 0)
            return
        encode = self._runtime.encode_input
        lines = [FeedLine(item.sequence, encode(item.line)) for item in command.lines]
        self._stdin.feed(lines, is_retry=command.is_retry)
        self._watch_stdin()

    def announce_end(self) -> None:
        """Tell the agent on its stdin that it is being ended, if it reads one and there is room."""
        if self._stdin is not None:
            self._stdin.say(self._runtime.encode_input(SHUTDOWN))
            self._watch_stdin()

    def close_input(self) -> None:
        """Close stdin once what waits is written."""
        if self._stdin is not None:
            self._stdin.finish()
            self._watch_stdin()

    def positions(self) -> AgentOutput:
        """How far the logs are."""
        return AgentOutput(
            agent_id=self._spec.agent_id,
            attempt=self._spec.attempt,
            stdout_bytes=self.logs["stdout"].position,
            stderr_bytes=self.logs["stderr"].position,
        )

    def tails(self) -> dict[str, bytes]:
        """The last bytes of each stream."""
        return {stream: log.tail() for stream, log in self.logs.items()}

    def truncations(self) -> dict[str, int]:
        """The capped streams, and from which byte."""
        return {stream: log.truncated_at for stream, log in self.logs.items() if log.truncated_at is not None}

    def truncation_reasons(self) -> dict[str, str]:
        """The capped streams, and why: ``cap`` or ``disk``."""
        return {stream: log.truncated_by for stream, log in self.logs.items() if log.truncated_by}

    def verdict(self) -> bytes:
        """What stdout said about the outcome as JSON; empty when it said nothing."""
        verdict = self._parser.verdict() if self._parser is not None else None
        return msgspec.json.encode(verdict) if verdict is not None else b""

    @property
    def written_bytes(self) -> int:
        """What stdin has taken."""
        return self._stdin.written_bytes if self._stdin is not None else 0

    def close(self, *, unlink_empty: bool = False) -> None:
        """Close pipes and logs; ``unlink_empty`` removes logs that nothing was written to."""
        if self._stdin is not None:
            self._stdin.close("agent_ended")
        for pump in self._pumps:
            pump.close()
        for stream, log in self.logs.items():
            log.close()
            if unlink_empty and log.position == 0:
                try:
                    os.unlink(log_path(self._spec.record_dir, stream))
                except OSError:
                    pass

    def _watch_stdin(self) -> None:
        queue = self._stdin
        if queue is None or queue.fd is None:
            return
        if queue.wants_write:
            self._host.reactor.watch(queue.fd, WRITE, self._on_stdin_ready)
        else:
            self._host.reactor.forget(queue.fd)

    def _on_stdin_ready(self, _events: int) -> None:
        if self._stdin is not None:
            self._stdin.flush()
            self._watch_stdin()

    def _report_input(self, message_id: str, state: str, reason: str) -> None:
        agent_id = self._spec.agent_id
        self._host.emit(InputState(agent_id=agent_id, message_id=message_id, state=state, reason=reason))

    def _report_feed(self, state: str, sequence: int) -> None:
        spec = self._spec
        self._host.emit(FeedState(agent_id=spec.agent_id, attempt=spec.attempt, state=state, sequence=sequence))

    def _on_moved(self) -> None:
        self.last_output_at = time.monotonic()
        self._moved()

    def _consume(self, data: bytes) -> None:
        spec, parser = self._spec, self._parser
        if parser is None:
            return
        feed = self._splitter.feed_mute if parser.is_mute(data) else self._splitter.feed
        for line in feed(data):
            for record in parser.feed(line):
                if record.kind == "ack" and self._take_ack(record.payload):
                    continue
                self._host.emit(
                    AgentRecord(
                        agent_id=spec.agent_id,
                        attempt=spec.attempt,
                        kind=record.kind,
                        offset=line.offset,
                        payload=record.payload,
                    )
                )
        if self._host.is_congested():
            self._pumps[0].pause()

    def _take_ack(self, payload: bytes) -> bool:
        message_id = msgspec.json.decode(payload).get("message_id")
        return self._stdin is not None and self._stdin.acknowledge(message_id)
