"""The chronicle: the history made searchable. Which commits say what the task says, and which files they touched."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import takewhile

from orchestrator.context.index import Postings
from orchestrator.context.models import Commit
from orchestrator.context.words import Splitter, is_significant

#: A commit that touches more files says little about each of them.
_WIDE = 30
_TOP_COMMITS = 40


class Chronicle:
    """Commits by number, oldest first, so that new ones are only appended."""

    def __init__(self, splitter: Splitter) -> None:
        self._splitter = splitter
        self._reset()

    def _reset(self) -> None:
        self._tokens: dict[str, int] = {}
        self._messages = Postings()
        self._norms: list[float] = []
        self.commits: list[Commit] = []
        self.by_file: dict[str, list[int]] = {}
        self.newest: str | None = None
        self._by_time: list[Commit] = []

    def update(self, history: list[Commit]) -> None:
        """Take in ``history`` (newest first); what is known already is not read again."""
        if not history:
            self._reset()
            return
        count = next((place for place, commit in enumerate(history) if commit.hash == self.newest), len(history))
        if not self._ends_with(history[count:]):
            # A merge brought commits that are older than the newest known one, or another branch lacks some.
            count = len(history)
        if count == len(history):
            self._reset()
        for commit in reversed(history[:count]):
            self._append(commit)
        self.newest = history[0].hash
        self._by_time = sorted(self.commits, key=lambda commit: commit.timestamp, reverse=True)
        lengths = self._messages.lengths
        average = max(1.0, self._messages.total / len(lengths))
        self._norms = [1.2 * (0.5 + 0.5 * length / average) for length in lengths]

    def since(self, time: float) -> Iterator[Commit]:
        """The commits after ``time`` (seconds since the epoch), newest first."""
        return takewhile(lambda commit: commit.timestamp > time, self._by_time)

    def _ends_with(self, history: list[Commit]) -> bool:
        """Whether the newest known commits are these (newest first)."""
        if len(history) > len(self.commits):
            return False
        return all(one.hash == known.hash for one, known in zip(history, reversed(self.commits), strict=False))

    def _append(self, commit: Commit) -> None:
        number = len(self.commits)
        self.commits.append(commit)
        counts = Counter(word for word in self._splitter.words(commit.message) if is_significant(word))
        tokens = {self._tokens.setdefault(word, len(self._tokens)): count for word, count in counts.items()}
        self._messages.reserve(counts.total())
        self._messages.add(number, tokens)
        for path in commit.files:
            self.by_file.setdefault(path, []).append(number)

    def similar(self, terms: Mapping[str, float]) -> list[tuple[int, float]]:
        """Up to 40 commits whose messages match ``terms`` best, ``(number, score)`` (BM25, k1 1.2, b 0.5)."""
        total = len(self.commits)
        if not total:
            return []
        norms = self._norms
        scores: dict[int, float] = {}
        for word, weight in terms.items():
            token = self._tokens.get(word)
            if token is None:
                continue
            postings = self._messages.lists[token]
            value = weight * math.log(1 + (total - len(postings) + 0.5) / (len(postings) + 0.5)) * 2.2
            for posting in postings:
                number, count = posting >> 8, posting & 255
                scores[number] = scores.get(number, 0.0) + value * count / (count + norms[number])
        return heapq.nlargest(_TOP_COMMITS, scores.items(), key=lambda item: (item[1], item[0]))

    def votes(self, terms: Mapping[str, float]) -> dict[str, float]:
        """By path how strongly similar commits vote for it (the best one's files get most)."""
        similar = self.similar(terms)
        votes: dict[str, float] = {}
        for number, score in similar:
            files = self.commits[number].files
            if 0 < len(files) <= _WIDE:
                share = (score / similar[0][1]) ** 2 / math.sqrt(len(files))
                for path in files:
                    votes[path] = votes.get(path, 0.0) + share
        return votes

    def recency(self, path: str) -> float:
        """1 for a file of the newest commit, falling by how many commits ago it changed last (half after 30)."""
        numbers = self.by_file.get(path)
        if not numbers:
            return 0.0
        return 1.0 / (1.0 + (len(self.commits) - 1 - numbers[-1]) / 30.0)

    def activity(self, path: str) -> float:
        """How often a file changed, recent changes counting more (weight halves after 300 commits)."""
        total = len(self.commits) - 1
        return math.log1p(sum(1.0 / (1.0 + (total - number) / 300.0) for number in self.by_file.get(path, ())))

    def messages(self, path: str, count: int) -> list[str]:
        """The subjects of the last ``count`` commits that changed ``path``, newest first."""
        numbers = self.by_file.get(path, ())[-count:]
        return [self.commits[number].message.partition("\n")[0] for number in reversed(numbers)]
