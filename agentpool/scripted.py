"""An agent that does what a JSON script says; executed by path, standard library only, fast to start.

See ``agentpool.testing`` for the functions that write scripts.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any

CHUNK_BYTES = 64 << 10


def run(steps: list[dict[str, Any]]) -> int:
    """Do all steps in order; the exit status."""
    for step in steps:
        kind = step["do"]
        if kind == "exit":
            return int(step["code"])
        STEPS[kind](step)
    return 0


def _say(record: dict[str, Any]) -> None:
    os.write(1, json.dumps(record).encode() + b"\n")


def _write(step: dict[str, Any]) -> None:
    """Write text, or bytes given as hexadecimal, ``times`` over."""
    data = bytes.fromhex(step["hex"]) if "hex" in step else step["text"].encode("utf-8", "surrogatepass")
    fd = 2 if step.get("stream") == "stderr" else 1
    times = int(step.get("times", 1))
    while times > 0:
        count = max(1, min(times, CHUNK_BYTES // max(1, len(data))))
        view = memoryview(data * count)
        while view:
            view = view[os.write(fd, view) :]
        times -= count


def _wait(_step: dict[str, Any]) -> None:
    while True:
        signal.pause()


def _ignore(step: dict[str, Any]) -> None:
    signal.signal(getattr(signal, step["signal"]), signal.SIG_IGN)


def _sleep(step: dict[str, Any]) -> None:
    time.sleep(step["seconds"])


def _spin(step: dict[str, Any]) -> None:
    # Of processor time: on a busy machine, seconds may pass without any.
    until = time.process_time() + step["seconds"]
    while time.process_time() < until:
        pass


def _child(step: dict[str, Any]) -> None:
    """Start a child with steps of its own; ``how`` is ``fork``, ``setsid`` or ``daemon`` (double fork)."""
    how = step["how"]
    pid = os.fork()
    if pid:
        if how == "daemon":
            os.waitpid(pid, 0)
        return
    if how in ("setsid", "daemon"):
        os.setsid()
    if how == "daemon" and os.fork():
        os._exit(0)
    if step.get("clear_env"):
        # Only exec takes the environment out of /proc.
        os.execve(sys.executable, [sys.executable, "-I", "-S", __file__, json.dumps(step["steps"])], {})
    status = 1
    try:
        status = run(step["steps"])
    finally:
        os._exit(status)


def _orphans(step: dict[str, Any]) -> None:
    """Leave ``count`` children behind that have lost their parent and end at once."""
    for _ in range(step["count"]):
        pid = os.fork()
        if pid == 0:
            if os.fork() == 0:
                os._exit(0)
            os._exit(0)
        os.waitpid(pid, 0)


def _bomb(_step: dict[str, Any]) -> None:
    """Fork without end; children too."""
    while True:
        try:
            if os.fork() == 0:
                continue
        except OSError:
            time.sleep(0.01)


def _allocate(step: dict[str, Any]) -> None:
    held = []
    for _ in range(step["megabytes"]):
        held.append(bytearray(os.urandom(4096) * 256))
    _say({"type": "progress", "message": f"held {len(held)} MB"})
    _wait({})


def _echo(step: dict[str, Any]) -> None:
    """Read ``lines`` messages, acknowledge each and repeat it as progress."""
    for _ in range(step["lines"]):
        message = json.loads(sys.stdin.buffer.readline())
        if "message_id" in message:
            _say({"type": "ack", "message_id": message["message_id"]})
        _say({"type": "progress", "message": message.get("text", message["type"])})


def _show(step: dict[str, Any]) -> None:
    """Say as progress what this process has: ``descriptors``, ``environment``, ``limits`` or ``place``."""
    what = step["what"]
    if what == "descriptors":
        value: Any = sorted(int(name) for name in os.listdir("/proc/self/fd"))[:-1]
    elif what == "environment":
        value = dict(os.environ)
    elif what == "limits":
        import resource

        value = {name: resource.getrlimit(getattr(resource, name))[0] for name in step["names"]}
    else:
        value = {"directory": os.getcwd(), "session": os.getsid(0), "pid": os.getpid(), "nice": os.nice(0)}
    _say({"type": "progress", "message": "shown", "value": value})


def _signal_self(step: dict[str, Any]) -> None:
    signal.signal(getattr(signal, step["signal"]), signal.SIG_DFL)
    os.kill(os.getpid(), getattr(signal, step["signal"]))
    time.sleep(10)


def _touch(step: dict[str, Any]) -> None:
    with open(step["path"], "a", encoding="utf-8") as file:
        file.write(f"{os.getpid()}\n")


STEPS = {
    "write": _write,
    "wait": _wait,
    "ignore": _ignore,
    "sleep": _sleep,
    "spin": _spin,
    "child": _child,
    "orphans": _orphans,
    "bomb": _bomb,
    "allocate": _allocate,
    "echo": _echo,
    "show": _show,
    "signal_self": _signal_self,
    "touch": _touch,
}

if __name__ == "__main__":
    text = sys.argv[1]
    if text.startswith("@"):  # scripts longer than an argument may be come in a file
        with open(text[1:], encoding="utf-8") as file:
            text = file.read()
    sys.exit(run(json.loads(text)))
