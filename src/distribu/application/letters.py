"""What mails say: one kind of letter for each, holding the facts its template is filled with.

A letter waits in the outbox as JSON, in the transaction that caused it. What must not wait there in
clear (the token of a link) is sealed beside it and never part of a letter.
"""

from datetime import datetime
from functools import reduce
from operator import or_
from typing import Any, ClassVar, Final

import msgspec

from distribu.application.ports import NUMBER_TO_COME, Letter
from distribu.domain.entity import Numbered
from distribu.domain.inquiries import InquiryKind
from distribu.domain.ordering import Order, OrderStatus
from distribu.domain.team import Company
from distribu.domain.webhooks import Webhook, WhyDisabled


class OrderLine(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One line as a letter shows it."""

    name: str
    sku: str
    quantity: int
    price: str


class OrderReceived(Letter, frozen=True, kw_only=True):
    """To the customer: the order was placed."""

    company: str
    number: int
    total: str
    lines: list[OrderLine]
    more: int


class OrderChanged(Letter, frozen=True, kw_only=True):
    """To the customer: the order was confirmed, shipped, delivered or cancelled."""

    company: str
    number: int
    status: OrderStatus
    carrier: str
    tracking_number: str


class Linked(Letter, frozen=True, kw_only=True):
    """A letter with a link: to staff or, with the slug of a ``store``, to one of its customers."""

    path: ClassVar[str]

    store: str = ""
    company: str = ""

    @property
    def page(self) -> str:
        """Where the link leads; what comes after it is for the page, and not sent to any server."""
        return f"/store/{self.store}/{self.path}" if self.store else f"/{self.path}"


class VerifyYourEmail(Linked, frozen=True, kw_only=True):
    """To somebody who signed up or registered: the address is to be proven.

    It repeats nothing of what was typed then: somebody may have wanted to write to a stranger through us.
    """

    path = "verify"


class AlreadyRegistered(Letter, frozen=True, kw_only=True):
    """To somebody with an account, when it was asked for again: nobody else is told that there is one."""

    company: str = ""


class ResetYourPassword(Linked, frozen=True, kw_only=True):
    """To somebody who cannot sign in."""

    path = "reset"


class ConfirmYourEmail(Linked, frozen=True, kw_only=True):
    """To a new address, before it takes the place of the old one."""

    path = "confirm-email"


class EmailMoved(Letter, frozen=True, kw_only=True):
    """To the old address, once the new one took its place."""

    company: str = ""


class PasswordChanged(Letter, frozen=True, kw_only=True):
    """To the holder, whenever a password was changed or reset."""

    company: str = ""


class SecondFactorChanged(Letter, frozen=True, kw_only=True):
    """To the holder, whenever a second factor was added or removed; the two say what, in words."""

    added: str = ""
    removed: str = ""


class RecoveryCodeUsed(Letter, frozen=True, kw_only=True):
    """To the holder: somebody signed in with a recovery code."""

    left: int


class Invited(Linked, frozen=True, kw_only=True):
    """To somebody a company wants in its team. ``inviter`` is nobody where no person of it did that."""

    path = "invitation"

    role: str
    inviter: str


class ContactInvited(Linked, frozen=True, kw_only=True):
    """To somebody who is to order for a customer."""

    path = "welcome"

    customer: str


class InquiryCame(Letter, frozen=True, kw_only=True):
    """To every super-admin: somebody has written to the platform."""

    kind: InquiryKind
    name: str
    email: str
    text: str


class AskTheStore(Letter, frozen=True, kw_only=True):
    """To the address of a customer that staff made, when somebody registers with it."""

    company: str


class NewCustomer(Letter, frozen=True, kw_only=True):
    """To owner and admins: somebody has registered at the store."""

    company: str
    customer: str
    waits: bool


class LogSealed(Letter, frozen=True, kw_only=True):
    """To the owner, once a week: the newest head of the audit log, to be kept."""

    company: str
    slug: str
    records: int
    at: str
    head: str


class WebhookDisabled(Letter, frozen=True, kw_only=True):
    """To owner and admins: a webhook was switched off, because nothing arrives there."""

    company: str
    url: str
    why: WhyDisabled
    since: str


class TrialEnds(Letter, frozen=True, kw_only=True):
    """To the owner, three days and one day before a trial ends."""

    company: str
    at: str


class TrialOver(Letter, frozen=True, kw_only=True):
    """To the owner: the trial is over, and nothing was bought."""

    company: str


class PaymentFailed(Letter, frozen=True, kw_only=True):
    """To the owner: a payment for the plan failed, and is tried again."""

    company: str


class PaymentRecovered(Letter, frozen=True, kw_only=True):
    """To the owner: what had failed was paid."""

    company: str


class SubscriptionOver(Letter, frozen=True, kw_only=True):
    """To the owner: the subscription is over."""

    company: str


class PlanTaken(Letter, frozen=True, kw_only=True):
    """To the owner: a plan was bought, or another one taken."""

    company: str
    plan: str


class SubscribedTwice(Letter, frozen=True, kw_only=True):
    """To the owner: two subscriptions were bought, and both are paid."""

    company: str
    first: str
    second: str


class SubscriptionEnds(Letter, frozen=True, kw_only=True):
    """To the owner: the subscription is to end at a time."""

    company: str
    at: str


class InvoicePaid(Letter, frozen=True, kw_only=True):
    """To the owner: an invoice for the plan was paid."""

    company: str
    number: str
    total: str


LINES_SHOWN: Final = 50
"""Lines of an order in its mail; of more it says how many."""


def order_received(order: Order, company: Company) -> OrderReceived:
    """The confirmation of an order."""
    shown = [
        OrderLine(
            name=line.product_name,
            sku=line.product_sku or "",
            quantity=line.quantity,
            price=f"{line.unit_price} {order.currency}",
        )
        for line in order.lines[:LINES_SHOWN]
    ]
    return OrderReceived(
        company=company.name,
        number=_number(order),
        total=f"{order.total} {order.currency}",
        lines=shown,
        more=max(0, len(order.lines) - LINES_SHOWN),
    )


def order_changed(order: Order, company: Company) -> OrderChanged:
    """How far an order has come."""
    return OrderChanged(
        company=company.name,
        number=_number(order),
        status=order.status,
        carrier=order.carrier,
        tracking_number=order.tracking_number,
    )


def webhook_disabled(
    webhook: Webhook, company: Company, why: WhyDisabled, since: datetime | None
) -> WebhookDisabled:
    """Which webhook was switched off, and why. A secret in its address is none of the mail's."""
    url = webhook.url.partition("?")[0]
    return WebhookDisabled(
        company=company.name, url=url, why=why, since="" if since is None else f"{since:%Y-%m-%d %H:%M} UTC"
    )


def _number(entity: Numbered) -> Any:
    return entity.number or msgspec.Raw(NUMBER_TO_COME.encode())


def kinds() -> list[type[Letter]]:
    """Every kind of letter there is."""
    every = {*Letter.__subclasses__(), *Linked.__subclasses__()} - {Linked}
    return sorted(every, key=lambda kind: kind.__name__)


_union: Any = reduce(or_, kinds())
_decoder: Final = msgspec.json.Decoder(_union)


def read(text: str) -> Letter:
    """A letter as it was written into the outbox."""
    letter: Letter = _decoder.decode(text)
    return letter
