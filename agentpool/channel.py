"""The private, bounded queue pair between the supervisor and one worker.

It is a socket pair carrying length-prefixed MessagePack frames, not a ``multiprocessing.Queue``: that one
shares a semaphore between its users, and a semaphore has no owner, so a peer that is SIGKILLed inside
``get`` or ``put`` wedges everybody else. Here each worker has a pair of its own which nobody shares; when
the worker is gone, or a frame is torn or cannot be decoded, the pair is thrown away with it.

Neither side ever blocks: what the socket does not take waits in ``outgoing``, and ``is_full`` asks the
producer to stop producing what can wait.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from collections.abc import Iterator
from itertools import islice

import msgspec

from agentpool.errors import ProtocolViolation
from agentpool.messages import Command, Fact

HEADER = struct.Struct("<I")
#: Largest frame: far above any command or record (a record's line is at most 1 MiB), far below memory.
MAX_FRAME_BYTES = 32 << 20
READ_BYTES = 256 << 10
SOCKET_BUFFER_BYTES = 512 << 10


def encode_frame(payload: bytes) -> bytes:
    """The frame of a payload. Raises ProtocolViolation when it is larger than MAX_FRAME_BYTES."""
    if len(payload) > MAX_FRAME_BYTES:
        raise ProtocolViolation(f"a message of {len(payload)} bytes is over the limit of {MAX_FRAME_BYTES}")
    return HEADER.pack(len(payload)) + payload


class FrameBuffer:
    """Puts frames together again from whatever pieces the socket gives."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def is_torn(self) -> bool:
        """Whether part of a frame is held; at the end of the stream this means that the peer died mid-write."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield each payload that is complete now. Raises ProtocolViolation on an impossible length."""
        buffer = self._buffer
        buffer += data
        position = 0
        try:
            while len(buffer) - position >= HEADER.size:
                (size,) = HEADER.unpack_from(buffer, position)
                if size > MAX_FRAME_BYTES:
                    raise ProtocolViolation(f"a frame claims {size} bytes; the limit is {MAX_FRAME_BYTES}")
                end = position + HEADER.size + size
                if end > len(buffer):
                    break
                payload = bytes(memoryview(buffer)[position + HEADER.size : end])
                position = end
                yield payload
        finally:
            if position:
                del buffer[:position]


class Channel:
    """One end of the pair; ``Channel.for_supervisor`` reads facts, ``Channel.for_worker`` reads commands."""

    def __init__(self, sock: socket.socket, decoder: msgspec.msgpack.Decoder[Command | Fact], *, bound: int) -> None:
        sock.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER_BYTES)
        self._sock = sock
        self._decoder = decoder
        self._encoder = msgspec.msgpack.Encoder()
        self._frames = FrameBuffer()
        self._outgoing: deque[memoryview] = deque()
        self._bound = bound
        self.outgoing_bytes = 0
        self.is_closed = False

    @classmethod
    def for_supervisor(cls, sock: socket.socket, *, bound: int = 8 << 20) -> Channel:
        """The end that sends commands and reads facts."""
        return cls(sock, msgspec.msgpack.Decoder(Fact), bound=bound)

    @classmethod
    def for_worker(cls, sock: socket.socket, *, bound: int = 4 << 20) -> Channel:
        """The end that sends facts and reads commands."""
        return cls(sock, msgspec.msgpack.Decoder(Command), bound=bound)

    def fileno(self) -> int:
        """The socket's descriptor, for the loop."""
        return self._sock.fileno()

    @property
    def is_full(self) -> bool:
        """Whether more waits than the bound; producers of what can wait then stop."""
        return self.outgoing_bytes > self._bound

    @property
    def queued(self) -> int:
        """How many messages wait for the socket."""
        return len(self._outgoing)

    @property
    def wants_write(self) -> bool:
        """Whether something waits for the socket."""
        return bool(self._outgoing)

    def queue(self, message: Command | Fact) -> None:
        """Queue a message for the next ``flush``; nothing is ever dropped while it is open.

        Raises ProtocolViolation when it is too large.
        """
        if self.is_closed:
            return
        frame = encode_frame(self._encoder.encode(message))
        self._outgoing.append(memoryview(frame))
        self.outgoing_bytes += len(frame)

    def flush(self) -> None:
        """Write what the socket takes now. A dead peer shows as end of stream in ``receive``, not here."""
        while self._outgoing:
            try:
                written = self._sock.sendmsg(islice(self._outgoing, 64))
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self._outgoing.clear()
                self.outgoing_bytes = 0
                return
            self.outgoing_bytes -= written
            while written:
                first = self._outgoing[0]
                if written < len(first):
                    self._outgoing[0] = first[written:]
                    break
                written -= len(first)
                self._outgoing.popleft()

    def receive(self) -> list[Command | Fact] | None:
        """Messages that have arrived, in order; None at the end of the stream.

        Raises ProtocolViolation when a frame is torn by the peer's end, too large or not decodable.
        """
        try:
            data = self._sock.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError:
            data = b""
        if not data:
            if self._frames.is_torn:
                raise ProtocolViolation("the stream ended inside a frame")
            return None
        try:
            return [self._decoder.decode(payload) for payload in self._frames.feed(data)]
        except msgspec.MsgspecError as error:
            raise ProtocolViolation(f"a frame could not be decoded: {error}") from error

    def close(self) -> None:
        """Close this end; harmless when closed."""
        if not self.is_closed:
            self.is_closed = True
            self._outgoing.clear()
            self.outgoing_bytes = 0
            self._sock.close()
