"""The accessibility and front-end checker: what in HTML and components shuts people out or slows pages down."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from agentpool.agent import Agent
from orchestrator.analysts.findings import Finding, Severity, plural
from orchestrator.analysts.languages import is_fixture
from orchestrator.analysts.lexical import LineIndex
from orchestrator.analysts.tree import SourceFile
from orchestrator.analysts.workbench import Workbench, conduct

_MARKUP: Final = frozenset({"HTML", "Vue", "Svelte"})
_COMPONENT: Final = re.compile(r"\.(jsx|tsx|vue|svelte)$")
_COMMENT = re.compile(r"<!--.*?-->|\{/\*.*?\*/\}", re.DOTALL)
#: Linear in the text: what cannot be told apart by its first character is not tried twice.
_TAG = re.compile(
    r"<(?P<name>[A-Za-z][\w.-]{0,60})(?P<attributes>(?:[^<>\"'{}]|\"[^\"]{0,2000}\"|'[^']{0,2000}'|\{[^{}]{0,2000}\}){0,200})>"
)
_CONTROLS: Final = frozenset({"input", "select", "textarea"})
_NAMED = re.compile(r"\b(aria-label|aria-labelledby|title|alt|id|v-bind|:?aria-[\w-]+)\b|\{\.\.\.|placeholder")
_CLICK = re.compile(r"\b(onClick|onclick|@click|v-on:click|on:click)\b")
_KEYS = re.compile(r"\b(onKey\w+|onkey\w+|@key\w+|on:key\w+|role|tabIndex|tabindex)\b")
_CONTRAST = re.compile(r"outline\s*:\s*(?:none|0)\s*[;}]")


def run(agent: Agent) -> dict[str, Any]:
    """Check pages and components against WCAG 2.2's machine-checkable parts, and pages for what delays them."""
    return conduct(agent, lambda bench: FrontEnd(bench).work())


