"""What Stripe tells us: read, kept by its id, and taken into account once, whatever the order it comes in.

A notice says that something happened. How it stands is asked, outside of any transaction, and counts only
if nothing else was applied to the company since before it was asked: of two answers one is then known to be
the newer, whatever any clock says.
"""

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Final

from msgspec import Meta

from distribu.application import billing, fields, letters
from distribu.application.finders import KeptNotice
from distribu.application.kernel import Command, Distribu, Outside, Process, Query, Reads, Work
from distribu.application.payments import NOTICE_MAX, REF_MAX
from distribu.application.platform import NoteUse
from distribu.application.ports import (
    Bought,
    DueNotice,
    PaymentNotice,
    Payments,
    PaymentsAway,
    PaymentsRefused,
)
from distribu.domain.access import Actor, Permission
from distribu.domain.accounts import REALM
from distribu.domain.billing import Interval, Plan, Subscription, SubscriptionStatus
from distribu.domain.errors import Busy, NotFound, Refused
from distribu.domain.notices import (
    HEEDED,
    INVOICE_PAID,
    PAYER_DELETED,
    TRIAL_ENDING,
    Notice,
    NoticeStatus,
    notice_id,
)
from distribu.domain.values import CompanyId

log: Final = logging.getLogger("distribu.payments")

ASKING_S: Final = 9.0
"""How long Stripe is asked in all, for one notice: whoever sends it is answered within ten seconds."""

TURNS: Final = 8
"""How often Stripe is asked again because something else was applied meanwhile."""

RETRIES: Final = tuple(timedelta(minutes=wait) for wait in (1, 5, 30, 120, 360, 720, 1_440, 1_440))
"""What is put off is tried again after the first of these, and after each of the others once more: for three
days in all, as long as Stripe sends it again by itself. Then it is left to those who run the platform."""

RETRYING_S: Final = 180.0
"""After so long a run of the job that tries again takes nothing more: it is over in four minutes."""

AT_ONCE: Final = 8
"""How many are tried again at once. When none of them gets through, no more is asked of Stripe."""

SAID_MAX: Final = 3
"""A subscription that counts, a second one, and the one that a notice is about."""

_Ref = Annotated[str, fields.signed(1, REF_MAX)]
_Error = Annotated[str, Meta(max_length=500)]
NOTICES_MAX: Final = 100


def _bounded(amount: Any) -> Decimal:
    if not isinstance(amount, Decimal) or not amount.is_finite() or abs(amount) > 10**14:
        raise ValueError("must be an amount of money")
    return amount


class Said(fields.Value, frozen=True, kw_only=True):
    """How a subscription is at Stripe, as one request of ours gives it to another."""

    plan: Plan
    interval: Interval
    status: SubscriptionStatus
    began_at: fields.Moment
    period_starts_at: fields.Moment
    period_ends_at: fields.Moment
    trial_ends_at: fields.Moment | None
    cancels_at: fields.Moment | None
    customer_ref: _Ref
    subscription_ref: _Ref

    def applied(self, to: Subscription, *, at: datetime) -> Subscription:
        """The subscription as it is after that."""
        return to.bought(**{name: getattr(self, name) for name in self.__struct_fields__}, at=at)


AllSaid = Annotated[tuple[Said, ...], Meta(max_length=SAID_MAX)]


class Told(fields.Value, frozen=True, kw_only=True):
    """A notice, as one request of ours gives it to another."""

    ref: _Ref
    type: _Ref
    happened_at: fields.Moment
    customer_ref: _Ref | None
    subscription_ref: _Ref | None
    invoice_ref: _Ref | None
    invoice_number: Annotated[str, fields.signed(0, 255)]
    amount: Annotated[Decimal, Meta(extra={"check": _bounded})] | None
    currency: Annotated[str, Meta(max_length=3)]

    def kept(self, work: Work) -> Notice:
        """It as it is not written yet."""
        given = {name: getattr(self, name) for name in self.__struct_fields__}
        return Notice.heard(work.company_id, **given, at=work.now)


def _told(it: PaymentNotice) -> Told:
    invoice = it.invoice
    return Told(
        ref=it.id,
        type=it.type,
        happened_at=it.at,
        customer_ref=it.customer_ref,
        subscription_ref=it.subscription_ref,
        invoice_ref=invoice.ref if invoice else None,
        invoice_number=invoice.number if invoice else "",
        amount=invoice.amount if invoice else None,
        currency=invoice.currency if invoice else "",
    )


def _again(it: Notice) -> Told:
    return Told(**{name: getattr(it, name) for name in Told.__struct_fields__})


# --- hearing ---------------------------------------------------------------------------------


