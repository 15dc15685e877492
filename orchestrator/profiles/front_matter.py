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
    """The mapping of ``header``, its bounds checked on the event stream before anything is built."""
    try:
        _check_events(header)
        loader = _LOADER(header)
        try:
            node = loader.get_single_node()
            if node is None:
                return {}, {}
            if not isinstance(node, yaml.MappingNode):
                raise ProfileInvalid("the front matter must be a mapping of keys to values", _line(node))
            lines: dict[str, int] = {}
            return _mapping(loader, node, "", lines), lines
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = error.problem or "cannot be read"
        raise ProfileInvalid(f"not valid YAML: {reason}", mark.line + 2 if mark else None) from error
    except yaml.YAMLError as error:
        raise ProfileInvalid(f"not valid YAML: {error}") from error


def _check_events(header: str) -> None:
    depth = 0
    for count, event in enumerate(yaml.parse(header, Loader=_LOADER)):
        line = event.start_mark.line + 2 if event.start_mark else None
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ProfileInvalid("YAML anchors and aliases are not supported; write the value out", line)
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            depth += 1
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            depth -= 1
        if depth > MAX_DEPTH:
            raise ProfileInvalid(f"nested deeper than {MAX_DEPTH} levels", line)
        if count > MAX_VALUES:
            raise ProfileInvalid(f"more than {MAX_VALUES} values", line)


def _mapping(loader: Any, node: yaml.MappingNode, path: str, lines: dict[str, int]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = key_node.value
        if not isinstance(key, str) or key_node.tag == "tag:yaml.org,2002:merge":
            raise ProfileInvalid("keys must be plain words", _line(key_node))
        if key in result:
            raise ProfileInvalid(f"key {key!r} is given twice", _line(key_node))
        place = f"{path}{key}"
        lines[place] = _line(key_node)
        result[key] = _value(loader, value_node, place, lines)
    return result


def _value(loader: Any, node: yaml.Node, path: str, lines: dict[str, int]) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _mapping(loader, node, f"{path}.", lines)
    if isinstance(node, yaml.SequenceNode):
        items = []
        for index, item in enumerate(node.value):
            lines[f"{path}.{index}"] = _line(item)
            items.append(_value(loader, item, f"{path}.{index}", lines))
        return items
    try:
        return loader.construct_object(node)
    except ValueError as error:  # a date or a number that only looks like one
        raise ProfileInvalid(f"{path}: {error}", _line(node)) from error


def _line(node: yaml.Node) -> int:
    """1-based line in the file: the front matter begins on the second."""
    return int(node.start_mark.line) + 2


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
