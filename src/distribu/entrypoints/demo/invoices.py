"""Real invoices, placed as orders through the public API.

The file is CSV with the columns InvoiceNo, StockCode, Description, Quantity, InvoiceDate, UnitPrice,
CustomerID and Country, as the Online Retail data set has them. What each of its untidy parts becomes:

==============================================  =========================================================
an invoice                                      one order; its number is the PO number and the idempotency
                                                key, its date (UTC) the date of placement
an invoice already there by its PO number       nothing
a second price for a product in an invoice      a second order, ``536544/2``, and so on: as many as the
                                                product has prices; more than 1,000 lines likewise
lines of one product and price in an invoice    one line with the sum of the quantities
stock codes alike ignoring case                 one product, made on first sight, with its first price;
                                                named by its first description, else by its code
a customer number                               a customer, made on first sight
no customer number                              the one walk-in customer
what all orders of a product will take          its opening stock, or a receipt of what is short of it,
                                                moved in before the first order
a price that is not the product's               a price override for the customer, set just before the
                                                order; removed when the product's own price is back
a credit note (number beginning with C)         left out: ``credit note``
a stock code that is no product (not five       left out: ``charge`` (postage, bank charges, discounts,
digits first: POST, DOT, M, D, C2 ...)          samples, manual lines)
a quantity of zero or less                      left out: ``negative quantity``
a price of zero or less                         left out: ``zero price``
a line that cannot be read at all               left out: ``unreadable`` (a price finer than a cent too)
an order the API refuses                        left out: ``refused: <code>``
==============================================  =========================================================

What is left out is counted in lines of the file, each under the first reason that holds, in the order
of the table. Running it again places what is not there yet, and so nothing when all of it is.
"""

import asyncio
import csv
import secrets
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from re import compile as compiled
from typing import Any, Final, TypeVar

import click
import httpx
import msgspec
from rich.progress import Progress

from distribu.application import views
from distribu.application.fields import decimal_of
from distribu.domain.errors import (
    CODES,
    Busy,
    Forbidden,
    Invalid,
    NotFound,
    RateLimited,
    Refused,
    Unauthenticated,
)
from distribu.domain.ordering import LINES_MAX
from distribu.entrypoints.http.wire import STATUS

T = TypeVar("T")

COLUMNS: Final = (
    "InvoiceNo",
    "StockCode",
    "Description",
    "Quantity",
    "InvoiceDate",
    "UnitPrice",
    "CustomerID",
)
WALK_IN: Final = ""
"""The customer number of lines that have none."""

AT_ONCE: Final = 8
"""Customers whose orders are placed together; those of one customer go one after the other."""

TRIES: Final = 5
"""How often a request is sent when the connection breaks."""

WAITS: Final = 200
"""How often a request waits as long as the API asks it to (429 and 503), at most a minute each."""

_SLOWED: Final = (
    "The API's rate limit slows this down. Its server can raise DISTRIBU_API_LIMIT_PER_KEY and "
    "DISTRIBU_API_LIMIT_PER_IP, or switch them off with 0."
)

_PRODUCT: Final = compiled(r"^\d{5}")


