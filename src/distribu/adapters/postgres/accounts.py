"""Finders of people: who can sign in, what proves it, and the sessions they are in."""

from collections.abc import Sequence

import sqlalchemy as sa

from distribu.adapters.postgres import schema
from distribu.adapters.postgres.driver import Row, Statement
from distribu.adapters.postgres.mapping import COMPANY, CREDENTIALS, CUSTOMER, FACTORS, SESSIONS, USERS, mine
from distribu.adapters.postgres.reading import Answers, Finder, Pages, PostgresRead, locking
from distribu.application.ports import Login, Page
from distribu.domain.access import ContactGrant, ContactRole, Role, Seat, StaffGrant, Standing
from distribu.domain.accounts import REALM, SESSIONS_MAX, Session, User
from distribu.domain.customers import CustomerStatus
from distribu.domain.errors import NotFound
from distribu.domain.factors import FactorState, SecondFactor

_user, _contact, _customer = schema.users.c, schema.contacts.c, schema.customers.c
_login, _session = schema.credentials.c, schema.sessions.c
_seat, _card = schema.seats.c, schema.company_cards.c

# Somebody who can sign in is a user in the realm and a contact in a company: one of the two is there.
_people = (
    sa.select(
        _user.company_id, _user.id, _user.email, _user.full_name, sa.literal_column("true").label("admitted")
    )
    .where(mine(schema.users), _user.company_id == sa.literal_column(f"'{REALM}'::uuid"))
    .union_all(
        sa.select(
            _contact.company_id,
            _contact.id,
            _contact.email,
            _contact.full_name,
            sa.and_(_contact.is_active, _customer.status == sa.literal_column(f"'{CustomerStatus.ACTIVE}'")),
        )
        .select_from(
            schema.contacts.join(
                schema.customers,
                sa.and_(_customer.company_id == _contact.company_id, _customer.id == _contact.customer_id),
            )
        )
        .where(mine(schema.contacts), mine(schema.customers))
    )
    .subquery("people")
)
_logins = (
    sa.select(_people.c.email, _people.c.full_name, _people.c.admitted, *CREDENTIALS.columns)
    .select_from(
        _people.join(
            schema.credentials,
            sa.and_(_login.company_id == _people.c.company_id, _login.id == _people.c.id),
        )
    )
    .where(mine(schema.credentials))
)


def _locking(query: sa.Select[tuple[object, ...]]) -> dict[bool, Statement]:
    locked = query.with_for_update(key_share=True, of=schema.credentials)
    return {True: Statement(query), False: Statement(locked)}


_by_email = _locking(_logins.where(_people.c.email == sa.bindparam("email")))
_by_id = _locking(_logins.where(_people.c.id == sa.bindparam("id", type_=_user.id.type)))


class PostgresLogins(Finder):
    """Implements the port Logins."""

    def by_email(self, email: str) -> PostgresRead[Login | None]:
        def build(answers: Answers) -> Login | None:
            return self._built(answers[0][0]) if answers[0] else None

        return PostgresRead(self.tx, build, _by_email[self.tx.readonly].of(**self.bound, email=email))

    def get(self, id: str) -> PostgresRead[Login]:
        def build(answers: Answers) -> Login:
            if not answers[0]:
                raise NotFound("user_not_found")
            return self._built(answers[0][0])

        return PostgresRead(self.tx, build, _by_id[self.tx.readonly].of(**self.bound, id=id))

    def _built(self, row: Row) -> Login:
        email, full_name, admitted, *rest = row
        credentials = self.tx.lock(CREDENTIALS.build(tuple(rest)))
        return Login(credentials.id, email, full_name, admitted, credentials)


_realm: sa.ColumnElement[str] = sa.literal_column(f"'{REALM}'::uuid")
_in_the_realm = sa.and_(_realm == COMPANY, CUSTOMER.is_(None))
_seat_here = sa.exists().where(mine(schema.seats), _seat.user_id == _user.id, ~_seat.removed)
# Of the users, who are all in the realm, a company reads its own members.
_known = sa.or_(mine(schema.users), sa.and_(_user.company_id == _realm, _seat_here))
_get_user = locking(
    sa.select(*USERS.columns).where(_known, _user.id == sa.bindparam("id", type_=_user.id.type))
)
_user_pages = Pages(USERS.columns, schema.users, _user.id)
_super_admins = Statement(
    sa.select(*USERS.columns)
    .where(mine(schema.users), _user.is_super_admin)
    .order_by(_user.id.desc())
    .limit(sa.bindparam("count", type_=sa.BigInteger))
)
_deleted: sa.ColumnElement[str] = sa.literal_column(f"'{Standing.DELETED}'")
_seats = Statement(
    sa.select(
        _seat.company_id,
        _card.name,
        _card.slug,
        _card.standing,
        _seat.membership_id,
        _seat.role,
        _card.require_second_factor,
    )
    .select_from(schema.seats.join(schema.company_cards, _card.company_id == _seat.company_id))
    .where(
        sa.or_(mine(schema.seats), _in_the_realm),
        _seat.user_id == sa.bindparam("id"),
        ~_seat.removed,
        _card.standing != _deleted,
    )
    .order_by(_card.name, _card.company_id)
)


def _built_seat(row: Row) -> Seat:
    company_id, name, slug, standing, membership_id, role, require_second_factor = row
    return Seat(
        company_id=company_id,
        company_name=name,
        company_slug=slug,
        standing=Standing(standing),
        membership_id=membership_id,
        role=Role(role),
        require_second_factor=require_second_factor,
    )


