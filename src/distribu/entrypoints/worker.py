"""The worker: committed events and mails out of the house, each receiver at its own pace."""

import asyncio
import logging
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from typing import Final

from distribu.application.delivering import deliver, post
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
"""How long a worker with deliveries on their way lets others land before it asks for more: one question for
many places and not for each."""

CLAIM_S: Final = 60.0
PURGE_S: Final = 600.0
RELAY_BATCH: Final = 500
SEAL_EVERY_S: Final = 1.0
"""How often what was recorded is sealed."""


class Worker:
    """Relays and delivers until it is told to stop; any number of them share the work."""

    def __init__(self, distribu: Distribu, *, concurrency: int = 256) -> None:
        self.distribu = distribu
        self.concurrency = concurrency
        self._woken = asyncio.Event()
        self._stopping = False
        self._stopped = asyncio.Event()
        self._flying: dict[asyncio.Task[None], tuple[CompanyId, WebhookId]] = {}
        self._posting: set[asyncio.Task[None]] = set()

    def wake(self) -> None:
        """There is something to do."""
        self._woken.set()

    def stop(self) -> None:
        """Finish what is on its way, and take nothing new."""
        self._stopping = True
        self._stopped.set()
        self._woken.set()

    async def run(self) -> None:
        """Work until `stop`."""
        purged = self.distribu.ports.clock.now()
        sealing = asyncio.create_task(self._seal())
        while not self._stopping:
            self._woken.clear()
            try:
                done = await self._turn()
                if self.distribu.ports.clock.now() - purged > timedelta(seconds=PURGE_S):
                    now = self.distribu.ports.clock.now()
                    if not await self.distribu.ports.queue.purge(now=now):
                        purged = now
            except Exception:
                log.exception("the worker stumbled and goes on")
                done = 0
            if not done:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._woken.wait(), POLL_S)
            if self._flying:
                await asyncio.sleep(GATHER_S)
        await asyncio.wait([sealing, *self._flying, *self._posting])

    async def _seal(self) -> None:
        """Seal the audit logs, whatever else is to be done: no receiver holds this up."""
        while not self._stopping:
            try:
                if await seal(self.distribu) >= SEAL_BATCH:
                    continue
            except Exception:
                log.exception("sealing stumbled and goes on")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), SEAL_EVERY_S)

    async def drain(self) -> int:
        """Seal once, and relay, deliver and mail until nothing is due any more; for the harness.

        Returns how many webhooks were tried.
        """
        sent = 0
        await seal(self.distribu)
        while await self._turn() or self._flying or self._posting:
            sent += len(self._flying)
            if underway := [*self._flying, *self._posting]:
                await asyncio.wait(underway)
        return sent

    async def _turn(self) -> int:
        ports = self.distribu.ports
        moved = await ports.queue.relay(limit=RELAY_BATCH, now=ports.clock.now()) + await self._mail()
        free = self.concurrency - len(self._flying)
        if free <= 0:
            await asyncio.wait(self._flying, return_when=asyncio.FIRST_COMPLETED)
            return 1
        parcels = await ports.queue.claim(
            limit=free,
            per_webhook=PER_WEBHOOK,
            per_company=max(PER_WEBHOOK, self.concurrency // COMPANIES),
            busy=Counter(self._flying.values()),
            now=ports.clock.now(),
            claim_s=CLAIM_S,
        )
        for parcel in parcels:
            task = asyncio.create_task(self._deliver(parcel))
            self._flying[task] = (parcel.company_id, parcel.webhook_id)
            task.add_done_callback(self._landed)
        return moved + len(parcels)

    async def _mail(self) -> int:
        ports = self.distribu.ports
        free = MAILS - len(self._posting)
        if free <= 0:
            return 0
        parcels = await ports.queue.claim_mails(limit=free, now=ports.clock.now(), claim_s=CLAIM_S)
        for parcel in parcels:
            task = asyncio.create_task(self._post(parcel))
            self._posting.add(task)
            task.add_done_callback(self._posted)
        return len(parcels)

    def _posted(self, task: "asyncio.Task[None]") -> None:
        self._posting.discard(task)
        self._woken.set()

    async def _post(self, parcel: MailParcel) -> None:
        try:
            status = await post(self.distribu.ports, parcel)
            self.distribu.counts.mails[status.lower()] += 1
        except Exception:
            self.distribu.counts.mails["stumbled"] += 1
            log.exception("mail %s stumbled; its claim runs out and it is tried again", parcel.id)

    def _landed(self, task: "asyncio.Task[None]") -> None:
        del self._flying[task]
        self._woken.set()

    async def _deliver(self, parcel: Parcel) -> None:
        try:
            status = await deliver(self.distribu, parcel)
            self.distribu.counts.deliveries[status.lower()] += 1
        except Exception:
            self.distribu.counts.deliveries["stumbled"] += 1
            log.exception(
                "delivery %s stumbled; its claim runs out and it is tried again", parcel.delivery_id
            )
