"""Deliveries on any store: the feed, sending again, tests, and what switches a webhook off."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from distribu import Distribu, Forbidden, Harness, NotFound, Role
from distribu.adapters.memory.twins import GlassVault, silence
from distribu.application import views
from distribu.application.finders import FEED_SCAN, Feed, Happened, feed_after
from distribu.application.ports import DELIVERIES_KEPT, REPLAY_BATCH, Reply
from distribu.application.webhooks import (
    DisableWebhook,
    EditWebhook,
    ListDeliveries,
    ListEvents,
    ReadDelivery,
    ReadWebhook,
    RemoveWebhook,
    ReplayDeliveries,
    ReplayDelivery,
    RotateWebhookSecret,
    SendTest,
)
from distribu.domain.access import Permission
from distribu.domain.webhooks import (
    RETRY_WAITS_S,
    Delivery,
    DeliveryStatus,
    Webhook,
    WhyDisabled,
    WireEvent,
)
from distribu.entrypoints.worker import Worker
from tests import people
from tests.contracts.asking import each, key_of, log_of, refused, sent_to
from tests.contracts.webhooks import URL, hex_signature, only_delivery, says, standard


async def deliveries(shop: Harness, webhook: Webhook) -> list[Delivery]:
    """All of a webhook's, oldest first."""
    page = await shop.execute(ListDeliveries(webhook_id=webhook.id, limit=100))
    return [*page.items[::-1]]


def envelopes(shop: Harness, url: str) -> list[Any]:
    return [json.loads(one.body) for one in sent_to(shop, url)]


