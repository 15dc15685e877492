"""Secrets: names of files that hold them, and their forms in text; both are data in ``secrets.toml``."""

from __future__ import annotations

import math
import re
import tomllib
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from importlib import resources

import msgspec

from orchestrator.context.globs import compile_globs
from orchestrator.context.words import vocabulary


class Form(msgspec.Struct, frozen=True):
    """One form of secret. ``keys`` are literals in lower case, one of which a text must hold; ``signs`` are quickly
    looked for and must stand in the same line; ``is_guess`` means that only the surroundings tell, so that plain words,
    hashes and placeholders are let through; ``is_long`` that it spans lines."""

    kind: str
    keys: tuple[str, ...]
    pattern: re.Pattern[str]
    entropy: float
    is_guess: bool
    is_long: bool
    signs: re.Pattern[str] | None


class Forms(msgspec.Struct, frozen=True):
    """The compiled table. ``keys`` are all keys, each with the word that is looked for first. Of the files ``names``
    are told by a whole name, ``endings`` by what begins with the last dot, ``dotted`` have a name or a folder that
    begins with a dot; ``files`` are the others."""

    forms: tuple[Form, ...]
    keys: tuple[tuple[str, str], ...]
    names: frozenset[str]
    endings: frozenset[str]
    files: re.Pattern[str]
    dotted: re.Pattern[str]
    allowed: re.Pattern[str]
    copies: tuple[str, ...]
    placeholder: re.Pattern[str]


@lru_cache(maxsize=1)
def _forms() -> Forms:
    text = resources.files("orchestrator.context").joinpath("secrets.toml").read_text(encoding="utf-8")
    data = tomllib.loads(text)
    forms = tuple(
        Form(
            row["kind"],
            tuple(key.lower() for key in row["keys"]),
            re.compile(row["pattern"]),
            row.get("entropy", 0.0),
            row.get("is_guess", False),
            row.get("is_long", False),
            re.compile(row["signs"]) if "signs" in row else None,
        )
        for row in data["form"]
    )
    names = frozenset(glob.lower() for glob in data["files"] if re.fullmatch(r"[\w.-]+", glob))
    endings = frozenset(glob[1:].lower() for glob in data["files"] if re.fullmatch(r"\*\.\w+", glob))
    rest = [glob for glob in data["files"] if glob.lower() not in names and glob[1:].lower() not in endings]
    is_dotted = [glob.removeprefix("**/").startswith(".") for glob in rest]
    files = compile_globs(tuple(glob for glob, its in zip(rest, is_dotted, strict=True) if not its))
    dotted = compile_globs(tuple(glob for glob, its in zip(rest, is_dotted, strict=True) if its))
    assert files is not None
    assert dotted is not None
    allowed, copies = re.compile(data["allowed"], re.IGNORECASE), tuple(data["copies"])
    keys = tuple((key, _word_of(key)) for key in dict.fromkeys(key for form in forms for key in form.keys))
    return Forms(
        forms,
        keys,
        names,
        endings,
        files,
        dotted,
        allowed,
        copies,
        re.compile("|".join(data["placeholders"]), re.IGNORECASE),
    )


def _word_of(key: str) -> str:
    """The longest part of ``key`` that stands within one identifier; ``key`` itself when that is all of it."""
    longest = max(re.findall(r"\w+", key, re.ASCII), key=len, default="")
    return key if longest == key else longest


def kinds() -> list[str]:
    """The kinds of secrets that are known by their form."""
    return list(dict.fromkeys(form.kind for form in _forms().forms))


def is_secret_file(path: str) -> bool:
    """Whether a file of this name is a store of secrets (keys, ``.env``, credentials, state files) or a copy of one."""
    forms = _forms()
    while path.endswith(forms.copies):
        path = path[: -max(len(end) for end in forms.copies if path.endswith(end))]
    if not _is_store(path, forms):
        return False
    folder, slash, name = path.rpartition("/")
    plain = forms.allowed.sub("", name)
    return plain == name or not _is_store(folder + slash + plain, forms)


