"""Sessions at the HTTP door: what a cookie opens, and everything that it does not."""

import base64
import itertools
import json
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import jwt
import pytest

from distribu import ContactRole, Role, Secret, Shop, http_app
from distribu.application.accounts import RequestPasswordReset
from distribu.application.customers import EditCustomer
from distribu.application.kernel import Process
from distribu.domain.access import Actor, Permission
from distribu.domain.accounts import REALM
from distribu.domain.customers import CustomerStatus
from distribu.domain.errors import Busy
from distribu.entrypoints.harness import KEYS
from distribu.entrypoints.http import reference, sessions
from distribu.entrypoints.http.routes import ROUTES
from distribu.entrypoints.http.sessions import Keys, Sessions
from distribu.entrypoints.http.wire import Route
from tests import people
from tests.authenticator import code_of

HERE = "http://distribu"
PROCESSES = tuple(
    (prefix, route)
    for _, prefix, routes in reference.PEOPLE.doors
    for route in routes
    if route.method == "POST" and issubclass(route.request, Process)
)
_addresses = (f"2001:db8:{n:x}::1" for n in itertools.count(1))


def door(shop: Shop, keys: Keys = KEYS) -> httpx.AsyncClient:
    """A browser at a page of ours, that is not signed in, at an address of its own."""
    app: Any = http_app(shop.distribu, keys=keys)
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app, client=(next(_addresses), 50_000)),
        base_url=HERE,
        headers={"sec-fetch-site": "same-origin"},
    )


@pytest.fixture
async def browser(shop: Shop) -> AsyncIterator[httpx.AsyncClient]:
    async with door(shop) as browser:
        yield browser


def cookie_of(shop: Shop, person: people.Staff | people.Buyer, keys: Keys = KEYS) -> tuple[str, str]:
    """Name and token of somebody's session cookie."""
    slug = shop.company.slug if isinstance(person, people.Buyer) else None
    made = Sessions(shop.distribu, keys, production=False).begun(person.session, slug)
    name, _, token = made.partition(";")[0].partition("=")
    return name, token


def carry(browser: httpx.AsyncClient, name: str, token: str) -> None:
    """Make a cookie the only one."""
    browser.cookies.clear()
    browser.cookies.set(name, token)


