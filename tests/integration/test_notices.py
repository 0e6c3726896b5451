"""What Stripe tells us, over HTTP: its real SDK on one side, the stub's signed webhooks on the other."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import sqlalchemy as sa

from distribu import Actor, Distribu, Role, Secret, Settings, Shop
from distribu.adapters import stripe_words
from distribu.adapters.memory.stripe import PRICES, PretendStripe
from distribu.adapters.postgres.driver import Statement
from distribu.adapters.postgres.store import PostgresStore
from distribu.adapters.stripe import StripePayments
from distribu.application.billing import ReadSubscription
from distribu.application.payments import NOTICE_MAX, TOLERANCE_S
from distribu.application.ports import Scope
from distribu.application.reconciling import Difference, Looked, SyncBilling
from distribu.domain.accounts import REALM
from distribu.domain.billing import Interval, Plan
from distribu.domain.notices import notice_id
from distribu.entrypoints.harness import KEYS
from distribu.entrypoints.http import wire
from distribu.entrypoints.http.metrics import page
from distribu.entrypoints.http.notices import PATH
from distribu.entrypoints.http.serve import listening
from distribu.entrypoints.http.sessions import Sessions
from distribu.entrypoints.stubs.stripe import Next, StripeStub
from tests import people
from tests.contracts.asking import log_of
from tests.integration.program import Program
from tests.stubs.stripe import KEY, SECRETS, stripe

REPLAY: Final = "/api/admin/billing/events/replay"
_IN_TRANSACTION: Final = Statement(
    sa.text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE state LIKE 'idle in transaction%' AND usename = current_user"
    )
)


@dataclass
class Selling:
    """Distribu on PostgreSQL that sells through the stub, and its URL."""

    shop: Shop
    distribu: Distribu
    stub: StripeStub
    url: str
    browser: httpx.AsyncClient

    async def posted(self, event: dict[str, Any], *secrets: str, body: bytes | None = None) -> httpx.Response:
        signed, header = self.stub.stripe.signed(event, secrets or SECRETS[:1])
        headers = {"stripe-signature": header, "content-type": "application/json"}
        return await self.browser.post(PATH, content=body or signed, headers=headers)

    async def buy(self, plan: str = "GROWTH") -> str:
        """As the OWNER does in a browser; the subscription's id at the stub."""
        body = {"plan": plan, "interval": "MONTH"}
        answer = await self.browser.post("/account/billing/checkout", json=body)
        assert answer.status_code == 200, answer.text
        return str(self.stub.stripe.pay(answer.json()["data"]["url"].rpartition("/")[2])["id"])

    async def deliver(self, *types: str) -> list[Any]:
        """Have the stub send what happened, of these types or all."""
        ids = [one["id"] for one in self.stub.stripe.events if not types or one["type"] in types]
        return await self.stub.deliver(ids)

    async def stands(self) -> tuple[str, str]:
        it = await self.shop.execute(ReadSubscription())
        return it.plan, it.status

    async def kept(self, event: dict[str, Any]) -> Any:
        for company in (self.shop.company.id, REALM):
            async with self.distribu.ports.store.begin(Scope(company), readonly=True) as tx:
                if (found := await tx.notices.get(notice_id(event["id"]))) is not None:
                    return found
        return None


@pytest.fixture
async def selling(distribu: Distribu) -> AsyncIterator[Selling]:
    async with stripe() as (stub, _):
        stub.stripe._clock = distribu.ports.clock.now
        stub.stripe._seed = distribu.ports.entropy.bytes(6).hex()
        secrets = [Secret(one) for one in SECRETS]
        payments = StripePayments(Secret(KEY), secrets, PRICES, base_url=stub.stripe.pages)
        sells = Distribu(replace(distribu.ports, payments=payments))
        shop = await Shop.open(sells)
        owner = await people.staff(shop, Role.OWNER)
        async with listening(sells, "127.0.0.1", 0, keys=KEYS) as url:
            stub.hook = url + PATH
            begun = Sessions(sells, KEYS, production=False).begun(owner.session, None)
            headers = {"cookie": begun.partition(";")[0], "sec-fetch-site": "same-origin"}
            async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as browser:
                yield Selling(shop, sells, stub, url, browser)
        await payments.close()


