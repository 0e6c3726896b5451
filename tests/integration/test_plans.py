"""How the statements that carry the load find their rows, whatever was there when it was counted last."""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg import sql

from distribu import Settings
from distribu.adapters.postgres.finishing import FINISH
from distribu.adapters.postgres.queue import CLAIM, MOVE
from distribu.adapters.postgres.roles import QUEUE
from distribu.container import database

NOW = datetime(2026, 11, 1, tzinfo=UTC)
ID = "019a3d1e-0000-7000-8000-000000000000"
COMPANY = {"company": ID, "head": 0, "limit": 200, "now": NOW, "test": "t", "replay": "r"}
GIVEN: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "claim": (
        CLAIM,
        {"companies": [ID], "webhooks": [ID], "counts": [3], "limit": 512, "per_webhook": 8}
        | {"per_company": 128, "test": "t", "now": NOW, "until": NOW},
    ),
    "finish": (FINISH, {"tries": "[]", "turns": "[]"}),
    "move": (MOVE, COMPANY),
}

FILL = """
INSERT INTO distribu.deliveries (company_id, id, webhook_id, position, event_id, event, status, attempts,
    attempts_before, next_attempt_at, created_at)
SELECT %(id)s::uuid, gen_random_uuid(), ('00000000-0000-0000-0000-0000000000' || 10 + n %% 16)::uuid, n,
    gen_random_uuid(), 'product.created', %(status)s, 0, 0, %(now)s, %(now)s
FROM generate_series(1, %(count)s) AS n
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    with database(Settings(data_dir=str(tmp_path_factory.mktemp("plans")), port=0)) as ready:
        yield ready


@pytest.fixture(params=["nothing", "few", "few more", "pending", "delivered", "no more of them"])
def counted(house: Settings, request: pytest.FixtureRequest) -> Iterator[None]:
    """Deliveries of sixteen webhooks, counted as they once were; or there are more, or none any more."""
    with psycopg.connect(house.owner_database_url or "", autocommit=True) as owner:
        # They refer to webhooks that nobody needs here, and the owner is held back by the walls as well.
        owner.execute("ALTER TABLE distribu.deliveries DROP CONSTRAINT IF EXISTS deliveries_webhook")
        owner.execute("ALTER TABLE distribu.deliveries NO FORCE ROW LEVEL SECURITY")
        owner.execute("TRUNCATE distribu.attempts, distribu.deliveries")
        given = {"id": ID, "status": "DELIVERED", "now": NOW, "count": 4000}
        if request.param == "pending":
            given |= {"status": "PENDING"}
        if request.param == "few":
            given |= {"count": 20}
        if request.param not in ("nothing", "few more"):
            owner.execute(FILL, given)
        owner.execute("VACUUM (ANALYZE) distribu.deliveries, distribu.attempts")
        if request.param == "few more":
            owner.execute(FILL, given | {"count": 20})
        if request.param == "no more of them":
            owner.execute("DELETE FROM distribu.deliveries")
            owner.execute("VACUUM distribu.deliveries")
        yield


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize("statement", GIVEN)
def test_the_queue_finds_rows_by_their_key_or_in_the_order_they_are_due(
    house: Settings, statement: str
) -> None:
    text, given = GIVEN[statement]
    nodes = list(_nodes(_plan(house, text, given)))
    read = {(node["Relation Name"], node["Node Type"]) for node in nodes if "Relation Name" in node}
    assert {table for table, _ in read} >= {"deliveries"} or statement == "move"
    assert {kind for _, kind in read} <= {"Index Scan", "Index Only Scan", "ModifyTable"}
    assert not {node["Node Type"] for node in nodes} & {"Hash Join", "Merge Join", "Bitmap Heap Scan"}
    due = {node["Index Name"] for node in nodes if "next_attempt_at <=" in node.get("Index Cond", "")}
    assert due == ({"deliveries_due"} if statement == "claim" else set())
    by_key = {
        node["Index Name"]
        for node in nodes
        if node.get("Relation Name") == "deliveries" and "Index Cond" in node
    }
    assert by_key <= {"deliveries_pkey", "deliveries_due"}


def _plan(house: Settings, text: str, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The plan that the queue keeps for a statement, whatever it is asked with."""
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", text)))
    numbered = re.sub(r"%\((\w+)\)s", lambda found: f"${names.index(found[1]) + 1}", text)
    with psycopg.connect(house.queue_database_url or "") as queue:
        assert queue.execute("SELECT pg_has_role(%s, 'MEMBER')", [QUEUE]).fetchone() == (True,)
        queue.execute(f"PREPARE asked AS {numbered}".encode())
        values = sql.SQL(", ").join(sql.Literal(given[name]) for name in names)
        explain = sql.SQL("EXPLAIN (FORMAT JSON, COSTS OFF) EXECUTE asked ({})").format(values)
        row = queue.execute(explain).fetchone()
    assert row is not None
    plan: Mapping[str, Any] = row[0][0]["Plan"]
    return plan


def _nodes(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield node
    for inner in node.get("Plans", []):
        yield from _nodes(inner)
