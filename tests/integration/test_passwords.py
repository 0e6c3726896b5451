"""Hashing as it runs in production: the decided parameters, under a flood, and by the clock."""

import asyncio
import gzip
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from resource import getpagesize
from statistics import median, quantiles
from subprocess import run
from sys import executable
from time import perf_counter

import bcrypt
import pytest
from argon2 import PasswordHasher, Type, extract_parameters
from argon2.exceptions import VerificationError

from distribu import Busy, Secret, Settings, SettingsUnusable, load
from distribu.adapters import argon2 as adapter
from distribu.adapters.argon2 import Argon2Hasher
from distribu.adapters.memory.twins import PlainHasher
from distribu.application.ports import Verdict
from distribu.container import Container

PASSWORD = Secret("correct Horse battery")
RIGHT = Verdict(right=True, stale=False)
WRONG = Verdict(right=False, stale=False)

ROOT = Path(__file__).parents[2]
MIB = 1024 * 1024


@pytest.fixture
async def hasher() -> AsyncIterator[Argon2Hasher]:
    hasher = Argon2Hasher()
    yield hasher
    await hasher.close()


async def test_the_parameters_are_those_that_were_decided(hasher: Argon2Hasher) -> None:
    settled = Container(settings=Settings()).hasher()
    for one in (hasher, settled):
        made = extract_parameters(await one.hash(PASSWORD))
        assert (made.type, made.version) == (Type.ID, 19)
        assert (made.memory_cost, made.time_cost, made.parallelism) == (19 * 1024, 2, 1)
        assert (made.salt_len, made.hash_len) == (16, 32)
    await settled.close()


async def test_the_settings_reach_the_hasher() -> None:
    settings = Settings(
        argon2_memory_kib=1024, argon2_time_cost=3, argon2_parallelism=2, hasher_threads=3, hasher_waiting=4
    )
    hasher = Container(settings=settings).hasher()
    made = extract_parameters(await hasher.hash(PASSWORD))
    assert (made.memory_cost, made.time_cost, made.parallelism) == (1024, 3, 2)
    asked = await asyncio.gather(*(hasher.verify(PASSWORD, None) for _ in range(30)), return_exceptions=True)
    assert 7 <= asked.count(WRONG) < 30
    await hasher.close()


async def test_hashes_are_those_of_the_library_and_not_a_form_of_ours(hasher: Argon2Hasher) -> None:
    PasswordHasher().verify(await hasher.hash(PASSWORD), PASSWORD.reveal())
    library = PasswordHasher(time_cost=1, memory_cost=64, parallelism=4)
    assert await hasher.verify(PASSWORD, library.hash(PASSWORD.reveal())) == Verdict(right=True, stale=True)
    shorter = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1, hash_len=16, salt_len=8)
    assert await hasher.verify(PASSWORD, shorter.hash(PASSWORD.reveal())) == Verdict(right=True, stale=True)


@pytest.mark.parametrize("text", ["p\N{KEY}ssword", "ü" * 40, "\N{KEY}" * 100, "Gene\u0300ve, decomposed"])
async def test_a_bcrypt_hash_is_of_the_first_72_bytes_as_they_came(hasher: Argon2Hasher, text: str) -> None:
    encoded = bcrypt.hashpw(text.encode()[:72], bcrypt.gensalt(4)).decode()
    for one in (hasher, PlainHasher()):
        assert await one.verify(Secret(text), encoded) == Verdict(right=True, stale=True)
        assert await one.verify(Secret("x" + text), encoded) == WRONG


async def test_no_memory_is_no_wrong_password(hasher: Argon2Hasher, monkeypatch: pytest.MonkeyPatch) -> None:
    verify, encoded = PasswordHasher.verify, await hasher.hash(PASSWORD)

    def starved(self: PasswordHasher, hash: str, password: bytes) -> bool:
        if hash == encoded:
            raise VerificationError("Memory allocation error")
        return verify(self, hash, password)

    monkeypatch.setattr(PasswordHasher, "verify", starved)
    with pytest.raises(VerificationError, match="Memory allocation"):
        await hasher.verify(PASSWORD, encoded)
    assert await hasher.verify(PASSWORD, None) == WRONG


async def test_what_no_setting_could_have_made_is_not_tried(
    hasher: Argon2Hasher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "MEMORY_KIB_MAX", 1024)

    def made(memory_kib: int, time_cost: int, lanes: int) -> str:
        library = PasswordHasher(memory_cost=memory_kib, time_cost=time_cost, parallelism=lanes)
        return library.hash(PASSWORD.reveal())

    assert await hasher.verify(PASSWORD, made(1024, 20, 16)) == Verdict(right=True, stale=True)
    for beyond in (made(1025, 20, 16), made(1024, 21, 16), made(1024, 20, 17)):
        assert await hasher.verify(PASSWORD, beyond) == WRONG


