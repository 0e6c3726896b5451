"""Use cases of webhooks."""

from dataclasses import replace
from typing import Annotated, Final

from msgspec import UNSET, Meta, UnsetType

from distribu.application import fields, letters, views
from distribu.application.finders import Feed
from distribu.application.kernel import Command, Issued, Query, Reads, Work
from distribu.application.ports import Page, Replay
from distribu.domain.access import Actor, Permission
from distribu.domain.errors import Refused
from distribu.domain.values import Secret, WebhookId
from distribu.domain.webhooks import (
    REPLAY,
    TEST,
    URL_MAX,
    WEBHOOKS_MAX,
    DeliveriesReplayed,
    Delivery,
    DeliveryStatus,
    Webhook,
    WebhookTested,
    WhyDisabled,
    WireEvent,
)

_Url = Annotated[
    str, Meta(min_length=1, max_length=URL_MAX, examples=["https://erp.green-grocer.example/distribu"])
]
_Events = Annotated[
    tuple[WireEvent, ...],
    Meta(min_length=1, max_length=len(WireEvent), examples=[["order.created", "product.low_stock"]]),
]

TOLD_MAX: Final = 50
"""Of a company's leaders so many are mailed."""


class RegisterWebhook(Command[Issued[Webhook]], frozen=True, kw_only=True):
    """Subscribe a URL to events. The signing secret is in the answer and is shown this once.

    Each event also takes the read scope of what it carries.
    """

    needs = Permission.WEBHOOKS_WRITE

    url: _Url
    events: _Events
    is_active: bool = True

    async def run(self, work: Work) -> Issued[Webhook]:
        _may_read(work.actor, self.events)
        work.admit(self.url)
        # Counted under the company's lock, so that two at once cannot both be the last.
        _, count = await work.together(work.companies.current(lock=True), work.webhooks.count())
        if count >= WEBHOOKS_MAX:
            raise Refused("too_many", f"A company has at most {WEBHOOKS_MAX} webhooks.")
        secret = _new_secret(work)
        webhook = Webhook.register(
            company_id=work.company_id,
            id=WebhookId(work.new_id()),
            url=self.url,
            subscribed=_sorted(self.events),
            is_active=self.is_active,
            secret=work.seal(secret),
            at=work.now,
        )
        work.save(webhook)
        return Issued(webhook, secret)


class EditWebhook(Command[Webhook], frozen=True, kw_only=True):
    """Change a webhook's URL, events or whether it is active.

    It takes the read scope of each event, of those it has and of those it gets.
    """

    needs = Permission.WEBHOOKS_WRITE

    webhook_id: fields.WebhookIdInPath
    url: _Url | UnsetType = UNSET
    events: _Events | UnsetType = UNSET
    is_active: bool | UnsetType = UNSET
    version: fields.IfMatch | None = None

    async def run(self, work: Work) -> Webhook:
        webhook = await _managed(work, self.webhook_id, self.version)
        changes = self.given("webhook_id", "version", "events")
        if not isinstance(self.events, UnsetType):
            _may_read(work.actor, self.events)
            changes["subscribed"] = _sorted(self.events)
        if not isinstance(self.url, UnsetType):
            work.admit(self.url)
        webhook = webhook.edit(changes, at=work.now)
        work.save(webhook)
        return webhook


class RotateWebhookSecret(Command[Issued[Webhook]], frozen=True, kw_only=True):
    """Give a webhook a new secret. The one before stays valid for seven days; any older one ends now.

    Without `grace` the one before ends now, too: when somebody else has seen it. It takes the read scope of
    each event of the webhook.
    """

    needs = Permission.WEBHOOKS_WRITE

    webhook_id: fields.WebhookIdInPath
    grace: bool = True

    async def run(self, work: Work) -> Issued[Webhook]:
        webhook = await _managed(work, self.webhook_id)
        secret = _new_secret(work)
        webhook = webhook.rotate(work.seal(secret), grace=self.grace, at=work.now)
        work.save(webhook)
        return Issued(webhook, secret)


