"""Use cases of people: signing up, in and out, passwords, and one's own account.

Staff and the contacts of a store go through the same ones: each runs where the account is kept, which
is the platform's realm for staff and the store for a contact. What a visitor is told is the same
whether an address is known or not (ASVS 5.0, 6.3.8); what differs is what is mailed.
"""

from typing import Annotated, Final

from msgspec import UNSET, Meta, UnsetType

from distribu.application import customers, fields, letters, profiles
from distribu.application.kernel import Command, Outside, Process, Query, Reads, Work
from distribu.application.ports import Letter, Login
from distribu.domain.access import ActorKind, Permission, Role, Standing
from distribu.domain.accounts import (
    REALM,
    Credentials,
    Link,
    Purpose,
    User,
)
from distribu.domain.billing import Subscription
from distribu.domain.errors import Conflict, Forbidden, Invalid, NotFound, Refused
from distribu.domain.passwords import acceptable
from distribu.domain.team import Company, Membership, Registration
from distribu.domain.values import CompanyId, Secret, canonical_email, limited_as, slug_of

QUARTER_S: Final = 900.0
HOUR_S: Final = 3600.0
SIGN_UPS_PER_IP: Final = 5
LINKS_PER_IP: Final = 30
RESETS_PER_IP: Final = 5
RESETS_PER_ADDRESS: Final = 3
RESENDS_PER_IP: Final = 5
PROOFS_PER_ACCOUNT: Final = 10
"""Times in a quarter of an hour that somebody who is signed in may give their password."""

Name = Annotated[str, Meta(min_length=1, max_length=100, examples=["Ada Marsh"])]
TimeZone = Annotated[str, Meta(min_length=1, max_length=64, examples=["Europe/Lisbon"])]
_CompanyName = Annotated[str, Meta(min_length=1, max_length=100, examples=["Acme Distributors"])]
Hash = Annotated[str, Meta(min_length=1, max_length=300)]
Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", max_length=64)]


# --- signing up ------------------------------------------------------------------------------


class SignUp(Process[None], frozen=True, kw_only=True):
    """Ask for an account and a company. Nobody gets in before following the link that is mailed."""

    needs = Permission.VISIT

    company_name: _CompanyName
    full_name: Name
    email: fields.Email
    password: fields.Password

    async def run(self, outside: Outside) -> None:
        await knock(outside, "signup", SIGN_UPS_PER_IP, HOUR_S)
        if outside.home != REALM:
            raise NotFound("not_found")
        email = canonical_email(self.email)
        about = (email, self.full_name, self.company_name)
        register = Register(
            user_id=outside.entropy.uuid(),
            company_to_be=outside.entropy.uuid(),
            company_name=self.company_name,
            full_name=self.full_name,
            email=email,
            password_hash=await hashed(outside, self.password, about),
        )
        try:
            await outside.inside(REALM, register)
        except Conflict:  # somebody with this address signed up in the same moment
            await outside.inside(REALM, register)


class Register(Command[None], frozen=True, kw_only=True):
    """Make the user, or mail whoever has the address already."""

    needs = None
    internal = True

    user_id: fields.Uuid
    company_to_be: fields.Uuid
    company_name: _CompanyName
    full_name: Name
    email: fields.Email
    password_hash: Hash

    async def run(self, work: Work) -> None:
        login = await work.logins.by_email(self.email)
        if login is None:
            user = User.create(
                id=self.user_id,
                email=self.email,
                full_name=self.full_name,
                wants_company=self.company_name,
                company_to_be=CompanyId(self.company_to_be),
                at=work.now,
            )
            credentials = Credentials.create(
                company_id=work.company_id,
                id=user.id,
                password_hash=self.password_hash,
                verified=False,
                at=work.now,
            )
        elif login.credentials.verified_at is None:
            user = await work.users.get(login.id)
            user = user.sign_up_again(full_name=self.full_name, wants_company=self.company_name, at=work.now)
            credentials = login.credentials.change_password(self.password_hash, at=work.now)
        else:
            work.mail(login.email, letters.AlreadyRegistered(company=await name_of(work)))
            return
        credentials = mail_link(
            work,
            credentials,
            Purpose.VERIFY,
            self.email,
            letters.VerifyYourEmail(),
        )
        work.save(user, credentials)


