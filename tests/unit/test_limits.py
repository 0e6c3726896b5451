"""The limits as clients meet them: of the public API, and on everything that could be guessed or flooded.

The classes run again on Redis, shared by two HTTP applications (`tests/integration/test_limits_redis.py`).
"""

import asyncio
import random
import sys
from collections import Counter
from dataclasses import dataclass, field
from ipaddress import ip_network
from itertools import count
from typing import Any, Final

import httpx
import pytest

from distribu import Actor, ApiLimits, Distribu, Harness, Settings, http_app
from distribu.adapters.limiter import InProcessLimiter
from distribu.adapters.memory.store import MemoryStore
from distribu.adapters.memory.twins import MovedClock
from distribu.application.platform import SetLimit
from distribu.application.ports import Limit
from distribu.domain.access import Permission
from distribu.domain.errors import InDoubt
from distribu.entrypoints.harness import KEYS
from distribu.entrypoints.http.browser import Site
from distribu.entrypoints.http.wire import BODY_MAX

USUAL = ApiLimits(per_key=60, per_ip=120)
LIMIT_HEADERS: Final = {
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "ratelimit-policy",
    "ratelimit",
}
_addresses = count(1)
_mails = count(1)


def fresh_ip() -> str:
    """An address that nobody has come from."""
    number = next(_addresses)
    return f"198.18.{number >> 8}.{number & 0xFF}"


def fresh_mail() -> str:
    return f"guest-{next(_mails)}@example.test"


@pytest.fixture
def servers(shop: Harness) -> list[Distribu]:
    """Whoever answers; here it is one, which counts by itself."""
    return [shop.distribu]


class Visitor:
    """Somebody at an address, whose requests go to each of the servers in turn."""

    def __init__(
        self,
        servers: list[Distribu],
        *,
        ip: str | None = None,
        limits: ApiLimits | None = None,
        key: str | None = None,
    ) -> None:
        self.ip = ip or fresh_ip()
        headers = {"authorization": f"Bearer {key}"} if key else {"sec-fetch-site": "same-origin"}
        apps: list[Any] = [http_app(one, limits, keys=KEYS) for one in servers]
        self._clients = [
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app, client=(self.ip, 50_000), raise_app_exceptions=False),
                base_url="http://distribu",
                headers=headers,
            )
            for app in apps
        ]
        self._turn = count()

    async def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        client = self._clients[next(self._turn) % len(self._clients)]
        return await client.request(method, path, **more)


@dataclass(frozen=True)
class Surface:
    """What anybody may do, and how often from one address."""

    path: str
    body: dict[str, Any]
    most: int
    window_s: int
    status: int

    async def use(self, visitor: Visitor, slug: str, **instead: str) -> httpx.Response:
        body = {**self.body, "email": fresh_mail(), **instead}
        answer = await visitor.ask("POST", self.path.format(slug=slug), json=body)
        assert answer.status_code in (self.status, 429), answer.text
        return answer


_PASSWORD: Final = {"password": "correct horse battery staple"}
_FORM: Final = {"fullName": "Ada Marsh", "text": "Do you deliver to Norway?"}
SURFACES: Final = {
    "login": Surface("/auth/sign-in", _PASSWORD, 10, 900, 401),
    "login at a store": Surface("/store/{slug}/auth/sign-in", _PASSWORD, 10, 900, 401),
    "sign-up": Surface(
        "/auth/sign-up", {"companyName": "Acme", "fullName": "Ada Marsh", **_PASSWORD}, 5, 3600, 204
    ),
    "registration": Surface(
        "/store/{slug}/auth/register", {"name": "Corner Shop", **_PASSWORD}, 5, 3600, 204
    ),
    "reset": Surface("/auth/request-reset", {}, 5, 3600, 204),
    "verification resend": Surface("/auth/resend-verification", {}, 5, 3600, 204),
    "contact form": Surface("/auth/inquiries", {"kind": "CONTACT", **_FORM}, 5, 3600, 204),
    "feature-request form": Surface("/auth/inquiries", {"kind": "FEATURE", **_FORM}, 5, 3600, 204),
}
"""The limits of anybody who is not signed in, by address."""


