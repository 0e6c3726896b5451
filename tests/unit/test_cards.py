"""Numbers of payment cards are seen wherever they stand, and the trade's other long numbers let be."""

import random
import re
from collections.abc import Callable
from decimal import Decimal
from time import process_time
from typing import Any, Final

import pytest
from hypothesis import given, strategies as st

from distribu import Harness, Invalid, Role, amount
from distribu.application import fields
from distribu.application.access import CreateApiKey
from distribu.application.audit import RecordAudit
from distribu.application.catalog import CreateProduct
from distribu.application.customers import CreateCustomer, NewAddress
from distribu.application.kernel import Once
from distribu.application.sessions import SignIn
from distribu.application.webhooks import RegisterWebhook
from distribu.domain.access import SCOPES
from distribu.domain.cards import holds_card
from distribu.domain.webhooks import WireEvent

VISA: Final = "4242424242424242"
CARDS: Final = {
    "Visa": VISA,
    "Visa of 19": "4000000000000000006",
    "Mastercard": "5555555555554444",
    "Mastercard from 2": "2223003122003222",
    "American Express": "378282246310005",
    "Discover": "6011111111111117",
    "JCB": "3566002020360505",
    "UnionPay": "6200000000000005",
    "UnionPay of 19": "6205500000000000004",
    "Maestro": "6759649826438453",
    "Mir": "2200000000000004",
    "Diners Club of 16": "3600000000000008",
}
"""Numbers for tests, as the schemes and Stripe publish them, or made of a range and its check digit."""

AROUND: Final = [
    "{}",
    "my card is {}, thanks",
    "4 {} 12/27 123",
    "({})",
    "card:{}.",
    "#{}#",
    "12/27,{},123",
    '{{"pan":"{}"}}',
    "https://pay.example/?n={}&m=1",
    "x" * 5_000 + "\n{}\n",
    "DE89 3704 0044 0532 0130 00 {}",
]


BETWEEN: Final = [
    *("", " ", "  ", "-", " - ", "--", ".", "/", "_", "\t"),
    *("\N{NO-BREAK SPACE}", "\N{NARROW NO-BREAK SPACE}", "\N{IDEOGRAPHIC SPACE}", "\N{NON-BREAKING HYPHEN}"),
    *("\N{EN DASH}", "\N{EM DASH}", "\N{MINUS SIGN}", "\N{MIDDLE DOT}", "\N{FULLWIDTH HYPHEN-MINUS}"),
    *("\N{SOFT HYPHEN}", "\N{ZERO WIDTH SPACE}", " \N{ZERO WIDTH SPACE}", "\N{WORD JOINER}"),
]


def grouped(number: str, by: str) -> str:
    """As it is embossed."""
    places = (4, 10, 15) if len(number) == 15 else (4, 8, 12, 16, 19)
    return by.join(number[begin:end] for begin, end in zip((0, *places), places, strict=False)).strip(by)


@pytest.mark.parametrize("number", CARDS.values(), ids=CARDS)
def test_a_card_is_seen_in_one_piece_and_in_groups(number: str) -> None:
    for text in AROUND:
        for by in BETWEEN:
            assert holds_card(text.format(grouped(number, by))), (text[:20], by)


def test_what_stands_below_it_hides_none() -> None:
    assert holds_card("4111 1111 1111 1111\n737")


@pytest.mark.parametrize("number", CARDS.values(), ids=CARDS)
def test_any_number_of_its_back_may_follow(number: str) -> None:
    codes = [f"{code:0{length}}" for length in (3, 4) for code in range(0, 10**length, 10 ** (length - 3))]
    for by in (" ", "-", ".", "/", "  ", " - "):
        for card in (number, grouped(number, by)):
            missed = [code for code in codes if not holds_card(card + by + code)]
            assert missed == [], (card, by)
        for dates in ("12/27 {}", "{} 12/27 737", "{} 1227 737", "{}  1227", "1227 {}", "12/2027 {} 737 "):
            assert holds_card(dates.format(grouped(number, by))), (by, dates)


