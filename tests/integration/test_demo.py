"""The demo company, and real invoices placed as orders: counted another way than the loader counts."""

import asyncio
import contextlib
import csv
import re
import sqlite3
import threading
from collections.abc import Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
import pytest

from distribu.domain.errors import Invalid
from distribu.entrypoints.demo import invoices
from tests.integration.program import Program

REAL = Path(__file__).parents[3] / "shared/data/online-retail-10k.csv"
REAL_LINES = 1_500
"""How much of the real file a test run takes; all of it takes a minute."""

HEAD = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
UNTIDY = f"""{HEAD}
100001,85123A,WHITE HEART ,6,2010-12-01T08:26,2.55,17850,United Kingdom
100001,85123a,white heart,2,2010-12-01T08:26,2.55,17850,United Kingdom
100001,71053,LANTERN,6,2010-12-01T08:26,3.39,17850,United Kingdom
100001,71053,LANTERN,1,2010-12-01T08:26,3.00,17850,United Kingdom
100002,85123A,WHITE HEART,1,2010-12-01T08:28,2.10,17851,France
100003,85123A,,3,2010-12-01T09:00,2.55,,United Kingdom
100003,22423 ,"CAKE STAND, 3 TIER",2,2010-12-01T09:00,10.95,,United Kingdom
100004,POST,POSTAGE,1,2010-12-01T09:01,18.00,17850,United Kingdom
100004,BANK CHARGES,Bank Charges,1,2010-12-01T09:01,15.00,,United Kingdom
100005,85123A,,-5,2010-12-01T09:02,2.55,,United Kingdom
100005,22423,damaged,1,2010-12-01T09:02,0.0,,United Kingdom
C100006,85123A,WHITE HEART,-1,2010-12-01T09:03,2.55,17850,United Kingdom
C100006,D,Discount,-1,2010-12-01T09:03,27.50,17850,United Kingdom
100007,71053,LANTERN,2,2010-12-01T09:04,2.555,17850,United Kingdom
100007,71053,LANTERN,two,2010-12-01T09:04,2.55,17850,United Kingdom
100007,71053,LANTERN,2,yesterday,2.55,17850,United Kingdom
100008,85123A,WHITE HEART,4,2010-12-02T10:00,2.55,17851,France
100009,85123A,WHITE HEART,1,2010-12-03T10:00,2.10,17851,France
100009,85123A,WHITE HEART,1,2010-12-03T10:00,2.55,17851,France
100010,22423,,1,2010-12-03T11:00,10.95,,United Kingdom
100010,90000,,1,2010-12-03T11:00,1,,United Kingdom
"""
UNTIDY_LEFT_OUT = {
    "charge": 2,
    "credit note": 2,
    "negative quantity": 1,
    "unreadable": 3,
    "zero price": 1,
}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    return Program(tmp_path_factory.mktemp("demo"))


class Door(NamedTuple):
    """A way in to a company: where, and with what."""

    program: Program
    slug: str
    url: str
    key: str

    def load(self, file: Path, url: str | None = None) -> dict[str, Any]:
        return self.program.json("demo", "--orders", str(file), "--url", url or self.url, "--key", self.key)

    def all(self, path: str) -> list[Any]:
        found: list[Any] = []
        params: dict[str, str] = {"limit": "100"}
        with httpx.Client(
            base_url=f"{self.url}/api/v1", headers={"authorization": f"Bearer {self.key}"}
        ) as api:
            while True:
                told = api.get(path, params=params).raise_for_status().json(parse_float=Decimal)
                found += told["data"]
                if not told["pagination"]["hasMore"]:
                    return found
                params["cursor"] = told["pagination"]["nextCursor"]

    def newest_record(self) -> str:
        return str(
            self.program.json("audit", "list", "--company", self.slug, "--limit", "1")["data"][0]["id"]
        )


@pytest.fixture(scope="module")
def url(program: Program) -> Iterator[str]:
    with program.serving("--no-worker") as server:
        yield server.url
        assert server.stop() == 0


