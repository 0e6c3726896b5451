"""People who sign in: users, what proves that it is them, and the sessions they are in.

Users belong to no company, so they and all of theirs are kept in the platform's own realm. A contact's
credentials and sessions are kept in its store, in the same shape.
"""

import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from hmac import compare_digest
from typing import Any, ClassVar, Final, Self
from uuid import UUID

from distribu.domain.audit import Entry
from distribu.domain.entity import Entity, Event, edited
from distribu.domain.errors import NotFound, Refused
from distribu.domain.factors import WAITING, FactorKind, FactorState
from distribu.domain.values import CompanyId, Secret, canonical_email, time_zone

REALM: Final = CompanyId("00000000-0000-7000-8000-000000000000")
"""The company of what belongs to no company: users, their sessions, the platform's own log."""

SESSIONS_MAX: Final = 50
"""Sessions a person may have at once; a new one ends the oldest."""

STAFF_SESSION: Final = timedelta(days=7)
STORE_SESSION: Final = timedelta(days=7)


class Purpose(StrEnum):
    """What a link that was mailed is good for; for anything else it is good for nothing."""

    VERIFY = "VERIFY"
    RESET = "RESET"
    EMAIL = "EMAIL"
    INVITE = "INVITE"


LIFETIME: Final[Mapping[Purpose, timedelta]] = {
    Purpose.VERIFY: timedelta(hours=24),
    Purpose.RESET: timedelta(hours=1),
    Purpose.EMAIL: timedelta(hours=24),
    Purpose.INVITE: timedelta(days=7),
}


