"""Sessions at the HTTP door: a signed token in a cookie, one kind for staff and one for each store.

The token (a JWT, RFC 7519, HS256) says which session it is and for whom it was made; whether that session
still counts is asked of the directory on every request, so that ending one holds on every server at once.
Staff and stores have keys and audiences of their own: neither token is anything in the other's place.
"""

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from re import compile as compiled
from typing import Any, Final

import jwt
from litestar import Request as HttpRequest

from distribu.application.fields import UUID_PATTERN
from distribu.application.kernel import Distribu
from distribu.domain.access import Actor
from distribu.domain.accounts import REALM, Session
from distribu.domain.errors import Bug, Busy, NotFound, Unauthenticated
from distribu.domain.values import CompanyId, Secret
from distribu.entrypoints.http.cookies import ended, kept, staff_cookie, store_cookie, token_in

SEEN_EVERY: Final = timedelta(minutes=5)
"""How exactly it is known when a session was last used."""

DEVICE_COOKIE_S: Final = 365 * 86_400
_UUID: Final = compiled(UUID_PATTERN.strip("^$"))
_ISSUER: Final = "distribu"
_STAFF: Final = "distribu/staff"
_STORES_KNOWN: Final = 10_000

Http = HttpRequest[Any, Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """What tokens are signed with: the first key signs, any of them verifies."""

    staff: tuple[Secret, ...]
    store: tuple[Secret, ...]


class Sessions:
    """Makes and reads the cookies of people."""

    def __init__(self, distribu: Distribu, keys: Keys, *, production: bool) -> None:
        if not keys.staff or not keys.store or set(keys.staff) & set(keys.store):
            raise Bug("staff and stores each need keys of their own")
        self.distribu = distribu
        self.keys = keys
        self.production = production
        self._stores: dict[str, CompanyId] = {}

    async def staff(self, http: Http, ip: str | None) -> Actor:
        """The user who is signed in. Raises `Unauthenticated`."""
        token = token_in(http, staff_cookie(production=self.production))
        id = self._read(token, self.keys.staff, _STAFF)
        grant = await self.distribu.ports.directory.staff_session(id) if id else None
        now = self.distribu.ports.clock.now()
        actor = grant.actor(now=now, ip=ip) if grant else None
        if grant is None or actor is None:
            raise Unauthenticated("unauthenticated")
        await self._seen(REALM, grant.session_id, grant.seen_at, now, ip)
        return actor

    async def contact(self, http: Http, company_id: CompanyId, ip: str | None) -> Actor:
        """The contact who is signed in at a store. Raises `Unauthenticated`."""
        token = token_in(http, store_cookie(http.path_params["slug"], production=self.production))
        id = self._read(token, self.keys.store, _audience(company_id))
        grant = await self.distribu.ports.directory.store_session(company_id, id) if id else None
        now = self.distribu.ports.clock.now()
        actor = grant.actor(now=now, ip=ip) if grant else None
        if grant is None or actor is None:
            raise Unauthenticated("unauthenticated")
        await self._seen(company_id, grant.session_id, grant.seen_at, now, ip)
        return actor

    async def store(self, slug: str) -> CompanyId:
        """The company behind a store's address. Raises `NotFound`.

        A slug is never given to another company, so that what was found once holds.
        """
        company_id = self._stores.get(slug)
        if company_id is None:
            company_id = await self.distribu.ports.directory.company(slug)
            if company_id is None:
                raise NotFound("company_not_found")
            if len(self._stores) < _STORES_KNOWN:
                self._stores[slug] = company_id
        return company_id

    def begun(self, session: Session, slug: str | None) -> str:
        """The Set-Cookie value of a session that begins."""
        life_s = int((session.expires_at - session.created_at).total_seconds())
        name, keys, audience = self._kind(session.company_id, slug)
        claims = {
            "iss": _ISSUER,
            "aud": audience,
            "sub": session.holder_id,
            "sid": session.id,
            "iat": int(session.created_at.timestamp()),
            "exp": int(session.expires_at.timestamp()),
        }
        return kept(name, jwt.encode(claims, keys[0].reveal(), algorithm="HS256"), max_age_s=life_s)

    def over(self, slug: str | None) -> str:
        """The Set-Cookie value that makes a browser forget a session."""
        if slug is None:
            return ended(staff_cookie(production=self.production))
        return ended(store_cookie(slug, production=self.production))

    def device(self, http: Http, slug: str | None) -> str:
        """What an earlier sign-in on this device left, or nothing."""
        return token_in(http, self._device_name(slug)) or ""

    def remembered(self, device: Secret, slug: str | None) -> str:
        """The Set-Cookie value by which the device is known at the next sign-in."""
        return kept(self._device_name(slug), device.reveal(), max_age_s=DEVICE_COOKIE_S)

    def _device_name(self, slug: str | None) -> str:
        return _device_name(slug, self.production)

    def _kind(self, company_id: CompanyId, slug: str | None) -> tuple[str, tuple[Secret, ...], str]:
        if slug is None:
            return staff_cookie(production=self.production), self.keys.staff, _STAFF
        return store_cookie(slug, production=self.production), self.keys.store, _audience(company_id)

    def _read(self, token: str | None, keys: tuple[Secret, ...], audience: str) -> str | None:
        """The session's id in a token that was signed for this audience and has not expired."""
        for key in keys if token else ():
            try:
                claims = jwt.decode(
                    token or "",
                    key.reveal(),
                    algorithms=["HS256"],
                    audience=audience,
                    issuer=_ISSUER,
                    options={"require": ["exp", "sub", "sid"], "verify_exp": False, "verify_iat": False},
                )
            except jwt.InvalidTokenError:
                continue
            expires, id = claims["exp"], claims["sid"]
            # By our own clock, which the library does not know.
            late = not isinstance(expires, int) or expires <= self.distribu.ports.clock.now().timestamp()
            return id if not late and isinstance(id, str) and _UUID.fullmatch(id) else None
        return None

    async def _seen(
        self, company_id: CompanyId, session_id: str, before: datetime, now: datetime, ip: str | None
    ) -> None:
        if now - before >= SEEN_EVERY:
            with suppress(Busy):  # it is only a note
                await self.distribu.ports.queue.seen(company_id, session_id, at=now, ip=ip)


def _audience(company_id: CompanyId) -> str:
    return f"distribu/store/{company_id}"


@lru_cache(maxsize=1024)
def _device_name(slug: str | None, production: bool) -> str:
    if slug is None:
        return staff_cookie(production=production).replace("_staff", "_device")
    return store_cookie(slug, production=production).replace("_store_", "_device_", 1)
