"""Second factors: what staff show beside a password, and the codes for when they have lost it.

An app gives codes (TOTP, RFC 6238), a passkey signs (WebAuthn level 3), a recovery code works once.
"""

import hashlib
from base64 import b32encode
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar, Final, Self

from distribu.domain.entity import Entity, Event
from distribu.domain.errors import Conflict, NotFound, Refused
from distribu.domain.values import CompanyId, Secret

PASSKEYS_MAX: Final = 20
"""Passkeys of one person."""

RECOVERY_CODES: Final = 10
RECOVERY_BYTES: Final = 10
"""80 random bits in a code: it needs no slow hash."""

APP_SECRET_BYTES: Final = 20
"""As many as HMAC-SHA-1 gives out (RFC 4226, section 4)."""

WAITING: Final = timedelta(minutes=10)
"""So long a session waits for the second factor."""


class FactorState(StrEnum):
    """How a session stands: of somebody who has no second factor, waiting for one, or shown one."""

    NONE = "NONE"
    AWAITED = "AWAITED"
    GIVEN = "GIVEN"


class FactorKind(StrEnum):
    """What somebody can show."""

    APP = "APP"
    PASSKEY = "PASSKEY"
    RECOVERY_CODE = "RECOVERY_CODE"


def app_secret(entropy: bytes) -> Secret:
    """Random bytes as apps take them: base32 without padding."""
    return Secret(b32encode(entropy).decode().rstrip("="))


def recovery_code(entropy: bytes) -> Secret:
    """Ten random bytes as four groups of four letters and digits."""
    text = b32encode(entropy).decode()
    return Secret("-".join(text[at : at + 4] for at in range(0, 16, 4)))


def recovery_digest(code: Secret) -> bytes:
    """What is kept of a recovery code: its SHA-256, whatever its case, dashes and spaces."""
    return hashlib.sha256("".join(code.reveal().upper().replace("-", "").split()).encode()).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Passkey:
    """A key pair on somebody's device: ``id`` is base64url, ``uses`` what the device has counted."""

    id: str
    public_key: bytes = field(repr=False)
    uses: int
    name: str
    added_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorAdded(Event):
    name: ClassVar[str] = "auth.factor_added"
    kind: FactorKind


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorRemoved(Event):
    name: ClassVar[str] = "auth.factor_removed"
    kind: FactorKind


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorUsed(Event):
    name: ClassVar[str] = "auth.factor_used"
    kind: FactorKind


