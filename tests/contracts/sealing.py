"""What the seals promise, what the notary promises, and the use cases of the sealed log."""

import asyncio
import base64
import csv
import hashlib
import io
import json
import re
import textwrap
from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from distribu import Actor, Forbidden, Harness, Invalid, Role, Shop
from distribu.adapters.verify_export import Inspection, read_head, read_keys
from distribu.application import views
from distribu.application.audit import RecordAudit
from distribu.application.kernel import Work
from distribu.application.ports import Notary
from distribu.application.sealing import (
    ErasePerson,
    ExportAudit,
    ExportFormat,
    HeadView,
    MailHead,
    VerifyAudit,
    WaitingView,
    head_view,
    recorded,
    seal,
    sealing,
    signed_text,
)
from distribu.application.sessions import SignOut
from distribu.application.shapes import encode
from distribu.application.webhooks import EditWebhook, ListEvents, RegisterWebhook
from distribu.domain.access import SCOPES, ActorKind
from distribu.domain.audit import Person
from distribu.domain.sealing import NO_HEAD, Frontier, Head, SealedRow, leaf
from distribu.domain.values import CompanyId
from distribu.domain.webhooks import WireEvent
from tests.contracts.asking import contact_of, each, key_of, log_of, scope_of, sent_to, store_of
from tests.contracts.visiting import contact_with_password, known, sign_in, signed_in, staff_with_password
from tests.people import staff

_ID = CompanyId("00000000-0000-7000-8000-000000000000")


async def sealed(shop: Shop, limit: int = 1000) -> int:
    """Seal what waits of this company. Returns how much."""
    ports, now = shop.distribu.ports, shop.distribu.ports.clock.now()
    return await ports.seals.seal(
        sealing(ports.notary, now), recorded, limit=limit, now=now, company_id=shop.company.id
    )


async def entries(shop: Shop, count: int, **more: Any) -> None:
    """So many entries in the log."""
    for number in range(count):
        await shop.execute(RecordAudit(action=f"entry_{number}", **more))


async def heads_of(shop: Shop) -> list[Head]:
    """Every head of the company."""
    async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:
        return list(await tx.seals.heads(after=0, limit=1000))


async def rows_of(shop: Shop) -> list[SealedRow]:
    """Every sealed record of the company."""
    async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:
        return list(await tx.seals.rows(after=-1, limit=1000))


async def exported(shop: Shop, actor: Actor | None = None, **wanted: Any) -> list[bytes]:
    """The lines of an export."""
    pieces: AsyncIterator[bytes] = await shop.execute(ExportAudit(**wanted), actor)
    return b"".join([piece async for piece in pieces]).splitlines(keepends=True)


def offline(shop: Shop, lines: list[bytes], kept: HeadView | None = None) -> Inspection:
    """What the offline verifier says, with the public keys alone."""
    keys = read_keys(key.public for key in shop.distribu.ports.notary.keys)
    head = None if kept is None else read_head(encode(kept).decode())
    inspection = Inspection(keys, kept=head)
    for line in lines:
        inspection.read(line)
    inspection.finish()
    return inspection


