"""Webhooks: who wants to hear of what, the secrets that prove it was us, and how often we try."""

import hmac
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar, Final, Self

from distribu.domain.access import Permission
from distribu.domain.audit import Entry
from distribu.domain.entity import Entity, Event
from distribu.domain.values import CompanyId, DeliveryId, Secret, WebhookId

WEBHOOKS_MAX: Final = 50
URL_MAX: Final = 2048
ROTATION_GRACE: Final = timedelta(days=7)
ATTEMPT_TIMEOUT_S: Final = 10.0
BODY_KEPT: Final = 2_000
"""Characters of a receiver's answer that are stored."""

RETRY_WAITS_S: Final = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Seconds between one attempt and the next: ten attempts over about 75 hours."""

RETRY_JITTER: Final = 0.2
RETRY_AFTER_MAX_S: Final = 86_400

ATTEMPTS_MAX: Final = 100
"""Attempts of one delivery, however often it is sent again: what has as many is not sent again."""

FAILING_MAX: Final = timedelta(days=4)
"""A webhook that has done nothing but fail for so long is switched off."""

TEST: Final = "webhook.test"
"""An event of the feed that goes to one webhook, because somebody wants to see it arrive."""

REPLAY: Final = "webhook.replay"
"""Not an event: what the outbox calls the order to send deliveries again."""


class WireEvent(StrEnum):
    """What a webhook can be told of."""

    ORDER_CREATED = "order.created"
    ORDER_STATUS_CHANGED = "order.status_changed"
    ORDER_SHIPPED = "order.shipped"
    ORDER_DELIVERED = "order.delivered"
    ORDER_CANCELLED = "order.cancelled"
    CUSTOMER_CREATED = "customer.created"
    CUSTOMER_UPDATED = "customer.updated"
    PRODUCT_CREATED = "product.created"
    PRODUCT_UPDATED = "product.updated"
    PRODUCT_DELETED = "product.deleted"
    PRODUCT_LOW_STOCK = "product.low_stock"
    INVOICE_PAID = "invoice.paid"
    AUDIT_SEALED = "audit.sealed"
    AUDIT_RECORDED = "audit.recorded"

    @property
    def carries(self) -> Permission:
        """What it takes to read what this event carries: a scope, but for records and what the company itself
        pays, which no key reads.

        A head tells nothing that a record says.
        """
        if self is WireEvent.AUDIT_SEALED:
            return Permission.WEBHOOKS_READ
        if self is WireEvent.INVOICE_PAID:
            return Permission.COMPANY_MANAGE
        if self is WireEvent.AUDIT_RECORDED:
            return Permission.AUDIT_READ
        return Permission(self.partition(".")[0] + "s:read")


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookRegistered(Event):
    name: ClassVar[str] = "webhook.created"
    url: str
    subscribed: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookEdited(Event):
    name: ClassVar[str] = "webhook.updated"
    before: dict[str, object]
    after: dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookRemoved(Event):
    name: ClassVar[str] = "webhook.deleted"
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSecretRotated(Event):
    name: ClassVar[str] = "webhook.secret_rotated"
    grace_expires_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookResealed(Event):
    """Its secrets are the same, under another key of the vault."""

    name: ClassVar[str] = "webhook.resealed"


class WhyDisabled(StrEnum):
    """GONE: the receiver answered 410. FAILING: for `FAILING_MAX` nothing has arrived."""

    GONE = "GONE"
    FAILING = "FAILING"


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookDisabled(Event):
    name: ClassVar[str] = "webhook.disabled"
    why: WhyDisabled
    failing_since: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookTested(Entry):
    """Somebody had a test event sent to a webhook."""

    name: ClassVar[str] = "webhook.tested"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveriesReplayed(Entry):
    """Somebody had deliveries of a webhook sent again: one of them, or those of a time."""

    name: ClassVar[str] = "webhook.replayed"
    delivery_id: str | None
    since: datetime | None
    until: datetime | None
    statuses: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook(Entity):
    """A company's subscription. ``secret`` and ``old_secret`` are sealed: ciphertext, never the secret.

    ``on_since`` is when it was last switched on or sent to another address: failures before that do not
    count against it.
    """

    id: WebhookId
    url: str
    subscribed: tuple[WireEvent, ...]
    is_active: bool = True
    on_since: datetime
    secret: str = field(repr=False)
    old_secret: str | None = field(default=None, repr=False)
    grace_expires_at: datetime | None = None
    removed_at: datetime | None = None

    @staticmethod
    def secret_from(entropy: bytes) -> Secret | None:
        """``whsec_`` and base64 of 24 random bytes.

        None when it holds ``+`` or ``/``, which libraries decode differently: draw again.
        """
        text = b64encode(entropy).decode()
        return None if "+" in text or "/" in text else Secret("whsec_" + text)

    @classmethod
    def register(
        cls,
        *,
        company_id: CompanyId,
        id: WebhookId,
        url: str,
        subscribed: tuple[WireEvent, ...],
        is_active: bool,
        secret: str,
        at: datetime,
    ) -> Self:
        """A new subscription."""
        return cls(
            company_id=company_id,
            id=id,
            url=url,
            subscribed=subscribed,
            is_active=is_active,
            on_since=at,
            secret=secret,
            created_at=at,
            updated_at=at,
            events=(WebhookRegistered(url=url, subscribed=subscribed),),
        )

    def edit(self, changes: dict[str, object], *, at: datetime) -> Self:
        """Change the address, the events or whether it is active."""
        after = {name: value for name, value in changes.items() if getattr(self, name) != value}
        if not after:
            return self
        before = {name: getattr(self, name) for name in after}
        anew = after.get("is_active") is True or "url" in after
        since = at if anew else self.on_since
        return self._after(WebhookEdited(before=before, after=after), at=at, **after, on_since=since)

    def disable(self, why: WhyDisabled, *, failing_since: datetime | None, at: datetime) -> Self:
        """Switch it off because nothing arrives there; what is pending waits until it is switched on."""
        return self._after(WebhookDisabled(why=why, failing_since=failing_since), at=at, is_active=False)

    def rotate(self, secret: str, *, grace: bool = True, at: datetime) -> Self:
        """Take a new secret; any older one than the present ends now.

        The present one signs too until `ROTATION_GRACE` has passed, that moment not included. Without
        ``grace`` it ends now: somebody else knows it.
        """
        until = at + ROTATION_GRACE if grace else None
        return self._after(
            WebhookSecretRotated(grace_expires_at=until),
            at=at,
            secret=secret,
            old_secret=self.secret if grace else None,
            grace_expires_at=until,
        )

    def reseal(self, secret: str, old_secret: str | None) -> Self:
        """Keep the same secrets under another key: nothing that anybody sees of it has changed."""
        return self._after(WebhookResealed(), at=self.updated_at, secret=secret, old_secret=old_secret)

    def remove(self, *, at: datetime) -> Self:
        """Stop, for good; attempts made so far stay readable until they are purged, its secrets do not."""
        gone = WebhookRemoved(url=self.url)
        return self._after(gone, at=at, removed_at=at, is_active=False, secret="", old_secret=None)


class DeliveryStatus(StrEnum):
    """PENDING will be tried (again), PARKED too, once its webhook is switched on.

    The others are final until somebody has it sent again.
    """

    PENDING = "PENDING"
    PARKED = "PARKED"
    DELIVERED = "DELIVERED"
    DEAD = "DEAD"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One HTTP try. ``status`` is None when there was no answer, and then ``error`` says why."""

    number: int
    at: datetime
    duration_ms: int
    status: int | None
    headers: dict[str, str]
    body: str
    error: str

    @property
    def succeeded(self) -> bool:
        """Only 2xx: a redirect is a failure."""
        return self.status is not None and 200 <= self.status < 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One event on its way to one webhook. ``last_status`` is None when the last attempt had no answer."""

    id: DeliveryId
    webhook_id: WebhookId
    event_id: str
    event: str
    position: int
    status: DeliveryStatus
    next_attempt_at: datetime | None
    created_at: datetime
    attempt_count: int = 0
    last_status: int | None = None
    attempts: tuple[Attempt, ...] = ()


def wait_after(attempts: int, *, jitter: float, retry_after_s: int | None = None) -> float | None:
    """Seconds to wait after so many attempts in a row; None when there is to be no other.

    ``jitter`` is a random number in [0, 1). A receiver's Retry-After is honoured up to a day.
    """
    if attempts > len(RETRY_WAITS_S):
        return None
    wait = RETRY_WAITS_S[attempts - 1] * (1 - RETRY_JITTER + 2 * RETRY_JITTER * jitter)
    return max(wait, min(retry_after_s or 0, RETRY_AFTER_MAX_S))


def signature(secret: Secret, body: bytes) -> str:
    """``X-Webhook-Signature``: hex HMAC-SHA256 of the raw body under the whole secret string."""
    return hmac.digest(secret.reveal().encode(), body, "sha256").hex()


def standard_signature(secret: Secret, *, id: str, timestamp_s: int, body: bytes) -> str:
    """One ``v1,`` signature of the Standard Webhooks specification."""
    key = b64decode(secret.reveal().removeprefix("whsec_"))
    signed = f"{id}.{timestamp_s}.".encode() + body
    return "v1," + b64encode(hmac.digest(key, signed, "sha256")).decode()
