"""The executor: authorise, begin, run, write, commit. One way to write, whoever asks."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, ClassVar, Final, Generic, TypeVar, cast, overload

import msgspec

from distribu.application import views
from distribu.application.counts import Counts
from distribu.application.fields import CARD, Value
from distribu.application.ports import (
    NUMBER_TO_COME,
    Again,
    Agenda,
    AlreadyAnswered,
    Authenticators,
    Change,
    Clock,
    Directory,
    Entropy,
    Finders,
    Hasher,
    Hooks,
    Letter,
    Limit,
    Mailer,
    Message,
    NewMail,
    Notary,
    OnceKey,
    Payments,
    Queue,
    RateLimiter,
    Read,
    Scope,
    Seals,
    Store,
    StoredAnswer,
    Tx,
    Vault,
)
from distribu.application.recording import Recorder
from distribu.application.refusals import Refusals
from distribu.domain.access import Actor, ActorKind, Permission
from distribu.domain.accounts import REALM
from distribu.domain.audit import Entry
from distribu.domain.billing import not_accepting
from distribu.domain.cards import holds_card
from distribu.domain.entity import Entity, Numbered
from distribu.domain.errors import (
    Bug,
    Busy,
    Forbidden,
    InDoubt,
    Invalid,
    PaymentRequired,
    RateLimited,
    Refused,
)
from distribu.domain.values import CompanyId, Secret

R = TypeVar("R")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")

TRIES: Final = 4
"""How often a command is run when the store gives up on it through nobody's fault."""


class Request(Value, Generic[R], frozen=True, kw_only=True):
    """One use case, as a value: what is asked for, and how it is done.

    ``needs`` is the permission it takes (None: anybody who is known). ``founds`` marks the one kind
    of request that makes its own company. ``home`` marks what runs where the actor's own account is
    kept: the platform's realm for staff, the store for a contact. An ``internal`` one is started by a
    process alone and reachable by no door. What a ``streamed`` one answers comes piece by piece.
    """

    needs: ClassVar[Permission | None]
    founds: ClassVar[bool] = False
    home: ClassVar[bool] = False
    internal: ClassVar[bool] = False
    streamed: ClassVar[bool] = False

    def given(self, *leave: str) -> dict[str, Any]:
        """The fields the caller sent, by name, but for those named: what an edit is to change."""
        return {
            name: value
            for name in self.__struct_fields__
            if name not in leave and (value := getattr(self, name)) is not msgspec.UNSET
        }


class Query(Request[R], frozen=True, kw_only=True):
    """A request that only reads."""

    async def run(self, reads: "Reads") -> R:
        """Read, and answer."""
        raise Bug(f"{type(self).__name__} does nothing")


class Command(Request[R], frozen=True, kw_only=True):
    """A request that changes something: it reads, decides and saves, and may be run again."""

    async def run(self, work: "Work") -> R:
        """Read, decide, save."""
        raise Bug(f"{type(self).__name__} does nothing")


class Process(Request[R], frozen=True, kw_only=True):
    """A request that talks to the outside, or runs other requests; no transaction is held meanwhile."""

    async def run(self, outside: "Outside") -> R:
        """Talk, and execute what follows."""
        raise Bug(f"{type(self).__name__} does nothing")


class Reads:
    """What a query may touch."""

    def __init__(self, tx: Finders, actor: Actor, now: datetime) -> None:
        self.actor = actor
        self.now = now
        self.companies = tx.companies
        self.subscriptions = tx.subscriptions
        self.notices = tx.notices
        self.products = tx.products
        self.customers = tx.customers
        self.overrides = tx.overrides
        self.orders = tx.orders
        self.api_keys = tx.api_keys
        self.webhooks = tx.webhooks
        self.events = tx.events
        self.records = tx.records
        self.seals = tx.seals
        self.logins = tx.logins
        self.users = tx.users
        self.sessions = tx.sessions
        self.factors = tx.factors
        self.members = tx.members
        self.invitations = tx.invitations
        self.contacts = tx.contacts
        self.inquiries = tx.inquiries
        self.platform = tx.platform
        self._together = tx.together

    @overload
    async def together(self, a: Read[A], b: Read[B], /) -> tuple[A, B]: ...
    @overload
    async def together(self, a: Read[A], b: Read[B], c: Read[C], /) -> tuple[A, B, C]: ...
    @overload
    async def together(self, a: Read[A], b: Read[B], c: Read[C], d: Read[D], /) -> tuple[A, B, C, D]: ...

    async def together(self, *reads: Read[Any]) -> tuple[Any, ...]:
        """Several answers for one round trip; inside a command, locks are taken in this order."""
        return await self._together(*reads)


