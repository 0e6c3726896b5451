"""The store, the directory and the queue in memory, keeping every promise the real ones keep."""

import asyncio
from collections import defaultdict
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

import msgspec

from distribu.adapters.memory.billing import Subscriptions
from distribu.adapters.memory.notices import Notices
from distribu.adapters.memory.people import (
    Contacts,
    Factors,
    Inquiries,
    Invitations,
    Logins,
    Members,
    Sessions,
    Users,
    check_person,
    live_until,
    seats_of,
)
from distribu.adapters.memory.platform import Platform
from distribu.adapters.memory.reading import Finder, MemoryRead, page
from distribu.adapters.memory.seals import Seals, Text, sealed_of
from distribu.application.finders import FEED_SCAN, Feed, Happened, feed_after
from distribu.application.ports import (
    ANSWERS_KEPT,
    BACKLOG_MAX,
    DELIVERIES_KEPT,
    MAILS_KEPT,
    NUMBER_TO_COME,
    REPLAY_BATCH,
    AlreadyAnswered,
    Backlog,
    Change,
    Clock,
    DueNotice,
    MailParcel,
    MailStatus,
    Message,
    NewMail,
    NewRecord,
    OnceKey,
    Page,
    Parcel,
    Replay,
    Scope,
    StoredAnswer,
    Waiting,
    everything_told,
)
from distribu.domain.access import VISITOR, ActorKind, ApiKey, ContactGrant, KeyGrant, StaffGrant, Standing
from distribu.domain.accounts import REALM, Credentials, Session, User
from distribu.domain.audit import Record, holds
from distribu.domain.billing import Counted, Subscription, SubscriptionStatus, month_of
from distribu.domain.catalog import Product, StockMoved, StockMovement
from distribu.domain.contacts import Contact
from distribu.domain.customers import Customer, CustomerStatus, PriceOverride
from distribu.domain.entity import Entity, Numbered
from distribu.domain.errors import Bug, Busy, Conflict, NotFound, Refused
from distribu.domain.notices import Notice, NoticeStatus
from distribu.domain.ordering import FIRST_NUMBER, Order, OrderStatus, Payment, PaymentRecorded
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
    folded,
    sku_key,
)
from distribu.domain.webhooks import ATTEMPTS_MAX, REPLAY, TEST, Attempt, Delivery, DeliveryStatus, Webhook

T = TypeVar("T")
E = TypeVar("E", bound=Entity)

WAIT_S: Final = 5.0


@dataclass(slots=True)
class _Sent:
    """A delivery with the machine's part of it."""

    delivery: Delivery
    parcel: Parcel
    claimed_until: datetime | None = None
    replayed_at: datetime | None = None


@dataclass(slots=True)
class _Feed:
    """The events of a company by position, with when they were placed; ``purged`` of them are gone."""

    events: list[tuple[Happened, datetime]] = field(default_factory=list)
    purged: int = 0

    @property
    def head(self) -> int:
        return self.purged + len(self.events)


@dataclass(slots=True)
class _Mark:
    """What the machine knows of a webhook."""

    position: int | None = None
    failing_since: datetime | None = None


@dataclass(slots=True)
class _Mailed:
    """A mail with the machine's part of it."""

    parcel: MailParcel
    created_at: datetime
    due: datetime | None
    status: MailStatus = MailStatus.PENDING
    claimed_until: datetime | None = None
    error: str = ""


@dataclass(slots=True)
class _Shelf:
    """Everything of one company. A transaction changes a copy, and the copy takes its place."""

    entities: dict[type[Entity], dict[str, Any]] = field(default_factory=lambda: defaultdict(dict))
    movements: list[StockMovement] = field(default_factory=list)
    payments: list[Payment] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    texts: dict[str, Text] = field(default_factory=dict)
    outbox: list[tuple[Message, datetime]] = field(default_factory=list)
    answers: dict[tuple[str, str], tuple[StoredAnswer, datetime]] = field(default_factory=dict)
    mails: list["_Mailed"] = field(default_factory=list)
    last_number: int = FIRST_NUMBER - 1
    made: tuple[int, int] = (0, 0)

    def copy(self) -> "_Shelf":
        return _Shelf(
            defaultdict(dict, {kind: dict(rows) for kind, rows in self.entities.items()}),
            list(self.movements),
            list(self.payments),
            list(self.records),
            dict(self.texts),
            list(self.outbox),
            dict(self.answers),
            list(self.mails),
            self.last_number,
            self.made,
        )

    def made_in(self, month: int) -> int:
        """How many orders were made in a month, if none was in a later one; else in that one."""
        return self.made[1] if self.made[0] >= month else 0

    def count(self, made: Entity) -> None:
        """Count an order in its month, as far as the subscription allows it."""
        month = month_of(made.created_at)
        already = self.made_in(month)
        for it in self.entities[Subscription].values():
            it.admit(Counted.ORDERS, already, at=made.created_at)
        self.made = (max(month, self.made[0]), already + 1)

    def erase(self, label: str, known: Iterable[str]) -> set[str]:
        """Take a person out of the log, with those accounts. Returns of which entries."""
        people = (ActorKind.USER, ActorKind.CUSTOMER)
        acted = {it.actor_id for it in self.records if it.label == label and it.actor_kind in people} - {""}
        accounts = acted.union(known)
        sessions = self.entities[Session].values()
        theirs = accounts | {it.id for it in sessions if it.holder_id in accounts}
        salts = {
            self.texts[it.id].salt
            for it in self.records
            if it.label == label or (it.label == VISITOR and it.entity_id in theirs)
        }
        gone = {it.id for it in self.records if it.label is not None and self.texts[it.id].salt in salts}
        self.records = [replace(it, label=None, ip=None) if it.id in gone else it for it in self.records]
        return gone


