"""An HTTP server whose every answer is written by the test: refusals, delays and broken connections included."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple, Self


class Seen(NamedTuple):
    """One request as the server got it."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.body)


class Reply(NamedTuple):
    """One answer. ``cut_after`` closes the connection after so many bytes of the body; ``raw`` is sent as it is."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = {}
    cut_after: int | None = None
    raw: bytes | None = None
    is_closing: bool = False


Script = Callable[[Seen], Reply]


class ScriptedServer:
    """Listens on a free port; ``seen`` holds all requests. Use as a context manager.

    Args:
        script: answers each request; or a list of replies, given in turn (the last one again and again).
    """

    def __init__(self, script: Script | list[Reply]) -> None:
        self.seen: list[Seen] = []
        self.connections = 0
        replies = list(script) if isinstance(script, list) else []
        self._script: Script = (lambda _: replies.pop(0) if len(replies) > 1 else replies[0]) if replies else script  # type: ignore[assignment]
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                outer.connections += 1
                super().setup()

            def answer(self) -> None:
                outer._answer(self)

            do_GET = do_POST = do_DELETE = answer

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            # The default of 5 makes the sixth of many connections wait a second for its SYN to be repeated.
            request_queue_size = 256

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self._server.server_close()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        self._open.add(handler.connection)
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        seen = Seen(handler.command, handler.path, {k.lower(): v for k, v in handler.headers.items()}, body)
        self.seen.append(seen)
        reply = self._script(seen)
        if reply.raw is not None:
            handler.wfile.write(reply.raw)
            handler.close_connection = True
            return
        data = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        handler.send_response(reply.status)
        for name, value in {"Content-Type": "application/json", **reply.headers}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        if reply.cut_after is not None:
            handler.wfile.write(data[: reply.cut_after])
            handler.close_connection = True
            return
        handler.wfile.write(data)
        if reply.is_closing:
            handler.close_connection = True


def error_reply(status: int, code: str, message: str = "no", **headers: str) -> Reply:
    """A refusal in the contract's form."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = {"error": "slug", "message": message, "code": code, "timestamp": "", "request_id": "r1"}
    return Reply(status, body, named)
