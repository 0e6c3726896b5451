"""Signing in, on real servers: nobody learns who is known, nobody is slowed, an end is an end everywhere."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path

import aiohttp
import pytest

from distribu import Role, Shop
from tests import people
from tests.proofs.conftest import House
from tests.proofs.processes import Server

PASSWORD = "correct horse battery staple"
TRIES = 200
_addresses = count(1)


def somewhere() -> dict[str, str]:
    """A client's address that was not seen before, as the proxy in front would write it."""
    number = next(_addresses)
    return {
        "x-forwarded-for": f"198.18.{number // 250}.{number % 250 + 1}",
        "sec-fetch-site": "same-origin",
    }


@pytest.fixture(scope="module")
async def pair(house: House) -> AsyncIterator[tuple[Server, Server]]:
    """Two servers on one database, behind a proxy that they believe."""
    servers = [Server(house.data_dir, trusted_proxies="127.0.0.1") for _ in range(2)]
    try:
        for server in servers:
            await server.started()
        yield servers[0], servers[1]
        for server in servers:
            assert await server.stop() == 0, server.said()
    finally:
        for server in servers:
            server.end()


async def signed_in(session: aiohttp.ClientSession, server: Server, email: str) -> None:
    body = {"email": email, "password": PASSWORD}
    async with session.post(f"{server.url}/auth/sign-in", json=body, headers=somewhere()) as answer:
        assert answer.status == 200, await answer.text()


def jar() -> aiohttp.CookieJar:
    return aiohttp.CookieJar(unsafe=True)  # an address is no name of a host


async def test_an_end_is_an_end_on_the_other_server_at_its_next_request(
    pair: tuple[Server, Server], house: House
) -> None:
    here, there = pair
    email = await people.with_password(await Shop.open(house.distribu), PASSWORD)
    for ending in ("/account/sign-out", "/account/sign-out-everywhere"):
        async with aiohttp.ClientSession(cookie_jar=jar()) as session:
            await signed_in(session, here, email)
            kept = {cookie.key: cookie.value for cookie in session.cookie_jar}
            async with session.get(f"{there.url}/account") as answer:
                assert answer.status == 200
            async with session.post(f"{here.url}{ending}", headers=somewhere()) as answer:
                assert answer.status == 204
            async with (
                aiohttp.ClientSession(cookies=kept) as again,
                again.get(f"{there.url}/account") as answer,
            ):
                assert answer.status == 401


@pytest.mark.parametrize("path", ["/auth/sign-in", "/auth/request-reset", "/auth/sign-up"])
async def test_nobody_learns_from_the_time_whether_an_address_is_known(
    pair: tuple[Server, Server], house: House, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """200 tries each, one after the other in turn: the medians differ by less than 10 % or 1 ms."""
    server = pair[0]
    shop = await Shop.open(house.distribu)
    known = [await people.with_password(shop, PASSWORD, role=Role.MEMBER) for _ in range(TRIES // 3 + 1)]
    took: dict[bool, list[float]] = {True: [], False: []}
    more = {
        "/auth/sign-in": {"password": "wrong horse battery staple"},
        "/auth/request-reset": {},
        "/auth/sign-up": {"password": PASSWORD, "companyName": "Acme", "fullName": "Somebody"},
    }[path]
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        for tried in range(2 * TRIES):
            is_known = tried % 2 == 0
            # Three times each, as often as a reset may be asked for.
            email = known[tried // 6] if is_known else f"nobody-{tried // 6}@example.test"
            began = time.perf_counter()
            async with session.post(
                server.url + path, json={"email": email, **more}, headers=somewhere()
            ) as answer:
                body = await answer.text()
            took[is_known].append(time.perf_counter() - began)
            assert answer.status in (204, 401), body
    known_s, unknown_s = (statistics.median(took[kind]) for kind in (True, False))
    with capsys.disabled():
        print(f"\n{path}: median {known_s * 1000:.2f} ms known, {unknown_s * 1000:.2f} ms unknown")
    assert abs(known_s - unknown_s) < max(0.1 * min(known_s, unknown_s), 0.001)


async def test_a_flood_of_sign_ins_slows_nobody_and_takes_no_more_than_its_memory(
    pair: tuple[Server, Server], capsys: pytest.CaptureFixture[str]
) -> None:
    """200 at once: /healthz stays under 100 ms at p99, and memory grows by the hasher's threads alone."""
    server = pair[1]
    async with aiohttp.ClientSession(
        cookie_jar=aiohttp.DummyCookieJar(), connector=aiohttp.TCPConnector(limit=300)
    ) as session:
        before = _resident_mib(server)

        async def attempt(number: int) -> int:
            email = f"flood-{number}@example.test"  # one account alone would be limited
            body = {"email": email, "password": "wrong horse battery staple"}
            headers = somewhere()
            async with session.post(f"{server.url}/auth/sign-in", json=body, headers=headers) as answer:
                if answer.status == 503:
                    assert int(answer.headers["retry-after"]) >= 1
                return answer.status

        flood = [asyncio.create_task(attempt(number)) for number in range(200)]
        late: list[float] = []
        most = before
        while not all(task.done() for task in flood):
            began = time.perf_counter()
            async with session.get(f"{server.url}/healthz") as answer:
                assert answer.status == 200
            late.append(time.perf_counter() - began)
            most = max(most, _resident_mib(server))
            await asyncio.sleep(0.005)
        statuses = [await task for task in flood]
    p99 = sorted(late)[int(len(late) * 0.99)]
    counted = {status: statuses.count(status) for status in sorted(set(statuses))}
    with capsys.disabled():
        print(
            f"\n200 sign-ins: {counted}; /healthz p99 {p99 * 1000:.1f} ms of {len(late)}; "
            f"memory {before:.0f} to {most:.0f} MiB"
        )
    assert set(counted) <= {401, 503}
    assert p99 < 0.1
    assert most - before < 2 * 19 + 40


def _resident_mib(server: Server) -> float:
    status = Path(f"/proc/{server.child.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024
