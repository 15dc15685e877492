"""Links that lead somewhere, pages that can be found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.markdown import ROOT, anchors, links, name_of, pages


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    """A moved file, a renamed heading."""
    broken = []
    for link in links(page):
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        place = (page.parent / target).resolve() if target else page
        if not place.exists() or not place.is_relative_to(ROOT):
            broken.append(link)
        elif anchor and place.suffix == ".md" and anchor not in anchors(place):
            broken.append(f"{link} (no such heading)")
    assert broken == []


def test_every_page_can_be_found_from_the_readme() -> None:
    """A page that nothing links to is a page that nobody reads."""
    reached: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        for link in links(page):
            target = (page.parent / link.partition("#")[0]).resolve()
            if not re.match(r"[a-z]+:", link) and target.is_file():
                waiting.append(target)
    assert {name_of(page) for page in pages()} - {name_of(page) for page in reached} == set()


def test_links_to_the_web_are_secure() -> None:
    """A page about tokens should not send its reader over plain HTTP."""
    plain = {
        name_of(page): found for page in pages() if (found := [li for li in links(page) if li.startswith("http:")])
    }
    assert plain == {}
