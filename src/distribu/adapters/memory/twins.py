"""Twins of the ports to the rest of the world."""

import random
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from distribu.adapters.system import Uuid7
from distribu.application.ports import Reply
from distribu.domain.errors import Bug
from distribu.domain.values import Secret
from distribu.domain.webhooks import ATTEMPT_TIMEOUT_S, BODY_KEPT


class MovedClock:
    """A clock that stands still until it is moved."""

    def __init__(self, start: datetime = datetime(2026, 1, 5, 9, tzinfo=UTC)) -> None:
        self._now = start

    def now(self) -> datetime:
        return self._now

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
        from distribu.adapters.hooks import checked_url

        checked_url(url, loopback=True)

    async def post(self, url: str, *, headers: Mapping[str, str], body: bytes) -> Reply:
        received = Received(url=url, headers=dict(headers), body=body)
        self.received.append(received)
        reply = self.answer(received)
        return replace(reply, body=reply.body[:BODY_KEPT])


def silence(_: Received) -> Reply:
    """A receiver that does not answer in time; for `Receivers.answer`."""
    return Reply(None, {}, "", f"no answer within {ATTEMPT_TIMEOUT_S:g} s")
