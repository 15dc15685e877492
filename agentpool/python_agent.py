"""Runs ``module:function`` as an agent in this process; the same code warm (forked) and cold (executed)."""

from __future__ import annotations

import atexit
import importlib
import os
import sys
from collections.abc import Callable, Mapping

from agentpool.agent import Agent

TYPE_CHECKING = False
if TYPE_CHECKING:  # without the cost of ``typing``
    from typing import Any


def run_target(target: str, environ: Mapping[str, str] | None = None) -> int:
    """Call the function with an Agent; the exit status it comes to.

    A mapping that it returns is given as the result. An exception is a traceback on stderr and 1;
    SystemExit has its usual meaning. ``environ`` is the environment as a plain mapping where there is one:
    asking ``os.environ`` takes longer.
    """
    try:
        function = load_target(target)
    except Exception as error:  # noqa: BLE001 - the edge of an agent's process: its module may raise anything
        sys.excepthook(*sys.exc_info())  # as the interpreter does it, without a module for it
        print(f"agent {target}: cannot be loaded: {error}", file=sys.stderr)  # noqa: T201 - stderr is its log
        return 1
    try:
        agent = Agent(environ)
        value = function(agent)
        if type(value) is dict or isinstance(value, Mapping):  # to ask an abstract class copies 11 pages
            agent.result(value)
    except SystemExit as stop:
        return exit_status(stop.code)
    except BaseException:  # noqa: BLE001 - the edge of an agent's process
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def load_target(target: str) -> Callable[[Agent], Any]:
    """The callable that ``module:function`` names. Raises ImportError, AttributeError or TypeError."""
    module_name, _, function_name = target.partition(":")
    # A preloaded module is taken as it is: each page that a forked agent writes to on its way is copied for it.
    module = sys.modules.get(module_name) or importlib.import_module(module_name)
    found: Any = module
    for name in function_name.split("."):
        found = getattr(found, name)
    if not callable(found):
        raise TypeError(f"{target} is not callable")
    function: Callable[[Agent], Any] = found
    return function


def exit_status(code: object) -> int:
    """What ``sys.exit(code)`` means as a status; a text goes to stderr and means 1."""
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)  # noqa: T201 - what the interpreter itself does
    return 1


def finish(status: int) -> None:
    """End this process as the interpreter would, without taking the preloaded modules apart."""
    # Joins non-daemon threads, as at any exit; there are none where nobody has imported the module.
    shutdown = getattr(sys.modules.get("threading"), "_shutdown", None)
    try:
        if shutdown is not None:
            shutdown()
        run_exit_functions = getattr(atexit, "_run_exitfuncs", None)
        if run_exit_functions is not None:
            run_exit_functions()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except BaseException:  # noqa: BLE001 - the last thing that this process does
        status = status or 120  # what the interpreter gives when its last flush fails
    os._exit(status)


if __name__ == "__main__":
    sys.path[0] = os.getcwd()
    finish(run_target(sys.argv[1]))
