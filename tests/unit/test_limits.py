"""The public API's limits: 60 a minute for a key, 120 for an address, whichever is hit first."""

import httpx

from distribu import ApiLimits, Harness, Settings

USUAL = ApiLimits(per_key=60, per_ip=120)


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


async def test_without_limits_there_are_no_headers_of_limits(shop: Harness) -> None:
    api = await shop.api()
    assert await statuses(api, 130) == [200] * 130
    assert not [name for name in (await api.get("/me")).headers if "ratelimit" in name]
