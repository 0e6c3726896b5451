"""Stripe's own SDK against the Stripe that is none: what goes over the wire, what fails, and its pages."""

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import stripe as sdk

from distribu import Secret, SettingsUnusable, load
from distribu.adapters import stripe as outgoing
from distribu.adapters.memory.stripe import PRICES
from distribu.adapters.memory.twins import MovedClock
from distribu.adapters.stripe import StripePayments
from distribu.application.payments import Payments, PaymentsAway, PaymentsRefused
from distribu.container import running, sellable
from distribu.domain.billing import Interval, Plan
from distribu.entrypoints.stubs.stripe import PATH, StripeStub
from distribu.settings import Settings
from tests.contracts.mailing import tags
from tests.contracts.paying import EVENT, SECRET_RING, bought, page, signed, unread
from tests.integration.program import Program
from tests.stubs.stripe import KEY, SECRETS, served, stripe

ADDRESS = "owner@acme.example"


@pytest.fixture
async def stub() -> AsyncIterator[StripeStub]:
    async with stripe() as (stub, _):
        yield stub


@pytest.fixture
async def payments(stub: StripeStub) -> AsyncIterator[StripePayments]:
    payments = StripePayments(Secret(KEY), SECRET_RING, PRICES, base_url=stub.stripe.pages)
    yield payments
    await payments.close()


@pytest.fixture
async def control(stub: StripeStub) -> AsyncIterator[httpx.AsyncClient]:
    """Whoever tests, at the stub's own routes."""
    async with httpx.AsyncClient(base_url=stub.stripe.pages + "/", timeout=60) as control:
        yield control


async def fails(payments: Payments, kind: type[Exception]) -> Any:
    """How a checkout fails. Nothing that names a person or opens anything is said."""
    with pytest.raises(kind) as no:
        await page(payments)
    for told in (str(no.value), repr(no.value)):
        assert ADDRESS not in told
        assert KEY not in told
        assert KEY[-6:] not in told
    assert no.value.__cause__ is None
    return no.value


class TestTheRequest:
    async def test_it_says_which_version_it_speaks_and_nothing_of_this_machine(
        self, stub: StripeStub, payments: StripePayments
    ) -> None:
        for _ in range(2):
            await page(payments)
        for asked in stub.asked:
            headers = asked["headers"]
            assert headers["authorization"] == f"Bearer {KEY}"
            assert headers["stripe-version"] == outgoing.API_VERSION
            assert "x-stripe-client-telemetry" not in headers
            assert (
                not {"platform", "telemetry_id", "uname"}
                & json.loads(headers["x-stripe-client-user-agent"]).keys()
            )

    def test_the_version_is_the_sdks_own(self) -> None:
        assert sdk.api_version == outgoing.API_VERSION

    async def test_a_checkout_asks_for_a_subscription_and_no_more(
        self, stub: StripeStub, payments: StripePayments
    ) -> None:
        await page(payments, plan=Plan.GROWTH, interval=Interval.YEAR)
        (asked,) = stub.asked
        company = asked["form"]["client_reference_id"]
        assert asked["path"] == "/v1/checkout/sessions"
        assert asked["form"] == {
            "mode": "subscription",
            "line_items": [{"price": "price_growth_year", "quantity": "1"}],
            "success_url": "https://orders.example/account/billing?checkout=done",
            "cancel_url": "https://orders.example/account/billing?checkout=left",
            "client_reference_id": company,
            "customer_email": ADDRESS,
            "metadata": {"distribu_company": company},
            "subscription_data": {"metadata": {"distribu_company": company}},
        }

    async def test_its_idempotency_key_is_made_of_ours_and_tells_nothing(
        self, stub: StripeStub, payments: StripePayments
    ) -> None:
        for once in ("mine", "mine", "yours"):
            await page(payments, once=once)
        first, again, other = (asked["headers"]["idempotency-key"] for asked in stub.asked)
        assert first == again != other
        assert re.fullmatch("distribu-[0-9a-f]{64}", first)

    async def test_requests_share_connections(self, stub: StripeStub, payments: StripePayments) -> None:
        for once in "abc":
            await page(payments, once=once)
        connector = payments._client._session().connector
        assert connector is not None
        assert sum(map(len, connector._conns.values())) == 1


BROKEN = {
    "nothing": "",
    "half an object": '{"id": "cs_',
    "no JSON": "<html><h1>Bad Gateway</h1></html>",
    "null": "null",
    "a list": "[]",
    "a text": '"x"',
    "a number": "1",
    "no fields": "{}",
    "fields of other types": '{"url": 7, "data": 7, "items": 7}',
    "another scheme": '{"url": "javascript:alert(1)"}',
    "endless": "[" * 200_000,
    "an error that is none": '{"error": []}',
    "an error that is a text": '{"error": "x"}',
}


