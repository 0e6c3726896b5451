"""Jobs: what is done again and again, once for all workers, and by whoever else is let to."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from distribu.application.agenda import Appointment, Outcome
from distribu.application.billing import end_trials, warn_of_trial_ends
from distribu.application.kernel import Distribu
from distribu.application.notices import retry_notices
from distribu.application.reconciling import sync_billing
from distribu.application.shapes import Time, View, maybe, time
from distribu.domain.errors import Conflict, NotFound

log: Final = logging.getLogger("distribu.jobs")

RUN_S: Final = 240.0
"""What one run may take: it is given up, as FAILED, before its claim runs out."""

CLAIM_S: Final = 300.0
"""After so long a job comes back whose worker was killed: a minute is left for clocks that differ."""

AGAIN_S: Final = 10.0
"""How long a job that somebody else has is left to them before it is looked at again."""

_BEGAN: Final = datetime(1970, 1, 1, tzinfo=UTC)

Action = Callable[[Distribu], Awaitable[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What ``action`` does ``every`` so often, counted from 1970 (UTC), and ``at`` so much later.

    Once a day at 03:30 is ``every=timedelta(days=1), at=timedelta(hours=3, minutes=30)``. ``name`` is of
    small letters and ``_``, 40 at most. The docstring of the action says what it does; it returns how much
    there was to do. It may be interrupted anywhere and run again, and finds then what is left.
    """

    name: str
    action: Action
    every: timedelta
    at: timedelta = timedelta(0)

    @property
    def what(self) -> str:
        """What it does, in a line."""
        return (self.action.__doc__ or "").partition("\n")[0]

    @property
    def often(self) -> str:
        """How often that is, such as ``10 min`` or ``1 d at 03:30``."""
        every, at = (int(span.total_seconds()) // 60 for span in (self.every, self.at))
        parts = ((every // 1440, "d"), (every // 60 % 24, "h"), (every % 60, "min"))
        told = " ".join(f"{count} {unit}" for count, unit in parts if count)
        return f"{told} at {at // 60:02}:{at % 60:02}" if at else told

    def after(self, moment: datetime) -> datetime:
        """The first time it is due after a moment."""
        first = _BEGAN + self.at
        return first + ((moment - first) // self.every + 1) * self.every


async def forget(distribu: Distribu) -> int:
    """Forget idempotency keys, mails and events that are kept no longer."""
    queue, now, gone = distribu.ports.queue, distribu.ports.clock.now(), 0
    while part := await queue.purge(now=now):
        gone += part
    return gone


JOBS: Final[Sequence[Job]] = (
    Job(name="forget", action=forget, every=timedelta(minutes=10)),
    Job(name="end_trials", action=end_trials, every=timedelta(minutes=10)),
    Job(name="warn_of_trial_ends", action=warn_of_trial_ends, every=timedelta(hours=1)),
    Job(name="retry_notices", action=retry_notices, every=timedelta(minutes=1)),
    Job(name="sync_billing", action=sync_billing, every=timedelta(days=1), at=timedelta(hours=4)),
)
"""All there are. A new one is a line here, and its action beside the use cases it runs."""


class JobView(View, frozen=True, kw_only=True):
    """A job, how it went last, and when it is due next."""

    job: str
    what: str
    every: str
    running: bool
    ran_at: Time | None
    outcome: Outcome | None
    due_at: Time


class RanView(View, frozen=True, kw_only=True):
    """What came of a run: ``count`` is how much there was to do, None unless it is DONE."""

    job: str
    outcome: Outcome
    count: int | None


def named(name: str, jobs: Sequence[Job] = JOBS) -> Job:
    """The job of a name. Raises `NotFound` (job_not_found)."""
    found = next((job for job in jobs if job.name == name), None)
    if found is None:
        raise NotFound("job_not_found")
    return found


async def appointments(distribu: Distribu, jobs: Sequence[Job] = JOBS) -> Mapping[str, Appointment]:
    """When each job is due, and how it went last."""
    now = distribu.ports.clock.now()
    return await distribu.ports.agenda.look({job.name: job.after(now) for job in jobs})


async def listed(distribu: Distribu, jobs: Sequence[Job] = JOBS) -> list[JobView]:
    """Every job, as it stands."""
    kept, now = await appointments(distribu, jobs), distribu.ports.clock.now()
    return [
        JobView(
            job=job.name,
            what=job.what,
            every=job.often,
            running=(at.claimed_until or now) > now,
            ran_at=maybe(at.ran_at),
            outcome=at.outcome,
            due_at=time(at.due_at),
        )
        for job in jobs
        for at in (kept[job.name],)
    ]


async def run_now(distribu: Distribu, job: Job) -> RanView:
    """Run a job, due or not. Raises `Conflict` (job_running) while somebody else does."""
    at = (await appointments(distribu, [job]))[job.name]
    ran = await _run(distribu, job, at.due_at)
    if ran is None:
        distribu.counts.jobs[job.name, "running"] += 1
        raise Conflict("job_running")
    return RanView(job=job.name, outcome=ran.outcome, count=ran.count)


async def run_due(distribu: Distribu, job: Job) -> datetime:
    """Run a job if it is due and nobody's. Returns when to look at it again.

    However many times it was due since it ran last, it runs once.
    """
    at, now = (await appointments(distribu, [job]))[job.name], distribu.ports.clock.now()
    # Whoever wrote down a time further ahead than any of ours ran it less often, or by another clock.
    if now < at.due_at <= job.after(job.after(now)):
        return at.due_at
    ran = await _run(distribu, job, at.due_at)
    return ran.due_at if ran is not None else now + timedelta(seconds=AGAIN_S)


@dataclass(frozen=True, slots=True)
class _Ran:
    outcome: Outcome
    count: int | None
    due_at: datetime


async def _run(distribu: Distribu, job: Job, due_at: datetime) -> _Ran | None:
    """Run a job that is due then for all who share it; None when somebody else has it, or had."""
    ports, claim = distribu.ports, distribu.ports.entropy.uuid()
    began = ports.clock.now()
    until = began + timedelta(seconds=CLAIM_S)
    if not await ports.agenda.claim(job.name, claim=claim, due_at=due_at, now=began, until=until):
        return None
    ran = _Ran(Outcome.STOPPED, None, due_at)
    try:
        async with asyncio.timeout(RUN_S):
            ran = _Ran(Outcome.DONE, await job.action(distribu), job.after(began))
    except Exception:
        log.exception("the job %s failed", job.name)
        ran = _Ran(Outcome.FAILED, None, job.after(began))
    finally:  # also for whoever was told to stop: others need not wait for the claim to run out
        distribu.counts.jobs[job.name, ran.outcome.lower()] += 1
        kept = await ports.agenda.finish(
            job.name, claim=claim, now=ports.clock.now(), due_at=ran.due_at, outcome=ran.outcome
        )
        if not kept:
            log.warning("the job %s took longer than its claim, and somebody else has it", job.name)
    return ran
