"""The real program: every command, what it prints, how it ends, and what survives."""

import json
import re
import shlex
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import uuid4

import httpx
import pytest
from cryptography.fernet import Fernet

from tests.integration.program import WAIT_S, Program

NOBODY = "0195b2f0-7c1e-7d3a-8f00-5a1c2e9b4d10"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """On a data directory whose database keeps running meanwhile: a server uses it."""
    program = Program(tmp_path_factory.mktemp("cli"))
    with program.serving("--no-worker") as server:
        yield program
        assert server.stop() == 0
    assert program.postgres() is None


@pytest.fixture(scope="module")
def acme(program: Program) -> str:
    """The slug of a company."""
    return str(program.json("company", "create", "Acme Distributors")["slug"])


def unique(program: Program) -> str:
    slug = f"c-{uuid4()}"
    program.json("company", "create", "Another", "--slug", slug)
    return slug


# companies, keys, webhooks, audit


def test_a_company_has_a_slug_of_its_name(program: Program, acme: str) -> None:
    assert acme == "acme-distributors"
    code, told = program.refused("company", "create", "Acme Distributors")
    assert (code, told["code"]) == (15, "duplicate_slug")
    other = program.json("company", "create", "Other", "--slug", "other-one", "--currency", "EUR")
    assert (other["slug"], other["name"], other["currency"]) == ("other-one", "Other", "EUR")
    code, told = program.refused("company", "create", "Third", "--currency", "ZZZ")
    assert (code, told["fields"]) == (10, {"currency": "is not an ISO 4217 code"})


def test_a_key_is_shown_once_opens_the_door_and_ends(program: Program, acme: str) -> None:
    made = program.json(
        *("api-key", "create", "--company", acme, "--name", "ERP", "--expires", "2999-01-31"),
        *("--scope", "products:read", "--scope", "orders:write"),
    )
    assert made["scopes"] == ["products:read", "orders:write"]
    assert made["expiresAt"] == "2999-01-31T00:00:00.000Z"
    assert len(made["key"]) == 46
    assert made["key"].startswith("dk_")
    listed = program.call("api-key", "list", "--company", acme).out
    assert made["id"] in listed
    assert made["key"] not in listed
    page = program.json("api-key", "list", "--company", acme, "--limit", "1")
    assert page["pagination"] == {"hasMore": False, "nextCursor": None}
    assert [one["id"] for one in page["data"]] == [made["id"]]
    assert "key" not in page["data"][0]
    with program.serving("--no-worker") as other:  # a second server on the same directory
        client = httpx.Client(base_url=other.url, headers={"authorization": f"Bearer {made['key']}"})
        with client:
            assert client.get("/api/v1/products").status_code == 200
            assert program.json("api-key", "revoke", made["id"], "--company", acme)["revokedAt"]
            assert client.get("/api/v1/products").status_code == 401
        assert other.stop() == 0
    code, told = program.refused("api-key", "revoke", made["id"], "--company", acme)
    assert (code, told["code"]) == (17, "already_revoked")
    code, told = program.refused("api-key", "revoke", NOBODY, "--company", acme)
    assert (code, told["code"]) == (14, "api_key_not_found")


def test_a_key_of_another_company_cannot_be_revoked_from_here(program: Program, acme: str) -> None:
    made = program.json("api-key", "create", "--company", acme, "--name", "x", "--scope", "products:read")
    code, told = program.refused("api-key", "revoke", made["id"], "--company", unique(program))
    assert (code, told["code"]) == (14, "api_key_not_found")