class TestWhenItFails:
    @pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
    @pytest.mark.parametrize("status", [200, 500])
    async def test_an_answer_that_is_none_is_away(
        self, stub: StripeStub, payments: StripePayments, control: httpx.AsyncClient, body: str, status: int
    ) -> None:
        asks: list[Callable[[], Awaitable[Any]]] = [
            lambda: page(payments),
            lambda: payments.portal(customer_ref="cus_1", back="https://orders.example"),
            lambda: payments.subscription("sub_1"),
            payments.subscriptions,
        ]
        for ask in asks[: 4 if status == 200 else 1]:
            await control.post("test/next", json={"times": 2, "status": status, "body": body})
            with pytest.raises(PaymentsAway) as no:
                await ask()
            assert body[:5] not in str(no.value) or not body
            stub.next.clear()

    async def test_too_much_is_not_read(
        self, payments: StripePayments, control: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(outgoing, "_READ_MAX", 1_000)
        await control.post("test/next", json={"times": 2, "status": 200, "body": " " * 5_000})
        assert "reached" in str(await fails(payments, PaymentsAway))

    async def test_slow_is_away_within_ten_seconds(
        self, payments: StripePayments, control: httpx.AsyncClient
    ) -> None:
        await control.post("test/next", json={"times": 9, "after": 20})
        began = time.monotonic()
        await fails(payments, PaymentsAway)
        assert 2 * outgoing.TRY_S <= time.monotonic() - began < 10

    async def test_all_tries_have_one_end(
        self, payments: StripePayments, control: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(outgoing, "TRY_S", 60.0)
        monkeypatch.setattr(outgoing, "ALL_S", 0.5)
        await control.post("test/next", json={"times": 9, "after": 3})
        assert "within 0.5 s" in str(await fails(payments, PaymentsAway))

    async def test_the_second_try_is_under_the_same_key(
        self, stub: StripeStub, payments: StripePayments, control: httpx.AsyncClient
    ) -> None:
        await control.post("test/next", json={"cut": True})
        await page(payments)
        await control.post("test/next", json={"status": 503, "body": '{"error": {"message": "busy"}}'})
        await page(payments)
        assert len({asked["headers"]["idempotency-key"] for asked in stub.asked}) == 1
        assert len(stub.stripe.sessions) == 1

    async def test_down_is_away(self) -> None:
        async with stripe() as (_, url):
            pass
        payments = StripePayments(Secret(KEY), SECRET_RING, PRICES, base_url=url)
        began = time.monotonic()
        await fails(payments, PaymentsAway)
        assert time.monotonic() - began < 10
        await payments.close()

    @pytest.mark.parametrize(
        ("said", "waits"),
        [("7", 7), ("0", 0), ("999999", 86_400), ("soon", None), ("-1", None), ("1.5", None), (None, None)],
    )
    async def test_too_often_says_when_to_come_again(
        self,
        stub: StripeStub,
        payments: StripePayments,
        control: httpx.AsyncClient,
        said: str | None,
        waits: int | None,
    ) -> None:
        body = '{"error": {"code": "rate_limit", "message": "Too many requests"}}'
        headers = {"Retry-After": said} if said else {}
        await control.post("test/next", json={"status": 429, "body": body, "headers": headers})
        assert (await fails(payments, PaymentsAway)).retry_after_s == waits
        assert stub.asked == [], "what is limited is not asked again at once"

    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (301, PaymentsAway), (400, PaymentsRefused), (401, PaymentsRefused), (402, PaymentsRefused),
            (403, PaymentsRefused), (404, PaymentsRefused), (409, PaymentsAway), (500, PaymentsAway),
            (502, PaymentsAway), (503, PaymentsAway), (504, PaymentsAway),
        ],
    )  # fmt: skip
    async def test_each_status_is_away_or_refused(
        self,
        payments: StripePayments,
        control: httpx.AsyncClient,
        caplog: pytest.LogCaptureFixture,
        status: int,
        kind: type[Exception],
    ) -> None:
        caplog.set_level(logging.DEBUG)
        said = f"No such thing for {ADDRESS} by {KEY}"
        error = {"error": {"code": "resource_missing", "param": "customer", "message": said}}
        headers = {"location": "http://127.0.0.1:1/"}
        await control.post(
            "test/next", json={"times": 2, "status": status, "body": json.dumps(error), "headers": headers}
        )
        told = str(await fails(payments, kind))
        assert str(status) in told
        assert ("resource_missing customer" in told) is (kind is PaymentsRefused)
        assert "stripe" not in {record.name for record in caplog.records}, "the SDK logs what it posts"
        assert ADDRESS not in caplog.text
        assert KEY not in caplog.text

    @pytest.mark.parametrize("kind", ["sk", "rk"])
    @pytest.mark.parametrize("live", [True, False])
    def test_a_key_hears_of_its_own_mode_alone(
        self, caplog: pytest.LogCaptureFixture, kind: str, live: bool
    ) -> None:
        key = f"{kind}_{'live' if live else 'test'}_0123456789abcdef"
        payments, now = StripePayments(Secret(key), SECRET_RING, PRICES), MovedClock().now()
        body = json.dumps(EVENT | {"livemode": live}).encode()
        assert payments.read(body, signed(body, now, SECRETS[0]), now=now).id == EVENT["id"]
        assert not caplog.records
        body = json.dumps(EVENT | {"livemode": not live}).encode()
        unread(payments, body, signed(body, now, SECRETS[0]), now)
        assert "other mode" in caplog.text

    async def test_a_wrong_key_is_refused(self, stub: StripeStub) -> None:
        payments = StripePayments(Secret(KEY + "0"), SECRET_RING, PRICES, base_url=stub.stripe.pages)
        assert "401" in str(await fails(payments, PaymentsRefused))
        assert KEY not in repr(payments)
        await payments.close()

    async def test_one_that_is_not_understood_hides_no_other(
        self, stub: StripeStub, payments: StripePayments
    ) -> None:
        first = await bought(payments, stub.stripe)
        second = await bought(payments, stub.stripe, once="two")
        stub.stripe.subscriptions[second.subscription_ref]["status"] = "of the next century"
        assert await payments.subscriptions() == ([first], None)
        with pytest.raises(PaymentsAway):
            await payments.subscription(second.subscription_ref)


