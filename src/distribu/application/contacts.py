"""Use cases of a store's customers as people: registering, and the contacts who sign in for them."""

from typing import Annotated, Final

from msgspec import UNSET, Meta, UnsetType

from distribu.application import billing, fields, letters
from distribu.application.accounts import (
    HOUR_S,
    LINKS_PER_IP,
    QUARTER_S,
    Digest,
    Hash,
    Name,
    hashed,
    knock,
    linked,
    mail_link,
    store_of,
)
from distribu.application.kernel import Command, Outside, Process, Query, Reads, Work
from distribu.application.ports import Page
from distribu.domain.access import ContactRole, Permission
from distribu.domain.accounts import REALM, Credentials, Purpose
from distribu.domain.billing import Counted
from distribu.domain.contacts import CONTACTS_MAX, Contact
from distribu.domain.customers import Customer, CustomerStatus
from distribu.domain.errors import Conflict, NotFound, Refused
from distribu.domain.team import Company, Registration
from distribu.domain.values import CustomerId, canonical_email

REGISTRATIONS_PER_IP: Final = 5
LINKS_PER_CONTACT: Final = 5
TOLD_MAX: Final = 50
"""Of owner and admins so many are mailed about a new customer."""

_CustomerName = Annotated[str, Meta(min_length=2, max_length=100, examples=["Green Grocer"])]
_Role = Annotated[ContactRole, Meta(examples=["BUYER"])]


# --- registering -----------------------------------------------------------------------------


class RegisterCustomer(Process[None], frozen=True, kw_only=True):
    """Become a customer of a store, as it lets people. Nobody gets in before following the mailed link."""

    needs = Permission.VISIT

    name: _CustomerName
    email: fields.Email
    password: fields.Password

    async def run(self, outside: Outside) -> None:
        await knock(outside, "register", REGISTRATIONS_PER_IP, HOUR_S)
        if outside.home == REALM:
            raise NotFound("not_found")
        email = canonical_email(self.email)
        password_hash = await hashed(outside, self.password, (email, self.name))
        keep = KeepRegistration(name=self.name, email=email, password_hash=password_hash)
        try:
            await outside.inside(outside.home, keep)
        except Conflict:  # somebody with this address registered in the same moment
            await outside.inside(outside.home, keep)


class KeepRegistration(Command[None], frozen=True, kw_only=True):
    """Make the customer with its first contact, or mail whoever has the address already."""

    needs = None
    internal = True

    name: _CustomerName
    email: fields.Email
    password_hash: Hash

    async def run(self, work: Work) -> None:
        company = await work.companies.current()
        if company.registration is Registration.CLOSED:
            raise Refused("registration_closed")
        # Before anybody is looked up, so that a full plan does not tell who is known. No place is taken:
        # that is for whoever proves their address.
        await billing.admit(work, Counted.CUSTOMERS, take=False)
        login, customer = await work.together(
            work.logins.by_email(self.email), work.customers.by_email(self.email)
        )
        if login is None and customer is None:
            await self._new(work, company)
        elif login is None:
            # Staff made this customer: an address alone proves nothing, so nobody becomes it by typing one.
            work.mail(self.email, letters.AskTheStore(company=company.name))
        elif login.credentials.unproven:
            again = login.credentials.change_password(self.password_hash, at=work.now)
            letter = letters.VerifyYourEmail(**await store_of(work))
            work.save(mail_link(work, again, Purpose.VERIFY, self.email, letter))
        else:
            work.mail(self.email, letters.AlreadyRegistered(company=company.name))

    async def _new(self, work: Work, company: Company) -> None:
        waits = company.registration is Registration.APPROVAL
        customer = Customer.create(
            company_id=work.company_id,
            id=CustomerId(work.new_id()),
            at=work.now,
            email=self.email,
            name=self.name,
            status=CustomerStatus.PENDING,
        )
        contact = Contact.add(
            company_id=work.company_id,
            id=work.new_id(),
            customer_id=customer.id,
            email=self.email,
            full_name=self.name,
            role=ContactRole.ADMIN,
            at=work.now,
        )
        credentials = Credentials.create(
            company_id=work.company_id,
            id=contact.id,
            password_hash=self.password_hash,
            verified=False,
            at=work.now,
        )
        letter = letters.VerifyYourEmail(store=company.slug, company=company.name)
        work.save(customer, contact, mail_link(work, credentials, Purpose.VERIFY, self.email, letter))
        for leader in await work.members.leaders(limit=TOLD_MAX):
            work.mail(
                leader.email, letters.NewCustomer(company=company.name, customer=self.name, waits=waits)
            )


# --- contacts --------------------------------------------------------------------------------


class ListContacts(Query[Page[Contact]], frozen=True, kw_only=True):
    """Who signs in for a customer, newest first."""

    needs = Permission.CONTACTS_MANAGE

    customer_id: fields.CustomerIdInPath
    limit: fields.Limit = 50
    cursor: fields.Cursor | None = None

    async def run(self, reads: Reads) -> Page[Contact]:
        _, page = await reads.together(
            reads.customers.get(self.customer_id),
            reads.contacts.page(self.customer_id, limit=self.limit, cursor=self.cursor),
        )
        return page


