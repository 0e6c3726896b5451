"""Deliveries for a receiver to try itself on: what it has to accept, what it has to refuse, and why.

All of them are signed for one secret and one moment, so that anybody can make them again to the byte.
"""

import hashlib
import hmac
import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import count
from typing import Any, Final

from distribu.application import delivering, views
from distribu.application.receiving import OWN, STANDARD, TOLERANCE
from distribu.domain.values import Secret

BOTH: Final = frozenset({OWN, STANDARD})
NEITHER: Final[frozenset[str]] = frozenset()

SECRET: Final = Secret("whsec_" + "test" * 8)
"""The receiver's, in the published vectors."""

OTHER: Final = Secret("whsec_" + "past" * 8)
STRANGER: Final = Secret("whsec_" + "else" * 8)

_TRIO: Final = ("webhook-id", "webhook-timestamp", "webhook-signature")
_ODD: Final = 'Crème brûlée, 粉 «½» 🚀 \u2028 a/b \\ "q" \x7f e\u0301'


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One delivery. ``accepted_by`` names the schemes that it is genuine in; ``mend`` says what is wrong
    with a receiver that thinks otherwise."""

    name: str
    why: str
    mend: str
    headers: Mapping[str, str]
    body: bytes
    accepted_by: frozenset[str]

    @property
    def genuine(self) -> bool:
        """Whether somebody who looks at either signature is to accept it."""
        return bool(self.accepted_by)


class Signed:
    """Makes deliveries: ``make`` gives the envelope of one for an id and a time of attempt.

    ``mine`` is the receiver's secret, ``other`` what it was before a rotation or is after one.
    """

    def __init__(
        self,
        make: Callable[[str, datetime], dict[str, Any]],
        new_id: Callable[[], str],
        now: Callable[[], datetime],
        *,
        mine: Secret,
        other: Secret,
        stranger: Secret,
    ) -> None:
        self.mine, self.other, self.stranger = mine, other, stranger
        self._make, self._new_id, self._now = make, new_id, now

    @property
    def at(self) -> datetime:
        """The time by the receiver's clock."""
        return self._now()

    def envelope(self, *, id: str | None = None, age_s: float = 0, notes: str = "") -> dict[str, Any]:
        """What a delivery says; ``notes`` stands among the data."""
        made = self._make(id or self._new_id(), self.at - timedelta(seconds=age_s))
        if notes:
            made["data"] |= {"notes": notes}
        return made

    def headers(self, body: bytes, *secrets: Secret, age_s: float = 0) -> dict[str, str]:
        """As they are sent with a body, signed with these secrets, by default the receiver's."""
        told = json.loads(body)
        at = int((self.at - timedelta(seconds=age_s)).timestamp())
        return delivering.headers(told["id"], told["event"], body, list(secrets or [self.mine]), at)

    def genuine(
        self, name: str, why: str, mend: str, body: bytes | None = None, *secrets: Secret, age_s: float = 0
    ) -> Case:
        """A delivery of ours."""
        if body is None:
            body = compact(self.envelope(age_s=age_s))
        headers = self.headers(body, *secrets, age_s=age_s)
        return Case(name=name, why=why, mend=mend, headers=headers, body=body, accepted_by=BOTH)


def compact(envelope: dict[str, Any]) -> bytes:
    """An envelope as it is sent."""
    return json.dumps(envelope, ensure_ascii=False, separators=(",", ":")).encode()


def without(headers: Mapping[str, str], *names: str) -> dict[str, str]:
    """Headers without some."""
    return {name: value for name, value in headers.items() if name not in names}


def cases(signed: Signed) -> Iterator[Case]:
    """Every case, the plain one first."""
    yield signed.genuine(
        "genuine",
        "As it is sent.",
        "Is it the whole secret, whsec_ included? `distribu webhook verify` tells more about one delivery.",
    )
    yield from _times(signed)
    yield from _rotations(signed)
    yield from _bodies(signed)
    yield from _schemes(signed)
    yield from _forged(signed)


