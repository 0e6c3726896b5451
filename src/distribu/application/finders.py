"""What a request can ask the store: one port for each context, and `Finders`, which is all of them."""

from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, Protocol, TypeVar

from distribu.domain.access import ActorKind, ApiKey, Seat, Standing
from distribu.domain.accounts import Credentials, Session, User
from distribu.domain.audit import Record
from distribu.domain.billing import Subscription, Used
from distribu.domain.catalog import Product, StockMovement
from distribu.domain.contacts import Contact
from distribu.domain.customers import Customer, CustomerStatus, PriceOverride
from distribu.domain.errors import Refused
from distribu.domain.factors import SecondFactor
from distribu.domain.inquiries import Inquiry
from distribu.domain.notices import Notice, NoticeStatus
from distribu.domain.ordering import Order, OrderStatus, Payment
from distribu.domain.sealing import Head, SealedRow
from distribu.domain.team import Company, Invitation, Membership
from distribu.domain.values import (
    ApiKeyId,
    CompanyId,
    CustomerId,
    DeliveryId,
    Money,
    OrderId,
    ProductId,
    WebhookId,
)
from distribu.domain.webhooks import Delivery, Webhook

FEED_SCAN: Final = 10_000
"""Positions of the feed that one question looks at: of a reader's own events there may be few."""

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Read(Protocol[T_co]):
    """One question to the store: await it alone, or send it along with others in one round trip."""

    def __await__(self) -> Generator[Any, Any, T_co]: ...


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Newest first. ``next_cursor`` is the id of the last item, or None when there is no more."""

    items: tuple[T, ...]
    next_cursor: str | None


class Companies(Protocol):
    def current(self, *, lock: bool = False) -> Read[Company]:
        """The company of this transaction; only an edit locks it. Raises `NotFound`."""
        ...


class Subscriptions(Protocol):
    def current(self, *, at: datetime, lock: bool = False) -> Read[Subscription]:
        """The company's; an unlimited one, not written yet, when it has none.

        With ``lock`` whoever asks next waits for this command to end, unless there is none to be locked.
        """
        ...

    def used(self, *, at: datetime) -> Read[Used]:
        """How many there are of what a plan counts, and how many orders were made in the month of ``at``: in
        a later one if any was, which is so where clocks differ."""
        ...


class Notices(Protocol):
    def get(self, id: str) -> Read[Notice | None]:
        """One thing that Stripe told us, by our id of it; locked inside a command."""
        ...

    def turn(self) -> Read[int]:
        """The number of the last that was applied to the company's subscription; 0 before the first."""
        ...

    def paid(self, invoice_ref: str) -> Read[bool]:
        """Whether it was applied already that this invoice was paid."""
        ...


class Products(Protocol):
    def get(self, id: ProductId) -> Read[Product]:
        """One product that is not archived. Raises `NotFound`."""
        ...

    def many(
        self, ids: Collection[ProductId], *, archived: bool = False
    ) -> Read[Mapping[ProductId, Product]]:
        """Those of ``ids`` that exist, in id order; locked in that order inside a command."""
        ...

    def page(
        self,
        *,
        limit: int,
        cursor: str | None = None,
        category: str | None = None,
        search: str | None = None,
        active: bool | None = None,
    ) -> Read[Page[Product]]:
        """Products that are not archived; ``search`` looks in name, SKU and category, ignoring case."""
        ...

    def movements(self, id: ProductId, *, limit: int, cursor: str | None = None) -> Read[Page[StockMovement]]:
        """How a product's stock came about."""
        ...


class Customers(Protocol):
    def get(self, id: CustomerId) -> Read[Customer]:
        """One customer. Raises `NotFound`."""
        ...

    def by_email(self, email: str) -> Read[Customer | None]:
        """The customer with this canonical address."""
        ...

    def page(
        self,
        *,
        limit: int,
        cursor: str | None = None,
        status: CustomerStatus | None = None,
        search: str | None = None,
    ) -> Read[Page[Customer]]:
        """``search`` looks in name and email, ignoring case."""
        ...


