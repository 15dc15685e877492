"""What a ranking gives: files with their scores, and why they have them. Put together when somebody looks: an answer
looks at some dozens of the 2,000 files of a ranking."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

import msgspec

from orchestrator.context.ground import Ground
from orchestrator.context.models import FileFacts

#: So much of a signal counts at most, as a multiple of its best file's among those that the role works on.
SCALE_LIMIT = 1.5


class Ranked(msgspec.Struct, frozen=True):
    """A file with its score (0 to about 3, comparable within one answer) and each signal's share."""

    facts: FileFacts
    score: float
    parts: Mapping[str, float]

    @property
    def reason(self) -> str:
        """The strongest signals in words."""
        strongest = sorted(self.parts.items(), key=lambda item: -item[1])
        said = [_SAID[name] for name, share in strongest[:3] if share > 0.02 and name in _SAID]
        return "; ".join(said) or "of the kind that the role works on"


_SAID = {
    "body": "its text matches the task",
    "path": "its path matches the task",
    "definitions": "it defines names of the task",
    "names": "it defines what the task names",
    "mention": "the task names the file",
    "scope": "in the part that the task names",
    "votes": "past commits like the task changed it",
    "recency": "changed recently",
    "activity": "changes often",
    "changed": "has uncommitted changes",
    "passages": "its best passage matches the task",
    "evidence": "earlier agents named it",
    "required": "the role requires it",
    "included": "the role's globs choose it",
    "entry": "an entry point",
    "large": "one of the largest source files",
}


class Signal(msgspec.Struct, frozen=True):
    """One signal of a ranking: ``weight`` times ``scale`` times a value, where value and scale give at most 1.5."""

    name: str
    weight: float
    scale: float
    values: Mapping[int, float]

    def share(self, document: int) -> float:
        """What this adds to the score of ``document``."""
        value = self.values.get(document, 0.0)
        return self.weight * min(value * self.scale, SCALE_LIMIT) if value else 0.0


class Shares(Mapping[str, float]):
    """By name each signal's share in a document's score, put together when somebody looks."""

    __slots__ = ("_document", "_ground", "_known", "_signals")

    def __init__(self, document: int, signals: Sequence[Signal], ground: Ground) -> None:
        self._document = document
        self._signals = signals
        self._ground = ground
        self._known: dict[str, float] | None = None

    def _all(self) -> dict[str, float]:
        if self._known is None:
            document, once = self._document, self._ground.terrain.once
            shares = {signal.name: signal.share(document) for signal in self._signals if document in signal.values}
            if document in once and "activity" in shares:
                # what a single commit brought has a history, yet nobody would say that it changes often
                shares["history"] = shares.pop("activity")
            shares.update(self._ground.shares.get(document, {}))
            self._known = {name: share for name, share in shares.items() if share}
        return self._known

    def __getitem__(self, name: str) -> float:
        return self._all()[name]

    def get(self, name: str, default: Any = None, /) -> Any:
        """As for any mapping; without this each name that is missing would cost an exception."""
        return self._all().get(name, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


class Ranking(Sequence[Ranked]):
    """Files, best first.

    Args:
        documents: their documents, best first.
        scores: by document the score.
        signals: what the scores are made of, beside the ground's shares.
        ground: what the role sees.
    """

    def __init__(
        self, documents: Sequence[int], scores: Sequence[float], signals: Sequence[Signal], ground: Ground
    ) -> None:
        self._documents = documents
        self._scores = scores
        self._signals = signals
        self._ground = ground
        self._first: Sequence[Ranked] = ()

    def led_by(self, first: Sequence[Ranked]) -> Ranking:
        """The same files, where ``first`` are the first ones, in another order and with other scores."""
        led = Ranking(self._documents, self._scores, self._signals, self._ground)
        led._first = first
        return led

    def paths(self) -> list[str]:
        """The paths of all, best first."""
        files = self._ground.terrain.files
        first = [item.facts.path for item in self._first]
        return first + [files[document].path for document in self._documents[len(first) :]]

    def sizes(self) -> list[int]:
        """The sizes of all in bytes, best first."""
        files = self._ground.terrain.files
        first = [item.facts.stamp.size for item in self._first]
        return first + [files[document].stamp.size for document in self._documents[len(first) :]]

    def __len__(self) -> int:
        return len(self._documents)

    @overload
    def __getitem__(self, place: int) -> Ranked: ...

    @overload
    def __getitem__(self, place: slice) -> list[Ranked]: ...

    def __getitem__(self, place: int | slice) -> Ranked | list[Ranked]:
        if isinstance(place, slice):
            return [self[number] for number in range(len(self))[place]]
        if 0 <= place < len(self._first):
            return self._first[place]
        document = self._documents[place]
        facts = self._ground.terrain.files[document]
        return Ranked(facts, self._scores[document], Shares(document, self._signals, self._ground))
