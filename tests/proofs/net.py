"""Both ends of the wire: buyers on real sockets, and a receiver of webhooks."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec
from aiohttp import web
from standardwebhooks import Webhook as Verifier

from tests.proofs.processes import free_port


@dataclass(frozen=True, slots=True)
class Said:
    """An answer. ``code`` is that of a refusal, ``tries`` how often it took to get past `busy`."""

    status: int
    body: dict[str, Any]
    replayed: bool
    seconds: float
    tries: int = 1

    @property
    def code(self) -> str:
        return str(self.body.get("code", ""))

    @property
    def order(self) -> dict[str, Any]:
        """The order in the answer."""
        found: dict[str, Any] = self.body["data"]
        return found


class Buyer:
    """A client of the API with a key of a company."""

    def __init__(self, session: aiohttp.ClientSession, url: str, key: str) -> None:
        self._session = session
        self._url = f"{url}/api/v1"
        self._key = key

    async def send(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, once: str | None = None
    ) -> Said:
        """One request. Raises `aiohttp.ClientError`, `OSError` when there is no whole answer to it."""
        headers = {"authorization": f"Bearer {self._key}"}
        if once is not None:
            headers["idempotency-key"] = once
        began = time.perf_counter()
        async with self._session.request(method, self._url + path, json=body, headers=headers) as answer:
            found = msgspec.json.decode(await answer.read())
            replayed = answer.headers.get("idempotent-replayed") == "true"
            return Said(answer.status, found, replayed, time.perf_counter() - began)

    async def order(
        self, customer_id: str, items: dict[str, int], *, ref: str = "", once: str | None = None
    ) -> Said:
        """Place an order of so many of each product."""
        wanted = [{"productId": id, "quantity": quantity} for id, quantity in items.items()]
        body = {"customerId": customer_id, "items": wanted, "poNumber": ref}
        return await self.send("POST", "/orders", body, once=once)

    async def insist(self, customer_id: str, items: dict[str, int], *, ref: str = "") -> Said:
        """Place an order, and again after the time given while the answer is that it is busy."""
        began, tries = time.perf_counter(), 0
        while True:
            tries += 1
            said = await self.order(customer_id, items, ref=ref)
            if said.status != 503:
                return Said(said.status, said.body, said.replayed, time.perf_counter() - began, tries)
            assert tries < 60, said
            # The time given, and longer every time: a crowd that comes back at once is only told to go again.
            await asyncio.sleep(min(float(said.body["retryAfter"]) * tries, 10) * (1 + random.random()))


@asynccontextmanager
async def buyers(url: str, *keys: str, connections: int = 250) -> AsyncIterator[list[Buyer]]:
    """Clients with these keys, who share so many connections."""
    # Given up before the server gives them up (5 s): a request on its way just then would have no answer.
    connector = aiohttp.TCPConnector(limit=connections, limit_per_host=connections, keepalive_timeout=2)
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        yield [Buyer(session, url, key) for key in keys]


class Receiver:
    """Takes webhooks and keeps them. ``secrets`` are by the path of each webhook's URL."""

    def __init__(self) -> None:
        self.port = free_port()
        self.secrets: dict[str, str] = {}
        self.received: dict[str, list[dict[str, Any]]] = {}

    def url(self, path: str) -> str:
        """Where a webhook of this path is to go."""
        return f"http://127.0.0.1:{self.port}/{path}"

    async def _take(self, request: web.Request) -> web.Response:
        path, body = request.path.lstrip("/"), await request.text()
        Verifier(self.secrets[path]).verify(body, dict(request.headers))
        self.received.setdefault(path, []).append(msgspec.json.decode(body))
        return web.Response(text="thanks")

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Receiver"]:
        """Listen."""
        app = web.Application()
        app.router.add_post("/{path}", self._take)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        try:
            yield self
        finally:
            await runner.cleanup()

    def ids(self, path: str, event: str | None = None) -> Counter[str]:
        """How often each event, of one name or any, arrived."""
        return Counter(it["id"] for it in self.received.get(path, []) if event in (None, it["event"]))

    async def until(self, path: str, wanted: Iterable[str], *, within_s: float) -> float:
        """Wait until all these events have arrived. Returns the seconds that took."""
        began, left = time.perf_counter(), set(wanted)
        while left := left - self.ids(path).keys():
            assert time.perf_counter() - began < within_s, f"{len(left)} events never arrived: {left}"
            await asyncio.sleep(0.1)
        return time.perf_counter() - began