@dataclass(frozen=True, slots=True, kw_only=True)
class AppOffered(Event):
    """The secret of an app was shown; it counts once a code of it was given."""

    name: ClassVar[str] = "auth.factor_offered"


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorResealed(Event):
    """The secret of an app is the same, under another key of the vault."""

    name: ClassVar[str] = "auth.factor_resealed"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryCodesRenewed(Event):
    name: ClassVar[str] = "auth.recovery_codes_renewed"


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorsCleared(Event):
    """By an operator, for somebody who has lost all of them."""

    name: ClassVar[str] = "auth.factors_cleared"


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondFactor(Entity):
    """All that a user can show beside a password; ``id`` is the user's.

    ``app`` is the sealed secret of their app, ``offered`` one that waits for its first code;
    ``app_step`` the last step of time a code was taken for, since none is taken twice (RFC 6238,
    section 5.2). ``recovery`` are the digests of the codes that are left.
    """

    app: str | None = field(default=None, repr=False)
    app_step: int = 0
    offered: str | None = field(default=None, repr=False)
    recovery: tuple[bytes, ...] = field(default=(), repr=False)
    passkeys: tuple[Passkey, ...] = ()

    @property
    def active(self) -> bool:
        """Whether a password alone is not enough."""
        return self.app is not None or bool(self.passkeys)

    @property
    def kinds(self) -> tuple[FactorKind, ...]:
        """What can be shown."""
        held = {
            FactorKind.APP: self.app is not None,
            FactorKind.PASSKEY: bool(self.passkeys),
            FactorKind.RECOVERY_CODE: self.active and bool(self.recovery),
        }
        return tuple(kind for kind, there in held.items() if there)

    @classmethod
    def of(cls, company_id: CompanyId, id: str, *, at: datetime) -> Self:
        """Nothing yet; to be saved together with the first thing that is."""
        return cls(company_id=company_id, id=id, version=0, created_at=at, updated_at=at, events=())

    def offer(self, sealed: str, *, at: datetime) -> Self:
        """Show the secret of an app, in the place of one that was shown before."""
        return self._after(AppOffered(), at=at, offered=sealed)

    def take_app(self, step: int, recovery: tuple[bytes, ...], *, at: datetime) -> Self:
        """The first code of the app that was offered was right. Raises `Refused` (wrong_code)."""
        if self.offered is None:
            raise Refused("wrong_code")
        return self._after(
            FactorAdded(kind=FactorKind.APP),
            at=at,
            app=self.offered,
            offered=None,
            app_step=step,
            recovery=self.recovery if self.active else recovery,
        )

    def add(self, passkey: Passkey, recovery: tuple[bytes, ...], *, at: datetime) -> Self:
        """One more passkey. Raises `Conflict` (already_registered), `Refused` (too_many)."""
        if any(one.id == passkey.id for one in self.passkeys):
            raise Conflict("already_registered")
        if len(self.passkeys) >= PASSKEYS_MAX:
            raise Refused("too_many", f"A person has at most {PASSKEYS_MAX} passkeys.")
        return self._after(
            FactorAdded(kind=FactorKind.PASSKEY),
            at=at,
            passkeys=(*self.passkeys, passkey),
            recovery=self.recovery if self.active else recovery,
        )

    def passkey(self, id: str) -> Passkey:
        """One of the passkeys. Raises `NotFound`."""
        found = next((one for one in self.passkeys if one.id == id), None)
        if found is None:
            raise NotFound("passkey_not_found")
        return found

    def without_app(self, *, at: datetime) -> Self:
        """Take no codes of the app any more. Raises `NotFound`."""
        if self.app is None:
            raise NotFound("not_found")
        return self._after(
            FactorRemoved(kind=FactorKind.APP),
            at=at,
            app=None,
            recovery=self.recovery if self.passkeys else (),
        )

    def without(self, passkey_id: str, *, at: datetime) -> Self:
        """Take a passkey away. Raises `NotFound`."""
        gone = self.passkey(passkey_id)
        left = tuple(one for one in self.passkeys if one is not gone)
        stays = self.app is not None or bool(left)
        return self._after(
            FactorRemoved(kind=FactorKind.PASSKEY),
            at=at,
            passkeys=left,
            recovery=self.recovery if stays else (),
        )

    def renew(self, recovery: tuple[bytes, ...], *, at: datetime) -> Self:
        """Other recovery codes instead of those there were. Raises `Refused` (no_second_factor)."""
        if not self.active:
            raise Refused("no_second_factor")
        return self._after(RecoveryCodesRenewed(), at=at, recovery=recovery)

    def used_app(self, step: int, *, at: datetime) -> Self:
        """A code of this step of time was right. Raises `Refused` (wrong_code) the second time."""
        if self.app is None or step <= self.app_step:
            raise Refused("wrong_code")
        return self._after(FactorUsed(kind=FactorKind.APP), at=at, app_step=step)

    def used_recovery(self, digest: bytes, *, at: datetime) -> Self:
        """Take a recovery code. Raises `Refused` (wrong_code)."""
        if not self.active or digest not in self.recovery:
            raise Refused("wrong_code")
        left = tuple(one for one in self.recovery if one != digest)
        return self._after(FactorUsed(kind=FactorKind.RECOVERY_CODE), at=at, recovery=left)

    def used_passkey(self, id: str, uses: int, *, at: datetime) -> Self:
        """A passkey has signed, for the time that its device has counted. Raises `NotFound`."""
        before = self.passkey(id)
        after = Passkey(
            id=id, public_key=before.public_key, uses=uses, name=before.name, added_at=before.added_at
        )
        changed = tuple(after if one is before else one for one in self.passkeys)
        return self._after(FactorUsed(kind=FactorKind.PASSKEY), at=at, passkeys=changed)

    def reseal(self, app: str | None, offered: str | None) -> Self:
        """Keep the same secrets under another key."""
        return self._after(FactorResealed(), at=self.updated_at, app=app, offered=offered)

    def clear(self, *, at: datetime) -> Self:
        """Forget all of it."""
        return self._after(
            FactorsCleared(), at=at, app=None, offered=None, app_step=0, recovery=(), passkeys=()
        )