class RemoveWebhook(Command[None], frozen=True, kw_only=True):
    """Stop a webhook for good. It takes the read scope of each of its events."""

    needs = Permission.WEBHOOKS_WRITE

    webhook_id: fields.WebhookIdInPath
    version: fields.IfMatch | None = None

    async def run(self, work: Work) -> None:
        webhook = await _managed(work, self.webhook_id, self.version)
        work.save(webhook.remove(at=work.now))


class ReadWebhook(Query[Webhook], frozen=True, kw_only=True):
    """One webhook, without its secret."""

    needs = Permission.WEBHOOKS_READ

    webhook_id: fields.WebhookIdInPath

    async def run(self, reads: Reads) -> Webhook:
        return await reads.webhooks.get(self.webhook_id)


class ListWebhooks(Query[Page[Webhook]], frozen=True, kw_only=True):
    """Webhooks, newest first."""

    needs = Permission.WEBHOOKS_READ

    limit: fields.Limit = 50
    cursor: fields.Cursor | None = None

    async def run(self, reads: Reads) -> Page[Webhook]:
        return await reads.webhooks.page(limit=self.limit, cursor=self.cursor)


class ReadDelivery(Query[Delivery], frozen=True, kw_only=True):
    """One delivery with every attempt made."""

    needs = Permission.WEBHOOKS_READ

    delivery_id: fields.DeliveryIdInPath

    async def run(self, reads: Reads) -> Delivery:
        return await reads.webhooks.delivery(self.delivery_id)


class ListDeliveries(Query[Page[Delivery]], frozen=True, kw_only=True):
    """A webhook's deliveries, newest first."""

    needs = Permission.WEBHOOKS_READ

    webhook_id: fields.WebhookIdInPath
    limit: fields.Limit = 50
    cursor: fields.Cursor | None = None

    async def run(self, reads: Reads) -> Page[Delivery]:
        _, page = await reads.together(
            reads.webhooks.get(self.webhook_id),
            reads.webhooks.deliveries(self.webhook_id, limit=self.limit, cursor=self.cursor),
        )
        return page


class SendTest(Command[views.TestView], frozen=True, kw_only=True):
    """Have a test event sent to a webhook, to see it arrive: the way all others go.

    It has a place in the feed as they do. It is sent to a webhook that is switched off, too. It takes
    the read scope of each event of the webhook.
    """

    needs = Permission.WEBHOOKS_WRITE

    webhook_id: fields.WebhookIdInPath

    async def run(self, work: Work) -> views.TestView:
        webhook = await _managed(work, self.webhook_id)
        entry = WebhookTested(entity_type="Webhook", entity_id=webhook.id)
        return views.TestView(event_id=work.ask(entry, TEST, views.of(webhook)), event=TEST)


class ReplayDelivery(Command[Delivery], frozen=True, kw_only=True):
    """Send a delivery again, whatever came of it; it is tried as often as a new one.

    One that is being tried at the moment is left to that. It takes the read scope of each event of the
    webhook.
    """

    needs = Permission.WEBHOOKS_WRITE

    delivery_id: fields.DeliveryIdInPath

    async def run(self, work: Work) -> Delivery:
        delivery = await work.webhooks.delivery(self.delivery_id)
        webhook = await _managed(work, delivery.webhook_id)
        statuses = (DeliveryStatus.PENDING, DeliveryStatus.DELIVERED, DeliveryStatus.DEAD)
        _replay(
            work,
            Replay(webhook_id=webhook.id, delivery_id=delivery.id, since=None, until=None, statuses=statuses),
        )
        status = DeliveryStatus.PENDING if webhook.is_active else DeliveryStatus.PARKED
        return replace(delivery, status=status, next_attempt_at=work.now)


