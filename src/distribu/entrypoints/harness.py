"""The whole product in one process, without sockets, with the clock in your hand."""

from decimal import Decimal
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from distribu.application.access import CreateApiKey
from distribu.application.catalog import CreateProduct
from distribu.application.customers import CreateCustomer, EditCustomer
from distribu.application.kernel import Distribu, Request
from distribu.application.ordering import PlaceOrder, Wanted
from distribu.application.team import CreateCompany
from distribu.application.webhooks import RegisterWebhook
from distribu.container import in_memory
from distribu.domain.access import SCOPES, Actor, Permission
from distribu.domain.catalog import Product
from distribu.domain.customers import Customer
from distribu.domain.ordering import Order
from distribu.domain.team import Company
from distribu.domain.values import Money, Secret, exact_money
from distribu.domain.webhooks import Webhook, WireEvent
from distribu.entrypoints.http.app import http_app
from distribu.entrypoints.http.limits import ApiLimits
from distribu.entrypoints.worker import Worker

if TYPE_CHECKING:
    import httpx

R = TypeVar("R")


class Shop:
    """One company of a Distribu, whichever store that is on, and short ways to fill it."""

    def __init__(self, distribu: Distribu, company: Company) -> None:
        self.distribu = distribu
        self.company = company
        self.actor = Actor.system(company.id)

    @classmethod
    async def open(cls, distribu: Distribu, name: str = "Acme Distributors") -> "Shop":
        """A new company; its slug is made unique, so that any number can have the same name."""
        slug = "shop-" + distribu.ports.entropy.uuid()
        company = await distribu.execute(Actor.system(None), CreateCompany(name=name, slug=slug))
        return Shop(distribu, company)

    async def stranger(self) -> "Shop":
        """Another company on the same Distribu."""
        return await Shop.open(self.distribu, "Stranger")

    async def execute(self, request: Request[R], actor: Actor | None = None) -> R:
        """Run a request, by default as the company's own system."""
        return await self.distribu.execute(actor or self.actor, request)

    async def product(
        self, name: str = "Oat Flour", *, price: str = "10.00", stock: int = 100, **more: Any
    ) -> Product:
        """A product on the shelf."""
        return await self.execute(CreateProduct(name=name, price=amount(price), stock=stock, **more))

    async def customer(self, email: str | None = None, **more: Any) -> Customer:
        """A customer who may order."""
        email = email or f"buyer-{self.distribu.ports.entropy.uuid()}@example.test"
        return await self.execute(CreateCustomer(email=email, **more))

    async def order(
        self, customer: Customer, *wanted: tuple[Product, int], actor: Actor | None = None, **more: Any
    ) -> Order:
        """An order of ``(product, quantity)`` pairs."""
        items = tuple(Wanted(product_id=product.id, quantity=quantity) for product, quantity in wanted)
        return await self.execute(PlaceOrder(customer_id=customer.id, items=items, **more), actor)

    async def webhook(
        self, *events: WireEvent, url: str = "http://localhost:9000/hook"
    ) -> tuple[Webhook, Secret]:
        """A subscription, by default to everything, and its secret."""
        registered = await self.execute(RegisterWebhook(url=url, events=events or tuple(WireEvent)))
        return registered.what, registered.secret

    async def key(self, *scopes: Permission) -> str:
        """An API key, by default with every scope."""
        created = await self.execute(CreateApiKey(name="test key", scopes=scopes or SCOPES))
        return created.secret.reveal()

    async def api(self, *scopes: Permission, limits: ApiLimits | None = None) -> "httpx.AsyncClient":
        """A client of the HTTP API, in this process, with a key of its own; by default without limits."""
        import httpx  # a tenth of a second that only tests need

        headers = {"authorization": f"Bearer {await self.key(*scopes)}"}
        app: Any = http_app(self.distribu, limits)
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="http://distribu/api/v1",
            headers=headers,
        )

    async def work(self) -> int:
        """Have the worker do what is due. Returns how many deliveries were tried."""
        return await Worker(self.distribu).drain()

    async def limit_credit(self, customer: Customer, limit: str) -> Customer:
        """Give a customer a credit limit."""
        return await self.execute(EditCustomer(customer_id=customer.id, credit_limit=amount(limit)))


class Harness(Shop):
    """A company on Distribu in memory, for the tests of whoever builds on it.

    ::

        @pytest.fixture
        async def shop():
            async with Harness() as shop:
                yield shop

    ``clock`` stands still until ``clock.advance(hours=1)``; ``received`` holds every webhook that
    `work` sent, and ``mail`` every mail, as they arrive; ``receivers.answer`` decides what the receivers
    say.
    """

    def __init__(self, name: str = "Acme Distributors") -> None:
        self._name = name

    async def __aenter__(self) -> Self:
        memory = in_memory()
        shop = await Shop.open(memory.distribu, self._name)
        super().__init__(shop.distribu, shop.company)
        self.clock = memory.clock
        self.receivers = memory.receivers
        self.received = memory.receivers.received
        self.mail = memory.mail
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to give back."""


def amount(text: str) -> Money:
    """``"12.50"`` as money. Raises `ValueError` for what is none."""
    return exact_money(Decimal(text))
