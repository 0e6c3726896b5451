"""What a receiver has to check before it believes a delivery, and why it should not believe one.

This is the other end of `delivering`: how to tell ours from anybody else's, with the secret alone.
"""

import re
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hmac import compare_digest
from typing import Final

import msgspec

from distribu.application import views
from distribu.application.fields import decimal_of
from distribu.domain.errors import Invalid
from distribu.domain.values import Secret
from distribu.domain.webhooks import signature, standard_signature

TOLERANCE: Final = timedelta(minutes=5)
"""How far the time of an attempt may be from the receiver's, in either direction."""

OWN: Final = "X-Webhook-Signature"
STANDARD: Final = "webhook-signature"

_SECRET: Final = re.compile(r"whsec_[A-Za-z0-9+/]{22,128}={0,2}")
_SIGNATURES_MAX: Final = 16
_SECONDS: Final = re.compile(r"[0-9]{1,11}")
_NEITHER: Final = "this secret or this body is another one than it was signed with"
_json: Final = msgspec.json.Decoder(float_hook=decimal_of)


class Scheme(views.View, frozen=True, kw_only=True):
    """One of the two ways in which a delivery is signed, and what is to be said of it.

    ``sent`` is whether there is such a signature at all.
    """

    name: str
    sent: bool
    genuine: bool
    why: str


class Judgement(views.View, frozen=True, kw_only=True):
    """Whether to believe a delivery. Where it is signed in both ways, both have to hold."""

    genuine: bool
    why: str
    schemes: list[Scheme]
    notes: list[str]


def secret_of(text: str) -> Secret:
    """A webhook's secret as it was shown. Raises `Invalid`, which does not tell it."""
    if not _SECRET.fullmatch(text) or not _key(text):
        told = "must be whsec_ and base64, whole, as it was shown once"
        raise Invalid("invalid_request", fields={"secret": told})
    return Secret(text)


def _key(text: str) -> bytes:
    try:
        return b64decode(text.removeprefix("whsec_"), validate=True)
    except ValueError:
        return b""


def judge(secrets: Sequence[Secret], headers: Mapping[str, str], body: bytes, *, now: datetime) -> Judgement:
    """Whether a delivery is genuine at ``now``, for a receiver that knows these secrets, and why.

    ``body`` is as it came, byte for byte; ``headers`` are in any case.
    """
    named = {name.lower(): value for name, value in headers.items()}
    schemes = [_own(secrets, named, body, now), _standard(secrets, named, body, now)]
    sent = [one for one in schemes if one.sent]
    if not sent:
        return Judgement(genuine=False, why="it is not signed", schemes=schemes, notes=[])
    wrong = [one for one in sent if not one.genuine]
    return Judgement(
        genuine=not wrong,
        why=(wrong or sent)[0].why,
        schemes=schemes,
        notes=[] if wrong else _differing(named, body),
    )


def _own(secrets: Sequence[Secret], named: Mapping[str, str], body: bytes, now: datetime) -> Scheme:
    """The hex signature of the body; the time is in the body."""
    given = {name: named[name.lower()] for name in (OWN, OWN + "-Old") if named.get(name.lower())}
    if not given:
        return Scheme(name=OWN, sent=False, genuine=False, why=f"there is no {OWN}")

    def signer(body: bytes) -> str | None:
        for secret in secrets:
            made = signature(secret, body)
            for name, one in given.items():
                if _same(made, one):
                    return name
        return None

    name = signer(body)
    if name is None:
        return Scheme(name=OWN, sent=True, genuine=False, why=_nearly(body, signer) or _NEITHER)
    late = _late(_told(body, "timestamp"), now, "the body's timestamp")
    if late:
        return Scheme(name=OWN, sent=True, genuine=False, why=late)
    old = ": this secret is the one before a rotation" if name != OWN else ""
    return Scheme(name=OWN, sent=True, genuine=True, why=f"{name} is right{old}")


