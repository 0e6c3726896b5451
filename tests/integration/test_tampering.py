"""Whoever is a superuser can write what they like into the log. It is found and named, here and offline."""

import secrets
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import psycopg
import pytest

from distribu import Distribu, Secret, Settings, Shop, inside
from distribu.adapters.sealing import Ed25519Notary
from distribu.application.audit import RecordAudit
from distribu.application.ports import Notary
from distribu.application.sealing import HeadView, VerifyAudit, head_view, sealing
from distribu.application.shapes import encode
from distribu.domain.sealing import Tip, leaf
from tests.contracts.asking import log_of
from tests.contracts.sealing import entries, exported, heads_of, offline, rows_of, sealed
from tests.integration.test_walls import superuser

Root = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def root(settings: Settings) -> Iterator[Root]:
    """A superuser whom no trigger stops."""
    with psycopg.connect(superuser(settings), autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        yield connection


@dataclass(frozen=True)
class Log:
    """A company with three heads over four records each and one more, and the last head in safe hands."""

    shop: Shop
    other: Shop
    root: Root
    kept: HeadView

    @property
    def company(self) -> str:
        return self.shop.company.id

    def run(self, *statements: str, **more: Any) -> None:
        """Run these; ``{at}`` is "of this company, at this position"."""
        for statement in statements:
            text = statement.replace("{mine}", "company_id = %(company)s").replace(
                "{at}", "company_id = %(company)s AND id = (SELECT record_id FROM distribu.seals"
                " WHERE company_id = %(company)s AND position = %(position)s)"
            )  # fmt: skip
            given = {"company": self.company, "other": self.other.company.id, "position": 6} | more
            self.root.execute(text, given)

    async def found(self, *, kept: bool = True) -> tuple[dict[str, str], dict[str, str]]:
        """What is found online and offline: what is told last, by its kind."""
        head = encode(self.kept).decode() if kept else None
        verdict = await self.shop.execute(VerifyAudit(head=head))
        online = {it.kind: it.what for it in verdict.findings}
        checked = offline(self.shop, await exported(self.shop), self.kept if kept else None)
        return online, {it.kind: it.what for it in checked.findings}


@pytest.fixture
async def log(distribu: Distribu, root: Root) -> Log:
    shop, other = await Shop.open(distribu), await Shop.open(distribu)
    for one in (shop, other):
        for _ in range(3):
            await entries(one, 4, entity_type="Report", entity_id="7")
            await sealed(one)
    return Log(shop, other, root, head_view((await heads_of(shop))[-1]))


def id_at(log: Log, position: int) -> str:
    row = log.root.execute(
        "SELECT record_id::text FROM distribu.seals WHERE company_id = %s AND position = %s",
        [log.company, position],
    ).fetchone()
    assert row is not None
    return str(row[0])


def anew(log: Log, notary: Notary) -> None:
    """Seal what is there now as if nothing had been sealed before, in the same steps."""
    rows = log.root.execute(
        "SELECT position, body FROM distribu.seals JOIN distribu.records USING (company_id)"
        " WHERE company_id = %s AND records.id = record_id ORDER BY position",
        [log.company],
    ).fetchall()
    leaves = [leaf(body.encode()) for _, body in rows]
    for (position, _), hashed in zip(rows, leaves, strict=True):
        log.run(
            "UPDATE distribu.seals SET leaf = %(leaf)s WHERE {mine} AND position = %(position)s",
            leaf=hashed,
            position=position,
        )
    sizes = log.root.execute(
        "SELECT number, size, at FROM distribu.seal_heads WHERE company_id = %s ORDER BY number",
        [log.company],
    ).fetchall()
    tip: Tip | None = None
    for number, size, at in sizes:
        first = 0 if tip is None else tip.frontier.size
        tip = sealing(notary, at)(log.shop.company.id, tip, leaves[first:size])
        log.run(
            "UPDATE distribu.seal_heads SET root = %(root)s, previous = %(previous)s, key = %(key)s,"
            " signature = %(signature)s, peaks = %(peaks)s WHERE {mine} AND number = %(number)s",
            root=tip.head.root,
            previous=tip.head.previous,
            key=tip.head.key,
            signature=tip.head.signature,
            peaks=b"".join(tip.frontier.peaks),
            number=number,
        )


EDIT: Final = (
    "UPDATE distribu.records SET body = replace(body, 'custom.entry', 'custom.other'),"
    " action = replace(action, 'custom.entry', 'custom.other') WHERE {at}"
)
CUT: Final = (
    "DELETE FROM distribu.records WHERE {mine} AND id IN (SELECT record_id FROM distribu.seals"
    " WHERE {mine} AND position >= 9)",
    "DELETE FROM distribu.seals WHERE {mine} AND position >= 9",
    "DELETE FROM distribu.seal_heads WHERE {mine} AND number = 3",
)


def edit(log: Log) -> None:
    log.run(EDIT)


def edit_and_its_leaf(log: Log) -> None:
    log.run(EDIT)
    body = log.root.execute(
        "SELECT body FROM distribu.records WHERE company_id = %s AND id = %s", [log.company, id_at(log, 6)]
    ).fetchone()
    assert body is not None
    log.run(
        "UPDATE distribu.seals SET leaf = %(leaf)s WHERE {mine} AND position = 6", leaf=leaf(body[0].encode())
    )


def edit_what_is_shown(log: Log) -> None:
    log.run("UPDATE distribu.records SET action = 'order.placed' WHERE {at}")


def edit_into_no_json(log: Log) -> None:
    log.run("UPDATE distribu.records SET body = 'gone' WHERE {at}")


def edit_who_it_was(log: Log) -> None:
    log.run(
        "UPDATE distribu.record_people SET label = 'somebody else' WHERE {mine} AND id = (SELECT person_id"
        " FROM distribu.records WHERE {at})"
    )


def delete(log: Log) -> None:
    log.run("DELETE FROM distribu.records WHERE {at}")


def delete_with_its_seal(log: Log) -> None:
    log.run(
        "DELETE FROM distribu.records WHERE {at}",
        "DELETE FROM distribu.seals WHERE {mine} AND position = %(position)s",
    )


def delete_and_close_the_gap(log: Log) -> None:
    delete_with_its_seal(log)
    log.run(
        "UPDATE distribu.seals SET position = -position WHERE {mine} AND position > 6",
        "UPDATE distribu.seals SET position = -position - 1 WHERE {mine} AND position < 0",
    )


def insert(log: Log) -> None:
    log.run(
        "INSERT INTO distribu.records SELECT company_id, gen_random_uuid(), at, actor_kind, actor_id, action,"
        " entity_type, entity_id, person_id, body FROM distribu.records WHERE {at}"
    )


def insert_with_a_seal(log: Log) -> None:
    log.run(
        "UPDATE distribu.seals SET position = -position - 1 WHERE {mine} AND position >= 6",
        "UPDATE distribu.seals SET position = -position WHERE {mine} AND position < 0",
        "INSERT INTO distribu.records SELECT company_id, %(new)s::uuid, at, actor_kind, actor_id, action,"
        " entity_type, entity_id, person_id, replace(body, id::text, %(new)s::text) FROM distribu.records"
        " WHERE {mine} AND id = (SELECT record_id FROM distribu.seals WHERE {mine} AND position = 5)",
        new="00000000-0000-7000-8000-000000000000",
    )
    body = log.root.execute(
        "SELECT body FROM distribu.records WHERE company_id = %s ORDER BY id LIMIT 1", [log.company]
    ).fetchone()
    assert body is not None
    log.run(
        "INSERT INTO distribu.seals VALUES (%(company)s, 6, %(new)s, %(leaf)s)",
        new="00000000-0000-7000-8000-000000000000",
        leaf=leaf(body[0].encode()),
    )


def reorder(log: Log) -> None:
    six, seven = id_at(log, 6), id_at(log, 7)
    swap = "UPDATE distribu.seals SET record_id = %(id)s WHERE {mine} AND position = %(position)s"
    log.run(swap, id="00000000-0000-7000-8000-00000000000f", position=6)
    log.run(swap, id=six, position=7)
    log.run(swap, id=seven, position=6)


def reorder_with_their_seals(log: Log) -> None:
    move = "UPDATE distribu.seals SET position = %(to)s WHERE {mine} AND position = %(position)s"
    for position, to in ((6, 99), (7, 6), (99, 7)):
        log.run(move, position=position, to=to)


def cut_the_tail(log: Log) -> None:
    log.run(*CUT)


def drop_all(log: Log) -> None:
    for table in ("records", "record_people", "seals", "seal_heads", "seal_tips", "unsealed"):
        log.run(f"DELETE FROM distribu.{table} WHERE {{mine}}")


def seal_anew_with_another_key(log: Log) -> None:
    log.run(EDIT)
    anew(log, Ed25519Notary([Secret(urlsafe_b64encode(secrets.token_bytes(32)).decode())]))


def seal_anew_with_our_key(log: Log) -> None:
    log.run(EDIT)
    anew(log, log.shop.distribu.ports.notary)


def swap_companies(log: Log) -> None:
    between = "00000000-0000-7000-8000-0000000000ff"
    for table in ("records", "record_people", "seals", "seal_heads"):
        for old, new in (
            (log.company, between),
            (log.other.company.id, log.company),
            (between, log.other.company.id),
        ):
            log.root.execute(f"UPDATE distribu.{table} SET company_id = %s WHERE company_id = %s", [new, old])


def take_a_record_of_another_company(log: Log) -> None:
    log.run(
        "UPDATE distribu.records SET body = (SELECT body FROM distribu.records JOIN distribu.seals"
        " ON seals.company_id = records.company_id AND record_id = records.id"
        " WHERE records.company_id = %(other)s AND position = 6) WHERE {at}"
    )


def shift_field_boundaries(log: Log) -> None:
    log.run(
        'UPDATE distribu.records SET body = replace(body, \'"entityType":"Report","entityId":"7"\','
        ' \'"entityType":"Repor","entityId":"t7"\'), entity_type = \'Repor\', entity_id = \'t7\' WHERE {at}'
    )


def change_a_head(log: Log) -> None:
    log.run("UPDATE distribu.seal_heads SET at = at - interval '1 hour' WHERE {mine} AND number = 2")


def change_the_last_head(log: Log) -> None:
    """No head behind it tells: its signature does."""
    log.run("UPDATE distribu.seal_heads SET at = at - interval '1 hour' WHERE {mine} AND number = 3")


def change_the_root_of_a_head(log: Log) -> None:
    edit_and_its_leaf(log)
    log.run("UPDATE distribu.seal_heads SET root = repeat('0', 64) WHERE {mine} AND number = 2")


def delete_a_head(log: Log) -> None:
    log.run("DELETE FROM distribu.seal_heads WHERE {mine} AND number = 2")


def delete_the_last_head(log: Log) -> None:
    log.run("DELETE FROM distribu.seal_heads WHERE {mine} AND number = 3")


TAMPERING: Final[dict[str, tuple[Callable[[Log], None], set[str], set[str]]]] = {
    # what is done: the script, what is to be found online, and the word that names where
    "edit": (edit, {"edited"}, {"position 6"}),
    "edit, with its leaf": (edit_and_its_leaf, {"not_as_signed"}, {"positions 5 to 8"}),
    "edit what is shown": (edit_what_is_shown, {"edited"}, {"position 6", "action"}),
    "edit into no JSON": (edit_into_no_json, {"edited"}, {"position 6"}),
    "edit who it was": (edit_who_it_was, {"edited"}, {"position 6", "who acted"}),
    "delete": (delete, {"removed"}, {"position 6"}),
    "delete, with its seal": (delete_with_its_seal, {"removed"}, {"position 6"}),
    "delete, and close the gap": (
        delete_and_close_the_gap,
        {"removed", "not_as_signed"},
        {"positions 5 to 8"},
    ),
    "insert": (insert, {"inserted"}, {"never sealed"}),
    "insert, with a seal": (insert_with_a_seal, {"not_as_signed"}, {"positions 5 to 8"}),
    "reorder": (reorder, {"reordered"}, {"position 7"}),
    "reorder, with their seals": (reorder_with_their_seals, {"not_as_signed"}, {"positions 5 to 8"}),
    "cut the tail": (cut_the_tail, {"tail_cut"}, {"head 3"}),
    "drop all": (drop_all, {"tail_cut"}, {"head 3"}),
    "seal anew with another key": (seal_anew_with_another_key, {"unknown_key", "forked"}, {"head 3", "key"}),
    "seal anew with our key": (seal_anew_with_our_key, {"forked"}, {"head 3"}),
    "swap companies": (swap_companies, {"foreign", "head_changed"}, {"is of company"}),
    "take a record of another company": (
        take_a_record_of_another_company,
        {"foreign", "edited"},
        {"position 6"},
    ),
    "shift field boundaries": (shift_field_boundaries, {"edited"}, {"position 6"}),
    "change a head": (change_a_head, {"head_changed"}, {"head 2"}),
    "change the last head": (change_the_last_head, {"head_changed"}, {"head 3"}),
    "change the root of a head": (change_the_root_of_a_head, {"head_changed"}, {"head 2"}),
    "delete a head": (delete_a_head, {"head_missing"}, {"between head 1 and head 3"}),
    "delete the last head": (delete_the_last_head, {"tail_cut"}, {"head 3"}),
}


@pytest.mark.parametrize("name", TAMPERING)
async def test_it_is_found_and_named_online_and_offline(log: Log, name: str) -> None:
    script, kinds, words = TAMPERING[name]
    before = await log.shop.execute(VerifyAudit(head=encode(log.kept).decode()))
    assert before.sound
    script(log)
    for found in await log.found():
        assert kinds <= found.keys(), found
        told = " ".join(found.values())
        assert all(word in told for word in words), found


async def test_a_log_with_its_tail_cut_off_does_not_verify_against_a_head_kept_elsewhere(log: Log) -> None:
    """Without that head it does: nothing in the house can tell."""
    cut_the_tail(log)
    assert (await log.shop.execute(VerifyAudit())).sound
    verdict = await log.shop.execute(VerifyAudit(head=encode(log.kept).decode()))
    assert [it.kind for it in verdict.findings] == ["tail_cut"]


async def test_a_log_sealed_anew_with_a_stolen_key_is_told_by_a_head_kept_elsewhere(log: Log) -> None:
    seal_anew_with_our_key(log)
    assert (await log.shop.execute(VerifyAudit())).sound
    verdict = await log.shop.execute(VerifyAudit(head=encode(log.kept).decode()))
    assert {it.kind for it in verdict.findings} == {"forked"}


async def test_a_fork_is_told_by_a_head_of_the_other_branch(log: Log) -> None:
    """Put back to where it was at head 2, and gone on from there by ourselves."""
    cut_the_tail(log)
    await entries(log.shop, 7)
    await sealed(log.shop)
    online, checked = await log.found(kept=False)
    assert online == checked == {}
    for found in await log.found():
        assert set(found) == {"forked"}
        assert "head 3" in found["forked"] or "13 records" in found["forked"]


async def test_a_record_that_is_gone_before_it_was_sealed_is_missed(log: Log) -> None:
    await log.shop.product()
    log.run(
        "DELETE FROM distribu.records WHERE {mine} AND id IN"
        " (SELECT record_id FROM distribu.unsealed WHERE {mine} LIMIT 1)"
    )
    await sealed(log.shop)
    for found in await log.found():
        assert "before it was sealed" in found["removed"]


async def test_a_record_that_is_put_in_line_again_keeps_its_place_and_stops_nobody(
    log: Log, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """The application's role may do that, for any company: what is behind is sealed all the same."""
    kept = id_at(log, 6)
    await entries(log.shop, 2)
    new = log.root.execute(
        "SELECT record_id::text FROM distribu.unsealed WHERE company_id = %s ORDER BY seq", [log.company]
    ).fetchall()
    with psycopg.connect(settings.database_url or "", autocommit=True) as app:
        app.execute("SELECT set_config('app.company_id', %s, false)", [log.company])
        for id in (kept, kept, new[0][0]):
            app.execute(
                "INSERT INTO distribu.unsealed (company_id, record_id) VALUES (%s, %s)", [log.company, id]
            )
    await entries(log.shop, 1)
    while await sealed(log.shop, 2):
        pass
    assert id_at(log, 6) == kept
    assert [row.id for row in await rows_of(log.shop)][-3:] == [
        *(id for (id,) in new),
        (await log_of(log.shop, "custom"))[-1].id,
    ]
    assert (
        log.root.execute("SELECT FROM distribu.unsealed WHERE company_id = %s", [log.company]).fetchone()
        is None
    )
    for found in await log.found():
        assert found == {}
    said = [one.getMessage() for one in caplog.records if one.name == "distribu.seals"]
    assert len(said) == 2
    assert all(log.company in one for one in said)


async def test_nobody_goes_on_from_a_head_that_was_altered(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    for change in ("peaks = substr(peaks, 1, 32)", "root = repeat('0', 64)", "size = size + 1"):
        log.run(f"UPDATE distribu.seal_heads SET {change} WHERE {{mine}} AND number = 3")
        await log.shop.product()
        assert await sealed(log.shop) == 0
        assert await sealed(log.shop) == 0
        (said,) = [one for one in caplog.records if one.name == "distribu.seals"]
        assert log.company in said.getMessage()
        caplog.clear()


async def test_a_late_commit_is_sealed_late_and_never_skipped(log: Log, settings: Settings) -> None:
    """One transaction stays open while others, begun later, are committed and sealed."""
    async with _open(settings, log) as late:
        await log.shop.product()
        assert await sealed(log.shop) == 2
        await late.commit()
    assert await sealed(log.shop) == 1
    for found in await log.found():
        assert found == {}


@asynccontextmanager
async def _open(settings: Settings, log: Log) -> AsyncIterator["psycopg.AsyncConnection[Any]"]:
    """A transaction with a record in it, as the application writes one."""
    connection = await psycopg.AsyncConnection.connect(settings.database_url or "")
    async with connection:
        await connection.execute("SELECT 1")
        await inside(log.shop.distribu, connection).execute(log.shop.actor, RecordAudit(action="late"))
        yield connection
