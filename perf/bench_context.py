"""Speed of the context engine against reading the project once, in the same run, interleaved, medians.

    python perf/bench_context.py [--project DIR] [--files 1000] [--rounds 5]

Without ``--project`` a project is generated from the sources of the running Python's standard library.
The 119 agents are the shipped roles, each with a task of its own: what a module of the standard library says of itself.
Seconds of a clock unless the name says ``work``: processor time of the process and of git, which other load changes
less.
Prints one JSON object; see ``docs/discussion/context.md`` for figures.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from orchestrator.context.forkserver import ForkServer
from orchestrator.context.library import Library
from orchestrator.context.models import BuildOrder, Role
from orchestrator.context.process import BuilderProcess
from orchestrator.context.project import Limits
from orchestrator.context.provisional import glance
from orchestrator.profiles import Profiles

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from perf.machine import facts

TASKS = (
    "fix the parser of header fields when a line is folded",
    "timeout of the connection pool is ignored after a retry",
    "decode surrogate escapes in file names before logging them",
    "json encoder fails on circular references in nested lists",
    "subprocess pipes are not closed when the child is killed",
    "date formatting ignores the time zone of aware values",
)
#: Tasks that one agent has alone before and after the 119 have theirs.
_ALONE = 12


def generate(directory: Path, files: int) -> None:
    """A git project of ``files`` Python files, copies of the standard library's under new names."""
    sources = [p for p in sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py")) if "site-packages" not in str(p)]
    for number in range(files):
        source = sources[number % len(sources)]
        target = directory / f"part{number // 50}" / f"m{number}_{source.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    for command in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=b", "-c", "user.email=b@b", "commit", "-qm", "Begin"],
    ):
        subprocess.run(["git", "-C", str(directory), *command], check=True)


def read_once(root: str) -> int:
    """The baseline: ``git ls-files`` and every byte once."""
    listed = subprocess.run(["git", "-C", root, "ls-files", "-z"], check=True, capture_output=True).stdout
    total = 0
    for name in listed.split(b"\0"):
        if name:
            with open(os.path.join(os.fsencode(root), name), "rb") as file:
                total += len(file.read())
    return total


def order_for(root: str, task: str, role: str = "python-specialist") -> BuildOrder:
    """A build of 100 kB."""
    return BuildOrder(
        project_id="bench",
        root=root,
        issue_id="bench",
        role=Role(agent_type=role),
        task=task,
        max_bytes=100_000,
        now=time.time(),
    )


