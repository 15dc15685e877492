"""The listening socket: bound before anything else starts, so that a conflict is told at once and by whom."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from typing import Any

import psutil

from api.errors import AddressUnavailable

BACKLOG = 1024
#: What the kernel keeps of an answer that its client does not read, in bytes (Linux counts its own overhead in and so
#: doubles it). Left to itself it would grow to megabytes, all of which a reader that has gone silent is sent first.
SEND_BUFFER_BYTES = 128 << 10


class Listener:
    """A bound socket and its addresses.

    Attributes:
        url: what is shown: scheme, host as configured, real port.
        local_url: how processes of this machine reach it.
    """

    def __init__(self, bound: socket.socket, host: str, *, is_tls: bool) -> None:
        self._socket: socket.socket | None = bound
        self._descriptor = bound.fileno()
        port = bound.getsockname()[1]
        scheme = "https" if is_tls else "http"
        self.url = f"{scheme}://{_in_url(host)}:{port}"
        self.local_url = f"{scheme}://{_in_url(_reachable(host))}:{port}"

    @classmethod
    def bind(cls, host: str, port: int, *, is_tls: bool) -> Listener:
        """Bind and listen. ``port`` 0 takes a free one. Raises AddressUnavailable, naming who has the port."""
        bound: socket.socket | None = None
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            bound = socket.socket(family, kind, protocol)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # Connections inherit it from the listening socket.
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            bound.bind(address)
            bound.listen(BACKLOG)
        except OSError as error:
            if bound is not None:
                bound.close()
            raise _unavailable(host, port, error) from error
        return cls(bound, host, is_tls=is_tls)

    def detach(self) -> int:
        """Hand the descriptor over to the server, which closes it."""
        if self._socket is None:
            raise RuntimeError("the socket was handed over already")
        descriptor = self._socket.detach()
        self._socket = None
        return descriptor

    def keep_from_children(self) -> None:
        """Undo Hypercorn's making it inheritable: an agent that held it would keep the port after our end."""
        os.set_inheritable(self._descriptor, False)

    def close(self) -> None:
        """Close it unless it was handed over."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _reachable(host: str) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host or "127.0.0.1"
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "::1"
    return host


def _unavailable(host: str, port: int, error: OSError) -> AddressUnavailable:
    if error.errno == errno.EADDRINUSE:
        holder = _holder_of(port)
        who = f"process {holder[0]} ({holder[1]})" if holder else "another process"
        return AddressUnavailable(
            f"port {port} on {host} is in use by {who}; stop it, or choose another with --port (0 takes a free one)",
            slug="port_in_use",
            details={"port": port, "pid": holder[0] if holder else None},
        )
    if error.errno == errno.EACCES:
        reason = f"port {port} needs privileges; choose one above 1023 with --port"
    else:
        reason = f"cannot listen on {host}:{port}: {error.strerror or error}; see --host and --port"
    return AddressUnavailable(reason, details={"host": host, "port": port})


def _holder_of(port: int) -> tuple[int, str] | None:
    """Process id and name of who listens on ``port``; None when this user may not see it."""
    try:
        for connection in psutil.net_connections(kind="tcp"):
            if _listens(connection.status, connection.laddr, port) and connection.pid:
                return connection.pid, psutil.Process(connection.pid).name()
    except psutil.Error:
        pass  # macOS shows other users' sockets to root only
    return _search_own(port)


def _search_own(port: int) -> tuple[int, str] | None:
    for process in psutil.process_iter(["pid", "name"]):
        try:
            connections = process.net_connections(kind="tcp")
        except psutil.Error:
            continue
        if any(_listens(item.status, item.laddr, port) for item in connections):
            return process.pid, str(process.info["name"])
    return None


def _listens(status: str, address: tuple[Any, ...], port: int) -> bool:
    return status == psutil.CONN_LISTEN and len(address) > 1 and address[1] == port
