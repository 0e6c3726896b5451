"""A company to measure on, and the statements that one order sends."""

import json
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from re import compile as compiled
from typing import Any, cast
from unittest.mock import patch

import psycopg
import sqlalchemy as sa

from distribu import Settings, Shop
from distribu.adapters.postgres import embedded, schema
from distribu.adapters.postgres.driver import Call, Line, Row
from distribu.adapters.postgres.store import PostgresStore
from distribu.container import running

PRODUCTS, CUSTOMERS, OVERRIDES = 2_000, 200, 5
STOCK = 10**9
_UUID = compiled(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

Message = list[Call]


@dataclass(frozen=True, slots=True)
class Cost:
    """What one request sends to the database."""

    round_trips: int
    statements: int


@dataclass(frozen=True, slots=True)
class Shelf:
    """A stocked company; ``bodies`` are orders of two lines, ``order`` is what one of them sends."""

    company: str
    key: str
    bodies: Sequence[str]
    costs: dict[str, Cost]
    order: Sequence[Message]


async def stocked(settings: Settings) -> Shelf:
    """Make a company with 2,000 products, 200 customers and 1,000 prices, and count what requests send."""
    async with running(settings) as distribu:
        shop = await Shop.open(distribu)
        await shop.product(sku="OAT-25", category="Flour", description="Wholemeal. " * 8, stock=STOCK)
        await shop.customer(
            name="Corner Shop", addresses=(address(),), tax_rate_override=None, payment_terms_days=30
        )
        products, customers = _multiplied(settings, shop.company.id)
        bodies = [_body(random.choice(customers), random.sample(products, 2)) for _ in range(2_000)]
        key = await shop.key()
        store = cast(PostgresStore, distribu.ports.store)
        costs: dict[str, Cost] = {}
        async with await shop.api() as api:

            async def count(what: str, method: str, path: str, status: int, **more: Any) -> None:
                trips, statements = store.round_trips, store.statements
                answer = await api.request(method, path, **more)
                if answer.status_code != status:
                    raise SystemExit(f"{method} {path}: {answer.status_code} {answer.text}")
                costs[what] = Cost(store.round_trips - trips, store.statements - statements)

            json_body = {"content-type": "application/json"}
            await count("me", "GET", "/me", 200)
            await count("page", "GET", "/products?limit=50", 200)
            keyed = json_body | {"idempotency-key": "counted"}
            await count("keyed", "POST", "/orders", 201, content=bodies[0], headers=keyed)
            with captured() as messages:
                await count("order", "POST", "/orders", 201, content=bodies[1], headers=json_body)
        return Shelf(shop.company.id, key, bodies, costs, messages)


def address() -> Any:
    from distribu.application.customers import NewAddress

    return NewAddress(name="Shop", line1="12 High Street", city="Leeds", country="GB", is_default=True)


def _body(customer: str, products: Sequence[str]) -> str:
    items = [{"productId": id, "quantity": random.randint(1, 9)} for id in products]
    return json.dumps({"customerId": customer, "items": items, "poNumber": "PO-7741"})


def _multiplied(settings: Settings, company: str) -> tuple[list[str], list[str]]:
    """Copies of the one product and the one customer; through the use cases it would take a minute."""
    with psycopg.connect(settings.database_url or "") as app:
        app.execute("SELECT set_config('app.company_id', %s, true)", [company])
        sku = "'OAT-' || n"
        _copies(app, schema.products, PRODUCTS - 1, sku=sku, sku_key=sku, name="'Oat Flour ' || n")
        _copies(app, schema.customers, CUSTOMERS - 1, email="'buyer-' || n || '@example.test'")
        app.execute(
            "INSERT INTO distribu.price_overrides SELECT c.company_id, uuidv7(), 1, c.created_at,"
            " c.created_at, c.id, p.id, 9.5 FROM distribu.customers c,"
            f" (SELECT id FROM distribu.products ORDER BY random() LIMIT {OVERRIDES}) p"
        )
        products = app.execute("SELECT id::text FROM distribu.products").fetchall()
        customers = app.execute("SELECT id::text FROM distribu.customers").fetchall()
    with psycopg.connect(settings.owner_database_url or "", autocommit=True) as owner:
        owner.execute("ANALYZE")
    return [row[0] for row in products], [row[0] for row in customers]


def _copies(app: "psycopg.Connection[Any]", table: sa.Table, count: int, **instead: str) -> None:
    instead["id"] = "uuidv7()"
    names = table.c.keys()
    cells = ", ".join(instead.get(name, name) for name in names)
    app.execute(
        f"INSERT INTO {table} ({', '.join(names)})"
        f" SELECT {cells} FROM {table}, generate_series(1, {count}) AS n"
    )


@contextmanager
def captured() -> Iterator[list[Message]]:
    """The messages that are sent meanwhile."""
    messages: list[Message] = []
    send = Line.send

    async def noted(line: Line, calls: Sequence[Call]) -> list[list[Row]]:
        messages.append(list(calls))
        return await send(line, calls)

    with patch.object(Line, "send", noted):
        yield messages


# the same statements by pgbench


def pgbench(settings: Settings, order: Sequence[Message], seconds: int) -> float | None:
    """Run an order's statements on one connection; returns orders per second, None without pgbench."""
    own = embedded._install() / "bin/pgbench"
    program = str(own) if own.exists() else shutil.which("pgbench")
    if program is None:
        return None
    script, variables = _script(order, _types(settings, order))
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(script)
        file.flush()
        given = [part for name, value in variables.items() for part in ("-D", f"{name}={value}")]
        arguments = ["-n", "-M", "prepared", "-T", str(seconds), "-f", file.name, *given]
        done = subprocess.run(
            [program, *arguments, settings.database_url or ""],
            capture_output=True,
            text=True,
            check=False,
        )
    found = compiled(r"tps = ([\d.]+)").search(done.stdout)
    if done.returncode or found is None:
        raise SystemExit(f"pgbench failed:\n{done.stderr[-2000:]}")
    return float(found[1])


def _types(settings: Settings, order: Sequence[Message]) -> dict[bytes, list[str]]:
    """The types of each statement's parameters, which pgbench has to be told where one stands twice."""
    types: dict[bytes, list[str]] = {}
    with psycopg.connect(settings.database_url or "") as app:
        for statement in {statement for message in order for statement, _ in message}:
            app.pgconn.prepare(statement.name, statement.sql)
            told = app.pgconn.describe_prepared(statement.name)
            oids = [told.param_type(place) for place in range(told.nparams)]
            named = app.execute("SELECT array_agg(oid::regtype::text) FROM unnest(%s::oid[]) AS oid", [oids])
            types[statement.name] = (named.fetchone() or ([],))[0] or []
    return types


def _script(order: Sequence[Message], types: Mapping[bytes, Sequence[str]]) -> tuple[str, dict[str, str]]:
    """An order's messages as a pgbench script, and the values of its variables.

    Ids that the order made are counted up from ``n``. Versions stay as they are: each UPDATE sets the
    version that it asks for, so that it can be repeated.
    """
    known = set(_UUID.findall(" ".join(_text(value) for call in _reads(order) for value in call[1])))
    fresh: dict[str, int] = {}
    variables = {"n": "0"}
    lines = ["\\set n :n + 100"]
    for m, message in enumerate(order):
        lines.append("\\startpipeline")
        for s, (statement, values) in enumerate(message):
            given = dict(zip(statement.names, values, strict=True))
            if "base" in given:
                given["base"] = given["version"]
            sql = statement.sql.decode()
            for place, name in reversed(list(enumerate(statement.names, 1))):
                variable, text = f"m{m}s{s}p{place}", _text(given[name])
                own = [id for id in _UUID.findall(text) if id not in known]
                if not text:  # pgbench has no variable for nothing
                    cell = "NULL" if given[name] is None else "''"
                elif own and len(_UUID.sub("", text)) < len(text) / 4:  # ids, not a document with an id in it
                    cell = f"({_counted(text, fresh)})::{types[statement.name][place - 1]}"
                else:
                    cell = f":{variable}::{types[statement.name][place - 1]}"
                    variables[variable] = text
                sql = sql.replace(f"${place}", cell)
            lines.append(" ".join(sql.split()) + ";")
        lines.append("\\endpipeline")
    return "\n".join([*lines, ""]), variables


def _reads(order: Sequence[Message]) -> Iterator[Call]:
    """All but the message that writes."""
    for message in order[:-1]:
        yield from message


def _counted(text: str, fresh: dict[str, int]) -> str:
    """SQL for the same text with ids of this repetition in the place of the old ones."""
    parts, end = [], 0
    for found in _UUID.finditer(text):
        id = fresh.setdefault(found[0], len(fresh))
        parts += [f"'{text[end : found.start()]}'", f"lpad((:n::bigint + {id})::text, 32, '0')"]
        end = found.end()
    return " || ".join([*parts, f"'{text[end:]}'"])


def _text(value: bytes | None) -> str:
    return "" if value is None else value.decode()
