"""What Distribu needs from outside, in its own words.

A method is here because a use case needs it. What its docstring promises is what the contract in
`tests/contracts` runs against every adapter.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Protocol, TypeVar

import msgspec

from distribu.application.agenda import Agenda as Agenda, Appointment as Appointment, Outcome as Outcome
from distribu.application.finders import (
    Finders as Finders,
    Login as Login,
    Member as Member,
    Page as Page,
    Read as Read,
)
from distribu.application.mailing import (
    Letter as Letter,
    Mail as Mail,
    Mailer as Mailer,
    MailNotSent as MailNotSent,
)
from distribu.application.notary import (
    Examined as Examined,
    Inspection as Inspection,
    Notary as Notary,
    Sealing as Sealing,
    SealingKey as SealingKey,
    Seals as Seals,
)
from distribu.application.payments import (
    Bought as Bought,
    DueNotice as DueNotice,
    Invoiced as Invoiced,
    Offer as Offer,
    PaymentNotice as PaymentNotice,
    Payments as Payments,
    PaymentsAway as PaymentsAway,
    PaymentsRefused as PaymentsRefused,
)
from distribu.domain.access import ActorKind, ContactGrant, KeyGrant, StaffGrant
from distribu.domain.audit import Person
from distribu.domain.entity import Entity, Event
from distribu.domain.errors import Bug
from distribu.domain.factors import Passkey
from distribu.domain.values import (
    CompanyId,
    CustomerId,
    DeliveryId,
    Secret,
    WebhookId,
)
from distribu.domain.webhooks import Attempt, DeliveryStatus

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

ANSWERS_KEPT: Final = timedelta(hours=24)
"""How long a request under an idempotency key is answered as the first one was."""

MAILS_KEPT: Final = timedelta(days=30)
"""How long it is known that a mail was sent, or could not be."""

DELIVERIES_KEPT: Final = timedelta(days=30)
"""Unless it is set: how long events and their deliveries are known."""

REPLAY_BATCH: Final = 500
"""Deliveries that are made due in one transaction."""

NUMBER_TO_COME: Final = "\x01"
"""Stands for an entity's number in texts written with it. No JSON text can hold it unescaped."""


# --- the store ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scope:
    """What a transaction can see: one company, and for a contact only its customer's part of it."""

    company_id: CompanyId
    customer_id: CustomerId | None = None


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


@dataclass(frozen=True, slots=True)
class NewMail:
    """A mail about to be written into the outbox; ``sealed`` is the token of its link, for the vault."""

    id: str
    at: datetime
    to: str
    letter: str
    sealed: str | None = None


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
        self,
        changes: Sequence[Change],
        records: Sequence[NewRecord],
        answer: StoredAnswer | None,
        mails: Sequence[NewMail] = (),
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

    async def staff_session(self, id: str) -> StaffGrant | None:
        """The session of a user, those that are over included."""
        ...

    async def store_session(self, company_id: CompanyId, id: str) -> ContactGrant | None:
        """The session of a contact at this store, those that are over included."""
        ...


@dataclass(frozen=True, slots=True)
class Parcel:
    """A claimed delivery with what it takes to make the next attempt; the secrets are sealed.

    ``previous`` is the position of the event before it that the webhook was subscribed to, None for the
    first. ``attempts`` were made, ``attempts_before`` of them before it was sent again. It is not ``wanted``
    when the webhook is not subscribed to such events any more.
    """

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
    previous: int | None
    payload: str
    attempts: int
    attempts_before: int
    wanted: bool


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """The order to send deliveries of a webhook again: one, or those made in ``since <= time < until``."""

    webhook_id: WebhookId
    delivery_id: DeliveryId | None
    since: datetime | None
    until: datetime | None
    statuses: tuple[DeliveryStatus, ...]


@dataclass(frozen=True, slots=True)
class MailParcel:
    """A claimed mail; ``attempts`` were made before."""

    company_id: CompanyId
    id: str
    to: str
    letter: str
    sealed: str | None
    attempts: int


class MailStatus(StrEnum):
    """How far a mail has come."""

    PENDING = "PENDING"
    SENT = "SENT"
    DEAD = "DEAD"