class Hook:
    """Where events are sent: it keeps them with their headers, and answers as it is told."""

    def __init__(self) -> None:
        self.got: list[tuple[bytes, str]] = []
        self.status = 200
        self.most = self._now = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        self._now += 1
        self.most = max(self.most, self._now)
        await asyncio.sleep(0.01)
        self._now -= 1
        self.got.append((body, dict(scope["headers"])[b"stripe-signature"].decode()))
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": b""})


class TestTheStub:
    async def test_events_go_out_in_any_order_and_any_number_signed(
        self, stub: StripeStub, payments: StripePayments, control: httpx.AsyncClient
    ) -> None:
        await bought(payments, stub.stripe)
        ids = [event["id"] for event in stub.stripe.events]
        hook = Hook()
        async with served(hook) as url:
            await control.post("test/settings", json={"hook": url, "secrets": list(SECRETS)})
            order = [ids[2], ids[0], ids[2], ids[1]]
            assert (await control.post("test/deliver", json={"events": order, "times": 2})).json() == [
                200
            ] * 8
            now = MovedClock().now()
            read = [payments.read(body, header, now=now).id for body, header in hook.got]
            assert read == [id for id in order for _ in range(2)]
            hook.status = 500
            both = {"events": ids[:1], "times": 50, "at_the_same_time": True}
            assert (await control.post("test/deliver", json=both)).json() == [500] * 50
            assert hook.most > 10
            await control.post("test/settings", json={"hook": "http://127.0.0.1:1/"})
            assert (await control.post("test/deliver", json={"events": ids[:1]})).json() == [None]
        state = (await control.get("test/state")).json()
        assert [one["status"] for one in state["sent"]] == [200] * 8 + [500] * 50 + [None]

    async def test_what_happens_is_sent_at_once_where_that_is_wanted(
        self, stub: StripeStub, payments: StripePayments, control: httpx.AsyncClient
    ) -> None:
        hook = Hook()
        async with served(hook) as url:
            await control.post("test/settings", json={"hook": url, "at_once": True})
            session = (await page(payments)).rpartition("/")[2]
            await control.post(f"checkout/{session}/pay")
            await stub.idle()
            told = [json.loads(body)["type"] for body, _ in hook.got]
            assert told == [event["type"] for event in stub.stripe.events]
            await control.post("test/clock", json={"seconds": 31 * 86_400})
            await stub.idle()
            assert [json.loads(body)["id"] for body, _ in hook.got] == [it["id"] for it in stub.stripe.events]

    async def test_a_purchase_is_clicked_through(
        self, stub: StripeStub, payments: StripePayments, control: httpx.AsyncClient
    ) -> None:
        url = await page(payments)
        shown = await control.get(url)
        assert "Growth, each month" in shown.text
        assert "229.99 USD" in shown.text
        refused = await control.post(buttons(shown.text)["Pay by a card that is refused"])
        assert "Nothing was paid" in refused.text
        assert stub.stripe.subscriptions == {}
        paid = await control.post(buttons(refused.text)["Pay"])
        assert paid.status_code == 303
        assert paid.headers["location"] == "https://orders.example/account/billing?checkout=done"
        again = await control.post(buttons(refused.text)["Pay"])
        assert again.status_code == 400
        assert "This page is complete" in again.text
        assert len(stub.stripe.subscriptions) == 1

        customer = next(iter(stub.stripe.customers))
        portal = await payments.portal(customer_ref=customer, back="https://orders.example/account/billing")
        ref = next(iter(stub.stripe.subscriptions))
        for said, field, value in (
            ("Cancel at the end of the period", "cancel_at_period_end", True),
            ("Go on after all", "cancel_at_period_end", False),
        ):
            shown = await control.get(portal)
            assert (await control.post(buttons(shown.text)[said])).headers["location"].endswith(portal[-20:])
            assert stub.stripe.subscriptions[ref][field] is value
        shown = await control.get(portal)
        await control.post(buttons(shown.text)["Enterprise, each month, 499.00 USD"])
        found = await payments.subscription(ref)
        assert found is not None
        assert found.plan is Plan.ENTERPRISE
        shown = await control.get(portal)
        await control.post(buttons(shown.text)["By a card that is refused from now on"])
        home = await control.get("")
        opened = await control.post(buttons(home.text)["Open"])
        assert (opened.status_code, len(stub.stripe.portals)) == (303, 2)
        assert "Enterprise, each month" in (await control.get(f"portal/{[*stub.stripe.portals][-1]}")).text
        await control.post(buttons(home.text)["A month passes"])
        assert "past due" in (await control.get(portal)).text
        await control.post(buttons(shown.text)["By a card that works"])
        assert ": active." in (await control.get(portal)).text
        await control.post(buttons(shown.text)["End it at once"])
        assert stub.stripe.subscriptions[ref]["status"] == "canceled"

    async def test_its_pages_have_no_script_no_style_in_them_and_no_field(
        self, stub: StripeStub, payments: StripePayments, control: httpx.AsyncClient
    ) -> None:
        name = '<script>alert("1")</script>@acme.example'
        it = await bought(payments, stub.stripe, email=name)
        open_page = await page(payments, email=name, once="two")
        portal = await payments.portal(customer_ref=it.customer_ref, back="https://orders.example/x")
        for url in ("", open_page, portal, "checkout/none", "portal/none", "else"):
            shown = await control.get(url)
            policy = shown.headers["content-security-policy"]
            assert "script-src 'self'" in policy
            assert "unsafe" not in policy
            assert shown.headers["x-frame-options"] == "DENY"
            found = tags(shown.text)
            assert {tag for tag, _ in found} & {
                "script",
                "style",
                "input",
                "select",
                "textarea",
                "iframe",
            } == set()
            assert not [it for _, it in found if {"style", "onclick"} & it.keys()]
        assert (
            "form-action 'self' https://orders.example;"
            in (await control.get(open_page)).headers["content-security-policy"]
        )
        assert (await control.get("stripe.css")).headers["content-type"].startswith("text/css")

    @pytest.mark.parametrize(
        ("path", "sent"),
        [
            ("test/clock", {"seconds": -1}), ("test/clock", {"seconds": 10**9}), ("test/clock", {"days": 1}),
            ("test/next", {"times": "x"}), ("test/settings", {"else": 1}), ("test/none", {}),
            ("test/subscriptions/none", {}), ("checkout/none/pay", {}), ("portal/none/cancel", {}),
        ],
    )  # fmt: skip
    async def test_what_it_is_asked_wrongly_is_no_mistake_of_its_own(
        self, control: httpx.AsyncClient, path: str, sent: Any
    ) -> None:
        assert (await control.post(path, json=sent)).status_code in (400, 404)

    async def test_an_expired_page_sells_nothing(
        self, stub: StripeStub, payments: StripePayments, control: httpx.AsyncClient
    ) -> None:
        session = (await page(payments)).rpartition("/")[2]
        stub.stripe.move(timedelta(days=1))
        assert (await control.post(f"checkout/{session}/pay")).status_code == 400
        assert stub.stripe.subscriptions == {}