class SealsContract:
    """Places, heads, and who hears of them."""

    async def test_every_record_gets_a_place_in_order_and_once(self, shop: Harness) -> None:
        await entries(shop, 6)
        assert [await sealed(shop, 4), await sealed(shop, 4), await sealed(shop, 4)] == [4, 3, 0]
        rows = await rows_of(shop)
        assert [row.position for row in rows] == list(range(7))
        assert [row.id for row in rows] == [record.id for record in await log_of(shop)]
        assert [row.leaf for row in rows] == [leaf((row.body or "").encode()) for row in rows]

    async def test_a_head_is_chained_to_the_one_before_and_signed_over_all_there_is(
        self, shop: Harness
    ) -> None:
        for _ in range(3):
            await entries(shop, 2)
            await sealed(shop)
            shop.clock.advance(seconds=1)
        heads = await heads_of(shop)
        assert [(it.number, it.size) for it in heads] == [(1, 3), (2, 5), (3, 7)]
        assert heads[0].previous == NO_HEAD
        for before, head in pairwise(heads):
            assert head.previous == hashlib.sha256(signed_text(before)).hexdigest()
            assert head.at - before.at == timedelta(seconds=1)
        assert {it.company_id for it in heads} == {shop.company.id}
        assert {it.key for it in heads} == {shop.distribu.ports.notary.keys[0].id}

    async def test_two_who_seal_at_once_make_one_log(self, shop: Harness) -> None:
        await entries(shop, 30)
        counts = await asyncio.gather(*(sealed(shop, 10) for _ in range(5)))
        counts.append(await sealed(shop))
        assert sum(counts) == 31
        heads = await heads_of(shop)
        assert [it.number for it in heads] == list(range(1, len(heads) + 1))
        assert [row.position for row in await rows_of(shop)] == list(range(31))
        assert (await shop.execute(VerifyAudit())).sound

    async def test_what_waits_is_told_with_its_time_until_it_is_sealed(self, shop: Harness) -> None:
        await sealed(shop)
        shop.clock.advance(seconds=1)
        first = shop.clock.now()
        await entries(shop, 2)
        shop.clock.advance(seconds=1)

        async def waiting(seconds: int, limit: int = 10, customer: Any = None) -> list[SealedRow]:
            before = first + timedelta(seconds=seconds)
            async with store_of(shop).begin(scope_of(shop, customer), readonly=True) as tx:
                return list(await tx.seals.waiting(before=before, limit=limit))

        assert await waiting(0) == []
        rows, log = await waiting(1), await log_of(shop, "custom")
        assert [row.id for row in rows] == [record.id for record in log]
        assert {(row.position, row.leaf, (row.fields or {})["at"]) for row in rows} == {(None, None, first)}
        assert len(await waiting(1, limit=1)) == 1
        assert await waiting(9, customer=await shop.customer()) == []
        await sealed(shop)
        assert await waiting(9) == []

    async def test_companies_are_sealed_apart(self, shop: Harness) -> None:
        other = await shop.stranger()
        await sealed(shop)
        assert await heads_of(other) == []
        await sealed(other)
        (ours,), (theirs,) = await heads_of(shop), await heads_of(other)
        assert ours.root != theirs.root

    async def test_webhooks_are_told_once_a_minute_and_of_the_last_head_in_the_end(
        self, shop: Harness
    ) -> None:
        url = "http://localhost:9000/" + shop.company.id
        await shop.webhook(WireEvent.AUDIT_SEALED, url=url)
        told = []
        for second in range(0, 130, 10):
            await entries(shop, 1)
            await shop.work()
            told.append((second, len(sent_to(shop, url))))
            shop.clock.advance(seconds=10)
        assert [count for _, count in told] == [1] * 6 + [2] * 6 + [3]
        await entries(shop, 1)
        await shop.work()
        shop.clock.advance(minutes=1)
        await shop.work()
        assert len(sent_to(shop, url)) == 4
        shop.clock.advance(minutes=5)
        await shop.work()
        assert len(sent_to(shop, url)) == 4, "nothing new is nothing to tell"
        last = json.loads(sent_to(shop, url)[-1].body)["data"]
        assert last == json.loads(encode(head_view((await heads_of(shop))[-1])))

    async def test_a_head_is_told_to_nobody_who_did_not_ask_and_recorded_nowhere(self, shop: Harness) -> None:
        await shop.webhook(WireEvent.PRODUCT_CREATED)
        await shop.work()
        before = len(await log_of(shop))
        shop.clock.advance(minutes=2)
        await entries(shop, 1)
        await shop.work()
        assert len(await log_of(shop)) == before + 1
        assert [it for it in shop.received if it.headers["X-Webhook-Event"] == "audit.sealed"] == []

    async def test_webhooks_that_ask_are_told_of_every_record_in_the_order_of_the_log(
        self, shop: Harness
    ) -> None:
        url = "http://localhost:9000/" + shop.company.id
        await shop.work()
        await shop.webhook(WireEvent.AUDIT_RECORDED, url=url)
        ada = Actor.staff(shop.company.id, Role.ADMIN, id="u-1", label="Ada", ip="192.0.2.7")
        await shop.execute(RecordAudit(action="hello", metadata={"a": [1]}), ada)
        await entries(shop, 3)
        await sealed(shop, 2)
        await shop.work()
        told = [json.loads(it.body) for it in sent_to(shop, url)]
        shown = [json.loads(encode(views.of(record))) for record in (await log_of(shop))[1:]]
        rows = {row.id: row for row in await rows_of(shop)}
        assert [it["data"] for it in sorted(told, key=lambda it: it["position"])] == [
            one | {"position": rows[one["id"]].position, "leaf": (rows[one["id"]].leaf or b"").hex()}
            for one in shown
        ]
        assert [it["data"]["position"] for it in told] == [1, 2, 3, 4, 5]
        hello = told[1]["data"]
        assert (hello["actorLabel"], hello["ip"], hello["metadata"]) == ("Ada", "192.0.2.7", {"a": [1]})
        assert {(it["event"], it["id"] == it["data"]["id"]) for it in told} == {("audit.recorded", True)}
        assert told[1]["occurredAt"] == hello["at"]
        await shop.work()
        assert len(sent_to(shop, url)) == 5, "that they were told is recorded nowhere"

    async def test_who_keeps_what_was_told_can_make_the_tree_again(self, shop: Harness) -> None:
        url = "http://localhost:9000/" + shop.company.id
        await shop.webhook(WireEvent.AUDIT_RECORDED, WireEvent.AUDIT_SEALED, url=url)
        await entries(shop, 4)
        await shop.work()
        told = [json.loads(it.body) for it in sent_to(shop, url)]
        leaves = [bytes.fromhex(it["data"]["leaf"]) for it in told if it["event"] == "audit.recorded"]
        (head,) = [it["data"] for it in told if it["event"] == "audit.sealed"]
        assert head["size"] == len(leaves) == 6
        assert Frontier().extended(leaves).root.hex() == head["root"]

    async def test_nobody_is_told_of_records_who_did_not_ask(self, shop: Harness) -> None:
        other = await shop.stranger()
        url = "http://localhost:9000/" + other.company.id
        webhook, _ = await other.webhook(WireEvent.AUDIT_RECORDED, url=url)
        await shop.webhook(WireEvent.AUDIT_SEALED, WireEvent.PRODUCT_CREATED)
        await other.execute(EditWebhook(webhook_id=webhook.id, events=(WireEvent.PRODUCT_CREATED,)))
        await entries(shop, 2)
        await entries(other, 2)
        await shop.work()
        feeds = [await one.execute(ListEvents()) for one in (shop, other)]
        assert "audit.recorded" not in {it.name for feed in feeds for it in feed.items}
        assert sent_to(shop, url) == []

    async def test_who_is_switched_off_is_told_later_what_was_missed(self, shop: Harness) -> None:
        """The feed has it, and the next delivery says behind which one it comes."""
        url = "http://localhost:9000/" + shop.company.id
        webhook, _ = await shop.webhook(WireEvent.AUDIT_RECORDED, url=url)
        await shop.work()
        await shop.execute(EditWebhook(webhook_id=webhook.id, is_active=False))
        await shop.work()
        missed = (await log_of(shop))[-1]
        await shop.execute(EditWebhook(webhook_id=webhook.id, is_active=True))
        await shop.work()
        before, after = [json.loads(it.body) for it in sent_to(shop, url)][-2:]
        assert after["previous"] > before["position"]
        feed = await shop.execute(ListEvents(after=before["position"], limit=1))
        assert feed.items[0].id == missed.id

    async def test_what_was_told_of_records_names_an_erased_person_no_more(self, shop: Harness) -> None:
        url = "http://localhost:9000/" + shop.company.id
        await shop.webhook(WireEvent.AUDIT_RECORDED, url=url)
        ada, bo = (
            Actor.staff(shop.company.id, Role.ADMIN, id=id, label=f"{id}@acme.example", ip="192.0.2.88")
            for id in ("ada", "bo")
        )
        for actor in (ada, bo):
            await shop.execute(RecordAudit(action="hello"), actor)
        await shop.work()
        for actor in (ada, bo):
            await shop.execute(RecordAudit(action="again"), actor)
        await sealed(shop)
        assert await shop.distribu.ports.seals.erase(shop.company.id, ada.label) == 2
        feed = await shop.execute(ListEvents())
        told = [json.loads(it.payload) for it in feed.items if it.name == "audit.recorded"]
        assert [it["actorLabel"] for it in told if it["action"] == "custom.hello"] == [None, bo.label]
        assert [it["ip"] for it in told if it["action"] == "custom.hello"] == [None, "192.0.2.88"]
        await shop.work()
        last = [json.loads(it.body)["data"] for it in sent_to(shop, url)][-2:]
        assert [(it["actorLabel"], it["ip"]) for it in last] == [(None, None), (bo.label, "192.0.2.88")]

    async def test_who_may_not_read_the_log_subscribes_nothing_to_it(self, shop: Harness) -> None:
        """Nor does a key send it elsewhere, or read it from the feed."""
        key = key_of(shop, *SCOPES)
        mine, _ = await shop.webhook(WireEvent.AUDIT_RECORDED)
        other, _ = await shop.webhook(WireEvent.PRODUCT_CREATED)
        for request in each(
            RegisterWebhook(url="http://localhost:9000/", events=(WireEvent.AUDIT_RECORDED,)),
            EditWebhook(webhook_id=other.id, events=(WireEvent.AUDIT_RECORDED,)),
            EditWebhook(webhook_id=mine.id, url="http://localhost:9000/mine"),
        ):
            with pytest.raises(Forbidden):
                await shop.execute(request, key)
        await shop.work()
        names = {it.name for it in (await shop.execute(ListEvents(), key)).items}
        assert "audit.recorded" not in names
        assert "audit.recorded" in {it.name for it in (await shop.execute(ListEvents())).items}

    async def test_the_owner_gets_a_head_by_mail_once_a_week_when_there_is_one(self, shop: Harness) -> None:
        owner = await staff(shop, Role.OWNER)
        await shop.work()
        shop.clock.advance(days=6, hours=23)
        await shop.work()
        assert [it for it in shop.mail if "audit log" in it.subject] == []
        shop.clock.advance(hours=2)
        await shop.work()
        await shop.work()
        (letter,) = [it for it in shop.mail if "audit log" in it.subject]
        assert letter.to == owner.user.email
        (newest,) = (await heads_of(shop))[-1:]
        (kept,) = [line for line in letter.text.splitlines() if line.startswith("{")]
        assert read_head(kept) == json.loads(encode(head_view(newest)))
        assert f"distribu audit verify --company {shop.company.slug} --head head.txt" in letter.text
        broken = "\r\n> ".join(textwrap.wrap(letter.text, 60)).replace("> ", "")
        for text in (letter.text, broken):  # whole, and as a mail program breaks its lines
            verdict = await shop.execute(VerifyAudit(head=text))
            assert (verdict.sound, verdict.findings) == (True, [])
        shop.clock.advance(days=8)
        await shop.work()
        assert len([it for it in shop.mail if "audit log" in it.subject]) == 1
        await entries(shop, 1)
        await shop.work()
        shop.clock.advance(minutes=1)
        await shop.work()
        assert len([it for it in shop.mail if "audit log" in it.subject]) == 2

    async def test_a_letter_that_fails_keeps_no_other_back(
        self, shop: Harness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = await shop.stranger()
        await staff(shop, Role.OWNER)
        owner = await staff(other, Role.OWNER)
        await seal(shop.distribu)
        shop.clock.advance(days=8)
        await entries(shop, 1)
        work, woken = MailHead.run, []

        async def run(request: MailHead, work_: Work) -> None:
            if work_.company_id == shop.company.id:
                raise ValueError("no letter for this one")
            await work(request, work_)

        monkeypatch.setattr(MailHead, "run", run)
        monkeypatch.setattr(shop.distribu, "wake", lambda: woken.append(True))
        await seal(shop.distribu)
        assert woken
        monkeypatch.undo()
        await shop.work()
        assert [it.to for it in shop.mail if "audit log" in it.subject] == [owner.user.email]
        shop.clock.advance(minutes=10)
        await shop.work()
        assert len([it for it in shop.mail if "audit log" in it.subject]) == 2

    async def test_a_letter_that_is_claimed_is_nobody_elses_until_the_claim_runs_out(
        self, shop: Harness
    ) -> None:
        seals = shop.distribu.ports.seals
        await sealed(shop)
        shop.clock.advance(days=7)

        async def claim() -> bool:
            due = await seals.claim_letters(limit=1000, now=shop.clock.now(), claim_s=60)
            return shop.company.id in due

        assert [await claim(), await claim()] == [True, False]
        shop.clock.advance(seconds=60)
        assert await claim()
        await seals.mailed(shop.company.id, now=shop.clock.now())
        shop.clock.advance(days=30)
        assert not await claim()

    async def test_a_person_is_erased_from_one_company_alone(self, shop: Harness) -> None:
        other = await shop.stranger()
        for one in (shop, other):
            ada = Actor.staff(one.company.id, Role.ADMIN, id="u-1", label="Ada Admin", ip="192.0.2.81")
            await one.execute(RecordAudit(action="hello"), ada)
        assert await shop.distribu.ports.seals.erase(shop.company.id, "Ada Admin") == 1
        assert await shop.distribu.ports.seals.erase(shop.company.id, "Ada Admin") == 0
        assert [(it.label, it.ip) for it in await log_of(shop, "custom.hello")] == [(None, None)]
        assert [it.label for it in await log_of(other, "custom.hello")] == ["Ada Admin"]

    async def test_where_an_erased_person_signed_in_from_goes_with_them(self, shop: Harness) -> None:
        """To the log they were a visitor then; it names their account, or the session of a contact."""
        bo = await contact_with_password(shop, await shop.customer())
        ada, eve = await staff_with_password(shop, Role.ADMIN), await staff_with_password(shop)
        await shop.webhook(WireEvent.AUDIT_RECORDED)
        await shop.execute(SignOut(), await signed_in(shop, bo, store=shop))
        await shop.execute(RecordAudit(action="hello"), await signed_in(shop, ada))
        await sign_in(shop, eve)
        assert {it.label for it in await log_of(shop, "auth.login") if it.ip} == {"visitor"}
        await shop.work()
        await sign_in(shop, ada)
        await sealed(shop)
        for email in (bo, ada):
            assert await shop.distribu.ports.seals.erase(shop.company.id, email) >= 3
        idle = await staff_with_password(shop)
        await sign_in(shop, idle)
        assert (await shop.execute(ErasePerson(label=idle))).entries >= 1, "who has done nothing else, too"
        assert (await shop.execute(ErasePerson(label="Nobody"))).entries == 0
        (left,) = [it for it in await log_of(shop) if it.ip]
        assert (left.action, left.entity_id) == ("auth.login", (await known(shop, eve)).id)
        await shop.work()
        feed = [json.loads(it.payload) for it in (await shop.execute(ListEvents())).items]
        assert [it["id"] for it in feed if it.get("ip")] == [left.id]
        assert (await shop.execute(VerifyAudit())).sound


class NotaryContract:
    """Ed25519, with a ring."""

    async def test_what_it_signs_it_knows_again(self, notary: Notary) -> None:
        head = _head(notary)
        assert [found async for found in _looked_at(notary, head)] == []

    async def test_it_knows_nothing_that_was_altered_or_signed_by_another(
        self, notary: Notary, another_notary: Notary
    ) -> None:
        head = _head(notary)
        for altered in (head | {"size": 2}, head | {"root": "0" * 64}, head | {"signature": "AAAA"}):
            assert "not_the_kept_head" in [found async for found in _looked_at(notary, altered)]
        assert "not_the_kept_head" in [found async for found in _looked_at(another_notary, head)]

    async def test_what_is_no_head_is_refused(self, notary: Notary) -> None:
        for text in ("", "{}", "[]", "null", '{"type":1}', "x" * 10_000, "[" * 5_000):
            with pytest.raises(Invalid) as refused:
                notary.examine(_ID, text)
            assert set(refused.value.fields) == {"head"}


def _head(notary: Notary) -> dict[str, Any]:
    head: dict[str, Any] = {
        "type": "distribu.audit.head",
        "v": 1,
        "companyId": _ID,
        "number": 1,
        "size": 1,
        "root": leaf(b"{}").hex(),
        "at": "2026-01-31T09:30:00.000Z",
        "previous": NO_HEAD,
        "key": notary.keys[0].id,
    }
    return head | {"signature": notary.sign(json.dumps(head, separators=(",", ":")).encode())}


async def _looked_at(notary: Notary, kept: dict[str, Any]) -> AsyncIterator[str]:
    """The kinds of what is found in an empty log with this head kept, but for that it is empty."""
    inspection = notary.examine(_ID, json.dumps(kept))
    inspection.read(b'{"type":"distribu.audit.export","v":1,"companyId":"%s","whole":true}' % _ID.encode())
    inspection.read(b'{"type":"end","records":0,"heads":0}')
    for kind, _ in inspection.verdict().findings:
        if kind != "tail_cut":
            yield kind


class SealingUseCases:
    """Verify, export, erase."""

    async def test_a_log_is_found_as_it_was_sealed(self, shop: Harness) -> None:
        for _ in range(3):
            await entries(shop, 3)
            await sealed(shop)
        verdict = await shop.execute(VerifyAudit())
        assert (verdict.sound, verdict.records, verdict.heads, verdict.findings) == (True, 10, 3, [])
        assert verdict.head == head_view((await heads_of(shop))[-1])

    async def test_what_is_not_sealed_yet_is_nothing_wrong(self, shop: Harness) -> None:
        assert (await shop.execute(VerifyAudit())).sound
        await sealed(shop)
        await entries(shop, 3)
        verdict = await shop.execute(VerifyAudit())
        assert (verdict.sound, verdict.records) == (True, 1)

    async def test_every_head_that_was_kept_is_known_again(self, shop: Harness) -> None:
        for _ in range(3):
            await entries(shop, 2)
            await sealed(shop)
        for head in await heads_of(shop):
            kept = encode(head_view(head)).decode()
            assert (await shop.execute(VerifyAudit(head=kept))).sound
            body = json.dumps({"event": "audit.sealed", "data": json.loads(kept)}, indent=2)
            assert (await shop.execute(VerifyAudit(head=body))).sound

    async def test_a_head_of_another_company_is_told_apart(self, shop: Harness) -> None:
        other = await shop.stranger()
        await sealed(shop)
        await sealed(other)
        kept = head_view((await heads_of(other))[-1])
        with pytest.raises(Invalid) as refused:
            await shop.execute(VerifyAudit(head=encode(kept).decode()))
        told = f"this head is of another company, {other.company.id}: --company?"
        assert refused.value.fields == {"head": told}
        checked = offline(shop, await exported(shop), kept)
        assert [it.kind for it in checked.findings] == ["not_the_kept_head"]
        assert checked.unfit == told.removesuffix(": --company?")

    async def test_an_export_holds_all_and_is_checked_with_the_public_key_alone(self, shop: Harness) -> None:
        await entries(shop, 5, metadata={"of": 'ü"\\\n', "record": {"record": 1}})
        await sealed(shop)
        await entries(shop, 2)
        lines = await exported(shop)
        checked = offline(shop, lines, head_view((await heads_of(shop))[0]))
        assert checked.findings == []
        assert (checked.records, checked.heads) == (9, 2)
        records = [json.loads(line) for line in lines if b'"type":"record"' in line]
        assert [it["position"] for it in records] == list(range(9))
        assert records[-1]["record"]["action"] == "audit.exported"
        assert records[-1]["record"]["metadata"] == {"format": "JSONL", "filters": {}}
        assert records[1]["record"]["metadata"]["of"] == 'ü"\\\n'
        assert records[1]["person"]["label"] == shop.actor.label

    async def test_pages_make_no_difference(self, shop: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
        await entries(shop, 9)
        for count in (1, 3, 1, 4):
            await sealed(shop, count)
        whole = await exported(shop)
        monkeypatch.setattr("distribu.application.sealing.PAGE", 2)
        monkeypatch.setattr("distribu.application.sealing.BLOCK", 4)
        again = await exported(shop)
        assert again[1:11] == whole[1:11]
        assert offline(shop, again).findings == []
        assert offline(shop, await exported(shop, action="custom")).findings == []

    @pytest.mark.parametrize("block", [2, 4, 256])
    async def test_a_part_of_the_log_comes_with_a_proof_of_every_record(
        self, shop: Harness, monkeypatch: pytest.MonkeyPatch, block: int
    ) -> None:
        monkeypatch.setattr("distribu.application.sealing.BLOCK", block)
        await entries(shop, 11)
        later = shop.clock.advance(hours=1)
        await shop.product()
        parts: list[dict[str, Any]] = [
            {"action": "custom"},
            {"action": "custom.entry_3"},
            {"since": later},
            {"until": later, "entity_type": "Company"},
            {"actor_type": ActorKind.API_KEY},
        ]
        for wanted in parts:
            lines = await exported(shop, **wanted)
            checked = offline(shop, lines)
            assert checked.findings == [], wanted
            spoilt = [line.replace(b'"v":1', b'"v":2') if b'"record"' in line else line for line in lines]
            assert len(offline(shop, spoilt).findings) == checked.records
            assert (checked.records == 0) == ("actor_type" in wanted)
        lines = await exported(shop, action="custom")
        assert [json.loads(line)["record"]["action"] for line in lines if b'"record"' in line] == [
            f"custom.entry_{number}" for number in range(11)
        ]

    async def test_a_part_of_the_log_is_checked_against_no_head_that_was_kept(self, shop: Harness) -> None:
        """It shows neither that all between its records are there, nor that they are those of before."""
        await entries(shop, 3)
        await sealed(shop)
        kept = head_view((await heads_of(shop))[-1])
        checked = offline(shop, await exported(shop, action="custom"), kept)
        assert [it.kind for it in checked.findings] == ["not_the_kept_head"]
        assert "part of the log" in (checked.unfit or "")
        assert (checked.whole, checked.filters) == (False, {"action": "custom"})

    async def test_an_unknown_key_is_told_once(self, shop: Harness) -> None:
        for _ in range(3):
            await entries(shop, 1)
            await sealed(shop)
        inspection = Inspection(read_keys([base64.b64encode(bytes(32)).decode()]))
        for line in await exported(shop):
            inspection.read(line)
        inspection.finish()
        (found,) = inspection.findings
        assert found.kind == "unknown_key"
        assert found.what.startswith(f"unknown key {shop.distribu.ports.notary.keys[0].id}, ")
        assert "`distribu audit keys`" in found.what

    @pytest.mark.parametrize("odd", ["NaN", "Infinity", "-1", "1.0", "true", '"1"', "1e400"])
    async def test_a_number_that_is_none_proves_nothing(self, shop: Harness, odd: str) -> None:
        """Neither as the place of a record that nobody signed nor as the size of a head."""
        for _ in range(2):
            await shop.product()
        lines = await exported(shop)
        records = [line for line in lines if b'"type":"record"' in line]
        place = re.compile(rb'"position":[0-9]+')
        forged = place.sub(b'"position":' + odd.encode(), records[-1])
        end = json.loads(lines[-1])
        end["records"] += 1
        for changed in (
            [*lines[:-1], forged, json.dumps(end).encode()],
            [place.sub(b'"position":' + odd.encode(), line) for line in lines],
            [re.sub(rb'"size":[0-9]+', b'"size":' + odd.encode(), line) for line in lines],
            [
                re.sub(rb'"number":[0-9]+,"size"', b'"number":' + odd.encode() + b',"size"', line)
                for line in lines
            ],
        ):
            assert not offline(shop, changed).sound

    async def test_a_part_names_no_record_twice(self, shop: Harness) -> None:
        await shop.product()
        lines = await exported(shop, action="product.created")
        end = json.loads(lines[-1])
        end["records"] += 1
        record = next(line for line in lines if b'"type":"record"' in line)
        twice = [*lines[:-1], record, json.dumps(end).encode()]
        (found,) = offline(shop, twice).findings
        assert "is taken already" in found.what

    async def test_what_waits_to_be_sealed_is_told_and_whether_for_too_long(self, shop: Harness) -> None:
        await sealed(shop)
        await entries(shop, 2)
        (first, _), at = await log_of(shop, "custom"), shop.clock.now()

        async def told(*, overdue: bool) -> None:
            verdict = await shop.execute(VerifyAudit())
            assert (verdict.sound, verdict.records) == (True, 1), "what is sealed is as it was"
            expected = WaitingView(records=2, since=views.time(at), first=first.id, overdue=overdue)
            assert verdict.waiting == expected

        shop.clock.advance(minutes=5)
        await told(overdue=False)
        shop.clock.advance(milliseconds=1)
        await told(overdue=True)
        await sealed(shop)
        assert (await shop.execute(VerifyAudit())).waiting is None

    async def test_an_export_that_was_cut_off_says_so(self, shop: Harness) -> None:
        await entries(shop, 3)
        lines = await exported(shop)
        assert [it.kind for it in offline(shop, lines[:-1]).findings] == ["incomplete"]
        without = [*lines[:2], *lines[3:]]
        assert {it.kind for it in offline(shop, without).findings} >= {"removed", "incomplete"}

    async def test_who_has_taken_the_log_out_is_in_it(self, shop: Harness) -> None:
        admin = Actor.staff(shop.company.id, Role.ADMIN, id="u-1", label="ada@acme.example", ip="192.0.2.4")
        since = shop.clock.now()
        await exported(shop, admin, format=ExportFormat.CSV, action="order", since=since)
        (told,) = await log_of(shop, "audit.exported")
        assert (told.label, told.metadata["format"]) == ("ada@acme.example", "CSV")
        assert set(told.metadata["filters"]) == {"action", "since"}

    async def test_csv_is_one_row_for_each_record_and_no_formula(self, shop: Harness) -> None:
        await entries(shop, 1, entity_type="=1+1", entity_id="-2", metadata={"a": 'b,"c"\n'})
        lines = await exported(shop, format=ExportFormat.CSV)
        head, *rows = csv.reader(io.StringIO(b"".join(lines).decode(), newline=""))
        assert len(rows) == 3
        row = dict(zip(head, rows[1], strict=True))
        assert (row["action"], row["entityType"], row["entityId"]) == ("custom.entry_0", "'=1+1", "'-2")
        assert json.loads(row["metadata"]) == {"a": 'b,"c"\n'}
        assert row["actorLabel"] == shop.actor.label

    async def test_ocsf_says_what_a_siem_asks_for(self, shop: Harness) -> None:
        ada = Actor.staff(shop.company.id, Role.ADMIN, id="u-1", label="Ada", ip="192.0.2.4")
        await shop.execute(RecordAudit(action="hello", entity_type="Report", entity_id="7"), ada)
        await shop.execute(RecordAudit(action="deleted"))
        await shop.product()
        lines = await exported(shop, format=ExportFormat.OCSF)
        events = [json.loads(line) for line in lines]
        assert [(it["metadata"]["event_code"], it["activity_name"]) for it in events] == [
            ("company.created", "Create"),
            ("custom.hello", "custom.hello"),
            ("custom.deleted", "custom.deleted"),
            ("product.created", "Create"),
            ("stock.received", "Update"),
            ("audit.exported", "Read"),
        ]
        for place, event in enumerate(events):
            assert event["time"] == round(shop.clock.now().timestamp() * 1000)
            assert event["metadata"]["tenant_uid"] == shop.company.id
            assert event["metadata"]["sequence"] == place
        hello = events[1]
        assert (hello["actor"]["user"]["name"], hello["src_endpoint"]["ip"]) == ("Ada", "192.0.2.4")
        assert hello["entity"] == {"type": "Report", "uid": "7"}
        assert hello["unmapped"]["actorType"] == "USER"
        assert events[-1]["entity"] == {"type": "Company", "uid": shop.company.id}

    async def test_who_may_not_read_the_log_may_not_take_it_out(self, shop: Harness) -> None:
        customer = await shop.customer()
        member = Actor.staff(shop.company.id, Role.MEMBER, id="u-1", label="Mo")
        for actor in (member, contact_of(shop, customer), key_of(shop, *())):
            for request in each(ExportAudit(), VerifyAudit(), ErasePerson(label="Ada")):
                with pytest.raises(Forbidden):
                    await shop.execute(request, actor)
        admin = Actor.staff(shop.company.id, Role.ADMIN, id="u-2", label="Ada")
        with pytest.raises(Forbidden):
            await shop.execute(ErasePerson(label="Ada"), admin)

    async def test_an_erased_person_is_named_nowhere_and_every_proof_holds(self, shop: Harness) -> None:
        canary = Actor.staff(
            shop.company.id, Role.ADMIN, id="u-1", label="canary@acme.example", ip="192.0.2.99"
        )
        await shop.execute(RecordAudit(action="hello"), canary)
        await shop.execute(RecordAudit(action="again"), canary)
        before = await exported(shop)
        assert b"canary" in b"".join(before)
        kept = head_view((await heads_of(shop))[-1])
        erased = await shop.execute(ErasePerson(label="canary@acme.example"))
        assert erased.entries == 2
        verdict = await shop.execute(VerifyAudit(head=encode(kept).decode()))
        assert (verdict.sound, verdict.nameless) == (True, 2)
        after = await exported(shop)
        checked = offline(shop, after, kept)
        assert (checked.findings, checked.nameless) == ([], 2)
        for gone in (b"canary", b"192.0.2.99"):
            assert gone not in b"".join(after)
        (told,) = await log_of(shop, "audit.person_erased")
        assert (told.label, told.metadata) == (shop.actor.label, {})

    async def test_records_with_shifted_field_boundaries_are_not_alike(self, shop: Harness) -> None:
        """Two records whose fields, one behind the other, read the same are two leaves."""
        await shop.execute(RecordAudit(action="a", entity_type="bc", entity_id="d"))
        await shop.execute(RecordAudit(action="a", entity_type="b", entity_id="cd"))
        await shop.execute(RecordAudit(action="a", entity_type='b","entityId":"c', entity_id="d"))
        await sealed(shop)
        bodies = [json.loads(row.body or "") for row in (await rows_of(shop))[1:]]
        same = {"id": "", "at": "", "person": ""}
        leaves = {leaf(encode(body | same)) for body in bodies}
        assert len(leaves) == len(bodies) == 3
        people = [
            Person(id="", salt=b"s" * 16, label="ab", ip="c"),
            Person(id="", salt=b"s" * 16, label="a", ip="bc"),
            Person(id="", salt=b"s" * 15, label="sab", ip="c"),
        ]
        assert len({person.digest for person in people}) == 3

    async def test_the_worker_seals_what_every_company_has_waiting(self, shop: Harness) -> None:
        other = await shop.stranger()
        await entries(shop, 2)
        while await seal(shop.distribu):
            pass
        assert [len(await rows_of(one)) for one in (shop, other)] == [3, 1]
