"""Jobs by real processes: one that is killed at it, and the command line."""

import asyncio
import json
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from distribu import Distribu, Settings
from distribu.adapters.memory.twins import MovedClock
from distribu.application.agenda import Outcome
from distribu.application.jobs import AGAIN_S, Job, appointments, run_due
from distribu.entrypoints import cli_cron
from tests.integration.program import Program

EVERY = timedelta(minutes=10)

HANGING = """
import asyncio, os
from datetime import timedelta
from distribu import Settings, Worker
from distribu.application.jobs import Job
from distribu.container import running

async def hang(_):
    "Say that it has begun, and never end."
    print("begun", flush=True)
    await asyncio.Event().wait()

async def main():
    settings = Settings(database_url=os.environ["APP"], queue_database_url=os.environ["QUEUE"])
    async with running(settings) as distribu:
        await Worker(distribu, jobs=[Job(name="killed", action=hang, every=timedelta(minutes=10))]).run()

asyncio.run(main())
"""


async def test_a_worker_that_is_killed_at_a_job_holds_it_up_for_five_minutes_and_no_longer(
    settings: Settings, distribu: Distribu, tmp_path: Path
) -> None:
    ran: list[int] = []

    async def note(_: Distribu) -> int:
        """Note that."""
        ran.append(1)
        return 1

    job = Job(name="killed", action=note, every=EVERY)
    await appointments(distribu, [job])
    with psycopg.connect(settings.queue_database_url or "", autocommit=True) as connection:
        earlier = "UPDATE distribu.jobs SET due_at = due_at - interval '10 min' WHERE name = 'killed'"
        connection.execute(earlier)
    urls = {"APP": settings.database_url or "", "QUEUE": settings.queue_database_url or ""}
    started = distribu.ports.clock.now()
    worker = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        HANGING,
        env={"PATH": "/usr/bin:/bin", "DISTRIBU_DATA_DIR": str(tmp_path), "HOME": str(tmp_path), **urls},
        stdout=subprocess.PIPE,
    )
    try:
        assert worker.stdout is not None
        async with asyncio.timeout(60):
            assert await worker.stdout.readline() == b"begun\n"
    finally:
        worker.kill()
        await worker.wait()
    kept = (await appointments(distribu, [job]))[job.name]
    assert kept.claimed_until is not None
    five_minutes = timedelta(minutes=5)
    assert started <= kept.claimed_until - five_minutes <= distribu.ports.clock.now()
    assert (kept.ran_at, kept.outcome) == (None, None)
    clock = MovedClock(kept.claimed_until - timedelta(seconds=1))
    another = Distribu(replace(distribu.ports, clock=clock))
    assert await run_due(another, job) == clock.now() + timedelta(seconds=AGAIN_S)
    assert ran == []
    clock.advance(seconds=1)
    others = [Distribu(replace(distribu.ports, clock=clock)) for _ in range(5)]
    await asyncio.gather(*(run_due(one, job) for one in others))
    assert ran == [1]
    kept = (await appointments(distribu, [job]))[job.name]
    assert (kept.ran_at, kept.outcome, kept.claimed_until) == (clock.now(), Outcome.DONE, None)


@pytest.fixture
def program(settings: Settings, tmp_path: Path) -> Program:
    urls = {"database": settings.database_url, "queue_database": settings.queue_database_url}
    return Program(tmp_path, **{f"DISTRIBU_{name.upper()}_URL": url or "" for name, url in urls.items()})


def listed(program: Program) -> dict[str, Any]:
    """The job that forgets, as it is shown."""
    (shown,) = (one for one in program.json("cron", "list")["data"] if one["job"] == "forget")
    assert isinstance(shown, dict)
    return shown


def test_the_command_line_lists_jobs_and_runs_one(program: Program) -> None:
    ran = program.json("cron", "run", "forget")
    assert (ran["job"], ran["outcome"]) == ("forget", "DONE")
    shown = listed(program)
    assert shown["what"] == "Forget idempotency keys, mails and events that are kept no longer."
    assert (shown["outcome"], shown["running"], shown["every"]) == ("DONE", False, "10 min")
    assert shown["dueAt"] > shown["ranAt"]
    table = program.call("cron", "list")
    assert (table.code, table.err) == (0, "")
    for told in ("forget", "10 min", "DONE", shown["dueAt"]):
        assert told in table.out


def test_the_command_line_tells_how_it_ended_by_its_exit_code(
    program: Program, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, told = program.refused("cron", "run", "nothing")
    assert (code, told["code"]) == (14, "job_not_found")
    listed(program)
    claim = (
        "UPDATE distribu.jobs SET claim = gen_random_uuid(), claimed_until = now() + %s::interval"
        " WHERE name = 'forget'"
    )
    with psycopg.connect(settings.queue_database_url or "", autocommit=True) as connection:
        connection.execute(claim, ["1 hour"])
        code, told = program.refused("cron", "run", "forget")
        assert (code, told["code"]) == (15, "job_running")
        assert listed(program)["running"] is True
        connection.execute(claim, ["-1 second"])
    assert listed(program)["running"] is False
    assert program.call("cron", "run", "forget").code == 0

    async def broken(_: Distribu) -> int:
        """Fail."""
        raise ValueError("hunter2")

    job = Job(name="broken", action=broken, every=EVERY)
    monkeypatch.setattr(cli_cron, "named", lambda _: job)
    failed = program.call("cron", "run", "broken", "--json")
    assert (failed.code, json.loads(failed.out)["outcome"]) == (23, "FAILED")
    assert "hunter2" not in failed.out
