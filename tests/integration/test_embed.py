"""Distribu inside another program: connected, mounted, in the host's transaction, in the host's tests."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import dedent
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from psycopg import AsyncConnection, AsyncRawCursor, sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

from distribu import (
    Actor,
    Bug,
    Conflict,
    Distribu,
    Forbidden,
    Harness,
    NotFound,
    Refused,
    Role,
    Settings,
    SettingsUnusable,
    Shop,
    amount,
    connect,
    http_app,
    inside,
)
from distribu.application import views
from distribu.application.audit import ListAudit
from distribu.application.catalog import (
    AdjustStock,
    CreateProduct,
    EditProduct,
    ListProducts,
    MoveReason,
    ReadProduct,
)
from distribu.application.kernel import Once
from distribu.application.team import ReadCompany
from distribu.container import database, migrated, running
from distribu.domain.access import Permission
from distribu.domain.catalog import Product


def create(name: str = "Oat Flour", **more: Any) -> CreateProduct:
    return CreateProduct(name=name, price=amount("10.00"), **more)


class TestConnected:
    @pytest.mark.parametrize(
        ("name", "by_socket"),
        [("a b+r&d 50%25x:\\'ü'", True), ("a,b", False)],
        ids=["odd", "comma"],
    )
    async def test_the_data_may_be_in_a_directory_of_any_name(self, name: str, by_socket: bool) -> None:
        with TemporaryDirectory(dir="/tmp") as short:  # a socket's path has a length
            data = Settings(data_dir=f"{short}/{name}")
            with database(data) as settings:
                assert ("host=" in (settings.database_url or "")) == by_socket
                async with running(settings) as distribu:
                    assert (await (await Shop.open(distribu)).product()).version == 1
            assert migrated(data) == []

    async def test_use_cases_called_directly(self, settings: Settings) -> None:
        async with connect(settings) as distribu:
            shop = await Shop.open(distribu)
            product = await distribu.execute(Actor.system(shop.company.id), create(stock=3))
            seen = await distribu.execute(shop.actor, ReadProduct(product_id=product.id))
        assert seen.stock == 3
        async with connect(settings) as distribu:
            again = await distribu.execute(shop.actor, ReadProduct(product_id=product.id))
        assert again == seen

    async def test_a_program_may_connect_twice(self, settings: Settings, shop: Shop) -> None:
        async with connect(settings) as one, connect(settings) as other:
            product = await one.execute(shop.actor, create())
            assert (await other.execute(shop.actor, ReadProduct(product_id=product.id))).id == product.id

    async def test_it_gives_back_what_it_took(self, settings: Settings) -> None:
        assert settings.owner_database_url is not None

        def connections() -> int:
            with psycopg.connect(settings.owner_database_url or "") as owner:
                row = owner.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                ).fetchone()
            assert row is not None
            return int(row[0])

        before = connections()
        async with connect(settings):
            assert connections() > before
        for _ in range(50):  # the server notices a moment later
            if connections() <= before:
                break
            await asyncio.sleep(0.02)
        assert connections() <= before

    async def test_how_long_a_receiver_takes_is_measured(self, distribu: Distribu) -> None:
        async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"{}")
            await asyncio.sleep(0.1)
            writer.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(slow, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            reply = await distribu.ports.hooks.post(url, headers={}, body=b"{}")
        assert reply.status == 204
        assert 90 <= reply.duration_ms < 5_000

    async def test_settings_come_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DISTRIBU_PORT", "many")
        with pytest.raises(SettingsUnusable, match="DISTRIBU_PORT"):
            async with connect():
                pass


async def nothing_else(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 418, "headers": []})
    await send({"type": "http.response.body", "body": b"the host's own page"})


def mounted(prefix: str, app: Any) -> Any:
    """The smallest program that mounts another one, as the ASGI specification has it."""

    async def host(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"].startswith(prefix + "/"):
            await app({**scope, "root_path": scope.get("root_path", "") + prefix}, receive, send)
        else:
            await nothing_else(scope, receive, send)

    return host


class TestMounted:
    @pytest.fixture
    async def host(self, distribu: Distribu, shop: Shop) -> AsyncIterator[httpx.AsyncClient]:
        app = mounted("/wholesale", http_app(distribu))
        headers = {"authorization": f"Bearer {await shop.key()}"}
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://host", headers=headers
        ) as host:
            yield host

    async def test_under_a_prefix(self, shop: Shop, host: httpx.AsyncClient) -> None:
        product = await shop.product()
        answer = await host.get(f"/wholesale/api/v1/products/{product.id}")
        assert answer.json()["data"]["id"] == product.id
        made = await host.post("/wholesale/api/v1/products", json={"name": "Rye", "price": 1})
        assert made.status_code == 201
        for path in ("/wholesale/healthz", "/wholesale/readyz", "/wholesale/api/v1/docs"):
            assert (await host.get(path)).status_code == 200

    async def test_the_host_keeps_its_own_pages(self, host: httpx.AsyncClient) -> None:
        assert (await host.get("/api/v1/me")).status_code == 418
        assert (await host.get("/")).text == "the host's own page"

    async def test_refusals_are_ours_under_the_prefix(self, host: httpx.AsyncClient) -> None:
        answer = await host.get("/wholesale/api/v1/nothing")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")

    async def test_the_documents_lead_to_where_it_is(self, host: httpx.AsyncClient) -> None:
        document = (await host.get("/wholesale/api/v1/openapi.json")).json()
        assert document["servers"] == [{"url": "/wholesale"}]
        page = (await host.get("/wholesale/api/v1/docs")).text
        assert 'href="/wholesale/api/v1/openapi.json"' in page
        assert "http://host/wholesale/api/v1/products" in page


@pytest.fixture(scope="module")
def host_url(settings: Settings) -> str:
    """A login of the host's own, which may act as a tenant, and a table of the host's own."""
    assert settings.owner_database_url is not None
    name = f"host_{uuid4().hex[:8]}"
    with psycopg.connect(settings.owner_database_url, autocommit=True) as owner:
        owner.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'of-the-host' IN ROLE distribu_tenant NOINHERIT").format(
                sql.Identifier(name)
            )
        )
        owner.execute("CREATE SCHEMA IF NOT EXISTS hosting")
        owner.execute("CREATE TABLE IF NOT EXISTS hosting.notes (id uuid, more jsonb)")
        owner.execute(sql.SQL("GRANT USAGE ON SCHEMA hosting TO {}").format(sql.Identifier(name)))
        owner.execute(sql.SQL("GRANT ALL ON hosting.notes TO {}").format(sql.Identifier(name)))
    return make_conninfo(settings.database_url or "", user=name, password="of-the-host")


@asynccontextmanager
async def hosting(url: str, **how: Any) -> AsyncIterator[AsyncConnection[Any]]:
    connection = await AsyncConnection.connect(url, **how)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
async def connection(host_url: str) -> AsyncIterator[AsyncConnection[Any]]:
    async with hosting(host_url) as connection:
        yield connection


async def names(shop: Shop) -> list[str]:
    return [one.name for one in (await shop.execute(ListProducts())).items]


async def state(connection: AsyncConnection[Any]) -> Any:
    row = await connection.execute(
        "SELECT current_user, current_setting('role'), current_setting('app.company_id', true),"
        " current_setting('app.customer_id', true), current_setting('timezone'),"
        " current_setting('lock_timeout'), current_setting('transaction_read_only')"
    )
    return tuple("" if one is None else one for one in (await row.fetchone()) or ())


class TestInside:
    async def test_it_happens_when_the_host_commits(
        self, distribu: Distribu, shop: Shop, connection: AsyncConnection[Any]
    ) -> None:
        async with connection.transaction():
            await connection.execute("INSERT INTO hosting.notes VALUES (%s, '{}')", [shop.company.id])
            hosted = inside(distribu, connection)
            product = await hosted.execute(shop.actor, create(stock=5))
            assert (await hosted.execute(shop.actor, ReadProduct(product_id=product.id))).stock == 5
            assert await names(shop) == [], "nobody else sees it yet"
        assert await names(shop) == ["Oat Flour"]
        assert (await shop.execute(ReadProduct(product_id=product.id))).stock == 5

    async def test_it_is_gone_when_the_host_rolls_back(
        self, distribu: Distribu, shop: Shop, connection: AsyncConnection[Any]
    ) -> None:
        async with connection.transaction(force_rollback=True):
            await inside(distribu, connection).execute(shop.actor, create())
        assert await names(shop) == []

    async def test_a_savepoint_of_the_hosts(
        self, distribu: Distribu, shop: Shop, connection: AsyncConnection[Any]
    ) -> None:
        hosted = inside(distribu, connection)
        async with connection.transaction():
            await hosted.execute(shop.actor, create("kept"))
            async with connection.transaction(force_rollback=True):
                await hosted.execute(shop.actor, create("undone"))
        assert await names(shop) == ["kept"]

    async def test_a_refusal_leaves_the_hosts_transaction_as_it_was(
        self, distribu: Distribu, shop: Shop, connection: AsyncConnection[Any]
    ) -> None:
        hosted = inside(distribu, connection)
        async with connection.transaction():
            before = await state(connection)
            product = await hosted.execute(shop.actor, create(sku="OAT", stock=1))
            taken = AdjustStock(product_id=product.id, quantity=-2, reason=MoveReason.ADJUSTED)
            with pytest.raises(Refused) as business:  # said by the domain
                await hosted.execute(shop.actor, taken)
            with pytest.raises(Conflict) as constraint:  # said by the database
                await hosted.execute(shop.actor, create(sku="oat"))
            with pytest.raises(NotFound):
                await hosted.execute(shop.actor, ReadProduct(product_id=shop.company.id))  # type: ignore[arg-type]  # an id of something else
            assert await state(connection) == before
            await connection.execute("INSERT INTO hosting.notes VALUES (%s, '{}')", [product.id])
            await hosted.execute(shop.actor, create("afterwards"))
        assert (business.value.code, constraint.value.code) == ("insufficient_stock", "duplicate_sku")
        assert await names(shop) == ["afterwards", "Oat Flour"]

    async def test_the_hosts_settings_are_its_own(
        self, distribu: Distribu, shop: Shop, connection: AsyncConnection[Any]
    ) -> None:
        hosted = inside(distribu, connection)
        async with connection.transaction():
            await connection.execute("SET LOCAL timezone TO 'Asia/Tokyo'")
            await connection.execute("SET LOCAL lock_timeout TO '77s'")
            await connection.execute("SELECT set_config('app.company_id', 'of the host', true)")
            before = await state(connection)
            product = await hosted.execute(shop.actor, create())
            assert await state(connection) == before, "after a command"
            await hosted.execute(shop.actor, ReadProduct(product_id=product.id))
            assert await state(connection) == before, "after a query"
        assert (await state(connection))[2] == "", "and nothing is left on the connection"

    async def test_what_the_host_reads_is_as_it_was(
        self, distribu: Distribu, shop: Shop, connection: AsyncConnection[Any]
    ) -> None:
        async with connection.transaction():
            await inside(distribu, connection).execute(shop.actor, create())
            row = await (
                await connection.execute("SELECT %s::uuid, '{\"a\": 1}'::jsonb", [shop.company.id])
            ).fetchone()
        assert row == (UUID(shop.company.id), {"a": 1})

    @pytest.mark.parametrize(
        "how",
        [{"row_factory": dict_row}, {"cursor_factory": AsyncRawCursor}, {"autocommit": True}],
        ids=["rows as dicts", "placeholders of its own", "autocommit"],
    )
    async def test_however_the_host_has_set_up_its_connection(
        self, distribu: Distribu, shop: Shop, host_url: str, how: dict[str, Any]
    ) -> None:
        async with hosting(host_url, **how) as connection, connection.transaction():
            await inside(distribu, connection).execute(shop.actor, create())
        assert await names(shop) == ["Oat Flour"]

    async def test_the_tenant_is_bound_there_too(
        self, distribu: Distribu, shop: Shop, connection: AsyncConnection[Any]
    ) -> None:
        stranger = await shop.stranger()
        theirs = await stranger.product()
        async with connection.transaction():
            hosted = inside(distribu, connection)
            await hosted.execute(stranger.actor, ReadProduct(product_id=theirs.id))
            with pytest.raises(NotFound):
                await hosted.execute(shop.actor, ReadProduct(product_id=theirs.id))
            assert (await hosted.execute(shop.actor, ReadCompany())).id == shop.company.id

    async def test_permissions_hold_there_too(
        self, distribu: Distribu, shop: Shop, connection: AsyncConnection[Any]
    ) -> None:
        nobody = Actor.system(None)
        async with connection.transaction():
            with pytest.raises(Refused):
                await inside(distribu, connection).execute(nobody, create())
        assert Permission.PRODUCTS_WRITE not in nobody.permissions

    async def test_who_is_refused_there_is_in_the_log_though_the_host_rolls_back(
        self, distribu: Distribu, shop: Shop, connection: AsyncConnection[Any]
    ) -> None:
        member = Actor.staff(shop.company.id, Role.MEMBER, id="u-7", label="Mia Member")
        async with connection.transaction(force_rollback=True):
            with pytest.raises(Forbidden):
                await inside(distribu, connection).execute(member, ListAudit())
        (told,) = (await distribu.execute(shop.actor, ListAudit(action="access.refused"))).items
        assert (told.actor_id, told.metadata["request"]) == ("u-7", "ListAudit")

    async def test_a_key_has_its_effect_once(
        self, distribu: Distribu, shop: Shop, connection: AsyncConnection[Any]
    ) -> None:
        once: Once[Product] = Once("k", lambda product: views.encode(views.of(product)))
        async with connection.transaction():
            hosted = inside(distribu, connection)
            first = await hosted.execute_once(shop.actor, create(), once)
            second = await hosted.execute_once(shop.actor, create(), once)
            with pytest.raises(Refused) as reused:
                await hosted.execute_once(shop.actor, create("Rye"), once)
        third = await distribu.execute_once(shop.actor, create(), once)
        assert [first.replayed, second.replayed, third.replayed] == [False, True, True]
        assert first.body == second.body == third.body
        assert reused.value.code == "idempotency_key_reused"
        assert await names(shop) == ["Oat Flour"]

    async def test_a_key_is_free_again_when_the_host_rolls_back(
        self, distribu: Distribu, shop: Shop, connection: AsyncConnection[Any]
    ) -> None:
        once: Once[Product] = Once("k", lambda product: views.encode(views.of(product)))
        async with connection.transaction(force_rollback=True):
            await inside(distribu, connection).execute_once(shop.actor, create(), once)
        assert not (await distribu.execute_once(shop.actor, create(), once)).replayed

    async def test_two_at_once_take_turns(
        self, distribu: Distribu, shop: Shop, connection: AsyncConnection[Any]
    ) -> None:
        stranger, product = await shop.stranger(), await shop.product("Rye")
        async with connection.transaction():
            hosted = inside(distribu, connection)
            before = await state(connection)
            ends = await asyncio.gather(
                hosted.execute(shop.actor, create("Oat")),
                hosted.execute(stranger.actor, ReadProduct(product_id=product.id)),
                hosted.execute(shop.actor, ReadProduct(product_id=product.id)),
                hosted.execute(stranger.actor, create("Spelt")),
                return_exceptions=True,
            )
            assert await state(connection) == before
        assert [type(end) for end in ends] == [Product, NotFound, Product, Product]
        assert (await names(shop), await names(stranger)) == (["Oat", "Rye"], ["Spelt"])

    async def test_an_order_has_its_number_before_the_host_commits(
        self, distribu: Distribu, shop: Shop, connection: AsyncConnection[Any]
    ) -> None:
        product, customer = await shop.product(stock=3), await shop.customer()
        async with connection.transaction():
            hosted = Shop(inside(distribu, connection), shop.company)
            order = await hosted.order(customer, (product, 1))
            assert order.number == 1001
        assert (await shop.order(customer, (product, 1))).number == 1002

    async def test_its_mail_goes_out_when_the_host_commits(
        self, distribu: Distribu, shop: Shop, connection: AsyncConnection[Any]
    ) -> None:
        product, customer = await shop.product(stock=3), await shop.customer()
        hosted = Shop(inside(distribu, connection), shop.company)
        async with connection.transaction(force_rollback=True):
            await hosted.order(customer, (product, 1))
        async with connection.transaction():
            await hosted.order(customer, (product, 1))
            assert await self._mailed(distribu, shop) == []
        assert await self._mailed(distribu, shop) == [customer.email]

    async def _mailed(self, distribu: Distribu, shop: Shop) -> list[str]:
        ports = distribu.ports
        found = await ports.queue.claim_mails(limit=10_000, now=ports.clock.now(), claim_s=0)
        return [parcel.to for parcel in found if parcel.company_id == shop.company.id]

    async def test_it_waits_for_a_lock_no_longer_than_it_does_by_itself(
        self, distribu: Distribu, shop: Shop, connection: AsyncConnection[Any], host_url: str
    ) -> None:
        product = await shop.product()
        seen: list[str] = []

        class Looking(EditProduct, frozen=True, kw_only=True):
            async def run(self, work: Any) -> Product:
                found = await super().run(work)
                row = await (await connection.execute("SELECT current_setting('lock_timeout')")).fetchone()
                seen.append(row[0] if row else "")
                return found

        async with connection.transaction():
            await inside(distribu, connection).execute(
                shop.actor, Looking(product_id=product.id, name="Oats")
            )
        assert seen == ["5s"]

    async def test_what_only_the_host_can_try_again_goes_to_the_host(
        self, distribu: Distribu, shop: Shop, connection: AsyncConnection[Any]
    ) -> None:
        product = await shop.product()
        await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
        async with connection.transaction():
            await connection.execute(
                "SELECT 1 FROM hosting.notes"
            )  # the host's view of the world is fixed here
            await shop.execute(EditProduct(product_id=product.id, name="changed meanwhile"))
            with pytest.raises(psycopg.errors.SerializationFailure):
                await inside(distribu, connection).execute(
                    shop.actor, EditProduct(product_id=product.id, name="too late")
                )
            await connection.execute("SELECT 1")
        assert await names(shop) == ["changed meanwhile"]

    async def test_without_a_transaction_it_does_nothing(
        self, distribu: Distribu, shop: Shop, connection: AsyncConnection[Any]
    ) -> None:
        with pytest.raises(Bug, match="no transaction"):
            await inside(distribu, connection).execute(shop.actor, create())
        await connection.execute("SELECT 1")
        with pytest.raises(psycopg.errors.DivisionByZero):
            await connection.execute("SELECT 1/0")
        with pytest.raises(Bug, match="a failed one"):
            await inside(distribu, connection).execute(shop.actor, create())

    async def test_a_host_that_is_no_member(self, distribu: Distribu, shop: Shop, settings: Settings) -> None:
        assert settings.queue_database_url is not None
        async with hosting(settings.queue_database_url) as connection, connection.transaction():
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await inside(distribu, connection).execute(shop.actor, create())
            await connection.execute("SELECT 1")

    async def test_one_connection_for_two_companies_in_turn(
        self, distribu: Distribu, shop: Shop, connection: AsyncConnection[Any]
    ) -> None:
        stranger = await shop.stranger()
        async with connection.transaction():
            hosted = inside(distribu, connection)
            for one in (shop, stranger, shop):
                await hosted.execute(one.actor, create())
        assert (len(await names(shop)), len(await names(stranger))) == (2, 1)


class TestHarness:
    def test_it_is_a_fixture_as_its_docstring_says(self, tmp_path: Path) -> None:
        doc = dedent("    " + (Harness.__doc__ or "").partition("::\n")[2])
        fixture = dedent("\n".join(line for line in doc.splitlines() if line.startswith("    ") or not line))
        fixture = fixture[: fixture.index("yield shop") + len("yield shop")]
        test = dedent(
            """
            async def test_an_order_is_told(shop):
                await shop.webhook()
                await shop.order(await shop.customer(), (await shop.product(stock=2), 2))
                before = shop.clock.now()
                assert shop.clock.advance(hours=1) > before
                assert await shop.work() > 0
                assert "order.created" in {one.headers["X-Webhook-Event"] for one in shop.received}
            """
        )
        (tmp_path / "test_shop.py").write_text(
            f"import pytest\nfrom distribu import Harness\n\n{dedent(fixture)}\n\n{test}"
        )
        (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, tmp_path],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert "1 passed" in ran.stdout

    async def test_two_know_nothing_of_each_other(self) -> None:
        async with Harness() as one, Harness() as other:
            await one.product()
            assert await names(other) == []
            one.clock.advance(days=1)
            assert one.clock.now() > other.clock.now()
