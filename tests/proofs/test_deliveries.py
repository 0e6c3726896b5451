"""Deliveries under load: beside receivers that hang, fail, reset and dawdle, and with workers killed."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from distribu import Shop
from distribu.application.webhooks import ListWebhooks, RemoveWebhook
from distribu.domain.webhooks import WireEvent
from tests.proofs import books
from tests.proofs.conftest import House
from tests.proofs.processes import Process, free_port, superuser

GOOD = 16
BAD = ("hangs", "fails", "resets", "dawdles")
DAWDLES_S = 9.0
EVENTS = 500
"""Of each part. With 16 to 20 receivers that is up to 10,000 deliveries."""

KILLS = 20
CLAIM_S = 60


@dataclass(slots=True)
class Receivers:
    """Everybody there is to send to, on one port: what a path is called is how it behaves."""

    port: int = field(default_factory=free_port)
    arrived: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    delays: list[float] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}"

    async def _take(self, request: web.Request) -> web.Response:
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
            case "bare":
                pass
            case _:
                told = msgspec.json.decode(body)
                self.arrived.setdefault(path, []).append(told)
                happened = datetime.fromisoformat(told["occurredAt"])
                self.delays.append((datetime.now(UTC) - happened).total_seconds())
                self.bodies.append(body)
        return web.Response(text="thanks")

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Receivers"]:
        app = web.Application()
        app.router.add_post("/{path}", self._take)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port, backlog=1024).start()
        try:
            yield self
        finally:
            await runner.cleanup()

    def forget(self) -> None:
        self.arrived.clear()
        self.delays.clear()
        self.bodies.clear()

    async def until(self, events: int, *, within_s: float) -> None:
        """Wait until every good receiver has so many different events."""
        began = time.perf_counter()
        while (least := min(len({it["id"] for it in self.of(n)}) for n in range(GOOD))) < events:
            assert time.perf_counter() - began < within_s, f"somebody has {least} of {events}"
            await asyncio.sleep(0.1)

    def of(self, place: int) -> list[dict[str, Any]]:
        return self.arrived.get(f"good-{place}", [])

    def p95(self) -> float:
        return sorted(self.delays)[int(len(self.delays) * 0.95)]


@pytest.fixture
async def receivers() -> AsyncIterator[Receivers]:
    async with Receivers().open() as receivers:
        yield receivers


@asynccontextmanager
async def worker(house: House) -> AsyncIterator[Process]:
    process = Process(house.data_dir, "worker")
    process.start()
    try:
        yield process
        assert await process.stop() == 0, process.said()
    finally:
        process.end()


async def offer(shop: Shop, events: int, *, per_s: float | None = None) -> None:
    """Make so many events, as fast as that goes or at a rate."""
    began = time.perf_counter()
    for n in range(events):
        await shop.product(f"Product {n}")
        if per_s is not None:
            await asyncio.sleep(max(0, began + (n + 1) / per_s - time.perf_counter()))


async def bare(receivers: Receivers, bodies: list[bytes], *, at_once: int) -> float:
    """Deliveries a second of a client that does nothing else."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        waiting = iter(bodies)

        async def hand() -> None:
            for body in waiting:
                async with session.post(receivers.url("bare"), data=body) as answer:
                    await answer.read()

        began = time.perf_counter()
        await asyncio.gather(*(hand() for _ in range(at_once)))
        return len(bodies) / (time.perf_counter() - began)


