"""What is counted, who may read it, and that it names nobody."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import httpx
import pytest

from distribu import Actor, Distribu, Forbidden, Harness, InDoubt, NotFound, Role, Secret, amount, http_app
from distribu.adapters.limiter import FallbackLimiter, InProcessLimiter
from distribu.adapters.memory.store import MemoryStore, MemoryTx
from distribu.application.catalog import CreateProduct, ReadProduct
from distribu.application.ordering import ListOrders
from distribu.application.ports import Again, Limit, LimiterAway, Reply, Standing
from distribu.application.team import ReadMe
from distribu.domain.access import Permission
from distribu.domain.accounts import REALM
from distribu.domain.errors import CODES
from distribu.domain.values import ProductId
from distribu.entrypoints.http.browser import Site
from distribu.entrypoints.http.metrics import page
from distribu.settings import Environment, Settings
from tests.contracts.asking import contact_of

TOKEN = "metrics-0123456789_abcdefghijklmnop"
OPEN = Site(open_metrics=True)
GUARDED = Site(production=True, origin="https://orders.example", metrics_token=Secret(TOKEN))
CLOSED = Site(production=True, origin="https://orders.example")

SAMPLE = re.compile(r"(distribu_[a-z_]+)((?:\{(?:[a-z]+=\"[A-Za-z0-9_.+]+\",?)+\})?) ([0-9]+(?:\.[0-9e-]+)?)")


async def read(
    distribu: Distribu, site: Site, *, method: str = "GET", base: str = "https://h", **headers: str
) -> httpx.Response:
    app: Any = http_app(distribu, None, site)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=base) as client:
        return await client.request(method, "/metrics", headers=headers)


def samples(text: str) -> Mapping[str, float]:
    """The page, by metric and labels. Fails for what Prometheus could not read."""
    found: dict[str, float] = {}
    kinds: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in kinds
            kinds[name] = kind
        elif not line.startswith("# HELP "):
            matched = SAMPLE.fullmatch(line)
            assert matched is not None, line
            name = matched[1]
            family = re.sub(r"_(bucket|sum|count)$", "", name)
            assert kinds.get(name) or kinds[family] == "histogram"
            assert name + matched[2] not in found
            found[name + matched[2]] = float(matched[3])
    assert text.endswith("\n")
    return found


async def told(shop: Harness) -> Mapping[str, float]:
    answer = await read(shop.distribu, OPEN)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return samples(answer.text)


# --- who may read it -------------------------------------------------------------------------


async def test_in_development_everybody_may_read_them(shop: Harness) -> None:
    assert (await read(shop.distribu, Site.of(Settings()))).status_code == 200


async def test_in_production_there_are_none_without_a_token(shop: Harness) -> None:
    site = replace(Site.of(Settings(env=Environment.PRODUCTION)), origin="https://orders.example")
    for one in (site, CLOSED, Site()):
        got = await read(shop.distribu, one, authorization=f"Bearer {TOKEN}")
        app: Any = http_app(shop.distribu, None, one)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://h") as client:
            unknown = await client.get("/metrocs")
        assert got.status_code == unknown.status_code == 404
        id = "requestId"
        assert {**got.json(), id: ""} == {**unknown.json(), id: ""}


async def test_with_a_token_they_are_for_who_shows_it(shop: Harness) -> None:
    guarded = Site.of(Settings(metrics_token=TOKEN))  # in development too, once it is set
    for site in (GUARDED, guarded):
        assert (await read(shop.distribu, site, authorization=f"Bearer {TOKEN}")).status_code == 200
        for shown in (TOKEN, "Bearer", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}"):
            answer = await read(shop.distribu, site, authorization=shown)
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
        assert (await read(shop.distribu, site)).status_code == 401
    key = await shop.key()
    assert (await read(shop.distribu, GUARDED, authorization=f"Bearer {key}")).status_code == 401


async def test_in_production_they_are_for_https_alone(shop: Harness) -> None:
    """And not sent on: a monitor would send its token in the clear again, and nobody would notice."""
    answer = await read(shop.distribu, GUARDED, base="http://h", authorization=f"Bearer {TOKEN}")
    assert (answer.status_code, answer.json()["code"]) == (403, "https_required")


def test_the_token_is_shown_nowhere() -> None:
    settings = Settings(metrics_token=TOKEN)
    for shown in (repr(settings), repr(Site.of(settings)), str(Site.of(settings))):
        assert TOKEN not in shown


# --- what is counted ---------------------------------------------------------------------------


async def test_requests_are_counted_by_name_and_outcome(shop: Harness) -> None:
    before = await told(shop)
    api = await shop.api(Permission.PRODUCTS_READ)
    none = shop.distribu.ports.entropy.uuid()
    assert (await api.get("/me")).status_code == 200
    assert (await api.get(f"/products/{none}")).status_code == 404
    assert (await api.get("/orders")).status_code == 403
    assert (await api.get("/nothing")).status_code == 404
    after = await told(shop)
    for name, outcome in (
        ("ReadMe", "ok"),
        ("ReadProduct", "product_not_found"),
        ("ListOrders", "missing_scope"),
    ):
        assert after[f'distribu_requests_total{{request="{name}",outcome="{outcome}"}}'] == 1
        assert after[f'distribu_request_seconds_count{{request="{name}"}}'] == 1
    assert after['distribu_refusals_total{recorded="written"}'] == 1
    assert before.get('distribu_http_answers_total{class="4xx"}', 0) == 0
    assert after['distribu_http_answers_total{class="4xx"}'] == 3
    assert after['distribu_http_answers_total{class="2xx"}'] == 2, "the page before and /me"


async def test_what_was_no_refusal_is_counted_as_what_it_was(
    shop: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts, asked = shop.distribu.counts, CreateProduct(name="Flour", price=amount("1"))
    begun, end = asyncio.Event(), asyncio.Event()

    async def hang(*_: Any) -> None:
        begun.set()
        await end.wait()

    for error, outcome in ((ValueError("x"), "internal_error"), (InDoubt("x"), "outcome_unknown")):

        async def fail(*_: Any, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(MemoryTx, "write", fail)
        with pytest.raises(type(error)):
            await shop.execute(asked)
        assert counts.requests["CreateProduct", outcome] == 1
    monkeypatch.setattr(MemoryTx, "write", hang)
    task = asyncio.create_task(shop.execute(asked))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert counts.requests["CreateProduct", "cancelled"] == 1


async def test_a_command_that_is_run_again_is_counted(shop: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    write, times = MemoryTx.write, [0]

    async def twice(self: MemoryTx, *given: Any) -> Any:
        times[0] += 1
        if times[0] < 3:
            raise Again
        return await write(self, *given)

    monkeypatch.setattr(MemoryTx, "write", twice)
    await shop.product()
    after = await told(shop)
    assert after['distribu_retries_total{request="CreateProduct"}'] == 2
    assert after['distribu_requests_total{request="CreateProduct",outcome="ok"}'] == 1


async def test_durations_are_in_buckets(shop: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = MemoryStore.begin
    took = iter((0.004, 0.006, 3.0))

    def slow(self: MemoryStore, *given: Any, **more: Any) -> Any:
        shop.clock.advance(seconds=next(took))
        return begin(self, *given, **more)

    monkeypatch.setattr(MemoryStore, "begin", slow)
    for _ in range(3):
        await shop.execute(ListOrders())
    monkeypatch.undo()
    after = await told(shop)
    buckets = {
        bound: after[f'distribu_request_seconds_bucket{{request="ListOrders",le="{bound}"}}']
        for bound in ("0.005", "0.025", "0.1", "0.5", "2.5", "+Inf")
    }
    assert buckets == {"0.005": 1, "0.025": 2, "0.1": 2, "0.5": 2, "2.5": 2, "+Inf": 3}
    assert after['distribu_request_seconds_sum{request="ListOrders"}'] == pytest.approx(3.01)
    assert after['distribu_request_seconds_count{request="ListOrders"}'] == 3


async def test_deliveries_and_mails_are_counted_and_what_waits(shop: Harness) -> None:
    await shop.webhook()
    await shop.product()
    shop.clock.advance(seconds=7)
    waiting = await told(shop)
    assert waiting['distribu_waiting{what="events"}'] == 1
    assert waiting['distribu_waiting_late_seconds{what="events"}'] == 7
    assert waiting['distribu_waiting{what="records"}'] > 0
    assert waiting['distribu_waiting_late_seconds{what="records"}'] == 7
    shop.receivers.answer = lambda _: Reply(500, {}, "", "")
    await shop.work()
    shop.receivers.answer = lambda _: Reply(200, {}, "", "")
    await shop.product()
    customer = await shop.customer()
    await shop.order(customer, (await shop.product(), 1))
    await shop.work()
    after = await told(shop)
    assert after['distribu_deliveries_total{outcome="pending"}'] == 1
    assert after['distribu_deliveries_total{outcome="delivered"}'] == len(shop.received) - 1
    assert after['distribu_mails_total{outcome="sent"}'] == len(shop.mail) > 0
    assert after['distribu_waiting{what="events"}'] == 0
    assert after['distribu_waiting{what="records"}'] == 0
    assert after['distribu_waiting{what="deliveries"}'] == 1


async def test_what_waits_is_left_out_when_the_database_does_not_say(
    shop: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise ValueError("hunter2")

    monkeypatch.setattr(MemoryStore, "backlog", broken)
    after = await told(shop)
    assert not [name for name in after if name.startswith("distribu_waiting")]
    assert after["distribu_passwords_under_way"] == 0


class Away:
    """A limiter that cannot be reached."""

    away = 0

    async def take(self, limit: Limit) -> Standing:
        raise LimiterAway("no route to host")


async def test_fail_open_is_chosen_per_method_and_visible(shop: Harness) -> None:
    """With what counts for all servers away, this one counts for itself, and says how often it did."""
    clock = shop.clock
    limiter = FallbackLimiter(Away(), InProcessLimiter(clock), clock=clock)
    distribu = Distribu(replace(shop.distribu.ports, limiter=limiter))
    for expected in (True, True, False):
        assert (await limiter.take(Limit("k", 2, 60))).allowed is expected
    text = "".join(page(distribu, None))
    assert samples(text)["distribu_limits_away_total"] == 3


# --- what is not in it --------------------------------------------------------------------------


async def test_no_label_names_anybody_or_was_chosen_by_a_caller(shop: Harness) -> None:
    api = await shop.api()
    await api.get("/hunter2")
    await api.get("/products?search=hunter2")
    await api.request("HUNTER2", "/me", headers={"authorization": "Bearer hunter2"})
    await api.post("/customers", json={"email": "hunter2@b.example"}, headers={"idempotency-key": "hunter2"})
    member = Actor.staff(shop.company.id, Role.MEMBER, id="hunter2", label="hunter2")
    contact = contact_of(shop, await shop.customer())
    with pytest.raises(Forbidden):
        await shop.execute(CreateProduct(name="hunter2", price=amount("1")), contact)
    with pytest.raises(NotFound):
        await shop.execute(ReadProduct(product_id=ProductId(REALM)), member)
    text = (await read(shop.distribu, OPEN)).text
    assert "hunter2" not in text.lower()
    for id in (shop.company.id, shop.company.slug, REALM):
        assert id not in text
    outcomes = set(re.findall(r'outcome="([^"]*)"', text))
    assert outcomes <= {"ok", "cancelled", *CODES}


async def test_counting_is_bounded(shop: Harness) -> None:
    for n in range(50):
        with pytest.raises(Forbidden):
            await shop.execute(ListOrders(), Actor.visitor(ip=f"192.0.2.{n}"))
    assert list(shop.distribu.counts.requests) == [("CreateCompany", "ok"), ("ListOrders", "forbidden")]
    await shop.execute(ReadMe())
    assert len(shop.distribu.counts.requests) == 3