def test_webhooks_are_listed_tested_replayed_and_switched_on(program: Program, acme: str) -> None:
    made = program.json("webhook", "add", "http://127.0.0.1:9/gone", "--company", acme)
    at = ("--company", acme)
    assert made["id"] in [it["id"] for it in program.json("webhook", "list", *at)["data"]]
    assert program.json("webhook", "test", made["id"], *at)["event"] == "webhook.test"
    since = ("--since", "2026-01-01")
    replay = program.json("webhook", "replay", made["id"], *at, *since)
    assert replay["statuses"] == ["PENDING", "DEAD"]
    assert program.json("webhook", "enable", made["id"], *at)["isActive"] is True
    assert program.json("webhook", "deliveries", made["id"], *at)["data"] == [], "there is no worker"
    for asked in (("replay", *at, "--delivery", NOBODY), ("attempts", NOBODY, *at)):
        code, told = program.refused("webhook", *asked)
        assert (code, told["code"]) == (14, "delivery_not_found")
    assert not [it for it in made["events"] if it.startswith("audit.")], "nobody asked for the audit log"
    actions = [it["action"] for it in program.json("audit", "list", *at, "--action", "webhook")["data"]]
    assert {"webhook.tested", "webhook.replayed"} <= set(actions)
    ended = program.json("webhook", "rotate", made["id"], *at, "--now")
    assert ended["secretRotationGraceExpiresAt"] is None


def test_a_webhook_is_switched_off_and_removed_by_who_says_yes(program: Program, acme: str) -> None:
    at = ("--company", acme)
    made = program.json("webhook", "add", "http://127.0.0.1:9/gone", *at)
    told = program.call("webhook", "deliveries", made["id"], *at)
    assert (told.code, told.out[:24]) == (0, "Nothing went out to it y")
    for verb in ("disable", "remove"):
        done = program.call("webhook", verb, made["id"], *at)
        assert (done.code, done.out) == (2, ""), "nobody is there to be asked"
        assert "--yes" in done.err
        code, refusal = program.refused("webhook", verb, NOBODY, *at, "--yes")
        assert (code, refusal["code"]) == (14, "webhook_not_found")
    assert program.json("webhook", "disable", made["id"], *at, "--yes")["isActive"] is False
    assert program.json("webhook", "enable", made["id"], *at)["isActive"] is True
    assert program.json("webhook", "remove", made["id"], *at, "--yes") == {}
    assert made["id"] not in [it["id"] for it in program.json("webhook", "list", *at)["data"]]
    code, refusal = program.refused("webhook", "deliveries", made["id"], *at)
    assert (code, refusal["code"]) == (14, "webhook_not_found")


def test_deliveries_are_listed_in_pages_with_what_came_of_them(program: Program) -> None:
    slug = unique(program)
    at = ("--company", slug)
    assert f"webhook add URL --company {slug}" in program.call("webhook", "list", *at).out
    made = program.json("webhook", "add", "http://127.0.0.1:9/closed", *at)
    for _ in range(2):
        program.json("webhook", "test", made["id"], *at)
    with program.started("worker"):
        data: list[dict[str, Any]] = []
        until = monotonic() + WAIT_S
        while len(data) < 2 or not all(it["attemptCount"] for it in data):
            assert monotonic() < until
            data = program.json("webhook", "deliveries", made["id"], *at)["data"]
    assert [(it["status"], it["attemptCount"], it["lastStatus"]) for it in data] == [("PENDING", 1, None)] * 2
    first = program.call("webhook", "deliveries", made["id"], *at, "--limit", "1").out
    heading, row, more = first.splitlines()
    assert heading.split()[3:6] == ["status", "attemptCount", "lastStatus"]
    assert row.split()[1:6] == ["webhook.test", "2", "PENDING", "1", "-"]
    assert more == f"There is more: --cursor {data[0]['id']}"
    rest = program.json("webhook", "deliveries", made["id"], *at, "--cursor", data[0]["id"])
    assert rest["data"] == data[1:]
    (attempt,) = program.json("webhook", "attempts", data[0]["id"], *at)["data"]
    assert (attempt["number"], attempt["status"]) == (1, None)
    heading, row = program.call("webhook", "attempts", data[0]["id"], *at).out.splitlines()
    assert heading.split() == ["number", "at", "status", "durationMs", "error", "body"]
    assert attempt["error"] in row
    code, refusal = program.refused("webhook", "attempts", "x", *at)
    assert (code, refusal["fields"]) == (10, {"deliveryId": "is not an id"})


