"""Deliveries under load: beside receivers that hang, fail, reset and dawdle, and with workers killed.

``DISTRIBU_PROOF_EVENTS=10000`` makes them so many (half an hour); by default they are 500.
"""

import asyncio
import os
import sys
import time
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec
import pytest
from aiohttp import web

from distribu import Settings, Shop, connect
from distribu.application.webhooks import ListWebhooks, RemoveWebhook
from distribu.domain.errors import Busy, Conflict, InDoubt
from distribu.domain.webhooks import ATTEMPT_TIMEOUT_S, WireEvent
from tests.benchmarks.deliveries import AT_ONCE
from tests.benchmarks.machine import ROOT
from tests.proofs import books
from tests.proofs.conftest import House
from tests.proofs.processes import Process, free_port, kill_postgres, superuser

GOOD = 16
BAD = ("hangs", "fails", "resets", "dawdles")
DAWDLES_S = 9.0
EVENTS = int(os.environ.get("DISTRIBU_PROOF_EVENTS", "500"))
"""Of each part, to 16 receivers and then to 20."""

KILLS = 20
OFFERED = 40
"""Events a second while workers are killed."""

BODIES = 4_000
CLAIM_S = 60


@dataclass(slots=True)
class Receivers:
    """Everybody there is to send to, on one port: what a path is called is how it behaves."""

    port: int = field(default_factory=free_port)
    arrived: dict[str, Counter[tuple[int, int | None]]] = field(default_factory=dict)
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
                place = told["position"], told["previous"]
                self.arrived.setdefault(path, Counter())[place] += 1
                happened = datetime.fromisoformat(told["occurredAt"])
                self.delays.append((datetime.now(UTC) - happened).total_seconds())
                if len(self.bodies) < BODIES:
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
        while (least := min(len(self.of(n)) for n in range(GOOD))) < events:
            assert time.perf_counter() - began < within_s, f"somebody has {least} of {events}"
            await asyncio.sleep(0.1)

    def of(self, place: int) -> Counter[tuple[int, int | None]]:
        """How often each event arrived at a good one, by its position and the one before it."""
        return self.arrived.get(f"good-{place}", Counter())

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
    """Make so many events, as fast as that goes or at a rate; all of them, also when the database dies."""
    began = time.perf_counter()
    for n in range(events):
        while True:
            try:
                await shop.product(f"Product {n}", sku=f"{began:.0f}-{n}")
                break
            except Conflict:
                break  # it was made, and the answer lost
            except (Busy, InDoubt):
                await asyncio.sleep(0.2)
        if per_s is not None:
            await asyncio.sleep(max(0, began + (n + 1) / per_s - time.perf_counter()))


async def bare(receivers: Receivers) -> float:
    """Deliveries a second of a process that does nothing else, to the same receivers."""
    plan = {
        "url": receivers.url("bare"),
        "bodies": [body.decode() for body in receivers.bodies],
        "headers": {"Content-Type": "application/json"},
        "count": BODIES,
        "at_once": AT_ONCE,
    }
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.benchmarks.bare", cwd=ROOT, stdin=PIPE, stdout=PIPE
    )
    said, _ = await client.communicate(msgspec.json.encode(plan))
    return float(msgspec.json.decode(said)["per_s"])


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
        await receivers.until(EVENTS, within_s=60 + EVENTS / 10)
        capacity = (EVENTS * GOOD - had) / (time.perf_counter() - first)
        plain = await bare(receivers)
        rate = capacity / 2 / (GOOD + len(BAD))
        receivers.forget()
        await offer(shop, EVENTS, per_s=rate)
        await receivers.until(EVENTS, within_s=120 + EVENTS / rate)
        without = receivers.p95()
        receivers.forget()
        for path in BAD:
            await shop.webhook(WireEvent.PRODUCT_CREATED, url=receivers.url(path))
        await offer(shop, EVENTS, per_s=rate)
        await receivers.until(EVENTS, within_s=120 + EVENTS / rate)
        beside = receivers.p95()
        for place in range(GOOD):
            assert set(receivers.of(place).values()) == {1}
        for webhook in (await shop.execute(ListWebhooks(limit=100))).items:
            await shop.execute(RemoveWebhook(webhook_id=webhook.id))  # or what fails outlives this test
    assert beside < DAWDLES_S / 3, "they waited for a slow one"
    print(
        f"\none worker process: {capacity:.0f} deliveries/s, a bare client with the same bodies "
        f"{plain:.0f}/s, ratio {capacity / plain:.2f}; at {rate:.1f} events/s p95 of {GOOD} good receivers "
        f"{without * 1000:.0f} ms without and {beside * 1000:.0f} ms beside the bad four "
        f"({beside / without - 1:+.0%}); {time.perf_counter() - began:.0f} s in all"
    )


