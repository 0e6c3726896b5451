"""The command line as far as it goes without a database: what it understands, and what it explains."""

import shlex
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from distribu import amount
from distribu.application.access import CreateApiKey
from distribu.application.catalog import CreateProduct, EditProduct
from distribu.application.customers import CreateCustomer
from distribu.application.kernel import Command, Process, Query, Request
from distribu.application.ordering import PlaceOrder
from distribu.application.team import DeleteCompany, TransferOwnership
from distribu.domain.access import Permission
from distribu.domain.errors import Invalid, Refused
from distribu.domain.ordering import QUANTITY_MAX
from distribu.domain.values import CompanyId, CustomerId, ProductId
from distribu.entrypoints import asking, cli, operating
from distribu.entrypoints.demo.company import Demo
from distribu.settings import load

ID = "0195b2f0-7c1e-7d3a-8f00-5a1c2e9b4d10"


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """A command minds SIGTERM; the test run is to mind it as before."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def run(*words: str) -> Result:
    return CliRunner().invoke(cli.main, words, env={"NO_COLOR": "1", "COLUMNS": "400"})


def complaint(*words: str) -> str:
    done = run(*words)
    assert (done.exit_code, done.stdout) == (operating.NOT_UNDERSTOOD, "")
    return " ".join(done.stderr.replace("│", " ").split())


def test_what_is_not_understood_is_explained() -> None:
    assert "Did you mean PlaceOrder?" in complaint("do", "PlaceOder", "--company", "acme")
    unknown = complaint("do", "CreateProduct", "nam=x", "--company", "acme")
    assert "Did you mean name? There are: name, price, sku" in unknown
    assert "--company SLUG" in complaint("do", "ListProducts")
    assert "field=value" in complaint("do", "ListProducts", "limit", "--company", "acme")
    assert "given twice" in complaint("do", "ListProducts", "limit=1", "limit=2", "--company", "acme")
    assert "name=value" in complaint("audit", "record", "x.y", "alone", "--company", "acme")
    assert "products:rea" in complaint(
        "api-key", "create", "--company", "acme", "--name", "x", "--scope", "products:rea"
    )
    assert "no date or time" in complaint("audit", "list", "--company", "acme", "--since", "yesterday")
    assert "--url and --key" in complaint("demo", "--url", "http://127.0.0.1:1")
    assert "no-such-file" in complaint("demo", "--orders", "no-such-file")


def test_help_teaches() -> None:
    assert "Exit codes: 0 done" in run("--help").stdout
    listed = run("do", "--help")
    assert listed.exit_code == 0
    assert "  PlaceOrder\n" in listed.stdout
    assert run("do").exit_code == operating.NOT_UNDERSTOOD
    told = run("do", "PlaceOrder", "--help")
    assert told.exit_code == 0
    assert "poNumber" in told.stdout
    assert "distribu do PlaceOrder --company demo customerId=" in told.stdout


def commands(group: click.Group) -> Iterator[click.Command]:
    for one in group.commands.values():
        if isinstance(one, click.Group):
            yield from commands(one)
        else:
            yield one


def test_every_command_has_json_and_an_example_that_it_understands() -> None:
    found = list(commands(cli.main))
    assert len(found) > 12
    for command in found:
        assert any("--json" in option.opts for option in command.params), command.name
        _, _, example = (command.help or "").partition("Example: distribu ")
        words = shlex.split(example.splitlines()[0])
        at: click.Command = cli.main
        while isinstance(at, click.Group):
            at = at.commands[words.pop(0)]
        assert at is command
        params = {option for param in at.params for option in param.opts}
        assert {word for word in words if word.startswith("--")} <= params


@pytest.mark.parametrize("name", asking.requests())
def test_every_request_is_explained_by_an_example_that_it_understands(name: str) -> None:
    kind = asking.requests()[name]
    example = shlex.split(asking.explained(kind).splitlines()[-1])
    assert example[:3] == ["distribu", "do", name]
    of_the_platform = kind.needs in {Permission.PLATFORM, Permission.COMPANY_CREATE}
    words = example[3:] if of_the_platform else example[5:]
    assert of_the_platform or example[3:5] == ["--company", "demo"]
    assert type(asking.asked(kind, words)) is kind


def test_every_request_there_is_can_be_asked() -> None:
    def below(kind: type[Any]) -> Iterator[type[Any]]:
        one: type[Any]
        for one in kind.__subclasses__():
            yield one
            yield from below(one)

    ours = {one for one in below(Request) if one.__module__.startswith("distribu.application.")}
    of_people = {Permission.VISIT, Permission.ACCOUNT, Permission.SECOND_FACTOR}
    with_ones_password: set[type[Any]] = {DeleteCompany, TransferOwnership}
    for_operators = {
        one
        for one in ours - {Query, Command, Process} - with_ones_password
        if not one.internal and not one.streamed and one.needs not in of_people
    }
    assert set(asking.requests().values()) == for_operators


def test_what_is_not_an_operator_s_says_so() -> None:
    for name in ("SignIn", "signout", "DeleteCompany", "GiveCode"):
        assert "is for people who sign in" in complaint("do", name)
        assert "is for people who sign in" in complaint("do", name, "--help")
    assert "SetStanding is only ever run by another request" in complaint("do", "setstanding")
    assert "there is no request 'NoSuch'" in complaint("do", "NoSuch")
    listed = run("do", "--help").stdout
    assert "  ListUsers\n" in listed
    assert "SignIn" not in listed
    assert "SetStanding" not in listed


def test_what_is_the_platform_s_needs_no_company_and_takes_none() -> None:
    assert "leave --company out" in complaint("do", "ListUsers", "--company", "acme")
    assert "leave --company out" in complaint("do", "CreateCompany", "name=Acme", "--company", "acme")
    assert "--company SLUG" in complaint("do", "ListMembers")


def test_a_secret_is_never_an_argument() -> None:
    told = complaint("do", "CreateUser", "email=a@b.example", "fullName=A", "password=s3cret-word")
    assert "password is a secret" in told
    assert "s3cret-word" not in told
    assert "password" not in run("do", "CreateUser", "--help").stdout.partition("\n")[2]


def test_words_become_the_types_of_their_fields() -> None:
    made = asking.asked(
        CreateProduct, ["name=007", "price=18.40", "sku:=null", "stock=5", "is_active=false", "unit=1e3"]
    )
    assert made == CreateProduct(name="007", price=amount("18.40"), stock=5, is_active=False, unit="1e3")
    key = asking.asked(
        CreateApiKey, ["name=x", "scopes=products:read,orders:read", "expiresAt=2999-01-31T00:00:00Z"]
    )
    assert isinstance(key, CreateApiKey)
    assert key.scopes == (Permission.PRODUCTS_READ, Permission.ORDERS_READ)
    assert key.expires_at == datetime(2999, 1, 31, tzinfo=UTC)
    edited = asking.asked(EditProduct, [f"productId={ID}", "name=a=b"])
    assert edited.given() == {"product_id": ID, "name": "a=b", "version": None}


def test_words_that_do_not_fit_are_refused_by_field() -> None:
    def wrong(kind: type[Request[Any]], *words: str) -> dict[str, str]:
        with pytest.raises(Invalid) as refused:
            asking.asked(kind, words)
        return refused.value.fields

    assert set(wrong(PlaceOrder, "items=nothing")) == {"items", "customerId"}
    assert set(wrong(CreateProduct, "name=x", "price=1.234")) == {"price"}
    assert set(wrong(CreateProduct, "name=x", "price=1e999999999999999999999")) == {"price"}
    assert set(wrong(CreateProduct, "name=x", "price=NaN")) == {"price"}
    assert wrong(EditProduct, "productId=x") == {"productId": "is not an id"}
    statuses = "must be one of ACTIVE, PENDING, BLOCKED"
    assert wrong(CreateCustomer, "email=a@b.example", "status=GONE") == {"status": statuses}
    assert set(wrong(CreateProduct, "name=x", "price=1", "stock=1.5")) == {"stock"}
    assert set(wrong(CreateProduct, "name=", "price=1")) == {"name"}
    items = f'items=[{{"productId":"{ID}","quantity":{QUANTITY_MAX + 1}}}]'
    assert set(wrong(PlaceOrder, f"customerId={ID}", items)) == {"items[0].quantity"}


def test_every_kind_of_refusal_has_an_exit_code_of_its_own() -> None:
    def below(kind: type[Refused]) -> Iterator[type[Refused]]:
        yield kind
        for one in kind.__subclasses__():
            yield from below(one)

    own = {kind for kind in below(Refused) if kind.__module__ == Refused.__module__}
    assert set(operating.EXIT) == own
    assert len(set(operating.EXIT.values())) == len(operating.EXIT)
    assert not set(operating.EXIT.values()) & {0, 1, operating.NOT_UNDERSTOOD, operating.CANNOT_START}
    for code in operating.EXIT.values():
        assert f"\n{code} " in (cli.__doc__ or "")
        assert f" {code} " in (cli.main.epilog or "")


@pytest.mark.parametrize("stub", [True, False])
def test_what_serve_says_can_be_pasted_into_the_same_world(
    capsys: pytest.CaptureFixture[str], stub: bool
) -> None:
    demo = Demo(company_id=CompanyId(ID), key="dk_x", customer_id=CustomerId(ID), product_id=ProductId(ID))
    settings = load({"DISTRIBU_DATA_DIR": "/srv/some where", "DISTRIBU_STRIPE_STUB": str(stub).lower()})
    with click.Context(cli.main):
        cli._where("http://127.0.0.1:4711", demo, settings)
    said = capsys.readouterr().out
    paste = next(line for line in said.splitlines() if "ListProducts" in line)
    selling = "DISTRIBU_STRIPE_STUB=true DISTRIBU_PORT=4711 " if stub else ""
    assert paste.startswith(f"DISTRIBU_DATA_DIR='/srv/some where' {selling}")
    assert ("http://127.0.0.1:4711/_stripe" in said) is stub