async def hear(outside: Outside, body: bytes, signature: str | None) -> NoticeStatus:
    """Read what came in, and see to it. Returns what became of it: then Stripe need not send it again.

    Raises `Invalid` (invalid_signature), after which nothing is kept, and `Busy` (payments_away, busy) when
    it is to be sent again.
    """
    notice = _payments(outside).read(body, signature, now=outside.clock.now())
    return await _see_to(outside, _told(notice), notice.company_id, until_s=asking(outside))


def asking(outside: Outside) -> float:
    """Until when Stripe may be asked, for a notice that is seen to now."""
    return outside.clock.elapsed() + ASKING_S


def _payments(outside: Outside) -> Payments:
    if outside.payments is None:
        raise Refused("nothing_sold")
    return outside.payments


def _raw(body: Any) -> bytes:
    if not isinstance(body, bytes) or len(body) > NOTICE_MAX:
        raise ValueError("is not a body")
    return body


class HearNotice(Process[NoticeStatus], frozen=True, kw_only=True):
    """See to what came in from Stripe, for its door; see `hear`."""

    needs = None
    internal = True

    body: Annotated[bytes, Meta(max_length=NOTICE_MAX, extra={"check": _raw})]
    signature: Annotated[str, Meta(max_length=4_000)] | None

    async def run(self, outside: Outside) -> NoticeStatus:
        return await hear(outside, self.body, self.signature)


async def _see_to(outside: Outside, told: Told, hint: CompanyId | None, *, until_s: float) -> NoticeStatus:
    """Take a notice into account, or keep it to be tried again.

    ``until_s`` is when Stripe has been asked for long enough (by `Clock.elapsed`). Raises `Busy`
    (payments_away, busy).
    """
    company_id = await _company_of(outside, told, hint)
    if company_id is None or told.type not in HEEDED:
        ignored = KeepNotice(told=told, status=NoticeStatus.IGNORED)
        return await outside.inside(company_id or REALM, ignored, system=True)
    wait_s = billing.AWAY_S
    try:
        return await take(outside, told, company_id, until_s)
    except PaymentsAway as away:
        status, error = NoticeStatus.WAITING, str(away)
        wait_s = away.retry_after_s or wait_s
    except PaymentsRefused as refused:
        status, error = NoticeStatus.FAILED, str(refused)
    except Refused:
        raise
    except Exception as mistake:
        failed = KeepNotice(told=told, status=NoticeStatus.FAILED, error=type(mistake).__name__)
        await outside.inside(company_id, failed, system=True)
        raise
    kept = KeepNotice(told=told, status=status, error=error[:500], wait_s=wait_s)
    if await outside.inside(company_id, kept, system=True) is NoticeStatus.APPLIED:
        return NoticeStatus.APPLIED  # somebody else got through
    raise Busy("payments_away", retry_after_s=wait_s)


async def _company_of(outside: Outside, told: Told, hint: CompanyId | None) -> CompanyId | None:
    """Whose it is: of whom we know it already, or else of whom it says it is, if there is such a company."""
    find = FindPayer(notice_id=notice_id(told.ref), customer_ref=told.customer_ref, hint=hint)
    return await outside.inside(REALM, find, system=True)


class FindPayer(Query[CompanyId | None], frozen=True, kw_only=True):
    """Whose a notice is, for a process."""

    needs = None
    internal = True

    notice_id: fields.Uuid
    customer_ref: _Ref | None
    hint: fields.CompanyId | None

    async def run(self, reads: Reads) -> CompanyId | None:
        found = await reads.platform.payer(self.notice_id, self.customer_ref)
        if found is None and self.hint is not None:
            try:
                found = (await reads.platform.card(self.hint)).id
            except NotFound:
                return None
        return found


async def take(outside: Outside, told: Told, company_id: CompanyId, until_s: float) -> NoticeStatus:
    """Ask how it stands and apply that, until nothing else was applied in between.

    Raises `PaymentsAway`, `PaymentsRefused`, and `Busy` when that never is so. Stripe answers for each
    subscription that it ever had, ended ones too: that it does not have one which is known here, or has it
    for a price of nobody's, is a key of another account or a price that was left out of the settings. Then
    nothing is known of the subscription, and it is refused.
    """
    for _ in range(TURNS):
        done, turn, current = await outside.inside(
            company_id, FindTurn(notice_id=notice_id(told.ref)), system=True
        )
        if done:
            return NoticeStatus.APPLIED
        said = []
        for ref in _asked_about(told, current.refs):
            bought = await _asked(outside, ref, until_s)
            # One that is over, and not what this is about, keeps nothing from its turn.
            if bought is None and ref in current.refs and (current.live or ref == told.subscription_ref):
                raise PaymentsRefused(f"{ref} is known here, and Stripe has none such for a price of ours")
            if bought is not None and bought.status is not None:
                said.append(said_of(bought, bought.status))
        take = TakeNotice(told=told, said=tuple(said), turn=turn)
        if await outside.inside(company_id, take, system=True):
            return NoticeStatus.APPLIED
    raise Busy("busy", retry_after_s=1)