def test_what_a_hash_may_take_is_what_can_be_set() -> None:
    for name in ("MEMORY_KIB", "TIME_COST", "PARALLELISM"):
        with pytest.raises(SettingsUnusable, match=f"to {getattr(adapter, name + '_MAX')}"):
            load({f"DISTRIBU_ARGON2_{name}": "999999999"})


# --- a flood ---------------------------------------------------------------------------------


class Watch:
    """Ticks every 5 ms: how late the event loop was, and how much memory was in use."""

    def __init__(self) -> None:
        self.lags: list[float] = []
        self.before = self.peak = resident()

    async def tick(self) -> None:
        while True:
            began = perf_counter()
            await asyncio.sleep(0.005)
            self.lags.append(perf_counter() - began - 0.005)
            self.peak = max(self.peak, resident())


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * getpagesize()


async def test_a_flood_leaves_the_loop_alone_and_takes_no_more_memory(hasher: Argon2Hasher) -> None:
    watch = Watch()
    ticking = asyncio.create_task(watch.tick())
    asked = await asyncio.gather(*(hasher.verify(PASSWORD, None) for _ in range(200)), return_exceptions=True)
    ticking.cancel()
    told = [one for one in asked if isinstance(one, Busy)]
    assert 66 <= asked.count(WRONG) <= 80
    assert asked.count(WRONG) + len(told) == 200
    assert {(one.code, one.retry_after_s) for one in told} == {("busy", 1)}
    lag, grown = quantiles(watch.lags, n=100)[98], watch.peak - watch.before
    print(f"\n{len(watch.lags)} ticks, p99 late by {lag * 1000:.1f} ms; {grown / MIB:.1f} MiB more memory")
    assert len(watch.lags) > 50
    assert lag < 0.1
    assert grown < (2 * 19 + 16) * MIB


async def test_whoever_gives_up_makes_room(hasher: Argon2Hasher) -> None:
    """A request that was cancelled does not hold its place: the next one is let in."""
    for _ in range(5):
        waiting = [asyncio.create_task(hasher.verify(PASSWORD, None)) for _ in range(66)]
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await hasher.verify(PASSWORD, None)
        for one in waiting:
            one.cancel()
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        assert sum(isinstance(one, asyncio.CancelledError) for one in ended) >= 64
    assert await hasher.verify(PASSWORD, await hasher.hash(PASSWORD)) == RIGHT


async def test_what_is_under_way_is_ended_before_it_closes() -> None:
    hasher = Argon2Hasher()
    hashing = [asyncio.create_task(hasher.hash(PASSWORD)) for _ in range(6)]
    await asyncio.sleep(0)
    await hasher.close()
    assert len(set(await asyncio.gather(*hashing))) == 6
    with pytest.raises(RuntimeError):
        await hasher.hash(PASSWORD)


# --- the clock -------------------------------------------------------------------------------


async def test_an_unknown_address_is_not_answered_faster_or_slower(hasher: Argon2Hasher) -> None:
    """Others (tozo, warehouse) told by the time they took whether somebody has an address.

    Tries in turn, so that a busy machine is busy for all of them; and more of them while its noise is
    larger than what is looked for. A real difference stays.
    """
    known = await hasher.hash(PASSWORD)
    tries = {"known": known, "nobody": None, "no hash": "!", "undecodable": known[:-1] + "/"}
    wrong, took = Secret("wrong Horse battery"), {name: list[float]() for name in tries}
    medians: dict[str, float] = {}
    for _ in range(8):
        for _ in range(15):
            for name, encoded in tries.items():
                began = perf_counter()
                assert await hasher.verify(wrong, encoded) == WRONG
                took[name].append(perf_counter() - began)
        medians = {name: median(times) * 1000 for name, times in took.items()}
        print("\n" + ", ".join(f"{name} {ms:.2f} ms" for name, ms in medians.items()))
        usual = medians["known"]
        if all(abs(ms - usual) < max(1, usual / 10) for ms in medians.values()):
            return
    pytest.fail(f"the time tells who is known: {medians}")


# --- the wheel -------------------------------------------------------------------------------


def test_the_list_of_common_passwords_is_in_the_wheel(tmp_path: Path) -> None:
    build = [executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        listed = gzip.decompress(packed.read("distribu/adapters/common_passwords.txt.gz")).decode()
        assert "distribu/adapters/common_passwords.LICENSE.txt" in packed.namelist()
    assert len(listed.split()) > 10_000
