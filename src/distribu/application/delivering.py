"""One attempt to deliver an event or a mail: make it ready, send it, store what came of it."""

from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Final

import msgspec

from distribu.application import letters, views
from distribu.application.kernel import Ports
from distribu.application.ports import Mail, MailNotSent, MailParcel, MailStatus, Parcel, Reply
from distribu.domain.values import Secret
from distribu.domain.webhooks import (
    RETRY_AFTER_MAX_S,
    Attempt,
    DeliveryStatus,
    signature,
    standard_signature,
    wait_after,
)

_RETRY_AFTER_ON: Final = frozenset({408, 425, 429, 503})


class Envelope(views.View, frozen=True, kw_only=True):
    """What a receiver gets. ``timestamp`` is of this attempt, so that the signature covers it."""

    id: str
    event: str
    timestamp: views.Time
    occurred_at: views.Time
    position: int
    data: msgspec.Raw


async def deliver(ports: Ports, parcel: Parcel) -> DeliveryStatus:
    """Make the next attempt of a claimed delivery. No transaction is held while the other side thinks.

    Returns what came of it; it stays pending when there will be another.
    """
    now = ports.clock.now()
    envelope = Envelope(
        id=parcel.event_id,
        event=parcel.event,
        timestamp=views.time(now),
        occurred_at=views.time(parcel.occurred_at),
        position=parcel.position,
        data=msgspec.Raw(parcel.payload.encode()),
    )
    body = views.encode(envelope)
    signing = [ports.vault.open(parcel.secret)]
    if parcel.old_secret and parcel.grace_expires_at and now < parcel.grace_expires_at:
        signing.append(ports.vault.open(parcel.old_secret))
    reply = await ports.hooks.post(
        parcel.url, headers=headers(parcel, body, signing, int(now.timestamp())), body=body
    )
    attempt = Attempt(
        number=parcel.attempts + 1,
        at=now,
        duration_ms=reply.duration_ms,
        status=reply.status,
        headers=reply.headers,
        body=reply.body,
        error=reply.error,
    )
    status, wait_s = DeliveryStatus.DELIVERED, None
    if not attempt.succeeded:
        wait_s = wait_after(
            attempt.number, jitter=ports.entropy.fraction(), retry_after_s=_retry_after(reply, ports)
        )
        status = DeliveryStatus.DEAD if wait_s is None else DeliveryStatus.PENDING
    again = None if wait_s is None else ports.clock.now() + timedelta(milliseconds=round(wait_s * 1000))
    await ports.queue.finish(parcel, attempt, status=status, next_attempt_at=again)
    return status


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


def headers(parcel: Parcel, body: bytes, secrets: list[Secret], timestamp_s: int) -> dict[str, str]:
    """Both ways to sign, the newest secret first; during a rotation the old one signs too."""
    standard = (
        standard_signature(secret, id=parcel.event_id, timestamp_s=timestamp_s, body=body)
        for secret in secrets
    )
    named = {
        "Content-Type": "application/json",
        "User-Agent": "Distribu-Webhooks/1",
        "X-Webhook-Id": parcel.event_id,
        "X-Webhook-Event": parcel.event,
        "X-Webhook-Signature": signature(secrets[0], body),
        "webhook-id": parcel.event_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join(standard),
    }
    if len(secrets) > 1:
        named["X-Webhook-Signature-Old"] = signature(secrets[1], body)
    return named


def _retry_after(reply: Reply, ports: Ports) -> int | None:
    """Seconds a receiver asked us to wait (RFC 9110, 10.2.3: a number or a date), up to a day."""
    text = next((value for name, value in reply.headers.items() if name.lower() == "retry-after"), "")
    if reply.status not in _RETRY_AFTER_ON or not text:
        return None
    if text.isascii() and text.isdigit():
        return min(int(text[:9]), RETRY_AFTER_MAX_S)
    try:
        wait = parsedate_to_datetime(text) - ports.clock.now()
    except (TypeError, ValueError):
        return None
    return max(0, min(int(wait.total_seconds()), RETRY_AFTER_MAX_S))