def buttons(page: str) -> dict[str, str]:
    """Where each button of a page leads, by what it says."""
    forms = re.findall(r'<form method="post" action="([^"]+)"><button[^>]*>([^<]+)</button></form>', page)
    return {said: to.replace("&amp;", "&").removeprefix(PATH + "/") for to, said in forms}


def environ(url: str) -> dict[str, str]:
    """The settings of who sells at this Stripe."""
    prices = {f"DISTRIBU_STRIPE_PRICE_{plan}_{it}": refs[0] for (plan, it), refs in PRICES.items()}
    secrets = {"DISTRIBU_STRIPE_KEY": KEY, "DISTRIBU_STRIPE_WEBHOOK_SECRETS": ",".join(SECRETS)}
    return {**prices, **secrets, "DISTRIBU_STRIPE_API_BASE": url}


class TestStarting:
    async def test_what_is_missing_at_stripe_keeps_it_from_starting(self, stub: StripeStub) -> None:
        settings = load(environ(stub.stripe.pages))
        await sellable(settings)
        del stub.stripe.prices["price_growth_year"]
        with pytest.raises(SettingsUnusable) as no:
            await sellable(settings)
        assert no.value.problems == [
            "DISTRIBU_STRIPE_PRICE_GROWTH_YEAR: Stripe has no price price_growth_year"
        ]
        with pytest.raises(SettingsUnusable, match="DISTRIBU_STRIPE_KEY does not open"):
            await sellable(load({**environ(stub.stripe.pages), "DISTRIBU_STRIPE_KEY": KEY + "0"}))

    async def test_while_stripe_is_away_it_starts(self, caplog: pytest.LogCaptureFixture) -> None:
        await sellable(load(environ("http://127.0.0.1:1")))
        assert "not known" in caplog.text

    async def test_without_a_key_nothing_is_sold(self, settings: Settings) -> None:
        await sellable(settings)
        async with running(settings) as distribu:
            assert distribu.ports.payments is None

    async def test_with_a_key_it_is_stripe(self, settings: Settings, stub: StripeStub) -> None:
        given = load(environ(stub.stripe.pages))
        fields = {
            name: getattr(given, name) for name in given.__struct_fields__ if name.startswith("stripe_")
        }
        async with running(msgspec.structs.replace(settings, **fields)) as distribu:
            assert distribu.ports.payments is not None
            assert (await page(distribu.ports.payments)).startswith(stub.stripe.pages)

    async def test_the_command_names_each_price_and_what_is_wrong(
        self, stub: StripeStub, tmp_path: Path
    ) -> None:
        program = Program(tmp_path, **environ(stub.stripe.pages))
        done = await asyncio.to_thread(program.run, "billing", "check", "--json")
        assert done.code == 0, done.err
        assert [one["wrong"] for one in json.loads(done.out)["data"]] == [""] * 6
        stub.stripe.prices["price_starter_year"]["active"] = False
        done = await asyncio.to_thread(program.run, "billing", "check")
        assert done.code == 3
        assert "DISTRIBU_STRIPE_PRICE_STARTER_YEAR" in done.out
        assert "archived" in done.out
        done = await asyncio.to_thread(
            program.run, "billing", "check", DISTRIBU_STRIPE_API_BASE="http://127.0.0.1:1"
        )
        assert done.code == 3
        assert KEY not in done.out + done.err


