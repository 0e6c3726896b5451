"""The HTTP door on PostgreSQL: all that holds in memory, and what takes a socket to see."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from ipaddress import ip_network
from typing import Any

import httpx
import psycopg
import pytest

from distribu import Distribu, Secret, Settings, Shop
from distribu.domain.access import Permission
from distribu.entrypoints.http import serve, wire
from distribu.entrypoints.http.browser import Site
from distribu.entrypoints.http.serve import listening
from distribu.entrypoints.http.wire import BODY_MAX
from tests.unit.test_http import (
    JSON,
    POSTS,
    Door,
    TestAnswers,
    TestHealth,
    TestIdempotency,
    TestInput,
    TestKeys,
    TestLists,
    TestPreconditions,
    TestRules,
    TestStrangers,
    World,
    data,
    refusal,
    route_id,
    without_id,
)

__all__ = [
    "TestAnswers",
    "TestHealth",
    "TestIdempotency",
    "TestInput",
    "TestKeys",
    "TestLists",
    "TestPreconditions",
    "TestRules",
    "TestStrangers",
]


class TestOnPostgres(Door):
    async def test_a_secret_is_not_kept_in_the_clear(
        self, settings: Settings, shop: Shop, world: World, api: httpx.AsyncClient
    ) -> None:
        secrets = []
        for route in POSTS:
            made = data(
                await world.ask(api, route, headers={"idempotency-key": route_id(route)}), route.status
            )
            secrets += [made["secret"]] if "secret" in made else []
        assert len(secrets) == 2
        assert settings.database_url is not None
        with psycopg.connect(settings.database_url) as tenant:
            tenant.execute("SELECT set_config('app.company_id', %s, false)", [shop.company.id])
            kept = tenant.execute("SELECT key, body, sealed FROM distribu.answers").fetchall()
        assert len(kept) == len(POSTS)
        for key, body, sealed in kept:
            assert sealed == key.endswith(("/webhooks", "/rotate-secret"))
            assert not any(secret in body for secret in secrets)

    async def test_the_answer_that_is_stored_has_the_orders_number(
        self, world: World, api: httpx.AsyncClient
    ) -> None:
        body = {"customerId": world.customer.id, "items": [{"productId": world.product.id, "quantity": 1}]}
        key = {"idempotency-key": "k"}
        first = await api.post("/orders", json=body, headers=key)
        again = await api.post("/orders", json=body, headers=key)
        assert first.json()["data"]["number"] == again.json()["data"]["number"] == 1002

    async def test_forty_at_once_do_not_oversell_seven(self, shop: Shop) -> None:
        product, customer = await shop.product(stock=7), await shop.customer()
        body = {"customerId": customer.id, "items": [{"productId": product.id, "quantity": 1}]}
        async with await shop.api() as api:
            answers = await asyncio.gather(*(api.post("/orders", json=body) for _ in range(40)))
            statuses = [answer.status_code for answer in answers]
            assert statuses.count(201) == 7
            assert {answer.json()["code"] for answer in answers if answer.status_code == 422} == {
                "insufficient_stock"
            }
            numbers = [answer.json()["data"]["number"] for answer in answers if answer.status_code == 201]
            assert sorted(numbers) == list(range(1001, 1008))
            assert data(await api.get(f"/products/{product.id}"))["stock"] == 0


@pytest.fixture(scope="module")
async def url(distribu: Distribu) -> AsyncIterator[str]:
    async with listening(distribu, "127.0.0.1", 0) as url:
        yield url


@pytest.fixture
async def served(url: str, shop: Shop) -> AsyncIterator[httpx.AsyncClient]:
    """A client over the socket."""
    headers = {"authorization": f"Bearer {await shop.key()}"}
    async with httpx.AsyncClient(base_url=f"{url}/api/v1", headers=headers) as served:
        yield served


class TestOnASocket:
    async def test_an_order(self, shop: Shop, served: httpx.AsyncClient) -> None:
        product, customer = await shop.product(price="4.35"), await shop.customer()
        body = {"customerId": customer.id, "items": [{"productId": product.id, "quantity": 3}]}
        made = data(await served.post("/orders", json=body), 201)
        assert (made["number"], made["total"], made["source"]) == (1001, 13.05, "API")

    async def test_the_same_as_without_one(self, shop: Shop, served: httpx.AsyncClient) -> None:
        product = await shop.product()
        async with await shop.api() as api:
            for path in (f"/products/{product.id}", "/products?limit=x", "/nothing", "/products?a=b", "/me"):
                over, direct = without_id(await served.get(path)), without_id(await api.get(path))
                assert over[:2] == direct[:2]
                assert over[2].items() >= direct[2].items()

    async def test_nothing_comes_with_a_204(self, shop: Shop, url: str) -> None:
        product = await shop.product()
        head, body = await spoken(
            url, f"DELETE /api/v1/products/{product.id} HTTP/1.1", f"authorization: Bearer {await shop.key()}"
        )
        assert head.startswith("HTTP/1.1 204")
        assert "content-length" not in head.lower()
        assert body == b""

    async def test_the_server_says_nothing_of_itself(self, served: httpx.AsyncClient) -> None:
        assert "server" not in (await served.get("/me")).headers

    async def test_browsers_are_told_the_same_with_every_answer(self, url: str) -> None:
        for status, line in (
            (200, "GET /healthz HTTP/1.1"),
            (401, "GET /api/v1/me HTTP/1.1"),
            (404, "GET /nothing HTTP/1.0"),
            (400, "NONSENSE"),
        ):
            head, _ = await spoken(url, line)
            assert head.startswith(("HTTP/1.1 ", "HTTP/1.0 ")), head
            assert head.split()[1] == str(status), head
            for header in ("x-frame-options: DENY", "x-content-type-options: nosniff", "referrer-policy: "):
                assert head.count(f"\r\n{header}") == 1, (line, head)

    async def test_production_answers_over_https_alone(self, distribu: Distribu) -> None:
        site = Site(production=True, origin="https://orders.example", trusted=(ip_network("127.0.0.0/8"),))
        async with listening(distribu, "127.0.0.1", 0, site=site) as url:
            for status, line, *more in (
                (200, "GET /healthz HTTP/1.1"),
                (403, "GET /api/v1/me HTTP/1.1"),
                (401, "GET /api/v1/me HTTP/1.1", "x-forwarded-proto: https"),
                (308, "GET /api/v1/docs?a=b HTTP/1.1"),
                (308, "GET http://evil.example/docs HTTP/1.1"),
                (308, "GET //evil.example/docs HTTP/1.1"),
                (403, "POST / HTTP/1.1", "content-length: 500000"),
            ):
                head, _ = await spoken(url, str(line), *map(str, more))
                assert head.split()[1] == str(status), (line, head)
                secure = "x-forwarded-proto: https" in more
                assert ("\r\nstrict-transport-security: max-age=63072000;" in head) == secure
                if status == 308:
                    assert "\r\nlocation: https://orders.example/" in head

    async def test_a_body_that_is_too_long(self, served: httpx.AsyncClient) -> None:
        async def in_parts() -> AsyncIterator[bytes]:
            for _ in range(200):
                yield b"[" * 10_000

        refusal(
            await served.post("/products", content=b"[" * (BODY_MAX + 1), headers=JSON), 413, "body_too_large"
        )
        refusal(await served.post("/products", content=in_parts(), headers=JSON), 413, "body_too_large")
        data(await served.get("/me"))

    async def test_a_body_that_never_comes_is_not_waited_for_to_say_no(self, shop: Shop, url: str) -> None:
        key = await shop.key(Permission.REPORTS_READ)
        head, _ = await spoken(
            url, "POST /api/v1/products HTTP/1.1", f"authorization: Bearer {key}", "content-length: 500"
        )
        assert head.startswith("HTTP/1.1 403")

    async def test_a_body_that_does_not_come_ends_the_connection(
        self, shop: Shop, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(wire, "BODY_S", 0.1)
        reader, writer = await half_sent(url, await shop.key())
        try:
            async with asyncio.timeout(10):
                said = (await reader.read()).decode()
        finally:
            writer.close()
        head, _, body = said.partition("\r\n\r\n")
        assert head.startswith("HTTP/1.1 408")
        assert "connection: close" in head
        assert json.loads(body)["code"] == "request_timeout"

    @pytest.mark.parametrize("path", ["/healthz", "/nothing", "/cron/forget", "/api/v1/products"])
    async def test_a_body_that_nobody_reads_may_not_drip_for_ever(
        self, distribu: Distribu, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is answered before the body has come; then each byte would keep the connection."""
        monkeypatch.setattr(wire, "BODY_S", 0.2)
        monkeypatch.setattr(serve, "LATE_S", 0.1)
        async with listening(distribu, "127.0.0.1", 0, site=Site(cron_token=Secret("x" * 32))) as url:
            reader, writer = await half_sent(url, "none", path)
            try:
                async with asyncio.timeout(5):
                    assert (await reader.readline()).split()[1] in (b"401", b"404", b"405")
                    rest = asyncio.create_task(reader.read())
                    while not rest.done():
                        writer.write(b"x")
                        await asyncio.sleep(0.05)
                    await asyncio.wait([rest])
            finally:
                writer.close()
            assert rest.exception() is None or isinstance(rest.exception(), ConnectionError)

    async def test_a_client_who_hangs_up_in_the_middle_of_a_body_is_not_logged(
        self, shop: Shop, url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        def serving() -> int:
            return sum("run_asgi" in repr(task.get_coro()) for task in asyncio.all_tasks())

        async def until(count: int) -> None:
            async with asyncio.timeout(10):
                while serving() != count:  # noqa: ASYNC110  # uvicorn has no event for it
                    await asyncio.sleep(0.001)

        key = await shop.key()
        with caplog.at_level(logging.INFO):
            await until(0)
            _, writer = await half_sent(url, key)
            await until(1)
            writer.close()
            await until(0)
        assert caplog.records == []

    async def test_what_is_no_http(self, url: str) -> None:
        for line in ("NONSENSE", "GET / HTTP/9.9", "GET \x00 HTTP/1.1"):
            head, _ = await spoken(url, line)
            assert head.startswith("HTTP/1.1 400"), (line, head)

    async def test_headers_have_a_limit(self, url: str) -> None:
        many = [f"x-{number}: {'y' * 1000}" for number in range(1000)]
        for lines in (["x-long: " + "x" * 1_000_000], many):
            head, _ = await spoken(url, "GET /healthz HTTP/1.1", *lines)
            assert not head.startswith("HTTP/1.1 200")
        head, _ = await spoken(url, "GET /" + "x" * 1_000_000 + " HTTP/1.1")
        assert not head.startswith("HTTP/1.1 404")
        head, _ = await spoken(url, "GET /healthz HTTP/1.1", "x-long: " + "x" * 10_000)
        assert head.startswith("HTTP/1.1 200")

    async def test_many_at_once(self, shop: Shop, served: httpx.AsyncClient) -> None:
        made = await asyncio.gather(
            *(served.post("/products", json={"name": f"Product {n}", "price": n}) for n in range(40))
        )
        assert {answer.status_code for answer in made} == {201}
        assert len(data(await served.get("/products?limit=100"))) == 40

    async def test_a_caller_who_hangs_up_leaves_nothing_half_done(self, shop: Shop, url: str) -> None:
        product, customer = await shop.product(), await shop.customer()
        items = [{"productId": product.id, "quantity": 1}]
        body = json.dumps({"customerId": customer.id, "items": items}).encode()
        key = await shop.key()
        for _ in range(5):
            reader, writer = await asyncio.open_connection(*address(url))
            writer.write(
                b"POST /api/v1/orders HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                + f"authorization: Bearer {key}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
                + body
            )
            await writer.drain()
            writer.close()
            del reader
        async with await shop.api() as api:
            orders: list[Any] = []
            for _ in range(25):
                orders = data(await api.get("/orders"))
                if len(orders) == 5:
                    break
                await asyncio.sleep(0.02)
            # However many got through, each has taken what it has ordered.
            stock = data(await api.get(f"/products/{product.id}"))["stock"]
            assert stock == 100 - len(data(await api.get("/orders")))


def address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)


async def half_sent(
    url: str, key: str, path: str = "/api/v1/products"
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which a body has begun and does not go on."""
    reader, writer = await asyncio.open_connection(*address(url))
    head = (
        f"POST {path} HTTP/1.1",
        "host: x",
        f"authorization: Bearer {key}",
        "content-length: 500",
    )
    writer.write("\r\n".join([*head, "", '{"name":']).encode())
    await writer.drain()
    return reader, writer


async def spoken(url: str, *lines: str) -> tuple[str, bytes]:
    """What the server says to these lines: its head, and what follows."""
    reader, writer = await asyncio.open_connection(*address(url))
    writer.write("\r\n".join([*lines, "host: distribu", "connection: close", "", ""]).encode())
    try:
        async with asyncio.timeout(10):
            await writer.drain()
            said = await reader.read()
    except ConnectionError:
        said = b""
    finally:
        writer.close()
    head, _, body = said.partition(b"\r\n\r\n")
    return head.decode(), body
