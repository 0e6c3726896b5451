"""Who may do what: every route, asked by every kind of actor over HTTP on PostgreSQL.

The outcome is the table in docs/authorization.md. `python -m pytest tests/integration/test_authorization.py
--write-table` writes it anew; a change of it is a change of what is allowed, to be looked at as such.
"""

import itertools
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from distribu import Actor, ContactRole, Distribu, Role, Shop
from distribu.application.access import CreateApiKey
from distribu.application.team import InviteMember
from distribu.domain.access import SCOPES, ApiKey, Permission
from distribu.domain.errors import Forbidden
from distribu.entrypoints.harness import KEYS
from distribu.entrypoints.http.browser import Site
from distribu.entrypoints.http.people import ACCOUNT, ADMIN, AUTH, STORE
from distribu.entrypoints.http.routes import ROUTES
from distribu.entrypoints.http.serve import listening
from distribu.entrypoints.http.sessions import Sessions
from distribu.entrypoints.http.wire import Route
from tests import people
from tests.contracts.asking import key_of as key_actor
from tests.contracts.requests import CHANGING, READING, VISITING, kinds
from tests.people import Buyer, Staff
from tests.unit.test_http import World

TABLE: Final = Path(__file__).parents[2] / "docs" / "authorization.md"

HEAD: Final = """# Who may do what

Every route, asked by every kind of actor over HTTP, with what it needs. **yes** is a success; anything
else is the status and the code of the refusal, after which nothing has changed. A 404 hides what belongs
to somebody else. A refusal that is not 401, 403 or 404 comes from the rules of the business: the actor
was admitted. Actors who are answered alike throughout a section share a column.
`tests/integration/test_authorization.py` asks all of it again and compares.
"""

NO_ROUTE: Final = """## By no route

What an operator runs, or a program that embeds Distribu, and what it needs. Whoever does not hold that asks
the executor, as if a door had let them through, and is refused.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """One company with one of everything, everybody who could ask, and what they show at the door."""

    world: World
    members: Mapping[str, Staff]
    buyers: Mapping[str, Buyer]
    other: Shop
    key: ApiKey
    invitation_id: str

    @property
    def admin_id(self) -> str:
        """The membership of the company's ADMIN."""
        member = self.members["ADMIN"].member
        assert member is not None
        return member.id

    @property
    def ids(self) -> dict[str, str]:
        """What stands for the parameters of a path."""
        member = self.members["MEMBER"].member
        assert member is not None
        return {
            **self.world.ids,
            "slug": self.world.shop.company.slug,
            "company_id": self.world.shop.company.id,
            "api_key_id": self.key.id,
            "member_id": member.id,
            "session_id": self.world.shop.company.id,
            "passkey_id": "aGVsbG8",
            "contact_id": self.buyers["contact VIEWER"].contact.id,
            "invitation_id": self.invitation_id,
        }


async def cast(distribu: Distribu) -> Cast:
    shop = await Shop.open(distribu)
    world = await World.of(shop)
    members = {role.value: await people.staff(shop, role) for role in Role}
    members["super-admin"] = await people.staff(shop, None, super_admin=True)
    members["half-signed-in MEMBER"] = await people.waiting(shop, Role.MEMBER)
    other = await shop.stranger()
    members["stranger"] = await people.staff(other, Role.OWNER)
    buyers = {f"contact {role.value}": await people.buyer(shop, world.customer, role) for role in ContactRole}
    buyers["sibling's contact"] = await people.buyer(shop, await shop.customer(), ContactRole.ADMIN)
    buyers["contact elsewhere"] = await people.buyer(other, await other.customer(), ContactRole.ADMIN)
    key = await shop.execute(CreateApiKey(name="one more", scopes=SCOPES))
    invited = await shop.execute(InviteMember(email="invited@example.test", role=Role.MEMBER))
    return Cast(
        world=world,
        members=members,
        buyers=buyers,
        other=other,
        key=key.what,
        invitation_id=invited.id,
    )