def of(answers: list[httpx.Response]) -> Counter[int]:
    return Counter(one.status_code for one in answers)


def waits(answer: httpx.Response) -> int:
    """How long one who is refused is told to wait."""
    assert answer.status_code == 429, answer.text
    assert answer.json()["code"] == "rate_limited"
    assert int(answer.headers["retry-after"]) == answer.json()["retryAfter"]
    return int(answer.headers["retry-after"])


class TestGuessing:
    """Limits by address on what nobody has to be signed in for."""

    @pytest.mark.parametrize("name", ["login", "login at a store"])
    async def test_the_11th_login_in_15_minutes_is_refused_and_waiting_as_told_lets_exactly_one_in(
        self, shop: Harness, servers: list[Distribu], name: str
    ) -> None:
        login, slug, visitor = SURFACES[name], shop.company.slug, Visitor(servers)
        for _ in range(10):
            assert (await login.use(visitor, slug)).status_code == 401
            shop.clock.advance(seconds=7)
        refused = await login.use(visitor, slug)
        assert waits(refused) == 900 - 70
        shop.clock.advance(seconds=waits(refused) - 1)
        assert waits(await login.use(visitor, slug)) == 1
        shop.clock.advance(seconds=1)
        assert of([await login.use(visitor, slug) for _ in range(5)]) == {401: 1, 429: 4}
        assert (await login.use(Visitor(servers), slug)).status_code == 401, "another address"

    async def test_each_surface_has_its_own_limit_and_uses_up_no_other(
        self, shop: Harness, servers: list[Distribu]
    ) -> None:
        """All of them from one address, at once: each lets in as many as is its own."""
        visitor, slug = Visitor(servers), shop.company.slug

        async def each(times: dict[str, int]) -> dict[str, list[httpx.Response]]:
            asked = [(name, SURFACES[name]) for name, number in times.items() for _ in range(number)]
            answers = await asyncio.gather(*(surface.use(visitor, slug) for _, surface in asked))
            by_name: dict[str, list[httpx.Response]] = {name: [] for name in times}
            for (name, _), answer in zip(asked, answers, strict=True):
                by_name[name].append(answer)
            return by_name

        one_each = dict.fromkeys(SURFACES, 1)
        del one_each["login at a store"]  # counted with the other: whoever guesses, guesses anywhere
        for name, answers in (await each(one_each)).items():
            assert of(answers) == {SURFACES[name].status: 1}, name
        shop.clock.advance(seconds=100)
        for name, answers in (await each(dict.fromkeys(one_each, 12))).items():
            left = SURFACES[name].most - 1
            assert of(answers) == {SURFACES[name].status: left, 429: 12 - left}, name
        told = {name: waits(answers[0]) for name, answers in (await each(one_each)).items()}
        assert told == {name: surface.window_s - 100 for name, surface in SURFACES.items() if name in told}
        shop.clock.advance(seconds=900 - 100)
        for name, answers in (await each(dict.fromkeys(one_each, 2))).items():
            again = {SURFACES[name].status: 1, 429: 1} if SURFACES[name].window_s == 900 else {429: 2}
            assert of(answers) == again, name
        shop.clock.advance(seconds=3600 - 900 - 1)
        hourly = {name: 2 for name, surface in SURFACES.items() if surface.window_s == 3600}
        for name, answers in (await each(hourly)).items():
            assert of(answers) == {429: 2}, f"{name}, a second less than told"
        shop.clock.advance(seconds=1)
        for name, answers in (await each(hourly)).items():
            assert of(answers) == {204: 1, 429: 1}, name

    async def test_a_reset_is_asked_for_three_times_an_hour_of_one_mail_address(
        self, shop: Harness, servers: list[Distribu]
    ) -> None:
        reset, email = SURFACES["reset"], fresh_mail()
        asked = [reset.use(Visitor(servers), "", email=email) for _ in range(5)]
        assert of(await asyncio.gather(*asked)) == {204: 3, 429: 2}
        assert waits(await reset.use(Visitor(servers), "", email=email.upper())) == 3600
        assert (await reset.use(Visitor(servers), "")).status_code == 204, "another address of mail"
        shop.clock.advance(seconds=3600)
        assert (await reset.use(Visitor(servers), "", email=email)).status_code == 204

    async def test_a_hundred_logins_at_once_admit_exactly_ten(
        self, shop: Harness, servers: list[Distribu]
    ) -> None:
        visitor = Visitor(servers)
        answers = await asyncio.gather(*(SURFACES["login"].use(visitor, "") for _ in range(100)))
        assert of(answers) == {401: 10, 429: 90}


