"""The real program about people: users, teams, sessions, and companies that are kept out."""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from uuid import uuid4

import httpx
import psycopg
import pytest

from distribu import Settings
from distribu.container import database
from tests.integration.program import WAIT_S, Done, Program, Running
from tests.integration.test_walls import superuser

PASSWORD = "correct horse battery staple"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Program, Running]]:
    """A server with its worker, and the program on its data."""
    program = Program(tmp_path_factory.mktemp("people"))
    with program.serving() as running:
        yield program, running
        assert running.stop() == 0


@pytest.fixture(scope="module")
def program(server: tuple[Program, Running]) -> Program:
    return server[0]


@pytest.fixture
def acme(program: Program) -> str:
    """The slug of a company in which nobody works yet."""
    return str(program.json("company", "create", "Acme", "--slug", f"c-{uuid4()}")["slug"])


def address() -> str:
    return f"p-{uuid4()}@acme.example"


def user(program: Program, *words: str) -> str:
    """The address of a new user."""
    return str(program.json("user", "create", address(), "--name", "Ada Marsh", *words)["email"])


@contextlib.contextmanager
def signed_in(running: Running, email: str) -> Iterator[httpx.Client]:
    """A browser in which somebody has signed in."""
    with httpx.Client(base_url=running.url, headers={"origin": running.url}) as browser:
        entered = browser.post("/auth/sign-in", json={"email": email, "password": PASSWORD})
        assert entered.status_code == 200, entered.text
        yield browser


