"""The audit log at the door of staff: to look into, and to take out as a file."""

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from distribu import Harness, Role, Shop
from distribu.adapters.verify_export import Inspection, read_keys
from distribu.application.audit import RecordAudit
from distribu.application.kernel import Outside
from distribu.application.sealing import ExportAudit
from distribu.domain.errors import RateLimited
from distribu.entrypoints.http import streaming
from distribu.entrypoints.http.streaming import PIECE, Room, Streamed
from tests import people
from tests.contracts.asking import log_of
from tests.contracts.sealing import entries
from tests.unit.test_sessions import carry, cookie_of, door, refused


async def browser_of(shop: Shop, role: Role) -> httpx.AsyncClient:
    browser = door(shop)
    carry(browser, *cookie_of(shop, await people.staff(shop, role)))
    return browser


@pytest.fixture
async def shop() -> AsyncIterator[Harness]:
    async with Harness() as shop:
        yield shop


class TestTheExport:
    @pytest.mark.parametrize("role", [Role.OWNER, Role.ADMIN])
    async def test_it_is_a_file_that_proves_itself_and_is_recorded(self, shop: Harness, role: Role) -> None:
        await entries(shop, 3)
        browser = await browser_of(shop, role)
        answer = await browser.get("/account/audit/export")
        assert answer.status_code == 200
        day = f"{shop.clock.now():%Y-%m-%d}"
        assert answer.headers["content-disposition"] == f'attachment; filename="audit-{day}.jsonl"'
        assert answer.headers["content-type"] == "application/x-ndjson"
        assert answer.headers["cache-control"] == "no-store"
        assert "content-length" not in answer.headers
        inspection = Inspection(read_keys(key.public for key in shop.distribu.ports.notary.keys))
        for line in answer.content.splitlines(keepends=True):
            inspection.read(line)
        inspection.finish()
        assert inspection.findings == []
        (record,) = await log_of(shop, "audit.exported")
        assert (record.actor_kind, record.metadata) == ("USER", {"format": "JSONL", "filters": {}})
        assert record.id.encode() in answer.content, "it is in what it tells of"

    async def test_the_filters_are_those_of_the_list(self, shop: Harness) -> None:
        await entries(shop, 3)
        shop.clock.advance(hours=1)
        since = shop.clock.now().isoformat()
        await shop.execute(RecordAudit(action="late", entity_type="Report", entity_id="7"))
        browser = await browser_of(shop, Role.OWNER)
        for asked in (
            {"action": "custom"},
            {"action": "custom.entry_1"},
            {"entityType": "Report"},
            {"search": "REPORT", "action": "custom"},
            {"search": "entry_2", "action": "custom"},
            {"entityId": "7"},
            {"actorType": "SYSTEM", "action": "custom"},
            {"since": since, "action": "custom"},
            {"until": since, "action": "custom"},
        ):
            listed = (await browser.get("/account/audit", params=asked)).json()["data"]
            answer = await browser.get("/account/audit/export", params=asked | {"format": "CSV"})
            rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
            assert [row["id"] for row in rows] == [one["id"] for one in reversed(listed)], asked
            assert listed, asked
            assert answer.headers["content-disposition"].endswith('.csv"')
            assert answer.headers["content-type"] == "text/csv; charset=utf-8"

    async def test_a_spreadsheet_runs_nothing_of_it(self, shop: Harness) -> None:
        for text in ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"):
            await shop.execute(RecordAudit(action="hello", entity_id=text))
        browser = await browser_of(shop, Role.OWNER)
        answer = await browser.get("/account/audit/export?format=CSV&action=custom")
        rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
        assert [row["entityId"][:2] for row in rows] == ["'=", "'+", "'-", "'@", "'\t", "'\r"]

    async def test_a_siem_gets_ocsf(self, shop: Harness) -> None:
        browser = await browser_of(shop, Role.ADMIN)
        answer = await browser.get("/account/audit/export?format=OCSF")
        assert answer.headers["content-disposition"].endswith('.ocsf.jsonl"')
        events = [json.loads(line) for line in answer.text.splitlines()]
        assert {one["metadata"]["version"] for one in events} == {"1.3.0"}

    async def test_who_may_not_and_what_is_not_understood(self, shop: Harness) -> None:
        member, owner = await browser_of(shop, Role.MEMBER), await browser_of(shop, Role.OWNER)
        path = "/account/audit/export"
        refused(await member.get(path), 403, "forbidden")
        refused(await door(shop).get(path), 401, "unauthenticated")
        waiting = door(shop)
        carry(waiting, *cookie_of(shop, await people.waiting(shop, Role.ADMIN)))
        assert (await waiting.get(path)).status_code == 403
        for wrong in ("format=XML", "format=csv", "limit=5", "since=soon"):
            refused(await owner.get(f"{path}?{wrong}"), 400, "invalid_request")
        assert await log_of(shop, "audit.exported") == []

    async def test_no_other_page_makes_it(self, shop: Harness) -> None:
        """It is a GET, and is recorded and costs: a link or an image elsewhere does not start it."""
        owner = await browser_of(shop, Role.OWNER)
        for site in ("cross-site", "same-site"):
            answer = await owner.get("/account/audit/export", headers={"sec-fetch-site": site})
            refused(answer, 403, "cross_origin")
        assert await log_of(shop, "audit.exported") == []
        typed = await owner.get("/account/audit/export", headers={"sec-fetch-site": "none"})
        assert typed.status_code == 200

    async def test_two_are_made_at_once_for_a_company_and_the_third_waits(
        self, shop: Harness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Room comes back with the end of one, whatever ends it."""
        started, going_on, fails = asyncio.Semaphore(0), asyncio.Event(), False

        async def pieces() -> AsyncIterator[bytes]:
            started.release()
            await going_on.wait()
            yield b"x"

        async def run(self: ExportAudit, outside: Outside) -> AsyncIterator[bytes]:
            if fails:
                raise OSError("the database is gone")
            return pieces()

        monkeypatch.setattr(ExportAudit, "run", run)
        browser = await browser_of(shop, Role.OWNER)
        path = "/account/audit/export"
        running = [asyncio.create_task(browser.get(path)) for _ in range(2)]
        for _ in running:
            await started.acquire()
        async with asyncio.timeout(20):
            no = await browser.get(path)
        refused(no, 429, "rate_limited")
        assert (no.json()["retryAfter"], no.headers["retry-after"]) == (30, "30")
        for gone in running[:2]:  # one is cut off, the others come to their end
            gone.cancel()
            await asyncio.wait([gone])
            running.append(asyncio.create_task(browser.get(path)))
            await started.acquire()
            refused(await browser.get(path), 429, "rate_limited")
        going_on.set()
        assert {(await one).status_code for one in running[2:]} == {200}
        fails = True
        for _ in range(3):
            assert (await browser.get(path)).status_code == 500
        fails = False
        assert {(await browser.get(path)).status_code for _ in range(3)} == {200}

    def test_a_company_takes_no_room_from_another(self) -> None:
        room = Room()
        over = [room.take("a") for _ in range(2)]
        for _ in range(2):
            room.take("b")
        with pytest.raises(RateLimited):
            room.take("a")
        over[0]()
        room.take("a")


class TestPieces:
    ended = 0

    def over(self) -> None:
        self.ended += 1

    async def send(self, *pieces: bytes, takes: Any = None, receive: Any = None) -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = []

        async def made() -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)
            if takes is not None:
                await takes(message)

        async def here() -> dict[str, Any]:
            await asyncio.Event().wait()
            raise AssertionError

        file = Streamed(made(), name="a.csv", media_type="text/csv", request_id="1", over=self.over)
        await file({}, receive or here, send)
        assert self.ended == 1
        return sent

    async def test_lines_are_gathered(self) -> None:
        sent = await self.send(*[b"x" * 1000] * 200)
        bodies = [one["body"] for one in sent[1:]]
        assert [len(one) for one in bodies[:-1]] == [66_000] * 3
        assert PIECE <= 66_000
        assert sum(map(len, bodies)) == 200_000
        assert [one["more_body"] for one in sent[1:]] == [True] * 3 + [False]

    async def test_a_mistake_on_the_way_ends_no_file_as_if_it_were_whole(self) -> None:
        sent: list[dict[str, Any]] = []

        async def made() -> AsyncIterator[bytes]:
            yield b"x" * PIECE
            raise OSError("the database is gone")

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        async def here() -> dict[str, Any]:
            await asyncio.Event().wait()
            raise AssertionError

        file = Streamed(made(), name="a.csv", media_type="text/csv", request_id="1", over=self.over)
        with pytest.raises(OSError, match="gone"):
            await file({}, here, send)
        assert self.ended == 1
        assert all(one.get("more_body", True) for one in sent)

    async def test_who_takes_nothing_is_left(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(streaming, "TAKEN_S", 0.01)

        async def never(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.body":
                await asyncio.Event().wait()

        sent = await self.send(*[b"x" * PIECE] * 3, takes=never)
        assert len(sent) == 2
        assert sent[-1]["more_body"]