def bodies(cast: Cast) -> dict[str, dict[str, Any]]:
    """What is sent to those requests that `World` knows nothing of."""
    return {
        "CreateApiKey": {"name": "ERP", "scopes": ["products:read"]},
        "EditApiKey": {"name": "The ERP"},
        "EditCompany": {"name": "Acme"},
        "RecordAudit": {"action": "report.sent"},
        "OpenCompany": {"companyName": "Another"},
        "AcceptInvitation": {
            "token": "no token",
            "fullName": "Somebody",
            "password": "correct horse battery",
        },
        "AcceptInvitationAs": {"token": "no token"},
        "ReadInvitation": {"token": "no token"},
        "DeleteCompany": {"name": cast.world.shop.company.name, "password": "no such password"},
        "TransferOwnership": {"memberId": cast.admin_id, "password": "no such password"},
        "ChangeRole": {"role": "ADMIN"},
        "InviteMember": {"email": "another@example.test", "role": "MEMBER"},
        "EditInvitation": {"role": "ADMIN"},
        "InviteContact": {"email": "another@example.test", "fullName": "Somebody", "role": "BUYER"},
        "EditContact": {"fullName": "Somebody Else"},
        "RegisterCustomer": {
            "name": "Another",
            "email": "another@example.test",
            "password": "correct horse battery",
        },
        "AcceptContactInvite": {"token": "no token", "password": "correct horse battery"},
        "SendInquiry": {
            "kind": "CONTACT",
            "fullName": "Somebody",
            "email": "another@example.test",
            "text": "Do you deliver to Norway?",
        },
        "ReplayNotice": {"ref": "evt_1"},
        "StartCheckout": {"plan": "GROWTH", "interval": "MONTH"},
        "SuspendCompany": {"reason": "unpaid"},
        "SetCompanyLimit": {"apiLimit": 600},
        "SwitchCompany": {"companyId": cast.world.shop.company.id},
        "EditAccount": {"fullName": "Somebody Else"},
        "ChangePassword": {"password": "no such password", "newPassword": "correct horse battery"},
        "ChangeEmail": {"newEmail": "another@example.test", "password": "no such password"},
        "SignUp": {
            "companyName": "Acme",
            "fullName": "Somebody",
            "email": "another@example.test",
            "password": "correct horse battery",
        },
        "SignIn": {"email": "another@example.test", "password": "no such password"},
        "VerifyEmail": {"token": "no token", "password": "correct horse battery"},
        "ConfirmEmail": {"token": "no token"},
        "ResetPassword": {"token": "no token", "password": "correct horse battery"},
        **{
            name: {"password": "no such password"}
            for name in ("OfferApp", "RemoveApp", "OfferPasskey", "RemovePasskey", "RenewRecoveryCodes")
        },
        "ConfirmApp": {"code": "000000"},
        "GiveCode": {"code": "000000"},
        "AddPasskey": {"name": "laptop", "credential": "{}"},
        "GivePasskey": {"credential": "{}"},
        "ResendVerification": {"email": "another@example.test"},
        "RequestPasswordReset": {"email": f"{cast.world.shop.distribu.ports.entropy.uuid()}@example.test"},
    }


SUBSCRIBES: Final = frozenset({Permission.WEBHOOKS_WRITE})

Shown = Callable[[Cast, Route], "dict[str, str] | None"]
"""The headers that an actor asks with; None where there is no such actor."""


class Doors:
    """What everybody shows at the doors of one server."""

    def __init__(self, distribu: Distribu, url: str) -> None:
        self.distribu = distribu
        self.url = url
        self.sessions = Sessions(distribu, KEYS, production=False)
        self._addresses = (f"2001:db8:aaaa:{n:x}::1" for n in itertools.count(1))

    def from_elsewhere(self) -> dict[str, str]:
        """Each from an address of its own: what the limits refuse is not the question here."""
        return {"x-forwarded-for": next(self._addresses)}

    def staff(self, name: str) -> Shown:
        return lambda cast, _: self._cookie(self.sessions.begun(cast.members[name].session, None))

    def buyer(self, name: str) -> Shown:
        def shown(cast: Cast, _: Route) -> dict[str, str]:
            # Under the name of this store, whichever it was made for: only the token can tell.
            slug = cast.world.shop.company.slug
            return self._cookie(self.sessions.begun(cast.buyers[name].session, slug))

        return shown

    def nobody(self, cast: Cast, _: Route) -> dict[str, str]:
        return {"sec-fetch-site": "same-origin"}

    @staticmethod
    def _cookie(set_cookie: str) -> dict[str, str]:
        return {"cookie": set_cookie.partition(";")[0], "sec-fetch-site": "same-origin"}


async def key_of(shop: Shop, scopes: Sequence[Permission]) -> dict[str, str]:
    return {"authorization": f"Bearer {await shop.key(*scopes)}"}


async def shown_at_the_api(who: str, cast: Cast, route: Route, doors: Doors) -> dict[str, str] | None:
    """What the actors of the API show: keys."""
    needs = route.request.needs
    shop = cast.world.shop
    match who:
        case "key with the scope":
            # Whoever subscribes to an event needs to be able to read what it carries, too.
            carried = [Permission.ORDERS_READ, Permission.PRODUCTS_READ] if needs in SUBSCRIBES else []
            return await key_of(shop, [needs or SCOPES[0], *carried])
        case "key without it":
            return await key_of(shop, [it for it in SCOPES if it is not needs]) if needs else None
        case "stranger's key":
            return await key_of(cast.other, SCOPES)
        case "nobody":
            return {}
        case _ if who in cast.members:
            return doors.staff(who)(cast, route)
        case _:
            return doors.buyer(who)(cast, route)


