"""The life of a subscription over HTTP: PostgreSQL, Stripe's own SDK, the pages of the Stripe that is none.

It takes months, so it has a database of its own.
"""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import httpx
import pytest

from distribu import Distribu, Secret, Settings, Worker
from distribu.adapters.memory.stripe import PRICES
from distribu.adapters.stripe import StripePayments
from distribu.container import database
from distribu.entrypoints.harness import KEYS
from distribu.entrypoints.http.notices import PATH as HOOK
from distribu.entrypoints.http.serve import listening
from distribu.entrypoints.stubs.stripe import PATH, StripeStub
from tests.contracts.postgres import OnPostgres, on_postgres
from tests.integration.test_payments import buttons
from tests.lifecycle import NAME, TOLD, live
from tests.stubs.stripe import KEY, SECRETS, stripe

ADDRESS = "ada@longacre.example"
PASSWORD = "tractor violet ocean"


class OverHttp:
    """It as its OWNER lives it in a browser. Until something is bought it is our time that passes; then that
    of the Stripe that is none, by the button on its page."""

    def __init__(
        self, postgres: OnPostgres, sells: Distribu, stub: StripeStub, browser: httpx.AsyncClient
    ) -> None:
        self.mail = postgres.mail
        self.received = postgres.received
        self._clock = postgres.clock
        self._sells = sells
        self._stub = stub
        self._browser = browser

    async def sign_up(self) -> str:
        asked = {"companyName": NAME, "fullName": "Ada Marsh", "email": ADDRESS, "password": PASSWORD}
        assert (await self._browser.post("/auth/sign-up", json=asked)).status_code == 204
        await self.work()
        token = self.mail[-1].link.partition("#")[2]
        verified = await self._browser.post("/auth/verify", json={"token": token, "password": PASSWORD})
        assert verified.status_code == 204, verified.text
        return ADDRESS

    async def owner(self) -> httpx.AsyncClient:
        account = self._browser.base_url.join("/account")
        if (await self._browser.get(account)).status_code == 401:
            to, asked = account.join("/auth/sign-in"), {"email": ADDRESS, "password": PASSWORD}
            assert (await self._browser.post(to, json=asked)).status_code == 200
        self._browser.base_url = account
        return self._browser

    async def work(self) -> None:
        await self._stub.idle()
        await Worker(self._sells).drain()

    async def pass_days(self, days: int) -> None:
        for _ in range(days):
            if self._stub.stripe.subscriptions:
                await self._press("", "A day passes")
            else:
                self._clock.advance(days=1)
            await self.work()

    async def pay(self, plan: str) -> None:
        if not self._stub.stripe.subscriptions:
            left = await self._press(await self._page("checkout", {"plan": plan, "interval": "MONTH"}), "Pay")
            back = await self._browser.get(self._browser.base_url.join(left.raw_path.decode()))
            assert (left.path, back.status_code) == ("/account/billing", 200), back.text
            return
        portal = await self._page("portal", {})
        await self._press(portal, "By a card that works")
        other = [
            said for said in await self._buttons(portal) if said.startswith(f"{plan.title()}, each month")
        ]
        for said in other:
            await self._press(portal, said)

    async def fail(self) -> None:
        await self._press(await self._page("portal", {}), "By a card that is refused from now on")

    async def cancel(self) -> None:
        await self._press(await self._page("portal", {}), "Cancel at the end of the period")

    async def tell_all_again(self) -> None:
        assert set(await self._stub.deliver(None)) == {200}

    async def _page(self, what: str, body: dict[str, str]) -> str:
        """The page of Stripe's that the OWNER is sent to, below its own."""
        browser = await self.owner()
        answer = await browser.post(f"/billing/{what}", json=body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["data"]["url"]).partition(PATH)[2]

    async def _buttons(self, page: str) -> dict[str, str]:
        shown = await self._browser.get(self._stub.stripe.pages + page)
        assert shown.status_code == 200, shown.text
        return buttons(shown.text)

    async def _press(self, page: str, said: str) -> httpx.URL:
        """Press a button; where it leads to."""
        to = (await self._buttons(page))[said]
        pressed = await self._browser.post(f"{self._stub.stripe.pages}/{to}")
        assert pressed.status_code == 303, pressed.text
        await self._stub.idle()
        return httpx.URL(pressed.headers["location"])


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    with database(Settings(data_dir=str(tmp_path_factory.mktemp("months")), port=0)) as ready:
        yield ready


@pytest.fixture
async def stage(settings: Settings) -> AsyncIterator[OverHttp]:
    secrets = [Secret(one) for one in SECRETS]
    async with on_postgres(settings) as postgres, stripe(postgres.clock) as (stub, pages):
        payments = StripePayments(Secret(KEY), secrets, PRICES, base_url=pages)
        sells = Distribu(replace(postgres.distribu.ports, payments=payments))
        async with listening(sells, "127.0.0.1", 0, keys=KEYS) as url:
            stub.hook, stub.at_once = url + HOOK, True
            headers = {"sec-fetch-site": "same-origin"}
            async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as browser:
                yield OverHttp(postgres, sells, stub, browser)
        await payments.close()


async def test_it_is_lived_over_http_on_postgres_with_stripes_own_sdk(stage: OverHttp) -> None:
    assert await live(stage) == TOLD
