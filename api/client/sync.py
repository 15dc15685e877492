"""The blocking client: standard library only, connections kept and shared between threads."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode, urlsplit

from api.client import types
from api.client.cursor import EventCursor
from api.client.errors import BadAnswer, ClientError, SidecarUnavailable
from api.client.operations import Operations
from api.client.request import MAX_ANSWER_BYTES, Answer, NotSent, Request, Retry, check, normal_url
from api.client.tls import tls_context

if TYPE_CHECKING:
    import http.client
    from types import TracebackType
    from typing import Self

T = TypeVar("T")

#: Connections kept for reuse; more may be open at a time.
KEPT_CONNECTIONS = 8
#: Seconds between two looks at an agent that is at work: first and longest pause.
FOLLOW_PAUSES_S = (0.05, 0.5)


class Client(Operations):
    """Talks to a sidecar; every call of ``Operations`` is a method that returns its value.

    Args:
        url: the sidecar's origin (``http://127.0.0.1:3001``; a trailing ``/api`` is cut).
        token: the bearer token, or a function that gives it for each request; None for the open endpoints.
        retry: how often to try again.
        timeout_s: seconds to wait for an answer.
        connect_timeout_s: seconds to wait for a connection.
        certificate: the sidecar's own certificate (PEM), accepted whatever name it is for; by default the system's
            authorities decide.
        sleep: how to wait between attempts.

    Raises of every call: SidecarUnavailable, APIError, BadAnswer.
    """

    def __init__(
        self,
        url: str,
        token: str | Callable[[], str | None] | None = None,
        *,
        retry: Retry | None = None,
        timeout_s: float = 30.0,
        connect_timeout_s: float = 5.0,
        certificate: str | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = normal_url(url)
        self._token = token
        self._retry = retry or Retry()
        self._timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._tls = tls_context(self.url, certificate)
        self._sleep = sleep
        self._idle: list[http.client.HTTPConnection] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the kept connections; the client can be used again."""
        while self._idle:
            self._idle.pop().close()

    def send(self, request: Request[T]) -> T:
        """Send, trying again where that is safe, and return the value of the answer."""
        attempt = 1
        while True:
            try:
                answer = check(self._exchange(request), request.accept)
            except ClientError as failure:
                delay_s = self._retry.delay_s(attempt, request, failure)
                if delay_s is None:
                    raise
                self._sleep(delay_s)
                attempt += 1
                continue
            return read(request, answer)

    def iterate_events(
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
    ) -> Iterator[types.Event]:
        """Yield events for ever, each once, in order.

        With ``consumer`` the place is kept by the sidecar and an event counts as received only when the next one
        is asked for (at least once). ``patience_s`` is how long a sidecar that went away is waited for. Events
        that are no longer retained are told to ``on_gap``; without it EventGap is raised.
        """
        cursor = EventCursor(event_type, filter, since, consumer, project_id, poll_ms, on_gap)
        away_since: float | None = None
        while True:
            try:
                page = self.send(cursor.request())
            except SidecarUnavailable:
                now = time.monotonic()
                away_since = now if away_since is None else away_since
                if now - away_since >= patience_s:
                    raise
                self._sleep(min(1.0, patience_s))
                continue
            away_since = None
            yield from cursor.take(page)

    def follow_output(
        self, agent_id: str, stream: str = "stdout", *, since: int = 0, project_id: str | None = None
    ) -> Iterator[bytes]:
        """Yield an agent's raw output from byte ``since`` until the agent has ended and all of it was read."""
        pause_s, longest_s = FOLLOW_PAUSES_S
        has_ended = False
        while True:
            piece = self.output(agent_id, stream, since=since, project_id=project_id)
            since = piece["next_offset"]
            if piece["data"]:
                pause_s = FOLLOW_PAUSES_S[0]
                yield piece["data"]
                continue
            if has_ended:
                return
            # Its end is looked at before the last read, so that nothing said in between is missed.
            has_ended = self.agent(agent_id, project_id=project_id)["status"] in types.FINAL_AGENT_STATUSES
            if not has_ended:
                self._sleep(pause_s)
                pause_s = min(longest_s, pause_s * 2)

    def wait_for_agent(
        self, agent_id: str, *, timeout_s: float | None = None, project_id: str | None = None
    ) -> types.AgentInfo:
        """The agent's record once it has ended. Raises TimeoutError after ``timeout_s`` seconds."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        pause_s, longest_s = FOLLOW_PAUSES_S
        while True:
            record = self.agent(agent_id, project_id=project_id)
            if record["status"] in types.FINAL_AGENT_STATUSES:
                return record
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"agent {agent_id} is still {record['status']} after {timeout_s} s")
            self._sleep(pause_s)
            pause_s = min(longest_s, pause_s * 2)

    # -- one exchange --------------------------------------------------------------------------

    def _exchange(self, request: Request[Any]) -> Answer:
        import http.client

        connection = self._take_idle() or self._connect()
        try:
            if connection.sock is not None:
                connection.sock.settimeout(request.timeout_s or self._timeout_s)
            path = request.path + ("?" + urlencode(request.query) if request.query else "")
            connection.request(request.method, path, request.body, self._headers(request))
            response = connection.getresponse()
            body = response.read(MAX_ANSWER_BYTES + 1)
            if response.length and len(body) <= MAX_ANSWER_BYTES:
                # A bounded read does not notice by itself that the body is shorter than was announced.
                raise http.client.IncompleteRead(body, response.length)
        except TimeoutError as error:
            connection.close()
            raise SidecarUnavailable(self.url, str(error) or "timed out", is_timeout=True) from error
        except OSError as error:
            connection.close()
            raise SidecarUnavailable(self.url, str(error) or type(error).__name__) from error
        except http.client.IncompleteRead as error:
            connection.close()
            raise SidecarUnavailable(self.url, "the answer was cut off") from error
        except http.client.HTTPException as error:
            connection.close()
            raise BadAnswer(f"{self.url} does not speak HTTP ({type(error).__name__})") from error
        except BaseException:
            connection.close()
            raise
        if len(body) > MAX_ANSWER_BYTES:
            connection.close()
            raise BadAnswer(f"an answer over {MAX_ANSWER_BYTES} bytes")
        if response.will_close or len(self._idle) >= KEPT_CONNECTIONS:
            connection.close()
        else:
            self._idle.append(connection)
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, body)

    def _headers(self, request: Request[Any]) -> dict[str, str]:
        token = self._token() if callable(self._token) else self._token
        return headers(request, token)

    def _take_idle(self) -> http.client.HTTPConnection | None:
        """A kept connection that the other side has not closed meanwhile."""
        import select

        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread was faster
                return None
            sock = connection.sock
            if sock is not None:
                poll = select.poll()
                poll.register(sock, select.POLLIN | select.POLLHUP)
                # Nothing may come before a request, so anything to read is the end or garbage.
                if not poll.poll(0):
                    return connection
            connection.close()
        return None

    def _connect(self) -> http.client.HTTPConnection:
        import http.client

        parts = urlsplit(self.url)
        connection = (
            http.client.HTTPConnection(parts.netloc, timeout=self._connect_timeout_s)
            if self._tls is None
            else http.client.HTTPSConnection(parts.netloc, timeout=self._connect_timeout_s, context=self._tls)
        )
        try:
            connection.connect()
        except OSError as error:
            with contextlib.suppress(OSError):
                connection.close()
            raise NotSent(self.url, str(error) or type(error).__name__) from error
        return connection


def headers(request: Request[Any], token: str | None) -> dict[str, str]:
    """The headers of a request, with ``token`` when there is one."""
    values = {"Accept": "application/json", **request.headers}
    if request.body is not None:
        values["Content-Type"] = "application/json"
    if token:
        values["Authorization"] = f"Bearer {token}"
    return values


def read(request: Request[T], answer: Answer) -> T:
    """The value of an answer. Raises BadAnswer when it is not what the contract says."""
    try:
        return request.read(answer)
    except (KeyError, TypeError, ValueError) as error:
        raise BadAnswer(f"{request.method} {request.path} was answered with something unexpected: {error}") from error
