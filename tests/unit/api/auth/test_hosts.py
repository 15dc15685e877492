"""Host and Origin."""

from __future__ import annotations

import pytest

from api.auth.hosts import HostCheck


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:3001", "127.0.0.1", "127.8.9.10:80", "[::1]", "[::1]:3001", "a.localhost", "localhost.:1"],
)
def test_loopback_is_ours(host: str) -> None:
    """The check must not lock out those it protects."""
    assert HostCheck().is_host_allowed(host.encode())


@pytest.mark.parametrize(
    "host",
    [
        "",
        ".",
        "evil.example",
        "127.0.0.1.evil.example",
        "0.0.0.0",
        "[::2]",
        "[::1",
        "::1:80",
        "localhost:80:80",
        "localhost:port",
        "localhost:123456",
        "user@localhost",
        "2130706433",
        "0x7f.1",
        "10.0.0.1",
        "local host",
    ],
)
def test_other_names_are_not(host: str) -> None:
    """DNS rebinding and odd spellings of addresses."""
    assert not HostCheck().is_host_allowed(host.encode())


def test_a_missing_host_is_not_ours() -> None:
    """Hypercorn hands such requests on."""
    assert not HostCheck().is_host_allowed(None)


def test_configured_names_are_ours() -> None:
    """`[server] allowed_hosts`, with any port; addresses with and without brackets."""
    check = HostCheck(["Sidecar.Example", "10.0.0.5", "[fd00::1]", " "])
    for host in (b"sidecar.example:3001", b"SIDECAR.example", b"10.0.0.5", b"[fd00::1]:1"):
        assert check.is_host_allowed(host)
    assert not check.is_host_allowed(b"")
    assert check.is_origin_allowed(b"https://sidecar.example")


@pytest.mark.parametrize("origin", ["http://localhost:5173", "https://127.0.0.1", "http://[::1]:3001"])
def test_local_pages_may_ask(origin: str) -> None:
    """The dashboard and local tools."""
    assert HostCheck().is_origin_allowed(origin.encode())


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "http://evil.example",
        "https://127.0.0.1.evil.example",
        "file://",
        "file://localhost",
        "http://localhost/path",
        "http://user@localhost",
        "http://localhost:x",
        "chrome-extension://localhost",
        "http://[::1",
        "//localhost",
    ],
)
def test_foreign_pages_may_not(origin: str) -> None:
    """A page may send requests though it cannot read the answers: publishing needs no reading."""
    assert not HostCheck().is_origin_allowed(origin.encode())


def test_a_flood_of_names_is_forgotten() -> None:
    """The memory of verdicts must not grow with what callers send."""
    check = HostCheck()
    for number in range(2000):
        check.is_host_allowed(f"h{number}.example".encode())
        check.is_origin_allowed(f"http://h{number}.example".encode())
    assert len(check._hosts) <= 256
    assert len(check._origins) <= 256
