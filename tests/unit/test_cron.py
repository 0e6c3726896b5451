"""``POST /cron/{job}``: for whoever shows the token, and for nobody else."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from distribu import Distribu, Harness, Secret, SettingsUnusable, http_app, load
from distribu.application import jobs
from distribu.application.jobs import JOBS, Job
from distribu.entrypoints.http import cron
from distribu.entrypoints.http.browser import Site
from distribu.entrypoints.http.metrics import page
from distribu.settings import Settings

TOKEN = "cron-0123456789_abcdefghijklmnopqr"
OPEN = Site(cron_token=Secret(TOKEN))
SHOWN = f"Bearer {TOKEN}"


async def ask(
    distribu: Distribu,
    path: str = "/cron/forget",
    *,
    site: Site = OPEN,
    method: str = "POST",
    base: str = "https://h",
    authorization: str | None = None,
) -> httpx.Response:
    app: Any = http_app(distribu, None, site)
    headers = {} if authorization is None else {"authorization": authorization}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=base) as client:
        return await client.request(method, path, headers=headers)


def said(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def test_with_the_token_a_job_runs_and_says_what_came_of_it(shop: Harness) -> None:
    answer = await ask(shop.distribu, authorization=SHOWN)
    assert answer.status_code == 200
    assert answer.json() == {"data": {"job": "forget", "outcome": "DONE", "count": 0}}
    assert answer.headers["x-request-id"]


async def test_without_a_token_that_is_set_there_is_no_such_route(shop: Harness) -> None:
    for method in ("POST", "GET"):
        absent = await ask(shop.distribu, site=Site(), method=method, authorization=SHOWN)
        unknown = await ask(shop.distribu, "/crom/forget", site=Site(), method=method, authorization=SHOWN)
        assert absent.status_code == unknown.status_code == 404
        id = "requestId"
        assert {**absent.json(), id: ""} == {**unknown.json(), id: ""}
    assert not shop.distribu.counts.jobs


@pytest.mark.parametrize(
    "shown", ["", TOKEN, "Bearer", "Bearer ", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}"]
)
async def test_whoever_shows_anything_else_learns_and_runs_nothing(shop: Harness, shown: str) -> None:
    for path in ("/cron/forget", "/cron/nothing"):
        assert said(await ask(shop.distribu, path, authorization=shown)) == (401, "unauthenticated")
    assert said(await ask(shop.distribu)) == (401, "unauthenticated")
    assert not shop.distribu.counts.jobs


async def test_an_api_key_and_the_metrics_token_run_nothing(shop: Harness) -> None:
    site = Site(cron_token=Secret(TOKEN), metrics_token=Secret("metrics-0123456789_abcdefghijklmnop"))
    for shown in (await shop.key(), "metrics-0123456789_abcdefghijklmnop"):
        answer = await ask(shop.distribu, site=site, authorization=f"Bearer {shown}")
        assert said(answer) == (401, "unauthenticated")


async def test_the_token_is_compared_in_a_time_that_tells_nothing(
    shop: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return False

    monkeypatch.setattr("hmac.compare_digest", compare)
    assert said(await ask(shop.distribu, authorization=SHOWN)) == (401, "unauthenticated")
    assert compared == [(f"Bearer {TOKEN}".encode(), f"Bearer {TOKEN}".encode())]


async def test_an_unknown_job_is_not_found(shop: Harness) -> None:
    for path in ("/cron/nothing", "/cron/Forget", "/cron/%00", "/cron/" + "a" * 5000):
        assert said(await ask(shop.distribu, path, authorization=SHOWN)) == (404, "job_not_found")


async def test_nothing_is_got(shop: Harness) -> None:
    assert said(await ask(shop.distribu, method="GET", authorization=SHOWN)) == (405, "method_not_allowed")
    assert not shop.distribu.counts.jobs


async def test_one_that_runs_already_says_so(shop: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, end = asyncio.Event(), asyncio.Event()

    async def slow(_: Distribu) -> int:
        """Take a while."""
        begun.set()
        await end.wait()
        return 3

    monkeypatch.setattr(cron, "named", lambda name: Job(name="slow", action=slow, every=timedelta(hours=1)))
    first = asyncio.create_task(ask(shop.distribu, "/cron/slow", authorization=SHOWN))
    await begun.wait()
    assert said(await ask(shop.distribu, "/cron/slow", authorization=SHOWN)) == (409, "job_running")
    end.set()
    assert (await first).json()["data"]["count"] == 3


async def test_one_that_fails_is_no_answer_of_200_and_tells_nothing(
    shop: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_: Distribu) -> int:
        """Fail."""
        raise ValueError("hunter2")

    job = Job(name="broken", action=broken, every=timedelta(hours=1))
    monkeypatch.setattr(cron, "named", lambda _: job)
    answer = await ask(shop.distribu, "/cron/broken", authorization=SHOWN)
    assert said(answer) == (503, "job_failed")
    assert answer.headers["retry-after"] == "60"
    assert "hunter2" not in answer.text


async def test_whoever_tries_and_tries_is_held_up_with_the_token_or_without(shop: Harness) -> None:
    for _ in range(cron.MOST):
        assert (await ask(shop.distribu, authorization="Bearer wrong")).status_code == 401
    refused = await ask(shop.distribu, authorization=SHOWN)
    assert said(refused) == (429, "rate_limited")
    assert int(refused.headers["retry-after"]) > 0
    shop.clock.advance(seconds=61)
    assert (await ask(shop.distribu, authorization=SHOWN)).status_code == 200


async def test_in_production_it_is_for_https_alone(shop: Harness) -> None:
    """And not sent on, which would show the token in the clear again."""
    site = Site(production=True, origin="https://orders.example", cron_token=Secret(TOKEN))
    refused = await ask(shop.distribu, site=site, base="http://h", authorization=SHOWN)
    assert said(refused) == (403, "https_required")
    assert (await ask(shop.distribu, site=site, authorization=SHOWN)).status_code == 200


async def test_runs_are_counted(shop: Harness) -> None:
    await ask(shop.distribu, authorization=SHOWN)
    await ask(shop.distribu, authorization=SHOWN)
    text = "".join(page(shop.distribu, None))
    assert 'distribu_jobs_total{job="forget",outcome="done"} 2\n' in text


def test_the_token_is_shown_nowhere_and_has_to_be_one() -> None:
    settings = load({"DISTRIBU_CRON_TOKEN": TOKEN})
    assert Site.of(settings).cron_token is not None
    for shown in (repr(settings), repr(Site.of(settings)), str(Site.of(settings))):
        assert TOKEN not in shown
    for wrong in ("short", "a" * 40, TOKEN + " x"):
        with pytest.raises(SettingsUnusable, match="CRON_TOKEN must have 32") as refusal:
            load({"DISTRIBU_CRON_TOKEN": wrong})
        assert wrong not in str(refusal.value)
    with pytest.raises(SettingsUnusable, match="CRON_TOKEN is DISTRIBU_METRICS_TOKEN"):
        load({"DISTRIBU_CRON_TOKEN": TOKEN, "DISTRIBU_METRICS_TOKEN": TOKEN})
    assert Site.of(Settings()).cron_token is None


# --- when ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("every", "at", "moment", "due", "often"),
    [
        ("00:10", "00:00", "09:00:00", "2026-01-05 09:10", "10 min"),
        ("00:10", "00:00", "09:09:59.999", "2026-01-05 09:10", "10 min"),
        ("01:00", "00:05", "09:05:00", "2026-01-05 10:05", "1 h at 00:05"),
        ("24:00", "03:30", "03:29:59", "2026-01-05 03:30", "1 d at 03:30"),
        ("24:00", "03:30", "03:30:00", "2026-01-06 03:30", "1 d at 03:30"),
        ("36:00", "00:00", "09:00:00", "2026-01-05 12:00", "1 d 12 h"),
    ],
)
def test_when_it_is_due_next(every: str, at: str, moment: str, due: str, often: str) -> None:
    def span(text: str) -> timedelta:
        hours, minutes = text.split(":")
        return timedelta(hours=int(hours), minutes=int(minutes))

    job = Job(name="it", action=jobs.forget, every=span(every), at=span(at))
    found = job.after(datetime.fromisoformat(f"2026-01-05T{moment}+00:00"))
    assert (found, job.often) == (datetime.fromisoformat(due).replace(tzinfo=UTC), often)


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_every_job_has_a_name_says_what_it_does_and_ends_before_it_is_due_again(job: Job) -> None:
    assert job.name.replace("_", "").isalpha()
    assert job.name == job.name.lower()
    assert len(job.name) <= 40
    assert job.what.endswith(".")
    assert timedelta(minutes=1) <= job.every
    assert timedelta(0) <= job.at < job.every
    assert [one.name for one in JOBS].count(job.name) == 1
