"""What every store promises, asked of it directly: no use case stands in front."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from itertools import count
from typing import Any, cast

import pytest

from distribu import Actor, Bug, Busy, Conflict, Harness, NotFound, Refused, Secret, Shop, amount
from distribu.application import views
from distribu.application.catalog import CreateProduct
from distribu.application.kernel import Command, Once, Work
from distribu.application.letters import PasswordChanged, read
from distribu.application.ordering import PlaceOrder, Wanted
from distribu.application.ports import (
    NUMBER_TO_COME,
    Again,
    AlreadyAnswered,
    Change,
    MailParcel,
    NewMail,
    OnceKey,
    StoredAnswer,
    Tx,
)
from distribu.application.team import CreateCompany, EditCompany
from distribu.domain.access import Permission
from distribu.domain.catalog import Product, StockAdjusted
from distribu.domain.customers import CreditTaken, Customer, PriceOverride
from distribu.domain.entity import Entity
from distribu.domain.ordering import Line, Order, OrderSource, PaymentMethod, PaymentRecorded, Totals
from distribu.domain.values import (
    CustomerId,
    OrderId,
    ProductId,
    Rate,
    exact_rate,
)
from tests.contracts.asking import (
    contact_of,
    everything,
    log_of,
    outcomes,
    refused,
    refusing,
    scope_of,
    store_of,
    told,
    write,
)

NO_TAX: Rate = exact_rate(amount("0"))
KEY = OnceKey("SYSTEM:", "one", b"print")
ANSWER = StoredAnswer(b"print", '{"answer":1}', sealed=False)


class _Plain(Command[Product], frozen=True, kw_only=True):
    """A command of these tests: it holds no wish of a caller's, so there is nothing to check."""

    needs = Permission.PRODUCTS_WRITE

    def __post_init__(self) -> None: ...


class SaveAndFall(_Plain, frozen=True, kw_only=True):
    """Saves, and then raises."""

    product_id: ProductId

    async def run(self, work: Work) -> Product:
        product = await work.products.get(self.product_id)
        work.save(product.adjust(1, note="", at=work.now))
        raise ZeroDivisionError


class MailAndFall(_Plain, frozen=True, kw_only=True):
    """Mails, and then raises what it is given."""

    trouble: Any

    async def run(self, work: Work) -> Product:
        work.mail("bo@corner-shop.example", PasswordChanged(), token=Secret("tok-en"))
        raise self.trouble


class Mailing(_Plain, frozen=True, kw_only=True):
    """Mails and saves, after so many troubles."""

    troubles: Any

    async def run(self, work: Work) -> Product:
        work.mail("bo@corner-shop.example", PasswordChanged(company="Acme"), token=Secret("tok-en"))
        return await Stumble(troubles=self.troubles).run(work)


class Save(_Plain, frozen=True, kw_only=True):
    """Saves whatever it is given."""

    product: Any

    async def run(self, work: Work) -> Product:
        work.save(self.product)
        return cast(Product, self.product)


class ReceiveInTurn(_Plain, frozen=True, kw_only=True):
    """One piece each of two products, locked one after the other; ``tries`` counts the attempts."""

    first: ProductId
    second: ProductId
    tries: Any

    async def run(self, work: Work) -> Product:
        next(self.tries)
        first = (await work.products.get(self.first)).receive(1, note="", at=work.now)
        await asyncio.sleep(0.05)
        second = (await work.products.get(self.second)).receive(1, note="", at=work.now)
        work.save(first, second)
        return second


class Stumble(_Plain, frozen=True, kw_only=True):
    """Adds a product, unless there is something to raise."""

    troubles: Any

    async def run(self, work: Work) -> Product:
        product = Product.create(
            company_id=work.company_id,
            id=ProductId(work.new_id()),
            at=work.now,
            name="Rye Flour",
            price=amount("3.00"),
        )
        work.save(product)
        trouble = next(self.troubles, None)
        if trouble is not None:
            raise trouble
        return product


def new_product(shop: Shop, **fields: Any) -> Product:
    """A product that is not in the store yet."""
    given: dict[str, Any] = {"name": "Rye Flour", "price": amount("3.00")} | fields
    id = ProductId(shop.distribu.ports.entropy.uuid())
    return Product.create(company_id=shop.company.id, id=id, at=shop.distribu.ports.clock.now(), **given)


def new_customer(shop: Shop, email: str) -> Customer:
    """A customer that is not in the store yet."""
    id = CustomerId(shop.distribu.ports.entropy.uuid())
    return Customer.create(company_id=shop.company.id, id=id, at=shop.distribu.ports.clock.now(), email=email)


