"""Markdown and reStructuredText: links, headings, code blocks, and the paths that they name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import msgspec

from orchestrator.analysts.lexical import LineIndex

_FENCE = re.compile(
    r"^[ \t>]*(```+|~~~+)[ \t]*([\w+-]*)[^\n]*\n(.*?)(?:^[ \t>]*\1[`~]*[ \t]*$|\Z)", re.MULTILINE | re.DOTALL
)
_INLINE_CODE = re.compile(r"(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_LINK = re.compile(
    r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(\s*<?([^()\s<>]*(?:\([^()\s]*\)[^()\s<>]*)*)>?(?:\s+[\"'(][^)]*)?\s*\)"
)
_REFERENCE = re.compile(r"^[ ]{0,3}\[[^\]\n]+\]:\s*<?(\S+?)>?(?:\s|$)", re.MULTILINE)
_HTML_LINK = re.compile(r"<(?:a|img)\b[^>]*?\b(?:href|src)=[\"']([^\"']+)[\"']", re.IGNORECASE)
_HTML_ANCHOR = re.compile(r"<\w+[^>]*?\b(?:id|name)=[\"']([^\"']+)[\"']", re.IGNORECASE)
_HEADING = re.compile(r"^[ ]{0,3}(#{1,6})[ \t]+(.+?)(?:[ \t]+#+)?[ \t]*$|^([^\n]+)\n(=+|-+)[ \t]*$", re.MULTILINE)
_HTML_HEADING = re.compile(r"<h[1-6]\b[^>]*>(.*?)</h[1-6]>", re.IGNORECASE | re.DOTALL)
_EXPLICIT_ID = re.compile(r"\{#([\w-]+)[^}]*\}\s*$")
_RST_LINK = re.compile(
    r"`[^`<]*<(?!https?:|mailto:|ftp:)([^`>\s]+)>`__?|^\.\. (?:image|figure|literalinclude|include):: (\S+)",
    re.MULTILINE,
)
_NOT_SLUG = re.compile(r"[^\w\- ]")


class Link(msgspec.Struct, frozen=True):
    """One link: ``target`` as written, 1-based ``line``."""

    target: str
    line: int


class CodeBlock(msgspec.Struct, frozen=True):
    """One fenced block: its ``language`` tag in lower case, ``text`` and the 1-based ``line`` where the text begins."""

    language: str
    text: str
    line: int


def without_code(text: str) -> str:
    """``text`` with code blocks, inline code and comments blanked, lines kept."""

    def blanked(match: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", match[0])

    return _INLINE_CODE.sub(blanked, _COMMENT.sub(blanked, _FENCE.sub(blanked, text)))


def links(text: str) -> list[Link]:
    """Links, images, reference definitions and HTML links of a Markdown text, code aside."""
    clean = without_code(text)
    index = LineIndex(clean)
    found = [Link(match[3], index.line(match.start(3))) for match in _LINK.finditer(clean)]
    found += [Link(match[1], index.line(match.start(1))) for match in _REFERENCE.finditer(clean)
              if not match[0].lstrip().startswith("[^")]  # fmt: skip
    found += [Link(match[1], index.line(match.start(1))) for match in _HTML_LINK.finditer(clean)]
    return [link for link in found if link.target]


def rst_links(text: str) -> list[Link]:
    """Relative targets of reStructuredText links and of directives that name files."""
    index = LineIndex(text)
    return [Link(match[1] or match[2], index.line(match.start())) for match in _RST_LINK.finditer(text)]


def anchors(text: str) -> set[str]:
    """The anchors that GitHub makes of a Markdown text: slugs of headings (repeated ones numbered) and explicit ids."""
    body = _FENCE.sub("", text)
    found: set[str] = set(_HTML_ANCHOR.findall(body))
    found |= {slug_of(re.sub(r"<[^>]+>", "", title)) for title in _HTML_HEADING.findall(body)}
    counts: Counter[str] = Counter()
    for match in _HEADING.finditer(body):
        title = match[2] or match[3] or ""
        explicit = _EXPLICIT_ID.search(title)
        if explicit:
            found.add(explicit[1])
            title = title[: explicit.start()]
        slug = slug_of(title)
        found.add(slug if not counts[slug] else f"{slug}-{counts[slug]}")
        counts[slug] += 1
    return found


def slug_of(title: str) -> str:
    """The anchor of a heading: lower case, punctuation dropped, spaces as hyphens."""
    plain = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "").replace("*", "")
    return _NOT_SLUG.sub("", plain.strip().lower()).replace(" ", "-")


def headings(text: str) -> list[str]:
    """The titles of a Markdown text, in order."""
    return [(match[2] or match[3]).strip() for match in _HEADING.finditer(_FENCE.sub("", text))]


def code_blocks(text: str) -> list[CodeBlock]:
    """The fenced code blocks, in order."""
    index = LineIndex(text)
    return [CodeBlock(match[2].lower(), match[3], index.line(match.start(3))) for match in _FENCE.finditer(text)]


def inline_code(text: str) -> Iterator[tuple[str, int]]:
    """Inline code spans with their lines."""
    clean = _FENCE.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)
    index = LineIndex(clean)
    for match in _INLINE_CODE.finditer(clean):
        yield match[2].strip(), index.line(match.start())
