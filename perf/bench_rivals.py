"""What a user would pick instead of the pool, doing the same: start ``/bin/echo`` so many times, read a line from each.

    python perf/bench_rivals.py [--rounds 3] [--agents 119] [--save]

Each rival is installed into a temporary environment of its own and runs, ready, before the clock starts; the clock
stops when a line of every start has been read. A rival that cannot be installed or started is named with the reason.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
from bench_pool import Driver, executor, machine, with_pool

LINE = "hello"
#: A rival that has not read all lines after so many seconds is given up.
LIMIT_S = 30.0
PACKAGES = {
    "supervisord": ("supervisor", "setuptools<81"),
    "circus": ("circus",),
    "celery": ("celery",),
    "dramatiq": ("dramatiq[redis]",),
}

SUPERVISORD = """
[unix_http_server]
file={place}/s.sock
[supervisord]
logfile={place}/supervisord.log
pidfile={place}/pid
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://{place}/s.sock
[program:one]
command=/bin/echo {line}
process_name=%(process_num)d
numprocs={count}
autostart=false
autorestart=false
startsecs=0
stdout_logfile={place}/%(process_num)d.out
"""

CIRCUS = """
[circus]
endpoint=ipc://{place}/endpoint
pubsub_endpoint=ipc://{place}/pubsub
"""

#: A watcher whose first process ends starts no second one (circus 0.18), so each start is one.
CIRCUS_WATCHER = """
[watcher:w{number}]
cmd=/bin/sh -c "exec /bin/echo {line} > {place}/{number}.out"
autostart=false
respawn=false
warmup_delay=0
"""

#: ``circusctl start`` with a pattern starts only watchers that start by themselves (arbiter.py of 0.19).
CIRCUS_CLIENT = """
import pathlib, time
from circus.client import CircusClient
client = CircusClient(endpoint="ipc://{place}/endpoint")
begun = time.perf_counter()
for number in range({count}):
    while client.send_message("start", name=f"w{{number}}", match="simple", waiting=False)["status"] != "ok":
        time.sleep(0.001)  # it does one thing at a time, and says so
missing = [pathlib.Path("{place}", f"{{number}}.out") for number in range({count})]
while missing := [path for path in missing if not path.exists() or not path.stat().st_size]:
    time.sleep(0.005)
print(time.perf_counter() - begun)
"""

CELERY = """
import subprocess
from celery import Celery
app = Celery("one", broker="filesystem://", backend="file://{place}/results")
app.conf.broker_transport_options = {{"data_folder_in": "{place}/q", "data_folder_out": "{place}/q"}}
@app.task
def one():
    return subprocess.run(["/bin/echo", "{line}"], capture_output=True, start_new_session=True).stdout.decode()
"""

CELERY_CLIENT = """
import time, one
one.one.delay().get(timeout=60)
begun = time.perf_counter()
handles = [one.one.delay() for _ in range({count})]
assert all(handle.get(timeout=60, interval=0.01).strip() for handle in handles)
print(time.perf_counter() - begun)
"""


DRAMATIQ = """
import subprocess, dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend
url = "unix://{place}/redis.sock"
broker = RedisBroker(url=url, middleware=[Results(backend=RedisBackend(url=url))])
dramatiq.set_broker(broker)
@dramatiq.actor(store_results=True)
def one():
    return subprocess.run(["/bin/echo", "{line}"], capture_output=True, start_new_session=True).stdout.decode()
