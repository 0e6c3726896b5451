"""The public security page, claim by claim: what it says, tried from outside on PostgreSQL.

A class is a section of the page and a test one of its claims. SECURITY.md says of each what holds it. What is
claimed and not yet there has no test here.
"""

import asyncio
import csv as commas
import hashlib
import hmac
import io
import json
import logging
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import bcrypt
import httpx
import jwt
import msgspec
import psycopg
import pytest
from psycopg import errors, sql

from distribu import ApiLimits, ContactRole, Distribu, Harness, Role, Secret, Settings, Shop, http_app
from distribu.adapters import hooks as outgoing
from distribu.adapters.hooks import HttpHooks
from distribu.adapters.limiter import FallbackLimiter, InProcessLimiter
from distribu.adapters.memory.stripe import MemoryPayments, PretendStripe
from distribu.adapters.memory.twins import MovedClock, Received
from distribu.adapters.redis import RedisLimiter
from distribu.adapters.system import SystemEntropy
from distribu.application.notices import ReplayNotice
from distribu.application.ports import Limit, Reply
from distribu.container import Container
from distribu.domain.access import SCOPES, Permission
from distribu.domain.webhooks import ATTEMPT_TIMEOUT_S, RETRY_WAITS_S
from distribu.entrypoints.harness import KEYS
from distribu.entrypoints.http.browser import Site
from distribu.entrypoints.http.people import ACCOUNT, ADMIN, STORE
from distribu.entrypoints.http.wire import Route
from distribu.entrypoints.worker import Worker
from distribu.settings import SettingsUnusable, load
from tests import ocsf, people
from tests.contracts.notices import SECRET, buying
from tests.contracts.postgres import OnPostgres, on_postgres
from tests.contracts.visiting import (
    OTHER,
    PASSWORD as USUAL,
    WRONG,
    address,
    contact_with_password,
    known,
    mails_to,
    staff_with_password,
    token_to,
)
from tests.integration.conftest import RedisServer
from tests.integration.test_authorization import bodies, cast
from tests.integration.test_walls import superuser
from tests.unit.test_browser import EVERYWHERE, HSTS
from tests.unit.test_http import World
from tests.unit.test_sessions import carry, cookie_of, door, refused
from tests.unit.test_settings import SAFE

ROOT: Final = Path(__file__).parents[2]
PASSWORD: Final = "canary under the old oak 7351"  # nobody else's: wherever it is found, it came from here
HERE: Final = "https://orders.example"
PRODUCTION: Final = Site(production=True, origin=HERE)


@pytest.fixture(scope="module")
async def harness(settings: Settings) -> AsyncIterator[OnPostgres]:
    async with on_postgres(settings) as harness:
        yield harness


@pytest.fixture
async def shop(harness: OnPostgres) -> AsyncIterator[Harness]:
    async with harness as shop:
        yield shop


@pytest.fixture
def root(settings: Settings) -> Iterator["psycopg.Connection[Any]"]:
    """Somebody in the database whom nothing is hidden from."""
    with psycopg.connect(superuser(settings), autocommit=True) as root:
        yield root


@pytest.fixture
async def browser(shop: Shop) -> AsyncIterator[httpx.AsyncClient]:
    async with door(shop) as browser:
        yield browser


def over_https(shop: Shop) -> httpx.AsyncClient:
    """A browser at a page of ours in production."""
    app: Any = http_app(shop.distribu, site=PRODUCTION, keys=KEYS)
    transport = httpx.ASGITransport(app, client=("203.0.113.80", 50_000))
    return httpx.AsyncClient(transport=transport, base_url=HERE, headers={"sec-fetch-site": "same-origin"})


def holding(root: "psycopg.Connection[Any]", needle: str) -> set[str]:
    """The tables that have a text anywhere in a row, as text or as bytes."""
    found = set()
    for (table,) in root.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'distribu'::regnamespace AND relkind IN ('r', 'p')"
    ).fetchall():
        asked = sql.SQL("SELECT count(*) FROM distribu.{} AS it WHERE strpos(it::text, %s) > 0").format(
            sql.Identifier(table)
        )
        for text in (needle, needle.encode().hex()):
            row = root.execute(asked, [text]).fetchone()
            found |= {table} if row and row[0] else set()
    return found


def claims_in(token: str) -> dict[str, Any]:
    """What a session token says, to anybody who looks."""
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


async def post(browser: httpx.AsyncClient, path: str, **body: Any) -> httpx.Response:
    return await browser.post(path, json=body)


async def signed_up(shop: Harness, browser: httpx.AsyncClient) -> str:
    """The address of somebody who has signed up and not yet followed the link."""
    email = address(shop)
    answer = await post(
        browser, "/auth/sign-up", companyName="Acme", fullName="Ada Marsh", email=email, password=PASSWORD
    )
    assert answer.status_code == 204
    return email


async def signed_in(shop: Shop, role: Role) -> httpx.AsyncClient:
    """The browser of somebody of the team."""
    browser = door(shop)
    carry(browser, *cookie_of(shop, await people.staff(shop, role)))
    return browser


def path_of(prefix: str, route: Route, ids: Mapping[str, str]) -> str:
    return (prefix + route.path).replace(":str}", "}").format(**ids)


