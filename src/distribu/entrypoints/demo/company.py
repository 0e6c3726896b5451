"""The demo company: a handful of products, customers and orders, and a key to look at them with."""

import shlex
from dataclasses import dataclass
from typing import Final, TypeVar

from distribu.application import views
from distribu.application.access import CreateApiKey, ListApiKeys, RevokeApiKey
from distribu.application.catalog import AdjustStock, CreateProduct, ListProducts, MoveReason
from distribu.application.customers import CreateCustomer, ListCustomers, NewAddress
from distribu.application.kernel import Distribu, Request
from distribu.application.ordering import ListOrders, MoveOrder, PlaceOrder, Wanted
from distribu.application.platform import SetPlan
from distribu.application.team import CreateCompany
from distribu.domain.access import SCOPES, Actor, ApiKey
from distribu.domain.billing import Plan
from distribu.domain.catalog import Product
from distribu.domain.customers import Customer
from distribu.domain.ordering import OrderStatus
from distribu.domain.values import CompanyId, CustomerId, ProductId
from distribu.entrypoints.harness import amount

SLUG: Final = "demo"

KEY_NAME: Final = "demo"
KEYS_KEPT: Final = 5
"""Every start makes a key and shows it; older ones than the last few are revoked."""

STOCK_LOW: Final = 100
"""Below this the product of the printed order is received anew, so that the order goes through."""

_SHELF: Final = tuple(
    CreateProduct(sku=sku, name=name, category=category, unit=unit, price=amount(price), stock=stock)
    for sku, name, category, unit, price, stock in (
        ("OAT-25", "Oat Flour 25 kg", "Flour", "bag", "18.40", 500),
        ("RYE-25", "Rye Flour 25 kg", "Flour", "bag", "21.10", 240),
        ("OIL-05", "Olive Oil 5 L", "Oil", "case", "46.00", 80),
        ("TOM-24", "Tinned Tomatoes 24 x 400 g", "Tins", "case", "14.75", 320),
        ("SUG-10", "Cane Sugar 10 kg", "Sugar", "bag", "12.95", 6),
        ("BOX-L", "Cake Box, large", "Packaging", "each", "0.42", 4000),
    )
)

_CUSTOMERS: Final = (
    CreateCustomer(
        email="orders@corner-shop.example",
        name="Corner Shop",
        payment_terms_days=30,
        addresses=(NewAddress(line1="12 High Street", city="Leeds", postal_code="LS1 4AB", country="GB"),),
    ),
    CreateCustomer(
        email="buying@harbour-bakery.example",
        name="Harbour Bakery",
        credit_limit=amount("5000.00"),
        addresses=(NewAddress(line1="3 Quay Road", city="Bristol", postal_code="BS1 6XL", country="GB"),),
    ),
    CreateCustomer(
        email="kitchen@padaria-sol.example",
        name="Padaria Sol",
        addresses=(NewAddress(line1="Rua da Prata 80", city="Lisboa", postal_code="1100-420", country="PT"),),
    ),
)

_ORDERS: Final = (
    ("orders@corner-shop.example", "PO-1", (("OAT-25", 4), ("TOM-24", 10)), OrderStatus.CONFIRMED),
    ("buying@harbour-bakery.example", "PO-2", (("RYE-25", 12), ("BOX-L", 200)), None),
)

R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """What to look at, and what to look with. ``key`` is the text of an API key with every scope."""

    company_id: CompanyId
    key: str
    customer_id: CustomerId
    product_id: ProductId

    def curl(self, url: str) -> str:
        """A command for a shell that places an order at ``url``."""
        wanted = {"productId": self.product_id, "quantity": 2}
        body = views.encode({"customerId": self.customer_id, "items": [wanted]}).decode()
        return " ".join(
            shlex.quote(word)
            for word in (
                *("curl", "-X", "POST", f"{url}/api/v1/orders"),
                *("-H", f"Authorization: Bearer {self.key}", "-H", "Content-Type: application/json"),
                *("-d", body),
            )
        )


async def prepare(distribu: Distribu) -> Demo:
    """The demo company, made as far as it is not there, with a fresh key."""
    return await _Making(distribu, await _company(distribu)).all()


async def _company(distribu: Distribu) -> CompanyId:
    found = await distribu.ports.directory.company(SLUG)
    if found is not None:
        return found
    founding = CreateCompany(name="Demo Distributors", slug=SLUG)
    actor = Actor.system(None, label="demo")
    company = await distribu.execute(actor, founding)
    if distribu.ports.payments is not None:  # a trial would end, and with it what the demo shows
        await distribu.execute(actor, SetPlan(company_id=company.id, plan=Plan.UNLIMITED))
    return company.id


class _Making:
    def __init__(self, distribu: Distribu, company_id: CompanyId) -> None:
        self.distribu = distribu
        self.actor = Actor.system(company_id, label="demo")
        self.company_id = company_id

    async def execute(self, request: Request[R]) -> R:
        return await self.distribu.execute(self.actor, request)

    async def all(self) -> Demo:
        products = {str(new.sku): await self.product(new) for new in _SHELF}
        customers = {new.email: await self.customer(new) for new in _CUSTOMERS}
        for email, po_number, items, status in _ORDERS:
            if (await self.execute(ListOrders(customer_id=customers[email].id, limit=1))).items:
                continue
            wanted = tuple(Wanted(product_id=products[sku].id, quantity=count) for sku, count in items)
            placing = PlaceOrder(customer_id=customers[email].id, items=wanted, po_number=po_number)
            order = await self.execute(placing)
            if status is not None:
                await self.execute(MoveOrder(order_id=order.id, status=status))
        first = products[str(_SHELF[0].sku)]
        if first.stock < STOCK_LOW:
            receipt = AdjustStock(product_id=first.id, quantity=_SHELF[0].stock, reason=MoveReason.RECEIVED)
            await self.execute(receipt)
        return Demo(
            company_id=self.company_id,
            key=await self.key(),
            customer_id=customers[_CUSTOMERS[0].email].id,
            product_id=first.id,
        )

    async def product(self, new: CreateProduct) -> Product:
        found = (await self.execute(ListProducts(search=new.sku, limit=100))).items
        for product in found:
            if product.sku == new.sku:
                return product
        return await self.execute(new)

    async def customer(self, new: CreateCustomer) -> Customer:
        found = (await self.execute(ListCustomers(search=new.email, limit=100))).items
        for customer in found:
            if customer.email == new.email:
                return customer
        return await self.execute(new)

    async def key(self) -> str:
        kept = 1
        for old in await self.keys():
            if old.name == KEY_NAME and old.revoked_at is None:
                kept += 1
                if kept > KEYS_KEPT:
                    await self.execute(RevokeApiKey(api_key_id=old.id))
        made = await self.execute(CreateApiKey(name=KEY_NAME, scopes=SCOPES))
        return made.secret.reveal()

    async def keys(self) -> list[ApiKey]:
        page = await self.execute(ListApiKeys(limit=100))
        found = [*page.items]
        while page.next_cursor is not None:
            page = await self.execute(ListApiKeys(limit=100, cursor=page.next_cursor))
            found += page.items
        return found
