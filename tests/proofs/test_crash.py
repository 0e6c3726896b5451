"""Crashes: the server and the database are killed in the middle of work, and the books are still right."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from distribu import Settings, Shop, connect
from tests.proofs import books
from tests.proofs.net import Buyer, Receiver, Said, buyers
from tests.proofs.processes import Server, kill_postgres, superuser

KILLS = 10
HANDS = 24
"""Buyers who send one order after the other."""

CLAIM_S = 60
"""How long a delivery stays with a worker that is dead."""


@dataclass(slots=True)
class Crowd:
    """Buyers who order without a pause, and what became of every order, by its reference."""

    buyer: Buyer
    customers: list[str]
    products: list[str]
    seed: int
    answered: dict[str, Said] = field(default_factory=dict)
    keyed: dict[str, tuple[str, dict[str, int]]] = field(default_factory=dict)
    unanswered: set[str] = field(default_factory=set)
    told_no: set[str] = field(default_factory=set)
    refused: Counter[str] = field(default_factory=Counter)
    resent: int = 0
    replayed: int = 0
    up: asyncio.Event = field(default_factory=asyncio.Event)
    done: bool = False

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Order from here to the end of the block, and finish what was begun."""
        self.up.set()
        async with asyncio.TaskGroup() as hands:
            for place in range(HANDS):
                hands.create_task(self._hand(random.Random(self.seed + place), place))
            yield
            self.done = True
            self.up.set()

    async def _hand(self, rng: random.Random, place: int) -> None:
        for turn in range(1_000_000):
            if self.done:
                return
            await self.up.wait()
            ref = f"{place}-{turn}"
            customer = rng.choice(self.customers)
            items = {id: rng.randint(1, 3) for id in rng.sample(self.products, rng.randint(1, 3))}
            key = f"key-{ref}" if rng.random() < 0.5 else None
            if key is not None:
                self.keyed[ref] = (customer, items)
            said = await self._sent(ref, customer, items, key)
            if said is not None and said.status == 201:
                await self._go_on(said, rng)

    async def _sent(self, ref: str, customer: str, items: dict[str, int], key: str | None) -> Said | None:
        """The answer: with a key it is asked for until it is there, without one it may be lost."""
        sent = 0
        while True:
            try:
                sent += 1
                said = await self.buyer.order(customer, items, ref=ref, once=key)
            except (aiohttp.ClientError, OSError):
                # Nobody knows whether it was placed: with a key one may ask again, without one not.
                self.unanswered.add(ref)
                if key is None:
                    return None
                self.resent += 1
                self.up.clear()
                await self.up.wait()
                continue
            if said.status == 201:
                self.answered[ref] = said
                self.replayed += said.replayed
                return said
            assert said.code in ("busy", "idempotency_key_running", "outcome_unknown"), said
            self.refused[said.code] += 1
            if key is None:
                (self.unanswered if said.code == "outcome_unknown" else self.told_no).add(ref)
                return None
            await asyncio.sleep(0.3)

    async def _go_on(self, said: Said, rng: random.Random) -> None:
        """Pay or cancel some orders; whether that is answered does not matter, only the books do."""
        path, order = f"/orders/{said.order['id']}", said.order
        try:
            match rng.randrange(4):
                case 0:
                    body = {"amount": order["total"] / 2, "method": "TRANSFER"}
                    await self.buyer.send("POST", f"{path}/payments", body)
                case 1:
                    await self.buyer.send("PATCH", path, {"status": "CANCELLED"})
        except (aiohttp.ClientError, OSError):
            self.up.clear()


@dataclass(frozen=True, slots=True)
class Place:
    """A database of this test's own, a company on it, and a server that is to crash."""

    data_dir: Path
    company_id: str
    key: str
    customers: list[str]
    products: list[str]
    server: Server


