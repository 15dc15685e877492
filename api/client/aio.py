"""The asyncio client: h11 over streams, connections kept; a cancelled call closes its connection at once."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode, urlsplit

import h11

from api.client import types
from api.client.cursor import EventCursor
from api.client.errors import BadAnswer, ClientError, SidecarUnavailable
from api.client.operations import Operations
from api.client.request import MAX_ANSWER_BYTES, Answer, NotSent, Request, Retry, check, normal_url
from api.client.sync import FOLLOW_PAUSES_S, KEPT_CONNECTIONS, headers, read
from api.client.tls import tls_context

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

T = TypeVar("T")


class AsyncClient(Operations):
    """``Client`` for asyncio: the same calls, arguments and errors, each awaited. Belongs to one event loop."""

    def __init__(
        self,
        url: str,
        token: str | Callable[[], str | None] | None = None,
        *,
        retry: Retry | None = None,
        timeout_s: float = 30.0,
        connect_timeout_s: float = 5.0,
        certificate: str | None = None,
    ) -> None:
        self.url = normal_url(url)
        self._token = token
        self._retry = retry or Retry()
        self._timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._tls = tls_context(self.url, certificate)
        self._idle: list[_Connection] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the kept connections; the client can be used again."""
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.aclose()

    async def send(self, request: Request[T]) -> T:
        """Send, trying again where that is safe, and return the value of the answer."""
        attempt = 1
        while True:
            try:
                answer = check(await self._exchange(request), request.accept)
            except ClientError as failure:
                delay_s = self._retry.delay_s(attempt, request, failure)
                if delay_s is None:
                    raise
                await asyncio.sleep(delay_s)
                attempt += 1
                continue
            return read(request, answer)

    async def iterate_events(
        self,
        event_type: str = "*",
        *,
        filter: str | None = None,
        since: str | None = "latest",
        consumer: str | None = None,
        project_id: str | None = None,
        patience_s: float = 0.0,
        on_gap: Callable[[types.EventPage], None] | None = None,
        poll_ms: int = 30_000,
    ) -> AsyncIterator[types.Event]:
        """Yield events for ever; see ``Client.iterate_events``."""
        cursor = EventCursor(event_type, filter, since, consumer, project_id, poll_ms, on_gap)
        away_since: float | None = None
        while True:
            try:
                page = await self.send(cursor.request())
            except SidecarUnavailable:
                now = time.monotonic()
                away_since = now if away_since is None else away_since
                if now - away_since >= patience_s:
                    raise
                await asyncio.sleep(min(1.0, patience_s))
                continue
            away_since = None
            for event in cursor.take(page):
                yield event

    async def follow_output(
        self, agent_id: str, stream: str = "stdout", *, since: int = 0, project_id: str | None = None
    ) -> AsyncIterator[bytes]:
        """Yield an agent's raw output until it has ended and all was read; see ``Client.follow_output``."""
        pause_s, longest_s = FOLLOW_PAUSES_S
        has_ended = False
        while True:
            piece = await self.output(agent_id, stream, since=since, project_id=project_id)
            since = piece["next_offset"]
            if piece["data"]:
                pause_s = FOLLOW_PAUSES_S[0]
                yield piece["data"]
                continue
            if has_ended:
                return
            record = await self.agent(agent_id, project_id=project_id)
            has_ended = record["status"] in types.FINAL_AGENT_STATUSES
            if not has_ended:
                await asyncio.sleep(pause_s)
                pause_s = min(longest_s, pause_s * 2)

    # -- one exchange --------------------------------------------------------------------------

    async def _exchange(self, request: Request[Any]) -> Answer:
        connection = self._take_idle() or await self._connect()
        token = self._token() if callable(self._token) else self._token
        try:
            async with asyncio.timeout(request.timeout_s or self._timeout_s):
                answer = await connection.exchange(request, headers(request, token))
        except TimeoutError as error:
            connection.abort()
            raise SidecarUnavailable(self.url, "timed out", is_timeout=True) from error
        except (OSError, EOFError) as error:
            connection.abort()
            raise SidecarUnavailable(self.url, str(error) or type(error).__name__) from error
        except h11.ProtocolError as error:
            connection.abort()
            raise BadAnswer(f"{self.url} does not speak HTTP ({error})") from error
        except BaseException:
            # A cancelled call must not leave half an answer for the next one.
            connection.abort()
            raise
        if connection.reuse() and len(self._idle) < KEPT_CONNECTIONS:
            self._idle.append(connection)
        else:
            await connection.aclose()
        return answer

    def _take_idle(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open():
                return connection
            connection.abort()
        return None

    async def _connect(self) -> _Connection:
        parts = urlsplit(self.url)
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                reader, writer = await asyncio.open_connection(
                    parts.hostname, parts.port or (443 if self._tls else 80), ssl=self._tls
                )
        except (OSError, TimeoutError) as error:
            raise NotSent(self.url, str(error) or "timed out") from error
        return _Connection(reader, writer, parts.netloc)


class _Connection:
    """One HTTP/1.1 connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self._reader = reader
        self._writer = writer
        self._host = host
        self._http = h11.Connection(our_role=h11.CLIENT)
        self._has_begun = False

    def is_open(self) -> bool:
        """Whether the other side has neither closed nor said anything since the last answer."""
        # asyncio reads ahead, so the end is known without asking the socket.
        return not (self._writer.is_closing() or self._reader.at_eof() or self._reader._buffer)  # type: ignore[attr-defined]

    def reuse(self) -> bool:
        """Make ready for another request; False when the connection must be closed."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    def abort(self) -> None:
        """Drop the connection without waiting."""
        self._writer.transport.abort()

    async def aclose(self) -> None:
        """Close and wait until the socket is gone."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def exchange(self, request: Request[Any], fields: dict[str, str]) -> Answer:
        """Send and read the whole answer. Raises EOFError when it was cut off, h11.ProtocolError, OSError."""
        self._has_begun = False
        target = request.path + ("?" + urlencode(request.query) if request.query else "")
        lines = [("Host", self._host), *fields.items()]
        if request.body is not None:
            lines.append(("Content-Length", str(len(request.body))))
        out = self._http.send(h11.Request(method=request.method, target=target, headers=lines)) or b""
        if request.body is not None:
            out += self._http.send(h11.Data(data=request.body)) or b""
        out += self._http.send(h11.EndOfMessage()) or b""
        self._writer.write(out)
        await self._writer.drain()
        return await self._read_answer()

    def _next_event(self) -> Any:
        try:
            return self._http.next_event()
        except h11.RemoteProtocolError as error:
            if self._reader.at_eof() and self._http.their_state is not h11.SEND_RESPONSE and self._has_begun:
                raise EOFError("the answer was cut off") from error
            raise

    async def _receive(self) -> None:
        """Hand on what comes next. Raises EOFError when nothing more comes though an answer was begun or is due."""
        data = await self._reader.read(1 << 16)
        if data:
            self._http.receive_data(data)
            return
        if self._http.their_state is h11.SEND_RESPONSE:
            if self._http.trailing_data[0]:
                raise h11.RemoteProtocolError("what came is no HTTP answer")
            raise EOFError("the connection was closed before the answer")
        # The end of a body without a length; where one was announced, h11 says so at the next event.
        self._http.receive_data(b"")

    async def _read_answer(self) -> Answer:
        status, fields, body = 0, {}, bytearray()
        while True:
            event = self._next_event()
            if event is h11.NEED_DATA:
                await self._receive()
            elif isinstance(event, h11.Response):
                self._has_begun = True
                status = event.status_code
                fields = {name.decode("ascii"): value.decode("latin-1") for name, value in event.headers}
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > MAX_ANSWER_BYTES:
                    raise BadAnswer(f"an answer over {MAX_ANSWER_BYTES} bytes")
            elif isinstance(event, h11.EndOfMessage):
                return Answer(status, fields, bytes(body))
            elif isinstance(event, h11.ConnectionClosed):
                raise EOFError("the connection was closed before the answer")
