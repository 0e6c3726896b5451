"""Deliveries sent to a receiver of one's own, genuine ones and forged, and what its answers give away.

2xx is yes, anything else is no. What a receiver does with an event cannot be seen from outside, unless it
names a page that changes whenever an event has had an effect (``effects``).
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from distribu.application import views
from distribu.application.ports import Clock, Entropy
from distribu.domain.errors import Invalid
from distribu.domain.ordering import LINES_MAX
from distribu.domain.values import Secret
from distribu.domain.webhooks import ATTEMPT_TIMEOUT_S, URL_MAX, Webhook, WireEvent
from distribu.entrypoints.http import events
from distribu.entrypoints.vectors import BOTH, NEITHER, Case, Signed, cases, compact

WITHIN_S: Final = 120.0
"""How long all of it may take; what was not tried by then is told as such."""

SEEN_S: Final = 5.0
"""How long the effect of a new event may take to be seen."""

SETTLE_S: Final = 1.0
"""How long to look for an effect that is not to be, or three times what a wanted one took."""

_PAGE_MAX: Final = 1 << 20
_LOOK_S: Final = 0.05


class Finding(views.View, frozen=True, kw_only=True):
    """What came of one delivery. ``right`` is None when it was not tried; ``mend`` is for what is wrong.

    ``status`` None is no answer.
    """

    name: str
    wanted: str
    status: int | None
    right: bool | None
    why: str
    mend: str


class Report(views.View, frozen=True, kw_only=True):
    """What is to be said of a receiver: ``score`` right answers of ``of``, those not tried among them.

    ``reads`` names the signatures it looks at.
    """

    url: str
    score: int
    of: int
    reads: list[str]
    findings: list[Finding]
    notes: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A receiver of one's own and the secret it knows."""

    url: str
    secret: Secret
    event: WireEvent = WireEvent.ORDER_CREATED
    effects: str | None = None


def admit(url: str, *, mine: bool) -> None:
    """Raises `Invalid` for a URL that deliveries are not to be sent to.

    This machine is always admitted; any other one when its owner says that it is theirs.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host, parts = "", urlsplit("")
    if parts.scheme not in ("http", "https") or not host or len(url) > URL_MAX:
        raise Invalid("invalid_request", fields={"url": "must be http:// or https:// and a host"})
    if parts.username is not None or parts.password is not None:
        raise Invalid("invalid_request", fields={"url": "may not carry a user or password"})
    if not (mine or _is_loopback(host)):
        told = "is not this machine; if the receiver is yours, say --yes-it-is-mine"
        raise Invalid("invalid_request", fields={"url": told})


def _is_loopback(host: str) -> bool:
    """Whether this is this machine by its name alone: what another name resolves to may change."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


async def attack(
    target: Target,
    clock: Clock,
    entropy: Entropy,
    *,
    step: Callable[[int, int], None] = lambda done, of: None,
    within_s: float = WITHIN_S,
    seen_s: float = SEEN_S,
    settle_s: float = SETTLE_S,
) -> Report:
    """Send everything and judge the answers; ``step`` is told how many of how many are done.

    Never raises for what the receiver does. When it does not take a genuine delivery, nothing else is sent.
    """
    timeout = aiohttp.ClientTimeout(total=ATTEMPT_TIMEOUT_S)
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), timeout=timeout) as client:
        signed = _signed(target.event, target.secret, clock, entropy)
        return await _Attack(target, client, within_s, seen_s, settle_s).run(signed, step)


def _signed(event: WireEvent, secret: Secret, clock: Clock, entropy: Entropy) -> Signed:
    def make(id: str, sent: datetime) -> dict[str, Any]:
        shown = events.example(event)
        at = views.time(sent)
        return {**shown, "data": {**shown["data"]}, "id": id, "timestamp": at, "occurredAt": at}

    def drawn() -> Secret:
        secret = None
        while secret is None:
            secret = Webhook.secret_from(entropy.bytes(24))
        return secret

    return Signed(make, entropy.uuid, clock.now, mine=secret, other=drawn(), stranger=drawn())


def every(signed: Signed) -> Iterator[Case]:
    """What is sent, each made when it is its turn: the vectors, and what takes a running receiver."""
    yield from cases(signed)
    large = signed.envelope()
    large["data"]["items"] = [
        line for line in large["data"].get("items", [_LINE])[:1] for _ in range(LINES_MAX)
    ]
    yield signed.genuine(
        "large_body",
        f"As large as an order of {LINES_MAX:,} lines is.",
        "Read the whole body, up to one megabyte: many servers stop at 64 or 100 KB unless told otherwise.",
        compact(large),
    )
    unknown = signed.envelope()
    unknown |= {"event": "something.new", "more": {"a": [1, None]}, "data": {"id": unknown["id"]}}
    yield signed.genuine(
        "unknown_event",
        "An event, and fields, of a later version: to be taken, and left alone.",
        "Answer 2xx for what you do not know: anything else is tried again for three days.",
        compact(unknown),
    )
    body = compact(signed.envelope())
    yield Case(
        name=_NOT_JSON,
        why="Neither JSON nor signed.",
        mend="Verify before you parse, and refuse with a 4xx: it broke on what it should not even have read.",
        headers=signed.headers(body, signed.stranger),
        body=b'{"id": ["' + bytes(range(0x80, 0x100)),
        accepted_by=NEITHER,
    )


