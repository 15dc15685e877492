"""The least that Quart on Hypercorn can do: answer with given bytes.

    python perf/baselines/bare_http.py DIRECTORY

Each file of DIRECTORY is answered at ``/<name>``: by GET as it is, by POST after the body was parsed as JSON.
``GET /hold`` waits until somebody asks for ``/release``; ``GET /empty`` answers nothing. Prints its port.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from pathlib import Path

from hypercorn.asyncio import serve
from hypercorn.config import Config
from quart import Quart, Response, request


def bare_app(directory: Path) -> Quart:
    """The application."""
    app = Quart("bare")
    files: dict[str, bytes] = {}
    held: list[asyncio.Event] = [asyncio.Event()]
    waiting = [0]

    def content(name: str) -> bytes:
        if name not in files:
            files[name] = (directory / name).read_bytes()
        return files[name]

    @app.get("/empty")
    async def empty() -> Response:
        return Response(b"", 200, content_type="application/json")

    @app.get("/hold")
    async def hold() -> Response:
        waiting[0] += 1
        await held[0].wait()
        return Response(b"{}", 200, content_type="application/json")

    @app.get("/waiting")
    async def count() -> Response:
        return Response(str(waiting[0]).encode(), 200, content_type="application/json")

    @app.post("/release")
    async def release() -> Response:
        waiting[0] = 0
        held[0].set()
        held[0] = asyncio.Event()
        return Response(b"{}", 200, content_type="application/json")

    @app.get("/<name>")
    async def give(name: str) -> Response:
        return Response(content(name), 200, content_type="application/json")

    @app.delete("/<name>")
    async def drop(name: str) -> Response:
        return Response(content(name), 200, content_type="application/json")

    @app.post("/<name>")
    async def take(name: str) -> Response:
        json.loads(await request.get_data())
        return Response(content(name), 200, content_type="application/json")

    return app


async def main() -> None:
    """Serve until killed."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.accesslog = None
    config.errorlog = None
    config.backlog = 1024
    config.keep_alive_timeout = 300
    config.keep_alive_max_requests = 1_000_000
    port = socket.socket(fileno=int(config.bind[0][5:]))
    print(port.getsockname()[1], flush=True)
    port.detach()
    await serve(bare_app(Path(sys.argv[1])), config, shutdown_trigger=asyncio.Event().wait, mode="asgi")


if __name__ == "__main__":
    asyncio.run(main())
