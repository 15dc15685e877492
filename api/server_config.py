"""How Hypercorn is set up."""

from __future__ import annotations

import logging
import time
from wsgiref.handlers import format_date_time

from hypercorn.config import Config

from api.listening import Listener
from orchestrator.config import ServerSettings

#: Seconds that a connection may be idle, or take to send the head of a request.
IDLE_S = 15.0
#: Waiting connections; a team of 119 agents may start at once.
BACKLOG = 1024
#: On every answer, those that Hypercorn gives itself (malformed requests) included.
SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
]


class ServerConfig(Config):
    """Hypercorn's configuration with the headers of every answer; the date is formatted once a second."""

    def __init__(self) -> None:
        super().__init__()
        self._second = 0
        self._headers: list[tuple[bytes, bytes]] = []

    def response_headers(self, protocol: str) -> list[tuple[bytes, bytes]]:
        """The headers that are added to every answer."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._headers = [(b"date", format_date_time(second).encode("ascii")), *SECURITY_HEADERS]
        return self._headers


def make_config(settings: ServerSettings, listener: Listener, *, drain_s: float) -> ServerConfig:
    """The configuration for one process that serves ``listener``."""
    config = ServerConfig()
    config.bind = [f"fd://{listener.detach()}"]
    config.workers = 1
    config.backlog = BACKLOG
    config.graceful_timeout = drain_s
    config.keep_alive_timeout = IDLE_S
    config.keep_alive_max_requests = 1_000_000
    config.ssl_handshake_timeout = IDLE_S
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    config.errorlog.setLevel(logging.WARNING)  # it would tell on its own where it listens
    config.certfile = settings.certificate
    config.keyfile = settings.private_key
    return config