@dataclass
class Lone:
    """The only one at an address and with a key, who notes what was let in."""

    visitor: Visitor
    per_key: int
    per_ip: int
    key_passed: list[float] = field(default_factory=list)

    async def ask(self, shop: Harness) -> httpx.Response:
        answer = await self.visitor.ask("GET", "/api/v1/me")
        if answer.status_code == 200:
            self.key_passed.append(shop.clock.now().timestamp())
        else:
            assert answer.status_code == 429, answer.text
        assert answer.headers.keys() >= LIMIT_HEADERS
        return answer


class TestHeaders:
    """What the headers of the API say is what happens."""

    @pytest.mark.parametrize(
        ("per_key", "per_ip"), [(60, 120), (60, 0), (0, 60), (1, 0), (0, 1), (1, 2), (5, 7), (7, 5)]
    )
    async def test_whoever_believes_them_is_let_in(
        self, shop: Harness, servers: list[Distribu], per_key: int, per_ip: int
    ) -> None:
        """Random traffic of one who comes alone: with room left the next passes, after Retry-After too."""
        draw, limits = random.Random(per_key * 1000 + per_ip), ApiLimits(per_key=per_key, per_ip=per_ip)
        lone = Lone(Visitor(servers, limits=limits, key=await shop.key()), per_key, per_ip)
        seen = Counter[str]()
        said = await lone.ask(shop)
        for _ in range(500):
            remaining = int(said.headers["x-ratelimit-remaining"])
            reset_in = int(said.headers["x-ratelimit-reset"]) - shop.clock.now().timestamp()
            assert reset_in < 61, "a whole second, rounded up"
            case, wait = "at once", 0.0
            if said.status_code == 429 and draw.random() < 0.5:
                case, wait = draw.choice([("as told", waits(said)), ("a second less", waits(said) - 1)])
            elif draw.random() < 0.1:
                case, wait = "some time", draw.choice([0.001, 1.0, 7.0, 29.999])
            by_address_alone = said.status_code == 429 and '"key"' not in said.headers["ratelimit"]
            shop.clock.advance(seconds=wait)
            said = await lone.ask(shop)
            if remaining:
                case = "room"
                assert said.status_code == 200
            elif case == "as told" and by_address_alone and per_key:
                # Nobody had asked whose key it is: the address has room again, and the key is told of now.
                assert '"key"' in said.headers["ratelimit"]
            elif case == "as told":
                assert said.status_code == 200
            elif case == "a second less":
                assert said.status_code == 429, "the least number of seconds is told"
            seen[case] += 1
        assert all(seen[case] >= 3 for case in ("as told", "a second less", "at once")), seen
        most = min(filter(None, (per_key, per_ip)))
        spans = zip(lone.key_passed[most:], lone.key_passed, strict=False)
        assert all(at - first > 60 - 1e-6 for at, first in spans), "a minute admitted one more"

    async def test_of_sixty_for_a_key_and_120_for_an_address_the_first_that_is_hit_counts(
        self, shop: Harness, servers: list[Distribu]
    ) -> None:
        ip = fresh_ip()
        one, other, third = [Visitor(servers, ip=ip, limits=USUAL, key=await shop.key()) for _ in range(3)]
        first = await asyncio.gather(*(one.ask("GET", "/api/v1/me") for _ in range(61)))
        assert of(first) == {200: 60, 429: 1}
        shop.clock.advance(seconds=10)
        # The refused one was counted for the address as well: 59 of it are left.
        second = await asyncio.gather(*(other.ask("GET", "/api/v1/me") for _ in range(60)))
        assert of(second) == {200: 59, 429: 1}
        refused = await third.ask("GET", "/api/v1/me")
        assert waits(refused) == 50
        assert refused.headers["x-ratelimit-limit"] == "120"
        elsewhere = Visitor(servers, limits=USUAL, key=await shop.key())
        assert (await elsewhere.ask("GET", "/api/v1/me")).headers["x-ratelimit-remaining"] == "59"

    async def test_who_is_refused_for_the_key_is_not_sent_back_to_an_address_that_is_full(
        self, shop: Harness, servers: list[Distribu]
    ) -> None:
        limits, key = ApiLimits(per_key=1, per_ip=2), await shop.key()
        assert (await Visitor(servers, limits=limits, key=key).ask("GET", "/api/v1/me")).status_code == 200
        lone = Visitor(servers, limits=limits, key=key)
        shop.clock.advance(seconds=30)
        await lone.ask("GET", "/api/v1/me")
        shop.clock.advance(seconds=1)
        refused = await lone.ask("GET", "/api/v1/me")
        shop.clock.advance(seconds=1)
        # The key has room after 29 seconds; the address is full of what the key was refused, until 30 later.
        assert waits(refused) == 59
        shop.clock.advance(seconds=59 - 1)
        assert (await lone.ask("GET", "/api/v1/me")).status_code == 200

    async def test_a_burst_across_the_edge_of_a_minute_is_no_second_minute(
        self, shop: Harness, servers: list[Distribu]
    ) -> None:
        """ratelimit-js#61: what is called sliding must not be a window that starts anew."""
        lone = Visitor(servers, limits=USUAL, key=await shop.key())
        shop.clock.advance(seconds=60 - shop.clock.now().timestamp() % 60 + 59)
        before = await asyncio.gather(*(lone.ask("GET", "/api/v1/me") for _ in range(60)))
        shop.clock.advance(seconds=2)
        after = await asyncio.gather(*(lone.ask("GET", "/api/v1/me") for _ in range(60)))
        assert (of(before), of(after)) == ({200: 60}, {429: 60})

    async def test_a_limit_of_one_admits_one_a_minute(self, shop: Harness, servers: list[Distribu]) -> None:
        """ratelimit-js#39: it never admitted any."""
        lone = Visitor(servers, limits=ApiLimits(per_key=1, per_ip=1), key=await shop.key())
        for _ in range(3):
            assert (await lone.ask("GET", "/api/v1/me")).status_code == 200
            assert waits(await lone.ask("GET", "/api/v1/me")) == 60
            shop.clock.advance(seconds=60)

    async def test_a_company_s_own_limit_counts_at_the_next_request(
        self, shop: Harness, servers: list[Distribu]
    ) -> None:
        lone = Visitor(servers, limits=ApiLimits(per_key=3, per_ip=1000), key=await shop.key())
        assert of([await lone.ask("GET", "/api/v1/me") for _ in range(4)]) == {200: 3, 429: 1}
        await shop.distribu.run(Actor.system(shop.company.id), SetLimit(api_limit=5))
        answer = await lone.ask("GET", "/api/v1/me")
        assert answer.status_code == 200
        assert (answer.headers["x-ratelimit-limit"], answer.headers["x-ratelimit-remaining"]) == ("5", "1")
        assert '"key";q=5;w=60' in answer.headers["ratelimit-policy"]
        await shop.distribu.run(Actor.system(shop.company.id), SetLimit(api_limit=2))
        answer = await lone.ask("GET", "/api/v1/me")
        assert (answer.status_code, answer.headers["x-ratelimit-limit"]) == (429, "2")
        await shop.distribu.run(Actor.system(shop.company.id), SetLimit(api_limit=None))
        answer = await lone.ask("GET", "/api/v1/me")
        assert (answer.status_code, answer.headers["x-ratelimit-limit"]) == (429, "3")

    async def test_they_are_on_every_answer(
        self, shop: Harness, servers: list[Distribu], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        product = await shop.product()
        limits = ApiLimits(per_key=50, per_ip=1000)
        full = Visitor(servers, limits=limits, key=await shop.key())
        poor = Visitor(servers, ip=full.ip, limits=limits, key=await shop.key(Permission.PRODUCTS_READ))
        wrong = Visitor(servers, ip=full.ip, limits=limits, key="dk_" + "A" * 43)
        nobody = Visitor(servers, ip=full.ip, limits=limits)
        body, once = {"name": "Rye Flour", "price": 1}, {"idempotency-key": "one"}
        product_path, text = f"/api/v1/products/{product.id}", {"content-type": "text/plain"}
        much = b" " * (BODY_MAX + 1)
        remaining = {full: 50, poor: 50}
        for who, method, path, more, status in (
            (full, "GET", "/api/v1/me", {}, 200),
            (full, "POST", "/api/v1/products", {"json": body, "headers": once}, 201),
            (full, "POST", "/api/v1/products", {"json": body, "headers": once}, 201),
            (full, "POST", "/api/v1/products", {"json": {**body, "name": "Oat"}, "headers": once}, 422),
            (full, "DELETE", product_path, {}, 204),
            (full, "GET", product_path, {}, 404),
            (full, "GET", "/api/v1/nothing", {}, 404),
            (full, "GET", "/api/v1/nothing/at/all", {}, 404),
            (full, "DELETE", "/api/v1/me", {}, 405),
            (full, "PROPFIND", "/api/v1/me", {}, 405),
            (full, "OPTIONS", "/api/v1/me", {}, 204),
            (full, "GET", "/api//v1/me", {}, 200),
            (full, "POST", "/api/v1/products", {"content": b"{"}, 400),
            (full, "PATCH", product_path, {"json": {}, "headers": {"if-match": "x"}}, 412),
            (full, "POST", "/api/v1/products", {"content": much}, 413),
            (full, "POST", "/api/v1/products", {"content": b"x", "headers": text}, 415),
            (poor, "POST", "/api/v1/products", {"json": body}, 403),
            (wrong, "GET", "/api/v1/me", {}, 401),
            (nobody, "GET", "/api/v1/me", {}, 401),
            (nobody, "GET", "/api/v1/nothing", {}, 404),
        ):  # type: Visitor, str, str, dict[str, Any], int
            answer = await who.ask(method, path, **more)
            assert answer.status_code == status, (method, path, answer.text)
            assert answer.headers.keys() >= LIMIT_HEADERS, (method, path)
            assert answer.headers.get_list("x-ratelimit-limit")[1:] == []
            if who in remaining:
                remaining[who] -= 1
                assert answer.headers["x-ratelimit-remaining"] == str(remaining[who]), (method, path)
            else:
                assert answer.headers["x-ratelimit-limit"] == "1000"
        replayed = await full.ask("POST", "/api/v1/products", json=body, headers=once)
        assert replayed.headers["idempotent-replayed"] == "true"
        assert replayed.headers.keys() >= LIMIT_HEADERS

        for error, status in ((InDoubt("lost"), 503), (RuntimeError("a mistake of ours"), 500)):

            async def fails(*_: Any, error: Exception = error, **__: Any) -> None:
                raise error

            for where in ("begin", "key"):
                if isinstance(error, InDoubt) and where == "key":
                    continue
                with monkeypatch.context() as patch:
                    patch.setattr(MemoryStore, where, fails if where == "key" else _breaks(error))
                    answer = await full.ask("GET", "/api/v1/me")
                assert (answer.status_code, where) == (status, where), answer.text
                assert answer.headers.keys() >= LIMIT_HEADERS
        spent = [await full.ask("GET", "/api/v1/nothing") for _ in range(50)]
        assert of(spent)[429] >= 15, "no key gets further by asking for what there is not"
        assert all(one.headers.keys() >= LIMIT_HEADERS for one in spent)


def _breaks(error: Exception) -> Any:
    def begin(*_: Any, **__: Any) -> Any:
        raise error

    return begin


async def statuses(api: httpx.AsyncClient, times: int, path: str = "/me") -> list[int]:
    return [(await api.get(path)).status_code for _ in range(times)]


def test_the_usual_limits_are_those_of_the_settings() -> None:
    assert (Settings().api_limit_per_key, Settings().api_limit_per_ip) == (60, 120)


async def test_the_61st_request_of_a_key_is_refused_and_told_when_to_come_again(shop: Harness) -> None:
    api = await shop.api(limits=USUAL)
    assert await statuses(api, 60) == [200] * 60
    refused = await api.get("/me")
    assert refused.status_code == 429
    assert refused.json()["code"] == "rate_limited"
    assert refused.json()["retryAfter"] == int(refused.headers["retry-after"]) == 60
    shop.clock.advance(seconds=59.999)
    assert (await api.get("/me")).status_code == 429
    shop.clock.advance(seconds=0.001)
    assert (await api.get("/me")).status_code == 200


async def test_two_keys_of_one_address_share_its_limit(shop: Harness) -> None:
    limits = ApiLimits(per_key=60, per_ip=100)
    one, other = await shop.api(limits=limits), await shop.api(limits=limits)
    assert await statuses(one, 60) == [200] * 60
    assert await statuses(other, 41) == [200] * 40 + [429]


async def test_guessing_keys_counts_for_the_address(shop: Harness) -> None:
    api = await shop.api(limits=ApiLimits(per_key=60, per_ip=5))
    guess = {"authorization": "Bearer dk_" + "A" * 43}
    tries = [(await api.get("/me", headers=guess)).status_code for _ in range(7)]
    assert tries == [401] * 5 + [429] * 2


async def test_every_answer_says_how_the_tighter_limit_stands(shop: Harness) -> None:
    api = await shop.api(limits=ApiLimits(per_key=10, per_ip=4))
    now = shop.clock.now().timestamp()
    for path, remaining in (("/me", 3), ("/orders/nonsense", 2), ("/products?nonsense=1", 1)):
        headers = (await api.get(path)).headers
        assert headers["x-ratelimit-limit"] == "4"
        assert headers["x-ratelimit-remaining"] == str(remaining)
        assert int(headers["x-ratelimit-reset"]) == now + 60
    posted = await api.post("/customers", json={"email": "a@b.example"}, headers={"idempotency-key": "1"})
    assert posted.headers["x-ratelimit-remaining"] == "0"
    assert (await api.get("/me")).headers["x-ratelimit-remaining"] == "0"


async def test_a_request_that_is_refused_changes_nothing(shop: Harness) -> None:
    api = await shop.api(limits=ApiLimits(per_key=1))
    assert (await api.get("/me")).status_code == 200
    refused = await api.post("/customers", json={"email": "a@b.example"})
    assert refused.status_code == 429
    assert (await (await shop.api()).get("/customers")).json()["data"] == []


async def test_a_great_limit_costs_what_a_small_one_does() -> None:
    """limits#268: the cost grew with the limit. Here a check makes the same calls, whatever is held."""
    clock = MovedClock()
    limiter = InProcessLimiter(clock)

    async def calls() -> int:
        made = 0

        def note(frame: object, event: str, what: object) -> None:
            nonlocal made
            made += event in ("call", "c_call")

        sys.setprofile(note)
        try:
            assert (await limiter.take(Limit("great", 100_000, 60.0))).allowed
        finally:
            sys.setprofile(None)
        return made

    await limiter.take(Limit("great", 100_000, 60.0))
    few = await calls()
    for _ in range(99_000):
        await limiter.take(Limit("great", 100_000, 60.0))
    assert await calls() == few


async def test_the_first_hop_of_a_forwarded_header_changes_no_limit(shop: Harness) -> None:
    """fastapi-limiter#9: whoever wrote a new first hop each time was never limited."""
    proxy = Site(trusted=(ip_network("10.0.0.0/8"),))
    for site, peer in ((Site(), "198.51.100.7"), (proxy, "198.51.100.7"), (proxy, "10.1.2.3")):
        app: Any = http_app(shop.distribu, ApiLimits(per_ip=3), site)
        transport = httpx.ASGITransport(app, client=(peer, 50_000))
        async with httpx.AsyncClient(transport=transport, base_url="http://distribu") as client:
            hops = [f"203.0.113.{number}, 192.0.2.1, 10.9.9.9" for number in range(4)]
            came = [(await client.get("/api/v1/me", headers={"x-forwarded-for": one})) for one in hops]
        assert [one.status_code for one in came] == [401] * 3 + [429]
        shop.clock.advance(seconds=60)


async def test_without_limits_there_are_no_headers_of_limits(shop: Harness) -> None:
    api = await shop.api()
    assert await statuses(api, 130) == [200] * 130
    assert not [name for name in (await api.get("/me")).headers if "ratelimit" in name]
