"""The reports that a project keeps of its tests: which there are, and what they said, read once for each state."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, TypeVar

import msgspec

from orchestrator.context.digest import lasting
from orchestrator.context.metadata import coverage
from orchestrator.context.metadata.builds import Run, runs
from orchestrator.context.models import Stamp
from orchestrator.context.reading import Reader

T = TypeVar("T")


class Reports(msgspec.Struct, frozen=True):
    """The files with their stamps, those of coverage the most telling first; equal as long as none has changed."""

    coverage: dict[str, Stamp]
    runs: list[Run]

    @property
    def paths(self) -> set[str]:
        """All of the files."""
        return {*self.coverage, *(path for run in self.runs for path in run.stamps)}

    def lasting(self) -> Reports:
        """The same to compare later ones with, where a file that may yet change under its stamp has changed."""
        return Reports(
            {path: lasting(stamp) for path, stamp in self.coverage.items()},
            [msgspec.structs.replace(run, stamps=_lasting(run.stamps)) for run in self.runs],
        )


def _lasting(stamps: dict[str, Stamp]) -> dict[str, Stamp]:
    return {path: lasting(stamp) for path, stamp in stamps.items()}


def find_reports(reader: Reader) -> Reports:
    """The project's reports. They are mostly ignored by git, so they are looked for by name."""
    stamps = {path: reader.stamp(path) for path in coverage.REPORTS}
    return Reports({path: stamp for path, stamp in stamps.items() if stamp is not None}, runs(reader))


class Outcomes:
    """What the reports of one project said."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Stamp, Any]] = {}

    def get(self, path: str, stamp: Stamp, read: Callable[[], T]) -> T:
        """What ``read`` gave when the file at ``path`` had this stamp; it is called when the file has a new one."""
        known = self._known.get(path)
        if known is None or known[0] != stamp:
            known = self._known[path] = (lasting(stamp), read())
        outcome: T = known[1]
        return outcome

    def keep_only(self, paths: Collection[str]) -> None:
        """Forget other files."""
        if len(self._known) > len(paths):
            self._known = {path: self._known[path] for path in paths if path in self._known}
