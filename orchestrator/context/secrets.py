"""Secrets: names of files that hold them, and their forms in text; both are data in ``secrets.toml``."""

from __future__ import annotations

import math
import re
import tomllib
from collections import Counter
from functools import lru_cache
from importlib import resources

import msgspec

from orchestrator.context.globs import compile_globs


class Form(msgspec.Struct, frozen=True):
    """One form of secret. ``keys`` are literals in lower case, one of which a text must hold."""

    kind: str
    keys: tuple[str, ...]
    pattern: re.Pattern[str]
    entropy: float


class Forms(msgspec.Struct, frozen=True):
    """The compiled table."""

    forms: tuple[Form, ...]
    files: re.Pattern[str]
    allowed_files: re.Pattern[str]
    placeholder: re.Pattern[str]


@lru_cache(maxsize=1)
def _forms() -> Forms:
    text = resources.files("orchestrator.context").joinpath("secrets.toml").read_text(encoding="utf-8")
    data = tomllib.loads(text)
    forms = tuple(
        Form(
            row["kind"], tuple(key.lower() for key in row["keys"]), re.compile(row["pattern"]), row.get("entropy", 0.0)
        )
        for row in data["form"]
    )
    files, allowed = compile_globs(tuple(data["files"])), compile_globs(tuple(data["allowed_files"]))
    assert files is not None
    assert allowed is not None
    return Forms(forms, files, allowed, re.compile("|".join(data["placeholders"]), re.IGNORECASE))


def is_secret_file(path: str) -> bool:
    """Whether a file of this name is a store of secrets (keys, ``.env``, credentials, state files)."""
    forms = _forms()
    return forms.files.match(path) is not None and forms.allowed_files.match(path) is None


def entropy(text: str) -> float:
    """Shannon entropy in bits per character (Shannon 1948)."""
    if not text:
        return 0.0
    total = len(text)
    return -sum(count / total * math.log2(count / total) for count in Counter(text).values())


def redact(text: str) -> str:
    """``text`` with every secret replaced by ``[redacted:kind]``; the number of lines stays the same."""
    forms = _forms()
    low = text.lower()
    for form in forms.forms:
        if any(key in low for key in form.keys):
            text = form.pattern.sub(lambda match, form=form: _hidden(match, form, forms), text)  # type: ignore[misc]
    return text


def _hidden(match: re.Match[str], form: Form, forms: Forms) -> str:
    whole = match.group()
    name = "secret" if "secret" in match.re.groupindex else 0
    secret = match.group(name)
    if form.entropy and (entropy(secret) < form.entropy or forms.placeholder.search(secret)):
        return whole
    start, end = match.start(name) - match.start(), match.end(name) - match.start()
    return f"{whole[:start]}[redacted:{form.kind}]" + "\n" * secret.count("\n") + whole[end:]