_NOT_JSON: Final = "not_json"
_UNREAD: Final = frozenset({_NOT_JSON, "body_empty"})
"""What breaks whoever reads it before verifying it."""

_LINE: Final = {"productName": "Oat Flour 25 kg", "productSku": "OAT-25", "quantity": 2, "unitPrice": 18.4}


class _Attack:
    def __init__(
        self, target: Target, client: aiohttp.ClientSession, within_s: float, seen_s: float, settle_s: float
    ) -> None:
        self._target, self._client = target, client
        self._seen_s, self._settle_s = seen_s, settle_s
        self._time = asyncio.get_running_loop().time
        self._ends = self._time() + within_s
        self._findings: list[Finding] = []
        self._notes: list[str] = []

    async def run(self, signed: Signed, step: Callable[[int, int], None]) -> Report:
        of = sum(1 for _ in every(signed))
        reads: set[str] = set()
        for done, case in enumerate(every(signed)):
            step(done, of)
            if self._time() > self._ends:
                self._tell(case, None, None)
                continue
            before = None if done else await self._effects()
            status = await self._send(case)
            if case.accepted_by in (NEITHER, BOTH):
                self._tell(case, status, _right(case, status))
            elif _accepted(status):
                reads |= case.accepted_by
            if done == 0 and not _accepted(status):
                break
            if done == 0:
                began = self._time()
                seen = await self._changed(before, self._seen_s)
                await self._again(signed, case, seen, max(self._settle_s, 3 * (self._time() - began)))
        step(of, of)
        right = [one for one in self._findings if one.right]
        return Report(
            url=self._target.url,
            score=len(right),
            of=len(self._findings),
            reads=sorted(reads),
            findings=self._findings,
            notes=self._notes,
        )

    async def _again(self, signed: Signed, first: Case, seen: bytes | None, settle_s: float) -> None:
        """The same delivery twice, then the same event in a later attempt: no effect is to come of either."""
        if seen is None:
            self._notes.append(
                "Not seen: what comes of an event that comes twice. --effects names a page of yours that "
                "changes whenever an event has had its effect."
                if self._target.effects is None
                else "Not seen: what comes of an event that comes twice. The page of --effects did not "
                "change for a new one."
            )
        mend = "Remember the ids of events, do nothing for one that you know, and answer 2xx."
        later = signed.genuine(
            "same_event_later",
            "The next attempt for an event that you have: your answer to the first one was lost on its way.",
            mend,
            compact(signed.envelope(id=first.headers["X-Webhook-Id"])),
        )
        why = "The same delivery again, to the byte: somebody repeats it within the five minutes."
        for case in (replace(first, name="same_delivery_twice", why=why, mend=mend), later):
            status = await self._send(case)
            now = await self._changed(seen, settle_s)
            self._tell(case, status, _accepted(status) and now is None)
            seen = now or seen

    async def _send(self, case: Case) -> int | None:
        """The status of the answer; None when there was none."""
        try:
            async with self._client.post(
                self._target.url, data=case.body, headers=case.headers, allow_redirects=False
            ) as answer:
                return answer.status
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError):
            return None

    async def _effects(self) -> bytes | None:
        """The page that shows effects, up to `_PAGE_MAX` bytes; None when there is none."""
        if self._target.effects is None:
            return None
        try:
            async with self._client.get(self._target.effects, allow_redirects=False) as page:
                read = b""
                while len(read) < _PAGE_MAX and (piece := await page.content.readany()):
                    read += piece
                return read if page.status == HTTPStatus.OK else None
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError):
            return None

    async def _changed(self, before: bytes | None, within_s: float) -> bytes | None:
        """That page once it is another one than ``before``; None when it stays as it is."""
        ends = self._time() + within_s
        while before is not None:
            now = await self._effects()
            if now is not None and now != before:
                return now
            if self._time() > ends:
                break
            await asyncio.sleep(_LOOK_S)
        return None

    def _tell(self, case: Case, status: int | None, right: bool | None) -> None:
        mend = case.mend if right is False else "There was no time left to try it."
        if right is False and case.genuine and status is None:
            mend = "There was no answer: is it running, at this URL, and does it answer within ten seconds?"
        self._findings.append(
            Finding(
                name=case.name,
                wanted="accept" if case.genuine else "refuse",
                status=status,
                right=right,
                why=case.why,
                mend="" if right else mend,
            )
        )


def _accepted(status: int | None) -> bool:
    return status is not None and HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES


def _right(case: Case, status: int | None) -> bool:
    """Whether an answer is right: 2xx or not, and what should not even be read breaks nothing."""
    broke = case.name in _UNREAD and status is not None and status >= HTTPStatus.INTERNAL_SERVER_ERROR
    return _accepted(status) == case.genuine and not broke
