"""Identifiers: what names may look like, and new ids."""

from __future__ import annotations

import re
import secrets
import time

from orchestrator.errors import BadRequest

#: The one pattern of the contract for every name that reaches a path, a query or a log line.
IDENTIFIER_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_IDENTIFIER = re.compile(IDENTIFIER_PATTERN)
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def is_identifier(value: object) -> bool:
    """Whether ``value`` is a string of the contract's identifier form."""
    return isinstance(value, str) and _IDENTIFIER.fullmatch(value) is not None


def check_identifier(value: object, field: str) -> str:
    """Return ``value`` when it is an identifier. Raises BadRequest, naming ``field``."""
    if not isinstance(value, str) or _IDENTIFIER.fullmatch(value) is None:
        raise BadRequest(
            f"{field} must be 1 to 128 letters, digits, '.', '_' or '-', beginning with a letter or digit",
            details={"field": field},
        )
    return value


def new_id(prefix: str) -> str:
    """A new identifier ``<prefix>_<26 characters>`` that sorts by time (61-bit nanoseconds, 69 random bits).

    It looks like a ULID (github.com/ulid/spec: Crockford base 32, here in lower case); with nanoseconds instead of
    milliseconds, ids that one process makes one after the other keep their order.
    """
    value = (time.time_ns() << 69) | secrets.randbits(69)
    digits = []
    for _ in range(26):
        digits.append(_ALPHABET[value & 31])
        value >>= 5
    return f"{prefix}_{''.join(reversed(digits))}"
