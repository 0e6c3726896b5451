"""What Distribu needs from outside, in its own words.

A method is here because a use case needs it. What its docstring promises is what the contract in
`tests/contracts` runs against every adapter.
"""

from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, Protocol, TypeVar

from distribu.domain.access import ActorKind, ApiKey, KeyGrant
from distribu.domain.audit import Person, Record
from distribu.domain.catalog import Product, StockMovement
from distribu.domain.customers import Customer, CustomerStatus, PriceOverride
from distribu.domain.entity import Entity, Event
from distribu.domain.errors import Bug
from distribu.domain.ordering import Order, OrderStatus
from distribu.domain.team import Company
from distribu.domain.values import (
    ApiKeyId,
    CompanyId,
    CustomerId,
    DeliveryId,
    Money,
    OrderId,
    ProductId,
    Secret,
    WebhookId,
)
from distribu.domain.webhooks import Attempt, Delivery, DeliveryStatus, Webhook

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

NUMBER_TO_COME: Final = "\x01"
"""Stands for an entity's number in texts written with it. No JSON text can hold it unescaped."""


# --- reading ---------------------------------------------------------------------------------


class Read(Protocol[T_co]):
    """One question to the store: await it alone, or send it along with others in one round trip."""

    def __await__(self) -> Generator[Any, Any, T_co]: ...


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Newest first. ``next_cursor`` is the id of the last item, or None when there is no more."""

    items: tuple[T, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Scope:
    """What a transaction can see: one company, and for a contact only its customer's part of it."""

    company_id: CompanyId
    customer_id: CustomerId | None = None


class Companies(Protocol):
    def current(self, *, lock: bool = False) -> Read[Company]:
        """The company of this transaction; only an edit locks it. Raises `NotFound`."""
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
    ) -> Read[Page[Record]]:
        """The audit log; ``since <= at < until``."""
        ...


class Finders(Protocol):
    """Everything a request can read."""

    @property
    def companies(self) -> Companies: ...
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
    def records(self) -> Records: ...

    async def together(self, *reads: Read[Any]) -> tuple[Any, ...]:
        """The answers in order, for one round trip. The first refusal among them is raised."""
        ...


# --- writing ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Change:
    """An entity as it was read (None: it is new) and as it is to be."""

    before: Entity | None
    after: Entity


@dataclass(frozen=True, slots=True)
class Message:
    """One event for the world: its name and its payload, rendered and frozen with the change."""

    id: str
    name: str
    payload: str


@dataclass(frozen=True, slots=True)
class NewRecord:
    """A row of the audit log about to be written; ``body`` is its canonical text.

    A `StockMoved` or `PaymentRecorded` among the events is the movement or payment of the same id.
    """

    id: str
    event: Event
    at: datetime
    actor_kind: ActorKind
    actor_id: str
    action: str
    entity_type: str
    entity_id: str
    person: Person
    body: str
    messages: tuple[Message, ...] = ()


def everything_told(changes: Sequence[Change], records: Sequence[NewRecord]) -> None:
    """Raises `Bug` unless every event of the changes has its record: no store writes one without."""
    told = {id(record.event) for record in records}
    if any(id(event) not in told for change in changes for event in change.after.events):
        raise Bug("an event has no record")


@dataclass(frozen=True, slots=True)
class OnceKey:
    """An idempotency key, and whose it is."""

    actor: str
    key: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """What the first request under a key was answered; ``sealed`` when a secret is in it."""

    fingerprint: bytes
    body: str
    sealed: bool


class AlreadyAnswered(Exception):
    """This key has its answer already; nothing more is to be done."""

    def __init__(self, answer: StoredAnswer) -> None:
        self.answer = answer
        super().__init__("already answered")


class Again(Exception):
    """The store gave up on this transaction through nobody's fault (a deadlock, say): run it again."""


class Tx(Finders, Protocol):
    """One transaction, bound to one scope."""

    def loaded(self, entity: Entity) -> Entity | None:
        """This entity as this transaction read and locked it; None when it did not."""
        ...

    async def write(
        self, changes: Sequence[Change], records: Sequence[NewRecord], answer: StoredAnswer | None
    ) -> int | None:
        """Write all of it and commit, or nothing. Raises `Bug` when an event has no record.

        Returns the number given to the one new `Numbered` entity among the changes, filled in for
        `NUMBER_TO_COME` wherever it stands. A broken constraint is a `Refused`, by its name. Raises
        `Again`, `Busy`, `Conflict` (stale_version), and `InDoubt`.
        """
        ...


