"""Use cases of the second factor: having one, showing it at sign-in, and losing it.

They are for staff. An app or a passkey counts once it was shown to work; with the first of them come
recovery codes, which are shown once.
"""

from dataclasses import dataclass
from typing import Annotated, Final

from msgspec import Meta

from distribu.application import fields, letters, profiles
from distribu.application.accounts import QUARTER_S, Digest, prove
from distribu.application.kernel import Command, Outside, Process, Query, Reads, Work
from distribu.application.ports import Login
from distribu.application.sessions import Entered, NoteFailedSignIn, NoteSignIn, device_of, tell_failed
from distribu.domain.access import Permission
from distribu.domain.accounts import REALM, STAFF_SESSION, Session
from distribu.domain.errors import NotFound, Refused
from distribu.domain.factors import (
    APP_SECRET_BYTES,
    RECOVERY_BYTES,
    RECOVERY_CODES,
    FactorKind,
    Passkey,
    SecondFactor,
    app_secret,
    recovery_code,
    recovery_digest,
)
from distribu.domain.values import Secret, canonical_email

GUESSES_PER_ACCOUNT: Final = 10
"""Codes that may be tried for one account in a quarter of an hour."""

CHALLENGE_S: Final = 300
"""A challenge is good for as long as this, at least, and for twice as long at most."""

_Code = Annotated[str, Meta(min_length=6, max_length=30, examples=["123456"])]
_Credential = Annotated[
    str,
    Meta(
        min_length=2,
        max_length=20_000,
        description="What the browser answered: `JSON.stringify(credential)`.",
        examples=['{"id":"aGVsbG8","rawId":"aGVsbG8","type":"public-key","response":{}}'],
    ),
]
_PasskeyName = Annotated[str, Meta(min_length=1, max_length=60, examples=["Ada's laptop"])]
_Count = Annotated[int, Meta(ge=0, le=2**53)]
_PasskeyId = Annotated[str, Meta(min_length=1, max_length=1400)]


# --- what one has ----------------------------------------------------------------------------


class ReadSecondFactor(Query[profiles.SecondFactorView], frozen=True, kw_only=True):
    """What one can show beside a password."""

    needs = Permission.ACCOUNT
    home = True

    async def run(self, reads: Reads) -> profiles.SecondFactorView:
        return profiles.second_factor(await _of(reads, reads.actor.id))


class OfferApp(Process[profiles.AppView], frozen=True, kw_only=True):
    """Show the secret for an app that gives codes. It counts once a code of it was given."""

    needs = Permission.ACCOUNT

    password: fields.Password

    async def run(self, outside: Outside) -> profiles.AppView:
        login = await _staff(outside, self.password)
        secret = app_secret(outside.entropy.bytes(APP_SECRET_BYTES))
        await outside.inside(REALM, KeepOffer(sealed=outside.vault.seal(secret)))
        return profiles.AppView(
            secret=secret.reveal(), link=outside.authenticators.app_link(secret, login.email)
        )


class KeepOffer(Command[None], frozen=True, kw_only=True):
    """Keep the secret of an app until its first code comes."""

    needs = None
    internal = True

    sealed: Annotated[str, Meta(max_length=500)]

    async def run(self, work: Work) -> None:
        work.save((await _of(work, work.actor.id)).offer(self.sealed, at=work.now))


class ConfirmApp(Process[profiles.RecoveryCodesView], frozen=True, kw_only=True):
    """Give the first code of an app. With the first factor come recovery codes, else there are none."""

    needs = Permission.ACCOUNT

    code: _Code

    async def run(self, outside: Outside) -> profiles.RecoveryCodesView:
        await _guess(outside)
        factor = await outside.inside(REALM, FindFactor(user_id=outside.actor.id))
        step = _step(outside, factor.offered, self.code)
        if step is None:
            raise Refused("wrong_code")
        codes, digests = _recovery(outside)
        first = await outside.inside(
            REALM, TakeApp(offered=factor.offered or "", step=step, recovery=digests)
        )
        return profiles.recovery_codes(codes if first else ())


class TakeApp(Command[bool], frozen=True, kw_only=True):
    """Have an app count. Returns whether it is the first factor."""

    needs = None
    internal = True

    offered: Annotated[str, Meta(max_length=500)]
    step: _Count
    recovery: Annotated[tuple[Digest, ...], Meta(max_length=RECOVERY_CODES)]

    async def run(self, work: Work) -> bool:
        factor = await _of(work, work.actor.id)
        if factor.offered != self.offered:
            raise Refused("wrong_code")
        work.save(factor.take_app(self.step, _bytes(self.recovery), at=work.now))
        await _shown(work, FactorKind.APP, added="an app that gives codes")
        return not factor.active


