"""The composition root: what is made of what. The only place that knows the adapters."""

import logging
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from dependency_injector import containers, providers
from psycopg import AsyncConnection, Error, OperationalError

from distribu.adapters import verify_export
from distribu.adapters.argon2 import Argon2Hasher
from distribu.adapters.authenticators import SiteAuthenticators
from distribu.adapters.hooks import HttpHooks
from distribu.adapters.limiter import FallbackLimiter, InProcessLimiter
from distribu.adapters.mail import Arrived, Mailbox, Stationery
from distribu.adapters.memory.agenda import MemoryAgenda
from distribu.adapters.memory.seals import MemorySeals
from distribu.adapters.memory.store import MemoryStore
from distribu.adapters.memory.stripe import (
    PRICES,
    MemoryPayments as MemoryPayments,
    No as No,
    PretendStripe as PretendStripe,
)
from distribu.adapters.memory.twins import GlassVault, MovedClock, PlainHasher, Receivers, SeededEntropy
from distribu.adapters.postgres.agenda import PostgresAgenda
from distribu.adapters.postgres.embedded import EmbeddedFailed, embedded
from distribu.adapters.postgres.host import HostStore
from distribu.adapters.postgres.migrations import migrate
from distribu.adapters.postgres.purge import NotTheOwner, Purge, owning
from distribu.adapters.postgres.queue import PostgresQueue
from distribu.adapters.postgres.roles import NotMigrated, UnsafeRole, UserUnnamed, queue_url
from distribu.adapters.postgres.seals import PostgresSeals
from distribu.adapters.postgres.store import PostgresStore
from distribu.adapters.sealing import Ed25519Notary
from distribu.adapters.system import SystemClock, SystemEntropy
from distribu.adapters.vault import FernetVault
from distribu.application.kernel import Distribu, Ports
from distribu.application.ports import Clock, Entropy, Offer, PaymentsAway, PaymentsRefused, SealingKey
from distribu.application.recording import Recorder
from distribu.domain.access import Actor
from distribu.domain.accounts import REALM
from distribu.domain.values import Secret
from distribu.settings import Settings, SettingsUnusable

if TYPE_CHECKING:
    from distribu.adapters.redis import RedisLimiter
    from distribu.adapters.resend import ResendMailer
    from distribu.adapters.stripe import StripePayments

log: Final = logging.getLogger("distribu.payments")

STRIPE_PATH: Final = "/_stripe"
"""Where the Stripe that is none is, below the URL of everything else."""

REACH_S: Final = 10
"""How long the database may take to answer at the start."""


class DatabaseUnreachable(Exception):
    """No connection to the database that the settings name; the message says why."""


class MigrationRefused(Exception):
    """The database did not let the owner do what a migration takes; the message says what."""


class PurgeRefused(Exception):
    """The database did not let the owner purge; the message says what."""


StartRefused = (
    SettingsUnusable,
    EmbeddedFailed,
    DatabaseUnreachable,
    MigrationRefused,
    NotMigrated,
    NotTheOwner,
    PurgeRefused,
    UnsafeRole,
    UserUnnamed,
)
"""What can keep Distribu from starting through no bug: each says what to do."""


class Container(containers.DeclarativeContainer):
    """Distribu on PostgreSQL. Nothing here does I/O when it is made."""

    settings = providers.Dependency(instance_of=Settings)
    clock = providers.Singleton(SystemClock)
    entropy = providers.Singleton(SystemEntropy)
    vault = providers.Singleton(FernetVault, settings.provided.vault_ring.call())
    hasher = providers.Singleton(
        Argon2Hasher,
        memory_kib=settings.provided.argon2_memory_kib,
        time_cost=settings.provided.argon2_time_cost,
        parallelism=settings.provided.argon2_parallelism,
        threads=settings.provided.hasher_threads,
        waiting_max=settings.provided.hasher_waiting,
    )
    authenticators = providers.Singleton(SiteAuthenticators, settings.provided.links_begin)
    hooks = providers.Singleton(HttpHooks, production=settings.provided.production)
    store = providers.Singleton(
        PostgresStore,
        settings.provided.database_url,
        clock=clock,
        size=settings.provided.database_pool,
        prepare=settings.provided.database_prepare,
    )
    directory = providers.Factory(lambda store: store, store)
    queue = providers.Singleton(
        PostgresQueue,
        settings.provided.queue_database_url,
        entropy=entropy,
        kept=settings.provided.deliveries_kept,
        prepare=settings.provided.database_prepare,
    )
    agenda = providers.Singleton(PostgresAgenda, queue.provided.pool)
    seals = providers.Singleton(PostgresSeals, queue.provided.pool, entropy=entropy)
    notary = providers.Singleton(Ed25519Notary, settings.provided.sealing_ring.call())
    stationery = providers.Singleton(Stationery, settings.provided.mail_from, settings.provided.links_begin)
    mailer = providers.Singleton(
        lambda settings, stationery: _mailer(settings, stationery), settings, stationery
    )
    in_process = providers.Singleton(InProcessLimiter, clock)
    redis = providers.Singleton(
        lambda url, clock, entropy: _redis_limiter(url, clock, entropy),
        settings.provided.redis_url,
        clock,
        entropy,
    )
    shared = providers.Singleton(FallbackLimiter, redis, in_process, clock=clock)
    limiter = providers.Selector(
        providers.Callable(lambda settings: "shared" if settings.redis_url else "in_process", settings),
        shared=shared,
        in_process=in_process,
    )
    payments = providers.Singleton(lambda settings: _payments(settings), settings)
    fingerprint_key = providers.Factory(lambda settings: settings.fingerprint_key(), settings)
    ports = providers.Singleton(
        Ports,
        store=store,
        directory=directory,
        queue=queue,
        agenda=agenda,
        limiter=limiter,
        local=in_process,
        clock=clock,
        entropy=entropy,
        vault=vault,
        hasher=hasher,
        authenticators=authenticators,
        hooks=hooks,
        mailer=mailer,
        seals=seals,
        notary=notary,
        payments=payments,
        fingerprint_key=fingerprint_key,
        links_begin=settings.provided.links_begin,
    )
    distribu = providers.Singleton(Distribu, ports)


