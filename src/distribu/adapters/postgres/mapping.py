"""Entities to rows and back, by the names of their fields."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from typing import Any, Final, Generic, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from distribu.adapters.postgres import schema
from distribu.adapters.postgres.driver import Call, Row, Statement
from distribu.application.ports import Scope
from distribu.domain.access import ApiKey, ContactRole, Permission, Role
from distribu.domain.accounts import Credentials, Session, Ticket, User
from distribu.domain.billing import Interval, Plan, Subscription, SubscriptionStatus
from distribu.domain.catalog import Product
from distribu.domain.contacts import Contact
from distribu.domain.customers import Customer, CustomerStatus, PriceOverride
from distribu.domain.entity import Entity
from distribu.domain.factors import FactorState, Passkey, SecondFactor
from distribu.domain.inquiries import Inquiry, InquiryKind
from distribu.domain.notices import Notice, NoticeStatus
from distribu.domain.ordering import Order, OrderSource, OrderStatus
from distribu.domain.team import Company, Invitation, Membership, Registration
from distribu.domain.values import Address, folded, sku_key
from distribu.domain.webhooks import Webhook, WireEvent

E = TypeVar("E", bound=Entity)

_addresses: Final = msgspec.json.Decoder(tuple[Address, ...])
_address: Final = msgspec.json.Decoder(Address)

_uuid: Final = schema.companies.c.company_id.type
COMPANY: Final = sa.bindparam("company", type_=_uuid)
CUSTOMER: Final = sa.bindparam("customer", type_=_uuid)
"""Bound in every statement by the transaction: the company it is for, and a contact's customer."""


def mine(table: sa.Table) -> sa.ColumnElement[bool]:
    """The rows that the transaction's scope may see: the clause that every statement has.

    Row-level security says the same again, by itself, in the database.
    """
    own = table.c.company_id == COMPANY
    if table.name not in schema.FOR_CONTACTS:
        return sa.and_(own, CUSTOMER.is_(None))
    column = schema.FOR_CONTACTS[table.name]
    return own if column is None else sa.and_(own, sa.or_(CUSTOMER.is_(None), table.c[column] == CUSTOMER))


def _json(value: Any) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()


