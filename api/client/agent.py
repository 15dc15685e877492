"""An agent's client: made from the environment that the sidecar prepares, standard library only.

Its token is renewed in time, and its results are kept on disk until the sidecar has them. For the pipes
(progress, events and results on stdout) see ``agentpool.agent.Agent``; this is the HTTP side.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from api.client import calls, types
from api.client.buffer import ResultBuffer
from api.client.errors import APIError, ClientError
from api.client.request import Request, Retry
from api.client.sync import Client, T

#: The sidecar renews tokens in the last 300 s of their life only; a minute of that is left for trying again.
RENEW_BEFORE_S = 240.0


class AgentClient(Client):
    """The client of one agent; ``id``, ``type``, ``issue_id`` and ``project_id`` say which.

    Args:
        environ: where the sidecar's variables are read from; ``os.environ`` by default.
        buffer: where results wait for the sidecar; by default ``outbox`` beside the agent's context file, else
            in the working directory.
        retry: how often to try again.

    Raises KeyError with the variable's name when the environment was not made by a sidecar.
    """

    def __init__(
        self,
        environ: Mapping[str, str] | None = None,
        *,
        buffer: ResultBuffer | None = None,
        retry: Retry | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        env = os.environ if environ is None else environ
        self.id = env.get("AGENT_ID", "")
        self.type = env.get("AGENT_TYPE", "")
        self.issue_id = env.get("ISSUE_ID", "")
        self.project_id = env.get("PROJECT_ID", "")
        self._jwt = env["JWT_TOKEN"]
        self._expires_at = expiry(self._jwt)
        self._now = now
        self._renewing = threading.Lock()
        home = Path(env["AGENT_CONTEXT_FILE"]).parent if env.get("AGENT_CONTEXT_FILE") else Path()
        self.buffer = buffer or ResultBuffer(home / "outbox")
        pinned = env.get("SIDECAR_CERTIFICATE")
        certificate = Path(pinned).read_text(encoding="ascii") if pinned else None
        super().__init__(env["SIDECAR_URL"], lambda: self._jwt, retry=retry, certificate=certificate)

    def send(self, request: Request[T]) -> T:
        """As ``Client.send``, with the token renewed first when its end is near."""
        self._renew()
        return super().send(request)

    def deliver(self, result: Mapping[str, Any]) -> types.StoredResult | None:
        """Give the outcome: it is kept on disk first, then sent with all that waited before it.

        Returns the sidecar's answer, or None while the sidecar is away (``buffer.flush(client)`` tries again).
        Raises APIError when the sidecar refused the result itself; it then lies in ``outbox/refused``.
        """
        path = self.buffer.put(self.issue_id, result, agent_id=self.id, agent_type=self.type)
        flushed = self.buffer.flush(self)
        if any(refused.name == path.name for refused in flushed.refused):
            reason = self.buffer.directory / "refused" / f"{path.stem}.reason"
            raise APIError("REQ_001", reason.read_text(encoding="utf-8").strip(), 400)
        return None if path.exists() else (flushed.stored[-1] if flushed.stored else None)

    def _renew(self) -> None:
        if self._expires_at is None or self._now() < self._expires_at - RENEW_BEFORE_S:
            return
        with self._renewing:
            if self._now() < self._expires_at - RENEW_BEFORE_S:
                return  # another thread has done it
            try:
                token = super().send(calls.refresh_token())
            except ClientError:
                # The old one may still be good; if not, the request itself says what is wrong.
                return
            self._jwt = token
            self._expires_at = expiry(token)


def expiry(token: str) -> float | None:
    """The ``exp`` of a JWT in seconds since the epoch (RFC 7519, 4.1.4), unverified; None when there is none."""
    try:
        middle = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
        return float(claims["exp"])
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error):
        return None