def test_the_vault_is_sealed_anew_and_the_old_key_can_go(program: Program, acme: str) -> None:
    webhook = program.json("webhook", "add", "https://example.com/seal", "--company", acme)
    ring = [Fernet.generate_key().decode(), (program.data / "vault-key").read_text().strip()]
    first = Program(program.data, DISTRIBU_VAULT_KEYS=",".join(ring)).json("vault", "reseal")
    assert first["resealed"] >= 1
    assert first["companies"] >= 1
    again = Program(program.data, DISTRIBU_VAULT_KEYS=ring[0]).json("vault", "reseal")
    assert (again["resealed"], again["unreadable"]) == (0, 0)
    told = program.json("audit", "list", "--company", acme, "--entity-id", webhook["id"])["data"]
    assert told[0]["action"] == "webhook.resealed"
    back = Program(program.data, DISTRIBU_VAULT_KEYS=",".join(ring[::-1])).json("vault", "reseal")
    assert back["resealed"] == first["resealed"]


def test_a_webhook_gets_a_new_secret(program: Program, acme: str) -> None:
    url = "http://localhost:9000/hook"
    made = program.json("webhook", "add", url, "--company", acme, "--event", "order.created")
    assert (made["url"], made["events"], made["isActive"]) == (url, ["order.created"], True)
    rotated = program.json("webhook", "rotate", made["id"], "--company", acme)
    assert rotated["id"] == made["id"]
    assert rotated["secret"] != made["secret"]
    assert {made["secret"][:6], rotated["secret"][:6]} == {"whsec_"}
    everything = program.json("webhook", "add", url, "--company", acme)
    assert len(everything["events"]) > 10
    code, told = program.refused("webhook", "add", "http://example.com/x", "--company", acme)
    assert (code, told["code"]) == (17, "webhook_url_refused")


def test_the_audit_log_says_who_did_it_from_here(program: Program) -> None:
    slug = unique(program)
    recorded = program.json(
        *("audit", "record", "report.sent", "to=board@acme.example", "pages=4"),
        *("--company", slug, "--entity-type", "Report", "--entity-id", "7"),
    )
    assert recorded == {}
    page = program.json("audit", "list", "--company", slug)
    newest, oldest = page["data"]
    assert newest["action"] == "custom.report.sent"
    assert newest["metadata"] == {"to": "board@acme.example", "pages": 4}
    assert (newest["entityType"], newest["entityId"]) == ("Report", "7")
    assert oldest["action"] == "company.created"
    assert {(one["actorType"], one["actorLabel"]) for one in page["data"]} == {("SYSTEM", "cli")}
    found = program.json("audit", "list", "--company", slug, "--action", "company", "--since", "2020-01-01")
    assert [one["action"] for one in found["data"]] == ["company.created"]
    first = program.json("audit", "list", "--company", slug, "--limit", "1")
    assert first["pagination"] == {"hasMore": True, "nextCursor": newest["id"]}
    rest = program.json("audit", "list", "--company", slug, "--limit", "1", "--cursor", newest["id"])
    assert [one["id"] for one in rest["data"]] == [oldest["id"]]
    table = program.call("audit", "list", "--company", slug).out
    assert "custom.report.sent" in table
    assert oldest["id"] in table


# any request