class ResendVerification(Process[None], frozen=True, kw_only=True):
    """Mail another verification link, to whoever still needs one."""

    needs = Permission.VISIT

    email: fields.Email

    async def run(self, outside: Outside) -> None:
        await knock(outside, "verify", RESENDS_PER_IP, HOUR_S)
        await outside.inside(outside.home, MailVerification(email=canonical_email(self.email)))


class MailVerification(Command[None], frozen=True, kw_only=True):
    """Mail a verification link to an address that is not verified."""

    needs = None
    internal = True

    email: fields.Email

    async def run(self, work: Work) -> None:
        login = await work.logins.by_email(self.email)
        if login is not None and login.credentials.verified_at is None:
            letter = letters.VerifyYourEmail(**await store_of(work))
            work.save(mail_link(work, login.credentials, Purpose.VERIFY, login.email, letter))


class VerifyEmail(Process[None], frozen=True, kw_only=True):
    """Follow a verification link, with the password one chose. A company asked for is there from now on.

    The link proves the address, and the password that it is whoever signed up: anybody can sign up with an
    address of somebody else's, who would let them in by following the link. A wrong password leaves the link
    as it was; whoever has forgotten theirs asks for a reset.
    """

    needs = Permission.VISIT

    token: fields.Password
    password: fields.Password

    async def run(self, outside: Outside) -> None:
        await knock(outside, "link", LINKS_PER_IP, QUARTER_S)
        link, login = await linked(outside, self.token, Purpose.VERIFY)
        await outside.limit("proof", login.id, PROOFS_PER_ACCOUNT, QUARTER_S)
        verdict = await outside.hasher.verify(Secret(self.password), login.credentials.password_hash)
        if not verdict.right:
            raise Refused("wrong_password")
        await found_wanted(outside, login)
        await outside.inside(outside.home, Verify(holder_id=login.id, digest=link.digest.hex()))


class Verify(Command[None], frozen=True, kw_only=True):
    """Take a verification link."""

    needs = None
    internal = True

    holder_id: fields.Uuid
    digest: Digest

    async def run(self, work: Work) -> None:
        login = await work.logins.get(self.holder_id)
        work.save(login.credentials.verify(bytes.fromhex(self.digest), at=work.now))
        await settle(work, login)


async def settle(work: Work, login: Login) -> None:
    """What follows once an address is proven: a user's company is founded, so that they want none any more;
    whoever registered at an open store is its customer.

    Raises `PaymentRequired` when the store's plan has no place for them; then the link stays good.
    """
    if work.company_id == REALM:
        user = await work.users.get(login.id)
        work.save(user.settled(at=work.now))
    elif login.credentials.unproven:
        contact, company = await work.together(work.contacts.get(login.id), work.companies.current())
        customer = await work.customers.get(contact.customer_id)
        opened = company.registration is Registration.OPEN
        await customers.keep(work, customer, customer.proven(opened=opened, at=work.now))


async def found_wanted(outside: Outside, login: Login) -> None:
    """Found the company that was asked for at sign-up; when that was done before, nothing happens."""
    if outside.home != REALM:
        return
    user = await outside.inside(REALM, FindUser(user_id=login.id))
    if user.company_to_be is None:
        return
    await found(outside, user.company_to_be, user.wants_company, user.id)


async def found(outside: Outside, company_id: CompanyId, name: str, owner_id: str) -> None:
    """Found a company under an id; its slug gets a number when another company has it already.

    Where the first numbers are taken too it is a random one: nobody can use them all up for others.
    """
    slug = slug_of(name)
    for tried in range(1, 20):
        number = str(tried) if tried < 10 else outside.entropy.bytes(4).hex()
        candidate = slug if tried == 1 else f"{slug[:50].rstrip('-')}-{number}"
        taken = await outside.directory.company(candidate)
        if taken is not None and taken != company_id:
            continue
        try:
            await outside.inside(company_id, Found(name=name, slug=candidate, owner_id=owner_id))
        except Conflict:
            continue
        return
    raise Conflict("duplicate_slug")


