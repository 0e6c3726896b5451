"""Everything people can do to each other's permissions, tried out: nobody gains what nobody gave.

Every sequence of so many steps, each asked for by everybody there is, is run through the executor on the
memory store. After each step that was done, what everybody may do at their next request is compared with
the state before it, by rules that know nothing of the code but are those of the table in section 2 of the
product's description, written out here once more:

1. There is exactly one OWNER.
2. Somebody of the team may do exactly what their role may; whoever is of no team has their own account
   alone; a contact may do what it always could.
3. Somebody becomes a member by taking, themselves, an open offer to their own address, as what it offers;
   the offer is over then.
4. An offer is made, or its role changed, by an OWNER or ADMIN alone, and is never that of OWNER. It ends
   when whoever made it is gone, and what has ended stays so.
5. A role is changed by the OWNER alone. An ADMIN becomes OWNER only by the OWNER's own step, who becomes
   an ADMIN with it. Nobody is put out but by the OWNER or, a MEMBER, by an ADMIN; the OWNER by nobody.
6. A key is made, edited or revoked by an OWNER or ADMIN alone. Its scopes are within the nine, within what
   its maker may do, and never more than before. It opens these scopes, and nothing once it is revoked; what
   is revoked stays so.

By 3 to 6 every permission that somebody has beyond those at the start was given to them by somebody who
was entitled to give it then. A step that is refused changes nothing.

States that differ in ids alone go on alike, as do those that differ in how many keys or offers there are of
exactly the same kind: of such states only the first is gone on from.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

import pytest
from msgspec import structs

from distribu import Actor, ContactRole, Distribu, Harness, Refused, Role
from distribu.adapters.memory.store import MemoryStore
from distribu.application import profiles, team as application_team
from distribu.application.access import CreateApiKey, EditApiKey, RevokeApiKey
from distribu.application.kernel import Outside, Request, Work
from distribu.application.ports import Limit, Standing
from distribu.application.team import (
    AcceptInvitation,
    AcceptInvitationAs,
    ChangeRole,
    EditInvitation,
    InviteMember,
    LeaveCompany,
    RemoveMember,
    ResendInvitation,
    RevokeInvitation,
    TransferOwnership,
)
from distribu.domain import team
from distribu.domain.access import ROLE_PERMISSIONS, ApiKey, ApiKeyEdited, Permission
from distribu.domain.accounts import Link, Session
from distribu.domain.audit import AccessRefused
from distribu.domain.team import (
    Invitation,
    InvitationAccepted,
    MemberRemoved,
    MemberRoleChanged,
    Membership,
)
from distribu.domain.values import ApiKeyId, CompanyId, Secret
from tests import people
from tests.contracts.teams import joined
from tests.contracts.visiting import PASSWORD

# --- the matrix of product.md, section 2, written out a second time ------------------------------

_SCOPES: Final = frozenset(
    {f"{area}:{act}" for area in ("products", "orders", "customers", "webhooks") for act in ("read", "write")}
    | {"reports:read"}
)
_ALONE: Final = frozenset({"account"})
_MEMBER: Final = (
    _ALONE
    | _SCOPES - {"webhooks:read", "webhooks:write"}
    | {"company:read", "members:read", "contacts:manage"}
)
_ADMIN: Final = (
    _MEMBER
    | _SCOPES
    | {*("api_keys:manage", "audit:read", "audit:write", "company:manage", "members:invite")}
)
_OWNER: Final = _ADMIN | {"members:manage", "company:delete", "billing:manage", "audit:erase"}
MATRIX: Final[Mapping[Role | None, frozenset[str]]] = {
    None: _ALONE,
    Role.MEMBER: _MEMBER,
    Role.ADMIN: _ADMIN,
    Role.OWNER: _OWNER,
}
_CONTACT: Final = _ALONE | {
    *("products:read", "orders:read", "orders:write", "customers:read", "company:read", "contacts:manage")
}
LEADS: Final = (Role.OWNER, Role.ADMIN)

Shelves = dict[CompanyId, Any]

# --- who there is --------------------------------------------------------------------------------

USERS: Final = ("owner", "admin", "member", "outsider")
ACTORS: Final = (*USERS, "contact", "key", "visitor")
READS: Final = (Permission.ORDERS_READ, Permission.WEBHOOKS_READ)
WANTED: Final = (
    READS[:1],
    (*READS, Permission.WEBHOOKS_WRITE),
    (Permission.ORDERS_READ, Permission.API_KEYS_MANAGE),
)
"""Scopes that are asked for: fewer than the first key has, more, and what no key may have."""


class Unlimited:
    """A limiter that lets everything through."""

    away = 0

    async def take(self, limit: Limit) -> Standing:
        return Standing(True, limit.most, limit.most, 0, 0, None)


@dataclass(frozen=True, slots=True)
class Offer:
    """An invitation: to whom, as what, offered by whom, and whether it can still be accepted."""

    to: str
    role: Role
    by: str | None
    open: bool


@dataclass(frozen=True, slots=True)
class Key:
    """A key: what it was given, whether it is revoked, and what it opens."""

    scopes: frozenset[str]
    revoked: bool
    opens: frozenset[str]


@dataclass(frozen=True, slots=True)
class Seen:
    """All that matters of one state of the company.

    ``roles`` and ``may`` (what the directory lets somebody do at the next request) are by name; offers
    and keys by id, as are the tokens that were mailed.
    """

    roles: Mapping[str, Role | None]
    may: Mapping[str, frozenset[str]]
    offers: Mapping[str, Offer]
    keys: Mapping[str, Key]
    memberships: Mapping[str, str]
    tokens: Mapping[str, str]
    actors: Mapping[str, Actor]

    @property
    def alike(self) -> object:
        """Two states that are alike in this go on alike: ids are all they differ in."""
        return (
            tuple((self.roles[it], self.may[it], self.actors[it].company_id) for it in USERS),
            tuple(self.may[it] for it in ("contact", "key")),
            frozenset(self.offers.values()),
            frozenset(self.keys.values()),
        )


@dataclass(frozen=True, slots=True)
class Step:
    """Somebody asks for something; ``what`` says it without ids."""

    by: str
    what: str
    request: Request[Any]


@dataclass(slots=True)
class Found:
    """What a search came to.

    The states it saw that are not alike, the requests it made, how many of each kind were done, and the
    first sequence that breaks a rule, with what is wrong after it.
    """

    states: int = 1
    requests: int = 0
    done: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)


def _but_for_refusals(shelf: Any) -> Any:
    kept = [one for one in shelf.records if one.action != AccessRefused.name]
    return replace(shelf, records=kept, texts={one.id: shelf.texts[one.id] for one in kept})


class World:
    """A company in memory that can be put back to any state it was in."""

    def __init__(self, distribu: Distribu, staff: Mapping[str, people.Staff], at_store: Session, key: Secret):
        store = distribu.ports.store
        assert isinstance(store, MemoryStore)
        self.distribu, self.store, self.staff = distribu, store, staff
        self.company_id, self.at_store, self.digest = (
            at_store.company_id,
            at_store,
            ApiKey.digest_of(key.reveal()),
        )
        self.names = {it.user.id: name for name, it in staff.items()}
        self.addressed = {it.user.email: name for name, it in staff.items()}

    @classmethod
    async def open(cls) -> "World":
        """A company with one of each role, somebody of none, a contact, and a key that reads."""
        async with Harness() as shop:
            shop.distribu = Distribu(replace(shop.distribu.ports, limiter=Unlimited()))
            roles = (Role.OWNER, Role.ADMIN, Role.MEMBER, None)
            staff = {name: await joined(shop, role, name) for name, role in zip(USERS, roles, strict=True)}
            buyer = await people.buyer(shop, await shop.customer(), ContactRole.ADMIN)
            return cls(shop.distribu, staff, buyer.session, Secret(await shop.key(*READS)))

    def shelves(self) -> Shelves:
        """The state itself: a shelf is never changed, each write puts another in its place."""
        return dict(self.store.shelves)

    def put_back(self, shelves: Shelves) -> None:
        """Go back to a state."""
        self.store.shelves.clear()
        self.store.shelves.update(shelves)

    def is_at(self, shelves: Shelves) -> bool:
        """Whether nothing was written since, but for who was refused."""
        return len(shelves) == len(self.store.shelves) and all(
            (now := self.store.shelves[id]) is shelf or _but_for_refusals(now) == shelf
            for id, shelf in shelves.items()
        )

    async def look(self) -> Seen:
        """The state as it is now."""
        rows = self.store.shelves[self.company_id].entities
        members: list[Membership] = [*rows[Membership].values()]
        here = {self.names[it.user_id]: it for it in members if it.removed_at is None}
        whose = {it.id: self.names[it.user_id] for it in members}
        actors = await self._actors()
        return Seen(
            roles={name: here[name].role if name in here else None for name in USERS},
            may={name: _may(actors.get(name)) for name in ACTORS},
            offers={
                it.id: Offer(self.addressed[it.email], it.role, whose.get(it.invited_by or "", ""), it.open)
                for it in rows[Invitation].values()
            },
            keys={it.id: await self._key(it) for it in rows[ApiKey].values()},
            memberships={name: it.id for name, it in here.items()},
            tokens=self._tokens(),
            actors=actors,
        )

    async def _actors(self) -> dict[str, Actor]:
        now = self.distribu.ports.clock.now()
        directory = self.distribu.ports.directory
        grants = {
            **{name: await directory.staff_session(it.session.id) for name, it in self.staff.items()},
            "contact": await directory.store_session(self.company_id, self.at_store.id),
            "key": await directory.key(self.digest),
        }
        actors = {name: it.actor(now=now, ip=None) for name, it in grants.items() if it is not None}
        here = {name: actor for name, actor in actors.items() if actor is not None}
        return here | {"visitor": Actor.visitor()}

    async def _key(self, key: ApiKey) -> Key:
        grant = await self.store.key(key.digest)
        actor = grant.actor(now=self.distribu.ports.clock.now(), ip=None) if grant is not None else None
        scopes = frozenset(it.value for it in key.scopes)
        return Key(scopes, key.revoked_at is not None, _may(actor))

    def _tokens(self) -> dict[str, str]:
        """Every link that was mailed, by what it is for."""
        opened = (
            self.distribu.ports.vault.open(it.parcel.sealed)
            for it in self.store.shelves[self.company_id].mails
            if it.parcel.sealed is not None
        )
        return {Link.of(token).subject: token.reveal() for token in opened}

    def steps(self, seen: Seen) -> Iterator[Step]:
        """All that anybody could ask for now."""
        for what, request in self._requests(seen):
            for by in seen.actors:
                yield Step(by, what, request)

    def _requests(self, seen: Seen) -> Iterator[tuple[str, Request[Any]]]:
        offers = {offer: id for id, offer in seen.offers.items()}
        keys = {key: id for id, key in seen.keys.items()}
        for name in USERS:
            email = self.staff[name].user.email
            for role in Role:
                yield f"invites {name} as {role}", InviteMember(email=email, role=role)
        for offer, id in offers.items():
            token = seen.tokens[id]
            accept = AcceptInvitation(token=token, full_name="Somebody", password=PASSWORD)
            yield f"takes the place of {offer.to} as {offer.role}", AcceptInvitationAs(token=token)
            yield f"takes the place of {offer.to} as {offer.role} anew", accept
            yield f"has {offer.to} mailed again", ResendInvitation(invitation_id=id)
            yield f"revokes the offer to {offer.to}", RevokeInvitation(invitation_id=id)
            for role in Role:
                yield f"offers {offer.to} {role}", EditInvitation(invitation_id=id, role=role)
        for name, id in seen.memberships.items():
            for role in Role:
                yield f"makes {name} {role}", ChangeRole(member_id=id, role=role)
            yield f"removes {name}", RemoveMember(member_id=id)
            yield f"hands over to {name}", TransferOwnership(member_id=id, password=PASSWORD)
        yield "leaves", LeaveCompany()
        for scopes in WANTED:
            yield f"makes a key with {[*scopes]}", CreateApiKey(name="a key", scopes=scopes)
            for key, key_id in keys.items():
                edit = EditApiKey(api_key_id=ApiKeyId(key_id), scopes=scopes)
                yield f"gives the key with {sorted(key.scopes)} {[*scopes]}", edit
        for key, key_id in keys.items():
            yield f"revokes the key with {sorted(key.scopes)}", RevokeApiKey(api_key_id=ApiKeyId(key_id))


def _may(actor: Actor | None) -> frozenset[str]:
    return frozenset() if actor is None else frozenset(it.value for it in actor.permissions)


# --- what may come of a step ---------------------------------------------------------------------


def broken(before: Seen, by: str, after: Seen) -> Iterator[str]:
    """The rules that a step of ``by`` has broken."""
    role = before.roles.get(by)
    leads = role in LEADS
    if [*after.roles.values()].count(Role.OWNER) != 1:
        yield "there is not one OWNER"
    for name in USERS:
        was, now = before.roles[name], after.roles[name]
        if after.may[name] != MATRIX[now]:
            yield f"{name} is {now} and may do {sorted(after.may[name] ^ MATRIX[now])}, or not"
        if was is not now and not _becomes(before, by, name, now):
            yield f"{name} became {now}"
        if was is None and now is not None and _offers(after, name):
            yield f"{name} can take the place again"
        if now is None and any(it.open and it.by == name for it in after.offers.values()):
            yield f"an offer of {name} outlived them"
    if after.may["contact"] != _CONTACT:
        yield "the contact may do something else"
    for id, offer in after.offers.items():
        old = before.offers.get(id)
        made = offer.open and (old is None or old.role is not offer.role)
        if made and (not leads or offer.role is Role.OWNER):
            yield f"{offer.to} was offered {offer.role}"
        if old is not None and (offer.to != old.to or offer.open > old.open):
            yield f"the offer to {old.to} came to life"
    for id, key in after.keys.items():
        had = before.keys.get(id)
        if key != had and not leads:
            yield "a key was changed"
        if not key.scopes <= (before.may[by] & _SCOPES if had is None else had.scopes):
            yield f"a key has {sorted(key.scopes)}"
        if key.opens != (frozenset() if key.revoked else key.scopes):
            yield f"a key opens {sorted(key.opens)}"
        if had is not None and had.revoked > key.revoked:
            yield "a key came to life"


def _offers(seen: Seen, name: str) -> list[Role]:
    return [it.role for it in seen.offers.values() if it.open and it.to == name]


def _becomes(before: Seen, by: str, name: str, now: Role | None) -> bool:
    """Whether a step of ``by`` may make ``name``, who was something else, what they are ``now``."""
    role = before.roles.get(by)
    match before.roles[name], now:
        case None, _:
            return by == name and now in _offers(before, name)
        case Role.OWNER, Role.ADMIN:
            return by == name  # it is another one now: there is always one
        case Role.OWNER, _:
            return False
        case was, None:
            return by == name or role is Role.OWNER or (role is Role.ADMIN and was is Role.MEMBER)
        case was, Role.OWNER:
            return role is Role.OWNER and was is Role.ADMIN
    return role is Role.OWNER


# --- the search ----------------------------------------------------------------------------------


async def search(length: int) -> Found:
    """Try every sequence of ``length`` steps of everybody; stop at the first that breaks a rule."""
    world = await World.open()
    found, start = Found(), await world.look()
    known = {start.alike}
    reached: list[tuple[Shelves, Seen, tuple[str, ...]]] = [(world.shelves(), start, ())]
    for deep in range(1, length + 1):
        ahead = []
        for shelves, seen, path in reached:
            world.put_back(shelves)
            for step in world.steps(seen):
                here = (*path, f"{step.by} {step.what}")
                found.requests += 1
                try:
                    await world.distribu.execute(seen.actors[step.by], step.request)
                except Refused as no:
                    if not world.is_at(shelves):
                        found.broken = [*here, f"was refused ({no.code}) and changed something"]
                        return found
                    world.put_back(shelves)
                    continue
                found.done[type(step.request).__name__] += 1
                now = await world.look()
                wrong = [*broken(seen, step.by, now)]
                if wrong:
                    found.broken = [*here, *wrong]
                    return found
                if now.alike not in known:
                    known.add(now.alike)
                    found.states += 1
                    if deep < length:
                        ahead.append((world.shelves(), now, here))
                world.put_back(shelves)
        reached = ahead
    return found


async def test_nobody_gains_in_four_steps_what_nobody_gave() -> None:
    found = await search(4)
    assert found.broken == []
    assert found.states > 2_000
    assert set(found.done) == {
        *("InviteMember", "AcceptInvitationAs", "EditInvitation", "ResendInvitation", "RevokeInvitation"),
        *("ChangeRole", "RemoveMember", "LeaveCompany", "TransferOwnership"),
        *("CreateApiKey", "EditApiKey", "RevokeApiKey"),
    }
    assert min(found.done.values()) > 100


# --- mistakes that it has to find ----------------------------------------------------------------

Planted = Callable[[pytest.MonkeyPatch], None]
_change_role, _remove, _offered = Membership.change_role, Membership.remove, application_team._offered


def _asks_for(kind: type[Request[Any]], needs: Permission) -> Planted:
    return lambda planted: planted.setattr(kind, "needs", needs)


def _both(*mistakes: Planted) -> Planted:
    def plant(planted: pytest.MonkeyPatch) -> None:
        for mistake in mistakes:
            mistake(planted)

    return plant


def _change_role_forgets_who_asks(planted: pytest.MonkeyPatch) -> None:
    def change_role(member: Membership, role: Role, *, by: Membership | None, at: datetime) -> Membership:
        return _change_role(member, role, by=None, at=at)

    planted.setattr(Membership, "change_role", change_role)


def _remove_forgets_who_asks(planted: pytest.MonkeyPatch) -> None:
    def remove(member: Membership, *, by: Membership | None, at: datetime) -> Membership:
        return _remove(member, by=None, at=at)

    planted.setattr(Membership, "remove", remove)


def _offer_forgets_the_cap(planted: pytest.MonkeyPatch) -> None:
    planted.setattr(team, "_offered", lambda role, by: None)


def _edit_widens_a_key(planted: pytest.MonkeyPatch) -> None:
    def edit(key: ApiKey, changes: dict[str, Any], *, at: datetime) -> ApiKey:
        return key._after(ApiKeyEdited(before={}, after={}), at=at, **changes)

    planted.setattr(ApiKey, "edit", edit)


def _anybody_inherits(planted: pytest.MonkeyPatch) -> None:
    def inherit(heir: Membership, *, at: datetime) -> Membership:
        if heir.role is Role.OWNER:
            raise Refused("not_an_admin")
        event = MemberRoleChanged(user_id=heir.user_id, before=heir.role, after=Role.OWNER)
        return heir._after(event, at=at, role=Role.OWNER)

    planted.setattr(Membership, "inherit", inherit)


def _the_owner_stays_one(planted: pytest.MonkeyPatch) -> None:
    planted.setattr(Membership, "hand_over", lambda owner, to, *, at: (owner, to.inherit(at=at)))


def _an_owner_may_leave(planted: pytest.MonkeyPatch) -> None:
    def leave(member: Membership, *, at: datetime) -> Membership:
        event = MemberRemoved(user_id=member.user_id, role=member.role, left=True)
        return member._after(event, at=at, removed_at=at)

    planted.setattr(Membership, "leave", leave)


def _any_address_will_do(planted: pytest.MonkeyPatch) -> None:
    async def offered(outside: Outside, token: str) -> tuple[Link, profiles.OfferView]:
        link, offer = await _offered(outside, token)
        return link, structs.replace(offer, email=outside.actor.label)

    planted.setattr(application_team, "_offered", offered)


def _an_offer_is_taken_twice(planted: pytest.MonkeyPatch) -> None:
    def accept(offer: Invitation, digest: bytes, user_id: str, *, at: datetime) -> Invitation:
        offer.admits(digest, at=at)
        return offer._after(InvitationAccepted(user_id=user_id), at=at)

    planted.setattr(Invitation, "accept", accept)


def _offers_outlive_who_made_them(planted: pytest.MonkeyPatch) -> None:
    async def gone(work: Work, member: Membership) -> None:
        work.save(member)

    planted.setattr(application_team, "_gone", gone)


def _a_member_may_invite(planted: pytest.MonkeyPatch) -> None:
    more = ROLE_PERMISSIONS[Role.MEMBER] | {Permission.MEMBERS_INVITE}
    planted.setitem(ROLE_PERMISSIONS, Role.MEMBER, more)


def _nobody_asks_again(planted: pytest.MonkeyPatch) -> None:
    planted.setattr(application_team, "ROLE_PERMISSIONS", dict.fromkeys(Role, frozenset(Permission)))


_anybody_asks_for_roles = _asks_for(ChangeRole, Permission.MEMBERS_INVITE)

MISTAKES: Final[Mapping[str, tuple[Planted, str]]] = {
    "an offer forgets the cap of the role": (_offer_forgets_the_cap, "was offered OWNER"),
    "editing a key widens it": (_edit_widens_a_key, "a key has"),
    "an admin changes roles": (
        _both(_change_role_forgets_who_asks, _anybody_asks_for_roles, _nobody_asks_again),
        "became",
    ),
    "removing forgets who asks": (_remove_forgets_who_asks, "admin became None"),
    "a member makes keys": (_asks_for(CreateApiKey, Permission.MEMBERS_READ), "a key was changed"),
    "a contact makes keys": (_asks_for(CreateApiKey, Permission.COMPANY_READ), "a key was changed"),
    "a key makes keys": (_asks_for(CreateApiKey, Permission.WEBHOOKS_READ), "a key was changed"),
    "a member inherits": (_anybody_inherits, "member became OWNER"),
    "the owner stays one": (_the_owner_stays_one, "there is not one OWNER"),
    "the owner leaves": (_an_owner_may_leave, "there is not one OWNER"),
    "any address will do": (_any_address_will_do, "admin became ADMIN"),
    "an offer is taken twice": (_an_offer_is_taken_twice, "can take the place again"),
    "offers outlive who made them": (_offers_outlive_who_made_them, "outlived them"),
    "a member may invite": (_a_member_may_invite, "member is MEMBER and may do ['members:invite'], or not"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
async def test_a_mistake_is_found(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, told = MISTAKES[mistake]
    plant(monkeypatch)
    found = await search(4)
    assert any(told in line for line in found.broken), found


HALVES: Final[Mapping[str, Planted]] = {
    "changing a role forgets who asks": _change_role_forgets_who_asks,
    "nobody asks again under the lock": _nobody_asks_again,
    "an admin may ask for a change of role": _anybody_asks_for_roles,
    "an admin may ask to hand over": _asks_for(TransferOwnership, Permission.MEMBERS_INVITE),
    "a member may ask to remove": _asks_for(RemoveMember, Permission.MEMBERS_READ),
    "a key may ask to invite": _asks_for(InviteMember, Permission.WEBHOOKS_READ),
}


@pytest.mark.parametrize("mistake", HALVES)
async def test_there_are_two_walls(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The executor asks for a permission, under the lock it is asked for again, and the entity asks for a
    role: one of them that forgets opens nothing."""
    HALVES[mistake](monkeypatch)
    found = await search(3)
    assert found.broken == []
