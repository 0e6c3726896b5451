"""Use cases of orders, on any store."""

from decimal import Decimal
from typing import Any

import pytest

from distribu import Actor, ContactRole, Forbidden, Harness, Invalid, NotFound, Role, Stale, amount
from distribu.application.audit import ListAudit
from distribu.application.catalog import ArchiveProduct, EditProduct, ListMovements, ReadProduct
from distribu.application.customers import EditCustomer, NewAddress, ReadCustomer, SetPriceOverride
from distribu.application.ordering import (
    ListOrders,
    ListPayments,
    MoveOrder,
    PlaceOrder,
    PreviewOrder,
    ReadOrder,
    RecordPayment,
    Wanted,
)
from distribu.application.team import EditCompany
from distribu.domain.access import Permission
from distribu.domain.customers import Customer, CustomerStatus
from distribu.domain.ordering import Order, OrderSource, OrderStatus, PaymentMethod, PaymentStatus
from distribu.domain.values import AddressId, CustomerId, OrderId, ProductId, Rate, exact_rate
from tests.contracts.asking import contact_of, each, key_of, log_of, refused

LEEDS = NewAddress(line1="12 High Street", city="Leeds", country="GB")
LYON = NewAddress(line1="3 rue Mercière", city="Lyon", country="FR")
S = OrderStatus
ALLOWED = {
    (S.SUBMITTED, S.CONFIRMED),
    (S.SUBMITTED, S.CANCELLED),
    (S.CONFIRMED, S.SHIPPED),
    (S.CONFIRMED, S.CANCELLED),
    (S.SHIPPED, S.DELIVERED),
}
WAY_TO = {
    S.SUBMITTED: (),
    S.CONFIRMED: (S.CONFIRMED,),
    S.SHIPPED: (S.CONFIRMED, S.SHIPPED),
    S.DELIVERED: (S.CONFIRMED, S.SHIPPED, S.DELIVERED),
    S.CANCELLED: (S.CANCELLED,),
}


def rate(text: str) -> Rate:
    return exact_rate(Decimal(text))


async def used(shop: Harness, customer: Customer) -> Decimal:
    """The credit a customer has used."""
    return (await shop.execute(ReadCustomer(customer_id=customer.id))).customer.credit_used


async def stock(shop: Harness, id: ProductId) -> int:
    return (await shop.execute(ReadProduct(product_id=id))).stock


def payment(order: Order, text: str, reference: str = "") -> RecordPayment:
    return RecordPayment(
        order_id=order.id, amount=amount(text), method=PaymentMethod.TRANSFER, reference=reference
    )


