"""The whole product in one process, without sockets, with the clock in your hand."""

from dataclasses import dataclass
from decimal import Decimal
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from distribu.application import fields, reactions
from distribu.application.access import CreateApiKey
from distribu.application.accounts import Name
from distribu.application.billing import FindBuyer, StartCheckout
from distribu.application.catalog import CreateProduct
from distribu.application.customers import CreateCustomer, EditCustomer
from distribu.application.kernel import Command, Distribu, Request, Work
from distribu.application.notices import HearNotice
from distribu.application.ordering import PlaceOrder, Wanted
from distribu.application.platform import TakeSeat
from distribu.application.sessions import OpenSession
from distribu.application.team import AddUser, CreateCompany
from distribu.application.webhooks import RegisterWebhook
from distribu.container import MemoryPayments, in_memory
from distribu.domain.access import SCOPES, Actor, ContactRole, Permission, Role
from distribu.domain.accounts import REALM, Credentials, Session, User
from distribu.domain.billing import Interval, Plan, Subscription
from distribu.domain.catalog import Product
from distribu.domain.contacts import Contact
from distribu.domain.customers import Customer
from distribu.domain.errors import Bug, Refused
from distribu.domain.notices import NoticeStatus
from distribu.domain.ordering import Order
from distribu.domain.team import Company
from distribu.domain.values import CustomerId, Money, Secret, exact_money
from distribu.domain.webhooks import Webhook, WireEvent
from distribu.entrypoints.http.app import http_app
from distribu.entrypoints.http.limits import ApiLimits
from distribu.entrypoints.http.sessions import Keys, Sessions
from distribu.entrypoints.worker import Worker

if TYPE_CHECKING:
    import httpx

R = TypeVar("R")


KEYS: Final = Keys(staff=(Secret("staff-" + "s" * 64),), store=(Secret("store-" + "t" * 64),))
"""What the sessions of `Shop.sign_in` are signed with: known to everybody, for tests alone."""

NO_HASH: Final = "no hash of any password"


class AddContact(Command[Contact], frozen=True, kw_only=True):
    """A contact whose address is verified, and who has no password."""

    needs = None
    internal = True

    customer_id: fields.Uuid
    email: fields.Email
    full_name: Name
    role: ContactRole

    async def run(self, work: Work) -> Contact:
        contact = Contact.add(
            company_id=work.company_id,
            id=work.new_id(),
            customer_id=(await work.customers.get(CustomerId(self.customer_id))).id,
            email=self.email,
            full_name=self.full_name,
            role=self.role,
            at=work.now,
        )
        credentials = Credentials.create(
            company_id=work.company_id, id=contact.id, password_hash=NO_HASH, verified=True, at=work.now
        )
        work.save(contact, credentials)
        return contact


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn:
    """Somebody who is signed in: who they are to `Shop.execute`, and a browser with their cookie.

    ``browser`` is at ``/account`` for staff, at ``/store/{slug}`` for a contact.
    """

    person: User | Contact
    actor: Actor
    browser: "httpx.AsyncClient"


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
        """A subscription, by default to everything but what is told of the audit log, and its secret."""
        everything = tuple(event for event in WireEvent if event not in reactions.OF_THE_LOG)
        registered = await self.execute(RegisterWebhook(url=url, events=events or everything))
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

    async def sign_in(self, role: Role | ContactRole | None, *, customer: Customer | None = None) -> SignedIn:
        """Somebody new, signed in: of the team, of no company (None), or a contact of ``customer``.

        A company has one OWNER. Raises `Refused` (owner_stays) for a second one.
        """
        if isinstance(role, ContactRole) is not (customer is not None):
            raise Bug("a contact is of a customer, and nobody else is")
        ports = self.distribu.ports
        email = f"somebody-{ports.entropy.uuid()}@example.test"
        person: User | Contact
        if isinstance(role, ContactRole) and customer is not None:
            add = AddContact(customer_id=customer.id, email=email, full_name="Somebody", role=role)
            person = await self.distribu.run(self.actor, add)
            session = await self.session(self.actor, person.id)
            grant = await ports.directory.store_session(self.company.id, session.id)
            actor = grant.actor(now=ports.clock.now(), ip=None) if grant is not None else None
        else:
            person = await self.user(email)
            if isinstance(role, Role):
                await self.distribu.run(self.actor, TakeSeat(user_id=person.id, role=role))
            session = await self.session(Actor.system(REALM), person.id)
            staff = await ports.directory.staff_session(session.id)
            actor = staff.actor(now=ports.clock.now(), ip=None) if staff is not None else None
        if actor is None:
            raise Bug("somebody who was just signed in is not")
        return SignedIn(person=person, actor=actor, browser=self._browser(session))

    async def user(self, email: str, password_hash: str = NO_HASH) -> User:
        """A user whose address is verified."""
        add = AddUser(email=email, full_name="Somebody", password_hash=password_hash)
        return await self.distribu.run(Actor.system(REALM), add)

    async def session(self, where: Actor, holder_id: str) -> Session:
        """A session of somebody who was made here: for the platform's realm, or in the store."""
        opening = OpenSession(holder_id=holder_id, verified_hash=NO_HASH, new_hash=None, user_agent="test")
        return (await self.distribu.run(where, opening)).session

    def _browser(self, session: Session) -> "httpx.AsyncClient":
        import httpx

        slug = None if session.company_id == REALM else self.company.slug
        cookie = Sessions(self.distribu, KEYS, production=False).begun(session, slug).partition(";")[0]
        app: Any = http_app(self.distribu, keys=KEYS)
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="http://distribu" + ("/account" if slug is None else f"/store/{slug}"),
            headers={"cookie": cookie, "sec-fetch-site": "same-origin"},
        )

    async def work(self) -> int:
        """Have the worker do what is due. Returns how many deliveries were tried."""
        return await Worker(self.distribu).drain()

    async def limit_credit(self, customer: Customer, limit: str) -> Customer:
        """Give a customer a credit limit."""
        return await self.execute(EditCustomer(customer_id=customer.id, credit_limit=amount(limit)))