async def test_bad_receivers_beside_good_ones(house: House, receivers: Receivers) -> None:
    """Nothing is lost, and who is quick does not wait for who is not; the figures are printed."""
    shop = await Shop.open(house.distribu)
    for place in range(GOOD):
        await shop.webhook(WireEvent.PRODUCT_CREATED, url=receivers.url(f"good-{place}"))
    await offer(shop, EVENTS)
    began = time.perf_counter()
    async with worker(house):
        await receivers.until(1, within_s=60)
        first, had = time.perf_counter(), len(receivers.delays)
        await receivers.until(EVENTS, within_s=300)
        capacity = (EVENTS * GOOD - had) / (time.perf_counter() - first)
        plain = await bare(receivers, receivers.bodies[:4000], at_once=GOOD)
        rate = capacity / 2 / (GOOD + len(BAD))
        receivers.forget()
        await offer(shop, EVENTS, per_s=rate)
        await receivers.until(EVENTS, within_s=120)
        without = receivers.p95()
        receivers.forget()
        for path in BAD:
            await shop.webhook(WireEvent.PRODUCT_CREATED, url=receivers.url(path))
        await offer(shop, EVENTS, per_s=rate)
        await receivers.until(EVENTS, within_s=120)
        beside = receivers.p95()
        for place in range(GOOD):
            assert set(Counter(it["id"] for it in receivers.of(place)).values()) == {1}
        for webhook in (await shop.execute(ListWebhooks(limit=100))).items:
            await shop.execute(RemoveWebhook(webhook_id=webhook.id))  # or what fails outlives this test
    assert beside < DAWDLES_S / 3, "they waited for a slow one"
    print(
        f"\none worker process: {capacity:.0f} deliveries/s, a bare client with the same bodies "
        f"{plain:.0f}/s, ratio {capacity / plain:.2f}; at {rate:.1f} events/s p95 of {GOOD} good receivers "
        f"{without * 1000:.0f} ms without and {beside * 1000:.0f} ms beside the bad four "
        f"({beside / without - 1:+.0%}); {time.perf_counter() - began:.0f} s in all"
    )


async def _stored(house: House, shop: Shop) -> None:
    """Wait until nothing is pending: what a killed worker has sent without storing it is sent again."""
    began = time.perf_counter()
    pending = "SELECT count(*) FROM distribu.deliveries WHERE company_id = %s AND status = 'PENDING'"
    with superuser(house.data_dir) as database:
        while books.count(database, pending, shop.company.id):
            assert time.perf_counter() - began < CLAIM_S + 60
            await asyncio.sleep(0.5)


async def test_workers_killed_at_work(house: House, receivers: Receivers) -> None:
    """Twenty times: every event arrives at least once, in its position, and says which one came before."""
    shop = await Shop.open(house.distribu)
    for place in range(GOOD):
        await shop.webhook(WireEvent.PRODUCT_CREATED, url=receivers.url(f"good-{place}"))
    workers = [Process(house.data_dir, "worker") for _ in range(2)]
    try:
        for one in workers:
            one.start()

        async def kill() -> None:
            for turn in range(KILLS):
                await asyncio.sleep(2)
                workers[turn % 2].kill()
                workers[turn % 2].start()

        await asyncio.gather(kill(), offer(shop, EVENTS, per_s=EVENTS / (2 * KILLS)))
        await receivers.until(EVENTS, within_s=CLAIM_S + 120)
        await _stored(house, shop)
        for one in workers:
            assert await one.stop() == 0, one.said()
    finally:
        for one in workers:
            one.end()
    twice = 0
    for place in range(GOOD):
        came = {it["position"]: it["previous"] for it in receivers.of(place)}
        assert sorted(came) == list(range(1, EVENTS + 1))
        assert [came[position] for position in sorted(came)] == [None, *range(1, EVENTS)]
        twice += len(receivers.of(place)) - len(came)
    with superuser(house.data_dir) as database:
        books.check(database, shop.company.id)
        unmade = """SELECT count(*) FROM distribu.deliveries WHERE company_id = %s AND (status <> 'DELIVERED'
            OR attempts <> (SELECT count(*) FROM distribu.attempts AS a
                WHERE a.company_id = deliveries.company_id AND a.delivery_id = deliveries.id))"""
        assert books.count(database, unmade, shop.company.id) == 0
    print(f"\n{EVENTS * GOOD} deliveries, {KILLS} kills: all arrived, {twice} of them more than once")
