"""The door that Stripe knocks at: what it does with a body that is slow, breaks off, or is too long."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from distribu import Distribu, Harness, Secret, http_app
from distribu.adapters.memory.stripe import MemoryPayments, PretendStripe
from distribu.application.payments import NOTICE_MAX
from distribu.entrypoints.http import wire
from distribu.entrypoints.http.notices import PATH

SECRET = "whsec_door"


@pytest.fixture
def app(shop: Harness) -> Any:
    ports = shop.distribu.ports
    payments = MemoryPayments(PretendStripe(ports.clock.now), [Secret(SECRET)])
    return http_app(Distribu(replace(ports, payments=payments)))


async def posted(app: Any, body: bytes | AsyncIterator[bytes]) -> tuple[int, str, str]:
    """The status, the code, and what becomes of the connection."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://distribu") as client:
        answer = await client.post(PATH, content=body, headers={"stripe-signature": "t=1,v1=a"})
        return answer.status_code, answer.json()["code"], answer.headers.get("connection", "")


async def test_a_body_that_does_not_come_is_not_waited_for(
    app: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def dripping() -> AsyncIterator[bytes]:
        while True:
            yield b"{"
            await asyncio.sleep(0.005)

    monkeypatch.setattr(wire, "BODY_S", 0.05)
    with caplog.at_level(logging.WARNING):
        async with asyncio.timeout(5):
            assert await posted(app, dripping()) == (408, "request_timeout", "close")
    assert caplog.records == []


async def test_a_client_who_hangs_up_in_the_middle_is_no_mistake_of_ours(
    app: Any, caplog: pytest.LogCaptureFixture
) -> None:
    events = [{"type": "http.request", "body": b'{"id":', "more_body": True}]
    sent: list[Any] = []

    async def receive() -> Any:
        return events.pop(0) if events else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope: Any = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "http",
        "method": "POST",
        "path": PATH,
        "raw_path": PATH.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"stripe-signature", b"t=1,v1=a"), (b"content-length", b"500")],
        "client": ("192.0.2.1", 5000),
        "server": ("distribu", 80),
        "state": {},
    }
    with caplog.at_level(logging.INFO):
        await app(scope, receive, send)
    assert events == [], "it was read"
    assert sent[0]["status"] == 408
    assert caplog.records == []


async def test_a_body_has_a_limit(app: Any) -> None:
    async def in_parts() -> AsyncIterator[bytes]:
        for _ in range(NOTICE_MAX // 10_000 + 1):
            yield b"x" * 10_000

    assert (await posted(app, b"x" * NOTICE_MAX))[:2] == (400, "invalid_signature")
    assert (await posted(app, b"x" * (NOTICE_MAX + 1)))[:2] == (413, "body_too_large")
    assert (await posted(app, in_parts()))[:2] == (413, "body_too_large")