"""

DRAMATIQ_CLIENT = """
import time, one
one.one.send().get_result(block=True, timeout=60000)
begun = time.perf_counter()
messages = [one.one.send() for _ in range({count})]
assert all(message.get_result(block=True, timeout=60000).strip() for message in messages)
print(time.perf_counter() - begun)
"""


def read_lines(place: Path, count: int) -> None:
    """Wait until so many files hold a line. Raises TimeoutError."""
    deadline = time.perf_counter() + LIMIT_S
    while sum(path.stat().st_size > 0 for path in place.glob("*.out")) < count:
        if time.perf_counter() > deadline:
            raise TimeoutError(f"{len(list(place.glob('*.out')))} of {count} lines came")
        time.sleep(0.005)
    assert all(path.read_text(encoding="ascii").startswith(LINE) for path in place.glob("*.out"))


@contextmanager
def service(command: list[str], place: Path, ready: Callable[[], bool]) -> Iterator[None]:
    """A rival that runs and answers. Raises TimeoutError when it does not."""
    with (place / "service.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=place, stdout=log, stderr=log)
    try:
        deadline = time.perf_counter() + LIMIT_S
        while not ready():
            if process.poll() is not None or time.perf_counter() > deadline:
                raise TimeoutError((place / "service.log").read_text(errors="replace")[-300:])
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def timed_start(command: list[str], place: Path, count: int) -> float:
    """Seconds from the order to the last line read."""
    begun = time.perf_counter()
    order = subprocess.Popen(command, cwd=place, stdout=subprocess.DEVNULL)
    read_lines(place, count)
    elapsed = time.perf_counter() - begun
    order.wait(LIMIT_S)
    return elapsed


def supervisord(bin_dir: Path, place: Path, count: int) -> float:
    """``supervisorctl start`` of so many programs."""
    config = place / "s.conf"
    config.write_text(SUPERVISORD.format(place=place, line=LINE, count=count), encoding="utf-8")
    with service([str(bin_dir / "supervisord"), "-n", "-c", str(config)], place, (place / "s.sock").exists):
        return timed_start([str(bin_dir / "supervisorctl"), "-c", str(config), "start", "one:*"], place, count)


def circus(bin_dir: Path, place: Path, count: int) -> float:
    """A start of each of so many watchers, asked for over one connection."""
    config = place / "c.ini"
    watchers = [CIRCUS_WATCHER.format(place=place, line=LINE, number=number) for number in range(count)]
    config.write_text(CIRCUS.format(place=place) + "".join(watchers), encoding="utf-8")
    control = [str(bin_dir / "circusctl"), "--endpoint", f"ipc://{place}/endpoint"]

    def answers() -> bool:
        return subprocess.run([*control, "status"], capture_output=True, check=False).returncode == 0

    with service([str(bin_dir / "circusd"), str(config)], place, answers):
        elapsed = timed_by_client(bin_dir, CIRCUS_CLIENT.format(place=place, count=count), place)
        read_lines(place, count)
        return elapsed


def celery(bin_dir: Path, place: Path, count: int) -> float:
    """A worker with two processes that call subprocess; the queue is a directory, so that no broker is needed."""
    (place / "q").mkdir()
    (place / "results").mkdir()
    (place / "one.py").write_text(CELERY.format(place=place, line=LINE), encoding="utf-8")
    command = [str(bin_dir / "celery"), "-A", "one", "worker", "-c", "2", "-l", "info"]

    def answers() -> bool:
        return " ready." in (place / "service.log").read_text(errors="replace")

    with service(command, place, answers):
        return timed_by_client(bin_dir, CELERY_CLIENT.format(count=count), place)


def dramatiq(bin_dir: Path, place: Path, count: int) -> float:
    """A worker with two processes that call subprocess; Redis, on a socket of its own, holds queue and results."""
    (place / "one.py").write_text(DRAMATIQ.format(place=place, line=LINE), encoding="utf-8")
    if (server := shutil.which("redis-server")) is None:
        raise FileNotFoundError("no redis-server")
    broker = [server, "--port", "0", "--unixsocket", str(place / "redis.sock"), "--save", "", "--dir", str(place)]
    (place / "broker").mkdir()
    with service(broker, place / "broker", (place / "redis.sock").exists):
        command = [str(bin_dir / "dramatiq"), "one", "--processes", "2", "--threads", "1", "--path", str(place)]

        def answers() -> bool:
            return (place / "service.log").read_text(errors="replace").count("is ready for action") >= 2

        with service(command, place, answers):
            return timed_by_client(bin_dir, DRAMATIQ_CLIENT.format(count=count), place)


def timed_by_client(bin_dir: Path, program: str, place: Path) -> float:
    """Seconds that a program of a rival's own prints. Raises TimeoutError when it fails."""
    client = [str(bin_dir / "python"), "-c", program]
    done = subprocess.run(client, cwd=place, capture_output=True, text=True, timeout=LIMIT_S * 2, check=False)
    if done.returncode != 0:
        raise TimeoutError(done.stderr[-300:])
    return float(done.stdout)


RIVALS = {"supervisord": supervisord, "circus": circus, "celery": celery, "dramatiq": dramatiq}


def install(name: str, place: Path) -> Path | str:
    """The directory of a rival's commands in an environment of its own, or why there is none."""
    venv = place / f"venv-{name}"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    command = [str(venv / "bin" / "pip"), "install", "-q", *PACKAGES[name]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return venv / "bin" if done.returncode == 0 else f"not installed: {done.stderr.strip()[-200:]}"


async def ours(driver: Driver, agents: int) -> float:
    """The pool's own time for the same."""
    specs = driver.specs(agents, ("/bin/echo", LINE), "jsonl")
    elapsed: float = await driver.run(specs)
    assert all(driver.exits[spec.agent_id].stdout_tail.strip() == LINE.encode() for spec in specs)
    return elapsed


async def measure(driver: Driver, agents: int, rounds: int) -> dict[str, Any]:
    """All rivals, interleaved."""
    installed = {name: await asyncio.to_thread(install, name, driver.place) for name in RIVALS}
    seconds: dict[str, list[float]] = {"pool": [], "process_pool_executor": []}
    reasons: dict[str, str] = {name: where for name, where in installed.items() if isinstance(where, str)}
    for _ in range(rounds):
        seconds["pool"].append(await ours(driver, agents))
        seconds["process_pool_executor"].append(await asyncio.to_thread(executor, agents))
        for name, where in installed.items():
            if isinstance(where, str) or name in reasons:
                continue
            with tempfile.TemporaryDirectory(prefix="rival-") as place:
                try:
                    elapsed = await asyncio.to_thread(RIVALS[name], where, Path(place), agents)
                    seconds.setdefault(name, []).append(elapsed)
                except (OSError, TimeoutError, subprocess.SubprocessError) as error:
                    reasons[name] = f"not measured: {error}"[:300]
    medians = {name: round(statistics.median(values), 4) for name, values in seconds.items()}
    ratios = {name: round(value / medians["pool"], 2) for name, value in medians.items() if name != "pool"}
    return {"starts": agents, "seconds": medians, "times_the_pool": ratios, "left_out": reasons}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--agents", type=int, default=119)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    os.environ.setdefault("C_FORCE_ROOT", "1")
    row = asyncio.run(with_pool(lambda driver: measure(driver, options.agents, options.rounds)))
    result = {"machine": machine(), "rows": {"rivals": row}}
    print(json.dumps(result, indent=2))
    if options.save:
        path = Path(__file__).parent / "results" / "rivals.json"
        path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
