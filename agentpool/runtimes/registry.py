"""Runtimes by name."""

from __future__ import annotations

from agentpool.errors import UnknownRuntime
from agentpool.runtimes.base import Runtime
from agentpool.runtimes.jsonl import JsonLinesRuntime
from agentpool.runtimes.python import PythonRuntime
from agentpool.runtimes.text import TextRuntime

RUNTIMES: dict[str, type[Runtime]] = {
    "jsonl": JsonLinesRuntime,
    "python": PythonRuntime,
    "text": TextRuntime,
}


def runtime_names() -> tuple[str, ...]:
    """All names, sorted."""
    return tuple(sorted(RUNTIMES))


def get_runtime(name: str) -> Runtime:
    """A runtime. Raises UnknownRuntime, which names those that there are."""
    try:
        return RUNTIMES[name]()
    except KeyError:
        raise UnknownRuntime(name, runtime_names()) from None
