"""The library: the states of all projects, bounded in memory, and the answers made of them."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from itertools import accumulate

import msgspec

from agentpool.platforms import processor_count
from orchestrator.context.ahead import likeliest, open_ahead
from orchestrator.context.assistant import open_file
from orchestrator.context.budget import Candidate, Selection, select
from orchestrator.context.division import Division
from orchestrator.context.excerpts import View, ViewCache, score_blocks, term_weights
from orchestrator.context.ground import Ground, GroundCache
from orchestrator.context.metadata import Metadata
from orchestrator.context.models import JSON, BuildAnswer, BuildOrder, Role, SearchHit
from orchestrator.context.persist import path_of, write
from orchestrator.context.priority import changed_since, tier
from orchestrator.context.project import Limits, ProjectState
from orchestrator.context.query import Query, parse
from orchestrator.context.rank import MOST_RANKED, Evidence, Weights, rank, with_passages
from orchestrator.context.ranking import Ranked, Ranking
from orchestrator.context.reading import Reader, Refused, reading
from orchestrator.context.render import displayed, render
from orchestrator.context.roles import Focus, focus_for

_PAUSE_S = 0.001
_VIEW_BYTES = 96 << 20
#: So many of the best files compete for the budget with their blocks; later ones go in whole or not at all.
_COMPETING = 60


class Library:
    """Builds contexts. Thread-safe: one project is worked on by one thread at a time.

    Args:
        limits: settings that every project shares.
        capacity: bytes that all projects' states may take; the least recently used go first.
        state_dir: where indexes are kept between runs; empty for nowhere.
        hire: starts an assistant that shares the work of a large build and gives its connection; None for none.
        breadth: no more files compete for the budget when they are so many times as large as it together; None for
            no such bound.
    """

    def __init__(
        self,
        limits: Limits,
        capacity: int,
        state_dir: str = "",
        *,
        hire: Callable[[], socket.socket] | None = None,
        breadth: int | None = None,
    ) -> None:
        self._limits = limits
        self._breadth = breadth
        self._hire = hire
        self._state_dir = state_dir
        self._capacity = capacity
        self._lock = threading.Lock()
        self._states: OrderedDict[str, ProjectState] = OrderedDict()
        self._views = ViewCache(_VIEW_BYTES)
        self._ahead: set[str] = set()
        self._metadata = Metadata()
        self._grounds = GroundCache()
        self.weights = Weights()

    def state(self, root: str) -> ProjectState:
        """The state of the project at ``root``, empty when it is new."""
        with self._lock:
            state = self._states.get(root)
            if state is None:
                state = self._states[root] = ProjectState(root, self._limits, self._state_dir)
            self._states.move_to_end(root)
            return state

    def is_new(self, root: str) -> bool:
        """Whether nobody has looked at the project's files yet, so that what asks for it takes long."""
        with self._lock:
            state = self._states.get(root)
        return state is None or not state.generation

    def is_known(self, root: str) -> bool:
        """Whether an index of the project is here or kept from an earlier run: all but what changed is read already."""
        return not self.is_new(root) or bool(self._state_dir and path_of(self._state_dir, root).exists())

    def warm(self, root: str, *, changed: Collection[str] | None = None) -> None:
        """Bring a project's state up to date, so that the first who asks need not wait. Raises OSError."""
        state = self.state(root)
        with state.lock, Division(self._hire, root) as division:
            _refresh(state, changed, division)
        self._shrink()

    def forget(self, root: str) -> None:
        """Drop a project's state."""
        with self._lock:
            self._states.pop(root, None)
            self._ahead.discard(root)

    def build(
        self,
        order: BuildOrder,
        *,
        changed: Collection[str] | None = None,
        known_generation: int = 0,
        asked_at: float = math.inf,
    ) -> BuildAnswer:
        """Build one answer. ``changed``: the caller knows that at most these paths changed since the last look.

        When the project is still what it was at ``known_generation``, the answer's body is empty. ``asked_at``: the
        order was there at this time (monotonic seconds), so that a look at everything that began later is its refresh.

        Raises OSError when the project's directory cannot be read.
        """
        state = self.state(order.root)
        with state.lock, Division(self._hire, order.root) as division:
            is_looked_at = state.looked_at > asked_at
            _refresh(state, None if order.is_refresh and not is_looked_at else changed, division)
            if self._metadata.look(state):
                state.generation += 1  # the files are the same, the answer is not
            if known_generation and known_generation == state.generation:
                return BuildAnswer(body=b"", etag="", generation=state.generation)
            selection = self.choose(state, order, division)
            metadata = self._metadata.describe(state)
            body, etag = render(order, state, selection, metadata)
            problems = tuple(metadata.get("problems", ()))
            answer = BuildAnswer(body=body, etag=etag, generation=state.generation, problems=problems)
        self._shrink()
        return answer

    def has_news(self, root: str) -> bool:
        """Whether the project's reports are others than the last answer's. Raises OSError."""
        return self._metadata.has_news(self.state(root))

    def choose(self, state: ProjectState, order: BuildOrder, division: Division | None = None) -> Selection:
        """Rank and pack for ``order``; the caller holds the state's lock. ``division`` shares the opening of files."""
        query, focus = parse(order.task, state.index.splitter), focus_for(order.role)
        ranked = self.ranked(state, query, focus, order)
        competing = self._competing(ranked, order.max_bytes)
        if division is not None:
            self._open_ahead(division, competing)
        terms = term_weights(state.index, query)
        candidates: dict[str, Candidate] = {}
        scores: dict[int, list[float]] = {}
        with reading(state.root) as reader:
            for place, item in enumerate(competing):
                view = self._open(state, reader, item)
                if isinstance(view, str):
                    candidates[item.facts.path] = view
                    continue
                scores[place] = score_blocks(view, terms)
                candidates[item.facts.path] = (view, scores[place])
            ground = self._ground(state, order, focus)
            ranked = with_passages(ranked, scores, ground.factors, self.weights.passages)
            changed = changed_since(state.chronicle, (change.path for change in state.changes), order.now)
            selection = select(
                ranked,
                candidates,
                order.max_bytes,
                lambda item: self._open(state, reader, item),
                tier_of=lambda item: tier(item, changed, has_task=not query.is_empty),
            )
        excluded = focus.excluded
        withheld = [entry for entry in state.withheld() if excluded is None or not excluded.match(entry[0])]
        return msgspec.structs.replace(
            selection,
            omitted=withheld + selection.omitted,
            is_truncated=selection.is_truncated or len(ground) > MOST_RANKED,
            unranked=max(0, len(ground) - MOST_RANKED),
        )

    def _competing(self, ranked: Sequence[Ranked], budget: int) -> Sequence[Ranked]:
        """The best files, whose blocks compete for the budget."""
        best = ranked[:_COMPETING]
        if self._breadth is None:
            return best
        sizes = accumulate(item.facts.stamp.size for item in best)
        return best[: 1 + sum(size < self._breadth * budget for size in sizes)]

    def ranked(self, state: ProjectState, query: Query, focus: Focus, order: BuildOrder) -> Ranking:
        """All files of the project, best first, without those that the role never gets."""
        evidence = Evidence(
            changed=frozenset(change.path for change in state.changes),
            named=frozenset(path for output in order.outputs for path in output.get("files_affected", ())),
        )
        state.index.prepare(query.terms)
        ground = self._ground(state, order, focus)
        return rank(state.index, ground, state.chronicle, query, focus, evidence, self.weights)

    def _ground(self, state: ProjectState, order: BuildOrder, focus: Focus) -> Ground:
        return self._grounds.get(state, msgspec.json.encode(order.role), focus)

    def _open_ahead(self, division: Division, ranked: Sequence[Ranked]) -> None:
        """Let the views that are not known be opened by several processes when there are many."""
        missing = [item.facts for item in ranked if item.facts not in self._views]
        for facts, view in division.views(missing):
            self._views.put(facts.checksum, facts.language, view)

    def _open(self, state: ProjectState, reader: Reader, item: Ranked) -> View | str:
        """The view of a file as it was indexed, or why it cannot be shown."""
        facts = item.facts
        try:
            return self._views.get(
                facts.checksum,
                facts.language,
                lambda: open_file(reader, facts.path, facts.checksum, facts.language),
            )
        except Refused as error:
            return error.reason

    def explain(self, order: BuildOrder) -> JSON:
        """Why the answer to ``order`` is as it is: the files with every signal's share, and what was left out."""
        state = self.state(order.root)
        with state.lock:
            state.refresh()
            selection = self.choose(state, order)
        files = [
            {
                "path": displayed(state, chosen.ranked.facts.path),
                "kind": chosen.ranked.facts.kind,
                "score": round(chosen.ranked.score, 4),
                "reason": chosen.ranked.reason,
                "signals": {name: round(share, 4) for name, share in chosen.ranked.parts.items()},
                "bytes": chosen.size,
                "size": chosen.ranked.facts.stamp.size,
                "ranges": [list(part) for part in chosen.ranges] if chosen.ranges is not None else None,
            }
            for chosen in selection.chosen
        ]
        omitted = [{"path": displayed(state, path), "reason": reason} for path, reason in selection.omitted]
        return {"files": files, "omitted": omitted, "max_bytes": order.max_bytes, "truncated": selection.is_truncated}

    def finish(self, root: str) -> None:
        """Complete the index behind the first answer, letting other orders pass between two portions."""
        state = self.state(root)
        is_unfinished = True
        while is_unfinished:
            with state.lock:
                is_unfinished = state.absorb()
            time.sleep(_PAUSE_S)  # a lock that is taken again at once is never given to who waits for it

    def open_ahead(self, root: str) -> None:
        """Let an assistant open, once for a project, what its tasks will ask for. Nothing where there is a single
        processor: it would only delay what is asked for now."""
        state = self.state(root)
        with self._lock:
            if root in self._ahead or not state.generation or self._hire is None or processor_count() < 2:
                return
            self._ahead.add(root)
        with state.lock:
            files = likeliest(state.readable(), state.chronicle, _VIEW_BYTES // 2)
        for facts, view in open_ahead(self._hire, root, [facts for facts in files if facts not in self._views]):
            self._views.put(facts.checksum, facts.language, view)

    def save(self, root: str) -> None:
        """Keep a project's index for the next run when that is due. Raises OSError."""
        state = self.state(root)
        with state.lock:
            stored = state.to_save()
        if stored is not None:
            write(self._state_dir, root, stored)  # what takes longest needs the state no more

    def search(self, root: str, query: str, limit: int, *, changed: Collection[str] | None = None) -> list[SearchHit]:
        """The best ``limit`` files for ``query``, with their best lines; ``changed`` as for ``build``."""
        raise_for = BuildOrder(project_id="", root=root, issue_id="", role=_ANYONE, task=query, max_bytes=1)
        state = self.state(root)
        with state.lock:
            _refresh(state, changed)
            parsed = parse(query, state.index.splitter)
            if parsed.is_empty:
                return []
            ranked = self.ranked(state, parsed, focus_for(_ANYONE), raise_for)
            hits = []
            with reading(root) as reader:
                for item in ranked[:limit]:
                    if not any(item.parts.get(name) for name in ("body", "path", "definitions", "names", "mention")):
                        continue
                    view = self._open(state, reader, item)
                    lines = () if isinstance(view, str) else _best_lines(view, parsed)
                    hits.append(
                        SearchHit(
                            path=displayed(state, item.facts.path),
                            score=round(item.score, 4),
                            reason=item.reason,
                            lines=lines,
                        )
                    )
        return hits

    def _shrink(self) -> None:
        with self._lock:
            while len(self._states) > 1 and sum(state.size_bytes for state in self._states.values()) > self._capacity:
                self._states.popitem(last=False)

    def stats(self) -> JSON:
        """Projects, files and estimated bytes held."""
        with self._lock:
            states = list(self._states.values())
        return {
            "projects": len(states),
            "files": sum(len(state.files) for state in states),
            "bytes": sum(state.size_bytes for state in states) + self._views.size_bytes,
        }


def _refresh(state: ProjectState, changed: Collection[str] | None, division: Division | None = None) -> None:
    """Bring a state up to date when at most the paths in ``changed`` changed, or git was told something (None: any)."""
    if changed is None or state.has_git_moved():
        state.refresh(division)
    elif changed or not state.generation:
        state.refresh_some(changed, division)


def _best_lines(view: View, query: Query, count: int = 3) -> tuple[tuple[int, str], ...]:
    """The lines that hold most of the query's terms, in order of lines."""
    terms = [term.encode() for term in query.terms]
    scored: list[tuple[int, int]] = []
    for number, line in enumerate(view.lines.data.lower().split(b"\n"), 1):
        hits = sum(term in line for term in terms)
        if hits:
            scored.append((-hits, number))
    best = sorted(number for _, number in sorted(scored)[:count])
    return tuple((n, view.lines.text(n, n).decode("utf-8", "replace").rstrip("\n")[:300]) for n in best)


_ANYONE = Role(agent_type="anyone")