class Found(Command[None], frozen=True, kw_only=True):
    """Found a company with its owner, unless it is there."""

    needs = None
    internal = True

    name: _CompanyName
    slug: Annotated[str, Meta(min_length=1, max_length=60)]
    owner_id: fields.Uuid

    async def run(self, work: Work) -> None:
        if await work.members.of_user(self.owner_id) is not None:
            return
        company = Company.found(
            id=work.company_id,
            name=self.name,
            slug=self.slug,
            currency_code="USD",
            at=work.now,
        )
        owner = Membership.join(
            company_id=work.company_id,
            id=work.new_id(),
            user_id=self.owner_id,
            role=Role.OWNER,
            at=work.now,
        )
        work.save(company, owner)
        if work.sells:
            work.save(Subscription.on_trial(work.company_id, at=work.now))


class FindUser(Query[User], frozen=True, kw_only=True):
    """One user, for a process."""

    needs = None
    internal = True

    user_id: fields.Uuid

    async def run(self, reads: Reads) -> User:
        return await reads.users.get(self.user_id)


# --- passwords -------------------------------------------------------------------------------


class ChangePassword(Process[None], frozen=True, kw_only=True):
    """Give another password for the present one. Every other session ends."""

    needs = Permission.ACCOUNT

    password: fields.Password
    new_password: fields.Password

    async def run(self, outside: Outside) -> None:
        login = await prove(outside, self.password)
        about = (login.email, login.full_name)
        new = await hashed(outside, self.new_password, about, "newPassword")
        encoded = login.credentials.password_hash or ""
        await outside.inside(outside.home, SetPassword(verified_hash=encoded, password_hash=new))


class SetPassword(Command[None], frozen=True, kw_only=True):
    """Put a new password in the place of one that was just given."""

    needs = None
    internal = True

    verified_hash: Hash
    password_hash: Hash

    async def run(self, work: Work) -> None:
        login, session = await work.together(
            work.logins.get(work.actor.id), work.sessions.get(work.actor.session_id or "")
        )
        if login.credentials.password_hash != self.verified_hash:
            raise Refused("wrong_password")
        credentials = login.credentials.change_password(self.password_hash, at=work.now)
        work.save(credentials, session.renew(credentials.epoch, at=work.now))
        work.mail(login.email, letters.PasswordChanged(company=await name_of(work)))


class RequestPasswordReset(Process[None], frozen=True, kw_only=True):
    """Mail a link that sets a new password, to whoever has an account."""

    needs = Permission.VISIT

    email: fields.Email

    async def run(self, outside: Outside) -> None:
        email = canonical_email(self.email)
        await knock(outside, "reset", RESETS_PER_IP, HOUR_S)
        address = outside.mark("address", outside.home, email)
        await outside.limit("reset of", address, RESETS_PER_ADDRESS, HOUR_S)
        await outside.inside(outside.home, MailReset(email=email))


class MailReset(Command[None], frozen=True, kw_only=True):
    """Mail a reset link."""

    needs = None
    internal = True

    email: fields.Email

    async def run(self, work: Work) -> None:
        login = await work.logins.by_email(self.email)
        if login is not None:
            letter = letters.ResetYourPassword(**await store_of(work))
            work.save(mail_link(work, login.credentials, Purpose.RESET, login.email, letter))


class ResetPassword(Process[None], frozen=True, kw_only=True):
    """Follow a reset link: set a new password. Every session ends."""

    needs = Permission.VISIT

    token: fields.Password
    password: fields.Password

    async def run(self, outside: Outside) -> None:
        await knock(outside, "link", LINKS_PER_IP, QUARTER_S)
        link, login = await linked(outside, self.token, Purpose.RESET)
        new = await hashed(outside, self.password, (login.email, login.full_name))
        await found_wanted(outside, login)
        await outside.inside(
            outside.home, Reset(holder_id=login.id, digest=link.digest.hex(), password_hash=new)
        )


class Reset(Command[None], frozen=True, kw_only=True):
    """Take a reset link."""

    needs = None
    internal = True

    holder_id: fields.Uuid
    digest: Digest
    password_hash: Hash

    async def run(self, work: Work) -> None:
        login = await work.logins.get(self.holder_id)
        work.save(login.credentials.reset(bytes.fromhex(self.digest), self.password_hash, at=work.now))
        work.mail(login.email, letters.PasswordChanged(company=await name_of(work)))
        await settle(work, login)


