"""What must be true of a company's books, asked of the database itself."""

from dataclasses import dataclass
from typing import Any

import psycopg

_WITH = """
WITH told AS MATERIALIZED (
    SELECT action, entity_id, body::jsonb -> 'metadata' AS metadata FROM distribu.records
    WHERE company_id = %(company)s
), sent AS MATERIALIZED (
    SELECT id, name, payload::jsonb AS payload FROM distribu.outbox WHERE company_id = %(company)s
    UNION ALL
    SELECT id, name, payload::jsonb FROM distribu.feed WHERE company_id = %(company)s
)
"""

_ORDERS = """, of_lines AS (
    SELECT order_id, count(*) AS lines, sum(quantity) AS ordered, sum(quantity * unit_price) AS amount
    FROM distribu.order_lines WHERE company_id = %(company)s GROUP BY order_id
), of_stock AS (
    SELECT order_id, count(*) FILTER (WHERE reason = 'ORDERED') AS movements,
        -sum(quantity) FILTER (WHERE reason = 'ORDERED') AS taken,
        coalesce(sum(quantity) FILTER (WHERE reason = 'CANCELLED'), 0) AS returned
    FROM distribu.stock_movements WHERE company_id = %(company)s GROUP BY order_id
), of_log AS (
    SELECT coalesce(metadata ->> 'orderId', entity_id) AS order_id,
        array_agg((metadata ->> 'number')::int) FILTER (WHERE action = 'order.placed') AS placed,
        count(*) FILTER (WHERE action = 'customer.credit_taken') AS credit_records,
        count(*) FILTER (WHERE action = 'stock.ordered') AS stock_records
    FROM told GROUP BY 1
), of_feed AS (
    SELECT payload ->> 'id' AS order_id, array_agg((payload ->> 'number')::int) AS created
    FROM sent WHERE name = 'order.created' GROUP BY 1
)
SELECT id, number, po_number, status, lines, ordered, amount = subtotal, movements, taken, returned,
    placed, credit_records, stock_records, created
FROM distribu.orders LEFT JOIN of_lines ON of_lines.order_id = id LEFT JOIN of_stock ON of_stock.order_id = id
LEFT JOIN of_log ON of_log.order_id = id::text LEFT JOIN of_feed ON of_feed.order_id = id::text
WHERE company_id = %(company)s ORDER BY number
"""

