"""What selling plans needs from outside: somebody who takes the money, on pages of their own.

No card number comes near us: what is bought is bought at the payer's page of whoever takes the money, and
what is changed later, the card included, at theirs too. What we are told of it (`PaymentNotice`) says that
something happened; how it stands now is asked (`Payments.subscription`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final, NamedTuple, Protocol

from distribu.domain.billing import Interval, Plan, SubscriptionStatus
from distribu.domain.values import CompanyId

SOLD: Final = tuple(
    (plan, interval) for plan in (Plan.STARTER, Plan.GROWTH, Plan.ENTERPRISE) for interval in Interval
)
"""What can be bought: each has a price of its own."""

Prices = Mapping[tuple[Plan, Interval], Sequence[str]]
"""The ids of the prices of all that is `SOLD`: first the one it is sold at, then those it was."""

TOLERANCE_S: Final = 300
"""How far the time of a notice may be from ours, in seconds, either way. Whoever keeps the ids of notices
must keep them for longer."""

NOTICE_MAX: Final = 262_144
"""Bytes of a notice; a longer one is none."""

REF_MAX: Final = 255
"""Characters of an id of theirs (https://docs.stripe.com/upgrades, on ids)."""

PAGE: Final = 100
"""Subscriptions on a page, at most."""


class PaymentsAway(Exception):
    """Nobody answered as they should, in the time there is; nothing is known of what was asked.

    ``retry_after_s`` is in seconds, and None when they did not say.
    """

    def __init__(self, why: str, *, retry_after_s: int | None = None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(why)


class PaymentsRefused(Exception):
    """They said no, and will again: the key, a price or an id is wrong. The message is for the operator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A price as it is there. ``setting`` is the setting that names it.

    ``amount`` is what it costs each interval, in units of the ``currency`` (ISO 4217, upper case), None when
    it is not one amount. ``wrong`` says what keeps it from being sold, and is empty when nothing does.
    """

    plan: Plan
    interval: Interval
    ref: str
    setting: str
    amount: Decimal | None = None
    currency: str = ""
    wrong: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bought:
    """A subscription as it is at this moment.

    ``status`` is TRIALING, ACTIVE, PAST_DUE (paying failed and is tried again) or CANCELED (it is over, or
    paying failed for good); None when it never began: the first payment is awaited, or did not come in time.
    ``began_at`` is when it was bought. The period is the one that is paid for, or is to be. ``cancels_at``
    is when it will end, once that is known. ``company_id`` is None when it was not made by us.
    """

    plan: Plan
    interval: Interval
    status: SubscriptionStatus | None
    began_at: datetime
    period_starts_at: datetime
    period_ends_at: datetime
    trial_ends_at: datetime | None
    cancels_at: datetime | None
    customer_ref: str
    subscription_ref: str
    company_id: CompanyId | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoiced:
    """An invoice of theirs. ``amount`` is its total, in units of the ``currency`` (ISO 4217, upper case)."""

    ref: str
    number: str
    amount: Decimal
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentNotice:
    """What they told us: that something happened, and to what.

    ``type`` is in their words (``customer.subscription.updated``), and may be one we do not know. ``at`` is
    when it happened, to the second: of two in one second, neither is the older. The refs are those of what
    it is about, None where it is about no such thing; ``invoice`` is as it was then. ``company_id`` is a
    hint: it is what we once wrote beside what was bought.
    """

    id: str
    type: str
    at: datetime
    customer_ref: str | None = None
    subscription_ref: str | None = None
    company_id: CompanyId | None = None
    invoice: Invoiced | None = None


class DueNotice(NamedTuple):
    """One that is kept and is to be tried again; ``last`` when it is not tried after that."""

    company_id: CompanyId
    id: str
    last: bool


class Payments(Protocol):
    """Takes money for plans.

    Nothing here takes longer than ten seconds in all, whatever the other side does. What asks them raises
    `PaymentsAway` and `PaymentsRefused`; neither text names a person or a key.
    """

    async def checkout(
        self,
        *,
        company_id: CompanyId,
        plan: Plan,
        interval: Interval,
        email: str,
        customer_ref: str | None,
        back: str,
        once: str,
    ) -> str:
        """The URL of a page where one of what is `SOLD` is bought, for a day at most.

        ``company_id`` is written beside what is bought. Without a ``customer_ref`` a new customer is made
        once it is paid, with this ``email``. Whoever pays or gives up is sent ``back``, to this URL, with
        ``checkout=done`` or ``checkout=left`` in its query. The same asked again under the same ``once``
        (255 characters at most) within a day is the same page; anything else asked is another one.
        """
        ...

    async def portal(self, *, customer_ref: str, back: str) -> str:
        """The URL of a page where a customer sees invoices, pays by another card, changes plan or ends it.

        It is good for a few minutes; a link on it leads ``back``. Raises `PaymentsRefused` for no customer.
        """
        ...

    async def subscription(self, ref: str) -> Bought | None:
        """A subscription as it is now; None when there is none, or it is for none of our prices."""
        ...

    async def subscriptions(self, *, after: str | None = None) -> tuple[Sequence[Bought], str | None]:
        """Every subscription for one of our prices, ended ones too, newest first, a page of them.

        Returns them, and what to ask ``after`` for the next page: None once there is none. A page may be
        empty.
        """
        ...

    async def prices(self) -> Sequence[Offer]:
        """The price of each that is `SOLD`, in that order."""
        ...

    def read(self, body: bytes, signature: str | None, *, now: datetime) -> PaymentNotice:
        """What they sent, from the body as it came and its header of the signature.

        It is signed with one of the secrets, over these very bytes, and not further than `TOLERANCE_S` from
        ``now``. Raises `Invalid` (invalid_signature) for anything else, whatever it is.
        """
        ...
