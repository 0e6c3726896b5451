"""The command line about people: users, teams and sessions."""

import sys
from typing import Final

import msgspec
import rich_click as click

from distribu.application.fields import SECRET_MAX
from distribu.application.platform import (
    AddMember,
    CreateUser,
    EndUserSessions,
    GrantSuperAdmin,
    ListUsers,
    RevokeSuperAdmin,
    SendPasswordLink,
)
from distribu.application.profiles import PersonView
from distribu.application.team import ChangeRole, InviteMember, ListMembers, ReadMember, RemoveMember
from distribu.domain.access import Role
from distribu.domain.errors import Refused
from distribu.domain.team import Membership
from distribu.entrypoints import asking, operating, showing

_ON_ITS_WAY: Final = "A link to choose a password is mailed to {}, once `distribu serve` or `worker` runs."

_email_option = click.option("--email", required=True, metavar="EMAIL", help="Whose.")
_role_option = click.option(
    "--role", required=True, type=click.Choice([Role.MEMBER, Role.ADMIN]), help="What they may do there."
)
_any_role = click.Choice([Role.OWNER, Role.ADMIN, Role.MEMBER])


@click.group()
def user() -> None:
    """Users: everybody who works for a company, or runs the platform."""


@user.command("create")
@click.argument("email")
@click.option("--name", required=True, help="Their full name.")
@click.option("--password-stdin", is_flag=True, help="Read a password: one line of stdin.")
@click.option("--company", metavar="SLUG", help="Put them into this company's team too, with --role.")
@click.option("--role", type=_any_role, help="What they are there; OWNER if it has none yet.")
@operating.command
def user_create(
    email: str,
    name: str,
    password_stdin: bool,
    company: str | None,
    role: Role | None,
    data_dir: str | None,
) -> None:
    """Add a user whose address you vouch for. Without a password they are mailed a link to choose one.

    A company made by `company create` gets its owner this way. A password is never an argument: others
    could read it in the list of processes.

    Example: distribu user create ada@acme.example --name "Ada Marsh" --company acme --role OWNER
    """
    if (company is None) is not (role is None):
        raise click.UsageError("--company and --role go together")
    create = CreateUser(email=email, full_name=name, password=_password() if password_stdin else None)

    async def run(operator: operating.Operator) -> tuple[PersonView, Membership | None]:
        person = await operator.execute(create)
        if role is None:
            return person, None
        try:
            add = AddMember(company_id=operator.company_id, email=email, role=role)
            return person, await operator.execute(add)
        except Refused as refused:
            no = f"The user was made, but is not in the team: {refused.message}"
            raise type(refused)(refused.code, no, retry_after_s=refused.retry_after_s) from None

    person, membership = operating.operate(data_dir, company, run)
    shown = msgspec.to_builtins(person)
    if membership is not None:
        shown |= {"company": company, "role": membership.role}
    showing.view(shown)
    if not password_stdin:
        showing.hint(_ON_ITS_WAY.format(person.email))


def _password() -> str:
    """The first line of stdin; a terminal is asked twice, and shows nothing."""
    if operating.at_terminal():
        typed: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
        return typed
    line = b"" if sys.stdin is None else sys.stdin.buffer.readline(SECRET_MAX * 4)
    try:
        password = line.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise asking.NotUnderstood("the password on stdin is not UTF-8.") from None
    if not password:
        raise asking.NotUnderstood("there is no password on stdin.")
    return password


@user.command("list")
@operating.limit_option
@operating.cursor_option
@operating.command
def user_list(limit: int, cursor: str | None, data_dir: str | None) -> None:
    """All users, newest first.

    Example: distribu user list --limit 20
    """
    page = operating.execute(data_dir, None, ListUsers(limit=limit, cursor=cursor))
    showing.result(page, "email", "fullName", "isSuperAdmin", "createdAt", "id", none="No users yet.")


@user.command("reset-password")
@click.argument("email")
@operating.command
def user_reset_password(email: str, data_dir: str | None) -> None:
    """Mail a user a link to choose another password; the present one counts until they do.

    Example: distribu user reset-password ada@acme.example
    """
    operating.execute(data_dir, None, SendPasswordLink(email=email))
    showing.done(_ON_ITS_WAY.format(email))


