"""The contracts on what runs in production."""

import asyncio
import threading
from base64 import urlsafe_b64encode as b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from aiohttp import web
from cryptography.fernet import Fernet
from psycopg import errors
from psycopg_pool import PoolTimeout

from distribu import Distribu, Harness, Secret, Settings
from distribu.adapters import hooks as outgoing
from distribu.adapters.argon2 import Argon2Hasher
from distribu.adapters.authenticators import SiteAuthenticators
from distribu.adapters.hooks import HttpHooks
from distribu.adapters.limiter import InProcessLimiter
from distribu.adapters.mail import Arrived, Mailbox
from distribu.adapters.memory.stripe import PretendStripe
from distribu.adapters.memory.twins import MovedClock
from distribu.adapters.postgres import finishing
from distribu.adapters.postgres.queue import PostgresQueue
from distribu.adapters.redis import RedisLimiter
from distribu.adapters.resend import ResendMailer
from distribu.adapters.sealing import Ed25519Notary
from distribu.adapters.stripe import StripePayments
from distribu.adapters.system import SystemClock, SystemEntropy
from distribu.adapters.vault import FernetVault
from distribu.application.ports import Parcel
from distribu.container import running
from distribu.domain.errors import Busy
from distribu.domain.webhooks import ATTEMPT_TIMEOUT_S, DeliveryStatus
from distribu.entrypoints.stubs.stripe import StripeStub
from tests.contracts.authenticators import AuthenticatorsContract
from tests.contracts.finders import FinderContract
from tests.contracts.hashing import HasherContract
from tests.contracts.jobs import AgendaContract, JobsContract
from tests.contracts.limiting import Advance, RateLimiterContract
from tests.contracts.mailing import STATIONERY, MailerContract
from tests.contracts.outside import (
    ClockContract,
    DirectoryContract,
    EntropyContract,
    HooksContract,
    VaultContract,
)
from tests.contracts.paying import FORMER, SECRET_RING, PayingOverTime
from tests.contracts.postgres import OnPostgres, on_postgres
from tests.contracts.queue import QueueContract, claim, delivery, finish, relay
from tests.contracts.sealing import NotaryContract, SealsContract
from tests.contracts.store import ReceiveInTurn, StoreContract
from tests.integration.conftest import RedisServer
from tests.stubs.resend import Resend, resend
from tests.stubs.stripe import KEY, stripe


@pytest.fixture(scope="module")
async def harness(settings: Settings) -> AsyncIterator[OnPostgres]:
    async with on_postgres(settings) as harness:
        yield harness


@pytest.fixture
async def shop(harness: OnPostgres) -> AsyncIterator[Harness]:
    async with harness as shop:
        yield shop


@pytest.fixture
async def impatient(settings: Settings) -> AsyncIterator[Harness]:
    """A shop on connections that wait for no lock for long."""
    url = f"{settings.database_url}&options=-c%20lock_timeout%3D200ms"
    impatient = msgspec.structs.replace(settings, database_url=url)
    async with on_postgres(impatient) as harness, harness as shop:
        yield shop


class TestPostgresStore(StoreContract):
    async def test_a_deadlock_is_real_and_resolved_by_running_one_again(self, shop: Harness) -> None:
        """Opposite orders of locking: three attempts for two commands, or it was no deadlock."""
        one, other = await shop.product("One"), await shop.product("Other")
        tries = iter(range(9))
        await asyncio.gather(
            shop.execute(ReceiveInTurn(first=one.id, second=other.id, tries=tries)),
            shop.execute(ReceiveInTurn(first=other.id, second=one.id, tries=tries)),
        )
        assert next(tries) == 3


class TestPostgresFinders(FinderContract): ...


class TestPostgresDirectory(DirectoryContract): ...