# --- links -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A mailed token taken apart: whose it is, and the SHA-256 of its 256 random bits.

    The token says where to look, so that no table of all tokens is needed. Being in there proves
    nothing: what counts is whether the digest is the one that is kept.
    """

    company_id: CompanyId
    subject: str
    digest: bytes

    @staticmethod
    def token(company_id: CompanyId, subject: str, entropy: bytes) -> Secret:
        """The token of a link: 86 characters of base64url."""
        raw = UUID(company_id).bytes + UUID(subject).bytes + entropy
        return Secret(urlsafe_b64encode(raw).decode().rstrip("="))

    @classmethod
    def of(cls, token: Secret) -> Self:
        """Read a token. Raises `Refused` (invalid_token)."""
        text = token.reveal()
        try:
            raw = urlsafe_b64decode(text + "==")
        except ValueError:
            raise Refused("invalid_token") from None
        # What decodes alike is not the same: only the canonical form of a token is one.
        if len(raw) != 64 or urlsafe_b64encode(raw).decode().rstrip("=") != text:
            raise Refused("invalid_token")
        return cls(
            company_id=CompanyId(str(UUID(bytes=raw[:16]))),
            subject=str(UUID(bytes=raw[16:32])),
            digest=hashlib.sha256(raw[32:]).digest(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """One link that is out: what it is for, the digest of its secret, and until when it is good."""

    purpose: Purpose
    digest: bytes = field(repr=False)
    expires_at: datetime

    @classmethod
    def issue(cls, purpose: Purpose, entropy: bytes, *, at: datetime) -> Self:
        """A ticket for a token with these random bytes."""
        digest = hashlib.sha256(entropy).digest()
        return cls(purpose=purpose, digest=digest, expires_at=at + LIFETIME[purpose])

    def admits(self, digest: bytes, purpose: Purpose, *, at: datetime) -> bool:
        """Whether a link with this digest is good for this purpose now."""
        return self.purpose is purpose and at < self.expires_at and compare_digest(self.digest, digest)


# --- users -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class UserCreated(Event):
    name: ClassVar[str] = "account.created"


@dataclass(frozen=True, slots=True, kw_only=True)
class UserEdited(Event):
    """Told by field names only: what they hold names a person, and can be erased."""

    name: ClassVar[str] = "account.updated"
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmailChanged(Event):
    name: ClassVar[str] = "account.email_changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SuperAdminGranted(Event):
    name: ClassVar[str] = "account.super_admin_granted"


@dataclass(frozen=True, slots=True, kw_only=True)
class SuperAdminRevoked(Event):
    name: ClassVar[str] = "account.super_admin_revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class User(Entity):
    """A staff person: one record, however many companies they are a member of.

    ``wants_company`` is the name of the company they asked for when they signed up, and
    ``company_to_be`` its id, until their address is verified and it is founded.
    """

    email: str
    full_name: str
    time_zone: str = "UTC"
    is_super_admin: bool = False
    wants_company: str = ""
    company_to_be: CompanyId | None = None

    @classmethod
    def create(
        cls,
        *,
        id: str,
        email: str,
        full_name: str,
        at: datetime,
        wants_company: str = "",
        company_to_be: CompanyId | None = None,
    ) -> Self:
        """A new user. Raises `Invalid` for an address that is none."""
        return cls(
            company_id=REALM,
            id=id,
            email=canonical_email(email),
            full_name=full_name,
            wants_company=wants_company,
            company_to_be=company_to_be,
            created_at=at,
            updated_at=at,
            events=(UserCreated(),),
        )

    def edit(self, changes: dict[str, Any], *, at: datetime) -> Self:
        """Change name or time zone. Raises `Invalid`."""
        if "time_zone" in changes:
            time_zone(changes["time_zone"])
        _, after = edited(self, changes)
        return self._after(UserEdited(fields=tuple(sorted(after))), at=at, **after) if after else self

    def move_to(self, email: str, *, at: datetime) -> Self:
        """Go by another address, which has been verified."""
        return self._after(EmailChanged(), at=at, email=canonical_email(email))

    def sign_up_again(self, *, full_name: str, wants_company: str, at: datetime) -> Self:
        """Signed up once more before the address was verified: the last word counts."""
        event = UserEdited(fields=("full_name", "wants_company"))
        return self._after(event, at=at, full_name=full_name, wants_company=wants_company)

    def renamed(self, full_name: str, *, at: datetime) -> Self:
        """Claimed by whoever proved the address; what somebody else wanted with it is forgotten."""
        event = UserEdited(fields=("full_name", "wants_company"))
        return self._after(event, at=at, full_name=full_name, wants_company="", company_to_be=None)

    def settled(self, *, at: datetime) -> Self:
        """The company asked for at sign-up is founded."""
        if self.company_to_be is None:
            return self
        event = UserEdited(fields=("wants_company",))
        return self._after(event, at=at, wants_company="", company_to_be=None)

    def make_super_admin(self, yes: bool, *, at: datetime) -> Self:
        """Give or take the flag that opens the platform's own pages."""
        if self.is_super_admin == yes:
            return self
        event = SuperAdminGranted() if yes else SuperAdminRevoked()
        return self._after(event, at=at, is_super_admin=yes)


# --- credentials -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialsCreated(Event):
    name: ClassVar[str] = "auth.credentials_created"
    verified: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkIssued(Event):
    name: ClassVar[str] = "auth.link_issued"
    purpose: Purpose


