"""The builder: a process of its own that scans, indexes, ranks and renders, so that the event loop never waits.

It talks over one socket (``orchestrator.context.frames``) and ends when the other side is gone.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import msgspec

from orchestrator.context.forkserver import ForkServer
from orchestrator.context.frames import Ask, Stale, Told, decode_ask, encode, receive
from orchestrator.context.library import Library
from orchestrator.context.project import Limits
from orchestrator.context.provisional import glance
from orchestrator.context.watch import Watch

T = TypeVar("T")
#: Threads for projects that are known, for first looks, for glances and for what is done behind answers and ahead of
#: them: a first look takes seconds, and must not keep those waiting who need milliseconds.
_THREADS = {"known": 4, "first": 2, "glance": 2, "behind": 1, "ahead": 1}
#: Watches of projects that nobody asked for so long (seconds) are given up.
_IDLE_S = 1800.0


#: What looks at a project's files.
_LOOKING = frozenset(("build", "explain", "search", "warm"))
#: When more files than this changed, the whole project is looked at.
_MOST_CHANGED = 100


class BuilderOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the supervisor hands over at the start, as JSON in the argument list."""

    descriptor: int
    limits: Limits
    capacity: int
    state_dir: str
    is_watching: bool = True


class Watched(msgspec.Struct):
    """A project's watch. ``epoch`` counts its changes, ``refreshed`` is the epoch of the last look at the files,
    ``changed`` what changed since then (None: anything may have).

    Counting begins with the clock, so that every epoch is later than those of an earlier watch or builder.
    """

    watch: Watch
    epoch: int = msgspec.field(default_factory=time.monotonic_ns)
    refreshed: int = 0
    changed: frozenset[str] | None = None
    asked_at: float = 0.0