class PostgresUsers(Finder):
    """Implements the port Users."""

    def get(self, id: str) -> PostgresRead[User]:
        return self.got(USERS, _get_user, "user_not_found", id=id)

    def seats(self, id: str) -> PostgresRead[Sequence[Seat]]:
        def build(answers: Answers) -> Sequence[Seat]:
            return [_built_seat(row) for row in answers[0]]

        return PostgresRead(self.tx, build, _seats.of(**self.bound, id=id))

    def super_admins(self, *, limit: int) -> PostgresRead[Sequence[User]]:
        return PostgresRead(
            self.tx,
            lambda answers: [USERS.build(row) for row in answers[0]],
            _super_admins.of(**self.bound, count=limit),
        )

    def page(self, *, limit: int, cursor: str | None = None) -> PostgresRead[Page[User]]:
        statement = _user_pages.statement(cursor=cursor)
        return self.paged(USERS.build, statement, limit, lambda it: it.id, cursor=cursor)


_get_session = locking(
    sa.select(*SESSIONS.columns).where(mine(schema.sessions), _session.id == sa.bindparam("id"))
)
_epoch = (
    sa.select(_login.epoch)
    .where(mine(schema.credentials), _login.id == sa.bindparam("holder", type_=_login.id.type))
    .scalar_subquery()
)
_of_holder = locking(
    sa.select(*SESSIONS.columns)
    .where(
        mine(schema.sessions),
        _session.holder_id == sa.bindparam("holder"),
        _session.ended_at.is_(None),
        _session.epoch == _epoch,
    )
    .order_by(_session.id.desc())
    .limit(SESSIONS_MAX)
)


class PostgresSessions(Finder):
    """Implements the port Sessions."""

    def get(self, id: str) -> PostgresRead[Session]:
        return self.got(SESSIONS, _get_session, "session_not_found", id=id)

    def of(self, holder_id: str) -> PostgresRead[Sequence[Session]]:
        tx = self.tx

        def build(answers: Answers) -> Sequence[Session]:
            return [tx.lock(SESSIONS.build(row)) for row in answers[0]]

        return PostgresRead(tx, build, _of_holder[tx.readonly].of(**self.bound, holder=holder_id))


_get_factor = locking(
    sa.select(*FACTORS.columns).where(
        mine(schema.second_factors), schema.second_factors.c.id == sa.bindparam("id")
    )
)


class PostgresFactors(Finder):
    """Implements the port Factors."""

    def of(self, id: str) -> PostgresRead[SecondFactor | None]:
        tx = self.tx

        def build(answers: Answers) -> SecondFactor | None:
            return tx.lock(FACTORS.build(answers[0][0])) if answers[0] else None

        return PostgresRead(tx, build, _get_factor[tx.readonly].of(**self.bound, id=id))


# the directory

_live_until = sa.case(
    (sa.or_(_session.ended_at.is_not(None), _session.epoch != _login.epoch), None), else_=_session.expires_at
)
_held = schema.sessions.join(
    schema.credentials,
    sa.and_(_login.company_id == _session.company_id, _login.id == _session.holder_id),
)
STAFF_SESSION = Statement(
    sa.select(
        _session.id,
        _user.id,
        _user.email,
        _live_until,
        _session.seen_at,
        _user.is_super_admin,
        _session.factor,
        _seat.company_id,
        _card.name,
        _card.slug,
        _card.standing,
        _seat.membership_id,
        _seat.role,
        _card.require_second_factor,
    )
    .select_from(
        _held.join(
            schema.users, sa.and_(_user.company_id == _session.company_id, _user.id == _session.holder_id)
        )
        .outerjoin(
            schema.seats,
            sa.and_(
                _seat.user_id == _session.holder_id, _seat.company_id == _session.current, ~_seat.removed
            ),
        )
        .outerjoin(schema.company_cards, _card.company_id == _seat.company_id)
    )
    .where(mine(schema.sessions), _session.id == sa.bindparam("id"))
)
STORE_SESSION = Statement(
    sa.select(
        _session.id,
        _session.company_id,
        _contact.customer_id,
        _contact.id,
        _contact.email,
        _contact.role,
        _live_until,
        _session.seen_at,
        sa.and_(_contact.is_active, _customer.status == sa.literal_column(f"'{CustomerStatus.ACTIVE}'")),
        _card.standing,
    )
    .select_from(
        _held.join(
            schema.contacts,
            sa.and_(_contact.company_id == _session.company_id, _contact.id == _session.holder_id),
        )
        .join(
            schema.customers,
            sa.and_(_customer.company_id == _session.company_id, _customer.id == _contact.customer_id),
        )
        .join(schema.company_cards, _card.company_id == _session.company_id)
    )
    .where(mine(schema.sessions), _session.id == sa.bindparam("id"))
)


def staff_grant(row: Row) -> StaffGrant:
    """A row of `STAFF_SESSION`."""
    session_id, user_id, email, live_until, seen_at, is_super_admin, factor, *seat = row
    return StaffGrant(
        session_id=session_id,
        user_id=user_id,
        email=email,
        live_until=live_until,
        seen_at=seen_at,
        is_super_admin=is_super_admin,
        factor=FactorState(factor),
        seat=_built_seat(tuple(seat)) if seat[0] is not None else None,
    )


def contact_grant(row: Row) -> ContactGrant:
    """A row of `STORE_SESSION`."""
    session_id, company_id, customer_id, contact_id, email, role, live_until, seen_at, admitted, standing = (
        row
    )
    return ContactGrant(
        session_id=session_id,
        company_id=company_id,
        customer_id=customer_id,
        contact_id=contact_id,
        email=email,
        role=ContactRole(role),
        live_until=live_until,
        seen_at=seen_at,
        admitted=admitted,
        standing=Standing(standing),
    )
