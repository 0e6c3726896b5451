"""Passwords as argon2id (RFC 9106) in threads of their own, and the bcrypt hashes others made before."""

import asyncio
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, TypeVar

import bcrypt
from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import VerificationError, VerifyMismatchError
from argon2.low_level import error_to_str

from distribu.adapters.common_passwords import is_common
from distribu.application.ports import Verdict
from distribu.domain.errors import Busy
from distribu.domain.passwords import canonical_password
from distribu.domain.values import Secret

T = TypeVar("T")

MEMORY_KIB_MAX: Final = 1_048_576
TIME_COST_MAX: Final = 20
PARALLELISM_MAX: Final = 16
"""Beyond these an encoded hash is not one of ours: what it would take is not spent on it."""

_ARGON2: Final = re.compile(
    r"\$argon2id\$v=19\$m=[1-9][0-9]{0,6},t=[1-9][0-9]?,p=[1-9][0-9]?"
    r"\$[A-Za-z0-9+/]{11,64}\$[A-Za-z0-9+/]{16,128}"
)
_BCRYPT: Final = re.compile(r"\$2[aby]\$(0[4-9]|1[0-4])\$[./A-Za-z0-9]{53}")
"""With a cost of at most 14, about a second; 10 to 12 are usual."""

_NO_MEMORY: Final = error_to_str(-22)  # ARGON2_MEMORY_ALLOCATION_ERROR
_WRONG: Final = Verdict(right=False, stale=False)


def bcrypt_right(password: Secret, encoded: str) -> bool | None:
    """Whether a bcrypt hash is this password's; None when it is no bcrypt hash.

    Of a longer password its first 72 bytes count, and its code points are taken as they came: so the
    libraries do that made such hashes.
    """
    if not _BCRYPT.fullmatch(encoded):
        return None
    try:
        return bcrypt.checkpw(_bytes(password)[:72], encoded.encode())
    except ValueError:  # the salt is none
        return None


class Argon2Hasher:
    """At most ``threads`` hashes are made at once and ``waiting_max`` wait for their turn.

    So hashing takes ``threads`` times ``memory_kib`` at most, whoever asks for how many; to try a hash that
    was made with other parameters takes what those say. The usual ones are of OWASP's Password Storage Cheat
    Sheet.
    """

    def __init__(
        self,
        *,
        memory_kib: int = 19 * 1024,
        time_cost: int = 2,
        parallelism: int = 1,
        threads: int = 2,
        waiting_max: int = 64,
    ) -> None:
        self._argon2 = PasswordHasher(time_cost=time_cost, memory_cost=memory_kib, parallelism=parallelism)
        # Of no password, but as much work to try as any hash made here.
        self._nobody = f"$argon2id$v=19$m={memory_kib},t={time_cost},p={parallelism}${'A' * 22}${'A' * 43}"
        self._pool = ThreadPoolExecutor(threads, "hasher")
        self._most = threads + waiting_max
        self._lock = threading.Lock()
        self.under_way = 0
        self.turned_away = 0

    async def hash(self, password: Secret) -> str:
        return await self._in_turn(lambda: self._argon2.hash(_bytes(canonical_password(password))))

    async def verify(self, password: Secret, encoded: str | None) -> Verdict:
        return await self._in_turn(lambda: self._verdict(password, encoded))

    def common(self, password: Secret) -> bool:
        return is_common(password)

    async def close(self) -> None:
        """Let what is under way come to its end, and take nothing more."""
        await asyncio.to_thread(self._pool.shutdown)

    async def _in_turn(self, work: Callable[[], T]) -> T:
        with self._lock:
            if self.under_way >= self._most:
                self.turned_away += 1
                raise Busy("busy", retry_after_s=1)
            turn = self._pool.submit(work)
            self.under_way += 1
        # Called by whoever ends it: a thread, or a caller that gives up before its turn comes.
        turn.add_done_callback(self._over)
        return await asyncio.wrap_future(turn)

    def _over(self, _: "Future[Any]") -> None:
        with self._lock:
            self.under_way -= 1

    def _verdict(self, password: Secret, encoded: str | None) -> Verdict:
        if encoded is not None and (right := bcrypt_right(password, encoded)) is not None:
            return Verdict(right=right, stale=right)
        word = _bytes(canonical_password(password))
        if encoded is not None and _ours(encoded):
            try:
                self._argon2.verify(encoded, word)
            except VerifyMismatchError:
                return _WRONG
            except VerificationError as error:
                if str(error) == _NO_MEMORY:
                    raise  # it may well be right
            else:
                return Verdict(right=True, stale=self._argon2.check_needs_rehash(encoded))
        with suppress(VerifyMismatchError):
            self._argon2.verify(self._nobody, word)
        return _WRONG


def _ours(encoded: str) -> bool:
    if not _ARGON2.fullmatch(encoded):
        return False
    made = extract_parameters(encoded)
    return (
        made.memory_cost <= MEMORY_KIB_MAX
        and made.time_cost <= TIME_COST_MAX
        and made.parallelism <= PARALLELISM_MAX
    )


def _bytes(password: Secret) -> bytes:
    """UTF-8; also of what is no Unicode text, so that no error quotes it."""
    return password.reveal().encode(errors="surrogatepass")