_NOTHING = {
    "stock is the sum of its movements": """
        SELECT products.id, products.stock, coalesce(sum(moved.quantity), 0) FROM distribu.products
        LEFT JOIN distribu.stock_movements AS moved
            ON moved.company_id = products.company_id AND moved.product_id = products.id
        WHERE products.company_id = %(company)s GROUP BY products.company_id, products.id
        HAVING products.stock <> coalesce(sum(moved.quantity), 0)""",
    "credit used is what live orders owe": """
        SELECT customers.id, customers.credit_used, coalesce(sum(orders.total - orders.paid), 0)
        FROM distribu.customers LEFT JOIN distribu.orders
            ON orders.company_id = customers.company_id AND orders.customer_id = customers.id
            AND orders.status <> 'CANCELLED'
        WHERE customers.company_id = %(company)s GROUP BY customers.company_id, customers.id
        HAVING customers.credit_used <> coalesce(sum(orders.total - orders.paid), 0)""",
    "what was paid is the sum of the payments": """
        SELECT orders.id, orders.paid FROM distribu.orders LEFT JOIN distribu.payments
            ON payments.company_id = orders.company_id AND payments.order_id = orders.id
        WHERE orders.company_id = %(company)s GROUP BY orders.company_id, orders.id
        HAVING orders.paid <> coalesce(sum(payments.amount), 0)""",
    "numbers have no gap": """
        SELECT number FROM (SELECT number, 1000 + row_number() OVER (ORDER BY number) AS due
            FROM distribu.orders WHERE company_id = %(company)s) AS orders WHERE number <> due
        UNION ALL SELECT last FROM distribu.order_numbers WHERE company_id = %(company)s
            AND last <> 1000 + (SELECT count(*) FROM distribu.orders WHERE company_id = %(company)s)""",
    "every movement has its order": """
        SELECT moved.id FROM distribu.stock_movements AS moved LEFT JOIN distribu.orders
            ON orders.company_id = moved.company_id AND orders.id = moved.order_id
        WHERE moved.company_id = %(company)s AND moved.order_id IS NOT NULL AND orders.id IS NULL""",
    "every record of an order has its order": _WITH
    + """
        SELECT told.action, told.entity_id FROM told LEFT JOIN distribu.orders
            ON orders.company_id = %(company)s
            AND orders.id::text = coalesce(told.metadata ->> 'orderId', told.entity_id)
        WHERE (told.action LIKE 'order.%%' OR told.metadata ? 'orderId')
            AND told.metadata -> 'orderId' IS DISTINCT FROM 'null' AND orders.id IS NULL""",
    "every event of an order has its order": _WITH
    + """
        SELECT sent.id FROM sent LEFT JOIN distribu.orders
            ON orders.company_id = %(company)s AND orders.id::text = sent.payload ->> 'id'
        WHERE sent.name LIKE 'order.%%' AND orders.id IS NULL""",
    "every stored answer has its order": """
        SELECT answers.key FROM distribu.answers LEFT JOIN distribu.orders
            ON orders.company_id = answers.company_id
            AND orders.id::text = answers.body::jsonb -> 'data' ->> 'id'
            AND orders.number = (answers.body::jsonb -> 'data' ->> 'number')::int
        WHERE answers.company_id = %(company)s AND orders.id IS NULL""",
    "every movement is a record, and no other": """
        SELECT coalesce(moved.id, records.id) FROM
            (SELECT id FROM distribu.stock_movements WHERE company_id = %(company)s) AS moved
            FULL JOIN (SELECT id FROM distribu.records WHERE company_id = %(company)s
                AND action LIKE 'stock.%%') AS records USING (id)
        WHERE moved.id IS NULL OR records.id IS NULL""",
    "every record has its person": """
        SELECT records.id FROM distribu.records LEFT JOIN distribu.record_people AS person
            ON person.company_id = records.company_id AND person.id = records.person_id
        WHERE records.company_id = %(company)s AND person.id IS NULL""",
    "no event is there twice": _WITH + "SELECT id FROM sent GROUP BY id HAVING count(*) > 1",
    "positions have no gap": """
        SELECT position FROM (SELECT position, row_number() OVER (ORDER BY position) AS due
            FROM distribu.feed WHERE company_id = %(company)s) AS feed WHERE position <> due
        UNION ALL SELECT position FROM distribu.feed_heads WHERE company_id = %(company)s
            AND position <> (SELECT count(*) FROM distribu.feed WHERE company_id = %(company)s)""",
    "events of an order come in its order": """
        SELECT id FROM (
            SELECT id, position, payload::jsonb ->> 'updatedAt' AS at,
                lag(payload::jsonb ->> 'updatedAt') OVER one AS before
            FROM distribu.feed WHERE company_id = %(company)s AND name LIKE 'order.%%'
            WINDOW one AS (PARTITION BY payload::jsonb ->> 'id' ORDER BY position)
        ) AS feed WHERE at < before""",
}
"""What is so when there are no such rows."""


@dataclass(frozen=True, slots=True)
class BookedOrder:
    """An order, and how much there is of everything that belongs to it."""

    id: str
    number: int
    ref: str
    status: str
    lines: int
    ordered: int
    adds_up: bool
    movements: int
    taken: int
    returned: int
    placed: list[int]
    """The number in each record of its placement, and in each event of it in ``created``."""
    credit_records: int
    stock_records: int
    created: list[int]

    def whole(self) -> bool:
        """Whether all of it is there, once."""
        return (
            self.adds_up
            and self.movements == self.lines == self.stock_records
            and self.taken == self.ordered
            and self.returned == (self.ordered if self.status == "CANCELLED" else 0)
            and self.placed == self.created == [self.number]
            and self.credit_records == 1
        )


def check(database: "psycopg.Connection[Any]", company_id: str) -> list[BookedOrder]:
    """A company's orders by number, after asserting that its books are right and no order is half there."""
    given = {"company": company_id}
    for claim, query in _NOTHING.items():
        wrong = database.execute(query, given).fetchmany(5)
        assert not wrong, f"it is not so that {claim}: {wrong}"
    rows = database.execute(_WITH + _ORDERS, given).fetchall()
    orders = [BookedOrder(str(row[0]), *row[1:]) for row in rows]
    half = [order for order in orders if not order.whole()]
    assert not half, half[:5]
    return orders


def events(database: "psycopg.Connection[Any]", company_id: str, name: str | None = None) -> list[str]:
    """The ids of what was placed in the company's feed, by position, once nothing is left to place."""
    given = {"company": company_id, "name": name}
    left = "SELECT count(*) FROM distribu.outbox WHERE company_id = %(company)s"
    assert database.execute(left, given).fetchall() == [(0,)]
    query = """SELECT id FROM distribu.feed WHERE company_id = %(company)s
        AND name = coalesce(%(name)s, name) ORDER BY position"""
    return [str(id) for (id,) in database.execute(query, given)]


def count(database: "psycopg.Connection[Any]", query: str, *values: object) -> int:
    """The one number that a query answers."""
    row = database.execute(query, values).fetchone()
    assert row is not None
    return int(row[0])
