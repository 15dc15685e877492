"""The agent of ``bench_pool.py``'s row ``python``, preloaded by the warm parent."""

from __future__ import annotations

from agentpool.agent import Agent


def main(_agent: Agent) -> dict[str, str]:
    """Do nothing well."""
    return {"status": "success"}
