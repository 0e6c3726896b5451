"""Races at size: a thousand orders at once, over real sockets, on a server that is its own process."""

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal

from distribu import Shop
from distribu.application.ordering import PreviewOrder, Wanted
from tests.proofs import books
from tests.proofs.conftest import House
from tests.proofs.net import Receiver, Said, buyers
from tests.proofs.processes import Server, superuser

ORDERS = 1_000
UNITS = 50
CONNECTIONS = 1_000


def _report(what: str, seconds: float, answers: Sequence[Said]) -> None:
    took = sorted(said.seconds for said in answers)
    again = sum(said.tries - 1 for said in answers)
    print(
        f"\n{what}: {len(answers)} orders in {seconds:.2f} s ({len(answers) / seconds:.0f}/s), "
        f"median {statistics.median(took):.2f} s, slowest {took[-1]:.2f} s, {again} times told to come again"
    )


def _told(answers: Sequence[Said]) -> Counter[tuple[int, str]]:
    return Counter((said.status, said.code) for said in answers)


async def test_a_thousand_orders_on_fifty_units(
    house: House, server: Server, shop: Shop, receiver: Receiver
) -> None:
    product = await shop.product(stock=UNITS)
    customers = [await shop.customer() for _ in range(20)]
    async with buyers(server.url, await shop.key(), connections=CONNECTIONS) as [buyer]:
        began = time.perf_counter()
        answers = await asyncio.gather(
            *(buyer.insist(customers[place % 20].id, {product.id: 1}) for place in range(ORDERS))
        )
        took = time.perf_counter() - began
    _report("stock of 50", took, answers)

    assert _told(answers) == {(201, ""): UNITS, (422, "insufficient_stock"): ORDERS - UNITS}
    accepted = {said.order["id"]: said.order["number"] for said in answers if said.status == 201}
    assert sorted(accepted.values()) == list(range(1001, 1001 + UNITS))
    with superuser(house.data_dir) as database:
        created = await _all_delivered(house, receiver, shop, UNITS)
        orders = books.check(database, shop.company.id)
        assert {order.id: order.number for order in orders} == accepted
        left = "SELECT stock FROM distribu.products WHERE id = %s"
        assert books.count(database, left, product.id) == 0
        moved = "SELECT sum(quantity) FROM distribu.stock_movements WHERE product_id = %s"
        assert books.count(database, moved, product.id) == 0
        placed = "SELECT count(*) FROM distribu.records WHERE company_id = %s AND action = 'order.placed'"
        assert books.count(database, placed, shop.company.id) == UNITS
    assert receiver.ids("shop", "order.created") == dict.fromkeys(created, 1)
    numbers = [it["data"]["number"] for it in receiver.received["shop"] if it["event"] == "order.created"]
    assert sorted(numbers) == sorted(accepted.values())
    assert sum(receiver.ids("shop", "product.low_stock").values()) == 1


async def test_a_thousand_orders_on_the_credit_of_fifty(
    house: House, server: Server, shop: Shop, receiver: Receiver
) -> None:
    product = await shop.product(stock=10 * ORDERS, price="19.99")
    customer = await shop.customer()
    item = Wanted(product_id=product.id, quantity=1)
    preview = await shop.execute(PreviewOrder(customer_id=customer.id, items=(item,)))
    total = Decimal(str(preview.total))
    # A cent short of the fifty-first.
    await shop.limit_credit(customer, str((UNITS + 1) * total - Decimal("0.01")))
    async with buyers(server.url, await shop.key(), connections=CONNECTIONS) as [buyer]:
        began = time.perf_counter()
        answers = await asyncio.gather(*(buyer.insist(customer.id, {product.id: 1}) for _ in range(ORDERS)))
        took = time.perf_counter() - began
    _report("credit for 50", took, answers)

    assert _told(answers) == {(201, ""): UNITS, (422, "credit_limit_exceeded"): ORDERS - UNITS}
    numbers = sorted(said.order["number"] for said in answers if said.status == 201)
    assert numbers == list(range(1001, 1001 + UNITS))
    created = await _all_delivered(house, receiver, shop, UNITS)
    assert receiver.ids("shop", "order.created") == dict.fromkeys(created, 1)
    with superuser(house.data_dir) as database:
        assert len(books.check(database, shop.company.id)) == UNITS
        used = "SELECT credit_used * 100 FROM distribu.customers WHERE id = %s"
        assert books.count(database, used, customer.id) == UNITS * total * 100


async def test_many_companies_at_once_do_not_disturb_each_other(
    house: House, server: Server, receiver: Receiver
) -> None:
    """Twenty companies of ten units, fifty orders each, while a thousand orders go to one of a big stock."""
    shops = [await Shop.open(house.distribu) for _ in range(21)]
    stocks = [10] * 20 + [10 * ORDERS]
    counts = [50] * 20 + [ORDERS]
    products = [await one.product(stock=stock) for one, stock in zip(shops, stocks, strict=True)]
    customers = [await one.customer() for one in shops]
    keys = [await one.key() for one in shops]
    async with buyers(server.url, *keys, connections=CONNECTIONS) as everybody:
        began = time.perf_counter()
        answers = await asyncio.gather(
            *(
                everybody[place].insist(customers[place].id, {products[place].id: 1})
                # The big one first: the others stand behind it.
                for place in reversed(range(21))
                for _ in range(counts[place])
            )
        )
        took = time.perf_counter() - began
        _report("the big company", took, answers[:ORDERS])
        _report("twenty others at once", took, answers[ORDERS:])
        by_company = [answers[:ORDERS], *(answers[at : at + 50] for at in range(ORDERS, 2 * ORDERS, 50))]
        assert _told(by_company[0]) == {(201, ""): ORDERS}
        for told in by_company[1:]:
            assert _told(told) == {(201, ""): 10, (422, "insufficient_stock"): 40}
        theirs = next(said for said in by_company[1] if said.status == 201)
        assert (await everybody[0].send("GET", f"/orders/{theirs.order['id']}")).code == "order_not_found"
    with superuser(house.data_dir) as database:
        for shop, told in zip(reversed(shops), by_company, strict=True):
            accepted = {said.order["id"]: said.order["number"] for said in told if said.status == 201}
            assert sorted(accepted.values()) == list(range(1001, 1001 + len(accepted)))
            assert {order.id: order.number for order in books.check(database, shop.company.id)} == accepted


async def _all_delivered(house: House, receiver: Receiver, shop: Shop, count: int) -> list[str]:
    """The ids of the events of new orders, once so many have arrived."""
    began = time.perf_counter()
    while len(receiver.ids("shop", "order.created")) < count:
        assert time.perf_counter() - began < 60, receiver.ids("shop")
        await asyncio.sleep(0.1)
    await asyncio.sleep(1)  # for what should not come
    with superuser(house.data_dir) as database:
        created = books.events(database, shop.company.id, "order.created")
    assert len(created) == count
    print(f"the last of {count} webhooks arrived {time.perf_counter() - began - 1:.2f} s after the answers")
    return created
