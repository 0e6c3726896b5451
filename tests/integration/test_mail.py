"""The way of a mail: outbox, worker, Resend's own SDK, and a stub of Resend at the other end."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psycopg
import pytest
import resend as sdk
from aiohttp import web

from distribu import Distribu, Harness, Secret, Settings, Shop
from distribu.adapters import resend as outgoing
from distribu.adapters.mail import MAILBOX_MAX, Mailbox
from distribu.adapters.memory.twins import Received
from distribu.adapters.resend import ResendMailer
from distribu.application.ports import Mailer, MailNotSent, Reply
from distribu.container import Container, mailbox, running
from distribu.entrypoints.http.serve import listening
from distribu.entrypoints.worker import CLAIM_S, MAILS, Worker
from tests.contracts.mailing import STATIONERY, sample
from tests.contracts.postgres import OnPostgres, on_postgres
from tests.integration.test_walls import superuser
from tests.stubs.resend import Resend, resend

A = "019b8d62-7a80-72d3-a65b-000000000001"
B = "019b8d62-7a80-72d3-a65b-000000000002"
KEY = Secret("re_stub_key")


@pytest.fixture
async def stub() -> AsyncIterator[Resend]:
    async with resend() as stub:
        yield stub


@pytest.fixture
async def mailer(stub: Resend) -> AsyncIterator[ResendMailer]:
    mailer = ResendMailer(STATIONERY, KEY, base_url=stub.url)
    yield mailer
    await mailer.close()


async def not_sent(mailer: Mailer, to: str = "bo@corner-shop.example") -> MailNotSent:
    """Why the sample is not taken; neither the address nor the key is said."""
    with pytest.raises(MailNotSent) as no:
        await mailer.send(sample(A, to=to))
    for told in (str(no.value), repr(no.value)):
        assert to not in told
        assert KEY.reveal() not in told
    return no.value


class TestTheRequest:
    async def test_it_says_all_that_resend_is_to_know(self, stub: Resend, mailer: ResendMailer) -> None:
        await mailer.send(sample(A))
        (asked,) = stub.asked
        written = STATIONERY.write(sample(A))
        assert asked.body == {
            "from": '"Acme Foods" <orders@mail.example>',
            "to": ["bo@corner-shop.example"],
            "subject": "Your order 1001 at Acme Foods",
            "text": written.text,
            "html": written.html,
        }
        headers = {name.lower(): value for name, value in asked.headers.items()}
        assert headers["idempotency-key"] == A
        assert headers["authorization"] == "Bearer re_stub_key"
        assert headers["content-type"] == "application/json"
        assert headers["user-agent"].startswith("resend-python:")

    async def test_mails_share_connections(self, stub: Resend, mailer: ResendMailer) -> None:
        await mailer.send(sample(A))
        pool = mailer._pool
        for _ in range(3):
            await mailer.send(sample(B))
        assert mailer._pool is pool
        assert pool is not None
        transport: Any = pool._transport
        assert len(transport._pool.connections) == 1

    async def test_two_senders_do_not_mix_their_keys_and_a_host_keeps_its_own(
        self, stub: Resend, mailer: ResendMailer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sdk, "api_key", "re_of_the_host")
        before = (sdk.api_key, sdk.api_url, sdk.default_async_http_client)
        async with resend() as theirs:
            theirs.keys = {"re_other"}
            other = ResendMailer(STATIONERY, Secret("re_other"), base_url=theirs.url)
            stub.go_on.clear()
            sending = [asyncio.create_task(mailer.send(sample(A))) for _ in range(3)]
            await asyncio.sleep(0.05)
            # While the first waits for its answer, nobody else finds its key.
            assert (sdk.api_key, sdk.api_url, sdk.default_async_http_client) == before
            await other.send(sample(B))
            stub.go_on.set()
            await asyncio.gather(*sending)
            await other.close()
        assert {one.headers["Authorization"] for one in stub.asked} == {"Bearer re_stub_key"}
        assert {one.headers["Authorization"] for one in theirs.asked} == {"Bearer re_other"}
        assert (list(stub.sent), list(theirs.sent)) == ([A], [B])
        assert (sdk.api_key, sdk.api_url, sdk.default_async_http_client) == before

    async def test_the_globals_are_given_back_after_a_failure(self, mailer: ResendMailer) -> None:
        before = (sdk.api_key, sdk.api_url, sdk.default_async_http_client)
        lost = ResendMailer(STATIONERY, KEY, base_url="http://127.0.0.1:1")
        await not_sent(lost)
        await lost.close()
        assert (sdk.api_key, sdk.api_url, sdk.default_async_http_client) == before


class TestRefusals:
    @pytest.mark.parametrize(
        ("status", "name", "final"),
        [
            (400, "validation_error", True),
            (413, "too_large", True),
            (422, "validation_error", True),
            (422, "missing_required_field", True),
            (422, "invalid_from_address", False),
            (401, "missing_api_key", False),
            (401, "restricted_api_key", False),
            (403, "invalid_api_key", False),
            (403, "validation_error", False),
            (404, "not_found", False),
            (405, "method_not_allowed", False),
            (409, "concurrent_idempotent_requests", False),
            (429, "rate_limit_exceeded", False),
            (429, "daily_quota_exceeded", False),
            (451, "security_error", False),
            (500, "application_error", False),
            (500, "internal_server_error", False),
            (503, "service_unavailable", False),
        ],
    )
    async def test_only_what_can_never_succeed_is_final(
        self, stub: Resend, mailer: ResendMailer, status: int, name: str, final: bool
    ) -> None:
        stub.refuses(status, name)
        no = await not_sent(mailer)
        assert (str(no), no.final, no.retry_after_s) == (f"Resend answered {status} {name}", final, None)

    @pytest.mark.parametrize(
        ("said", "wait_s"), [("7", 7), ("86400", 86_400), ("soon", None), ("-1", None), ("7.5", None)]
    )
    async def test_it_waits_as_long_as_it_is_told(
        self, stub: Resend, mailer: ResendMailer, said: str, wait_s: int | None
    ) -> None:
        stub.refuses(429, "rate_limit_exceeded", retry_after=said)
        assert (await not_sent(mailer)).retry_after_s == wait_s

    async def test_what_resend_says_of_an_address_is_not_repeated(
        self, stub: Resend, mailer: ResendMailer
    ) -> None:
        no = await not_sent(mailer, "@no-name.example")
        assert (str(no), no.final) == ("Resend answered 422 validation_error", True)
        stub.refuses(500, "bo@corner-shop.example cannot be reached")
        assert str(await not_sent(mailer)) == "Resend answered 500 unknown"

    @pytest.mark.parametrize("how", ["unknown", "none of ours"])
    async def test_a_wrong_key_is_told_to_the_operator_and_the_mail_waits(
        self, stub: Resend, mailer: ResendMailer, caplog: pytest.LogCaptureFixture, how: str
    ) -> None:
        if how == "unknown":
            stub.keys = set()
        else:
            stub.answers(web.Response(status=403, text="<h1>Forbidden</h1>", content_type="text/html"))
        no = await not_sent(mailer)
        assert not no.final
        (said,) = [one for one in caplog.records if one.levelno >= logging.ERROR]
        assert "DISTRIBU_RESEND_KEY" in said.getMessage()
        assert "re_stub_key" not in caplog.text
        assert "bo@corner-shop.example" not in caplog.text

    @pytest.mark.parametrize(
        "answer",
        [
            {"status": 200, "text": "<html>", "content_type": "text/html"},
            {"status": 200, "text": "{", "content_type": "application/json"},
            {"status": 200, "text": "null", "content_type": "application/json"},
            {"status": 200, "text": "[]", "content_type": "application/json"},
            {"status": 200, "text": "{}", "content_type": "application/json"},
            {"status": 302, "text": "{}", "content_type": "application/json"},
            {"status": 200, "text": '{"id":"1"' + " " * 100_000 + "}", "content_type": "application/json"},
            {"status": 502, "text": "", "content_type": "text/html"},
            {"status": 500, "text": '{"name":7,"message":[]}', "content_type": "application/json"},
        ],
    )
    async def test_nonsense_is_no_receipt(
        self, stub: Resend, mailer: ResendMailer, answer: dict[str, Any]
    ) -> None:
        stub.answers(web.Response(**answer))
        assert not (await not_sent(mailer)).final

    async def test_a_lost_answer_is_no_receipt_and_asking_again_sends_nothing_twice(
        self, stub: Resend, mailer: ResendMailer
    ) -> None:
        stub.drops_answers = 1
        no = await not_sent(mailer)
        assert str(no).startswith("Resend was not reached: ")
        assert not no.final
        await mailer.send(sample(A))
        assert (len(stub.asked), list(stub.sent)) == (2, [A])

    async def test_a_mail_that_went_out_in_other_words_is_not_sent_again(
        self, stub: Resend, mailer: ResendMailer, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A new version of a template, say, between an answer that was lost and the next attempt."""
        await mailer.send(sample(A, product="Oat"))
        await mailer.send(sample(A, product="Rye"))
        assert "Oat" in stub.sent[A]["text"]
        assert A in caplog.text

    async def test_nobody_listening_and_no_such_host_are_tried_again(self) -> None:
        for url in ("http://127.0.0.1:1", "http://no-such.invalid"):
            mailer = ResendMailer(STATIONERY, KEY, base_url=url)
            no = await not_sent(mailer)
            assert (str(no), no.final) == ("Resend was not reached: ConnectError", False)
            await mailer.close()

    async def test_ten_seconds_is_what_it_may_take_in_all(
        self, stub: Resend, mailer: ResendMailer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert outgoing.SEND_TIMEOUT_S == 10
        monkeypatch.setattr(outgoing, "SEND_TIMEOUT_S", 0.2)
        stub.go_on.clear()
        no = await not_sent(mailer)
        assert (str(no), no.final) == ("no answer within 0.2 s", False)
        stub.go_on.set()
        await mailer.send(sample(B))


# --- the outbox and the worker -------------------------------------------------------------------


@pytest.fixture(scope="module")
async def harness(settings: Settings) -> AsyncIterator[OnPostgres]:
    async with on_postgres(settings) as harness:
        yield harness


@pytest.fixture
async def shop(harness: OnPostgres) -> AsyncIterator[Harness]:
    async with harness as shop:
        yield shop


@pytest.fixture
def posting(shop: Harness, mailer: ResendMailer) -> Distribu:
    """The same Distribu, mailing by Resend."""
    return Distribu(replace(shop.distribu.ports, mailer=mailer))


class Outbox:
    """The table, seen by somebody who is bound by nothing."""

    def __init__(self, settings: Settings, company: str) -> None:
        self.url = superuser(settings)
        self.company = company

    def rows(self) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            return connection.execute(
                "SELECT status, attempts, error, recipient, letter, sealed, next_attempt_at, claimed_until"
                " FROM distribu.mails WHERE company_id = %s ORDER BY id",
                [self.company],
            ).fetchall()


@pytest.fixture
def outbox(settings: Settings, shop: Harness) -> Outbox:
    return Outbox(settings, shop.company.id)


async def ordered(shop: Shop) -> str:
    """An order, and whom it mails."""
    customer = await shop.customer()
    await shop.order(customer, (await shop.product(), 2))
    return customer.email


class TestTheWorker:
    async def test_what_fails_three_times_is_sent_once_and_leaves_no_content(
        self, shop: Harness, posting: Distribu, stub: Resend, outbox: Outbox
    ) -> None:
        to = await ordered(shop)
        stub.refuses(500, "application_error", times=3)
        worker = Worker(posting)
        for attempts, wait_s in enumerate((5, 300, 1800), 1):
            await worker.drain()
            ((status, made, error, recipient, letter, _, due, claimed),) = outbox.rows()
            assert (status, made, recipient) == ("PENDING", attempts, to)
            assert error == "Resend answered 500 application_error"
            assert "Oat Flour" in letter
            assert (claimed, stub.sent) == (None, {})
            assert 0.8 * wait_s <= (due - shop.clock.now()).total_seconds() <= 1.2 * wait_s
            shop.clock.advance(seconds=wait_s * 1.2)
        await worker.drain()
        assert outbox.rows() == [("SENT", 4, "", "", "", None, None, None)]
        shop.clock.advance(days=5)
        await worker.drain()
        assert [mail["to"] for mail in stub.sent.values()] == [[to]]
        assert len(stub.asked) == 4
        assert {one.headers["Idempotency-Key"] for one in stub.asked} == set(stub.sent)

    async def test_a_crash_between_sending_and_saying_so_sends_nothing_twice(
        self, shop: Harness, posting: Distribu, stub: Resend, outbox: Outbox, caplog: pytest.LogCaptureFixture
    ) -> None:
        to = await ordered(shop)
        queue: Any = posting.ports.queue

        class Falls:
            """The queue, but for the last step."""

            def __getattr__(self, name: str) -> Any:
                return getattr(queue, name)

            async def finish_mail(self, *_: Any, **__: Any) -> None:
                raise ConnectionError("the machine is gone")

        falling: Any = Falls()
        await Worker(Distribu(replace(posting.ports, queue=falling))).drain()
        assert len(stub.sent) == 1
        ((status, attempts, *_),) = outbox.rows()
        assert (status, attempts) == ("PENDING", 0)
        shop.clock.advance(seconds=CLAIM_S - 1)
        await Worker(posting).drain()
        assert len(stub.asked) == 1
        shop.clock.advance(seconds=1)
        await Worker(posting).drain()
        assert len(stub.asked) == 2
        assert [mail["to"] for mail in stub.sent.values()] == [[to]]
        assert outbox.rows()[0][0] == "SENT"
        assert to not in caplog.text

    async def test_a_lost_answer_sends_nothing_twice(
        self, shop: Harness, posting: Distribu, stub: Resend, outbox: Outbox
    ) -> None:
        await ordered(shop)
        stub.drops_answers = 1
        await Worker(posting).drain()
        shop.clock.advance(seconds=6)
        await Worker(posting).drain()
        assert (len(stub.asked), len(stub.sent)) == (2, 1)
        assert outbox.rows()[0][:2] == ("SENT", 2)

    async def test_two_workers_send_each_mail_once(
        self, shop: Harness, posting: Distribu, stub: Resend
    ) -> None:
        for _ in range(12):
            await ordered(shop)
        await asyncio.gather(*(Worker(posting).drain() for _ in range(3)))
        assert len(stub.asked) == len(stub.sent) == 12

    async def test_what_can_never_be_sent_is_given_up_at_once(
        self, shop: Harness, posting: Distribu, stub: Resend, outbox: Outbox
    ) -> None:
        await ordered(shop)
        stub.refuses(422, "validation_error")
        await Worker(posting).drain()
        error = "Resend answered 422 validation_error"
        assert outbox.rows() == [("DEAD", 1, error, "", "", None, None, None)]
        shop.clock.advance(days=5)
        await Worker(posting).drain()
        assert len(stub.asked) == 1

    async def test_what_is_never_taken_is_given_up_after_ten_attempts(
        self, shop: Harness, posting: Distribu, stub: Resend, outbox: Outbox
    ) -> None:
        await ordered(shop)
        stub.keys = set()
        for _ in range(11):
            await Worker(posting).drain()
            shop.clock.advance(days=2)
        assert len(stub.asked) == 10
        assert outbox.rows()[0][:2] == ("DEAD", 10)

    async def test_a_wait_that_is_asked_for_is_kept(
        self, shop: Harness, posting: Distribu, stub: Resend, outbox: Outbox
    ) -> None:
        await ordered(shop)
        stub.refuses(429, "rate_limit_exceeded", retry_after="90")
        await Worker(posting).drain()
        assert outbox.rows()[0][6] == shop.clock.now() + timedelta(seconds=90)
        shop.clock.advance(seconds=89)
        await Worker(posting).drain()
        assert stub.sent == {}
        shop.clock.advance(seconds=1)
        await Worker(posting).drain()
        assert len(stub.sent) == 1

    async def test_a_slow_resend_holds_up_no_webhook(
        self, shop: Harness, posting: Distribu, stub: Resend
    ) -> None:
        for _ in range(MAILS + 2):
            await ordered(shop)
        await shop.webhook()
        stub.go_on.clear()
        worker, came = Worker(posting), asyncio.Event()

        def answer(_: Received) -> Reply:
            came.set()
            return Reply(200, {}, "", "")

        shop.receivers.answer = answer
        running = asyncio.create_task(worker.run())
        await shop.product()
        async with asyncio.timeout(5):
            await came.wait()
        assert len(stub.asked) <= MAILS
        assert stub.sent == {}
        stub.go_on.set()
        worker.stop()
        await running
        await worker.drain()
        assert len(stub.sent) == MAILS + 2


# --- which mailer, and the folder ------------------------------------------------------------------


class TestWhichMailer:
    def test_with_a_key_of_resend_it_is_resend_and_there_is_no_mailbox(self, settings: Settings) -> None:
        keyed = msgspec.structs.replace(settings, resend_key="re_1", mail_from="orders@mail.example")
        mailer = Container(settings=keyed).mailer()
        assert isinstance(mailer, ResendMailer)
        assert mailer.stationery.sender == "orders@mail.example"
        assert mailbox(keyed) is None

    def test_without_one_mails_are_kept(self, settings: Settings) -> None:
        mailer = Container(settings=settings).mailer()
        assert isinstance(mailer, Mailbox)
        assert mailer.folder == Path(settings.data_dir) / "mail"
        assert mailbox(settings) is not None

    async def test_the_mailbox_shows_what_a_worker_has_mailed(
        self, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """From an order to the page, as `distribu serve` puts it together."""
        caplog.set_level(logging.INFO, "distribu.mail")
        own = msgspec.structs.replace(settings, data_dir=str(tmp_path))
        async with running(own) as distribu, listening(distribu, "127.0.0.1", 0, mails=mailbox(own)) as url:
            shop = await Shop.open(distribu)
            async with httpx.AsyncClient(base_url=url) as browser:
                assert "No mail yet." in (await browser.get("/_mail")).text
                customer = await shop.customer(f"bo-{shop.company.id}@example.test")
                await shop.order(customer, (await shop.product("Oat & <b>Rye</b>"), 2))
                await Worker(distribu).drain()
                mine = [one for one in mailbox_of(own) if customer.email in one]
                subject = f"Your order 1001 at {shop.company.name}"
                assert f"mail to b***@example.test: {subject}" in caplog.text
                assert customer.email not in caplog.text
                assert customer.email in (await browser.get("/_mail")).text
                page = (await browser.get(f"/_mail/{mine[0].split()[0]}")).text
                assert subject in page
                mail = (await browser.get(f"/_mail/{mine[0].split()[0]}/html")).text
                assert "Oat &amp; &lt;b&gt;Rye&lt;/b&gt;" in mail

    async def test_without_a_mailbox_there_is_no_such_page(self, distribu: Distribu) -> None:
        async with listening(distribu, "127.0.0.1", 0) as url, httpx.AsyncClient(base_url=url) as browser:
            assert (await browser.get("/_mail")).status_code == 404


def mailbox_of(settings: Settings) -> list[str]:
    """Ids and recipients of what the folder holds."""
    found = mailbox(settings)
    assert found is not None
    return [f"{id} {mail.to}" for id in found.ids() if (mail := found.read(id))]


class TestTheFolder:
    async def test_it_is_the_owners_alone_and_holds_so_many(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert MAILBOX_MAX == 500
        monkeypatch.setattr("distribu.adapters.mail.MAILBOX_MAX", 3)
        kept = Mailbox(STATIONERY, tmp_path / "mail")
        for n in range(5):
            await kept.send(sample(f"{A[:-1]}{n}"))
        assert kept.ids() == [f"{A[:-1]}{n}" for n in (4, 3, 2)]
        assert (tmp_path / "mail").stat().st_mode & 0o777 == 0o700
        files = list((tmp_path / "mail").iterdir())
        assert len(files) == 3
        assert {path.stat().st_mode & 0o777 for path in files} == {0o600}

    async def test_what_is_no_mail_of_ours_is_not_read(self, tmp_path: Path) -> None:
        kept = Mailbox(STATIONERY, tmp_path / "mail")
        assert (kept.ids(), kept.read(A)) == ([], None)
        (tmp_path / "mail").mkdir()
        (tmp_path / "mail" / "notes.eml").write_text("mine")
        (tmp_path / "secret.eml").write_text("mine")
        assert kept.ids() == []
        for id in ("notes", "../secret", "", "..", A, "/etc/passwd\0"):
            assert kept.read(id) is None

    async def test_a_folder_that_cannot_be_written_to_is_a_mail_not_sent(self, tmp_path: Path) -> None:
        (tmp_path / "mail").write_text("a file")
        no = await not_sent(Mailbox(STATIONERY, tmp_path / "mail"))
        assert not no.final