def refused(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


class TestCookies:
    async def test_a_staff_cookie_opens_the_company(self, shop: Shop, browser: httpx.AsyncClient) -> None:
        carry(browser, *cookie_of(shop, await people.staff(shop, Role.MEMBER)))
        answer = await browser.get("/account")
        assert [seat["companyId"] for seat in answer.json()["data"]["companies"]] == [shop.company.id]
        assert (await browser.get("/account/products")).status_code == 200

    async def test_a_store_cookie_opens_its_store(self, shop: Shop, browser: httpx.AsyncClient) -> None:
        somebody = await people.buyer(shop, await shop.customer(), ContactRole.BUYER)
        carry(browser, *cookie_of(shop, somebody))
        answer = await browser.get(f"/store/{shop.company.slug}/account")
        assert answer.json()["data"]["email"] == somebody.contact.email

    async def test_neither_kind_is_anything_in_the_others_place(
        self, shop: Shop, browser: httpx.AsyncClient
    ) -> None:
        """Each under its own name and under the other's, and each signed with the other's key: 401."""
        member = await people.staff(shop, Role.OWNER)
        somebody = await people.buyer(shop, await shop.customer(), ContactRole.ADMIN)
        staff_name, staff_token = cookie_of(shop, member)
        store_name, store_token = cookie_of(shop, somebody)
        crossed = Keys(staff=KEYS.store, store=KEYS.staff)
        tokens = [
            (store_name, staff_token, "store"),
            (staff_name, staff_token, "store"),
            (staff_name, store_token, "account"),
            (store_name, store_token, "account"),
            (staff_name, cookie_of(shop, member, crossed)[1], "account"),
            (store_name, cookie_of(shop, somebody, crossed)[1], "store"),
        ]
        for name, token, where in tokens:
            carry(browser, name, token)
            path = "/account" if where == "account" else f"/store/{shop.company.slug}/account"
            refused(await browser.get(path), 401, "unauthenticated")

    async def test_a_session_of_one_store_is_nothing_at_another(
        self, shop: Shop, browser: httpx.AsyncClient
    ) -> None:
        other = await shop.stranger()
        somebody = await people.buyer(shop, await shop.customer(), ContactRole.ADMIN)
        name, token = cookie_of(shop, somebody)
        carry(browser, name.replace(shop.company.slug, other.company.slug), token)
        refused(await browser.get(f"/store/{other.company.slug}/account"), 401, "unauthenticated")

    async def test_a_key_opens_no_account_and_a_cookie_no_api(
        self, shop: Shop, browser: httpx.AsyncClient
    ) -> None:
        key = {"authorization": f"Bearer {await shop.key()}"}
        refused(await browser.get("/account", headers=key), 401, "unauthenticated")
        carry(browser, *cookie_of(shop, await people.staff(shop, Role.OWNER)))
        refused(await browser.get("/api/v1/products"), 401, "unauthenticated")

    async def test_of_two_cookies_of_one_name_neither_counts(
        self, shop: Shop, browser: httpx.AsyncClient
    ) -> None:
        name, token = cookie_of(shop, await people.staff(shop, Role.OWNER))
        twice = {"cookie": f"{name}={token}; {name}={token}"}
        refused(await browser.get("/account", headers=twice), 401, "unauthenticated")


class TestLastUse:
    async def test_it_is_only_a_note_and_without_it_the_request_is_answered(
        self, shop: Shop, browser: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tries: list[str] = []

        async def away(_: object, company_id: str, session_id: str, **_more: object) -> None:
            tries.append(session_id)
            raise Busy("busy", retry_after_s=1)

        monkeypatch.setattr(type(shop.distribu.ports.queue), "seen", away)
        monkeypatch.setattr(sessions, "SEEN_EVERY", timedelta(0))
        member = await people.staff(shop, Role.OWNER)
        somebody = await people.buyer(shop, await shop.customer(), ContactRole.ADMIN)
        for person, path in ((member, "/account"), (somebody, f"/store/{shop.company.slug}/account")):
            carry(browser, *cookie_of(shop, person))
            assert (await browser.get(path)).status_code == 200
        assert tries == [member.session.id, somebody.session.id]


class TestIdempotency:
    @pytest.mark.parametrize(("prefix", "route"), PROCESSES, ids=lambda it: getattr(it, "path", it))
    async def test_a_key_that_would_not_keep_the_promise_is_refused(
        self, prefix: str, route: Route, shop: Shop, browser: httpx.AsyncClient
    ) -> None:
        """A process ends in more than one transaction, or in none: there is no one answer to keep."""
        person: people.Staff | people.Buyer
        if prefix.startswith("/store"):
            person = await people.buyer(shop, await shop.customer(), ContactRole.ADMIN)
        elif route.request.needs is Permission.SECOND_FACTOR:
            person = await people.waiting(shop, Role.OWNER)
        else:
            person = await people.staff(shop, Role.OWNER, super_admin=prefix == "/api/admin")
        carry(browser, *cookie_of(shop, person))
        path = prefix.replace("{slug}", shop.company.slug) + re.sub(r"{\w+:str}", shop.company.id, route.path)
        answer = await browser.post(path, headers={"idempotency-key": "k"})
        refused(answer, 400, "invalid_request")
        assert answer.json()["fields"] == {"Idempotency-Key": "is not taken here"}

    async def test_one_key_does_not_found_two_companies(self, shop: Shop, browser: httpx.AsyncClient) -> None:
        carry(browser, *cookie_of(shop, await people.staff(shop, Role.OWNER)))
        body = {"companyName": "Second"}
        for _ in range(2):
            await browser.post("/account/open-company", json=body, headers={"idempotency-key": "k"})
        assert len((await browser.get("/account")).json()["data"]["companies"]) == 1
        assert (await browser.post("/account/open-company", json=body)).is_success

    def test_every_request_of_the_api_takes_one(self) -> None:
        assert [route.path for route in ROUTES if issubclass(route.request, Process)] == []
        assert ("/account", "/open-company") in {(prefix, route.path) for prefix, route in PROCESSES}


class TestTokens:
    @pytest.fixture
    async def made(self, shop: Shop) -> tuple[str, str, dict[str, Any]]:
        """A good cookie's name and token, and the claims that are in it."""
        name, token = cookie_of(shop, await people.staff(shop, Role.OWNER))
        claims = jwt.decode(token, options={"verify_signature": False})
        return name, token, claims

    async def test_what_is_in_it_is_no_secret_and_no_person(self, made: tuple[str, str, Any]) -> None:
        assert set(made[2]) == {"iss", "aud", "sub", "sid", "iat", "exp"}

    async def test_no_other_signature_will_do(
        self, made: tuple[str, str, dict[str, Any]], browser: httpx.AsyncClient
    ) -> None:
        name, token, claims = made
        head, body, signature = token.split(".")
        key = KEYS.staff[0].reveal()
        other = KEYS.store[0].reveal()
        none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').decode().rstrip("=")
        flipped = signature[:-2] + ("A" if signature[-2] != "A" else "B") + signature[-1]
        wrong = [
            f"{none}.{body}.",
            f"{none}.{body}.{signature}",
            f"{head}.{body}.",
            f"{head}.{body}.{flipped}",
            f"{head}.{body}",
            jwt.encode(claims, other, algorithm="HS256"),
            jwt.encode(claims, key, algorithm="HS384"),
            jwt.encode(claims, key, algorithm="HS512"),
            jwt.encode(claims | {"aud": "distribu/store"}, key, algorithm="HS256"),
            jwt.encode(claims | {"iss": "somebody"}, key, algorithm="HS256"),
            jwt.encode({k: v for k, v in claims.items() if k != "aud"}, key, algorithm="HS256"),
            jwt.encode({k: v for k, v in claims.items() if k != "exp"}, key, algorithm="HS256"),
            jwt.encode(claims | {"exp": 0}, key, algorithm="HS256"),
            jwt.encode(claims | {"exp": "never"}, key, algorithm="HS256"),
            jwt.encode(claims | {"sid": 7}, key, algorithm="HS256"),
            jwt.encode(claims | {"sid": "0195b2f0-7c1e-7d3a-8f00-5a1c2e9b4d10"}, key, algorithm="HS256"),
            jwt.encode(claims | {"sid": "' OR 1=1"}, key, algorithm="HS256"),
        ]
        carry(browser, name, token)
        assert (await browser.get("/account")).status_code == 200
        for text in wrong:
            carry(browser, name, text)
            refused(await browser.get("/account"), 401, "unauthenticated")

    async def test_keys_are_changed_with_an_overlap(self, shop: Shop) -> None:
        member = await people.staff(shop, Role.OWNER)
        name, token = cookie_of(shop, member)
        new = Secret("staff-" + "n" * 32)
        for keys, status in (
            (Keys(staff=(new, *KEYS.staff), store=KEYS.store), 200),
            (Keys(staff=(new,), store=KEYS.store), 401),
        ):
            async with door(shop, keys) as browser:
                carry(browser, name, token)
                assert (await browser.get("/account")).status_code == status
        assert cookie_of(shop, member, Keys(staff=(new, *KEYS.staff), store=KEYS.store))[1] != token

    async def test_a_name_with_a_nul_or_a_megabyte_is_no_session(
        self, made: tuple[str, str, dict[str, Any]], shop: Shop, browser: httpx.AsyncClient
    ) -> None:
        claims = made[2]
        for sid in ("\0", "x" * 2_000, json.dumps(claims)):
            token = jwt.encode(claims | {"sid": sid}, KEYS.staff[0].reveal(), algorithm="HS256")
            carry(browser, made[0], token)
            refused(await browser.get("/account"), 401, "unauthenticated")


class TestSecondFactor:
    async def test_a_browser_signs_in_with_password_and_code(
        self, shop: Shop, browser: httpx.AsyncClient
    ) -> None:
        password = "correct horse battery"
        email = await people.with_password(shop, password)
        given = {"email": email, "password": password}
        first = await browser.post("/auth/sign-in", json=given)
        assert first.json()["data"]["awaited"] == []
        offered = await browser.post("/account/second-factor/app", json={"password": password})
        secret = offered.json()["data"]["secret"]
        assert (offered.headers["cache-control"], len(secret)) == ("no-store", 32)
        code = code_of(secret, shop.distribu.ports.clock.now())
        confirmed = await browser.post("/account/second-factor/app/confirm", json={"code": code})
        spare = confirmed.json()["data"]["codes"][0]
        browser.cookies.clear()
        half = await browser.post("/auth/sign-in", json=given)
        assert set(half.json()["data"]["awaited"]) == {"APP", "RECOVERY_CODE"}
        assert [one.partition("=")[0] for one in half.headers.get_list("set-cookie")] == ["distribu_staff"]
        assert "Max-Age=600" in half.headers["set-cookie"]
        refused(await browser.get("/account"), 403, "second_factor_awaited")
        refused(await browser.get("/account/products"), 403, "second_factor_awaited")
        wrong = await browser.post("/account/second-factor/code", json={"code": "AAAA-AAAA-AAAA-AAAA"})
        refused(wrong, 422, "wrong_code")
        whole = await browser.post("/account/second-factor/code", json={"code": spare})
        assert (whole.status_code, whole.json()["data"]["awaited"]) == (200, [])
        lasting, device = whole.headers.get_list("set-cookie")
        assert "Max-Age=604800" in lasting
        assert device.startswith("distribu_device=")
        assert (await browser.get("/account/products")).status_code == 200
        left = (await browser.get("/account/second-factor")).json()["data"]
        assert left == {"app": True, "passkeys": [], "recoveryCodesLeft": 9}

    async def test_no_other_page_finishes_it(self, shop: Shop, browser: httpx.AsyncClient) -> None:
        carry(browser, *cookie_of(shop, await people.waiting(shop, Role.OWNER)))
        for path in ("code", "challenge", "passkey", "app"):
            answer = await browser.post(
                f"/account/second-factor/{path}", json={}, headers={"sec-fetch-site": "cross-site"}
            )
            refused(answer, 403, "cross_origin")


class TestEnds:
    """What ends a session ends it at the next request, wherever that is asked."""

    @pytest.mark.parametrize("headers", [{}, {"idempotency-key": "once"}], ids=["as it is", "under a key"])
    async def test_signing_out(self, headers: dict[str, str], shop: Shop, browser: httpx.AsyncClient) -> None:
        name, token = cookie_of(shop, await people.staff(shop, Role.OWNER))
        carry(browser, name, token)
        left = await browser.post("/account/sign-out", headers=headers)
        assert left.status_code == 204
        assert "Max-Age=0" in left.headers["set-cookie"]
        carry(browser, name, token)
        refused(await browser.get("/account"), 401, "unauthenticated")

    async def test_signing_out_everywhere(self, shop: Shop, browser: httpx.AsyncClient) -> None:
        member = await people.staff(shop, Role.OWNER)
        carry(browser, *cookie_of(shop, member))
        assert (await browser.post("/account/sign-out-everywhere")).status_code == 204
        carry(browser, *cookie_of(shop, member))
        refused(await browser.get("/account"), 401, "unauthenticated")

    async def test_a_blocked_customer_is_locked_out_with_all_its_contacts(
        self, shop: Shop, browser: httpx.AsyncClient
    ) -> None:
        customer = await shop.customer()
        somebody = [await people.buyer(shop, customer, role) for role in ContactRole]
        await shop.execute(EditCustomer(customer_id=customer.id, status=CustomerStatus.BLOCKED))
        for one in somebody:
            carry(browser, *cookie_of(shop, one))
            refused(await browser.get(f"/store/{shop.company.slug}/account"), 401, "unauthenticated")

    async def test_one_ends_only_ones_own(self, shop: Shop, browser: httpx.AsyncClient) -> None:
        one, other = await people.staff(shop, Role.OWNER), await people.staff(shop, Role.ADMIN)
        carry(browser, *cookie_of(shop, one))
        refused(await browser.delete(f"/account/sessions/{other.session.id}"), 404, "session_not_found")
        assert (await browser.delete(f"/account/sessions/{one.session.id}")).status_code == 204


class TestOrigins:
    @pytest.mark.parametrize(
        "headers",
        [
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site"},
            {"sec-fetch-site": "none"},
            {"sec-fetch-site": "", "origin": "https://elsewhere.example"},
            {"sec-fetch-site": "", "origin": "null"},
        ],
    )
    async def test_no_other_page_acts_with_ones_cookie(
        self, shop: Shop, browser: httpx.AsyncClient, headers: dict[str, str]
    ) -> None:
        carry(browser, *cookie_of(shop, await people.staff(shop, Role.OWNER)))
        for path in ("/account/sign-out", "/account/products", "/account/api-keys"):
            refused(await browser.post(path, json={}, headers=headers), 403, "cross_origin")
        assert (await browser.get("/account")).status_code == 200
        if headers["sec-fetch-site"] != "none":
            visit = await browser.post("/auth/sign-in", json={}, headers=headers)
            refused(visit, 403, "cross_origin")

    async def test_what_says_nothing_of_itself_acts_by_no_cookie(self, shop: Shop) -> None:
        async with door(shop) as program:
            del program.headers["sec-fetch-site"]
            carry(program, *cookie_of(shop, await people.staff(shop, Role.OWNER)))
            refused(await program.post("/account/sign-out"), 403, "cross_origin")


class TestNobodyIsTold:
    async def test_known_and_unknown_addresses_are_answered_alike(
        self, shop: Shop, browser: httpx.AsyncClient
    ) -> None:
        known = (await people.staff(shop, Role.OWNER)).user.email
        unknown = f"nobody-{shop.distribu.ports.entropy.uuid()}@example.test"
        for path, more in (
            ("/auth/request-reset", {}),
            ("/auth/resend-verification", {}),
            ("/auth/sign-in", {"password": "correct horse battery"}),
            ("/auth/sign-up", {"password": "correct horse battery", "companyName": "A", "fullName": "B"}),
        ):
            answers = [await browser.post(path, json={"email": email, **more}) for email in (known, unknown)]
            bodies = [one.text.replace(one.headers["x-request-id"], "") for one in answers]
            heads = [sorted(one.headers) for one in answers]
            assert answers[0].status_code == answers[1].status_code != 429
            assert bodies[0] == bodies[1]
            assert heads[0] == heads[1]

    async def test_each_has_a_mail_and_they_differ(self, shop: Shop) -> None:
        member = await people.staff(shop, Role.OWNER)
        await shop.distribu.execute(
            Actor.visitor(ip="203.0.113.1"), RequestPasswordReset(email=member.user.email.upper())
        )
        found = await shop.distribu.ports.queue.claim_mails(
            limit=10_000, now=shop.distribu.ports.clock.now(), claim_s=1
        )
        assert [mail.company_id for mail in found if mail.to == member.user.email] == [REALM]
