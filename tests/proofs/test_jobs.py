"""Jobs by real processes: two workers for an hour, one of them killed, and two servers asked at once."""

import asyncio
import os
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import httpx
import pytest

from distribu import Distribu, Secret, Settings, Shop, connect
from distribu.adapters.memory.stripe import MemoryPayments, PretendStripe
from distribu.adapters.memory.twins import MovedClock
from distribu.application.jobs import JOBS
from distribu.container import database
from tests.proofs import books
from tests.proofs.conftest import House
from tests.proofs.processes import Server, superuser
from tests.proofs.selling import CRON_TOKEN

START: Final = datetime(2027, 3, 1, 3, 30, tzinfo=UTC)
"""So that what is done once a day, at four, is due within the hour."""
MINUTE: Final = timedelta(minutes=1)

LOOK_S: Final = 0.7
"""In this time every worker has looked at the clock."""

WORKER: Final = """
import asyncio, os, sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from distribu import Distribu, Settings, Worker
from distribu.adapters.system import SystemClock
from distribu.application.jobs import JOBS
from distribu.container import running

class Clock(SystemClock):
    def now(self):
        return datetime.fromisoformat(Path(os.environ["CLOCK"]).read_text())

def noting(job):
    async def action(distribu):
        "Do it, note when, and take a while."
        with open(os.environ["NOTES"], "a") as notes:
            notes.write(f"{job.name} {distribu.ports.clock.now().isoformat()} {os.getpid()}\\n")
        done = await job.action(distribu)
        await asyncio.sleep(0.2)
        return done
    return replace(job, action=action)

async def main():
    settings = Settings(database_url=os.environ["APP"], queue_database_url=os.environ["QUEUE"])
    async with running(settings) as distribu:
        moved = Distribu(replace(distribu.ports, clock=Clock()))
        await Worker(moved, jobs=[noting(job) for job in JOBS]).run()

asyncio.run(main())
"""


class Hour:
    """Workers on a database of their own, and the one clock they all go by."""

    def __init__(self, data_dir: Path, settings: Settings) -> None:
        self.data_dir = data_dir
        self.notes = data_dir / "notes"
        self.notes.touch()
        self._clock = data_dir / "clock"
        self._environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(data_dir),
            "DISTRIBU_DATA_DIR": str(data_dir),
            "APP": settings.database_url or "",
            "QUEUE": settings.queue_database_url or "",
            "CLOCK": str(self._clock),
            "NOTES": str(self.notes),
        }
        self.workers: dict[int, subprocess.Popen[bytes]] = {}

    def move(self, to: datetime) -> None:
        """What time it is for all of them."""
        written = self._clock.with_suffix(".new")
        written.write_text(to.isoformat())
        written.replace(self._clock)

    def begin(self) -> None:
        """One more worker."""
        with (self.data_dir / "worker.log").open("ab") as log:
            worker = subprocess.Popen(
                [sys.executable, "-c", WORKER], env=self._environ, stdout=log, stderr=log
            )
        self.workers[worker.pid] = worker

    def kill(self, pid: int) -> None:
        worker = self.workers.pop(pid)
        worker.kill()
        worker.wait()

    async def kept(self, by: datetime) -> None:
        """Wait until nothing is due any more, and everybody has seen that."""
        late = "SELECT count(*) FROM distribu.jobs WHERE due_at > %s AND claim IS NULL"
        async with asyncio.timeout(60):
            with superuser(self.data_dir) as root:
                while books.count(root, late, by) < len(JOBS):
                    assert all(one.poll() is None for one in self.workers.values()), self.said()
                    await asyncio.sleep(0.05)
        await asyncio.sleep(LOOK_S)

    def said(self) -> str:
        return (self.data_dir / "worker.log").read_text()[-3_000:]

    def ran(self) -> list[tuple[str, datetime, int]]:
        lines = [line.split() for line in self.notes.read_text().splitlines()]
        return [(name, datetime.fromisoformat(at), int(pid)) for name, at, pid in lines]


@contextmanager
def hour(data_dir: Path) -> Iterator[Hour]:
    with database(Settings(data_dir=str(data_dir))) as settings:
        it = Hour(data_dir, settings)
        try:
            yield it
        finally:
            for pid in [*it.workers]:
                it.kill(pid)


async def test_two_workers_for_an_hour_run_each_job_exactly_when_due_once(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """After half an hour the one that ran most is killed, and another comes in its place."""
    data_dir = tmp_path_factory.mktemp("hour")
    trial = await _trial_that_ends(data_dir, START + timedelta(minutes=25))
    with hour(data_dir) as it:
        it.move(START - timedelta(seconds=30))
        it.begin()
        it.begin()
        await it.kept(START - timedelta(seconds=30))
        for minute in range(60):
            if minute == 30:
                busiest = Counter(pid for *_, pid in it.ran()).most_common(1)[0][0]
                it.kill(busiest)
                it.begin()
            now = START + minute * MINUTE
            it.move(now)
            await it.kept(now)
        ran: dict[str, list[datetime]] = defaultdict(list)
        for name, at, _ in it.ran():
            ran[name].append(at)
        minutes = [START + n * MINUTE for n in range(60)]
        assert ran == {
            job.name: [at for at in minutes if job.after(at - timedelta(milliseconds=1)) == at]
            for job in JOBS
        }
        assert len({pid for *_, pid in it.ran()}) > 1
        print(f"\n{len(it.ran())} runs: {dict(Counter(pid for *_, pid in it.ran()))}")
        with superuser(data_dir) as root:
            ended = "SELECT at FROM distribu.records WHERE company_id = %s AND action = %s"
            rows = root.execute(ended, [trial, "subscription.trial_ended"]).fetchall()
        assert rows == [(START + 30 * MINUTE,)]


async def _trial_that_ends(data_dir: Path, at: datetime) -> str:
    """A company on trial until then; its id."""
    async with connect(Settings(data_dir=str(data_dir))) as distribu:
        clock = MovedClock(at - timedelta(days=14))
        payments = MemoryPayments(PretendStripe(clock.now), [Secret("whsec_an_hour")])
        shop = await Shop.open(Distribu(replace(distribu.ports, clock=clock, payments=payments)))
        return str(shop.company.id)


async def test_asked_of_two_servers_at_once_one_runs_it_and_the_other_says_so(house: House) -> None:
    servers = [Server(house.data_dir, "--no-worker", cron_token=CRON_TOKEN) for _ in range(2)]
    try:
        await asyncio.gather(*(one.started() for one in servers))
        headers = {"authorization": f"Bearer {CRON_TOKEN}"}
        async with httpx.AsyncClient(headers=headers, timeout=60) as http:
            with superuser(house.data_dir) as watching, superuser(house.data_dir) as holding:
                holding.autocommit = False
                holding.execute("LOCK TABLE distribu.answers IN EXCLUSIVE MODE")
                first = asyncio.create_task(http.post(f"{servers[0].url}/cron/forget"))
                waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = %s::regclass"
                async with asyncio.timeout(30):
                    while not books.count(watching, waits, "distribu.answers"):  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                second = await http.post(f"{servers[1].url}/cron/forget")
                holding.rollback()
            answer = await first
            assert (second.status_code, second.json()["code"]) == (409, "job_running")
            assert (answer.status_code, answer.json()["data"]["outcome"]) == (200, "DONE")
            again = await http.post(f"{servers[1].url}/cron/forget")
            assert again.status_code == 200
        for one in servers:
            assert await one.stop() == 0, one.said()
    finally:
        for one in servers:
            one.end()
