"""Ranking: how much each file counts for a task and a role. Pure: all state comes in as arguments."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from operator import mul

import msgspec

from orchestrator.context.chronicle import Chronicle
from orchestrator.context.ground import Ground
from orchestrator.context.index import Index
from orchestrator.context.query import Query
from orchestrator.context.ranking import SCALE_LIMIT, Ranked, Ranking, Signal
from orchestrator.context.roles import Focus


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """How much each signal counts, each first scaled so that its best file has 1.

    The worth of each is measured in ``docs/discussion/context.md``.
    """

    body: float = 1.0
    path: float = 0.4
    definitions: float = 0.15
    names: float = 0.2
    mention: float = 0.5
    scope: float = 0.3
    votes: float = 0.3
    recency: float = 0.3
    activity: float = 0.25
    changed: float = 0.3
    evidence: float = 0.3
    passages: float = 0.4


def bm25(index: Index, field: str, terms: Mapping[str, float], *, k1: float = 1.2, b: float = 0.75) -> dict[int, float]:
    """BM25 by document (Robertson and Zaragoza 2009, with the idf that cannot be negative)."""
    postings = index.fields[field]
    total = index.count
    if not total:
        return {}
    average = max(1.0, postings.total / total)
    lengths, alive = postings.lengths, index.alive
    base, slope = k1 * (1 - b), k1 * b / average
    scores: dict[int, float] = {}
    get = scores.get
    for word, weight in terms.items():
        found = index.postings(field, word)
        if not found:
            continue
        frequency = min(len(found), total)
        value = weight * math.log(1 + (total - frequency + 0.5) / (frequency + 0.5)) * (k1 + 1)
        for posting in found:
            document = posting >> 8
            count = posting & 255
            scores[document] = get(document, 0.0) + value * count / (count + base + slope * lengths[document])
    return {document: score for document, score in scores.items() if alive[document]}


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What else speaks for files, by path: uncommitted changes and what earlier agents named."""

    changed: frozenset[str] = frozenset()
    named: frozenset[str] = frozenset()


#: How much more a role's wishes count without a task: the least (half of 0.06) then outweighs recency and activity.
_ALONE = 19.0
#: So many of the best files are given back; what comes after is left out whatever the budget is.
MOST_RANKED = 2000


def rank(
    index: Index,
    ground: Ground,
    chronicle: Chronicle,
    query: Query,
    focus: Focus,
    evidence: Evidence,
    weights: Weights,
) -> Ranking:
    """The best 2,000 files, best first; ties by path."""
    always = _signals({"recency": ground.terrain.recency, "activity": ground.terrain.activity}, ground, weights, focus)
    asked = _signals(_evidence(index, ground, chronicle, query, evidence), ground, weights, focus)
    sums = ground.keep((weights, query.is_empty), lambda: _base(ground, always, is_alone=query.is_empty)).copy()
    _add(sums, asked)
    scores = list(map(mul, sums, ground.factors))
    best = sorted(ground.ordered, key=scores.__getitem__, reverse=True)[:MOST_RANKED]  # stable, so ties stay by path
    return Ranking(best, scores, (*asked, *always), ground)


def _base(ground: Ground, always: Sequence[Signal], *, is_alone: bool) -> list[float]:
    """By document what the score is without the task, before the kind's factor."""
    sums = [1e-3] * len(ground.factors)
    _add(sums, always)
    for document, shares in ground.shares.items():
        # Without a task the role's wishes decide; multiplied by the kind's weight, required papers and settings
        # would come after any code that changed lately.
        sums[document] += sum(shares.values()) * (1 + _ALONE / ground.factors[document] * is_alone)
    return sums


def _add(sums: list[float], signals: Sequence[Signal]) -> None:
    for signal in signals:
        most, weight = signal.weight * SCALE_LIMIT, signal.weight * signal.scale
        for document, value in signal.values.items():
            share = weight * value
            sums[document] += share if share < most else most


def _signals(found: Mapping[str, Mapping[int, float]], ground: Ground, weights: Weights, focus: Focus) -> list[Signal]:
    """Scores as signals, scaled so that the best file among those that the role works on has 1.

    Scaled by the best of all files, a test that repeats the task's words would make every source look poor.
    """
    signals = []
    for name, values in found.items():
        factors = list(map(ground.factors.__getitem__, values))
        own = max(factors, default=0.0)
        most = max(map(mul, values.values(), factors), default=0.0)
        if name in _ABSOLUTE:
            signals.append(Signal(name, _weight(name, weights, focus), 1.0, values))
        elif own > 0 and most > 0:
            signals.append(Signal(name, _weight(name, weights, focus), own / most, values))
    return signals


