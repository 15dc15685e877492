"""A storm over a real sidecar: clients that never give up, and faults drawn from a seed."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.support.agents import say_result, shell
from tests.support.disks import fill
from tests.support.http import Api
from tests.support.processes import processes_with
from tests.support.server import Server
from tests.support.waiting import until

#: What agents do in a storm; every one begins by adding its id to ``$STARTS``.
SCRIPTS = (
    say_result(),
    "exit 3",
    "sleep 0.5; " + say_result(),
    "head -c 100000 /dev/urandom | base64; " + say_result(),
    "head -c 20000000 /dev/zero",
    "yes flood | head -c 30000000; " + say_result(),
    "yes flood | head -c 30000000 >&2; exit 3",
    "sleep 300 & sleep 300",
    "trap '' TERM; setsid sleep 300 & while :; do sleep 1; done",
    "(setsid sleep 300 &) ; " + say_result(),
)
#: Floods go far beyond these; without them a minute of the storm would fill the disk for good.
OUTPUT_LIMITS = {"output_bytes": 100_000, "output_file_bytes": 30_000}
#: Seconds between two tries of a client while the sidecar is away or refuses.
PAUSE_S = 0.05


@dataclass
class Acknowledged:
    """What the sidecar has promised, by id."""

    results: dict[str, int] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)
    agents: set[str] = field(default_factory=set)


class Clients:
    """Threads that store, publish, spawn and end over every restart; they count only what was acknowledged."""

    def __init__(self, url: Callable[[], str], token: str, issue: str, starts: Path, seed: int) -> None:
        self.acknowledged = Acknowledged()
        self.refused: Counter[int] = Counter()
        self._url = url
        self._token = token
        self._issue = issue
        self._starts = starts
        self._seed = seed
        self._numbers = itertools.count()
        self._stop = threading.Event()
        self._unexpected: list[str] = []
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Two that store, two that publish, two that spawn and one that ends agents."""
        work = [self._store, self._publish, self._spawn] * 2 + [self._terminate]
        self._threads = [
            threading.Thread(target=self._repeat, args=(call, random.Random(f"{self._seed}-{number}")))
            for number, call in enumerate(work)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End all threads. Raises AssertionError when the sidecar gave an answer that it may never give."""
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
        assert not self._unexpected, self._unexpected[:3]

    def _repeat(self, call: Callable[[Api, random.Random], None], dice: random.Random) -> None:
        while not self._stop.is_set():
            url = self._url()
            with Api(url, self._token, timeout_s=15) as api:
                while not self._stop.wait(PAUSE_S) and self._url() == url:
                    try:
                        call(api, dice)
                    except httpx.HTTPError:
                        break  # it is away: nothing was acknowledged

    def _accepts(self, status: int, body: bytes, good: int) -> bool:
        # 503: the disk is full or it is leaving; 429: its queue is full; 500 is a start that failed for want of disk.
        if status not in (good, 429, 503) and b"AGT_001" not in body:
            self._unexpected.append(f"{status} {body[:300]!r}")
        self.refused[status] += status != good
        return status == good

    def _store(self, api: Api, _dice: random.Random) -> None:
        number = next(self._numbers)
        result = {"status": "success", "metrics": {"n": number}}
        body = {"agent_type": "python-specialist", "issue_id": self._issue, "result": result}
        answer = api.post("/api/results", body)
        if self._accepts(answer.status, answer.body, 201):
            self.acknowledged.results[answer.json["id"]] = number

    def _publish(self, api: Api, _dice: random.Random) -> None:
        number = next(self._numbers)
        answer = api.post("/api/events/storm", {"topic": "testing", "data": {"n": number}})
        if self._accepts(answer.status, answer.body, 202):
            self.acknowledged.events[answer.json["event_id"]] = number

    def _spawn(self, api: Api, dice: random.Random) -> None:
        script = f'echo "$AGENT_ID" >> {self._starts}; {dice.choice(SCRIPTS)}'
        body = {
            "agent_type": "python-specialist",
            "issue_id": self._issue,
            "task": "a storm",
            "command": shell(script),
            "restart": dice.choice(("never", "never", "on-failure")),
            "timeout_seconds": dice.choice((2, 5, 60)),
            "limits": OUTPUT_LIMITS,
        }
        answer = api.post("/api/agents/spawn", body)
        if self._accepts(answer.status, answer.body, 201):
            self.acknowledged.agents.add(answer.json["agent_id"])

    def _terminate(self, api: Api, dice: random.Random) -> None:
        known = sorted(self.acknowledged.agents)
        if known:
            answer = api.delete(f"/api/agents/{dice.choice(known)}", force="true")
            if answer.status not in (200, 202, 404, 409, 503):
                self._unexpected.append(f"DELETE {answer.status} {answer.body[:300]!r}")


class Faults:
    """Does harm to a running sidecar; ``full_disk`` is its storage when that is a small file system of its own."""

    def __init__(self, server: Server, seed: int, full_disk: Path | None) -> None:
        self.done: Counter[str] = Counter()
        self._server = server
        self._dice = random.Random(seed)
        self._disk = full_disk

    def rage(self, seconds: float) -> None:
        """One fault after the other, each kind at least once; every one leaves a sidecar that runs."""
        kinds = [self.kill_agent, self.kill_child, self.kill_supervisor, self.stop_agent]
        if self._disk is not None:
            kinds.append(self.fill_disk)
        due = self._dice.sample(kinds, len(kinds))
        deadline = time.monotonic() + seconds
        while due or time.monotonic() < deadline:
            time.sleep(self._dice.uniform(0.05, 0.6))
            kind = due.pop() if due else self._dice.choice(kinds)
            kind()
            self.done[kind.__name__] += 1

    def kill_agent(self) -> None:
        """SIGKILL any process of any agent."""
        self._signal_agent(psutil.Process.kill)

    def stop_agent(self) -> None:
        """SIGSTOP any process of any agent: its time limit, or the storm's end, must still end it."""
        self._signal_agent(psutil.Process.suspend)

    def kill_child(self) -> None:
        """SIGKILL a child of the supervisor's: a pool worker, the builder of contexts."""
        try:
            self._dice.choice(psutil.Process(self._server.pid).children()).kill()
        except (psutil.Error, IndexError):
            pass  # it was gone already

    def kill_supervisor(self) -> None:
        """SIGKILL the sidecar itself, and start it again on the same storage."""
        self._server.kill9()
        self._server.restart()

    def fill_disk(self) -> None:
        """Take all the room that the storage has, for a moment; a kill and a start may come upon the full disk too."""
        assert self._disk is not None
        filler = fill(self._disk)
        time.sleep(self._dice.uniform(0.2, 1.0))
        is_killed = self._dice.random() < 0.4
        try:
            if is_killed:
                # The next one has to start, and to settle what this one left, without a byte to write.
                self._server.kill9()
                self._server.restart()
                time.sleep(self._dice.uniform(0.2, 1.0))
        finally:
            filler.unlink()

    def _signal_agent(self, act: Callable[[psutil.Process], None]) -> None:
        found = processes_with(str(self._server.storage / "agents"))
        if found:
            try:
                act(self._dice.choice(found))
            except psutil.Error:
                pass  # it ended by itself


def all_pages(api: Api, path: str, key: str, cursor_name: str, **parameters: Any) -> list[Any]:
    """All rows of a paged list."""
    rows: list[Any] = []
    cursor: Any = None
    while True:
        asked: dict[str, Any] = parameters | ({cursor_name: cursor} if cursor else {})
        page = api.get(path, limit=1000, **asked).expect(200).json
        rows += page[key]
        if not page[key] or page["next_cursor"] in (None, cursor):
            return rows
        cursor = page["next_cursor"]


def end_all(server: Server, issue: str) -> list[Any]:
    """Terminate what still lives; the records of all agents once every one is final."""
    final = {"completed", "failed", "killed", "timed_out"}

    def rest() -> list[Any] | None:
        api = server.api()
        records = all_pages(api, "/api/agents", "agents", "cursor", issue_id=issue)
        alive = [record["agent_id"] for record in records if record["status"] not in final]
        for agent_id in alive:
            api.delete(f"/api/agents/{agent_id}", force="true").expect(200, 202, 404, 409)
        return None if alive else records

    return until(rest, timeout_s=90, what="all agents end") or []
