"""What Stripe tells us, by real processes: killed at it, told fifty times at once, and with Stripe away."""

import asyncio
import time
from collections.abc import Awaitable
from typing import Any, TypeVar

import pytest

from distribu.domain.accounts import REALM
from distribu.domain.notices import HEEDED
from distribu.entrypoints.stubs.stripe import Next
from tests.contracts.notices import DELIVERIES, HANDLED, counted
from tests.proofs.conftest import House
from tests.proofs.processes import superuser
from tests.proofs.selling import Sold, mails_held, no_transaction_waits, selling

T = TypeVar("T")

MOST_S = 10.0
"""What a request of ours may take, whatever Stripe does."""


@pytest.mark.parametrize("what", HANDLED)
async def test_killed_at_every_point_each_event_is_applied_once(house: House, what: str) -> None:
    """Before it is kept, when it is kept and not applied, while it is written, and before it is answered."""
    prepare, recorded, mailed = HANDLED[what]
    async with selling(house) as it:
        event = it.last(await prepare(it))
        mails, stands = it.mails(), await it.stands()
        async with counted(it) as new:
            asks = event["data"]["object"].get("object") != "customer" or bool(it.stripe.subscriptions)
            if asks:
                await _killed_while_it_asks(it, event)
                assert (await it.kept(event), await it.stands()) == (None, stands)
            await it.stub.next(2, status=503)
            assert (await it.posted(event)).status_code == 503
            it.stub.stub.next.clear()
            it.server.kill()
            assert await _status(it, event) == "WAITING"
            await it.server.started()
            with mails_held(house) as held:
                lost = asyncio.create_task(it.lost(event))
                pid = await held.somebody()
                it.server.kill()
                await held.undo(pid)
                await lost
            assert (await _status(it, event), await it.stands()) == ("WAITING", stands)
            await it.server.started()
            with mails_held(house) as held:
                lost = asyncio.create_task(it.lost(event))
                pid = await held.somebody()
                it.server.kill()
                held.let_go()
                await held.over(pid)
                await lost
            assert await _status(it, event) == "APPLIED", "it is committed, and nobody was told"
            await it.server.started()
            assert (await it.posted(event)).status_code == 200
        assert new == recorded
        assert it.mails() - mails == mailed


async def _killed_while_it_asks(it: Sold, event: dict[str, Any]) -> None:
    await it.stub.next(1, after=60)
    lost = asyncio.create_task(it.lost(event))
    async with asyncio.timeout(10):
        while it.stub.stub.next:  # noqa: ASYNC110  # until it has asked
            await asyncio.sleep(0.01)
    it.server.kill()
    await lost
    await it.server.started()


async def _status(it: Sold, event: dict[str, Any]) -> str | None:
    kept = await it.kept(event)
    return None if kept is None else str(kept.status)


async def test_what_was_kept_when_a_server_was_killed_is_applied_by_the_next_though_stripe_is_silent(
    house: House,
) -> None:
    async with selling(house) as it:
        await it.buys()
        event = it.last("customer.subscription.created")
        await it.stub.down()
        assert (await it.posted(event)).status_code == 503
        it.server.kill()
        await it.stub.up()
        await it.server.started()
        with superuser(house.data_dir) as root:  # as after a minute
            root.execute("UPDATE distribu.stripe_events SET due_at = now() WHERE status = 'WAITING'")
            root.execute("UPDATE distribu.jobs SET due_at = now() WHERE name = 'retry_notices'")
        it.server.kill()  # it looks when the job was due when it began
        await it.server.started()
        async with asyncio.timeout(30):
            while await _status(it, event) != "APPLIED":  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert await it.standing() == ("GROWTH", "ACTIVE")


@pytest.mark.parametrize("what", HANDLED)
async def test_fifty_at_once_to_two_servers_are_applied_once(house: House, what: str) -> None:
    prepare, recorded, mailed = HANDLED[what]
    async with selling(house, servers=2) as it:
        event = it.last(await prepare(it))
        mails = it.mails()

        async def until_heard(number: int) -> None:
            server = it.servers[number % 2]
            for _ in range(100):
                answer = await it.posted(event, server)
                if answer.status_code == 200:
                    return
                assert answer.status_code == 503, answer.text
                await asyncio.sleep(0.1)
            raise AssertionError("never heard")

        async with counted(it) as new:
            await asyncio.gather(*map(until_heard, range(DELIVERIES)))
        assert new == recorded
        assert it.mails() - mails == mailed
        kept = await it.kept(event)
        assert kept is not None
        assert (kept.status, kept.version) == ("APPLIED", 1)


