"""TOML of any author: tomllib's time grows with the square of a key's parts, so that a long one takes hours."""

from __future__ import annotations

import tomllib

from orchestrator.context.models import JSON

#: No line of a manifest has so many dots; a key is on one line.
_MOST_DOTS = 300


def parse_toml(text: str) -> JSON:
    """The document. Raises ValueError when it is broken, or a line has more dots than keys have."""
    if any(line.count(".") > _MOST_DOTS for line in text.split("\n")):
        raise ValueError("a key of too many parts")
    return tomllib.loads(text)
