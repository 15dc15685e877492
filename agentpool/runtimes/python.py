"""Warm Python: ``module:function`` in a child forked from a preloaded process, speaking JSON lines."""

from __future__ import annotations

from agentpool.runtimes.jsonl import JsonLinesRuntime


class PythonRuntime(JsonLinesRuntime):
    """As ``jsonl``, without the start of an interpreter; see ``agentpool.zygote``."""

    name = "python"
    is_warm = True
