"""What a rate limiter promises."""

import asyncio
import random
from collections import Counter, deque
from typing import Protocol

import pytest

from distribu.application.ports import Limit, RateLimiter


class Advance(Protocol):
    def __call__(self, *, seconds: float) -> object: ...


def five_a_minute(key: str = "somebody") -> Limit:
    return Limit(key, 5, 60)


class RateLimiterContract:
    """Fixtures: ``limiter`` gives the adapter, and ``advance`` moves its clock."""

    async def test_as_many_as_the_limit_pass_and_the_next_does_not(self, limiter: RateLimiter) -> None:
        standings = [await limiter.take(five_a_minute()) for _ in range(7)]
        assert [one.allowed for one in standings] == [True] * 5 + [False] * 2
        assert [one.remaining for one in standings] == [4, 3, 2, 1, 0, 0, 0]
        assert {one.limit for one in standings} == {5}

    async def test_a_limit_of_one_admits_one(self, limiter: RateLimiter, advance: Advance) -> None:
        only = Limit("once", 1, 60)
        assert [(await limiter.take(only)).allowed for _ in range(3)] == [True, False, False]
        advance(seconds=60)
        assert (await limiter.take(only)).allowed

    async def test_a_limit_that_is_raised_counts_what_has_passed(self, limiter: RateLimiter) -> None:
        for _ in range(5):
            await limiter.take(five_a_minute())
        raised = Limit("somebody", 8, 60)
        standings = [await limiter.take(raised) for _ in range(5)]
        assert [one.allowed for one in standings] == [True] * 3 + [False] * 2
        assert [one.remaining for one in standings] == [2, 1, 0, 0, 0]

    async def test_a_limit_that_is_lowered_lets_in_again_when_it_says(
        self, limiter: RateLimiter, advance: Advance
    ) -> None:
        for _ in range(5):
            await limiter.take(five_a_minute())
            advance(seconds=1)
        lowered = Limit("somebody", 2, 60)
        refused = await limiter.take(lowered)
        assert (refused.allowed, refused.remaining, refused.retry_after_s) == (False, 0, 58)
        advance(seconds=57.999)
        assert not (await limiter.take(lowered)).allowed
        advance(seconds=0.001)
        assert (await limiter.take(lowered)).allowed

    async def test_waiting_as_told_lets_exactly_one_more_in(
        self, limiter: RateLimiter, advance: Advance
    ) -> None:
        for _ in range(5):
            assert (await limiter.take(five_a_minute())).allowed
            advance(seconds=1)
        refused = await limiter.take(five_a_minute())
        assert refused.retry_after_s == 55
        advance(seconds=refused.retry_after_s - 0.001)
        assert not (await limiter.take(five_a_minute())).allowed
        advance(seconds=0.001)
        assert (await limiter.take(five_a_minute())).allowed
        assert not (await limiter.take(five_a_minute())).allowed

    async def test_the_last_that_is_let_in_is_told_when_there_is_room_again(
        self, limiter: RateLimiter, advance: Advance
    ) -> None:
        told = []
        for _ in range(6):
            told.append((await limiter.take(five_a_minute())).retry_after_s)
            advance(seconds=1)
        assert told == [None] * 4 + [56, 55]

    async def test_what_is_refused_does_not_count(self, limiter: RateLimiter, advance: Advance) -> None:
        for _ in range(200):
            await limiter.take(five_a_minute())
            advance(seconds=0.1)
        advance(seconds=40)
        assert (await limiter.take(five_a_minute())).allowed

    async def test_one_key_does_not_use_up_another_s(self, limiter: RateLimiter) -> None:
        for _ in range(6):
            await limiter.take(five_a_minute("one"))
        assert (await limiter.take(five_a_minute("other"))).remaining == 4

    async def test_a_hundred_at_once_admit_as_many_as_the_limit(self, limiter: RateLimiter) -> None:
        standings = await asyncio.gather(*(limiter.take(five_a_minute()) for _ in range(100)))
        assert sum(one.allowed for one in standings) == 5

    async def test_no_span_of_a_window_ever_holds_more(self, limiter: RateLimiter, advance: Advance) -> None:
        """A burst across the edge of a fixed window would pass twice; a sliding one has no edge."""
        draw, now, passed = random.Random(3), 0.0, deque[float]()
        for _ in range(2_000):
            step = draw.choice((0.0, 0.0, 0.5, 7.0, 29.999, 30.0))
            advance(seconds=step)
            now += step
            if (await limiter.take(five_a_minute())).allowed:
                passed.append(now)
        inside = (sum(1 for one in passed if at <= one < at + 60 - 1e-6) for at in passed)
        assert max(inside) == 5

    async def test_at_reset_all_of_it_is_free_again(self, limiter: RateLimiter, advance: Advance) -> None:
        first = await limiter.take(five_a_minute())
        advance(seconds=10)
        second = await limiter.take(five_a_minute())
        assert second.reset_at_s - first.reset_at_s == 10
        advance(seconds=60)
        assert (await limiter.take(five_a_minute())).remaining == 4

    @pytest.mark.parametrize("most", [1, 2, 5, 60])
    async def test_what_it_says_is_what_happens(
        self, limiter: RateLimiter, advance: Advance, most: int
    ) -> None:
        """One who comes alone and believes it, 2,000 times, after every wait there may be.

        What it says is the least number of whole seconds: after one less nobody gets in.
        """
        draw, limit = random.Random(most), Limit("alone", most, 60)
        now_ms, passed, seen = 0, [0], Counter[str]()
        said = await limiter.take(limit)
        for _ in range(2_000):
            waits = {"none": 0, "a little": draw.randint(1, 999), "some": draw.randint(1_000, 20_000)}
            if draw.random() < 0.02:
                waits = {"until reset": said.reset_in_s * 1000}
            elif not said.allowed and said.retry_after_s is not None:
                as_told = said.retry_after_s * 1000
                waits = {"none": 0, "as told": as_told, "a second less": as_told - 1000}
            # Who was let in mostly goes on at once, or a limit of 60 would never be reached.
            goes_on = said.allowed and "none" in waits and draw.random() < 0.8
            wait = "none" if goes_on else draw.choice(list(waits))
            advance(seconds=waits[wait] / 1000)
            now_ms += waits[wait]
            before, said = said, await limiter.take(limit)
            if said.allowed:
                passed.append(now_ms)
            case = "there was room" if before.remaining and wait != "until reset" else wait
            seen[case] += 1
            if case in ("there was room", "as told", "until reset"):
                assert said.allowed
            elif case in ("none", "a second less"):
                assert not said.allowed
            if case == "until reset":
                assert said.remaining == most - 1
            assert (said.retry_after_s is None) == (said.remaining > 0)
            assert 0 <= said.remaining < most
        cases = ["as told", "none", "a second less", "until reset", "there was room"]
        assert all(seen[case] >= 5 for case in (cases if most > 1 else cases[:-1])), seen
        after_a_full_window = zip(passed[most:], passed, strict=False)
        assert all(at - first >= 60_000 for at, first in after_a_full_window), "a window held one more"

    async def test_one_that_answers_itself_is_never_away(self, limiter: RateLimiter) -> None:
        for _ in range(7):
            await limiter.take(five_a_minute())
        assert limiter.away == 0