async def _asked(outside: Outside, ref: str, until_s: float) -> Bought | None:
    """How a subscription is, as Stripe answers until then. Raises `PaymentsAway`, also when that is over."""
    try:
        async with asyncio.timeout(max(until_s - outside.clock.elapsed(), 0)):
            return await _payments(outside).subscription(ref)
    except TimeoutError:
        raise PaymentsAway("Stripe did not answer in time") from None


def _asked_about(told: Told, known: Sequence[str]) -> Sequence[str]:
    """The subscriptions that a notice is a reason to ask about.

    Those that are known before another one: that one counts only when they do not run any more.
    """
    if told.type == PAYER_DELETED:
        return known
    if told.subscription_ref is None:
        return ()
    return known if told.subscription_ref in known else [*known, told.subscription_ref]


def said_of(it: Bought, status: SubscriptionStatus) -> Said:
    """What was bought, and has begun, as a command says it."""
    return Said(
        plan=it.plan,
        interval=it.interval,
        status=status,
        began_at=it.began_at,
        period_starts_at=it.period_starts_at,
        period_ends_at=it.period_ends_at,
        trial_ends_at=it.trial_ends_at,
        cancels_at=it.cancels_at,
        customer_ref=it.customer_ref,
        subscription_ref=it.subscription_ref,
    )


class FindTurn(Query[tuple[bool, int, Subscription]], frozen=True, kw_only=True):
    """Whether a notice was applied, how many were, and what is known of the subscription; for a process."""

    needs = None
    internal = True

    notice_id: fields.Uuid

    async def run(self, reads: Reads) -> tuple[bool, int, Subscription]:
        # In this order: what is applied in between makes the turn an old one, and is seen when it is taken.
        turn, notice, current = await reads.together(
            reads.notices.turn(),
            reads.notices.get(self.notice_id),
            reads.subscriptions.current(at=reads.now),
        )
        return notice is not None and notice.done, turn, current


class TakeNotice(Command[bool], frozen=True, kw_only=True):
    """Apply what Stripe said since a turn, with the notice that had it asked: all of it, or nothing.

    Returns False when something else was applied since, so that it has to be asked again.
    """

    needs = None
    internal = True

    told: Told
    said: AllSaid
    turn: Annotated[int, Meta(ge=0, le=2**31 - 2)]

    async def run(self, work: Work) -> bool:
        await work.companies.current(lock=True)  # where there is no subscription yet, this is who waits
        before = await work.subscriptions.current(at=work.now, lock=True)
        kept, turn = await work.together(work.notices.get(notice_id(self.told.ref)), work.notices.turn())
        if kept is not None and kept.done:
            return True
        if turn != self.turn:
            return False
        told = self.told
        again = (
            told.type == INVOICE_PAID
            and told.invoice_ref is not None
            and await work.notices.paid(told.invoice_ref)
        )
        after = before
        for one in self.said:  # the turn says that this is the newest
            after = one.applied(after, at=work.now)
        if told.type == TRIAL_ENDING:
            warned = after.warn(at=work.now)
            if warned is not after:
                await billing.warn_owner(work, warned)
            after = warned
        if told.type == PAYER_DELETED and told.customer_ref is not None:
            after = after.forget_payer(told.customer_ref, at=work.now)
        notice = kept or told.kept(work)
        work.save(notice.apply(turn + 1, again=again, at=work.now))
        if after is not before:
            await billing.keep(work, before, after)
        if told.type == INVOICE_PAID and told.amount and not again:
            await billing.tell_owner(
                work,
                letters.InvoicePaid(
                    company=(await work.companies.current()).name,
                    number=told.invoice_number,
                    total=f"{told.amount} {told.currency}",
                ),
            )
        return True


class KeepNotice(Command[NoticeStatus], frozen=True, kw_only=True):
    """Keep a notice that nothing follows from now. Returns how it stands: APPLIED stays so.

    It is tried again in ``wait_s`` seconds, or in those of the first of `RETRIES` if they are more.
    """

    needs = None
    internal = True

    told: Told
    status: NoticeStatus
    error: _Error = ""
    wait_s: Annotated[int, Meta(ge=0, le=86_400)] = 0

    async def run(self, work: Work) -> NoticeStatus:
        kept = await work.notices.get(notice_id(self.told.ref))
        before = kept or self.told.kept(work)
        if before.done:
            return before.status
        if self.status is NoticeStatus.IGNORED:
            after = before.ignore(at=work.now)
        else:
            due_at = work.now + max(RETRIES[0], timedelta(seconds=self.wait_s))
            after = before.put_off(self.status, self.error, due_at=due_at, at=work.now)
        if after is not before:
            work.save(after)
        return after.status