@pytest.fixture
def door(program: Program, url: str, request: pytest.FixtureRequest) -> Door:
    """A company of this test's own."""
    slug = re.sub("[^a-z0-9]+", "-", request.node.name)[:60].strip("-")
    program.json("company", "create", "Importer", "--slug", slug)
    scopes = [f"{what}:{how}" for what in ("products", "customers", "orders") for how in ("read", "write")]
    words = [word for scope in scopes for word in ("--scope", scope)]
    made = program.json("api-key", "create", "--company", slug, "--name", "import", *words)
    return Door(program, slug, url, made["key"])


@pytest.fixture
def untidy(tmp_path: Path) -> Path:
    file = tmp_path / "untidy.csv"
    file.write_text(UNTIDY)
    return file


# the company


def test_the_demo_company_is_made_once(program: Program, url: str) -> None:
    first = program.json("demo")
    second = program.json("demo")
    assert first["key"] != second["key"]
    assert first["docs"] == "http://127.0.0.1:8000/api/v1/docs"
    door = Door(program, "demo", url, first["key"])  # the key of before is still good
    assert len(door.all("/products")) == 6
    assert len(door.all("/customers")) == 3
    assert {order["poNumber"]: order["status"] for order in door.all("/orders")} == {
        "PO-1": "CONFIRMED",
        "PO-2": "SUBMITTED",
    }
    assert all(customer["addresses"] for customer in door.all("/customers"))
    for _ in range(4):
        program.json("demo")
    last = program.json("demo")
    keys = program.json("api-key", "list", "--company", "demo")["data"]
    assert sum(key["revokedAt"] is None for key in keys) == 5
    assert f"Bearer {last['key']}" in last["order"]
    told = program.call("demo").out
    assert "curl -X POST http://127.0.0.1:8000/api/v1/orders" in told
    assert "Distribu is at" not in told, "nothing serves it yet"
    assert "The demo company is ready. To serve it at http://127.0.0.1:8000:" in told
    assert f"DISTRIBU_DATA_DIR={program.data} " in told
    assert " do ListProducts --company demo\n" in told


# the invoices


def test_commands_beside_the_demo_sell_as_it_does_when_they_are_told_to(tmp_path: Path) -> None:
    program = Program(tmp_path)
    with program.started("serve", "--demo", "--port", "0", "--no-worker") as server:
        assert server.told["stripe"] == server.url + "/_stripe"
        assert httpx.get(server.told["stripe"] + "/").status_code == 200
        alike = Program(tmp_path, DISTRIBU_STRIPE_STUB="true", DISTRIBU_PORT=str(urlsplit(server.url).port))
        for one, slug, wanted in (
            (program, "without", ("UNLIMITED", "UNLIMITED")),
            (alike, "alike", ("STARTER", "TRIALING")),
        ):
            one.json("company", "create", slug, "--slug", slug)
            shown = one.json("billing", "show", "--company", slug)
            assert (shown["plan"], shown["status"]) == wanted
        said = program.call("billing", "check")
        assert (said.code, "DISTRIBU_STRIPE_STUB=true" in said.out) == (0, True)
        prices = alike.json("billing", "check")["data"]
        assert [it["wrong"] for it in prices] == [""] * 6
        assert alike.json("billing", "sync") == {"data": []}
        assert server.stop() == 0
    away = alike.call("billing", "check")
    assert away.code == 3
    assert "Stripe was not reached" in away.err


