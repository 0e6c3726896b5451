"""Every kind of letter: both templates, whatever it holds, and nothing from elsewhere in them."""

import re
from email.headerregistry import Address
from enum import Enum
from html import escape
from itertools import product
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec
import pytest
from jinja2 import UndefinedError

from distribu import Secret
from distribu.adapters import mail as written
from distribu.application import letters, views
from distribu.application.ports import Letter, Mail
from tests.contracts.mailing import HOSTILE, STATIONERY, parsed, tags, unbroken

FOLDER = Path(written.__file__).parent / "letters"
KINDS = letters.kinds()
ID = "019b8d62-7a80-72d3-a65b-000000000001"
TOKEN = Secret("tok-en_1")


def named(kind: type[Letter]) -> str:
    return kind.__name__


def sample(kind: Any, *, text: str = "Acme Foods", yes: bool = True, many: int = 2) -> Any:
    """A value of a type: a letter, and all that is in it."""
    if get_origin(kind) is list:
        return [sample(get_args(kind)[0], text=text, yes=yes)] * many
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        fields = msgspec.structs.fields(kind)
        given = {one.name: sample(one.type, text=text, yes=yes, many=many) for one in fields}
        return kind(**given | ({"store": "acme-foods" if text and yes else ""} if "store" in given else {}))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return list(kind)[0 if yes else -1]
    if kind is bool:
        return yes
    if kind is int:
        return 1001 if yes else 0
    assert kind is str, f"no sample of {kind}"
    return text


def mail(letter: Letter) -> Mail:
    return Mail(ID, "bo@corner-shop.example", letter, TOKEN if letter.page else None)


def test_there_are_letters() -> None:
    assert {"OrderReceived", "OrderChanged"} <= {named(kind) for kind in KINDS}


def test_every_template_belongs_to_a_letter() -> None:
    wanted = {f"{written._template_name(kind)}.{end}" for kind in KINDS for end in ("html", "txt")}
    assert {path.name for path in FOLDER.iterdir()} == wanted | {"layout.html"}


@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_a_letter_says_who_it_is_for(kind: type[Letter]) -> None:
    assert (kind.__doc__ or "").startswith("To ")


@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_a_letter_waits_as_json_and_is_the_same_again(kind: type[Letter]) -> None:
    for text in ("Acme Foods", "", *HOSTILE.values()):
        letter = sample(kind, text=text)
        assert letters.read(views.encode(letter).decode()) == letter


@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_it_can_be_written_whatever_it_holds(kind: type[Letter]) -> None:
    """A fact that a template asks for and the letter does not have raises."""
    for text, yes, many in product(("Acme Foods", "", "x"), (True, False), (1, 3)):
        letter = sample(kind, text=text, yes=yes, many=many)
        arrived = STATIONERY.write(mail(letter))
        unbroken(arrived)
        assert len(arrived.text.strip()) > 30
        for part in (arrived.text, arrived.html, arrived.subject):
            for left in ("{{", "{%", "None", "Undefined", "[]", "object at", "\x01"):
                assert left not in part, left
        assert "\n\n\n" not in arrived.text
        assert f"<title>{escape(arrived.subject)}</title>" in arrived.html


@pytest.mark.parametrize("kind", KINDS, ids=named)
@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_no_name_breaks_out_of_it(kind: type[Letter], name: str) -> None:
    unbroken(STATIONERY.write(mail(sample(kind, text=name))))


@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_its_link_is_in_both_versions_and_its_token_nowhere_else(kind: type[Letter]) -> None:
    letter = sample(kind, text="acme")
    arrived = STATIONERY.write(mail(letter))
    if not letter.page:
        assert (arrived.link, "https://" in arrived.text, "<a " in arrived.html) == ("", False, False)
        return
    assert arrived.link == f"https://orders.example{letter.page}#tok-en_1"
    assert re.fullmatch(r"(/[a-z0-9-]+)+", letter.page)
    assert arrived.link in arrived.text.split()
    assert [it["href"] for tag, it in tags(arrived.html) if tag == "a"] == [arrived.link]
    for part in (arrived.text, arrived.html):
        assert "tok-en_1" not in part.replace(arrived.link, "")
    assert "tok-en_1" not in arrived.subject + arrived.sender


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.name)
def test_a_template_loads_nothing_and_trusts_nobody(path: Path) -> None:
    source = path.read_text()
    assert not re.search(r"https?:|//|url\(|@import|src=", source)
    assert not re.search(r"<(img|script|link|iframe|form|svg|object|base)\b", source)
    assert not re.search(r"\|\s*safe\b|autoescape|\bMarkup\b", source)
    assert source.endswith("\n")
    if path.suffix == ".txt":
        assert "<" not in source


def test_a_fact_that_is_missing_is_a_mistake() -> None:
    with pytest.raises(UndefinedError):
        written._templates().from_string("{{ letter.nothing }}").render(letter=sample(KINDS[0]))


def test_a_letter_without_a_company_comes_from_distribu() -> None:
    arrived = STATIONERY.write(mail(letters.PasswordChanged()))
    assert parsed(arrived)["From"].addresses == (Address("Distribu", addr_spec=STATIONERY.sender),)


def test_of_a_long_subject_the_beginning_is_kept() -> None:
    letter = sample(letters.OrderReceived, text="Foods " * 60)
    assert len(STATIONERY.write(mail(letter)).subject) == written.SUBJECT_MAX
