"""Distribu as servers of their own that sell through Stripe's SDK, and the Stripe that is none, over HTTP."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

import httpx
import psycopg

from distribu import Distribu, Role, Secret, Settings, Shop
from distribu.adapters.memory.stripe import PRICES, PretendStripe
from distribu.adapters.stripe import StripePayments
from distribu.application.billing import AWAY_S, ReadSubscription
from distribu.application.notices import ReplayNotice
from distribu.application.payments import Payments, PaymentsAway
from distribu.domain.access import Actor
from distribu.domain.billing import Plan
from distribu.domain.errors import Busy
from distribu.entrypoints.http.notices import PATH as HOOK
from distribu.entrypoints.http.sessions import Keys, Sessions
from distribu.entrypoints.stubs.stripe import PATH, StripeStub
from tests import people
from tests.contracts.notices import Buying
from tests.proofs import books
from tests.proofs.conftest import House
from tests.proofs.processes import Server, free_port, superuser
from tests.stubs.stripe import KEY, SECRETS, served

CRON_TOKEN: Final = "cron-0123456789_abcdefghijklmnopqr"
WAIT_S: Final = 30.0

Said = tuple[str, int | None]
"""The code of a refusal, or a status; and when to come again, in seconds."""

_HELD: Final = """
SELECT pid FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE NOT granted AND relation = 'distribu.mails'::regclass AND usename = 'distribu'
"""
_LONG_OPEN: Final = """
SELECT pid, state, query FROM pg_stat_activity WHERE usename IN ('distribu', 'distribu_queue')
    AND (state LIKE 'idle in transaction%' AND state_change < clock_timestamp() - interval '0.5 s'
        OR state <> 'idle' AND xact_start < clock_timestamp() - interval '2 s')
"""


class Stripe:
    """The stub on a port that stays the same when it goes down and comes up again."""

    def __init__(self, distribu: Distribu) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}{PATH}"
        ports = distribu.ports
        self.pretend = PretendStripe(ports.clock.now, pages=self.url, seed=ports.entropy.bytes(6).hex())
        self.stub = StripeStub(self.pretend, key=KEY, secrets=SECRETS[:1], testable=True)
        self._up = AsyncExitStack()

    async def up(self) -> None:
        """Listen."""
        await self._up.enter_async_context(served(self.stub, self.port))

    async def down(self) -> None:
        """Refuse connections, and cut those there are."""
        await self._up.aclose()

    async def next(self, times: int, **how: Any) -> None:
        """Have the next requests of the API answered like this."""
        async with httpx.AsyncClient() as control:
            await control.post(f"{self.url}/test/next", json={"times": times, **how})


@dataclass
class Sold(Buying):
    """A company that buys over HTTP, as its OWNER in a browser, and is told over HTTP what Stripe tells."""

    house: House = field(kw_only=True)
    stub: Stripe = field(kw_only=True)
    servers: list[Server] = field(kw_only=True)
    cookie: str = field(kw_only=True)

    @property
    def server(self) -> Server:
        return self.servers[0]

    @asynccontextmanager
    async def browser(self) -> AsyncIterator[httpx.AsyncClient]:
        """The OWNER's."""
        headers = {"cookie": self.cookie, "sec-fetch-site": "same-origin"}
        async with httpx.AsyncClient(base_url=self.server.url, headers=headers, timeout=60) as browser:
            yield browser

    async def another(self) -> "Sold":
        """Another company that may buy at the same servers."""
        shop = await Shop.open(self.distribu)
        return replace(self, shop=shop, cookie=await _owner(shop, self.house))

    async def buys(self, plan: Plan = Plan.GROWTH) -> dict[str, Any]:
        async with self.browser() as browser:
            answer = await browser.post("/account/billing/checkout", json={"plan": plan, "interval": "MONTH"})
        assert answer.status_code == 200, answer.text
        return self.stripe.pay(answer.json()["data"]["url"].rpartition("/")[2])

    async def posted(self, event: dict[str, Any], server: Server | None = None) -> httpx.Response:
        """What a server answers to an event."""
        body, header = self.stripe.signed(event, SECRETS[:1])
        headers = {"stripe-signature": header, "content-type": "application/json"}
        async with httpx.AsyncClient(timeout=60) as http:
            return await http.post((server or self.server).url + HOOK, content=body, headers=headers)

    async def hear(self, event: dict[str, Any]) -> Any:
        """Send it until it is taken, as Stripe does."""
        for _ in range(100):
            answer = await self.posted(event)
            if answer.status_code == 200:
                return 200
            assert answer.status_code == 503, answer.text
            await asyncio.sleep(0.05)
        raise AssertionError("never heard")

    async def lost(self, event: dict[str, Any]) -> None:
        """Send it to a server that is killed at it."""
        try:
            answer = await self.posted(event)
        except httpx.TransportError:
            return
        raise AssertionError(f"it was answered: {answer.text}")

    async def told(self, event: dict[str, Any]) -> Said:
        return _said(await self.posted(event))

    async def page(self, name: str, **body: str) -> Said:
        """What the OWNER is answered who asks for a page of Stripe's."""
        async with self.browser() as browser:
            return _said(await browser.post(f"/account/billing/{name}", json=body))

    async def replayed(self, event: dict[str, Any]) -> Said:
        """What comes of it when whoever runs the platform replays it."""
        try:
            replayed = await self.shop.execute(ReplayNotice(ref=event["id"]), Actor.system(None, "cli"))
        except Busy as refusal:
            return refusal.code, refusal.retry_after_s
        return str(replayed.status), None

    async def read(self, ask: Callable[[Payments], Awaitable[Any]]) -> Said:
        """What comes of a question to Stripe that no request waits for."""
        assert self.distribu.ports.payments is not None
        try:
            await ask(self.distribu.ports.payments)
        except PaymentsAway as away:
            return "payments_away", away.retry_after_s or AWAY_S
        return "OK", None

    async def asked_to(self, job: str, server: Server | None = None) -> httpx.Response:
        """Have a server run a job now."""
        headers = {"authorization": f"Bearer {CRON_TOKEN}"}
        async with httpx.AsyncClient(timeout=300) as http:
            return await http.post(f"{(server or self.server).url}/cron/{job}", headers=headers)

    def mails(self) -> int:
        """How many were written for the company."""
        with superuser(self.house.data_dir) as root:
            return books.count(
                root, "SELECT count(*) FROM distribu.mails WHERE company_id = %s", self.shop.company.id
            )

    async def standing(self) -> tuple[str, str]:
        it = await self.shop.execute(ReadSubscription())
        return it.plan, it.status