def test_an_untidy_file_becomes_orders_once(door: Door, untidy: Path) -> None:
    first = door.load(untidy)
    assert first == {
        "orders": 8,
        "lines": 11,
        "units": 29,
        "revenue": 102.19,
        "leftOut": UNTIDY_LEFT_OUT,
        "alreadyThere": 0,
        "merged": 1,
    }
    emails = {customer["id"]: customer["email"].partition("@")[0] for customer in door.all("/customers")}
    orders = {
        order["poNumber"]: (
            emails[order["customerId"]],
            order["placedAt"][:16],
            {(item["productSku"], item["quantity"], str(item["unitPrice"])) for item in order["items"]},
        )
        for order in door.all("/orders")
    }
    assert orders == {
        "100001": ("customer-17850", "2010-12-01T08:26", {("85123A", 8, "2.55"), ("71053", 6, "3.39")}),
        "100001/2": ("customer-17850", "2010-12-01T08:26", {("71053", 1, "3.00")}),
        "100002": ("customer-17851", "2010-12-01T08:28", {("85123A", 1, "2.10")}),
        "100003": ("walk-in", "2010-12-01T09:00", {("85123A", 3, "2.55"), ("22423", 2, "10.95")}),
        "100008": ("customer-17851", "2010-12-02T10:00", {("85123A", 4, "2.55")}),
        "100009": ("customer-17851", "2010-12-03T10:00", {("85123A", 1, "2.10")}),
        "100009/2": ("customer-17851", "2010-12-03T10:00", {("85123A", 1, "2.55")}),
        "100010": ("walk-in", "2010-12-03T11:00", {("22423", 1, "10.95"), ("90000", 1, "1.00")}),
    }
    products = {product["sku"]: product for product in door.all("/products")}
    names = {sku: product["name"] for sku, product in products.items()}
    assert names == {
        "85123A": "WHITE HEART",
        "71053": "LANTERN",
        "22423": "CAKE STAND, 3 TIER",
        "90000": "90000",
    }
    movements = door.all(f"/products/{products['85123A']['id']}/stock-movements")
    assert (movements[-1]["reason"], movements[-1]["quantity"]) == ("RECEIVED", 18)
    assert {product["stock"] for product in products.values()} == {0}
    before = door.newest_record()
    second = door.load(untidy)
    assert second == {
        **first,
        **dict.fromkeys(("orders", "lines", "units", "revenue", "merged"), 0),
        "alreadyThere": 8,
    }
    assert door.newest_record() == before


def test_without_a_url_it_serves_itself(program: Program, url: str, untidy: Path) -> None:
    placed = program.json("demo", "--orders", str(untidy))
    assert (placed["orders"], placed["alreadyThere"]) == (8, 0)
    again = program.run("demo", "--orders", str(untidy))  # in a process of its own, for people
    assert (again.code, again.err) == (0, "")
    table = dict(re.findall(r"^(.*?) {2,}(\S+)$", again.out, re.MULTILINE))
    assert table["orders placed"] == "0"
    assert table["orders already there"] == "8"
    assert table["left out: credit note"] == "2"


def test_what_the_api_refuses_is_counted_and_placed_later(door: Door, tmp_path: Path) -> None:
    file = tmp_path / "blocked.csv"
    file.write_text(
        f"{HEAD}\n1,10001,A,2,2010-12-01T08:26,1.50,9,x\n1,10001,A,1,2010-12-01T08:26,1.50,9,x\n"
        "2,10001,A,1,2010-12-01T08:26,1.50,8,x\n"
    )
    email = "email=customer-9@online-retail.example"
    made = door.program.json("do", "CreateCustomer", email, "status=BLOCKED", "--company", door.slug)
    first = door.load(file)
    assert (first["orders"], first["leftOut"]) == (1, {"refused: customer_blocked": 2})
    edit = ("do", "EditCustomer", f"customerId={made['id']}", "status=ACTIVE", "--company", door.slug)
    door.program.json(*edit)
    second = door.load(file)
    assert (second["orders"], second["units"], second["alreadyThere"], second["leftOut"]) == (1, 3, 1, {})


def test_a_later_file_finds_what_is_there(door: Door, tmp_path: Path) -> None:
    file = tmp_path / "later.csv"
    file.write_text(f"{HEAD}\n1,10001a,A,2,2010-12-01T08:26,1.50,9,x\n")
    door.load(file)
    file.write_text(
        f"{HEAD}\n1,10001a,A,2,2010-12-01T08:26,1.50,9,x\n2,10001A,A,5,2010-12-02T08:26,1.75,9,x\n"
    )
    second = door.load(file)
    assert (second["orders"], second["units"], second["alreadyThere"]) == (1, 5, 1)
    assert second["revenue"] == 8.75
    (product,) = door.all("/products")
    reasons = [one["reason"] for one in door.all(f"/products/{product['id']}/stock-movements")]
    assert reasons == ["ORDERED", "RECEIVED", "ORDERED", "RECEIVED"]
    assert len(door.all("/customers")) == 1


def test_a_bad_connection_places_nothing_twice(door: Door, untidy: Path) -> None:
    with _stumbling(door.url) as (url, stumbles):
        placed = door.load(untidy, url)
    assert len(stumbles) > 5
    assert (placed["orders"], placed["units"], placed["alreadyThere"]) == (8, 29, 0)
    orders = [order["poNumber"] for order in door.all("/orders")]
    assert len(orders) == len(set(orders)) == 8
    assert {product["stock"] for product in door.all("/products")} == {0}