class DeliveryUseCases:
    # --- the feed ----------------------------------------------------------------------------------

    async def test_the_feed_holds_every_event_once_in_its_place(self, shop: Harness) -> None:
        products = [await shop.product(f"P{n}") for n in range(5)]
        await shop.work()
        first = await shop.execute(ListEvents(limit=2))
        rest = await shop.execute(ListEvents(after=first.next_after, limit=50))
        assert [it.position for it in (*first.items, *rest.items)] == [1, 2, 3, 4, 5]
        assert (first.next_after, first.has_more, rest.next_after, rest.has_more) == (2, True, 5, False)
        assert [json.loads(it.payload)["id"] for it in (*first.items, *rest.items)] == [
            it.id for it in products
        ]
        assert {it.name for it in first.items} == {"product.created"}
        again = await shop.execute(ListEvents(after=5))
        assert again == Feed((), 5, has_more=False)

    async def test_a_position_that_was_never_given_out_is_refused(self, shop: Harness) -> None:
        """Its reader knows of more than there is: this is a backup, and waiting would miss what comes."""
        assert await shop.execute(ListEvents(after=0)) == Feed((), 0, has_more=False)
        async with refused(shop, "position_unknown") as no:
            await shop.execute(ListEvents(after=1))
        assert "the newest is 0" in no.refused.message
        await shop.product()
        await shop.customer()
        await shop.work()
        assert (await shop.execute(ListEvents(after=2))).next_after == 2
        blind = key_of(shop, Permission.WEBHOOKS_READ)
        assert (await shop.execute(ListEvents(after=2), blind)).next_after == 2
        for actor in (None, blind):
            async with refused(shop, "position_unknown") as no:
                await shop.execute(ListEvents(after=3), actor)
            assert "the newest is 2" in no.refused.message

    async def test_the_feed_says_what_the_webhooks_were_told(self, shop: Harness) -> None:
        url = URL + shop.company.id
        await shop.webhook(url=url)
        await shop.order(await shop.customer(), (await shop.product(), 2))
        await shop.work()
        sent = {it["position"]: it for it in envelopes(shop, url)}
        shown = [views.encode(views.of(it)) for it in (await shop.execute(ListEvents())).items]
        assert len(shown) == len(sent) == 3
        for one in map(json.loads, shown):
            assert one == {name: sent[one["position"]][name] for name in one}
            assert set(one) == {"id", "event", "occurredAt", "position", "data"}

    async def test_what_a_key_may_not_read_is_left_out_and_is_no_gap(self, shop: Harness) -> None:
        """The reader goes on after all that was looked at, whether or not it was shown."""
        customer, product = await shop.customer(), await shop.product()
        await shop.order(customer, (product, 1))
        await shop.customer()
        await shop.work()
        reader = key_of(shop, Permission.WEBHOOKS_READ, Permission.PRODUCTS_READ)
        seen = await shop.execute(ListEvents(), reader)
        assert [(it.name, it.position) for it in seen.items] == [("product.created", 2)]
        assert (seen.next_after, seen.has_more) == (4, False)
        blind = await shop.execute(ListEvents(), key_of(shop, Permission.WEBHOOKS_READ))
        assert blind == Feed((), 4, has_more=False)
        async with refused(shop, "missing_scope", Forbidden):
            await shop.execute(ListEvents(), key_of(shop, Permission.PRODUCTS_READ))

    def test_one_question_looks_at_so_many_positions_at_most(self) -> None:
        """A reader of few events is led on through those of others."""
        event = Happened("id", "product.created", datetime(2026, 1, 5, tzinfo=UTC), 7, "{}")
        head = 3 * FEED_SCAN
        assert feed_after(None, head, 0, [], 50) == Feed((), FEED_SCAN, has_more=True)
        assert feed_after(FEED_SCAN, head, 0, [event], 50).next_after == 2 * FEED_SCAN
        assert feed_after(2 * FEED_SCAN, head, 0, [], 50) == Feed((), head, has_more=False)
        assert feed_after(0, 5, 0, [event], 50) == Feed((event,), 7, has_more=False), "placed meanwhile"

    async def test_events_that_are_gone_are_refused_and_never_skipped(self, shop: Harness) -> None:
        await shop.product()
        await shop.product()
        await shop.work()
        shop.clock.advance(seconds=DELIVERIES_KEPT.total_seconds() - 1)
        await shop.product()
        await shop.work()
        await shop.distribu.ports.queue.purge(now=shop.clock.now())
        assert [it.position for it in (await shop.execute(ListEvents())).items] == [1, 2, 3]
        shop.clock.advance(seconds=1)
        while await shop.distribu.ports.queue.purge(now=shop.clock.now()):
            pass
        async with refused(shop, "events_gone") as no:
            await shop.execute(ListEvents(after=1))
        assert "go on after 2" in no.refused.message
        for after in (None, 2):
            assert [it.position for it in (await shop.execute(ListEvents(after=after))).items] == [3]

    async def test_a_strangers_feed_is_another(self, shop: Harness) -> None:
        stranger = await shop.stranger()
        await shop.product()
        await shop.work()
        assert await stranger.execute(ListEvents()) == Feed((), 0, has_more=False)

    # --- position and previous ----------------------------------------------------------------------

    async def test_a_delivery_says_which_one_came_before_it_for_this_webhook(self, shop: Harness) -> None:
        url = URL + shop.company.id
        await shop.customer()  # position 1, before there was a webhook
        await shop.webhook(WireEvent.PRODUCT_CREATED, url=url)
        await shop.product()
        await shop.customer()
        await shop.product()
        await shop.product()
        await shop.work()
        await shop.product()
        await shop.work()
        chain = sorted((it["position"], it["previous"]) for it in envelopes(shop, url))
        assert chain == [(2, None), (4, 2), (5, 4), (6, 5)]

    async def test_what_a_webhook_slept_through_is_a_gap_that_the_feed_fills(self, shop: Harness) -> None:
        url = URL + shop.company.id
        webhook, _ = await shop.webhook(url=url)
        await shop.product()
        await shop.work()
        await shop.execute(EditWebhook(webhook_id=webhook.id, is_active=False))
        await shop.product()
        await shop.product()
        await shop.work()
        await shop.execute(EditWebhook(webhook_id=webhook.id, is_active=True))
        await shop.product()
        await shop.work()
        first, second = envelopes(shop, url)
        assert (first["position"], second["position"], second["previous"]) == (1, 4, 3)
        missed = await shop.execute(ListEvents(after=first["position"]))
        assert [it.position for it in missed.items] == [2, 3, 4]

    async def test_a_list_says_how_often_each_was_tried_and_what_was_answered_last(
        self, shop: Harness
    ) -> None:
        webhook, _ = await shop.webhook(WireEvent.PRODUCT_CREATED)

        async def told() -> tuple[int, int | None]:
            (listed,) = (await shop.execute(ListDeliveries(webhook_id=webhook.id))).items
            read = await shop.execute(ReadDelivery(delivery_id=listed.id))
            assert (read.attempt_count, read.last_status) == (listed.attempt_count, listed.last_status)
            assert read.attempt_count == len(read.attempts)
            return listed.attempt_count, listed.last_status

        await shop.product()
        while await shop.distribu.ports.queue.relay(limit=100, now=shop.clock.now()):
            pass
        assert await told() == (0, None)
        for count, (answer, status) in enumerate(((says(500), 500), (silence, None), (says(204), 204)), 1):
            shop.receivers.answer = answer
            await shop.work()
            assert await told() == (count, status)
            shop.clock.advance(minutes=10)

    # --- sending again --------------------------------------------------------------------------------

    async def test_a_dead_delivery_is_sent_again_and_tried_as_a_new_one(self, shop: Harness) -> None:
        url = URL + shop.company.id
        webhook, _ = await shop.webhook(url=url)
        shop.receivers.answer = says(500)
        await shop.product()
        await shop.work()
        await self._until_dead(shop, webhook)
        dead = await only_delivery(shop, webhook)
        shop.clock.advance(minutes=1)
        replayed = await shop.execute(ReplayDelivery(delivery_id=dead.id))
        assert (replayed.status, replayed.next_attempt_at) == (DeliveryStatus.PENDING, shop.clock.now())
        await shop.work()
        failed = await only_delivery(shop, webhook)
        assert (failed.status, len(failed.attempts)) == (DeliveryStatus.PENDING, 11)
        assert failed.next_attempt_at is not None
        assert 4 <= (failed.next_attempt_at - shop.clock.now()).total_seconds() <= 6
        shop.receivers.answer = says(200)
        shop.clock.advance(seconds=6)
        await shop.work()
        done = await only_delivery(shop, webhook)
        assert (done.status, [it.number for it in done.attempts]) == (
            DeliveryStatus.DELIVERED,
            list(range(1, 13)),
        )
        sent = envelopes(shop, url)
        assert len(sent) == 12
        assert len({(it["id"], it["position"], str(it["data"])) for it in sent}) == 1
        (told,) = await log_of(shop, "webhook.replayed")
        assert (told.entity_id, told.metadata["deliveryId"]) == (webhook.id, dead.id)

    async def _until_dead(self, shop: Harness, webhook: Webhook) -> None:
        for _ in RETRY_WAITS_S:
            due = (await only_delivery(shop, webhook)).next_attempt_at
            assert due is not None
            shop.clock.advance(seconds=(due - shop.clock.now()).total_seconds())
            await shop.work()
        assert (await only_delivery(shop, webhook)).status is DeliveryStatus.DEAD

    async def test_a_replayed_delivery_ends_after_ten_more_attempts(self, shop: Harness) -> None:
        webhook, _ = await shop.webhook(url=URL + shop.company.id)
        shop.receivers.answer = says(500)
        await shop.product()
        await shop.work()
        await self._until_dead(shop, webhook)
        await self._awake(shop, webhook)
        shop.clock.advance(minutes=1)
        await shop.execute(ReplayDelivery(delivery_id=(await only_delivery(shop, webhook)).id))
        await shop.work()
        await self._until_dead(shop, webhook)
        assert len((await only_delivery(shop, webhook)).attempts) == 20

    async def _awake(self, shop: Harness, webhook: Webhook) -> None:
        """So that its failures of before do not switch it off."""
        for active in (False, True):
            await shop.execute(EditWebhook(webhook_id=webhook.id, is_active=active))

    async def test_what_has_arrived_can_be_sent_again(self, shop: Harness) -> None:
        url = URL + shop.company.id
        webhook, _ = await shop.webhook(url=url)
        await shop.product()
        await shop.work()
        shop.clock.advance(seconds=1)
        delivery = await only_delivery(shop, webhook)
        await shop.execute(ReplayDelivery(delivery_id=delivery.id))
        await shop.work()
        assert [it["position"] for it in envelopes(shop, url)] == [1, 1]
        assert (await only_delivery(shop, webhook)).status is DeliveryStatus.DELIVERED

    async def test_everything_that_failed_since_is_sent_again(self, shop: Harness) -> None:
        url = URL + shop.company.id
        webhook, _ = await shop.webhook(url=url)
        other, _ = await shop.webhook(url=url + "other")
        await shop.product()
        await shop.work()
        shop.clock.advance(hours=1)
        since = shop.clock.now()
        shop.receivers.answer = says(500)
        for _ in range(3):
            await shop.product()
        await shop.work()
        shop.clock.advance(seconds=1)
        until = shop.clock.now()
        await shop.product()
        await shop.work()
        shop.receivers.answer = says(200)
        shop.received.clear()
        shop.clock.advance(seconds=1)
        order = await shop.execute(ReplayDeliveries(webhook_id=webhook.id, since=since, until=until))
        assert (order.since, order.until) == (views.time(since), views.time(until))
        await shop.work()
        assert sorted(it["position"] for it in envelopes(shop, url)) == [2, 3, 4]
        assert sent_to(shop, url + "other") == []
        await shop.execute(ReplayDeliveries(webhook_id=webhook.id, since=since))
        await shop.work()
        assert sorted(it["position"] for it in envelopes(shop, url)) == [2, 3, 4, 5]
        shop.clock.advance(seconds=1)
        again = ReplayDeliveries(webhook_id=webhook.id, since=since, status=DeliveryStatus.DELIVERED)
        await shop.execute(again)
        await shop.work()
        assert sorted(it["position"] for it in envelopes(shop, url)) == sorted([2, 3, 4, 5] * 2)
        assert {it.status for it in await deliveries(shop, other)} == {
            DeliveryStatus.DELIVERED,
            DeliveryStatus.PENDING,
        }

    async def test_many_are_sent_again_a_part_at_a_time_and_each_once(self, shop: Harness) -> None:
        url = URL + shop.company.id
        webhook, _ = await shop.webhook(url=url)
        assert REPLAY_BATCH == 500
        count = 20
        for _ in range(count):
            await shop.product()
        await shop.work()
        shop.clock.advance(seconds=1)
        order = ReplayDeliveries(
            webhook_id=webhook.id,
            since=shop.clock.now() - timedelta(days=1),
            status=DeliveryStatus.DELIVERED,
        )
        await shop.execute(order)
        await shop.work()
        assert len(sent_to(shop, url)) == 2 * count

    async def test_sending_again_takes_the_right_to_manage_and_a_webhook_that_is_there(
        self, shop: Harness
    ) -> None:
        webhook, _ = await shop.webhook()
        await shop.product()
        await shop.work()
        delivery = await only_delivery(shop, webhook)
        requests = each(
            ReplayDelivery(delivery_id=delivery.id),
            ReplayDeliveries(webhook_id=webhook.id, since=shop.clock.now()),
            SendTest(webhook_id=webhook.id),
        )
        for request in requests:
            async with refused(shop, "missing_scope", Forbidden):
                await shop.execute(request, key_of(shop, Permission.WEBHOOKS_READ))
            stranger = await shop.stranger()
            with pytest.raises(NotFound):
                await stranger.execute(request)
        await shop.execute(RemoveWebhook(webhook_id=webhook.id))
        for request in requests:
            async with refused(shop, "webhook_not_found", NotFound):
                await shop.execute(request)

    async def test_what_a_webhook_is_not_subscribed_to_any_more_is_not_sent(self, shop: Harness) -> None:
        """Or who may not read orders could point the webhook elsewhere and have old ones sent there."""
        url = URL + shop.company.id
        webhook, _ = await shop.webhook(WireEvent.ORDER_CREATED, url=url)
        shop.receivers.answer = says(500)
        await shop.order(await shop.customer(), (await shop.product(), 1))
        await shop.work()
        assert len(sent_to(shop, url)) == 1
        thief = key_of(shop, Permission.WEBHOOKS_WRITE, Permission.PRODUCTS_READ)
        edit = EditWebhook(webhook_id=webhook.id, events=(WireEvent.PRODUCT_CREATED,))
        async with refused(shop, "missing_scope", Forbidden):
            await shop.execute(edit, thief)
        await shop.execute(edit)
        await shop.execute(EditWebhook(webhook_id=webhook.id, url=url + "thief"), thief)
        shop.receivers.answer = says(200)
        shop.clock.advance(seconds=6)
        delivery = await only_delivery(shop, webhook)
        await shop.execute(ReplayDelivery(delivery_id=delivery.id), thief)
        await shop.work()
        assert sent_to(shop, url + "thief") == []
        kept = await only_delivery(shop, webhook)
        assert kept.status is DeliveryStatus.DEAD
        assert "not subscribed" in kept.attempts[-1].error

    @pytest.mark.parametrize("odd", ["Mon, 99999999999999999999 Jan 2026 00:00:00 GMT", "soon", "-7", ""])
    async def test_an_odd_retry_after_is_as_none(self, shop: Harness, odd: str) -> None:
        webhook, _ = await shop.webhook(WireEvent.PRODUCT_CREATED)
        shop.receivers.answer = lambda *_: Reply(503, {"Retry-After": odd}, "", "")
        await shop.product()
        await shop.work()
        kept = await only_delivery(shop, webhook)
        assert (kept.status, len(kept.attempts)) == (DeliveryStatus.PENDING, 1)
        assert kept.next_attempt_at is not None
        assert kept.next_attempt_at - shop.clock.now() <= timedelta(seconds=6)

    async def test_what_cannot_be_signed_is_a_failure_that_says_so(self, shop: Harness) -> None:
        """The key that its secret was sealed under was taken out of the ring."""
        webhook, _ = await shop.webhook(WireEvent.PRODUCT_CREATED)
        await shop.product()
        await Worker(Distribu(replace(shop.distribu.ports, vault=GlassVault()))).drain()
        kept = await only_delivery(shop, webhook)
        assert (kept.status, len(kept.attempts)) == (DeliveryStatus.PENDING, 1)
        assert "no key of the vault" in kept.attempts[0].error

    # --- tests ------------------------------------------------------------------------------------------

    async def test_a_test_goes_to_its_webhook_alone_the_way_all_others_go(self, shop: Harness) -> None:
        url = URL + shop.company.id
        webhook, secret = await shop.webhook(WireEvent.ORDER_CREATED, url=url)
        await shop.webhook(url=url + "other")
        test = await shop.execute(SendTest(webhook_id=webhook.id))
        await shop.work()
        (one,) = sent_to(shop, url)
        assert sent_to(shop, url + "other") == []
        sent = json.loads(one.body)
        assert (sent["id"], sent["event"], sent["position"]) == (test.event_id, "webhook.test", 1)
        assert sent["data"]["id"] == webhook.id
        assert secret.reveal() not in one.body.decode()
        assert one.headers["X-Webhook-Signature"] == hex_signature(secret, one.body)
        assert one.headers["webhook-signature"] == standard(secret, one)
        (delivery,) = await deliveries(shop, webhook)
        assert (delivery.event_id, delivery.status) == (test.event_id, DeliveryStatus.DELIVERED)
        (told,) = await log_of(shop, "webhook.tested")
        assert told.entity_id == webhook.id

    async def test_a_test_is_sent_to_a_webhook_that_is_switched_off(self, shop: Harness) -> None:
        url = URL + shop.company.id
        webhook, _ = await shop.webhook(url=url)
        await shop.execute(EditWebhook(webhook_id=webhook.id, is_active=False))
        await shop.execute(SendTest(webhook_id=webhook.id))
        await shop.work()
        assert [it["event"] for it in envelopes(shop, url)] == ["webhook.test"]

    # --- switched off -----------------------------------------------------------------------------------

    async def test_who_says_that_it_is_gone_is_asked_no_more(self, shop: Harness) -> None:
        url = URL + shop.company.id
        owner, admin = await people.staff(shop, Role.OWNER), await people.staff(shop, Role.ADMIN)
        await people.staff(shop, Role.MEMBER)
        webhook, _ = await shop.webhook(url=url)
        shop.receivers.answer = says(410)
        await shop.product()
        await shop.work()
        assert not (await shop.execute(ReadWebhook(webhook_id=webhook.id))).is_active
        parked = await only_delivery(shop, webhook)
        assert (parked.status, [it.status for it in parked.attempts]) == (DeliveryStatus.PARKED, [410])
        assert [it.to for it in shop.mail] == [owner.user.email, admin.user.email]
        assert url in shop.mail[0].text
        assert "410" in shop.mail[0].text
        (told,) = await log_of(shop, "webhook.disabled")
        assert (told.actor_kind, told.entity_id, told.metadata["why"]) == ("SYSTEM", webhook.id, "GONE")
        shop.clock.advance(days=1)
        await shop.product()
        await shop.work()
        assert len(sent_to(shop, url)) == 1
        shop.receivers.answer = says(200)
        await shop.execute(EditWebhook(webhook_id=webhook.id, is_active=True))
        await shop.work()
        assert (await deliveries(shop, webhook))[0].status is DeliveryStatus.DELIVERED

    async def test_after_four_days_of_nothing_but_failures_it_is_switched_off(self, shop: Harness) -> None:
        url = URL + shop.company.id
        await people.staff(shop, Role.OWNER)
        webhook, _ = await shop.webhook(url=url)
        shop.receivers.answer = silence
        await shop.product()
        await shop.work()
        shop.clock.advance(days=4, milliseconds=-1)
        await shop.product()
        await shop.work()
        assert (await shop.execute(ReadWebhook(webhook_id=webhook.id))).is_active
        assert shop.mail == []
        shop.clock.advance(milliseconds=1)
        await shop.product()
        await shop.work()
        assert not (await shop.execute(ReadWebhook(webhook_id=webhook.id))).is_active
        (told,) = await log_of(shop, "webhook.disabled")
        assert told.metadata["why"] == "FAILING"
        assert "2 days" not in shop.mail[0].text
        assert len(shop.mail) == 1
        assert {it.status for it in await deliveries(shop, webhook)} == {DeliveryStatus.PARKED}

    async def test_one_success_is_enough_to_stay_on(self, shop: Harness) -> None:
        webhook, _ = await shop.webhook(WireEvent.PRODUCT_CREATED)
        shop.receivers.answer = says(500)
        for day in range(9):
            await shop.product()
            shop.receivers.answer = says(200 if day == 3 else 500)
            await shop.work()
            shop.clock.advance(hours=12)
        assert (await shop.execute(ReadWebhook(webhook_id=webhook.id))).is_active

    @pytest.mark.parametrize("mended", ["switched on", "pointed elsewhere"])
    async def test_failures_before_it_was_mended_do_not_count(self, shop: Harness, mended: str) -> None:
        webhook, _ = await shop.webhook()
        shop.receivers.answer = says(500)
        await shop.product()
        await shop.work()
        shop.clock.advance(days=5)
        if mended == "switched on":
            await self._awake(shop, webhook)
        else:
            await shop.execute(EditWebhook(webhook_id=webhook.id, url=URL + "elsewhere"))
        await shop.product()
        await shop.work()
        assert (await shop.execute(ReadWebhook(webhook_id=webhook.id))).is_active
        shop.clock.advance(days=4)
        await shop.product()
        await shop.work()
        assert not (await shop.execute(ReadWebhook(webhook_id=webhook.id))).is_active

    async def test_what_was_changed_since_the_attempt_is_not_switched_off(self, shop: Harness) -> None:
        webhook, _ = await shop.webhook()
        tried = shop.clock.now()
        shop.clock.advance(milliseconds=1)
        await shop.execute(EditWebhook(webhook_id=webhook.id, url=URL + "elsewhere"))
        late = DisableWebhook(webhook_id=webhook.id, why=WhyDisabled.GONE, tried_at=tried)
        await shop.distribu.run(shop.actor, late)
        assert (await shop.execute(ReadWebhook(webhook_id=webhook.id))).is_active
        assert await log_of(shop, "webhook.disabled") == []

    async def test_what_is_parked_says_so_and_goes_out_when_it_is_switched_on(self, shop: Harness) -> None:
        url = URL + shop.company.id
        webhook, _ = await shop.webhook(url=url)
        shop.receivers.answer = says(500)
        await shop.product()
        await shop.work()
        await shop.execute(EditWebhook(webhook_id=webhook.id, is_active=False))
        assert (await only_delivery(shop, webhook)).status is DeliveryStatus.PARKED
        shop.clock.advance(days=1)
        await shop.work()
        assert len(sent_to(shop, url)) == 1
        shop.receivers.answer = says(200)
        await shop.execute(EditWebhook(webhook_id=webhook.id, is_active=True))
        assert (await only_delivery(shop, webhook)).status is DeliveryStatus.PENDING
        await shop.work()
        assert (await only_delivery(shop, webhook)).status is DeliveryStatus.DELIVERED

    # --- secrets ----------------------------------------------------------------------------------------

    async def test_without_grace_the_old_secret_ends_at_once(self, shop: Harness) -> None:
        """Somebody else has it: also the one before it, whose grace was not over."""
        url = URL + shop.company.id
        webhook, first = await shop.webhook(url=url)
        second = (await shop.execute(RotateWebhookSecret(webhook_id=webhook.id))).secret
        third = await shop.execute(RotateWebhookSecret(webhook_id=webhook.id, grace=False))
        assert (third.what.old_secret, third.what.grace_expires_at) == (None, None)
        await shop.product()
        await shop.work()
        (one,) = sent_to(shop, url)
        assert one.headers["X-Webhook-Signature"] == hex_signature(third.secret, one.body)
        assert "X-Webhook-Signature-Old" not in one.headers
        assert one.headers["webhook-signature"] == standard(third.secret, one)
        for old in (first, second):
            assert standard(old, one) not in one.headers["webhook-signature"]
        told = await log_of(shop, "webhook.secret_rotated")
        assert told[-1].metadata == {"graceExpiresAt": None}

    async def test_of_a_webhook_that_is_gone_no_secret_is_kept(self, shop: Harness) -> None:
        webhook, _ = await shop.webhook()
        await shop.execute(RotateWebhookSecret(webhook_id=webhook.id))
        gone = (await shop.execute(ReadWebhook(webhook_id=webhook.id))).remove(at=shop.clock.now())
        assert (gone.secret, gone.old_secret) == ("", None)