def _said(answer: httpx.Response) -> Said:
    again = answer.headers.get("retry-after")
    return answer.json().get("code", str(answer.status_code)), None if again is None else int(again)


async def _owner(shop: Shop, house: House) -> str:
    """The cookie of an OWNER, as every server on these data would give it."""
    owner = await people.staff(shop, Role.OWNER)
    staff, store = Settings(data_dir=str(house.data_dir)).session_keys()
    keys = Keys(staff=tuple(staff), store=tuple(store))
    return Sessions(shop.distribu, keys, production=False).begun(owner.session, None).partition(";")[0]


@asynccontextmanager
async def selling(house: House, *, servers: int = 1, **settings: object) -> AsyncIterator[Sold]:
    """A company that may buy, on servers of its own, and their Stripe."""
    stripe = Stripe(house.distribu)
    await stripe.up()
    prices = {f"stripe_price_{plan}_{every}".lower(): refs[0] for (plan, every), refs in PRICES.items()}
    given: dict[str, object] = {
        "stripe_key": KEY,
        "stripe_webhook_secrets": ",".join(SECRETS),
        "stripe_api_base": stripe.url,
        "cron_token": CRON_TOKEN,
        **prices,
        **settings,
    }
    payments = StripePayments(Secret(KEY), [Secret(one) for one in SECRETS], PRICES, base_url=stripe.url)
    sells = Distribu(replace(house.distribu.ports, payments=payments))
    shop = await Shop.open(sells)
    started = [Server(house.data_dir, **given) for _ in range(servers)]
    try:
        await asyncio.gather(*(one.started() for one in started))
        nobody: Any = None
        cookie = await _owner(shop, house)
        yield Sold(shop, stripe.pretend, nobody, house=house, stub=stripe, servers=started, cookie=cookie)
        for one in started:
            assert await one.stop() == 0, one.said()
    finally:
        for one in started:
            one.end()
        await payments.close()
        await stripe.stub.close()
        await stripe.down()


class Held:
    """Mails cannot be written: a change that writes one has done the rest, and waits to be committed."""

    def __init__(self, watching: "psycopg.Connection[Any]", holding: "psycopg.Connection[Any]") -> None:
        self._watching = watching
        self._holding = holding

    async def somebody(self) -> int:
        """Wait until a change is held up; the process of the database that is."""
        async with asyncio.timeout(WAIT_S):
            while True:
                found = self._watching.execute(_HELD).fetchone()
                if found is not None:
                    return int(found[0])
                await asyncio.sleep(0.01)

    async def undo(self, pid: int) -> None:
        """As PostgreSQL does when it notices that nobody is there any more."""
        self._watching.execute("SELECT pg_terminate_backend(%s)", [pid])
        await self.over(pid)

    async def over(self, pid: int) -> None:
        """Wait until this process of the database is gone."""
        async with asyncio.timeout(WAIT_S):
            there = "SELECT 1 FROM pg_stat_activity WHERE pid = %s"
            while self._watching.execute(there, [pid]).fetchone():  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    def let_go(self) -> None:
        """Let what is held up go on."""
        self._holding.rollback()


@contextmanager
def mails_held(house: House) -> Iterator[Held]:
    """Nobody writes a mail in here, unless they are let go."""
    with superuser(house.data_dir) as watching, superuser(house.data_dir) as holding:
        holding.autocommit = False
        holding.execute("LOCK TABLE distribu.mails IN SHARE MODE")
        try:
            yield Held(watching, holding)
        finally:
            holding.rollback()


@asynccontextmanager
async def no_transaction_waits(house: House) -> AsyncIterator[list[Any]]:
    """Look at what the database is at, all the time: nobody holds a transaction and does nothing in it."""
    found: list[Any] = []
    looks = 0

    async def look() -> None:
        nonlocal looks
        with superuser(house.data_dir) as root:
            while True:
                found.extend(root.execute(_LONG_OPEN).fetchall())
                looks += 1
                await asyncio.sleep(0.1)

    looking = asyncio.create_task(look())
    try:
        yield found
    finally:
        looking.cancel()
    assert looks
    assert not found, found