def team(root: str) -> tuple[list[BuildOrder], list[BuildOrder]]:
    """The orders of all roles, each with a task of its own, and those of some of the roles alone with further tasks."""
    roles = [
        Role(
            agent_type=profile.agent_type,
            category=profile.category,
            permission_class=profile.permission_class,
            include=profile.context.include,
            exclude=profile.context.exclude,
            requirements=tuple(dict.fromkeys(profile.context.requirements)),
        )
        for profile in Profiles().list()
    ]
    texts = []
    for source in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")) + sorted(
        Path(asyncio.__file__).parent.glob("*.py")
    ):
        said = ast.get_docstring(ast.parse(source.read_bytes())) or ""
        texts += [said.partition("\n\n")[0]] if len(said) > 20 else []
    orders = [
        msgspec.structs.replace(order_for(root, text), role=role)
        for role, text in zip([*roles, *roles[:: len(roles) // (2 * _ALONE)]], texts, strict=False)
    ]
    return orders[: len(roles)], orders[len(roles) :]


def timed(action: Callable[[], object]) -> float:
    """Seconds that ``action`` takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def worked(action: Callable[[], object]) -> float:
    """Seconds of processor time that ``action`` takes here and in programs that it waits for."""
    before = os.times()
    action()
    after = os.times()
    return sum(after[:4]) - sum(before[:4])


def measure_cold(root: str, rounds: int, forks: ForkServer) -> tuple[dict[str, float], Library]:
    """First answers with assistants, as the builder gives them, and alone; and the last one's library. Provisional ones
    for a task of a line, and for one of so many words that only the rarest are looked for."""
    read_once(root)
    baseline, cold, alone, work = [], [], [], []
    glances, long_glances = [], []
    for _ in range(rounds):
        baseline.append(timed(lambda: read_once(root)))
        glances.append(timed(lambda: glance(order_for(root, TASKS[0]), Limits(), hire=forks.assistant)))
        long_glances.append(timed(lambda: glance(order_for(root, "\n".join(TASKS)), Limits(), hire=forks.assistant)))
        library = Library(Limits(), 1 << 30)
        alone.append(timed(lambda: library.build(order_for(root, TASKS[0]))))  # noqa: B023 - called at once
        library = Library(Limits(), 1 << 30)
        work.append(worked(lambda: library.build(order_for(root, TASKS[0]))))  # noqa: B023
        library = Library(Limits(), 1 << 30, hire=forks.assistant)
        cold.append(timed(lambda: library.build(order_for(root, TASKS[0]))))  # noqa: B023
    least_work = min(worked(lambda: [read_once(root) for _ in range(20)]) / 20 for _ in range(3))
    return {
        "baseline_s": statistics.median(baseline),
        "provisional_s": statistics.median(glances),
        "provisional_ratio": statistics.median(c / b for c, b in zip(glances, baseline, strict=True)),
        "provisional_long_task_ratio": statistics.median(c / b for c, b in zip(long_glances, baseline, strict=True)),
        "cold_s": statistics.median(cold),
        "cold_ratio": statistics.median(c / b for c, b in zip(cold, baseline, strict=True)),
        "cold_alone_ratio": statistics.median(c / b for c, b in zip(alone, baseline, strict=True)),
        "cold_alone_work_ratio": statistics.median(work) / least_work,
    }, library


def measure_changed(root: str, rounds: int, library: Library) -> dict[str, float]:
    """Answers after one file changed, of which the watch told, and after a look at everything."""
    told, everything, work = [], [], []
    victim = next(Path(root).rglob("*.py"))
    changed = {str(victim.relative_to(root))}
    text = victim.read_bytes()

    def change(number: int) -> None:
        victim.write_bytes(text + f"\n# change {number}\n".encode())

    try:
        for number in range(rounds):
            change(3 * number)
            told.append(timed(lambda: library.build(order_for(root, TASKS[1]), changed=changed)))
            change(3 * number + 1)
            work.append(worked(lambda: library.build(order_for(root, TASKS[1]), changed=changed)))
            change(3 * number + 2)
            everything.append(timed(lambda: library.build(order_for(root, TASKS[1]))))
    finally:
        victim.write_bytes(text)
    return {
        "changed_file_s": statistics.median(told),
        "changed_file_work_s": statistics.median(work),
        "changed_file_full_look_s": statistics.median(everything),
    }


def measure(root: str, rounds: int) -> dict[str, float]:
    """Medians in seconds, and ratios to the baseline of the same round."""
    gc.set_threshold(100_000, 50, 1000)  # as the builder has it
    forks = ForkServer()
    try:
        figures, library = measure_cold(root, rounds, forks)
        library.finish(root)  # as the builder does behind its answer
        library.open_ahead(root)  # and ahead of the next
        return figures | measure_warm(root, rounds, library, figures["cold_s"])
    finally:
        forks.close()


def measure_warm(root: str, rounds: int, library: Library, cold_s: float) -> dict[str, float]:
    """Answers of an index that is there."""

    def fresh(task: str) -> float:
        return timed(lambda: library.build(order_for(root, task), changed=()))

    warm = [fresh(task) for task in TASKS * 3]
    again = [fresh(task) for task in TASKS]
    changed = measure_changed(root, rounds, library)
    agents, single = team(root)
    alone = [timed(lambda: library.build(order, changed=())) for order in single[:_ALONE]]  # noqa: B023
    together = timed(lambda: [library.build(order, changed=()) for order in agents])
    alone += [timed(lambda: library.build(order, changed=())) for order in single[_ALONE:]]  # noqa: B023
    return {
        "new_task_median_s": statistics.median(warm),
        "new_task_worst_s": max(warm),
        "same_task_s": statistics.median(again),
        **changed,
        "agent_warm_s": statistics.median(alone),
        "agents_119_s": together,
        "agents_119_ratio": together / cold_s,
        "agents_119_warm_ratio": together / statistics.median(alone),
    }


async def measure_loop(root: str, state_dir: Path) -> dict[str, float]:
    """The longest time that the event loop stood still while a builder process built the project from nothing."""
    builder = BuilderProcess(Limits(), 1 << 30, state_dir, on_stale=lambda root, epoch: None, on_lost=lambda: None)
    await builder.start()
    worst = 0.0
    is_done = asyncio.Event()

    async def watch() -> None:
        nonlocal worst
        while not is_done.is_set():
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            worst = max(worst, time.perf_counter() - before - 0.001)

    watching = asyncio.create_task(watch())
    start = time.perf_counter()
    await builder.ask(what="build", root=root, order=order_for(root, TASKS[0]))
    took = time.perf_counter() - start
    is_done.set()
    await watching
    await builder.stop()
    return {"process_cold_s": took, "loop_worst_s": worst}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = arguments.project.resolve() if arguments.project else Path(scratch, "project").resolve()
        if not arguments.project:
            root.mkdir()
            generate(root, arguments.files)
        figures = measure(str(root), arguments.rounds)
        figures |= asyncio.run(measure_loop(str(root), Path(scratch, "state")))
    json.dump({"machine": facts(), "files": arguments.files, **figures}, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
