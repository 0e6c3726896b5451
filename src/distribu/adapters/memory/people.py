"""The people in memory: who can sign in, who is in a team, who buys for a customer."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from distribu.adapters.memory.reading import Finder, MemoryRead, page
from distribu.application.ports import Login, Member, Page
from distribu.domain.access import ContactRole, Role, Seat, Standing
from distribu.domain.accounts import REALM, SESSIONS_MAX, Credentials, Session, User
from distribu.domain.contacts import Contact
from distribu.domain.customers import Customer, CustomerStatus
from distribu.domain.entity import Entity
from distribu.domain.errors import Conflict, NotFound
from distribu.domain.factors import SecondFactor
from distribu.domain.inquiries import Inquiry
from distribu.domain.team import Company, Invitation, Membership
from distribu.domain.values import CompanyId, CustomerId

Rows = Mapping[type[Entity], Mapping[str, Any]]


def seats_of(everywhere: Mapping[CompanyId, Rows], user_id: str) -> list[Seat]:
    """Where a user works, by the companies' names."""
    seats = [
        Seat(
            company_id=company.id,
            company_name=company.name,
            company_slug=company.slug,
            standing=company.standing,
            membership_id=member.id,
            role=member.role,
            require_second_factor=company.require_second_factor,
        )
        for rows in everywhere.values()
        for member in rows.get(Membership, {}).values()
        for company in rows.get(Company, {}).values()
        if member.user_id == user_id and member.removed_at is None
        if company.standing is not Standing.DELETED
    ]
    return sorted(seats, key=lambda seat: (seat.company_name, seat.company_id))


def live_until(session: Session, credentials: Credentials) -> datetime | None:
    """Until when a session counts; None when it is over."""
    over = session.ended_at is not None or session.epoch != credentials.epoch
    return None if over else session.expires_at


def check_person(rows: Rows, person: Any) -> None:
    """What the database's constraints do. Raises `Conflict` and `NotFound`."""
    others = [other for other in rows[type(person)].values() if other.id != person.id]
    match person:
        case User() | Contact():
            if isinstance(person, Contact) and person.customer_id not in rows[Customer]:
                raise NotFound("customer_not_found")
            if any(other.email == person.email for other in others):
                raise Conflict("duplicate_email")
        case Membership(removed_at=None):
            if any(other.user_id == person.user_id and other.removed_at is None for other in others):
                raise Conflict("already_member")
        case Invitation() if person.open:
            if any(other.email == person.email and other.open for other in others):
                raise Conflict("already_invited")


class Logins(Finder):
    """Implements the port Logins."""

    def by_email(self, email: str) -> MemoryRead[Login | None]:
        return MemoryRead(self.tx, lambda: next((it for it in self._all() if it.email == email), None))

    def get(self, id: str) -> MemoryRead[Login]:
        def answer() -> Login:
            found = next((it for it in self._all() if it.id == id), None)
            if found is None:
                raise NotFound("user_not_found")
            return found

        return MemoryRead(self.tx, answer)

    def _all(self) -> list[Login]:
        tx = self.tx
        people = [(it, True) for it in tx.mine(User)]
        for contact in tx.mine(Contact):
            customer = tx.find(Customer, contact.customer_id)
            people.append((contact, contact.is_active and customer.status is CustomerStatus.ACTIVE))
        return [
            Login(it.id, it.email, it.full_name, admitted, tx.lock(credentials))
            for it, admitted in people
            if (credentials := tx.find(Credentials, it.id)) is not None
        ]


class Users(Finder):
    """Implements the port Users."""

    def get(self, id: str) -> MemoryRead[User]:
        def answer() -> User:
            tx = self.tx
            member = any(it.user_id == id and it.removed_at is None for it in tx.mine(Membership))
            user = tx.everywhere[REALM][User].get(id) if member else tx.find(User, id)
            if user is None:
                raise NotFound("user_not_found")
            locked: User = tx.lock(user)
            return locked

        return MemoryRead(self.tx, answer)

    def seats(self, id: str) -> MemoryRead[Sequence[Seat]]:
        def answer() -> Sequence[Seat]:
            scope = self.tx.scope
            return [
                seat
                for seat in seats_of(self.tx.everywhere, id)
                if scope.company_id in (REALM, seat.company_id) and scope.customer_id is None
            ]

        return MemoryRead(self.tx, answer)

    def super_admins(self, *, limit: int) -> MemoryRead[Sequence[User]]:
        return MemoryRead(self.tx, lambda: [it for it in self.tx.mine(User) if it.is_super_admin][:limit])

    def page(self, *, limit: int, cursor: str | None = None) -> MemoryRead[Page[User]]:
        return self._list(User, limit, cursor, lambda _: True)


