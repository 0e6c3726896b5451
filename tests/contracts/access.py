"""Use cases of API keys, and what each actor may do, on any store."""

import re
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
import pytest

from distribu import Actor, ContactRole, Forbidden, Harness, Invalid, NotFound, Refused, Role, Stale
from distribu.application import access, views
from distribu.application.kernel import Request
from distribu.domain.access import (
    CONTACT_PERMISSIONS,
    ROLE_PERMISSIONS,
    SCOPES,
    ApiKey,
    Permission,
)
from tests.contracts.asking import contact_of, everything, key_of, log_of, refused
from tests.contracts.requests import CHANGING, READING, VISITING, kinds

_ID: Final = "00000000-0000-7000-8000-000000000000"

READ_SCOPES: Final = tuple(scope for scope in SCOPES if scope.value.endswith(":read"))


def _blank(kind: type[Request[Any]]) -> Request[Any]:
    """A request of this kind with nothing in it, which is all that can be made of any kind."""
    unchecked = {"__post_init__": lambda _: None, "__module__": __name__}
    blank: Any = msgspec.defstruct(
        kind.__name__, [], bases=(kind,), namespace=unchecked, frozen=True, kw_only=True
    )
    made: Request[Any] = blank(**dict.fromkeys(kind.__struct_fields__))
    return made


def named(request: Request[Any]) -> str:
    return type(request).__name__


