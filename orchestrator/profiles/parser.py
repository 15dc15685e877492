"""One profile file: bytes in, a checked layer of values out."""

from __future__ import annotations

import hashlib
import re
import shlex
from typing import Any, Literal

import msgspec

from agentpool.specs import range_of
from orchestrator.profiles.authored import FOREIGN_KEYS, KEYS, MERGED_KEYS, AuthoredHandOver, FrontMatter
from orchestrator.profiles.front_matter import Document, read_document
from orchestrator.profiles.model import Check
from orchestrator.profiles.problems import Problem, ProfileInvalid
from orchestrator.profiles.requirements import REQUIREMENTS, describe_unknown

Dialect = Literal["own", "claude"]
_PATH = re.compile(r" - at `\$\.?(.*)`$")
_TIME_LIMITS = {"wall_s": "timeout_seconds", "idle_s": "idle_seconds"}
_INDEX = re.compile(r"\[(\d+)\]")


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """What one file says.

    Attributes:
        name: the role that it is laid over (or makes).
        values: the keys that it gives, in the form of ``Profile``'s fields (mappings for ``context``, ``limits``).
        lines: 1-based line of each key by dotted path.
        body: the instructions; empty when it gives none.
        digest: of the file's bytes.
        problems: notes and warnings; an error would have kept the file from becoming a layer.
    """

    name: str
    values: dict[str, Any]
    lines: dict[str, int]
    body: str
    digest: str
    problems: tuple[Problem, ...] = ()


def parse_layer(data: bytes, source: str, dialect: Dialect = "own") -> Layer:
    """Read and check one file. Raises ProfileInvalid with line and reason.

    ``claude`` is for coding CLIs' own files: unknown keys are ignored with a note, and front matter that is
    only nearly YAML is accepted. In ``own`` files an unknown key is an error, since it is mostly a typing error.
    """
    document = read_document(data, lenient=dialect == "claude")
    known, notes = _known_values(document, source, dialect)
    if "name" not in known:
        raise ProfileInvalid("key 'name' is missing: it names the role", 2)
    try:
        front_matter = msgspec.convert(known, FrontMatter, strict=True)
    except msgspec.ValidationError as error:
        raise _invalid(error, document) from error
    values = {
        key: value for key in KEYS if key != "name" and (value := getattr(front_matter, key)) is not msgspec.UNSET
    }
    if "tools" in values:
        values["tools"] = parse_tools(values["tools"])
    if "command" in values:
        values["command"] = _command("command", values["command"], document)
    if values.get("verify") is not None:
        check = values["verify"]
        values["verify"] = Check(
            command=_command("verify.command", check.command, document), timeout_seconds=check.timeout_seconds
        )
    if "hands_over_to" in values:
        values["hands_over_to"] = tuple(
            AuthoredHandOver(agent_type=entry) if isinstance(entry, str) else entry for entry in values["hands_over_to"]
        )
    for key in MERGED_KEYS:
        if key in values:
            # Only what was written, so that laying over the layer below does not reset its other keys.
            values[key] = {name: getattr(values[key], name) for name in known[key]}
    _check_requirements(values, document)
    _check_limits(values, document)
    return Layer(
        name=front_matter.name,
        values=values,
        lines=document.lines,
        body=document.body,
        digest=hashlib.blake2b(data, digest_size=16).hexdigest(),
        problems=tuple(notes),
    )


def parse_tools(value: str | tuple[str, ...]) -> tuple[str, ...]:
    """Tools as a tuple, each once; a string is split at commas outside parentheses; ``*`` means all: empty."""
    parts: list[str] = []
    for item in (value,) if isinstance(value, str) else value:
        depth, word = 0, ""
        for character in item:
            depth += (character == "(") - (character == ")")
            if character in ",\n" and depth <= 0:
                parts.append(word)
                word = ""
            else:
                word += character
        parts.append(word)
    tools = tuple(dict.fromkeys(part.strip().removeprefix("- ").strip() for part in parts if part.strip()))
    return () if "*" in tools else tools


def _known_values(document: Document, source: str, dialect: Dialect) -> tuple[dict[str, Any], list[Problem]]:
    notes: list[Problem] = []
    known: dict[str, Any] = {}
    name = document.values.get("name")
    agent_type = name if isinstance(name, str) else ""
    if document.is_lenient:
        notes.append(
            Problem(
                severity="note",
                source=source,
                line=2,
                agent_type=agent_type,
                reason="the front matter is not valid YAML; read as simple 'key: text' lines",
            )
        )
    for key, value in document.values.items():
        if key in KEYS:
            known[key] = value
            continue
        line = document.lines.get(key)
        if key not in FOREIGN_KEYS and dialect == "own":
            raise ProfileInvalid(f"unknown key {describe_unknown(key, KEYS)}", line)
        notes.append(
            Problem(
                severity="note", source=source, line=line, agent_type=agent_type, reason=f"key {key!r} is not used here"
            )
        )
    if dialect == "claude":
        # Such a file may leave a key empty where it means "not given".
        known = {key: value for key, value in known.items() if value is not None and value != ""}
    return known, notes


def _command(key: str, value: str | tuple[str, ...], document: Document) -> tuple[str, ...]:
    if not isinstance(value, str):
        command = value
    else:
        try:
            command = tuple(shlex.split(value))
        except ValueError as error:
            raise ProfileInvalid(f"{key}: {error}", document.lines.get(key)) from error
    if not command:
        raise ProfileInvalid(f"{key} must name a program", document.lines.get(key))
    return command


def _check_requirements(values: dict[str, Any], document: Document) -> None:
    for index, name in enumerate(values.get("context", {}).get("requirements", ())):
        if name not in REQUIREMENTS:
            raise ProfileInvalid(
                f"unknown context requirement {describe_unknown(name, REQUIREMENTS)}",
                document.lines.get(f"context.requirements.{index}"),
            )


def _check_limits(values: dict[str, Any], document: Document) -> None:
    for name, value in values.get("limits", {}).items():
        if name in _TIME_LIMITS:
            reason = f"limits.{name} is given by the key {_TIME_LIMITS[name]!r}"
            raise ProfileInvalid(reason, document.lines.get(f"limits.{name}"))
        least, most = range_of(name)
        if value is not None and not least <= value <= most:
            raise ProfileInvalid(f"limits.{name} must be {least} to {most}", document.lines.get(f"limits.{name}"))


def _invalid(error: msgspec.ValidationError, document: Document) -> ProfileInvalid:
    """The file's line and key for msgspec's complaint, whose path looks like ``$.hands_over_to[0].when``."""
    text = str(error)
    match = _PATH.search(text)
    path = _INDEX.sub(r".\1", match[1]) if match else ""
    reason = text[: match.start()] if match else text
    line = None
    place = path.strip(".")
    while place and line is None:
        line = document.lines.get(place)
        place = place.rpartition(".")[0]
    key = path.strip(".") or "front matter"
    return ProfileInvalid(f"{key}: {reason[:1].lower()}{reason[1:]}", line)
