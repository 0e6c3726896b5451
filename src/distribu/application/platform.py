"""Use cases of those who run the platform: never as if they were of a company, always recorded."""

from collections.abc import Sequence
from typing import Annotated, Final

from msgspec import Meta

from distribu.application import billing, fields, letters, plans, profiles
from distribu.application.accounts import Name, hashed, mail_link
from distribu.application.finders import CompanyCard, FailedJob, Usage
from distribu.application.kernel import Command, Outside, Process, Query, Reads, Work
from distribu.application.ports import Login, Page
from distribu.application.sessions import FindLogin
from distribu.application.team import AddUser, there
from distribu.domain.access import Permission, Role
from distribu.domain.accounts import REALM, PlatformUsed, Purpose, User
from distribu.domain.billing import Counted, Plan
from distribu.domain.errors import Conflict, NotFound, Refused
from distribu.domain.team import Company, Membership
from distribu.domain.values import CompanyId, canonical_email

_Reason = Annotated[str, Meta(min_length=1, max_length=500, examples=["unpaid since March"])]
FAILED_MAX: Final = 100
ADMINS_MAX: Final = 100


class NoteUse(Command[None], frozen=True, kw_only=True):
    """Record in the platform's log what was looked at."""

    needs = None
    internal = True

    what: Annotated[str, Meta(max_length=40)]
    company_id: Annotated[str, Meta(max_length=36)] = ""

    async def run(self, work: Work) -> None:
        work.record(PlatformUsed(entity_type="Company", entity_id=self.company_id, what=self.what))


# --- companies -------------------------------------------------------------------------------


class ListCompanies(Process[Page[CompanyCard]], frozen=True, kw_only=True):
    """Every company, newest first: its name, and whether it is open."""

    needs = Permission.PLATFORM

    limit: fields.Limit = 50
    cursor: fields.Cursor | None = None

    async def run(self, outside: Outside) -> Page[CompanyCard]:
        await outside.inside(REALM, NoteUse(what="companies"))
        return await outside.inside(REALM, FindCompanies(limit=self.limit, cursor=self.cursor))


class FindCompanies(Query[Page[CompanyCard]], frozen=True, kw_only=True):
    """Every company, for a process."""

    needs = None
    internal = True

    limit: fields.Limit
    cursor: fields.Cursor | None

    async def run(self, reads: Reads) -> Page[CompanyCard]:
        return await reads.platform.companies(limit=self.limit, cursor=self.cursor)


class ReadUsage(Process[Usage], frozen=True, kw_only=True):
    """How much a company has: figures, never rows."""

    needs = Permission.PLATFORM

    company_id: fields.CompanyIdInPath

    async def run(self, outside: Outside) -> Usage:
        await outside.inside(REALM, NoteUse(what="usage", company_id=self.company_id))
        return await outside.inside(REALM, FindUsage(company_id=self.company_id))


class FindUsage(Query[Usage], frozen=True, kw_only=True):
    """The figures of a company, for a process. Raises `NotFound`."""

    needs = None
    internal = True

    company_id: fields.Uuid

    async def run(self, reads: Reads) -> Usage:
        month = reads.now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        company_id = CompanyId(self.company_id)
        _, usage = await reads.together(
            reads.platform.card(company_id), reads.platform.usage(company_id, since=month)
        )
        return usage


class ListFailedJobs(Process[list[FailedJob]], frozen=True, kw_only=True):
    """Mails and deliveries that were given up last; nothing of what was in them."""

    needs = Permission.PLATFORM

    async def run(self, outside: Outside) -> list[FailedJob]:
        await outside.inside(REALM, NoteUse(what="failed jobs"))
        failed = await outside.inside(REALM, FindFailed())
        return [*failed]


class FindFailed(Query[Sequence[FailedJob]], frozen=True, kw_only=True):
    """What was given up last, for a process."""

    needs = None
    internal = True

    async def run(self, reads: Reads) -> Sequence[FailedJob]:
        return await reads.platform.failed(limit=FAILED_MAX)


class SuspendCompany(Process[None], frozen=True, kw_only=True):
    """Keep everybody of a company out, keys and cookies alike, until it is resumed."""

    needs = Permission.PLATFORM

    company_id: fields.CompanyIdInPath
    reason: _Reason

    async def run(self, outside: Outside) -> None:
        await outside.inside(REALM, NoteUse(what="suspend", company_id=self.company_id))
        await outside.inside(self.company_id, SetStanding(suspend=True, reason=self.reason))


