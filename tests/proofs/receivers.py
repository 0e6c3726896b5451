"""Whoever webhooks are sent to, as processes of their own: what they do is not charged to who measures them.

What a path is called is how it behaves; those called otherwise are quick, and note what arrived.
"""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import aiohttp
import msgspec
import uvloop
from aiohttp import web

from tests.benchmarks.machine import free_port, started

DAWDLES_S: Final = 9.0
BODIES: Final = 4_000
"""So many bodies are kept, for a client that posts the same."""

Place = tuple[int, int | None]
"""The position of an event, and the one before it."""


class Told(msgspec.Struct):
    """What arrived: how often each event at each path, seconds from when it happened, and some bodies."""

    arrived: dict[str, list[tuple[Place, int]]] = {}
    delays: list[float] = []
    bodies: list[str] = []


class _Arrived:
    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.places: dict[str, Counter[Place]] = {}
        self.delays: list[float] = []
        self.bodies: list[str] = []

    async def take(self, request: web.Request) -> web.Response:
        path, body = request.path.lstrip("/"), await request.read()
        match path:
            case "hangs":
                await asyncio.sleep(60)
            case "fails":
                return web.Response(status=500)
            case "resets":
                assert request.transport is not None
                request.transport.abort()
            case "dawdles":
                await asyncio.sleep(DAWDLES_S)
            case _:
                event = msgspec.json.decode(body)
                place = event["position"], event["previous"]
                self.places.setdefault(path, Counter())[place] += 1
                happened = datetime.fromisoformat(event["occurredAt"])
                self.delays.append((datetime.now(UTC) - happened).total_seconds())
                if len(self.bodies) < BODIES:
                    self.bodies.append(body.decode())
        return web.Response(text="thanks")

    async def tell(self, request: web.Request) -> web.Response:
        arrived = {path: list(places.items()) for path, places in self.places.items()}
        return web.Response(body=msgspec.json.encode(Told(arrived, self.delays, self.bodies)))

    async def count(self, request: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode({path: len(it) for path, it in self.places.items()}))

    async def clear(self, request: web.Request) -> web.Response:
        self.forget()
        return web.Response()


@dataclass(frozen=True, slots=True)
class Receivers:
    """Those of one process."""

    port: int

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}"

    async def told(self) -> Told:
        """All that arrived since `forget`."""
        return msgspec.json.decode(await self._get("told"), type=Told)

    async def counts(self) -> dict[str, int]:
        """How many different events arrived at each path."""
        return msgspec.json.decode(await self._get("count"), type=dict[str, int])

    async def forget(self) -> None:
        """Begin anew."""
        await self._get("forget")

    async def _get(self, what: str) -> bytes:
        async with aiohttp.request("GET", self.url(what)) as answer:
            assert answer.status == 200
            return await answer.read()

    async def until(self, paths: int, events: int, *, within_s: float) -> None:
        """Wait until so many paths have so many different events each."""
        began = time.perf_counter()
        while (had := sorted((await self.counts()).values())[-paths:]) < [events] * paths:
            assert time.perf_counter() - began < within_s, f"they have {had} of {events}"
            await asyncio.sleep(0.1)


@asynccontextmanager
async def receivers() -> AsyncIterator[Receivers]:
    """A process of receivers."""
    port = free_port()
    with started("tests.proofs.receivers", str(port), port=port, path="/count"):
        yield Receivers(port)


async def _main() -> None:
    arrived, app = _Arrived(), web.Application(client_max_size=2**24)
    app.add_routes([web.get("/told", arrived.tell), web.get("/count", arrived.count)])
    app.add_routes([web.get("/forget", arrived.clear), web.post("/{path}", arrived.take)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handle_signals=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(sys.argv[1]), backlog=1024).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_main())
