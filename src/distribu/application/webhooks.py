"""Use cases of webhooks."""

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from distribu.application import fields
from distribu.application.kernel import Command, Issued, Query, Reads, Work
from distribu.application.ports import Page
from distribu.domain.access import Actor, Permission
from distribu.domain.errors import Refused
from distribu.domain.values import Secret, WebhookId
from distribu.domain.webhooks import URL_MAX, WEBHOOKS_MAX, Delivery, Webhook, WireEvent

_Url = Annotated[
    str, Meta(min_length=1, max_length=URL_MAX, examples=["https://erp.green-grocer.example/distribu"])
]
_Events = Annotated[
    tuple[WireEvent, ...],
    Meta(min_length=1, max_length=len(WireEvent), examples=[["order.created", "product.low_stock"]]),
]


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
    """Change a webhook's URL, events or whether it is active."""

    needs = Permission.WEBHOOKS_WRITE

    webhook_id: fields.WebhookIdInPath
    url: _Url | UnsetType = UNSET
    events: _Events | UnsetType = UNSET
    is_active: bool | UnsetType = UNSET
    version: fields.IfMatch | None = None

    async def run(self, work: Work) -> Webhook:
        webhook = (await work.webhooks.get(self.webhook_id)).at(self.version)
        changes = self.given("webhook_id", "version", "events")
        if not isinstance(self.events, UnsetType):
            _may_read(work.actor, self.events)
            changes["subscribed"] = _sorted(self.events)
        if not isinstance(self.url, UnsetType):
            work.admit(self.url)
            if self.url != webhook.url:  # what is subscribed, and what is pending, goes there now
                _may_read(work.actor, webhook.subscribed)
        webhook = webhook.edit(changes, at=work.now)
        work.save(webhook)
        return webhook


class RotateWebhookSecret(Command[Issued[Webhook]], frozen=True, kw_only=True):
    """Give a webhook a new secret. The one before stays valid for seven days; any older one ends now."""

    needs = Permission.WEBHOOKS_WRITE

    webhook_id: fields.WebhookIdInPath

    async def run(self, work: Work) -> Issued[Webhook]:
        webhook = await work.webhooks.get(self.webhook_id)
        secret = _new_secret(work)
        webhook = webhook.rotate(work.seal(secret), at=work.now)
        work.save(webhook)
        return Issued(webhook, secret)


class RemoveWebhook(Command[None], frozen=True, kw_only=True):
    """Stop a webhook for good."""

    needs = Permission.WEBHOOKS_WRITE

    webhook_id: fields.WebhookIdInPath
    version: fields.IfMatch | None = None

    async def run(self, work: Work) -> None:
        webhook = (await work.webhooks.get(self.webhook_id)).at(self.version)
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