class ResumeCompany(Process[None], frozen=True, kw_only=True):
    """Let everybody of a company in again."""

    needs = Permission.PLATFORM

    company_id: fields.CompanyIdInPath

    async def run(self, outside: Outside) -> None:
        await outside.inside(REALM, NoteUse(what="resume", company_id=self.company_id))
        await outside.inside(self.company_id, SetStanding(suspend=False, reason=""))


class SetStanding(Command[None], frozen=True, kw_only=True):
    """Suspend or resume the company. Raises `NotFound`, or `Refused` when it is so already."""

    needs = None
    internal = True

    suspend: bool
    reason: Annotated[str, Meta(max_length=500)]

    async def run(self, work: Work) -> None:
        company = await there(work)
        changed = company.suspend(self.reason, at=work.now) if self.suspend else company.resume(at=work.now)
        work.save(changed)


class SetCompanyLimit(Process[None], frozen=True, kw_only=True):
    """Give a company its own number of API requests a minute for a key; null is the installation's."""

    needs = Permission.PLATFORM

    company_id: fields.CompanyIdInPath
    api_limit: Annotated[int, Meta(ge=1, le=100_000, examples=[600])] | None = None

    async def run(self, outside: Outside) -> None:
        await outside.inside(REALM, NoteUse(what="limit", company_id=self.company_id))
        await outside.inside(self.company_id, SetLimit(api_limit=self.api_limit))


class SetLimit(Command[Company], frozen=True, kw_only=True):
    """Set the company's own API limit. Raises `NotFound`."""

    needs = None
    internal = True

    api_limit: Annotated[int, Meta(ge=1, le=100_000)] | None

    async def run(self, work: Work) -> Company:
        company = (await there(work)).limited(self.api_limit, at=work.now)
        work.save(company)
        return company


class SetPlan(Process[plans.SubscriptionView], frozen=True, kw_only=True):
    """Give a company a plan that is paid otherwise than through Stripe, from now on."""

    needs = Permission.COMPANY_CREATE

    company_id: fields.CompanyIdInPath
    plan: Annotated[Plan, Meta(examples=["GROWTH"])]

    async def run(self, outside: Outside) -> plans.SubscriptionView:
        await outside.inside(REALM, NoteUse(what="set plan", company_id=self.company_id))
        return await outside.inside(self.company_id, PutPlan(plan=self.plan))


class PutPlan(Command[plans.SubscriptionView], frozen=True, kw_only=True):
    """Set the company's plan. Raises `NotFound`."""

    needs = None
    internal = True

    plan: Plan

    async def run(self, work: Work) -> plans.SubscriptionView:
        await work.companies.current()
        before = await work.subscriptions.current(at=work.now, lock=True)
        after = before.set_plan(self.plan, at=work.now)
        if after is not before:
            work.save(after)
        return plans.subscription(after, await work.subscriptions.used(at=work.now), work.now)


class AddMember(Process[Membership], frozen=True, kw_only=True):
    """Put a user into a company's team without asking them; as OWNER too, while it has none.

    It is the operator's, like founding a company for others: nobody who runs the platform from its pages
    makes themselves a member. Raises `NotFound` (user_not_found, company_not_found), or as `TakeSeat` does.
    """

    needs = Permission.COMPANY_CREATE

    company_id: fields.CompanyIdInPath
    email: fields.Email
    role: Annotated[Role, Meta(examples=["OWNER"])]

    async def run(self, outside: Outside) -> Membership:
        await outside.inside(REALM, NoteUse(what="add member", company_id=self.company_id))
        login = await outside.inside(REALM, FindLogin(email=canonical_email(self.email)))
        if login is None:
            raise NotFound("user_not_found")
        return await outside.inside(self.company_id, TakeSeat(user_id=login.id, role=self.role))


class TakeSeat(Command[Membership], frozen=True, kw_only=True):
    """Make a user a member. Raises `Refused` (owner_stays), `Conflict` (already_member), `NotFound`."""

    needs = None
    internal = True

    user_id: fields.Uuid
    role: Role

    async def run(self, work: Work) -> Membership:
        # Under the company's lock: two owners must not come in the same moment.
        await there(work)
        if self.role is Role.OWNER:
            leaders = await work.members.leaders(limit=1)
            if any(one.membership.role is Role.OWNER for one in leaders):
                raise Refused("owner_stays")
        await billing.admit(work, Counted.SEATS)
        member = Membership.join(
            company_id=work.company_id,
            id=work.new_id(),
            user_id=self.user_id,
            role=self.role,
            at=work.now,
        )
        work.save(member)
        return member


