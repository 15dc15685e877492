"""The builder's bookkeeping of watches; its life as a process is tested with the engine."""

from __future__ import annotations

import socket
from pathlib import Path
from unittest.mock import Mock

import pytest

from orchestrator.context import builder as module
from orchestrator.context.builder import Builder, BuilderOptions
from orchestrator.context.frames import Ask, Stale, Told, decode_answer, receive
from orchestrator.context.project import Limits
from tests.support.repo import sample_repository


def test_a_watch_that_is_given_up_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What changed after half an hour without a request was missed: the supervisor believed in a watch that had ended,
    and its next one counted from 1 again."""
    first, second = (str(sample_repository(tmp_path / name).resolve()) for name in "ab")
    ours, theirs = socket.socketpair()
    options = BuilderOptions(
        descriptor=theirs.fileno(), limits=Limits(), capacity=1 << 28, state_dir="", is_watching=False
    )
    with ours, theirs:
        builder = Builder(theirs, options, Mock())

        def ask(root: str) -> list[Told | Stale]:
            builder._answer(Ask(number=1, what="verify", root=root), 0.0)
            messages: list[Told | Stale] = []
            while not messages or isinstance(messages[-1], Stale):
                payload = receive(ours)
                assert payload is not None
                messages.append(decode_answer(payload))
            return messages

        (before,) = ask(first)
        monkeypatch.setattr(module, "_IDLE_S", 0.0)
        stale = [message for message in ask(second) if isinstance(message, Stale) and message.root == first]
        assert [message.epoch > before.epoch for message in stale] == [True]
        monkeypatch.setattr(module, "_IDLE_S", 1800.0)
        assert ask(first)[-1].epoch > stale[0].epoch
