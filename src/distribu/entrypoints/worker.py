"""The worker: events and mails go out, each receiver at its own pace; jobs run, audit logs are sealed."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Final

from distribu.application.delivering import post, send, settle
from distribu.application.jobs import AGAIN_S, JOBS, Job, run_due
from distribu.application.kernel import Distribu
from distribu.application.ports import MailParcel, Parcel
from distribu.application.sealing import SEAL_BATCH, seal
from distribu.domain.values import CompanyId, WebhookId

log: Final = logging.getLogger("distribu.worker")

POLL_S: Final = 0.5
"""How long an event waits at most for a worker that was not woken."""

PER_WEBHOOK: Final = 8
"""Deliveries to one webhook at once: what a slow receiver can hold up is its own queue."""

COMPANIES: Final = 4
"""Of the places of a worker one company takes at most the part of so many companies."""

MAILS: Final = 8
"""Mails on their way at once."""

GATHER_S: Final = 0.02
"""How long a worker lets others come before it asks for more: one question for many, and not for each."""

CLAIM_S: Final = 60.0
"""How long a delivery or a mail is ours: an attempt, and a wait for a database that is away, fit in."""

RELAY_BATCH: Final = 500
"""Events that are moved in one turn."""

SEAL_EVERY_S: Final = 1.0
"""How often what was recorded is sealed."""


class Places:
    """Who is being asked: by webhook and by company, each of which may take so many places."""

    def __init__(self, per_company: int) -> None:
        self.per_company = per_company
        self.webhooks: Counter[tuple[CompanyId, WebhookId]] = Counter()
        self.companies: Counter[CompanyId] = Counter()

    def copy(self) -> "Places":
        same = Places(self.per_company)
        same.webhooks, same.companies = self.webhooks.copy(), self.companies.copy()
        return same

    def full(self, parcel: Parcel) -> bool:
        """Whether another one for the same would have to wait."""
        return (
            self.webhooks[parcel.company_id, parcel.webhook_id] >= PER_WEBHOOK
            or self.companies[parcel.company_id] >= self.per_company
        )

    def take(self, parcel: Parcel) -> None:
        self.webhooks[parcel.company_id, parcel.webhook_id] += 1
        self.companies[parcel.company_id] += 1

    def give_back(self, parcel: Parcel) -> None:
        webhook, company = (parcel.company_id, parcel.webhook_id), parcel.company_id
        self.webhooks[webhook] -= 1
        self.companies[company] -= 1
        if not self.webhooks[webhook]:
            del self.webhooks[webhook]
        if not self.companies[company]:
            del self.companies[company]


class Worker:
    """Relays, delivers, mails, seals and runs jobs until it is told to stop; any number share the work."""

    def __init__(self, distribu: Distribu, *, concurrency: int = 512, jobs: Sequence[Job] = JOBS) -> None:
        self.distribu = distribu
        self.jobs = jobs
        self.concurrency = concurrency
        self._news = asyncio.Event()
        self._letters = asyncio.Event()
        self._wanted = asyncio.Event()
        self._room = asyncio.Event()
        self._stopped = asyncio.Event()
        self._flying: set[asyncio.Task[None]] = set()
        self._places = Places(max(PER_WEBHOOK, concurrency // COMPANIES))
        self._turn = 0
        """The number of the last claim."""
        self._asked = 0
        """Receivers who have not answered yet."""
        self._enough = 0
        """There is more to ask for once so few of them are left,"""
        self._awaited = 0
        """or none of the last claim."""
        self._posting: set[asyncio.Task[None]] = set()

    def wake(self) -> None:
        """There is something to do."""
        for event in (self._news, self._letters, self._wanted):
            event.set()

    def stop(self) -> None:
        """Finish what is on its way, and take nothing new."""
        self._stopped.set()
        self._room.set()
        self.wake()

    async def run(self) -> None:
        """Work until `stop`."""
        await asyncio.gather(
            self._repeat(self._relay, self._news, self._stopped),
            self._repeat(self._mail, self._letters, self._stopped),
            self._repeat(self._send, self._wanted, self._room),
            self._seal(),
            self._keep_all(),
        )
        if underway := [*self._flying, *self._posting]:
            await asyncio.wait(underway)

    async def _repeat(
        self, step: Callable[[], Awaitable[bool]], woken: asyncio.Event, enough: asyncio.Event
    ) -> None:
        """Take steps until `stop`. After one that left more to do the next comes at ``enough`` or in
        `GATHER_S`; else when ``woken``, or after a pause that doubles up to `POLL_S`.
        """
        pause_s = POLL_S
        while not self._stopped.is_set():
            woken.clear()
            try:
                more = await step()
            except Exception:
                log.exception("the worker stumbled and goes on")
                more = False
            # Where something came, more may come: it is looked for often at first, then ever less.
            pause_s = GATHER_S if more else min(2 * pause_s, POLL_S)
            with suppress(TimeoutError):
                await asyncio.wait_for((enough if more else woken).wait(), pause_s)

    async def _keep(self, job: Job) -> None:
        """Run a job whenever it is due by the clock of the ports; who else does is asked only then."""
        clock = self.distribu.ports.clock
        look_at = clock.now()
        while not self._stopped.is_set():
            try:
                if clock.now() >= look_at:
                    look_at = clock.now() + timedelta(seconds=AGAIN_S)  # if it stumbles
                    look_at = await run_due(self.distribu, job)
            except Exception:
                log.exception("the job %s stumbled; its claim runs out and it is tried again", job.name)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), POLL_S)

    async def _keep_all(self) -> None:
        """Keep every job, each by itself, until it is time to stop: what runs then is interrupted."""
        jobs = [asyncio.create_task(self._keep(job)) for job in self.jobs]
        await self._stopped.wait()
        for one in jobs:
            one.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)

    async def _seal(self) -> None:
        """Seal the audit logs, whatever else is to be done: no receiver holds this up."""
        while not self._stopped.is_set():
            try:
                if await seal(self.distribu) >= SEAL_BATCH:
                    continue
            except Exception:
                log.exception("sealing stumbled and goes on")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), SEAL_EVERY_S)

    async def drain(self) -> int:
        """Run due jobs, seal, and relay, deliver and mail until nothing is due any more; for the harness.

        Returns how many webhooks were tried.
        """
        sent = 0
        for job in self.jobs:
            await run_due(self.distribu, job)
        await seal(self.distribu)
        while await self._relay() + await self._mail() + await self._send() or self._flying or self._posting:
            sent += len(self._flying)
            if underway := [*self._flying, *self._posting]:
                await asyncio.wait(underway)
        return sent

    async def _relay(self) -> bool:
        ports = self.distribu.ports
        moved = await ports.queue.relay(limit=RELAY_BATCH, now=ports.clock.now())
        if moved:
            self._wanted.set()
            self._room.set()
        return bool(moved)

    async def _send(self) -> bool:
        """Send what is due and has a place. Returns whether more may be due than there were places for."""
        ports = self.distribu.ports
        free = self.concurrency - len(self._flying)
        if free <= 0:
            return False  # whoever lands first says so
        self._room.clear()
        then = self._places.copy()
        parcels = await ports.queue.claim(
            limit=free,
            per_webhook=PER_WEBHOOK,
            per_company=self._places.per_company,
            busy=then.webhooks,
            now=ports.clock.now(),
            claim_s=CLAIM_S,
        )
        self._turn += 1
        self._asked += len(parcels)
        self._enough, self._awaited = self._asked // 2, len(parcels)
        for parcel in parcels:
            then.take(parcel)
            self._places.take(parcel)
            task = asyncio.create_task(self._deliver(parcel, self._turn))
            self._flying.add(task)
            task.add_done_callback(self._landed)
        return len(self._flying) >= self.concurrency or any(map(then.full, parcels))

    async def _mail(self) -> bool:
        ports = self.distribu.ports
        free = MAILS - len(self._posting)
        if free <= 0:
            return False
        parcels = await ports.queue.claim_mails(limit=free, now=ports.clock.now(), claim_s=CLAIM_S)
        for parcel in parcels:
            task = asyncio.create_task(self._post(parcel))
            self._posting.add(task)
            task.add_done_callback(self._posted)
        return bool(parcels)

    def _posted(self, task: "asyncio.Task[None]") -> None:
        self._posting.discard(task)
        self._letters.set()

    async def _post(self, parcel: MailParcel) -> None:
        try:
            status = await post(self.distribu.ports, parcel)
            self.distribu.counts.mails[status.lower()] += 1
        except Exception:
            self.distribu.counts.mails["stumbled"] += 1
            log.exception("mail %s stumbled; its claim runs out and it is tried again", parcel.id)

    def _answered(self, parcel: Parcel, turn: int) -> None:
        """Somebody has answered, or did not in time: another may be sent while what came of it is stored."""
        # Only a place that was wanting is worth a question.
        if self._places.full(parcel):
            self._wanted.set()
        self._places.give_back(parcel)
        self._asked -= 1
        self._awaited -= turn == self._turn
        # Half of all, or all that came last: of all, some may hang.
        if self._asked <= self._enough or not self._awaited:
            self._room.set()

    def _landed(self, task: "asyncio.Task[None]") -> None:
        if len(self._flying) >= self.concurrency:
            self._wanted.set()
        self._flying.discard(task)

    async def _deliver(self, parcel: Parcel, turn: int) -> None:
        try:
            try:
                attempt = await send(self.distribu.ports, parcel)
            finally:
                self._answered(parcel, turn)
            status = await settle(self.distribu, parcel, attempt)
            self.distribu.counts.deliveries[status.lower()] += 1
        except Exception:
            self.distribu.counts.deliveries["stumbled"] += 1
            log.exception(
                "delivery %s stumbled; its claim runs out and it is tried again", parcel.delivery_id
            )