def _standard(secrets: Sequence[Secret], named: Mapping[str, str], body: bytes, now: datetime) -> Scheme:
    """The signature of the Standard Webhooks specification; id and time are in headers, and signed."""
    given = named.get(STANDARD, "")
    if not given:
        return Scheme(name=STANDARD, sent=False, genuine=False, why=f"there is no {STANDARD}")

    def no(why: str) -> Scheme:
        return Scheme(name=STANDARD, sent=True, genuine=False, why=why)

    id, at = named.get("webhook-id", ""), named.get("webhook-timestamp", "")
    if not id:
        return no("webhook-id is missing, which is signed with the rest")
    if not _SECONDS.fullmatch(at):
        return no("webhook-timestamp is missing, or no whole number of seconds")
    ours = [one for one in given.split(" ")[:_SIGNATURES_MAX] if one.startswith("v1,")]
    if not ours:
        return no("no signature of version v1 is in it; any other is to be left alone")

    def signer(body: bytes) -> int | None:
        for secret in secrets:
            made = standard_signature(secret, id=id, timestamp_s=int(at), body=body)
            for place, one in enumerate(ours):
                if _same(made, one):
                    return place
        return None

    place = signer(body)
    if place is None:
        return no(_nearly(body, signer) or f"{_NEITHER}, or webhook-id or webhook-timestamp is")
    late = _late(at, now, "webhook-timestamp")
    if late:
        return no(late)
    old = f": number {place + 1} of {len(ours)}, as in a rotation" if len(ours) > 1 else ""
    return Scheme(name=STANDARD, sent=True, genuine=True, why=f"{STANDARD} is right{old}")


def _same(made: str, given: str) -> bool:
    return compare_digest(made.encode(), given.encode("utf-8", "replace"))


def _nearly(body: bytes, signer: Callable[[bytes], object]) -> str | None:
    """What was done to the body on its way, where that can be found out."""
    for what, other in (
        ("a line end was added to the body; the signature is right without it", body.rstrip(b"\r\n")),
        ("the body has lost the line end that it was sent with", body + b"\n"),
        ("the body's line ends were changed", body.replace(b"\r\n", b"\n")),
        ("the body was parsed and written again; it has to be taken as it came", _rewritten(body)),
    ):
        if other != body and signer(other) is not None:
            return what
    return None


def _rewritten(body: bytes) -> bytes:
    """The body as it is sent, if it is the same JSON written in another way."""
    try:
        return views.encode(_json.decode(body))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return body


def _told(body: bytes, name: str) -> str:
    """A text of the envelope; empty where there is none."""
    try:
        whole = _json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return ""
    told = whole.get(name) if isinstance(whole, dict) else None
    return told if isinstance(told, str) else ""


def _late(at: str, now: datetime, what: str) -> str | None:
    """What is wrong with the time of an attempt: ISO 8601 with its zone, or seconds."""
    try:
        sent = datetime.fromtimestamp(int(at), UTC) if _SECONDS.fullmatch(at) else datetime.fromisoformat(at)
        age = now - sent
    except (ValueError, TypeError, OverflowError, OSError):  # no time at all, or one without a zone
        return f"{what} is missing, or no time: nobody can tell how old this is"
    if age > TOLERANCE:
        return f"{what} is {_span(age)} old: somebody may be sending it again"
    if -age > TOLERANCE:
        return f"{what} is {_span(-age)} ahead: a clock is wrong, or somebody made it up"
    return None


def _span(it: timedelta) -> str:
    return str(timedelta(seconds=int(it.total_seconds())))


def _differing(named: Mapping[str, str], body: bytes) -> list[str]:
    """Headers that nothing signs, and that say something else than the body."""
    told = {"x-webhook-id": "id", "x-webhook-event": "event", "webhook-id": "id"}
    return [
        f"{header} is not the body's {name}: go by the body"
        for header, name in told.items()
        if header in named and named[header] != _told(body, name)
    ]
