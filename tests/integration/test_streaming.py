"""A long audit log taken out over HTTP: what it costs, and what is left when whoever asked goes away."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import httpx
import psycopg
import pytest

from distribu import Distribu, Role, Settings, Shop
from distribu.entrypoints.harness import KEYS
from distribu.entrypoints.http.serve import listening
from distribu.entrypoints.http.sessions import Sessions
from distribu.entrypoints.http.streaming import Streamed
from tests import people
from tests.contracts.sealing import sealed
from tests.integration.test_walls import superuser

RECORDS = 12_000

_FILL = """
WITH new AS (
    SELECT n, ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid AS id
    FROM generate_series(1, %(records)s) AS n
), written AS (
    INSERT INTO distribu.records SELECT %(company)s::uuid, id, '2026-01-31T09:30:00Z', 'USER', 'u-1',
        'product.updated', 'Product', n::text, id,
        json_build_object('v', 1, 'id', id, 'companyId', %(company)s::uuid, 'at', '2026-01-31T09:30:00.000Z',
            'actorType', 'USER', 'actorId', 'u-1', 'action', 'product.updated', 'entityType', 'Product',
            'entityId', n::text, 'person', repeat('0', 64),
            'metadata', json_build_object('text', repeat('x', 1000)))::text
    FROM new
)
INSERT INTO distribu.unsealed (company_id, record_id) SELECT %(company)s::uuid, id FROM new ORDER BY n
"""


@pytest.fixture(scope="module")
async def long(settings: Settings, distribu: Distribu) -> Shop:
    """A company with a long log."""
    shop = await Shop.open(distribu)
    with psycopg.connect(superuser(settings), autocommit=True) as root:
        root.execute(_FILL, {"company": shop.company.id, "records": RECORDS})
    assert await sealed(shop, 2 * RECORDS) == RECORDS + 1
    return shop


@pytest.fixture
async def browser(distribu: Distribu, long: Shop) -> AsyncIterator[httpx.AsyncClient]:
    async with listening(distribu, "127.0.0.1", 0, keys=KEYS) as url:
        session = (await people.staff(long, Role.ADMIN)).session
        cookie = Sessions(distribu, KEYS, production=False).begun(session, None).partition(";")[0]
        headers = {"cookie": cookie, "sec-fetch-site": "same-origin"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as browser:
            yield browser


@pytest.mark.parametrize("asked", ["format=JSONL", "format=CSV", "format=OCSF", "action=product"])
async def test_a_long_log_takes_no_more_memory_than_a_short_one(
    browser: httpx.AsyncClient, asked: str
) -> None:
    tracemalloc.start()
    size = lines = 0
    async with browser.stream("GET", f"/account/audit/export?{asked}") as answer:
        assert answer.status_code == 200
        async for piece in answer.aiter_raw(65_536):
            size += len(piece)
            lines += piece.count(b"\n")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert lines >= RECORDS
    assert size > RECORDS * 1000
    assert peak < size / 2, f"{peak} of {size} bytes at once"


async def test_whoever_goes_away_leaves_no_connection_and_no_work_behind(
    settings: Settings, distribu: Distribu, browser: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    over, sent = asyncio.Event(), 0
    ours = Streamed.__call__

    async def watched(self: Streamed, scope: Any, receive: Any, send: Any) -> None:
        async def counting(message: Any) -> None:
            nonlocal sent
            sent += len(message.get("body", b""))
            await send(message)

        try:
            await ours(self, scope, receive, counting)
        finally:
            over.set()

    monkeypatch.setattr(Streamed, "__call__", watched)
    async with browser.stream("GET", "/account/audit/export") as answer:
        assert await anext(answer.aiter_raw(1000))
    async with asyncio.timeout(60):
        await over.wait()
    assert sent < RECORDS * 1000, "it was not made to its end for nobody"
    store: Any = distribu.ports.store
    async with asyncio.timeout(60):
        while True:  # one that was in the middle of a page is replaced, by and by
            stats = store.pool.get_stats()
            if stats["pool_available"] + len(store._idle) == stats["pool_size"]:
                break
            await asyncio.sleep(0.05)
    with psycopg.connect(superuser(settings), autocommit=True) as root:
        busy = root.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid() AND state LIKE 'idle in transaction%'"
        ).fetchone()
    assert busy == (0,)
    async with browser.stream("GET", "/account/products") as answer:
        assert answer.status_code == 200
