"""What every test gets: an event loop of its own, an isolated environment, and checks that nothing is left behind."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import logging
import os
import random
import signal
import uuid
from collections.abc import Callable, Coroutine, Iterator
from contextlib import nullcontext
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import pytest
import structlog
from blockbuster import blockbuster_ctx
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from tests.support.leaks import Snapshot
from tests.support.repo import sample_repository
from tests.support.server import Server

#: Calls of these packages inside a running event loop must not block it.
SERVER_PACKAGES = ["orchestrator", "agentpool", "api"]

#: Seconds that a test's threads, children and descriptors have to go away after it.
SETTLE_S = 5.0

#: Variables of git that would send a test's git commands to another repository.
GIT_VARIABLES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_PREFIX")

# A shell starts what runs in the background with these ignored, and what a test starts would inherit that.
for _number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)

hypothesis_settings.register_profile(
    "project",
    deadline=None,
    database=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
hypothesis_settings.load_profile("project")
#: The generation of objects that is collected after each example: what one left is young, and to look at all that a
#: worker holds by the end of a run takes a second, a hundred times over.
YOUNG = 1


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the chaos tests."""
    group = parser.getgroup("chaos")
    group.addoption("--chaos-seed", default="1", help="seed of the chaos tests, or 'random' (default: 1)")
    group.addoption("--chaos-rounds", type=int, default=1, help="how often a chaos test repeats its fault (default: 1)")


def pytest_report_header(config: pytest.Config) -> str:
    """Show the seed, so that a failed chaos run can be repeated."""
    return f"chaos: seed {config.option.chaos_seed}, rounds {config.option.chaos_rounds}"


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers that this file acts on; draw the chaos seed once, before xdist starts its workers."""
    if config.option.chaos_seed == "random":
        config.option.chaos_seed = str(random.SystemRandom().randrange(1, 1_000_000))
    config.addinivalue_line("markers", "allow_blocking(reason): a library blocks the loop in this test; why it may")
    config.addinivalue_line("markers", "allow_leaks(reason): this test leaves something behind; why it may")
    # multiprocessing keeps one such process for the life of ours; started here, no test is blamed for it.
    resource_tracker.ensure_running()


# -- async tests ------------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run ``async def`` tests, with and without hypothesis, in a fresh event loop each."""
    allowed = pyfuncitem.get_closest_marker("allow_blocking") is not None
    inner = getattr(getattr(pyfuncitem.obj, "hypothesis", None), "inner_test", None)
    if inspect.iscoroutinefunction(inner):
        pyfuncitem.obj.hypothesis.inner_test = _in_a_loop(inner, allowed, generation=YOUNG)
        return None
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    _in_a_loop(pyfuncitem.obj, allowed)(**arguments)
    return True


def _in_a_loop(
    test: Callable[..., Coroutine[Any, Any, None]], may_block: bool, *, generation: int = 2
) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        unhandled: list[dict[str, Any]] = []
        with nullcontext() if may_block else blockbuster_ctx(SERVER_PACKAGES):
            asyncio.run(_watched(test(*args, **kwargs), unhandled, generation), debug=False)
        if unhandled:
            described = "\n".join(f"{item.get('message')}: {item.get('exception')!r}" for item in unhandled)
            pytest.fail(f"exceptions that nothing handled in the event loop:\n{described}", pytrace=False)

    return run


async def _watched(test: Coroutine[Any, Any, None], unhandled: list[dict[str, Any]], generation: int) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    await test
    # A task that failed unseen reports it when it is collected.
    gc.collect(generation)


# -- isolation --------------------------------------------------------------------------------


@pytest.fixture(scope="session", autouse=True)
def _isolated_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A home of the tests' own: no settings, storage or git identity of the person who runs them."""
    home = tmp_path_factory.mktemp("home")
    (home / ".gitconfig").write_text(
        "[user]\n\tname = Test\n\temail = test@example.invalid\n"
        "[init]\n\tdefaultBranch = main\n[commit]\n\tgpgsign = false\n[safe]\n\tdirectory = *\n",
        encoding="utf-8",
    )
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("ORCHESTRATOR_", "XDG_", "AGENT_")) or name in GIT_VARIABLES:
                patch.delenv(name)
        patch.setenv("HOME", str(home))
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        patch.delenv("GIT_CONFIG_GLOBAL", raising=False)
        patch.setenv("GIT_TERMINAL_PROMPT", "0")
        # Output that tests read must not depend on the terminal that they were started from.
        patch.setenv("NO_COLOR", "1")
        patch.setenv("COLUMNS", "120")
        for name in ("FORCE_COLOR", "CLICOLOR_FORCE", "PYTHONASYNCIODEBUG"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    """Undo what a test did to logging; close the log files that it opened."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in root.handlers[:]:
        # pytest's own handlers come and go with the phases of a test.
        if handler not in handlers and not type(handler).__module__.startswith("_pytest"):
            root.removeHandler(handler)
            handler.close()
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """A storage directory that does not exist yet, as at a first start."""
    return tmp_path / "storage"


@pytest.fixture
def chaos_seed(request: pytest.FixtureRequest) -> int:
    """Seed of everything random in a chaos test; ``--chaos-seed`` sets it."""
    return int(request.config.option.chaos_seed)


@pytest.fixture
def chaos_rounds(request: pytest.FixtureRequest) -> int:
    """How often a chaos test repeats its fault; ``--chaos-rounds`` sets it."""
    return int(request.config.option.chaos_rounds)


# -- a running sidecar ------------------------------------------------------------------------


@pytest.fixture(scope="session")
def _shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("sidecar")
    project = sample_repository(directory / "sample")
    other = sample_repository(directory / "other", seed="other")
    environment = {"ORCHESTRATOR_RATE_LIMITS": "off"}
    with Server(directory / "storage", {"sample": project, "other": other}, environment=environment) as server:
        yield server


@pytest.fixture
def sidecar(_shared_server: Server) -> Iterator[Server]:
    """A running sidecar with the projects ``sample`` (default) and ``other``, rate limits off.

    It is shared by all tests of one pytest process: use issue ids of your own (``issue``), and never stop it.
    """
    yield _shared_server
    _shared_server.close_clients()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A sidecar of the test's own, running, that may be killed, restarted or reconfigured."""
    project = sample_repository(tmp_path / "sample")
    with Server(tmp_path / "storage", {"sample": project}) as own:
        yield own


@pytest.fixture
def issue() -> str:
    """An issue id that no other test uses."""
    return f"issue-{uuid.uuid4().hex[:12]}"


# -- leaks ------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a child process, a non-daemon thread or a descriptor behind."""
    if request.node.get_closest_marker("allow_leaks") is not None:
        yield
        return
    before = Snapshot.take()
    yield
    leaks = before.leaks(settle_s=SETTLE_S)
    if leaks:
        pytest.fail("the test left behind:\n  " + "\n  ".join(leaks), pytrace=False)
