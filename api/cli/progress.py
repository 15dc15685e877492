"""A run while it goes on: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from api.cli.agents import progress_text
from api.cli.output import Output, plain
from api.cli.status import duration

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from rich.live import Live
    from rich.table import Table

_STYLES = {
    "completed": "green",
    "failed": "red",
    "killed": "red",
    "timed_out": "red",
    "cancelled": "red",
    "running": "cyan",
    "starting": "cyan",
}
_STEP_FINAL = frozenset({"completed", "failed", "killed", "timed_out", "cancelled", "skipped"})


class RunProgress:
    """Shows each step's status, time and last message; a context manager around the run's life."""

    def __init__(self, out: Output, task: str, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._task = task
        self._monotonic = monotonic
        self._live: Live | None = None
        self._steps: list[Mapping[str, Any]] = []
        self._phase = ""
        self._began: dict[str, float] = {}
        self._took: dict[str, float] = {}
        self._said: dict[str, tuple[str, str]] = {}
        self._messages: dict[str, str] = {}

    def __enter__(self) -> Self:
        import sys

        if not self._out.is_quiet and self._out.is_terminal(sys.stderr):
            from rich.live import Live

            console = self._out.console(sys.stderr)
            self._live = Live(get_renderable=self._table, console=console, refresh_per_second=5, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, run: Mapping[str, Any], agents: Mapping[str, Mapping[str, Any]]) -> None:
        """Take the run as it is now, and the records of its agents by id."""
        self._steps = run["steps"]
        self._phase = str(run["status"])
        now = self._monotonic()
        for step in self._steps:
            name, status = str(step["step"]), self._status(step, agents)
            if step.get("agent_id") and name not in self._began and status not in ("pending", "queued"):
                self._began[name] = now
            if status in _STEP_FINAL and name in self._began and name not in self._took:
                self._took[name] = now - self._began[name]
            record = agents.get(str(step.get("agent_id"))) or {}
            message = progress_text(record)
            self._messages[name] = plain(record.get("error") or message).replace("\n", " ")
            self._tell(name, str(step["agent_type"]), status)
        if self._live is not None:
            self._live.refresh()

    def _status(self, step: Mapping[str, Any], agents: Mapping[str, Mapping[str, Any]]) -> str:
        record = agents.get(str(step.get("agent_id")))
        if record is not None:
            return str(record["status"])
        # A step runs from when its agent was asked for: until that one is known it did not even start.
        status = str(step["status"])
        return "queued" if status == "running" else status

    def _tell(self, name: str, agent_type: str, status: str) -> None:
        now = (status, self._messages[name])
        before, self._said[name] = self._said.get(name), now
        if self._live is not None or before == now or status == "pending":
            return
        took = f" in {duration_exact(self._took[name])}" if name in self._took else ""
        message = f": {now[1]}" if now[1] else ""
        self._out.note(f"{agent_type} {status}{took}{message}")

    def _table(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", expand=True)
        table.add_column(Text("agent"), no_wrap=True)
        table.add_column(Text("status"), no_wrap=True)
        table.add_column(Text("time"), no_wrap=True, justify="right")
        table.add_column(Text(plain(self._task)), no_wrap=True, overflow="ellipsis", ratio=1)
        for step in self._steps:
            name = str(step["step"])
            status = self._said.get(name, ("", ""))[0]
            table.add_row(
                Text(plain(step["agent_type"])),
                Text(status, style=_STYLES.get(status, "dim")),
                Text(self._elapsed(name)),
                Text(self._messages.get(name, ""), style="dim"),
            )
        return table

    def _elapsed(self, name: str) -> str:
        if name in self._took:
            return duration_exact(self._took[name])
        return duration_exact(self._monotonic() - self._began[name]) if name in self._began else ""


def duration_exact(seconds: float) -> str:
    """``seconds`` with a tenth below a minute."""
    return f"{seconds:.1f}s" if seconds < 60 else duration(seconds)
