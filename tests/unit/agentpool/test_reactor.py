"""The loop of the workers: what is called, and what is not any more."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from functools import partial

import pytest

from agentpool.reactor import READ, WRITE, Reactor


@pytest.fixture(autouse=True, params=["epoll", "poll"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of asking the system: Linux has both, macOS ``poll`` alone."""
    if request.param == "poll":
        monkeypatch.delattr(select, "epoll", raising=False)
    elif not hasattr(select, "epoll"):
        pytest.skip("there is no epoll here")


@pytest.fixture
def pipes() -> Iterator[list[tuple[int, int]]]:
    """Two pipes; what a test closes itself it takes out."""
    made = [os.pipe(), os.pipe()]
    yield made
    for ends in made:
        for fd in ends:
            os.close(fd)


def test_a_callback_may_forget_another_that_is_ready_too(pipes: list[tuple[int, int]]) -> None:
    """Prevents a call for a descriptor that its owner has closed, or that means something else by now."""
    reactor, called = Reactor(), []

    def take(fd: int, _events: int) -> None:
        called.append(fd)
        for other, _ in pipes:
            reactor.forget(other)

    for read, write in pipes:
        os.write(write, b"x")
        reactor.watch(read, READ, partial(take, read))
    reactor.later(0.0, reactor.stop)
    reactor.run()
    assert len(called) == 1


def test_the_end_of_the_other_side_is_told_to_reader_and_writer(pipes: list[tuple[int, int]]) -> None:
    """Prevents an agent that closes a pipe from being waited for: the end is neither readable nor writable."""
    reactor = Reactor()
    told: dict[int, int] = {}
    (read, lost_write), (lost_read, write) = pipes
    os.close(lost_write)
    os.close(lost_read)
    pipes[:] = [(read, write)]
    for fd, events in ((read, READ), (write, WRITE)):
        reactor.watch(fd, events, partial(told.__setitem__, fd))
    reactor.turn()
    assert told == {read: READ, write: WRITE}


def test_watching_again_changes_for_what_and_whom(pipes: list[tuple[int, int]]) -> None:
    """Prevents a descriptor that keeps calling who watched it first, or that wakes for what nobody waits for."""
    reactor, called = Reactor(), []
    (read, write), _ = pipes
    os.write(write, b"x")
    reactor.watch(read, WRITE, lambda _events: called.append("first"))
    reactor.watch(read, READ, lambda _events: called.append("second"))
    reactor.turn()
    assert called == ["second"]


def test_a_descriptor_that_was_closed_too_early_is_forgotten(pipes: list[tuple[int, int]]) -> None:
    """Prevents one mistake from ending a worker with all its agents."""
    reactor = Reactor()
    called: list[int] = []
    read, write = pipes.pop()
    reactor.watch(read, READ, called.append)
    os.close(read)
    os.close(write)
    reactor.forget(read)
    reactor.later(0.0, reactor.stop)
    reactor.run()
    assert called == []


def test_timers_are_called_in_order_and_cancelled_ones_never() -> None:
    """Prevents an ending that comes twice, or a wait that lasts for ever."""
    reactor, called = Reactor(), []
    reactor.later(0.002, lambda: called.append("late"))
    reactor.later(0.0, lambda: called.append("early"))
    reactor.later(0.001, lambda: called.append("never")).cancel()
    reactor.later(0.003, reactor.stop)
    reactor.run()
    assert called == ["early", "late"]