class Mapped(Generic[E]):
    """How one kind of entity lies in its table.

    ``reads`` and ``writes`` convert a field that is not stored as it is; ``derives`` computes columns
    that only the database needs from the fields it names; ``guards`` replaces what a column is set to
    in an UPDATE.
    """

    def __init__(
        self,
        entity: type[E],
        table: sa.Table,
        *,
        apart: Sequence[str] = (),
        reads: Mapping[str, Callable[[Any], Any]] | None = None,
        writes: Mapping[str, Callable[[Any], Any]] | None = None,
        derives: Mapping[str, tuple[tuple[str, ...], Callable[[E], Any]]] | None = None,
        guards: Mapping[str, Callable[[sa.ColumnElement[Any]], sa.ColumnElement[Any]]] | None = None,
    ) -> None:
        self.entity = entity
        self.table = table
        reads, self.writes, self.derives = reads or {}, writes or {}, derives or {}
        self.guards = guards or {}
        self.apart = tuple(apart)
        self.names = tuple(
            field.name for field in fields(entity) if field.name not in {"events", *self.apart}
        )
        self.columns = tuple(table.c[name] for name in self.names)
        self._puts = tuple(getattr(entity, name).__set__ for name in self.names)
        self._reads = tuple((place, reads[name]) for place, name in enumerate(self.names) if name in reads)
        self._left = tuple((getattr(entity, name).__set__, ()) for name in ("events", *self.apart))
        self.insert = Statement(sa.insert(table))
        self._update = lru_cache(maxsize=256)(self._compiled_update)
        self._update_many = lru_cache(maxsize=64)(self._compiled_update_many)

    def build(self, row: Row) -> E:
        """The entity in a row of `columns`."""
        entity = object.__new__(self.entity)
        if self._reads:
            cells = list(row)
            for place, read in self._reads:
                if cells[place] is not None:
                    cells[place] = read(cells[place])
            row = tuple(cells)
        for put, value in zip(self._puts, row, strict=True):
            put(entity, value)
        for put, nothing in self._left:
            put(entity, nothing)
        return entity

    def values(self, entity: E) -> dict[str, Any]:
        """Every column's value."""
        return self._columns_of(entity, self.names)

    def changed(self, before: E, after: E) -> dict[str, Any]:
        """The columns an UPDATE has to set: those that differ."""
        return self._columns_of(
            after, [name for name in self.names if getattr(before, name) != getattr(after, name)]
        )

    def _columns_of(self, entity: E, names: Sequence[str]) -> dict[str, Any]:
        values = {}
        for name in names:
            value = getattr(entity, name)
            write = self.writes.get(name)
            values[name] = write(value) if write is not None else value
        for name, (sources, derive) in self.derives.items():
            if any(source in values for source in sources):
                values[name] = derive(entity)
        return values

    def update(self, scope: Scope, changes: Sequence[tuple[E, dict[str, Any]]]) -> Call:
        """Set the same columns of one or more rows; a row that is at another version stops it all."""
        names = tuple(changes[0][1])
        if len(changes) == 1:
            entity, values = changes[0]
            return self._update(names).of(
                company=scope.company_id,
                customer=scope.customer_id,
                id_=entity.id,
                base=entity.version - 1,
                **values,
            )
        columns = {name: [values[name] for _, values in changes] for name in names}
        return self._update_many(names).of(
            company=scope.company_id,
            customer=scope.customer_id,
            id_=[entity.id for entity, _ in changes],
            base=[entity.version - 1 for entity, _ in changes],
            wanted=len(changes),
            **columns,
        )

    def _set(self, name: str, value: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        guard = self.guards.get(name)
        return guard(value) if guard else value

    def _compiled_update(self, names: tuple[str, ...]) -> Statement:
        table = self.table
        changed = (
            sa.update(table)
            .where(mine(table), table.c.id == sa.bindparam("id_"), table.c.version == sa.bindparam("base"))
            .values({name: self._set(name, sa.bindparam(name, type_=table.c[name].type)) for name in names})
            .returning(sa.literal_column("1"))
            .cte("changed")
        )
        return Statement(_all_of(changed, sa.literal_column("1")))

    def _compiled_update_many(self, names: tuple[str, ...]) -> Statement:
        table = self.table
        new = unnested({"id_": table.c.id, "base": table.c.version} | {name: table.c[name] for name in names})
        changed = (
            sa.update(table)
            .where(mine(table), table.c.id == new.c.id_, table.c.version == new.c.base)
            .values({name: self._set(name, new.c[name]) for name in names})
            .returning(sa.literal_column("1"))
            .cte("changed")
        )
        return Statement(_all_of(changed, sa.bindparam("wanted", type_=sa.BigInteger)))


def unnested(columns: Mapping[str, sa.ColumnElement[Any]]) -> sa.TableValuedAlias:
    """A table made of one array parameter per column: many rows in one statement."""
    arrays = [sa.cast(sa.bindparam(name), ARRAY(column.type)) for name, column in columns.items()]
    return sa.func.unnest(*arrays).table_valued(*columns, name="given").render_derived()


def insert_many(table: sa.Table, names: Sequence[str], **instead: Callable[[Any], Any]) -> sa.Insert:
    """An INSERT of any number of rows of the transaction's company; ``instead`` wraps a column."""
    new = unnested({name: table.c[name] for name in names})
    cells = [instead[name](new.c[name]) if name in instead else new.c[name] for name in names]
    company = sa.cast(COMPANY, table.c.company_id.type)
    return sa.insert(table).from_select(["company_id", *names], sa.select(company, *cells))


def _all_of(changed: sa.CTE, wanted: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """Raise unless so many rows were changed: an UPDATE of no rows stops nothing by itself."""
    stale = sa.func.distribu.stale()
    return sa.select(sa.case((sa.func.count() == wanted, 1), else_=stale)).select_from(changed)


def _within_credit(used: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """NULL, which `customers_credit` refuses, when credit is raised over the limit of the row itself."""
    row = schema.customers.c
    over = sa.and_(used > row.credit_used, used > row.credit_limit)
    return sa.case((over, sa.null()), else_=used)


COMPANIES: Final = Mapped(
    Company,
    schema.companies,
    reads={"registration": Registration},
    derives={
        "closed_at": (("deleted_at",), lambda it: it.deleted_at)
    },  # the database puts its own time there
)
SUBSCRIPTIONS: Final = Mapped(
    Subscription,
    schema.subscriptions,
    reads={"plan": Plan, "interval": Interval, "status": SubscriptionStatus},
)
NOTICES: Final = Mapped(Notice, schema.stripe_events, reads={"status": NoticeStatus})
PRODUCTS: Final = Mapped(
    Product,
    schema.products,
    derives={
        "sku_key": (("sku",), lambda it: sku_key(it.sku)),
        "folded": (("name", "sku", "category"), lambda it: folded(it.name, it.sku, it.category)),
    },
)
CUSTOMERS: Final = Mapped(
    Customer,
    schema.customers,
    reads={"status": CustomerStatus, "addresses": _addresses.decode},
    writes={"addresses": _json},
    derives={"folded": (("name", "email"), lambda it: folded(it.name, it.email))},
    guards={"credit_used": _within_credit},
)
OVERRIDES: Final = Mapped(PriceOverride, schema.price_overrides)
ORDERS: Final = Mapped(
    Order,
    schema.orders,
    apart=("lines",),
    reads={"status": OrderStatus, "source": OrderSource, "shipping_address": _address.decode},
    writes={"shipping_address": _json},
)
API_KEYS: Final = Mapped(
    ApiKey, schema.api_keys, reads={"scopes": lambda names: tuple(map(Permission, names))}
)
WEBHOOKS: Final = Mapped(
    Webhook, schema.webhooks, reads={"subscribed": lambda names: tuple(map(WireEvent, names))}
)

_passkeys: Final = msgspec.json.Decoder(tuple[Passkey, ...])
_tickets: Final = msgspec.json.Decoder(tuple[Ticket, ...])
_ticket: Final = msgspec.json.Decoder(Ticket)

USERS: Final = Mapped(User, schema.users)
CREDENTIALS: Final = Mapped(
    Credentials, schema.credentials, reads={"tickets": _tickets.decode}, writes={"tickets": _json}
)
SESSIONS: Final = Mapped(Session, schema.sessions, reads={"factor": FactorState})
FACTORS: Final = Mapped(
    SecondFactor,
    schema.second_factors,
    reads={"recovery": tuple, "passkeys": _passkeys.decode},
    writes={"recovery": list, "passkeys": _json},
)
MEMBERSHIPS: Final = Mapped(Membership, schema.memberships, reads={"role": Role})
INVITATIONS: Final = Mapped(
    Invitation,
    schema.invitations,
    reads={"role": Role, "ticket": _ticket.decode},
    writes={"ticket": _json},
)
INQUIRIES: Final = Mapped(Inquiry, schema.inquiries, reads={"kind": InquiryKind})
CONTACTS: Final = Mapped(Contact, schema.contacts, reads={"role": ContactRole})

MAPPED: Final[Mapping[type[Entity], Mapped[Any]]] = {
    mapped.entity: mapped
    for mapped in (
        COMPANIES,
        SUBSCRIPTIONS,
        NOTICES,
        PRODUCTS,
        CUSTOMERS,
        OVERRIDES,
        ORDERS,
        API_KEYS,
        WEBHOOKS,
        USERS,
        CREDENTIALS,
        SESSIONS,
        FACTORS,
        MEMBERSHIPS,
        INVITATIONS,
        CONTACTS,
        INQUIRIES,
    )
}
