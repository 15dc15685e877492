"""Watching project trees: one thread a project, which says when something below the root changed."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable

from watchfiles import Change, watch

#: Inside ``.git`` only these say something about the project's state.
_GIT_STATE = ("HEAD", "index", "packed-refs", "config", "shallow")
_STEP_MS = 20
_DEBOUNCE_MS = 60


class Watch:
    """Watches ``root`` until ``stop``; ``on_change`` is called in the watching thread, with the paths that changed
    (relative to the root) or None when anything may have.

    ``is_alive`` is False when watching is impossible (too many directories, no inotify): look for yourself then.
    """

    def __init__(self, root: str, on_change: Callable[[frozenset[str] | None], None]) -> None:
        self._root = os.path.realpath(root)
        self._on_change = on_change
        self._stop = threading.Event()
        self.is_alive = False
        self.is_starting = True
        self._thread = threading.Thread(target=self._run, name=f"watch {root}", daemon=True)

    def start(self) -> None:
        """Begin; events from before the first are covered by ``on_change`` being called once when ready."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; returns at once, it ends within a step."""
        self._stop.set()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread's end."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            events = watch(
                self._root,
                watch_filter=self._counts,
                step=_STEP_MS,
                debounce=_DEBOUNCE_MS,
                stop_event=self._stop,
                rust_timeout=500,
                yield_on_timeout=True,
                raise_interrupt=False,
            )
            for changes in events:
                if not self.is_alive:
                    self.is_alive, self.is_starting = True, False
                    self._on_change(None)
                elif changes:
                    self._on_change(self._relative(path for _, path in changes))
                if not os.path.isdir(self._root):
                    break
        except (OSError, RuntimeError):  # watchfiles raises these when the platform refuses
            pass
        finally:
            self.is_alive = self.is_starting = False
            self._on_change(None)

    def _relative(self, paths: Iterable[str]) -> frozenset[str] | None:
        """Paths below the root; None when git's state is among them, or a name that did not come through as it is."""
        found = frozenset(os.path.relpath(path, self._root) for path in paths)
        return None if any("\ufffd" in path or ".git" in path.split(os.sep) or path == "." for path in found) else found

    def _counts(self, _: Change, path: str) -> bool:
        """Drop what is outside the real root (watchfiles follows links) and the noise inside ``.git``."""
        if path != self._root and not path.startswith(self._root + os.sep):
            return False
        directory = os.path.realpath(os.path.dirname(path))
        if directory != self._root and not directory.startswith(self._root + os.sep):
            return False
        parts = os.path.relpath(path, self._root).split(os.sep)
        if ".git" not in parts:
            return True
        inside = parts[parts.index(".git") + 1 :]
        if not inside or inside[-1].endswith(".lock"):
            return False
        return inside[0] in _GIT_STATE or inside[0] == "refs"
