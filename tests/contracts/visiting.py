"""Visitors, what is mailed to them, and how they come in, as the use-case tests of people have it."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import count
from typing import Any, Final

import pytest

from distribu import (
    Actor,
    Distribu,
    Harness,
    Role,
    Secret,
    Shop,
)
from distribu.adapters.mail import Arrived
from distribu.adapters.memory.twins import PlainHasher
from distribu.application.accounts import (
    ChangeEmail,
    ConfirmEmail,
    RequestPasswordReset,
    ResendVerification,
    ResetPassword,
    SignUp,
    VerifyEmail,
)
from distribu.application.audit import ListAudit
from distribu.application.contacts import (
    AcceptContactInvite,
    InviteContact,
    RegisterCustomer,
    SendContactLink,
)
from distribu.application.kernel import Request
from distribu.application.ports import Hasher, Login, Scope, Verdict
from distribu.application.sessions import (
    Entered,
    SignIn,
)
from distribu.domain.access import ContactRole
from distribu.domain.accounts import REALM, Purpose, Session
from distribu.domain.audit import Record
from distribu.domain.customers import Customer
from distribu.domain.values import CompanyId
from tests import people
from tests.contracts.asking import store_of, walk

PASSWORD: Final = "correct horse battery staple"
OTHER: Final = "tractor violet ocean seventeen"
WRONG: Final = "wrong horse battery staple"
THE_REALM: Final = Actor.system(REALM)
_addresses = count(1)


# --- people, and what they do --------------------------------------------------------------------


def visitor(store: Shop | None = None) -> Actor:
    """Somebody at an IP address of their own: at the platform's door, or at that of a store."""
    number = next(_addresses)
    ip = f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::1"
    return Actor.visitor(company_id=store.company.id if store else None, ip=ip)


def address(shop: Shop, name: str = "ada") -> str:
    """An email address nobody has."""
    return f"{name}-{shop.distribu.ports.entropy.uuid()}@example.test"


async def mails_to(shop: Harness, to: str) -> list[Arrived]:
    """What has been mailed to an address, oldest first."""
    await shop.work()
    return sorted((mail for mail in shop.mail if mail.to == to), key=lambda mail: mail.id)


async def token_to(shop: Harness, to: str) -> str:
    """The token of the link that was mailed to an address last."""
    links = [mail.link for mail in await mails_to(shop, to) if mail.link]
    return links[-1].partition("#")[2]


async def login_of(shop: Shop, email: str, store: Shop | None = None) -> Login | None:
    """Who goes by an address, and all that proves it."""
    scope = Scope(store.company.id if store else REALM)
    async with store_of(shop).begin(scope, readonly=True) as tx:
        return await tx.logins.by_email(email)


async def known(shop: Shop, email: str, store: Shop | None = None) -> Login:
    """The same of somebody who is there."""
    login = await login_of(shop, email, store)
    assert login is not None
    return login


async def sign_up(shop: Shop, email: str, company: str = "Acme", password: str = PASSWORD) -> None:
    asked = SignUp(company_name=company, full_name="Ada Marsh", email=email, password=password)
    await shop.execute(asked, visitor())


async def sign_in(
    shop: Shop,
    email: str,
    password: str = PASSWORD,
    *,
    store: Shop | None = None,
    device: str = "",
    user_agent: str = "",
) -> Entered:
    asked = SignIn(email=email, password=password, device=device, user_agent=user_agent)
    return await shop.execute(asked, visitor(store))


async def next_request(shop: Shop, session: Session) -> Actor | None:
    """Who the holder of a session is when they ask for something now; None when it is over."""
    ports = shop.distribu.ports
    grant = (
        await ports.directory.staff_session(session.id)
        if session.company_id == REALM
        else await ports.directory.store_session(session.company_id, session.id)
    )
    return grant.actor(now=ports.clock.now(), ip="203.0.113.7") if grant is not None else None


def device_of(entered: Entered) -> str:
    """What a device keeps once somebody has signed in on it."""
    assert entered.device is not None
    return entered.device.reveal()


