"""What every queue promises: nothing is skipped, nothing is done twice at once, nobody waits for others."""

import asyncio
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from distribu import Actor, Harness, NotFound, Shop
from distribu.application import views
from distribu.application.audit import RecordAudit
from distribu.application.billing import EndTrial, WarnOfTrialEnd
from distribu.application.catalog import CreateProduct, EditProduct
from distribu.application.kernel import Once
from distribu.application.notices import KeepNotice, TakeNotice, Told
from distribu.application.platform import SetStanding
from distribu.application.ports import (
    DELIVERIES_KEPT,
    MAILS_KEPT,
    NUMBER_TO_COME,
    Change,
    MailParcel,
    MailStatus,
    Message,
    NewMail,
    Parcel,
    Scope,
)
from distribu.application.sealing import seal
from distribu.application.team import EndCompany
from distribu.application.webhooks import (
    EditWebhook,
    ReadDelivery,
    RemoveWebhook,
    ReplayDeliveries,
    RotateWebhookSecret,
)
from distribu.domain.access import Role
from distribu.domain.accounts import REALM
from distribu.domain.billing import TRIAL
from distribu.domain.catalog import Product
from distribu.domain.notices import NoticeStatus, notice_id
from distribu.domain.values import CompanyId, DeliveryId, WebhookId
from distribu.domain.webhooks import ATTEMPTS_MAX, Attempt, Delivery, DeliveryStatus, WireEvent
from tests import people
from tests.contracts.asking import scope_of, store_of, told
from tests.contracts.billing import on_trial
from tests.contracts.store import new_order, new_product


def told_of(shop: Shop, ref: str) -> Told:
    """Something that Stripe told of a company."""
    return Told(
        ref=f"{ref}_{shop.company.id}",
        type="invoice.paid",
        happened_at=shop.company.created_at,
        customer_ref=None,
        subscription_ref=None,
        invoice_ref=None,
        invoice_number="",
        amount=None,
        currency="",
    )


async def keep_notice(shop: Shop, status: NoticeStatus, ref: str = "evt") -> str:
    """Have it kept, and its id."""
    it = told_of(shop, ref)
    await shop.distribu.run(Actor.system(shop.company.id), KeepNotice(told=it, status=status))
    return notice_id(it.ref)


async def relay(shop: Shop, limit: int = 500) -> int:
    """Have the events of all companies moved on. Returns how many were."""
    return await shop.distribu.ports.queue.relay(limit=limit, now=shop.distribu.ports.clock.now())


async def claim(
    shop: Shop,
    *,
    limit: int = 100,
    per_webhook: int = 100,
    per_company: int = 1000,
    busy: Mapping[WebhookId, int] | None = None,
    claim_s: float = 60,
) -> list[Parcel]:
    """Claim what is due, and keep what is of this company."""
    ports = shop.distribu.ports
    parcels = await ports.queue.claim(
        limit=limit,
        per_webhook=per_webhook,
        per_company=per_company,
        busy={(shop.company.id, webhook): count for webhook, count in (busy or {}).items()},
        now=ports.clock.now(),
        claim_s=claim_s,
    )
    return [parcel for parcel in parcels if parcel.company_id == shop.company.id]


async def finish(
    shop: Shop, parcel: Parcel, status: DeliveryStatus, wait_s: float | None = None
) -> datetime | None:
    """Store an attempt, the next of this parcel."""
    now = shop.distribu.ports.clock.now()
    attempt = Attempt(
        number=parcel.attempts + 1,
        at=now,
        duration_ms=12,
        status=200 if status is DeliveryStatus.DELIVERED else 500,
        headers={"server": 'te"st'},
        body="it\nsaid",
        error="",
    )
    again = None if wait_s is None else now + timedelta(seconds=wait_s)
    return await shop.distribu.ports.queue.finish(parcel, attempt, status=status, next_attempt_at=again)


async def delivery(shop: Shop, parcel: Parcel) -> Delivery:
    """What became of a parcel."""
    return await shop.execute(ReadDelivery(delivery_id=parcel.delivery_id))


async def mail(shop: Shop, *to: str, letter: str = "{}", sealed: str | None = None) -> None:
    """Have mails wait in the outbox, all written at once."""
    now, entropy = shop.distribu.ports.clock.now(), shop.distribu.ports.entropy
    mails = [NewMail(entropy.uuid(), now, address, letter, sealed) for address in to]
    async with store_of(shop).begin(scope_of(shop)) as tx:
        await tx.write([], [], None, mails)


async def claim_mails(shop: Shop, *, limit: int = 100, claim_s: float = 60) -> list[MailParcel]:
    """Claim the mails that are due, and keep what is of this company."""
    ports = shop.distribu.ports
    parcels = await ports.queue.claim_mails(limit=limit, now=ports.clock.now(), claim_s=claim_s)
    return [parcel for parcel in parcels if parcel.company_id == shop.company.id]


async def finish_mail(
    shop: Shop, parcel: MailParcel, status: MailStatus, wait_s: float | None = None, error: str = ""
) -> None:
    """Store what came of an attempt."""
    ports = shop.distribu.ports
    again = None if wait_s is None else ports.clock.now() + timedelta(seconds=wait_s)
    await ports.queue.finish_mail(parcel, status=status, next_attempt_at=again, error=error)


def positions(parcels: Sequence[Parcel]) -> list[int]:
    return sorted(parcel.position for parcel in parcels)