class OrderUseCases:
    # --- placing -------------------------------------------------------------------------------

    async def test_an_order_takes_stock_and_credit_and_freezes_what_was_bought(self, shop: Harness) -> None:
        oat = await shop.product("Oat", price="10.00", stock=10, sku="OAT")
        rye = await shop.product("Rye", price="2.50", stock=10)
        customer = await shop.customer()
        order = await shop.order(customer, (oat, 3), (rye, 2), po_number="PO-1", notes="ring twice")
        assert (order.number, order.status, order.source) == (1001, S.SUBMITTED, OrderSource.STAFF)
        assert [(it.product_name, it.product_sku, it.quantity, it.unit_price) for it in order.lines] == [
            ("Oat", "OAT", 3, Decimal("10.00")),
            ("Rye", None, 2, Decimal("2.50")),
        ]
        assert (order.subtotal, order.total, order.balance) == (Decimal("35.00"),) * 3
        assert (order.po_number, order.notes, order.currency) == ("PO-1", "ring twice", "USD")
        assert (order.placed_at, order.payment_status) == (shop.clock.now(), PaymentStatus.UNPAID)
        assert (await stock(shop, oat.id), await stock(shop, rye.id)) == (7, 8)
        assert await used(shop, customer) == Decimal("35.00")
        await shop.execute(EditProduct(product_id=oat.id, name="New", price=amount("99"), sku=None))
        assert (await shop.execute(ReadOrder(order_id=order.id))).lines == order.lines

    async def test_two_lines_of_one_product_are_one_check_against_its_stock(self, shop: Harness) -> None:
        product, customer = await shop.product(stock=5), await shop.customer()
        async with refused(shop, "insufficient_stock"):
            await shop.order(customer, (product, 3), (product, 3))
        order = await shop.order(customer, (product, 3), (product, 2))
        assert [it.quantity for it in order.lines] == [5]
        assert await stock(shop, product.id) == 0
        moved = (await shop.execute(ListMovements(product_id=product.id))).items
        assert [it.quantity for it in moved] == [-5, 5]

    async def test_merged_lines_have_a_most(self, shop: Harness) -> None:
        product, customer = await shop.product(), await shop.customer()
        async with refused(shop, "invalid_request", Invalid):
            await shop.order(customer, (product, 1_000_000), (product, 1))

    async def test_an_order_is_all_or_nothing(self, shop: Harness) -> None:
        plenty, scarce = await shop.product("Plenty", stock=9), await shop.product("Scarce", stock=1)
        customer = await shop.customer()
        async with refused(shop, "insufficient_stock"):
            await shop.order(customer, (plenty, 1), (scarce, 2))

    async def test_every_line_that_cannot_be_served_is_named(self, shop: Harness) -> None:
        plenty, scarce = await shop.product("Plenty", stock=9), await shop.product("Scarce", stock=1)
        asleep, none = await shop.product(is_active=False), await shop.product("None", stock=0)
        customer = await shop.customer()
        async with refused(shop, "insufficient_stock") as no:
            await shop.order(customer, (plenty, 1), (scarce, 1), (asleep, 1), (scarce, 1), (none, 3))
        assert no.refused.message == "Only 1 of Scarce left, 2 asked for."
        assert no.refused.fields == {
            "items[1].quantity": "only 1 left",
            "items[2].productId": "is not available",
            "items[4].quantity": "only 0 left",
        }

    async def test_a_country_that_does_not_exist_is_named_where_it_stands(self, shop: Harness) -> None:
        product, customer = await shop.product(), await shop.customer()
        nowhere = NewAddress(line1="1", city="Nowhere", country="XX")
        async with refused(shop, "invalid_request", Invalid) as no:
            await shop.order(customer, (product, 1), shipping_address=nowhere)
        assert no.refused.fields == {"shippingAddress.country": "is not an ISO 3166-1 alpha-2 code"}

    async def test_what_is_not_for_sale_cannot_be_ordered(self, shop: Harness) -> None:
        asleep, gone = await shop.product(is_active=False), await shop.product()
        await shop.execute(ArchiveProduct(product_id=gone.id))
        customer, here = await shop.customer(), await shop.product()
        async with refused(shop, "product_unavailable") as no:
            await shop.order(customer, (here, 1), (asleep, 1), (asleep, 1))
        assert no.refused.message == f"{asleep.name} is not available."
        assert no.refused.fields == {"items[1].productId": "is not available"}
        for id in (gone.id, (await (await shop.stranger()).product()).id, shop.distribu.ports.entropy.uuid()):
            items = (Wanted(product_id=here.id, quantity=1), Wanted(product_id=ProductId(id), quantity=1))
            async with refused(shop, "product_not_found", NotFound) as no:
                await shop.execute(PlaceOrder(customer_id=customer.id, items=items))
            assert list(no.refused.fields) == ["items[1].productId"]

    async def test_an_unknown_customer_and_a_strangers_cannot_order(self, shop: Harness) -> None:
        product, theirs = await shop.product(), await (await shop.stranger()).customer()
        items = (Wanted(product_id=product.id, quantity=1),)
        for id in (theirs.id, CustomerId(shop.distribu.ports.entropy.uuid())):
            for request in each(
                PlaceOrder(customer_id=id, items=items), PreviewOrder(customer_id=id, items=items)
            ):
                async with refused(shop, "customer_not_found", NotFound):
                    await shop.execute(request)

    @pytest.mark.parametrize("status", [CustomerStatus.BLOCKED, CustomerStatus.PENDING])
    async def test_only_an_active_customer_can_order(self, shop: Harness, status: CustomerStatus) -> None:
        product, customer = await shop.product(), await shop.customer(status=status)
        async with refused(shop, "customer_blocked"):
            await shop.order(customer, (product, 1))

    @pytest.mark.parametrize(
        "wrong",
        [
            {"items": ()},
            {"po_number": "x" * 101},
            {"notes": "x" * 2001},
            {"customer_id": "nobody"},
            {"shipping_address_id": "nowhere"},
        ],
    )
    async def test_an_order_outside_its_limits_cannot_be_asked_for(
        self, shop: Harness, wrong: dict[str, object]
    ) -> None:
        item = Wanted(product_id=(await shop.product()).id, quantity=1)
        given: dict[str, object] = {"customer_id": (await shop.customer()).id, "items": (item,)} | wrong
        async with refused(shop, "invalid_request", Invalid):
            await shop.execute(PlaceOrder(**given))  # type: ignore[arg-type]  # that it is wrong is the point

    @pytest.mark.parametrize("quantity", [0, -1, 1_000_001, True])
    async def test_a_quantity_is_whole_and_at_least_one(self, shop: Harness, quantity: int) -> None:
        with pytest.raises(Invalid):
            Wanted(product_id=(await shop.product()).id, quantity=quantity)

    async def test_a_thousand_lines_are_an_order_and_one_more_is_none(self, shop: Harness) -> None:
        product, customer = await shop.product(stock=2000), await shop.customer()
        order = await shop.order(customer, *[(product, 1)] * 1000)
        assert [it.quantity for it in order.lines] == [1000]
        async with refused(shop, "invalid_request", Invalid):
            await shop.order(customer, *[(product, 1)] * 1001)

    async def test_lines_stay_in_the_order_they_were_asked_in(self, shop: Harness) -> None:
        products = [await shop.product(f"P{n}", stock=2) for n in range(60)][::-1]
        customer = await shop.customer()
        order = await shop.order(customer, *((it, 1) for it in products))
        read = await shop.execute(ReadOrder(order_id=order.id))
        assert [it.product_id for it in read.lines] == [it.id for it in products]

    async def test_an_order_can_have_been_placed_in_the_past_and_not_in_the_future(
        self, shop: Harness
    ) -> None:
        product, customer = await shop.product(), await shop.customer()
        past = shop.clock.now().replace(year=2001)
        order = await shop.order(customer, (product, 1), placed_at=past)
        assert (order.placed_at, order.created_at) == (past, shop.clock.now())
        async with refused(shop, "placed_in_future"):
            later = shop.clock.now().replace(year=2090)
            await shop.order(customer, (product, 1), placed_at=later)
        async with refused(shop, "forbidden", Forbidden):
            await shop.order(customer, (product, 1), placed_at=past, actor=contact_of(shop, customer))

    @pytest.mark.parametrize(
        ("who", "source"),
        [("staff", OrderSource.STAFF), ("contact", OrderSource.STOREFRONT), ("key", OrderSource.API)],
    )
    async def test_one_use_case_places_an_order_whoever_asks(
        self, shop: Harness, who: str, source: OrderSource
    ) -> None:
        product, customer = await shop.product(price="10.00", stock=6), await shop.customer()
        await shop.execute(
            SetPriceOverride(customer_id=customer.id, product_id=product.id, price=amount("9.00"))
        )
        actor = {
            "staff": Actor.staff(shop.company.id, Role.MEMBER, id="u1", label="Mo"),
            "contact": contact_of(shop, customer),
            "key": key_of(shop, *["orders:write"]),
        }[who]
        order = await shop.order(customer, (product, 2), actor=actor)
        assert (order.source, order.total) == (source, Decimal("18.00"))
        assert await stock(shop, product.id) == 4
        async with refused(shop, "insufficient_stock"):
            await shop.order(customer, (product, 5), actor=actor)
        actions = {it.action for it in (await shop.execute(ListAudit(actor_type=actor.kind))).items}
        assert actions == {"order.placed", "stock.ordered", "customer.credit_taken", "product.low_stock"}

    async def test_a_contact_orders_for_its_own_customer_alone(self, shop: Harness) -> None:
        product, customer, other = await shop.product(), await shop.customer(), await shop.customer()
        buyer, viewer = contact_of(shop, customer), contact_of(shop, customer, ContactRole.VIEWER)
        async with refused(shop, "customer_not_found", NotFound):
            await shop.order(other, (product, 1), actor=buyer)
        async with refused(shop, "forbidden", Forbidden):
            await shop.order(customer, (product, 1), actor=viewer)
        theirs = await shop.order(other, (product, 1))
        async with refused(shop, "order_not_found", NotFound):
            await shop.execute(ReadOrder(order_id=theirs.id), buyer)
        assert (await shop.execute(ListOrders(), buyer)).items == ()
        mine = await shop.order(customer, (product, 1), actor=buyer)
        assert [it.id for it in (await shop.execute(ListOrders(), viewer)).items] == [mine.id]
        async with refused(shop, "forbidden", Forbidden):
            await shop.execute(MoveOrder(order_id=mine.id, status=S.CANCELLED), buyer)
        async with refused(shop, "forbidden", Forbidden):
            await shop.execute(payment(mine, "1.00"), buyer)
        for it in (mine, theirs):
            async with refused(shop, "forbidden", Forbidden):
                await shop.execute(ListPayments(order_id=it.id), buyer)

    # --- what it costs ---------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("price", "quantity", "tax_rate", "tax"),
        [
            ("0.50", 1, "0.05", "0.03"),  # 0.025: half goes up, also where banks would round down
            ("0.10", 1, "0.05", "0.01"),  # 0.005
            ("0.30", 1, "0.05", "0.02"),  # 0.015
            ("0.10", 1, "0.0499", "0.00"),
            ("19.99", 3, "0.0825", "4.95"),
            ("1000000.00", 3, "0.3", "900000.00"),
            ("0.00", 7, "0.2", "0.00"),
        ],
    )
    async def test_tax_is_rounded_half_up_on_the_goods_and_not_on_the_shipping(
        self, shop: Harness, price: str, quantity: int, tax_rate: str, tax: str
    ) -> None:
        await shop.execute(EditCompany(tax_rate=rate(tax_rate), shipping=amount("7.50")))
        product, customer = await shop.product(price=price), await shop.customer()
        order = await shop.order(customer, (product, quantity))
        subtotal = Decimal(price) * quantity
        assert (order.subtotal, order.tax, order.shipping) == (subtotal, Decimal(tax), Decimal("7.50"))
        assert order.total == subtotal + Decimal(tax) + Decimal("7.50")

    async def test_the_customers_own_rate_goes_before_the_companys_and_both_are_frozen(
        self, shop: Harness
    ) -> None:
        await shop.execute(EditCompany(tax_rate=rate("0.2")))
        product = await shop.product(price="10.00")
        usual = await shop.customer()
        own = await shop.customer(tax_rate_override=rate("0.1"))
        free = await shop.customer(tax_rate_override=rate("0"))
        orders = [await shop.order(it, (product, 1)) for it in (usual, own, free)]
        assert [it.tax for it in orders] == [Decimal("2.00"), Decimal("1.00"), Decimal("0.00")]
        await shop.execute(EditCompany(tax_rate=rate("0.3")))
        await shop.execute(EditCustomer(customer_id=own.id, tax_rate_override=None))
        kept = [await shop.execute(ReadOrder(order_id=it.id)) for it in orders]
        assert [it.tax for it in kept] == [it.tax for it in orders]

    async def test_a_customers_own_price_is_taken_and_frozen(self, shop: Harness) -> None:
        product, customer, other = (
            await shop.product(price="10.00"),
            await shop.customer(),
            await shop.customer(),
        )
        own = SetPriceOverride(customer_id=customer.id, product_id=product.id, price=amount("0.00"))
        await shop.execute(own)
        order = await shop.order(customer, (product, 3))
        assert (order.total, order.payment_status) == (Decimal("0.00"), PaymentStatus.PAID)
        assert (await shop.order(other, (product, 3))).total == Decimal("30.00")

    async def test_the_minimum_is_of_the_goods(self, shop: Harness) -> None:
        await shop.execute(EditCompany(order_minimum=amount("20.00"), shipping=amount("50.00")))
        product, customer = await shop.product(price="10.00"), await shop.customer()
        async with refused(shop, "order_below_minimum"):
            await shop.order(customer, (product, 1))
        await shop.order(customer, (product, 2))

    async def test_an_amount_over_the_most_there_is_is_refused(self, shop: Harness) -> None:
        product, customer = await shop.product(price="1000000000000.00"), await shop.customer()
        async with refused(shop, "amount_out_of_range"):
            await shop.order(customer, (product, 2))
        await shop.order(customer, (product, 1))
        async with refused(shop, "amount_out_of_range"):
            await shop.order(customer, (product, 1))

    # --- where to ------------------------------------------------------------------------------

    async def test_goods_go_to_the_default_the_named_or_the_given_address_frozen(self, shop: Harness) -> None:
        product, customer = await shop.product(), await shop.customer(addresses=(LEEDS, LYON))
        usual = await shop.order(customer, (product, 1))
        named = await shop.order(customer, (product, 1), shipping_address_id=customer.addresses[1].id)
        given = NewAddress(line1="1 Quay", city="Hull", country="GB", is_default=True)
        once = await shop.order(customer, (product, 1), shipping_address=given)
        await shop.execute(EditCustomer(customer_id=customer.id, addresses=()))
        nowhere = await shop.order(customer, (product, 1))
        read = [await shop.execute(ReadOrder(order_id=it.id)) for it in (usual, named, once, nowhere)]
        addresses = [it.shipping_address for it in read]
        assert [it and (it.city, it.is_default) for it in addresses] == [
            ("Leeds", False),
            ("Lyon", False),
            ("Hull", False),
            None,
        ]

    async def test_an_address_is_the_customers_own_and_one(self, shop: Harness) -> None:
        product, other = await shop.product(), await shop.customer(addresses=(LEEDS,))
        customer = await shop.customer(addresses=(LEEDS,))
        for id in (other.addresses[0].id, AddressId(shop.distribu.ports.entropy.uuid())):
            async with refused(shop, "address_not_found", NotFound):
                await shop.order(customer, (product, 1), shipping_address_id=id)
        async with refused(shop, "invalid_request", Invalid):
            both: dict[str, Any] = {"shipping_address_id": customer.addresses[0].id, "shipping_address": LYON}
            await shop.order(customer, (product, 1), **both)

    # --- preview ---------------------------------------------------------------------------------

    async def test_a_preview_tells_the_totals_and_changes_nothing(self, shop: Harness) -> None:
        await shop.execute(EditCompany(tax_rate=rate("0.05"), shipping=amount("1.00")))
        product, customer = await shop.product(price="0.50", stock=5), await shop.customer()
        items = (Wanted(product_id=product.id, quantity=1),) * 3
        preview = await shop.execute(PreviewOrder(customer_id=customer.id, items=items))
        order = await shop.execute(PlaceOrder(customer_id=customer.id, items=items))
        assert (preview.subtotal, preview.tax, preview.total) == (order.subtotal, order.tax, order.total)
        assert [(it.product_id, it.quantity) for it in preview.items] == [(product.id, 3)]
        assert preview.refusals == []
        assert len(await log_of(shop, "order")) == 1

    async def test_a_preview_tells_every_refusal_at_once(self, shop: Harness) -> None:
        await shop.execute(EditCompany(order_minimum=amount("1000.00")))
        scarce, asleep = await shop.product(stock=1), await shop.product(is_active=False)
        customer = await shop.customer(credit_limit=amount("5.00"))
        items = (
            Wanted(product_id=scarce.id, quantity=2),
            Wanted(product_id=asleep.id, quantity=1),
        )
        preview = await shop.execute(PreviewOrder(customer_id=customer.id, items=items))
        assert [it.code for it in preview.refusals] == [
            "order_below_minimum",
            "credit_limit_exceeded",
            "insufficient_stock",
            "product_unavailable",
        ]

    # --- moving ------------------------------------------------------------------------------------

    @pytest.mark.parametrize("to", S)
    @pytest.mark.parametrize("start", S)
    async def test_an_order_goes_from_each_state_where_the_table_says_and_nowhere_else(
        self, shop: Harness, start: OrderStatus, to: OrderStatus
    ) -> None:
        order = await shop.order(await shop.customer(), (await shop.product(stock=5), 2))
        for step in WAY_TO[start]:
            order = await shop.execute(MoveOrder(order_id=order.id, status=step))
        assert order.status is start
        if (start, to) in ALLOWED:
            moved = await shop.execute(MoveOrder(order_id=order.id, status=to))
            assert moved.status is to
            assert await shop.execute(ReadOrder(order_id=order.id)) == moved
        else:
            async with refused(shop, "illegal_transition"):
                await shop.execute(MoveOrder(order_id=order.id, status=to))

    async def test_carrier_and_tracking_number_are_kept_and_the_time_of_delivery(self, shop: Harness) -> None:
        order = await shop.order(await shop.customer(), (await shop.product(), 1))
        await shop.execute(MoveOrder(order_id=order.id, status=S.CONFIRMED))
        shipping = MoveOrder(order_id=order.id, status=S.SHIPPED, carrier="DHL", tracking_number="0034")
        await shop.execute(shipping)
        later = shop.clock.advance(days=2)
        await shop.execute(MoveOrder(order_id=order.id, status=S.DELIVERED))
        read = await shop.execute(ReadOrder(order_id=order.id))
        assert (read.carrier, read.tracking_number, read.delivered_at) == ("DHL", "0034", later)

    async def test_a_move_of_another_version_is_refused(self, shop: Harness) -> None:
        order = await shop.order(await shop.customer(), (await shop.product(), 1))
        await shop.execute(MoveOrder(order_id=order.id, status=S.CONFIRMED, version=1))
        async with refused(shop, "precondition_failed", Stale):
            await shop.execute(MoveOrder(order_id=order.id, status=S.CANCELLED, version=1))

    @pytest.mark.parametrize("start", [S.SUBMITTED, S.CONFIRMED])
    async def test_cancelling_restocks_and_frees_the_credit(self, shop: Harness, start: OrderStatus) -> None:
        one, two = await shop.product(price="10.00", stock=5), await shop.product(price="1.00", stock=5)
        customer = await shop.customer(credit_limit=amount("100.00"))
        order = await shop.order(customer, (one, 3), (two, 5))
        for step in WAY_TO[start]:
            await shop.execute(MoveOrder(order_id=order.id, status=step))
        cancelled = await shop.execute(MoveOrder(order_id=order.id, status=S.CANCELLED))
        assert (await stock(shop, one.id), await stock(shop, two.id)) == (5, 5)
        assert [await used(shop, customer), cancelled.balance] == [0, 0]

    async def test_cancelling_twice_restocks_once(self, shop: Harness) -> None:
        product, customer = await shop.product(stock=5), await shop.customer()
        order = await shop.order(customer, (product, 2))
        await shop.execute(MoveOrder(order_id=order.id, status=S.CANCELLED))
        async with refused(shop, "illegal_transition"):
            await shop.execute(MoveOrder(order_id=order.id, status=S.CANCELLED))
        assert await stock(shop, product.id) == 5

    async def test_cancelling_what_is_partly_paid_frees_what_was_still_owed(self, shop: Harness) -> None:
        product, customer = await shop.product(price="10.00"), await shop.customer()
        order, other = [await shop.order(customer, (product, n)) for n in (3, 1)]
        await shop.execute(payment(order, "12.50"))
        assert await used(shop, customer) == Decimal("27.50")
        cancelled = await shop.execute(MoveOrder(order_id=order.id, status=S.CANCELLED))
        assert (cancelled.paid, cancelled.balance) == (Decimal("12.50"), Decimal(0))
        assert await used(shop, customer) == other.total

    async def test_what_a_blocked_customer_has_ordered_can_still_be_moved(self, shop: Harness) -> None:
        customer = await shop.customer()
        order = await shop.order(customer, (await shop.product(), 1))
        await shop.execute(EditCustomer(customer_id=customer.id, status=CustomerStatus.BLOCKED))
        await shop.execute(MoveOrder(order_id=order.id, status=S.CANCELLED))
        assert await used(shop, customer) == 0

    # --- paying --------------------------------------------------------------------------------------

    async def test_payments_lower_what_is_owed_until_it_is_paid(self, shop: Harness) -> None:
        product, customer = await shop.product(price="10.00"), await shop.customer()
        order = await shop.order(customer, (product, 3))
        seen = []
        for text in ("0.01", "19.99", "10.00"):
            paid = await shop.execute(payment(order, text, "TRF-1"))
            assert await shop.execute(ReadOrder(order_id=order.id)) == paid
            assert await used(shop, customer) == paid.balance
            seen.append((str(paid.paid), str(paid.balance), paid.payment_status))
        assert seen == [
            ("0.01", "29.99", PaymentStatus.PARTIAL),
            ("20.00", "10.00", PaymentStatus.PARTIAL),
            ("30.00", "0.00", PaymentStatus.PAID),
        ]
        log = await log_of(shop, "order.payment_recorded")
        assert [it.metadata["amount"] for it in log] == [0.01, 19.99, 10.0]
        assert log[0].metadata["reference"] == "TRF-1"

    async def test_what_was_paid_is_listed_newest_first(self, shop: Harness) -> None:
        product, customer = await shop.product(price="10.00"), await shop.customer()
        order, other = [await shop.order(customer, (product, 3)) for _ in range(2)]
        assert (await shop.execute(ListPayments(order_id=order.id))).items == ()
        for text in ("1.00", "2.00", "3.00"):
            await shop.execute(payment(order, text, f"TRF-{text}"))
        await shop.execute(payment(other, "4.00"))
        reader = key_of(shop, Permission.ORDERS_READ)
        page = await shop.execute(ListPayments(order_id=order.id, limit=2), reader)
        assert [(str(it.amount), it.reference) for it in page.items] == [
            ("3.00", "TRF-3.00"),
            ("2.00", "TRF-2.00"),
        ]
        rest = await shop.execute(ListPayments(order_id=order.id, limit=2, cursor=page.next_cursor), reader)
        assert ([str(it.amount) for it in rest.items], rest.next_cursor) == (["1.00"], None)
        with pytest.raises(Forbidden):
            await shop.execute(ListPayments(order_id=order.id), key_of(shop, Permission.ORDERS_WRITE))

    async def test_more_than_is_owed_is_refused(self, shop: Harness) -> None:
        order = await shop.order(await shop.customer(), (await shop.product(price="10.00"), 1))
        async with refused(shop, "overpayment"):
            await shop.execute(payment(order, "10.01"))
        await shop.execute(payment(order, "10.00"))
        async with refused(shop, "overpayment"):
            await shop.execute(payment(order, "0.01"))

    async def test_nothing_is_no_payment_and_a_cancelled_order_takes_none(self, shop: Harness) -> None:
        order = await shop.order(await shop.customer(), (await shop.product(price="10.00"), 1))
        async with refused(shop, "invalid_request", Invalid):
            await shop.execute(payment(order, "0.00"))
        await shop.execute(MoveOrder(order_id=order.id, status=S.CANCELLED))
        async with refused(shop, "order_not_payable"):
            await shop.execute(payment(order, "1.00"))

    async def test_a_shipped_order_can_be_paid(self, shop: Harness) -> None:
        order = await shop.order(await shop.customer(), (await shop.product(price="10.00"), 1))
        for step in WAY_TO[S.DELIVERED]:
            await shop.execute(MoveOrder(order_id=order.id, status=step))
        assert (await shop.execute(payment(order, "10.00"))).payment_status is PaymentStatus.PAID

    # --- credit --------------------------------------------------------------------------------------

    async def test_credit_is_what_is_owed_and_not_what_was_ever_bought(self, shop: Harness) -> None:
        product = await shop.product(price="10.00")
        customer = await shop.customer(credit_limit=amount("30.00"))
        order = await shop.order(customer, (product, 3))
        async with refused(shop, "credit_limit_exceeded"):
            await shop.order(customer, (product, 1))
        await shop.execute(payment(order, "10.00"))
        await shop.order(customer, (product, 1))

    async def test_credit_counts_tax_and_shipping(self, shop: Harness) -> None:
        await shop.execute(EditCompany(tax_rate=rate("0.1"), shipping=amount("5.00")))
        product = await shop.product(price="10.00")
        exact = await shop.customer(credit_limit=amount("16.00"))
        short = await shop.customer(credit_limit=amount("15.99"))
        await shop.order(exact, (product, 1))
        async with refused(shop, "credit_limit_exceeded"):
            await shop.order(short, (product, 1))

    async def test_a_limit_below_what_is_used_only_stops_new_orders(self, shop: Harness) -> None:
        product, customer = await shop.product(price="10.00"), await shop.customer()
        order, other = [await shop.order(customer, (product, 2)) for _ in range(2)]
        await shop.limit_credit(customer, "5.00")
        async with refused(shop, "credit_limit_exceeded"):
            await shop.order(customer, (product, 1))
        await shop.execute(MoveOrder(order_id=order.id, status=S.CONFIRMED))
        await shop.execute(payment(order, "1.00"))
        await shop.execute(MoveOrder(order_id=other.id, status=S.CANCELLED))
        assert await used(shop, customer) == Decimal("19.00")
        await shop.execute(EditCustomer(customer_id=customer.id, name="Still there"))

    async def test_no_credit_is_not_the_same_as_no_limit(self, shop: Harness) -> None:
        product = await shop.product(price="10.00")
        none, unlimited = await shop.customer(credit_limit=amount("0")), await shop.customer()
        async with refused(shop, "credit_limit_exceeded"):
            await shop.order(none, (product, 1))
        await shop.order(unlimited, (product, 10))

    # --- reading -------------------------------------------------------------------------------------

    async def test_orders_are_listed_by_filters_and_pages(self, shop: Harness) -> None:
        product, one, two = await shop.product(), await shop.customer(), await shop.customer()
        start = shop.clock.now()
        for who in (one, two, one):
            await shop.order(who, (product, 1))
            shop.clock.advance(hours=1)
        page = await shop.execute(ListOrders(customer_id=one.id, limit=1))
        assert [it.number for it in page.items] == [1003]
        rest = await shop.execute(ListOrders(customer_id=one.id, limit=1, cursor=page.next_cursor))
        assert ([it.number for it in rest.items], rest.next_cursor) == ([1001], None)
        until = await shop.execute(ListOrders(since=start, until=start.replace(hour=start.hour + 1)))
        assert [it.number for it in until.items] == [1001]
        assert (await shop.execute(ListOrders(status=S.CANCELLED))).items == ()

    async def test_an_unknown_order_and_a_strangers_are_answered_alike(self, shop: Harness) -> None:
        stranger = await shop.stranger()
        theirs = await stranger.order(await stranger.customer(), (await stranger.product(), 1))
        answers = set()
        for id in (theirs.id, OrderId(shop.distribu.ports.entropy.uuid())):
            for request in each(
                ReadOrder(order_id=id),
                ListPayments(order_id=id),
                MoveOrder(order_id=id, status=S.CONFIRMED),
                RecordPayment(order_id=id, amount=amount("1"), method=PaymentMethod.CASH),
            ):
                async with refused(shop, "order_not_found", NotFound) as no:
                    await shop.execute(request)
                answers.add((no.refused.message, str(no.refused.fields)))
        assert len(answers) == 1
        assert (await stranger.execute(ReadOrder(order_id=theirs.id))).status is S.SUBMITTED