BACKLOG_MAX: Final = 10_000
"""What waits is counted up to here: beyond it, how much more there is changes nothing."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many wait (`BACKLOG_MAX` at most), and for how long the first of them has been due, in seconds."""

    count: int
    late_s: float


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is still to be done, of all companies: relay events, make deliveries and mails, seal records, and
    take into account what Stripe told us, unless that is given up."""

    events: Waiting
    deliveries: Waiting
    mails: Waiting
    records: Waiting
    notices: Waiting


class Queue(Protocol):
    """What the machine owns: what is on its way, claims, attempts, expired keys. Never entities.

    Of a company that is not open notices alone are claimed: the rest waits for it, if only for ever.
    """

    async def relay(self, *, limit: int, now: datetime) -> int:
        """Give committed events their position and make a delivery for each active, subscribed webhook.

        Positions of a company are gap-free and in an order that is right for each entity; an event
        committed late gets a late position and is never skipped. A `TEST` goes to its webhook alone. A
        `REPLAY` makes deliveries of before the order due now, `REPLAY_BATCH` at a time; those that are
        being tried are left to that, and those with `ATTEMPTS_MAX` attempts alone.

        Returns how many events were moved and deliveries were made due.
        """
        ...

    async def claim(
        self,
        *,
        limit: int,
        per_webhook: int,
        per_company: int,
        busy: Mapping[tuple[CompanyId, WebhookId], int],
        now: datetime,
        claim_s: float,
    ) -> Sequence[Parcel]:
        """Deliveries that are due, nobody else's for ``claim_s`` seconds.

        At most ``per_webhook`` of one webhook and ``per_company`` of one company, those counted in ``busy``
        included. Places go in turn to the companies that hold the fewest, and within one to the webhooks
        that do, so that nobody waits for another's backlog. Of a webhook that is switched off only a `TEST`.
        """
        ...

    async def finish(
        self, parcel: Parcel, attempt: Attempt, *, status: DeliveryStatus, next_attempt_at: datetime | None
    ) -> datetime | None:
        """Store the attempt and what comes of it, and release the claim.

        Returns, for one that failed, since when the webhook has done nothing but fail: never before it was
        last switched on or sent to another address.
        """
        ...

    async def claim_mails(self, *, limit: int, now: datetime, claim_s: float) -> Sequence[MailParcel]:
        """Mails that are due, the realm's always, nobody else's for ``claim_s`` seconds."""
        ...

    async def finish_mail(
        self, parcel: MailParcel, *, status: MailStatus, next_attempt_at: datetime | None, error: str
    ) -> None:
        """Store what came of an attempt and release the claim. What is sent or dead keeps no content."""
        ...

    async def reseal(self, anew: Callable[[str], str | None], *, after: str, limit: int) -> tuple[int, str]:
        """Have the tokens of waiting mails sealed anew: ``anew`` returns None for one to be left.

        Looks at ``limit`` mails with ids beyond ``after`` ("": all). Returns how many were changed, and the
        last id looked at: "" when there are no more.
        """
        ...

    async def seen(self, company_id: CompanyId, session_id: str, *, at: datetime, ip: str | None) -> None:
        """Remember when and from where a session was last used. Raises `Busy`, and does not wait long."""
        ...

    async def backlog(self, *, now: datetime) -> Backlog:
        """What is still to be done; what waits for a later attempt counts and is not late.

        Deliveries to a webhook that is switched off, and what is of a company that is not open, do not count.
        """
        ...

    async def trials(
        self, *, ends_by: datetime, untold: int | None = None, after: str, limit: int
    ) -> Sequence[CompanyId]:
        """Open companies on a trial that ends by then, or has, with ids beyond ``after`` ("": all), in order.

        One that is written as over is none. With ``untold`` only those whose OWNER was not told yet that it
        ends in so many days, or in fewer.
        """
        ...

    async def claim_notices(
        self, *, limit: int, now: datetime, waits: Sequence[timedelta]
    ) -> Sequence[DueNotice]:
        """What Stripe told us, was put off and is due, whatever the company's standing, longest due first.

        Each counts as tried once more, and is due again after the wait at the place of that number in
        ``waits``; after the last of them never.
        """
        ...

    async def purge(self, *, now: datetime) -> int:
        """Forget idempotency keys older than a day, that mails were sent after `MAILS_KEPT`, and events with
        their deliveries after the time that is set, but for those that are still being tried.

        Of everything a bounded part. Returns how many keys, mails and events: with none, nothing is left.
        """
        ...


# --- the rest of the world -------------------------------------------------------------------


class Clock(Protocol):
    def now(self) -> datetime:
        """UTC, whole milliseconds."""
        ...

    def elapsed(self) -> float:
        """Seconds since a moment that stays the same: never fewer than before, whatever is set."""
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
    """How a limit stands: ``remaining`` more may come now; at ``reset_at_s`` (Unix time), which is
    ``reset_in_s`` from now, all of them.

    ``retry_after_s`` is given when none may come now, this one allowed or not: after so many seconds one may.
    """

    allowed: bool
    limit: int
    remaining: int
    reset_at_s: int
    reset_in_s: int
    retry_after_s: int | None


class LimiterAway(Exception):
    """What counts cannot be reached."""


class RateLimiter(Protocol):
    @property
    def away(self) -> int:
        """How many were counted by this server alone, since what counts for all of them was away."""
        ...

    async def take(self, limit: Limit) -> Standing:
        """Count one, unless the limit is reached: what is not allowed does not count.

        The window slides: no span of ``window_s`` ever holds more than ``most`` that were allowed. Raises
        `LimiterAway`.
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

    def anew(self, sealed: str) -> str | None:
        """The same sealed under the newest key; None when it is already.

        Raises `Bug` as `open` does.
        """
        ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a password is ``right``; it is ``stale`` when it is right, but to be hashed anew."""

    right: bool
    stale: bool


class Hasher(Protocol):
    """Passwords, as `canonical_password` writes them. No error of it quotes one."""

    @property
    def under_way(self) -> int:
        """How many passwords are hashed or tried now, or wait for it."""
        ...

    @property
    def turned_away(self) -> int:
        """How many were answered `Busy`."""
        ...

    async def hash(self, password: Secret) -> str:
        """At most 255 ASCII characters that tell nothing of the password, not even that two are equal.

        Raises `Busy` at once when too many are waiting already.
        """
        ...

    async def verify(self, password: Secret, encoded: str | None) -> Verdict:
        """Try a password against a hash of ours, or a bcrypt hash made elsewhere, which is stale.

        Without one (None: nobody has this address), or with a text that is none, it is never right and the
        work is the same. Raises `Busy` at once when too many are waiting already.
        """
        ...

    def common(self, password: Secret) -> bool:
        """Whether it is among the passwords that are tried first, whatever its case."""
        ...


class Authenticators(Protocol):
    """Checks what apps and passkeys answer. It keeps nothing, and asks nobody."""

    def app_link(self, secret: Secret, account: str) -> str:
        """What an app reads from a picture: ``otpauth://totp/...``."""
        ...

    def app_step(self, secret: Secret, code: str, *, at: datetime) -> int | None:
        """The step of 30 seconds whose code this is: the present one, or the last or next; else None."""
        ...

    def registration(
        self, *, user_id: str, account: str, known: Sequence[str], challenge: bytes
    ) -> dict[str, Any]:
        """What `navigator.credentials.create` is asked (WebAuthn, section 5.4), for none of the known."""
        ...

    def registered(self, answer: str, *, challenges: Sequence[bytes]) -> tuple[str, bytes, int]:
        """Id, public key and count of a new passkey, from the JSON of the browser's answer.

        It was made here, for this site, for one of the challenges. Raises `Refused` (wrong_code).
        """
        ...

    def assertion(self, *, known: Sequence[str], challenge: bytes) -> dict[str, Any]:
        """What `navigator.credentials.get` is asked (WebAuthn, section 5.5), of one of the known."""
        ...

    def asserted(self, answer: str) -> str | None:
        """Which passkey an answer says it is of; nothing is proven by that."""
        ...

    def proven(self, answer: str, passkey: Passkey, *, challenges: Sequence[bytes]) -> int:
        """The count of a passkey that has signed one of the challenges for this site.

        Raises `Refused` (wrong_code), also for a count that did not grow: somebody has a copy of the key.
        """
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
