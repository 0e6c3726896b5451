"""What a mailer promises, and what the use cases mail, on any store."""

import asyncio
import re
from datetime import timedelta
from email import message_from_bytes
from email.message import EmailMessage
from html.parser import HTMLParser
from typing import Any, Protocol

import pytest

from distribu import Harness, Secret, Settings, Shop
from distribu.adapters.mail import WRITTEN, Arrived, Stationery
from distribu.application import views
from distribu.application.kernel import Once
from distribu.application.letters import OrderLine, OrderReceived, ResetYourPassword
from distribu.application.ordering import MoveOrder, PlaceOrder, Wanted
from distribu.application.ports import Mail, Mailer
from distribu.domain.ordering import Order, OrderStatus
from tests.contracts.asking import contact_of, outcomes, refused

STATIONERY = Stationery("orders@mail.example", "https://orders.example")

HOSTILE = {
    "tag": '<script>alert("1")</script>',
    "attribute": "\"><img src=https://evil.example/p onerror='x'>",
    "template": "{{ 7 * 7 }}{% for x in y %}",
    "header": "Acme\r\nBcc: eve@evil.example\r\n\r\nbody",
    "controls": "A\tc\x0bm\x0ce \x1c\x85Foods \x7f\x9f",
    "separators": "Ac\u2028me\u2029Foods",
    "quotes": "Acme \"The \\\" Foods, <Inc>; 'a': b@c.example",
    "encoded": "=?utf-8?q?Bcc=3A?= eve@evil.example",
    "encoded header": "=?utf-8?q?=0D=0ABcc=3A_eve=40evil.example?=",
    "right to left": "Acme \u202egpj.exe \N{DROMEDARY CAMEL} Größe",
    "long": "Fünf" * 50,
}
"""Names that people have thought of, or will."""


def sample(id: str, *, company: str = "Acme Foods", product: str = "Oat Flour", to: str = "") -> Mail:
    """The confirmation of an order."""
    line = OrderLine(name=product, sku="OAT-25", quantity=2, price="18.40 USD")
    letter = OrderReceived(company=company, number=1001, total="36.80 USD", lines=[line], more=0)
    return Mail(id, to or "bo@corner-shop.example", letter)


def parsed(arrived: Arrived) -> EmailMessage:
    """A mail as MIME, written and read again."""
    return message_from_bytes(arrived.message().as_bytes(), EmailMessage, policy=WRITTEN)


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def tags(html: str) -> list[tuple[str, dict[str, str | None]]]:
    """Every tag with its attributes, as a reader sees them."""
    reader = _Tags()
    reader.feed(html)
    reader.close()
    return reader.found


def unbroken(arrived: Arrived, sender: str = STATIONERY.sender) -> None:
    """No name has become a header, a tag, a resource or a line of its own."""
    message = parsed(arrived)
    assert message.defects == []
    wanted = {"From", "To", "Subject", "Message-ID", "MIME-Version", "Content-Type"}
    assert set(message.keys()) == wanted
    for name in ("From", "To", "Subject"):
        assert message[name].defects == (), name
    (by,) = message["From"].addresses
    (recipient,) = message["To"].addresses
    assert (by.addr_spec, recipient.addr_spec) == (sender, arrived.to)
    assert str(message["Subject"]).strip() == arrived.subject
    assert 0 < len(arrived.subject) <= 200
    for line in (arrived.subject, arrived.sender, *arrived.text.split("\n")):
        assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", line), line
    assert Arrived.read(arrived.id, message).text == arrived.text
    assert Arrived.read(arrived.id, message).html == arrived.html
    for tag, attributes in tags(arrived.html):
        assert tag in {
            "html", "head", "meta", "title", "body", "div", "h1", "p", "table", "tr", "td", "span", "strong",
            "a", "br",
        }, tag  # fmt: skip
        assert set(attributes) <= {"lang", "charset", "name", "content", "style", "href"}, attributes
        assert attributes.get("href") in (None, arrived.link)
        assert "url(" not in (attributes.get("style") or "")


class Letterbox(Protocol):
    """The other end of a mailer."""

    def arrived(self) -> list[Arrived]:
        """What came, oldest first."""
        ...