class FrontEnd:
    """One look at one project's pages and components."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._report = bench.report
        self._files: list[SourceFile] = []

    def work(self) -> None:
        """Markup, then styles."""
        self._files = [
            file
            for file in self._bench.tree.files
            if (file.language in _MARKUP or _COMPONENT.search(file.path))
            and file.role not in {"vendored", "generated", "test"}
            and not is_fixture(file.path)
        ]
        self._bench.step(
            f"checking {plural(len(self._files), 'page or component', 'pages and components')}", 20, self._check
        )
        self._bench.step("checking styles", 80, self._check_styles)
        self._conclude()

    def _check(self) -> None:
        for file in self._files:
            if self._bench.deadline.is_over:
                self._report.warnings.append("not all pages were checked: time was up")
                break
            text = self._bench.tree.text(file.path) or ""
            self._report.extend(check_markup(file.path, text))
            if file.language == "HTML" and re.search(r"<html\b", text, re.IGNORECASE) and "{% extends" not in text:
                self._report.extend(_check_page(file.path, text))

    def _check_styles(self) -> None:
        for file in self._bench.tree.of({"CSS", "SCSS", "Less"}):
            if file.role in {"vendored", "generated", "test"}:
                continue
            text = self._bench.tree.text(file.path) or ""
            match = _CONTRAST.search(text)
            if match and ":focus-visible" not in text:
                self._report.add(
                    "medium",
                    "focus-hidden",
                    "outline: none hides where the keyboard is.",
                    path=file.path,
                    line=text.count("\n", 0, match.start()) + 1,
                    suggestion="Give :focus-visible a style of its own.",
                )

    def _conclude(self) -> None:
        report = self._report
        kinds = Counter(finding.kind for finding in report.ranked())
        report.metrics |= {"pages_and_components": len(self._files), "kinds": dict(kinds)}
        if not self._files:
            report.summary = "No pages or components in this project: nothing to check."
            return
        told = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(4)) or "nothing found"
        report.summary = f"{plural(len(self._files), 'page or component', 'pages and components')} checked: {told}."
        report.next_steps.extend(f"Mend {one.kind} in {one.place}" for one in report.ranked()[:5])


#: Kind -> severity, message (``{name}`` is the tag; success criteria of WCAG 2.2 in brackets), suggestion.
_FAULTS: dict[str, tuple[Severity, str, str]] = {
    "image-without-alt": (
        "medium",
        "Image without alternative text [1.1.1].",
        'Add alt, empty (alt="") for decoration.',
    ),
    "control-without-label": (
        "medium",
        "<{name}> without a label [1.3.1, 4.1.2].",
        "Add a label for its id, or aria-label.",
    ),
    "click-without-keyboard": ("low", "<{name}> reacts to clicks, not to keys [2.1.1].", "Use a button."),
    "positive-tabindex": (
        "low",
        "A positive tabindex breaks the order of focus [2.4.3].",
        "Use 0 and order the document.",
    ),
    "blank-without-rel": (
        "info",
        "target=_blank without rel tells older browsers' pages who opened them.",
        'Add rel="noopener".',
    ),
    "autoplay": ("low", "Sound starts by itself [1.4.2].", "Mute it or let the user start it."),
}


def check_markup(path: str, source: str) -> Iterator[Finding]:
    """Findings of one page or component, in the order of the text."""
    text = _COMMENT.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), source)
    index = LineIndex(text)
    labelled = set(re.findall(r"\b(?:for|htmlFor)=[\"']([^\"']+)[\"']", text))
    for match in _TAG.finditer(text):
        kind = _fault(text, match, labelled)
        if kind is not None:
            severity, message, suggestion = _FAULTS[kind]
            line = index.line(match.start())
            yield Finding(severity, kind, path, line, message.replace("{name}", match["name"]), suggestion)


def _fault(text: str, match: re.Match[str], labelled: set[str]) -> str | None:
    """What is wrong with one tag, as a key of ``_FAULTS``; None when nothing is."""
    name, attributes = match["name"], match["attributes"] or ""
    if name == "img" and not re.search(r"\balt\b|\{\.\.\.|aria-hidden|role=", attributes):
        return "image-without-alt"
    if name in _CONTROLS and not re.search(r"type=[\"'](hidden|submit|button|reset|image)", attributes):
        return None if _is_labelled(text, match.start(), attributes, labelled) else "control-without-label"
    if name in {"div", "span", "li", "td"} and _CLICK.search(attributes) and not _KEYS.search(attributes):
        return "click-without-keyboard"
    if re.search(r"\btab[iI]ndex=[\"'{]+[1-9]", attributes):
        return "positive-tabindex"
    if name == "a" and re.search(r"target=[\"']_blank", attributes) and "rel=" not in attributes:
        return "blank-without-rel"
    if name == "video" and re.search(r"\bautoplay|autoPlay", attributes) and "muted" not in attributes:
        return "autoplay"
    return None


def _is_labelled(text: str, at: int, attributes: str, labelled: set[str]) -> bool:
    own = re.search(r"\bid=[\"']([^\"']+)[\"']", attributes)
    if text.rfind("<label", 0, at) > text.rfind("</label", 0, at) or (own is not None and own[1] in labelled):
        return True
    return re.search(r"aria-label|title=|\{\.\.\.|:id=|id=\{|v-bind", attributes) is not None


def _check_page(path: str, text: str) -> Iterator[Finding]:
    head = text[: text.lower().find("</head>") if "</head>" in text.lower() else 5000]
    if not re.search(r"<html\b[^>]*\blang=", text, re.IGNORECASE):
        yield Finding(
            "medium", "no-language", path, 1, "The page does not say its language [3.1.1].", "Add lang to <html>."
        )
    if not re.search(r"<title\b", head, re.IGNORECASE):
        yield Finding("medium", "no-title", path, 1, "The page has no title [2.4.2].", "Add <title>.")
    if not re.search(r"name=[\"']viewport", head, re.IGNORECASE):
        yield Finding(
            "low", "no-viewport", path, 1, "No viewport: phones show the page tiny.", 'Add <meta name="viewport">.'
        )
    zoom = re.search(r"user-scalable\s*=\s*no|maximum-scale\s*=\s*1(?:\.0)?\b", head)
    if zoom:
        yield Finding(
            "medium",
            "zoom-blocked",
            path,
            text.count("\n", 0, zoom.start()) + 1,
            "Zooming is switched off [1.4.4].",
            "Remove user-scalable=no and maximum-scale.",
        )
    scripts = [
        match
        for match in re.finditer(r"<script\b([^>]*\bsrc=[^>]*)>", head, re.IGNORECASE)
        if not re.search(r"\b(async|defer|module)\b", match[1])
    ]
    if scripts:
        yield Finding(
            "low",
            "blocking-script",
            path,
            text.count("\n", 0, scripts[0].start()) + 1,
            f"{plural(len(scripts), 'script')} in the head delay the first paint.",
            "Add defer.",
        )
