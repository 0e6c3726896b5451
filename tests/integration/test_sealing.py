"""The sealed log as its operator has it: the commands, the one file, the worker, and who is forgotten."""

import asyncio
import base64
import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from distribu import Actor, Distribu, Role, Settings, Shop
from distribu.adapters import verify_export
from distribu.adapters.postgres import schema, seals
from distribu.application import sealing
from distribu.application.audit import RecordAudit
from distribu.application.sealing import ErasePerson, VerifyAudit, head_view
from distribu.application.shapes import encode
from distribu.container import sealing_keys
from distribu.domain.webhooks import WireEvent
from distribu.entrypoints.worker import Worker
from tests.contracts.sealing import entries, heads_of, rows_of, sealed
from tests.integration.program import Program
from tests.integration.test_walls import superuser

LABEL, IP = "canary-7741@corner-shop.example", "203.0.113.77"


KEY = base64.b64encode(bytes(32)).decode()
EMPTY = (
    b'{"type":"distribu.audit.export","v":1,"companyId":"x","whole":true}\n'
    b'{"type":"end","records":0,"heads":0}\n'
)
"""The export of a log without a record."""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """On a data directory whose database keeps running meanwhile."""
    program = Program(tmp_path_factory.mktemp("sealing"))
    with program.serving("--no-worker") as server:
        yield program
        assert server.stop() == 0


@pytest.fixture
def acme(program: Program) -> str:
    """The slug of a company with a few entries in its log."""
    slug = f"acme-{uuid4()}"
    program.json("company", "create", "Acme", "--slug", slug)
    for number in range(3):
        program.json("audit", "record", f"entry_{number}", "--company", slug)
    return slug