def test_an_order_by_hand(program: Program) -> None:
    slug = unique(program)

    def do(*words: str) -> dict[str, object]:
        return program.json("do", *words, "--company", slug)

    product = do("CreateProduct", "name=Oat Flour = fine", "price=18.40", "stock=5", "is_active=true")
    assert (product["name"], product["price"], product["stock"]) == ("Oat Flour = fine", 18.4, 5)
    addresses = json.dumps([{"line1": "1", "city": "Leeds", "country": "GB"}])
    customer = do("CreateCustomer", "email=a@b.example", "name=007", f"addresses={addresses}")
    assert customer["name"] == "007"
    items = json.dumps([{"productId": product["id"], "quantity": 2}])
    order = do("PlaceOrder", f"customerId={customer['id']}", f"items={items}", "poNumber=1e3")
    assert (order["number"], order["subtotal"], order["poNumber"]) == (1001, 36.8, "1e3")
    shipped = do("MoveOrder", f"orderId={order['id']}", "status=CONFIRMED")
    assert shipped["status"] == "CONFIRMED"
    listed = do("ListOrders", "status=CONFIRMED")
    assert listed["pagination"] == {"hasMore": False, "nextCursor": None}
    many = json.dumps([{"productId": product["id"], "quantity": 4}])
    code, told = program.refused(
        "do", "PlaceOrder", f"customerId={customer['id']}", f"items={many}", "--company", slug
    )
    assert (code, told["code"]) == (17, "insufficient_stock")
    code, told = program.refused("do", "EditProduct", f"productId={product['id']}", "name=x", "version=9",
                                 "--company", slug)  # fmt: skip
    assert (code, told["code"]) == (16, "precondition_failed")
    assert do("EditProduct", f"productId={product['id']}", "sku=A-1")["sku"] == "A-1"
    assert do("EditProduct", f"productId={product['id']}", "sku:=null")["sku"] is None
    assert do("ArchiveProduct", f"productId={product['id']}") == {}
    assert do("ListProducts")["data"] == []
    key = do("CreateApiKey", "name=x", "scopes=products:read,orders:read")
    assert key["scopes"] == ["products:read", "orders:read"]


def test_without_json_it_is_for_people(program: Program) -> None:
    slug = unique(program)
    made = program.call("do", "CreateProduct", "name=Oat Flour", "price=18.40", "--company", slug)
    assert (made.code, made.err) == (0, "")
    assert "Oat Flour" in made.out
    assert re.search(r"(?m)^price +18\.40$", made.out)
    second = program.json("do", "CreateProduct", "name=Rye", "price=1", "--company", slug)
    listed = program.call("do", "ListProducts", "limit=1", "--company", slug).out
    assert f"There is more: cursor={second['id']}\n" in listed
    assert " 1.00 " in listed
    program.json("do", "ArchiveProduct", f"productId={second['id']}", "--company", slug)
    product = program.json("do", "ListProducts", "--company", slug)["data"][0]
    archived = program.call("do", "ArchiveProduct", f"productId={product['id']}", "--company", slug)
    assert (archived.code, archived.out) == (0, "Done.\n")
    assert program.call("do", "ListProducts", "--company", slug).out == "There are none.\n"
    wrong = program.call("do", "CreateProduct", "name=", "price=1.234", "stock=x", "--company", slug)
    assert (wrong.code, wrong.out) == (10, "")
    assert "  stock: must be a whole number, such as 120\n" in wrong.err
    wrong = program.call("do", "ListOrders", "status=GONE", "--company", slug)
    statuses = "SUBMITTED, CONFIRMED, SHIPPED, DELIVERED, CANCELLED"
    assert f"  status: must be one of {statuses}\n" in wrong.err


def test_a_company_that_does_not_exist(program: Program) -> None:
    code, told = program.refused("do", "ListProducts", "--company", "nowhere")
    assert (code, told["code"]) == (14, "company_not_found")


# the program itself


def test_the_program_prints_one_object_or_a_refusal(program: Program) -> None:
    made = program.run("company", "create", "By Hand", "--json")
    assert (made.code, made.err, made.out.count("\n")) == (0, "", 1)
    slug = json.loads(made.out)["slug"]
    assert slug == "by-hand"
    words = ("api-key", "create", "--company", slug, "--name", "x", "--scope", "products:read", "--json")
    key = json.loads(program.run(*words).out)
    assert key["id"]
    assert key["key"].startswith("dk_")
    taken = program.run("company", "create", "By Hand")
    assert (taken.code, taken.out) == (15, "")
    assert taken.err == "distribu: Another company has this slug. (duplicate_slug)\n"
    assert program.run("do", "PlaceOder").code == 2


