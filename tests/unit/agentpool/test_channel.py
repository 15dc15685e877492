"""Frames between supervisor and worker."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentpool.channel import HEADER, MAX_FRAME_BYTES, Channel, FrameBuffer, encode_frame
from agentpool.errors import ProtocolViolation
from agentpool.messages import Ping, Pong


@pytest.fixture
def pair() -> Iterator[tuple[Channel, Channel]]:
    """The supervisor's end and the worker's."""
    ours, theirs = socket.socketpair()
    channels = Channel.for_supervisor(ours), Channel.for_worker(theirs, bound=1 << 16)
    yield channels
    for channel in channels:
        channel.close()


@given(st.lists(st.binary(max_size=50), max_size=10), st.integers(1, 20))
def test_frames_do_not_depend_on_how_the_socket_cuts_them(payloads: list[bytes], step: int) -> None:
    """Prevents messages that are lost or merged at the edge of a read."""
    stream = b"".join(encode_frame(payload) for payload in payloads)
    buffer = FrameBuffer()
    found = [p for begin in range(0, len(stream), step) for p in buffer.feed(stream[begin : begin + step])]
    assert found == payloads
    assert not buffer.is_torn


def test_messages_go_both_ways(pair: tuple[Channel, Channel]) -> None:
    """Prevents a message that arrives as another."""
    supervisor, worker = pair
    supervisor.queue(Ping(sequence=1))
    supervisor.flush()
    assert worker.receive() == [Ping(sequence=1)]
    worker.queue(Pong(sequence=1, agents=2))
    worker.flush()
    assert supervisor.receive() == [Pong(sequence=1, agents=2)]
    assert supervisor.receive() == []


def test_a_full_socket_neither_blocks_nor_drops(pair: tuple[Channel, Channel]) -> None:
    """Prevents a worker that waits for a slow supervisor, and facts that are dropped instead."""
    supervisor, worker = pair
    for number in range(200_000):
        worker.queue(Pong(sequence=number, agents=0))
        worker.flush()
        if worker.is_full:
            break
    assert worker.wants_write
    sent = number + 1
    received: list[object] = []
    while len(received) < sent:
        received += supervisor.receive() or []
        worker.flush()
    assert received == [Pong(sequence=n, agents=0) for n in range(sent)]
    assert worker.outgoing_bytes == 0


def test_a_torn_frame_is_a_violation(pair: tuple[Channel, Channel]) -> None:
    """Prevents half a message from being taken for a clean end."""
    supervisor, worker = pair
    worker._sock.sendall(encode_frame(b"x" * 100)[:50])
    assert supervisor.receive() == []
    worker.close()
    with pytest.raises(ProtocolViolation, match="inside a frame"):
        supervisor.receive()


@pytest.mark.parametrize("data", [HEADER.pack(MAX_FRAME_BYTES + 1), encode_frame(b"\xc1 no message")])
def test_nonsense_is_a_violation(pair: tuple[Channel, Channel], data: bytes) -> None:
    """Prevents memory that a broken length asks for, and an error that escapes the reader."""
    supervisor, worker = pair
    worker._sock.sendall(data)
    with pytest.raises(ProtocolViolation):
        supervisor.receive()


def test_the_end_is_none(pair: tuple[Channel, Channel]) -> None:
    """Prevents the death of a peer from being taken for silence."""
    supervisor, worker = pair
    worker.close()
    assert supervisor.receive() is None
    supervisor.queue(Ping(sequence=1))
    supervisor.flush()  # must not raise: the end is seen by reading


def test_a_message_over_the_limit_is_refused() -> None:
    """Prevents a frame that the other side must take for nonsense."""
    with pytest.raises(ProtocolViolation):
        encode_frame(bytes(MAX_FRAME_BYTES + 1))