# --- one's own account -----------------------------------------------------------------------


class ReadAccount(Query[profiles.AccountView], frozen=True, kw_only=True):
    """Who one is here, and in which companies."""

    needs = Permission.ACCOUNT
    home = True

    async def run(self, reads: Reads) -> profiles.AccountView:
        if reads.actor.kind is ActorKind.CUSTOMER:
            return profiles.account(await reads.contacts.get(reads.actor.id), (), None)
        user, seats, session = await reads.together(
            reads.users.get(reads.actor.id),
            reads.users.seats(reads.actor.id),
            reads.sessions.get(reads.actor.session_id or ""),
        )
        return profiles.account(user, seats, session.current)


class EditAccount(Command[None], frozen=True, kw_only=True):
    """Change one's own name or time zone."""

    needs = Permission.ACCOUNT
    home = True

    full_name: Name | UnsetType = UNSET
    time_zone: TimeZone | UnsetType = UNSET

    async def run(self, work: Work) -> None:
        changes = self.given()
        if work.actor.kind is ActorKind.CUSTOMER:
            contact = await work.contacts.get(work.actor.id)
            work.save(contact.edit(changes, admins=2, at=work.now))
        else:
            user = await work.users.get(work.actor.id)
            work.save(user.edit(changes, at=work.now))


class ChangeEmail(Process[None], frozen=True, kw_only=True):
    """Ask to go by another address: it counts once the link mailed to it was followed."""

    needs = Permission.ACCOUNT

    new_email: fields.Email
    password: fields.Password

    async def run(self, outside: Outside) -> None:
        email = canonical_email(self.new_email)
        await prove(outside, self.password)
        await outside.inside(outside.home, MailNewAddress(email=email))


class MailNewAddress(Command[None], frozen=True, kw_only=True):
    """Mail a link to a new address, or tell whoever has it that it was asked for."""

    needs = None
    internal = True

    email: fields.Email

    async def run(self, work: Work) -> None:
        login = await work.logins.get(work.actor.id)
        holder = await work.logins.by_email(self.email)
        if holder is not None:
            if holder.id != login.id:
                work.mail(self.email, letters.AlreadyRegistered(company=await name_of(work)))
            # A link that nobody gets: it ends the one before, as it would if the address were free.
            unsent = work.entropy(32)
            work.save(login.credentials.issue(Purpose.EMAIL, unsent, at=work.now, new_email=self.email))
            return
        letter = letters.ConfirmYourEmail(**await store_of(work))
        work.save(mail_link(work, login.credentials, Purpose.EMAIL, self.email, letter))


class ConfirmEmail(Process[None], frozen=True, kw_only=True):
    """Follow the link that was mailed to a new address: one goes by it from now on."""

    needs = Permission.VISIT

    token: fields.Password

    async def run(self, outside: Outside) -> None:
        await knock(outside, "link", LINKS_PER_IP, QUARTER_S)
        link, login = await linked(outside, self.token, Purpose.EMAIL)
        await outside.inside(outside.home, MoveEmail(holder_id=login.id, digest=link.digest.hex()))


class MoveEmail(Command[None], frozen=True, kw_only=True):
    """Take the link mailed to a new address. Raises `Conflict` when somebody took the address meanwhile."""

    needs = None
    internal = True

    holder_id: fields.Uuid
    digest: Digest

    async def run(self, work: Work) -> None:
        login = await work.logins.get(self.holder_id)
        new = login.credentials.new_email
        credentials = login.credentials.email_moved(bytes.fromhex(self.digest), at=work.now)
        if new is None:
            raise Refused("invalid_token")
        if work.company_id == REALM:
            user = await work.users.get(self.holder_id)
            work.save(user.move_to(new, at=work.now), credentials)
        else:
            contact = await work.contacts.get(self.holder_id)
            work.save(contact.move_to(new, at=work.now), credentials)
        work.mail(login.email, letters.EmailMoved(company=await name_of(work)))