class QueueContract:
    """Relay, claim, finish, purge, and when a session was last used."""

    async def test_a_session_is_seen_where_it_is_kept_and_nowhere_else(self, shop: Harness) -> None:
        ports = shop.distribu.ports
        one, other = await people.staff(shop, Role.MEMBER), await people.staff(shop, Role.MEMBER)
        began, later = other.session.seen_at, shop.clock.now() + timedelta(minutes=7)
        await ports.queue.seen(shop.company.id, one.session.id, at=began + timedelta(days=1), ip=None)
        await ports.queue.seen(REALM, one.session.id, at=later, ip="203.0.113.9")
        grants = [await ports.directory.staff_session(it.session.id) for it in (one, other)]
        assert [grant.seen_at for grant in grants if grant is not None] == [later, began]

    # --- relay ----------------------------------------------------------------------------------

    async def test_each_event_is_moved_once_and_numbered_without_gaps(self, shop: Harness) -> None:
        await shop.webhook()
        for _ in range(7):
            await shop.product()
        assert [await relay(shop, 3), await relay(shop, 3), await relay(shop, 3)] == [3, 3, 1]
        assert await relay(shop) == 0
        parcels = await claim(shop)
        assert positions(parcels) == [1, 2, 3, 4, 5, 6, 7]
        assert len({parcel.event_id for parcel in parcels}) == 7

    async def test_each_company_has_positions_of_its_own(self, shop: Harness) -> None:
        stranger = await shop.stranger()
        for company in (shop, stranger):
            await company.webhook()
            await company.product()
            await company.product()
        await relay(shop)
        ours = await shop.distribu.ports.queue.claim(
            limit=100, per_webhook=100, per_company=100, busy={}, now=shop.clock.now(), claim_s=60
        )
        for company in (shop, stranger):
            assert positions([it for it in ours if it.company_id == company.company.id]) == [1, 2]

    async def test_a_late_commit_gets_a_late_position_and_is_never_skipped(self, shop: Harness) -> None:
        """A transaction writes first and commits last, while others write and commit in between."""
        await shop.webhook()
        late = new_product(shop)
        message = Message(shop.distribu.ports.entropy.uuid(), "product.created", '{"late":true}')
        async with store_of(shop).begin(scope_of(shop)) as tx:
            await tx.companies.current()
            others = asyncio.create_task(self._three_products(shop))
            await asyncio.sleep(0.05)
            await relay(shop)
            (record,) = told(shop, late)
            record = type(record)(
                **{name: getattr(record, name) for name in record.__slots__} | {"messages": (message,)}
            )
            await tx.write([Change(None, late)], [record], None)
        await others
        await relay(shop)
        parcels = await claim(shop)
        assert positions(parcels) == [1, 2, 3, 4]
        assert message.id in {parcel.event_id for parcel in parcels}

    async def _three_products(self, shop: Shop) -> None:
        for _ in range(3):
            await shop.product()

    async def test_relays_that_run_at_once_share_the_work(self, shop: Harness) -> None:
        await shop.webhook()
        for _ in range(12):
            await shop.product()
        moved = await asyncio.gather(*(relay(shop, 5) for _ in range(6)))
        assert sum(moved) == 12
        parcels = await claim(shop)
        assert positions(parcels) == list(range(1, 13))
        assert len({parcel.delivery_id for parcel in parcels}) == 12

    async def test_no_company_keeps_another_from_its_turn(self, shop: Harness) -> None:
        """Neither by much that waits nor by orders to send again."""
        stranger = await shop.stranger()
        webhook, _ = await shop.webhook()
        for _ in range(30):
            await shop.product()
        while await relay(shop):
            pass
        since = shop.clock.now() - timedelta(hours=1)
        for _ in range(3):
            again = ReplayDeliveries(webhook_id=webhook.id, since=since, status=DeliveryStatus.PENDING)
            await shop.execute(again)
        for _ in range(30):
            await shop.product()
        await stranger.webhook()
        await stranger.product()
        turns = 0
        while not (sent := await claim(stranger)):
            turns += 1
            assert turns <= 2
            await relay(shop, 5)
        assert positions(sent) == [1]

    async def test_the_events_of_an_entity_come_in_the_order_of_its_changes(self, shop: Harness) -> None:
        await shop.webhook()
        products = [await shop.product(f"P{n}") for n in range(3)]
        edits = [EditProduct(product_id=it.id, name=f"{it.name} {n}") for n in range(5) for it in products]
        await asyncio.gather(*(shop.execute(edit) for edit in edits))
        await relay(shop)
        parcels = sorted(await claim(shop), key=lambda it: it.position)
        assert len(parcels) == 18
        for product in products:
            mine = [it for it in parcels if product.id in it.payload]
            async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:
                log = (await tx.records.page(limit=99, entity_id=product.id, action="product")).items[::-1]
            names = [it.metadata["after"]["name"] for it in log[1:]]
            assert [f'"name":"{name}"' in it.payload for name, it in zip(names, mine[1:], strict=True)] == [
                True
            ] * 5
            assert mine[0].event == "product.created"

    async def test_only_active_and_subscribed_webhooks_get_a_delivery(self, shop: Harness) -> None:
        wanted, _ = await shop.webhook(WireEvent.PRODUCT_CREATED)
        other, _ = await shop.webhook(WireEvent.ORDER_CREATED)
        asleep, _ = await shop.webhook(WireEvent.PRODUCT_CREATED)
        removed, _ = await shop.webhook(WireEvent.PRODUCT_CREATED)
        await shop.execute(EditWebhook(webhook_id=asleep.id, is_active=False))
        await shop.execute(RemoveWebhook(webhook_id=removed.id))
        product = await shop.product()
        assert await relay(shop) == 1
        assert [it.webhook_id for it in await claim(shop)] == [wanted.id]
        await shop.order(await shop.customer(), (product, 1))
        await relay(shop)
        assert {it.webhook_id for it in await claim(shop)} == {other.id}

    async def test_an_event_nobody_wants_still_has_its_place(self, shop: Harness) -> None:
        await shop.product()
        await relay(shop)
        await shop.webhook()
        await shop.product()
        await relay(shop)
        assert positions(await claim(shop)) == [2]

    async def test_a_parcel_has_all_it_takes_to_send_it(self, shop: Harness) -> None:
        webhook, secret = await shop.webhook(url="http://localhost:9000/parcel")
        at = shop.clock.now()
        product = await shop.product()
        shop.clock.advance(minutes=3)
        await relay(shop)
        (parcel,) = await claim(shop)
        assert (parcel.webhook_id, parcel.url) == (webhook.id, "http://localhost:9000/parcel")
        assert (parcel.event, parcel.occurred_at, parcel.attempts) == ("product.created", at, 0)
        assert parcel.payload == views.encode(views.of(product)).decode()
        assert shop.distribu.ports.vault.open(parcel.secret) == secret
        assert (parcel.old_secret, parcel.grace_expires_at) == (None, None)

    async def test_a_parcel_goes_where_the_webhook_points_now(self, shop: Harness) -> None:
        """And is signed with the secret of now: neither is frozen with the event."""
        webhook, old = await shop.webhook()
        await shop.product()
        await relay(shop)
        await shop.execute(EditWebhook(webhook_id=webhook.id, url="http://localhost:9000/moved"))
        rotated = await shop.execute(RotateWebhookSecret(webhook_id=webhook.id))
        (parcel,) = await claim(shop)
        vault = shop.distribu.ports.vault
        assert parcel.url == "http://localhost:9000/moved"
        assert vault.open(parcel.secret) == rotated.secret
        assert parcel.old_secret is not None
        assert vault.open(parcel.old_secret) == old
        assert parcel.grace_expires_at == shop.clock.now() + timedelta(days=7)

    # --- backlog --------------------------------------------------------------------------------

    async def test_what_waits_is_counted_until_it_is_done(self, shop: Harness) -> None:
        """Of all companies: what other tests left waiting is there before and after."""
        queue = shop.distribu.ports.queue

        async def counts() -> list[int]:
            found = await queue.backlog(now=shop.clock.now())
            return [found.events.count, found.deliveries.count, found.mails.count]

        await relay(shop)
        webhook, _ = await shop.webhook()
        events, deliveries, mails = await counts()
        await shop.product()
        await shop.product()
        await mail(shop, "a@b.example")
        assert await counts() == [events + 2, deliveries, mails + 1]
        await relay(shop)
        assert await counts() == [0, deliveries + 2, mails + 1]
        first, second = await claim(shop)
        await finish(shop, first, DeliveryStatus.DELIVERED)
        await finish(shop, second, DeliveryStatus.PENDING, wait_s=60)
        (parcel,) = await claim_mails(shop)
        await finish_mail(shop, parcel, MailStatus.SENT)
        assert await counts() == [0, deliveries + 1, mails], "what is tried again is still to be done"
        await shop.execute(EditWebhook(webhook_id=webhook.id, is_active=False))
        assert await counts() == [0, deliveries, mails], "nobody waits for a webhook that is off"

    async def test_what_waits_to_be_sealed_is_counted_until_it_is(self, shop: Harness) -> None:
        queue = shop.distribu.ports.queue
        while await seal(shop.distribu):
            pass
        before = (await queue.backlog(now=shop.clock.now())).records
        await shop.execute(RecordAudit(action="one"))
        await shop.execute(RecordAudit(action="two"))
        later = shop.clock.now() + timedelta(days=4_000)  # nothing else is that late
        found = (await queue.backlog(now=later)).records
        assert found.count == before.count + 2
        assert found.late_s >= timedelta(days=4_000).total_seconds()
        while await seal(shop.distribu):
            pass
        assert (await queue.backlog(now=shop.clock.now())).records == before

    async def test_what_waits_is_late_since_it_was_due(self, shop: Harness) -> None:
        queue = shop.distribu.ports.queue
        await shop.webhook()
        await shop.product()
        await mail(shop, "a@b.example")
        later = shop.clock.now() + timedelta(days=4_000)  # nothing else is that late
        found = await queue.backlog(now=later)
        assert found.events.late_s >= timedelta(days=4_000).total_seconds()
        assert found.mails.late_s >= timedelta(days=4_000).total_seconds()
        await relay(shop)
        found = await queue.backlog(now=later)
        assert (found.events.count, found.events.late_s) == (0, 0.0)
        assert found.deliveries.late_s >= timedelta(days=4_000).total_seconds()
        found = await queue.backlog(now=shop.clock.now() - timedelta(days=4_000))
        assert (found.deliveries.late_s, found.mails.late_s) == (0.0, 0.0), "none is due yet"

    # --- claim -----------------------------------------------------------------------------------

    async def test_what_is_claimed_is_nobody_elses_until_the_claim_runs_out(self, shop: Harness) -> None:
        await shop.webhook()
        await shop.product()
        await relay(shop)
        (parcel,) = await claim(shop, claim_s=60)
        assert await claim(shop) == []
        shop.clock.advance(seconds=59)
        assert await claim(shop) == []
        shop.clock.advance(seconds=1)
        assert [it.delivery_id for it in await claim(shop)] == [parcel.delivery_id]

    async def test_claims_made_at_once_share_nothing(self, shop: Harness) -> None:
        await shop.webhook()
        for _ in range(20):
            await shop.product()
        await relay(shop)
        claims = await asyncio.gather(*(claim(shop, limit=6) for _ in range(5)))
        counted = Counter(parcel.delivery_id for one in claims for parcel in one)
        while more := await claim(shop):  # what two of them had both looked at is left for the next
            counted.update(parcel.delivery_id for parcel in more)
        assert len(counted) == 20
        assert set(counted.values()) == {1}

    async def test_no_more_is_claimed_than_asked_for(self, shop: Harness) -> None:
        await shop.webhook()
        for _ in range(5):
            await shop.product()
        await relay(shop)
        assert len(await claim(shop, limit=2)) == 2
        assert len(await claim(shop, limit=9)) == 3

    async def test_one_webhook_cannot_take_all_the_places(self, shop: Harness) -> None:
        """What is in flight already counts, so a slow receiver holds up its own queue alone."""
        slow, _ = await shop.webhook(WireEvent.PRODUCT_CREATED)
        quick, _ = await shop.webhook(WireEvent.PRODUCT_CREATED)
        for _ in range(6):
            await shop.product()
        await relay(shop)
        first = await claim(shop, per_webhook=2)
        assert Counter(it.webhook_id for it in first) == {slow.id: 2, quick.id: 2}
        second = await claim(shop, per_webhook=3, busy={slow.id: 2, quick.id: 0})
        assert Counter(it.webhook_id for it in second) == {slow.id: 1, quick.id: 3}
        third = await claim(shop, per_webhook=3, busy={slow.id: 3, quick.id: 3})
        assert third == []

    async def test_a_webhook_that_is_full_does_not_keep_others_from_a_small_claim(
        self, shop: Harness
    ) -> None:
        slow, _ = await shop.webhook(WireEvent.PRODUCT_CREATED)
        for _ in range(5):
            await shop.product()
        await relay(shop)
        shop.clock.advance(seconds=1)
        quick, _ = await shop.webhook(WireEvent.CUSTOMER_CREATED)
        await shop.customer()
        await relay(shop)
        claimed = await claim(shop, limit=1, per_webhook=2, busy={slow.id: 2})
        assert [it.webhook_id for it in claimed] == [quick.id]

    async def test_one_company_cannot_take_all_the_places(self, shop: Harness) -> None:
        """Nor all but those that are over: what it has in flight already counts."""
        webhooks = [(await shop.webhook(WireEvent.PRODUCT_CREATED))[0] for _ in range(4)]
        for _ in range(4):
            await shop.product()
        await relay(shop)
        first = await claim(shop, per_webhook=2, per_company=5)
        assert sorted(Counter(it.webhook_id for it in first).values()) == [1, 1, 1, 2]
        held = Counter(it.webhook_id for it in first)
        assert await claim(shop, per_webhook=2, per_company=5, busy=held) == []
        one_more = await claim(shop, per_webhook=9, per_company=6, busy=held)
        assert len(one_more) == 1
        assert {it.webhook_id for it in first} == {it.id for it in webhooks}

    async def test_places_go_in_turn_to_the_companies_that_hold_the_fewest(self, shop: Harness) -> None:
        """A company with a backlog of hours does not keep one with a single event waiting."""
        stranger = await shop.stranger()
        busy = [(await stranger.webhook(WireEvent.PRODUCT_CREATED))[0] for _ in range(3)]
        for _ in range(5):
            await stranger.product()
        await relay(shop)
        shop.clock.advance(minutes=5)
        await shop.webhook()
        for _ in range(3):
            await shop.product()
        await relay(shop)
        ports = shop.distribu.ports
        parcels = await ports.queue.claim(
            limit=4,
            per_webhook=100,
            per_company=100,
            busy={(stranger.company.id, busy[0].id): 2},
            now=shop.clock.now(),
            claim_s=60,
        )
        counted = Counter(it.company_id for it in parcels)
        assert counted == {shop.company.id: 3, stranger.company.id: 1}
        assert all(it.webhook_id != busy[0].id for it in parcels)

    async def test_nothing_is_claimed_before_it_is_due(self, shop: Harness) -> None:
        await shop.webhook()
        await shop.product()
        await relay(shop)
        (parcel,) = await claim(shop)
        await finish(shop, parcel, DeliveryStatus.PENDING, wait_s=30)
        shop.clock.advance(seconds=29)
        assert await claim(shop) == []
        shop.clock.advance(seconds=1)
        (again,) = await claim(shop)
        assert (again.delivery_id, again.attempts) == (parcel.delivery_id, 1)

    async def test_what_waits_for_a_sleeping_webhook_goes_out_when_it_wakes(self, shop: Harness) -> None:
        webhook, _ = await shop.webhook()
        await shop.product()
        await relay(shop)
        await shop.execute(EditWebhook(webhook_id=webhook.id, is_active=False))
        assert await claim(shop) == []
        await shop.execute(EditWebhook(webhook_id=webhook.id, is_active=True))
        assert len(await claim(shop)) == 1

    async def test_sleeping_webhooks_do_not_delay_another_companys_deliveries(self, shop: Harness) -> None:
        stranger = await shop.stranger()
        asleep = [(await stranger.webhook())[0] for _ in range(3)]
        for _ in range(4):
            await stranger.product()
        await relay(shop)
        for webhook in asleep:
            await stranger.execute(EditWebhook(webhook_id=webhook.id, is_active=False))
        shop.clock.advance(seconds=1)
        awake, _ = await shop.webhook()
        await shop.product()
        await relay(shop)
        assert [it.webhook_id for it in await claim(shop, limit=1)] == [awake.id]

    # --- finish ----------------------------------------------------------------------------------

    async def test_an_attempt_is_stored_with_what_comes_of_it(self, shop: Harness) -> None:
        await shop.webhook()
        await shop.product()
        await relay(shop)
        (parcel,) = await claim(shop)
        await finish(shop, parcel, DeliveryStatus.PENDING, wait_s=5)
        stored = await delivery(shop, parcel)
        assert (stored.status, stored.next_attempt_at) == (
            DeliveryStatus.PENDING,
            shop.clock.now() + timedelta(seconds=5),
        )
        shop.clock.advance(seconds=5)
        (parcel,) = await claim(shop)
        await finish(shop, parcel, DeliveryStatus.DELIVERED)
        stored = await delivery(shop, parcel)
        assert (stored.status, stored.next_attempt_at) == (DeliveryStatus.DELIVERED, None)
        assert [(it.number, it.status) for it in stored.attempts] == [(1, 500), (2, 200)]
        assert stored.attempts[0] == Attempt(
            number=1,
            at=shop.clock.now() - timedelta(seconds=5),
            duration_ms=12,
            status=500,
            headers={"server": 'te"st'},
            body="it\nsaid",
            error="",
        )

    async def test_what_is_delivered_or_dead_is_not_claimed_again(self, shop: Harness) -> None:
        await shop.webhook()
        await shop.product()
        await shop.product()
        await relay(shop)
        one, other = await claim(shop)
        await finish(shop, one, DeliveryStatus.DELIVERED)
        await finish(shop, other, DeliveryStatus.DEAD)
        shop.clock.advance(days=10)
        assert await claim(shop) == []

    async def test_the_same_attempt_finished_twice_is_stored_once(self, shop: Harness) -> None:
        """The claim ran out, and two workers made the same attempt: the first that ends is stored."""
        await shop.webhook()
        await shop.product()
        await relay(shop)
        (parcel,) = await claim(shop)
        await finish(shop, parcel, DeliveryStatus.DELIVERED)
        await finish(shop, parcel, DeliveryStatus.PENDING, wait_s=5)
        stored = await delivery(shop, parcel)
        assert (stored.status, len(stored.attempts)) == (DeliveryStatus.DELIVERED, 1)

    async def test_of_many_that_end_at_once_each_is_stored(self, shop: Harness) -> None:
        """Whatever is wrong with one of them: it was finished by somebody else, or is there no more."""
        await shop.webhook()
        for _ in range(6):
            await shop.product()
        await relay(shop)
        parcels = await claim(shop)
        done = DeliveryStatus.DELIVERED
        await finish(shop, parcels[0], done)
        gone = replace(parcels[1], delivery_id=DeliveryId(shop.distribu.ports.entropy.uuid()))
        await asyncio.gather(*(finish(shop, one, done) for one in (*parcels, gone)))
        stored = [await delivery(shop, one) for one in parcels]
        assert {(it.status, len(it.attempts)) for it in stored} == {(done, 1)}

    async def test_companies_that_end_at_once_keep_their_failures_apart(self, shop: Harness) -> None:
        stranger = await shop.stranger()
        for company in (shop, stranger):
            await company.webhook()
            await company.product()
            await company.product()
        await relay(shop)
        mine, theirs = await claim(shop), await claim(stranger)
        shop.clock.advance(seconds=61)
        mine = mine or await claim(shop)
        theirs = theirs or await claim(stranger)
        now = shop.clock.now()
        came = await asyncio.gather(
            *(finish(shop, one, DeliveryStatus.PENDING, wait_s=5) for one in mine),
            *(finish(stranger, one, DeliveryStatus.DELIVERED) for one in theirs),
        )
        assert came == [now, now, None, None]

    async def test_a_failure_says_since_when_there_was_nothing_else(self, shop: Harness) -> None:
        await shop.webhook()
        await shop.product()
        await relay(shop)
        (parcel,) = await claim(shop)
        first = shop.clock.advance(hours=1)
        assert await finish(shop, parcel, DeliveryStatus.PENDING, wait_s=5) == first
        shop.clock.advance(hours=1)
        (parcel,) = await claim(shop)
        assert await finish(shop, parcel, DeliveryStatus.PENDING, wait_s=5) == first
        shop.clock.advance(hours=1)
        (parcel,) = await claim(shop)
        assert await finish(shop, parcel, DeliveryStatus.DELIVERED) is None
        await shop.product()
        await relay(shop)
        (parcel,) = await claim(shop)
        assert await finish(shop, parcel, DeliveryStatus.PENDING, wait_s=5) == shop.clock.now()

    # --- replay ----------------------------------------------------------------------------------

    async def replayed(self, shop: Harness, webhook_id: WebhookId) -> None:
        """Order all that was ever sent to be sent again."""
        long_ago = shop.clock.now() - timedelta(days=300)
        order = ReplayDeliveries(webhook_id=webhook_id, since=long_ago, status=DeliveryStatus.DELIVERED)
        await shop.execute(order)

    async def test_an_order_is_carried_out_a_part_at_a_time_and_to_its_end(
        self, shop: Harness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        module = sys.modules[type(shop.distribu.ports.queue).__module__]
        monkeypatch.setattr(module, "REPLAY_BATCH", 3)
        webhook, _ = await shop.webhook()
        for _ in range(7):
            await shop.product()
        await relay(shop)
        for parcel in await claim(shop):
            await finish(shop, parcel, DeliveryStatus.DELIVERED)
        shop.clock.advance(seconds=1)
        await self.replayed(shop, webhook.id)
        assert await relay(shop) == 3
        # Delivered again meanwhile, it is not taken twice for one order.
        for parcel in await claim(shop):
            await finish(shop, parcel, DeliveryStatus.DELIVERED)
        await shop.product()  # is not kept waiting for the rest of the order
        assert await relay(shop) == 1 + 3
        assert [await relay(shop), await relay(shop)] == [1, 0]
        assert positions(await claim(shop)) == [4, 5, 6, 7, 8]

    async def test_an_order_leaves_what_is_being_tried_and_what_came_after_it(self, shop: Harness) -> None:
        webhook, _ = await shop.webhook()
        await shop.product()
        await shop.product()
        await relay(shop)
        one, other = await claim(shop)
        await finish(shop, one, DeliveryStatus.DEAD)
        shop.clock.advance(seconds=1)
        order = ReplayDeliveries(webhook_id=webhook.id, since=shop.clock.now() - timedelta(days=1))
        await shop.execute(order)
        await shop.product()
        shop.clock.advance(seconds=1)
        assert await relay(shop) == 2
        again, new = await claim(shop)
        assert (again.delivery_id, again.attempts, again.attempts_before) == (one.delivery_id, 1, 1)
        assert (new.position, new.attempts_before) == (3, 0)
        await finish(shop, other, DeliveryStatus.DELIVERED)
        assert (await delivery(shop, other)).status is DeliveryStatus.DELIVERED

    async def test_a_delivery_has_a_most_of_attempts(self, shop: Harness) -> None:
        webhook, _ = await shop.webhook()
        await shop.product()
        await relay(shop)
        for made in range(ATTEMPTS_MAX):
            (parcel,) = await claim(shop)
            assert parcel.attempts == made
            last = made + 1 == ATTEMPTS_MAX
            status = DeliveryStatus.DELIVERED if last else DeliveryStatus.PENDING
            await finish(shop, parcel, status, wait_s=None if last else 0)
        shop.clock.advance(seconds=1)
        await self.replayed(shop, webhook.id)
        assert await relay(shop) == 0

    # --- companies that are not open -------------------------------------------------------------

    async def test_what_a_suspended_company_sends_waits_until_it_is_resumed(self, shop: Harness) -> None:
        await shop.webhook()
        for _ in range(3):
            await shop.product()
        await relay(shop)
        await mail(shop, "bo@corner-shop.example")
        await shop.distribu.run(shop.actor, SetStanding(suspend=True, reason="unpaid"))
        assert (await claim(shop), await claim_mails(shop)) == ([], [])
        await shop.distribu.run(shop.actor, SetStanding(suspend=False, reason=""))
        assert positions(await claim(shop)) == [1, 2, 3]
        assert [it.to for it in await claim_mails(shop)] == ["bo@corner-shop.example"]

    async def test_nothing_of_a_deleted_company_is_sent_and_everything_of_others(self, shop: Harness) -> None:
        gone = await shop.stranger()
        for company in (shop, gone):
            await company.webhook()
            await company.product()
            await mail(company, "bo@corner-shop.example")
        await relay(shop)
        queue = shop.distribu.ports.queue
        before = await queue.backlog(now=shop.clock.now())
        await gone.distribu.run(gone.actor, EndCompany(name=gone.company.name))
        after = await queue.backlog(now=shop.clock.now())
        assert before.deliveries.count - after.deliveries.count == 1
        assert before.mails.count - after.mails.count == 1
        now = shop.clock.now()
        parcels = await queue.claim(limit=100, per_webhook=100, per_company=100, busy={}, now=now, claim_s=60)
        mails = await queue.claim_mails(limit=100, now=now, claim_s=60)
        companies = (gone.company.id, shop.company.id)
        for claimed in (parcels, mails):
            assert [it.company_id for it in claimed if it.company_id in companies] == [shop.company.id]

    async def test_the_mails_of_the_realm_belong_to_no_company_and_go(self, shop: Harness) -> None:
        ports = shop.distribu.ports
        to, now = f"{ports.entropy.uuid()}@platform.example", ports.clock.now()
        async with store_of(shop).begin(Scope(REALM)) as tx:
            await tx.write([], [], None, [NewMail(ports.entropy.uuid(), now, to, "{}", None)])
        found = await ports.queue.claim_mails(limit=1000, now=now, claim_s=60)
        assert [it.company_id for it in found if it.to == to] == [REALM]

    # --- what jobs look for ------------------------------------------------------------------------

    async def test_trials_are_found_by_when_they_end_and_what_was_told(self, shop: Harness) -> None:
        queue, began = shop.distribu.ports.queue, shop.clock.now()
        shops = sorted([await on_trial(shop) for _ in range(3)], key=lambda one: one.company.id)
        ids = [one.company.id for one in shops]

        async def found(*, after: str = "", limit: int = 1000, **which: Any) -> list[CompanyId]:
            seen = await queue.trials(after=after, limit=limit, **which)
            assert list(seen) == sorted(seen)
            return [id for id in seen if id in ids]

        ends = max([one.company.created_at for one in shops]) + TRIAL
        first = min([one.company.created_at for one in shops]) + TRIAL
        assert await found(ends_by=first - timedelta(milliseconds=1)) == []
        assert await found(ends_by=ends) == await found(ends_by=ends + TRIAL) == ids
        assert await found(ends_by=ends, after=ids[0]) == ids[1:]
        assert await queue.trials(ends_by=ends, after=ids[0], limit=1) == ids[1:2]
        shop.clock.advance(seconds=(ends - timedelta(days=2) - shop.clock.now()).total_seconds())
        assert await shop.distribu.run(Actor.system(ids[0]), WarnOfTrialEnd())
        assert await found(ends_by=ends, untold=3) == ids[1:]
        assert await found(ends_by=ends, untold=1) == ids
        shop.clock.advance(days=1)
        assert await shop.distribu.run(Actor.system(ids[0]), WarnOfTrialEnd())
        assert await found(ends_by=ends, untold=1) == ids[1:]
        assert await found(ends_by=ends) == ids
        await shop.distribu.run(Actor.system(ids[1]), SetStanding(suspend=True, reason="test"))
        assert await found(ends_by=ends) == [ids[0], ids[2]]
        shop.clock.advance(days=2)
        assert await shop.distribu.run(Actor.system(ids[2]), EndTrial())
        assert await found(ends_by=ends) == ids[:1]
        assert shop.company.id not in await queue.trials(ends_by=began + 100 * TRIAL, after="", limit=1000)

    async def test_what_stripe_told_is_claimed_when_it_is_due_and_ever_later(self, shop: Harness) -> None:
        queue = shop.distribu.ports.queue
        shops = [await on_trial(shop) for _ in range(3)]
        waits = (timedelta(minutes=1), timedelta(minutes=5))

        async def claimed(limit: int = 100) -> list[tuple[str, bool]]:
            found = await queue.claim_notices(limit=limit, now=shop.clock.now(), waits=waits)
            owners = {one.company.id for one in shops}
            return [(one.id, one.last) for one in found if one.company_id in owners]

        ids = []
        for one, status in zip(shops, ("WAITING", "FAILED", "WAITING"), strict=True):
            ids.append(await keep_notice(one, NoticeStatus(status)))
            shop.clock.advance(seconds=1)
        await keep_notice(shops[0], NoticeStatus.IGNORED, "ignored")
        await keep_notice(shops[0], NoticeStatus.WAITING, "applied")
        taken = TakeNotice(told=told_of(shops[0], "applied"), said=(), turn=0)
        assert await shop.distribu.run(Actor.system(shops[0].company.id), taken)
        suspend = SetStanding(suspend=True, reason="test")
        await shop.distribu.run(Actor.system(shops[2].company.id), suspend)
        assert await claimed() == []
        shop.clock.advance(seconds=60 - 3)
        assert await claimed() == [(ids[0], False)]
        shop.clock.advance(seconds=10)
        at_once = await asyncio.gather(*(claimed(limit=1) for _ in range(20)))
        assert sorted(one for some in at_once for one in some) == sorted((id, False) for id in ids[1:])
        shop.clock.advance(seconds=289)
        assert await claimed() == []
        shop.clock.advance(seconds=1)
        assert await claimed(limit=1) == [(ids[0], True)]
        shop.clock.advance(seconds=10)
        assert sorted(await claimed()) == sorted((id, True) for id in ids[1:])
        shop.clock.advance(days=1)
        assert await claimed() == []

    async def test_what_stripe_told_waits_until_it_is_applied_or_given_up(self, shop: Harness) -> None:
        queue, one = shop.distribu.ports.queue, await on_trial(shop)
        before = (await queue.backlog(now=shop.clock.now())).notices
        await keep_notice(one, NoticeStatus.WAITING)
        await keep_notice(one, NoticeStatus.IGNORED, "ignored")
        await keep_notice(one, NoticeStatus.FAILED, "given up")
        later = shop.clock.now() + timedelta(days=4_000)  # nothing else is that late
        found = (await queue.backlog(now=later)).notices
        assert found.count == before.count + 2
        assert found.late_s >= timedelta(days=4_000, minutes=-1).total_seconds()
        taken = TakeNotice(told=told_of(one, "evt"), said=(), turn=0)
        assert await shop.distribu.run(Actor.system(one.company.id), taken)
        assert (await queue.backlog(now=shop.clock.now())).notices.count == before.count + 1
        shop.clock.advance(minutes=1)
        given_up: list[str] = []
        while due := await queue.claim_notices(limit=100, now=shop.clock.now(), waits=(timedelta(0),)):
            given_up += [it.id for it in due if it.last]
        assert notice_id(told_of(one, "given up").ref) in given_up
        found = (await queue.backlog(now=shop.clock.now())).notices
        assert found.count == before.count + 1 - len(given_up), "what is given up waits for nothing"

    # --- purge -----------------------------------------------------------------------------------

    async def test_answers_are_purged_after_a_day_and_not_before(self, shop: Harness) -> None:
        queue = shop.distribu.ports.queue
        wish = CreateProduct(name="Rye Flour", price=new_product(shop).price)
        once: Once[Product] = Once("purged", lambda it: views.encode(views.of(it)))
        await shop.distribu.execute_once(shop.actor, wish, once)
        shop.clock.advance(hours=24, milliseconds=-1)
        assert await queue.purge(now=shop.clock.now()) == 0
        assert (await shop.distribu.execute_once(shop.actor, wish, once)).replayed
        shop.clock.advance(milliseconds=1)
        assert await queue.purge(now=shop.clock.now()) == 1
        assert await queue.purge(now=shop.clock.now()) == 0
        assert not (await shop.distribu.execute_once(shop.actor, wish, once)).replayed

    async def test_events_are_forgotten_with_their_deliveries_when_their_time_is_over(
        self, shop: Harness
    ) -> None:
        webhook, _ = await shop.webhook()
        for _ in range(3):
            await shop.product()
        await relay(shop)
        sent, dead, waiting = await claim(shop, claim_s=1)
        await finish(shop, sent, DeliveryStatus.DELIVERED)
        await finish(shop, dead, DeliveryStatus.DEAD)
        shop.clock.advance(seconds=DELIVERIES_KEPT.total_seconds(), milliseconds=-1)
        assert await self.purged(shop) == [1, 2, 3]
        shop.clock.advance(milliseconds=1)
        assert await self.purged(shop) == [3], "what is still to be tried stays"
        for parcel in (sent, dead):
            with pytest.raises(NotFound):
                await delivery(shop, parcel)
        assert (await delivery(shop, waiting)).status is DeliveryStatus.PENDING
        await shop.execute(EditWebhook(webhook_id=webhook.id, is_active=False))
        assert await self.purged(shop) == [], "parked for so long, it is given up"
        await shop.product()
        await relay(shop)
        async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:
            feed = await tx.events.after(None, names=[*WireEvent], limit=9)
        assert [it.position for it in feed.items] == [4], "positions go on"

    async def test_what_a_suspended_company_has_waiting_is_forgotten_too(self, shop: Harness) -> None:
        await shop.webhook()
        await shop.product()
        await relay(shop)
        await shop.distribu.run(shop.actor, SetStanding(suspend=True, reason="unpaid"))
        shop.clock.advance(seconds=DELIVERIES_KEPT.total_seconds())
        assert await self.purged(shop) == []

    async def test_what_waits_for_a_removed_webhook_is_given_up(self, shop: Harness) -> None:
        webhook, _ = await shop.webhook()
        await shop.webhook()
        await shop.product()
        await relay(shop)
        waiting = await claim(shop, claim_s=1)
        shop.clock.advance(seconds=2)
        await shop.execute(RemoveWebhook(webhook_id=webhook.id))
        while await shop.distribu.ports.queue.purge(now=shop.clock.now()):
            pass
        became = {parcel.webhook_id: (await delivery(shop, parcel)).status for parcel in waiting}
        assert len(became) == 2
        assert became.pop(webhook.id) is DeliveryStatus.DEAD
        assert [*became] == [parcel.webhook_id for parcel in await claim(shop)]

    async def purged(self, shop: Harness) -> list[int]:
        """What is left in the feed once there is nothing more to purge."""
        while await shop.distribu.ports.queue.purge(now=shop.clock.now()):
            pass
        async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:
            feed = await tx.events.after(None, names=[*WireEvent], limit=99)
        return [it.position for it in feed.items]

    # --- mails -----------------------------------------------------------------------------------

    async def test_a_mail_has_all_it_takes_to_send_it(self, shop: Harness) -> None:
        await mail(shop, "bo@corner-shop.example", letter='{"a":"ü\\u0001"}', sealed="sealed.token")
        await mail(shop, "di@corner-shop.example")
        first, second = await claim_mails(shop)
        assert first == MailParcel(
            shop.company.id, first.id, "bo@corner-shop.example", '{"a":"ü\\u0001"}', "sealed.token", 0
        )
        assert (second.to, second.letter, second.sealed) == ("di@corner-shop.example", "{}", None)
        assert first.id < second.id

    async def test_the_number_stands_in_every_mail_of_the_order_that_gets_it(self, shop: Harness) -> None:
        order = new_order(shop, (await shop.customer()).id, (await shop.product()).id)
        at = shop.clock.now()
        mails = [
            NewMail(shop.distribu.ports.entropy.uuid(), at, "a@b.example", letter)
            for letter in (f'[{NUMBER_TO_COME},"No. {NUMBER_TO_COME}"]', '["\\u0001"]')
        ]
        async with store_of(shop).begin(scope_of(shop)) as tx:
            number = await tx.write([Change(None, order)], told(shop, order), None, mails)
        assert [it.letter for it in await claim_mails(shop)] == [f'[{number},"No. {number}"]', '["\\u0001"]']

    async def test_a_mail_that_is_claimed_is_nobody_elses_until_the_claim_runs_out(
        self, shop: Harness
    ) -> None:
        await mail(shop, "a@b.example")
        (parcel,) = await claim_mails(shop, claim_s=60)
        assert await claim_mails(shop) == []
        shop.clock.advance(seconds=59)
        assert await claim_mails(shop) == []
        shop.clock.advance(seconds=1)
        assert await claim_mails(shop) == [parcel]

    async def test_claims_of_mails_made_at_once_share_nothing(self, shop: Harness) -> None:
        await mail(shop, *(f"{n}@b.example" for n in range(20)))
        claims = await asyncio.gather(*(claim_mails(shop, limit=6) for _ in range(5)))
        counted = Counter(parcel.id for one in claims for parcel in one)
        while more := await claim_mails(shop):  # what two of them had both looked at is left for the next
            counted.update(parcel.id for parcel in more)
        assert len(counted) == 20
        assert set(counted.values()) == {1}

    async def test_no_more_mails_are_claimed_than_asked_for_and_the_oldest_first(self, shop: Harness) -> None:
        for n in range(5):
            await mail(shop, f"{n}@b.example")
            shop.clock.advance(seconds=1)
        assert [it.to for it in await claim_mails(shop, limit=2)] == ["0@b.example", "1@b.example"]
        assert [it.to for it in await claim_mails(shop, limit=9)] == [f"{n}@b.example" for n in (2, 3, 4)]

    async def test_a_mail_is_tried_again_when_it_is_due_and_not_before(self, shop: Harness) -> None:
        await mail(shop, "a@b.example", letter="[1]", sealed="s")
        (parcel,) = await claim_mails(shop)
        await finish_mail(shop, parcel, MailStatus.PENDING, wait_s=300, error="no answer")
        shop.clock.advance(seconds=299)
        assert await claim_mails(shop) == []
        shop.clock.advance(seconds=1)
        (again,) = await claim_mails(shop)
        assert (again.id, again.to, again.letter, again.sealed) == (parcel.id, "a@b.example", "[1]", "s")
        assert again.attempts == 1

    async def test_a_mail_that_is_sent_or_dead_never_comes_back(self, shop: Harness) -> None:
        await mail(shop, "a@b.example", "b@b.example")
        one, other = await claim_mails(shop)
        await finish_mail(shop, one, MailStatus.SENT)
        await finish_mail(shop, other, MailStatus.DEAD, error="x" * 5000)
        shop.clock.advance(days=29)
        assert await claim_mails(shop) == []

    async def test_who_finishes_late_changes_nothing(self, shop: Harness) -> None:
        """The claim ran out, and two workers sent the same mail: what is sent stays so."""
        await mail(shop, "a@b.example")
        (parcel,) = await claim_mails(shop)
        await finish_mail(shop, parcel, MailStatus.SENT)
        await finish_mail(shop, parcel, MailStatus.PENDING, wait_s=5)
        shop.clock.advance(days=1)
        assert await claim_mails(shop) == []

    async def test_that_a_mail_was_sent_is_forgotten_after_a_month_and_what_waits_is_not(
        self, shop: Harness
    ) -> None:
        queue = shop.distribu.ports.queue
        await mail(shop, "a@b.example", "b@b.example", "c@b.example")
        sent, dead, _ = await claim_mails(shop, claim_s=1)
        await finish_mail(shop, sent, MailStatus.SENT)
        await finish_mail(shop, dead, MailStatus.DEAD)
        shop.clock.advance(seconds=MAILS_KEPT.total_seconds(), milliseconds=-1)
        assert await queue.purge(now=shop.clock.now()) == 0
        shop.clock.advance(milliseconds=1)
        assert await queue.purge(now=shop.clock.now()) == 2
        assert await queue.purge(now=shop.clock.now()) == 0
        assert [it.to for it in await claim_mails(shop)] == ["c@b.example"]
