"""Use cases of products and stock, on any store."""

from decimal import Decimal

import pytest

from distribu import Conflict, Harness, Invalid, NotFound, Stale, amount
from distribu.application.catalog import (
    AdjustStock,
    ArchiveProduct,
    CreateProduct,
    EditProduct,
    ListMovements,
    ListProducts,
    MoveReason,
    ReadProduct,
)
from distribu.application.ordering import MoveOrder, ReadOrder
from distribu.domain.catalog import STOCK_MAX, MovementReason
from distribu.domain.ordering import OrderStatus
from distribu.domain.values import Money, ProductId
from tests.contracts.asking import contact_of, each, log_of, refused


class CatalogUseCases:
    async def test_a_product_is_created_with_what_was_given_and_the_usual_otherwise(
        self, shop: Harness
    ) -> None:
        created = await shop.execute(CreateProduct(name="Oat Flour", price=amount("12.50"), sku=" OAT-25 "))
        read = await shop.execute(ReadProduct(product_id=created.id))
        assert (read.name, read.price, read.sku) == ("Oat Flour", Decimal("12.50"), "OAT-25")
        assert (read.unit, read.stock, read.low_stock_threshold, read.is_active) == ("each", 0, 5, True)
        assert (read.description, read.category, read.image_url) == ("", "", None)
        assert (read.version, read.created_at, read.updated_at) == (1, shop.clock.now(), shop.clock.now())

    async def test_opening_stock_is_the_first_movement(self, shop: Harness) -> None:
        product = await shop.product(stock=12)
        (moved,) = (await shop.execute(ListMovements(product_id=product.id))).items
        assert (moved.reason, moved.quantity, moved.stock_after) == (MovementReason.RECEIVED, 12, 12)

    async def test_no_opening_stock_is_no_movement(self, shop: Harness) -> None:
        product = await shop.product(stock=0)
        assert (await shop.execute(ListMovements(product_id=product.id))).items == ()

    async def test_a_taken_sku_is_refused_on_creating_and_on_editing(self, shop: Harness) -> None:
        """A unique violation has a code, and SKUs have one canonical form in the check and in the store."""
        await shop.product(sku="OAT-25")
        other = await shop.product(sku="RYE-25")
        async with refused(shop, "duplicate_sku", Conflict):
            await shop.product(sku="oat-25 ")
        async with refused(shop, "duplicate_sku", Conflict):
            await shop.execute(EditProduct(product_id=other.id, sku="Oat-25"))
        await shop.execute(EditProduct(product_id=other.id, sku="rye-25"))

    async def test_an_edit_changes_what_is_given_and_nothing_else(self, shop: Harness) -> None:
        product = await shop.product(sku="OAT-25", category="Flour", stock=4)
        shop.clock.advance(minutes=1)
        edited = await shop.execute(EditProduct(product_id=product.id, price=amount("11.00"), sku=None))
        assert await shop.execute(ReadProduct(product_id=product.id)) == edited
        assert (edited.price, edited.sku, edited.category, edited.stock) == (
            Decimal("11.00"),
            None,
            "Flour",
            4,
        )
        assert (edited.version, edited.updated_at) == (2, shop.clock.now())

    async def test_an_edit_of_nothing_leaves_no_trace(self, shop: Harness) -> None:
        product = await shop.product()
        same = await shop.execute(EditProduct(product_id=product.id, name=product.name, price=product.price))
        assert same.version == 1
        assert len(await log_of(shop, "product")) == 1

    async def test_an_edit_of_another_version_is_refused(self, shop: Harness) -> None:
        product = await shop.product()
        await shop.execute(EditProduct(product_id=product.id, name="Second", version=1))
        async with refused(shop, "precondition_failed", Stale):
            await shop.execute(EditProduct(product_id=product.id, name="Third", version=1))
        async with refused(shop, "precondition_failed", Stale):
            await shop.execute(ArchiveProduct(product_id=product.id, version=1))

    async def test_an_archived_product_is_gone_and_its_sku_free_while_orders_keep_it(
        self, shop: Harness
    ) -> None:
        product, customer = await shop.product("Oat", sku="OAT-25", stock=5), await shop.customer()
        order = await shop.order(customer, (product, 2))
        await shop.execute(ArchiveProduct(product_id=product.id))
        assert (await shop.execute(ListProducts())).items == ()
        for gone in each(
            ReadProduct(product_id=product.id),
            EditProduct(product_id=product.id, name="Back"),
            ArchiveProduct(product_id=product.id),
            AdjustStock(product_id=product.id, quantity=1, reason=MoveReason.RECEIVED),
            ListMovements(product_id=product.id),
        ):
            async with refused(shop, "product_not_found", NotFound):
                await shop.execute(gone)
        async with refused(shop, "product_not_found", NotFound):
            await shop.order(customer, (product, 1))
        again = await shop.product("Oat again", sku="oat-25")
        assert again.id != product.id
        kept = await shop.execute(ReadOrder(order_id=order.id))
        assert [(line.product_name, line.product_sku) for line in kept.lines] == [("Oat", "OAT-25")]

    async def test_cancelling_restocks_a_product_that_was_archived_since(self, shop: Harness) -> None:
        product, customer = await shop.product(stock=5), await shop.customer()
        order = await shop.order(customer, (product, 2))
        await shop.execute(ArchiveProduct(product_id=product.id))
        await shop.execute(MoveOrder(order_id=order.id, status=OrderStatus.CANCELLED))
        (restocked,) = await log_of(shop, "stock.restocked")
        assert (restocked.metadata["before"], restocked.metadata["after"]) == (3, 5)

    @pytest.mark.parametrize("quantity", [3, -3])
    async def test_stock_is_adjusted_by_a_signed_quantity(self, shop: Harness, quantity: int) -> None:
        product = await shop.product(stock=10)
        wish = AdjustStock(
            product_id=product.id, quantity=quantity, reason=MoveReason.ADJUSTED, note="counted"
        )
        assert (await shop.execute(wish)).stock == 10 + quantity
        moved = (await shop.execute(ListMovements(product_id=product.id))).items[0]
        assert (moved.reason, moved.quantity, moved.note) == (MovementReason.ADJUSTED, quantity, "counted")

    @pytest.mark.parametrize(
        ("quantity", "reason"),
        [(0, MoveReason.RECEIVED), (-1, MoveReason.RECEIVED), (0, MoveReason.ADJUSTED)],
    )
    async def test_a_movement_moves_the_way_its_reason_says(
        self, shop: Harness, quantity: int, reason: MoveReason
    ) -> None:
        product = await shop.product(stock=10)
        async with refused(shop, "invalid_request", Invalid) as no:
            await shop.execute(AdjustStock(product_id=product.id, quantity=quantity, reason=reason))
        assert list(no.refused.fields) == ["quantity"]

    async def test_stock_never_goes_below_zero(self, shop: Harness) -> None:
        product = await shop.product(stock=2)
        async with refused(shop, "insufficient_stock"):
            await shop.execute(AdjustStock(product_id=product.id, quantity=-3, reason=MoveReason.ADJUSTED))

    async def test_stock_has_a_most(self, shop: Harness) -> None:
        product = await shop.product(stock=STOCK_MAX)
        async with refused(shop, "stock_out_of_range"):
            await shop.execute(AdjustStock(product_id=product.id, quantity=1, reason=MoveReason.RECEIVED))

    @pytest.mark.parametrize(
        "wrong",
        [
            {"name": ""},
            {"name": "x" * 201},
            {"name": "nul\0"},
            {"price": Decimal("-0.01")},
            {"price": Decimal("0.001")},
            {"price": Decimal("1000000000000.01")},
            {"price": Decimal("NaN")},
            {"price": Decimal("Infinity")},
            {"sku": "x" * 101},
            {"description": "x" * 2001},
            {"category": "x" * 101},
            {"unit": ""},
            {"unit": "x" * 21},
            {"stock": -1},
            {"stock": STOCK_MAX + 1},
            {"low_stock_threshold": -1},
            {"is_active": 1},
            {"image_url": "javascript:alert(1)"},
        ],
    )
    async def test_a_product_outside_its_limits_cannot_be_asked_for(
        self, shop: Harness, wrong: dict[str, object]
    ) -> None:
        given: dict[str, object] = {"name": "Oat", "price": Money(Decimal(1))} | wrong
        async with refused(shop, "invalid_request", Invalid) as no:
            await shop.execute(CreateProduct(**given))  # type: ignore[arg-type]  # that it is wrong is the point
        assert len(no.refused.fields) == 1

    async def test_a_price_of_nothing_and_of_the_most_there_is_are_kept_exactly(self, shop: Harness) -> None:
        for text in ("0.00", "0.01", "1000000000000.00"):
            product = await shop.product(price=text)
            assert str((await shop.execute(ReadProduct(product_id=product.id))).price) == text

    async def test_units_are_any_short_text(self, shop: Harness) -> None:
        product = await shop.product(unit="half-barrel")
        assert (await shop.execute(ReadProduct(product_id=product.id))).unit == "half-barrel"

    async def test_products_are_listed_by_filters_and_pages(self, shop: Harness) -> None:
        products = [await shop.product(f"Flour {n}", category="Flour") for n in range(3)]
        await shop.product("Sugar", is_active=False)
        page = await shop.execute(ListProducts(search="FLOUR", active=True, category="Flour", limit=2))
        assert [it.id for it in page.items] == [products[2].id, products[1].id]
        rest = await shop.execute(ListProducts(search="flour", limit=2, cursor=page.next_cursor))
        assert [it.id for it in rest.items] == [products[0].id]

    # --- low stock ---------------------------------------------------------------------------

    async def test_low_stock_is_told_when_it_is_crossed_whatever_the_cause(self, shop: Harness) -> None:
        """Every path that changes stock is one verb: an order and a correction cross alike."""
        ordered, adjusted = await shop.product(stock=8), await shop.product(stock=8)
        customer = await shop.customer()
        await shop.order(customer, (ordered, 2))
        await shop.execute(AdjustStock(product_id=adjusted.id, quantity=-2, reason=MoveReason.ADJUSTED))
        assert await log_of(shop, "product.low_stock") == []
        await shop.order(customer, (ordered, 1))
        await shop.execute(AdjustStock(product_id=adjusted.id, quantity=-1, reason=MoveReason.ADJUSTED))
        told = await log_of(shop, "product.low_stock")
        assert [it.entity_id for it in told] == [ordered.id, adjusted.id]
        assert told[0].metadata == {"stock": 5, "threshold": 5}

    async def test_low_stock_is_told_once_until_it_is_crossed_again(self, shop: Harness) -> None:
        product, customer = await shop.product(stock=6), await shop.customer()
        order = await shop.order(customer, (product, 2))
        await shop.order(customer, (product, 1))
        assert len(await log_of(shop, "product.low_stock")) == 1
        await shop.execute(MoveOrder(order_id=order.id, status=OrderStatus.CANCELLED))
        await shop.execute(AdjustStock(product_id=product.id, quantity=1, reason=MoveReason.RECEIVED))
        assert len(await log_of(shop, "product.low_stock")) == 1
        await shop.order(customer, (product, 1))
        assert len(await log_of(shop, "product.low_stock")) == 2

    async def test_the_threshold_is_the_products_own(self, shop: Harness) -> None:
        product = await shop.product(stock=10, low_stock_threshold=0)
        await shop.execute(AdjustStock(product_id=product.id, quantity=-9, reason=MoveReason.ADJUSTED))
        assert await log_of(shop, "product.low_stock") == []
        await shop.execute(AdjustStock(product_id=product.id, quantity=-1, reason=MoveReason.ADJUSTED))
        assert len(await log_of(shop, "product.low_stock")) == 1

    async def test_an_unknown_product_and_a_strangers_are_answered_alike(self, shop: Harness) -> None:
        stranger = await shop.stranger()
        theirs = await stranger.product()
        answers = set()
        for id in (theirs.id, ProductId(shop.distribu.ports.entropy.uuid())):
            for request in each(
                ReadProduct(product_id=id),
                EditProduct(product_id=id, name="Mine"),
                ArchiveProduct(product_id=id),
                AdjustStock(product_id=id, quantity=1, reason=MoveReason.RECEIVED),
                ListMovements(product_id=id),
            ):
                async with refused(shop, "product_not_found", NotFound) as no:
                    await shop.execute(request)
                answers.add((no.refused.message, str(no.refused.fields)))
        assert len(answers) == 1

    async def test_a_contact_sees_only_what_is_sold(self, shop: Harness) -> None:
        sold, hidden = await shop.product("Sold"), await shop.product("Hidden", is_active=False)
        contact = contact_of(shop, await shop.customer())
        for active in (None, True, False):
            page = await shop.execute(ListProducts(active=active), contact)
            assert [it.id for it in page.items] == [sold.id]
        with pytest.raises(NotFound):
            await shop.execute(ReadProduct(product_id=hidden.id), contact)
        assert (await shop.execute(ReadProduct(product_id=hidden.id))).id == hidden.id
