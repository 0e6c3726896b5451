"""Use cases of signing in and out, on any store: sessions, limits on guessing, what is recorded of it."""

from datetime import timedelta
from typing import Any

import bcrypt
import pytest

from distribu import (
    Actor,
    Harness,
    NotFound,
    Refused,
    Role,
    Shop,
    Unauthenticated,
)
from distribu.application.accounts import (
    ChangeEmail,
    ChangePassword,
    ConfirmEmail,
    RequestPasswordReset,
    ResendVerification,
    ResetPassword,
    SignUp,
    VerifyEmail,
)
from distribu.application.contacts import (
    AcceptContactInvite,
    RegisterCustomer,
)
from distribu.application.kernel import Request
from distribu.application.platform import TakeSeat
from distribu.application.sessions import (
    EndSession,
    ListSessions,
    SignIn,
    SignOut,
    SignOutEverywhere,
    SwitchCompany,
)
from distribu.application.team import AcceptInvitation, ReadInvitation
from distribu.domain.access import ActorKind, ContactRole
from distribu.domain.accounts import REALM, SESSIONS_MAX, Purpose, Session
from distribu.domain.errors import RateLimited
from distribu.domain.values import CompanyId
from tests import people
from tests.contracts.asking import outcomes, refused
from tests.contracts.visiting import (
    OTHER,
    PASSWORD,
    WRONG,
    acting,
    address,
    counted,
    device_of,
    known,
    link,
    login_of,
    mails_to,
    next_request,
    quick,
    sign_in,
    sign_up,
    staff_with_password,
    told,
    visitor,
)