class Builder:
    """Serves one connection until its end."""

    def __init__(self, connection: socket.socket, options: BuilderOptions, forks: ForkServer) -> None:
        self._connection = connection
        self._options = options
        self._forks = forks
        self._library = Library(options.limits, options.capacity, options.state_dir, hire=forks.assistant)
        self._send_lock = threading.Lock()
        self._lock = threading.Lock()
        self._watched: dict[str, Watched] = {}
        self._behind: dict[str, list[Callable[[str], None]]] = {}

    def serve(self) -> None:
        """Read asks and answer each in a thread. At the end of the stream the process ends at once: whatever
        is still being built has nobody left to read it."""
        pools = {name: ThreadPoolExecutor(count, thread_name_prefix=name) for name, count in _THREADS.items()}
        while (payload := receive(self._connection)) is not None:
            asked_at = time.monotonic()
            ask = decode_ask(payload)
            is_first = ask.what in _LOOKING and self._library.is_new(ask.root)
            pool = "glance" if ask.what == "glance" else "first" if is_first else "known"
            start = partial(self._start, pools, ask, asked_at)
            if pool != "first" or not self._is_behind(ask.root, start):
                start(pool)
        self._forks.close()
        os._exit(0)

    def _start(self, pools: dict[str, ThreadPoolExecutor], ask: Ask, asked_at: float, pool: str) -> None:
        answered = pools[pool].submit(self._answer, ask, asked_at)
        if ask.what in ("build", "warm"):
            for name, work in (("behind", self._finish), ("ahead", self._library.open_ahead)):
                answered.add_done_callback(partial(_submit, pools[name], work, ask.root))
        if pool == "first":
            answered.add_done_callback(lambda _: self._looked(ask.root))

    def _is_behind(self, root: str, start: Callable[[str], None]) -> bool:
        """Whether somebody looks at this new project already: ``start`` is then called after that with the pool, since
        who waited in a thread would only keep other new projects waiting."""
        with self._lock:
            if root in self._behind:
                self._behind[root].append(start)
                return True
            self._behind[root] = []
            return False

    def _looked(self, root: str) -> None:
        with self._lock:
            waiting = self._behind.pop(root)
        for start in waiting:
            start("known")

    def _answer(self, ask: Ask, asked_at: float) -> None:
        try:
            told = self._handle(ask, asked_at)
        except OSError as error:
            told = Told(number=ask.number, error=f"{error.strerror or error}: {ask.root}")
        except Exception as error:  # noqa: BLE001 - the edge of a request: the caller is told, the builder lives
            told = Told(number=ask.number, error=f"{type(error).__name__}: {error}")
        self._send(told)

    def _finish(self, root: str) -> None:
        """Behind an answer: complete the index, and keep it."""
        try:
            self._library.finish(root)
            self._library.save(root)
        except OSError:
            return  # a full or read-only disk costs the next start some seconds, nothing else

    def _send(self, message: Told | Stale) -> None:
        frame = encode(message)
        with self._send_lock:
            try:
                self._connection.sendall(frame)
            except OSError:
                os._exit(0)

    def _handle(self, ask: Ask, asked_at: float) -> Told:
        if ask.what == "build":
            return self._build(ask, asked_at)
        if ask.what == "glance":
            return self._glance(ask)
        if ask.what == "warm":
            epoch, _ = self._look(ask.root, lambda new: self._library.warm(ask.root, changed=new))
            return Told(number=ask.number, epoch=epoch)
        if ask.what == "verify":
            return self._verify(ask)
        if ask.what == "search":
            _, hits = self._look(
                ask.root, lambda new: self._library.search(ask.root, ask.query, ask.limit, changed=new)
            )
            return Told(number=ask.number, data={"hits": msgspec.to_builtins(hits)})
        if ask.what == "explain":
            order = ask.order
            assert order is not None
            _, why = self._look(ask.root, lambda _: self._library.explain(order))  # it looks at everything
            return Told(number=ask.number, data=why)
        if ask.what == "forget":
            self._forget(ask.root)
            return Told(number=ask.number)
        return Told(number=ask.number, data=self._library.stats())

    def _build(self, ask: Ask, asked_at: float) -> Told:
        order = ask.order
        assert order is not None
        epoch, answer = self._look(
            ask.root,
            lambda new: self._library.build(
                order, changed=new, known_generation=ask.known_generation, asked_at=asked_at
            ),
        )
        return Told(
            number=ask.number,
            body=answer.body,
            etag=answer.etag,
            generation=answer.generation,
            epoch=epoch,
            problems=answer.problems,
            is_same=not answer.body,
            is_watched=self._watch(ask.root).watch.is_alive,
        )

    def _glance(self, ask: Ask) -> Told:
        """A provisional answer; an empty one where a full one takes no longer."""
        assert ask.order is not None
        answer = None
        if not self._library.is_known(ask.root):
            answer = glance(ask.order, self._options.limits, hire=self._forks.assistant)
        if answer is None:
            return Told(number=ask.number)
        return Told(number=ask.number, body=answer.body, etag=answer.etag)

    def _look(self, root: str, work: Callable[[frozenset[str] | None], T]) -> tuple[int, T]:
        """The epoch of what ``work`` saw, and its result. It gets what changed since the last look (None: anything
        may have), and looks at that."""
        watched = self._watch(root)
        state = self._library.state(root)
        with state.lock:
            generation = state.generation
            # the epoch is read before the look: a change during the look makes a later epoch, so nothing is missed
            with self._lock:
                is_alive, epoch = watched.watch.is_alive, watched.epoch
                changed = watched.changed if is_alive else None
                watched.changed = frozenset() if is_alive else None
            try:
                result = work(changed)
            except Exception:
                with self._lock:
                    watched.changed = None  # what was taken has not been looked at
                raise
            with self._lock:
                # the watch saw nothing of what the look found, so answers that were made before have this epoch too
                is_missed = watched.refreshed == watched.epoch == epoch and state.generation != generation
                watched.epoch += is_missed
                epoch += is_missed
                watched.refreshed = epoch
        if is_missed:
            self._send(Stale(root=root, epoch=epoch))
        return epoch, result

    def _verify(self, ask: Ask) -> Told:
        """Compare every known file and report with its stamp; a difference that the watch missed makes a new epoch."""
        watched = self._watch(ask.root)
        state = self._library.state(ask.root)
        if watched.refreshed == watched.epoch and not (
            state.is_unchanged() and watched.watch.is_alive and not self._library.has_news(ask.root)
        ):
            self._changed(ask.root, None)
        return Told(number=ask.number, epoch=watched.epoch, is_watched=watched.watch.is_alive)

    def _watch(self, root: str) -> Watched:
        with self._lock:
            watched = self._watched.get(root)
            if watched is None or not (watched.watch.is_alive or watched.watch.is_starting):
                watched = Watched(Watch(root, lambda changed: self._changed(root, changed)))
                self._watched[root] = watched
                if self._options.is_watching:
                    watched.watch.start()
            watched.asked_at = time.monotonic()
            idle = [r for r, w in self._watched.items() if time.monotonic() - w.asked_at > _IDLE_S]
            given_up = {other: self._watched.pop(other) for other in idle}
        for other, lost in given_up.items():
            lost.watch.stop()
            # nobody sees its changes from now on, so what was built of it is to be compared again
            self._send(Stale(root=other, epoch=lost.epoch + 1))
        return watched

    def _changed(self, root: str, changed: frozenset[str] | None) -> None:
        with self._lock:
            watched = self._watched.get(root)
            if watched is None:
                return
            watched.epoch += 1
            epoch = watched.epoch
            known = watched.changed
            watched.changed = known | changed if known is not None and changed is not None else None
            if watched.changed is not None and len(watched.changed) > _MOST_CHANGED:
                watched.changed = None
        self._send(Stale(root=root, epoch=epoch))

    def _forget(self, root: str) -> None:
        with self._lock:
            watched = self._watched.pop(root, None)
        if watched is not None:
            watched.watch.stop()
        self._library.forget(root)


def _submit(pool: ThreadPoolExecutor, work: Callable[[str], None], root: str, _: Future[None]) -> None:
    pool.submit(work, root)


def main(argument: str) -> None:
    """Entry point of the process; ``argument`` is a BuilderOptions as JSON."""
    options = msgspec.json.decode(argument, type=BuilderOptions)
    # an index is millions of objects that never form cycles: full collections would only walk them
    gc.set_threshold(100_000, 50, 1000)
    connection = socket.socket(fileno=options.descriptor)
    os.set_inheritable(connection.fileno(), False)
    gc.freeze()  # what is there now stays, and is shared with the fork server
    Builder(connection, options, ForkServer(closing=(options.descriptor,))).serve()


if __name__ == "__main__":
    main(sys.argv[1])
