"""Trust in one certificate: how processes of this machine know a sidecar whose certificate no authority signed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


def own_certificate(chain: str) -> str:
    """The first certificate of a PEM chain, which is the server's own (RFC 8446, 4.4.2). Raises ValueError."""
    begin, end = chain.find(_BEGIN), chain.find(_END)
    if begin < 0 or end < begin:
        raise ValueError("no certificate in PEM form")
    return chain[begin : end + len(_END)] + "\n"


def pinned_context(certificate: str) -> ssl.SSLContext:
    """A client's TLS context that accepts exactly the server whose ``certificate`` (PEM) this is.

    The name is not compared: a certificate for ``sidecar.example.org`` also serves those who reach the same sidecar
    by the loopback address, and no other certificate is accepted. Raises ValueError, ssl.SSLError.
    """
    import ssl  # deferred: a client without TLS need not wait for it

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    # Without it OpenSSL wants the authority at the chain's end, which is not given here.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=own_certificate(certificate))
    return context
