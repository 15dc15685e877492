"""Which names a request may use for this server, so that no web page reaches it by a name of its own.

Against DNS rebinding the ``Host`` header, and against foreign pages the ``Origin`` header, must name a loopback
address or a configured host.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

#: Headers whose verdict is remembered; a flood of different ones just empties the table.
_REMEMBERED = 256
_PORT = re.compile(r":[0-9]{1,5}")
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,252})")


class HostCheck:
    """Decides on ``Host`` and ``Origin`` headers.

    Args:
        allowed: further names or addresses, without port (``[server] allowed_hosts``, the bound address).
    """

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        self._allowed = {name.strip().strip("[]").rstrip(".").lower() for name in allowed if name.strip()}
        self._hosts: dict[bytes, bool] = {}
        self._origins: dict[bytes, bool] = {}

    def is_host_allowed(self, header: bytes | None) -> bool:
        """Whether a ``Host`` header names this server; a missing one does not."""
        if header is None:
            return False
        known = self._hosts.get(header)
        if known is None:
            known = self._remember(self._hosts, header, self._check_host(header))
        return known

    def is_origin_allowed(self, header: bytes) -> bool:
        """Whether an ``Origin`` header is a page of this machine or of a configured host; ``null`` is not."""
        known = self._origins.get(header)
        if known is None:
            known = self._remember(self._origins, header, self._check_origin(header))
        return known

    @staticmethod
    def _remember(table: dict[bytes, bool], header: bytes, verdict: bool) -> bool:
        if len(table) >= _REMEMBERED:
            table.clear()
        table[header] = verdict
        return verdict

    def _check_host(self, header: bytes) -> bool:
        text = header.decode("latin-1").strip().lower()
        if text.startswith("["):
            name, bracket, rest = text[1:].partition("]")
            if not bracket:
                return False
        else:
            name, colon, port = text.partition(":")
            rest = colon + port
        if rest and _PORT.fullmatch(rest) is None:
            return False
        return self._is_ours(name)

    def _check_origin(self, header: bytes) -> bool:
        text = header.decode("latin-1").strip()
        try:
            parts = urlsplit(text)
            name = parts.hostname or ""
            parts.port  # noqa: B018 - raises ValueError when it is not a number
        except ValueError:
            return False
        is_bare = not (parts.path or parts.query or parts.fragment or parts.username or parts.password)
        return parts.scheme in ("http", "https") and is_bare and self._is_ours(name.lower())

    def _is_ours(self, name: str) -> bool:
        name = name.rstrip(".")
        if name == "localhost" or name.endswith(".localhost") or name in self._allowed:
            return bool(name)
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False