def test_no_longer_reading_hides_a_shorter_one_nor_the_other_way_round() -> None:
    assert holds_card("4111 1111 1111 1111 737"), "19 digits that are none"
    assert holds_card("4000 0000 0000 0000 006"), "19 of which the first 16 are none"
    assert holds_card("1.4111 1111 1111 1111"), "what is grouped is no fraction"


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111  1111\t1111",
        "41111111 11111111",
        "41111111-11111111",
        "3782 8224 6310 005",
        "3782 8224 6310 005 1234",
        "4111\u200b1111\u200b1111\u200b1111",
        "41\u00ad11 11\u00ad11 1111 11\u00ad11",
        "4\u20601\u20601\u20601111111111111",
        "card\u200b4111111111111111\ufeff.",
        "card\u200b\u200b4111\u00ad1111\u00ad1111\u00ad1111\u200b\u200bthanks",
        "4111111111111111\u200b20 pieces",
        "\u202a4111 1111 1111 1111\u202c",
        "\uff14\uff11\uff11\uff11\uff0d\uff11\uff11\uff11\uff11\uff0d\uff11\uff11\uff11\uff11\uff0d\uff11\uff11\uff11\uff11",
        "\u0664\u0661\u0661\u0661 \u0661\u0661\u0661\u0661 \u0661\u0661\u0661\u0661 \u0661\u0661\u0661\u0661",
        "\u5361\u53f74111111111111111\u3002",
        "\u756a\u53f74111-1111-1111-1111\u3067\u3059",
    ],
)
def test_it_is_seen_however_it_is_typed(text: str) -> None:
    assert holds_card(text)


@pytest.mark.parametrize(
    "text",
    [
        "4111,1111,1111,1111",
        "4111 1111-1111 1111",
        "4111111111111111737",
        "41111111\n11111111",
        "4111 11111111 1111",
        "4111 x 1111 x 1111 x 1111",
        "4111 1111\n1111 1111",
        "4111\r\n1111\r\n1111\r\n1111",
        "\u2463\u2460\u2460\u2460111111111111",
    ],
)
def test_what_is_let_through_on_purpose(text: str) -> None:
    """What docs/decisions/0030 says."""
    assert not holds_card(text)


PIECES: Final = [
    *("4", "4 ", "4444 ", "4444  ", "4444  --  ", "4444\t \t ", "44444444 ", "4444-4444 4444444444"),
    *("42424242424242424 ", "4000 0000 0000 0000 000 ", "DE12 4242 4242 4242 4241 ", "AA11 ", "DE89 3704 "),
    *("a", " ", "-", "\u200b", "a\u200b4", "4\u00ad", "4\u00ad444 "),
    *("\u0664\u0664\u0664\u0664 ", "0.4444444444444444 ", "4444 444444 "),
]  # fmt: skip


