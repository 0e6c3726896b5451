"""Use cases of signing in and out: sessions, where they are, and the company one works in."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from msgspec import Meta

from distribu.application import fields, profiles
from distribu.application.accounts import QUARTER_S, Hash, knock
from distribu.application.kernel import Command, Outside, Process, Query, Reads, Work
from distribu.application.ports import Login
from distribu.application.shapes import time
from distribu.domain.access import ActorKind, Permission, Seat
from distribu.domain.accounts import (
    REALM,
    SESSIONS_MAX,
    STAFF_SESSION,
    STORE_SESSION,
    Session,
    SignInFailed,
    SignInNoted,
)
from distribu.domain.errors import Forbidden, NotFound, Unauthenticated
from distribu.domain.factors import FactorKind
from distribu.domain.values import CompanyId, Secret, canonical_email

LOGINS_PER_IP: Final = 10
"""Sign-ins in a quarter of an hour from one address."""

LOGINS_PER_ACCOUNT: Final = 30
"""Sign-ins in a quarter of an hour to one account from devices it has not been used on.

A device that it was used on has as many of its own, so that no stranger can keep the holder out.
"""

TOLD_MAX: Final = 50
"""Companies that are told of a failed sign-in of one of their members."""

_Agent = Annotated[str, Meta(max_length=300)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entered:
    """Somebody is in, or with ``awaited`` still has to show one of these.

    ``device`` tells at the next sign-in that it is the same device.
    """

    session: Session
    login: Login
    device: Secret | None
    awaited: tuple[FactorKind, ...] = ()


def entered(it: Entered) -> profiles.EnteredView:
    """What whoever has just signed in is told; nothing of the device's token."""
    return profiles.EnteredView(
        id=it.login.id,
        email=it.login.email,
        full_name=it.login.full_name,
        expires_at=time(it.session.expires_at),
        awaited=list(it.awaited),
    )


class SignIn(Process[Entered], frozen=True, kw_only=True):
    """Prove who you are with address and password."""

    needs = Permission.VISIT

    email: fields.Email
    password: fields.Password
    device: Annotated[str, Meta(max_length=200, extra={"in": "device"})] = ""
    user_agent: Annotated[_Agent, Meta(extra={"in": "user-agent"})] = ""

    async def run(self, outside: Outside) -> Entered:
        email = canonical_email(self.email)
        await knock(outside, "login", LOGINS_PER_IP, QUARTER_S)
        login = await outside.inside(outside.home, FindLogin(email=email))
        device = device_of(outside, email, login)
        known = self.device == device.reveal()
        account = outside.mark("account", outside.home, email)
        await outside.limit("account", f"{account} {known}", LOGINS_PER_ACCOUNT, QUARTER_S)
        password = Secret(self.password)
        encoded = login.credentials.password_hash if login is not None else None
        verdict = await outside.hasher.verify(password, encoded)
        if login is None or encoded is None or not verdict.right:
            await self._failed(outside, login, "password")
            raise Unauthenticated("wrong_credentials")
        if login.credentials.verified_at is None:
            await self._failed(outside, login, "unverified")
            raise Forbidden("not_verified")
        if not login.admitted:
            await self._failed(outside, login, "not_admitted")
            raise Forbidden("customer_blocked")
        opened = await outside.inside(
            outside.home,
            OpenSession(
                holder_id=login.id,
                verified_hash=encoded,
                new_hash=await outside.hasher.hash(password) if verdict.stale else None,
                user_agent=self.user_agent,
            ),
        )
        if opened.awaited:
            return Entered(session=opened.session, login=login, device=None, awaited=opened.awaited)
        current = opened.session.current
        if current is not None:
            await outside.inside(current, NoteSignIn(user_id=login.id, user_agent=self.user_agent))
        return Entered(session=opened.session, login=login, device=device)

    async def _failed(self, outside: Outside, login: Login | None, why: str) -> None:
        holder = login.id if login is not None else None
        await tell_failed(outside, NoteFailedSignIn(holder_id=holder, why=why))


def device_of(outside: Outside, email: str, login: Login | None) -> Secret:
    """What a device keeps on which somebody has signed in, until their sessions are ended everywhere.

    A device that was lost is known no more once the password was changed.
    """
    epoch = login.credentials.epoch if login is not None else 0
    return Secret(outside.mark("device", outside.home, email, str(epoch)))


async def tell_failed(outside: Outside, note: "NoteFailedSignIn") -> None:
    """Record a failed sign-in where the account is kept, and in each company of its holder."""
    seats = await outside.inside(outside.home, note)
    for seat in seats[:TOLD_MAX]:
        await outside.inside(seat.company_id, note)


class FindLogin(Query[Login | None], frozen=True, kw_only=True):
    """Who goes by an address, for a process."""

    needs = None
    internal = True

    email: fields.Email

    async def run(self, reads: Reads) -> Login | None:
        return await reads.logins.by_email(self.email)