class ReplayDeliveries(Command[views.ReplayView], frozen=True, kw_only=True):
    """Send a webhook's deliveries of a time again, by default all that have not arrived.

    With `status` those: DELIVERED for a receiver that has lost what it had. It takes the read scope of each
    event of the webhook.
    """

    needs = Permission.WEBHOOKS_WRITE

    webhook_id: fields.WebhookIdInPath
    since: fields.Moment
    until: fields.Moment | None = None
    status: DeliveryStatus | None = None

    async def run(self, work: Work) -> views.ReplayView:
        webhook = await _managed(work, self.webhook_id)
        statuses: tuple[DeliveryStatus, ...] = (DeliveryStatus.PENDING, DeliveryStatus.DEAD)
        if self.status is not None:
            waits = self.status in (DeliveryStatus.PENDING, DeliveryStatus.PARKED)
            statuses = (DeliveryStatus.PENDING if waits else self.status,)
        order = Replay(
            webhook_id=webhook.id, delivery_id=None, since=self.since, until=self.until, statuses=statuses
        )
        _replay(work, order)
        return views.ReplayView(
            webhook_id=webhook.id,
            since=views.time(self.since),
            until=views.maybe(self.until),
            statuses=[*statuses],
        )


class DisableWebhook(Command[None], frozen=True, kw_only=True):
    """Switch a webhook off to which nothing gets through, and tell owner and admins.

    Unless somebody has changed it since the attempt that says so: that may be what mends it.
    """

    needs = None
    internal = True

    webhook_id: fields.Uuid
    why: WhyDisabled
    tried_at: fields.Moment
    failing_since: fields.Moment | None = None

    async def run(self, work: Work) -> None:
        webhook = await work.webhooks.get(WebhookId(self.webhook_id))
        if not webhook.is_active or webhook.updated_at > self.tried_at:
            return
        work.save(webhook.disable(self.why, failing_since=self.failing_since, at=work.now))
        company, leaders = await work.together(work.companies.current(), work.members.leaders(limit=TOLD_MAX))
        letter = letters.webhook_disabled(webhook, company, self.why, self.failing_since)
        for leader in leaders:
            work.mail(leader.email, letter)


class ListEvents(Query[Feed], frozen=True, kw_only=True):
    """The events behind the webhooks, oldest first, each with its place in the company's feed.

    An event takes the read scope of what it carries: to a key without it, it is not shown. So positions
    may be missing from `data`, and no event is missed for that: everything up to `nextAfter` was looked
    at, and the next page begins there, now or when there is more. Events that are not kept any more are
    refused (events_gone), never skipped; and so is a position behind the newest (position_unknown), which
    says that this is an earlier state than the reader has seen, such as a backup that was restored.
    """

    needs = Permission.WEBHOOKS_READ

    after: (
        Annotated[
            int,
            Meta(ge=0, le=2**53, description="Events after this position; without it, from the first kept."),
        ]
        | None
    ) = None
    limit: fields.Limit = 50

    async def run(self, reads: Reads) -> Feed:
        names = [event for event in WireEvent if event.carries in reads.actor.permissions]
        return await reads.events.after(self.after, names=[*names, TEST], limit=self.limit)


def _replay(work: Work, order: Replay) -> None:
    entry = DeliveriesReplayed(
        entity_type="Webhook",
        entity_id=order.webhook_id,
        delivery_id=order.delivery_id,
        since=order.since,
        until=order.until,
        statuses=order.statuses,
    )
    work.ask(entry, REPLAY, order)


async def _managed(work: Work, id: WebhookId, version: int | None = None) -> Webhook:
    """A webhook that somebody is about to manage, who must be able to read what goes there."""
    webhook = await work.webhooks.get(id)
    _may_read(work.actor, webhook.subscribed)
    return webhook.at(version)


def _may_read(actor: Actor, events: tuple[WireEvent, ...]) -> None:
    for event in events:
        actor.require(event.carries)


def _sorted(events: tuple[WireEvent, ...]) -> tuple[WireEvent, ...]:
    return tuple(event for event in WireEvent if event in events)


def _new_secret(work: Work) -> Secret:
    secret = None
    while secret is None:
        secret = Webhook.secret_from(work.entropy(24))
    return secret
