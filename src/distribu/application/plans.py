"""What a company's plan looks like from outside."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, Final

from msgspec import Meta

from distribu.application.finders import KeptNotice
from distribu.application.shapes import Id, Price, Time, View, maybe, time
from distribu.domain.billing import (
    PLANS,
    PRICES,
    Allowance,
    Counted,
    Interval,
    Plan,
    Subscription,
    SubscriptionStatus,
    Used,
    wire_name,
)
from distribu.domain.errors import Bug
from distribu.domain.notices import Notice, NoticeStatus

_None = Meta(examples=[None])


class UseView(View, frozen=True, kw_only=True):
    used: Annotated[int, Meta(examples=[12])]
    allowed: Annotated[int | None, Meta(examples=[50])]


class UsesView(View, frozen=True, kw_only=True):
    products: UseView
    customers: UseView
    seats: UseView
    orders_a_month: UseView


class SubscriptionView(View, frozen=True, kw_only=True):
    plan: Annotated[Plan, Meta(examples=["STARTER"])]
    interval: Annotated[Interval | None, Meta(examples=["MONTH"])]
    status: Annotated[SubscriptionStatus, Meta(examples=["TRIALING"])]
    trial_ends_at: Annotated[Time | None, _None]
    period_ends_at: Annotated[Time | None, _None]
    cancels_at: Annotated[Time | None, _None]
    uses: UsesView


class PlanPreviewView(View, frozen=True, kw_only=True):
    plan: Annotated[Plan, Meta(examples=["STARTER"])]
    month_usd: Annotated[Price | None, Meta(examples=[79.99])]
    year_usd: Annotated[Price | None, Meta(examples=[759.99])]
    uses: UsesView
    over: Annotated[list[str], Meta(examples=[["products"]])]


class InvoiceView(View, frozen=True, kw_only=True):
    id: Annotated[str, Meta(examples=["in_1PgafyLkdIwHu7ixN9Q3Zb5s"], description="Stripe's.")]
    number: Annotated[str, Meta(examples=["8A0BF2C1-0004"])]
    amount: Price
    currency: Annotated[str, Meta(examples=["USD"])]
    paid_at: Time


class PageView(View, frozen=True, kw_only=True):
    url: Annotated[str, Meta(examples=["https://checkout.stripe.com/c/pay/cs_1"])]


class NoticeView(View, frozen=True, kw_only=True):
    company_id: Id
    ref: Annotated[str, Meta(examples=["evt_1PgafyLkdIwHu7ix"])]
    type: Annotated[str, Meta(examples=["invoice.paid"])]
    status: Annotated[NoticeStatus, Meta(examples=["FAILED"])]
    error: Annotated[str, Meta(examples=["Stripe answered 503"])]
    created_at: Time


def invoice(it: Notice) -> InvoiceView:
    """The invoice that a notice tells of."""
    if it.invoice_ref is None or it.amount is None:
        raise Bug("this notice tells of no invoice")
    return InvoiceView(
        id=it.invoice_ref,
        number=it.invoice_number,
        amount=it.amount,
        currency=it.currency,
        paid_at=time(it.happened_at),
    )


def notice(it: KeptNotice) -> NoticeView:
    """Something that Stripe told us, as those who run the platform see it."""
    return NoticeView(
        company_id=it.company_id,
        ref=it.ref,
        type=it.type,
        status=it.status,
        error=it.error,
        created_at=time(it.created_at),
    )


VIEWS: Final[dict[type, Callable[[Any], View]]] = {Notice: invoice, KeptNotice: notice}


def _uses(used: Used, allowed: Allowance) -> UsesView:
    return UsesView(
        products=UseView(used=used.products, allowed=allowed.products),
        customers=UseView(used=used.customers, allowed=allowed.customers),
        seats=UseView(used=used.seats, allowed=allowed.seats),
        orders_a_month=UseView(used=used.orders_a_month, allowed=allowed.orders_a_month),
    )


def subscription(it: Subscription, used: Used, now: datetime) -> SubscriptionView:
    """How a subscription stands, and what is used of it."""
    return SubscriptionView(
        plan=it.plan,
        interval=it.interval,
        status=it.stands(now),
        trial_ends_at=maybe(it.trial_ends_at),
        period_ends_at=maybe(it.period_ends_at),
        cancels_at=maybe(it.cancels_at),
        uses=_uses(used, it.allowance),
    )


def plan_preview(plan: Plan, used: Used, over: Sequence[Counted]) -> PlanPreviewView:
    """What a plan costs and allows; of what is ``over`` nothing could be added."""
    prices = PRICES.get(plan, {})
    return PlanPreviewView(
        plan=plan,
        month_usd=prices.get(Interval.MONTH),
        year_usd=prices.get(Interval.YEAR),
        uses=_uses(used, PLANS[plan]),
        over=[wire_name(what) for what in over],
    )