class ReadContact(Query[Contact], frozen=True, kw_only=True):
    """One contact."""

    needs = Permission.CONTACTS_MANAGE

    contact_id: fields.ContactIdInPath

    async def run(self, reads: Reads) -> Contact:
        return await reads.contacts.get(self.contact_id)


class InviteContact(Command[Contact], frozen=True, kw_only=True):
    """Have somebody sign in for a customer: a link to choose a password is mailed, good for seven days.

    The first contact of a customer is an ADMIN.
    """

    needs = Permission.CONTACTS_MANAGE

    customer_id: fields.CustomerIdInPath
    email: fields.Email
    full_name: Name
    role: _Role

    async def run(self, work: Work) -> Contact:
        # The customer is locked, so that its contacts are counted one by one.
        customer, company = await work.together(
            work.customers.get(self.customer_id), work.companies.current()
        )
        count, admins = await work.contacts.count(customer.id)
        if count >= CONTACTS_MAX:
            raise Refused("too_many", f"A customer has at most {CONTACTS_MAX} contacts.")
        if not admins and self.role is not ContactRole.ADMIN:
            raise Refused("admin_first")
        contact = Contact.add(
            company_id=work.company_id,
            id=work.new_id(),
            customer_id=customer.id,
            email=self.email,
            full_name=self.full_name,
            role=self.role,
            at=work.now,
        )
        credentials = Credentials.create(
            company_id=work.company_id, id=contact.id, password_hash=None, verified=False, at=work.now
        )
        letter = letters.ContactInvited(
            store=company.slug, company=company.name, customer=customer.name or company.name
        )
        credentials = mail_link(work, credentials, Purpose.INVITE, contact.email, letter)
        work.save(contact, credentials)
        return contact


class EditContact(Command[Contact], frozen=True, kw_only=True):
    """Change a contact's name, role, or whether they can sign in. A customer keeps an active ADMIN."""

    needs = Permission.CONTACTS_MANAGE

    contact_id: fields.ContactIdInPath
    full_name: Name | UnsetType = UNSET
    role: _Role | UnsetType = UNSET
    is_active: bool | UnsetType = UNSET
    version: fields.IfMatch | None = None

    async def run(self, work: Work) -> Contact:
        contact = (await work.contacts.get(self.contact_id)).at(self.version)
        # Under the customer's lock: two edits at once must not leave it without an ADMIN.
        await work.customers.get(contact.customer_id)
        _, admins = await work.contacts.count(contact.customer_id)
        contact = contact.edit(self.given("contact_id", "version"), admins=admins, at=work.now)
        work.save(contact)
        return contact


class SendContactLink(Process[None], frozen=True, kw_only=True):
    """Mail a contact a link to choose a password: a first one, or another one."""

    needs = Permission.CONTACTS_MANAGE

    contact_id: fields.ContactIdInPath

    async def run(self, outside: Outside) -> None:
        # Found as the caller sees it: another customer's contact does not exist for a contact.
        contact = await outside.execute(ReadContact(contact_id=self.contact_id))
        await outside.limit("contact link", contact.id, LINKS_PER_CONTACT, HOUR_S)
        await outside.inside(contact.company_id, MailContactLink(contact_id=contact.id))


class MailContactLink(Command[None], frozen=True, kw_only=True):
    """Mail the link of an invitation again, or one to set another password."""

    needs = None
    internal = True

    contact_id: fields.Uuid

    async def run(self, work: Work) -> None:
        login, contact, company = await work.together(
            work.logins.get(self.contact_id), work.contacts.get(self.contact_id), work.companies.current()
        )
        if login.credentials.password_hash is None:
            customer = await work.customers.get(contact.customer_id)
            invited = letters.ContactInvited(
                store=company.slug, company=company.name, customer=customer.name or company.name
            )
            work.save(mail_link(work, login.credentials, Purpose.INVITE, login.email, invited))
        else:
            reset = letters.ResetYourPassword(store=company.slug, company=company.name)
            work.save(mail_link(work, login.credentials, Purpose.RESET, login.email, reset))


class AcceptContactInvite(Process[None], frozen=True, kw_only=True):
    """Follow the link of an invitation to a store: choose a password, and sign in with it."""

    needs = Permission.VISIT

    token: fields.Password
    password: fields.Password

    async def run(self, outside: Outside) -> None:
        await knock(outside, "link", LINKS_PER_IP, QUARTER_S)
        link, login = await linked(outside, self.token, Purpose.INVITE)
        new = await hashed(outside, self.password, (login.email, login.full_name))
        await outside.inside(
            outside.home, Welcome(holder_id=login.id, digest=link.digest.hex(), password_hash=new)
        )


class Welcome(Command[None], frozen=True, kw_only=True):
    """Take the link of an invitation to a store."""

    needs = None
    internal = True

    holder_id: fields.Uuid
    digest: Digest
    password_hash: Hash

    async def run(self, work: Work) -> None:
        login = await work.logins.get(self.holder_id)
        work.save(login.credentials.welcome(bytes.fromhex(self.digest), self.password_hash, at=work.now))
