"""Deliveries under load: beside receivers that hang, fail, reset and dawdle, and with workers killed.

``DISTRIBU_PROOF_EVENTS=10000`` makes them so many (half an hour); by default they are 500.
"""

import asyncio
import os
import sys
import time
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec
import pytest

from distribu import Settings, Shop, connect
from distribu.application.webhooks import ListWebhooks, RemoveWebhook
from distribu.domain.errors import Busy, Conflict, InDoubt
from distribu.domain.webhooks import ATTEMPT_TIMEOUT_S, WireEvent
from tests.benchmarks.deliveries import AT_ONCE
from tests.benchmarks.machine import ROOT
from tests.proofs import books
from tests.proofs.conftest import House
from tests.proofs.processes import Process, kill_postgres, superuser
from tests.proofs.receivers import BODIES, DAWDLES_S, Receivers, receivers

GOOD = 16
BAD = ("hangs", "fails", "resets", "dawdles")
EVENTS = int(os.environ.get("DISTRIBU_PROOF_EVENTS", "500"))
"""Of each part, to 16 receivers and then to 20."""

KILLS = 20
OFFERED = 40
"""Events a second while workers are killed."""

CLAIM_S = 60


def p95(delays: Sequence[float]) -> float:
    return sorted(delays)[int(len(delays) * 0.95)]


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


async def bare(to: Receivers, bodies: Sequence[str]) -> float:
    """Deliveries a second of a process that does nothing else, to the same receivers."""
    plan = {
        "url": to.url("bare"),
        "bodies": bodies,
        "headers": {"Content-Type": "application/json"},
        "count": BODIES,
        "at_once": AT_ONCE,
    }
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.benchmarks.bare", cwd=ROOT, stdin=PIPE, stdout=PIPE
    )
    said, _ = await client.communicate(msgspec.json.encode(plan))
    return float(msgspec.json.decode(said)["per_s"])


async def test_bad_receivers_beside_good_ones(house: House) -> None:
    """Nothing is lost, and who is quick does not wait for who is not; the figures are printed."""
    async with receivers() as good, receivers() as bad:
        shop = await Shop.open(house.distribu)
        for place in range(GOOD):
            await shop.webhook(WireEvent.PRODUCT_CREATED, url=good.url(f"good-{place}"))
        await offer(shop, EVENTS)
        began = time.perf_counter()
        async with worker(house):
            await good.until(GOOD, 1, within_s=60)
            first, had = time.perf_counter(), sum((await good.counts()).values())
            await good.until(GOOD, EVENTS, within_s=60 + EVENTS / 10)
            capacity = (EVENTS * GOOD - had) / (time.perf_counter() - first)
            plain = await bare(good, (await good.told()).bodies)
            rate = capacity / 2 / (GOOD + len(BAD))
            measured = []
            for beside in ((), BAD):
                for path in beside:
                    await shop.webhook(WireEvent.PRODUCT_CREATED, url=bad.url(path))
                await good.forget()
                await offer(shop, EVENTS, per_s=rate)
                await good.until(GOOD, EVENTS, within_s=120 + EVENTS / rate)
                told = await good.told()
                for place in range(GOOD):
                    assert {times for _, times in told.arrived[f"good-{place}"]} == {1}
                measured.append(p95(told.delays))
            for webhook in (await shop.execute(ListWebhooks(limit=100))).items:
                await shop.execute(RemoveWebhook(webhook_id=webhook.id))  # or what fails outlives this test
    without, with_bad = measured
    assert with_bad < DAWDLES_S / 3, "they waited for a slow one"
    print(
        f"\none worker process: {capacity:.0f} deliveries/s, a bare client with the same bodies "
        f"{plain:.0f}/s, ratio {capacity / plain:.2f}; at {rate:.1f} events/s p95 of {GOOD} good receivers "
        f"{without * 1000:.0f} ms without and {with_bad * 1000:.0f} ms beside the bad four "
        f"({with_bad / without - 1:+.0%}); {time.perf_counter() - began:.0f} s in all"
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


async def test_workers_and_the_database_killed_at_work(apart: House) -> None:
    """Workers twenty times, PostgreSQL once, beside the bad four: every event arrives at least once, in its
    position, and says which one came before; and every attempt has its record.
    """
    shop = await Shop.open(apart.distribu)
    async with receivers() as good, receivers() as bad:
        for place in range(GOOD):
            await shop.webhook(WireEvent.PRODUCT_CREATED, url=good.url(f"good-{place}"))
        for path in BAD:
            await shop.webhook(WireEvent.PRODUCT_CREATED, url=bad.url(path))
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
            await good.until(GOOD, EVENTS, within_s=CLAIM_S + 120)
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
        arrived = (await good.told()).arrived
    twice = 0
    for place in range(GOOD):
        came = Counter(dict(arrived[f"good-{place}"]))
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