class TestServing:
    def test_a_demo_has_a_stripe_that_is_none(self, tmp_path: Path) -> None:
        with (
            Program(tmp_path, DISTRIBU_PORT="0").serving("--demo") as it,
            httpx.Client(base_url=it.url) as browser,
        ):
            shown = browser.get(PATH)
            assert shown.status_code == 200
            assert "no card is asked for" in shown.text
            assert "script-src 'self'" in shown.headers["content-security-policy"]
            assert browser.get(f"{PATH}/test/state").status_code == 404
            for path in ("test/settings", "test/clock", "test/next"):
                assert browser.post(f"{PATH}/{path}", json={}).status_code == 404
            elsewhere = {"sec-fetch-site": "cross-site"}
            assert browser.post(f"{PATH}/clock?days=1", headers=elsewhere).status_code == 403
            assert browser.post(f"{PATH}/clock?days=1").status_code == 303
            assert it.stop() == 0

    def test_no_other_has(self, tmp_path: Path) -> None:
        with Program(tmp_path, DISTRIBU_PORT="0").serving() as it, httpx.Client(base_url=it.url) as browser:
            for path in (PATH, f"{PATH}/test/state", f"{PATH}/v1/subscriptions"):
                assert browser.get(path).status_code == 404
            assert it.stop() == 0
