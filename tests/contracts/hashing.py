"""What a hasher promises."""

import asyncio

import pytest

from distribu import Busy, Secret
from distribu.application.ports import Hasher, Verdict

RIGHT = Verdict(right=True, stale=False)
STALE = Verdict(right=True, stale=True)
WRONG = Verdict(right=False, stale=False)

PASSWORD = Secret("correct Horse battery")

ARGON2 = "$argon2id$v=19$m=1024,t=1,p=1$"
SALT, DIGEST = "A" * 22, "A" * 43

# Openwall's test vectors for bcrypt (crypt_blowfish, wrapper.c).
BCRYPT = ".E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"
LONG = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789chars after 72 are ignored"
BCRYPT_LONG = "$2a$05$abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui"


class HasherContract:
    """Fixtures ``hasher``; ``another_hasher`` with other parameters; ``full_hasher``, where too many wait."""

    async def test_the_password_is_right_and_fresh(self, hasher: Hasher) -> None:
        assert await hasher.verify(PASSWORD, await hasher.hash(PASSWORD)) == RIGHT

    @pytest.mark.parametrize(
        "other",
        [
            "",
            "correct horse battery",
            "correct Horse batter",
            "correct Horse battery ",
            " correct Horse battery",
        ],
    )
    async def test_another_password_is_wrong(self, hasher: Hasher, other: str) -> None:
        assert await hasher.verify(Secret(other), await hasher.hash(PASSWORD)) == WRONG

    async def test_two_hashes_of_one_password_differ(self, hasher: Hasher) -> None:
        one, other = await hasher.hash(PASSWORD), await hasher.hash(PASSWORD)
        assert one != other
        assert await hasher.verify(PASSWORD, one) == await hasher.verify(PASSWORD, other) == RIGHT

    async def test_a_hash_shows_nothing_of_the_password_and_can_be_stored(self, hasher: Hasher) -> None:
        encoded = await hasher.hash(Secret("topsecret" * 11))
        assert "topsecret" not in encoded
        assert encoded.isascii()
        assert encoded.isprintable()
        assert len(encoded) <= 255

    @pytest.mark.parametrize("text", ["correct Horse battery", "", "\0" * 9, "x" * 100])
    async def test_nobody_s_password_is_never_right(self, hasher: Hasher, text: str) -> None:
        assert await hasher.verify(Secret(text), None) == WRONG

    @pytest.mark.parametrize(
        "encoded",
        [
            "",
            "!",
            "ünïcödé",
            "correct Horse battery",
            "x" * 100_000,
            "$plain$w=1$1$",
            "$plain$w=1$1$" + "0" * 64,
            "$argon2id$",
            ARGON2,
            f"{ARGON2}{SALT}$",
            f"{ARGON2}{SALT}${DIGEST}",
            f"{ARGON2}{SALT[1:]}B${DIGEST}",
            f"{ARGON2}{SALT}${DIGEST}\n",
            f"{ARGON2}{SALT}${DIGEST}\0",
            f"$argon2id$v=19$m=4294967288,t=1,p=1${SALT}${DIGEST}",
            f"$argon2id$v=19$m=8,t=99,p=1${SALT}${DIGEST}",
            f"$argon2id$v=19$m=8,t=1,p=99${SALT}${DIGEST}",
            f"$argon2id$v=16$m=8,t=1,p=1${SALT}${DIGEST}",
            f"$argon2i$v=19$m=8,t=1,p=1${SALT}${DIGEST}",
            "$2b$05$short",
            "$2b$05$" + "9" * 53,
            "$2a$31$CCCCCCCCCCCCCCCCCCCCC" + BCRYPT,
            "5f4dcc3b5aa765d61d8327deb882cf99",
        ],
    )
    async def test_what_is_no_hash_is_never_right(self, hasher: Hasher, encoded: str) -> None:
        assert await hasher.verify(PASSWORD, encoded) == WRONG
        assert await hasher.verify(Secret(encoded), encoded) == WRONG

    @pytest.mark.parametrize("version", ["2a", "2b", "2y"])
    async def test_a_bcrypt_hash_of_elsewhere_is_known_and_stale(self, hasher: Hasher, version: str) -> None:
        encoded = f"${version}$05$CCCCCCCCCCCCCCCCCCCCC{BCRYPT}"
        assert await hasher.verify(Secret("U*U"), encoded) == STALE
        assert await hasher.verify(Secret("U*U*"), encoded) == WRONG

    @pytest.mark.parametrize("begin", ["$2$05$", "$2x$05$", "$2B$05$", "$2b$5$", "2b$05$", " $2b$05$"])
    async def test_no_other_kind_of_bcrypt_is_known(self, hasher: Hasher, begin: str) -> None:
        assert await hasher.verify(Secret("U*U"), f"{begin}CCCCCCCCCCCCCCCCCCCCC{BCRYPT}") == WRONG

    async def test_bcrypt_looks_at_72_bytes(self, hasher: Hasher) -> None:
        assert await hasher.verify(Secret(LONG), BCRYPT_LONG) == STALE
        assert await hasher.verify(Secret(LONG[:72]), BCRYPT_LONG) == STALE
        assert await hasher.verify(Secret(LONG[:71]), BCRYPT_LONG) == WRONG

    async def test_a_hash_made_with_other_parameters_is_right_and_stale(
        self, hasher: Hasher, another_hasher: Hasher
    ) -> None:
        for one, other in ((hasher, another_hasher), (another_hasher, hasher)):
            encoded = await other.hash(PASSWORD)
            assert await one.verify(PASSWORD, encoded) == STALE
            assert await one.verify(Secret("another password"), encoded) == WRONG

    async def test_of_a_long_password_every_character_counts(self, hasher: Hasher) -> None:
        long = "\N{KEY}" * 100
        encoded = await hasher.hash(Secret(long))
        assert await hasher.verify(Secret(long), encoded) == RIGHT
        assert await hasher.verify(Secret(long[:-1]), encoded) == WRONG
        assert await hasher.verify(Secret(long[:-1] + "\N{LOCK}"), encoded) == WRONG

    async def test_the_same_letters_in_other_code_points_are_the_same_password(self, hasher: Hasher) -> None:
        composed, decomposed = Secret("Zürich-Genève"), Secret("Zu\u0308rich-Gene\u0300ve")
        assert await hasher.verify(decomposed, await hasher.hash(composed)) == RIGHT
        assert await hasher.verify(composed, await hasher.hash(decomposed)) == RIGHT

    @pytest.mark.parametrize("text", ["", "\0", "half \ud800 a pair", "line\nbreak", "ﬁ ² Å"])
    async def test_any_text_can_be_hashed(self, hasher: Hasher, text: str) -> None:
        encoded = await hasher.hash(Secret(text))
        assert await hasher.verify(Secret(text), encoded) == RIGHT
        assert await hasher.verify(Secret(text + "x"), encoded) == WRONG

    async def test_many_at_once_each_get_their_own_answer(self, hasher: Hasher) -> None:
        words = [Secret(f"password {n}") for n in range(20)]
        hashes = await asyncio.gather(*(hasher.hash(word) for word in words))
        tried = [hasher.verify(word, encoded) for word in words[:5] for encoded in hashes[:5]]
        verdicts = await asyncio.gather(*tried)
        assert [one == RIGHT for one in verdicts] == [a == b for a in range(5) for b in range(5)]

    async def test_when_too_many_wait_it_is_busy_and_says_nothing_of_the_password(
        self, full_hasher: Hasher
    ) -> None:
        for asked in (
            full_hasher.hash(PASSWORD),
            full_hasher.verify(PASSWORD, None),
            full_hasher.verify(PASSWORD, BCRYPT_LONG),
        ):
            with pytest.raises(Busy) as busy:
                await asked
            assert (busy.value.code, busy.value.retry_after_s) == ("busy", 1)
            assert PASSWORD.reveal() not in f"{busy.value} {busy.value!r}"
        assert full_hasher.turned_away == 3

    async def test_nobody_is_turned_away_while_there_is_room(self, hasher: Hasher) -> None:
        await asyncio.gather(*(hasher.hash(PASSWORD) for _ in range(5)))
        assert hasher.turned_away == 0

    @pytest.mark.parametrize(
        "text", ["password", "12345678", "qwertyuiop", "PassWord1", "iloveyou", "88888888", "september"]
    )
    async def test_what_is_tried_first_is_common(self, hasher: Hasher, text: str) -> None:
        assert hasher.common(Secret(text))

    @pytest.mark.parametrize(
        "text", ["", "correct Horse battery", "password 1", "xK29-long", "half \ud800 a pair"]
    )
    async def test_anything_else_is_not_common(self, hasher: Hasher, text: str) -> None:
        assert not hasher.common(Secret(text))
