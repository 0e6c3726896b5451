"""The relay under load: late commits, two workers at once, and the end of one of them."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from psycopg import AsyncConnection

from distribu import Settings, Shop, inside
from distribu.container import database as embedded
from tests.proofs import books
from tests.proofs.conftest import House
from tests.proofs.net import Buyer, Receiver, buyers
from tests.proofs.processes import Process, Server, superuser

COMPANIES = 6
KILLS = 5
CLAIM_S = 60


@pytest.fixture
async def serving(house: House) -> AsyncIterator[Server]:
    """A server that only serves: the workers are processes of their own."""
    server = Server(house.data_dir, "--no-worker")
    try:
        await server.started()
        yield server
        assert await server.stop() == 0, server.said()
    finally:
        server.end()


@pytest.fixture
async def workers(house: House) -> AsyncIterator[list[Process]]:
    """Two workers on one database."""
    workers = [Process(house.data_dir, "worker") for _ in range(2)]
    try:
        for worker in workers:
            worker.start()
        yield workers
        for worker in workers:
            assert await worker.stop() == 0, worker.said()
    finally:
        for worker in workers:
            worker.end()


async def test_what_commits_late_is_never_skipped(
    house: House, serving: Server, workers: list[Process], shop: Shop, receiver: Receiver
) -> None:
    """Transactions of a host are held open, one inside the other, while hundreds of others commit."""
    app_url = _app_url(house.data_dir)
    late: list[str] = []
    hosts: list[AsyncConnection[Any]] = []
    async with buyers(serving.url, await shop.key(), connections=8) as [buyer], AsyncExitStack() as stack:
        for held in range(5):
            host = await stack.enter_async_context(
                await AsyncConnection.connect(app_url, prepare_threshold=None)
            )
            hosts.append(host)
            await host.execute("SELECT 1")  # psycopg begins a transaction with the first statement
            mine = Shop(inside(house.distribu, host), shop.company)
            late.append((await mine.product(f"Held {held}", sku=f"HELD-{held}")).id)
            await _make_products(buyer, f"while {held + 1} are held", 60)
        at_once = await _until_relayed(house, shop.company.id, 300)
        for host in hosts:  # the first one opened is the first to commit
            await _make_products(buyer, "between", 20)
            await host.commit()
        await _until_relayed(house, shop.company.id, 405)
    with superuser(house.data_dir) as database:
        sent = books.events(database, shop.company.id, "product.created")
        rows = database.execute(
            "SELECT position, payload::jsonb ->> 'id' FROM distribu.feed "
            "WHERE company_id = %s AND name = 'product.created' ORDER BY position",
            [shop.company.id],
        ).fetchall()
        books.check(database, shop.company.id)
    positions = {id: position for position, id in rows}
    assert len(sent) == len(positions) == 405
    assert [positions[id] for id in late] == sorted(positions[id] for id in late)
    assert min(positions[id] for id in late) > at_once
    await receiver.until("shop", sent, within_s=60)
    assert receiver.ids("shop") == dict.fromkeys(sent, 1)
    print(f"\n{at_once} positions were given before the 5 that began first came: {_of(late, positions)}")


def _of(ids: list[str], positions: dict[str, int]) -> list[int]:
    return [positions[id] for id in ids]


async def test_two_workers_and_the_end_of_one(
    house: House, serving: Server, workers: list[Process], receiver: Receiver
) -> None:
    shops = [await Shop.open(house.distribu) for _ in range(COMPANIES)]
    for shop in shops:
        _, secret = await shop.webhook(url=receiver.url(shop.company.id))
        receiver.secrets[shop.company.id] = secret.reveal()
    goods = [(await shop.product(stock=10_000), await shop.customer()) for shop in shops]
    keys = [await shop.key() for shop in shops]
    placed = 0
    began = time.perf_counter()
    async with buyers(serving.url, *keys, connections=2 * COMPANIES) as everybody:

        async def buy(buyer: Buyer, product_id: str, customer_id: str) -> None:
            nonlocal placed
            while time.perf_counter() - began < 10:
                said = await buyer.order(customer_id, {product_id: 1})
                assert said.status == 201, said
                path = f"/orders/{said.order['id']}"
                for status in ("CONFIRMED", "SHIPPED", "DELIVERED")[: placed % 4]:
                    assert (await buyer.send("PATCH", path, {"status": status})).status == 200
                placed += 1

        async def kill_in_turn() -> None:
            for turn in range(KILLS):
                await asyncio.sleep(1.8)
                victim = workers[turn % 2]
                victim.kill()
                victim.start()

        await asyncio.gather(
            kill_in_turn(),
            *(
                buy(buyer, product.id, customer.id)
                for buyer, (product, customer) in zip(everybody, goods, strict=True)
                for _ in range(2)
            ),
        )
    took = time.perf_counter() - began
    total, twice = 0, 0
    for shop in shops:
        sent = await _all_relayed(house, shop.company.id)
        total += len(sent)
        await receiver.until(shop.company.id, sent, within_s=CLAIM_S + 60)
        arrived = receiver.ids(shop.company.id)
        assert arrived.keys() == set(sent)
        twice += sum(count > 1 for count in arrived.values())
        with superuser(house.data_dir) as database:
            orders = books.check(database, shop.company.id)
            records = "SELECT count(*) FROM distribu.records WHERE company_id = %s AND action = %s"
            moved = books.count(database, records, shop.company.id, "order.status_changed")
            changed = books.events(database, shop.company.id, "order.status_changed")
            assert len(changed) == moved
            assert len(books.events(database, shop.company.id, "order.created")) == len(orders)
        by_order: dict[str, list[tuple[int, str]]] = defaultdict(list)
        for it in receiver.received[shop.company.id]:
            if it["event"] in ("order.created", "order.status_changed"):
                by_order[it["data"]["id"]].append((it["position"], it["data"]["status"]))
        path = ["SUBMITTED", "CONFIRMED", "SHIPPED", "DELIVERED"]
        for seen in by_order.values():
            came = [status for _, status in sorted(set(seen))]
            assert came == path[: len(came)]
    print(
        f"\n{placed} orders of {COMPANIES} companies in {took:.1f} s, {KILLS} times a worker was killed: "
        f"{total} events, positions without a gap, {twice} arrived more than once, "
        f"the last {time.perf_counter() - began:.1f} s after the start"
    )


def _app_url(data_dir: Path) -> str:
    with embedded(Settings(data_dir=str(data_dir))) as ready:
        assert ready.database_url is not None
        return ready.database_url


async def _make_products(buyer: Buyer, name: str, count: int) -> None:
    answers = await asyncio.gather(
        *(buyer.send("POST", "/products", {"name": name, "price": 1}) for _ in range(count))
    )
    assert {said.status for said in answers} == {201}


async def _until_relayed(house: House, company_id: str, count: int) -> int:
    """The last position, once there are so many events of new products in the feed."""
    began = time.perf_counter()
    with superuser(house.data_dir) as database:
        query = "SELECT count(*) FROM distribu.feed WHERE company_id = %s AND name = 'product.created'"
        while books.count(database, query, company_id) < count:
            assert time.perf_counter() - began < 30
            await asyncio.sleep(0.1)
        return books.count(
            database, "SELECT position FROM distribu.feed_heads WHERE company_id = %s", company_id
        )


async def _all_relayed(house: House, company_id: str) -> list[str]:
    began = time.perf_counter()
    with superuser(house.data_dir) as database:
        while books.count(database, "SELECT count(*) FROM distribu.outbox WHERE company_id = %s", company_id):
            assert time.perf_counter() - began < 30
            await asyncio.sleep(0.1)
        return books.events(database, company_id)