def _weight(name: str, weights: Weights, focus: Focus) -> float:
    weight: float = getattr(weights, name)
    return weight * 2 if name == "recency" and focus.wants_recent else weight


def with_passages(
    ranked: Ranking, scores: Mapping[int, list[float]], factors: Sequence[float], weight: float
) -> Ranking:
    """``ranked`` again, best first, where the files at the places in ``scores`` (block scores by place) also get
    credit for their best passage: a large file is judged by where it speaks of the task. ``factors``: by document how
    much its kind counts."""
    peaks = {place: max(found, default=0.0) for place, found in scores.items()}
    best = ranked[: max(peaks, default=-1) + 1]  # credit lifts none of them below what comes after
    priors = {place: factors[best[place].facts.document] for place in peaks}
    own = max(priors.values(), default=1.0) or 1.0
    most = max((peak * priors[place] / own for place, peak in peaks.items()), default=0.0)
    if most <= 0:
        return ranked
    for place, peak in peaks.items():
        item = best[place]
        share = weight * min(peak / most, SCALE_LIMIT)
        if share:
            parts = {**item.parts, "passages": share}
            best[place] = Ranked(item.facts, item.score + share * priors[place], parts)
    best.sort(key=_order)
    return ranked.led_by(best)


def _order(item: Ranked) -> tuple[float, str]:
    return -item.score, item.facts.path


def _evidence(
    index: Index, ground: Ground, chronicle: Chronicle, query: Query, evidence: Evidence
) -> dict[str, dict[int, float]]:
    """By signal and document what speaks for it in this task."""
    by_path = ground.terrain.by_path
    votes = chronicle.votes(query.terms) if not query.is_empty else {}
    return {
        "body": bm25(index, "body", query.terms),
        "path": bm25(index, "path", query.terms, b=0.3),
        "definitions": bm25(index, "definitions", query.terms, b=0.4),
        "names": _defined(index, query),
        "mention": _mentions(ground, query),
        "scope": _scope(ground, query),
        "votes": {by_path[path]: vote for path, vote in votes.items() if path in by_path},
        "changed": {by_path[path]: 1.0 for path in evidence.changed if path in by_path},
        "evidence": {by_path[path]: 1.0 for path in evidence.named if path in by_path},
    }


#: Signals that are shares already; the others are scaled.
_ABSOLUTE = frozenset(("mention", "scope", "recency", "changed", "evidence"))


def _defined(index: Index, query: Query) -> dict[int, float]:
    scores: dict[int, float] = {}
    for name in query.names:
        documents = index.defining(name)
        for document in documents:
            scores[document] = scores.get(document, 0.0) + 1.0 / len(documents)
    return scores


def _mentions(ground: Ground, query: Query) -> dict[int, float]:
    """1.5 where the task has a file's path or dotted name, 1 for its name, 0.6 for one word without the extension."""
    scores: dict[int, float] = {}
    for word in query.words:
        for document, worth in ground.terrain.names.get(word, ()):
            scores[document] = max(worth, scores.get(document, 0.0))
    for said in query.paths:
        last = said[-1].strip("_") if "." not in said[-1] else said[-1]
        for document, _ in ground.terrain.names.get(last, ()):
            if _agree(said, ground.terrain.files[document].path):
                scores[document] = _WHOLE_PATH
    return scores


_WHOLE_PATH = 1.5


def _agree(said: tuple[str, ...], path: str) -> bool:
    """Whether a path and the project's end alike, extensions aside, in two parts.

    A trace's path may come from another root (``/srv/app/pkg/core.py``), a dotted name from a source folder.
    """
    ours, theirs = path.lower().split("/")[::-1], list(said[::-1])
    ours[0], theirs[0] = ours[0].rsplit(".", 1)[0], theirs[0].rsplit(".", 1)[0]
    return len(ours) > 1 and ours[:2] == theirs[:2]


def _scope(ground: Ground, query: Query) -> dict[int, float]:
    """For files in a part that the subject names: 0.4 to 1, the more the fewer files are in it."""
    scores: dict[int, float] = {}
    total = len(ground)
    for scope in query.scopes:
        documents = [document for document in ground.terrain.places.get(scope, ()) if ground.factors[document]]
        if documents and 2 * len(documents) < total:
            worth = 0.4 + 0.6 * math.log(total / len(documents)) / math.log(total)
            for document in documents:
                scores[document] = max(worth, scores.get(document, 0.0))
    return scores
