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


def parse_xml(text: str) -> Element:
    """The root element. Raises ValueError for broken XML, for a document type and for absurd depth."""
    parser = expat.ParserCreate(namespace_separator="}")
    top = Element("", {}, [])
    stack = [top]

    def start(name: str, attributes: dict[str, str]) -> None:
        if len(stack) > _DEEPEST:
            raise ValueError("nested too deeply")
        element = Element(name.rpartition("}")[2], attributes, [])
        stack[-1].entries.append(element)
        stack.append(element)

    def end(_: str) -> None:
        element = stack.pop()
        element.text = element.text.strip()

    def characters(data: str) -> None:
        stack[-1].text += data

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
