"""Use cases of what a company pays for, and the check of what that allows."""

from typing import Annotated

from msgspec import Meta

from distribu.application import fields, letters, plans
from distribu.application.kernel import Command, Query, Reads, Work
from distribu.application.ports import Letter
from distribu.domain.access import Permission, Role
from distribu.domain.billing import (
    PLANS,
    Counted,
    Interval,
    Plan,
    Subscription,
    SubscriptionStatus,
    Used,
)
from distribu.domain.errors import Bug

_Plan = Annotated[Plan, Meta(examples=["GROWTH"])]
_Ref = Annotated[str, Meta(min_length=1, max_length=255)]


# --- what it allows ----------------------------------------------------------------------------


async def admit(work: Work, what: Counted, *, own: int = 0) -> None:
    """Let one more in. Raises `PaymentRequired`, and says what is used and allowed.

    Whoever takes the last place holds the subscription's row until it is written, so that the next one
    counts it. ``own`` are places that are counted already and are those of whoever asks.
    """
    if work.actor.customer_id is not None:
        raise Bug("a contact sees no subscription, and would have any number let in")
    subscription = await work.subscriptions.current(at=work.now, lock=True)
    # Counting takes a while where there are many: only for a plan that minds.
    minds = getattr(subscription.allowance, what) is not None
    used = getattr(await work.subscriptions.used(at=work.now), what) - own if minds else 0
    subscription.admit(what, used, at=work.now)


# --- looking -----------------------------------------------------------------------------------


class ReadSubscription(Query[plans.SubscriptionView], frozen=True, kw_only=True):
    """The company's plan, how it stands, and what is used and allowed of each; null is any number."""

    needs = Permission.COMPANY_MANAGE

    async def run(self, reads: Reads) -> plans.SubscriptionView:
        subscription, used = await reads.together(
            reads.subscriptions.current(at=reads.now), reads.subscriptions.used(at=reads.now)
        )
        return plans.subscription(subscription, used, reads.now)


class PreviewPlan(Query[plans.PlanPreviewView], frozen=True, kw_only=True):
    """What another plan would allow, and of what there is more already.

    It can be bought all the same: what is there stays, and nothing is added to it until there is less.
    """

    needs = Permission.COMPANY_MANAGE

    plan: _Plan

    async def run(self, reads: Reads) -> plans.PlanPreviewView:
        used = await reads.subscriptions.used(at=reads.now)
        return plans.plan_preview(self.plan, used, _more_than(self.plan, used))


def _more_than(plan: Plan, used: Used) -> list[Counted]:
    """Of what there is more than a plan allows."""
    allowance = PLANS[plan]
    return [
        what
        for what in Counted
        if (allowed := getattr(allowance, what)) is not None and getattr(used, what) > allowed
    ]


# --- what Stripe says --------------------------------------------------------------------------


class ApplySubscription(Command[bool], frozen=True, kw_only=True):
    """Take over how a subscription is at Stripe, as of a time. Returns whether anything changed.

    What is older than what is known changes nothing, and neither does what is known already. The OWNER is
    mailed when paying failed, when it worked again, and when it is over.
    """

    needs = None
    internal = True

    plan: Plan
    interval: Interval
    status: SubscriptionStatus
    period_starts_at: fields.Moment
    period_ends_at: fields.Moment
    trial_ends_at: fields.Moment | None = None
    cancels_at: fields.Moment | None = None
    customer_ref: _Ref
    subscription_ref: _Ref
    as_of: fields.Moment

    async def run(self, work: Work) -> bool:
        before = await work.subscriptions.current(at=work.now, lock=True)
        after = before.bought(**self.given(), at=work.now)
        if after is before:
            return False
        work.save(after)
        letter = await _about(work, before, after)
        if letter is not None:
            await _tell_owner(work, letter)
        return True


async def _about(work: Work, before: Subscription, after: Subscription) -> Letter | None:
    """What the OWNER is mailed about a change, if anything."""
    if after.status is before.status:
        return None
    company = (await work.companies.current()).name
    if after.status is SubscriptionStatus.PAST_DUE:
        return letters.PaymentFailed(company=company)
    if after.status in (SubscriptionStatus.CANCELED, SubscriptionStatus.EXPIRED):
        return letters.SubscriptionOver(company=company)
    if before.status is SubscriptionStatus.PAST_DUE:
        return letters.PaymentRecovered(company=company)
    return None


async def _tell_owner(work: Work, letter: Letter) -> None:
    """Mail the OWNER; a company that an operator founded may have none yet."""
    for leader in await work.members.leaders(limit=1):
        if leader.membership.role is Role.OWNER:
            work.mail(leader.email, letter)


# --- what time does ----------------------------------------------------------------------------


class EndTrial(Command[bool], frozen=True, kw_only=True):
    """Write down that the company's trial is over, and mail the OWNER, once. Returns whether it was done."""

    needs = None
    internal = True

    async def run(self, work: Work) -> bool:
        before = await work.subscriptions.current(at=work.now, lock=True)
        after = before.end_trial(at=work.now)
        if after is before:
            return False
        work.save(after)
        await _tell_owner(work, letters.TrialOver(company=(await work.companies.current()).name))
        return True


class WarnOfTrialEnd(Command[bool], frozen=True, kw_only=True):
    """Mail the OWNER three days and one day before the trial ends, each once. Returns whether it was done."""

    needs = None
    internal = True

    async def run(self, work: Work) -> bool:
        before = await work.subscriptions.current(at=work.now, lock=True)
        after = before.warn(at=work.now)
        if after is before or after.trial_ends_at is None:
            return False
        work.save(after)
        ends = f"{after.trial_ends_at:%Y-%m-%d %H:%M} UTC"
        company = (await work.companies.current()).name
        await _tell_owner(work, letters.TrialEnds(company=company, at=ends))
        return True
