"""The test infrastructure itself: a check that never fails protects nothing."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.leaks import Snapshot

FAILING = """
import asyncio, os, subprocess, sys, threading, time
import pytest
from orchestrator.privacy import make_private_directory

KEPT = []

async def test_assertion_in_a_coroutine():
    assert False

async def test_blocking_call_in_the_loop(tmp_path):
    make_private_directory(tmp_path / "logs")

async def test_exception_that_nobody_sees():
    async def fail():
        raise ValueError("unseen")
    task = asyncio.ensure_future(fail())
    await asyncio.sleep(0.01)
    del task

def test_leaves_a_child():
    KEPT.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"]))

def test_leaves_a_descriptor(tmp_path):
    KEPT.append(os.open(tmp_path / "x", os.O_CREAT | os.O_RDWR))

def test_leaves_a_thread():
    event = threading.Event()
    KEPT.append(event)
    threading.Thread(target=event.wait, args=(30,)).start()

def teardown_module():
    for thing in KEPT:
        if isinstance(thing, subprocess.Popen):
            thing.kill()
            thing.wait()
        elif isinstance(thing, threading.Event):
            thing.set()
        else:
            os.close(thing)
"""


def test_each_check_fails_what_it_should(tmp_path: Path) -> None:
    """A fixture that is not wired in would let leaks, blocking calls and unseen exceptions through."""
    root = Path(__file__).parents[3]
    (tmp_path / "conftest.py").write_text(
        (root / "tests" / "conftest.py").read_text().replace("SETTLE_S = 5.0", "SETTLE_S = 0.3")
    )
    (tmp_path / "test_failing.py").write_text(FAILING)
    command = [sys.executable, "-m", "pytest", "-p", "no:randomly", "-p", "no:cacheprovider", "-q", "-c", os.devnull]
    command += ["--import-mode=importlib", "-W", "error", f"--rootdir={tmp_path}", str(tmp_path)]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(root)}, capture_output=True, text=True, timeout=100
    )
    report = done.stdout
    assert done.returncode == 1, report
    assert "FAILED test_failing.py::test_assertion_in_a_coroutine" in report
    assert "FAILED test_failing.py::test_blocking_call_in_the_loop - blockbuster" in report
    assert "FAILED test_failing.py::test_exception_that_nobody_sees" in report
    for leak in ("child", "descriptor", "thread"):
        assert f"ERROR test_failing.py::test_leaves_a_{leak} - Failed: the test left behind" in report


async def test_a_coroutine_gets_its_fixtures(tmp_path: Path) -> None:
    """Without the hook an async test is skipped with a warning and proves nothing."""
    assert tmp_path.is_dir()
    assert asyncio.get_running_loop().is_running()


@given(number=st.integers())
async def test_hypothesis_runs_coroutines(number: int) -> None:
    """Hypothesis refuses coroutine functions unless the hook wraps them."""
    await asyncio.sleep(0)
    assert number == number


def test_the_environment_is_the_tests_own() -> None:
    """The developer's own sidecar, settings or git identity must not be reached from tests."""
    assert not [name for name in os.environ if name.startswith(("ORCHESTRATOR_", "XDG_"))]
    name = subprocess.run(["git", "config", "user.name"], capture_output=True, text=True, cwd="/", check=True).stdout
    assert name == "Test\n"


def test_settling_waits_for_a_thread_that_is_about_to_end() -> None:
    """A check without patience would fail tests whose threads end a moment later."""
    before = Snapshot.take()
    release = threading.Event()
    thread = threading.Thread(target=release.wait, args=(30,))
    thread.start()
    assert before.leaks(settle_s=0) == [f"thread {thread.name}"]
    threading.Timer(0.05, release.set).start()
    assert before.leaks(settle_s=10) == []


@pytest.mark.allow_leaks("the marker is what is tested")
def test_a_leak_can_be_allowed(tmp_path: Path) -> None:
    """A test that cannot avoid a leak must be able to say so."""
    leaked = os.open(tmp_path / "leaked", os.O_CREAT | os.O_RDWR)
    try:
        assert Snapshot.take().descriptors
    finally:
        os.close(leaked)