class MailerContract:
    """Fixtures ``mailer``, which writes on `STATIONERY`, and ``letterbox``, where its mails come out.

    Ids are those of the port Entropy, and rise.
    """

    A = "019b8d62-7a80-72d3-a65b-000000000001"
    B = "019b8d62-7a80-72d3-a65b-000000000002"

    async def test_a_mail_arrives_as_it_is_written(self, mailer: Mailer, letterbox: Letterbox) -> None:
        await mailer.send(sample(self.A))
        (mail,) = letterbox.arrived()
        assert mail.id == self.A
        assert mail.sender == '"Acme Foods" <orders@mail.example>'
        assert (mail.to, mail.subject) == ("bo@corner-shop.example", "Your order 1001 at Acme Foods")
        for part in (mail.text, mail.html):
            for fact in ("1001", "Acme Foods", "Oat Flour", "OAT-25", "18.40 USD", "36.80 USD"):
                assert fact in part, fact
        written = STATIONERY.write(sample(self.A))
        assert (mail.text, mail.html) == (written.text, written.html)

    async def test_a_link_is_complete_in_both_versions(self, mailer: Mailer, letterbox: Letterbox) -> None:
        letter = ResetYourPassword(store="acme", company="Acme Foods")
        await mailer.send(Mail(self.A, "bo@corner-shop.example", letter, Secret("tok-en_1")))
        (mail,) = letterbox.arrived()
        link = f"https://orders.example{letter.page}#tok-en_1"
        assert link in mail.text.split()
        assert link in [attributes.get("href") for _, attributes in tags(mail.html)]

    async def test_a_mail_sent_again_arrives_once(self, mailer: Mailer, letterbox: Letterbox) -> None:
        for _ in range(3):
            await mailer.send(sample(self.A))
        assert [mail.id for mail in letterbox.arrived()] == [self.A]

    async def test_each_mail_arrives(self, mailer: Mailer, letterbox: Letterbox) -> None:
        await mailer.send(sample(self.A))
        await mailer.send(sample(self.B))
        mails = letterbox.arrived()
        assert [mail.id for mail in mails] == [self.A, self.B]
        assert mails[0].text == mails[1].text

    async def test_many_go_out_at_once(self, mailer: Mailer, letterbox: Letterbox) -> None:
        mails = [sample(f"{self.A[:-2]}{n:02}", product=f"Flour {n}") for n in range(20)]
        await asyncio.gather(*(mailer.send(mail) for mail in mails))
        arrived = letterbox.arrived()
        assert sorted(mail.id for mail in arrived) == [mail.id for mail in mails]
        assert all(f"Flour {int(mail.id[-2:])}" in mail.text for mail in arrived)

    @pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
    async def test_no_name_breaks_out(self, mailer: Mailer, letterbox: Letterbox, name: str) -> None:
        await mailer.send(sample(self.A, company=name, product=name))
        (mail,) = letterbox.arrived()
        assert mail.to == "bo@corner-shop.example"
        letter = STATIONERY.write(sample(self.A, company=name, product=name))
        assert (mail.subject, mail.text, mail.html) == (letter.subject, letter.text, letter.html)
        unbroken(mail)