# --- what they share -------------------------------------------------------------------------


class FindLinked(Query[Login], frozen=True, kw_only=True):
    """Whose link this is, if it is good. Raises `Refused` (invalid_token)."""

    needs = None
    internal = True

    holder_id: fields.Uuid
    digest: Digest
    purpose: Purpose

    async def run(self, reads: Reads) -> Login:
        try:
            login = await reads.logins.get(self.holder_id)
        except NotFound:
            raise Refused("invalid_token") from None
        if not login.credentials.holds(bytes.fromhex(self.digest), self.purpose, at=reads.now):
            raise Refused("invalid_token")
        return login


async def linked(outside: Outside, token: str, purpose: Purpose) -> tuple[Link, Login]:
    """A link that is good for this purpose here, and whose it is. Raises `Refused` (invalid_token)."""
    link = Link.of(Secret(token))
    if link.company_id != outside.home:
        raise Refused("invalid_token")
    find = FindLinked(holder_id=link.subject, digest=link.digest.hex(), purpose=purpose)
    return link, await outside.inside(outside.home, find)


async def hashed(outside: Outside, password: str, about: tuple[str, ...], field: str = "password") -> str:
    """The hash of a password that may be one. Raises `Invalid`, which names ``field``, or `Busy`."""
    secret = Secret(password)
    try:
        acceptable(secret, about=about, common=outside.hasher.common(secret))
    except Invalid as wrong:
        raise Invalid(wrong.code, fields={field: wrong.fields["password"]}) from None
    return await outside.hasher.hash(secret)


async def prove(outside: Outside, password: str) -> Login:
    """Somebody who is signed in gives their password again. Raises `Refused` (wrong_password).

    Whoever an embedding host vouches for has none here: `Forbidden`.
    """
    if outside.actor.session_id is None:
        raise Forbidden("forbidden")
    await outside.limit("proof", outside.actor.id, PROOFS_PER_ACCOUNT, QUARTER_S)
    login = await outside.inside(outside.home, FindMyself())
    encoded = login.credentials.password_hash
    verdict = await outside.hasher.verify(Secret(password), encoded)
    if encoded is None or not verdict.right:
        raise Refused("wrong_password")
    return login


class FindMyself(Query[Login], frozen=True, kw_only=True):
    """The actor's own login, for a process."""

    needs = None
    internal = True

    async def run(self, reads: Reads) -> Login:
        return await reads.logins.get(reads.actor.id)


def mail_link(work: Work, credentials: Credentials, purpose: Purpose, to: str, letter: Letter) -> Credentials:
    """Have a link of this purpose mailed; the credentials, to be saved, know its digest alone."""
    secret = work.entropy(32)
    token = Link.token(work.company_id, credentials.id, secret)
    work.mail(to, letter, token=token)
    new_email = to if purpose is Purpose.EMAIL else None
    return credentials.issue(purpose, secret, at=work.now, new_email=new_email)


async def store_of(work: Work) -> dict[str, str]:
    """What a letter with a link says of the store it is from; nothing of the platform."""
    if work.company_id == REALM:
        return {}
    company = await work.companies.current()
    return {"store": company.slug, "company": company.name}


async def name_of(work: Work) -> str:
    """Whom a letter without a link is from: the store by its name, the platform without one."""
    return (await store_of(work)).get("company", "")


async def knock(outside: Outside, what: str, most: int, window_s: float) -> None:
    """Count what a visitor does for their IP address, and see that the store they are at is open.

    Raises `RateLimited`, `NotFound` at a store that has ended, and `Forbidden` at one that is suspended.
    """
    await outside.limit(what, limited_as(outside.actor.ip or "nowhere"), most, window_s)
    if outside.home != REALM:
        await outside.inside(outside.home, SeeStore())


class SeeStore(Query[None], frozen=True, kw_only=True):
    """Raises `NotFound` when the store has ended, and `Forbidden` (suspended)."""

    needs = None
    internal = True

    async def run(self, reads: Reads) -> None:
        match (await reads.companies.current()).standing:
            case Standing.DELETED:
                raise NotFound("company_not_found")
            case Standing.SUSPENDED:
                raise Forbidden("suspended")