class Work(Reads):
    """What a command may touch. What it saves is written when it returns, all of it or nothing."""

    def __init__(self, tx: Tx, actor: Actor, now: datetime, ports: "Ports") -> None:
        super().__init__(tx, actor, now)
        self._tx = tx
        self._ports = ports
        self._saved: dict[tuple[type[Entity], str], Change] = {}
        self._entries: list[tuple[Entry, tuple[Message, ...]]] = []
        self._mails: list[NewMail] = []
        if actor.company_id is None:
            raise Bug("work is always done for a company")
        self.company_id: CompanyId = actor.company_id

    def new_id(self) -> str:
        """A new UUIDv7."""
        return self._ports.entropy.uuid()

    def entropy(self, size: int) -> bytes:
        """Random bytes fit for keys."""
        return self._ports.entropy.bytes(size)

    def seal(self, secret: Secret) -> str:
        """Ciphertext of a secret that must be used again."""
        return self._ports.vault.seal(secret)

    def admit(self, url: str) -> None:
        """Raises `Refused` (webhook_url_refused) for a URL we would not send to."""
        self._ports.hooks.admit(url)

    @property
    def sells(self) -> bool:
        """Whether plans are sold here: then a new company is tried out."""
        return self._ports.payments is not None

    def save(self, *entities: Entity) -> None:
        """Have these written. An entity that is as it was read needs no writing.

        Raises `Bug` for a change without an event, another company's entity, or a successor of
        something else than was read and saved before.
        """
        for entity in entities:
            key = (type(entity), entity.id)
            before = self._tx.loaded(entity)
            if entity is before:
                continue
            last = self._saved[key].after if key in self._saved else None
            if not entity.events:
                raise Bug(f"{type(entity).__name__} changed without an event")
            if entity.company_id != self.company_id:
                raise Bug(f"{type(entity).__name__} of another company")
            if entity.version != (before.version + 1 if before else 1):
                raise Bug(f"{type(entity).__name__} does not extend what was read")
            if last is not None and entity.events[: len(last.events)] != last.events:
                raise Bug(f"{type(entity).__name__} does not extend what was saved")
            self._saved[key] = Change(before, entity)

    def record(self, entry: Entry) -> None:
        """Put something into the audit log that changed no entity."""
        self._entries.append((entry, ()))

    def ask(self, entry: Entry, name: str, payload: msgspec.Struct) -> str:
        """Record something, and leave it to the machine in the outbox. Returns the id it has there."""
        message = Message(self.new_id(), name, views.encode(payload).decode())
        self._entries.append((entry, (message,)))
        return message.id

    def anew(self, sealed: str) -> str | None:
        """The same secret sealed under the newest key; None when it is already."""
        return self._ports.vault.anew(sealed)

    def mail(self, to: str, letter: Letter, *, token: Secret | None = None) -> None:
        """Have a letter sent when this is committed; ``token`` completes its link and waits sealed."""
        sealed = None if token is None else self.seal(token)
        text = views.encode(letter).decode()
        self._mails.append(NewMail(self.new_id(), self.now, to, text, sealed))

    @property
    def mails(self) -> list[NewMail]:
        """What is to be sent."""
        return self._mails

    @property
    def changes(self) -> list[Change]:
        """What is to be written, in the order in which it was first saved."""
        return list(self._saved.values())

    @property
    def entries(self) -> list[tuple[Entry, tuple[Message, ...]]]:
        """What is to be recorded beside the changes, with what is left to the machine."""
        return self._entries


class Outside:
    """What a process may touch: the ports to the outside, and other requests."""

    def __init__(self, distribu: "Distribu", actor: Actor, ports: "Ports") -> None:
        self.actor = actor
        self.directory = ports.directory
        self.limiter = ports.limiter
        self.clock = ports.clock
        self.entropy = ports.entropy
        self.vault = ports.vault
        self.hasher = ports.hasher
        self.authenticators = ports.authenticators
        self.hooks = ports.hooks
        self.seals = ports.seals
        self.notary = ports.notary
        self.payments = ports.payments
        self.links_begin = ports.links_begin
        self.queue = ports.queue
        self.home = home_of(actor)
        self._distribu = distribu
        self._key = ports.fingerprint_key

    async def execute(self, request: Request[R]) -> R:
        """Run another request as the same actor."""
        return await self._distribu.execute(self.actor, request)

    async def inside(self, company_id: CompanyId, request: Request[R], *, system: bool = False) -> R:
        """Run an internal request in a company, by default at home; the actor stays who they are.

        With ``system`` it is ours: what follows from an act of somebody who is nothing in that company.
        """
        if not request.internal:
            raise Bug(f"{type(request).__name__} is no internal request")
        actor = replace(self.actor, company_id=company_id, customer_id=None)
        if system:
            actor = Actor.system(company_id)
        return await self._distribu.run(actor, request)

    async def limit(self, what: str, whom: str, most: int, window_s: float) -> None:
        """Count one of ``what`` for ``whom``. Raises `RateLimited` when that is one too many."""
        standing = await self.limiter.take(Limit(f"{what} {whom}", most, window_s))
        if not standing.allowed:
            raise RateLimited("rate_limited", retry_after_s=standing.retry_after_s)

    def mark(self, *parts: str) -> str:
        """A code that proves, when it comes back, that we gave it out for these parts."""
        text = "\0".join(parts).encode()
        return hashlib.blake2b(text, key=self._key, digest_size=32, person=b"distribu mark").hexdigest()


