"""XML without entities: a small tree over expat that refuses document types (no entity is ever expanded)."""

from __future__ import annotations

from collections.abc import Iterator
from xml.parsers import expat

import msgspec


class Element(msgspec.Struct):
    """An element; names are without namespace prefix and URI, ``text`` is stripped."""

    name: str
    attributes: dict[str, str]
    entries: list[Element]
    text: str = ""

    def children(self, name: str) -> Iterator[Element]:
        """The direct children of this name."""
        return (entry for entry in self.entries if entry.name == name)

    def value(self, name: str) -> str:
        """The text of the first child of this name, or ``""``."""
        return next((entry.text for entry in self.children(name)), "")


_DEEPEST = 200
#: Characters that the parser gathers before it hands them over; else it does so for each line.
_GATHERED = 1 << 16


def parse_xml(text: str, levels: int = _DEEPEST) -> Element:
    """The root element, with ``levels`` of elements, its own among them. Raises ValueError for broken XML, for a
    document type and for absurd depth."""
    parser = expat.ParserCreate(namespace_separator="}")
    parser.buffer_size = _GATHERED
    parser.buffer_text = True
    top = Element("", {}, [])
    stack = [top]
    texts: list[list[str]] = [[]]

    def start(name: str, attributes: dict[str, str]) -> None:
        if len(stack) > _DEEPEST:
            raise ValueError("nested too deeply")
        element = Element(name.rpartition("}")[2], attributes, [])
        if len(stack) <= levels:
            stack[-1].entries.append(element)
        stack.append(element)
        texts.append([])

    def end(_: str) -> None:
        stack.pop().text = "".join(texts.pop()).strip()

    def characters(data: str) -> None:
        texts[-1].append(data)

    def refuse(*_: object) -> None:
        raise ValueError("a document type is not accepted")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = characters
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(text.encode("utf-8", "replace"), True)
    except expat.ExpatError as error:
        raise ValueError(str(error)) from error
    if not top.entries:
        raise ValueError("no element")
    return top.entries[0]