def alone(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """The verifier, as one file in a folder with nothing of ours, and none of our packages in sight."""
    shutil.copy(verify_export.__file__, folder)
    return subprocess.run(
        [sys.executable, "-I", str(folder / "verify_export.py"), *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=folder,
    )


class TestCommands:
    def test_an_export_is_checked_by_one_file_and_the_public_key(
        self, program: Program, acme: str, tmp_path: Path
    ) -> None:
        (key, *_) = program.json("audit", "keys")["data"]
        export, head = tmp_path / "audit.jsonl", tmp_path / "head.json"
        told = program.json("audit", "export", "--company", acme, "--out", str(export))
        assert told == {"file": str(export), "bytes": export.stat().st_size}
        head.write_bytes(export.read_bytes().splitlines()[-2])
        words = ["--key", key["public"], "--head", str(head), str(export)]
        said = alone(tmp_path, *words)
        assert (said.returncode, said.stderr) == (0, ""), said
        assert "as they were sealed" in said.stdout
        told = json.loads(alone(tmp_path, "--json", *words).stdout)
        assert (told["sound"], told["heads"], told["findings"]) == (True, 1, [])
        assert told["head"] == json.loads(head.read_bytes())
        export.write_bytes(export.read_bytes().replace(b"custom.entry_1", b"custom.entry_9", 1))
        said = alone(tmp_path, "--json", *words)
        assert (said.returncode, json.loads(said.stdout)["findings"][0]["kind"]) == (1, "edited")
        said = alone(tmp_path, *words)
        assert said.returncode == 1
        assert said.stdout.startswith("edited: record ")

    def test_a_part_says_what_it_does_not_show(self, program: Program, acme: str, tmp_path: Path) -> None:
        (key, *_) = program.json("audit", "keys")["data"]
        whole, part, head = tmp_path / "audit.jsonl", tmp_path / "part.jsonl", tmp_path / "head.json"
        program.json("audit", "export", "--company", acme, "--out", str(whole))
        head.write_bytes(whole.read_bytes().splitlines()[-2])
        program.json("audit", "export", "--company", acme, "--action", "custom", "--out", str(part))
        first, signed, _, *others, last = part.read_bytes().splitlines()
        without = [first, signed, *others, last.replace(b'"records":3', b'"records":2')]
        part.write_bytes(b"\n".join(without) + b"\n")
        said = alone(tmp_path, "--key", key["public"], str(part))
        assert (said.returncode, said.stderr) == (0, "")
        assert 'Part of the log (filters {"action": "custom"}): that records were left' in said.stdout
        told = json.loads(alone(tmp_path, "--key", key["public"], "--json", str(part)).stdout)
        assert (told["sound"], told["whole"], told["filters"]) == (True, False, {"action": "custom"})
        newest = f"Company {told['companyId']}; the newest head is number {told['head']['number']}, of "
        assert newest + told["head"]["at"] in said.stdout
        said = alone(tmp_path, "--key", key["public"], "--head", str(head), str(part))
        assert (said.returncode, said.stdout) == (2, "")
        assert "this is a part of the log" in said.stderr
        told = json.loads(alone(tmp_path, "--key", key["public"], "--json", str(whole)).stdout)
        assert (told["whole"], told["filters"]) == (True, {})

    def test_a_head_of_another_company_is_no_alarm(self, program: Program, acme: str, tmp_path: Path) -> None:
        (key, *_) = program.json("audit", "keys")["data"]
        export, head = tmp_path / "audit.jsonl", tmp_path / "head.json"
        program.json("audit", "export", "--company", acme, "--out", str(export))
        head.write_bytes(export.read_bytes().splitlines()[-2])
        of = json.loads(head.read_bytes())["companyId"]
        code, told = program.refused("audit", "verify", "--head", str(head))
        assert (code, told["fields"]) == (10, {"head": f"this head is of another company, {of}: --company?"})
        program.json("audit", "export", "--out", str(export))
        said = alone(tmp_path, "--key", key["public"], "--head", str(head), str(export))
        assert (said.returncode, said.stdout) == (2, "")
        assert f"this head is of another company, {of}" in said.stderr

    def test_the_one_file_is_had_from_the_command(self, program: Program) -> None:
        done = program.call("audit", "verifier")
        assert (done.code, done.out) == (0, Path(verify_export.__file__).read_text(encoding="utf-8"))

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (None, "No such file or directory"),
            (b"", "it is empty"),
            (b"position,id\r\n1,2\r\n", "CSV and OCSF prove nothing"),
            (b"{}\n", "CSV and OCSF prove nothing"),
            (bytes(range(256)) * 9, "no export as JSON Lines"),
            (gzip.compress(b'{"type":"distribu.audit.export"}\n'), "gunzip"),
        ],
        ids=["absent", "empty", "CSV", "JSON", "binary", "compressed"],
    )
    def test_what_is_no_export_is_called_so(self, tmp_path: Path, content: bytes | None, said: str) -> None:
        file = tmp_path / "audit"
        if content is not None:
            file.write_bytes(content)
        done = alone(tmp_path, "--key", KEY, str(file))
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        assert done.stderr.startswith(f"verify_export: {file}")
        assert said in done.stderr

    def test_what_is_given_with_an_export_and_is_none_of_it(self, tmp_path: Path) -> None:
        export, odd = tmp_path / "audit.jsonl", tmp_path / "odd"
        export.write_bytes(EMPTY)
        odd.write_bytes(bytes(range(256)))
        for words, said in (
            (["--key", str(odd), str(export)], "is no public key"),
            (["--key", base64.b64encode(bytes(31)).decode(), str(export)], "is no public key"),
            (["--key", "\udc80", str(export)], "is no public key"),
            (["--key", KEY, "--head", str(odd), str(export)], f"{odd}: this is no head of an audit log"),
            (["--key", KEY, "--head", str(tmp_path), str(export)], f"{tmp_path}: Is a directory"),
            (["--key", KEY, str(tmp_path)], f"{tmp_path}: Is a directory"),
        ):
            done = alone(tmp_path, *words)
            assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
            assert said in done.stderr

    def test_an_export_that_ends_within_a_line_is_incomplete(
        self, program: Program, acme: str, tmp_path: Path
    ) -> None:
        export = tmp_path / "audit.jsonl"
        program.json("audit", "export", "--company", acme, "--out", str(export))
        export.write_bytes(export.read_bytes()[:-9])
        done = alone(tmp_path, "--key", KEY, str(export))
        kinds = [line.partition(":")[0] for line in done.stdout.splitlines()]
        assert (done.returncode, done.stderr) == (1, "")
        assert kinds[:3] == ["unknown_key", "malformed", "incomplete"]

    def test_what_the_one_file_lacks_it_says(self, tmp_path: Path) -> None:
        file = shutil.copy(verify_export.__file__, tmp_path)
        older = (
            "import runpy, sys; sys.version_info = (3, 9, 2);"
            f" runpy.run_path({str(file)!r}, run_name='__main__')"
        )
        for words, said in ((["-S", file], "the package cryptography"), (["-c", older], "Python 3.11")):
            done = subprocess.run(
                [sys.executable, "-I", *words], capture_output=True, text=True, check=False, timeout=60
            )
            assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
            assert said in done.stderr

    def test_nobody_has_to_read_what_the_one_file_says(self, tmp_path: Path) -> None:
        export = tmp_path / "audit.jsonl"
        export.write_bytes(EMPTY)
        reader, writer = os.pipe()
        os.close(reader)
        file = shutil.copy(verify_export.__file__, tmp_path)
        words = [sys.executable, "-I", file, "--key", KEY, str(export)]
        try:
            done = subprocess.run(
                words, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, timeout=60
            )
        finally:
            os.close(writer)
        assert (done.returncode, done.stderr) == (2, "")

    def test_what_an_export_holds_does_not_steer_a_terminal(self, tmp_path: Path) -> None:
        export = tmp_path / "audit.jsonl"
        named = json.dumps({"type": "record", "position": None, "id": "\x1b[2J\ud800", "record": None})
        first, _, last = EMPTY.partition(b"\n")
        export.write_bytes(first + b"\n" + named.encode() + b"\n" + last)
        done = alone(tmp_path, "--key", KEY, str(export))
        assert (done.returncode, done.stderr) == (1, "")
        assert "record \\x1b[2J\\ud800 was removed" in done.stdout

    def test_the_log_is_examined_with_a_head_that_was_kept(
        self, program: Program, acme: str, tmp_path: Path
    ) -> None:
        export, head = tmp_path / "audit.jsonl", tmp_path / "head.json"
        program.json("audit", "export", "--company", acme, "--out", str(export))
        head.write_bytes(export.read_bytes().splitlines()[-2])
        told = program.json("audit", "verify", "--company", acme, "--head", str(head))
        assert (told["sound"], told["findings"]) == (True, [])
        for number in range(12):
            program.json("audit", "record", f"more_{number}", "--company", acme, f"text={'x' * 1000}")
        program.json("audit", "export", "--company", acme, "--out", str(export))
        assert export.stat().st_size > 10_000
        done = program.call("audit", "verify", "--company", acme, "--head", str(export))
        assert done.code == 0
        assert "the newest head is number 2" in done.out
        whole = [line for line in export.read_bytes().splitlines(keepends=True) if b"x" * 1000 not in line]
        export.write_bytes(b"".join(whole[:-2]) + whole[-2].replace(b'"size":', b'"size":1') + whole[-1])
        done = program.call("audit", "verify", "--company", acme, "--head", str(export))
        assert (done.code, done.out.partition(":")[0]) == (20, "not_the_kept_head")
        head.write_text(head.read_text().replace('"size":', '"size":1'))
        done = program.call("audit", "verify", "--company", acme, "--head", str(head))
        assert (done.code, done.out.partition(":")[0]) == (20, "not_the_kept_head")
        head.write_text("no head")
        code, told = program.refused("audit", "verify", "--company", acme, "--head", str(head))
        assert (code, told["fields"]) == (10, {"head": "this is no head of an audit log"})
        done = program.call("audit", "verify", "--company", acme)
        assert done.code == 0
        assert "--head FILE" in done.out

    def test_what_waits_to_be_sealed_is_no_alarm_until_nobody_seals(
        self, program: Program, acme: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        program.json("audit", "export", "--company", acme, "--out", os.devnull)
        for number in range(2):
            program.json("audit", "record", f"late_{number}", "--company", acme)
        done = program.call("audit", "verify", "--company", acme)
        assert done.code == 0
        assert ": as they were sealed" in done.out
        assert "2 records wait to be sealed, since 20" in done.out
        monkeypatch.setattr(sealing, "WAITS_MAX", timedelta(0))
        done = program.call("audit", "verify", "--company", acme)
        assert done.code == 24
        assert ": as they were sealed" in done.out
        assert "Does a worker run" in done.out
        told = json.loads(program.call("audit", "verify", "--company", acme, "--json").out)
        assert (told["sound"], told["waiting"]["records"], told["waiting"]["overdue"]) == (True, 2, True)

    def test_the_platforms_own_log_is_sealed_like_any_other(self, program: Program) -> None:
        assert program.json("audit", "verify")["sound"]

    @pytest.mark.parametrize("form", ["CSV", "ocsf", "jsonl"])
    def test_an_export_goes_to_stdout(self, program: Program, acme: str, form: str) -> None:
        done = program.call("audit", "export", "--company", acme, "--format", form, "--action", "custom")
        assert done.code == 0
        assert "custom.entry_1" in done.out
        assert "company.created" not in done.out

    def test_an_export_is_no_one_object(self, program: Program, acme: str) -> None:
        done = program.call("audit", "export", "--company", acme, "--json")
        assert done.code == 2

    def test_a_person_is_erased_by_command(self, program: Program, acme: str) -> None:
        assert program.call("audit", "erase-person", "cli", "--company", acme).code == 2
        told = program.json("audit", "erase-person", "cli", "--company", acme, "--yes")
        assert told["entries"] >= 3
        listed = program.json("audit", "list", "--company", acme, "--action", "custom")["data"]
        assert {one["actorLabel"] for one in listed} == {None}
        assert program.json("audit", "verify", "--company", acme)["sound"]


def canaries(settings: Settings) -> dict[str, int]:
    """The tables in which a canary still sings, whatever the column."""
    with psycopg.connect(superuser(settings), autocommit=True) as root:
        found = {}
        for table in schema.metadata.tables.values():
            counted = root.execute(
                f"SELECT count(*) FROM distribu.{table.name} AS it"  # a table of ours
                " WHERE strpos(it::text, %(label)s) > 0 OR strpos(it::text, %(ip)s) > 0",
                {"label": LABEL, "ip": IP},
            ).fetchone()
            if counted and counted[0]:
                found[table.name] = counted[0]
        return found


async def test_an_erased_person_is_found_nowhere_and_every_proof_holds(
    settings: Settings, shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    canary = Actor.staff(shop.company.id, Role.ADMIN, id="u-1", label=LABEL, ip=IP)
    await shop.webhook(WireEvent.AUDIT_RECORDED)
    for action in ("one", "two"):
        await shop.execute(RecordAudit(action=action), canary)
        await sealed(shop)
    kept = encode(head_view((await heads_of(shop))[-1])).decode()
    assert canaries(settings) == {"record_people": 2, "outbox": 2}
    erased = await shop.execute(ErasePerson(label=LABEL))
    assert erased.entries == 2
    assert canaries(settings) == {}
    await sealed(shop)
    verdict = await shop.execute(VerifyAudit(head=kept))
    assert (verdict.findings, verdict.nameless) == ([], 2)
    assert LABEL not in caplog.text


async def test_a_seal_in_between_brings_nobody_back_who_is_erased(
    distribu: Distribu, settings: Settings, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who seals meanwhile waits until the person is gone from all, and a crash leaves all or nothing."""
    canary = Actor.staff(shop.company.id, Role.ADMIN, id="u-1", label=LABEL, ip=IP)
    await shop.webhook(WireEvent.AUDIT_RECORDED)
    await sealed(shop)
    await shop.execute(RecordAudit(action="hello"), canary)
    execute, sealing = psycopg.AsyncConnection.execute, []

    async def with_a_seal_in_between(self: Any, query: Any, *given: Any, **more: Any) -> Any:
        if query is seals._ERASE:
            sealing.append(asyncio.create_task(sealed(shop)))
            while not waiting_for_a_lock(settings):  # in another process
                assert not sealing[0].done(), "sealed while a person was being erased"
                await asyncio.sleep(0.01)
        return await execute(self, query, *given, **more)

    monkeypatch.setattr(psycopg.AsyncConnection, "execute", with_a_seal_in_between)
    assert await distribu.ports.seals.erase(shop.company.id, LABEL) == 1
    assert await sealing[0] > 0
    assert canaries(settings) == {}

    async def broken(self: Any, query: Any, *given: Any, **more: Any) -> Any:
        if "UPDATE distribu.outbox SET payload" in str(query):
            raise RuntimeError("crashed")
        return await execute(self, query, *given, **more)

    await shop.execute(RecordAudit(action="hello"), canary)
    monkeypatch.setattr(psycopg.AsyncConnection, "execute", broken)
    with pytest.raises(RuntimeError):
        await distribu.ports.seals.erase(shop.company.id, LABEL)
    assert canaries(settings) == {"record_people": 1}
    monkeypatch.undo()
    assert await distribu.ports.seals.erase(shop.company.id, LABEL) == 1
    assert canaries(settings) == {}


def waiting_for_a_lock(settings: Settings) -> bool:
    """Whether anybody waits for somebody else's row."""
    with psycopg.connect(superuser(settings), autocommit=True) as root:
        return bool(root.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone())


async def test_sealing_adds_no_statement_to_placing_an_order(distribu: Distribu, shop: Shop) -> None:
    """What is to be sealed waits by the statement that writes the records."""
    store: Any = distribu.ports.store
    product, customer = await shop.product(stock=9), await shop.customer()
    await shop.webhook(WireEvent.AUDIT_RECORDED)  # nor does telling of it
    before, trips = store.statements, store.round_trips
    await shop.order(customer, (product, 1))
    assert (store.statements - before, store.round_trips - trips) == ORDER


ORDER = (14, 2)
"""Statements and round trips of an order with one line; as many as there were before there were seals."""


async def test_the_worker_seals_within_seconds(shop: Shop) -> None:
    worker = Worker(shop.distribu)
    running = asyncio.create_task(worker.run())
    try:
        await entries(shop, 3)
        async with asyncio.timeout(60):
            while len(await rows_of(shop)) < 4:  # noqa: ASYNC110  # another task is at work
                await asyncio.sleep(0.1)
    finally:
        worker.stop()
        await running
    assert (await shop.execute(VerifyAudit())).sound


async def test_the_key_of_the_settings_is_the_one_that_signs(settings: Settings, shop: Shop) -> None:
    await sealed(shop)
    (head,) = await heads_of(shop)
    assert head.key == sealing_keys(settings)[0].id
    assert json.loads(encode(head_view(head)))["key"] == head.key
