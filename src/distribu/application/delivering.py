"""One attempt to deliver an event or a mail: make it ready, send it, store what came of it."""

from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from distribu.application import letters, views
from distribu.application.kernel import Distribu, Ports
from distribu.application.ports import Mail, MailNotSent, MailParcel, MailStatus, Parcel, Reply
from distribu.application.webhooks import DisableWebhook
from distribu.domain.access import Actor
from distribu.domain.errors import Bug
from distribu.domain.values import Secret
from distribu.domain.webhooks import (
    FAILING_MAX,
    RETRY_AFTER_MAX_S,
    Attempt,
    DeliveryStatus,
    WhyDisabled,
    signature,
    standard_signature,
    wait_after,
)

GONE: Final = 410
_UNWANTED: Final = "not sent: the webhook is not subscribed to this event any more"
_UNREADABLE: Final = "not sent: no key of the vault opens the webhook's secret; rotate it"
_RETRY_AFTER_ON: Final = frozenset({408, 425, 429, 503})


class Envelope(views.View, frozen=True, kw_only=True):
    """What a receiver gets. ``timestamp`` is of this attempt, so that the signature covers it."""

    id: Annotated[views.Id, Meta(description="The event's: the same on every attempt.")]
    event: str
    timestamp: Annotated[views.Time, Meta(description="Of this attempt.")]
    occurred_at: views.Time
    position: Annotated[int, Meta(description="Grows with every event of a company.", examples=[4711])]
    previous: Annotated[
        int | None,
        Meta(
            description="The position of the event before it that this webhook was subscribed to, switched "
            "on or not; null for the first. If that one does not come for minutes, `GET /events` has it.",
            examples=[4710],
        ),
    ]
    data: msgspec.Raw


async def send(ports: Ports, parcel: Parcel) -> Attempt:
    """Make the next attempt of a claimed delivery, which nothing is kept of yet.

    No transaction and no connection is held while the other side thinks.
    """
    now = ports.clock.now()
    if not parcel.wanted:
        return _attempt(parcel, now, Reply(None, {}, "", _UNWANTED))
    envelope = Envelope(
        id=parcel.event_id,
        event=parcel.event,
        timestamp=views.time(now),
        occurred_at=views.time(parcel.occurred_at),
        position=parcel.position,
        previous=parcel.previous,
        data=msgspec.Raw(parcel.payload.encode()),
    )
    body = views.encode(envelope)
    try:
        signing = [ports.vault.open(parcel.secret)]
        if parcel.old_secret and parcel.grace_expires_at and now < parcel.grace_expires_at:
            signing.append(ports.vault.open(parcel.old_secret))
    except Bug:
        reply = Reply(None, {}, "", _UNREADABLE)
    else:
        signed = headers(parcel.event_id, parcel.event, body, signing, int(now.timestamp()))
        reply = await ports.hooks.post(parcel.url, headers=signed, body=body)
    return _attempt(parcel, now, reply)


async def settle(distribu: Distribu, parcel: Parcel, attempt: Attempt) -> DeliveryStatus:
    """Keep an attempt, and decide what becomes of its delivery.

    A webhook that says it is gone, or has done nothing but fail for too long, is switched off. Returns
    what came of the attempt; it stays pending when there will be another.
    """
    ports = distribu.ports
    if not parcel.wanted:
        await ports.queue.finish(parcel, attempt, status=DeliveryStatus.DEAD, next_attempt_at=None)
        return DeliveryStatus.DEAD
    gone = attempt.status == GONE
    status, wait_s = DeliveryStatus.DELIVERED, None
    if not attempt.succeeded:
        made = 1 if gone else attempt.number - parcel.attempts_before
        asked_s = _retry_after(attempt, ports)
        wait_s = wait_after(made, jitter=ports.entropy.fraction(), retry_after_s=asked_s)
        status = DeliveryStatus.DEAD if wait_s is None else DeliveryStatus.PENDING
    again = None if wait_s is None else ports.clock.now() + timedelta(milliseconds=round(wait_s * 1000))
    failing_since = await ports.queue.finish(parcel, attempt, status=status, next_attempt_at=again)
    failing = failing_since is not None and attempt.at - failing_since >= FAILING_MAX
    if gone or failing:
        disable = DisableWebhook(
            webhook_id=parcel.webhook_id,
            why=WhyDisabled.GONE if gone else WhyDisabled.FAILING,
            tried_at=attempt.at,
            failing_since=failing_since,
        )
        await distribu.run(Actor.system(parcel.company_id), disable)
    return status


def _attempt(parcel: Parcel, at: datetime, reply: Reply) -> Attempt:
    return Attempt(
        number=parcel.attempts + 1,
        at=at,
        duration_ms=reply.duration_ms,
        status=reply.status,
        headers=reply.headers,
        body="" if parcel.event.startswith(("audit.", "invoice.")) else reply.body,  # it may echo
        error=reply.error,
    )


async def post(ports: Ports, parcel: MailParcel) -> MailStatus:
    """Make the next attempt of a claimed mail; the waits between attempts are those of webhooks.

    Returns what came of it.
    """
    token = None if parcel.sealed is None else ports.vault.open(parcel.sealed)
    mail = Mail(parcel.id, parcel.to, letters.read(parcel.letter), token)
    status, again, error = MailStatus.SENT, None, ""
    try:
        await ports.mailer.send(mail)
    except MailNotSent as refused:
        wait_s = wait_after(
            parcel.attempts + 1, jitter=ports.entropy.fraction(), retry_after_s=refused.retry_after_s
        )
        if refused.final or wait_s is None:
            status = MailStatus.DEAD
        else:
            status = MailStatus.PENDING
            again = ports.clock.now() + timedelta(milliseconds=round(wait_s * 1000))
        error = str(refused)
    await ports.queue.finish_mail(parcel, status=status, next_attempt_at=again, error=error)
    return status


def headers(id: str, event: str, body: bytes, secrets: list[Secret], timestamp_s: int) -> dict[str, str]:
    """Both ways to sign, the newest secret first; during a rotation the old one signs too."""
    standard = (standard_signature(secret, id=id, timestamp_s=timestamp_s, body=body) for secret in secrets)
    named = {
        "Content-Type": "application/json",
        "User-Agent": "Distribu-Webhooks/1",
        "X-Webhook-Id": id,
        "X-Webhook-Event": event,
        "X-Webhook-Signature": signature(secrets[0], body),
        "webhook-id": id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join(standard),
    }
    if len(secrets) > 1:
        named["X-Webhook-Signature-Old"] = signature(secrets[1], body)
    return named


def _retry_after(attempt: Attempt, ports: Ports) -> int | None:
    """Seconds a receiver asked us to wait (RFC 9110, 10.2.3: a number or a date), up to a day."""
    text = next((value for name, value in attempt.headers.items() if name.lower() == "retry-after"), "")
    if attempt.status not in _RETRY_AFTER_ON or not text:
        return None
    if text.isascii() and text.isdigit():
        return min(int(text[:9]), RETRY_AFTER_MAX_S)
    try:
        wait = parsedate_to_datetime(text) - ports.clock.now()
    except (TypeError, ValueError, OverflowError):
        return None
    return max(0, min(int(wait.total_seconds()), RETRY_AFTER_MAX_S))
