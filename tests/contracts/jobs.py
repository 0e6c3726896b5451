"""What every agenda promises, and what jobs do on it: each due time once, whoever shares them.

One agenda serves all tests of a database, so each test has jobs of names of its own.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from distribu import Actor, Conflict, Distribu, Harness, Worker, amount
from distribu.application import billing, jobs
from distribu.application.agenda import Appointment, Outcome
from distribu.application.billing import EndTrial, ReadSubscription
from distribu.application.catalog import CreateProduct
from distribu.application.jobs import AGAIN_S, CLAIM_S, JOBS, RUN_S, Job, named, run_due, run_now
from distribu.application.kernel import Once, Work
from distribu.domain.billing import SubscriptionStatus
from distribu.domain.catalog import Product
from tests.contracts.asking import log_of
from tests.contracts.billing import on_trial
from tests.contracts.notices import buying, mails_to

MINUTE = timedelta(minutes=1)


def name_of(shop: Harness) -> str:
    """A name no other test has: of small letters and digits, as long as one may be."""
    return "job_" + shop.distribu.ports.entropy.uuid().replace("-", "")


def job_of(
    shop: Harness,
    action: Callable[[Distribu], Awaitable[int]],
    every: timedelta = 10 * MINUTE,
    **more: timedelta,
) -> Job:
    """A job of this test's own."""
    return Job(name=name_of(shop), action=action, every=every, **more)


async def appointment(shop: Harness, job: Job) -> Appointment:
    """How a job stands."""
    return (await jobs.appointments(shop.distribu, [job]))[job.name]


def counted(shop: Harness, job: Job) -> dict[str, int]:
    """Its runs, by what came of them."""
    return {what: runs for (name, what), runs in shop.distribu.counts.jobs.items() if name == job.name}


async def nothing(_: Distribu) -> int:
    """Do nothing."""
    return 0


class AgendaContract:
    """Entered once, claimed by one, finished by whoever has the claim."""

    async def test_a_job_is_entered_once_and_keeps_its_time(self, shop: Harness) -> None:
        agenda, now, name = shop.distribu.ports.agenda, shop.clock.now(), name_of(shop)
        assert await agenda.look({name: now}) == {name: Appointment(now)}
        assert await agenda.look({name: now + MINUTE}) == {name: Appointment(now)}
        both = {name: now, name_of(shop): now + MINUTE}
        assert [at.due_at for at in (await agenda.look(both)).values()] == [now, now + MINUTE]

    async def test_of_many_at_once_one_claims(self, shop: Harness) -> None:
        agenda, entropy, now, name = (
            shop.distribu.ports.agenda,
            shop.distribu.ports.entropy,
            shop.clock.now(),
            name_of(shop),
        )
        await agenda.look({name: now})
        until = now + MINUTE
        got = await asyncio.gather(
            *(agenda.claim(name, claim=entropy.uuid(), due_at=now, now=now, until=until) for _ in range(20))
        )
        assert sorted(got) == [False] * 19 + [True]
        assert (await agenda.look({name: now}))[name].claimed_until == until

    async def test_only_what_is_there_and_still_due_then_is_claimed(self, shop: Harness) -> None:
        agenda, now, name = shop.distribu.ports.agenda, shop.clock.now(), name_of(shop)
        claim, until = shop.distribu.ports.entropy.uuid(), now + MINUTE
        assert not await agenda.claim(name, claim=claim, due_at=now, now=now, until=until)
        await agenda.look({name: now})
        assert not await agenda.claim(name, claim=claim, due_at=now - MINUTE, now=now, until=until)
        assert await agenda.claim(name, claim=claim, due_at=now, now=now, until=until)

    async def test_what_is_finished_is_due_next_and_nobodys(self, shop: Harness) -> None:
        agenda, now, name = shop.distribu.ports.agenda, shop.clock.now(), name_of(shop)
        one, other = shop.distribu.ports.entropy.uuid(), shop.distribu.ports.entropy.uuid()
        await agenda.look({name: now})
        await agenda.claim(name, claim=one, due_at=now, now=now, until=now + MINUTE)
        later, next_at = now + timedelta(seconds=7), now + 10 * MINUTE
        assert await agenda.finish(name, claim=one, now=later, due_at=next_at, outcome=Outcome.FAILED)
        kept = (await agenda.look({name: now}))[name]
        assert kept == Appointment(next_at, None, later, Outcome.FAILED)
        assert not await agenda.claim(name, claim=other, due_at=now, now=later, until=next_at)
        assert await agenda.claim(name, claim=other, due_at=next_at, now=later, until=next_at)

    async def test_a_claim_that_ran_out_is_anothers_and_its_first_holder_changes_nothing(
        self, shop: Harness
    ) -> None:
        agenda, now, name = shop.distribu.ports.agenda, shop.clock.now(), name_of(shop)
        slow, other = shop.distribu.ports.entropy.uuid(), shop.distribu.ports.entropy.uuid()
        await agenda.look({name: now})
        assert await agenda.claim(name, claim=slow, due_at=now, now=now, until=now + MINUTE)
        almost = now + MINUTE - timedelta(milliseconds=1)
        assert not await agenda.claim(name, claim=other, due_at=now, now=almost, until=now + 9 * MINUTE)
        over = now + MINUTE
        assert await agenda.claim(name, claim=other, due_at=now, now=over, until=now + 9 * MINUTE)
        end = over + MINUTE
        assert not await agenda.finish(name, claim=slow, now=end, due_at=end, outcome=Outcome.DONE)
        assert (await agenda.look({name: now}))[name] == Appointment(now, now + 9 * MINUTE)
        assert await agenda.finish(name, claim=other, now=end, due_at=end, outcome=Outcome.DONE)