class RemoveApp(Process[None], frozen=True, kw_only=True):
    """Take no codes of the app any more."""

    needs = Permission.ACCOUNT

    password: fields.Password

    async def run(self, outside: Outside) -> None:
        await _staff(outside, self.password)
        await outside.inside(REALM, DropApp())


class DropApp(Command[None], frozen=True, kw_only=True):
    """Forget the app."""

    needs = None
    internal = True

    async def run(self, work: Work) -> None:
        factor = (await _of(work, work.actor.id)).without_app(at=work.now)
        work.save(factor)
        await _removed(work, factor, "the app that gives codes")


class OfferPasskey(Process[profiles.ChallengeView], frozen=True, kw_only=True):
    """What a browser is to be asked for a new passkey."""

    needs = Permission.ACCOUNT

    password: fields.Password

    async def run(self, outside: Outside) -> profiles.ChallengeView:
        login = await _staff(outside, self.password)
        factor = await outside.inside(REALM, FindFactor(user_id=login.id))
        options = outside.authenticators.registration(
            user_id=login.id,
            account=login.email,
            known=[one.id for one in factor.passkeys],
            challenge=_challenges(outside, "register")[0],
        )
        return profiles.ChallengeView(options=options)


class AddPasskey(Process[profiles.RecoveryCodesView], frozen=True, kw_only=True):
    """Add the passkey that a browser made. With the first factor come recovery codes, else there are none."""

    needs = Permission.ACCOUNT

    name: _PasskeyName
    credential: _Credential

    async def run(self, outside: Outside) -> profiles.RecoveryCodesView:
        await _guess(outside)
        challenges = _challenges(outside, "register")
        id, public_key, uses = outside.authenticators.registered(self.credential, challenges=challenges)
        codes, digests = _recovery(outside)
        keep = KeepPasskey(id=id, public_key=public_key.hex(), uses=uses, name=self.name, recovery=digests)
        first = await outside.inside(REALM, keep)
        return profiles.recovery_codes(codes if first else ())


class KeepPasskey(Command[bool], frozen=True, kw_only=True):
    """Have a passkey count. Returns whether it is the first factor."""

    needs = None
    internal = True

    id: _PasskeyId
    public_key: Annotated[str, Meta(pattern="^[0-9a-f]+$", max_length=4000)]
    uses: _Count
    name: _PasskeyName
    recovery: Annotated[tuple[Digest, ...], Meta(max_length=RECOVERY_CODES)]

    async def run(self, work: Work) -> bool:
        factor = await _of(work, work.actor.id)
        passkey = Passkey(
            id=self.id,
            public_key=bytes.fromhex(self.public_key),
            uses=self.uses,
            name=self.name,
            added_at=work.now,
        )
        work.save(factor.add(passkey, _bytes(self.recovery), at=work.now))
        await _shown(work, FactorKind.PASSKEY, added=f"the passkey {self.name}")
        return not factor.active


class RemovePasskey(Process[None], frozen=True, kw_only=True):
    """Take a passkey away."""

    needs = Permission.ACCOUNT

    passkey_id: fields.PasskeyIdInPath
    password: fields.Password

    async def run(self, outside: Outside) -> None:
        await _staff(outside, self.password)
        await outside.inside(REALM, DropPasskey(id=self.passkey_id))


class DropPasskey(Command[None], frozen=True, kw_only=True):
    """Forget a passkey."""

    needs = None
    internal = True

    id: _PasskeyId

    async def run(self, work: Work) -> None:
        factor = await _of(work, work.actor.id)
        name = factor.passkey(self.id).name
        factor = factor.without(self.id, at=work.now)
        work.save(factor)
        await _removed(work, factor, f"the passkey {name}")


class RenewRecoveryCodes(Process[profiles.RecoveryCodesView], frozen=True, kw_only=True):
    """Other recovery codes: those there were are good for nothing any more."""

    needs = Permission.ACCOUNT

    password: fields.Password

    async def run(self, outside: Outside) -> profiles.RecoveryCodesView:
        await _staff(outside, self.password)
        codes, digests = _recovery(outside)
        await outside.inside(REALM, ReplaceRecovery(recovery=digests))
        return profiles.recovery_codes(codes)


