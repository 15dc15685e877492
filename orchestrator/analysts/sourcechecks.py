"""Mistakes in languages other than Python that can be seen in the text alone, as data: one row a rule."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from orchestrator.analysts.findings import Finding, Severity
from orchestrator.analysts.languages import Role
from orchestrator.analysts.lexical import LineIndex, blank, without_rust_tests

_SCRIPT: Final = frozenset({"JavaScript", "TypeScript", "Vue", "Svelte"})
_SOURCE: Final = frozenset({"source"})
_BOTH: Final = frozenset({"source", "test", "tooling"})
CONFLICT = re.compile(r"^(<{7} |>{7} |\|{7} )", re.MULTILINE)


class Rule(msgspec.Struct, frozen=True):
    """One rule: in ``languages``, in files of ``roles``, wherever ``pattern`` matches the code without comments.

    ``unless`` is searched in the raw line and the one before; a match there excuses the place.
    """

    kind: str
    severity: Severity
    languages: frozenset[str]
    pattern: re.Pattern[str]
    message: str
    suggestion: str
    roles: frozenset[str] = _SOURCE
    unless: re.Pattern[str] | None = None


def _rule(
    kind: str,
    severity: Severity,
    languages: frozenset[str] | set[str],
    pattern: str,
    message: str,
    suggestion: str,
    *,
    roles: frozenset[str] = _SOURCE,
    unless: str = "",
) -> Rule:
    excuse = re.compile(unless, re.IGNORECASE) if unless else None
    return Rule(
        kind, severity, frozenset(languages), re.compile(pattern, re.MULTILINE), message, suggestion, roles, excuse
    )


_JAVA = {"Java", "Kotlin", "Scala", "Groovy", "Apex"}
RULES: Final = (
    _rule("debugger-left", "medium", _SCRIPT, r"^\s*debugger\s*;?\s*$", "debugger statement left in the code.",
          "Remove it."),
    _rule("focused-test", "high", _SCRIPT, r"^\s*(?:describe|it|test|context)\.only\s*\(",
          "Only this test runs: .only skips every other test in the file.", "Remove .only.", roles=frozenset({"test"})),
    _rule("empty-catch", "low", _SCRIPT | _JAVA | {"C#", "PHP", "Dart", "Swift"},
          r"\bcatch\s*(?:\([^)]*\)\s*)?\{\s*\}", "An empty catch hides every error of the block.",
          "Handle it, or say in a comment why nothing needs doing.", unless=r"//|/\*|ignore|expected"),
    _rule("async-executor", "medium", _SCRIPT, r"new\s+Promise\s*\(\s*async\b",
          "An async executor loses its exceptions: the promise never settles.",
          "Make the outer function async instead."),
    _rule("nan-comparison", "high", _SCRIPT, r"[!=]==?\s*NaN\b", "Comparing with NaN is always false.",
          "Use Number.isNaN()."),
    _rule("ioutil-deprecated", "low", {"Go"}, r"\bioutil\.(?:ReadAll|ReadFile|WriteFile|ReadDir|TempDir|TempFile)\b",
          "io/ioutil is deprecated since Go 1.16.", "Use the same function of io or os."),
    _rule("ignored-error", "low", {"Go"}, r"^\s*_\s*=\s*[\w.]+\((?![^)\n]*\)\s*//)",
          "The returned error is thrown away.", "Handle it, or say in a comment why it cannot matter.",
          unless=r"//|Close\(|Fprint|\.Write|Flush\(|Remove"),
    _rule("no-http-timeout", "medium", {"Go"}, r"\bhttp\.(?:Get|Post|Head|PostForm)\(",
          "http's default client has no timeout: a silent server blocks this for ever.",
          "Use an http.Client with Timeout set."),
    _rule("undocumented-unsafe", "low", {"Rust"}, r"\bunsafe\s*\{", "unsafe block without a SAFETY comment.",
          "Say in // SAFETY: why its conditions hold (clippy::undocumented_unsafe_blocks).", unless=r"safety"),
    _rule("todo-macro", "medium", {"Rust"}, r"\b(?:todo|unimplemented)!\s*\(", "This panics when it is reached.",
          "Implement it or return an error."),
    _rule("dbg-left", "medium", {"Rust"}, r"\bdbg!\s*\(", "dbg! left in the code.", "Remove it."),
    _rule("print-stack-trace", "low", _JAVA, r"\.printStackTrace\s*\(\s*\)",
          "The stack trace goes to stderr past the logging.", "Log the exception."),
    _rule("string-identity", "medium", {"Java"}, r'(?:==|!=)\s*"', "Strings are compared by identity.",
          "Use equals()."),
    _rule("catch-throwable", "low", {"Java"}, r"\bcatch\s*\(\s*(?:final\s+)?Throwable\b",
          "Catching Throwable also catches OutOfMemoryError and the like.", "Catch Exception or narrower."),
    _rule("force-try", "medium", {"Swift"}, r"\btry!", "try! crashes on any error.", "Use do/catch or try?."),
    _rule("force-cast", "low", {"Swift"}, r"\bas!", "as! crashes when the type differs.", "Use as? with a guard."),
    _rule("print-left", "low", {"Dart"}, r"^\s*print\(", "print in library code.", "Use a logger or debugPrint."),
    _rule("unbounded-copy", "high", {"C", "C++"}, r"\b(?:gets|strcpy|strcat|sprintf|vsprintf)\s*\(",
          "Writes without knowing the size of the target.", "Use the bounded variant (fgets, strlcpy, snprintf)."),
    _rule("goto-fail", "medium", {"C", "C++"}, r"^(\s*)if\s*\([^{};\n]*\)\s*\n\s+goto \w+;\s*\n\s+goto \w+;",
          "The second goto is outside the if and always taken.", "Add braces."),
    _rule("loose-null", "low", {"PHP"}, r"@(?:mysql_|file_get_contents|unlink|fopen|include|require)",
          "@ hides the error of this call.", "Check the result and handle the failure."),
    _rule("rescue-exception", "medium", {"Ruby"}, r"^\s*rescue\s+Exception\b",
          "rescue Exception also catches signals and exit.", "Rescue StandardError or narrower."),
    _rule("rescue-nil", "low", {"Ruby"}, r"\brescue\s+nil\b", "rescue nil hides every error.",
          "Name what is expected."),
    _rule("debugger-left", "medium", {"Ruby"}, r"^\s*(?:binding\.(?:pry|irb)|byebug)\b", "A debugger stops here.",
          "Remove it.", roles=_BOTH),
    _rule("rm-variable", "high", {"Shell"}, r"\brm\s+-[a-zA-Z]*[rf][a-zA-Z]*\s+(?:--\s+)?\"?\$\{?\w+\}?\"?/(?:\*|\s|$)",
          "When the variable is empty this deletes from the root directory.", "Write ${name:?} for it.", roles=_BOTH,
          unless=r":\?"),
    _rule("backtick-cd", "low", {"Shell"}, r"^\s*cd\s+(?!.*(?:\|\||&&))\"?\$\{?\w+\}?\"?\s*$",
          "When cd fails, what follows runs in the wrong directory.", "Write cd … || exit.", roles=_BOTH),
)  # fmt: skip


def check(path: str, text: str, language: str | None, role: Role) -> Iterator[Finding]:
    """Findings of one file by the rules for its language, and conflict markers in any."""
    for match in CONFLICT.finditer(text):
        if role != "docs" or "<<<<<<<" in match[0]:
            line = text.count("\n", 0, match.start()) + 1
            yield Finding("critical", "conflict-marker", path, line, "Unresolved merge conflict.", "Resolve it.")
            break
    rules = [rule for rule in RULES if language in rule.languages and role in rule.roles]
    if not rules:
        return
    code = blank(text, language)
    if language == "Rust":
        code = without_rust_tests(code)
    index = LineIndex(code)
    raw = text.split("\n")
    fatal = language == "Shell" and re.search(r"^\s*set\s+-[a-z]*e|^#!.*\s-[a-z]*e", text, re.MULTILINE)
    for rule in rules:
        if fatal and rule.kind == "backtick-cd":
            continue
        for match in rule.pattern.finditer(code):
            start = match.start() + len(match[0]) - len(match[0].lstrip())
            line = index.line(start)
            near = "\n".join(raw[max(0, line - 4) : line + 1])
            if rule.unless is None or not rule.unless.search(near):
                yield Finding(rule.severity, rule.kind, path, line, rule.message, rule.suggestion)
