"""Dangerous calls in languages other than Python, as data: one row a rule."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from orchestrator.analysts.findings import Finding, Severity
from orchestrator.analysts.lexical import LineIndex, blank, without_rust_tests

_SCRIPT: Final = frozenset({"JavaScript", "TypeScript", "Vue", "Svelte"})
_JVM: Final = frozenset({"Java", "Kotlin", "Scala", "Groovy"})


class Rule(msgspec.Struct, frozen=True):
    """One rule; ``keep_strings`` lets the pattern see inside string literals."""

    kind: str
    severity: Severity
    languages: frozenset[str]
    pattern: re.Pattern[str]
    message: str
    suggestion: str
    keep_strings: bool = True


def _rule(
    kind: str, severity: Severity, languages: frozenset[str] | set[str], pattern: str, message: str, suggestion: str,
    *, code_only: bool = False,
) -> Rule:  # fmt: skip
    return Rule(
        kind, severity, frozenset(languages), re.compile(pattern, re.MULTILINE), message, suggestion, not code_only
    )


RULES: Final = (
    _rule(
        "dynamic-code",
        "medium",
        _SCRIPT,
        r"(?<![.\w])eval\s*\((?!\s*['\"`)])|\bnew\s+Function\s*\((?!\s*['\"`]\s*\))",
        "A computed string is run as code.",
        "Parse the data or look the function up in a table.",
        code_only=True,
    ),
    _rule(
        "shell-injection",
        "high",
        _SCRIPT,
        r"\bexec(?:Sync)?\s*\(\s*(?:`[^`]*\$\{|['\"][^'\"\n]*['\"]\s*\+)",
        "A command line is put together from values.",
        "Use execFile or spawn with a list.",
    ),
    _rule(
        "cross-site-scripting",
        "medium",
        _SCRIPT,
        r"\.(?:innerHTML|outerHTML)\s*\+?=\s*(?!\s*(?:['\"`][^$'\"`]*['\"`]\s*;?\s*$|['\"]{2}|``))[^=\s]|\bdocument\.write\s*\(",
        "A value is inserted as HTML.",
        "Use textContent, or sanitise the value.",
    ),
    _rule(
        "cross-site-scripting",
        "low",
        _SCRIPT,
        r"\bdangerouslySetInnerHTML\s*=|\bv-html\s*=|\{@html\b",
        "HTML is inserted unescaped.",
        "Make sure that it is sanitised where it is made.",
    ),
    _rule(
        "no-tls-verification",
        "high",
        _SCRIPT,
        r"rejectUnauthorized\s*:\s*false|NODE_TLS_REJECT_UNAUTHORIZED\W+0",
        "TLS certificates are not checked.",
        "Leave verification on; trust an extra CA if need be.",
    ),
    _rule(
        "sql-injection",
        "high",
        _SCRIPT,
        r"\.(?:query|execute|raw)\s*\(\s*(?:`\s*(?:SELECT|INSERT|UPDATE|DELETE)\b[^`]*\$\{|['\"]\s*(?:SELECT|INSERT|UPDATE|DELETE)\b[^'\"\n]*['\"]\s*\+)",
        "SQL is put together from values.",
        "Pass the values as parameters.",
    ),
    _rule(
        "no-tls-verification",
        "high",
        {"Go"},
        r"\bInsecureSkipVerify\s*:\s*true",
        "TLS certificates are not checked.",
        "Leave verification on.",
        code_only=True,
    ),
    _rule(
        "shell-injection",
        "high",
        {"Go"},
        r'exec\.Command(?:Context)?\((?:\w+,\s*)?"(?:/bin/)?(?:ba)?sh",\s*"-c",\s*(?!")',
        "A computed string is given to a shell.",
        "Call the program with its arguments.",
    ),
    _rule(
        "sql-injection",
        "high",
        {"Go"},
        r"\.(?:Query|QueryRow|Exec)(?:Context)?\((?:\w+,\s*)?(?:fmt\.Sprintf\(\s*[\"`]\s*(?:SELECT|INSERT|UPDATE|DELETE)|[\"`]\s*(?:SELECT|INSERT|UPDATE|DELETE)[^\"`\n]*[\"`]\s*\+)",
        "SQL is put together from values.",
        "Pass the values as parameters.",
    ),
    _rule(
        "weak-hash",
        "low",
        {"Go"},
        r'^\s*(?:\w+\s+)?"crypto/(?:md5|sha1|des|rc4)"',
        "A broken algorithm is imported.",
        "Use sha256, or say in a comment why security does not depend on it.",
    ),
    _rule(
        "unescaped-template",
        "low",
        {"Go"},
        r"\btemplate\.(?:HTML|JS|URL)\((?!\")",
        "A value skips HTML escaping.",
        "Make sure that it is sanitised.",
        code_only=True,
    ),
    _rule(
        "no-tls-verification",
        "high",
        {"Rust"},
        r"danger_accept_invalid_(?:certs|hostnames)\(\s*true",
        "TLS certificates are not checked.",
        "Leave verification on.",
        code_only=True,
    ),
    _rule(
        "shell-injection",
        "medium",
        {"Rust"},
        r'Command::new\(\s*"(?:/bin/)?(?:ba)?sh"\s*\)[\s\S]{0,80}?format!\(',
        "A formatted string is given to a shell.",
        "Call the program with its arguments.",
    ),
    _rule(
        "unsafe-deserialization",
        "high",
        _JVM,
        r"\bnew\s+ObjectInputStream\s*\(|\.readObject\s*\(\s*\)",
        "Java deserialisation runs code that its input names.",
        "Use JSON, or an ObjectInputFilter.",
        code_only=True,
    ),
    _rule(
        "sql-injection",
        "high",
        _JVM | {"C#"},
        r"(?:executeQuery|executeUpdate|prepareStatement|createQuery|createNativeQuery|SqlCommand)\s*\(\s*\"[^\"\n]*\"\s*\+",
        "SQL is put together from values.",
        "Pass the values as parameters.",
    ),
    _rule(
        "weak-hash",
        "low",
        _JVM | {"C#"},
        r'getInstance\(\s*"(?:MD5|SHA-?1|DES|RC4)|\b(?:MD5|SHA1)\.Create\(',
        "A broken algorithm is used.",
        "Use SHA-256 or better.",
    ),
    _rule(
        "shell-injection",
        "medium",
        _JVM,
        r"getRuntime\(\)\.exec\(\s*[^)\n]*\+",
        "A command line is put together from values.",
        "Use ProcessBuilder with a list.",
    ),
    _rule(
        "code-injection",
        "high",
        {"PHP"},
        r"\b(?:eval|assert|create_function)\s*\(\s*\$|\bpreg_replace\s*\(\s*['\"]/[^'\"]*/e",
        "A value is run as code.",
        "Do without.",
    ),
    _rule(
        "shell-injection",
        "high",
        {"PHP"},
        r"\b(?:shell_exec|system|passthru|exec|popen)\s*\([^)\n]*\$_(?:GET|POST|REQUEST)",
        "A request's value reaches a shell.",
        "Use escapeshellarg, or no shell.",
    ),
    _rule(
        "sql-injection",
        "high",
        {"PHP"},
        r"(?:query|exec)\s*\(\s*[\"'][^\"'\n]*(?:\$_(?:GET|POST|REQUEST)|[\"']\s*\.\s*\$_)",
        "A request's value reaches SQL.",
        "Use prepared statements.",
    ),
    _rule(
        "unsafe-deserialization",
        "high",
        {"PHP"},
        r"\bunserialize\s*\(\s*\$_",
        "A request's value is unserialised.",
        "Use JSON.",
    ),
    _rule(
        "shell-injection",
        "medium",
        {"Ruby"},
        r"\b(?:system|exec|spawn)\s*\(?\s*\"[^\"\n]*#\{|`[^`\n]*#\{",
        "A command line is put together from values.",
        "Pass a list of arguments.",
    ),
    _rule(
        "unsafe-deserialization",
        "medium",
        {"Ruby"},
        r"\b(?:Marshal|YAML)\.load\b(?!_file|.*permitted)",
        "The input can name classes to build.",
        "Use YAML.safe_load or JSON.",
        code_only=True,
    ),
    _rule(
        "shell-injection",
        "medium",
        {"C", "C++"},
        r"\b(?:system|popen)\s*\(\s*(?![\"L])",
        "A computed string is given to a shell.",
        "Use execv with a list.",
        code_only=True,
    ),
    _rule(
        "unbounded-copy",
        "medium",
        {"C", "C++"},
        r"\b(?:gets|strcpy|strcat|sprintf|vsprintf)\s*\(",
        "Writes without knowing the size of the target.",
        "Use the bounded variant.",
        code_only=True,
    ),
    _rule(
        "download-and-run",
        "medium",
        {"Shell"},
        r"\b(?:curl|wget)\b[^\n|;&]*\|\s*(?:sudo\s+)?(?:ba|z|da)?sh\b",
        "A download is run unseen.",
        "Download, check the checksum, then run.",
    ),
    _rule(
        "dynamic-code", "low", {"Shell"}, r"^\s*eval\s+[\"']?\$(?!\()", "A variable is run as code.", "Use an array."
    ),
)


def check(path: str, text: str, language: str | None) -> Iterator[Finding]:
    """Findings of one file; comments never match."""
    rules = [rule for rule in RULES if language in rule.languages]
    if not rules:
        return
    code = blank(text, language)
    visible = blank(text, language, keep_strings=True)
    if language == "Rust":
        code = without_rust_tests(code)
        visible = visible[: len(code)]
    index = LineIndex(text)
    for rule in rules:
        for match in rule.pattern.finditer(visible if rule.keep_strings else code):
            start = match.start() + len(match[0]) - len(match[0].lstrip())
            yield Finding(rule.severity, rule.kind, path, index.line(start), rule.message, rule.suggestion)
