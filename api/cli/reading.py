"""What commands take from files, standard input and the command line, checked before it is sent."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from api.cli.failures import FAILED, USAGE, Failure

#: The API's own bound on a body, 10 MB; more is not even read.
MAX_INPUT_BYTES = 10_000_000


def read_text(source: str, what: str) -> str:
    """``source`` itself; for ``@FILE`` the file's text, for ``-`` standard input's."""
    if source == "-":
        data = sys.stdin.buffer.read(MAX_INPUT_BYTES + 1)
    elif source.startswith("@"):
        data = _read_file(source[1:], what)
    else:
        return source
    return _decode(data, what)


def read_object(source: str, what: str) -> dict[str, Any]:
    """A JSON object from text, ``@FILE`` or ``-``. Raises Failure (usage) with the place of a mistake."""
    try:
        value = json.loads(read_text(source, what))
    except (ValueError, RecursionError) as error:
        raise Failure(f"{what} is not JSON: {error}", USAGE) from error
    if not isinstance(value, dict):
        raise Failure(f'{what} must be a JSON object, such as {{"key": "value"}}', USAGE)
    return value


def read_pairs(pairs: Iterable[str], what: str) -> dict[str, str]:
    """``NAME=VALUE`` items as a mapping. Raises Failure (usage) for one without ``=``."""
    values: dict[str, str] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise Failure(f"{what} {pair!r} must be NAME=VALUE", USAGE)
        values[name] = value
    return values


def _read_file(name: str, what: str) -> bytes:
    try:
        with Path(name).open("rb") as file:
            return file.read(MAX_INPUT_BYTES + 1)
    except OSError as error:
        raise Failure(f"{what}: {name} cannot be read: {error.strerror}", FAILED) from error


def _decode(data: bytes, what: str) -> str:
    if len(data) > MAX_INPUT_BYTES:
        raise Failure(f"{what} is over {MAX_INPUT_BYTES} bytes", USAGE)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Failure(f"{what} is not UTF-8 (byte {error.start})", USAGE) from error