def home_of(actor: Actor) -> CompanyId:
    """Where an actor's own account is kept: a contact's in its store, anybody else's in the realm."""
    if actor.kind is ActorKind.CUSTOMER and actor.company_id is not None:
        return actor.company_id
    return REALM


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The adapters, by the names of what they do; ``local`` limits in this process alone.

    Without ``payments`` nothing is sold here. ``links_begin`` is the URL that our own pages are below.
    """

    store: Store
    directory: Directory
    queue: Queue
    agenda: Agenda
    limiter: RateLimiter
    local: RateLimiter
    clock: Clock
    entropy: Entropy
    vault: Vault
    hasher: Hasher
    authenticators: Authenticators
    hooks: Hooks
    mailer: Mailer
    seals: Seals
    notary: Notary
    payments: Payments | None
    fingerprint_key: bytes
    links_begin: str


@dataclass(frozen=True, slots=True)
class Once(Generic[R]):
    """Have a request's effect once per key: ``view`` renders the answer that a repetition gets.

    ``secret``: the answer holds a secret and is stored sealed. Raises `Invalid` (card_number) for such a key.
    """

    key: str
    view: Callable[[R], bytes]
    secret: bool = False

    def __post_init__(self) -> None:
        if holds_card(self.key):
            raise Invalid("card_number", fields={"Idempotency-Key": CARD})


@dataclass(frozen=True, slots=True)
class Answer:
    """A rendered answer, and whether it is that of an earlier request."""

    body: bytes
    replayed: bool


@dataclass(frozen=True, slots=True)
class Issued(Generic[R]):
    """Something new together with its secret, which nobody can read again."""

    what: R
    secret: Secret


class Distribu:
    """The whole product, behind one method.

    One that works in a host's transaction has another ``beside`` it, which counts and records what was
    refused: that is to stay when the host rolls back.
    """

    def __init__(self, ports: Ports, *, beside: "Distribu | None" = None) -> None:
        self.ports = ports
        self.counts: Counts = beside.counts if beside else Counts()
        self.refusals: Refusals = (
            beside.refusals if beside else Refusals(ports.local, self.counts, self._record)
        )
        self.wake: Callable[[], None] = lambda: None
        """Called after every commit; a worker in the same process sets it."""

    async def execute(self, actor: Actor, request: Request[R]) -> R:
        """Run a request as an actor and return its result, committed.

        Raises `Refused` and its kinds; then nothing was changed. Raises `InDoubt` when the database was
        lost while it was committing.
        """
        return await self._counted(
            actor, type(request), lambda: self.run(self._admitted(actor, request), request)
        )

    async def admit(self, actor: Actor, request: type[Request[Any]]) -> None:
        """Raises `Forbidden` when the actor lacks what this kind of request needs: for doors, which ask
        before they read what is sent. To execute it asks again."""
        needs = request.needs
        try:
            actor.require(needs)
        except Forbidden as refusal:
            self.counts.request(request.__name__, refusal.code, 0.0)
            await self.refusals.note(actor, request.__name__, refusal)
            raise

    async def run(self, actor: Actor, request: Request[R]) -> R:
        """Run a request that was admitted: for the executor and its processes alone."""
        if isinstance(request, Query):
            scope = _scope(actor)
            async with self.ports.store.begin(scope, readonly=True) as tx:
                return cast(R, await request.run(Reads(tx, actor, self.ports.clock.now())))
        if isinstance(request, Process):
            return cast(R, await request.run(Outside(self, actor, self.ports)))
        command = _command(request)
        result, _ = await self._retrying(command, lambda: self._attempt(actor, command, None, None))
        return cast(R, result)

    async def execute_once(self, actor: Actor, request: Request[R], once: Once[R]) -> Answer:
        """Run a command whose effect happens once per actor and key, however often it is sent.

        The same request again gets the first one's answer. Raises `Refused` (idempotency_key_reused)
        when the request under the key was another one.
        """
        return await self._counted(actor, type(request), lambda: self._once(actor, request, once))

    async def _once(self, actor: Actor, request: Request[R], once: Once[R]) -> Answer:
        actor = self._admitted(actor, request)
        command = _command(request)
        key = OnceKey(
            f"{actor.kind}:{actor.customer_id or ''}:{actor.id}", once.key, self._fingerprint(request)
        )
        try:
            _, body = await self._retrying(command, lambda: self._attempt(actor, command, key, once))
            return Answer(body, replayed=False)
        except AlreadyAnswered as earlier:
            answer = earlier.answer
        if answer.fingerprint != key.fingerprint:
            raise Refused("idempotency_key_reused")
        text = self.ports.vault.open(answer.body).reveal() if answer.sealed else answer.body
        return Answer(text.encode(), replayed=True)

    def _admitted(self, actor: Actor, request: Request[Any]) -> Actor:
        if request.internal:
            raise Forbidden("forbidden")
        actor.require(request.needs)
        if request.home and not isinstance(request, Process):
            return replace(actor, company_id=home_of(actor), customer_id=None)
        if request.founds:
            return Actor.system(CompanyId(self.ports.entropy.uuid()), actor.label)
        if actor.company_id is None and not isinstance(request, Process):
            raise Forbidden("forbidden")
        return actor

    async def _counted(
        self, actor: Actor, request: type[Request[Any]], attempt: Callable[[], Awaitable[A]]
    ) -> A:
        began = self.ports.clock.elapsed()
        outcome = "internal_error"
        try:
            result = await attempt()
        except Refused as refusal:
            outcome = refusal.code
            if isinstance(refusal, Forbidden):
                await self.refusals.note(actor, request.__name__, refusal)
            if isinstance(refusal, PaymentRequired) and actor.is_outsider:
                raise not_accepting() from None
            raise
        except InDoubt:
            outcome = "outcome_unknown"
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        else:
            outcome = "ok"
            return result
        finally:
            self.counts.request(request.__name__, outcome, self.ports.clock.elapsed() - began)

    async def _record(self, actor: Actor, entry: Entry) -> None:
        async with self.ports.store.begin(_scope(actor)) as tx:
            work = Work(tx, actor, self.ports.clock.now(), self.ports)
            work.record(entry)
            await self._write(tx, work, None)

    async def _write(self, tx: Tx, work: Work, answer: StoredAnswer | None) -> int | None:
        recorder = Recorder(work.actor, work.company_id, work.now, self.ports.entropy)
        records = recorder.records(work.changes, work.entries)
        return await tx.write(work.changes, records, answer, work.mails)

    async def _retrying(
        self, command: Command[Any], attempt: Callable[[], Awaitable[tuple[Any, bytes]]]
    ) -> tuple[Any, bytes]:
        for tried in range(TRIES):
            try:
                return await attempt()
            except Again:
                if tried + 1 == TRIES:
                    break
                self.counts.retries[type(command).__name__] += 1
                await asyncio.sleep(0.01 * (tried + self.ports.entropy.fraction()))
        raise Busy("busy", retry_after_s=1)

    async def _attempt(
        self, actor: Actor, command: Command[Any], key: OnceKey | None, once: Once[Any] | None
    ) -> tuple[Any, bytes]:
        now = self.ports.clock.now()
        body = b""
        async with self.ports.store.begin(_scope(actor), once=key) as tx:
            work = Work(tx, actor, now, self.ports)
            result = await command.run(work)
            answer = None
            if key is not None and once is not None:
                body = once.view(result)
                answer = self._stored(key, body, once.secret)
            number = await self._write(tx, work, answer)
        self.wake()
        if number is not None:
            body = body.replace(NUMBER_TO_COME.encode(), str(number).encode())
            if isinstance(result, Numbered) and not result.number:
                result = result.numbered(number)
        return result, body

    def _stored(self, key: OnceKey, body: bytes, secret: bool) -> StoredAnswer:
        text = body.decode()
        return StoredAnswer(key.fingerprint, self.ports.vault.seal(Secret(text)) if secret else text, secret)

    def _fingerprint(self, request: Request[Any]) -> bytes:
        digest = hashlib.blake2b(key=self.ports.fingerprint_key, digest_size=32)
        digest.update(type(request).__name__.encode() + b"\0" + views.encode(request))
        return digest.digest()


def _command(request: Request[Any]) -> Command[Any]:
    if not isinstance(request, Command):
        raise Bug(f"{type(request).__name__} is no command")
    return request


def _scope(actor: Actor) -> Scope:
    if actor.company_id is None:
        raise Bug("a transaction is always for a company")
    return Scope(actor.company_id, actor.customer_id)
