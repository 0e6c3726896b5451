"""What Stripe told us of a company's payments: kept by its id, and taken into account once."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import ClassVar, Final, Self
from uuid import UUID

from distribu.domain.entity import Entity, Event
from distribu.domain.values import CompanyId

INVOICE_PAID: Final = "invoice.paid"
INVOICE_FAILED: Final = "invoice.payment_failed"
TRIAL_ENDING: Final = "customer.subscription.trial_will_end"
PAYER_DELETED: Final = "customer.deleted"

HEEDED: Final = frozenset(
    {
        INVOICE_PAID,
        INVOICE_FAILED,
        TRIAL_ENDING,
        PAYER_DELETED,
        "checkout.session.completed",
        "customer.subscription.created",
        "customer.subscription.updated",
        "customer.subscription.paused",
        "customer.subscription.resumed",
        "customer.subscription.deleted",
    }
)
"""The types that anything follows from (docs.stripe.com/api/events/types); any other is only kept."""


class NoticeStatus(StrEnum):
    """What became of a notice. WAITING: Stripe was away. FAILED: Stripe refused us, we made a mistake, or it
    was tried for three days; as long as there is a ``due_at`` both are tried again. IGNORED: nothing follows
    from its type, or it is of nobody we know.
    """

    WAITING = "WAITING"
    FAILED = "FAILED"
    APPLIED = "APPLIED"
    IGNORED = "IGNORED"


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeApplied(Event):
    """It was taken into account."""

    name: ClassVar[str] = "payment_notice.applied"
    ref: str
    type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeIgnored(Event):
    """It is kept, and nothing follows from it."""

    name: ClassVar[str] = "payment_notice.ignored"
    ref: str
    type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticePutOff(Event):
    """It could not be taken into account yet."""

    name: ClassVar[str] = "payment_notice.put_off"
    ref: str
    type: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoicePaid(Event):
    """The company's own invoice, for its plan, was paid."""

    name: ClassVar[str] = "invoice.paid"
    ref: str
    number: str
    amount: Decimal
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceFailed(Event):
    """Paying the company's own invoice was tried, and failed."""

    name: ClassVar[str] = "invoice.payment_failed"
    ref: str
    number: str
    amount: Decimal
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PayerDeleted(Event):
    """The company is no customer of Stripe's any more: somebody deleted it there."""

    name: ClassVar[str] = "billing_customer.deleted"
    ref: str
    customer_ref: str | None


def notice_id(ref: str) -> str:
    """The id under which a notice is kept: made of Stripe's, so that there is one of each (RFC 9562, 5.8)."""
    digest = bytearray(hashlib.sha256(ref.encode()).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    return str(UUID(bytes=bytes(digest)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice(Entity):
    """One thing that Stripe told us. ``ref`` is its id there, ``type`` and the other refs are Stripe's too.

    ``due_at`` is when it is tried again, None: never; ``tries`` says how often it was. Once it is stored the
    queue alone writes both (docs/decisions/0029). ``turn`` numbers what was applied to a
    company's subscription: whoever asked Stripe before the last turn may have an older answer than what is
    known. What is of nobody we know is of the platform's realm.
    """

    ref: str
    type: str
    happened_at: datetime
    customer_ref: str | None = None
    subscription_ref: str | None = None
    invoice_ref: str | None = None
    invoice_number: str = ""
    amount: Decimal | None = None
    currency: str = ""
    status: NoticeStatus
    turn: int | None = None
    error: str = ""
    tries: int = 0
    due_at: datetime | None = None

    @classmethod
    def heard(
        cls,
        company_id: CompanyId,
        *,
        ref: str,
        type: str,
        happened_at: datetime,
        customer_ref: str | None,
        subscription_ref: str | None,
        invoice_ref: str | None,
        invoice_number: str,
        amount: Decimal | None,
        currency: str,
        at: datetime,
    ) -> Self:
        """One that is not written yet: it is with what becomes of it."""
        return cls(
            company_id=company_id,
            id=notice_id(ref),
            version=0,
            created_at=at,
            updated_at=at,
            ref=ref,
            type=type,
            happened_at=happened_at,
            customer_ref=customer_ref,
            subscription_ref=subscription_ref,
            invoice_ref=invoice_ref,
            invoice_number=invoice_number,
            amount=amount,
            currency=currency,
            status=NoticeStatus.WAITING,
        )

    @property
    def done(self) -> bool:
        """Whether it was taken into account: then it never is again."""
        return self.status is NoticeStatus.APPLIED

    def apply(self, turn: int, *, again: bool, at: datetime) -> Self:
        """Take it into account; ``again`` when another notice told of the same payment."""
        event: Event = NoticeApplied(ref=self.ref, type=self.type)
        if self.type == PAYER_DELETED:
            event = PayerDeleted(ref=self.ref, customer_ref=self.customer_ref)
        elif self.amount is not None and not again and self.type in (INVOICE_PAID, INVOICE_FAILED):
            kind = InvoicePaid if self.type == INVOICE_PAID else InvoiceFailed
            event = kind(ref=self.ref, number=self.invoice_number, amount=self.amount, currency=self.currency)
        return self._after(event, at=at, status=NoticeStatus.APPLIED, turn=turn, error="")

    def ignore(self, *, at: datetime) -> Self:
        """Keep it; itself when that was done."""
        if self.status is NoticeStatus.IGNORED:
            return self
        event = NoticeIgnored(ref=self.ref, type=self.type)
        return self._after(event, at=at, status=NoticeStatus.IGNORED, error="")

    def put_off(self, status: NoticeStatus, error: str, *, due_at: datetime, at: datetime) -> Self:
        """Keep it to be tried again; itself when it is kept for this reason, or was applied.

        One that is not tried any more is FAILED, whatever keeps it.
        """
        if self.tries and self.due_at is None:
            status = NoticeStatus.FAILED
        if self.done or (self.version and (self.status, self.error) == (status, error)):
            return self
        event = NoticePutOff(ref=self.ref, type=self.type, error=error)
        due = self.due_at if self.tries else self.due_at or due_at
        return self._after(event, at=at, status=status, error=error, due_at=due)