class AccessUseCases:
    # --- keys ----------------------------------------------------------------------------------

    async def test_a_key_is_shown_once_and_kept_as_a_digest(self, shop: Harness) -> None:
        issued = await shop.execute(access.CreateApiKey(name="ERP", scopes=(Permission.ORDERS_READ,)))
        key = issued.secret.reveal()
        assert re.fullmatch(r"dk_[A-Za-z0-9_-]{43}", key)
        assert len(key) == 46
        assert (issued.what.prefix, issued.what.digest) == (key[:8], ApiKey.digest_of(key))
        read = await shop.execute(access.ReadApiKey(api_key_id=issued.what.id))
        assert read == issued.what
        assert key not in repr(issued)
        assert key not in repr(await everything(shop))

    async def test_keys_differ(self, shop: Harness) -> None:
        assert len({await shop.key() for _ in range(5)}) == 5

    async def test_scopes_are_kept_once_and_in_their_order(self, shop: Harness) -> None:
        scopes = (Permission.WEBHOOKS_READ, Permission.PRODUCTS_READ, Permission.WEBHOOKS_READ)
        issued = await shop.execute(access.CreateApiKey(name="ERP", scopes=scopes))
        assert issued.what.scopes == (Permission.PRODUCTS_READ, Permission.WEBHOOKS_READ)

    @pytest.mark.parametrize("scope", sorted(set(Permission) - set(SCOPES)))
    async def test_no_key_holds_more_than_the_nine_scopes(self, shop: Harness, scope: Permission) -> None:
        async with refused(shop, "invalid_request", Invalid) as no:
            await shop.execute(access.CreateApiKey(name="ERP", scopes=(Permission.ORDERS_READ, scope)))
        assert list(no.refused.fields) == ["scopes"]

    async def test_a_key_needs_a_scope_a_name_and_a_future(self, shop: Harness) -> None:
        now = shop.clock.now()
        wrong: tuple[dict[str, Any], ...] = ({"scopes": ()}, {"name": ""}, {"expires_at": now})
        for one in wrong:
            given: dict[str, Any] = {"name": "ERP", "scopes": SCOPES} | one
            async with refused(shop, "invalid_request", Invalid):
                await shop.execute(access.CreateApiKey(**given))

    async def test_an_expired_or_revoked_key_is_nobody(self, shop: Harness) -> None:
        now = shop.clock.now()
        until = now + timedelta(minutes=1)
        expiring = await shop.execute(access.CreateApiKey(name="E", scopes=SCOPES, expires_at=until))
        revoked = await shop.execute(access.CreateApiKey(name="R", scopes=SCOPES))

        async def actor(key: str) -> Actor | None:
            grant = await shop.distribu.ports.directory.key(ApiKey.digest_of(key))
            return None if grant is None else grant.actor(now=shop.clock.now(), ip="192.0.2.1")

        for issued in (expiring, revoked):
            known = await actor(issued.secret.reveal())
            assert known is not None
            assert (known.company_id, known.permissions) == (shop.company.id, frozenset(SCOPES))
        await shop.execute(access.RevokeApiKey(api_key_id=revoked.what.id))
        assert await actor(revoked.secret.reveal()) is None
        shop.clock.advance(minutes=1, milliseconds=-1)
        assert await actor(expiring.secret.reveal()) is not None
        shop.clock.advance(milliseconds=1)
        assert await actor(expiring.secret.reveal()) is None

    async def test_a_key_is_revoked_once(self, shop: Harness) -> None:
        issued = await shop.execute(access.CreateApiKey(name="R", scopes=SCOPES))
        await shop.execute(access.RevokeApiKey(api_key_id=issued.what.id))
        async with refused(shop, "already_revoked"):
            await shop.execute(access.RevokeApiKey(api_key_id=issued.what.id))

    async def test_an_edited_key_is_at_the_door_what_it_was_made(self, shop: Harness) -> None:
        scopes = (Permission.PRODUCTS_READ, Permission.ORDERS_READ, Permission.ORDERS_WRITE)
        issued = await shop.execute(access.CreateApiKey(name="ERP", scopes=scopes))
        digest = issued.what.digest

        async def grant() -> tuple[str, frozenset[Permission], datetime | None, bool]:
            it = await shop.distribu.ports.directory.key(digest)
            assert it is not None
            assert (it.company_id, it.key_id) == (shop.company.id, issued.what.id)
            return it.name, it.scopes, it.expires_at, it.revoked

        shop.clock.advance(minutes=1)
        until = shop.clock.now() + timedelta(days=1)
        edit = access.EditApiKey(
            api_key_id=issued.what.id,
            name="Shop",
            scopes=(Permission.ORDERS_READ, Permission.PRODUCTS_READ, Permission.ORDERS_READ),
            expires_at=until,
        )
        edited = await shop.execute(edit)
        kept = (Permission.PRODUCTS_READ, Permission.ORDERS_READ)
        assert (edited.name, edited.scopes, edited.expires_at, edited.version) == ("Shop", kept, until, 2)
        assert edited == await shop.execute(access.ReadApiKey(api_key_id=issued.what.id))
        assert (edited.digest, edited.prefix) == (digest, issued.what.prefix)
        assert await grant() == ("Shop", frozenset(kept), until, False)
        (told,) = await log_of(shop, "api_key.updated")
        assert told.metadata == {
            "before": {
                "name": "ERP",
                "scopes": ["products:read", "orders:read", "orders:write"],
                "expiresAt": None,
            },
            "after": {
                "name": "Shop",
                "scopes": ["products:read", "orders:read"],
                "expiresAt": views.time(until),
            },
        }
        endless = await shop.execute(access.EditApiKey(api_key_id=issued.what.id, expires_at=None))
        assert (endless.name, endless.scopes, endless.expires_at) == ("Shop", kept, None)
        assert await grant() == ("Shop", frozenset(kept), None, False)
        await shop.execute(access.RevokeApiKey(api_key_id=issued.what.id))
        assert await grant() == ("Shop", frozenset(kept), None, True)

    async def test_an_edit_of_a_key_that_changes_nothing_is_none(self, shop: Harness) -> None:
        issued = await shop.execute(access.CreateApiKey(name="ERP", scopes=SCOPES))
        before = await everything(shop)
        id = issued.what.id
        for edit in (
            access.EditApiKey(api_key_id=id),
            access.EditApiKey(api_key_id=id, name="ERP", scopes=SCOPES[::-1], expires_at=None, version=1),
        ):
            assert await shop.execute(edit) == issued.what
        assert await everything(shop) == before

    async def test_no_edit_widens_a_key(self, shop: Harness) -> None:
        """Nor can it be brought back in two steps what was taken away in one."""
        id = (await shop.execute(access.CreateApiKey(name="ERP", scopes=READ_SCOPES))).what.id
        await shop.execute(access.EditApiKey(api_key_id=id, scopes=READ_SCOPES[:2]))
        for wider in (SCOPES, (*READ_SCOPES[:2], READ_SCOPES[2]), (Permission.API_KEYS_MANAGE,)):
            async with refused(shop, "invalid_request", Invalid) as no:
                await shop.execute(access.EditApiKey(api_key_id=id, name="ERP 2", scopes=wider))
            assert list(no.refused.fields) == ["scopes"]

    async def test_a_key_ends_in_the_future_alone_and_one_that_is_revoked_stays_as_it_is(
        self, shop: Harness
    ) -> None:
        made = await shop.execute(access.CreateApiKey(name="ERP", scopes=SCOPES))
        id, now = made.what.id, shop.clock.now()
        for past in (now, now - timedelta(milliseconds=1)):
            async with refused(shop, "invalid_request", Invalid) as no:
                await shop.execute(access.EditApiKey(api_key_id=id, expires_at=past))
            assert list(no.refused.fields) == ["expiresAt"]
        async with refused(shop, "precondition_failed", Stale):
            await shop.execute(access.EditApiKey(api_key_id=id, name="Shop", version=2))
        await shop.execute(access.RevokeApiKey(api_key_id=id))
        for edit in (
            access.EditApiKey(api_key_id=id),
            access.EditApiKey(api_key_id=id, name="Shop"),
            access.EditApiKey(api_key_id=id, expires_at=now + timedelta(days=1)),
        ):
            async with refused(shop, "already_revoked"):
                await shop.execute(edit)

    async def test_nobody_else_can_read_edit_or_revoke_a_key(self, shop: Harness) -> None:
        """Not another company, and not a member who may not manage keys."""
        issued = await shop.execute(access.CreateApiKey(name="R", scopes=SCOPES))
        stranger = await shop.stranger()
        for request in (
            access.RevokeApiKey(api_key_id=issued.what.id),
            access.EditApiKey(api_key_id=issued.what.id, name="Mine"),
            access.ReadApiKey(api_key_id=issued.what.id),
        ):
            async with refused(shop, "api_key_not_found", NotFound):
                await stranger.execute(request)
            member = Actor.staff(shop.company.id, Role.MEMBER, id="u1", label="Mo")
            async with refused(shop, "forbidden", Forbidden):
                await shop.execute(request, member)
        assert (await stranger.execute(access.ListApiKeys())).items == ()

    # --- who may do what -----------------------------------------------------------------------

    async def test_every_request_is_looked_at(self) -> None:
        looked_at = {type(request) for request in READING + CHANGING + VISITING}
        assert looked_at == {kind for kind in kinds() if not kind.internal}
        assert {type(it) for it in VISITING} == {it for it in looked_at if it.needs is Permission.VISIT}

    async def test_what_a_process_starts_is_reached_by_nobody_else(self, shop: Harness) -> None:
        """Not even by the owner or by an operator: these ask for no permission."""
        internal = [kind for kind in kinds() if kind.internal]
        assert len(internal) > 20
        everybody = [
            *(Actor.staff(shop.company.id, role, id=_ID, label="x") for role in Role),
            contact_of(shop, await shop.customer(), ContactRole.ADMIN),
            key_of(shop, *SCOPES),
            Actor.system(shop.company.id),
            Actor.system(None),
            Actor.visitor(company_id=shop.company.id),
        ]
        for kind in internal:
            for actor in everybody:
                async with refused(shop, "forbidden", Forbidden):
                    await shop.execute(_blank(kind), actor)

    @pytest.mark.parametrize("request_", CHANGING + VISITING, ids=named)
    @pytest.mark.parametrize("scope", READ_SCOPES)
    async def test_a_key_that_reads_changes_nothing(
        self, shop: Harness, scope: Permission, request_: Request[Any]
    ) -> None:
        code = "missing_scope" if request_.needs in SCOPES else "forbidden"
        async with refused(shop, code, Forbidden) as no:
            await shop.execute(request_, key_of(shop, *READ_SCOPES))
        if code == "missing_scope":
            assert str(request_.needs) in no.refused.message
        assert scope is not request_.needs

    @pytest.mark.parametrize("request_", READING + CHANGING + VISITING, ids=named)
    async def test_each_role_and_key_is_let_in_by_what_it_needs_and_by_nothing_else(
        self, shop: Harness, request_: Request[Any]
    ) -> None:
        customer = await shop.customer()
        id = shop.distribu.ports.entropy.uuid()
        actors = [
            *(Actor.staff(shop.company.id, role, id=id, label="x") for role in Role),
            *(contact_of(shop, customer, role) for role in ContactRole),
            *(key_of(shop, scope) for scope in SCOPES),
        ]
        for actor in actors:
            try:
                actor.require(request_.needs)
                let_in = True
            except Refused:
                let_in = False
            assert let_in == (request_.needs is None or request_.needs in actor.permissions)
            if not let_in:
                with pytest.raises(Forbidden):
                    await shop.execute(request_, actor)

    async def test_the_roles_are_those_of_the_table(self) -> None:
        """Who holds what, written out a second time."""
        sales = {f"{area}:{act}" for area in ("products", "orders", "customers") for act in ("read", "write")}
        member = sales | {"reports:read", "company:read", "members:read", "contacts:manage", "account"}
        admin = member | {
            *("webhooks:read", "webhooks:write", "api_keys:manage", "audit:read", "audit:write"),
            *("company:manage", "members:invite"),
        }
        owner = admin | {"members:manage", "company:delete", "billing:manage", "audit:erase"}
        assert {it.value for it in ROLE_PERMISSIONS[Role.MEMBER]} == member
        assert {it.value for it in ROLE_PERMISSIONS[Role.ADMIN]} == admin
        assert {it.value for it in ROLE_PERMISSIONS[Role.OWNER]} == owner
        nobodys = {it.value for it in Permission} - owner
        assert nobodys == {"company:create", "visit", "platform"} | (nobodys & {"second_factor"})
        viewer = {"products:read", "orders:read", "customers:read", "company:read", "account"}
        assert {it.value for it in CONTACT_PERMISSIONS[ContactRole.VIEWER]} == viewer
        assert {it.value for it in CONTACT_PERMISSIONS[ContactRole.BUYER]} == viewer | {"orders:write"}
        assert {it.value for it in CONTACT_PERMISSIONS[ContactRole.ADMIN]} == viewer | {
            "orders:write",
            "contacts:manage",
        }