class ReplaceRecovery(Command[None], frozen=True, kw_only=True):
    """Put other recovery codes in the place of those there are."""

    needs = None
    internal = True

    recovery: Annotated[tuple[Digest, ...], Meta(max_length=RECOVERY_CODES)]

    async def run(self, work: Work) -> None:
        work.save((await _of(work, work.actor.id)).renew(_bytes(self.recovery), at=work.now))
        await _tell(work, added="new recovery codes")


# --- at sign-in ------------------------------------------------------------------------------


class GiveCode(Process[Entered], frozen=True, kw_only=True):
    """Finish signing in with a code of one's app, or with a recovery code."""

    needs = Permission.SECOND_FACTOR

    code: _Code
    user_agent: Annotated[str, Meta(max_length=300, extra={"in": "user-agent"})] = ""

    async def run(self, outside: Outside) -> Entered:
        await _guess(outside)
        factor = await outside.inside(REALM, FindFactor(user_id=outside.actor.id))
        step = _step(outside, factor.app, self.code)
        digest = "" if step is not None else recovery_digest(Secret(self.code)).hex()
        try:
            complete = CompleteSignIn(step=step, digest=digest or None)
            return await _enter(outside, complete, self.user_agent)
        except Refused:
            await _failed(outside)
            raise


class AskForPasskey(Process[profiles.ChallengeView], frozen=True, kw_only=True):
    """What a browser is to be asked to finish signing in with a passkey."""

    needs = Permission.SECOND_FACTOR

    async def run(self, outside: Outside) -> profiles.ChallengeView:
        factor = await outside.inside(REALM, FindFactor(user_id=outside.actor.id))
        if not factor.passkeys:
            raise NotFound("passkey_not_found")
        options = outside.authenticators.assertion(
            known=[one.id for one in factor.passkeys], challenge=_challenges(outside, "sign in")[0]
        )
        return profiles.ChallengeView(options=options)


class GivePasskey(Process[Entered], frozen=True, kw_only=True):
    """Finish signing in with a passkey."""

    needs = Permission.SECOND_FACTOR

    credential: _Credential
    user_agent: Annotated[str, Meta(max_length=300, extra={"in": "user-agent"})] = ""

    async def run(self, outside: Outside) -> Entered:
        await _guess(outside)
        factor = await outside.inside(REALM, FindFactor(user_id=outside.actor.id))
        id = outside.authenticators.asserted(self.credential)
        passkey = next((one for one in factor.passkeys if one.id == id), None)
        try:
            if passkey is None:
                raise Refused("wrong_code")
            challenges = _challenges(outside, "sign in")
            uses = outside.authenticators.proven(self.credential, passkey, challenges=challenges)
            complete = CompleteSignIn(passkey_id=passkey.id, uses=uses)
            return await _enter(outside, complete, self.user_agent)
        except Refused:
            await _failed(outside)
            raise


@dataclass(frozen=True, slots=True)
class _Complete:
    """A session that is a whole one now, and whose it is."""

    session: Session
    login: Login


class CompleteSignIn(Command[_Complete], frozen=True, kw_only=True):
    """Take what was shown, once: the step of an app's code, a recovery code, or a passkey's use."""

    needs = None
    internal = True

    step: _Count | None = None
    digest: Digest | None = None
    passkey_id: _PasskeyId | None = None
    uses: _Count = 0

    async def run(self, work: Work) -> _Complete:
        session, factor, login = await work.together(
            work.sessions.get(work.actor.session_id or ""),
            work.factors.of(work.actor.id),
            work.logins.get(work.actor.id),
        )
        if factor is None:
            raise Refused("wrong_code")
        if self.step is not None:
            kind, used = FactorKind.APP, factor.used_app(self.step, at=work.now)
        elif self.passkey_id is not None:
            kind = FactorKind.PASSKEY
            used = factor.used_passkey(self.passkey_id, self.uses, at=work.now)
        else:
            digest = bytes.fromhex(self.digest or "")
            kind, used = FactorKind.RECOVERY_CODE, factor.used_recovery(digest, at=work.now)
            work.mail(login.email, letters.RecoveryCodeUsed(left=len(used.recovery)))
        session = session.complete(kind, lasts=STAFF_SESSION, at=work.now)
        work.save(used, session)
        return _Complete(session, login)


async def _enter(outside: Outside, complete: CompleteSignIn, user_agent: str) -> Entered:
    whole = await outside.inside(REALM, complete)
    if whole.session.current is not None:
        note = NoteSignIn(user_id=whole.login.id, user_agent=user_agent)
        await outside.inside(whole.session.current, note)
    device = device_of(outside, whole.login.email, whole.login)
    return Entered(session=whole.session, login=whole.login, device=device)


async def _failed(outside: Outside) -> None:
    await tell_failed(outside, NoteFailedSignIn(holder_id=outside.actor.id, why="second_factor"))


# --- for who has lost it ---------------------------------------------------------------------


class ClearSecondFactor(Command[None], frozen=True, kw_only=True):
    """Forget a user's second factors and sign them out everywhere: they have lost them. Raises `NotFound`."""

    needs = Permission.PLATFORM
    home = True

    email: fields.Email

    async def run(self, work: Work) -> None:
        login = await work.logins.by_email(canonical_email(self.email))
        if login is None:
            raise NotFound("user_not_found")
        factor = await _of(work, login.id)
        if not factor.active:
            raise Refused("no_second_factor")
        work.save(factor.clear(at=work.now), login.credentials.end_sessions(at=work.now))
        work.mail(login.email, letters.SecondFactorChanged(removed="every second factor, by an operator"))


# --- what they share -------------------------------------------------------------------------


class FindFactor(Query[SecondFactor], frozen=True, kw_only=True):
    """What a user can show, for a process."""

    needs = None
    internal = True

    user_id: fields.Uuid

    async def run(self, reads: Reads) -> SecondFactor:
        return await _of(reads, self.user_id)


async def _of(reads: Reads, user_id: str) -> SecondFactor:
    found = await reads.factors.of(user_id)
    return found or SecondFactor.of(REALM, user_id, at=reads.now)


async def _staff(outside: Outside, password: str) -> Login:
    """A user who gives their password again. Raises `NotFound` for a contact, `Refused` (wrong_password)."""
    if outside.home != REALM:
        raise NotFound("not_found")
    return await prove(outside, password)


async def _guess(outside: Outside) -> None:
    if outside.home != REALM:
        raise NotFound("not_found")
    await outside.limit("factor", outside.actor.id, GUESSES_PER_ACCOUNT, QUARTER_S)


def _step(outside: Outside, sealed: str | None, code: str) -> int | None:
    if sealed is None:
        return None
    return outside.authenticators.app_step(outside.vault.open(sealed), code, at=outside.clock.now())


def _challenges(outside: Outside, what: str) -> list[bytes]:
    """The challenge of this while, and that of the one before: made for one session, kept nowhere."""
    now = int(outside.clock.now().timestamp()) // CHALLENGE_S
    session = outside.actor.session_id or ""
    return [bytes.fromhex(outside.mark("passkey", what, session, str(while_))) for while_ in (now, now - 1)]


def _recovery(outside: Outside) -> tuple[list[Secret], tuple[str, ...]]:
    codes = [recovery_code(outside.entropy.bytes(RECOVERY_BYTES)) for _ in range(RECOVERY_CODES)]
    return codes, tuple(recovery_digest(code).hex() for code in codes)


def _bytes(digests: tuple[str, ...]) -> tuple[bytes, ...]:
    return tuple(bytes.fromhex(digest) for digest in digests)


async def _shown(work: Work, kind: FactorKind, *, added: str) -> None:
    """Whoever adds a factor has shown it: their session is a whole one."""
    session = await work.sessions.get(work.actor.session_id or "")
    work.save(session.complete(kind, lasts=STAFF_SESSION, at=work.now))
    await _tell(work, added=added)


async def _removed(work: Work, factor: SecondFactor, what: str) -> None:
    """With the last factor goes what sessions have seen of it: this one goes on without, the others end."""
    if not factor.active:
        login, session = await work.together(
            work.logins.get(work.actor.id), work.sessions.get(work.actor.session_id or "")
        )
        credentials = login.credentials.end_sessions(at=work.now)
        work.save(credentials, session.without_factor(credentials.epoch, at=work.now))
    await _tell(work, removed=what)


async def _tell(work: Work, *, added: str = "", removed: str = "") -> None:
    login = await work.logins.get(work.actor.id)
    work.mail(login.email, letters.SecondFactorChanged(added=added, removed=removed))