def _times(signed: Signed) -> Iterator[Case]:
    yield signed.genuine(
        "minutes_old",
        "Four minutes on its way: that is within the five.",
        "Five minutes are to be forgiven: a queue in front of you takes its time.",
        age_s=240,
    )
    yield signed.genuine(
        "clock_ahead",
        "Its time is a minute ahead: clocks differ.",
        "Clocks differ; five minutes are to be forgiven in either direction.",
        age_s=-60,
    )
    for name, age_s, why, mend in (
        (
            "stale",
            600,
            "It was sent ten minutes ago: somebody kept it, and sends it again.",
            "Refuse a timestamp older than five minutes: else one that was once seen is good for ever.",
        ),
        (
            "from_the_future",
            -600,
            "Its time is ten minutes ahead, so that it would stay good for longer.",
            "Refuse a timestamp more than five minutes ahead too: compare the absolute difference.",
        ),
    ):
        genuine = signed.genuine(name, why, mend, age_s=age_s)
        yield replace(genuine, accepted_by=NEITHER)
    old = signed.envelope(age_s=3600)
    body = compact(old)
    headers = signed.headers(body, age_s=3600)
    now = str(int(signed.at.timestamp()))
    yield _refused(
        "timestamp_header_moved",
        "An hour old, with webhook-timestamp alone set to now: X-Webhook-Signature covers no header, but the "
        "body's timestamp.",
        "With X-Webhook-Signature, go by the body's timestamp: no header is covered by that signature.",
        {**headers, "webhook-timestamp": now},
        body,
    )
    moved = compact({**old, "timestamp": views.time(signed.at)})
    yield _refused(
        "timestamp_moved",
        "An hour old; its times were set to now, in the body and in the header, after it was signed.",
        "Verify the signature before anything else is believed.",
        {**headers, "webhook-timestamp": now},
        moved,
    )


def _rotations(signed: Signed) -> Iterator[Case]:
    yield signed.genuine(
        "rotated_newest",
        "After a rotation: yours is the new secret, and the old one signs too.",
        "webhook-signature holds several signatures with spaces between: any right one will do.",
        None,
        signed.mine,
        signed.other,
    )
    yield signed.genuine(
        "rotated_not_yet",
        "After a rotation that you have not followed yet: yours is the old secret, good for seven days.",
        "Look at X-Webhook-Signature-Old too, and at every signature in webhook-signature (unless you know "
        "both secrets while you rotate).",
        None,
        signed.other,
        signed.mine,
    )
    body = compact(signed.envelope())
    yield _refused(
        "rotated_away",
        "Seven days after a rotation: your secret is over.",
        "Verify the signature: this one is made with another secret.",
        signed.headers(body, signed.other),
        body,
    )


def _bodies(signed: Signed) -> Iterator[Case]:
    mend = "Verify the bytes as they came: do not parse, decode, trim or write the body again before."
    numbers = compact(signed.envelope(notes="@")).replace(
        b'"@"', b'"","large":12345678901234567890,"exact":[12.50,1e2,1E+2,-0,0.1e-7]'
    )
    odd, escaped, slashed = (signed.envelope(notes=_ODD) for _ in range(3))
    backwards = dict(reversed(signed.envelope().items()))
    spread = json.dumps(signed.envelope(), indent="\t", separators=(" ,", " :  ")).encode()
    for name, why, body in (
        ("odd_whitespace", "Tabs, line ends and spaces between: JSON all the same.", b" \r\n" + spread),
        (
            "line_end",
            "A line end after the body, which is signed with it.",
            compact(signed.envelope()) + b"\n",
        ),
        ("unicode", "Letters beyond ASCII, as UTF-8.", compact(odd)),
        ("escaped", "Letters beyond ASCII, escaped.", json.dumps(escaped).encode()),
        ("escaped_slashes", "Slashes with a backslash before them.", compact(slashed).replace(b"/", b"\\/")),
        ("numbers", "Numbers that do not survive being parsed and written again.", numbers),
        ("other_order", "Fields in another order.", compact(backwards)),
    ):
        yield signed.genuine(name, why, mend, body)
    body = compact(signed.envelope(notes=_ODD))
    spaced = json.dumps(json.loads(body), ensure_ascii=False).encode()
    yield _refused(
        "written_again",
        "The same JSON with spaces in it: parsed and written again after it was signed.",
        "Verify the bytes as they came: what is refused here was not signed.",
        signed.headers(body),
        spaced,
    )


