"""Serving: the HTTP application and, unless told otherwise, a worker beside it."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Final

import uvicorn

from distribu.container import running
from distribu.entrypoints.http.app import http_app
from distribu.entrypoints.worker import Worker
from distribu.settings import Settings

GRACE_S: Final = 15


class _Server(uvicorn.Server):
    """uvicorn, with the signals left to us: what runs beside it has to end too."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(settings: Settings, *, worker: bool, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; ``ready`` is told the URL. Raises `OSError` for a port in use."""
    async with running(settings) as distribu:
        config = uvicorn.Config(
            http_app(distribu),
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="on",
            timeout_graceful_shutdown=GRACE_S,
            backlog=2048,
            h11_max_incomplete_event_size=65_536,
        )
        server = _Server(config)
        listener = _listen(settings.host, settings.port)
        host, port = listener.getsockname()[:2]
        loop = asyncio.get_running_loop()
        side = Worker(distribu, concurrency=settings.worker_concurrency) if worker else None
        tasks = []
        if side is not None:
            distribu.wake = side.wake
            tasks.append(asyncio.create_task(side.run()))

        def end() -> None:
            server.should_exit = True

        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, end)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not (server.started or serving.done()):  # noqa: ASYNC110  # uvicorn has no event for it
            await asyncio.sleep(0.01)
        if not serving.done():
            shown = f"[{host}]" if ":" in host else host
            ready(f"http://{shown}:{port}")
        await serving
        if side is not None:
            side.stop()
        await asyncio.gather(*tasks)


async def work(settings: Settings, *, ready: Callable[[], None]) -> None:
    """Work without serving until SIGTERM or SIGINT."""
    async with running(settings) as distribu:
        worker = Worker(distribu, concurrency=settings.worker_concurrency)
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, worker.stop)
        ready()
        await worker.run()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener
