"""What ``context get`` says of a context."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from api.cli.contexts import _render_facts


@pytest.mark.parametrize("is_partial", [True, False])
def test_a_provisional_context_is_told(is_partial: bool) -> None:
    """A person took a provisional context for all that there is."""
    console = Console(file=io.StringIO(), width=120)
    document = {
        "issue_id": "bug-17",
        "agent_type": "python-specialist",
        "context": {"metadata": {"project_type": "python"}},
        "file_count": 3,
        "total_size_bytes": 100,
        "truncated": False,
        "cache_hit": False,
        **({"partial": True} if is_partial else {}),
    }
    _render_facts(console, document)
    assert isinstance(console.file, io.StringIO)
    assert ("provisional" in console.file.getvalue()) is is_partial