class TestPostgresQueue(QueueContract):
    async def test_what_was_sent_is_stored_when_the_database_is_back(
        self, shop: Harness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        parcel, ends = await self.claimed(shop)
        monkeypatch.setattr(finishing, "AGAIN_S", 0.01)
        broken: list[Exception] = [errors.OperationalError("it is away"), PoolTimeout("nobody has one")]
        attempts = cast(PostgresQueue, shop.distribu.ports.queue)._attempts
        monkeypatch.setattr(attempts, "_pool", Unwell(attempts._pool, broken))
        await finish(shop, parcel, DeliveryStatus.DELIVERED)
        assert not broken
        assert (await delivery(shop, parcel)).status is DeliveryStatus.DELIVERED
        monkeypatch.setattr(finishing, "AWAY_S", 0.0)
        broken.append(errors.OperationalError("it stays away"))
        with pytest.raises(Busy):
            await finish(shop, ends, DeliveryStatus.DELIVERED)
        assert (await delivery(shop, ends)).attempts == ()

    async def test_a_mistake_of_ours_holds_up_nobody_behind_it(
        self, shop: Harness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one, other = await self.claimed(shop)
        attempts = cast(PostgresQueue, shop.distribu.ports.queue)._attempts
        monkeypatch.setattr(finishing, "FINISH_BATCH", 1)
        monkeypatch.setattr(attempts, "_pool", Unwell(attempts._pool, [ZeroDivisionError()]))
        async with asyncio.timeout(20):
            came = await asyncio.gather(
                *(finish(shop, it, DeliveryStatus.DELIVERED) for it in (one, other)), return_exceptions=True
            )
        assert [type(it) for it in came] == [ZeroDivisionError, type(None)]

    async def claimed(self, shop: Harness) -> tuple[Parcel, Parcel]:
        await shop.webhook()
        await shop.product()
        await shop.product()
        await relay(shop)
        one, other = await claim(shop)
        return one, other


class Unwell:
    """A pool that fails as often as there is something to raise."""

    def __init__(self, pool: Any, broken: list[Exception]) -> None:
        self.pool, self.broken = pool, broken

    def connection(self) -> Any:
        if self.broken:
            raise self.broken.pop(0)
        return self.pool.connection()


class TestPostgresSeals(SealsContract): ...


class TestPostgresAgenda(AgendaContract): ...


class TestPostgresJobs(JobsContract):
    @pytest.fixture
    async def other(self, settings: Settings, shop: Harness) -> AsyncIterator[Distribu]:
        """On connections of its own, with the same clock."""
        async with running(settings) as distribu:
            yield Distribu(replace(distribu.ports, clock=shop.clock))


class TestEd25519Notary(NotaryContract):
    @pytest.fixture
    def notary(self) -> Ed25519Notary:
        return Ed25519Notary([Secret(b64encode(bytes(range(32))).decode())])

    @pytest.fixture
    def another_notary(self) -> Ed25519Notary:
        return Ed25519Notary([Secret(b64encode(bytes(32)).decode())])


class TestSystemClock(ClockContract):
    @pytest.fixture
    def clock(self) -> SystemClock:
        return SystemClock()


class TestSystemEntropy(EntropyContract):
    @pytest.fixture
    def clock(self) -> SystemClock:
        return SystemClock()

    @pytest.fixture
    def entropy(self) -> SystemEntropy:
        return SystemEntropy()


def _key() -> Secret:
    return Secret(Fernet.generate_key().decode())


class TestFernetVault(VaultContract):
    @pytest.fixture
    def vault(self) -> FernetVault:
        return FernetVault([_key()])

    @pytest.fixture
    def another_vault(self) -> FernetVault:
        return FernetVault([_key()])

    async def test_a_ring_opens_with_any_of_its_keys_and_seals_with_the_first(self) -> None:
        old, new = _key(), _key()
        sealed = FernetVault([old]).seal(Secret("whsec_topsecret"))
        ring = FernetVault([new, old])
        assert ring.open(sealed).reveal() == "whsec_topsecret"
        assert FernetVault([new]).open(ring.seal(Secret("fresh"))).reveal() == "fresh"

    async def test_what_is_sealed_anew_opens_when_the_old_key_is_gone(self) -> None:
        old, new = _key(), _key()
        sealed = FernetVault([old]).seal(Secret("whsec_topsecret"))
        again = FernetVault([new, old]).anew(sealed)
        assert again is not None
        assert FernetVault([new]).open(again).reveal() == "whsec_topsecret"
        assert FernetVault([new, old]).anew(again) is None


class TestArgon2Hasher(HasherContract):
    """With weak parameters, which are fast: nothing of the contract hangs on them."""

    @pytest.fixture
    async def hasher(self) -> AsyncIterator[Argon2Hasher]:
        hasher = Argon2Hasher(memory_kib=8, time_cost=1)
        yield hasher
        await hasher.close()

    @pytest.fixture
    async def another_hasher(self) -> AsyncIterator[Argon2Hasher]:
        hasher = Argon2Hasher(memory_kib=16, time_cost=1)
        yield hasher
        await hasher.close()

    @pytest.fixture
    async def full_hasher(self) -> AsyncIterator[Argon2Hasher]:
        hasher, go_on = Argon2Hasher(memory_kib=8, time_cost=1, threads=1, waiting_max=1), threading.Event()
        turns = [asyncio.create_task(hasher._in_turn(lambda: go_on.wait(5))) for _ in range(2)]
        await asyncio.sleep(0)
        yield hasher
        go_on.set()
        await asyncio.gather(*turns)
        await hasher.close()


class HttpReceiver:
    """A receiver on a socket of this machine."""

    def __init__(self) -> None:
        self.url = ""
        self.received: Sequence[tuple[Mapping[str, str], bytes]] = []
        self.answers(200)

    def answers(self, status: int, body: str = "", **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._answer: Any = lambda: web.Response(status=status, text=body or None, headers=named)

    def hangs_up(self) -> None:
        self._answer = lambda: None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.received = [*self.received, (request.headers, await request.read())]
        answer: web.StreamResponse | None = self._answer()
        if answer is None:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return answer


class TestHttpHooks(HooksContract):
    @pytest.fixture
    async def hooks(self) -> AsyncIterator[HttpHooks]:
        hooks = HttpHooks(production=False)
        yield hooks
        await hooks.close()

    @pytest.fixture
    async def receiver(self) -> AsyncIterator[HttpReceiver]:
        receiver = HttpReceiver()
        app = web.Application()
        app.router.add_post("/hook", receiver.handle)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        receiver.url = f"http://{host}:{port}/hook"
        yield receiver
        await runner.cleanup()

    @pytest.fixture
    async def raw(self) -> AsyncIterator["RawReceiver"]:
        raw = RawReceiver()
        server = await asyncio.start_server(raw.handle, "127.0.0.1", 0)
        raw.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        yield raw
        raw.go_on.set()
        server.close()
        await server.wait_closed()

    async def test_ten_seconds_is_what_an_attempt_may_take(self) -> None:
        assert ATTEMPT_TIMEOUT_S == 10

    async def test_a_receiver_that_is_silent_is_given_up_on(
        self, hooks: HttpHooks, raw: "RawReceiver", monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(outgoing, "ATTEMPT_TIMEOUT_S", 0.2)
        reply = await hooks.post(raw.url, headers={}, body=b"{}")
        assert (reply.status, reply.error) == (None, "no answer within 0.2 s")

    async def test_a_receiver_that_dribbles_is_given_up_on(
        self, hooks: HttpHooks, raw: "RawReceiver", monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The time is for all of it, not for each piece."""
        monkeypatch.setattr(outgoing, "ATTEMPT_TIMEOUT_S", 0.4)
        raw.parts = [b"H", b"T", b"T", b"P", b"/", b"1", b".", b"1", b" ", b"2", b"0", b"0"]
        reply = await hooks.post(raw.url, headers={}, body=b"{}")
        assert (reply.status, reply.error) == (None, "no answer within 0.4 s")

    async def test_an_answer_in_pieces_is_read_to_its_end(self, hooks: HttpHooks, raw: "RawReceiver") -> None:
        raw.parts = [b"HTTP/1.1 500 No\r\ncontent-length: 6\r\n\r\none", b"two"]
        reply = await hooks.post(raw.url, headers={}, body=b"{}")
        assert (reply.status, reply.body) == (500, "onetwo")

    @pytest.mark.parametrize(
        "answer",
        [
            b"\x00\xff\xfe nonsense\r\n\r\n",
            b"HTTP/1.1 999999 what\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nshort",
            b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\nserver: \xff\xfe\r\ncontent-length: 2\r\n\r\n\xff\x00",
            b"HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=nonsense\r\ncontent-length: 2\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nx-long: " + b"a" * 20_000 + b"\r\n\r\n",
        ],
    )
    async def test_nonsense_becomes_a_reply_that_can_be_stored(
        self, hooks: HttpHooks, raw: "RawReceiver", answer: bytes
    ) -> None:
        raw.parts = [answer]
        raw.go_on.set()
        reply = await hooks.post(raw.url, headers={}, body=b"{}")
        stored = msgspec.json.encode(reply)
        assert b"\\u0000" not in stored
        assert (reply.status is None) == bool(reply.error)
        assert len(reply.error) <= 500

    async def test_a_closed_port_and_an_unknown_name_are_replies(self, hooks: HttpHooks) -> None:
        for url in ("http://127.0.0.1:1/", "http://no-such-name.localhost.:1/", "https://no-such.invalid/"):
            reply = await hooks.post(url, headers={}, body=b"{}")
            assert reply.status is None
            assert reply.error

    async def test_production_sends_nothing_to_this_machine(self, receiver: HttpReceiver) -> None:
        hooks = HttpHooks(production=True)
        reply = await hooks.post(receiver.url, headers={}, body=b"{}")
        assert reply.status is None
        assert reply.error
        assert receiver.received == []
        await hooks.close()


class TestFolderMailbox(MailerContract):
    @pytest.fixture
    def mailer(self, tmp_path: Path) -> Mailbox:
        return Mailbox(STATIONERY, tmp_path / "mail")

    @pytest.fixture
    def letterbox(self, mailer: Mailbox) -> "Folder":
        return Folder(mailer)


class Folder:
    """The folder of a mailbox, as another process reads it."""

    def __init__(self, mailbox: Mailbox) -> None:
        self.other = Mailbox(STATIONERY, mailbox.folder)

    def arrived(self) -> list[Arrived]:
        read = (self.other.read(id) for id in reversed(self.other.ids()))
        return [mail for mail in read if mail is not None]


class TestResendMailer(MailerContract):
    @pytest.fixture
    async def letterbox(self) -> AsyncIterator["Inbox"]:
        async with resend() as stub:
            yield Inbox(stub)

    @pytest.fixture
    async def mailer(self, letterbox: "Inbox") -> AsyncIterator[ResendMailer]:
        mailer = ResendMailer(STATIONERY, Secret("re_stub_key"), base_url=letterbox.stub.url)
        yield mailer
        await mailer.close()


class Inbox:
    """What Resend has taken."""

    def __init__(self, stub: Resend) -> None:
        self.stub = stub

    def arrived(self) -> list[Arrived]:
        return [
            Arrived(
                id=key,
                sender=taken["from"],
                to=taken["to"][0],
                subject=taken["subject"],
                text=taken["text"],
                html=taken["html"],
                link="",
            )
            for key, taken in self.stub.sent.items()
        ]


class RawReceiver:
    """A receiver that says what it likes, a part at a time, and then nothing more until told."""

    def __init__(self) -> None:
        self.url = ""
        self.parts: list[bytes] = []
        self.go_on = asyncio.Event()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        for part in self.parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.05)
        await self.go_on.wait()
        writer.close()


class TestRedisLimiter(RateLimiterContract):
    @pytest.fixture
    def clock(self) -> MovedClock:
        return MovedClock()

    @pytest.fixture
    def advance(self, clock: MovedClock) -> Advance:
        return clock.advance

    @pytest.fixture
    async def limiter(self, clock: MovedClock, redis_server: RedisServer) -> AsyncIterator[RedisLimiter]:
        """Its keys are of this test's own: the server is everybody's."""
        limiter = RedisLimiter(redis_server.url, clock=clock, entropy=SystemEntropy())
        await limiter._redis.flushall()
        yield limiter
        await limiter.close()


class TestInProcessLimiter(RateLimiterContract):
    @pytest.fixture
    def clock(self) -> MovedClock:
        return MovedClock()

    @pytest.fixture
    def advance(self, clock: MovedClock) -> Advance:
        return clock.advance

    @pytest.fixture
    def limiter(self, clock: MovedClock) -> InProcessLimiter:
        return InProcessLimiter(clock)


class TestAuthenticatorsOnAnAddress(AuthenticatorsContract):
    """A passkey is of a name: an address of this machine stands for localhost."""

    @pytest.fixture
    def authenticators(self) -> SiteAuthenticators:
        return SiteAuthenticators("http://127.0.0.1:8000")


class TestStripePayments(PayingOverTime):
    @pytest.fixture
    def clock(self) -> MovedClock:
        return MovedClock()

    @pytest.fixture
    async def stub(self, clock: MovedClock) -> AsyncIterator[tuple[StripeStub, str]]:
        async with stripe(clock) as stub:
            yield stub

    @pytest.fixture
    def stripe(self, stub: tuple[StripeStub, str]) -> PretendStripe:
        return stub[0].stripe

    @pytest.fixture
    async def payments(self, stub: tuple[StripeStub, str]) -> AsyncIterator[StripePayments]:
        payments = StripePayments(Secret(KEY), SECRET_RING, FORMER, base_url=stub[1])
        yield payments
        await payments.close()