def new_order(
    shop: Shop, customer: str, product: str, *, price: str = "2.00", currency: str = "USD"
) -> Order:
    """An order of one piece that is not in the store yet."""
    entropy, now = shop.distribu.ports.entropy, shop.distribu.ports.clock.now()
    line = Line(
        id=entropy.uuid(),
        product_id=ProductId(product),
        product_name="Rye Flour",
        product_sku=None,
        quantity=1,
        unit_price=amount(price),
    )
    return Order.place(
        company_id=shop.company.id,
        id=OrderId(entropy.uuid()),
        customer_id=CustomerId(customer),
        source=OrderSource.STAFF,
        lines=(line,),
        totals=Totals.of((line,), tax_rate=NO_TAX, shipping=amount("0")),
        minimum=amount("0"),
        currency=currency,
        shipping_address=None,
        po_number="",
        notes="",
        placed_at=now,
        at=now,
    )


class StoreContract:
    """Transactions, constraints, numbers, and effects that happen once."""

    # --- races -----------------------------------------------------------------------------

    async def test_twenty_buyers_cannot_buy_five(self, shop: Harness) -> None:
        """Check and decrement are one: safety is the store's and not its caller's."""
        product = await shop.product(stock=5)

        async def buy() -> str:
            async with store_of(shop).begin(scope_of(shop)) as tx:
                seen = await tx.products.get(product.id)
                await asyncio.sleep(0)
                order_id = OrderId(shop.distribu.ports.entropy.uuid())
                await write(tx, shop, seen.take(1, order_id=order_id, at=shop.clock.now()))
                return "sold"

        ends = await outcomes(*(buy() for _ in range(20)))
        assert sorted(ends) == ["insufficient_stock"] * 15 + ["sold"] * 5
        async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:
            assert (await tx.products.get(product.id)).stock == 0
            moved = await tx.products.movements(product.id, limit=100)
        assert [one.quantity for one in moved.items] == [-1] * 5 + [5]
        assert [one.stock_after for one in moved.items] == [0, 1, 2, 3, 4, 5]

    async def test_two_hundred_orders_at_once_on_fifty_units_sell_exactly_fifty(self, shop: Harness) -> None:
        """The whole use case, with the check and the decrement where they belong."""
        product, customer = await shop.product(stock=50), await shop.customer()
        ends = await outcomes(*(shop.order(customer, (product, 1)) for _ in range(200)))
        assert sum(isinstance(end, Order) for end in ends) == 50
        assert {end for end in ends if isinstance(end, str)} <= {"insufficient_stock", "busy"}
        async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:
            assert (await tx.products.get(product.id)).stock == 0

    async def test_credit_is_not_given_twice_in_a_race(self, shop: Harness) -> None:
        product = await shop.product(price="10.00", stock=100)
        customer = await shop.customer(credit_limit=amount("50.00"))
        ends = await outcomes(*(shop.order(customer, (product, 1)) for _ in range(20)))
        assert sum(isinstance(end, Order) for end in ends) == 5
        assert ends.count("credit_limit_exceeded") == 15
        async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:
            assert (await tx.customers.get(customer.id)).credit_used == amount("50.00")

    async def test_two_writers_of_one_version_cannot_both_win(self, shop: Harness) -> None:
        """Neither has locked: each has read for itself, and writes what it made of that."""
        product = (await shop.product(stock=5)).written()

        async def rename(name: str) -> str:
            async with store_of(shop).begin(scope_of(shop)) as tx:
                changed = product.edit({"name": name}, at=shop.clock.now())
                await tx.write([Change(product, changed)], told(shop, changed), None)
            return name

        ends = await outcomes(*(rename(f"Name {n}") for n in range(6)))
        assert ends.count("stale_version") == 5
        (won,) = set(ends) - {"stale_version"}
        async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:
            stored = await tx.products.get(product.id)
        assert (stored.name, stored.version) == (won, 2)

    async def test_opposite_orders_of_locking_both_get_through(self, shop: Harness) -> None:
        """One of the two is given up on by the store, and run again by the executor."""
        one, other = await shop.product("One", stock=0), await shop.product("Other", stock=0)
        tries = count(1)
        await asyncio.gather(
            shop.execute(ReceiveInTurn(first=one.id, second=other.id, tries=tries)),
            shop.execute(ReceiveInTurn(first=other.id, second=one.id, tries=tries)),
        )
        async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:
            found = await tx.products.many([one.id, other.id])
        assert [it.stock for it in found.values()] == [2, 2]

    async def test_orders_of_the_same_products_in_any_order_do_not_meet_head_on(self, shop: Harness) -> None:
        """`many` locks in id order, whatever order it was asked in."""
        products = [await shop.product(f"P{n}", stock=100) for n in range(4)]
        customer = await shop.customer()

        async def order(turn: int) -> Order:
            turned = products[turn % 4 :] + products[: turn % 4]
            return await shop.order(customer, *((product, 1) for product in turned))

        ends = await outcomes(*(order(turn) for turn in range(12)))
        assert all(isinstance(end, Order) for end in ends)
        assert sorted(end.number for end in ends) == list(range(1001, 1013))

    # --- all or nothing ----------------------------------------------------------------------

    async def test_what_is_left_without_a_write_leaves_no_trace(self, shop: Harness) -> None:
        product = await shop.product(stock=5)
        before = await everything(shop)
        with suppress(ZeroDivisionError):
            async with store_of(shop).begin(scope_of(shop)) as tx:
                (await tx.products.get(product.id)).adjust(3, note="", at=shop.clock.now())
                raise ZeroDivisionError
        async with store_of(shop).begin(scope_of(shop)) as tx:
            await tx.products.get(product.id)
        assert await everything(shop) == before
        # and the locks are gone
        async with store_of(shop).begin(scope_of(shop)) as tx:
            seen = await tx.products.get(product.id)
            await write(tx, shop, seen.adjust(1, note="", at=shop.clock.now()))

    async def test_a_command_that_fails_after_saving_leaves_no_trace(self, shop: Harness) -> None:
        product = await shop.product(stock=5)
        before = await everything(shop)
        with pytest.raises(ZeroDivisionError):
            await shop.execute(SaveAndFall(product_id=product.id))
        assert await everything(shop) == before

    async def test_a_write_that_fails_leaves_neither_rows_nor_records_nor_events_nor_a_number(
        self, shop: Harness
    ) -> None:
        """The last of the changes is refused: everything before it must go as well."""
        webhook, _ = await shop.webhook()
        await shop.work()
        product, customer = await shop.product(stock=5), await shop.customer("taken@example.test")
        await shop.work()
        told_so_far = len(shop.received)
        async with refusing(shop, "duplicate_email", Conflict) as tx:
            seen = await tx.products.get(product.id)
            order = new_order(shop, customer.id, product.id)
            taken = seen.take(1, order_id=order.id, at=shop.clock.now())
            twin = new_customer(shop, "Taken@Example.test ")
            await write(tx, shop, taken, order, twin)
        await shop.work()
        assert len(shop.received) == told_so_far
        assert (await shop.order(customer, (product, 1))).number == 1001
        assert webhook.is_active

    async def test_an_event_without_a_record_is_a_bug(self, shop: Harness) -> None:
        """What cannot be told to the audit log is not done."""
        product = new_product(shop)
        before = await everything(shop)
        for records in ([], told(shop, new_product(shop))):
            with pytest.raises(Bug):
                async with store_of(shop).begin(scope_of(shop)) as tx:
                    await tx.write([Change(None, product)], records, None)
        assert await everything(shop) == before

    async def test_a_transaction_that_only_reads_refuses_to_write(self, shop: Harness) -> None:
        before = await everything(shop)
        with pytest.raises(Bug):
            async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:
                await write(tx, shop, new_product(shop))
        assert await everything(shop) == before

    async def test_what_was_read_is_loaded_and_what_was_not_is_not(self, shop: Harness) -> None:
        product, other = await shop.product(), await shop.product()
        async with store_of(shop).begin(scope_of(shop)) as tx:
            seen = await tx.products.get(product.id)
            assert tx.loaded(seen) is seen
            assert tx.loaded(other) is None

    async def test_together_answers_in_order_and_raises_the_first_refusal(self, shop: Harness) -> None:
        one, other = await shop.product("One"), await shop.product("Other")
        absent = ProductId(shop.distribu.ports.entropy.uuid())
        async with store_of(shop).begin(scope_of(shop)) as tx:
            second, company, first = await tx.together(
                tx.products.get(other.id), tx.companies.current(), tx.products.get(one.id)
            )
            assert (second, company, first) == (other, shop.company, one)
        with pytest.raises(NotFound) as no:
            async with store_of(shop).begin(scope_of(shop)) as tx:
                await tx.together(tx.products.get(absent), tx.customers.get(CustomerId(absent)))
        assert no.value.code == "product_not_found"

    async def test_a_change_can_be_written_before_anything_was_read(self, shop: Harness) -> None:
        product = new_product(shop, opening_stock=4)
        async with store_of(shop).begin(scope_of(shop)) as tx:
            assert await write(tx, shop, product) is None
        async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:
            assert await tx.products.get(product.id) == product

    # --- a stranger in every place ------------------------------------------------------------

    @pytest.mark.parametrize("kind", ["product", "customer", "order"])
    async def test_another_companys_entity_cannot_be_written(self, shop: Harness, kind: str) -> None:
        stranger = await shop.stranger()
        kinds: dict[str, Callable[[], Entity]] = {
            "product": lambda: new_product(stranger),
            "customer": lambda: new_customer(stranger, "a@example.test"),
            "order": lambda: new_order(
                stranger, stranger.distribu.ports.entropy.uuid(), stranger.distribu.ports.entropy.uuid()
            ),
        }
        theirs = kinds[kind]()
        mine, yours = await everything(shop), await everything(stranger)
        with pytest.raises((Bug, Refused)):
            async with store_of(shop).begin(scope_of(shop)) as tx:
                await write(tx, shop, theirs)
        assert (await everything(shop), await everything(stranger)) == (mine, yours)

    async def test_another_companys_entity_cannot_be_changed(self, shop: Harness) -> None:
        stranger = await shop.stranger()
        theirs = (await stranger.product(stock=5)).written()
        yours = await everything(stranger)
        now = shop.clock.now()
        # as it is, and disguised as one of ours
        for disguise in (theirs, replace(theirs, company_id=shop.company.id)):
            changed = disguise.edit({"name": "Mine now"}, at=now)
            with pytest.raises((Bug, Conflict)):
                async with store_of(shop).begin(scope_of(shop)) as tx:
                    await tx.write([Change(disguise, changed)], told(shop, changed), None)
        assert await everything(stranger) == yours

    async def test_the_executor_takes_no_entity_of_another_company(self, shop: Harness) -> None:
        stranger = await shop.stranger()
        theirs = await stranger.product()
        before = await everything(shop)
        with pytest.raises(Bug):
            await shop.execute(Save(product=theirs.edit({"name": "Mine now"}, at=shop.clock.now())))
        assert await everything(shop) == before

    async def test_an_order_can_name_neither_a_strangers_customer_nor_its_product(
        self, shop: Harness
    ) -> None:
        stranger = await shop.stranger()
        theirs, their_customer = await stranger.product(), await stranger.customer()
        product, customer = await shop.product(), await shop.customer()
        for who, what, code in (
            (their_customer.id, product.id, "customer_not_found"),
            (customer.id, theirs.id, "product_not_found"),
        ):
            async with refusing(shop, code, NotFound) as tx:
                await write(tx, shop, new_order(shop, who, what))

    async def test_a_contact_can_write_neither_another_customers_order_nor_a_customer(
        self, shop: Harness
    ) -> None:
        product, customer, other = await shop.product(), await shop.customer(), await shop.customer()
        before = await everything(shop)
        for entity in (new_order(shop, other.id, product.id), new_customer(shop, "new@example.test")):
            with pytest.raises((Bug, Refused)):
                async with store_of(shop).begin(scope_of(shop, customer)) as tx:
                    await write(tx, shop, entity)
        assert await everything(shop) == before

    # --- each constraint, by its name ----------------------------------------------------------

    @pytest.mark.parametrize(("sku", "twin"), [("OAT-25", "oat-25"), ("Straße", "STRASSE"), ("Ünit", "ünit")])
    async def test_a_sku_is_unique_ignoring_case(self, shop: Harness, sku: str, twin: str) -> None:
        await shop.product(sku=sku)
        async with refusing(shop, "duplicate_sku", Conflict) as tx:
            await write(tx, shop, new_product(shop, sku=twin))

    async def test_a_sku_is_free_again_once_its_product_is_archived(self, shop: Harness) -> None:
        product = await shop.product(sku="OAT-25")
        async with store_of(shop).begin(scope_of(shop)) as tx:
            await write(tx, shop, (await tx.products.get(product.id)).archive(at=shop.clock.now()))
        async with store_of(shop).begin(scope_of(shop)) as tx:
            await write(tx, shop, new_product(shop, sku="oat-25"))

    async def test_products_without_a_sku_do_not_clash(self, shop: Harness) -> None:
        for _ in range(2):
            async with store_of(shop).begin(scope_of(shop)) as tx:
                await write(tx, shop, new_product(shop, sku="  "))

    async def test_the_same_sku_at_once_is_taken_once(self, shop: Harness) -> None:
        async def create() -> str:
            async with store_of(shop).begin(scope_of(shop)) as tx:
                await write(tx, shop, new_product(shop, sku="OAT-25"))
            return "made"

        ends = await outcomes(*(create() for _ in range(5)))
        assert sorted(ends) == ["duplicate_sku"] * 4 + ["made"]

    async def test_two_companies_can_have_the_same_sku_and_the_same_customer(self, shop: Harness) -> None:
        stranger = await shop.stranger()
        for company in (shop, stranger):
            await company.product(sku="OAT-25")
            await company.customer("orders@corner-shop.example")

    async def test_an_email_is_unique_within_a_company(self, shop: Harness) -> None:
        await shop.customer("orders@corner-shop.example")
        async with refusing(shop, "duplicate_email", Conflict) as tx:
            await write(tx, shop, new_customer(shop, "ORDERS@corner-shop.example"))

    async def test_a_slug_is_unique_among_all_companies(self, shop: Harness) -> None:
        founding = Actor.system(None)
        async with refused(shop, "duplicate_slug", Conflict):
            await shop.execute(CreateCompany(name="Copy", slug=shop.company.slug.upper()), founding)
        stranger = await shop.stranger()
        async with refused(stranger, "duplicate_slug", Conflict):
            await stranger.execute(EditCompany(slug=shop.company.slug))

    async def test_the_same_slug_at_once_is_taken_once(self, shop: Harness) -> None:
        slug = f"race-{shop.company.id}"
        ends = await outcomes(
            *(shop.execute(CreateCompany(name="Race", slug=slug), Actor.system(None)) for _ in range(4))
        )
        assert ends.count("duplicate_slug") == 3

    async def test_stock_below_zero_is_refused_by_the_store_itself(self, shop: Harness) -> None:
        product = await shop.product(stock=2)
        async with refusing(shop, "insufficient_stock") as tx:
            seen = await tx.products.get(product.id)
            moved = StockAdjusted(quantity=-3, before=2, after=-1)
            await write(tx, shop, seen._after(moved, at=shop.clock.now(), stock=-1))

    async def test_credit_over_the_limit_is_refused_by_the_store_itself(self, shop: Harness) -> None:
        customer = await shop.customer(credit_limit=amount("10.00"))
        async with refusing(shop, "credit_limit_exceeded") as tx:
            seen = await tx.customers.get(customer.id)
            taken = CreditTaken(order_id=OrderId(""), amount=amount("11"), used=amount("11"))
            await write(tx, shop, seen._after(taken, at=shop.clock.now(), credit_used=amount("11.00")))

    async def test_credit_already_over_the_limit_can_still_be_paid_off(self, shop: Harness) -> None:
        product = await shop.product(price="10.00")
        customer = await shop.customer()
        order = await shop.order(customer, (product, 3))
        await shop.limit_credit(customer, "5.00")
        async with store_of(shop).begin(scope_of(shop)) as tx:
            seen = await tx.customers.get(customer.id)
            await write(tx, shop, seen.settle(amount("10"), order_id=order.id, at=shop.clock.now()))

    async def test_a_payment_over_the_total_is_refused_by_the_store_itself(self, shop: Harness) -> None:
        order = await shop.order(await shop.customer(), (await shop.product(price="10.00"), 1))
        async with refusing(shop, "overpayment") as tx:
            seen = await tx.orders.get(order.id)
            paid = PaymentRecorded(
                amount=amount("11"), method=PaymentMethod.CASH, reference="", paid=amount("11")
            )
            await write(tx, shop, seen._after(paid, at=shop.clock.now(), paid=amount("11.00")))

    async def test_the_currency_is_fixed_by_the_first_order(self, shop: Harness) -> None:
        await shop.order(await shop.customer(), (await shop.product(), 1))
        async with refusing(shop, "currency_fixed") as tx:
            company = await tx.companies.current(lock=True)
            euro = company.edit({"currency": "EUR"}, has_orders=False, at=shop.clock.now())
            await write(tx, shop, euro)

    async def test_an_order_is_in_its_companys_currency(self, shop: Harness) -> None:
        product, customer = await shop.product(), await shop.customer()
        async with refusing(shop, "currency_fixed") as tx:
            await write(tx, shop, new_order(shop, customer.id, product.id, currency="EUR"))

    async def test_unknown_customers_and_products_are_not_found(self, shop: Harness) -> None:
        product, customer = await shop.product(), await shop.customer()
        nobody = shop.distribu.ports.entropy.uuid()
        now = shop.clock.now()
        for who, what, code in (
            (nobody, product.id, "customer_not_found"),
            (customer.id, nobody, "product_not_found"),
        ):
            override = PriceOverride.create(
                company_id=shop.company.id,
                id=shop.distribu.ports.entropy.uuid(),
                customer_id=CustomerId(who),
                product_id=ProductId(what),
                price=amount("1.00"),
                at=now,
            )
            for entity in (new_order(shop, who, what), override):
                async with refusing(shop, code, NotFound) as tx:
                    await write(tx, shop, entity)

    async def test_a_pair_of_customer_and_product_has_one_price(self, shop: Harness) -> None:
        product, customer = await shop.product(), await shop.customer()

        def override() -> PriceOverride:
            return PriceOverride.create(
                company_id=shop.company.id,
                id=shop.distribu.ports.entropy.uuid(),
                customer_id=customer.id,
                product_id=product.id,
                price=amount("1.00"),
                at=shop.clock.now(),
            )

        async with store_of(shop).begin(scope_of(shop)) as tx:
            await write(tx, shop, override())
        async with refusing(shop, "stale_version", Conflict) as tx:
            await write(tx, shop, override())

    async def test_a_stale_version_among_several_changes_stops_them_all(self, shop: Harness) -> None:
        """An update of no rows stops nothing by itself; the message says so before it commits."""
        fresh, stale = [(await shop.product(name)).written() for name in ("Fresh", "Stale")]
        async with store_of(shop).begin(scope_of(shop)) as tx:
            await write(
                tx, shop, (await tx.products.get(stale.id)).edit({"name": "Moved on"}, at=shop.clock.now())
            )
        async with refusing(shop, "stale_version", Conflict) as tx:
            changed = [it.edit({"name": "Together"}, at=shop.clock.now()) for it in (fresh, stale)]
            changes = [Change(before, it) for before, it in zip((fresh, stale), changed, strict=True)]
            await tx.write(
                [*changes, Change(None, new := new_product(shop))], told(shop, *changed, new), None
            )

    # --- numbers ---------------------------------------------------------------------------------

    async def test_numbers_have_no_gaps_whatever_is_refused_among_them(self, shop: Harness) -> None:
        product, customer = await shop.product(stock=100), await shop.customer()
        nobody = shop.distribu.ports.entropy.uuid()

        async def place(turn: int) -> int | None:
            async with store_of(shop).begin(scope_of(shop)) as tx:
                # every other one is refused by a constraint, when its number is drawn already
                return await write(tx, shop, new_order(shop, nobody if turn % 2 else customer.id, product.id))

        ends = await outcomes(*(place(turn) for turn in range(16)))
        assert ends.count("customer_not_found") == 8
        assert sorted(end for end in ends if isinstance(end, int)) == list(range(1001, 1009))

    async def test_the_number_is_filled_in_wherever_it_stands(self, shop: Harness) -> None:
        product, customer = await shop.product(), await shop.customer()
        order = new_order(shop, customer.id, product.id)
        body = f'{{"metadata":{{"number":{NUMBER_TO_COME}}}}}'
        answer = replace(ANSWER, body=f'{{"number":{NUMBER_TO_COME}}}')
        async with store_of(shop).begin(scope_of(shop), once=KEY) as tx:
            number = await tx.write([Change(None, order)], told(shop, order, body=body), answer)
        assert number == 1001
        async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:
            assert (await tx.orders.get(order.id)).number == 1001
            assert (await tx.records.page(limit=1)).items[0].metadata == {"number": 1001}
        with pytest.raises(AlreadyAnswered) as again:
            async with store_of(shop).begin(scope_of(shop), once=KEY) as tx:
                await tx.companies.current()
        assert again.value.answer.body == '{"number":1001}'

    async def test_each_company_counts_for_itself(self, shop: Harness) -> None:
        for company in (shop, await shop.stranger()):
            product, customer = await company.product(), await company.customer()
            assert [(await company.order(customer, (product, 1))).number for _ in range(2)] == [1001, 1002]

    # --- once -------------------------------------------------------------------------------------

    async def test_a_key_that_has_its_answer_gives_it_at_the_first_await(self, shop: Harness) -> None:
        product = new_product(shop)
        async with store_of(shop).begin(scope_of(shop), once=KEY) as tx:
            await write(tx, shop, product, answer=ANSWER)
        before = await everything(shop)
        ways: tuple[Callable[[Tx], Awaitable[object]], ...] = (
            lambda tx: tx.together(tx.companies.current()),
            lambda tx: tx.together(tx.companies.current(), tx.products.get(product.id)),
            lambda tx: write(tx, shop, new_product(shop)),
        )
        for way in ways:
            with pytest.raises(AlreadyAnswered) as again:
                async with store_of(shop).begin(scope_of(shop), once=KEY) as tx:
                    await way(tx)
            assert again.value.answer == ANSWER
        assert await everything(shop) == before

    async def test_a_key_is_its_actors_and_its_companys(self, shop: Harness) -> None:
        stranger = await shop.stranger()
        for company, key in ((shop, KEY), (stranger, KEY), (shop, replace(KEY, actor="SYSTEM:other"))):
            async with store_of(company).begin(scope_of(company), once=key) as tx:
                await write(tx, company, new_product(company), answer=ANSWER)

    async def test_a_key_is_forgotten_after_a_day(self, shop: Harness) -> None:
        async def effect() -> bool:
            try:
                async with store_of(shop).begin(scope_of(shop), once=KEY) as tx:
                    await write(tx, shop, new_product(shop), answer=ANSWER)
            except AlreadyAnswered:
                return False
            return True

        assert await effect()
        shop.clock.advance(hours=24, milliseconds=-1)
        assert not await effect()
        shop.clock.advance(milliseconds=1)
        assert await effect()
        assert not await effect()

    async def test_eight_twins_at_once_have_one_effect_and_equal_answers(self, shop: Harness) -> None:
        product, customer = await shop.product(stock=100), await shop.customer()
        wish = PlaceOrder(customer_id=customer.id, items=(Wanted(product_id=product.id, quantity=1),))
        once: Once[Order] = Once("twins", lambda order: views.encode(views.of(order)))
        answers = await asyncio.gather(
            *(shop.distribu.execute_once(shop.actor, wish, once) for _ in range(8))
        )
        assert len({answer.body for answer in answers}) == 1
        assert sorted(answer.replayed for answer in answers) == [False] + [True] * 7
        assert b'"number":1001' in answers[0].body
        async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:
            assert len((await tx.orders.page(limit=100)).items) == 1
            assert (await tx.products.get(product.id)).stock == 99

    async def test_a_key_reused_for_another_request_is_refused(self, shop: Harness) -> None:
        once: Once[Product] = Once("reused", lambda it: views.encode(views.of(it)))
        first = CreateProduct(name="One", price=amount("1.00"))
        await shop.distribu.execute_once(shop.actor, first, once)
        async with refused(shop, "idempotency_key_reused"):
            other = CreateProduct(name="Other", price=amount("1.00"))
            await shop.distribu.execute_once(shop.actor, other, once)

    async def test_a_refusal_releases_the_key(self, shop: Harness) -> None:
        product, customer = await shop.product(stock=0), await shop.customer()
        wish = PlaceOrder(customer_id=customer.id, items=(Wanted(product_id=product.id, quantity=1),))
        once: Once[Order] = Once("released", lambda order: views.encode(views.of(order)))
        async with refused(shop, "insufficient_stock"):
            await shop.distribu.execute_once(shop.actor, wish, once)
        async with store_of(shop).begin(scope_of(shop)) as tx:
            more = (await tx.products.get(product.id)).receive(1, note="", at=shop.clock.now())
            await write(tx, shop, more)
        assert not (await shop.distribu.execute_once(shop.actor, wish, once)).replayed
        assert (await shop.distribu.execute_once(shop.actor, wish, once)).replayed

    async def test_a_twin_of_what_still_runs_waits_for_its_answer(self, shop: Harness) -> None:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def first() -> None:
            async with store_of(shop).begin(scope_of(shop), once=KEY) as tx:
                await tx.companies.current()
                begun.set()
                await go_on.wait()
                await write(tx, shop, new_product(shop), answer=ANSWER)

        async def twin() -> StoredAnswer:
            await begun.wait()
            asyncio.get_running_loop().call_later(0.05, go_on.set)
            with pytest.raises(AlreadyAnswered) as again:
                async with store_of(shop).begin(scope_of(shop), once=KEY) as tx:
                    await tx.companies.current()
            return again.value.answer

        _, answer = await asyncio.gather(first(), twin())
        assert answer == ANSWER

    async def test_a_twin_that_takes_too_long_is_a_conflict(self, impatient: Shop) -> None:
        async with store_of(impatient).begin(scope_of(impatient), once=KEY) as tx:
            await tx.companies.current()
            with pytest.raises(Conflict) as no:
                async with store_of(impatient).begin(scope_of(impatient), once=KEY) as twin:
                    await twin.companies.current()
        assert (no.value.code, no.value.retry_after_s) == ("idempotency_key_running", 1)

    async def test_a_lock_that_is_held_too_long_makes_it_busy(self, impatient: Shop) -> None:
        product = await impatient.product()
        async with store_of(impatient).begin(scope_of(impatient)) as tx:
            await tx.products.get(product.id)
            with pytest.raises(Busy) as no:
                async with store_of(impatient).begin(scope_of(impatient)) as other:
                    await other.products.get(product.id)
        assert (no.value.code, no.value.retry_after_s) == ("busy", 1)
        # and the one who held it is not disturbed, nor anybody afterwards
        async with store_of(impatient).begin(scope_of(impatient)) as tx:
            await tx.products.get(product.id)

    # --- the executor ---------------------------------------------------------------------------

    async def test_what_the_store_gave_up_on_is_run_again_and_counts_once(self, shop: Harness) -> None:
        troubles = iter([Again(), Again()])
        product = await shop.execute(Stumble(troubles=troubles))
        assert next(troubles, None) is None
        assert [it.entity_id for it in await log_of(shop, "product.created")] == [product.id]

    async def test_what_the_store_keeps_giving_up_on_is_busy(self, shop: Harness) -> None:
        async with refused(shop, "busy", Busy) as no:
            await shop.execute(Stumble(troubles=iter([Again()] * 4)))
        assert no.refused.retry_after_s == 1

    async def test_a_contact_places_an_order_and_leaves_records_it_cannot_see(self, shop: Harness) -> None:
        product, customer = await shop.product(stock=5), await shop.customer()
        order = await shop.order(customer, (product, 2), actor=contact_of(shop, customer))
        assert order.number == 1001
        assert [it.action for it in await log_of(shop, "order")] == ["order.placed"]
        async with store_of(shop).begin(scope_of(shop, customer), readonly=True) as tx:
            assert (await tx.records.page(limit=10)).items == ()
            assert (await tx.products.movements(product.id, limit=10)).items == ()

    # --- mails ----------------------------------------------------------------------------------

    async def _waiting(self, shop: Harness) -> list[MailParcel]:
        claimed = await shop.distribu.ports.queue.claim_mails(limit=100, now=shop.clock.now(), claim_s=0)
        return [parcel for parcel in claimed if parcel.company_id == shop.company.id]

    @pytest.mark.parametrize("trouble", [ZeroDivisionError(), Refused("insufficient_stock"), Again()])
    async def test_what_is_rolled_back_leaves_no_mail(self, shop: Harness, trouble: Exception) -> None:
        with pytest.raises((ZeroDivisionError, Refused)):
            await shop.execute(MailAndFall(trouble=trouble))
        assert await self._waiting(shop) == []

    async def test_what_the_store_refuses_leaves_no_mail(self, shop: Harness) -> None:
        taken = await shop.product(sku="OAT")
        mail = NewMail(shop.distribu.ports.entropy.uuid(), shop.clock.now(), "a@b.example", "{}")
        async with refusing(shop, "duplicate_sku", Conflict) as tx:
            other = new_product(shop, sku=taken.sku)
            await tx.write([Change(None, other)], told(shop, other), None, [mail])
        assert await self._waiting(shop) == []

    async def test_a_command_that_is_run_again_mails_once_and_its_token_is_sealed(
        self, shop: Harness
    ) -> None:
        await shop.execute(Mailing(troubles=iter([Again(), Again()])))
        (parcel,) = await self._waiting(shop)
        assert parcel.to == "bo@corner-shop.example"
        assert read(parcel.letter) == PasswordChanged(company="Acme")
        assert parcel.sealed is not None
        assert "tok-en" not in parcel.letter + parcel.sealed
        assert shop.distribu.ports.vault.open(parcel.sealed).reveal() == "tok-en"

    async def test_a_contact_leaves_a_mail(self, shop: Harness) -> None:
        product, customer = await shop.product(stock=5), await shop.customer()
        await shop.order(customer, (product, 2), actor=contact_of(shop, customer))
        (parcel,) = await self._waiting(shop)
        assert parcel.to == customer.email
