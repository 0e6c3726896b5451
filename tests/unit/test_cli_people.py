"""The commands about people as far as they go without a database: what they ask, and what they take."""

import signal
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from distribu.application.kernel import Request
from distribu.application.platform import (
    CreateUser,
    EndUserSessions,
    GrantSuperAdmin,
    ListCompanies,
    ListUsers,
    RevokeSuperAdmin,
    SendPasswordLink,
)
from distribu.application.ports import Page
from distribu.application.team import InviteMember, ListMembers
from distribu.domain.access import Role
from distribu.entrypoints import cli, operating

ACME = ("--company", "acme")
BO = ("--email", "bo@acme.example")

DESTRUCTIVE = [
    ("member", "remove", *ACME, *BO),
    ("session", "revoke", "bo@acme.example"),
    ("user", "make-super-admin", "bo@acme.example", "--revoke"),
    ("company", "suspend", "acme", "--reason", "unpaid"),
]


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """A command minds SIGTERM; the test run is to mind it as before."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the commands would have run, by company; instead of running it they are told None."""
    seen: list[Any] = []

    def execute(_: str | None, company: str | None, request: Request[Any]) -> None:
        seen.append((company, request))

    def operate(_: str | None, company: str | None, __: Any) -> None:
        seen.append(company)

    monkeypatch.setattr(operating, "execute", execute)
    monkeypatch.setattr(operating, "operate", operate)
    return seen


def run(*words: str, typed: str | bytes = "") -> Result:
    return CliRunner().invoke(cli.main, words, input=typed, env={"NO_COLOR": "1", "COLUMNS": "400"})


def complaint(*words: str, typed: str | bytes = "") -> str:
    done = run(*words, typed=typed)
    assert (done.exit_code, done.stdout) == (operating.NOT_UNDERSTOOD, "")
    return " ".join(done.stderr.replace("│", " ").split())


def named(words: tuple[str, ...]) -> str:
    return " ".join(words[:2])


@pytest.mark.parametrize("words", DESTRUCTIVE, ids=named)
class TestAskingFirst:
    def test_without_a_terminal_yes_is_needed(self, words: tuple[str, ...], asked: list[Any]) -> None:
        assert "say --yes" in complaint(*words, typed="y\n")
        assert asked == []
        assert run(*words, "--yes", "--json").exit_code == 0
        assert len(asked) == 1

    def test_at_a_terminal_it_asks(
        self, words: tuple[str, ...], asked: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(operating, "at_terminal", lambda: True)
        for no in ("n\n", "\n", ""):
            done = run(*words, typed=no)
            assert (done.exit_code, done.stdout) == (1, "")
            assert words[-1] in done.stderr or "acme" in done.stderr
            assert asked == []
        done = run(*words, "--json", typed="y\n")
        assert (done.exit_code, done.stdout) == (0, "{}\n")
        assert len(asked) == 1


@pytest.mark.parametrize(
    ("words", "request_"),
    [
        (("user", "list", "--limit", "7"), ListUsers(limit=7)),
        (("user", "reset-password", "bo@acme.example"), SendPasswordLink(email="bo@acme.example")),
        (("user", "make-super-admin", "bo@acme.example"), GrantSuperAdmin(email="bo@acme.example")),
        (
            ("user", "make-super-admin", "bo@acme.example", "--revoke", "--yes"),
            RevokeSuperAdmin(email="bo@acme.example"),
        ),
        (("session", "revoke", "bo@acme.example", "--yes"), EndUserSessions(email="bo@acme.example")),
        (("company", "list"), ListCompanies()),
    ],
    ids=str,
)
def test_what_is_asked_for_the_platform(
    words: tuple[str, ...], request_: Request[Any], asked: list[Any]
) -> None:
    assert run(*words).exit_code == 0
    assert asked == [(None, request_)]


def test_what_is_asked_in_a_company(asked: list[Any]) -> None:
    assert run("member", "list", *ACME, "--limit", "3").exit_code == 0
    assert run("member", "invite", *ACME, *BO, "--role", "ADMIN").exit_code == 0
    assert asked == [
        ("acme", ListMembers(limit=3)),
        ("acme", InviteMember(email=BO[1], role=Role.ADMIN)),
    ]


def test_what_is_not_understood_is_explained(asked: list[Any]) -> None:
    ada = ("user", "create", "ada@acme.example")
    assert "--name" in complaint(*ada)
    assert "go together" in complaint(*ada, "--name", "Ada", *ACME)
    assert "go together" in complaint(*ada, "--name", "Ada", "--role", "OWNER")
    assert "--password" in complaint(*ada, "--name", "Ada", "--password", "s3cret-word")
    assert "no password on stdin" in complaint(*ada, "--name", "Ada", "--password-stdin")
    assert "no password on stdin" in complaint(*ada, "--name", "Ada", "--password-stdin", typed="\nsecond")
    assert "not UTF-8" in complaint(*ada, "--name", "Ada", "--password-stdin", typed=b"\xff\xfe\n")
    assert "'OWNER' is not one of" in complaint("member", "invite", *ACME, *BO, "--role", "OWNER")
    assert "'OWNER' is not one of" in complaint("member", "change-role", *ACME, *BO, "--role", "OWNER")
    assert "--company" in complaint("member", "list")
    assert "--reason" in complaint("company", "suspend", "acme", "--yes")
    assert "101 is not in the range" in complaint("user", "list", "--limit", "101")
    assert asked == []


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\nand no more of it"])
def test_a_password_is_the_first_line_of_stdin(monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    made: list[CreateUser] = []

    class Kept(CreateUser, frozen=True, kw_only=True):
        def __post_init__(self) -> None:
            made.append(self)
            super().__post_init__()
            raise KeyboardInterrupt

    monkeypatch.setattr("distribu.entrypoints.cli_people.CreateUser", Kept)
    words = ("user", "create", "ada@acme.example", "--name", "Ada", "--password-stdin")
    run(*words, typed=f" pass wörd {end}")
    assert made[0].password is not None
    assert made[0].password.reveal() == " pass wörd "  # type: ignore[attr-defined]  # it was made a Secret


def test_a_password_that_is_asked_for_is_asked_twice(
    monkeypatch: pytest.MonkeyPatch, asked: list[Any]
) -> None:
    monkeypatch.setattr(operating, "at_terminal", lambda: True)
    words = ("user", "create", "ada@acme.example", "--name", "Ada", "--password-stdin")
    done = run(*words, typed="one s3cret\nanother s3cret\n")
    assert done.exit_code == 1
    assert "do not match" in done.stderr
    assert "s3cret" not in done.output
    assert asked == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("user", "list"), "No users yet.\n"),
        (("member", "list", *ACME), "No members yet.\n"),
        (("company", "list"), "No companies yet.\n"),
    ],
    ids=str,
)
def test_nothing_there_is_said(monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str) -> None:
    monkeypatch.setattr(operating, "execute", lambda *_: Page((), None))
    assert run(*words).stdout == said
    empty = '{"data":[],"pagination":{"hasMore":false,"nextCursor":null}}\n'
    assert run(*words, "--json").stdout == empty
