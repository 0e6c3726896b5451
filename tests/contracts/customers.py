"""Use cases of customers and their prices, on any store."""

from decimal import Decimal

import pytest
from msgspec.structs import replace

from distribu import Conflict, ContactRole, Harness, Invalid, NotFound, Stale, amount
from distribu.application.customers import (
    CreateCustomer,
    EditCustomer,
    ListCustomers,
    ListPriceOverrides,
    NewAddress,
    ReadCustomer,
    RemovePriceOverride,
    SetPriceOverride,
)
from distribu.domain.customers import CustomerStatus
from distribu.domain.values import AddressId, CustomerId, ProductId, exact_rate
from tests.contracts.asking import contact_of, each, log_of, refused

LEEDS = NewAddress(line1="12 High Street", city="Leeds", country="GB")
LYON = NewAddress(line1="3 rue Mercière", city="Lyon", country="FR")


class CustomerUseCases:
    @pytest.mark.parametrize(
        ("given", "kept"),
        [
            (" Orders@Corner-Shop.EXAMPLE ", "orders@corner-shop.example"),
            ("ORDERS@CORNER-SHOP.EXAMPLE", "orders@corner-shop.example"),
            ("\uff4frders@corner-shop.example", "orders@corner-shop.example"),
        ],
    )
    async def test_an_email_has_one_form(self, shop: Harness, given: str, kept: str) -> None:
        customer = await shop.customer(given)
        assert customer.email == kept
        async with refused(shop, "duplicate_email", Conflict):
            await shop.customer(kept)

    @pytest.mark.parametrize(
        "email", ["nobody", "@example.test", "a@b", "a b@example.test", "a@exa mple.test", "a@b..test", "x@"]
    )
    async def test_what_is_no_email_is_refused(self, shop: Harness, email: str) -> None:
        async with refused(shop, "invalid_request", Invalid) as no:
            await shop.customer(email)
        assert list(no.refused.fields) == ["email"]

    async def test_an_email_that_is_taken_is_refused_on_editing_too(self, shop: Harness) -> None:
        await shop.customer("one@example.test")
        other = await shop.customer("other@example.test")
        async with refused(shop, "duplicate_email", Conflict):
            await shop.execute(EditCustomer(customer_id=other.id, email="ONE@example.test"))

    async def test_a_customer_is_read_with_its_addresses_and_prices(self, shop: Harness) -> None:
        customer = await shop.customer(name="Corner Shop", addresses=(LEEDS, LYON))
        product = await shop.product()
        await shop.execute(
            SetPriceOverride(customer_id=customer.id, product_id=product.id, price=amount("9.00"))
        )
        read = await shop.execute(ReadCustomer(customer_id=customer.id))
        assert [(it.city, it.is_default) for it in customer.addresses] == [("Leeds", True), ("Lyon", False)]
        assert [(it.product_id, it.price) for it in read.price_overrides] == [(product.id, Decimal("9.00"))]
        assert read.customer == customer
        assert read.version == customer.version
        assert (customer.credit_limit, customer.status) == (None, CustomerStatus.ACTIVE)
        assert customer.credit_used == 0

    async def test_one_address_is_the_default(self, shop: Harness) -> None:
        both = (replace(LEEDS, is_default=True), replace(LYON, is_default=True))
        customer = await shop.customer(addresses=both)
        assert [it.is_default for it in customer.addresses] == [False, True]
        kept = replace(LEEDS, id=customer.addresses[0].id)
        edited = await shop.execute(EditCustomer(customer_id=customer.id, addresses=(kept, LYON)))
        assert edited.addresses[0].id == customer.addresses[0].id
        assert edited.addresses[1].id != customer.addresses[1].id
        assert [it.is_default for it in edited.addresses] == [True, False]
        none = await shop.execute(EditCustomer(customer_id=customer.id, addresses=()))
        assert none.addresses == ()

    async def test_an_address_of_another_customer_cannot_be_kept(self, shop: Harness) -> None:
        other = await shop.customer(addresses=(LEEDS,))
        customer = await shop.customer()
        for id in (other.addresses[0].id, AddressId(shop.distribu.ports.entropy.uuid())):
            theirs = NewAddress(id=id, line1="1", city="Leeds", country="GB")
            async with refused(shop, "address_not_found", NotFound):
                await shop.execute(EditCustomer(customer_id=customer.id, addresses=(theirs,)))

    async def test_a_country_that_does_not_exist_is_refused(self, shop: Harness) -> None:
        nowhere = NewAddress(line1="1", city="Nowhere", country="XX")
        customer = await shop.customer()
        for request in each(
            CreateCustomer(email="lost@example.test", addresses=(LEEDS, nowhere)),
            EditCustomer(customer_id=customer.id, addresses=(LEEDS, nowhere)),
        ):
            async with refused(shop, "invalid_request", Invalid) as no:
                await shop.execute(request)
            assert no.refused.fields == {"addresses[1].country": "is not an ISO 3166-1 alpha-2 code"}

    async def test_a_hundred_addresses_are_the_most(self, shop: Harness) -> None:
        customer = await shop.customer(addresses=(LEEDS,) * 100)
        assert sum(it.is_default for it in customer.addresses) == 1
        async with refused(shop, "invalid_request", Invalid):
            await shop.execute(EditCustomer(customer_id=customer.id, addresses=(LEEDS,) * 101))

    @pytest.mark.parametrize(
        "wrong",
        [
            {"email": "x" * 250 + "@a.b"},
            {"name": "x" * 101},
            {"notes": "x" * 2001},
            {"notes": "\0"},
            {"credit_limit": Decimal("-1")},
            {"credit_limit": 12},
            {"credit_limit": 12.5},
            {"credit_limit": "12.50"},
            {"tax_rate_override": 0},
            {"tax_rate_override": "0.2"},
            {"tax_rate_override": Decimal("0.3001")},
            {"tax_rate_override": Decimal("0.00001")},
            {"tax_rate_override": Decimal("NaN")},
            {"payment_terms_days": -1},
            {"status": "GONE"},
        ],
    )
    async def test_a_customer_outside_its_limits_cannot_be_asked_for(
        self, shop: Harness, wrong: dict[str, object]
    ) -> None:
        given: dict[str, object] = {"email": "a@example.test"} | wrong
        async with refused(shop, "invalid_request", Invalid):
            await shop.execute(CreateCustomer(**given))  # type: ignore[arg-type]  # that it is wrong is the point

    async def test_an_edit_changes_what_is_given_and_can_take_away(self, shop: Harness) -> None:
        customer = await shop.customer(
            name="Corner", credit_limit=amount("10"), tax_rate_override=exact_rate(Decimal("0.1"))
        )
        edited = await shop.execute(
            EditCustomer(customer_id=customer.id, credit_limit=None, tax_rate_override=None)
        )
        assert (edited.name, edited.credit_limit, edited.tax_rate_override) == ("Corner", None, None)
        async with refused(shop, "precondition_failed", Stale):
            await shop.execute(EditCustomer(customer_id=customer.id, name="Late", version=1))

    async def test_customers_are_listed_by_status_and_search(self, shop: Harness) -> None:
        corner = await shop.customer("a@corner.example", name="Café")
        blocked = await shop.customer("b@corner.example", status=CustomerStatus.BLOCKED)
        page = await shop.execute(ListCustomers(search="CORNER"))
        assert [it.id for it in page.items] == [blocked.id, corner.id]
        page = await shop.execute(ListCustomers(search="café", status=CustomerStatus.ACTIVE))
        assert [it.id for it in page.items] == [corner.id]

    async def test_an_unknown_customer_and_a_strangers_are_answered_alike(self, shop: Harness) -> None:
        stranger = await shop.stranger()
        product = await shop.product()
        answers = set()
        for id in ((await stranger.customer()).id, CustomerId(shop.distribu.ports.entropy.uuid())):
            for request in each(
                ReadCustomer(customer_id=id),
                EditCustomer(customer_id=id, name="Mine"),
                SetPriceOverride(customer_id=id, product_id=product.id, price=amount("1")),
                ListPriceOverrides(customer_id=id),
            ):
                async with refused(shop, "customer_not_found", NotFound) as no:
                    await shop.execute(request)
                answers.add((no.refused.message, str(no.refused.fields)))
        assert len(answers) == 1

    async def test_a_contact_reads_its_own_customer_and_no_other(self, shop: Harness) -> None:
        customer, other = await shop.customer(), await shop.customer()
        contact = contact_of(shop, customer, ContactRole.VIEWER)
        read = await shop.execute(ReadCustomer(customer_id=customer.id), contact)
        assert read.customer.id == customer.id
        async with refused(shop, "customer_not_found", NotFound):
            await shop.execute(ReadCustomer(customer_id=other.id), contact)
        page = await shop.execute(ListCustomers(), contact)
        assert [it.id for it in page.items] == [customer.id]

    # --- prices --------------------------------------------------------------------------------

    async def test_a_price_of_its_own_is_set_changed_taken_away_and_given_again(self, shop: Harness) -> None:
        customer, product = await shop.customer(), await shop.product()

        async def prices() -> list[Decimal | None]:
            page = await shop.execute(ListPriceOverrides(customer_id=customer.id))
            return [it.price for it in page.items]

        def set_to(text: str) -> SetPriceOverride:
            return SetPriceOverride(customer_id=customer.id, product_id=product.id, price=amount(text))

        first = await shop.execute(set_to("9.00"))
        assert await prices() == [Decimal("9.00")]
        assert (await shop.execute(set_to("9.00"))).version == 1
        assert (await shop.execute(set_to("8.00"))).id == first.id
        await shop.execute(RemovePriceOverride(customer_id=customer.id, product_id=product.id))
        assert await prices() == []
        async with refused(shop, "price_override_not_found", NotFound):
            await shop.execute(RemovePriceOverride(customer_id=customer.id, product_id=product.id))
        await shop.execute(set_to("7.00"))
        assert await prices() == [Decimal("7.00")]
        log = await log_of(shop, "price_override")
        assert [(it.metadata["before"], it.metadata.get("after")) for it in log] == [
            (None, 9.0),
            (9.0, 8.0),
            (8.0, None),
            (None, 7.0),
        ]

    async def test_a_price_is_of_a_customer_and_a_product_that_exist(self, shop: Harness) -> None:
        customer, product = await shop.customer(), await shop.product()
        absent = shop.distribu.ports.entropy.uuid()
        async with refused(shop, "product_not_found", NotFound):
            await shop.execute(
                SetPriceOverride(customer_id=customer.id, product_id=ProductId(absent), price=amount("1"))
            )
        async with refused(shop, "price_override_not_found", NotFound):
            await shop.execute(RemovePriceOverride(customer_id=customer.id, product_id=product.id))

    async def test_what_staff_noted_is_not_shown_to_the_customer(self, shop: Harness) -> None:
        customer = await shop.customer(notes="pays late")
        contact = contact_of(shop, customer)
        read = await shop.execute(ReadCustomer(customer_id=customer.id), contact)
        assert read.customer.notes == ""
        page = await shop.execute(ListCustomers(), contact)
        assert [(it.id, it.notes) for it in page.items] == [(customer.id, "")]
        read = await shop.execute(ReadCustomer(customer_id=customer.id))
        assert read.customer.notes == "pays late"
