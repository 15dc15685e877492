"""The reference page of the command line."""

from __future__ import annotations

from pathlib import Path

from api.cli.reference import reference
from tests.support.commands import all_commands

PAGE = Path(__file__).resolve().parents[4] / "docs" / "reference" / "cli.md"


def test_page_is_what_the_commands_say() -> None:
    """Prevents a reference that has fallen behind: `python -m api.cli.reference > docs/reference/cli.md`."""
    assert PAGE.read_text(encoding="utf-8") == reference()


def test_page_names_every_command() -> None:
    """Prevents a command that the page's own making leaves out."""
    text = reference()
    assert [name for name in all_commands() if f"\n### orchestrator {name}\n" not in text] == []