class TestAuthentication:
    async def test_password_based_sign_in(
        self,
        shop: Harness,
        browser: httpx.AsyncClient,
        root: "psycopg.Connection[Any]",
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Staff and customers: the password is hashed, and in no table, no log and no token."""
        caplog.set_level(logging.DEBUG)
        email = await signed_up(shop, browser)
        assert (
            await post(browser, "/auth/verify", token=await token_to(shop, email), password=PASSWORD)
        ).status_code == 204
        refused(await post(browser, "/auth/sign-in", email=email, password=WRONG), 401, "wrong_credentials")
        staff = await post(browser, "/auth/sign-in", email=email, password=PASSWORD)
        buyer = await contact_with_password(shop, await shop.customer())
        store = f"/store/{shop.company.slug}"
        reset = await post(browser, f"{store}/auth/request-reset", email=buyer)
        assert reset.status_code == 204
        token = await token_to(shop, buyer)
        assert (await post(browser, f"{store}/auth/reset", token=token, password=PASSWORD)).status_code == 204
        bought = await post(browser, f"{store}/auth/sign-in", email=buyer, password=PASSWORD)
        assert (staff.status_code, bought.status_code) == (200, 200)
        for cookie in browser.cookies.jar:
            if cookie.name.startswith(("distribu_staff", "distribu_store")):
                assert set(claims_in(str(cookie.value))) == {"iss", "aud", "sub", "sid", "iat", "exp"}
            assert PASSWORD not in str(cookie.value)
        hashes = root.execute(
            "SELECT password_hash FROM distribu.credentials WHERE id = ANY(%s)",
            [[(await known(shop, email)).id, (await known(shop, buyer, shop)).id]],
        ).fetchall()
        assert len(hashes) == 2
        assert all(hash.startswith("$argon2id$") for (hash,) in hashes)
        assert holding(root, PASSWORD) == set()
        assert "users" in holding(root, email), "what is there is found"
        assert PASSWORD not in caplog.text
        assert "$argon2id$" not in caplog.text

    async def test_password_based_sign_in_with_a_hash_carried_over(
        self, shop: Harness, browser: httpx.AsyncClient, root: "psycopg.Connection[Any]"
    ) -> None:
        """A bcrypt hash lets its holder in, and is argon2id from then on."""
        email = address(shop)
        old = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
        await shop.user(email, old)
        for _ in range(2):
            assert (await post(browser, "/auth/sign-in", email=email, password=PASSWORD)).status_code == 200
            kept = root.execute(
                "SELECT password_hash FROM distribu.credentials WHERE id = %s",
                [(await known(shop, email)).id],
            ).fetchone()
            assert kept is not None
            assert kept[0].startswith("$argon2id$")

    async def test_email_verification(
        self, shop: Harness, browser: httpx.AsyncClient, root: "psycopg.Connection[Any]"
    ) -> None:
        """Nobody gets in before the link that was mailed; it is good once and expires."""
        email = await signed_up(shop, browser)
        refused(await post(browser, "/auth/sign-in", email=email, password=PASSWORD), 403, "not_verified")
        assert len(await mails_to(shop, email)) == 1
        token = await token_to(shop, email)
        assert holding(root, token) == set()
        assert (await post(browser, "/auth/verify", token=token, password=PASSWORD)).status_code == 204
        assert (await post(browser, "/auth/sign-in", email=email, password=PASSWORD)).status_code == 200
        refused(await post(browser, "/auth/verify", token=token, password=PASSWORD), 422, "invalid_token")
        late = await signed_up(shop, browser)
        token = await token_to(shop, late)
        shop.clock.advance(hours=24)
        refused(await post(browser, "/auth/verify", token=token, password=PASSWORD), 422, "invalid_token")

    async def test_password_reset(
        self, shop: Harness, browser: httpx.AsyncClient, root: "psycopg.Connection[Any]"
    ) -> None:
        """Tokens are stored hashed, good once and for an hour; nobody learns who has an account."""
        email, unknown = await staff_with_password(shop), address(shop, "nobody")
        answers = [await post(browser, "/auth/request-reset", email=one) for one in (email, unknown)]
        seen = [(one.status_code, one.content, sorted(one.headers)) for one in answers]
        assert seen[0] == seen[1]
        assert seen[0][0] == 204
        assert await mails_to(shop, unknown) == []
        token = await token_to(shop, email)
        assert holding(root, token) == set()
        assert (await post(browser, "/auth/reset", token=token, password=OTHER)).status_code == 204
        refused(await post(browser, "/auth/reset", token=token, password=PASSWORD), 422, "invalid_token")
        assert (await post(browser, "/auth/sign-in", email=email, password=OTHER)).status_code == 200
        await post(browser, "/auth/request-reset", email=email)
        late = await token_to(shop, email)
        shop.clock.advance(hours=1)
        refused(await post(browser, "/auth/reset", token=late, password=PASSWORD), 422, "invalid_token")

    async def test_session_cookies(self, shop: Harness, browser: httpx.AsyncClient) -> None:
        """HttpOnly, SameSite=Lax, Secure in production; neither kind opens the other's door."""
        email = await staff_with_password(shop)
        customer = await shop.customer()
        buyer = await contact_with_password(shop, customer)
        store = f"/store/{shop.company.slug}"
        async with over_https(shop) as production:
            for at, secure in ((browser, False), (production, True)):
                for path, who in (("/auth/sign-in", email), (f"{store}/auth/sign-in", buyer)):
                    answer = await post(at, path, email=who, password=USUAL)
                    assert answer.status_code == 200
                    for cookie in answer.headers.get_list("set-cookie"):
                        assert "; HttpOnly; SameSite=Lax" in cookie
                        assert ("; Secure" in cookie) == cookie.startswith("__Host-") == secure
        staff, bought = (
            await people.staff(shop, Role.OWNER),
            await people.buyer(shop, customer, ContactRole.ADMIN),
        )
        (staff_name, staff_token), (store_name, store_token) = cookie_of(shop, staff), cookie_of(shop, bought)
        unexpired: Any = {"verify_exp": False, "verify_aud": False}
        for token, ours, theirs in (
            (staff_token, KEYS.staff, KEYS.store),
            (store_token, KEYS.store, KEYS.staff),
        ):
            jwt.decode(token, ours[0].reveal(), algorithms=["HS256"], options=unexpired)
            with pytest.raises(jwt.InvalidSignatureError):
                jwt.decode(token, theirs[0].reveal(), algorithms=["HS256"], options=unexpired)
        assert staff_name != store_name
        for name, token, path in (
            (staff_name, store_token, "/account"),
            (store_name, staff_token, f"{store}/account"),
        ):
            carry(browser, name, token)
            refused(await browser.get(path), 401, "unauthenticated")
        carry(browser, staff_name, staff_token)
        assert (await browser.get("/account")).status_code == 200
        carry(browser, store_name, store_token)
        assert (await browser.get(f"{store}/account")).status_code == 200

    async def test_brute_force_protection(self, shop: Harness, browser: httpx.AsyncClient) -> None:
        """10 sign-ins in 15 minutes, 5 sign-ups and 5 messages of each form in an hour, from one address."""
        email = await staff_with_password(shop)

        async def one(path: str, n: int) -> httpx.Response:
            if path == "/auth/sign-in":
                return await post(browser, path, email=address(shop), password=WRONG)
            if path == "/auth/sign-up":
                given = {"companyName": "Acme", "fullName": "Ada", "password": PASSWORD}
                return await post(browser, path, email=address(shop), **given)
            written = {"fullName": "Ada", "email": email, "text": f"Do you deliver to Norway? {n}"}
            return await post(browser, "/auth/inquiries", kind=path, **written)

        for path, most, window_s, usual in (
            ("/auth/sign-in", 10, 900, 401),
            ("/auth/sign-up", 5, 3600, 204),
            ("CONTACT", 5, 3600, 204),
            ("FEATURE", 5, 3600, 204),
        ):
            answers = [await one(path, n) for n in range(most + 1)]
            assert [it.status_code for it in answers] == [usual] * most + [429], path
            assert answers[-1].headers["retry-after"] == str(window_s)
        async with door(shop) as elsewhere:
            assert (await post(elsewhere, "/auth/sign-in", email=email, password=WRONG)).status_code == 401


class TestAuthorization:
    async def test_role_based_access_control(self, shop: Harness) -> None:
        """Three roles; whatever the URL, whoever is not of the role is refused."""
        assert [role.value for role in Role] == ["OWNER", "ADMIN", "MEMBER"]
        stage = await cast(shop.distribu)
        everything = (await people.acting(stage.world.shop, stage.members["OWNER"])).permissions
        for name in ("ADMIN", "MEMBER"):
            may = (await people.acting(stage.world.shop, stage.members[name])).permissions
            browser = door(stage.world.shop)
            carry(browser, *cookie_of(stage.world.shop, stage.members[name]))
            closed = [route for route in ACCOUNT if route.request.needs in everything - may]
            assert closed
            for route in closed:
                kind = route.request.__name__
                body = stage.world.body(kind) or bodies(stage).get(kind)
                path = path_of("/account", route, stage.ids)
                refused(await browser.request(route.method, path, json=body), 403, "forbidden")
        anybody = door(shop)
        for prefix, routes in (("/account", ACCOUNT), ("/api/admin", ADMIN)):
            for route in routes:
                path = path_of(prefix, route, stage.ids)
                refused(await anybody.request(route.method, path, json={}), 401, "unauthenticated")
        store = f"/store/{shop.company.slug}"
        for route in STORE:
            if not route.path.startswith("/auth/"):
                path = path_of(store, route, stage.ids)
                refused(await anybody.request(route.method, path, json={}), 401, "unauthenticated")

    async def test_multi_tenant_isolation(self, shop: Harness, root: "psycopg.Connection[Any]") -> None:
        """Every table has its company's id, and no id of another company's leads anywhere."""
        tables = root.execute(
            """
            SELECT relname, relrowsecurity AND relforcerowsecurity, attnotnull FROM pg_class
            LEFT JOIN pg_attribute ON attrelid = pg_class.oid AND attname = 'company_id'
            WHERE relnamespace = 'distribu'::regnamespace AND relkind IN ('r', 'p')
            """
        ).fetchall()
        assert len(tables) > 20
        assert {name for name, _, required in tables if not required} <= {"alembic_version", "jobs"}
        assert {name for name, walled, required in tables if required and not walled} == set()
        world, other = await World.of(shop), await shop.stranger()
        async with await other.api() as stranger, await shop.api() as ours:
            for path in (
                f"/products/{world.product.id}",
                f"/customers/{world.customer.id}",
                f"/orders/{world.order.id}",
                f"/webhooks/{world.webhook.id}",
                f"/deliveries/{world.delivery_id}",
            ):
                assert (await ours.get(path)).status_code == 200
                absent = re.sub(r"[^/]+$", shop.distribu.ports.entropy.uuid(), path)
                answers = [await stranger.get(one) for one in (path, absent)]
                seen = [one.text.replace(one.headers["x-request-id"], "") for one in answers]
                assert [one.status_code for one in answers] == [404, 404]
                assert seen[0] == seen[1]
            for path in ("/products", "/customers", "/orders", "/webhooks"):
                assert len((await ours.get(path)).json()["data"]) == 1
                assert (await stranger.get(path)).json()["data"] == []

    async def test_super_admin_separation(self, shop: Harness, root: "psycopg.Connection[Any]") -> None:
        """A flag of the user, no role of a team; every page of the platform asks for it itself."""
        stage = await cast(shop.distribu)
        owner, platform = door(shop), door(shop)
        carry(owner, *cookie_of(shop, stage.members["OWNER"]))
        carry(platform, *cookie_of(shop, stage.members["super-admin"]))
        for route in ADMIN:
            body = bodies(stage).get(route.request.__name__)
            path = path_of("/api/admin", route, stage.ids)
            refused(await owner.request(route.method, path, json=body), 403, "forbidden")
        for route in ADMIN:
            body = bodies(stage).get(route.request.__name__)
            path = path_of("/api/admin", route, stage.ids)
            came = await platform.request(route.method, path, json=body)
            nothing_there = route.request is ReplayNotice and came.json()["code"] == "notice_not_found"
            assert came.is_success or nothing_there, path
        for path in ("/account/products", "/account/orders", "/account/members"):
            assert (await owner.get(path)).status_code == 200
            assert (await platform.get(path)).status_code == 403
        (kind,) = root.execute(
            "SELECT data_type FROM information_schema.columns"
            " WHERE table_schema = 'distribu' AND table_name = 'users' AND column_name = 'is_super_admin'"
        ).fetchall()
        assert kind == ("boolean",)

    async def test_scoped_api_keys(self, shop: Harness) -> None:
        """Nine scopes; a key does what its scopes allow, and is asked for them every time."""
        assert len(SCOPES) == 9
        owner = await signed_in(shop, Role.OWNER)
        given = {"name": "ERP", "scopes": ["products:read", "orders:read"]}
        made = (await owner.post("/account/api-keys", json=given)).json()["data"]
        async with await shop.api() as api:
            api.headers["authorization"] = f"Bearer {made['key']}"
            assert (await api.get("/products")).status_code == 200
            assert (await api.get("/orders")).status_code == 200
            no = await api.post("/products", json={"name": "Rye", "price": 1})
            refused(no, 403, "missing_scope")
            assert "products:write" in no.json()["error"]
            narrower = {"scopes": ["products:read"]}
            edit = await owner.patch(f"/account/api-keys/{made['id']}", json=narrower)
            assert edit.status_code == 200
            refused(await api.get("/orders"), 403, "missing_scope")
            assert (await api.get("/products")).status_code == 200


class TestAuditLogging:
    async def test_everything_that_matters_is_recorded(
        self, shop: Harness, root: "psycopg.Connection[Any]"
    ) -> None:
        """Who, what, when, from where and what of it, in a table that only grows."""
        world = await World.of(shop)
        member = (await people.staff(shop, Role.MEMBER)).member
        assert member is not None
        owner = await people.staff(shop, Role.OWNER)
        browser = door(shop)
        carry(browser, *cookie_of(shop, owner))

        async def does(method: str, path: str, **body: Any) -> Any:
            answer = await browser.request(method, f"/account{path}", json=body or None)
            assert answer.is_success, answer.text
            return answer.json()["data"] if answer.content else None

        await does("PATCH", f"/products/{world.product.id}", name="Oat Flour 25 kg")
        await does("POST", f"/products/{world.product.id}/stock-movements", quantity=5, reason="ADJUSTED")
        await does("PATCH", f"/orders/{world.order.id}", status="CONFIRMED")
        await does("POST", "/invitations", email=address(shop), role="MEMBER")
        await does("PATCH", f"/members/{member.id}", role="ADMIN")
        key = await does("POST", "/api-keys", name="ERP", scopes=["products:read"])
        await does("POST", f"/api-keys/{key['id']}/revoke")
        await does("POST", f"/webhooks/{world.webhook.id}/rotate-secret")
        for action, entity_id in (
            ("product.updated", world.product.id),
            ("stock.adjusted", world.product.id),
            ("order.status_changed", world.order.id),
            ("member.invited", None),
            ("member.role_changed", member.id),
            ("api_key.created", key["id"]),
            ("api_key.revoked", key["id"]),
            ("webhook.secret_rotated", world.webhook.id),
        ):
            answer = await browser.get("/account/audit", params={"action": action})
            record = answer.json()["data"][0]
            assert (record["actorType"], record["actorId"]) == ("USER", owner.user.id), action
            assert record["entityType"]
            assert entity_id in (None, record["entityId"]), action
            assert str(record["ip"]).startswith("2001:db8:")
            assert datetime.fromisoformat(record["at"]) == shop.clock.now()
            assert isinstance(record["metadata"], dict)
        assert holding(root, "Oat Flour 25 kg") >= {"records"}
        for change in ("UPDATE distribu.records SET body = ''", "DELETE FROM distribu.records"):
            with pytest.raises(errors.InsufficientPrivilege, match="append-only"):
                root.execute(change)

    async def test_everything_that_matters_is_recorded_of_a_subscription(
        self, shop: Harness, root: "psycopg.Connection[Any]"
    ) -> None:
        """Each change of it, by Stripe or by time, with what it was and what it is."""
        it = await buying(shop)
        browser = await signed_in(it.shop, Role.ADMIN)
        begun = it.stripe.now
        sub = await it.buys()
        it.stripe.change(sub["id"], "price_enterprise_month")
        await it.hears()
        seen = len(it.stripe.events)
        it.stripe.card(sub["customer"], works=False)
        it.stripe.move(timedelta(days=31))
        await it.hears()
        it.stripe.card(sub["customer"], works=True)
        it.stripe.cancel(sub["id"], now=True)
        for event in it.stripe.events[seen:]:
            await it.hear(event)
        wanted = {
            "subscription.started": ("plan", "STARTER"),
            "subscription.updated": ("after", {"plan": "ENTERPRISE", "status": "ACTIVE"}),
            "subscription.past_due": ("after", {"status": "PAST_DUE"}),
            "subscription.canceled": ("after", {"status": "CANCELED"}),
            "invoice.paid": ("amount", 229.99),
            "invoice.payment_failed": ("amount", 499),
        }
        for action, (name, value) in wanted.items():
            answer = await browser.get("/account/audit", params={"action": action})
            record = answer.json()["data"][-1]
            assert record["actorType"] == "SYSTEM", action
            assert record["entityType"]
            assert record["entityId"]
            assert datetime.fromisoformat(record["at"]).timestamp() == begun, action
            kept = record["metadata"][name]
            assert value.items() <= kept.items() if isinstance(value, dict) else kept == value, action
        assert holding(root, sub["id"]) >= {"subscriptions", "records"}

    async def test_system_actors_are_explicit(self, shop: Harness) -> None:
        """Whether a person did it, and which kind, is seen at a glance."""
        customer, product = await shop.customer(), await shop.product()
        owner = await signed_in(shop, Role.OWNER)
        await owner.patch(f"/account/products/{product.id}", json={"name": "Rye"})
        async with await shop.api() as api:
            await api.patch(f"/products/{product.id}", json={"name": "Wheat"})
        buyer = door(shop)
        carry(buyer, *cookie_of(shop, await people.buyer(shop, customer, ContactRole.BUYER)))
        items = [{"productId": product.id, "quantity": 1}]
        ordered = await post(buyer, f"/store/{shop.company.slug}/orders", customerId=customer.id, items=items)
        assert ordered.status_code == 201
        for kind, action in (
            ("USER", "product.updated"),
            ("API_KEY", "product.updated"),
            ("CUSTOMER", "order.placed"),
            ("SYSTEM", "product.created"),
        ):
            answer = await owner.get("/account/audit", params={"actorType": kind})
            found = answer.json()["data"]
            assert {one["actorType"] for one in found} == {kind}
            assert action in {one["action"] for one in found}
        given = {"url": "http://localhost:9000/gone", "events": ["product.updated"]}
        webhook = (await owner.post("/account/webhooks", json=given)).json()["data"]
        shop.receivers.answer = lambda _: Reply(410, {}, "", "")
        await owner.patch(f"/account/products/{product.id}", json={"name": "Spelt"})
        await shop.work()
        shop.receivers.answer = lambda _: Reply(200, {}, "", "")
        asked = {"entityId": webhook["id"]}
        disabled, created = (await owner.get("/account/audit", params=asked)).json()["data"]
        assert [(one["action"], one["actorType"]) for one in (created, disabled)] == [
            ("webhook.created", "USER"),
            ("webhook.disabled", "SYSTEM"),
        ]

    async def test_exportable(self, shop: Harness) -> None:
        """Admins see the whole log and take it out, whoever acted, in forms that stay as they are."""
        world = await World.of(shop)
        admin, member = await signed_in(shop, Role.ADMIN), await signed_in(shop, Role.MEMBER)
        refused(await member.get("/account/audit"), 403, "forbidden")
        refused(await member.get("/account/audit/export"), 403, "forbidden")
        await admin.patch(f"/account/products/{world.product.id}", json={"name": "=1+1"})
        async with await shop.api(Permission.PRODUCTS_READ) as api:
            refused(await api.post("/products", json={}), 403, "missing_scope")
        await shop.work()
        seen: list[dict[str, Any]] = []
        cursor: str | None = ""
        while cursor is not None:
            page = (await admin.get("/account/audit", params={"limit": 7, "cursor": cursor})).json()
            seen = [*reversed(page["data"]), *seen]
            cursor = page["pagination"]["nextCursor"]
        assert len(seen) > 14
        assert {one["actorType"] for one in seen} >= {"USER", "SYSTEM", "API_KEY"}
        lines, table, events = [
            (await admin.get("/account/audit/export", params={"format": form})).text
            for form in ("JSONL", "CSV", "OCSF")
        ]
        records = [one for one in map(json.loads, lines.splitlines()) if one["type"] == "record"]
        rows = list(commas.DictReader(io.StringIO(table, newline="")))
        told = [json.loads(line) for line in events.splitlines()]
        ids = [one["id"] for one in seen]
        assert [one["id"] for one in records][: len(ids)] == ids
        assert [one["id"] for one in rows][: len(ids)] == ids
        assert [one["metadata"]["uid"] for one in told][: len(ids)] == ids
        for record in records:
            assert list(record) == ["type", "position", "id", "leaf", "person", "record"]
            assert ",".join(record["record"]) == (
                "v,id,companyId,at,actorType,actorId,action,entityType,entityId,person,metadata"
            )
            assert record["record"]["v"] == 1
        assert ",".join(rows[0]) == (
            "position,id,at,actorType,actorId,actorLabel,ip,action,entityType,entityId,metadata,leaf"
        )
        assert {problem for event in told for problem in ocsf.problems(event)} == set()
        assert {event["class_uid"] for event in told} == {3004}

    async def test_exportable_signing_in_as_a_siem_knows_it(
        self, shop: Harness, browser: httpx.AsyncClient
    ) -> None:
        """What concerns signing in is told in OCSF's own class for that, failures as failures."""
        email = await people.with_password(shop, PASSWORD, Role.ADMIN)
        await post(browser, "/auth/sign-in", email=email, password=WRONG)
        assert (await post(browser, "/auth/sign-in", email=email, password=PASSWORD)).status_code == 200
        answer = await browser.get("/account/audit/export", params={"format": "OCSF"})
        events = [json.loads(line) for line in answer.text.splitlines()]
        assert {problem for event in events for problem in ocsf.problems(event)} == set()
        signing = {
            event["metadata"]["event_code"]: (event["activity_name"], event["status_id"])
            for event in events
            if event["class_uid"] == 3002
        }
        assert signing == {"auth.login_failed": ("Logon", 2), "auth.login": ("Logon", 1)}

    async def test_exportable_by_webhook(self, shop: Harness) -> None:
        """An admin has every record sent to a SIEM as it is sealed, signed like any webhook; no key can."""
        url = f"http://localhost:9000/{shop.company.id}"
        admin = await signed_in(shop, Role.ADMIN)
        given = {"url": url, "events": ["audit.recorded"]}
        async with await shop.api() as api:
            refused(await api.post("/webhooks", json=given), 403, "forbidden")
        made = (await admin.post("/account/webhooks", json=given)).json()["data"]
        await admin.post("/account/products", json={"name": "Rye", "price": 1})
        await shop.work()
        sent = {json.loads(one.body)["data"]["id"]: one for one in sent_to(shop, url)}
        for listed in (await admin.get("/account/audit")).json()["data"]:
            one = sent[listed["id"]]
            data = json.loads(one.body)["data"]
            assert {name: data[name] for name in listed} == listed
            assert one.headers["X-Webhook-Signature"] == hex_hmac(made["secret"], one.body)


class TestRateLimiting:
    async def test_public_api(self, shop: Harness) -> None:
        """60 a minute for a key and 120 for an address; every answer says how it stands."""
        usual = Settings()
        assert (usual.api_limit_per_key, usual.api_limit_per_ip) == (60, 120)
        limits = ApiLimits(per_key=usual.api_limit_per_key, per_ip=usual.api_limit_per_ip)
        app: Any = http_app(shop.distribu, limits)
        keys = [{"authorization": f"Bearer {await shop.key()}"} for _ in range(3)]
        transport = httpx.ASGITransport(app, client=("198.51.100.7", 50_000))
        async with httpx.AsyncClient(transport=transport, base_url="http://distribu/api/v1") as api:
            for n in range(60):
                answer = await api.get("/me" if n % 2 else "/orders/nonsense", headers=keys[0])
                assert answer.status_code in (200, 404)
                assert answer.headers["x-ratelimit-limit"] == "60"
                assert answer.headers["x-ratelimit-remaining"] == str(59 - n)
                assert int(answer.headers["x-ratelimit-reset"]) == shop.clock.now().timestamp() + 60
            over = await api.get("/me", headers=keys[0])
            refused(over, 429, "rate_limited")
            assert over.headers["retry-after"] == "60"
            for _ in range(59):
                assert (await api.get("/me", headers=keys[1])).status_code == 200
            refused(await api.get("/me", headers=keys[2]), 429, "rate_limited")
            shop.clock.advance(seconds=60)
            assert (await api.get("/me", headers=keys[0])).status_code == 200

    async def test_auth_surfaces(self, shop: Harness, browser: httpx.AsyncClient) -> None:
        """Sign-in, sign-up, reset and verification are each limited by a limit of their own."""
        for path, most, more in (
            ("/auth/sign-in", 10, {"password": WRONG}),
            ("/auth/sign-up", 5, {"companyName": "Acme", "fullName": "Ada", "password": PASSWORD}),
            ("/auth/request-reset", 5, {}),
            ("/auth/resend-verification", 5, {}),
        ):
            statuses = [
                (await post(browser, path, email=address(shop), **more)).status_code for _ in range(most + 1)
            ]
            assert 429 not in statuses[:most], path
            assert statuses[most] == 429, path
        tries = [
            (await post(browser, "/auth/verify", token="A" * 86, password=PASSWORD)).status_code
            for _ in range(31)
        ]
        assert tries == [422] * 30 + [429]

    async def test_backend(self, settings: Settings, redis_server: RedisServer) -> None:
        """Servers share one sliding window on Redis; without one each process counts for itself."""
        shared = msgspec.structs.replace(settings, redis_url=redis_server.url)
        assert isinstance(Container(settings=shared).limiter(), FallbackLimiter)
        assert isinstance(Container(settings=settings).limiter(), InProcessLimiter)
        clock = MovedClock()
        servers = [RedisLimiter(redis_server.url, clock=clock, entropy=SystemEntropy()) for _ in range(2)]
        ten = Limit(f"claim {SystemEntropy().uuid()}", 10, 900)

        async def taken(times: int) -> int:
            return [(await servers[n % 2].take(ten)).allowed for n in range(times)].count(True)

        assert await taken(5) == 5
        clock.advance(seconds=450)
        assert await taken(6) == 5
        clock.advance(seconds=449)
        assert await taken(2) == 0
        clock.advance(seconds=1)
        assert await taken(7) == 5, "those of the first moment have slid out, and no others"
        for server in servers:
            await server.close()


def sent_to(shop: Harness, url: str) -> list[Received]:
    return [one for one in shop.received if one.url == url]


def hex_hmac(secret: str, body: bytes) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


class TestWebhookSecurity:
    async def registered(self, shop: Harness, url: str) -> tuple[httpx.AsyncClient, Any]:
        api = await shop.api()
        made = await api.post("/webhooks", json={"url": url, "events": ["product.created"]})
        assert made.status_code == 201
        return api, made.json()["data"]

    async def test_hmac_signed_payloads(self, shop: Harness) -> None:
        """HMAC-SHA256 over payload and time, so that neither can be altered nor kept for later."""
        url = f"http://localhost:9000/{shop.company.id}"
        api, made = await self.registered(shop, url)
        await api.post("/products", json={"name": "Rye", "price": 1})
        await shop.work()
        (one,) = sent_to(shop, url)
        assert one.headers["X-Webhook-Signature"] == hex_hmac(made["secret"], one.body)
        now = json.loads(one.body)["timestamp"]
        assert abs(datetime.fromisoformat(now) - shop.clock.now()) < timedelta(minutes=5)
        later = one.body.replace(now.encode(), now.replace("20", "21", 1).encode(), 1)
        assert later != one.body
        assert one.headers["X-Webhook-Signature"] != hex_hmac(made["secret"], later)

    async def test_secret_rotation_with_grace_period(self, shop: Harness) -> None:
        """For seven days both secrets sign, and then the new one alone."""
        url = f"http://localhost:9000/{shop.company.id}"
        api, made = await self.registered(shop, url)
        rotated = (await api.post(f"/webhooks/{made['id']}/rotate-secret")).json()["data"]
        ends = datetime.fromisoformat(rotated["secretRotationGraceExpiresAt"])
        assert ends == shop.clock.now() + timedelta(days=7)
        for wait_s, both in ((7 * 86_400 - 1, True), (1, False)):
            shop.clock.advance(seconds=wait_s)
            await api.post("/products", json={"name": "Rye", "price": 1})
            await shop.work()
            one = sent_to(shop, url)[-1]
            assert one.headers["X-Webhook-Signature"] == hex_hmac(rotated["secret"], one.body)
            old = hex_hmac(made["secret"], one.body) if both else None
            assert one.headers.get("X-Webhook-Signature-Old") == old

    async def test_delivery_retries_with_backoff(self, shop: Harness) -> None:
        """Tried again after growing waits, up to an end, with every attempt and answer kept."""
        url = f"http://localhost:9000/{shop.company.id}"
        api, made = await self.registered(shop, url)
        shop.receivers.answer = lambda _: Reply(500, {}, "no flour today", "")
        await api.post("/products", json={"name": "Rye", "price": 1})
        await shop.work()
        for usual in RETRY_WAITS_S:
            shop.clock.advance(seconds=usual * 1.2)
            await shop.work()
        assert list(RETRY_WAITS_S) == sorted(RETRY_WAITS_S)
        shop.clock.advance(days=20)
        await shop.work()
        assert len(sent_to(shop, url)) == len(RETRY_WAITS_S) + 1 == 10
        (listed,) = (await api.get(f"/webhooks/{made['id']}/deliveries")).json()["data"]
        seen = (await api.get(f"/deliveries/{listed['id']}")).json()["data"]
        assert (seen["status"], len(seen["attempts"])) == ("DEAD", 10)
        assert {(one["status"], one["body"]) for one in seen["attempts"]} == {(500, "no flour today")}
        shop.receivers.answer = lambda _: Reply(200, {}, "", "")
        admin = await signed_in(shop, Role.ADMIN)
        assert (await admin.post(f"/account/deliveries/{listed['id']}/replay")).status_code == 200
        await shop.work()
        seen = (await admin.get(f"/account/deliveries/{listed['id']}")).json()["data"]
        assert (seen["status"], len(seen["attempts"])) == ("DELIVERED", 11)
        assert [one["status"] for one in seen["attempts"]] == [500] * 10 + [200]

    async def test_bounded_timeouts(self, shop: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
        """Ten seconds, and a receiver that is slow keeps no other waiting."""
        assert ATTEMPT_TIMEOUT_S == 10
        quick_came, silence = asyncio.Event(), asyncio.Event()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            if b"/quick" in head:
                quick_came.set()
            elif b"/slow" in head:
                await quick_came.wait()  # answered only once the other was
            else:
                await silence.wait()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        begin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        hooks = HttpHooks(production=False)
        distribu = Distribu(replace(shop.distribu.ports, hooks=hooks))
        made = [(await self.registered(shop, begin + path)) for path in ("/slow", "/quick")]
        await shop.product()
        await Worker(distribu).drain()
        for api, webhook in made:
            (delivery,) = (await api.get(f"/webhooks/{webhook['id']}/deliveries")).json()["data"]
            assert delivery["status"] == "DELIVERED"
        monkeypatch.setattr(outgoing, "ATTEMPT_TIMEOUT_S", 0.2)
        reply = await hooks.post(begin + "/silent", headers={}, body=b"{}")
        assert (reply.status, reply.error) == (None, "no answer within 0.2 s")
        silence.set()
        await hooks.close()
        server.close()


class TestDataProtection:
    def test_database(self) -> None:
        """Production speaks to its database over TLS, or on this machine's own socket, or not at all."""
        url = "postgresql://app:Xk29-long@db.example/distribu"
        for query in ("", "?sslmode=prefer", "?sslmode=disable"):
            with pytest.raises(SettingsUnusable, match="must use TLS"):
                load(SAFE | {"DISTRIBU_DATABASE_URL": url + query})
        assert load(SAFE | {"DISTRIBU_DATABASE_URL": url + "?sslmode=require"}).production

    async def test_api_key_storage(self, shop: Harness, root: "psycopg.Connection[Any]") -> None:
        """The SHA-256 and eight characters; shown once; revoked at once; with an end, if so made."""
        owner = await signed_in(shop, Role.OWNER)
        until = (shop.clock.now() + timedelta(hours=1)).isoformat().replace("+00:00", "Z")
        given = {"name": "ERP", "scopes": ["products:read"], "expiresAt": until}
        one, two = [(await owner.post("/account/api-keys", json=given)).json()["data"] for _ in range(2)]
        row = root.execute(
            "SELECT prefix, digest FROM distribu.api_keys WHERE id = %s", [one["id"]]
        ).fetchone()
        assert row is not None
        assert (row[0], bytes(row[1])) == (one["key"][:8], hashlib.sha256(one["key"].encode()).digest())
        assert holding(root, one["key"]) == set()
        assert holding(root, one["key"][8:]) == set()
        for path in ("/account/api-keys", f"/account/api-keys/{one['id']}"):
            shown = await owner.get(path)
            assert shown.status_code == 200
            assert one["key"] not in shown.text
            assert one["key"][:8] in shown.text
        async with await shop.api() as api:
            asked = [{"authorization": f"Bearer {it['key']}"} for it in (one, two)]
            assert [(await api.get("/products", headers=it)).status_code for it in asked] == [200, 200]
            await owner.post(f"/account/api-keys/{one['id']}/revoke")
            assert [(await api.get("/products", headers=it)).status_code for it in asked] == [401, 200]
            shop.clock.advance(hours=1)
            refused(await api.get("/products", headers=asked[1]), 401, "unauthenticated")

    async def test_no_card_data_on_our_servers(
        self,
        shop: Harness,
        browser: httpx.AsyncClient,
        root: "psycopg.Connection[Any]",
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Who buys is sent to a page of Stripe's; a number that somebody types all the same is refused."""
        caplog.set_level(logging.DEBUG, "distribu")
        stripe = PretendStripe(shop.clock.now, pages="https://checkout.stripe.example")
        payments = MemoryPayments(stripe, [Secret(SECRET)])
        selling = await Shop.open(Distribu(replace(shop.distribu.ports, payments=payments)))
        async with await signed_in(selling, Role.OWNER) as owner:
            page = await owner.post("/account/billing/checkout", json={"plan": "GROWTH", "interval": "MONTH"})
        assert page.json()["data"] == {"url": next(iter(stripe.sessions.values()))["url"]}
        world = await World.of(shop)
        number = "4000056655665556"
        numbers = [number, "4000 0566 5566 5556", "4000-0566-5566-5556", "4000 0566 5566 5556 737"]
        async with await shop.api() as api, await signed_in(shop, Role.OWNER) as staff:
            for one in numbers:
                body = {**(world.body("PlaceOrder") or {}), "notes": f"card {one} 12/27 123"}
                paid = {"amount": 1, "method": "CARD", "reference": one}
                given = {"fullName": one, "email": address(shop), "password": PASSWORD, "companyName": "Acme"}
                for answer in (
                    await api.post("/orders", json=body),
                    await api.post(f"/orders/{world.order.id}/payments", json=paid),
                    await api.post("/products", json={"name": "A", "price": 1, "sku": one}),
                    await staff.post(
                        "/account/audit", json={"action": "a", "metadata": {"pan": f"card:\n{one}"}}
                    ),
                    await post(browser, "/auth/sign-up", **given),
                ):
                    refused(answer, 400, "card_number")
                    assert one not in answer.text
        for one in numbers:
            assert holding(root, one) == set()
            assert one not in "".join(it.getMessage() for it in caplog.records if "distribu" in it.name)

    async def test_idempotent_payment_webhooks(self, shop: Harness, root: "psycopg.Connection[Any]") -> None:
        """An event is kept by its id with what follows from it; sent again, in any order, it does nothing."""
        it = await buying(shop)
        await it.buys()
        told = [one for one in it.stripe.events if one["type"].startswith(("customer.sub", "invoice.paid"))]

        async def sent(event: Mapping[str, Any], secret: str = SECRET) -> httpx.Response:
            body, signature = it.stripe.signed(dict(event), [secret])
            async with door(it.shop) as stripe:
                return await stripe.post(
                    "/stripe/events", content=body, headers={"stripe-signature": signature}
                )

        assert (await sent(told[0], "whsec_of_somebody_else")).status_code == 400
        assert holding(root, told[0]["id"]) == set()
        for _ in range(20):  # as Stripe does: until it is told that it arrived
            answers = await asyncio.gather(*(sent(event) for event in reversed(told * 10)))
            assert {one.status_code for one in answers} <= {200, 503}
            if {one.status_code for one in answers} == {200}:
                break
        assert {(await sent(event)).status_code for event in told} == {200}
        assert await it.changes() == ["invoice.paid", "subscription.started", "subscription.updated"]
        await Worker(it.shop.distribu, jobs=()).drain()
        name = it.shop.company.name
        told_of = sorted([f"Invoice PRETEND-0001 of {name} was paid", f"{name} is on the plan GROWTH"])
        assert sorted(one.subject for one in shop.mail) == told_of
        for event in told:
            assert holding(root, event["id"]) >= {"stripe_events", "records"}


class TestTransportAndHeaders:
    async def test_https_only(self, shop: Harness) -> None:
        """In production pages are asked for again over HTTPS, programs are refused; HSTS for two years."""
        async with over_https(shop) as browser:
            plain = HERE.replace("https", "http")
            page = await browser.get(f"{plain}/api/v1/docs", headers={"accept": "text/html"})
            assert (page.status_code, page.headers["location"]) == (308, f"{HERE}/api/v1/docs")
            key = {"authorization": f"Bearer {await shop.key()}"}
            refused(await browser.get(f"{plain}/api/v1/products", headers=key), 403, "https_required")
            safe = await browser.get("/api/v1/products", headers=key)
            assert safe.status_code == 200
            assert HSTS == "max-age=63072000; includeSubDomains; preload"
            assert safe.headers["strict-transport-security"] == HSTS

    async def test_browser_defences(self, shop: Harness) -> None:
        """With every answer, whatever it is."""
        async with over_https(shop) as browser:
            for path in ("/api/v1/docs", "/api/v1/products", "/account", "/security", "/nothing"):
                headers = (await browser.get(path)).headers
                assert headers["x-frame-options"] == "DENY"
                assert headers["x-content-type-options"] == "nosniff"
                assert headers["referrer-policy"] == "strict-origin-when-cross-origin"
                denied = "camera=(), microphone=(), geolocation=(), interest-cohort=()"
                assert headers["permissions-policy"] == denied
                assert "unsafe-inline" not in headers["content-security-policy"]
                assert set(headers) >= set(EVERYWHERE)

    async def test_csrf(self, shop: Harness) -> None:
        """A cookie acts only from our own pages, only with a session, and is sent along by no other site."""
        browser = await signed_in(shop, Role.OWNER)
        new = {"name": "Rye", "price": 1}
        for headers in (
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site"},
            {"sec-fetch-site": "", "origin": "https://elsewhere.example"},
        ):
            forged = await browser.post("/account/products", json=new, headers=headers)
            refused(forged, 403, "cross_origin")
        assert (await browser.get("/account/products")).json()["data"] == []
        async with door(shop) as nobody:
            refused(await nobody.post("/account/products", json=new), 401, "unauthenticated")
        assert (await browser.post("/account/products", json=new)).status_code == 201
        email = await people.with_password(shop, PASSWORD, Role.ADMIN)
        entered = await post(browser, "/auth/sign-in", email=email, password=PASSWORD)
        assert all("SameSite=Lax" in one for one in entered.headers.get_list("set-cookie"))


class TestInfrastructureAndSubprocessors:
    def test_subprocessors(self) -> None:
        """A small set, all named, and whoever adds one says so; that there are no others is tested beside."""
        text = (ROOT / "docs" / "subprocessors.md").read_text()
        rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
        assert len(rows) == 5
        for name in ("PostgreSQL", "Redis", "Resend", "Stripe", "hosting"):
            assert any(name in row.split("|")[1] for row in rows), name
        assert "CHANGELOG.md" in text
        assert "privacy policy" in text

    def test_secrets(self) -> None:
        """From the environment alone, shown by nothing; production starts with none missing or usual."""
        settings = load(SAFE)
        for name in ("VAULT_KEYS", "STAFF_SESSION_KEYS", "STORE_SESSION_KEYS", "RESEND_KEY", "DATABASE_URL"):
            assert SAFE[f"DISTRIBU_{name}"] not in repr(settings)
            without = {key: value for key, value in SAFE.items() if key != f"DISTRIBU_{name}"}
            with pytest.raises(SettingsUnusable, match=f"DISTRIBU_{name}"):
                load(without)
        usual = SAFE["DISTRIBU_DATABASE_URL"].replace("Xk29-long", "postgres")
        with pytest.raises(SettingsUnusable, match="DISTRIBU_DATABASE_URL"):
            load(SAFE | {"DISTRIBU_DATABASE_URL": usual})
        assert "canary" not in f"{Secret('canary')!r} {Secret('canary')}"


class TestResponsibleDisclosure:
    async def test_found_something(self, shop: Harness) -> None:
        """Whom to write to, for programs and for people, and what happens then."""
        async with over_https(shop) as browser:
            file = (await browser.get("/.well-known/security.txt")).text
            assert "Contact: mailto:security@distribu.app" in file
            assert f"Policy: {HERE}/security" in file
            policy = (await browser.get("/security")).text
            for promised in ("within one business day", "credit you", "no paid bounty", "in good faith"):
                assert promised in policy
                assert promised in (ROOT / "SECURITY.md").read_text()


class TestNoFormalCertificationsYet:
    def test_no_formal_certifications_yet(self) -> None:
        assert "Distribu is not SOC 2 or ISO 27001 certified" in (ROOT / "SECURITY.md").read_text()