def _is_store(path: str, forms: Forms) -> bool:
    parts = path.lower().split("/")
    if not (forms.names.isdisjoint(parts) and forms.endings.isdisjoint([part[part.rfind(".") :] for part in parts])):
        return True
    if forms.files.match(path):
        return True
    return (path.startswith(".") or "/." in path) and forms.dotted.match(path) is not None


#: A name that is long enough for a token, and has a digit as tokens do.
_MAY_HOLD = re.compile(r"(?:^|/)(?=[^/]{16})[^/]*\d")


def secrets_in(paths: Iterable[str]) -> dict[str, str]:
    """By path that holds a secret the same without it; nearly all paths are ruled out at a glance."""
    suspects = [path for path in paths if _MAY_HOLD.search(path)]
    return (
        {path: hidden for path, hidden in zip(suspects, redact_each(suspects), strict=True) if "[redacted:" in hidden}
        if suspects
        else {}
    )


def entropy(text: str) -> float:
    """Shannon entropy in bits per character (Shannon 1948)."""
    total = len(text)
    return -sum(count / total * math.log2(count / total) for count in Counter(text).values()) if total else 0.0


def redact_part(text: str) -> str:
    """``redact`` of a text that may begin or end within a key, as a diff does: lines of base64 are hidden without their
    marks too, but where a mark beside them tells that they are public."""
    return _KEY_LINES.sub(_hidden_lines, redact(text))


def redact(text: str, known: bytes | None = None) -> str:
    """``text`` with every secret replaced by ``[redacted:kind]``; the number of lines stays the same, and without a
    secret it is the same object. ``known``: the vocabulary of the text, which is ASCII then; None where it is not
    known."""
    forms = _forms()
    low = text.lower()
    # each word once is a fraction of the text: most keys are ruled out there
    found = vocabulary(low.encode("utf-8", "surrogatepass")) if known is None else known
    words = found.decode("utf-8", "surrogatepass")
    present = {key for key, word in forms.keys if word in words and (key is word or key in low)}
    places: dict[str, dict[int, int]] = {}
    for form in forms.forms if present else ():
        keys = [key for key in form.keys if key in present]
        if not keys:
            continue
        if not form.is_long:
            changed = _redact_lines(text, low, keys, form, forms, places)
        else:
            changed = form.pattern.sub(lambda match, form=form: _hidden(match, form, forms), text)  # type: ignore[misc]
        if changed != text:
            text, low, places = changed, changed.lower(), {}
    return text


def redact_each(texts: Iterable[str]) -> list[str]:
    """``redact`` of many short texts in one pass; a line break within one becomes a space."""
    return redact("\n".join(" ".join(text.splitlines()) for text in texts)).split("\n")


def _lines_with(key: str, low: str, places: dict[str, dict[int, int]]) -> dict[int, int]:
    """By start the end of each line that has ``key``; ``places`` remembers it for the next form."""
    found = places.get(key)
    if found is None:
        found = places[key] = {}
        place = low.find(key)
        while place >= 0:
            start = low.rfind("\n", 0, place) + 1
            end = low.find("\n", place)
            end = len(low) if end < 0 else end
            found[start] = end
            place = low.find(key, end)
    return found


def _redact_lines(
    text: str, low: str, keys: list[str], form: Form, forms: Forms, places: dict[str, dict[int, int]]
) -> str:
    """Forms of one line look at the lines that hold a key: a few percent of a text."""
    if len(low) != len(text):  # lower case took more characters somewhere, so places cannot be compared
        return form.pattern.sub(lambda match: _hidden(match, form, forms), text)
    spans: dict[int, int] = {}
    for key in keys:
        spans |= _lines_with(key, low, places)
    parts = []
    position = 0
    for start in sorted(spans):
        end = spans[start]
        line = text[start:end]
        if form.signs is not None and form.signs.search(line) is None:
            continue
        changed = form.pattern.sub(lambda match: _hidden(match, form, forms), line)
        if changed is not line and changed != line:
            parts += [text[position:start], changed]
            position = end
    return "".join((*parts, text[position:])) if parts else text