@pytest.mark.parametrize("piece", PIECES)
def test_no_text_takes_longer_than_its_length(piece: str) -> None:
    """64 KiB within a second; where the time grew with the square, it were minutes."""
    text = (piece * (fields.JSON_MAX // len(piece.encode()) + 1))[: fields.JSON_MAX]
    begun = process_time()
    holds_card(text)
    assert process_time() - begun < 1


def test_diners_club_of_14_is_seen_as_it_is_embossed() -> None:
    assert holds_card("Diners: 3056 930902 5904")
    assert holds_card("Diners: 3056 9309 0259 04")
    assert not holds_card("30569309025904"), "a GTIN-14 in one piece, or an id of a shop's"


def test_digits_of_any_script_are_digits() -> None:
    assert holds_card(VISA.translate({ord("0") + n: ord("\N{FULLWIDTH DIGIT ZERO}") + n for n in range(10)}))


@pytest.mark.parametrize("number", CARDS.values(), ids=CARDS)
def test_one_digit_more_less_or_other_is_no_card(number: str) -> None:
    for place, digit in enumerate(number):
        other = number[:place] + str((int(digit) + 1) % 10) + number[place + 1 :]
        assert not holds_card(other), "Luhn's sum sees every other digit"
    for text in (f"x{number}", f"{number}x", f"0.{number}", number + "0" * 4, number[:-4]):
        assert not holds_card(text), text


# --- what else is long -----------------------------------------------------------------------


def _digits(dice: random.Random, count: int) -> str:
    return "".join(dice.choices("0123456789", k=count))


def _of_gs1(length: int) -> Callable[[random.Random], str]:
    """Any number of GS1's of a length, with its check digit (General Specifications, 7.9.1)."""

    def made(dice: random.Random) -> str:
        body = _digits(dice, length - 1)
        total = sum(int(one) * (3 if place % 2 == 0 else 1) for place, one in enumerate(reversed(body)))
        return body + str(-total % 10)

    return made


def _imei(dice: random.Random) -> str:
    """A telephone's, which ends with Luhn's check digit too (3GPP TS 23.003, annex B)."""
    body = dice.choice(["01", "35", "86", "99"]) + _digits(dice, 12)
    total = sum(sum(divmod(int(one) * (2 - place % 2), 10)) for place, one in enumerate(reversed(body)))
    return body + str(-total % 10)


def _iban(dice: random.Random) -> str:
    """An account's, as it is printed (ISO 13616-1)."""
    country, length = dice.choice([("DE", 18), ("ES", 20), ("HU", 24), ("PL", 24), ("FR", 23), ("MT", 27)])
    account = _digits(dice, length)
    check = 98 - int("".join(str(int(one, 36)) for one in f"{account}{country}00")) % 97
    plain = f"{country}{check:02}{account}"
    return " ".join(plain[begin : begin + 4] for begin in range(0, len(plain), 4))


OTHERS: Final[dict[str, Callable[[random.Random], str]]] = {
    "GTIN-12": _of_gs1(12),
    "GTIN-13": _of_gs1(13),
    "GTIN-14": _of_gs1(14),
    "SSCC-18": _of_gs1(18),
    "IMEI": _imei,
    "IBAN": _iban,
    "IBAN in a sentence": lambda dice: f"To {_iban(dice)} by 2027-01-31 or12 4010 4020",
    "telephone": lambda dice: "+" + dice.choice(["44", "49", "55", "62", "39"]) + _digits(dice, 11),
    "id of a shop's": lambda dice: dice.choice("34567") + _digits(dice, 13),
    "time in nanoseconds": lambda dice: "17" + _digits(dice, 17),
    "id that grows with time": lambda dice: "1" + _digits(dice, 18),
    "GTIN-8s in a list": lambda dice: ", ".join(_of_gs1(8)(dice) for _ in range(3)),
    "GTIN-8s in lines": lambda dice: "\n".join(_of_gs1(8)(dice) for _ in range(3)),
    "days": lambda dice: f"202{_digits(dice, 5)} 202{_digits(dice, 5)}",
    "years": lambda dice: "/".join("20" + _digits(dice, 2) for _ in range(4)),
    "share": lambda dice: "0." + _digits(dice, 16),
    "telephones in pairs": lambda dice: " / ".join(
        " ".join(_digits(dice, 2) for _ in range(4)) for _ in "12"
    ),
}


@pytest.mark.parametrize("made", OTHERS.values(), ids=OTHERS)
def test_no_other_long_number_of_the_trade_is_taken_for_one(made: Callable[[random.Random], str]) -> None:
    dice = random.Random(30)
    taken = [text for text in (made(dice) for _ in range(20_000)) if holds_card(text)]
    assert taken == []


ANY: Final = {
    "16 in one piece": ("{16}", 0.041),
    "4-4-4-4": ("{4} {4} {4} {4}", 0.041),
    "8-8": ("{8} {8}", 0.041),
    "19 in one piece": ("{19}", 0.030),
    "4-4-4-4-3": ("{4} {4} {4} {4} {3}", 0.068),
    "eight of four": ("{4} {4} {4} {4} {4} {4} {4} {4}", 0.188),
    "15 in one piece": ("{15}", 0.002),
    "4-4-4-3": ("{4} {4} {4} {3}", 0.002),
    "4-4-4-2": ("{4} {4} {4} {2}", 0.0037),
}
"""How digits may stand, and which share of all that stand so looks like a card."""


@pytest.mark.parametrize(("form", "share"), ANY.values(), ids=ANY)
def test_how_often_any_digits_are_taken_for_one(form: str, share: float) -> None:
    """What docs/decisions/0030 says: there is no other way to tell these apart."""
    dice = random.Random(30)
    texts = (re.sub(r"{(\d+)}", lambda it: _digits(dice, int(it[1])), form) for _ in range(50_000))
    rate = sum(map(holds_card, texts)) / 50_000
    assert 0.8 * share < rate < 1.2 * share


# --- where texts come in ---------------------------------------------------------------------


def _address(**more: str) -> NewAddress:
    given: dict[str, Any] = {"line1": "12 High Street", "city": "Leeds", "country": "GB", **more}
    return NewAddress(**given)


def _told(what: Any) -> RecordAudit:
    return RecordAudit(action="a", metadata={"a": what})


WHERE: Final[dict[str, tuple[str, Callable[[], object]]]] = {
    "a text": ("name", lambda: CreateProduct(name=VISA, price=amount("1"))),
    "one that may be missing": ("sku", lambda: CreateProduct(name="Oat", price=amount("1"), sku=VISA)),
    "one of a form": (
        "imageUrl",
        lambda: CreateProduct(name="Oat", price=amount("1"), image_url=f"https://x.example/{VISA}"),
    ),
    "one inside": ("line2", lambda: CreateCustomer(email="a@b.example", addresses=(_address(line2=VISA),))),
    "a URL": ("url", lambda: RegisterWebhook(url=f"https://x.example/{VISA}", events=(*WireEvent,))),
    "a name": ("name", lambda: CreateApiKey(name=grouped(VISA, "-"), scopes=SCOPES)),
    "free JSON": ("metadata", lambda: _told([{"b": f"x {VISA}"}])),
    "a key of it": ("metadata", lambda: RecordAudit(action="a", metadata={VISA: 1})),
    "a line of it": ("metadata", lambda: _told("card:\n4242 4242 4242 4242")),
    "after a tab": ("metadata", lambda: _told(f"card\t{VISA}")),
    "a key inside": ("metadata", lambda: _told([{f"pan\n{VISA}": 1}])),
    "a key that is a number": ("metadata", lambda: _told({int(VISA): 1})),
    "a number below zero": ("metadata", lambda: _told([[-int(VISA)]])),
    "a power of ten": ("metadata", lambda: _told(Decimal("4.242424242424242E15"))),
    "a set": ("metadata", lambda: _told({VISA})),
    "a number in it": ("metadata", lambda: _told(int(VISA))),
    "an Idempotency-Key": ("Idempotency-Key", lambda: Once(VISA, lambda _: b"")),
}  # fmt: skip


@pytest.mark.parametrize(("field", "make"), WHERE.values(), ids=WHERE)
def test_it_is_refused_by_one_code_wherever_it_stands(field: str, make: Callable[[], object]) -> None:
    with pytest.raises(Invalid) as no:
        make()
    assert (no.value.code, list(no.value.fields)) == ("card_number", [field])
    assert VISA not in f"{no.value} {no.value.fields}"


def test_what_is_hashed_may_be_anything() -> None:
    assert SignIn(email="a@b.example", password=VISA).password == VISA


JSONS: Final = [
    r'"card:\n4242 4242 4242 4242"',
    r'"card:\t4242424242424242"',
    r'"card:\u000a4242424242424242"',
    r'"\u0034\u0032424242424242\u00342"',
    r'"card\u200b4242\u00ad4242\u00ad4242\u00ad4242"',
    r'[[{"a":[{"\n4242-4242-4242-4242 737":null}]}]]',
    "4242424242424242",
    "-4242424242424242.0",
    "4.242424242424242e15",
    '{"4242424242424242":0}',
    "[" * 400 + '"\\n4242424242424242"' + "]" * 400,
]


@pytest.mark.parametrize("value", JSONS)
async def test_free_json_is_looked_through_as_what_it_says(shop: Harness, value: str) -> None:
    body = f'{{"action":"a","metadata":{{"a":{value}}}}}'.encode()
    async with (await shop.sign_in(Role.OWNER)).browser as browser:
        answer = await browser.post("/audit", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "card_number"), answer.text


def test_free_json_holds_what_is_no_card() -> None:
    deep: Any = 4242
    for _ in range(400):
        deep = [deep]
    held = {
        "a": deep,
        "b": [4242, "4242", True, None, 1.5, 10**400, -(10**19), Decimal("1e999")],
        "c": VISA[:15],
    }
    assert RecordAudit(action="a", metadata=held).metadata == held


async def test_over_http_it_is_a_400_that_says_where_and_not_what(shop: Harness) -> None:
    one = {"name": "A", "price": 1}
    async with await shop.api() as api, (await shop.sign_in(Role.OWNER)).browser as browser:
        answers = [
            await api.post("/products", json=one | {"name": f"Card {VISA}"}),
            await api.post("/products", json=one, headers={"idempotency-key": VISA}),
            await api.get("/products", params={"search": VISA}),
            await browser.post("/audit", json={"action": "a", "metadata": {"note": VISA}}),
        ]
    assert [(one.status_code, one.json()["code"]) for one in answers] == [(400, "card_number")] * 4
    assert not any(VISA in one.text for one in answers)


@given(st.text(alphabet="0123456789 .-/é", max_size=80))
def test_any_text_is_looked_through(text: str) -> None:
    assert holds_card(f"{text} {VISA} {text}")
    assert holds_card(text) in (True, False)