def _schemes(signed: Signed) -> Iterator[Case]:
    case = signed.genuine(
        "lower_case",
        "The names of headers in lower case, as HTTP/2 sends them.",
        "Names of headers are the same in any case.",
    )
    yield replace(case, headers={name.lower(): value for name, value in case.headers.items()})
    case = signed.genuine("own_alone", "Without the headers of Standard Webhooks.", "")
    yield replace(case, headers=without(case.headers, *_TRIO), accepted_by=frozenset({OWN}))
    case = signed.genuine("standard_alone", "With the headers of Standard Webhooks alone.", "")
    yield replace(case, headers=without(case.headers, OWN), accepted_by=frozenset({STANDARD}))
    case = signed.genuine(
        "among_others",
        "Beside signatures of a version and of keys that you do not know.",
        "webhook-signature holds several signatures with spaces between: leave alone what is not yours.",
    )
    ours, stranger = case.headers[STANDARD], signed.headers(case.body, signed.stranger)[STANDARD]
    yield replace(case, headers={**case.headers, STANDARD: f"v1a,{ours[3:]} {stranger} {ours}"})


def _forged(signed: Signed) -> Iterator[Case]:
    body = compact(signed.envelope())
    headers = signed.headers(body)
    no = "Without a right signature nothing is ours: refuse it."
    yield _refused("body_changed", "The body was changed after it was signed.", no, headers,
                   compact({**json.loads(body), "position": 9}))  # fmt: skip
    yield _refused("body_longer", "A space was added after it was signed.", no, headers, body + b" ")
    yield _refused("body_empty", "The body is gone.", no, headers, b"")
    yield _refused("wrong_key", "Signed with somebody else's secret.", no,
                   signed.headers(body, signed.stranger), body)  # fmt: skip
    yield _refused("wrong_keys", "A pair of signatures, both with somebody else's secret.", no,
                   signed.headers(body, signed.stranger, signed.stranger), body)  # fmt: skip
    missing = "A missing signature is a wrong one: refuse it."
    yield _refused("unsigned", "There is no signature.", missing, without(headers, OWN, STANDARD), body)
    yield _refused(
        "empty_signatures", "The signatures are empty.", missing, {**headers, OWN: "", STANDARD: ""}, body
    )
    yield _refused(
        "part_of_signature",
        "The first quarter of the right signatures: guessed letter by letter.",
        "Compare the whole signature, and in constant time.",
        {**headers, OWN: headers[OWN][:16], STANDARD: headers[STANDARD][:14]},
        body,
    )
    sha1 = hmac.new(signed.mine.reveal().encode(), body, hashlib.sha1).hexdigest()
    yield _refused(
        "other_algorithm",
        "Signed with SHA-1, and by a version of the scheme that is not v1.",
        "The algorithm is SHA-256 and the version v1, whatever a sender says: leave alone everything else.",
        {**headers, OWN: "sha1=" + sha1, STANDARD: "v1a," + headers[STANDARD][3:]},
        body,
    )
    yield _refused(
        "keys_mixed_up",
        "Each signature made with the key of the other one.",
        "X-Webhook-Signature takes the whole secret as text, webhook-signature the base64 after whsec_.",
        {**headers, **_mixed_up(signed.mine, json.loads(body)["id"], int(signed.at.timestamp()), body)},
        body,
    )
    standard = without(headers, OWN)
    yield _refused(
        "id_changed",
        "webhook-id was changed after it was signed, to get past those who remember ids.",
        "webhook-id and webhook-timestamp are signed with the body: id.timestamp.body.",
        {**standard, "webhook-id": signed.envelope()["id"]},
        body,
    )
    bare = compact({name: told for name, told in signed.envelope().items() if name != "timestamp"})
    yield _refused(
        "no_timestamp",
        "The body has no timestamp, though its signature is right: nobody can tell how old it is.",
        "Refuse what has no time.",
        without(signed.headers(bare), *_TRIO),
        bare,
    )