@pytest.fixture
async def place(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> AsyncIterator[Place]:
    """Everything by way of the server alone: nobody else holds the database when it is killed."""
    data_dir = tmp_path_factory.mktemp("crash")
    async with connect(Settings(data_dir=str(data_dir))) as distribu:
        shop = await Shop.open(distribu)
        _, secret = await shop.webhook(url=receiver.url("shop"))
        receiver.secrets["shop"] = secret.reveal()
        products = [(await shop.product(f"Product {n}", price="12.50", stock=1_000_000)).id for n in range(8)]
        customers = [(await shop.customer()).id for _ in range(8)]
        key = await shop.key()
    server = Server(data_dir)
    try:
        await server.started()
        yield Place(data_dir, shop.company.id, key, [*customers], [*products], server)
        assert await server.stop() == 0, server.said()
        assert not (data_dir / "postgres/data/postmaster.pid").exists()
    finally:
        server.end()
        if (data_dir / "postgres/data/postmaster.pid").exists():
            kill_postgres(data_dir)


async def test_ten_times_the_server_is_killed_at_work(place: Place, receiver: Receiver) -> None:
    rng = random.Random()
    seed = rng.randrange(10**6)
    rng.seed(seed)
    print(f"\nseed {seed}")
    began = time.perf_counter()
    down = 0.0
    async with buyers(place.server.url, place.key, connections=HANDS) as [buyer]:
        crowd = Crowd(buyer, place.customers, place.products, seed)
        async with crowd.at_work():
            for _ in range(KILLS):
                await asyncio.sleep(rng.uniform(0.3, 2))
                place.server.kill()
                down += await place.server.started()
                with superuser(place.data_dir) as database:
                    books.check(database, place.company_id)
                crowd.up.set()
            await asyncio.sleep(1)
    print(f"{time.perf_counter() - began:.1f} s in all, {down:.1f} s of it starting again")
    assert "outcome_unknown" not in crowd.refused
    await _all_is_well(place, crowd, receiver)


async def test_the_database_is_killed_at_work(place: Place, receiver: Receiver) -> None:
    async with buyers(place.server.url, place.key, connections=HANDS) as [buyer]:
        crowd = Crowd(buyer, place.customers, place.products, seed=1)
        async with crowd.at_work():
            await asyncio.sleep(2)
            processes = kill_postgres(place.data_dir)
            await asyncio.sleep(1)
            assert (await buyer.send("GET", "/me")).status == 503
            print(f"\n{processes} processes of PostgreSQL killed; answers meanwhile: {dict(crowd.refused)}")
            # The server does not start another one: it is started again, as a supervisor would.
            assert await place.server.stop() == 0, place.server.said()
            took = await place.server.started()
            print(f"back after {took:.1f} s, recovery of the database in it")
            crowd.up.set()
            await asyncio.sleep(1)
    await _all_is_well(place, crowd, receiver)


async def _all_is_well(place: Place, crowd: Crowd, receiver: Receiver) -> None:
    """Every order that was answered is there once, whole; what was sent with a key is, too."""
    with superuser(place.data_dir) as database:
        orders = books.check(database, place.company_id)
        refs = Counter(order.ref for order in orders)
        by_ref = {order.ref: order for order in orders}
        assert not [ref for ref, count in refs.items() if count > 1]
        for ref, said in crowd.answered.items():
            assert (said.order["id"], said.order["number"]) == (by_ref[ref].id, by_ref[ref].number)
            assert sum(item["quantity"] for item in said.order["items"]) == by_ref[ref].ordered
        assert crowd.keyed.keys() <= crowd.answered.keys()
        # What was refused is not there; what nobody was answered about may be there or not.
        assert not refs.keys() & crowd.told_no
        assert refs.keys() <= crowd.answered.keys() | crowd.unanswered
        kept = "SELECT count(*) FROM distribu.answers WHERE company_id = %s"
        assert books.count(database, kept, place.company_id) == len(crowd.keyed)
        found = sum(ref in refs for ref in crowd.unanswered - crowd.answered.keys())
        print(
            f"{len(orders)} orders, {len(crowd.answered)} answered; without an answer and a key: "
            f"{len(crowd.unanswered - crowd.answered.keys())}, {found} of them placed; "
            f"sent again with their key: {crowd.resent}, {crowd.replayed} of them had been placed"
        )
        began = time.perf_counter()
        while books.count(database, "SELECT count(*) FROM distribu.outbox"):
            assert time.perf_counter() - began < 30
            await asyncio.sleep(0.1)
        sent = books.events(database, place.company_id)
        created = books.events(database, place.company_id, "order.created")
        assert len(created) == len(orders)
        # What a dead worker had claimed comes back by itself when its claim runs out.
        waited = await receiver.until("shop", sent, within_s=CLAIM_S + 60)
        pending = "SELECT count(*) FROM distribu.deliveries WHERE status <> 'DELIVERED'"
        while books.count(database, pending):
            assert time.perf_counter() - began < CLAIM_S + 90
            await asyncio.sleep(0.5)
        books.check(database, place.company_id)
    arrived = receiver.ids("shop")
    assert arrived.keys() == set(sent)
    print(
        f"{len(sent)} events, the last arrived after {waited:.1f} s, "
        f"{sum(count > 1 for count in arrived.values())} more than once; "
        f"all deliveries closed after {time.perf_counter() - began:.1f} s"
    )