class Store(Protocol):
    """Everything companies own."""

    def begin(
        self, scope: Scope, *, readonly: bool = False, once: OnceKey | None = None
    ) -> AbstractAsyncContextManager[Tx]:
        """A transaction that sees ``scope`` and nothing else; left without `write`, it leaves no trace.

        With ``once``, the first thing awaited raises `AlreadyAnswered` when the key has an answer not
        older than a day. A twin that is still running is waited for; after 5 s `Conflict`
        (idempotency_key_running). Waits for locks and connections are bounded: `Busy`.
        """
        ...

    async def ready(self) -> None:
        """Raises when the store cannot be used now."""
        ...


class Directory(Protocol):
    """Look-ups made before a company is known, over tables that hold no business data."""

    async def key(self, digest: bytes) -> KeyGrant | None:
        """The API key with this SHA-256, revoked and expired ones included."""
        ...

    async def company(self, slug: str) -> CompanyId | None:
        """The company with this slug."""
        ...


@dataclass(frozen=True, slots=True)
class Parcel:
    """A claimed delivery with what it takes to make the next attempt; the secrets are sealed."""

    company_id: CompanyId
    delivery_id: DeliveryId
    webhook_id: WebhookId
    url: str
    secret: str
    old_secret: str | None
    grace_expires_at: datetime | None
    event_id: str
    event: str
    occurred_at: datetime
    position: int
    payload: str
    attempts: int


class Queue(Protocol):
    """What the machine owns: events on their way, claims, attempts, expired keys. Never entities."""

    async def relay(self, *, limit: int, now: datetime) -> int:
        """Give committed events their position and make a delivery for each active, subscribed webhook.

        Returns how many events were moved. Positions of a company are gap-free and in an order that
        is right for each entity; an event committed late gets a late position and is never skipped.
        """
        ...

    async def claim(
        self, *, limit: int, per_webhook: int, busy: Mapping[WebhookId, int], now: datetime, claim_s: float
    ) -> Sequence[Parcel]:
        """Deliveries that are due, nobody else's for ``claim_s`` seconds.

        At most ``per_webhook`` of one webhook, those counted in ``busy`` included.
        """
        ...

    async def finish(
        self, parcel: Parcel, attempt: Attempt, *, status: DeliveryStatus, next_attempt_at: datetime | None
    ) -> None:
        """Store the attempt and what comes of it, and release the claim."""
        ...

    async def purge(self, *, now: datetime) -> int:
        """Forget idempotency keys older than a day. Returns how many."""
        ...


# --- the rest of the world -------------------------------------------------------------------


class Clock(Protocol):
    def now(self) -> datetime:
        """UTC, whole milliseconds."""
        ...


class Entropy(Protocol):
    def uuid(self) -> str:
        """A UUIDv7 (RFC 9562) in lower case; a later one of this process sorts later."""
        ...

    def bytes(self, size: int) -> bytes:
        """Random bytes fit for keys."""
        ...

    def fraction(self) -> float:
        """A random number in [0, 1), for jitter."""
        ...


@dataclass(frozen=True, slots=True)
class Limit:
    """At most ``most`` (1 or more) of what ``key`` names in any ``window_s`` seconds."""

    key: str
    most: int
    window_s: float


@dataclass(frozen=True, slots=True)
class Standing:
    """How a limit stands: ``remaining`` more may come now; at ``reset_at_s`` (Unix time) all of them.

    ``retry_after_s`` is given when this one was not allowed: after so many seconds one will be.
    """

    allowed: bool
    limit: int
    remaining: int
    reset_at_s: int
    retry_after_s: int | None


class RateLimiter(Protocol):
    async def take(self, limit: Limit) -> Standing:
        """Count one, unless the limit is reached: what is not allowed does not count.

        The window slides: no span of ``window_s`` ever holds more than ``most`` that were allowed.
        """
        ...


class Vault(Protocol):
    """Keeps secrets that must be used again: ciphertext in the store, the keys outside of it."""

    def seal(self, secret: Secret) -> str:
        """Ciphertext that tells nothing of the secret, not even that two are equal."""
        ...

    def open(self, sealed: str) -> Secret:
        """The secret again. Raises `Bug` for what was not sealed under a key of ours, or was altered."""
        ...


@dataclass(frozen=True, slots=True)
class Reply:
    """What a receiver answered, and how long it took: ``status`` None and an ``error`` when it did not."""

    status: int | None
    headers: dict[str, str]
    body: str
    error: str
    duration_ms: int = 0


class Hooks(Protocol):
    """HTTP to other people's machines."""

    def admit(self, url: str) -> None:
        """Raises `Refused` (webhook_url_refused) for a URL we would not send to."""
        ...

    async def post(self, url: str, *, headers: Mapping[str, str], body: bytes) -> Reply:
        """One POST within ten seconds in all, following no redirect.

        Never raises for what the other side does.
        """
        ...
