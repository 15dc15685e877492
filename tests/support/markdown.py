"""Reading the project's Markdown: pages, links, headings, code blocks."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(
    r"^(?P<fence>```+)(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=fence)[ \t]*$", re.MULTILINE | re.DOTALL
)
_LINK = re.compile(r"(?<!\\)\[(?:[^\]\\]|\\.)*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
_NOT_RUN = re.compile(r"<!-- not run: .+ -->\s*\Z")


class Block(NamedTuple):
    """A fenced block; ``is_run`` is False when a comment before it says why not."""

    language: str
    text: str
    line: int
    is_run: bool


@cache
def pages() -> tuple[Path, ...]:
    """Every Markdown page of the project that is documentation."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    for directory in ("examples", "perf", "profiles"):
        found += (ROOT / directory).glob("README.md")
    return tuple(sorted(found))


def name_of(page: Path) -> str:
    """The page's path from the root."""
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[Block]:
    """The fenced code blocks of a page."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            found["language"],
            found["text"],
            text.count("\n", 0, found.start()) + 1,
            _NOT_RUN.search(text[: found.start()]) is None,
        )
        for found in _FENCE.finditer(text)
    ]


def links(page: Path) -> list[str]:
    """The targets of a page's links and images, those in code left out."""
    text = re.sub(r"`[^`\n]*`", "", _FENCE.sub("", page.read_text(encoding="utf-8")))
    return _LINK.findall(text)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#{1,6} +(.+?) *#*$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