# --- trying again ----------------------------------------------------------------------------


class RetryNotice(Process[NoticeStatus], frozen=True, kw_only=True):
    """Try one again that was put off, perhaps for the ``last`` time. Raises `Busy` (payments_away, busy)."""

    needs = None
    internal = True

    company_id: fields.CompanyId
    notice_id: fields.Uuid
    last: bool

    async def run(self, outside: Outside) -> NoticeStatus:
        kept = await outside.inside(self.company_id, FindNotice(notice_id=self.notice_id), system=True)
        if kept is None:
            raise NotFound("notice_not_found")
        told = _again(kept)
        if self.last:  # before it is tried: whatever keeps it from that, or from being kept, it has FAILED
            failed = KeepNotice(told=told, status=NoticeStatus.FAILED, error=kept.error)
            await outside.inside(self.company_id, failed, system=True)
        return await _see_to(outside, told, None, until_s=asking(outside))


async def retry_notices(distribu: Distribu) -> int:
    """Try what Stripe told us again, where it could not be taken into account.

    Returns how much of it now was. A mistake of ours keeps nobody else from theirs: it is raised at the end.
    """
    if distribu.ports.payments is None:
        return 0
    clock, queue = distribu.ports.clock, distribu.ports.queue
    done, stumbled, until_s = 0, None, clock.elapsed() + RETRYING_S

    async def retry(due: DueNotice) -> bool:
        nonlocal stumbled
        request = RetryNotice(company_id=due.company_id, notice_id=due.id, last=due.last)
        outcome = "stumbled"
        try:
            outcome = (await distribu.run(Actor.system(due.company_id), request)).lower()
        except Busy:
            outcome = "put_off"
            return False
        except Exception as mistake:
            log.exception("notice %s of company %s stumbled", due.id, due.company_id)
            stumbled = mistake
            return False
        finally:
            distribu.counts.notices[outcome] += 1
        return True

    while clock.elapsed() < until_s:
        due = await queue.claim_notices(limit=AT_ONCE, now=clock.now(), waits=RETRIES)
        through = sum(await asyncio.gather(*map(retry, due)))
        done += through
        if not through:  # Stripe is away, or there are none
            break
    if stumbled is not None:
        raise stumbled
    return done


# --- for those who run the platform ----------------------------------------------------------


class ListNotices(Process[list[KeptNotice]], frozen=True, kw_only=True):
    """What Stripe told us last, of all companies; with `failed` only what is still to be applied."""

    needs = Permission.PLATFORM

    failed: bool = False

    async def run(self, outside: Outside) -> list[KeptNotice]:
        await outside.inside(REALM, NoteUse(what="payment notices"))
        return [*await outside.inside(REALM, FindNotices(failed=self.failed))]


class FindNotices(Query[Sequence[KeptNotice]], frozen=True, kw_only=True):
    """What Stripe told us last, for a process."""

    needs = None
    internal = True

    failed: bool

    async def run(self, reads: Reads) -> Sequence[KeptNotice]:
        return await reads.platform.notices(failed=self.failed, limit=NOTICES_MAX)


class ReplayNotice(Process[KeptNotice], frozen=True, kw_only=True):
    """See to something that Stripe told us once more. What was applied stays applied, once.

    Raises `NotFound` (notice_not_found), `Refused` (nothing_sold, payments_refused), and `Busy`
    (payments_away, busy) when it has to wait again.
    """

    needs = Permission.PLATFORM

    ref: Annotated[str, Meta(min_length=1, max_length=REF_MAX, examples=["evt_1PgafyLkdIwHu7ix"])]

    async def run(self, outside: Outside) -> KeptNotice:
        id = notice_id(self.ref)
        find = FindPayer(notice_id=id, customer_ref=None, hint=None)
        company_id = await outside.inside(REALM, find, system=True)
        note = NoteUse(what="replay payment notice", company_id=company_id or "")
        await outside.inside(REALM, note)
        kept = await outside.inside(company_id or REALM, FindNotice(notice_id=id), system=True)
        if kept is None:
            raise NotFound("notice_not_found")
        told, hint, until_s = _again(kept), None, asking(outside)
        if company_id is None and kept.subscription_ref is not None:
            with billing.in_our_words():
                bought = await _asked(outside, kept.subscription_ref, until_s)
            hint = bought.company_id if bought else None
        status = kept.status if kept.done else await _see_to(outside, told, hint, until_s=until_s)
        return KeptNotice(kept.company_id, kept.ref, kept.type, status, "", kept.created_at)


class FindNotice(Query[Notice | None], frozen=True, kw_only=True):
    """One notice, for a process."""

    needs = None
    internal = True

    notice_id: fields.Uuid

    async def run(self, reads: Reads) -> Notice | None:
        return await reads.notices.get(self.notice_id)