class MailUseCases:
    """Who is mailed about what."""

    async def test_an_order_mails_its_customer_once_with_its_number(self, shop: Harness) -> None:
        product, customer = await shop.product("Oat"), await shop.customer("bo@corner-shop.example")
        for number in (1001, 1002):
            await shop.order(customer, (product, 2))
            await shop.work()
            mail = shop.mail[-1]
            assert len(shop.mail) == number - 1000
            assert (mail.to, mail.subject) == (customer.email, f"Your order {number} at {shop.company.name}")
            for part in (mail.text, mail.html):
                assert str(number) in part
                assert "Oat" in part
                assert "20.00 USD" in part
                assert "\x01" not in part
        await shop.work()
        assert len(shop.mail) == 2

    async def test_the_same_order_under_the_same_key_mails_once(self, shop: Harness) -> None:
        product, customer = await shop.product(), await shop.customer()
        wish = PlaceOrder(customer_id=customer.id, items=(Wanted(product_id=product.id, quantity=1),))
        once: Once[Order] = Once("PO-1", lambda order: views.encode(views.of(order)))
        for again in (False, True, True):
            assert (await shop.distribu.execute_once(shop.actor, wish, once)).replayed is again
        await shop.work()
        assert [mail.to for mail in shop.mail] == [customer.email]

    async def test_many_orders_at_once_mail_each_its_own_number(self, shop: Harness) -> None:
        product = await shop.product()
        customers = [await shop.customer() for _ in range(5)]
        orders = await asyncio.gather(*(shop.order(it, (product, 1)) for it in customers))
        await shop.work()
        told = {mail.to: mail.subject for mail in shop.mail}
        assert told == {
            customer.email: f"Your order {order.number} at {shop.company.name}"
            for customer, order in zip(customers, orders, strict=True)
        }

    async def test_a_contacts_order_mails_its_customer(self, shop: Harness) -> None:
        product, customer = await shop.product(), await shop.customer()
        await shop.order(customer, (product, 1), actor=contact_of(shop, customer))
        await shop.work()
        assert [mail.to for mail in shop.mail] == [customer.email]

    async def test_an_order_that_is_refused_mails_nobody(self, shop: Harness) -> None:
        product, customer = await shop.product(stock=1), await shop.customer()
        async with refused(shop, "insufficient_stock"):
            await shop.order(customer, (product, 2))
        assert sorted(
            map(str, await outcomes(*(self._number(shop, customer, product) for _ in range(3))))
        ) == ["1001", "insufficient_stock", "insufficient_stock"]
        await shop.work()
        assert len(shop.mail) == 1

    async def _number(self, shop: Shop, customer: Any, product: Any) -> int:
        return (await shop.order(customer, (product, 1))).number

    @pytest.mark.parametrize(
        ("ago", "mails"), [(timedelta(days=2), 0), (timedelta(days=1, milliseconds=1), 0), (timedelta(1), 1)]
    )
    async def test_an_order_carried_over_mails_nobody(
        self, shop: Harness, ago: timedelta, mails: int
    ) -> None:
        product, customer = await shop.product(), await shop.customer()
        order = await shop.order(customer, (product, 1), placed_at=shop.clock.now() - ago)
        await shop.execute(MoveOrder(order_id=order.id, status=OrderStatus.CONFIRMED))
        await shop.work()
        assert len(shop.mail) == 2 * mails

    async def test_every_move_of_an_order_is_mailed(self, shop: Harness) -> None:
        product, customer = await shop.product(), await shop.customer()
        order = await shop.order(customer, (product, 1))
        moves: list[dict[str, Any]] = [
            {"status": OrderStatus.CONFIRMED},
            {"status": OrderStatus.SHIPPED, "carrier": "DHL", "tracking_number": "JD01 46"},
            {"status": OrderStatus.DELIVERED},
        ]
        for move in moves:
            await shop.execute(MoveOrder(order_id=order.id, **move))
        other = await shop.order(customer, (product, 1))
        await shop.execute(MoveOrder(order_id=other.id, status=OrderStatus.CANCELLED))
        await shop.work()
        name = shop.company.name
        assert sorted(mail.subject for mail in shop.mail) == sorted(
            [
                f"Your order 1001 at {name}",
                f"Your order 1001 at {name} is confirmed",
                f"Your order 1001 at {name} is shipped",
                f"Your order 1001 at {name} is delivered",
                f"Your order 1002 at {name}",
                f"Your order 1002 at {name} is cancelled",
            ]
        )
        assert {mail.to for mail in shop.mail} == {customer.email}
        (shipped,) = (mail for mail in shop.mail if "shipped" in mail.subject)
        for part in (shipped.text, shipped.html):
            assert "DHL" in part
            assert "JD01 46" in part

    async def test_a_move_that_is_refused_mails_nobody(self, shop: Harness) -> None:
        product, customer = await shop.product(), await shop.customer()
        order = await shop.order(customer, (product, 1))
        async with refused(shop, "illegal_transition"):
            await shop.execute(MoveOrder(order_id=order.id, status=OrderStatus.DELIVERED))
        await shop.work()
        assert len(shop.mail) == 1

    async def test_of_a_long_order_the_mail_shows_the_beginning(self, shop: Harness) -> None:
        products = [await shop.product(f"P{n:02}.", price="1.00") for n in range(53)]
        customer = await shop.customer()
        await shop.order(customer, *((it, 1) for it in products))
        await shop.work()
        (mail,) = shop.mail
        for part in (mail.text, mail.html):
            assert re.findall(r"P\d\d\.", part) == [f"P{n:02}." for n in range(50)]
            assert "and 3 more lines" in part

    @pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
    async def test_names_cannot_break_the_mail(self, shop: Harness, name: str) -> None:
        theirs = await Shop.open(shop.distribu, name[:100])
        product, customer = await theirs.product(name), await theirs.customer()
        await theirs.order(customer, (product, 1))
        await shop.work()
        (mail,) = shop.mail
        assert mail.to == customer.email
        unbroken(mail, Settings().mail_from)