class Sessions(Finder):
    """Implements the port Sessions."""

    def get(self, id: str) -> MemoryRead[Session]:
        return self._get(Session, id, "session_not_found")

    def of(self, holder_id: str) -> MemoryRead[Sequence[Session]]:
        def answer() -> Sequence[Session]:
            credentials = self.tx.find(Credentials, holder_id)
            rows = [
                it
                for it in self.tx.mine(Session)
                if it.holder_id == holder_id and it.ended_at is None and it.epoch == credentials.epoch
            ]
            return [self.tx.lock(it) for it in rows[:SESSIONS_MAX]]

        return MemoryRead(self.tx, answer)


class Factors(Finder):
    """Implements the port Factors."""

    def of(self, id: str) -> MemoryRead[SecondFactor | None]:
        def answer() -> SecondFactor | None:
            found = self.tx.find(SecondFactor, id)
            return self.tx.lock(found) if found is not None else None

        return MemoryRead(self.tx, answer)


class Members(Finder):
    """Implements the port Members."""

    def get(self, id: str) -> MemoryRead[Membership]:
        return self._get(Membership, id, "member_not_found", lambda it: it.removed_at is None)

    def of_user(self, user_id: str) -> MemoryRead[Membership | None]:
        def answer() -> Membership | None:
            for it in self.tx.mine(Membership):
                if it.user_id == user_id and it.removed_at is None:
                    locked: Membership = self.tx.lock(it)
                    return locked
            return None

        return MemoryRead(self.tx, answer)

    def by_email(self, email: str) -> MemoryRead[Membership | None]:
        def answer() -> Membership | None:
            users = self.tx.everywhere.get(REALM, {}).get(User, {})
            members: list[Membership] = self.tx.mine(Membership)
            here = (it for it in members if it.removed_at is None and users[it.user_id].email == email)
            return next(here, None)

        return MemoryRead(self.tx, answer)

    def leaders(self, *, limit: int) -> MemoryRead[Sequence[Member]]:
        def answer() -> Sequence[Member]:
            leading = [it for it in self._present() if it.membership.role is not Role.MEMBER]
            leading.sort(key=lambda it: (it.membership.role is not Role.OWNER, it.membership.id))
            return leading[:limit]

        return MemoryRead(self.tx, answer)

    def page(self, *, limit: int, cursor: str | None = None) -> MemoryRead[Page[Member]]:
        return MemoryRead(self.tx, lambda: page(self._present(), limit, cursor, lambda it: it.membership.id))

    def _present(self) -> list[Member]:
        users = self.tx.everywhere.get(REALM, {}).get(User, {})
        return [
            Member(it, users[it.user_id].email, users[it.user_id].full_name)
            for it in self.tx.mine(Membership)
            if it.removed_at is None
        ]


class Invitations(Finder):
    """Implements the port Invitations."""

    def get(self, id: str) -> MemoryRead[Invitation]:
        return self._get(Invitation, id, "invitation_not_found")

    def page(self, *, limit: int, cursor: str | None = None) -> MemoryRead[Page[Invitation]]:
        return self._list(Invitation, limit, cursor, lambda it: it.open)

    def by(self, membership_id: str) -> MemoryRead[Sequence[Invitation]]:
        def answer() -> Sequence[Invitation]:
            rows = [it for it in self.tx.mine(Invitation) if it.open and it.invited_by == membership_id]
            return [self.tx.lock(it) for it in reversed(rows)]

        return MemoryRead(self.tx, answer)

    def count(self) -> MemoryRead[int]:
        return MemoryRead(self.tx, lambda: sum(it.open for it in self.tx.mine(Invitation)))


class Contacts(Finder):
    """Implements the port Contacts."""

    def get(self, id: str) -> MemoryRead[Contact]:
        return self._get(Contact, id, "contact_not_found")

    def page(
        self, customer_id: CustomerId, *, limit: int, cursor: str | None = None
    ) -> MemoryRead[Page[Contact]]:
        return self._list(Contact, limit, cursor, lambda it: it.customer_id == customer_id)

    def count(self, customer_id: CustomerId) -> MemoryRead[tuple[int, int]]:
        def answer() -> tuple[int, int]:
            rows = [it for it in self.tx.mine(Contact) if it.customer_id == customer_id]
            admins = sum(it.is_active and it.role is ContactRole.ADMIN for it in rows)
            return len(rows), admins

        return MemoryRead(self.tx, answer)


class Inquiries(Finder):
    """Implements the port Inquiries."""

    def page(self, *, limit: int, cursor: str | None = None) -> MemoryRead[Page[Inquiry]]:
        return self._list(Inquiry, limit, cursor, lambda _: True)
