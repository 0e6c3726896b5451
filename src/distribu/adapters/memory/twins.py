"""Twins of the ports to the rest of the world."""

import hashlib
import random
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from distribu.adapters.argon2 import bcrypt_right
from distribu.adapters.common_passwords import is_common
from distribu.adapters.guard import canonical_url
from distribu.adapters.system import Uuid7
from distribu.application.ports import Reply, Verdict
from distribu.domain.errors import Bug, Busy
from distribu.domain.passwords import canonical_password
from distribu.domain.values import Secret
from distribu.domain.webhooks import ATTEMPT_TIMEOUT_S, BODY_KEPT


class MovedClock:
    """A clock that stands still until it is moved."""

    def __init__(self, start: datetime = datetime(2026, 1, 5, 9, tzinfo=UTC)) -> None:
        self._now = start

    def now(self) -> datetime:
        return self._now

    def elapsed(self) -> float:
        return self._now.timestamp()

    def advance(self, **span: float) -> datetime:
        """Move on by ``days=``, ``hours=``, ``minutes=``, ``seconds=`` or ``milliseconds=``."""
        moved = self._now + timedelta(**span)
        self._now = moved.replace(microsecond=moved.microsecond // 1000 * 1000)
        return self._now


class SeededEntropy:
    """Random numbers that come out the same for the same seed. For tests alone: they can be guessed."""

    def __init__(self, clock: MovedClock, seed: int = 7) -> None:
        self._random = random.Random(seed)
        self._uuid = Uuid7(lambda: int(clock.now().timestamp() * 1000), self._random.randbytes)

    def uuid(self) -> str:
        return self._uuid()

    def bytes(self, size: int) -> bytes:
        return self._random.randbytes(size)

    def fraction(self) -> float:
        return self._random.random()


class GlassVault:
    """Hides nothing from anyone who looks: for tests alone. It keeps the other promises of a vault."""

    def __init__(self) -> None:
        self._sealed: set[str] = set()

    def seal(self, secret: Secret) -> str:
        text = urlsafe_b64encode(secret.reveal().encode()).decode()
        sealed = f"glass.{len(self._sealed) + 1}.{id(self):x}.{text}"
        self._sealed.add(sealed)
        return sealed

    def open(self, sealed: str) -> Secret:
        if sealed not in self._sealed:
            raise Bug("this was not sealed here, or was altered")
        return Secret(urlsafe_b64decode(sealed.rpartition(".")[2]).decode())

    def anew(self, sealed: str) -> str | None:
        self.open(sealed)  # it has one key alone
        return None


class PlainHasher:
    """Hashes at no cost to anyone who guesses: for tests alone. It keeps the other promises of a hasher.

    ``work`` is its one parameter and does nothing. While ``full`` is set, too many are waiting.
    """

    def __init__(self, work: int = 1) -> None:
        self.full = False
        self.under_way = 0
        self.turned_away = 0
        self._work = work
        self._made = 0

    async def hash(self, password: Secret) -> str:
        self._admit()
        self._made += 1
        return self._encoded(password, str(self._work), str(self._made))

    async def verify(self, password: Secret, encoded: str | None) -> Verdict:
        self._admit()
        if encoded is not None and (right := bcrypt_right(password, encoded)) is not None:
            return Verdict(right=right, stale=right)
        made = re.fullmatch(r"\$plain\$w=([0-9]+)\$([0-9]+)\$[0-9a-f]{64}", encoded or "")
        if made is None or encoded != self._encoded(password, made[1], made[2]):
            return Verdict(right=False, stale=False)
        return Verdict(right=True, stale=made[1] != str(self._work))

    def common(self, password: Secret) -> bool:
        return is_common(password)

    def _admit(self) -> None:
        if self.full:
            self.turned_away += 1
            raise Busy("busy", retry_after_s=1)

    @staticmethod
    def _encoded(password: Secret, work: str, salt: str) -> str:
        text = f"{salt}.{canonical_password(password).reveal()}"
        return f"$plain$w={work}${salt}${hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A webhook as it arrived."""

    url: str
    headers: Mapping[str, str]
    body: bytes


def _accept(_: Received) -> Reply:
    return Reply(200, {}, "", "")


class Receivers:
    """Every receiver there is, in one list: ``answer`` decides what they say."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.answer: Callable[[Received], Reply] = _accept

    def admit(self, url: str) -> None:
        canonical_url(url, loopback=True)

    async def post(self, url: str, *, headers: Mapping[str, str], body: bytes) -> Reply:
        received = Received(url=url, headers=dict(headers), body=body)
        self.received.append(received)
        reply = self.answer(received)
        return replace(reply, body=reply.body[:BODY_KEPT])


def silence(_: Received) -> Reply:
    """A receiver that does not answer in time; for `Receivers.answer`."""
    return Reply(None, {}, "", f"no answer within {ATTEMPT_TIMEOUT_S:g} s")