async def acting(shop: Shop, session: Session) -> Actor:
    """The same of a session that is not over."""
    actor = await next_request(shop, session)
    assert actor is not None
    return actor


async def signed_in(shop: Shop, email: str, password: str = PASSWORD, *, store: Shop | None = None) -> Actor:
    """Somebody who has just come in."""
    return await acting(shop, (await sign_in(shop, email, password, store=store)).session)


async def staff_with_password(shop: Shop, role: Role = Role.MEMBER) -> str:
    """The address of somebody of the team who signs in with `PASSWORD`."""
    return await people.with_password(shop, PASSWORD, role)


async def contact_with_password(
    shop: Harness, customer: Customer, role: ContactRole = ContactRole.ADMIN, *, store: Shop | None = None
) -> str:
    """The address of a contact who was invited and has chosen `PASSWORD`."""
    store = store or shop
    email = address(shop, "bo")
    invite = InviteContact(customer_id=customer.id, email=email, full_name="Bo Buyer", role=role)
    await store.execute(invite)
    accept = AcceptContactInvite(token=await token_to(shop, email), password=PASSWORD)
    await shop.execute(accept, visitor(store))
    return email


async def told(
    shop: Harness, action: str, *, ip: str | None, company: CompanyId = REALM, days: float = 1
) -> list[Record]:
    """Entries of an action in a log, made from an IP address within the last days; oldest first."""
    since, until = shop.clock.now() - timedelta(days=days), shop.clock.now() + timedelta(milliseconds=1)
    records = await walk(
        lambda cursor: shop.execute(
            ListAudit(action=action, since=since, until=until, limit=100, cursor=cursor),
            Actor.system(company),
        )
    )
    return [record for record in reversed(records) if record.ip == ip]


@asynccontextmanager
async def unchanged(shop: Shop, *logins: tuple[str, Shop | None]) -> AsyncIterator[None]:
    """What is done inside changes none of these logins, whether it is refused or not."""
    before = [await login_of(shop, email, store) for email, store in logins]
    try:
        yield
    finally:
        assert [await login_of(shop, email, store) for email, store in logins] == before


def quick(shop: Shop) -> Shop:
    """The same company, where passwords cost nothing to hash."""
    return Shop(Distribu(replace(shop.distribu.ports, hasher=PlainHasher())), shop.company)


class Counting:
    """A hasher that counts what it is asked."""

    def __init__(self, hasher: Hasher) -> None:
        self.asked: list[str] = []
        self.under_way = self.turned_away = 0
        self._hasher = hasher

    async def hash(self, password: Secret) -> str:
        self.asked.append("hash")
        return await self._hasher.hash(password)

    async def verify(self, password: Secret, encoded: str | None) -> Verdict:
        self.asked.append("verify")
        return await self._hasher.verify(password, encoded)

    def common(self, password: Secret) -> bool:
        return self._hasher.common(password)


def counted(shop: Shop) -> tuple[Distribu, list[str]]:
    """The same Distribu, and a list of what its hasher is asked."""
    counting = Counting(shop.distribu.ports.hasher)
    return Distribu(replace(shop.distribu.ports, hasher=counting)), counting.asked


# --- links that are out --------------------------------------------------------------------------

TAKING: Final[dict[Purpose, Callable[[str], Request[None]]]] = {
    Purpose.VERIFY: lambda token: VerifyEmail(token=token, password=PASSWORD),
    Purpose.RESET: lambda token: ResetPassword(token=token, password=OTHER),
    Purpose.EMAIL: lambda token: ConfirmEmail(token=token),
    Purpose.INVITE: lambda token: AcceptContactInvite(token=token, password=OTHER),
}
LASTS: Final = {
    Purpose.VERIFY: timedelta(hours=24),
    Purpose.RESET: timedelta(hours=1),
    Purpose.EMAIL: timedelta(hours=24),
    Purpose.INVITE: timedelta(days=7),
}
LINKS: Final = [
    pytest.param(purpose, store, id=f"{purpose} {'store' if store else 'platform'}")
    for purpose in Purpose
    for store in (False, True)
    if store or purpose is not Purpose.INVITE
]