def test_a_door_that_does_not_open(program: Program, url: str, untidy: Path, tmp_path: Path) -> None:
    words = ("demo", "--orders", str(untidy), "--key", "dk_" + "x" * 43)
    code, told = program.refused(*words, "--url", url)
    assert (code, told["code"]) == (11, "unauthenticated")
    elsewhere = program.call(*words, "--url", f"{url}/elsewhere")
    assert elsewhere.code in (3, 14)
    slug = program.json("company", "create", "Reader")["slug"]
    key = program.json("api-key", "create", "--company", slug, "--name", "x", "--scope", "orders:read")["key"]
    code, told = program.refused("demo", "--orders", str(untidy), "--url", url, "--key", key)
    assert (code, told["code"]) == (13, "missing_scope")
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    code, told = program.refused("demo", "--orders", str(other), "--url", url, "--key", key)
    assert code == 10
    assert "InvoiceNo" in told["error"]


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "latin.csv"
    file.write_bytes(UNTIDY.replace("WHITE", "WH\u00cfTE").encode("latin-1"))
    with pytest.raises(Invalid, match="UTF-8"):
        invoices.read(file)
    file.write_bytes(b"\xef\xbb\xbf" + UNTIDY.replace("\n", "\r\n").encode())
    assert dict(invoices.read(file).left_out) == UNTIDY_LEFT_OUT


def test_an_invoice_of_more_lines_than_an_order_holds(tmp_path: Path) -> None:
    file = tmp_path / "long.csv"
    rows = (f"1,{10000 + n},A,1,2010-12-01T08:26,1,9,x" for n in range(2001))
    file.write_text("\n".join([HEAD, *rows]))
    plan = invoices.read(file)
    assert [(order.po_number, len(order.lines)) for order in plan.orders] == [
        ("1", 1000),
        ("1/2", 1000),
        ("1/3", 1),
    ]


def test_the_sums_are_those_of_the_file(door: Door, untidy: Path, tmp_path: Path) -> None:
    file = untidy
    if REAL.exists():
        file = tmp_path / "real.csv"
        with REAL.open(newline="") as real:
            file.write_text("".join(line for _, line in zip(range(REAL_LINES + 1), real, strict=False)))
    expected = Expected(file)
    placed = door.load(file)
    assert placed["orders"] == expected.one(
        "SELECT sum(parts) FROM (SELECT max(prices) AS parts FROM (SELECT invoice, customer,"
        " count(DISTINCT cents) AS prices FROM sold GROUP BY invoice, customer, sku)"
        " GROUP BY invoice, customer)"
    )
    assert placed["units"] == expected.one("SELECT sum(quantity) FROM sold")
    assert round(placed["revenue"] * 100) == expected.one("SELECT sum(quantity * cents) FROM sold")
    assert placed["lines"] == expected.one(
        "SELECT count(*) FROM (SELECT DISTINCT invoice, customer, sku, cents FROM sold)"
    )
    assert placed["lines"] + placed["merged"] == expected.one("SELECT count(*) FROM sold")
    assert placed["leftOut"] == dict(
        expected.all("SELECT fate, count(*) FROM lines WHERE fate <> '' GROUP BY fate")
    )
    # and line by line, as the API has them now
    emails = {one["id"]: one["email"].partition("@")[0] for one in door.all("/customers")}
    found = {
        (order["poNumber"].partition("/")[0], emails[order["customerId"]], item["productSku"].lower(),
         int(item["unitPrice"] * 100), item["quantity"])
        for order in door.all("/orders") for item in order["items"]
    }  # fmt: skip
    assert found == set(
        expected.all("SELECT invoice, customer, sku, cents, sum(quantity) FROM sold GROUP BY 1, 2, 3, 4")
    )
    assert {product["stock"] for product in door.all("/products")} == {0}
    expected.db.close()