_STAFF: Final = ("OWNER", "ADMIN", "MEMBER", "half-signed-in MEMBER", "super-admin", "stranger")
_BUYERS: Final = (
    "contact ADMIN",
    "contact BUYER",
    "contact VIEWER",
    "sibling's contact",
    "contact elsewhere",
)
_KEYS: Final = ("key with the scope", "key without it", "stranger's key")
DOORS: Final[Sequence[tuple[str, str, Sequence[Route], Sequence[str]]]] = (
    (
        "The API, by key",
        "/api/v1",
        ROUTES,
        (*_KEYS, *_STAFF, *_BUYERS, "nobody"),
    ),
    ("Before signing in", "/auth", AUTH, ("nobody", *_STAFF, *_BUYERS, "key")),
    ("Staff, by session", "/account", ACCOUNT, (*_STAFF, *_BUYERS, "key", "nobody")),
    ("A store's customers, by session", "/store/{slug}", STORE, (*_BUYERS, *_STAFF, "key", "nobody")),
    ("The platform, by session", "/api/admin", ADMIN, (*_STAFF, *_BUYERS, "key", "nobody")),
)


async def shown(who: str, cast: Cast, route: Route, door: str, doors: Doors) -> dict[str, str] | None:
    if door == "/api/v1":
        return await shown_at_the_api(who, cast, route, doors)
    if who in cast.members:
        return doors.staff(who)(cast, route)
    if who in cast.buyers:
        return doors.buyer(who)(cast, route)
    if who == "key":
        return {**await key_of(cast.world.shop, SCOPES), "sec-fetch-site": "same-origin"}
    return doors.nobody(cast, route)


def outcome(answer: httpx.Response) -> str:
    if answer.is_success:
        return "yes"
    assert answer.status_code < 500, answer.text
    return f"{answer.status_code} {answer.json()['code']}"


async def cells(
    distribu: Distribu,
    doors: Doors,
    client: httpx.AsyncClient,
    prefix: str,
    route: Route,
    actors: Sequence[str],
) -> list[str]:
    """What each actor is answered; who may change something finds everything as it was."""
    row = []
    stage = await cast(distribu)
    for who in actors:
        headers = await shown(who, stage, route, prefix, doors)
        if headers is None:
            row.append("-")
            continue
        path = (prefix + route.path).replace(":str}", "}").format(**stage.ids)
        name = route.request.__name__
        body = stage.world.body(name) or bodies(stage).get(name)
        answer = await client.request(
            route.method, doors.url + path, json=body, headers=headers | doors.from_elsewhere()
        )
        row.append(outcome(answer))
        if answer.is_success and route.method != "GET" and route.request.needs is not Permission.VISIT:
            stage = await cast(distribu)
    return row


async def table(distribu: Distribu, doors: Doors) -> str:
    text = [HEAD]
    async with httpx.AsyncClient(timeout=30) as client:
        for title, prefix, routes, actors in DOORS:
            rows = [await cells(distribu, doors, client, prefix, route, actors) for route in routes]
            columns = dict[tuple[str, ...], list[str]]()
            for actor, column in zip(actors, zip(*rows, strict=True), strict=True):
                columns.setdefault(column, []).append(actor)
            text += [f"## {title}: `{prefix}`", ""]
            text += ["| | needs | " + " | ".join(map(", ".join, columns.values())) + " |"]
            text += ["|---" * (len(columns) + 2) + "|"]
            for route, *row in zip(routes, *columns, strict=True):
                where = route.method + " " + re.sub(r":str}", "}", route.path or "/")
                needs = route.request.needs or "any key"
                text.append(f"| `{where}` {route.request.__name__} | {needs} | {' | '.join(row)} |")
            text.append("")
    return "\n".join([*text, NO_ROUTE, *await by_no_route(distribu), ""])


async def by_no_route(distribu: Distribu) -> list[str]:
    """What no route leads to, with what it needs: whoever does not hold that is refused by the executor."""
    stage = await cast(distribu)
    shop = stage.world.shop
    everyone: list[Staff | Buyer] = [*stage.members.values(), *stage.buyers.values()]
    everybody = [await people.acting(shop, one) for one in everyone]
    everybody += [Actor.visitor(), Actor.visitor(company_id=shop.company.id), key_actor(shop, *SCOPES)]
    routed = {route.request for _, _, routes, _ in DOORS for route in routes}
    samples = {type(it): it for it in (*READING, *CHANGING, *VISITING)}
    lines = []
    for kind in sorted({it for it in kinds() if not it.internal} - routed, key=lambda it: it.__name__):
        for actor in everybody:
            if kind.needs not in actor.permissions:
                with pytest.raises(Forbidden):
                    await distribu.execute(actor, samples[kind])
        lines.append(f"- {kind.__name__}: {kind.needs}")
    return lines


@pytest.fixture
async def doors(distribu: Distribu) -> AsyncIterator[Doors]:
    site = Site(trusted=(ip_network("127.0.0.0/8"),))
    async with listening(distribu, "127.0.0.1", 0, site=site, keys=KEYS) as url:
        yield Doors(distribu, url)


async def test_who_may_do_what_is_as_written_down(
    distribu: Distribu, doors: Doors, request: pytest.FixtureRequest
) -> None:
    found = await table(distribu, doors)
    if request.config.getoption("--write-table"):
        TABLE.write_text(found)
    assert found.splitlines() == TABLE.read_text().splitlines()
