"""A sidecar with TLS whose certificate no authority signed: who reaches it, and who does not."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from api.client import AsyncClient, Client, SidecarUnavailable
from tests.support.certificates import write_pair
from tests.support.repo import sample_repository
from tests.support.server import Server

#: What an agent of the user's own runs: the client finds address, token and certificate in its environment.
AGENT = """
import json
from api.client import AgentClient
with AgentClient() as client:
    client.store_result("tls-1", {"status": "success", "summary": "stored over TLS"})
print(json.dumps({"type": "result", "result": {"status": "success", "summary": client.url}}))
"""


@pytest.fixture
def tls_server(tmp_path: Path) -> Iterator[tuple[Server, Path]]:
    """A sidecar whose certificate names only a public host, and that certificate's file."""
    certificate, key = write_pair(tmp_path / "tls", "sidecar.example.org")
    arguments = ("--certificate", str(certificate), "--private-key", str(key))
    with Server(tmp_path / "storage", {"sample": sample_repository(tmp_path / "p")}, arguments=arguments) as server:
        yield server, certificate


def test_command_line_and_agents_reach_it_without_further_settings(tls_server: tuple[Server, Path]) -> None:
    """With TLS on, the command line and every agent failed to verify a certificate that their own sidecar shows."""
    server, _ = tls_server
    assert server.url.startswith("https://")
    status = server.cli("status", "--format", "json")
    assert status.returncode == 0, status.stderr
    command = shlex.join([sys.executable, "-c", AGENT])
    spawned = server.cli(
        *("agent", "spawn", "python-specialist", "say it", "--issue", "tls-1", "--wait", "--command", command)
    )
    assert spawned.returncode == 0, spawned.stderr + spawned.stdout
    stored = server.cli("results", "list", "--issue", "tls-1", "--format", "json")
    assert "stored over TLS" in stored.stdout, stored.stdout + stored.stderr
    analyst = server.cli("agent", "spawn", "security-auditor", "look around", "--issue", "tls-1", "--wait")
    assert analyst.returncode == 0, analyst.stderr + analyst.stdout


def test_only_its_own_certificate_is_accepted(tls_server: tuple[Server, Path], tmp_path: Path) -> None:
    """A pinned certificate that let any other one through, or a client that took an unknown one, would be no TLS."""
    server, certificate = tls_server
    pinned = certificate.read_text("utf-8")
    other = write_pair(tmp_path / "other", "127.0.0.1")[0].read_text("utf-8")
    with Client(server.url, certificate=pinned) as client:
        assert client.health()["status"] == "healthy"
    assert asyncio.run(_health(server.url, pinned)) == "healthy"
    for stranger in (None, other):
        with (
            Client(server.url, certificate=stranger) as client,
            pytest.raises(SidecarUnavailable, match="SSL_CERT_FILE"),
        ):
            client.health()
        with pytest.raises(SidecarUnavailable, match="SSL_CERT_FILE"):
            asyncio.run(_health(server.url, stranger))


async def _health(url: str, certificate: str | None) -> str:
    async with AsyncClient(url, certificate=certificate) as client:
        return str((await client.health())["status"])


def test_plain_http_gets_no_answer(tls_server: tuple[Server, Path]) -> None:
    """An answer in the clear would show what was sent by mistake to whoever listens."""
    server, _ = tls_server
    with httpx.Client() as client, pytest.raises(httpx.TransportError):
        client.get(server.url.replace("https://", "http://") + "/health")


def test_what_is_told_of_the_running_sidecar_names_its_certificate(tls_server: tuple[Server, Path]) -> None:
    """Only the certificate may be told: the key stays where it is."""
    server, certificate = tls_server
    document = json.loads((server.storage / "sidecar.json").read_text())
    assert certificate.read_text("utf-8").strip().endswith("\n" + document["certificate"].strip())
    assert "PRIVATE" not in document["certificate"]
