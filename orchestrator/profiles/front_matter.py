"""Markdown with YAML front matter, read within bounds and with the line of every key."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import yaml

from orchestrator.profiles.problems import ProfileInvalid

#: Bounds far above any honest file; they keep a hostile one from costing time or memory.
MAX_FILE_BYTES = 256 << 10
MAX_FRONT_MATTER_BYTES = 32 << 10
MAX_DEPTH = 8
MAX_VALUES = 2000

_FENCE = re.compile(r"^---[ \t]*$", re.MULTILINE)
_SIMPLE_KEY = re.compile(r"^([A-Za-z][A-Za-z0-9_-]*):(?:[ \t]+(.*))?$")
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A file in parts.

    Attributes:
        values: the front matter.
        lines: 1-based line of each key by dotted path (``context.include``, ``hands_over_to.0.agent_type``).
        body: the text after the front matter, without surrounding blank lines.
        body_line: where the body begins.
        is_lenient: the front matter was no YAML and was read as simple ``key: text`` lines.
    """

    values: dict[str, Any]
    lines: dict[str, int]
    body: str
    body_line: int
    is_lenient: bool = False


def read_document(data: bytes, *, lenient: bool = False) -> Document:
    """Take a file apart. Raises ProfileInvalid with the line.

    A byte order mark and CR LF line ends are accepted. With ``lenient``, front matter that is not YAML but
    simple ``key: text`` lines is accepted too: coding CLIs read such files (an unquoted ``: `` within a
    description is common in them).
    """
    text = _decode(data)
    if not text.startswith("---"):
        raise ProfileInvalid("no front matter: the first line must be '---'", 1)
    fences = list(_FENCE.finditer(text))
    if not fences or fences[0].start() != 0:
        raise ProfileInvalid("no front matter: the first line must be '---' alone", 1)
    if len(fences) < 2:
        raise ProfileInvalid("the front matter is not closed: a second line '---' is missing", 1)
    header = text[fences[0].end() + 1 : fences[1].start()]
    if len(header) > MAX_FRONT_MATTER_BYTES:
        raise ProfileInvalid(f"front matter over {MAX_FRONT_MATTER_BYTES} bytes", 1)
    body = text[fences[1].end() :]
    body_line = text.count("\n", 0, fences[1].end()) + 2
    try:
        values, lines = _load(header)
        is_lenient = False
    except ProfileInvalid:
        simple = _simple(header) if lenient else None
        if simple is None:
            raise
        (values, lines), is_lenient = simple, True
    return Document(values=values, lines=lines, body=body.strip(), body_line=body_line, is_lenient=is_lenient)


def _decode(data: bytes) -> str:
    if len(data) > MAX_FILE_BYTES:
        raise ProfileInvalid(f"file over {MAX_FILE_BYTES} bytes")
    if b"\x00" in data:
        raise ProfileInvalid("binary file: it holds a NUL byte", data.count(b"\n", 0, data.index(b"\x00")) + 1)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ProfileInvalid("not UTF-8 text", data.count(b"\n", 0, error.start) + 1) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _load(header: str) -> tuple[dict[str, Any], dict[str, int]]:
    """The mapping of ``header``, built from the event stream so that its bounds hold before anything is built."""
    try:
        return _Builder(header).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = error.problem or "cannot be read"
        raise ProfileInvalid(f"not valid YAML: {reason}", mark.line + 2 if mark else None) from error
    except yaml.YAMLError as error:
        raise ProfileInvalid(f"not valid YAML: {error}") from error


class _Builder:
    """Values from YAML events: plain scalars as the safe loader reads them, no anchors, aliases or tags."""

    def __init__(self, header: str) -> None:
        self._events = iter(yaml.parse(header, Loader=_LOADER))
        self._scalars = yaml.SafeLoader("")
        self._resolve: Any = self._scalars.resolve
        self._count = 0
        self.lines: dict[str, int] = {}

    def document(self) -> tuple[dict[str, Any], dict[str, int]]:
        """The one mapping and the lines of its keys."""
        while isinstance(event := self._next(), (yaml.StreamStartEvent, yaml.DocumentStartEvent)):
            pass
        if isinstance(event, yaml.StreamEndEvent):
            return {}, {}
        if not isinstance(event, yaml.MappingStartEvent):
            raise ProfileInvalid("the front matter must be a mapping of keys to values", _line(event))
        values = self._mapping("", 1)
        while not isinstance(event := self._next(), yaml.StreamEndEvent):
            if not isinstance(event, yaml.DocumentEndEvent):
                raise ProfileInvalid("the front matter must be a single document", _line(event))
        return values, self.lines

    def _next(self) -> yaml.Event:
        event = next(self._events)
        self._count += 1
        if self._count > MAX_VALUES:
            raise ProfileInvalid(f"more than {MAX_VALUES} values", _line(event))
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ProfileInvalid("YAML anchors and aliases are not supported; write the value out", _line(event))
        if getattr(event, "tag", None):
            raise ProfileInvalid("YAML tags are not supported", _line(event))
        return event

    def _mapping(self, prefix: str, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent) or event.value == "<<":
                raise ProfileInvalid("keys must be plain words", _line(event))
            key = event.value
            if key in result:
                raise ProfileInvalid(f"key {key!r} is given twice", _line(event))
            self.lines[prefix + key] = _line(event)
            result[key] = self._value(self._next(), prefix + key, depth)
        return result

    def _value(self, event: yaml.Event, path: str, depth: int) -> Any:
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, path)
        if depth >= MAX_DEPTH:
            raise ProfileInvalid(f"nested deeper than {MAX_DEPTH} levels", _line(event))
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(f"{path}.", depth + 1)
        items: list[Any] = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            place = f"{path}.{len(items)}"
            self.lines[place] = _line(event)
            items.append(self._value(event, place, depth + 1))
        return items

    def _scalar(self, event: yaml.ScalarEvent, path: str) -> Any:
        if not event.implicit[0]:
            return event.value
        tag = self._resolve(yaml.ScalarNode, event.value, (True, False))
        if tag == "tag:yaml.org,2002:str":
            return event.value
        try:
            return self._scalars.construct_object(yaml.ScalarNode(tag, event.value))
        except ValueError as error:  # a date or a number that only looks like one
            raise ProfileInvalid(f"{path}: {event.value[:40]!r} cannot be read as a value", _line(event)) from error


def _line(event: yaml.Event) -> int:
    """1-based line in the file: the front matter begins on the second."""
    mark: Any = event.start_mark
    return int(mark.line) + 2


def _simple(header: str) -> tuple[dict[str, Any], dict[str, int]] | None:
    """``key: text`` lines with indented or blank continuations, all values text; None when it is not that."""
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    key = ""
    for number, line in enumerate(header.split("\n"), start=2):
        match = _SIMPLE_KEY.match(line)
        if match and match[1] not in values:
            key = match[1]
            values[key] = (match[2] or "").strip()
            lines[key] = number
        elif not line.strip() or line.startswith("#"):
            continue
        elif key:
            values[key] = f"{values[key]}\n{line.strip()}".strip()
        else:
            return None
    return (values, lines) if values else None
