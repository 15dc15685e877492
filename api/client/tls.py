"""TLS of the clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl


def tls_context(url: str, certificate: str | None) -> ssl.SSLContext | None:
    """How to reach ``url``: None for plain HTTP; with ``certificate`` (PEM) only its owner is accepted.

    Raises ValueError, ssl.SSLError for a certificate that is none.
    """
    if not url.startswith("https://"):
        return None
    # Imported late: most sidecars are reached without TLS, and an agent pays for each import.
    if certificate is not None:
        from orchestrator.trust import pinned_context

        return pinned_context(certificate)
    import ssl

    return ssl.create_default_context()
