"""The builder's bookkeeping of watches; its life as a process is tested with the engine."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest

from orchestrator.context import builder as module
from orchestrator.context.builder import Builder, BuilderOptions
from orchestrator.context.frames import Ask, Stale, Told, decode_answer, receive
from orchestrator.context.metadata import describe
from orchestrator.context.project import Limits
from tests.support.context import order
from tests.support.repo import commit_all, sample_repository
from tests.support.waiting import until


@contextmanager
def _builder(*, is_watching: bool) -> Iterator[Callable[..., list[Told | Stale]]]:
    """Asks a builder and gives what it sent until its answer, which comes last."""
    ours, theirs = socket.socketpair()
    options = BuilderOptions(
        descriptor=theirs.fileno(), limits=Limits(), capacity=1 << 28, state_dir="", is_watching=is_watching
    )
    with ours, theirs:
        builder = Builder(theirs, options, Mock())

        def ask(what: str, root: str, **fields: Any) -> list[Told | Stale]:
            asked = msgspec.convert({"number": 1, "what": what, "root": root}, Ask)
            builder._answer(msgspec.structs.replace(asked, **fields), 0.0)
            messages: list[Told | Stale] = []
            while not messages or isinstance(messages[-1], Stale):
                payload = receive(ours)
                assert payload is not None
                messages.append(decode_answer(payload))
            return messages

        yield ask


def test_a_watch_that_is_given_up_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What changed after half an hour without a request was missed: the supervisor believed in a watch that had ended,
    and its next one counted from 1 again."""
    first, second = (str(sample_repository(tmp_path / name).resolve()) for name in "ab")
    with _builder(is_watching=False) as ask:
        (before,) = ask("verify", first)
        monkeypatch.setattr(module, "_IDLE_S", 0.0)
        stale = [message for message in ask("verify", second) if isinstance(message, Stale) and message.root == first]
        assert [message.epoch > before.epoch for message in stale] == [True]
        monkeypatch.setattr(module, "_IDLE_S", 1800.0)
        assert ask("verify", first)[-1].epoch > stale[0].epoch


@pytest.mark.parametrize("what", ["build", "explain"])
def test_what_one_look_finds_is_news_for_all_answers(tmp_path: Path, what: str) -> None:
    """A commit above the project, which no watch sees, was missing in new tasks' contexts; and when something else
    looked at the project, cached contexts passed for current from then on: nothing differed from the last look."""
    top = sample_repository(tmp_path / "repository")
    root = top / "ledger"
    with _builder(is_watching=True) as ask:

        def build(task: str) -> Told:
            told = ask("build", str(root), order=order(root, task))[-1]
            assert isinstance(told, Told)
            assert not told.error
            return told

        until(lambda: build("account").is_watched)
        # files that had just been written are looked at once more
        until(lambda: build("account").epoch == ask("verify", str(root))[-1].epoch)
        cached = build("account")
        commit_all(top, "Nothing else")
        *stale, _ = ask(what, str(root), order=order(root, "money"))
        assert [message.epoch > cached.epoch for message in stale] == [True]
        again = build("account")
        assert again.epoch == stale[0].epoch
        assert again.generation > cached.generation
        ask("forget", str(root))


def test_what_cannot_be_described_is_told_to_the_supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The builder has no log: what failed there was known to nobody."""
    root = sample_repository(tmp_path / "r")
    monkeypatch.setattr(describe, "last_build", lambda *_: {})
    with _builder(is_watching=False) as ask:
        told = ask("build", str(root), order=order(root))[-1]
    assert isinstance(told, Told)
    assert told.problems == ("last_build: KeyError",)
