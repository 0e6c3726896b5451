"""Use cases of customers and their prices."""

from dataclasses import replace
from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from distribu.application import billing, fields
from distribu.application.kernel import Command, Query, Reads, Work
from distribu.application.ports import Page
from distribu.domain.access import Actor, Permission
from distribu.domain.billing import Counted
from distribu.domain.customers import (
    ADDRESSES_MAX,
    Customer,
    CustomerDetail,
    CustomerStatus,
    PriceOverride,
)
from distribu.domain.errors import Invalid, NotFound
from distribu.domain.values import Address, AddressId, CustomerId

_Name = Annotated[str, Meta(max_length=100, examples=["Green Grocer"])]
_Notes = Annotated[str, Meta(max_length=2000)]
_Days = Annotated[int, Meta(ge=0, le=3650, examples=[30])]
_Part = Annotated[str, Meta(max_length=100)]


class NewAddress(fields.Value, frozen=True, kw_only=True):
    """An address. ``id`` is that of one the customer has already, to keep it."""

    id: fields.AddressId | None = None
    name: _Part = ""
    line1: Annotated[str, Meta(min_length=1, max_length=100, examples=["12 High Street"])]
    line2: _Part = ""
    city: Annotated[str, Meta(min_length=1, max_length=100, examples=["Leeds"])]
    region: _Part = ""
    postal_code: Annotated[str, Meta(max_length=20, examples=["LS1 4AB"])] = ""
    country: Annotated[str, Meta(pattern="^[A-Z]{2}$", max_length=2, examples=["GB"])]
    phone: Annotated[str, Meta(max_length=40)] = ""
    is_default: bool = False

    def address(self, id: AddressId, *, at: str) -> Address:
        """This address, with an id. ``at`` is where it stands in the request, such as ``addresses[0]``.

        Raises `Invalid` for a country that does not exist.
        """
        try:
            return Address(
                id=id,
                name=self.name,
                line1=self.line1,
                line2=self.line2,
                city=self.city,
                region=self.region,
                postal_code=self.postal_code,
                country=self.country,
                phone=self.phone,
                is_default=self.is_default,
            )
        except Invalid as wrong:
            placed = {f"{at}.{name}": text for name, text in wrong.fields.items()}
            raise Invalid(wrong.code, fields=placed) from None


_Addresses = Annotated[tuple[NewAddress, ...], Meta(max_length=ADDRESSES_MAX)]


class CreateCustomer(Command[Customer], frozen=True, kw_only=True):
    """Add a customer."""

    needs = Permission.CUSTOMERS_WRITE

    email: fields.Email
    name: _Name = ""
    status: CustomerStatus = CustomerStatus.ACTIVE
    notes: _Notes = ""
    credit_limit: fields.Amount | None = None
    tax_rate_override: fields.TaxRate | None = None
    payment_terms_days: _Days = 0
    addresses: _Addresses = ()

    async def run(self, work: Work) -> Customer:
        await billing.admit(work, Counted.CUSTOMERS)
        given = self.given("addresses")
        customer = Customer.create(
            company_id=work.company_id,
            id=CustomerId(work.new_id()),
            at=work.now,
            addresses=tuple(
                one.address(AddressId(work.new_id()), at=f"addresses[{place}]")
                for place, one in enumerate(self.addresses)
            ),
            **given,
        )
        work.save(customer)
        return customer


class EditCustomer(Command[Customer], frozen=True, kw_only=True):
    """Change a customer; ``addresses`` replaces them all. A credit limit below the credit used only
    stops new orders.
    """

    needs = Permission.CUSTOMERS_WRITE

    customer_id: fields.CustomerIdInPath
    email: fields.Email | UnsetType = UNSET
    name: _Name | UnsetType = UNSET
    status: CustomerStatus | UnsetType = UNSET
    notes: _Notes | UnsetType = UNSET
    credit_limit: fields.Amount | None | UnsetType = UNSET
    tax_rate_override: fields.TaxRate | None | UnsetType = UNSET
    payment_terms_days: _Days | UnsetType = UNSET
    addresses: _Addresses | UnsetType = UNSET
    version: fields.IfMatch | None = None

    async def run(self, work: Work) -> Customer:
        customer = (await work.customers.get(self.customer_id)).at(self.version)
        changes = self.given("customer_id", "version", "addresses")
        if not isinstance(self.addresses, UnsetType):
            changes["addresses"] = tuple(
                one.address(
                    customer.address(one.id).id if one.id else AddressId(work.new_id()),
                    at=f"addresses[{place}]",
                )
                for place, one in enumerate(self.addresses)
            )
        after = customer.edit(changes, at=work.now)
        await keep(work, customer, after)
        return after


