"""The mailbox page of development: what it shows, and what it lets a mail do."""

from collections.abc import AsyncIterator, Sequence
from html.parser import HTMLParser

import httpx
import pytest

from distribu import Harness, Settings
from distribu.adapters.mail import Arrived
from distribu.adapters.memory.twins import MovedClock, SeededEntropy
from distribu.application.letters import ResetYourPassword
from distribu.application.ports import Mail
from distribu.container import mailbox
from distribu.domain.values import Secret
from distribu.entrypoints.http.app import http_app
from distribu.entrypoints.http.browser import ALWAYS
from distribu.entrypoints.http.mailbox import PAGE
from distribu.settings import Environment
from tests.contracts.mailing import HOSTILE, STATIONERY, sample, tags


class Held:
    """A postbox in memory."""

    def __init__(self) -> None:
        self.mails: list[Arrived] = []
        self.clock = MovedClock()
        self._entropy = SeededEntropy(self.clock)

    def add(self, product: str = "Oat Flour", company: str = "Acme Foods") -> Arrived:
        self.mails.append(STATIONERY.write(sample(self._entropy.uuid(), product=product, company=company)))
        return self.mails[-1]

    def ids(self) -> Sequence[str]:
        return [mail.id for mail in reversed(self.mails)]

    def read(self, id: str) -> Arrived | None:
        return next((mail for mail in self.mails if mail.id == id), None)


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
async def browser(shop: Harness, held: Held) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(http_app(shop.distribu, mailbox=held))
    async with httpx.AsyncClient(transport=transport, base_url="http://distribu") as browser:
        yield browser