# starting and stopping


def test_unusable_settings_are_listed(program: Program) -> None:
    done = program.run("serve", DISTRIBU_PORT="high", DISTRIBU_DATABASE_URL="mysql://x", DISTRIBU_HOSST="x")
    assert (done.code, done.out) == (3, "")
    for name in ("DISTRIBU_PORT", "DISTRIBU_DATABASE_URL", "DISTRIBU_HOSST"):
        assert name in done.err
    assert "Traceback" not in done.err
    production = program.run("worker", DISTRIBU_ENV="production")
    assert production.code == 3
    assert "DISTRIBU_VAULT_KEYS is required in production" in production.err


def test_a_database_that_is_not_there(program: Program) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"postgresql://distribu:s3cret-word@127.0.0.1:{closed.getsockname()[1]}/distribu"
        served = program.run("serve", DISTRIBU_DATABASE_URL=url)
        moved = program.run("migrate", DISTRIBU_DATABASE_URL=url, DISTRIBU_OWNER_DATABASE_URL=url)
    without_owner = program.run("migrate", DISTRIBU_DATABASE_URL=url)
    for done in (served, moved):
        assert done.code == 3
        assert "the database cannot be reached" in done.err
        assert "s3cret-word" not in done.err
        assert "Traceback" not in done.err
    assert without_owner.code == 3
    assert "DISTRIBU_OWNER_DATABASE_URL" in without_owner.err


def test_a_port_in_use(program: Program) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = program.run("serve", "--port", str(taken.getsockname()[1]))
    assert (done.code, done.out) == (3, "")
    assert "cannot serve at 127.0.0.1" in done.err
    assert "Traceback" not in done.err


def test_the_embedded_database_is_migrated_already(program: Program) -> None:
    assert program.json("migrate") == {"ran": []}
    assert program.run("migrate").out == "Nothing to do.\n"


def test_a_worker_stops_when_told(program: Program) -> None:
    with program.started("worker") as worker:
        assert worker.told == {"working": True}
        assert worker.stop() == 0
        assert worker.process.stderr is not None
        assert "attempted deliveries: {" in worker.process.stderr.read()
    assert program.postgres() is not None, "the server still uses the database"


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_cleanly_with_its_database(tmp_path: Path, by: signal.Signals) -> None:
    program = Program(tmp_path)
    with program.serving() as server:
        assert program.postgres() is not None
        assert httpx.get(f"{server.url}/readyz").status_code == 200
        assert server.stop(by) == 0
        assert server.process.stderr is not None
        assert server.process.stderr.read() == ""
    assert program.postgres() is None


def test_what_it_had_is_there_after_a_kill(tmp_path: Path) -> None:
    program = Program(tmp_path)
    with program.serving("--demo") as server:
        assert server.told["docs"] == f"{server.url}/api/v1/docs"
        assert httpx.get(server.told["docs"]).status_code == 200
        ordered = subprocess.run(
            shlex.split(server.told["order"]), capture_output=True, text=True, timeout=30, check=True
        )
        order = json.loads(ordered.stdout)["data"]
        assert order["status"] == "SUBMITTED"
        server.stop(signal.SIGKILL)
    outlived = program.postgres()
    assert outlived is not None
    with program.serving("--demo") as again:
        assert program.postgres() == outlived
        old, new = server.told["key"], again.told["key"]
        assert old != new
        for key in (old, new):
            headers = {"authorization": f"Bearer {key}"}
            found = httpx.get(f"{again.url}/api/v1/orders/{order['id']}", headers=headers).json()["data"]
            assert found["number"] == order["number"]
        shelf = httpx.get(f"{again.url}/api/v1/products", headers={"authorization": f"Bearer {new}"})
        products = shelf.json()["data"]
        assert len(products) == len({product["sku"] for product in products}) == 6
        assert again.stop() == 0
    assert program.postgres() is None