class Overrides(Protocol):
    def prices(self, customer_id: CustomerId, ids: Collection[ProductId]) -> Read[Mapping[ProductId, Money]]:
        """The customer's own prices of those products; a product without one is absent."""
        ...

    def find(self, customer_id: CustomerId, product_id: ProductId) -> Read[PriceOverride | None]:
        """The override of this pair, also one that was taken away."""
        ...

    def page(
        self, customer_id: CustomerId, *, limit: int, cursor: str | None = None
    ) -> Read[Page[PriceOverride]]:
        """The customer's overrides in force."""
        ...


class Orders(Protocol):
    def get(self, id: OrderId) -> Read[Order]:
        """One order with its lines. Raises `NotFound`."""
        ...

    def page(
        self,
        *,
        limit: int,
        cursor: str | None = None,
        status: OrderStatus | None = None,
        customer_id: CustomerId | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Read[Page[Order]]:
        """Orders with their lines; ``since <= placed_at < until``."""
        ...

    def any(self) -> Read[bool]:
        """Whether the company has an order yet."""
        ...

    def payments(self, id: OrderId, *, limit: int, cursor: str | None = None) -> Read[Page[Payment]]:
        """What was paid for an order. A contact finds nothing."""
        ...


class ApiKeys(Protocol):
    def get(self, id: ApiKeyId) -> Read[ApiKey]:
        """One key. Raises `NotFound`."""
        ...

    def page(self, *, limit: int, cursor: str | None = None) -> Read[Page[ApiKey]]:
        """Revoked ones too."""
        ...

    def count(self) -> Read[int]:
        """How many are not revoked."""
        ...


@dataclass(frozen=True, slots=True)
class Happened:
    """An event in its place in the feed; ``payload`` is JSON."""

    id: str
    name: str
    occurred_at: datetime
    position: int
    payload: str


@dataclass(frozen=True, slots=True)
class Feed:
    """Events by position. All up to ``next_after`` was looked at: go on from there, now or later."""

    items: tuple[Happened, ...]
    next_after: int
    has_more: bool


def feed_after(after: int | None, head: int, purged: int, found: Sequence[Happened], limit: int) -> Feed:
    """The answer made of what a store has found: up to ``limit`` and one more of the events after a position.

    ``head`` is the last position there was before they were looked for, ``purged`` the last that is not
    kept. Raises `Refused` (events_gone, position_unknown).
    """
    if after is None:
        after = purged
    elif after < purged:
        raise Refused(
            "events_gone", f"Events up to position {purged} are not kept any more: go on after {purged}."
        )
    elif after > head:
        raise Refused(
            "position_unknown",
            f"There is no position {after}: the newest is {head}. Read again from before, or without after,"
            " and know events by their id.",
        )
    items = tuple(found[:limit])
    if len(found) > limit:
        return Feed(items, items[-1].position, has_more=True)
    seen = min(after + FEED_SCAN, head)
    last = items[-1].position if items else after
    return Feed(items, max(seen, last), has_more=after + FEED_SCAN < head)


class Events(Protocol):
    def after(self, position: int | None, *, names: Collection[str], limit: int) -> Read[Feed]:
        """Events after a position (None: from the first that is kept), those of ``names``.

        At most `FEED_SCAN` positions are looked at. Raises `Refused` when events after the position are not
        kept any more (events_gone), and when it is behind the newest (position_unknown). A contact finds
        nothing.
        """
        ...


class Webhooks(Protocol):
    def get(self, id: WebhookId) -> Read[Webhook]:
        """One webhook that was not removed. Raises `NotFound`."""
        ...

    def page(self, *, limit: int, cursor: str | None = None) -> Read[Page[Webhook]]:
        """Those not removed."""
        ...

    def count(self) -> Read[int]:
        """How many there are."""
        ...

    def delivery(self, id: DeliveryId) -> Read[Delivery]:
        """One delivery with its attempts. Raises `NotFound`."""
        ...

    def deliveries(self, id: WebhookId, *, limit: int, cursor: str | None = None) -> Read[Page[Delivery]]:
        """A webhook's deliveries, without their attempts."""
        ...


class Records(Protocol):
    def page(
        self,
        *,
        limit: int,
        cursor: str | None = None,
        actor_kind: ActorKind | None = None,
        entity_type: str | None = None,
        entity_id: str | None = None,
        action: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        search: str | None = None,
    ) -> Read[Page[Record]]:
        """The audit log; ``since <= at < until``. ``search`` looks in a record's text and its label."""
        ...


class Seals(Protocol):
    def tip(self) -> Read[Head | None]:
        """The newest head; None before the first record is sealed."""
        ...

    def heads(self, *, after: int, limit: int) -> Read[Sequence[Head]]:
        """Heads in their order, behind the one of a number."""
        ...

    def leaves(self, *, first: int, limit: int) -> Read[Sequence[bytes]]:
        """The leaves of the tree from a place on."""
        ...

    def rows(self, *, after: int, limit: int) -> Read[Sequence[SealedRow]]:
        """Sealed records in their order, behind a position (-1: from the first on); also what is gone."""
        ...

    def strays(self, *, after: str, limit: int) -> Read[Sequence[SealedRow]]:
        """Records, by id, that are not sealed and do not wait to be: nobody wrote them through a door."""
        ...

    def waiting(self, *, before: datetime, limit: int) -> Read[Sequence[SealedRow]]:
        """What was recorded before a time and is there and in line to be sealed, and is not."""
        ...

    def vanished(self, *, limit: int) -> Read[Sequence[SealedRow]]:
        """What waits to be sealed and is not there."""
        ...


@dataclass(frozen=True, slots=True)
class Login:
    """Somebody who could sign in here: at the platform a user, at a store a contact.

    ``admitted``: contact and customer are active; a user always is. Inside a command ``credentials``
    are locked.
    """

    id: str
    email: str
    full_name: str
    admitted: bool
    credentials: Credentials


class Logins(Protocol):
    def by_email(self, email: str) -> Read[Login | None]:
        """Who goes by this canonical address."""
        ...

    def get(self, id: str) -> Read[Login]:
        """One of them. Raises `NotFound`."""
        ...


class Users(Protocol):
    def get(self, id: str) -> Read[User]:
        """One user; of a company's scope, one of its members. Raises `NotFound`."""
        ...

    def seats(self, id: str) -> Read[Sequence[Seat]]:
        """Where a user works, by the companies' names; companies that were deleted are absent."""
        ...

    def super_admins(self, *, limit: int) -> Read[Sequence[User]]:
        """Those with the flag, newest first."""
        ...

    def page(self, *, limit: int, cursor: str | None = None) -> Read[Page[User]]:
        """All users."""
        ...


class Sessions(Protocol):
    def get(self, id: str) -> Read[Session]:
        """One session, over or not. Raises `NotFound`."""
        ...

    def of(self, holder_id: str) -> Read[Sequence[Session]]:
        """The newest `SESSIONS_MAX` sessions of a person of the present epoch that have not ended.

        Newest first; those that have expired are among them.
        """
        ...


@dataclass(frozen=True, slots=True)
class Member:
    """A membership and whose it is."""

    membership: Membership
    email: str
    full_name: str


class Factors(Protocol):
    def of(self, id: str) -> Read[SecondFactor | None]:
        """What a user can show beside a password."""
        ...


class Members(Protocol):
    def get(self, id: str) -> Read[Membership]:
        """One membership that was not removed. Raises `NotFound`."""
        ...

    def by_email(self, email: str) -> Read[Membership | None]:
        """The membership of whoever goes by this canonical address."""
        ...

    def of_user(self, user_id: str) -> Read[Membership | None]:
        """The membership of a user, unless they have none or were removed."""
        ...

    def leaders(self, *, limit: int) -> Read[Sequence[Member]]:
        """The OWNER first (a company that an operator founded has none yet), then ADMINs, oldest first."""
        ...

    def page(self, *, limit: int, cursor: str | None = None) -> Read[Page[Member]]:
        """Everybody in the team."""
        ...


class Invitations(Protocol):
    def get(self, id: str) -> Read[Invitation]:
        """One invitation, over or not. Raises `NotFound`."""
        ...

    def page(self, *, limit: int, cursor: str | None = None) -> Read[Page[Invitation]]:
        """Those that can still be accepted, or could if they had not expired."""
        ...

    def by(self, membership_id: str) -> Read[Sequence[Invitation]]:
        """The open ones that a member has sent; locked inside a command."""
        ...

    def count(self) -> Read[int]:
        """How many are open."""
        ...


class Contacts(Protocol):
    def get(self, id: str) -> Read[Contact]:
        """One contact. Raises `NotFound`."""
        ...

    def page(self, customer_id: CustomerId, *, limit: int, cursor: str | None = None) -> Read[Page[Contact]]:
        """A customer's contacts."""
        ...

    def count(self, customer_id: CustomerId) -> Read[tuple[int, int]]:
        """How many contacts a customer has, and how many of them are active ADMINs."""
        ...


class Inquiries(Protocol):
    def page(self, *, limit: int, cursor: str | None = None) -> Read[Page[Inquiry]]:
        """What people wrote to those who run the platform."""
        ...


@dataclass(frozen=True, slots=True)
class CompanyCard:
    """What the platform knows of a company without looking into it."""

    id: CompanyId
    name: str
    slug: str
    standing: Standing
    api_limit: int | None


@dataclass(frozen=True, slots=True)
class Usage:
    """How much a company has: figures, never rows."""

    members: int
    products: int
    customers: int
    orders: int
    orders_this_month: int
    api_keys: int
    webhooks: int


@dataclass(frozen=True, slots=True)
class FailedJob:
    """A mail or a delivery that was given up; nothing of what was in it."""

    company_id: CompanyId
    kind: str
    id: str
    what: str
    error: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class KeptNotice:
    """Something that Stripe told us, of whichever company; of nobody's the company is the realm."""

    company_id: CompanyId
    ref: str
    type: str
    status: NoticeStatus
    error: str
    created_at: datetime


class Platform(Protocol):
    """What those who run the platform see; only a transaction of the realm does."""

    def companies(self, *, limit: int, cursor: str | None = None) -> Read[Page[CompanyCard]]:
        """Every company, also those that are suspended or deleted."""
        ...

    def card(self, id: CompanyId) -> Read[CompanyCard]:
        """One of them. Raises `NotFound`."""
        ...

    def usage(self, id: CompanyId, *, since: datetime) -> Read[Usage]:
        """How much a company has; of orders also those placed from ``since`` on."""
        ...

    def failed(self, *, limit: int) -> Read[Sequence[FailedJob]]:
        """What was given up last, of all companies."""
        ...

    def notices(self, *, failed: bool, limit: int) -> Read[Sequence[KeptNotice]]:
        """What Stripe told us last, of all companies; with ``failed`` only what is still to be applied."""
        ...

    def payer(self, notice_id: str, customer_ref: str | None) -> Read[CompanyId | None]:
        """The company that a notice is kept in (the realm only if it is nowhere else), or else the one that
        is this customer of Stripe's."""
        ...


class Finders(Protocol):
    """Everything a request can read."""

    @property
    def companies(self) -> Companies: ...
    @property
    def subscriptions(self) -> Subscriptions: ...
    @property
    def notices(self) -> Notices: ...
    @property
    def products(self) -> Products: ...
    @property
    def customers(self) -> Customers: ...
    @property
    def overrides(self) -> Overrides: ...
    @property
    def orders(self) -> Orders: ...
    @property
    def api_keys(self) -> ApiKeys: ...
    @property
    def webhooks(self) -> Webhooks: ...
    @property
    def events(self) -> Events: ...
    @property
    def records(self) -> Records: ...
    @property
    def seals(self) -> Seals: ...
    @property
    def logins(self) -> Logins: ...
    @property
    def users(self) -> Users: ...
    @property
    def sessions(self) -> Sessions: ...
    @property
    def factors(self) -> Factors: ...
    @property
    def members(self) -> Members: ...
    @property
    def invitations(self) -> Invitations: ...
    @property
    def contacts(self) -> Contacts: ...
    @property
    def inquiries(self) -> Inquiries: ...
    @property
    def platform(self) -> Platform: ...

    async def together(self, *reads: Read[Any]) -> tuple[Any, ...]:
        """The answers in order, for one round trip. The first refusal among them is raised."""
        ...