class Payer:
    """Whoever pays for the company's plan, at a Stripe that is none: `Harness.stripe`.

    What they do there is told to the company at once, in signed events as Stripe's webhooks are; what time
    does there is told by `Harness.work`. `fail` and `cancel` raise `Refused` (nothing_bought) where there is
    nothing to do it to.
    """

    def __init__(self, shop: Shop, payments: MemoryPayments) -> None:
        self._shop = shop
        self._payments = payments
        self._told: set[str] = set()

    @property
    def events(self) -> "list[dict[str, Any]]":
        """All that happened there, in Stripe's words, oldest first."""
        return self._payments.stripe.events

    async def pay(self, plan: Plan | None = None, interval: Interval | None = None) -> None:
        """Pay by a card that works: buy a plan, change to it, or pay what is open of the one there is.

        Without a plan it is the one that the company has; by the month, unless it is paid otherwise. Raises
        `NotFound` (member_not_found) where the company has no OWNER, who is the one to buy.
        """
        has = await self._subscription()
        plan, interval = plan or has.plan, interval or has.interval or Interval.MONTH
        stripe = self._payments.stripe
        if has.live and has.subscription_ref is not None and has.customer_ref is not None:
            stripe.card(has.customer_ref, works=True)
            if (plan, interval) != (has.plan, has.interval):
                stripe.change(has.subscription_ref, self._payments.prices_sold[plan, interval][0])
        else:
            page = await self._shop.execute(StartCheckout(plan=plan, interval=interval))
            stripe.pay(page.url.rpartition("/")[2])
        await self.tell()

    async def fail(self) -> None:
        """Have the card refused from now on: when the next payment is due, it fails, and is tried again after
        3, 5 and 7 days; then the subscription is over."""
        self._payments.stripe.card((await self._bought())[0], works=False)
        await self.tell()

    async def cancel(self, *, now: bool = False) -> None:
        """End the subscription with its period, or now."""
        self._payments.stripe.cancel((await self._bought())[1], now=now)
        await self.tell()

    async def replay(self, event: "dict[str, Any]") -> NoticeStatus:
        """Have one of `events` sent, again. Returns what became of it: what was applied stays so, once."""
        body, signature = self._payments.told(event)
        hear = HearNotice(body=body, signature=signature)
        status = await self._shop.distribu.run(Actor.system(None, "Stripe"), hear)
        self._told.add(event["id"])
        return status

    async def tell(self) -> None:
        """Have what is new sent."""
        self._payments.stripe.settle()
        for event in [one for one in self.events if one["id"] not in self._told]:
            await self.replay(event)

    async def _subscription(self) -> Subscription:
        return (await self._shop.distribu.run(self._shop.actor, FindBuyer()))[0]

    async def _bought(self) -> tuple[str, str]:
        has = await self._subscription()
        if not has.live or has.customer_ref is None or has.subscription_ref is None:
            raise Refused("nothing_bought")
        return has.customer_ref, has.subscription_ref


class Harness(Shop):
    """A company on Distribu in memory, for the tests of whoever builds on it.

    ::

        @pytest.fixture
        async def shop():
            async with Harness() as shop:
                yield shop

    ``clock`` stands still until ``clock.advance(hours=1)``; ``received`` holds every webhook that
    `work` sent, and ``mail`` every mail, as they arrive; ``receivers.answer`` decides what the receivers
    say. On ``Harness(sells=True)`` plans are sold: the company is on trial, `pass_days` ends it, and
    ``stripe`` pays.
    """

    def __init__(self, name: str = "Acme Distributors", *, sells: bool = False) -> None:
        self._name = name
        self._sells = sells
        self._payer: Payer | None = None

    async def __aenter__(self) -> Self:
        memory = in_memory(sells=self._sells)
        shop = await Shop.open(memory.distribu, self._name)
        super().__init__(shop.distribu, shop.company)
        self.clock = memory.clock
        self.receivers = memory.receivers
        self.received = memory.receivers.received
        self.mail = memory.mail
        if memory.payments is not None:
            self._payer = Payer(self, memory.payments)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to give back."""

    @property
    def stripe(self) -> Payer:
        """Whoever pays. Raises `Bug` where nothing is sold."""
        if self._payer is None:
            raise Bug("nothing is sold here: Harness(sells=True)")
        return self._payer

    async def work(self) -> int:
        """Have Stripe and the worker do what is due. Returns how many deliveries were tried."""
        if self._payer is not None:
            await self._payer.tell()
        return await super().work()

    async def pass_days(self, days: int) -> None:
        """Let days pass, one after the other; on each of them what is due is done (`work`)."""
        for _ in range(days):
            self.clock.advance(days=1)
            await self.work()


def amount(text: str) -> Money:
    """``"12.50"`` as money. Raises `ValueError` for what is none."""
    return exact_money(Decimal(text))
