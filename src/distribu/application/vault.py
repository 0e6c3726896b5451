"""Use cases of the vault: what is sealed gets under its newest key, so that an old one can be taken away."""

from typing import Annotated, Final

from msgspec import Meta

from distribu.application import fields, views
from distribu.application.kernel import Command, Outside, Process, Work
from distribu.application.platform import FindCompanies, NoteUse
from distribu.domain.access import Permission
from distribu.domain.accounts import REALM
from distribu.domain.errors import Bug
from distribu.domain.webhooks import WEBHOOKS_MAX

COMPANIES_AT_ONCE: Final = 20
USERS_AT_ONCE: Final = 50
MAILS_AT_ONCE: Final = 500


class Resealed(views.View, frozen=True, kw_only=True):
    """A part of the work: so many companies, users or mails (``what``) were ``looked_at``, and of so many
    the secrets sealed anew. ``unreadable`` are those sealed under no key of the ring. ``next`` is what to
    go on with; None when that was all.
    """

    what: str
    looked_at: int
    resealed: int
    unreadable: int
    next: str | None


class ResealSecrets(Process[Resealed], frozen=True, kw_only=True):
    """Seal anew what is not under the newest key of the vault: of webhooks, second factors, waiting mails.

    It is the operator's. A part at a time, each going on `after` the one before; what is under the newest
    key already is left as it is, so that it can be stopped, and begun again from the start. Answers kept
    for idempotency are left out: a day later they are gone.
    """

    needs = Permission.COMPANY_CREATE

    after: Annotated[str, Meta(max_length=60)] = ""

    async def run(self, outside: Outside) -> Resealed:
        what, _, cursor = self.after.partition(" ")
        match what:
            case "users":
                return await outside.inside(REALM, ResealFactors(cursor=cursor or None))
            case "mails":
                return await self._mails(outside, cursor)
            case _:
                return await self._companies(outside, cursor or None)

    async def _companies(self, outside: Outside, cursor: str | None) -> Resealed:
        if cursor is None:
            await outside.inside(REALM, NoteUse(what="reseal"))
        page = await outside.inside(REALM, FindCompanies(limit=COMPANIES_AT_ONCE, cursor=cursor))
        resealed, unreadable = 0, 0
        for company in page.items:
            done = await outside.inside(company.id, ResealWebhooks())
            resealed, unreadable = resealed + done[0], unreadable + done[1]
        more = "users" if page.next_cursor is None else f"companies {page.next_cursor}"
        return Resealed(
            what="companies", looked_at=len(page.items), resealed=resealed, unreadable=unreadable, next=more
        )

    async def _mails(self, outside: Outside, cursor: str) -> Resealed:
        looked_at, unreadable = 0, 0

        def anew(sealed: str) -> str | None:
            nonlocal looked_at, unreadable
            looked_at += 1
            try:
                return outside.vault.anew(sealed)
            except Bug:
                unreadable += 1
                return None

        resealed, last = await outside.queue.reseal(anew, after=cursor, limit=MAILS_AT_ONCE)
        more = f"mails {last}" if last else None
        return Resealed(
            what="mails", looked_at=looked_at, resealed=resealed, unreadable=unreadable, next=more
        )


class ResealWebhooks(Command[tuple[int, int]], frozen=True, kw_only=True):
    """Seal the secrets of the company's webhooks anew, as far as they have to be.

    Returns of how many, and of how many they cannot be read.
    """

    needs = None
    internal = True

    async def run(self, work: Work) -> tuple[int, int]:
        resealed, unreadable = 0, 0
        for it in (await work.webhooks.page(limit=WEBHOOKS_MAX)).items:
            try:
                if _anew(work, it.secret, it.old_secret) is None:
                    continue
            except Bug:
                unreadable += 1
                continue
            webhook = await work.webhooks.get(it.id)
            secrets = _anew(work, webhook.secret, webhook.old_secret)
            if secrets is not None:
                work.save(webhook.reseal(secrets[0] or "", secrets[1]))
                resealed += 1
        return resealed, unreadable


class ResealFactors(Command[Resealed], frozen=True, kw_only=True):
    """Seal the secrets of users' apps anew, as far as they have to be."""

    needs = None
    internal = True

    cursor: fields.Cursor | None

    async def run(self, work: Work) -> Resealed:
        page = await work.users.page(limit=USERS_AT_ONCE, cursor=self.cursor)
        resealed, unreadable = 0, 0
        for user in page.items:
            factor = await work.factors.of(user.id)
            if factor is None:
                continue
            try:
                secrets = _anew(work, factor.app, factor.offered)
            except Bug:
                unreadable += 1
                continue
            if secrets is not None:
                work.save(factor.reseal(*secrets))
                resealed += 1
        more = "mails" if page.next_cursor is None else f"users {page.next_cursor}"
        return Resealed(
            what="users", looked_at=len(page.items), resealed=resealed, unreadable=unreadable, next=more
        )


def _anew(work: Work, *sealed: str | None) -> tuple[str | None, str | None] | None:
    """Both of two secrets under the newest key; None when they are already. Raises `Bug` as a vault does."""
    again = [work.anew(one) if one is not None else None for one in sealed]
    if not any(again):
        return None
    first, second = (new or old for new, old in zip(again, sealed, strict=True))
    return first, second
