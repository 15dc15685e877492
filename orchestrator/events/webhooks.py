"""Webhooks: signed posts of events to the targets that a project configured, and to nothing else.

The name is resolved once for each attempt, every address is judged, and the connection goes to the judged
address: a name that changes in between (DNS rebinding) reaches nothing new. Redirects are not followed.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import socket
import ssl
from urllib.parse import urlsplit

import msgspec

from orchestrator.clock import Clock
from orchestrator.events.bus import EventBus
from orchestrator.events.delivery import DeliveryFailed
from orchestrator.events.mirror import mirror_line
from orchestrator.events.rules import RuleBook, Webhook
from orchestrator.models import Delivery

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

SIGNATURE_HEADER = "X-Sidecar-Signature"
#: Bytes of an answer that are read; only its status matters.
_MAX_ANSWER = 16384
#: Answers that ask to come again (RFC 9110, RFC 6585); other 4xx will not change by themselves.
_RETRY_STATUS = frozenset({408, 425, 429})
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class Target(msgspec.Struct, frozen=True):
    """A webhook's URL in parts."""

    scheme: str
    host: str
    port: int
    path: str


class WebhookSender:
    """Delivers to targets ``webhook:<name>``; a handler of the Courier.

    Args:
        tls: used for https; by default the system's trust store.
    """

    def __init__(self, bus: EventBus, rules: RuleBook, clock: Clock, *, tls: ssl.SSLContext | None = None) -> None:
        self._bus = bus
        self._rules = rules
        self._clock = clock
        self._tls = tls

    async def deliver(self, delivery: Delivery) -> None:
        """Post the event once. Raises DeliveryFailed."""
        name = delivery.target.removeprefix("webhook:")
        webhook = self._rules.rules(delivery.project_id).webhooks.get(name)
        if webhook is None:
            raise DeliveryFailed("no_webhook", f"the project has no webhook {name} any more", is_permanent=True)
        target = parse_target(webhook.url)
        body = mirror_line(delivery.project_id, self._bus.encoded(delivery.event)).rstrip(b"\n")
        headers = {
            "Host": _host_header(target),
            "User-Agent": "orchestration-sidecar",
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "X-Sidecar-Event": delivery.event.event_type,
            "X-Sidecar-Delivery": hashlib.sha256(delivery.id.encode()).hexdigest()[:32],
            SIGNATURE_HEADER: sign(webhook.secret, int(self._clock.now()), body),
            "Connection": "close",
        }
        head = f"POST {target.path} HTTP/1.1\r\n" + "".join(f"{key}: {value}\r\n" for key, value in headers.items())
        try:
            async with asyncio.timeout(webhook.timeout_s):
                address = await self._resolve(target, webhook)
                status = await self._post(target, address, head.encode("latin-1") + b"\r\n" + body)
        except TimeoutError as error:
            raise DeliveryFailed("timeout", f"no answer within {webhook.timeout_s} s") from error
        except (OSError, ssl.SSLError, UnicodeError) as error:
            raise DeliveryFailed("connection", str(error) or type(error).__name__) from error
        if not 200 <= status < 300:
            is_permanent = 300 <= status < 500 and status not in _RETRY_STATUS
            raise DeliveryFailed("status", f"the target answered {status}", is_permanent=is_permanent)

    async def _resolve(self, target: Target, webhook: Webhook) -> Address:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        addresses = [ipaddress.ip_address(str(item[4][0]).partition("%")[0]) for item in found]
        for address in addresses:
            if not is_allowed(address, webhook.allow):
                raise DeliveryFailed(
                    "denied",
                    f"{target.host} resolves to {address}, which is not public; list it in the webhook's allow",
                    is_permanent=True,
                )
        if not addresses:
            raise DeliveryFailed("connection", f"{target.host} has no address")
        return addresses[0]

    async def _post(self, target: Target, address: Address, request: bytes) -> int:
        tls: ssl.SSLContext | None = None
        if target.scheme == "https":
            tls = self._tls or await asyncio.to_thread(ssl.create_default_context)
        reader, writer = await asyncio.open_connection(
            str(address), target.port, ssl=tls, server_hostname=target.host if tls else None, limit=_MAX_ANSWER
        )
        try:
            writer.write(request)
            await writer.drain()
            line = await reader.readline()
        except ValueError as error:
            raise DeliveryFailed("protocol", "the answer's first line is too long") from error
        finally:
            # The answer is known; a close would wait for how the other side ends the connection.
            writer.transport.abort()
        parts = line.split()
        if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or not (parts[1].isdigit() and len(parts[1]) == 3):
            raise DeliveryFailed("protocol", "the target does not answer with HTTP")
        return int(parts[1])


def sign(secret: str, timestamp: int, body: bytes) -> str:
    """``t=<unix seconds>,v1=<hex HMAC-SHA256 of "<t>.<body>">``: the time is signed, so old posts can be refused."""
    digest = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={timestamp},v1={digest}"


def parse_target(url: str) -> Target:
    """The parts of a webhook's URL. Raises DeliveryFailed for one that cannot be used."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise DeliveryFailed("bad_url", str(error), is_permanent=True) from error
    is_printable = url.isascii() and url.isprintable() and " " not in url
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None or not is_printable:
        raise DeliveryFailed("bad_url", "a webhook's url is http(s)://host[:port]/path", is_permanent=True)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80), path)


def is_allowed(address: Address, allow: tuple[str, ...]) -> bool:
    """Whether a webhook may reach ``address``: public, or listed by itself or by its network."""
    for entry in allow:
        try:
            network = ipaddress.ip_network(entry, strict=False)
        except ValueError:
            continue
        if address.version == network.version and address in network:
            return True
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_allowed(inner, allow)
    return address.is_global and not address.is_multicast


def _host_header(target: Target) -> str:
    host = f"[{target.host}]" if ":" in target.host else target.host
    default = 443 if target.scheme == "https" else 80
    return host if target.port == default else f"{host}:{target.port}"