# --- users -----------------------------------------------------------------------------------


class CreateUser(Process[profiles.PersonView], frozen=True, kw_only=True):
    """Add a user whose address somebody vouches for. Without a password a link to choose one is mailed.

    Raises `Conflict` (duplicate_email).
    """

    needs = Permission.PLATFORM

    email: fields.Email
    full_name: Name
    password: fields.Password | None = None

    async def run(self, outside: Outside) -> profiles.PersonView:
        email = canonical_email(self.email)
        password_hash = None
        if self.password is not None:
            password_hash = await hashed(outside, self.password, (email, self.full_name))
        add = AddUser(email=email, full_name=self.full_name, password_hash=password_hash)
        try:
            user = await outside.inside(REALM, add)
        except Conflict:  # said for whoever has a link in their hands, which nobody has here
            raise Conflict("duplicate_email") from None
        if password_hash is None:
            await outside.inside(REALM, MailPasswordLink(email=email))
        return profiles.person(user)


class SendPasswordLink(Command[None], frozen=True, kw_only=True):
    """Mail a user a link to choose another password. Raises `NotFound`."""

    needs = Permission.PLATFORM
    home = True

    email: fields.Email

    async def run(self, work: Work) -> None:
        await _mail_password_link(work, self.email)


class MailPasswordLink(Command[None], frozen=True, kw_only=True):
    """Mail a new user the link to choose a password."""

    needs = None
    internal = True

    email: fields.Email

    async def run(self, work: Work) -> None:
        await _mail_password_link(work, self.email)


async def _mail_password_link(work: Work, email: str) -> None:
    login = await _known(work, email)
    work.save(mail_link(work, login.credentials, Purpose.RESET, login.email, letters.ResetYourPassword()))


async def _known(reads: Reads, email: str) -> Login:
    login = await reads.logins.by_email(canonical_email(email))
    if login is None:
        raise NotFound("user_not_found")
    return login


class ListUsers(Process[Page[User]], frozen=True, kw_only=True):
    """All users, newest first."""

    needs = Permission.PLATFORM

    limit: fields.Limit = 50
    cursor: fields.Cursor | None = None

    async def run(self, outside: Outside) -> Page[User]:
        await outside.inside(REALM, NoteUse(what="users"))
        return await outside.inside(REALM, FindUsers(limit=self.limit, cursor=self.cursor))


class FindUsers(Query[Page[User]], frozen=True, kw_only=True):
    """All users, for a process."""

    needs = None
    internal = True

    limit: fields.Limit
    cursor: fields.Cursor | None

    async def run(self, reads: Reads) -> Page[User]:
        return await reads.users.page(limit=self.limit, cursor=self.cursor)


class EndUserSessions(Command[None], frozen=True, kw_only=True):
    """Sign a user out everywhere. Raises `NotFound`."""

    needs = Permission.PLATFORM
    home = True

    email: fields.Email

    async def run(self, work: Work) -> None:
        login = await _known(work, self.email)
        work.save(login.credentials.end_sessions(at=work.now))


class GrantSuperAdmin(Command[User], frozen=True, kw_only=True):
    """Open the platform's own pages to a user. Raises `NotFound`."""

    needs = Permission.PLATFORM
    home = True

    email: fields.Email

    async def run(self, work: Work) -> User:
        return await _flagged(work, self.email, yes=True)


class RevokeSuperAdmin(Command[User], frozen=True, kw_only=True):
    """Close them to a user again. Raises `NotFound`."""

    needs = Permission.PLATFORM
    home = True

    email: fields.Email

    async def run(self, work: Work) -> User:
        return await _flagged(work, self.email, yes=False)


async def _flagged(work: Work, email: str, *, yes: bool) -> User:
    login = await _known(work, email)
    user = (await work.users.get(login.id)).make_super_admin(yes, at=work.now)
    work.save(user)
    return user


class ListSuperAdmins(Process[list[User]], frozen=True, kw_only=True):
    """Those to whom the platform's own pages are open: the 100 newest."""

    needs = Permission.PLATFORM

    async def run(self, outside: Outside) -> list[User]:
        await outside.inside(REALM, NoteUse(what="super-admins"))
        return [*await outside.inside(REALM, FindSuperAdmins())]


class FindSuperAdmins(Query[Sequence[User]], frozen=True, kw_only=True):
    """Those to whom the platform's own pages are open, for a process."""

    needs = None
    internal = True

    async def run(self, reads: Reads) -> Sequence[User]:
        return await reads.users.super_admins(limit=ADMINS_MAX)