FAULTS: dict[str, dict[str, Any]] = {
    "slow": {"after": 20},
    "down": {},
    "limiting": {"status": 429, "headers": {"Retry-After": "7"}, "body": '{"error": {"code": "rate_limit"}}'},
    "broken": {"status": 503},
    "cut off": {"cut": True},
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_while_stripe_is_away_nobody_waits_long_and_nothing_is_lost(house: House, fault: str) -> None:
    """Whoever buys, changes, tells, replays and looks at all there is, at once; then all they came for."""
    async with selling(house) as it:
        other = await it.another()
        await other.buys()
        await other.hears()
        seen = len(it.stripe.events)
        await it.buys()
        told = [event for event in it.stripe.events[seen:] if event["type"] in HEEDED]
        await it.stub.down()
        assert (await it.posted(told[-1])).status_code == 503
        if fault != "down":
            await it.stub.up()
            await it.stub.next(1_000, **FAULTS[fault])
        wait_s = 7 if fault == "limiting" else None
        async with no_transaction_waits(house):
            asked = {
                "checkout": it.page("checkout", plan="GROWTH", interval="MONTH"),
                "portal": other.page("portal"),
                "replay": it.replayed(told[-1]),
                "subscriptions": it.read(lambda payments: payments.subscriptions()),
                "prices": it.read(lambda payments: payments.prices()),
                **{event["type"]: it.told(event) for event in told},
            }
            answers = await asyncio.gather(*map(_timed, asked.values()))
            for name, (said, took) in zip(asked, answers, strict=True):
                assert said == ("payments_away", wait_s or 30), name
                assert took < MOST_S, f"{name} took {took:.1f} s"
            print(f"\n{fault}: the longest took {max(took for _, took in answers):.1f} s")
            _due_now(house, len(told))
            ran, took = await _timed(it.asked_to("retry_notices"))
            assert (ran.status_code, ran.json()["data"]["count"]) == (200, 0)
            assert took < MOST_S + 2, "it asks for eight at once, and for no more"
        it.stub.stub.next.clear()
        if fault == "down":
            await it.stub.up()
        _due_now(house, len(told))
        ran = await it.asked_to("retry_notices")
        assert ran.json()["data"] == {"job": "retry_notices", "outcome": "DONE", "count": len(told)}
        assert await it.standing() == ("GROWTH", "ACTIVE")
        assert await it.changes() == ["invoice.paid", "subscription.started", "subscription.updated"]


async def test_a_slow_stripe_slows_nobody_who_wants_nothing_of_it(house: House) -> None:
    """More wait for Stripe than there are connections to the database, and to Stripe."""
    async with selling(house, database_pool=2) as it:
        await it.buys()
        event = it.last("customer.subscription.created")
        await it.stub.next(1_000, after=20)
        async with no_transaction_waits(house):
            slow = [asyncio.create_task(_timed(it.told(event | {"id": f"evt_{n}"}))) for n in range(24)]
            async with it.browser() as browser:
                for _ in range(20):
                    answer, took = await _timed(browser.get("/account/billing"))
                    assert answer.status_code == 200, answer.text
                    assert took < 2
                    await asyncio.sleep(0.2)
            assert not [one for one in slow if one.done()], "they wait all the while"
            for said, took in await asyncio.gather(*slow):
                assert said == ("payments_away", 30)
                assert took < MOST_S
        it.stub.stub.next.clear()


def _due_now(house: House, many: int) -> None:
    """As when their time has come."""
    with superuser(house.data_dir) as root:
        due = "UPDATE distribu.stripe_events SET due_at = now() WHERE status = 'WAITING'"
        assert root.execute(due).rowcount == many


async def test_one_of_nobody_is_replayed_within_the_time_that_any_other_is(house: House) -> None:
    """Stripe is asked whose it is, and then how it stands: both of it in ten seconds."""
    async with selling(house) as it:
        await it.buys()
        event = it.last("customer.subscription.created")
        unknown = {**event["data"]["object"], "metadata": {}, "customer": "cus_unknown"}
        event = event | {"id": event["id"] + "n", "data": {"object": unknown}}
        assert (await it.posted(event)).status_code == 200
        assert await it.kept(event, REALM) is not None
        it.stub.stub.next = [Next(after=after) for after in (20, 3, 20, 3)]
        said, took = await _timed(it.replayed(event))
        assert took < MOST_S
        assert said == ("payments_away", 30)
        it.stub.stub.next.clear()
        assert await it.replayed(event) == ("APPLIED", None)
        assert await it.standing() == ("GROWTH", "ACTIVE")


async def _timed(answer: Awaitable[T]) -> tuple[T, float]:
    began = time.perf_counter()
    return await answer, time.perf_counter() - began
