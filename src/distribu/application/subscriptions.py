"""The views of webhooks: subscriptions, what went out to them, and the feed."""

from collections.abc import Callable
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from distribu.application.finders import Happened
from distribu.application.shapes import Id, Time, View, maybe, time
from distribu.domain.values import Secret
from distribu.domain.webhooks import Attempt, Delivery, DeliveryStatus, Webhook

_Event = Annotated[str, Meta(examples=["order.created"])]
_None = Meta(examples=[None])


class WebhookView(View, frozen=True, kw_only=True):
    id: Id
    url: Annotated[str, Meta(examples=["https://erp.green-grocer.example/distribu"])]
    events: list[_Event]
    is_active: bool
    secret_rotation_grace_expires_at: Annotated[Time | None, _None]
    created_at: Time
    updated_at: Time


class WebhookIssuedView(WebhookView, frozen=True, kw_only=True):
    """A webhook with its new secret, which is shown this once."""

    secret: Annotated[str, Meta(examples=["whsec_…"])]


class AttemptView(View, frozen=True, kw_only=True):
    number: Annotated[int, Meta(examples=[1])]
    at: Time
    duration_ms: Annotated[int, Meta(examples=[84])]
    status: Annotated[int | None, Meta(examples=[200])]
    headers: Annotated[dict[str, str], Meta(examples=[{"content-type": "text/plain"}])]
    body: Annotated[str, Meta(examples=["OK"])]
    error: str


class TestView(View, frozen=True, kw_only=True):
    """A test on its way: a delivery of this event."""

    event_id: Id
    event: Annotated[str, Meta(examples=["webhook.test"])]


class ReplayView(View, frozen=True, kw_only=True):
    """What is sent again."""

    webhook_id: Id
    since: Time
    until: Annotated[Time | None, _None]
    statuses: Annotated[list[DeliveryStatus], Meta(examples=[["PENDING", "DEAD"]])]


class EventView(View, frozen=True, kw_only=True):
    """An event in the feed; ``data`` is what webhooks were sent."""

    id: Id
    event: _Event
    occurred_at: Time
    position: Annotated[int, Meta(examples=[1042])]
    data: Annotated[msgspec.Raw, Meta(extra_json_schema={"type": "object"}, examples=[{}])]


class DeliveryView(View, frozen=True, kw_only=True):
    id: Id
    webhook_id: Id
    event_id: Id
    event: _Event
    position: Annotated[int, Meta(examples=[1042])]
    status: Annotated[DeliveryStatus, Meta(examples=["DELIVERED"])]
    next_attempt_at: Annotated[Time | None, _None]
    created_at: Time
    attempt_count: Annotated[int, Meta(examples=[1])]
    last_status: Annotated[int | None, Meta(examples=[200])]


class DeliveryDetailView(DeliveryView, frozen=True, kw_only=True):
    """A delivery with every attempt made, oldest first."""

    attempts: list[AttemptView]


def _webhook_fields(it: Webhook) -> dict[str, Any]:
    return {
        "id": it.id,
        "url": it.url,
        "events": list(it.subscribed),
        "is_active": it.is_active,
        "secret_rotation_grace_expires_at": maybe(it.grace_expires_at),
        "created_at": time(it.created_at),
        "updated_at": time(it.updated_at),
    }


def _webhook(it: Webhook) -> WebhookView:
    return WebhookView(**_webhook_fields(it))


def webhook_issued(it: Webhook, secret: Secret) -> WebhookIssuedView:
    """A webhook with its new secret."""
    return WebhookIssuedView(**_webhook_fields(it), secret=secret.reveal())


def _attempt(it: Attempt) -> AttemptView:
    return AttemptView(
        number=it.number,
        at=time(it.at),
        duration_ms=it.duration_ms,
        status=it.status,
        headers=it.headers,
        body=it.body,
        error=it.error,
    )


def _delivery_fields(it: Delivery) -> dict[str, Any]:
    return {
        "id": it.id,
        "webhook_id": it.webhook_id,
        "event_id": it.event_id,
        "event": it.event,
        "position": it.position,
        "status": it.status,
        "next_attempt_at": maybe(it.next_attempt_at),
        "created_at": time(it.created_at),
        "attempt_count": it.attempt_count,
        "last_status": it.last_status,
    }


def _delivery(it: Delivery) -> DeliveryDetailView:
    return DeliveryDetailView(**_delivery_fields(it), attempts=[_attempt(one) for one in it.attempts])


def _happened(it: Happened) -> EventView:
    return EventView(
        id=it.id,
        event=it.name,
        occurred_at=time(it.occurred_at),
        position=it.position,
        data=msgspec.Raw(it.payload.encode()),
    )


def listed(it: Delivery) -> DeliveryView:
    """A delivery in a list: without its attempts."""
    return DeliveryView(**_delivery_fields(it))


VIEWS: Final[dict[type, Callable[[Any], View]]] = {
    Webhook: _webhook,
    Delivery: _delivery,
    Happened: _happened,
}
