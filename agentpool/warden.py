"""The last watcher: a shell that kills every agent's cgroup once the supervisor and all workers are gone at once.

When a worker dies the supervisor ends its agents, and when the supervisor dies the workers do. Nobody is left
to do it when both are killed in one moment. The warden holds the read end of a pipe whose write ends only they
have; at its end of file, which the kernel makes whatever killed them, it writes to ``cgroup.kill``. That ends
whole trees, where a parent's death signal reaches children only and costs every agent one more ``execve``.
"""

from __future__ import annotations

import os
import signal
import threading

SHELL = "/bin/sh"
#: It must outlive what asks everybody to end; KILL takes it, and the supervisor then starts another.
SCRIPT = "trap '' HUP INT TERM QUIT; read line; echo 1 > \"$1/cgroup.kill\""


class Warden:
    """Watches over one pool's cgroup directory. Raises OSError when it cannot be started; nothing is left then."""

    def __init__(self, cgroup_dir: str) -> None:
        self._cgroup_dir = cgroup_dir
        self.pid = 0
        # A look at it may still be under way in a thread when the pool stops.
        self._lock = threading.Lock()
        self._is_stopped = False
        self._watched, self.tether = os.pipe()
        try:
            self._start()
        except OSError:
            self._close()
            raise

    def ensure(self) -> bool:
        """Start it again when it is gone, unless it was stopped; False when it had to be.

        Raises OSError when it cannot be started.
        """
        with self._lock:
            if self._is_stopped or self._is_alive():
                return True
            self._start()
            return False

    def stop(self) -> None:
        """End it without any killing, for good; harmless when it is gone. Blocks for the moment that takes."""
        with self._lock:
            self._is_stopped = True
            if self._is_alive():
                os.kill(self.pid, signal.SIGKILL)  # our child, not reaped: the number is still its own
                try:
                    os.waitpid(self.pid, 0)
                except ChildProcessError:
                    pass
            self.pid = 0
            self._close()

    def _start(self) -> None:
        null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        actions = [
            (os.POSIX_SPAWN_DUP2, self._watched, 0),
            (os.POSIX_SPAWN_DUP2, null, 1),
            (os.POSIX_SPAWN_DUP2, null, 2),
        ]
        try:
            argv = [SHELL, "-c", SCRIPT, "warden", self._cgroup_dir]
            self.pid = os.posix_spawn(SHELL, argv, {}, file_actions=actions, setsid=True)
        finally:
            os.close(null)

    def _is_alive(self) -> bool:
        if not self.pid:
            return False
        try:
            done, _ = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            done = self.pid
        if done:
            self.pid = 0  # should no other be started, the number may come to mean another child of ours
        return not done

    def _close(self) -> None:
        for fd in (self._watched, self.tether):
            if fd >= 0:
                os.close(fd)
        self._watched = self.tether = -1