def _mailer(settings: Settings, stationery: Stationery) -> "Mailbox | ResendMailer":
    if settings.resend_key is None:
        return Mailbox(stationery, settings.mail_path)
    from distribu.adapters.resend import ResendMailer  # the SDK takes half a second, which few need

    return ResendMailer(stationery, Secret(settings.resend_key))


def _payments(settings: Settings) -> "StripePayments | None":
    if settings.stripe_key is None and not settings.stripe_stub:
        return None
    from distribu.adapters.stripe import StripePayments  # as above

    if settings.stripe_key is not None:
        key, base = Secret(settings.stripe_key), settings.stripe_api_base
        return StripePayments(key, settings.stripe_secrets(), settings.stripe_prices(), base_url=base)
    secret = settings.stripe_stub_secret()
    return StripePayments(secret, [secret], PRICES, base_url=settings.loopback + STRIPE_PATH)


def pretend_stripe(settings: Settings) -> PretendStripe | None:
    """The Stripe that is none; None unless the settings want it."""
    if not settings.stripe_stub:
        return None
    clock, entropy = SystemClock(), SystemEntropy()
    pages = settings.links_begin.rstrip("/") + STRIPE_PATH
    return PretendStripe(clock.now, pages=pages, seed=entropy.bytes(4).hex())


async def offers(settings: Settings) -> list[Offer]:
    """What is sold, as it is at Stripe; nothing where nothing is.

    Raises `PaymentsAway`, `PaymentsRefused`.
    """
    payments = _payments(settings)
    if payments is None:
        return []
    try:
        return list(await payments.prices())
    finally:
        await payments.close()


async def sellable(settings: Settings) -> None:
    """Raises `SettingsUnusable` when what is to be sold cannot be: a price is missing, or the key is wrong.

    While Stripe is away that is not known, and keeps nobody from starting.
    """
    if settings.stripe_key is None:
        return
    try:
        wrong = [f"{one.setting}: {one.wrong}" for one in await offers(settings) if one.wrong]
    except PaymentsRefused as refused:
        wrong = [f"DISTRIBU_STRIPE_KEY does not open the prices: {refused}"]
    except PaymentsAway as away:
        log.warning("whether the prices are there is not known: %s", away)
        return
    if wrong:
        raise SettingsUnusable(wrong)


def _redis_limiter(url: str, clock: Clock, entropy: Entropy) -> "RedisLimiter":
    from distribu.adapters.redis import RedisLimiter  # like the SDK above: not for those without a Redis

    return RedisLimiter(url, clock=clock, entropy=entropy)


def sealing_keys(settings: Settings) -> Sequence[SealingKey]:
    """The keys that sign the audit log, by their public halves."""
    return Ed25519Notary(settings.sealing_ring()).keys


def verifier() -> str:
    """The one file that checks an export, as it is installed."""
    return Path(verify_export.__file__).read_text(encoding="utf-8")


def mailbox(settings: Settings) -> Mailbox | None:
    """The mails that were kept instead of sent; None in production and wherever mails are sent."""
    if settings.production or settings.resend_key is not None:
        return None
    return Mailbox(Stationery(settings.mail_from, settings.links_begin), settings.mail_path)


@dataclass(frozen=True, slots=True)
class InMemory:
    """Distribu with nothing outside the process, and the twins to look into; ``payments`` where it sells."""

    distribu: Distribu
    clock: MovedClock
    receivers: Receivers
    mail: list[Arrived]
    payments: MemoryPayments | None