def at_terminal(program: Program, *words: str, typed: tuple[str, ...]) -> Done:
    """Run a command as somebody does at a terminal, who types a line whenever it asks.

    What the terminal shows of the typing is a part of ``err``.
    """
    ours, theirs = os.openpty()
    os.set_blocking(ours, False)
    process = subprocess.Popen(
        [sys.executable, "-m", "distribu", *words],
        env=program.environ,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    stop = threading.Timer(WAIT_S, process.kill)
    stop.start()
    try:
        assert process.stderr is not None
        shown = b""
        for line in typed:
            asked = b""
            while not asked.endswith(b": ") and (one := process.stderr.read(1)):
                asked += one
            shown += asked
            os.write(ours, line.encode() + b"\n")
        out, rest = process.communicate()
        with contextlib.suppress(BlockingIOError):
            rest += os.read(ours, 4096)
    finally:
        stop.cancel()
        os.close(ours)
        os.close(theirs)
    return Done(process.returncode, out.decode(), (shown + rest).decode())


def test_there_are_no_users_yet(tmp_path_factory: pytest.TempPathFactory) -> None:
    """On a database of its own, and as real processes: before anything, after something."""
    program = Program(tmp_path_factory.mktemp("empty"))
    with program.serving("--no-worker") as running:
        assert program.call("user", "list") == Done(0, "No users yet.\n", "")
        assert program.call("company", "list") == Done(0, "No companies yet.\n", "")
        program.json("company", "create", "Acme")
        assert program.call("member", "list", "--company", "acme") == Done(0, "No members yet.\n", "")
        made = program.run("user", "create", "ada@acme.example", "--name", "Ada Marsh")
        assert (made.code, made.err) == (0, "")
        assert "ada@acme.example" in made.out
        assert made.out.endswith("is mailed to ada@acme.example, once `distribu serve` or `worker` runs.\n")
        listed = program.run("user", "list")
        assert (listed.code, listed.out.count("ada@acme.example")) == (0, 1)
        assert running.stop() == 0


def test_a_user_with_a_password_signs_in_until_signed_out(server: tuple[Program, Running]) -> None:
    program, running = server
    email = address()
    made = subprocess.run(
        [
            sys.executable,
            "-m",
            "distribu",
            "user",
            "create",
            email,
            "--name",
            "Ada",
            "--password-stdin",
            "--json",
        ],
        env=program.environ,
        input=PASSWORD + "\n",
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert (made.returncode, made.stderr) == (0, "")
    assert PASSWORD not in made.stdout
    with signed_in(running, email) as browser:
        assert browser.get("/account").status_code == 200
        assert program.json("session", "revoke", email, "--yes") == {}
        assert browser.get("/account").status_code == 401
    with signed_in(running, email) as browser:
        assert browser.get("/account").json()["data"]["companies"] == []
    code, told = program.refused("session", "revoke", address(), "--yes")
    assert (code, told["code"]) == (14, "user_not_found")


def test_a_user_is_made_once(program: Program) -> None:
    email = user(program)
    code, told = program.refused("user", "create", email.upper(), "--name", "Another")
    assert (code, told["code"]) == (15, "duplicate_email")
    code, told = program.refused("user", "create", "no address", "--name", "Another")
    assert (code, told["code"]) == (10, "invalid_request")


def test_users_are_listed_page_by_page(program: Program) -> None:
    older, newer = user(program), user(program)
    first = program.json("user", "list", "--limit", "1")
    assert [one["email"] for one in first["data"]] == [newer]
    assert set(first["data"][0]) == {"id", "email", "fullName", "isSuperAdmin", "createdAt"}
    cursor = first["pagination"]["nextCursor"]
    second = program.json("user", "list", "--limit", "1", "--cursor", cursor)
    assert [one["email"] for one in second["data"]] == [older]
    table = program.call("user", "list", "--limit", "1").out
    assert table.split()[:5] == ["email", "fullName", "isSuperAdmin", "createdAt", "id"]
    assert table.endswith(f"There is more: --cursor {cursor}\n")


def test_a_link_to_choose_a_password_is_mailed(server: tuple[Program, Running]) -> None:
    program, running = server
    email = user(program)
    assert program.json("user", "reset-password", email) == {}
    with httpx.Client(base_url=running.url) as browser:
        for _ in range(600):
            if browser.get("/_mail").text.count(email) >= 2:
                break
        assert browser.get("/_mail").text.count(email) >= 2, "one when they were made, one now"
    code, told = program.refused("user", "reset-password", address())
    assert (code, told["code"]) == (14, "user_not_found")


def test_a_super_admin_is_made_and_unmade(program: Program) -> None:
    email = user(program)
    assert program.json("user", "make-super-admin", email)["isSuperAdmin"] is True
    assert email in [one["email"] for one in program.json("do", "ListSuperAdmins")["data"]]
    assert email in program.call("do", "ListSuperAdmins").out
    unmade = program.json("user", "make-super-admin", email, "--revoke", "--yes")
    assert unmade["isSuperAdmin"] is False
    assert email not in [one["email"] for one in program.json("do", "ListSuperAdmins")["data"]]


def test_a_company_from_here_gets_its_owner(program: Program, acme: str) -> None:
    email = address()
    made = program.json(
        *("user", "create", email, "--name", "Ada Marsh", "--company", acme, "--role", "OWNER")
    )
    assert (made["email"], made["company"], made["role"]) == (email, acme, "OWNER")
    (member,) = program.json("member", "list", "--company", acme)["data"]
    assert (member["email"], member["role"]) == (email, "OWNER")
    second = address()
    code, told = program.refused(
        *("user", "create", second, "--name", "Bo", "--company", acme, "--role", "OWNER")
    )
    assert (code, told["code"]) == (17, "owner_stays")
    assert told["error"].startswith("The user was made, but is not in the team")
    assert program.json("member", "add", "--company", acme, "--email", second, "--role", "ADMIN")
    third = address()
    code, told = program.refused(
        *("user", "create", third, "--name", "Cy", "--company", "nowhere", "--role", "ADMIN")
    )
    assert (code, told["code"]) == (14, "company_not_found")
    assert third not in program.call("user", "list", "--limit", "100").out, "nobody was made"


def test_a_team_comes_changes_and_goes(program: Program, acme: str) -> None:
    here = ("--company", acme)
    ada, bo, nobody = user(program), user(program), address()
    owner = program.json("member", "add", *here, "--email", ada, "--role", "OWNER")
    assert owner["role"] == "OWNER"
    assert program.json("member", "add", *here, "--email", bo.upper(), "--role", "MEMBER")["role"] == "MEMBER"
    code, told = program.refused("member", "add", *here, "--email", bo, "--role", "ADMIN")
    assert (code, told["code"]) == (15, "already_member")
    code, told = program.refused("member", "add", *here, "--email", nobody, "--role", "ADMIN")
    assert (code, told["code"]) == (14, "user_not_found")
    assert program.json("member", "change-role", *here, "--email", bo, "--role", "ADMIN")["role"] == "ADMIN"
    code, told = program.refused("member", "change-role", *here, "--email", ada, "--role", "MEMBER")
    assert (code, told["code"]) == (17, "owner_stays")
    code, told = program.refused("member", "remove", *here, "--email", ada, "--yes")
    assert (code, told["code"]) == (17, "owner_stays")
    listed = program.call("member", "list", *here)
    assert listed.out.split()[:5] == ["email", "fullName", "role", "createdAt", "id"]
    assert [word for word in listed.out.split() if word in ("OWNER", "ADMIN")] == ["ADMIN", "OWNER"]
    removed = program.call("member", "remove", *here, "--email", bo, "--yes")
    assert removed == Done(0, f"{bo} is out of {acme}.\n", "")
    code, told = program.refused("member", "remove", *here, "--email", bo, "--yes")
    assert (code, told["code"]) == (14, "member_not_found")
    actions = [one["action"] for one in program.json("audit", "list", *here)["data"]]
    assert actions == [
        *("member.removed", "member.role_changed", "member.joined", "member.joined", "company.created"),
    ]


def test_an_invitation_is_mailed(program: Program, acme: str) -> None:
    email = address()
    words = ("member", "invite", "--company", acme, "--email", email, "--role", "ADMIN")
    offered = program.json(*words)
    assert (offered["email"], offered["role"], offered["acceptedAt"]) == (email, "ADMIN", None)
    code, told = program.refused(*words)
    assert (code, told["code"]) == (15, "already_invited")
    listed = program.json("do", "ListInvitations", "--company", acme)["data"]
    assert [one["email"] for one in listed] == [email]


def test_a_suspended_company_is_kept_out_until_it_is_resumed(
    server: tuple[Program, Running], acme: str
) -> None:
    program, running = server
    made = program.json("api-key", "create", "--company", acme, "--name", "x", "--scope", "products:read")

    def standing() -> str:
        cards = program.json("company", "list", "--limit", "100")["data"]
        return str(next(one["standing"] for one in cards if one["slug"] == acme))

    headers = {"authorization": f"Bearer {made['key']}"}
    with httpx.Client(base_url=running.url, headers=headers) as client:
        assert (client.get("/api/v1/products").status_code, standing()) == (200, "OPEN")
        done = program.call("company", "suspend", acme, "--reason", "unpaid", "--yes")
        assert (done.code, done.err) == (0, "")
        assert done.out.endswith(f"distribu company resume {acme}\n")
        assert (client.get("/api/v1/products").status_code, standing()) == (403, "SUSPENDED")
        code, told = program.refused("company", "suspend", acme, "--reason", "again", "--yes")
        assert (code, told["code"]) == (17, "already_suspended")
        assert program.json("company", "resume", acme) == {}
        assert (client.get("/api/v1/products").status_code, standing()) == (200, "OPEN")
    code, told = program.refused("company", "resume", acme)
    assert (code, told["code"]) == (17, "not_suspended")
    code, told = program.refused("company", "suspend", "nowhere", "--reason", "x", "--yes")
    assert (code, told["code"]) == (14, "company_not_found")


def test_the_platform_s_requests_need_no_company(program: Program) -> None:
    email = user(program)
    found = program.json("do", "ListUsers", "limit=1")
    assert [one["email"] for one in found["data"]] == [email]
    assert program.json("do", "ListFailedJobs") == {"data": []}
    assert program.call("do", "ListFailedJobs").out == "There are none.\n"
    assert program.json("do", "EndUserSessions", f"email={email}") == {}
    assert program.json("do", "CreateUser", f"email={address()}", "fullName=Bo Vine")["fullName"] == "Bo Vine"


def test_at_a_terminal_it_asks_first(program: Program) -> None:
    email = user(program)
    words = ("session", "revoke", email)
    no = at_terminal(program, *words, typed=("n",))
    assert (no.code, no.out) == (1, "")
    assert f"Sign {email} out everywhere? [y/N]: " in no.err
    assert "n\r\n" in no.err, "it is a terminal that shows what is typed"
    yes = at_terminal(program, *words, typed=("y",))
    assert (yes.code, yes.out) == (0, f"{email} is signed out everywhere.\n")
    nobody = program.run(*words)
    assert (nobody.code, nobody.out) == (2, "")
    assert "--yes" in nobody.err


def test_a_password_is_typed_twice_and_not_shown(server: tuple[Program, Running]) -> None:
    program, running = server
    email = address()
    words = ("user", "create", email, "--name", "Ada", "--password-stdin")
    made = at_terminal(program, *words, typed=(PASSWORD, PASSWORD))
    assert made.code == 0, made.err
    assert "Password: " in made.err
    assert PASSWORD not in made.out + made.err
    with signed_in(running, email) as browser:
        assert browser.get("/account").json()["data"]["email"] == email


def test_a_deleted_company_is_purged_when_its_days_are_over(
    server: tuple[Program, Running], acme: str
) -> None:
    program, running = server
    made = program.json(
        *("user", "create", address(), "--name", "Ada", "--company", acme, "--role", "OWNER"),
    )
    assert (program.refused("company", "purge", acme, "--yes"))[1]["code"] == "not_deleted"
    assert program.refused("company", "purge", "nowhere", "--yes")[1]["code"] == "company_not_found"
    with database(Settings(data_dir=str(program.data))) as ready:
        url = superuser(ready)
    with psycopg.connect(url, autocommit=True) as root:

        def deleted(days: int) -> None:
            with root.transaction():
                root.execute("SET LOCAL session_replication_role = replica")
                root.execute(
                    "UPDATE distribu.companies SET deleted_at = now() - %s * interval '24 hours'"
                    " WHERE slug = %s",
                    [days, acme],
                )

        deleted(29)
        code, told = program.refused("company", "purge", acme, "--yes")
        assert (code, told["code"]) == (17, "purge_too_early")
        assert program.json("company", "purge", "--yes") == {"data": []}
        deleted(31)
    (doomed,) = program.json("company", "purge", "--dry-run")["data"]
    assert (doomed["slug"], doomed["tables"]["companies"]) == (acme, 1)
    assert doomed["rows"] == sum(doomed["tables"].values())
    nobody = program.call("company", "purge")
    assert (nobody.code, nobody.out) == (2, "")
    assert "--yes" in nobody.err
    assert program.json("company", "purge", acme, "--yes")["data"] == [doomed]
    again = program.call("company", "purge", acme, "--yes")
    assert again == Done(0, "There is nothing to purge.\n", "")
    assert acme not in program.call("company", "list", "--limit", "100").out
    code, told = program.refused("company", "create", "Heir", "--slug", acme)
    assert (code, told["code"]) == (15, "duplicate_slug")
    with httpx.Client(base_url=running.url) as browser:
        assert browser.get(f"/store/{acme}/account").status_code in (401, 404)
    assert made["email"] in program.call("user", "list", "--limit", "100").out, "people stay"


def test_a_plan_is_shown_and_set(program: Program, acme: str) -> None:
    before = program.json("billing", "show", "--company", acme)
    assert (before["plan"], before["uses"]["products"]) == ("UNLIMITED", {"used": 0, "allowed": None})
    program.json("billing", "set-plan", "--company", acme, "--plan", "STARTER")
    after = program.json("billing", "show", "--company", acme)
    assert (after["plan"], after["status"]) == ("STARTER", "ACTIVE")
    assert after["uses"]["ordersAMonth"] == {"used": 0, "allowed": 100}
    for _ in range(3):
        program.json("member", "invite", "--company", acme, "--email", address(), "--role", "MEMBER")
    code, told = program.refused(
        "member", "invite", "--company", acme, "--email", address(), "--role", "MEMBER"
    )
    assert (code, told["code"], told["fields"]["used"]) == (12, "plan_limit", "3")
    shown = program.call("billing", "show", "--company", acme)
    assert shown.code == 0
    assert "STARTER" in shown.out