def _refused(name: str, why: str, mend: str, headers: Mapping[str, str], body: bytes) -> Case:
    return Case(name=name, why=why, mend=mend, headers=headers, body=body, accepted_by=NEITHER)


def _mixed_up(secret: Secret, id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    text = secret.reveal()
    own = hmac.new(b64decode(text.removeprefix("whsec_")), body, hashlib.sha256).hexdigest()
    signed = f"{id}.{timestamp_s}.".encode() + body
    standard = b64encode(hmac.new(text.encode(), signed, hashlib.sha256).digest()).decode()
    return {OWN: own, STANDARD: "v1," + standard}


# the published ones


class Vector(views.View, frozen=True, kw_only=True):
    """A case as anybody can read it; ``schemes`` has the verdict of a receiver that looks at one header.

    ``body`` is for people; the bytes that are signed are those of ``body_base64``.
    """

    name: str
    verdict: str
    why: str
    schemes: dict[str, str]
    headers: dict[str, str]
    body: str
    body_base64: str


class Vectors(views.View, frozen=True, kw_only=True):
    """The published vectors; ``at`` is when the receiver looks at them."""

    about: str
    at: views.Time
    at_seconds: int
    tolerance_seconds: int
    secret: str
    vectors: list[Vector]


_ABOUT: Final = (
    "Deliveries to try a receiver of Distribu's webhooks on. Its clock has to stand at `at`, its secret is "
    "`secret`. `verdict` is for a receiver that takes either signature, `schemes` for one that looks at that "
    "header alone. Take the bytes of `bodyBase64`. For another moment: distribu webhook vectors --at TIME."
)


def vectors(at: datetime) -> Vectors:
    """Every case, signed for one moment; the same for the same one."""
    drawn = count(1)

    def make(id: str, sent: datetime) -> dict[str, Any]:
        return {
            "id": id,
            "event": "order.created",
            "timestamp": views.time(sent),
            "occurredAt": views.time(at - timedelta(hours=2)),
            "position": 4711,
            "previous": 4710,
            "data": {"number": 1001, "status": "SUBMITTED", "total": 44.16, "notes": ""},
        }

    def new_id() -> str:
        return f"01900000-0000-7000-8000-{next(drawn):012}"

    signed = Signed(make, new_id, lambda: at, mine=SECRET, other=OTHER, stranger=STRANGER)
    return Vectors(
        about=_ABOUT,
        at=views.time(at),
        at_seconds=int(at.timestamp()),
        tolerance_seconds=int(TOLERANCE.total_seconds()),
        secret=SECRET.reveal(),
        vectors=[_vector(one) for one in cases(signed)],
    )


def _vector(it: Case) -> Vector:
    def verdict(accepted: bool) -> str:
        return "accept" if accepted else "refuse"

    return Vector(
        name=it.name,
        verdict=verdict(it.genuine),
        why=it.why,
        schemes={scheme: verdict(scheme in it.accepted_by) for scheme in (OWN, STANDARD)},
        headers=dict(it.headers),
        body=it.body.decode(),
        body_base64=b64encode(it.body).decode(),
    )
