"""What a webhook costs: one worker and many receivers, beside a client that posts and does nothing else."""

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from distribu import Settings, Shop
from distribu.application import views
from distribu.container import running
from distribu.domain.webhooks import WireEvent
from tests.benchmarks.machine import ROOT, cpu_s, free_port, postmaster, started, told

RECEIVERS: Final = 16
AT_ONCE: Final = 128
"""Requests of the bare client on their way: as many as the worker sends to so many receivers."""

WARM: Final = 0.2
"""The part that is sent before anything is counted: connections are made, statements are prepared."""


@dataclass(frozen=True, slots=True)
class Sent:
    """Milliseconds of CPU for a delivery and deliveries per second; and those of the bare client."""

    worker_ms: float
    postgres_ms: float
    per_s: float
    bare_ms: float
    bare_per_s: float


async def _offered(settings: Settings, port: int, events: int) -> None:
    async with running(settings) as distribu:
        shop = await Shop.open(distribu, "Acme Deliveries")
        for n in range(RECEIVERS):
            await shop.webhook(WireEvent.PRODUCT_CREATED, url=f"http://127.0.0.1:{port}/{n}")
        for n in range(events):
            await shop.product(f"Product {n}", sku=f"SENT-{n}")


async def deliveries(settings: Settings, events: int) -> Sent:
    """Have one worker send so many events to each receiver, then have the bare client post as many."""
    port = free_port()
    with started("tests.benchmarks.receiver", str(port), port=port, path="/"):
        await _offered(settings, port, events)
        with psycopg.connect(settings.owner_database_url or "", autocommit=True) as owner:
            owner.execute("ANALYZE")
        with psycopg.connect(settings.queue_database_url or "", autocommit=True) as machine:
            sent = _worked(settings, machine, port, events * RECEIVERS)
            row = machine.execute(
                "SELECT payload FROM distribu.feed WHERE name = 'product.created' LIMIT 1"
            ).fetchone()
        bare = _bare(port, row[0] if row else "{}", events * RECEIVERS)
    return Sent(*sent, bare["ms"], bare["per_s"])


def _worked(
    settings: Settings, machine: "psycopg.Connection[Any]", port: int, total: int
) -> tuple[float, float, float]:
    def heard() -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/heard", timeout=5) as answer:
            return int(answer.read())

    def stored() -> int:
        row = machine.execute("SELECT count(*) FROM distribu.attempts").fetchone()
        return row[0] if row else 0

    def until(count: float, done: Callable[[], int]) -> int:
        end = time.monotonic() + 300
        while (sent := done()) < count:
            if time.monotonic() > end or worker.poll() is not None:
                raise SystemExit(f"of {total} webhooks {sent} were sent")
            time.sleep(0.05)
        return sent

    arguments = ["-m", "distribu", "worker", "--data-dir", str(settings.data_path)]
    worker = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        postgres = postmaster(settings.data_path)
        first = until(total * WARM, heard)
        begun, worker_s, postgres_s = time.perf_counter(), cpu_s(worker.pid), cpu_s(postgres)
        last = until(total * 0.95, heard)
        seconds, count = time.perf_counter() - begun, last - first
        each = 1000 / count
        spent = (cpu_s(worker.pid) - worker_s) * each, (cpu_s(postgres) - postgres_s) * each
        until(total, stored)
        return *spent, count / seconds
    finally:
        worker.terminate()
        worker.wait(60)


def _bare(port: int, payload: str, count: int) -> Mapping[str, Any]:
    """What the same bodies and headers cost whoever only posts them."""
    id, at = "0" * 36, "2026-01-01T00:00:00.000Z"
    event = str(WireEvent.PRODUCT_CREATED)
    envelope = {"id": id, "event": event, "timestamp": at, "occurredAt": at, "position": 1, "previous": 1}
    plan = {
        "url": f"http://127.0.0.1:{port}/bare",
        "bodies": [views.encode({**envelope, "data": json.loads(payload)}).decode()],
        "headers": {
            "Content-Type": "application/json",
            "User-Agent": "bare",
            "X-Webhook-Id": id,
            "X-Webhook-Event": event,
            "X-Webhook-Signature": "0" * 64,
            "webhook-id": id,
            "webhook-timestamp": "1",
            "webhook-signature": "v1," + "0" * 44,
        },
        "count": count,
        "at_once": AT_ONCE,
    }
    return told("tests.benchmarks.bare", plan)