def _hidden(match: re.Match[str], form: Form, forms: Forms) -> str:
    whole, secret = match.group(), match.group("secret")
    # what is short cannot reach the entropy of what is long
    if form.entropy and entropy(secret) < min(form.entropy, _SHARE * math.log2(len(secret))):
        return whole
    if form.is_guess and (forms.placeholder.search(secret) or _is_harmless(secret)):
        return whole
    start, end = match.start("secret") - match.start(), match.end("secret") - match.start()
    return f"{whole[:start]}[redacted:{form.kind}]" + "\n" * secret.count("\n") + whole[end:]


#: Three lines or more of 60 to 76 characters of base64 (64 in PEM, RFC 7468; 70 in OpenSSH's keys; 76 in MIME), and the
#: shorter one that ends them.
_KEY_LINE = r"[ \t]*+[+-]?[ \t]*+[\"']?[A-Za-z0-9+/]"
_KEY_LINES = re.compile(
    rf"(?m)^{_KEY_LINE}{{60,76}}(?:\r?\n{_KEY_LINE}{{60,76}}(?=\r?$)){{2,}}(?:\r?\n{_KEY_LINE}{{1,75}}={{0,2}}(?=\r?$))?"
)


def _hidden_lines(match: re.Match[str]) -> str:
    lines = match.group()
    start = match.string.rfind("\n", 0, max(match.start() - 1, 0)) + 1
    around = (match.string[start : match.start()][-_MARK:], match.string[match.end() : match.end() + _MARK])
    is_public = any("-----" in text and "PRIVATE" not in text for text in around)
    if is_public or entropy(lines) < _LEAST_OF_LINES:
        return lines
    return "[redacted:private-key]" + "\n" * lines.count("\n")


#: The longest line with a mark of a certificate or a public key.
_MARK = 80
#: Three lines of a key have 5.5 bits and more per character, of hexadecimal digits 4 at most.
_LEAST_OF_LINES = 5.0
#: A secret's entropy is at least this share of what its length allows.
_SHARE = 0.85

# single words, CamelCase or not; letters in a random order are none
_WORD = r"(?:[a-z]+|[A-Z]+)?(?:[A-Z]{1,8}[a-z]{2,}|By|To|In|Of|On|Or|At|As|Is|Up|Id|No|My|Do|If|Db)*[A-Z]{0,3}"
_BETWEEN = "(?:[_.:/-]|%[0-9A-Fa-f]{2})"
_WORDY = re.compile(rf"{_WORD}(?:(?:\d?{_BETWEEN}+(?=[A-Za-z]){_WORD})+\d?)?{_BETWEEN}*|[a-z]+(?:[A-Z][a-z]+)+\d?")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_DIGEST = re.compile(r"(?:sha(?:1|256|384|512)[-:])[A-Za-z0-9+/=]+")
_CODE = re.compile(
    r"\([^)]{0,80}\)|\[[^\]]{0,80}\]|\{[^}]{0,80}\}|<[^>]{0,80}>|[$%#]\{|\$\(|%[sdr(]|\$(?:[A-Z_]{3}|[a-z_]{4})|[-=]>|[<>=!]=|\?\.|\\"
    r"|\w\.\w+\.\w|^https?:|^/|^\.|^~|^[A-Za-z]:[/\\]"
)


def _is_harmless(secret: str) -> bool:
    """Whether a value that only its surroundings call secret is a name, a path, a UUID, a digest or code."""
    if _WORDY.fullmatch(secret) and entropy(secret) < 4.2:
        return True
    return bool(_UUID.fullmatch(secret) or _DIGEST.match(secret) or _CODE.search(secret))
