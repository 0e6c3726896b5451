"""Session cookies: made, ended and read. What they hold is a token of somebody else's making.

In production their names begin with ``__Host-``: a browser keeps such a cookie only with Secure, ``Path=/``
and no Domain, so that no other host of the domain can put one in its place (RFC 6265bis, 4.1.3). Of two
cookies of one name neither is believed, for nobody can tell which of them is ours.

A store's cookie has the store's slug in its name: one browser can be signed in at several stores, and
``__Host-`` leaves no path to tell them apart by. Where a slug changes, people sign in again.
"""

from re import compile as compiled
from typing import Any, Final

from litestar import Request as HttpRequest

from distribu.domain.errors import Bug

AGE_MAX_S: Final = 400 * 24 * 60 * 60
"""What browsers keep a cookie for at the most, in seconds (RFC 6265bis, 5.5)."""

_HOST: Final = "__Host-"
_SLUG: Final = compiled(r"[a-z0-9-]{1,60}")
_NAME: Final = compiled(r"(?:__Host-)?distribu_[a-z0-9_-]{1,80}")
_VALUE: Final = compiled(rb"[A-Za-z0-9._~=-]{1,3072}")
"""Tokens: base64url, and dots between the parts of a JWT. With its name a browser takes 4,096 bytes."""


def staff_cookie(*, production: bool) -> str:
    """The name of the cookie that a member of staff is signed in by."""
    return (_HOST if production else "") + "distribu_staff"


def store_cookie(slug: str, *, production: bool) -> str:
    """The name of the cookie that a contact is signed in by at one store."""
    if not _SLUG.fullmatch(slug):
        raise Bug(f"{slug!r} is no slug")
    return (_HOST if production else "") + f"distribu_store_{slug}"


def kept(name: str, token: str, *, max_age_s: int) -> str:
    """The value of the Set-Cookie header that has a browser keep a token, for so many seconds."""
    if not _VALUE.fullmatch(token.encode()) or not 0 < max_age_s <= AGE_MAX_S:
        raise Bug("no cookie can hold this token, or for so long")
    return _cookie(name, token, max_age_s)


def ended(name: str) -> str:
    """The value of the Set-Cookie header that has a browser forget it."""
    return _cookie(name, "", 0)


def _cookie(name: str, value: str, max_age_s: int) -> str:
    if not _NAME.fullmatch(name):
        raise Bug(f"{name!r} is no name of a cookie of ours")
    secure = "; Secure" if name.startswith(_HOST) else ""
    return f"{name}={value}; Max-Age={max_age_s}; Path=/{secure}; HttpOnly; SameSite=Lax"


def token_in(http: HttpRequest[Any, Any, Any], name: str) -> str | None:
    """The token that a request carries under a name; None when it carries none, or more than one.

    Only plain spaces are cut off, since nobody guards the prefix of a name that begins with another kind.
    """
    wanted, found = name.encode(), None
    for header, value in http.scope["headers"]:
        if header != b"cookie":
            continue
        for pair in value.split(b";"):
            key, equals, token = pair.strip(b" ").partition(b"=")
            if not equals or key != wanted:
                continue
            if found is not None:
                return None
            found = token
    return found.decode() if found is not None and _VALUE.fullmatch(found) else None