class _Shown(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.text.append(data.strip())


def shown(page: str) -> list[str]:
    """The texts of a page as its reader sees them."""
    reader = _Shown()
    reader.feed(page)
    reader.close()
    return reader.text


def links(page: str) -> list[str]:
    return [it["href"] or "" for tag, it in tags(page) if tag == "a"]


async def test_without_a_mailbox_it_is_not_there(shop: Harness) -> None:
    transport = httpx.ASGITransport(http_app(shop.distribu))
    async with httpx.AsyncClient(transport=transport, base_url="http://distribu") as browser:
        for path in ("/_mail", "/_mail/", "/_mail/mail.css"):
            assert (await browser.get(path)).status_code == 404


async def test_everything_else_is_as_it_was(shop: Harness, browser: httpx.AsyncClient) -> None:
    assert (await browser.get("/healthz")).json() == {"status": "ok"}
    for path in ("/_mailer", "/_mai", "/x/_mail"):
        assert (await browser.get(path)).json()["code"] == "not_found"


async def test_an_empty_mailbox_says_so(browser: httpx.AsyncClient) -> None:
    page = await browser.get("/_mail")
    assert page.status_code == 200
    assert "No mail yet." in shown(page.text)


async def test_the_newest_comes_first_with_its_time(held: Held, browser: httpx.AsyncClient) -> None:
    held.add(company="First Foods")
    held.clock.advance(hours=2, seconds=3)
    newest = held.add(company="Second Foods")
    texts = shown((await browser.get("/_mail")).text)
    assert texts.index(newest.subject) < texts.index("Your order 1001 at First Foods")
    assert {"2026-01-05 09:00:00 UTC", "2026-01-05 11:00:03 UTC", newest.to} <= set(texts)


async def test_older_ones_are_on_further_pages(held: Held, browser: httpx.AsyncClient) -> None:
    wanted = [f"/_mail/{held.add().id}" for _ in range(2 * PAGE + 1)][::-1]
    found, path, pages = [], "/_mail", 0
    while path:
        page = (await browser.get(path)).text
        found += [link for link in links(page) if link in wanted]
        path = next((link for link in links(page) if "before=" in link), "")
        pages += 1
    assert (found, pages) == (wanted, 3)


async def test_a_mail_is_shown_as_it_arrives_and_as_text(held: Held, browser: httpx.AsyncClient) -> None:
    mail = held.add()
    page = (await browser.get(f"/_mail/{mail.id}")).text
    assert {mail.subject, mail.sender, mail.to, mail.text.strip()} <= set(shown(page))
    (frame,) = (it for tag, it in tags(page) if tag == "iframe")
    assert frame["src"] == f"/_mail/{mail.id}/html"
    assert (await browser.get(frame["src"])).text.replace('<base target="_blank">', "", 1) == mail.html


async def test_a_mail_may_open_a_link_in_a_tab_and_nothing_more(
    held: Held, browser: httpx.AsyncClient
) -> None:
    letter = ResetYourPassword(store="acme", company="Acme Foods")
    mail = STATIONERY.write(Mail(held.add().id, "bo@corner-shop.example", letter, Secret("tok-en")))
    held.mails[:] = [mail]
    page = (await browser.get(f"/_mail/{mail.id}")).text
    (frame,) = (it for tag, it in tags(page) if tag == "iframe")
    may = set((frame["sandbox"] or "").split())
    assert may == {"allow-popups", "allow-popups-to-escape-sandbox"}
    shown_in = await browser.get(f"/_mail/{mail.id}/html")
    assert ("base", {"target": "_blank"}) in tags(shown_in.text)
    assert links(shown_in.text) == [mail.link]
    policy = dict(
        part.strip().partition(" ")[::2] for part in shown_in.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert "script-src" not in policy
    assert policy["frame-ancestors"] == "'self'"
    assert set(policy["sandbox"].split()) == may
    assert shown_in.headers["x-frame-options"] == "SAMEORIGIN"
    assert "cross-origin-opener-policy" not in shown_in.headers


async def test_every_page_carries_what_every_other_does(held: Held, browser: httpx.AsyncClient) -> None:
    mail = held.add()
    for path in ("/_mail", f"/_mail/{mail.id}", f"/_mail/{mail.id}/html", "/_mail/mail.css", "/_mail/none"):
        answer = await browser.get(path)
        for name, value in ALWAYS:
            if not (path.endswith("/html") and name in (b"x-frame-options", b"cross-origin-opener-policy")):
                assert answer.headers[name.decode()] == value.decode(), (path, name)
        assert answer.headers["cache-control"] == "no-store"
        assert "'unsafe" not in answer.headers["content-security-policy"] or path.endswith("/html")
        assert len(answer.headers.get_list("content-security-policy")) == 1
        for tag, it in tags(answer.text):
            assert tag != "script"
            assert "style" not in it or path.endswith("/html"), tag
            assert not any(name.startswith("on") for name in it), tag


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
async def test_no_name_breaks_out_of_the_page(held: Held, browser: httpx.AsyncClient, name: str) -> None:
    mail = held.add(product=name, company=name)
    for path in ("/_mail", f"/_mail/{mail.id}", "/_mail?before=%3Cscript%3E"):
        for tag, it in tags((await browser.get(path)).text):
            assert tag not in ("script", "img")
            assert not any(one.startswith("on") for one in it)


@pytest.mark.parametrize(
    "path", ["/_mail/none", "/_mail/none/html", "/_mail/{}/text", "/_mail/{}/html/x", "/_mail//x"]
)
async def test_what_is_not_there_is_said_so(held: Held, browser: httpx.AsyncClient, path: str) -> None:
    assert (await browser.get(path.format(held.add().id))).status_code == 404


async def test_it_can_only_be_read(held: Held, browser: httpx.AsyncClient) -> None:
    mail = held.add()
    for path in ("/_mail", f"/_mail/{mail.id}"):
        head = await browser.head(path)
        assert (head.status_code, head.content) == (200, b"")
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            assert (await browser.request(method, path)).status_code == 405
    assert held.mails == [mail]


def test_neither_production_nor_whoever_sends_has_a_mailbox() -> None:
    assert mailbox(Settings()) is not None
    assert mailbox(Settings(env=Environment.PRODUCTION)) is None
    assert mailbox(Settings(resend_key="re_1")) is None