class SessionUseCases:
    # --- sessions ------------------------------------------------------------------------------

    @pytest.mark.parametrize("at_store", [False, True])
    async def test_ones_sessions_are_listed_and_this_one_is_marked(
        self, shop: Harness, at_store: bool
    ) -> None:
        store = shop if at_store else None
        out = await link(shop, Purpose.RESET, store)
        stranger = await link(shop, Purpose.RESET, store)
        await sign_in(shop, stranger.holder, store=store)
        phone = (await sign_in(shop, out.holder, store=store, user_agent="phone")).session
        shop.clock.advance(minutes=1)
        laptop = (await sign_in(shop, out.holder, store=store, user_agent="laptop")).session
        listed = await shop.execute(ListSessions(), await acting(shop, phone))
        assert [(it.id, it.user_agent, it.here) for it in listed] == [
            (laptop.id, "laptop", False),
            (phone.id, "phone", True),
        ]
        assert [it.ip for it in listed] == [laptop.ip, phone.ip]
        assert None not in (laptop.ip, phone.ip)
        await shop.execute(EndSession(session_id=laptop.id), await acting(shop, phone))
        assert await next_request(shop, laptop) is None
        listed = await shop.execute(ListSessions(), await acting(shop, phone))
        assert [it.id for it in listed] == [phone.id]

    @pytest.mark.parametrize("at_store", [False, True])
    async def test_nobody_ends_anothers_session(self, shop: Harness, at_store: bool) -> None:
        store = shop if at_store else None
        mine, theirs = [
            (await sign_in(shop, (await link(shop, Purpose.RESET, store)).holder, store=store)).session
            for _ in range(2)
        ]
        contact = await people.buyer(shop, await shop.customer(), ContactRole.ADMIN)
        member = await people.staff(shop, Role.OWNER)
        elsewhere = member.session if at_store else contact.session
        actor, absent = await acting(shop, mine), shop.distribu.ports.entropy.uuid()
        for id in (theirs.id, elsewhere.id, absent):
            async with refused(shop, "session_not_found", NotFound):
                await shop.execute(EndSession(session_id=id), actor)
        for session in (theirs, elsewhere, mine):
            assert await next_request(shop, session)

    @pytest.mark.parametrize("at_store", [False, True])
    async def test_signing_out_ends_this_session_once(self, shop: Harness, at_store: bool) -> None:
        store = shop if at_store else None
        out = await link(shop, Purpose.RESET, store)
        here, other = [(await sign_in(shop, out.holder, store=store)).session for _ in range(2)]
        actor = await acting(shop, here)
        await shop.execute(SignOut(), actor)
        assert await next_request(shop, here) is None
        assert await next_request(shop, other)
        async with refused(shop, "session_not_found", NotFound):
            await shop.execute(SignOut(), actor)
        async with refused(shop, "session_not_found", NotFound):
            await shop.execute(EndSession(session_id=here.id), await acting(shop, other))

    @pytest.mark.parametrize("at_store", [False, True])
    async def test_signing_out_everywhere_ends_this_session_too(self, shop: Harness, at_store: bool) -> None:
        store = shop if at_store else None
        out = await link(shop, Purpose.RESET, store)
        sessions = [(await sign_in(shop, out.holder, store=store)).session for _ in range(3)]
        await shop.execute(SignOutEverywhere(), await acting(shop, sessions[1]))
        assert [await next_request(shop, one) for one in sessions] == [None] * 3
        after = (await sign_in(shop, out.holder, store=store)).session
        listed = await shop.execute(ListSessions(), await acting(shop, after))
        assert [it.id for it in listed] == [after.id]

    @pytest.mark.parametrize("at_store", [False, True])
    async def test_a_session_lasts_seven_days(self, shop: Harness, at_store: bool) -> None:
        store = shop if at_store else None
        out = await link(shop, Purpose.RESET, store)
        session = (await sign_in(shop, out.holder, store=store)).session
        assert session.expires_at == shop.clock.now() + timedelta(days=7)
        shop.clock.advance(days=7, seconds=-1)
        actor = await acting(shop, session)
        assert [it.id for it in await shop.execute(ListSessions(), actor)] == [session.id]
        shop.clock.advance(seconds=1)
        assert await next_request(shop, session) is None
        after = (await sign_in(shop, out.holder, store=store)).session
        listed = await shop.execute(ListSessions(), await acting(shop, after))
        assert [it.id for it in listed] == [after.id]

    async def test_of_too_many_sessions_the_oldest_ends(self, shop: Harness) -> None:
        here = quick(shop)
        email = await staff_with_password(here)
        sessions = [await self._a_minute_later(shop, here, email) for _ in range(SESSIONS_MAX)]
        assert await next_request(shop, sessions[0])
        newest = (await sign_in(here, email)).session
        alive = [one.id for one in (*sessions, newest) if await next_request(shop, one)]
        assert alive == [one.id for one in (*sessions[1:], newest)]
        listed = await shop.execute(ListSessions(), await acting(shop, newest))
        assert [it.id for it in listed] == alive[::-1]

    async def test_sessions_that_are_over_crowd_nobody_out(self, shop: Harness) -> None:
        """A change of password leaves one session alone, though it be the oldest: the next keeps it."""
        here = quick(shop)
        email = await staff_with_password(here)
        oldest, *others = [await self._a_minute_later(shop, here, email) for _ in range(SESSIONS_MAX)]
        change = ChangePassword(password=PASSWORD, new_password=OTHER)
        await here.execute(change, await acting(shop, oldest))
        assert {await next_request(shop, one) for one in others} == {None}
        newest = (await sign_in(here, email, OTHER)).session
        assert await next_request(shop, oldest), "two sessions are not too many"
        listed = await shop.execute(ListSessions(), await acting(shop, newest))
        assert [it.id for it in listed] == [newest.id, oldest.id]

    async def test_one_works_in_a_company_of_ones_own(self, shop: Harness) -> None:
        email = await staff_with_password(shop, Role.OWNER)
        login = await known(shop, email)
        second, foreign = await shop.stranger(), await shop.stranger()
        await shop.distribu.run(second.actor, TakeSeat(user_id=login.id, role=Role.MEMBER))
        session = (await sign_in(shop, email)).session
        actor = await acting(shop, session)
        assert actor.company_id == shop.company.id  # the first by name
        absent = CompanyId(shop.distribu.ports.entropy.uuid())
        for company_id in (foreign.company.id, absent, REALM):
            async with refused(shop, "company_not_found", NotFound):
                await shop.execute(SwitchCompany(company_id=company_id), actor)
        assert await acting(shop, session) == actor
        await shop.execute(SwitchCompany(company_id=second.company.id), actor)
        moved = await acting(shop, session)
        assert moved.company_id == second.company.id
        assert moved.permissions < actor.permissions  # a member there, the owner here
        assert (await sign_in(shop, email)).session.current == second.company.id

    # --- limits on guessing --------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("what", "most", "window_s"),
        [
            ("sign in", 10, 900),
            ("sign in at a store", 10, 900),
            ("sign up", 5, 3600),
            ("register", 5, 3600),
            ("reset", 5, 3600),
            ("resend", 5, 3600),
            ("verify", 30, 900),
            ("take a reset", 30, 900),
            ("confirm", 30, 900),
            ("welcome", 30, 900),
            ("look at an invitation", 30, 900),
            ("accept an invitation", 30, 900),
        ],
    )
    async def test_one_address_guesses_so_often_and_no_more(
        self, shop: Harness, what: str, most: int, window_s: int
    ) -> None:
        def asked() -> Request[Any]:
            email = address(shop)
            token = "A" * 86
            requests: dict[str, Request[Any]] = {
                "sign in": SignIn(email=email, password=WRONG),
                "sign in at a store": SignIn(email=email, password=WRONG),
                "sign up": SignUp(company_name="Acme", full_name="Ada", email=email, password=PASSWORD),
                "register": RegisterCustomer(name="Green", email=email, password=PASSWORD),
                "reset": RequestPasswordReset(email=email),
                "resend": ResendVerification(email=email),
                "verify": VerifyEmail(token=token, password=PASSWORD),
                "take a reset": ResetPassword(token=token, password=PASSWORD),
                "confirm": ConfirmEmail(token=token),
                "welcome": AcceptContactInvite(token=token, password=PASSWORD),
                "look at an invitation": ReadInvitation(token=token),
                "accept an invitation": AcceptInvitation(token=token, full_name="A", password=PASSWORD),
            }
            return requests[what]

        at = shop if what in ("register", "sign in at a store", "welcome") else None
        somebody, other = visitor(at), visitor(at)

        async def tried(by: Actor) -> int | None:
            """After how long one may try again, when that was one too many."""
            try:
                await shop.execute(asked(), by)
            except RateLimited as no:
                return no.retry_after_s
            except Refused as no:
                return None if no.code in ("wrong_credentials", "invalid_token") else -1
            return None

        assert [await tried(somebody) for _ in range(most + 2)] == [None] * most + [window_s] * 2
        assert await tried(other) is None
        shop.clock.advance(seconds=window_s - 1)
        assert await tried(somebody) == 1
        shop.clock.advance(seconds=1)
        assert await tried(somebody) is None

    async def test_one_address_is_mailed_three_resets_an_hour(self, shop: Harness) -> None:
        for email in (await staff_with_password(shop), address(shop)):
            for _ in range(3):
                await shop.execute(RequestPasswordReset(email=email), visitor())
            with pytest.raises(RateLimited) as no:
                await shop.execute(RequestPasswordReset(email=email.upper()), visitor())
            assert no.value.retry_after_s == 3600
            await shop.execute(RequestPasswordReset(email=email), visitor(shop))  # another account
        await shop.execute(RequestPasswordReset(email=address(shop)), visitor())
        email = await staff_with_password(shop)
        await shop.execute(RequestPasswordReset(email=email), visitor())
        shop.clock.advance(seconds=1)
        for _ in range(2):
            await shop.execute(RequestPasswordReset(email=email), visitor())
        shop.clock.advance(seconds=3599)
        await shop.execute(RequestPasswordReset(email=email), visitor())
        with pytest.raises(RateLimited) as no:
            await shop.execute(RequestPasswordReset(email=email), visitor())
        assert no.value.retry_after_s == 1
        assert len(await mails_to(shop, email)) == 4

    async def test_strangers_cannot_keep_the_holder_out(self, shop: Harness) -> None:
        """Thirty tries from devices the account was not used on; the holder's own has thirty of its own."""
        email, other = [await staff_with_password(shop) for _ in range(2)]
        entered = await sign_in(shop, email)
        device, another = device_of(entered), device_of(await sign_in(shop, other))
        assert device != another
        codes = set()
        for tried in range(29):  # the holder's own first time was one
            forged = ("", another, device[:-1], "x" * 64)[tried % 4]
            with pytest.raises(Unauthenticated) as wrong:
                await sign_in(shop, email, WRONG, device=forged)
            codes.add(wrong.value.code)
        assert codes == {"wrong_credentials"}
        for forged in ("", another):
            with pytest.raises(RateLimited) as no:
                await sign_in(shop, email, device=forged)
            assert no.value.retry_after_s == 900
        assert (await sign_in(shop, email, device=device)).login.id == entered.login.id
        await sign_in(shop, other)
        shop.clock.advance(seconds=900)
        await sign_in(shop, email)

    async def test_one_customer_of_a_provider_guesses_as_often_as_anybody(self, shop: Harness) -> None:
        """The whole /64 of IPv6 is one line, and an IPv4 address is one however it is written."""
        email = await staff_with_password(shop)
        for ips in (
            [f"2001:db8:77:7:{n:x}::1" for n in range(11)],
            ["203.0.113.99" if n % 2 else "::ffff:203.0.113.99" for n in range(11)],
        ):
            asked = SignIn(email=email, password=WRONG)
            came = [(await outcomes(shop.execute(asked, Actor.visitor(ip=ip))))[0] for ip in ips]
            assert came == ["wrong_credentials"] * 10 + ["rate_limited"]

    async def test_a_device_is_known_as_long_as_the_password(self, shop: Harness) -> None:
        """Who once had the account in hand cannot use up what its own devices have."""
        email = await staff_with_password(shop)
        entered = await sign_in(shop, email)
        change = ChangePassword(password=PASSWORD, new_password=OTHER)
        await shop.execute(change, await acting(shop, entered.session))
        again = await sign_in(shop, email, OTHER)
        assert device_of(again) != device_of(entered)
        for _ in range(30):
            await outcomes(sign_in(shop, email, WRONG, device=device_of(entered)))
        assert await outcomes(sign_in(shop, email, OTHER)) == ["rate_limited"]
        await sign_in(shop, email, OTHER, device=device_of(again))

    async def test_a_known_device_guesses_thirty_times(self, shop: Harness) -> None:
        email = await staff_with_password(shop)
        device = device_of(await sign_in(shop, email))
        for _ in range(30):
            with pytest.raises(Unauthenticated):
                await sign_in(shop, email, WRONG, device=device)
        with pytest.raises(RateLimited):
            await sign_in(shop, email, device=device)
        await sign_in(shop, email)

    async def test_whoever_found_a_device_open_guesses_ten_times(self, shop: Harness) -> None:
        email = await staff_with_password(shop)
        sessions = [(await sign_in(shop, email)).session for _ in range(2)]
        actors = [await acting(shop, session) for session in sessions]
        for tried in range(10):
            with pytest.raises(Refused) as no:
                await shop.execute(ChangePassword(password=WRONG, new_password=OTHER), actors[tried % 2])
            assert no.value.code == "wrong_password"
        for actor in actors:
            with pytest.raises(RateLimited) as limited:
                await shop.execute(ChangeEmail(new_email=address(shop), password=PASSWORD), actor)
            assert limited.value.retry_after_s == 900
        shop.clock.advance(seconds=900)
        await shop.execute(ChangePassword(password=PASSWORD, new_password=OTHER), actors[0])

    # --- what is recorded, and what is hashed ---------------------------------------------------

    async def test_a_failed_sign_in_is_told_to_the_platform_and_to_each_company(self, shop: Harness) -> None:
        email = await staff_with_password(shop)
        login, second, foreign = await known(shop, email), await shop.stranger(), await shop.stranger()
        await shop.distribu.run(second.actor, TakeSeat(user_id=login.id, role=Role.MEMBER))
        by = visitor()
        with pytest.raises(Unauthenticated):
            await shop.execute(SignIn(email=email, password=WRONG), by)
        for company in (REALM, shop.company.id, second.company.id):
            (record,) = await told(shop, "auth.login_failed", ip=by.ip, company=company)
            assert (record.entity_type, record.entity_id) == ("User", login.id)
            assert record.metadata == {"why": "password"}
            assert record.actor_kind is ActorKind.USER
            assert email not in str(record)
        assert await told(shop, "auth.login_failed", ip=by.ip, company=foreign.company.id) == []

    async def test_a_sign_in_is_told_to_the_platform_and_to_the_company(self, shop: Harness) -> None:
        email = await staff_with_password(shop)
        login, second, by = await known(shop, email), await shop.stranger(), visitor()
        await shop.distribu.run(second.actor, TakeSeat(user_id=login.id, role=Role.MEMBER))
        await shop.execute(SignIn(email=email, password=PASSWORD), by)
        assert len(await told(shop, "auth.login", ip=by.ip)) == 1
        (record,) = await told(shop, "auth.login", ip=by.ip, company=shop.company.id)
        assert (record.entity_type, record.entity_id) == ("User", login.id)
        assert await told(shop, "auth.login_failed", ip=by.ip) == []

    @pytest.mark.parametrize("why", ["unverified", "password"])
    async def test_a_sign_up_that_was_not_verified_fails_and_is_told(self, shop: Harness, why: str) -> None:
        email, by = address(shop), visitor()
        await sign_up(shop, email)
        with pytest.raises(Refused):
            await shop.execute(SignIn(email=email, password=PASSWORD if why == "unverified" else WRONG), by)
        (record,) = await told(shop, "auth.login_failed", ip=by.ip)
        assert record.metadata == {"why": why}

    @pytest.mark.parametrize("at_store", [False, True])
    async def test_an_unknown_address_is_as_much_work_and_is_told(
        self, shop: Harness, at_store: bool
    ) -> None:
        store = shop if at_store else None
        company = shop.company.id if at_store else REALM
        email = (await link(shop, Purpose.RESET, store)).holder
        invited = (await link(shop, Purpose.INVITE, shop)).holder
        distribu, asked = counted(shop)
        work, answers = [], set()
        for one in (email, address(shop), *([invited] if at_store else [])):
            by = visitor(store)
            with pytest.raises(Unauthenticated) as no:
                await distribu.execute(by, SignIn(email=one, password=WRONG))
            (record,) = await told(shop, "auth.login_failed", ip=by.ip, company=company)
            assert record.metadata == {"why": "password"}
            assert (record.entity_id == "") == (await login_of(shop, one, store) is None)
            work.append(tuple(asked))
            answers.add((no.value.code, no.value.message))
            asked.clear()
        assert set(work) == {("verify",)}
        assert answers == {("wrong_credentials", "The email address or the password is wrong.")}

    async def test_a_sign_up_is_as_much_work_whoever_it_is(self, shop: Harness) -> None:
        distribu, asked = counted(shop)
        unverified = address(shop)
        await sign_up(shop, unverified)
        for email in (await staff_with_password(shop), address(shop), unverified):
            asked.clear()
            await distribu.execute(
                visitor(), SignUp(company_name="Acme", full_name="Ada", email=email, password=PASSWORD)
            )
            assert asked == ["hash"]

    async def test_a_hash_carried_over_is_made_anew_at_the_next_sign_in(self, shop: Harness) -> None:
        old = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
        user = await shop.user(address(shop), old)
        distribu, asked = counted(shop)
        with pytest.raises(Unauthenticated):
            await distribu.execute(visitor(), SignIn(email=user.email, password=WRONG))
        assert (await known(shop, user.email)).credentials.password_hash == old
        first = await distribu.execute(visitor(), SignIn(email=user.email, password=PASSWORD))
        new = (await known(shop, user.email)).credentials
        assert new.password_hash != old
        assert asked == ["verify", "verify", "hash"]
        asked.clear()
        await distribu.execute(visitor(), SignIn(email=user.email, password=PASSWORD))
        assert asked == ["verify"]
        assert (await known(shop, user.email)).credentials == new
        assert await next_request(shop, first.session)

    # --- how they are done ---------------------------------------------------------------------

    async def _a_minute_later(self, shop: Harness, here: Shop, email: str) -> Session:
        shop.clock.advance(minutes=1)
        return (await sign_in(here, email)).session