@user.command("make-super-admin")
@click.argument("email")
@click.option("--revoke", is_flag=True, help="Close them to the user again.")
@operating.yes_option
@operating.command
def user_make_super_admin(email: str, revoke: bool, yes: bool, data_dir: str | None) -> None:
    """Open the platform's own pages to a user: every company's name and figures, and its suspension.

    Example: distribu user make-super-admin ada@acme.example
    """
    if revoke:
        operating.sure(f"Close the platform's own pages to {email}?", yes=yes)
        showing.result(operating.execute(data_dir, None, RevokeSuperAdmin(email=email)))
    else:
        showing.result(operating.execute(data_dir, None, GrantSuperAdmin(email=email)))


# --- teams -----------------------------------------------------------------------------------


@click.group()
def member() -> None:
    """Members: who works for a company, and as what."""


@member.command("list")
@operating.company_option
@operating.limit_option
@operating.cursor_option
@operating.command
def member_list(company: str, limit: int, cursor: str | None, data_dir: str | None) -> None:
    """Everybody in a company's team, newest first.

    Example: distribu member list --company acme
    """
    page = operating.execute(data_dir, company, ListMembers(limit=limit, cursor=cursor))
    showing.result(page, "email", "fullName", "role", "createdAt", "id", none="No members yet.")


@member.command("invite")
@operating.company_option
@_email_option
@_role_option
@operating.command
def member_invite(company: str, email: str, role: Role, data_dir: str | None) -> None:
    """Offer an address a place in the team: it is mailed a link, which is good for seven days.

    Example: distribu member invite --company acme --email bo@acme.example --role MEMBER
    """
    showing.result(operating.execute(data_dir, company, InviteMember(email=email, role=role)))
    showing.hint(f"The invitation is mailed to {email}, once `distribu serve` or `worker` runs.")


@member.command("add")
@operating.company_option
@_email_option
@click.option(
    "--role", required=True, type=_any_role, help="What they may do there; OWNER if it has none yet."
)
@operating.command
def member_add(company: str, email: str, role: Role, data_dir: str | None) -> None:
    """Put a user there is into the team, without asking them.

    Example: distribu member add --company acme --email ada@acme.example --role OWNER
    """

    async def run(operator: operating.Operator) -> Membership:
        return await operator.execute(AddMember(company_id=operator.company_id, email=email, role=role))

    showing.result(operating.operate(data_dir, company, run))


@member.command("change-role")
@operating.company_option
@_email_option
@_role_option
@operating.command
def member_change_role(company: str, email: str, role: Role, data_dir: str | None) -> None:
    """Make a member an admin, or the other way round. An owner stays the owner.

    Example: distribu member change-role --company acme --email bo@acme.example --role ADMIN
    """

    async def run(operator: operating.Operator) -> Membership:
        member = await operator.execute(ReadMember(email=email))
        return await operator.execute(ChangeRole(member_id=member.id, role=role))

    showing.result(operating.operate(data_dir, company, run))


@member.command("remove")
@operating.company_option
@_email_option
@operating.yes_option
@operating.command
def member_remove(company: str, email: str, yes: bool, data_dir: str | None) -> None:
    """Put somebody out of the team, and take back what they have offered to others.

    Example: distribu member remove --company acme --email bo@acme.example
    """
    operating.sure(f"Remove {email} from {company}?", yes=yes)

    async def run(operator: operating.Operator) -> None:
        member = await operator.execute(ReadMember(email=email))
        await operator.execute(RemoveMember(member_id=member.id))

    operating.operate(data_dir, company, run)
    showing.done(f"{email} is out of {company}.")


# --- sessions --------------------------------------------------------------------------------


@click.group()
def session() -> None:
    """Sessions: where users are signed in."""


@session.command("revoke")
@click.argument("email")
@operating.yes_option
@operating.command
def session_revoke(email: str, yes: bool, data_dir: str | None) -> None:
    """Sign a user out everywhere, at once. They can sign in again.

    Example: distribu session revoke ada@acme.example
    """
    operating.sure(f"Sign {email} out everywhere?", yes=yes)
    operating.execute(data_dir, None, EndUserSessions(email=email))
    showing.done(f"{email} is signed out everywhere.")
