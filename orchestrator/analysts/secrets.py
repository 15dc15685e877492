"""Credentials in text: well-known token formats and assignments that look like secrets, always shown redacted.

The formats are those that the issuers document (GitHub, AWS, Slack, Stripe, …). A name-and-value rule with an entropy
threshold finds the rest; 3.5 bits per character separates random strings from words (natural text has 2.5–3.3).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Final

import msgspec

from orchestrator.analysts.findings import Severity


class Secret(msgspec.Struct, frozen=True):
    """One hit: 1-based ``line``, ``name`` of the format, ``shown`` the redacted value."""

    line: int
    name: str
    shown: str
    severity: Severity


#: Name, severity, a literal that every hit contains (looked for first, since that is fast), pattern.
_FORMATS: Final[tuple[tuple[str, Severity, str, str], ...]] = (
    (
        "private key",
        "critical",
        "PRIVATE KEY",
        r"-----BEGIN (?:RSA |EC |DSA |OPENSSH |ENCRYPTED |PGP )?PRIVATE KEY(?: BLOCK)?-----",
    ),
    ("AWS access key", "critical", "AKIA", r"\bAKIA[0-9A-Z]{16}\b"),
    ("AWS temporary key", "critical", "ASIA", r"\bASIA[0-9A-Z]{16}\b"),
    ("GitHub token", "critical", "gh", r"\bgh[pousr]_[A-Za-z0-9]{36}\b"),
    ("GitHub token", "critical", "github_pat_", r"\bgithub_pat_[A-Za-z0-9_]{60,}\b"),
    ("GitLab token", "critical", "glpat-", r"\bglpat-[\w-]{20,}\b"),
    ("Slack token", "critical", "xox", r"\bxox[abeoprs]-[A-Za-z0-9-]{20,}\b"),
    ("Slack webhook", "high", "hooks.slack.com", r"https://hooks\.slack\.com/services/T\w+/B\w+/\w{20,}"),
    ("Stripe live key", "critical", "k_live_", r"\b[rs]k_live_[A-Za-z0-9]{20,}\b"),
    ("Google API key", "high", "AIza", r"\bAIza[0-9A-Za-z_-]{35}\b"),
    ("OpenAI key", "critical", "T3BlbkFJ", r"\bsk-(?:proj-|svcacct-)?[A-Za-z0-9_-]{20,}T3BlbkFJ[A-Za-z0-9_-]{20,}"),
    ("Anthropic key", "critical", "sk-ant-", r"\bsk-ant-[A-Za-z0-9_-]{30,}"),
    ("npm token", "critical", "npm_", r"\bnpm_[A-Za-z0-9]{36}\b"),
    ("PyPI token", "critical", "pypi-AgEI", r"\bpypi-AgEI[A-Za-z0-9_-]{50,}"),
    ("SendGrid key", "critical", "SG.", r"\bSG\.[\w-]{22}\.[\w-]{43}\b"),
    ("Twilio key", "high", "SK", r"\bSK[0-9a-f]{32}\b"),
    ("Azure storage key", "critical", "AccountKey=", r"AccountKey=[A-Za-z0-9+/]{80,}={0,2}"),
    ("JSON web token", "medium", "eyJ", r"\beyJ[A-Za-z0-9_-]{15,}\.eyJ[A-Za-z0-9_-]{15,}\.[A-Za-z0-9_-]{20,}"),
    ("password in a URL", "high", "://", r"(?<=[a-z0-9])://[^\s:/@'\"<>{}$]{1,64}:[^\s:/@'\"<>{}$]{3,64}@[\w.-]+"),
)
_PATTERNS: Final = tuple(
    (name, severity, literal, re.compile(pattern)) for name, severity, literal, pattern in _FORMATS
)
_ASSIGNED: Final = re.compile(
    r"(?i)(?P<name>\b[\w.-]{0,40}(?:password|passwd|secret|api[_-]?key|access[_-]?key|auth[_-]?token|private[_-]?key))"
    r"[\"']?\s*(?:=|:|=>|:=)\s*[\"'](?P<value>[^\"'\s]{12,200})[\"']"
)
_NAMES: Final = ("passw", "secret", "api_key", "api-key", "apikey", "access_key", "access-key", "accesskey",
                 "auth_token", "auth-token", "authtoken", "private_key", "private-key", "privatekey")  # fmt: skip
_PLACEHOLDER: Final = re.compile(
    r"(?i)example|sample|dummy|placeholder|change.?me|your[_-]|xxxx|\*{3}|<[^>]*>|\$\{|\{\{|%\(|test|fake|redacted|"
    r"insert|todo|none|null|abcdef|123456|foobar|user:pass|localhost|127\.0\.0\.1|"
    r"\.\.\.|…|os\.environ|getenv|process\.env"
)
#: Words that name what stands there: ``my-secret`` is no secret, ``secret-`` before random characters is one.
_NAMING: Final = re.compile(r"(?i)secret|passw[o0]rd|username")
_MIN_REST: Final = 10
_MIN_ENTROPY: Final = 3.5


def find_secrets(text: str) -> Iterator[Secret]:
    """Every likely credential of ``text``, first by format, then by name and randomness; placeholders are left out."""
    for name, severity, literal, pattern in _PATTERNS:
        if literal not in text:
            continue
        for match in pattern.finditer(text):
            value = match[0]
            if name != "private key" and _is_placeholder(value, is_url=name == "password in a URL"):
                continue
            if name == "private key" and not _has_key_body(text, match.end()):
                continue
            if name not in {"private key", "password in a URL"} and entropy(value[4:]) < 2.5:
                continue
            shown = "its header" if name == "private key" else redact(value)
            yield Secret(_line(text, match.start()), name, shown, severity)
    lowered = text.lower()
    if not any(word in lowered for word in _NAMES):
        return
    for match in _ASSIGNED.finditer(text):
        value = match["value"]
        is_known = any(literal in value and pattern.search(value) for _, _, literal, pattern in _PATTERNS)
        if not is_known and not _is_placeholder(value) and _is_random(value):
            yield Secret(_line(text, match.start("value")), f"value of {match['name']}", redact(value), "high")


def redact(value: str) -> str:
    """At most the first four characters, and the length."""
    visible = value[:4] if len(value) >= 16 else ""
    return f"{visible}… ({len(value)} characters)"


def entropy(value: str) -> float:
    """Shannon entropy in bits per character."""
    counts = Counter(value)
    return -sum(count / len(value) * math.log2(count / len(value)) for count in counts.values()) if value else 0.0


def _is_placeholder(value: str, *, is_url: bool = False) -> bool:
    """Whether a value stands for one; in an address it is the password that counts, after a name that is none."""
    if _PLACEHOLDER.search(value):
        return True
    if is_url:
        user, _, value = value.rpartition("@")[0].rpartition(":")
        if _NAMING.search(user):
            return True
    rest, count = _NAMING.subn("", value)
    rest = re.sub(r"([-_.:])[-_.:]+", r"\1", rest).strip("-_.:")
    return count > 0 and (len(rest) < _MIN_REST or not _is_random(rest))


def _is_random(value: str) -> bool:
    has_digit = any(char.isdigit() for char in value)
    has_letter = any(char.isalpha() for char in value)
    is_path = value.count("/") > 1 or value.startswith(("/", "http", "./", "--")) or " " in value
    is_code = any(char in value for char in "()[]{}<>") or re.fullmatch(r"[a-z]+([._-][a-z0-9]+)+", value) is not None
    return has_digit and has_letter and not is_path and not is_code and entropy(value) >= _MIN_ENTROPY


def _has_key_body(text: str, end: int) -> bool:
    """Whether key material follows the header: prose and code name the header alone."""
    return (
        re.match(r"(?:\\n|\s|Proc-Type[^\n]*|DEK-Info[^\n]*)*[\"' +]*[A-Za-z0-9+/=]{40,}", text[end : end + 400])
        is not None
    )


def _line(text: str, offset: int) -> int:
    return text.count("\n", 0, offset) + 1
