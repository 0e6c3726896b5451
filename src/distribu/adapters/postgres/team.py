"""Finders of the company itself, its members and those it has invited."""

from collections.abc import Sequence

import sqlalchemy as sa

from distribu.adapters.postgres import schema
from distribu.adapters.postgres.driver import Row, Statement
from distribu.adapters.postgres.mapping import COMPANIES, INVITATIONS, MEMBERSHIPS, mine
from distribu.adapters.postgres.reading import Answers, Finder, Pages, PostgresRead, locking
from distribu.application.ports import Member, Page
from distribu.domain.access import Role
from distribu.domain.accounts import REALM
from distribu.domain.team import INVITATIONS_MAX, Company, Invitation, Membership

_get = locking(sa.select(*COMPANIES.columns).where(mine(schema.companies)))
_glance = {True: _get[True], False: _get[True]}


class PostgresCompanies(Finder):
    """Implements the port Companies."""

    def current(self, *, lock: bool = False) -> PostgresRead[Company]:
        return self.got(COMPANIES, _get if lock else _glance, "company_not_found")


_member, _user, _invitation = schema.memberships.c, schema.users.c, schema.invitations.c
_present = _member.removed_at.is_(None)
_get_member = locking(
    sa.select(*MEMBERSHIPS.columns).where(
        mine(schema.memberships), _present, _member.id == sa.bindparam("id")
    )
)
_get_of_user = locking(
    sa.select(*MEMBERSHIPS.columns).where(
        mine(schema.memberships), _present, _member.user_id == sa.bindparam("user")
    )
)
_with_users = schema.memberships.join(schema.users, _user.id == _member.user_id)
_by_email = Statement(
    sa.select(*MEMBERSHIPS.columns)
    .select_from(_with_users)
    .where(mine(schema.memberships), _present, _user.email == sa.bindparam("email"))
)
_in_the_realm = _user.company_id == sa.literal_column(f"'{REALM}'::uuid")
_named = (*MEMBERSHIPS.columns, _user.email, _user.full_name)
_is_owner = _member.role == sa.literal_column(f"'{Role.OWNER}'")
_leaders = Statement(
    sa.select(*_named)
    .select_from(_with_users)
    .where(
        mine(schema.memberships),
        _present,
        _in_the_realm,
        _member.role != sa.literal_column(f"'{Role.MEMBER}'"),
    )
    .order_by(_is_owner.desc(), _member.id)
    .limit(sa.bindparam("count", type_=sa.BigInteger))
)
_member_pages = Pages(_named, schema.memberships, _member.id, _present, _in_the_realm, source=_with_users)


class PostgresMembers(Finder):
    """Implements the port Members."""

    def get(self, id: str) -> PostgresRead[Membership]:
        return self.got(MEMBERSHIPS, _get_member, "member_not_found", id=id)

    def of_user(self, user_id: str) -> PostgresRead[Membership | None]:
        tx = self.tx

        def build(answers: Answers) -> Membership | None:
            return tx.lock(MEMBERSHIPS.build(answers[0][0])) if answers[0] else None

        return PostgresRead(tx, build, _get_of_user[tx.readonly].of(**self.bound, user=user_id))

    def by_email(self, email: str) -> PostgresRead[Membership | None]:
        tx = self.tx

        def build(answers: Answers) -> Membership | None:
            return MEMBERSHIPS.build(answers[0][0]) if answers[0] else None

        return PostgresRead(tx, build, _by_email.of(**self.bound, email=email))

    def leaders(self, *, limit: int) -> PostgresRead[Sequence[Member]]:
        def build(answers: Answers) -> Sequence[Member]:
            return [_build(row) for row in answers[0]]

        return PostgresRead(self.tx, build, _leaders.of(**self.bound, count=limit))

    def page(self, *, limit: int, cursor: str | None = None) -> PostgresRead[Page[Member]]:
        statement = _member_pages.statement(cursor=cursor)
        return self.paged(_build, statement, limit, lambda it: it.membership.id, cursor=cursor)


def _build(row: Row) -> Member:
    *membership, email, full_name = row
    return Member(MEMBERSHIPS.build(tuple(membership)), email, full_name)


_open = sa.and_(_invitation.accepted_at.is_(None), _invitation.revoked_at.is_(None))
_get_invitation = locking(
    sa.select(*INVITATIONS.columns).where(mine(schema.invitations), _invitation.id == sa.bindparam("id"))
)
_invitation_pages = Pages(INVITATIONS.columns, schema.invitations, _invitation.id, _open)
_by = locking(
    sa.select(*INVITATIONS.columns)
    .where(mine(schema.invitations), _open, _invitation.invited_by == sa.bindparam("by"))
    .order_by(_invitation.id)
    .limit(INVITATIONS_MAX)
)
_count = Statement(
    sa.select(sa.func.count()).select_from(schema.invitations).where(mine(schema.invitations), _open)
)


class PostgresInvitations(Finder):
    """Implements the port Invitations."""

    def get(self, id: str) -> PostgresRead[Invitation]:
        return self.got(INVITATIONS, _get_invitation, "invitation_not_found", id=id)

    def page(self, *, limit: int, cursor: str | None = None) -> PostgresRead[Page[Invitation]]:
        statement = _invitation_pages.statement(cursor=cursor)
        return self.paged(INVITATIONS.build, statement, limit, lambda it: it.id, cursor=cursor)

    def by(self, membership_id: str) -> PostgresRead[Sequence[Invitation]]:
        tx = self.tx

        def build(answers: Answers) -> Sequence[Invitation]:
            return [tx.lock(INVITATIONS.build(row)) for row in answers[0]]

        return PostgresRead(tx, build, _by[tx.readonly].of(**self.bound, by=membership_id))

    def count(self) -> PostgresRead[int]:
        return PostgresRead(self.tx, lambda answers: int(answers[0][0][0]), _count.of(**self.bound))