# what the file says


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the file that is to be ordered. ``code`` is the stock code as written."""

    invoice: str
    code: str
    description: str
    quantity: int
    price: Decimal
    at: datetime
    customer: str

    @property
    def product(self) -> str:
        """What makes stock codes one product."""
        return self.code.casefold()


@dataclass(slots=True)
class Planned:
    """An order to be: for each product how many, at which price. ``rows`` counts lines of the file."""

    po_number: str
    customer: str
    placed_at: datetime
    lines: dict[str, tuple[int, Decimal]] = field(default_factory=dict)
    rows: int = 0


@dataclass(slots=True)
class Plan:
    """What a file becomes: orders in its order, the first row of each product, what is left out."""

    orders: list[Planned] = field(default_factory=list)
    products: dict[str, Row] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)


def read(file: Path) -> Plan:
    """Read a file. Raises `Invalid` when it is not of the form above."""
    plan = Plan()
    invoices: dict[tuple[str, str], list[Row]] = {}
    for cells in _cells(file):
        row = _row(cells)
        if isinstance(row, str):
            plan.left_out[row] += 1
        else:
            plan.products.setdefault(row.product, row)
            invoices.setdefault((row.invoice, row.customer), []).append(row)
    parts: Counter[str] = Counter()
    for (invoice, customer), rows in invoices.items():
        for order in _orders(customer, rows):
            parts[invoice] += 1
            order.po_number = invoice if parts[invoice] == 1 else f"{invoice}/{parts[invoice]}"
            plan.orders.append(order)
    return plan


def _cells(file: Path) -> Iterator[dict[str, str]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            table = csv.DictReader(text, restval="")
            if missing := [name for name in COLUMNS if name not in (table.fieldnames or ())]:
                raise Invalid("invalid_request", f"{file} has no column {', '.join(missing)}.")
            for cells in table:
                yield {name: cells[name].strip() for name in COLUMNS}
    except (UnicodeDecodeError, csv.Error) as error:
        raise Invalid("invalid_request", f"{file} is no CSV in UTF-8: {error}.") from None


def _row(cells: dict[str, str]) -> Row | str:
    """A line to be ordered, or the reason why it is none."""
    if cells["InvoiceNo"][:1] in ("C", "c"):
        return "credit note"
    if not _PRODUCT.match(cells["StockCode"]):
        return "charge"
    try:
        row = Row(
            invoice=cells["InvoiceNo"],
            code=cells["StockCode"],
            description=cells["Description"],
            quantity=int(cells["Quantity"]),
            price=Decimal(cells["UnitPrice"]),
            at=datetime.fromisoformat(cells["InvoiceDate"]),
            customer=cells["CustomerID"] or WALK_IN,
        )
    except (ValueError, InvalidOperation):
        return "unreadable"
    if row.quantity <= 0:
        return "negative quantity"
    if row.price <= 0:
        return "zero price"
    if not row.invoice or not row.price.is_finite() or row.price != round(row.price, 2):
        return "unreadable"
    return row


def _orders(customer: str, rows: list[Row]) -> list[Planned]:
    """The fewest orders that hold these rows with one price for a product each."""
    orders: list[Planned] = []
    merged: dict[tuple[str, Decimal], list[Row]] = {}
    for row in rows:
        merged.setdefault((row.product, row.price), []).append(row)
    for (product, price), alike in merged.items():
        fits = (one for one in orders if product not in one.lines and len(one.lines) < LINES_MAX)
        order = next(fits, None)
        if order is None:
            at = rows[0].at
            order = Planned("", customer, at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC))
            orders.append(order)
        order.lines[product] = (sum(row.quantity for row in alike), price)
        order.rows += len(alike)
    return orders


# what the API makes of it


class Loaded(views.View, frozen=True, kw_only=True):
    """What a run placed, as the API answered it, and what it left out, in lines of the file.

    ``merged`` is how many lines of the file went into another line of the same order.
    """

    orders: int
    lines: int
    units: int
    revenue: views.Price
    left_out: dict[str, int]
    already_there: int
    merged: int


@dataclass(slots=True)
class _Known:
    """A product or a customer as the API has it, in so far as it matters here."""

    id: str
    price: Decimal = Decimal(0)
    stock: int = 0
    new: bool = False


async def load(url: str, key: str, plan: Plan, progress: Progress) -> Loaded:
    """Place what is not there yet at the API of ``url``. Raises `Refused`, or `ConnectionError`."""
    async with _Api(url, key) as api:
        await api.send("GET", "/me")
        there = {order["poNumber"] for order in await api.pages("/orders")}
        wanted = [order for order in plan.orders if order.po_number not in there]
        loading = _Loading(api, plan, progress, already_there=len(plan.orders) - len(wanted))
        if wanted:
            await loading.place(wanted)
        return loading.result()


class _Loading:
    def __init__(self, api: "_Api", plan: Plan, progress: Progress, *, already_there: int) -> None:
        self.api = api
        self.plan = plan
        self.progress = progress
        self.already_there = already_there
        self.left_out = plan.left_out.copy()
        self.products: dict[str, _Known] = {}
        self.customers: dict[str, _Known] = {}
        self.orders = self.lines = self.units = self.merged = 0
        self.revenue = Decimal("0.00")

    def result(self) -> Loaded:
        return Loaded(
            orders=self.orders,
            lines=self.lines,
            units=self.units,
            revenue=self.revenue,
            left_out=dict(sorted(self.left_out.items())),
            already_there=self.already_there,
            merged=self.merged,
        )

    async def place(self, wanted: list[Planned]) -> None:
        needed: Counter[str] = Counter()
        by_customer: dict[str, list[Planned]] = defaultdict(list)
        for order in wanted:
            by_customer[order.customer].append(order)
            for product, (quantity, _) in order.lines.items():
                needed[product] += quantity
        for one in await self.api.pages("/products"):
            if one["sku"]:
                known = _Known(one["id"], Decimal(one["price"]), one["stock"])
                self.products[one["sku"].casefold()] = known
        emails = {one["email"]: one["id"] for one in await self.api.pages("/customers")}
        self.customers = {who: _Known(emails[_email(who)]) for who in by_customer if _email(who) in emails}
        await self._each("Products", list(needed.items()), lambda one: self._shelve(*one))
        # The longest first: one customer's orders wait for each other.
        chains = sorted(by_customer.items(), key=lambda one: -sum(len(order.lines) for order in one[1]))
        with_lines = sum(len(order.lines) for order in wanted)
        task = self.progress.add_task("Orders", total=with_lines)
        await _bounded(chains, lambda one: self._chain(*one, lambda done: self.progress.advance(task, done)))

    async def _each(self, title: str, items: list[T], work: Callable[[T], Awaitable[None]]) -> None:
        task = self.progress.add_task(title, total=len(items))

        async def one(item: T) -> None:
            await work(item)
            self.progress.advance(task)

        await _bounded(items, one)

    async def _shelve(self, product: str, needed: int) -> None:
        """Have at least ``needed`` of a product on the shelf."""
        first, there = self.plan.products[product], self.products.get(product)
        if there is None:
            name = first.description[:200] or first.code
            new = {"sku": first.code, "name": name, "price": first.price, "stock": needed}
            made, _ = await self.api.send("POST", "/products", new)
            self.products[product] = _Known(made["id"], first.price, needed)
        elif there.stock < needed:
            receipt = {"quantity": needed - there.stock, "reason": "RECEIVED", "note": "opening stock"}
            await self.api.send("POST", f"/products/{there.id}/stock-movements", receipt)

    async def _chain(self, who: str, orders: list[Planned], done: Callable[[int], None]) -> None:
        """All orders of one customer, in the order of the file."""
        customer = self.customers.get(who)
        prices: dict[str, Decimal] = {}
        if customer is None:
            name = f"Customer {who}" if who else "Walk-in"
            made, _ = await self.api.send("POST", "/customers", {"email": _email(who), "name": name})
            customer = _Known(made["id"])
        else:
            overrides = await self.api.pages(f"/customers/{customer.id}/price-overrides")
            prices = {one["productId"]: Decimal(one["price"]) for one in overrides}
        for order in orders:
            for product, (_, price) in order.lines.items():
                await self._reprice(customer, self.products[product], price, prices)
            await self._order(customer, order)
            done(len(order.lines))

    async def _reprice(
        self, customer: _Known, product: _Known, price: Decimal, prices: dict[str, Decimal]
    ) -> None:
        """Have ``price`` be what the customer pays for the product now."""
        if prices.get(product.id, product.price) == price:
            return
        path = f"/customers/{customer.id}/price-overrides/{product.id}"
        if price == product.price:
            with suppress(NotFound):  # the answer to the first try was lost
                await self.api.send("DELETE", path)
            del prices[product.id]
        else:
            await self.api.send("PUT", path, {"price": price})
            prices[product.id] = price

    async def _order(self, customer: _Known, order: Planned) -> None:
        items = [
            {"productId": self.products[product].id, "quantity": quantity}
            for product, (quantity, _) in order.lines.items()
        ]
        body = {
            "customerId": customer.id,
            "items": items,
            "poNumber": order.po_number,
            "placedAt": views.time(order.placed_at),
        }
        try:
            placed, earlier = await self.api.send("POST", "/orders", body, once=order.po_number)
        except Refused as refused:
            if isinstance(refused, Busy | RateLimited | Unauthenticated | Forbidden):
                raise  # not about this order
            self.left_out[f"refused: {refused.code}"] += order.rows
            return
        if earlier:
            self.already_there += 1
            return
        self.orders += 1
        self.lines += len(placed["items"])
        self.units += sum(item["quantity"] for item in placed["items"])
        self.revenue += Decimal(placed["subtotal"])
        self.merged += order.rows - len(placed["items"])


def _email(who: str) -> str:
    return f"customer-{who.lower()}@online-retail.example" if who else "walk-in@online-retail.example"


async def _bounded(items: Iterable[T], work: Callable[[T], Awaitable[None]]) -> None:
    """Do the work for all items, `AT_ONCE` of them at once; the first failure ends it all."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(item: T) -> None:
        async with gate:
            await work(item)

    tasks = [asyncio.create_task(one(item)) for item in items]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


