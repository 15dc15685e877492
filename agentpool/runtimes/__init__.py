"""Ways to run an agent: how to start it and how to read its pipes."""

from agentpool.runtimes.base import Invocation, LineParser, Record, Runtime, Verdict
from agentpool.runtimes.registry import get_runtime, runtime_names

__all__ = ["Invocation", "LineParser", "Record", "Runtime", "Verdict", "get_runtime", "runtime_names"]
