"""The mailbox of development: the mails that were kept instead of sent, to be read in a browser.

It stands beside the application, with headers of its own: a mail is shown in a frame, and with the styles
written into it. Whoever reaches it reads the links in them, so it is never there in production.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any, Final, Protocol
from urllib.parse import parse_qs

import jinja2

from distribu.entrypoints.http.browser import ALWAYS, PAGE_POLICY, Application, Header, Scope, Send

PATH: Final = "/_mail"
PAGE: Final = 50
"""Mails on a page of the list."""

_FRAMES: Final[Header] = (b"content-security-policy", PAGE_POLICY + b"; frame-src 'self'")
_MAY: Final = "allow-popups allow-popups-to-escape-sandbox"
"""A mail runs no script and sends no form; a link in it opens a tab of its own, which is free."""

_TABS: Final = '<base target="_blank">'
"""Without it a link would open in the frame."""

_MAIL_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; base-uri 'none'; "
    f"frame-ancestors 'self'; sandbox {_MAY}"
)
# Opened by itself it would be a network error: a sandbox and this header exclude each other (HTML standard).
_OPENER: Final = b"cross-origin-opener-policy"
_MAIL_HEADERS: Final[tuple[Header, ...]] = (
    *((name, value) for name, value in ALWAYS if name not in (b"x-frame-options", _OPENER)),
    (b"x-frame-options", b"SAMEORIGIN"),
    (b"content-security-policy", _MAIL_POLICY.encode()),
)


class Shown(Protocol):
    """A mail as its reader sees it."""

    @property
    def id(self) -> str: ...
    @property
    def sender(self) -> str: ...
    @property
    def to(self) -> str: ...
    @property
    def subject(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def html(self) -> str: ...


class Postbox(Protocol):
    """Where mails were kept."""

    def ids(self) -> Sequence[str]:
        """What there is, newest first; each id is a UUIDv7."""
        ...

    def read(self, id: str) -> Shown | None:
        """One mail, None when it is not there."""
        ...


@dataclass(frozen=True, slots=True)
class _Answer:
    body: str
    status: int = 200
    kind: str = "text/html; charset=utf-8"
    headers: tuple[Header, ...] = (*ALWAYS, _FRAMES)


def with_mailbox(app: Application, postbox: Postbox) -> Application:
    """An application that also shows these mails, under ``/_mail``."""

    async def answered(scope: Scope, receive: Any, send: Send) -> None:
        path = scope["path"] if scope["type"] == "http" else ""
        if path != PATH and not path.startswith(PATH + "/"):
            await app(scope, receive, send)
            return
        query = parse_qs(scope["query_string"].decode("latin-1"))
        given = await asyncio.to_thread(_answer, postbox, scope["method"], path, query)
        body = given.body.encode()
        headers = [
            *given.headers,
            (b"cache-control", b"no-store"),
            (b"content-type", given.kind.encode()),
            (b"content-length", b"%d" % len(body)),
        ]
        await send({"type": "http.response.start", "status": given.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    return answered


def _answer(postbox: Postbox, method: str, path: str, query: dict[str, list[str]]) -> _Answer:
    if method not in ("GET", "HEAD"):
        return _Answer(_page(wrong="A mail can only be read."), 405)
    match path.removeprefix(PATH).strip("/").split("/"):
        case [""]:
            return _Answer(_list(postbox, query.get("before", [""])[0]))
        case ["mail.css"]:
            return _Answer(_file("mailbox.css"), kind="text/css; charset=utf-8")
        case [id] if mail := postbox.read(id):
            return _Answer(_page(mail=mail, at=_time(id)))
        case [id, "html"] if mail := postbox.read(id):
            return _Answer(mail.html.replace("<head>", f"<head>{_TABS}", 1), headers=_MAIL_HEADERS)
        case _:
            return _Answer(_page(wrong="There is no such mail. Only the last ones are kept."), 404)


def _list(postbox: Postbox, before: str) -> str:
    ids = [id for id in postbox.ids() if not before or id < before]
    mails = [(mail, _time(id)) for id in ids[:PAGE] if (mail := postbox.read(id))]
    return _page(mails=mails, first=not before, older=ids[PAGE - 1] if len(ids) > PAGE else "")


def _time(id: str) -> str:
    """When a mail was written, in UTC: its id begins with the milliseconds since 1970."""
    try:
        at = datetime.fromtimestamp(int(id.replace("-", "")[:12], 16) // 1000, UTC)
    except (ValueError, OverflowError):
        return ""
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _page(**shown: Any) -> str:
    empty = {"mail": None, "mails": None, "wrong": "", "path": PATH, "may": _MAY}
    return _template().render(empty | shown)


@cache
def _template() -> jinja2.Template:
    return jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        _file("mailbox.html")
    )


def _file(name: str) -> str:
    return (files("distribu.entrypoints.http") / name).read_text()