class _Api:
    """The public API, with the patience it asks for."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url.rstrip("/")
        self.run = secrets.token_hex(8)
        self.http = httpx.AsyncClient(
            base_url=f"{self.url}/api/v1",
            headers={"authorization": f"Bearer {key}", "content-type": "application/json"},
            timeout=60,
            limits=httpx.Limits(max_connections=AT_ONCE),
        )
        self.decode = msgspec.json.Decoder(float_hook=decimal_of).decode
        self.sent = 0
        self.slowed = False

    async def __aenter__(self) -> "_Api":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    async def pages(self, path: str) -> list[Any]:
        """Every item of a list."""
        items: list[Any] = []
        cursor = ""
        while True:
            answer = await self._answer("GET", f"{path}?limit=100{cursor}", b"", {})
            told = self.decode(answer.content)
            items += told["data"]
            if not told["pagination"]["hasMore"]:
                return items
            cursor = f"&cursor={told['pagination']['nextCursor']}"

    async def send(self, method: str, path: str, body: Any = None, *, once: str = "") -> tuple[Any, bool]:
        """The ``data`` of an answer, and whether it is that of an earlier run. Raises `Refused`.

        Every POST has an idempotency key, by default one of this run, so that it can be sent again.
        """
        self.sent += 1
        headers = {"idempotency-key": once or f"{self.run}-{self.sent}"} if method == "POST" else {}
        text = b"" if body is None else views.encode(body)
        answer = await self._answer(method, path, text, headers)
        data = self.decode(answer.content)["data"] if answer.content else None
        first_try = answer.extensions["tries"] == 1
        return data, first_try and answer.headers.get("idempotent-replayed") == "true"

    async def _answer(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> httpx.Response:
        broken = waits = 0
        while True:
            try:
                answer = await self.http.request(method, path, content=body, headers=headers)
            except httpx.TransportError as error:
                broken += 1
                if broken == TRIES:
                    raise ConnectionError(f"{self.url} cannot be reached: {error}") from None
                await asyncio.sleep(0.2 * 2**broken)
                continue
            if answer.is_success:
                answer.extensions["tries"] = 1 + broken + waits
                return answer
            waits += 1
            if answer.status_code not in (429, 503) or waits == WAITS:
                raise _refusal(self.url, answer)
            if answer.status_code == 429 and not self.slowed:
                self.slowed = True
                click.echo(_SLOWED, err=True)
            asked = answer.headers.get("retry-after", "")
            await asyncio.sleep(min(int(asked) if asked.isdigit() else 1, 60))


def _refusal(url: str, answer: httpx.Response) -> Exception:
    """What an answer says no with, as the refusal it was on the other side."""
    try:
        told = answer.json()
        code, message, fields = told["code"], str(told["error"]), told.get("fields")
    except (ValueError, KeyError, TypeError):
        return ConnectionError(f"{url} is no API of Distribu: it answered {answer.status_code}")
    if code not in CODES:
        return ConnectionError(f"{url} answered {answer.status_code}: {message}")
    kinds = {status: kind for kind, status in STATUS.items()}
    return kinds.get(answer.status_code, Refused)(code, message, fields=fields)