def in_memory(*, sells: bool = False) -> InMemory:
    """Distribu on the twins of every port. Its secrets can be guessed: for tests and demonstrations.

    With ``sells`` plans are sold there, and a new company is on trial.
    """
    container = Container(settings=Settings())
    clock = providers.Singleton(MovedClock)
    store = providers.Singleton(MemoryStore, clock)
    container.override_providers(
        clock=clock,
        entropy=providers.Singleton(SeededEntropy, clock),
        vault=providers.Singleton(GlassVault),
        hasher=providers.Singleton(PlainHasher),
        hooks=providers.Singleton(Receivers),
        mailer=providers.Singleton(Mailbox, container.stationery),
        store=store,
        directory=store,
        queue=store,
        agenda=providers.Singleton(MemoryAgenda),
        seals=providers.Singleton(MemorySeals, store, entropy=container.entropy),
        notary=providers.Singleton(Ed25519Notary, [Secret(b64encode(bytes(32)).decode())]),
        fingerprint_key=providers.Object(b"in memory"),
        payments=providers.Singleton(_pretended, clock) if sells else providers.Object(None),
    )
    twins: Any = container
    mail = twins.mailer().arrived
    return InMemory(container.distribu(), twins.clock(), twins.hooks(), mail, twins.payments())


def _pretended(clock: Clock) -> MemoryPayments:
    return MemoryPayments(PretendStripe(clock.now), [Secret("whsec_in_memory")])


def machine() -> tuple[Clock, Entropy]:
    """This machine's clock and its randomness, for what needs nothing else."""
    container = Container(settings=Settings())
    return container.clock(), container.entropy()


@contextmanager
def database(settings: Settings) -> Iterator[Settings]:
    """The settings with a database: the one they name, or an embedded one, started and migrated."""
    if settings.database_url is not None:
        queue = settings.queue_database_url or queue_url(settings.database_url)
        yield msgspec.structs.replace(settings, queue_database_url=queue)
        return
    with embedded(settings.data_path) as server:
        migrate(server.owner_url, server.app_url)
        yield msgspec.structs.replace(
            settings,
            database_url=server.app_url,
            owner_database_url=server.owner_url,
            queue_database_url=queue_url(server.app_url),
        )


def migrated(settings: Settings) -> list[str]:
    """Bring the database to the schema of this version. Returns the steps that were run.

    Raises `SettingsUnusable` when the settings name a database but not the role that owns its tables,
    or another of `StartRefused`.
    """
    if settings.database_url is None:
        with embedded(settings.data_path) as server:
            return migrate(server.owner_url, server.app_url)
    if settings.owner_database_url is None:
        raise SettingsUnusable(
            ["DISTRIBU_OWNER_DATABASE_URL is required to migrate: DISTRIBU_DATABASE_URL may not own tables"]
        )
    try:
        return migrate(settings.owner_database_url, settings.database_url)
    except OperationalError as error:
        raise DatabaseUnreachable(f"the database cannot be reached: {error}") from None
    except Error as error:
        raise MigrationRefused(f"the database cannot be migrated as this owner: {error}") from None


@contextmanager
def purging(settings: Settings, label: str) -> Iterator[Purge]:
    """What takes deleted companies out, as the owner of the tables; the platform's log calls it ``label``.

    Raises `SettingsUnusable` when the settings name a database but not its owner, or another of
    `StartRefused`.
    """
    clock, entropy = SystemClock(), SystemEntropy()
    actor = Actor.system(REALM, label)
    with database(settings) as ready:
        if ready.owner_database_url is None:
            raise SettingsUnusable(
                ["DISTRIBU_OWNER_DATABASE_URL is required to purge: DISTRIBU_DATABASE_URL may delete nothing"]
            )
        try:
            with owning(ready.owner_database_url) as connection:
                yield Purge(
                    connection, lambda entry: Recorder(actor, REALM, clock.now(), entropy).record(entry)
                )
        except OperationalError as error:
            raise DatabaseUnreachable(f"the database cannot be reached: {error}") from None
        except Error as error:
            raise PurgeRefused(f"the database cannot be purged as this owner: {error}") from None


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Distribu]:
    """Distribu, connected. ``settings`` name a database (see `database`). Raises one of `StartRefused`."""
    container = Container(settings=settings)
    store, queue, hooks = container.store(), container.queue(), container.hooks()
    await _reach(settings)
    try:
        await store.open()
        await queue.open()
        yield container.distribu()
    finally:
        if settings.redis_url:
            await container.redis().close()
        await hooks.close()
        await container.mailer().close()
        if (payments := container.payments()) is not None:
            await payments.close()
        await container.hasher().close()
        await queue.close()
        await store.close()


async def _reach(settings: Settings) -> None:
    """Connect once with each role: a pool would only say that it waited in vain."""
    for url in filter(None, (settings.database_url, settings.queue_database_url)):
        try:
            connection = await AsyncConnection.connect(url, connect_timeout=REACH_S)
        except OperationalError as error:
            raise DatabaseUnreachable(f"the database cannot be reached: {error}") from None
        await connection.close()


def inside(distribu: Distribu, connection: AsyncConnection[Any]) -> Distribu:
    """Distribu working in the host's own open transaction on ``connection``.

    What is executed takes effect when the host commits, and leaves no trace when it rolls back. The
    host's role must be a member of ``distribu_tenant``.
    """
    store = HostStore(connection, clock=distribu.ports.clock)
    return Distribu(replace(distribu.ports, store=store), beside=distribu)
