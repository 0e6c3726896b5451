"""Use cases of the contact and feature-request forms."""

from typing import Annotated, Final

from msgspec import Meta

from distribu.application import fields, letters
from distribu.application.accounts import HOUR_S, Name, knock
from distribu.application.kernel import Command, Outside, Process, Query, Reads, Work
from distribu.application.platform import NoteUse
from distribu.application.ports import Page
from distribu.domain.access import Permission
from distribu.domain.accounts import REALM
from distribu.domain.inquiries import Inquiry, InquiryKind

INQUIRIES_PER_IP: Final = 5
"""Messages in an hour from one address, with each of the two forms."""

ADMINS_MAILED: Final = 50
"""How many are mailed for a message: a visitor sets them off."""

_Text = Annotated[str, Meta(min_length=1, max_length=5000, examples=["Do you deliver to Norway?"])]


class SendInquiry(Process[None], frozen=True, kw_only=True):
    """Write to those who run the platform: a question, or a feature one misses."""

    needs = Permission.VISIT

    kind: InquiryKind
    full_name: Name
    email: fields.Email
    text: _Text

    async def run(self, outside: Outside) -> None:
        await knock(outside, f"inquiry {self.kind}", INQUIRIES_PER_IP, HOUR_S)
        await outside.inside(
            REALM, KeepInquiry(kind=self.kind, full_name=self.full_name, email=self.email, text=self.text)
        )


class KeepInquiry(Command[None], frozen=True, kw_only=True):
    """Keep a message and mail it to the super-admins, to `ADMINS_MAILED` of them."""

    needs = None
    internal = True

    kind: InquiryKind
    full_name: Name
    email: fields.Email
    text: _Text

    async def run(self, work: Work) -> None:
        inquiry = Inquiry.receive(
            id=work.new_id(),
            kind=self.kind,
            full_name=self.full_name,
            email=self.email,
            text=self.text,
            at=work.now,
        )
        work.save(inquiry)
        for admin in await work.users.super_admins(limit=ADMINS_MAILED):
            work.mail(
                admin.email,
                letters.InquiryCame(
                    kind=inquiry.kind, name=inquiry.full_name, email=inquiry.email, text=inquiry.text
                ),
            )


class ListInquiries(Process[Page[Inquiry]], frozen=True, kw_only=True):
    """What people wrote, newest first."""

    needs = Permission.PLATFORM

    limit: fields.Limit = 50
    cursor: fields.Cursor | None = None

    async def run(self, outside: Outside) -> Page[Inquiry]:
        await outside.inside(REALM, NoteUse(what="inquiries"))
        return await outside.inside(REALM, FindInquiries(limit=self.limit, cursor=self.cursor))


class FindInquiries(Query[Page[Inquiry]], frozen=True, kw_only=True):
    """What people wrote, for a process."""

    needs = None
    internal = True

    limit: fields.Limit
    cursor: fields.Cursor | None

    async def run(self, reads: Reads) -> Page[Inquiry]:
        return await reads.inquiries.page(limit=self.limit, cursor=self.cursor)