class NoteFailedSignIn(Command[Sequence[Seat]], frozen=True, kw_only=True):
    """Record a failed sign-in. Returns, in the realm, which companies are to be told too."""

    needs = None
    internal = True

    holder_id: fields.Uuid | None
    why: Annotated[str, Meta(max_length=20)]

    async def run(self, work: Work) -> Sequence[Seat]:
        kind = "User" if work.actor.kind is ActorKind.USER else "Contact"
        work.record(SignInFailed(entity_type=kind, entity_id=self.holder_id or "", why=self.why))
        if work.company_id != REALM:
            return ()
        # Asked for nobody as well, so that an unknown address takes as long.
        return await work.users.seats(self.holder_id or REALM)


class NoteSignIn(Command[None], frozen=True, kw_only=True):
    """Tell a company that one of its members has signed in."""

    needs = None
    internal = True

    user_id: fields.Uuid
    user_agent: _Agent

    async def run(self, work: Work) -> None:
        work.record(SignInNoted(entity_type="User", entity_id=self.user_id))


@dataclass(frozen=True, slots=True)
class Opened:
    """A session that has begun; ``awaited`` is what its holder is still to show one of."""

    session: Session
    awaited: tuple[FactorKind, ...]


class OpenSession(Command[Opened], frozen=True, kw_only=True):
    """Begin a session for somebody whose password was right."""

    needs = None
    internal = True

    holder_id: fields.Uuid
    verified_hash: Hash
    new_hash: Hash | None
    user_agent: _Agent

    async def run(self, work: Work) -> Opened:
        login, sessions, seats, factor = await work.together(
            work.logins.get(self.holder_id),
            work.sessions.of(self.holder_id),
            work.users.seats(self.holder_id),
            work.factors.of(self.holder_id),
        )
        awaited = factor.kinds if factor is not None and factor.active else ()
        credentials = login.credentials
        if credentials.password_hash != self.verified_hash:  # changed while it was verified
            raise Unauthenticated("wrong_credentials")
        if self.new_hash is not None:
            credentials = credentials.rehash(self.new_hash, at=work.now)
            work.save(credentials)
        live = [one for one in sessions if one.live(credentials.epoch, at=work.now)]
        for old in live[SESSIONS_MAX - 1 :]:
            work.save(old.end(at=work.now))
        session = Session.start(
            company_id=work.company_id,
            id=work.new_id(),
            holder=credentials,
            lasts=STAFF_SESSION if work.company_id == REALM else STORE_SESSION,
            current=_where_last(sessions, seats),
            user_agent=self.user_agent,
            ip=work.actor.ip,
            waits=bool(awaited),
            at=work.now,
        )
        work.save(session)
        return Opened(session, awaited)


def _where_last(sessions: Sequence[Session], seats: Sequence[Seat]) -> CompanyId | None:
    """The company somebody worked in last, if they still do, else the first by name."""
    places = [seat.company_id for seat in seats]
    last = (session.current for session in sessions if session.current in places)
    return next(last, places[0] if places else None)


class SignOut(Command[None], frozen=True, kw_only=True):
    """End the session of this device."""

    needs = Permission.ACCOUNT
    home = True

    async def run(self, work: Work) -> None:
        session = await work.sessions.get(work.actor.session_id or "")
        work.save(session.end(at=work.now))


class SignOutEverywhere(Command[None], frozen=True, kw_only=True):
    """End every session, this one too."""

    needs = Permission.ACCOUNT
    home = True

    async def run(self, work: Work) -> None:
        login = await work.logins.get(work.actor.id)
        work.save(login.credentials.end_sessions(at=work.now))


class EndSession(Command[None], frozen=True, kw_only=True):
    """End one of one's own sessions, on whatever device it is."""

    needs = Permission.ACCOUNT
    home = True

    session_id: fields.SessionIdInPath

    async def run(self, work: Work) -> None:
        session = await work.sessions.get(self.session_id)
        if session.holder_id != work.actor.id:
            raise NotFound("session_not_found")
        work.save(session.end(at=work.now))


class ListSessions(Query[list[profiles.SessionView]], frozen=True, kw_only=True):
    """Where one is signed in, newest first."""

    needs = Permission.ACCOUNT
    home = True

    async def run(self, reads: Reads) -> list[profiles.SessionView]:
        sessions, login = await reads.together(
            reads.sessions.of(reads.actor.id), reads.logins.get(reads.actor.id)
        )
        return [
            profiles.session(one, here=one.id == reads.actor.session_id)
            for one in sessions
            if one.live(login.credentials.epoch, at=reads.now)
        ]


class SwitchCompany(Command[None], frozen=True, kw_only=True):
    """Work in another of one's companies from now on, on this device."""

    needs = Permission.ACCOUNT
    home = True

    company_id: fields.CompanyId

    async def run(self, work: Work) -> None:
        await _switch(work, self.company_id)


class SwitchTo(Command[None], frozen=True, kw_only=True):
    """Have somebody work in a company they have just come to."""

    needs = None
    internal = True

    company_id: fields.CompanyId

    async def run(self, work: Work) -> None:
        await _switch(work, self.company_id)


async def _switch(work: Work, company_id: CompanyId) -> None:
    session, seats = await work.together(
        work.sessions.get(work.actor.session_id or ""), work.users.seats(work.actor.id)
    )
    if company_id not in [seat.company_id for seat in seats]:
        raise NotFound("company_not_found")
    work.save(session.switch(company_id, at=work.now))
