"""What a change is written with: the statements, and their order in the message that commits."""

from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from distribu.adapters.postgres import schema
from distribu.adapters.postgres.driver import Call, Statement
from distribu.adapters.postgres.mapping import COMPANY, MAPPED, insert_many, mine, unnested
from distribu.application.ports import Change, MailStatus, NewMail, NewRecord, Scope
from distribu.domain.access import ApiKey
from distribu.domain.billing import Subscription, month_of
from distribu.domain.catalog import StockMoved
from distribu.domain.entity import Entity
from distribu.domain.ordering import FIRST_NUMBER, Order, PaymentRecorded
from distribu.domain.team import Company, Membership
from distribu.domain.values import CompanyId

_number: Final = sa.select(schema.order_numbers.c.last).where(mine(schema.order_numbers)).scalar_subquery()


def _filled(text: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """A text with the number in it; ours, since we hold the counter's lock."""
    return sa.func.replace(text, sa.literal_column("chr(1)"), sa.cast(_number, sa.Text))


def _order_insert() -> Statement:
    """An order with its lines and its number; the counter is taken as late as can be.

    From here to the commit, the company's other orders wait. The counter counts the month too, and raises
    when the subscription allows no more: nobody can be in between, since the row is locked. A month that
    has begun by anybody's clock goes on: a server whose clock is behind counts in it, and begins none anew.
    """
    counter, orders, lines = schema.order_numbers, schema.orders, schema.order_lines
    month, now = (
        sa.bindparam("month", type_=counter.c.month.type),
        sa.bindparam("now", type_=counter.c.closes_at.type),
    )
    already = sa.case((counter.c.month >= month, counter.c.made), else_=0)
    made = sa.case(
        (now >= counter.c.closes_at, sa.func.distribu.unpaid()),
        (already >= counter.c.allowed, sa.func.distribu.over_plan(already, counter.c.allowed)),
        else_=already + 1,
    )
    number = (
        sa.update(counter)
        .where(mine(counter))
        .values(last=counter.c.last + 1, month=sa.func.greatest(counter.c.month, month), made=made)
        .returning(counter.c.last)
        .cte("number")
    )
    names = [column.name for column in orders.c if column.name not in {"company_id", "number"}]
    values = [sa.cast(sa.bindparam(f"new_{name}"), orders.c[name].type) for name in names]
    company = sa.cast(COMPANY, orders.c.company_id.type)
    order = sa.insert(orders).from_select(
        ["company_id", "number", *names], sa.select(company, number.c.last, *values)
    )
    line_names = [column.name for column in lines.c if column.name != "company_id"]
    return Statement(
        sa.select(number.c.last).add_cte(order.cte("placed"), insert_many(lines, line_names).cte("lined"))
    )


INSERT_ORDER: Final = _order_insert()
_INSERT_MOVEMENTS: Final = Statement(
    insert_many(
        schema.stock_movements,
        [column.name for column in schema.stock_movements.c if column.name != "company_id"],
    )
)
_INSERT_PAYMENT: Final = Statement(sa.insert(schema.payments))
_INSERT_COUNTER: Final = Statement(
    sa.insert(schema.order_numbers).values(
        {name: sa.bindparam(name) for name in ("company_id", "last", "month", "made")}
    )
)
_PUT_ALLOWED: Final = Statement(
    sa.update(schema.order_numbers)
    .where(mine(schema.order_numbers))
    .values(
        {
            name: sa.bindparam(name, type_=schema.order_numbers.c[name].type)
            for name in ("allowed", "closes_at")
        }
    )
)
_INSERT_SLUG: Final = Statement(
    sa.insert(schema.company_slugs).from_select(
        ["slug", "company_id"],
        sa.select(
            sa.cast(sa.bindparam("slug"), sa.Text), sa.cast(COMPANY, schema.companies.c.company_id.type)
        ).where(
            ~sa.exists().where(
                schema.company_slugs.c.slug == sa.bindparam("slug"),
                schema.company_slugs.c.company_id == COMPANY,
            )
        ),
    )
)


def _replacing(table: sa.Table) -> Statement:
    """A row of the transaction's company: put in, or in the place of the one that is there."""
    new = insert(table).values(
        {
            column.name: COMPANY
            if column.name == "company_id"
            else sa.bindparam(column.name, type_=column.type)
            for column in table.c
        }
    )
    rest = {
        column.name: new.excluded[column.name] for column in table.c if column.name not in table.primary_key.c
    }
    return Statement(new.on_conflict_do_update(index_elements=[*table.primary_key.c], set_=rest))


_PUT_CARD: Final = _replacing(schema.company_cards)
_PUT_SEAT: Final = _replacing(schema.seats)
_INSERT_GRANT: Final = Statement(sa.insert(schema.key_grants))
_the_grant: Final = sa.update(schema.key_grants).where(
    schema.key_grants.c.digest == sa.bindparam("digest_"), schema.key_grants.c.company_id == COMPANY
)
_EDIT_GRANT: Final = Statement(
    _the_grant.values({name: sa.bindparam(name) for name in ("name", "scopes", "expires_at")})
)
_REVOKE_GRANT: Final = Statement(_the_grant.values(revoked=sa.true()))

_RECORD_COLUMNS: Final = (
    "id",
    "at",
    "actor_kind",
    "actor_id",
    "action",
    "entity_type",
    "entity_id",
    "person_id",
    "body",
)


def _records_insert(numbered: bool) -> Statement:
    person = (
        sa.insert(schema.record_people)
        .values(
            company_id=COMPANY,
            id=sa.bindparam("person", type_=schema.record_people.c.id.type),
            salt=sa.bindparam("salt"),
            label=sa.bindparam("label"),
            ip=sa.bindparam("ip"),
        )
        .cte("person")
    )
    new = unnested({"id": schema.records.c.id})
    waiting = (
        sa.insert(schema.unsealed)
        .from_select(
            ["company_id", "record_id"],
            sa.select(sa.cast(COMPANY, schema.unsealed.c.company_id.type), new.c.id),
        )
        .cte("waiting")
    )
    instead = {"body": _filled} if numbered else {}
    return Statement(insert_many(schema.records, _RECORD_COLUMNS, **instead).add_cte(person, waiting))


def _messages_insert(numbered: bool) -> Statement:
    instead = {"payload": _filled} if numbered else {}
    return Statement(insert_many(schema.outbox, ("id", "name", "occurred_at", "payload"), **instead))


def _answer_insert(numbered: bool) -> Statement:
    table = schema.answers
    columns = {
        column.name: sa.bindparam(column.name, type_=column.type)
        for column in table.c
        if column.name != "company_id"
    }
    values: dict[str, Any] = {**columns, "company_id": COMPANY}
    if numbered:
        values["body"] = _filled(sa.cast(columns["body"], sa.Text))
    new = insert(table).values(values)
    renewed = {name: new.excluded[name] for name in ("fingerprint", "body", "sealed", "created_at")}
    return Statement(new.on_conflict_do_update(constraint=table.primary_key, set_=renewed))


def _mails_insert(numbered: bool) -> Statement:
    instead = {"letter": _filled} if numbered else {}
    names = (
        "id",
        "created_at",
        "recipient",
        "letter",
        "sealed",
        "status",
        "attempts",
        "next_attempt_at",
        "error",
    )
    return Statement(insert_many(schema.mails, names, **instead))


_INSERT_MAILS: Final = {numbered: _mails_insert(numbered) for numbered in (False, True)}
_INSERT_RECORDS: Final = {numbered: _records_insert(numbered) for numbered in (False, True)}
_INSERT_MESSAGES: Final = {numbered: _messages_insert(numbered) for numbered in (False, True)}
KEEP: Final = {numbered: _answer_insert(numbered) for numbered in (False, True)}


def writing(
    scope: Scope,
    changes: Sequence[Change],
    records: Sequence[NewRecord],
    mails: Sequence[NewMail],
    numbered: bool,
) -> list[Call]:
    """The statements that write changes and records, the counter's lock as late as it can be."""
    company = scope.company_id
    calls: list[Call] = []
    orders: list[Call] = []
    updates: dict[tuple[type[Entity], tuple[str, ...]], list[tuple[Entity, dict[str, Any]]]] = {}
    for change in changes:
        after = change.after
        mapped = MAPPED[type(after)]
        if change.before is not None:
            values = mapped.changed(change.before, after)
            updates.setdefault((type(after), tuple(values)), []).append((after, values))
        elif isinstance(after, Order):
            orders.append(_new_order(scope, after))
        else:
            calls.append(mapped.insert.of(**mapped.values(after)))
        calls += _beside(company, change)
    for (kind, _), group in updates.items():
        calls.append(MAPPED[kind].update(scope, group))
    calls += _movements(company, records)
    calls += orders
    calls += _payments(company, records)
    calls += _telling(company, records, numbered)
    if mails:
        calls.append(_posting(company, mails, numbered))
    return calls


def _new_order(scope: Scope, order: Order) -> Call:
    values = {f"new_{name}": value for name, value in MAPPED[Order].values(order).items()}
    lines = order.lines
    return INSERT_ORDER.of(
        company=scope.company_id,
        customer=scope.customer_id,
        month=month_of(order.created_at),
        now=order.created_at,
        **values,
        order_id=[order.id] * len(lines),
        customer_id=[order.customer_id] * len(lines),
        id=[line.id for line in lines],
        product_id=[line.product_id for line in lines],
        product_name=[line.product_name for line in lines],
        product_sku=[line.product_sku for line in lines],
        quantity=[line.quantity for line in lines],
        unit_price=[line.unit_price for line in lines],
    )


def _beside(company: CompanyId, change: Change) -> list[Call]:
    """What else a change of some entities touches: the counter and slug of a company, a key's grant."""
    match change:
        case Change(after=Membership() as member):
            return [_seat(company, member)]
        case Change(before=None, after=Company() as new):
            return [
                _card(company, new),
                _INSERT_SLUG.of(company=company, slug=new.slug),
                _INSERT_COUNTER.of(company_id=company, last=FIRST_NUMBER - 1, month=0, made=0),
            ]
        case Change(after=Subscription() as it):
            return [
                _PUT_ALLOWED.of(
                    company=company,
                    customer=None,
                    allowed=it.allowance.orders_a_month,
                    closes_at=it.closes_at,
                )
            ]
        case Change(before=Company() as old, after=Company() as new):
            slug = [] if old.slug == new.slug else [_INSERT_SLUG.of(company=company, slug=new.slug)]
            return [_card(company, new), *slug]
        case Change(before=None, after=ApiKey() as key):
            return [
                _INSERT_GRANT.of(
                    digest=key.digest,
                    company_id=company,
                    key_id=key.id,
                    name=key.name,
                    scopes=key.scopes,
                    expires_at=key.expires_at,
                    revoked=False,
                )
            ]
        case Change(after=ApiKey() as key) if key.revoked_at is not None:
            return [_REVOKE_GRANT.of(company=company, digest_=key.digest)]
        case Change(after=ApiKey() as key):
            return [
                _EDIT_GRANT.of(
                    company=company,
                    digest_=key.digest,
                    name=key.name,
                    scopes=key.scopes,
                    expires_at=key.expires_at,
                )
            ]
        case _:
            return []


def _card(company: CompanyId, it: Company) -> Call:
    return _PUT_CARD.of(
        company=company,
        name=it.name,
        slug=it.slug,
        standing=it.standing,
        require_second_factor=it.require_second_factor,
        api_limit=it.api_limit,
    )


def _seat(company: CompanyId, it: Membership) -> Call:
    return _PUT_SEAT.of(
        company=company,
        user_id=it.user_id,
        membership_id=it.id,
        role=it.role,
        removed=it.removed_at is not None,
    )


def _movements(company: CompanyId, records: Sequence[NewRecord]) -> list[Call]:
    moved = [(record, record.event) for record in records if isinstance(record.event, StockMoved)]
    if not moved:
        return []
    return [
        _INSERT_MOVEMENTS.of(
            company=company,
            id=[record.id for record, _ in moved],
            product_id=[record.entity_id for record, _ in moved],
            quantity=[event.quantity for _, event in moved],
            reason=[event.reason for _, event in moved],
            note=[event.note for _, event in moved],
            order_id=[event.order_id for _, event in moved],
            stock_after=[event.after for _, event in moved],
            created_at=[record.at for record, _ in moved],
        )
    ]


def _payments(company: CompanyId, records: Sequence[NewRecord]) -> list[Call]:
    return [
        _INSERT_PAYMENT.of(
            company_id=company,
            id=record.id,
            order_id=record.entity_id,
            amount=record.event.amount,
            method=record.event.method,
            reference=record.event.reference,
            created_at=record.at,
        )
        for record in records
        if isinstance(record.event, PaymentRecorded)
    ]


def _telling(company: CompanyId, records: Sequence[NewRecord], numbered: bool) -> list[Call]:
    if not records:
        return []
    person = records[0].person
    calls = [
        _INSERT_RECORDS[numbered].of(
            company=company,
            person=person.id,
            salt=person.salt,
            label=person.label,
            ip=person.ip,
            id=[record.id for record in records],
            at=[record.at for record in records],
            actor_kind=[record.actor_kind for record in records],
            actor_id=[record.actor_id for record in records],
            action=[record.action for record in records],
            entity_type=[record.entity_type for record in records],
            entity_id=[record.entity_id for record in records],
            person_id=[record.person.id for record in records],
            body=[record.body for record in records],
        )
    ]
    messages = [(record, message) for record in records for message in record.messages]
    if messages:
        calls.append(
            _INSERT_MESSAGES[numbered].of(
                company=company,
                id=[message.id for _, message in messages],
                name=[message.name for _, message in messages],
                occurred_at=[record.at for record, _ in messages],
                payload=[message.payload for _, message in messages],
            )
        )
    return calls


def _posting(company: CompanyId, mails: Sequence[NewMail], numbered: bool) -> Call:
    return _INSERT_MAILS[numbered].of(
        company=company,
        id=[mail.id for mail in mails],
        created_at=[mail.at for mail in mails],
        recipient=[mail.to for mail in mails],
        letter=[mail.letter for mail in mails],
        sealed=[mail.sealed for mail in mails],
        status=[MailStatus.PENDING] * len(mails),
        attempts=[0] * len(mails),
        next_attempt_at=[mail.at for mail in mails],
        error=[""] * len(mails),
    )
