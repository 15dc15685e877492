"""The environment that agents get."""

from __future__ import annotations

import re

import pytest

from orchestrator.agents.environment import (
    MAX_TASK_BYTES,
    check_environment,
    inherited_environment,
    new_traceparent,
    task_for_environment,
)
from orchestrator.errors import BadRequest


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AGENT_ID", "other"),
        ("JWT_TOKEN", "x"),
        ("ORCHESTRATOR_AGENT_NONCE", "x"),
        ("LD_PRELOAD", "/evil.so"),
        ("DYLD_INSERT_LIBRARIES", "/evil.dylib"),
        ("BASH_ENV", "/evil.sh"),
        ("BASH_FUNC_ls%%", "() { :; }"),
        ("1X", "x"),
        ("A-B", "x"),
        ("", "x"),
        ("OK", "nul\x00"),
        ("OK", "\ud800"),
        ("OK", "x" * 200_000),
    ],
)
def test_refused_and_named(name: str, value: str) -> None:
    """A spawn request could act as another agent or load code of its own into one."""
    with pytest.raises(BadRequest) as caught:
        check_environment({name: value})
    assert caught.value.details["field"].startswith("environment.")


def test_ordinary_variables_pass() -> None:
    """A check that refuses everything would pass the test above."""
    check_environment({"FOO": "bar", "_X": "", "NODE_OPTIONS": "--max-old-space-size=64"})


def test_only_what_is_listed_is_inherited() -> None:
    """Secrets of the supervisor's own environment reached every agent."""
    environ = {"PATH": "/bin", "LC_ALL": "C", "AWS_SECRET_ACCESS_KEY": "s", "JWT_TOKEN": "t", "KEPT": "1"}
    assert inherited_environment(environ, ("KEPT", "JWT_TOKEN")) == {"PATH": "/bin", "LC_ALL": "C", "KEPT": "1"}


def test_traceparent_has_the_standard_form() -> None:
    """Tracers drop a malformed traceparent without a word."""
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", new_traceparent())


def test_long_task_is_cut_between_characters() -> None:
    """A task over the kernel's limit made every start fail, or was cut inside a character."""
    task = "é" * MAX_TASK_BYTES
    cut = task_for_environment(task)
    assert len(cut.encode()) <= MAX_TASK_BYTES
    assert task.startswith(cut)
    assert task_for_environment("short") == "short"