@pytest.fixture
async def apart(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """A database of this test's own, since it is killed."""
    data_dir = tmp_path_factory.mktemp("apart")
    async with connect(Settings(data_dir=str(data_dir))) as distribu:
        yield House(data_dir, distribu)


TO_THOSE_LEFT = """FROM distribu.deliveries JOIN distribu.webhooks ON webhooks.id = deliveries.webhook_id
    AND webhooks.company_id = deliveries.company_id AND removed_at IS NULL WHERE deliveries.company_id = %s"""


async def _stored(house: House, shop: Shop) -> None:
    """Wait until nothing is pending: what a killed worker has sent without storing it is sent again."""
    began = time.perf_counter()
    pending = f"SELECT count(*) {TO_THOSE_LEFT} AND deliveries.status = 'PENDING'"
    with superuser(house.data_dir) as database:
        while left := books.count(database, pending, shop.company.id):
            assert time.perf_counter() - began < CLAIM_S + 60, f"{left} are still pending"
            await asyncio.sleep(0.5)


async def test_workers_and_the_database_killed_at_work(apart: House, receivers: Receivers) -> None:
    """Workers twenty times, PostgreSQL once, beside the bad four: every event arrives at least once, in its
    position, and says which one came before; and every attempt has its record.
    """
    shop = await Shop.open(apart.distribu)
    for path in (*(f"good-{place}" for place in range(GOOD)), *BAD):
        await shop.webhook(WireEvent.PRODUCT_CREATED, url=receivers.url(path))
    workers = [Process(apart.data_dir, "worker") for _ in range(2)]
    began = time.perf_counter()
    pause = max(2.0, EVENTS / OFFERED / KILLS)
    try:
        for one in workers:
            one.start()

        async def kill() -> None:
            for turn in range(KILLS):
                await asyncio.sleep(pause)
                if turn == KILLS // 2:
                    kill_postgres(apart.data_dir)  # the next worker that starts, starts it again
                    await asyncio.sleep(1)
                workers[turn % 2].kill()
                workers[turn % 2].start()

        await asyncio.gather(kill(), offer(shop, EVENTS, per_s=EVENTS / (pause * KILLS)))
        await receivers.until(EVENTS, within_s=CLAIM_S + 120)
        took = time.perf_counter() - began
        for webhook in (await shop.execute(ListWebhooks(limit=100))).items:
            if webhook.url.rpartition("/")[2] in BAD:
                await shop.execute(RemoveWebhook(webhook_id=webhook.id))
        await asyncio.sleep(ATTEMPT_TIMEOUT_S + 2)  # what is on its way to them comes back
        await _stored(apart, shop)
        for one in workers:
            assert await one.stop() == 0, one.said()
    finally:
        for one in workers:
            one.end()
    twice = 0
    for place in range(GOOD):
        came = receivers.of(place)
        assert sorted(position for position, _ in came) == list(range(1, EVENTS + 1))
        assert [previous for _, previous in sorted(came)] == [None, *range(1, EVENTS)]
        twice += came.total() - len(came)
    with superuser(apart.data_dir) as database:
        books.check(database, shop.company.id)
        assert books.count(database, f"SELECT count(*) {TO_THOSE_LEFT}", shop.company.id) == EVENTS * GOOD
        unsent = f"SELECT count(*) {TO_THOSE_LEFT} AND deliveries.status <> 'DELIVERED'"
        assert books.count(database, unsent, shop.company.id) == 0
        unmade = """SELECT count(*) FROM distribu.deliveries WHERE company_id = %s AND
            attempts <> (SELECT count(*) FROM distribu.attempts AS a
                WHERE a.company_id = deliveries.company_id AND a.delivery_id = deliveries.id)"""
        assert books.count(database, unmade, shop.company.id) == 0
        made = "SELECT count(*) FROM distribu.attempts WHERE company_id = %s"
        attempts = books.count(database, made, shop.company.id)
    print(
        f"\n{EVENTS * GOOD} deliveries beside the bad four, {KILLS} workers and PostgreSQL killed: all came "
        f"in {took:.0f} s, {twice} of them more than once; {attempts} attempts, each with its record"
    )