@dataclass(frozen=True, slots=True)
class Out:
    """A link that was mailed: ``holder`` goes by it, ``again`` has another one mailed."""

    token: str
    to: str
    holder: str
    store: Shop | None
    again: Callable[[], Awaitable[Any]]

    @property
    def login(self) -> tuple[str, Shop | None]:
        return self.holder, self.store


async def link(shop: Harness, purpose: Purpose, store: Shop | None) -> Out:
    """Have a link mailed to somebody new, at the platform or at a store."""
    to = email = address(shop)
    asked: Request[Any]
    actor: Actor | None = None  # else a visitor, from elsewhere each time
    match purpose:
        case Purpose.VERIFY if store is None:
            await sign_up(shop, email)
            asked = ResendVerification(email=email)
        case Purpose.VERIFY:
            register = RegisterCustomer(name="Green Grocer", email=email, password=PASSWORD)
            await shop.execute(register, visitor(store))
            asked = ResendVerification(email=email)
        case Purpose.INVITE:
            assert store is not None
            customer, actor = await store.customer(), store.actor
            invite = InviteContact(
                customer_id=customer.id, email=email, full_name="Bo", role=ContactRole.ADMIN
            )
            asked = SendContactLink(contact_id=(await shop.execute(invite, actor)).id)
        case _:
            to = email = (
                await contact_with_password(shop, await store.customer(), store=store)
                if store is not None
                else await staff_with_password(shop)
            )
            asked = RequestPasswordReset(email=email)
            if purpose is Purpose.EMAIL:
                actor = await signed_in(shop, email, store=store)
                to = address(shop, "new")
                asked = ChangeEmail(new_email=to, password=PASSWORD)
            await shop.execute(asked, actor or visitor(store))
    return Out(
        token=await token_to(shop, to),
        to=to,
        holder=email,
        store=store,
        again=lambda: shop.execute(asked, actor or visitor(store)),
    )


async def take(
    shop: Shop, purpose: Purpose, token: str, store: Shop | None, password: str = PASSWORD
) -> None:
    """Follow a link for a purpose; that of a sign-up with the password that was chosen then."""
    request = TAKING[purpose](token)
    if isinstance(request, VerifyEmail):
        request = VerifyEmail(token=token, password=password)
    await shop.execute(request, visitor(store))


def altered(token: str) -> dict[str, str]:
    """What looks like a token and is another text."""
    raw = urlsafe_b64decode(token + "==")

    def flipped(bit: int) -> str:
        changed = bytearray(raw)
        changed[bit // 8] ^= 0x80 >> bit % 8
        return urlsafe_b64encode(changed).decode().rstrip("=")

    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    spare = alphabet[alphabet.index(token[-1]) ^ 1]  # the last four bits of the text say nothing
    assert urlsafe_b64decode(token[:-1] + spare + "==") == raw
    return {
        "one character less": token[:-1],
        "two characters less": token[:-2],
        "a byte less": urlsafe_b64encode(raw[:-1]).decode().rstrip("="),
        "a byte more": urlsafe_b64encode(raw + b"\0").decode().rstrip("="),
        "half": token[:43],
        "twice": token + token,
        "padded": token + "==",
        "a space before": " " + token,
        "a line after": token + "\n",
        "something to skip": token[:40] + "!" + token[40:],
        "spare bits": token[:-1] + spare,
        "another alphabet": token[:60] + "+/" + token[62:],
        "other letters": "é" + token[1:],
        "nothing but dots": "." * 86,
        "zeros": "A" * 86,
        "the company's first bit": flipped(0),
        "the holder's last bit": flipped(255),
        "the secret's first bit": flipped(256),
        "a bit of the secret": flipped(400),
        "the secret's last bit": flipped(511),
    }
