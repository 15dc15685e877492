"""A text's identifiers, counted, in a form that is small, searched by C code and sent to another process as it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache

import msgspec

from orchestrator.context.words import raw_identifiers

MOST = 255


class Counted(msgspec.Struct, frozen=True, array_like=True):
    """A text's identifiers.

    Attributes:
        total: how many stand in the text.
        identifiers: each once, one a line.
        counts: how often each stands there, one byte each, at most 255.
        names: the names that the text defines, each once, one a line.
    """

    total: int
    identifiers: bytes
    counts: bytes
    names: bytes

    @property
    def defined(self) -> list[bytes]:
        """The defined names."""
        return self.names.split(b"\n") if self.names else []

    @property
    def cost(self) -> int:
        """Bytes that keeping it takes, roughly."""
        return len(self.identifiers) + len(self.counts) + len(self.names) + 300


def count(data: bytes, names: Iterable[bytes]) -> Counted:
    """Count a text that defines ``names``."""
    identifiers = Counter(raw_identifiers(data))
    try:
        counts = bytes(identifiers.values())
    except ValueError:
        counts = bytes([min(number, MOST) for number in identifiers.values()])
    return Counted(identifiers.total(), b"\n".join(identifiers), counts, b"\n".join(dict.fromkeys(names)))


#: Bytes of a text for each identifier in it, about; only the lengths of texts relative to each other matter.
_IDENTIFIER_BYTES = 8


@lru_cache(maxsize=1000)
def needle(word: str) -> bytes:
    """What a text in lower case holds wherever a word with this stem stands: the stem but for a last ``i`` that may
    have been a ``y``."""
    return (word.removesuffix("i") or word).encode("utf-8", "surrogatepass")


def count_words(data: bytes, words: Sequence[str]) -> Counted:
    """How often each of ``words`` (stems) stands in a text, also within other words; ``total`` is estimated."""
    low = data.lower()
    found = [(word, number) for word in words if (number := low.count(needle(word)))]
    identifiers = b"\n".join(word.encode("utf-8", "surrogatepass") for word, _ in found)
    counts = bytes(min(number, MOST) for _, number in found)
    return Counted(len(data) // _IDENTIFIER_BYTES, identifiers, counts, b"")