@dataclass(frozen=True, slots=True, kw_only=True)
class EmailVerified(Event):
    name: ClassVar[str] = "auth.email_verified"


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordChanged(Event):
    """``how`` is "change" or "reset"; every other session ended with it."""

    name: ClassVar[str] = "auth.password_changed"
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordRehashed(Event):
    """The same password under newer parameters; no session ended."""

    name: ClassVar[str] = "auth.password_rehashed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsEnded(Event):
    name: ClassVar[str] = "auth.sessions_ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials(Entity):
    """What proves that it is a person: kept apart from what others may know of them.

    ``id`` is that of the user or contact. ``epoch`` goes up when every session is to end: a session of
    an earlier epoch is over. ``new_email`` is the address an EMAIL link was mailed to.
    """

    password_hash: str | None = field(repr=False)
    verified_at: datetime | None = None
    epoch: int = 1
    tickets: tuple[Ticket, ...] = field(default=(), repr=False)
    new_email: str | None = field(default=None, repr=False)

    @classmethod
    def create(
        cls, *, company_id: CompanyId, id: str, password_hash: str | None, verified: bool, at: datetime
    ) -> Self:
        """The credentials of someone new; without a password nobody can sign in with them."""
        return cls(
            company_id=company_id,
            id=id,
            password_hash=password_hash,
            verified_at=at if verified else None,
            created_at=at,
            updated_at=at,
            events=(CredentialsCreated(verified=verified),),
        )

    @property
    def unproven(self) -> bool:
        """Whether somebody chose a password for themselves, and has not proven the address yet."""
        return self.verified_at is None and self.password_hash is not None

    def issue(self, purpose: Purpose, entropy: bytes, *, at: datetime, new_email: str | None = None) -> Self:
        """Have one link out for this purpose: the one before it is good for nothing any more."""
        kept = tuple(ticket for ticket in self.tickets if ticket.purpose is not purpose)
        ticket = Ticket.issue(purpose, entropy, at=at)
        changes: dict[str, Any] = {"tickets": (*kept, ticket)}
        if purpose is Purpose.EMAIL:
            changes["new_email"] = new_email
        return self._after(LinkIssued(purpose=purpose), at=at, **changes)

    def verify(self, digest: bytes, *, at: datetime) -> Self:
        """Take a verification link. Raises `Refused` (invalid_token)."""
        kept = self._without(Purpose.VERIFY, digest, at)
        return self._after(EmailVerified(), at=at, tickets=kept, verified_at=self.verified_at or at)

    def reset(self, digest: bytes, password_hash: str, *, at: datetime) -> Self:
        """Take a reset link: a new password, an address that is proven, and no session left.

        Raises `Refused` (invalid_token).
        """
        self._without(Purpose.RESET, digest, at)
        return self._after(
            PasswordChanged(how="reset"),
            at=at,
            tickets=(),
            new_email=None,
            password_hash=password_hash,
            verified_at=self.verified_at or at,
            epoch=self.epoch + 1,
        )

    def welcome(self, digest: bytes, password_hash: str, *, at: datetime) -> Self:
        """Take the link of an invitation: a first password, and an address that is proven.

        Raises `Refused` (invalid_token).
        """
        self._without(Purpose.INVITE, digest, at)
        return self.claimed(password_hash, at=at)

    def claimed(self, password_hash: str, *, at: datetime) -> Self:
        """An account that was never verified goes to whoever proved its address another way."""
        return self._after(
            EmailVerified(),
            at=at,
            tickets=(),
            new_email=None,
            password_hash=password_hash,
            verified_at=at,
            epoch=self.epoch + 1,
        )

    def email_moved(self, digest: bytes, *, at: datetime) -> Self:
        """Take the link mailed to a new address; links mailed to the old one end.

        Raises `Refused` (invalid_token).
        """
        self._without(Purpose.EMAIL, digest, at)
        return self._after(EmailVerified(), at=at, tickets=(), new_email=None, verified_at=at)

    def change_password(self, password_hash: str, *, at: datetime) -> Self:
        """Another password; every session ends, and every link that is out."""
        return self._after(
            PasswordChanged(how="change"),
            at=at,
            password_hash=password_hash,
            tickets=(),
            new_email=None,
            epoch=self.epoch + 1,
        )

    def rehash(self, password_hash: str, *, at: datetime) -> Self:
        """The same password hashed as it would be today."""
        return self._after(PasswordRehashed(), at=at, password_hash=password_hash)

    def end_sessions(self, *, at: datetime) -> Self:
        """Sign out everywhere."""
        return self._after(SessionsEnded(), at=at, epoch=self.epoch + 1)

    def holds(self, digest: bytes, purpose: Purpose, *, at: datetime) -> bool:
        """Whether a link is good for this purpose now."""
        return any(ticket.admits(digest, purpose, at=at) for ticket in self.tickets)

    def _without(self, purpose: Purpose, digest: bytes, at: datetime) -> tuple[Ticket, ...]:
        if not self.holds(digest, purpose, at=at):
            raise Refused("invalid_token")
        return tuple(ticket for ticket in self.tickets if ticket.purpose is not purpose)


