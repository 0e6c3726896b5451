"""What a company's plan looks like from outside."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from msgspec import Meta

from distribu.application.shapes import Price, Time, View, maybe
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