class JobsContract:
    """Each job when it is due, once."""

    async def test_two_workers_for_an_hour_of_moved_clock_run_each_job_exactly_when_due_once(
        self, shop: Harness, other: Distribu
    ) -> None:
        ran: dict[str, list[datetime]] = defaultdict(list)

        def noting(what: str) -> Callable[[Distribu], Awaitable[int]]:
            async def note(distribu: Distribu) -> int:
                """Note when."""
                ran[what].append(distribu.ports.clock.now())
                await distribu.ports.queue.backlog(now=distribu.ports.clock.now())  # others get their turn
                return 1

            return note

        clock = shop.clock
        start = clock.now().replace(hour=9, minute=0, second=0, microsecond=0) + timedelta(days=1)
        clock.advance(seconds=(start - clock.now()).total_seconds() - 30)
        table = [
            job_of(shop, noting("minute"), MINUTE),
            job_of(shop, noting("ten"), 10 * MINUTE),
            job_of(shop, noting("daily"), timedelta(days=1), at=timedelta(hours=9, minutes=30)),
            job_of(shop, noting("night"), timedelta(days=1), at=timedelta(hours=3)),
        ]
        for job in table:  # as a worker does when it starts
            await run_due(shop.distribu, job)
        for _ in range(121):  # half a minute at a time, from 8:59:30 to 9:59:30
            await asyncio.gather(
                *(run_due(worker, job) for job in table for worker in (shop.distribu, other) for _ in "ab")
            )
            clock.advance(seconds=30)
        hour = [start + n * MINUTE for n in range(60)]
        assert ran == {"minute": hour, "ten": hour[::10], "daily": [hour[30]]}

    async def test_many_workers_at_once_run_what_is_due_once(self, shop: Harness) -> None:
        ran: list[int] = []
        begun = asyncio.Event()

        async def slow(_: Distribu) -> int:
            """Take until the others have been turned away."""
            ran.append(1)
            await begun.wait()
            return 1

        job = job_of(shop, slow)
        await run_due(shop.distribu, job)
        shop.clock.advance(minutes=10)
        workers = [asyncio.create_task(run_due(shop.distribu, job)) for _ in range(20)]
        _, left = await asyncio.wait(workers, return_when=asyncio.FIRST_COMPLETED)
        async with asyncio.timeout(30):
            while len(left) > 1:
                _, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        begun.set()
        await asyncio.gather(*workers)
        assert ran == [1]
        again = sorted(worker.result() for worker in workers)
        assert again == [shop.clock.now() + timedelta(seconds=AGAIN_S)] * 19 + [job.after(shop.clock.now())]

    async def test_after_an_outage_it_catches_up_once(self, shop: Harness) -> None:
        ran: list[datetime] = []

        async def note(distribu: Distribu) -> int:
            """Note when."""
            ran.append(distribu.ports.clock.now())
            return 1

        job = job_of(shop, note)
        await run_due(shop.distribu, job)
        shop.clock.advance(hours=7, minutes=3)
        for _ in range(3):
            await run_due(shop.distribu, job)
        assert ran == [shop.clock.now()]
        kept = await appointment(shop, job)
        assert kept == Appointment(job.after(shop.clock.now()), None, shop.clock.now(), Outcome.DONE)

    async def test_one_that_fails_says_so_and_waits_for_its_next_time(self, shop: Harness) -> None:
        async def broken(_: Distribu) -> int:
            """Fail."""
            raise ValueError("hunter2")

        job = job_of(shop, broken)
        await run_due(shop.distribu, job)
        shop.clock.advance(minutes=10)
        assert await run_due(shop.distribu, job) == job.after(shop.clock.now())
        kept = await appointment(shop, job)
        assert (kept.outcome, kept.claimed_until) == (Outcome.FAILED, None)
        assert counted(shop, job) == {"failed": 1}

    async def test_one_that_takes_too_long_is_given_up_before_its_claim_runs_out(
        self, shop: Harness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def endless(_: Distribu) -> int:
            """Never end."""
            await asyncio.Event().wait()
            return 1

        assert RUN_S < CLAIM_S
        monkeypatch.setattr(jobs, "RUN_S", 0.05)
        ran = await run_now(shop.distribu, job := job_of(shop, endless))
        assert (ran.outcome, ran.count) == (Outcome.FAILED, None)
        assert (await appointment(shop, job)).claimed_until is None

    async def test_a_worker_that_is_told_to_stop_leaves_its_job_to_others_at_once(
        self, shop: Harness
    ) -> None:
        begun, runs = asyncio.Event(), iter(range(9))

        async def hang_at_first(_: Distribu) -> int:
            """Hang the first time."""
            if next(runs) == 0:
                begun.set()
                await asyncio.Event().wait()
            return 5

        job = job_of(shop, hang_at_first)
        due = await run_due(shop.distribu, job)
        shop.clock.advance(minutes=10)
        worker = Worker(shop.distribu, jobs=[job])
        working = asyncio.create_task(worker.run())
        await asyncio.wait_for(begun.wait(), 30)
        worker.stop()
        await working
        kept = await appointment(shop, job)
        assert (kept.due_at, kept.claimed_until, kept.outcome) == (due, None, Outcome.STOPPED)
        await run_due(shop.distribu, job)
        assert (await appointment(shop, job)).outcome is Outcome.DONE

    async def test_one_whose_worker_was_killed_comes_back_when_its_claim_is_over(self, shop: Harness) -> None:
        agenda, ran = shop.distribu.ports.agenda, []

        async def note(_: Distribu) -> int:
            """Note that."""
            ran.append(1)
            return 1

        job = job_of(shop, note)
        due = await run_due(shop.distribu, job)
        now = shop.clock.advance(minutes=10)
        killed = shop.distribu.ports.entropy.uuid()
        until = now + timedelta(seconds=CLAIM_S)
        assert await agenda.claim(job.name, claim=killed, due_at=due, now=now, until=until)
        shop.clock.advance(seconds=CLAIM_S - 1)
        await run_due(shop.distribu, job)
        assert ran == []
        shop.clock.advance(seconds=1)
        await run_due(shop.distribu, job)
        assert ran == [1]

    async def test_now_means_due_or_not_and_takes_no_due_time_from_the_workers(self, shop: Harness) -> None:
        job = job_of(shop, nothing)
        due = await run_due(shop.distribu, job)
        shop.clock.advance(seconds=1)
        ran = await run_now(shop.distribu, job)
        assert (ran.job, ran.outcome, ran.count) == (job.name, Outcome.DONE, 0)
        assert (await appointment(shop, job)).due_at == due
        shop.clock.advance(hours=1)  # nobody worked
        await run_now(shop.distribu, job)
        assert (await appointment(shop, job)).due_at == job.after(shop.clock.now())

    async def test_whoever_asks_for_one_that_runs_is_told_so(self, shop: Harness) -> None:
        begun, end = asyncio.Event(), asyncio.Event()

        async def slow(_: Distribu) -> int:
            """Take a while."""
            begun.set()
            await end.wait()
            return 1

        job = job_of(shop, slow)
        first = asyncio.create_task(run_now(shop.distribu, job))
        await begun.wait()
        (shown,) = await jobs.listed(shop.distribu, [job])
        assert (shown.running, shown.ran_at, shown.outcome) == (True, None, None)
        with pytest.raises(Conflict) as refusal:
            await run_now(shop.distribu, job)
        assert refusal.value.code == "job_running"
        end.set()
        assert (await first).outcome is Outcome.DONE
        assert counted(shop, job) == {"running": 1, "done": 1}
        (shown,) = await jobs.listed(shop.distribu, [job])
        assert (shown.running, shown.outcome) == (False, Outcome.DONE)

    async def test_a_version_that_runs_it_more_often_does_not_wait_for_the_old_time(
        self, shop: Harness
    ) -> None:
        daily = job_of(shop, nothing, timedelta(days=30))
        assert await run_due(shop.distribu, daily) > shop.clock.now() + timedelta(days=1)
        often = replace(daily, every=10 * MINUTE)
        assert await run_due(shop.distribu, often) == often.after(shop.clock.now())
        assert (await appointment(shop, often)).outcome is Outcome.DONE

    async def test_what_is_kept_no_longer_is_forgotten_by_a_job(self, shop: Harness) -> None:
        once: Once[Product] = Once("key-1", lambda _: b"{}")
        await shop.distribu.execute_once(shop.actor, CreateProduct(name="Oat", price=amount("1")), once)
        shop.clock.advance(hours=25)
        (forget,) = (job for job in JOBS if job.name == "forget")
        ran = await run_now(shop.distribu, forget)
        assert ran.outcome is Outcome.DONE
        assert (ran.count or 0) >= 1
        assert (await run_now(shop.distribu, forget)).count == 0

    async def test_trials_are_warned_of_and_ended_by_jobs(self, shop: Harness) -> None:
        trial = await on_trial(shop)

        async def ran(name: str) -> list[str]:
            """What a job did to this company."""
            before = len(await log_of(trial, "subscription"))
            assert (await run_now(trial.distribu, named(name))).outcome is Outcome.DONE
            return [record.action for record in (await log_of(trial, "subscription"))[before:]]

        warned, ended = ["subscription.trial_ending"], ["subscription.trial_ended"]
        told = []
        for days in (0, 11, 2, 1):
            shop.clock.advance(days=days)
            told.append([await ran(name) for name in ("warn_of_trial_ends", "end_trials") for _ in "ab"])
        assert told == [[[], [], [], []], [warned, [], [], []], [warned, [], [], []], [[], [], ended, []]]

    async def test_a_trial_that_stripe_runs_is_ended_by_stripe(self, shop: Harness) -> None:
        """The job can come before the notice that it is paid."""
        it = await buying(shop)
        sub = await it.buys()
        it.stripe.alter(sub["id"], {"status": "trialing", "trial_end": it.stripe.now + 86_400})
        await it.hears("customer.subscription.updated")
        before = await it.current()
        assert before.trial_ends_at is not None
        shop.clock.advance(days=20)
        mails = await mails_to(shop, it)
        assert not await it.shop.distribu.run(Actor.system(it.shop.company.id), EndTrial())
        assert (await run_now(it.distribu, named("end_trials"))).outcome is Outcome.DONE
        assert await it.current() == before
        assert await mails_to(shop, it) == mails
        await it.shop.order(await it.shop.customer(), (await it.shop.product(), 1))
        assert (await it.shop.execute(ReadSubscription())).status is SubscriptionStatus.TRIALING

    async def test_a_trial_that_stumbles_keeps_nobody_from_theirs_and_fails_the_job(
        self, shop: Harness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        trials = [await on_trial(shop) for _ in range(5)]
        stumbling = sorted(trials, key=lambda one: one.company.id)[1]
        shop.clock.advance(days=15)
        run = EndTrial.run

        async def stumble(request: EndTrial, work: Work) -> bool:
            if work.actor.company_id == stumbling.company.id:
                raise ValueError("hunter2")
            return await run(request, work)

        with monkeypatch.context() as planted:
            planted.setattr(EndTrial, "run", stumble)
            planted.setattr(billing, "TRIALS_AT_ONCE", 2)
            ran = await run_now(shop.distribu, named("end_trials"))
        assert (ran.outcome, ran.count) == (Outcome.FAILED, None)
        for one in trials:
            assert bool(await log_of(one, "subscription.trial_ended")) is (one is not stumbling)
        assert (await run_now(shop.distribu, named("end_trials"))).count == 1

    async def test_a_worker_runs_what_falls_due(self, shop: Harness) -> None:
        done = asyncio.Event()

        async def tell(_: Distribu) -> int:
            """Tell that it ran."""
            done.set()
            return 1

        job = job_of(shop, tell)
        await run_due(shop.distribu, job)
        worker = Worker(shop.distribu, jobs=[job])
        working = asyncio.create_task(worker.run())
        shop.clock.advance(minutes=10)
        await asyncio.wait_for(done.wait(), 30)
        worker.stop()
        await working