class _Hurried(BaseHTTPRequestHandler):
    """A server that lets no more than every third request through."""

    asked = 0

    def do_GET(self) -> None:
        _Hurried.asked += 1
        status = 200 if _Hurried.asked % 3 == 0 else 429
        body = b'{"data":[],"pagination":{"hasMore":false,"nextCursor":null}}'
        self.send_response(status)
        self.send_header("retry-after", "0")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: the tests' output is not its place."""


async def test_whoever_waits_for_the_rate_limit_is_told_why_once(capsys: pytest.CaptureFixture[str]) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Hurried) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            async with invoices._Api(f"http://127.0.0.1:{server.server_port}", "dk_x") as api:
                assert await api.pages("/products") == await api.pages("/customers") == []
        finally:
            await asyncio.to_thread(server.shutdown)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "DISTRIBU_API_LIMIT_PER_KEY" in said.err
    assert "DISTRIBU_API_LIMIT_PER_IP" in said.err


class Expected:
    """What a file should become, reckoned by SQL and by no code of the loader's."""

    def __init__(self, file: Path) -> None:
        self.db = sqlite3.connect(":memory:")
        self.db.execute("CREATE TABLE file (invoice, code, quantity, at, price, customer)")
        with file.open(newline="") as text:
            rows = [
                [
                    one[name].strip()
                    for name in ("InvoiceNo", "StockCode", "Quantity", "InvoiceDate", "UnitPrice")
                ]
                + [one["CustomerID"].strip()]
                for one in csv.DictReader(text)
            ]
        self.db.executemany("INSERT INTO file VALUES (?, ?, ?, ?, ?, ?)", rows)
        self.db.executescript(
            """
            CREATE TABLE lines AS
            SELECT invoice, lower(code) AS sku, CAST(quantity AS INTEGER) AS quantity,
                   CAST(round(price * 100) AS INTEGER) AS cents,
                   CASE customer WHEN '' THEN 'walk-in' ELSE 'customer-' || customer END AS customer,
                   CASE WHEN invoice LIKE 'C%' THEN 'credit note'
                        WHEN code NOT GLOB '[0-9][0-9][0-9][0-9][0-9]*' THEN 'charge'
                        WHEN CAST(quantity AS INTEGER) || '' <> quantity THEN 'unreadable'
                        WHEN datetime(at) IS NULL THEN 'unreadable'
                        WHEN CAST(quantity AS INTEGER) <= 0 THEN 'negative quantity'
                        WHEN price <= 0.0 THEN 'zero price'
                        WHEN abs(price * 100 - round(price * 100)) > 0.0001 THEN 'unreadable'
                        ELSE '' END AS fate
            FROM (SELECT invoice, code, quantity, at, CAST(price AS REAL) AS price, customer FROM file);
            CREATE VIEW sold AS SELECT * FROM lines WHERE fate = '';
            """
        )

    def all(self, query: str) -> list[Any]:
        return self.db.execute(query).fetchall()

    def one(self, query: str) -> Any:
        return self.all(query)[0][0]


@contextlib.contextmanager
def _stumbling(url: str) -> Iterator[tuple[str, list[str]]]:
    """A way to a server on which answers get lost: dropped, or a 503 in their place."""
    stumbles: list[str] = []
    answers = 0

    async def carry(here: asyncio.StreamReader, there: asyncio.StreamWriter, answering: bool) -> None:
        nonlocal answers
        while data := await here.read(1 << 20):
            if answering and data.startswith(b"HTTP/1.1"):
                answers += 1
                if answers % 5 == 0:
                    stumbles.append("dropped")
                    break
                if answers % 7 == 0:
                    stumbles.append("busy")
                    body = b'{"error":"Busy.","code":"busy"}'
                    there.write(b"HTTP/1.1 503 Busy\r\nretry-after: 0\r\nconnection: close\r\n"
                                b"content-length: %d\r\n\r\n%s" % (len(body), body))  # fmt: skip
                    break
            there.write(data)
            await there.drain()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to = urlsplit(url)
        server_reader, server_writer = await asyncio.open_connection(to.hostname, to.port)
        ways = [
            asyncio.create_task(carry(reader, server_writer, False)),
            asyncio.create_task(carry(server_reader, writer, True)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for end in (writer, server_writer):
                end.close()
                with contextlib.suppress(OSError):
                    await end.wait_closed()

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(meet, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", stumbles
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left))
        loop.close()