async def test_fifty_deliveries_of_everything_at_once_are_each_applied_once(selling: Selling) -> None:
    await selling.buy()
    for _ in range(5):  # as Stripe does: again, while it is told to
        statuses = await selling.stub.deliver(None, times=50, at_once=True)
        assert set(statuses) <= {200, 503}
        if set(statuses) == {200}:
            break
    assert set(await selling.stub.deliver(None)) == {200}
    assert await selling.stands() == ("GROWTH", "ACTIVE")
    actions = [one.action for one in await log_of(selling.shop)]
    assert (actions.count("subscription.updated"), actions.count("invoice.paid")) == (1, 1)
    assert len(await log_of(selling.shop, "payment_notice.applied")) == 2


async def test_a_body_that_drips_or_breaks_off_holds_nothing_and_is_not_logged(
    selling: Selling, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(wire, "BODY_S", 0.3)
    host, port = selling.url.removeprefix("http://").split(":")
    head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\nstripe-signature: t=1,v1=a\r\ncontent-length: 500\r\n\r\n{{"
    with caplog.at_level(logging.INFO, "distribu"), caplog.at_level(logging.INFO, "uvicorn"):
        for hangs_up in (True, False):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(head.encode())
            await writer.drain()
            if hangs_up:
                writer.close()
                await asyncio.sleep(0.1)
                continue
            async with asyncio.timeout(5):
                said = asyncio.create_task(reader.read())
                while not said.done():
                    writer.write(b"x")
                    await asyncio.sleep(0.05)
            writer.close()
            assert (await said).startswith(b"HTTP/1.1 408 ")
    assert [one.getMessage() for one in caplog.records if one.levelno > logging.INFO] == []


async def test_what_is_not_genuine_is_answered_400_keeps_nothing_and_is_counted(selling: Selling) -> None:
    await selling.buy()
    event = selling.stub.stripe.events[-1]
    signed, header = selling.stub.stripe.signed(event, SECRETS[:1])
    changed = signed[:-20] + bytes([signed[-20] ^ 1]) + signed[-19:]
    wrong = [
        await selling.posted(event, "whsec_retired0123456789"),
        await selling.posted(event, body=changed),
        await selling.posted(event, body=signed + b"\n"),
        await selling.browser.post(PATH, content=signed),
        await selling.browser.post(PATH, content=signed, headers={"stripe-signature": "x" * 5_000}),
        await selling.browser.post(PATH, content=signed, headers={"stripe-signature": header + ",t=1"}),
    ]
    assert [(one.status_code, one.json()["code"]) for one in wrong] == [(400, "invalid_signature")] * 6
    assert await selling.kept(event) is None
    assert selling.distribu.counts.notices == {"refused": 6}
    large = await selling.browser.post(PATH, content=b"x" * (NOTICE_MAX + 1))
    assert large.status_code == 413
    assert (await selling.posted(event, SECRETS[1])).status_code == 200, "the other one during a rotation"
    assert (await selling.kept(event)).ref == event["id"]


async def test_what_is_too_old_or_ahead_is_answered_400_keeps_nothing_and_is_counted(
    selling: Selling,
) -> None:
    await selling.buy()
    event = selling.stub.stripe.events[-1]
    counts, now = selling.distribu.counts, selling.distribu.ports.clock.now()

    async def sent(seconds: int) -> tuple[int, str]:
        at = PretendStripe(lambda: now + timedelta(seconds=seconds))
        body, header = at.signed(event, SECRETS[:1])
        answer = await selling.browser.post(PATH, content=body, headers={"stripe-signature": header})
        return answer.status_code, answer.json().get("code", "")

    for seconds in (-TOLERANCE_S - 30, -86_400, TOLERANCE_S + 30):
        assert await sent(seconds) == (400, "invalid_signature")
    assert await selling.kept(event) is None
    assert counts.notices == {"refused": 3}
    assert await sent(-TOLERANCE_S + 30) == (200, "")
    shown = "".join(page(selling.distribu, None))
    assert 'distribu_payment_notices_total{outcome="refused"} 3\n' in shown


async def test_two_secrets_hold_while_one_is_replaced_and_the_retired_one_no_longer(
    selling: Selling,
) -> None:
    await selling.buy()
    new, old = SECRETS
    first, second, third = selling.stub.stripe.events[-3:]
    answers = [await selling.posted(first, old), await selling.posted(second, new, old)]
    assert [one.status_code for one in answers] == [200, 200]
    retired = StripePayments(Secret(KEY), [Secret(new)], PRICES, base_url=selling.stub.stripe.pages)
    later = Distribu(replace(selling.distribu.ports, payments=retired))
    async with listening(later, "127.0.0.1", 0) as url, httpx.AsyncClient(base_url=url) as client:
        for event in (first, third):  # known or not
            body, header = selling.stub.stripe.signed(event, [old])
            no = await client.post(PATH, content=body, headers={"stripe-signature": header})
            assert (no.status_code, no.json()["code"]) == (400, "invalid_signature")
        assert await selling.kept(third) is None
        assert later.counts.notices == {"refused": 2}
        body, header = selling.stub.stripe.signed(third, [old, new])  # as Stripe does for a day
        yes = await client.post(PATH, content=body, headers={"stripe-signature": header})
        assert yes.status_code == 200
    await retired.close()


@pytest.mark.parametrize("how", [{"after": 20.0}, {"status": 503}, {"status": 429}, {"cut": True}])
async def test_while_stripe_is_away_nothing_waits_long_and_nothing_is_lost(
    selling: Selling, how: dict[str, Any]
) -> None:
    await selling.buy()
    event = next(one for one in selling.stub.stripe.events if one["type"] == "customer.subscription.created")
    async with httpx.AsyncClient(timeout=60) as control:
        await control.post(f"{selling.stub.stripe.pages}/test/next", json={"times": 2, **how})
    clock = selling.distribu.ports.clock
    began = clock.elapsed()
    answer = await selling.posted(event)
    assert clock.elapsed() - began < 10
    assert (answer.status_code, answer.json()["code"]) == (503, "payments_away")
    assert int(answer.headers["retry-after"]) >= 1
    assert (await selling.kept(event)).status == "WAITING"
    selling.stub.next.clear()
    assert (await selling.posted(event)).status_code == 200
    assert await selling.stands() == ("GROWTH", "ACTIVE")


@pytest.mark.parametrize("what", ["not there", "no price of ours"])
async def test_what_is_known_here_and_not_there_is_kept_as_failed(selling: Selling, what: str) -> None:
    ref = await selling.buy()
    await selling.deliver()
    it = selling.stub.stripe.subscriptions[ref]
    selling.stub.stripe.cancel(ref, now=True)
    event = selling.stub.stripe.events[-1]
    assert event["type"] == "customer.subscription.deleted"
    price = it["items"]["data"][0]["price"]
    ours = price["id"]
    price["id"] = "price_of_a_book"
    if what == "not there":
        del selling.stub.stripe.subscriptions[ref]
    answer = await selling.posted(event)
    assert (answer.status_code, answer.json()["code"]) == (503, "payments_away")
    kept = await selling.kept(event)
    assert (kept.status, ref in kept.error) == ("FAILED", True)
    assert await selling.stands() == ("GROWTH", "ACTIVE")
    selling.stub.stripe.subscriptions[ref], price["id"] = it, ours
    assert (await selling.posted(event)).status_code == 200
    assert await selling.stands() == ("GROWTH", "CANCELED")


async def test_no_transaction_is_held_while_stripe_thinks(selling: Selling) -> None:
    await selling.buy()
    event = next(one for one in selling.stub.stripe.events if one["type"] == "customer.subscription.created")
    async with httpx.AsyncClient(timeout=60) as control:
        await control.post(f"{selling.stub.stripe.pages}/test/next", json={"times": 1, "after": 2.0})
    asked = len(selling.stub.asked)
    slow = asyncio.create_task(selling.posted(event))
    await asyncio.sleep(0.5)
    store = selling.distribu.ports.store
    assert isinstance(store, PostgresStore)
    rows = await store.ask(_IN_TRANSACTION.of())
    assert rows[0][0] == 0
    assert (await slow).status_code == 200
    assert len(selling.stub.asked) >= asked


async def test_what_failed_is_replayed_by_a_super_admin_and_from_the_command_line(
    selling: Selling, settings: Settings, tmp_path: Path
) -> None:
    """A key that opens nothing: both notices fail, and what the OWNER bought is there once it is right."""
    await selling.buy()
    by_type = {one["type"]: one for one in selling.stub.stripe.events}
    paid, created = by_type["invoice.paid"], by_type["customer.subscription.created"]
    selling.stub.next = [Next(status=401, body='{"error": {"code": "api_key_invalid"}}')] * 3
    for event in (paid, created):
        assert (await selling.posted(event)).status_code == 503
    admin = await people.staff(selling.shop, None, super_admin=True)
    cookie = Sessions(selling.distribu, KEYS, production=False).begun(admin.session, None).partition(";")[0]
    headers = {"cookie": cookie, "sec-fetch-site": "same-origin"}
    async with httpx.AsyncClient(base_url=selling.url, headers=headers) as browser:
        listed = (await browser.get("/api/admin/billing/events?failed=true")).json()["data"]
        shown = {one["ref"]: (one["status"], one["error"]) for one in listed}
        assert shown[paid["id"]] == shown[created["id"]] == ("FAILED", "Stripe answered 401 api_key_invalid")
        again = {"ref": paid["id"]}
        failed = await browser.post(REPLAY, json=again)
        assert (failed.status_code, failed.json()["code"]) == (503, "payments_away")
        replayed = await browser.post(REPLAY, json=again)
        assert (replayed.status_code, replayed.json()["data"]["status"]) == (200, "APPLIED")
    refused = await selling.browser.post(REPLAY, json=again)
    assert refused.status_code == 403, "an OWNER is none who runs the platform"
    prices = {f"stripe_price_{plan}_{every}": refs[0] for (plan, every), refs in PRICES.items()}
    given: dict[str, Any] = {
        "database_url": settings.database_url,
        "queue_database_url": settings.queue_database_url,
        "stripe_key": KEY,
        "stripe_webhook_secrets": SECRETS[0],
        "stripe_api_base": selling.stub.stripe.pages,
        **prices,
    }
    program = Program(tmp_path, **{f"DISTRIBU_{name.upper()}": value for name, value in given.items()})

    async def ran(*words: str) -> Any:
        done = await asyncio.to_thread(program.run, "billing", *words, "--json")
        assert (done.code, done.err) == (0, "")
        return json.loads(done.out)

    assert created["id"] in [one["ref"] for one in (await ran("events", "--failed"))["data"]]
    for _ in "ab":
        assert (await ran("replay", created["id"]))["status"] == "APPLIED"
    assert not {paid["id"], created["id"]} & {one["ref"] for one in (await ran("events", "--failed"))["data"]}
    actions = [one.action for one in await log_of(selling.shop)]
    assert (actions.count("invoice.paid"), actions.count("subscription.updated")) == (1, 1)


async def test_what_was_never_told_is_found_and_taken_over_by_the_real_sdk(selling: Selling) -> None:
    """More than a page of Stripe's list, one that is not understood, and one that is of nobody."""
    sub, pretend = await selling.buy(), selling.stub.stripe
    for number in range(230):
        copied = {**pretend.subscriptions[sub], "id": f"sub_{number:03}", "metadata": {}, "customer": "cus_x"}
        pretend.subscriptions[copied["id"]] = copied | {"status": "active" if number == 7 else "canceled"}
    pretend.subscriptions["sub_100"]["status"] = "something new"

    async def synced(apply: bool) -> tuple[list[Difference], list[Difference], int]:
        """What differs for this company, what is of none, and how many subscriptions were looked at."""
        request, operator = SyncBilling(apply=apply), Actor.system(None, "cli")
        steps = [it async for it in await selling.shop.execute(request, operator)]
        found = [it for it in steps if isinstance(it, Difference)]
        ours = [it for it in found if it.company_id == selling.shop.company.id]
        looked = max(it.subscriptions for it in steps if isinstance(it, Looked))
        return ours, [it for it in found if it.company_id is None], looked

    for apply in (False, True):
        ours, nobodys, looked = await synced(apply)
        assert looked == 230, "one is not understood"
        assert [(it.what, it.at_stripe) for it in nobodys] == [("UNCLAIMED", "sub_007")]
        fields = {it.field: (it.here, it.at_stripe, it.applied) for it in ours}
        assert fields["plan"] == ("STARTER", "GROWTH", apply)
        assert fields["status"] == ("TRIALING", "ACTIVE", apply)
    lists = [one for one in selling.stub.asked if one["path"] == "/v1/subscriptions"]
    assert [one["form"]["limit"] for one in lists] == ["100"] * 6
    assert await selling.stands() == ("GROWTH", "ACTIVE")
    assert set(await selling.deliver()) == {200}
    assert len(await log_of(selling.shop, "subscription.updated")) == 1
    pretend.subscriptions[sub]["status"] = "something new"
    (last,), _, _ = await synced(True)
    assert (last.what, last.here) == ("UNANSWERED", sub)


async def test_where_nothing_is_sold_there_is_no_such_door(distribu: Distribu) -> None:
    async with listening(distribu, "127.0.0.1", 0) as url, httpx.AsyncClient(base_url=url) as client:
        assert (await client.post(PATH, content=b"{}")).status_code == 404


async def test_an_operator_compares_from_the_command_line(tmp_path: Path) -> None:
    """Exit code, table and JSON, against the stub on a socket."""
    nothing = await asyncio.to_thread(Program(tmp_path).run, "billing", "sync", "--json")
    assert (nothing.code, json.loads(nothing.err)["code"]) == (17, "nothing_sold")
    async with stripe() as (stub, url):
        prices = {f"DISTRIBU_STRIPE_PRICE_{plan}_{each}": refs[0] for (plan, each), refs in PRICES.items()}
        program = Program(
            tmp_path,
            DISTRIBU_STRIPE_KEY=KEY,
            DISTRIBU_STRIPE_WEBHOOK_SECRETS=SECRETS[0],
            DISTRIBU_STRIPE_API_BASE=url,
            **prices,
        )

        async def run(*words: str) -> Any:
            return await asyncio.to_thread(program.run, *words)

        created = await run("company", "create", "Acme", "--slug", "acme", "--json")
        company = json.loads(created.out)["id"]
        same = await run("billing", "sync")
        assert (same.code, same.out.splitlines()) == (
            0,
            ["Nothing differs.", "Compared 1 companies with 0 subscriptions."],
        )
        page = stub.stripe.checkout(
            stripe_words.checkout(
                PRICES,
                company_id=company,
                plan=Plan.GROWTH,
                interval=Interval.MONTH,
                email="owner@acme.example",
                customer_ref=None,
                back="https://acme.example",
            )
        )
        sub = stub.stripe.pay(page["id"])
        differs = await run("billing", "sync", "--json")
        assert differs.code == 25
        shown = {it["field"]: it for it in json.loads(differs.out)["data"]}
        assert shown["subscriptionRef"] == {
            "what": "FIELD",
            "company": "acme",
            "companyId": company,
            "field": "subscriptionRef",
            "here": None,
            "atStripe": sub["id"],
            "applied": False,
        }
        applied = await run("billing", "sync", "--apply")
        assert applied.code == 0
        rows = [line.split() for line in applied.out.splitlines()]
        assert rows[0] == ["company", "what", "field", "here", "atStripe", "applied"]
        assert ["acme", "FIELD", "subscriptionRef", "-", sub["id"], "true"] in rows
        assert (await run("billing", "sync", "--json")).code == 0
        async with httpx.AsyncClient() as control:
            await control.post(f"{url}/test/next", json={"times": 4, "status": 503})
        away = await run("billing", "sync", "--json")
        assert (away.code, json.loads(away.err)["code"]) == (18, "payments_away")


def test_an_operator_looks_at_events_and_replays_one(tmp_path: Path) -> None:
    program = Program(tmp_path)
    listed = program.run("billing", "events", "--failed")
    assert (listed.code, listed.out) == (0, "There are none.\n")
    none = program.run("billing", "replay", "evt_none", "--json")
    assert (none.code, json.loads(none.err)["code"]) == (14, "notice_not_found")