# --- sessions --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn(Event):
    name: ClassVar[str] = "auth.login"
    user_agent: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInFailed(Entry):
    """``why``: "password", "unverified", "not_admitted", "second_factor"."""

    name: ClassVar[str] = "auth.login_failed"
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInNoted(Entry):
    """A member of the team has signed in: told to the company, which does not see their sessions."""

    name: ClassVar[str] = "auth.member_login"

    def told(self) -> tuple[str, dict[str, Any]]:
        """The same action as that of the session itself, which is told where the account is kept."""
        return "auth.login", {}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformUsed(Entry):
    """Somebody who runs the platform has looked at something, or acted on a company."""

    name: ClassVar[str] = "platform.used"
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedOut(Event):
    name: ClassVar[str] = "auth.logout"


@dataclass(frozen=True, slots=True, kw_only=True)
class CompanySwitched(Event):
    name: ClassVar[str] = "auth.company_switched"
    company: CompanyId


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRenewed(Event):
    """The one session that outlives a change of its holder's password."""

    name: ClassVar[str] = "auth.session_renewed"


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorShown(Event):
    """The second factor was right: from now on the session is a whole one."""

    name: ClassVar[str] = "auth.factor_shown"
    kind: FactorKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Session(Entity):
    """Somebody signed in on a device. ``current`` is the company a user is working in.

    It is over when it ended, expired, or is of an earlier epoch than its holder's credentials. While its
    ``factor`` is awaited it opens nothing, and lasts `WAITING` only.
    """

    holder_id: str
    epoch: int
    expires_at: datetime
    ended_at: datetime | None = None
    current: CompanyId | None = None
    user_agent: str = field(default="", repr=False)
    ip: str | None = field(default=None, repr=False)
    seen_at: datetime
    factor: FactorState = FactorState.NONE

    @classmethod
    def start(
        cls,
        *,
        company_id: CompanyId,
        id: str,
        holder: Credentials,
        lasts: timedelta,
        current: CompanyId | None,
        user_agent: str,
        ip: str | None,
        waits: bool,
        at: datetime,
    ) -> Self:
        """Somebody has given their password; with ``waits`` they have a second factor to show."""
        user_agent = user_agent[:300]
        return cls(
            company_id=company_id,
            id=id,
            holder_id=holder.id,
            epoch=holder.epoch,
            expires_at=at + (WAITING if waits else lasts),
            current=current,
            factor=FactorState.AWAITED if waits else FactorState.NONE,
            user_agent=user_agent,
            ip=ip,
            seen_at=at,
            created_at=at,
            updated_at=at,
            events=(SignedIn(user_agent=user_agent),),
        )

    def live(self, epoch: int, *, at: datetime) -> bool:
        """Whether it still counts, given the epoch of its holder's credentials."""
        return self.ended_at is None and at < self.expires_at and self.epoch == epoch

    def complete(self, kind: FactorKind, *, lasts: timedelta, at: datetime) -> Self:
        """The second factor was shown."""
        return self._after(
            FactorShown(kind=kind), at=at, factor=FactorState.GIVEN, expires_at=self.created_at + lasts
        )

    def end(self, *, at: datetime) -> Self:
        """Sign out on this device. Raises `NotFound` when that was done before."""
        if self.ended_at is not None:
            raise NotFound("session_not_found")
        return self._after(SignedOut(), at=at, ended_at=at)

    def switch(self, company: CompanyId, *, at: datetime) -> Self:
        """Work in another company."""
        if company == self.current:
            return self
        return self._after(CompanySwitched(company=company), at=at, current=company)

    def without_factor(self, epoch: int, *, at: datetime) -> Self:
        """Outlive the end of all others, as a session that has seen no second factor."""
        return self._after(SessionRenewed(), at=at, epoch=epoch, factor=FactorState.NONE)

    def renew(self, epoch: int, *, at: datetime) -> Self:
        """Outlive the change that ended all others."""
        return self._after(SessionRenewed(), at=at, epoch=epoch)