async def keep(work: Work, before: Customer, after: Customer) -> None:
    """Save a customer as it became. Who may order from now on takes a place. Raises `PaymentRequired`."""
    if after.status is CustomerStatus.ACTIVE and before.status is not CustomerStatus.ACTIVE:
        await billing.admit(work, Counted.CUSTOMERS)
    work.save(after)


class ReadCustomer(Query[CustomerDetail], frozen=True, kw_only=True):
    """One customer with its addresses and its newest hundred prices."""

    needs = Permission.CUSTOMERS_READ

    customer_id: fields.CustomerIdInPath

    async def run(self, reads: Reads) -> CustomerDetail:
        customer, overrides = await reads.together(
            reads.customers.get(self.customer_id), reads.overrides.page(self.customer_id, limit=100)
        )
        return CustomerDetail(customer=_shown(customer, reads.actor), price_overrides=overrides.items)


class ListCustomers(Query[Page[Customer]], frozen=True, kw_only=True):
    """Customers, newest first; ``search`` looks in name and email, ignoring case."""

    needs = Permission.CUSTOMERS_READ

    status: CustomerStatus | None = None
    search: Annotated[str, Meta(max_length=100)] | None = None
    limit: fields.Limit = 50
    cursor: fields.Cursor | None = None

    async def run(self, reads: Reads) -> Page[Customer]:
        page = await reads.customers.page(
            limit=self.limit, cursor=self.cursor, status=self.status, search=self.search
        )
        return replace(page, items=tuple(_shown(it, reads.actor) for it in page.items))


class SetPriceOverride(Command[PriceOverride], frozen=True, kw_only=True):
    """Give a customer its own unit price of a product."""

    needs = Permission.CUSTOMERS_WRITE

    customer_id: fields.CustomerIdInPath
    product_id: fields.ProductIdInPath
    price: fields.Amount

    async def run(self, work: Work) -> PriceOverride:
        _, _, override = await work.together(
            work.customers.get(self.customer_id),
            work.products.get(self.product_id),
            work.overrides.find(self.customer_id, self.product_id),
        )
        if override is None:
            override = PriceOverride.create(
                company_id=work.company_id,
                id=work.new_id(),
                customer_id=self.customer_id,
                product_id=self.product_id,
                price=self.price,
                at=work.now,
            )
        else:
            override = override.set(self.price, at=work.now)
        work.save(override)
        return override


class RemovePriceOverride(Command[None], frozen=True, kw_only=True):
    """Back to the catalogue's price."""

    needs = Permission.CUSTOMERS_WRITE

    customer_id: fields.CustomerIdInPath
    product_id: fields.ProductIdInPath

    async def run(self, work: Work) -> None:
        override = await work.overrides.find(self.customer_id, self.product_id)
        if override is None:
            raise NotFound("price_override_not_found")
        work.save(override.remove(at=work.now))


class ListPriceOverrides(Query[Page[PriceOverride]], frozen=True, kw_only=True):
    """All of a customer's own prices, newest first."""

    needs = Permission.CUSTOMERS_READ

    customer_id: fields.CustomerIdInPath
    limit: fields.Limit = 50
    cursor: fields.Cursor | None = None

    async def run(self, reads: Reads) -> Page[PriceOverride]:
        _, page = await reads.together(
            reads.customers.get(self.customer_id),
            reads.overrides.page(self.customer_id, limit=self.limit, cursor=self.cursor),
        )
        return page


def _shown(customer: Customer, actor: Actor) -> Customer:
    """The customer as it is shown to an actor: what staff noted about it is not for its contacts."""
    return customer if actor.customer_id is None else replace(customer, notes="")