class MemoryStore:
    """Implements the ports Store, Directory and Queue."""

    def __init__(self, clock: Clock, *, wait_s: float = WAIT_S, kept: timedelta = DELIVERIES_KEPT) -> None:
        self.clock = clock
        self.wait_s = wait_s
        self.kept = kept
        self.shelves: dict[CompanyId, _Shelf] = defaultdict(_Shelf)
        self.sent: dict[CompanyId, dict[DeliveryId, _Sent]] = defaultdict(dict)
        self.feeds: dict[CompanyId, _Feed] = defaultdict(_Feed)
        self.marks: dict[WebhookId, _Mark] = defaultdict(_Mark)
        self.seals = sealed_of()
        self.slugs: dict[str, CompanyId] = {}
        self.locks: dict[object, asyncio.Lock] = defaultdict(asyncio.Lock)

    @asynccontextmanager
    async def begin(
        self, scope: Scope, *, readonly: bool = False, once: OnceKey | None = None
    ) -> AsyncIterator["MemoryTx"]:
        tx = MemoryTx(self, scope, readonly, once)
        try:
            yield tx
        finally:
            tx.release()

    async def ready(self) -> None:
        return None

    # Directory

    async def key(self, digest: bytes) -> KeyGrant | None:
        for shelf in self.shelves.values():
            for key in shelf.entities[ApiKey].values():
                if key.digest == digest:
                    return KeyGrant(
                        company_id=key.company_id,
                        key_id=key.id,
                        name=key.name,
                        scopes=frozenset(key.scopes),
                        expires_at=key.expires_at,
                        revoked=key.revoked_at is not None,
                        standing=shelf.entities[Company][key.company_id].standing,
                        api_limit=shelf.entities[Company][key.company_id].api_limit,
                    )
        return None

    async def company(self, slug: str) -> CompanyId | None:
        return self.slugs.get(slug)

    async def staff_session(self, id: str) -> StaffGrant | None:
        realm = self.shelves[REALM].entities
        session = realm[Session].get(id)
        if session is None:
            return None
        user, credentials = realm[User][session.holder_id], realm[Credentials][session.holder_id]
        seats = seats_of(self.everywhere, user.id)
        return StaffGrant(
            session_id=session.id,
            user_id=user.id,
            email=user.email,
            live_until=live_until(session, credentials),
            seen_at=session.seen_at,
            is_super_admin=user.is_super_admin,
            factor=session.factor,
            seat=next((seat for seat in seats if seat.company_id == session.current), None),
        )

    async def store_session(self, company_id: CompanyId, id: str) -> ContactGrant | None:
        rows = self.shelves[company_id].entities
        session = rows[Session].get(id)
        contact = rows[Contact].get(session.holder_id) if session is not None else None
        if session is None or contact is None:
            return None
        customer = rows[Customer][contact.customer_id]
        return ContactGrant(
            session_id=session.id,
            company_id=company_id,
            customer_id=contact.customer_id,
            contact_id=contact.id,
            email=contact.email,
            role=contact.role,
            live_until=live_until(session, rows[Credentials][contact.id]),
            seen_at=session.seen_at,
            admitted=contact.is_active and customer.status is CustomerStatus.ACTIVE,
            standing=rows[Company][company_id].standing,
        )

    @property
    def everywhere(self) -> dict[CompanyId, dict[type[Entity], dict[str, Any]]]:
        """Every company's entities."""
        return {id: shelf.entities for id, shelf in self.shelves.items()}

    async def seen(self, company_id: CompanyId, session_id: str, *, at: datetime, ip: str | None) -> None:
        rows = self.shelves[company_id].entities[Session]
        if session_id in rows:
            rows[session_id] = replace(rows[session_id], seen_at=at, ip=ip)

    # Queue

    async def relay(self, *, limit: int, now: datetime) -> int:
        moved = replayed = 0
        share = -(-limit // max(1, sum(bool(shelf.outbox) for shelf in self.shelves.values())))
        for company_id, shelf in self.shelves.items():
            most = min(limit, moved + share)
            orders = [one for one in shelf.outbox if one[0].name == REPLAY]
            waiting = [one for one in shelf.outbox if one[0].name != REPLAY]
            while waiting and moved < most:
                self._place(company_id, *waiting.pop(0), now)
                moved += 1
            if orders:
                due = self._replay(company_id, *orders[0], now)
                replayed += due
                if due < REPLAY_BATCH:
                    del orders[0]
            shelf.outbox = [*orders, *waiting]
        return moved + replayed

    def _place(self, company_id: CompanyId, message: Message, at: datetime, now: datetime) -> None:
        feed = self.feeds[company_id]
        happened = Happened(message.id, message.name, at, feed.head + 1, message.payload)
        feed.events.append((happened, now))
        of = msgspec.json.decode(message.payload).get("id") if message.name == TEST else None
        for webhook in self.shelves[company_id].entities[Webhook].values():
            wanted = webhook.id == of if of else message.name in webhook.subscribed
            if wanted and webhook.removed_at is None:
                mark = self.marks[webhook.id]
                if webhook.is_active or of:
                    self._post(webhook, happened, mark.position, now)
                mark.position = happened.position

    def _post(self, webhook: Webhook, event: Happened, previous: int | None, now: datetime) -> None:
        # Only an id that sorts and is unique is needed; the real store's is a UUID as well.
        id = DeliveryId(f"{event.id[:-12]}{len(self.sent[webhook.company_id]):012x}")
        delivery = Delivery(
            id=id,
            webhook_id=webhook.id,
            event_id=event.id,
            event=event.name,
            position=event.position,
            status=DeliveryStatus.PENDING,
            next_attempt_at=now,
            created_at=now,
        )
        parcel = Parcel(
            company_id=webhook.company_id,
            delivery_id=id,
            webhook_id=webhook.id,
            url=webhook.url,
            secret=webhook.secret,
            old_secret=webhook.old_secret,
            grace_expires_at=webhook.grace_expires_at,
            event_id=event.id,
            event=event.name,
            occurred_at=event.occurred_at,
            position=event.position,
            previous=previous,
            payload=event.payload,
            attempts=0,
            attempts_before=0,
            wanted=True,
        )
        self.sent[webhook.company_id][id] = _Sent(delivery, parcel)

    def _replay(self, company_id: CompanyId, message: Message, ordered: datetime, now: datetime) -> int:
        order = msgspec.json.decode(message.payload, type=Replay)
        due = 0
        for sent in self.sent[company_id].values():
            it = sent.delivery
            if (
                it.webhook_id == order.webhook_id
                and order.delivery_id in (None, it.id)
                and it.status in order.statuses
                and it.created_at < ordered
                and (order.since is None or it.created_at >= order.since)
                and (order.until is None or it.created_at < order.until)
                and (sent.replayed_at is None or sent.replayed_at < ordered)
                and (sent.claimed_until is None or sent.claimed_until <= now)
                and len(it.attempts) < ATTEMPTS_MAX
                and due < REPLAY_BATCH
            ):
                due += 1
                sent.replayed_at, sent.claimed_until = ordered, None
                sent.delivery = replace(it, status=DeliveryStatus.PENDING, next_attempt_at=now)
                sent.parcel = replace(sent.parcel, attempts_before=len(it.attempts))
        return due

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
        held = defaultdict(int, busy)
        turns: list[tuple[int, _Sent]] = []
        for company_id in filter(self._is_open, self.sent):
            places: list[tuple[int, _Sent]] = []
            for sent in self._due(company_id, now):
                key = (company_id, sent.parcel.webhook_id)
                held[key] += 1
                if held[key] <= per_webhook:
                    places.append((held[key], sent))
            places.sort(key=lambda one: (one[0], *_age(one[1])))
            first = sum(count for (company, _), count in busy.items() if company == company_id) + 1
            turns += enumerate((sent for _, sent in places[: max(0, per_company - first + 1)]), first)
        turns.sort(key=lambda one: (one[0], *_age(one[1])))
        parcels: list[Parcel] = []
        for _, sent in turns[:limit]:
            webhook = self.shelves[sent.parcel.company_id].entities[Webhook][sent.parcel.webhook_id]
            sent.claimed_until = now + timedelta(seconds=claim_s)
            sent.parcel = replace(
                sent.parcel,
                url=webhook.url,
                secret=webhook.secret,
                old_secret=webhook.old_secret,
                grace_expires_at=webhook.grace_expires_at,
                attempts=len(sent.delivery.attempts),
                wanted=sent.parcel.event in (*webhook.subscribed, TEST),
            )
            parcels.append(sent.parcel)
        return sorted(parcels, key=lambda parcel: parcel.position)

    def _is_open(self, company_id: CompanyId) -> bool:
        """Whether anything is sent for it; the realm, which is no company, is always."""
        company = self.shelves[company_id].entities[Company].get(company_id)
        return company is None or company.standing is Standing.OPEN

    def _due(self, company_id: CompanyId, now: datetime) -> list[_Sent]:
        webhooks = self.shelves[company_id].entities[Webhook]
        return sorted(
            (
                sent
                for sent in self.sent[company_id].values()
                if sent.delivery.status is DeliveryStatus.PENDING
                and _age(sent)[0] <= now
                and (sent.claimed_until is None or sent.claimed_until <= now)
                and webhooks[sent.parcel.webhook_id].removed_at is None
                and (webhooks[sent.parcel.webhook_id].is_active or sent.parcel.event == TEST)
            ),
            key=_age,
        )

    async def finish(
        self, parcel: Parcel, attempt: Attempt, *, status: DeliveryStatus, next_attempt_at: datetime | None
    ) -> datetime | None:
        sent = self.sent[parcel.company_id].get(parcel.delivery_id)
        if sent is None or any(made.number == attempt.number for made in sent.delivery.attempts):
            return None
        sent.claimed_until = None
        sent.delivery = replace(
            sent.delivery,
            status=status,
            next_attempt_at=next_attempt_at,
            attempt_count=attempt.number,
            last_status=attempt.status,
            attempts=(*sent.delivery.attempts, attempt),
        )
        mark = self.marks[parcel.webhook_id]
        if attempt.succeeded:
            mark.failing_since = None
            return None
        mark.failing_since = mark.failing_since or attempt.at
        webhook: Webhook = self.shelves[parcel.company_id].entities[Webhook][parcel.webhook_id]
        return max(mark.failing_since, webhook.on_since)

    async def claim_mails(self, *, limit: int, now: datetime, claim_s: float) -> Sequence[MailParcel]:
        due = [
            mail
            for company_id in filter(self._is_open, [*self.shelves])
            for mail in self.shelves[company_id].mails
            if mail.due is not None and mail.due <= now
            if mail.claimed_until is None or mail.claimed_until <= now
        ]
        due.sort(key=lambda mail: (mail.due, mail.parcel.id))
        for mail in due[:limit]:
            mail.claimed_until = now + timedelta(seconds=claim_s)
        return sorted((mail.parcel for mail in due[:limit]), key=lambda parcel: parcel.id)

    async def finish_mail(
        self, parcel: MailParcel, *, status: MailStatus, next_attempt_at: datetime | None, error: str
    ) -> None:
        for mail in self.shelves[parcel.company_id].mails:
            if mail.parcel.id == parcel.id and mail.status is MailStatus.PENDING:
                mail.status, mail.due, mail.claimed_until, mail.error = status, next_attempt_at, None, error
                mail.parcel = replace(mail.parcel, attempts=mail.parcel.attempts + 1)
                if status is not MailStatus.PENDING:
                    mail.parcel = replace(mail.parcel, to="", letter="", sealed=None)

    async def backlog(self, *, now: datetime) -> Backlog:
        events = [at for shelf in self.shelves.values() for _, at in shelf.outbox]
        deliveries = [
            one.delivery.next_attempt_at
            for company_id in filter(self._is_open, self.sent)
            for one in self.sent[company_id].values()
            if one.delivery.status is DeliveryStatus.PENDING
            if self.shelves[company_id].entities[Webhook][one.parcel.webhook_id].is_active
        ]
        mails = [
            mail.due
            for company_id in filter(self._is_open, [*self.shelves])
            for mail in self.shelves[company_id].mails
            if mail.due is not None
        ]
        records = [
            record.at
            for company_id, shelf in self.shelves.items()
            for record in shelf.records
            if record.id not in self.seals[company_id].rows
        ]
        notices = [due_at for due_at, _ in self._put_off()]
        return Backlog(*(_waiting(due, now) for due in (events, deliveries, mails, records, notices)))

    async def trials(
        self, *, ends_by: datetime, untold: int | None = None, after: str, limit: int
    ) -> Sequence[CompanyId]:
        found = (
            company_id
            for company_id, shelf in self.shelves.items()
            for it in shelf.entities[Subscription].values()
            if it.status is SubscriptionStatus.TRIALING
            and it.trial_ends_at is not None
            and it.trial_ends_at <= ends_by
            and (untold is None or it.told is None or it.told > untold)
            and company_id > after
            and self._is_open(company_id)
        )
        return sorted(found)[:limit]

    def _put_off(self) -> list[tuple[datetime, Notice]]:
        """What Stripe told of whomever and is still to be tried, and when."""
        return [
            (it.due_at, it)
            for shelf in self.shelves.values()
            for it in shelf.entities[Notice].values()
            if it.status in (NoticeStatus.WAITING, NoticeStatus.FAILED) and it.due_at is not None
        ]

    async def claim_notices(
        self, *, limit: int, now: datetime, waits: Sequence[timedelta]
    ) -> Sequence[DueNotice]:
        due = [(due_at, it.id, it) for due_at, it in self._put_off() if due_at <= now]
        claimed = []
        for _, _, it in sorted(due)[:limit]:
            following = waits[it.tries + 1] if it.tries + 1 < len(waits) else None
            due_at = None if following is None else now + following
            row = replace(it, tries=it.tries + 1, due_at=due_at)
            self.shelves[it.company_id].entities[Notice][it.id] = row
            claimed.append(DueNotice(it.company_id, it.id, due_at is None))
        return claimed

    async def purge(self, *, now: datetime) -> int:
        gone = 0
        for shelf in self.shelves.values():
            old = [key for key, (_, at) in shelf.answers.items() if at <= now - ANSWERS_KEPT]
            gone += len(old)
            for key in old:
                del shelf.answers[key]
            kept = [
                mail
                for mail in shelf.mails
                if mail.status is MailStatus.PENDING or mail.created_at > now - MAILS_KEPT
            ]
            gone += len(shelf.mails) - len(kept)
            shelf.mails = kept
        for company_id, sent in self.sent.items():
            webhooks = self.shelves[company_id].entities[Webhook]
            for one in sent.values():
                waits = one.delivery.status is DeliveryStatus.PENDING
                if waits and webhooks[one.delivery.webhook_id].removed_at is not None:
                    one.delivery = replace(one.delivery, status=DeliveryStatus.DEAD, next_attempt_at=None)
                    gone += 1
        return gone + sum(self._purge(company_id, now - self.kept) for company_id in [*self.feeds])

    def _purge(self, company_id: CompanyId, before: datetime) -> int:
        feed, sent = self.feeds[company_id], self.sent[company_id]
        webhooks = self.shelves[company_id].entities[Webhook]
        tried = {
            one.delivery.position
            for one in sent.values()
            if one.delivery.status is DeliveryStatus.PENDING and webhooks[one.delivery.webhook_id].is_active
            if self._is_open(company_id)
        }
        gone = 0
        while feed.events and feed.events[0][1] <= before and feed.purged + 1 not in tried:
            del feed.events[0]
            feed.purged += 1
            gone += 1
        for id in [id for id, one in sent.items() if one.delivery.position <= feed.purged]:
            del sent[id]
        return gone

    async def reseal(self, anew: Callable[[str], str | None], *, after: str, limit: int) -> tuple[int, str]:
        waiting = [
            mail
            for shelf in self.shelves.values()
            for mail in shelf.mails
            if mail.status is MailStatus.PENDING and mail.parcel.sealed is not None and mail.parcel.id > after
        ]
        waiting.sort(key=lambda mail: mail.parcel.id)
        changed = 0
        for mail in waiting[:limit]:
            if (again := anew(mail.parcel.sealed or "")) is not None:
                mail.parcel = replace(mail.parcel, sealed=again)
                changed += 1
        return changed, waiting[limit - 1].parcel.id if len(waiting) >= limit else ""


def _age(sent: _Sent) -> tuple[datetime, str]:
    """By which those that are due are in line."""
    return sent.delivery.next_attempt_at or sent.delivery.created_at, sent.delivery.id


def _waiting(due: Sequence[datetime | None], now: datetime) -> Waiting:
    first = min((at for at in due if at is not None), default=now)
    return Waiting(min(len(due), BACKLOG_MAX), max(0.0, (now - first).total_seconds()))


class MemoryTx:
    """One transaction over a company's shelf; commands of one company take turns."""

    def __init__(self, store: MemoryStore, scope: Scope, readonly: bool, once: OnceKey | None) -> None:
        self.store = store
        self.scope = scope
        self.readonly = readonly
        self.once = once
        self.held: list[asyncio.Lock] = []
        self.seen: dict[tuple[type[Entity], str], Entity] = {}
        self.entered = False
        self.companies = _Companies(self)
        self.subscriptions = Subscriptions(self)
        self.notices = Notices(self)
        self.products = _Products(self)
        self.customers = _Customers(self)
        self.overrides = _Overrides(self)
        self.orders = _Orders(self)
        self.api_keys = _ApiKeys(self)
        self.webhooks = _Webhooks(self)
        self.events = _Events(self)
        self.records = _Records(self)
        self.seals = Seals(self)
        self.logins = Logins(self)
        self.users = Users(self)
        self.sessions = Sessions(self)
        self.factors = Factors(self)
        self.members = Members(self)
        self.invitations = Invitations(self)
        self.contacts = Contacts(self)
        self.inquiries = Inquiries(self)
        self.platform = Platform(self)

    # how it begins and ends

    async def enter(self) -> None:
        if self.entered:
            return
        self.entered = True
        if self.once is not None:
            twin = (self.scope.company_id, self.once.actor, self.once.key)
            await self._hold(twin, Conflict("idempotency_key_running", retry_after_s=1))
        if not self.readonly:
            await self._hold(self.scope.company_id, Busy("busy", retry_after_s=1))
        if self.once is not None:
            stored = self.shelf.answers.get((self.once.actor, self.once.key))
            if stored is not None and stored[1] > self.store.clock.now() - ANSWERS_KEPT:
                raise AlreadyAnswered(stored[0])

    async def _hold(self, what: object, refusal: Refused) -> None:
        lock = self.store.locks[what]
        try:
            async with asyncio.timeout(self.store.wait_s):
                await lock.acquire()
        except TimeoutError:
            raise refusal from None
        self.held.append(lock)

    def release(self) -> None:
        for lock in self.held:
            lock.release()
        self.held.clear()

    # reading

    @property
    def everywhere(self) -> dict[CompanyId, dict[type[Entity], dict[str, Any]]]:
        return self.store.everywhere

    @property
    def shelf(self) -> _Shelf:
        return self.store.shelves[self.scope.company_id]

    async def one(self, read: MemoryRead[T]) -> T:
        await self.enter()
        return read.answer()

    async def together(self, *reads: Any) -> tuple[Any, ...]:
        await self.enter()
        return tuple([read.answer() for read in reads])

    def mine(self, kind: type[E]) -> list[E]:
        """What this scope sees of a kind of entity, newest first."""
        rows: Iterable[E] = self.shelf.entities[kind].values()
        return sorted((row for row in rows if self.visible(row)), key=lambda row: row.id, reverse=True)

    def visible(self, entity: Entity) -> bool:
        if self.scope.customer_id is None or isinstance(entity, (Company, Product)):
            return True
        if isinstance(entity, Customer):
            return entity.id == self.scope.customer_id
        if isinstance(entity, (Order, PriceOverride, Contact)):
            return entity.customer_id == self.scope.customer_id
        return False

    def find(self, kind: type[E], id: str) -> E | None:
        entity: E | None = self.shelf.entities[kind].get(id)
        return entity if entity is not None and self.visible(entity) else None

    def lock(self, entity: E) -> E:
        if not self.readonly:
            self.seen[(type(entity), entity.id)] = entity
        return entity

    def loaded(self, entity: Entity) -> Entity | None:
        return self.seen.get((type(entity), entity.id))

    # writing

    async def write(
        self,
        changes: Sequence[Change],
        records: Sequence[NewRecord],
        answer: StoredAnswer | None,
        mails: Sequence[NewMail] = (),
    ) -> int | None:
        await self.enter()
        if self.readonly:
            raise Bug("this transaction only reads")
        shelf = self.shelf.copy()
        everything_told(changes, records)
        number = None
        for change in changes:
            entity = change.after
            if isinstance(entity, Numbered) and not entity.number:
                number = shelf.last_number = shelf.last_number + 1
                shelf.count(entity)
                entity = entity.numbered(number)
            self._put(shelf, entity)
        text = str(number or 0)
        for record in records:
            body = record.body.replace(NUMBER_TO_COME, text)
            shelf.records.append(_read_back(record, self.scope.company_id, body))
            shelf.texts[record.id] = Text(body, record.person.salt)
            if isinstance(record.event, StockMoved):
                shelf.movements.append(_movement(record, record.event))
            if isinstance(record.event, PaymentRecorded):
                shelf.payments.append(_payment(record, record.event))
            for message in record.messages:
                payload = message.payload.replace(NUMBER_TO_COME, text)
                shelf.outbox.append((replace(message, payload=payload), record.at))
        for mail in mails:
            letter = mail.letter.replace(NUMBER_TO_COME, text)
            parcel = MailParcel(self.scope.company_id, mail.id, mail.to, letter, mail.sealed, 0)
            shelf.mails.append(_Mailed(parcel, mail.at, mail.at))
        if answer is not None and self.once is not None:
            kept = replace(answer, body=answer.body.replace(NUMBER_TO_COME, text))
            shelf.answers[(self.once.actor, self.once.key)] = (kept, self.store.clock.now())
        self.store.shelves[self.scope.company_id] = shelf
        for company in shelf.entities[Company].values():
            self.store.slugs[company.slug] = company.id
        return number

    def _put(self, shelf: _Shelf, entity: Entity) -> None:
        rows = shelf.entities[type(entity)]
        unseen = isinstance(entity, Credentials) and entity.id not in rows  # added by a contact for another
        if entity.company_id != self.scope.company_id or not (self.visible(entity) or unseen):
            raise Bug("row-level security refuses this row")
        stored = rows.get(entity.id)
        if (stored.version if stored else 0) != entity.version - 1:
            raise Conflict("stale_version")
        check = _CONSTRAINTS.get(type(entity))
        if check is not None:
            check(self.store, shelf, stored, entity)
        rows[entity.id] = entity.written()


def _read_back(record: NewRecord, company_id: CompanyId, body: str) -> Record:
    return Record(
        id=record.id,
        company_id=company_id,
        at=record.at,
        actor_kind=record.actor_kind,
        actor_id=record.actor_id,
        label=record.person.label,
        ip=record.person.ip,
        action=record.action,
        entity_type=record.entity_type,
        entity_id=record.entity_id,
        metadata=msgspec.json.decode(body)["metadata"],
    )


def _movement(record: NewRecord, event: StockMoved) -> StockMovement:
    return StockMovement(
        id=record.id,
        product_id=ProductId(record.entity_id),
        quantity=event.quantity,
        reason=event.reason,
        note=event.note,
        order_id=event.order_id,
        stock_after=event.after,
        created_at=record.at,
    )


def _payment(record: NewRecord, event: PaymentRecorded) -> Payment:
    return Payment(
        id=record.id,
        order_id=OrderId(record.entity_id),
        amount=event.amount,
        method=event.method,
        reference=event.reference,
        created_at=record.at,
    )


# what the database's constraints do


def _check_company(store: MemoryStore, shelf: _Shelf, before: Any, company: Company) -> None:
    if store.slugs.get(company.slug, company.id) != company.id:
        raise Conflict("duplicate_slug")
    if before is not None and before.currency != company.currency and shelf.entities[Order]:
        raise Refused("currency_fixed")


def _check_product(store: MemoryStore, shelf: _Shelf, before: Any, product: Product) -> None:
    if product.stock < 0:
        raise Refused("insufficient_stock")
    key = sku_key(product.sku)
    for other in shelf.entities[Product].values():
        present = other.archived_at is None and product.archived_at is None
        if present and other.id != product.id and key is not None and sku_key(other.sku) == key:
            raise Conflict("duplicate_sku")


def _check_customer(store: MemoryStore, shelf: _Shelf, before: Any, customer: Customer) -> None:
    raised = before is None or customer.credit_used > before.credit_used
    if raised and customer.credit_limit is not None and customer.credit_used > customer.credit_limit:
        raise Refused("credit_limit_exceeded")
    for other in shelf.entities[Customer].values():
        if other.id != customer.id and other.email == customer.email:
            raise Conflict("duplicate_email")


def _check_order(store: MemoryStore, shelf: _Shelf, before: Any, order: Order) -> None:
    if order.customer_id not in shelf.entities[Customer]:
        raise NotFound("customer_not_found")
    if any(line.product_id not in shelf.entities[Product] for line in order.lines):
        raise NotFound("product_not_found")
    if shelf.entities[Company][order.company_id].currency != order.currency:
        raise Refused("currency_fixed")
    if order.paid > order.total:
        raise Refused("overpayment")


def _check_override(store: MemoryStore, shelf: _Shelf, before: Any, override: PriceOverride) -> None:
    if override.customer_id not in shelf.entities[Customer]:
        raise NotFound("customer_not_found")
    if override.product_id not in shelf.entities[Product]:
        raise NotFound("product_not_found")
    for other in shelf.entities[PriceOverride].values():
        same = (other.customer_id, other.product_id) == (override.customer_id, override.product_id)
        if same and other.id != override.id:
            raise Conflict("stale_version")


def _check_person(store: MemoryStore, shelf: _Shelf, before: Any, person: Any) -> None:
    check_person(shelf.entities, person)


_CONSTRAINTS: Final[dict[type[Entity], Callable[[MemoryStore, _Shelf, Any, Any], None]]] = {
    Company: _check_company,
    Product: _check_product,
    Customer: _check_customer,
    Order: _check_order,
    PriceOverride: _check_override,
    User: _check_person,
    Contact: _check_person,
    Membership: _check_person,
    Invitation: _check_person,
}


# the finders


class _Companies(Finder):
    def current(self, *, lock: bool = False) -> MemoryRead[Company]:
        return self._get(Company, self.tx.scope.company_id, "company_not_found")


class _Products(Finder):
    def get(self, id: ProductId) -> MemoryRead[Product]:
        return self._get(Product, id, "product_not_found", lambda it: it.archived_at is None)

    def many(
        self, ids: Collection[ProductId], *, archived: bool = False
    ) -> MemoryRead[Mapping[ProductId, Product]]:
        def answer() -> Mapping[ProductId, Product]:
            found = (self.tx.find(Product, id) for id in sorted(set(ids)))
            kept = (it for it in found if it is not None and (archived or it.archived_at is None))
            return {it.id: self.tx.lock(it) for it in kept}

        return MemoryRead(self.tx, answer)

    def page(
        self,
        *,
        limit: int,
        cursor: str | None = None,
        category: str | None = None,
        search: str | None = None,
        active: bool | None = None,
    ) -> MemoryRead[Page[Product]]:
        def keep(it: Product) -> bool:
            return (
                it.archived_at is None
                and (category is None or it.category == category)
                and (active is None or it.is_active == active)
                and (search is None or folded(search) in folded(it.name, it.sku, it.category))
            )

        return self._list(Product, limit, cursor, keep)

    def movements(
        self, id: ProductId, *, limit: int, cursor: str | None = None
    ) -> MemoryRead[Page[StockMovement]]:
        def answer() -> Page[StockMovement]:
            if self.tx.scope.customer_id is not None:
                return Page((), None)
            rows = (it for it in reversed(self.tx.shelf.movements) if it.product_id == id)
            return page(rows, limit, cursor, lambda it: it.id)

        return MemoryRead(self.tx, answer)


class _Customers(Finder):
    def get(self, id: CustomerId) -> MemoryRead[Customer]:
        return self._get(Customer, id, "customer_not_found")

    def by_email(self, email: str) -> MemoryRead[Customer | None]:
        def answer() -> Customer | None:
            found = (it for it in self.tx.mine(Customer) if it.email == email)
            return next(found, None)

        return MemoryRead(self.tx, answer)

    def page(
        self,
        *,
        limit: int,
        cursor: str | None = None,
        status: CustomerStatus | None = None,
        search: str | None = None,
    ) -> MemoryRead[Page[Customer]]:
        def keep(it: Customer) -> bool:
            wanted = search is None or folded(search) in folded(it.name, it.email)
            return wanted and (status is None or it.status is status)

        return self._list(Customer, limit, cursor, keep)


class _Overrides(Finder):
    def prices(
        self, customer_id: CustomerId, ids: Collection[ProductId]
    ) -> MemoryRead[Mapping[ProductId, Money]]:
        wanted = set(ids)

        def answer() -> Mapping[ProductId, Money]:
            return {
                it.product_id: it.price
                for it in self.tx.mine(PriceOverride)
                if it.customer_id == customer_id and it.product_id in wanted and it.price is not None
            }

        return MemoryRead(self.tx, answer)

    def find(self, customer_id: CustomerId, product_id: ProductId) -> MemoryRead[PriceOverride | None]:
        def answer() -> PriceOverride | None:
            for it in self.tx.mine(PriceOverride):
                if (it.customer_id, it.product_id) == (customer_id, product_id):
                    locked: PriceOverride = self.tx.lock(it)
                    return locked
            return None

        return MemoryRead(self.tx, answer)

    def page(
        self, customer_id: CustomerId, *, limit: int, cursor: str | None = None
    ) -> MemoryRead[Page[PriceOverride]]:
        return self._list(
            PriceOverride, limit, cursor, lambda it: it.customer_id == customer_id and it.price is not None
        )


class _Orders(Finder):
    def get(self, id: OrderId) -> MemoryRead[Order]:
        return self._get(Order, id, "order_not_found")

    def page(
        self,
        *,
        limit: int,
        cursor: str | None = None,
        status: OrderStatus | None = None,
        customer_id: CustomerId | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> MemoryRead[Page[Order]]:
        def keep(it: Order) -> bool:
            return (
                (status is None or it.status is status)
                and (customer_id is None or it.customer_id == customer_id)
                and (since is None or since <= it.placed_at)
                and (until is None or it.placed_at < until)
            )

        return self._list(Order, limit, cursor, keep)

    def any(self) -> MemoryRead[bool]:
        return MemoryRead(self.tx, lambda: bool(self.tx.mine(Order)))

    def payments(self, id: OrderId, *, limit: int, cursor: str | None = None) -> MemoryRead[Page[Payment]]:
        def answer() -> Page[Payment]:
            if self.tx.scope.customer_id is not None:
                return Page((), None)
            rows = (it for it in reversed(self.tx.shelf.payments) if it.order_id == id)
            return page(rows, limit, cursor, lambda it: it.id)

        return MemoryRead(self.tx, answer)


class _ApiKeys(Finder):
    def get(self, id: ApiKeyId) -> MemoryRead[ApiKey]:
        return self._get(ApiKey, id, "api_key_not_found")

    def page(self, *, limit: int, cursor: str | None = None) -> MemoryRead[Page[ApiKey]]:
        return self._list(ApiKey, limit, cursor, lambda _: True)

    def count(self) -> MemoryRead[int]:
        return MemoryRead(self.tx, lambda: sum(it.revoked_at is None for it in self.tx.mine(ApiKey)))


class _Webhooks(Finder):
    def get(self, id: WebhookId) -> MemoryRead[Webhook]:
        return self._get(Webhook, id, "webhook_not_found", lambda it: it.removed_at is None)

    def page(self, *, limit: int, cursor: str | None = None) -> MemoryRead[Page[Webhook]]:
        return self._list(Webhook, limit, cursor, lambda it: it.removed_at is None)

    def count(self) -> MemoryRead[int]:
        return MemoryRead(self.tx, lambda: sum(it.removed_at is None for it in self.tx.mine(Webhook)))

    def delivery(self, id: DeliveryId) -> MemoryRead[Delivery]:
        def answer() -> Delivery:
            sent = self._sent().get(id)
            if sent is None:
                raise NotFound("delivery_not_found")
            return self._shown(sent.delivery)

        return MemoryRead(self.tx, answer)

    def deliveries(
        self, id: WebhookId, *, limit: int, cursor: str | None = None
    ) -> MemoryRead[Page[Delivery]]:
        def answer() -> Page[Delivery]:
            sent = sorted(self._sent().values(), key=lambda one: one.delivery.id, reverse=True)
            mine = (self._shown(one.delivery) for one in sent if one.delivery.webhook_id == id)
            rows = (replace(one, attempts=()) for one in mine)
            return page(rows, limit, cursor, lambda it: it.id)

        return MemoryRead(self.tx, answer)

    def _sent(self) -> dict[DeliveryId, _Sent]:
        scope = self.tx.scope
        return {} if scope.customer_id is not None else self.tx.store.sent[scope.company_id]

    def _shown(self, it: Delivery) -> Delivery:
        off = not self.tx.shelf.entities[Webhook][it.webhook_id].is_active
        waits = off and it.status is DeliveryStatus.PENDING and it.event != TEST
        return replace(it, status=DeliveryStatus.PARKED) if waits else it


class _Events(Finder):
    def after(self, position: int | None, *, names: Collection[str], limit: int) -> MemoryRead[Feed]:
        def answer() -> Feed:
            feed = _Feed() if self.tx.scope.customer_id else self.tx.store.feeds[self.tx.scope.company_id]
            first = feed.purged if position is None else position
            seen = (it for it, _ in feed.events if first < it.position <= first + FEED_SCAN)
            found = [it for it in seen if it.name in names]
            return feed_after(position, feed.head, feed.purged, found[: limit + 1], limit)

        return MemoryRead(self.tx, answer)


class _Records(Finder):
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
    ) -> MemoryRead[Page[Record]]:
        def keep(it: Record) -> bool:
            return (
                (search is None or holds(search, self.tx.shelf.texts[it.id].body, it.label))
                and (actor_kind is None or it.actor_kind is actor_kind)
                and (entity_type is None or it.entity_type == entity_type)
                and (entity_id is None or it.entity_id == entity_id)
                and (action is None or it.action == action or it.action.startswith(action + "."))
                and (since is None or since <= it.at)
                and (until is None or it.at < until)
            )

        def answer() -> Page[Record]:
            if self.tx.scope.customer_id is not None:
                return Page((), None)
            rows = (it for it in reversed(self.tx.shelf.records) if keep(it))
            return page(rows, limit, cursor, lambda it: it.id)

        return MemoryRead(self.tx, answer)
