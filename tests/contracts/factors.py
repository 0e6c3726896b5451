"""Use cases of the second factor, on any store: setting one up, showing it, and having lost it."""

import asyncio
import json
from typing import Any

import pytest

from distribu import Actor, Conflict, Forbidden, Harness, NotFound, Refused, Role, Shop
from distribu.application.accounts import ReadAccount, RequestPasswordReset, ResetPassword
from distribu.application.factors import (
    GUESSES_PER_ACCOUNT,
    AddPasskey,
    AskForPasskey,
    ClearSecondFactor,
    ConfirmApp,
    GiveCode,
    GivePasskey,
    OfferApp,
    OfferPasskey,
    ReadSecondFactor,
    RemoveApp,
    RemovePasskey,
    RenewRecoveryCodes,
)
from distribu.application.ports import Scope
from distribu.application.sessions import Entered, SignOut
from distribu.application.team import EditCompany, ListMembers
from distribu.domain.access import Permission
from distribu.domain.accounts import REALM, STAFF_SESSION
from distribu.domain.errors import RateLimited
from distribu.domain.factors import PASSKEYS_MAX, RECOVERY_CODES, WAITING, FactorKind
from tests import people
from tests.authenticator import Device, code_of
from tests.contracts.asking import outcomes
from tests.contracts.visiting import (
    OTHER,
    PASSWORD,
    WRONG,
    acting,
    contact_with_password,
    mails_to,
    next_request,
    sign_in,
    signed_in,
    staff_with_password,
    token_to,
    told,
    visitor,
)

NO_CODE = "000000"


def device_of(shop: Shop) -> Device:
    """A device whose browser is at a page of this site."""
    authenticators: Any = shop.distribu.ports.authenticators
    return Device(origin=authenticators.origin, site=authenticators.site)


async def with_app(shop: Harness, role: Role = Role.MEMBER) -> tuple[str, str, list[str]]:
    """Somebody of the team with an app: their address, its secret, and their recovery codes."""
    email = await staff_with_password(shop, role)
    actor = await signed_in(shop, email)
    offered = await shop.execute(OfferApp(password=PASSWORD), actor)
    code = code_of(offered.secret, shop.clock.now())
    confirmed = await shop.execute(ConfirmApp(code=code), actor)
    shop.clock.advance(seconds=30)
    return email, offered.secret, confirmed.codes


async def whole(shop: Harness, email: str, code: str) -> Actor:
    """Somebody who has signed in and shown a code."""
    waiting = await acting(shop, (await sign_in(shop, email)).session)
    await shop.execute(GiveCode(code=code), waiting)
    return await FactorUseCases()._now(shop, waiting)


async def with_passkey(shop: Harness) -> tuple[str, Device, list[str]]:
    """Somebody of the team with a passkey: their address, the device, and their recovery codes."""
    email, device = await staff_with_password(shop), device_of(shop)
    codes = await add(shop, await signed_in(shop, email), device)
    return email, device, codes


async def add(shop: Shop, actor: Actor, device: Device, name: str = "laptop") -> list[str]:
    """Have a device make a passkey."""
    asked = await shop.execute(OfferPasskey(password=PASSWORD), actor)
    answer = AddPasskey(name=name, credential=device.register(asked.options))
    return (await shop.execute(answer, actor)).codes


async def sign(shop: Shop, actor: Actor, device: Device, **instead: Any) -> Entered:
    """Have a device finish signing in."""
    asked = await shop.execute(AskForPasskey(), actor)
    return await shop.execute(GivePasskey(credential=device.sign(asked.options, **instead)), actor)


async def is_refused(shop: Shop, actor: Actor, request: Any, code: str) -> None:
    with pytest.raises(Refused) as no:
        await shop.execute(request, actor)
    assert no.value.code == code


class FactorUseCases:
    # --- an app --------------------------------------------------------------------------------

    async def test_an_app_counts_once_its_first_code_was_given(self, shop: Harness) -> None:
        email = await staff_with_password(shop)
        actor = await signed_in(shop, email)
        offered = await shop.execute(OfferApp(password=PASSWORD), actor)
        assert offered.secret in offered.link
        assert (await sign_in(shop, email)).awaited == ()
        await is_refused(shop, actor, ConfirmApp(code=NO_CODE), "wrong_code")
        assert not (await shop.execute(ReadSecondFactor(), actor)).app
        code = code_of(offered.secret, shop.clock.now())
        codes = (await shop.execute(ConfirmApp(code=code), actor)).codes
        assert len(set(codes)) == RECOVERY_CODES
        has = await shop.execute(ReadSecondFactor(), actor)
        assert (has.app, has.passkeys, has.recovery_codes_left) == (True, [], RECOVERY_CODES)
        await is_refused(shop, actor, ConfirmApp(code=code), "wrong_code")
        subjects = [mail.subject for mail in await mails_to(shop, email)]
        assert subjects == ["Your second factor was changed"]

    async def test_until_the_code_is_given_a_session_opens_nothing(self, shop: Harness) -> None:
        email, secret, _ = await with_app(shop, Role.ADMIN)
        entered = await sign_in(shop, email)
        assert set(entered.awaited) == {FactorKind.APP, FactorKind.RECOVERY_CODE}
        assert entered.device is None
        assert entered.session.expires_at == shop.clock.now() + WAITING
        waiting = await acting(shop, entered.session)
        assert waiting.permissions == {Permission.SECOND_FACTOR}
        assert waiting.company_id is None
        for request in (ReadAccount(), ListMembers(), SignOut(), OfferApp(password=PASSWORD)):
            await is_refused(shop, waiting, request, "second_factor_awaited")
        whole = await shop.execute(GiveCode(code=code_of(secret, shop.clock.now())), waiting)
        assert whole.device is not None
        assert whole.session.id == entered.session.id
        assert whole.session.expires_at == whole.session.created_at + STAFF_SESSION
        actor = await acting(shop, entered.session)
        assert (await shop.execute(ListMembers(), actor)).items
        await is_refused(shop, actor, GiveCode(code=NO_CODE), "forbidden")

    async def test_who_does_not_show_it_in_time_begins_again(self, shop: Harness) -> None:
        email, secret, _ = await with_app(shop)
        late = (await sign_in(shop, email)).session
        shop.clock.advance(milliseconds=WAITING.total_seconds() * 1000 - 1)
        assert await next_request(shop, late)
        shop.clock.advance(milliseconds=1)
        assert await next_request(shop, late) is None
        waiting = await signed_in(shop, email)
        whole = await shop.execute(GiveCode(code=code_of(secret, shop.clock.now())), waiting)
        assert whole.awaited == ()

    async def test_no_code_is_taken_twice_nor_one_of_an_earlier_step(self, shop: Harness) -> None:
        email, secret, _ = await with_app(shop)
        earlier, code = (code_of(secret, at) for at in (shop.clock.now(), shop.clock.advance(seconds=30)))
        first, second = [await signed_in(shop, email) for _ in range(2)]
        tried = await outcomes(*(shop.execute(GiveCode(code=code), one) for one in (first, second)))
        assert [one for one in tried if isinstance(one, str)] == ["wrong_code"]
        left = first if isinstance(tried[0], str) else second
        await is_refused(shop, left, GiveCode(code=code), "wrong_code")
        await is_refused(shop, left, GiveCode(code=earlier), "wrong_code")
        shop.clock.advance(seconds=30)
        await shop.execute(GiveCode(code=code_of(secret, shop.clock.now())), left)

    async def test_codes_are_guessed_a_few_times_and_no_more(self, shop: Harness) -> None:
        """However many sessions they are tried in; and each failure is told to the company."""
        email, secret, _ = await with_app(shop)
        shop.clock.advance(minutes=15)
        wrong = str((int(code_of(secret, shop.clock.now())) + 500_001) % 1_000_000).zfill(6)
        waiting = [await signed_in(shop, email) for _ in range(GUESSES_PER_ACCOUNT // 2)]
        for one in (*waiting, *waiting):
            await is_refused(shop, one, GiveCode(code=wrong), "wrong_code")
        right = GiveCode(code=code_of(secret, shop.clock.now()))
        with pytest.raises(RateLimited) as no:
            await shop.execute(right, waiting[0])
        assert no.value.retry_after_s is not None
        failed = await told(shop, "auth.login_failed", ip=waiting[0].ip, company=shop.company.id)
        assert [one.metadata["why"] for one in failed] == ["second_factor"] * GUESSES_PER_ACCOUNT
        shop.clock.advance(seconds=no.value.retry_after_s)
        again = await signed_in(shop, email)
        await shop.execute(GiveCode(code=code_of(secret, shop.clock.now())), again)

    # --- recovery codes ------------------------------------------------------------------------

    async def test_a_recovery_code_opens_once(self, shop: Harness) -> None:
        email, _, codes = await with_app(shop)
        waiting = await signed_in(shop, email)
        written = f" {codes[3].lower().replace('-', ' ')} "
        await shop.execute(GiveCode(code=written), waiting)
        for again in (written, codes[3]):
            await is_refused(shop, await signed_in(shop, email), GiveCode(code=again), "wrong_code")
        mail = (await mails_to(shop, email))[-1]
        assert "9 are left" in mail.text
        assert codes[3] not in mail.text

    async def test_of_two_who_use_one_code_at_once_one_comes_in(self, shop: Harness) -> None:
        email, _, codes = await with_app(shop)
        waiting = [await signed_in(shop, email) for _ in range(3)]
        tried = await outcomes(*(shop.execute(GiveCode(code=codes[0]), one) for one in waiting))
        assert sorted(one if isinstance(one, str) else "in" for one in tried) == [
            "in",
            "wrong_code",
            "wrong_code",
        ]

    async def test_new_recovery_codes_end_the_old_ones(self, shop: Harness) -> None:
        email, secret, old = await with_app(shop)
        waiting = await signed_in(shop, email)
        await shop.execute(GiveCode(code=code_of(secret, shop.clock.now())), waiting)
        actor = await self._now(shop, waiting)
        await is_refused(shop, actor, RenewRecoveryCodes(password=WRONG), "wrong_password")
        new = (await shop.execute(RenewRecoveryCodes(password=PASSWORD), actor)).codes
        assert not set(old) & set(new)
        await is_refused(shop, await signed_in(shop, email), GiveCode(code=old[0]), "wrong_code")
        await shop.execute(GiveCode(code=new[0]), await signed_in(shop, email))

    async def test_without_a_second_factor_there_are_none(self, shop: Harness) -> None:
        actor = await signed_in(shop, await staff_with_password(shop))
        await is_refused(shop, actor, RenewRecoveryCodes(password=PASSWORD), "no_second_factor")

    # --- passkeys ------------------------------------------------------------------------------

    async def test_a_passkey_finishes_signing_in(self, shop: Harness) -> None:
        email, device, codes = await with_passkey(shop)
        assert len(codes) == RECOVERY_CODES
        entered = await sign_in(shop, email)
        assert set(entered.awaited) == {FactorKind.PASSKEY, FactorKind.RECOVERY_CODE}
        await sign(shop, await acting(shop, entered.session), device)
        actor = await acting(shop, entered.session)
        has = await shop.execute(ReadSecondFactor(), actor)
        assert [(one.name, has.app) for one in has.passkeys] == [("laptop", False)]

    async def test_a_second_device_brings_no_new_recovery_codes(self, shop: Harness) -> None:
        email, device, _ = await with_passkey(shop)
        waiting = await signed_in(shop, email)
        await sign(shop, waiting, device)
        actor, second = await self._now(shop, waiting), device_of(shop)
        assert await add(shop, actor, second, "phone") == []
        with pytest.raises(Conflict):
            await add(shop, actor, second, "phone again")
        for one in (device, second):
            await sign(shop, await signed_in(shop, email), one)

    @pytest.mark.parametrize(
        "instead", [{"origin": "https://evil.example"}, {"site": "evil.example"}, {"counts": 0}], ids=str
    )
    async def test_what_was_signed_elsewhere_opens_nothing(
        self, shop: Harness, instead: dict[str, Any]
    ) -> None:
        email, device, _ = await with_passkey(shop)
        await sign(shop, await signed_in(shop, email), device)
        waiting = await signed_in(shop, email)
        with pytest.raises(Refused) as no:
            await sign(shop, waiting, device, **instead)
        assert no.value.code == "wrong_code"

    async def test_an_answer_counts_for_its_session_and_for_a_while(self, shop: Harness) -> None:
        email, device, _ = await with_passkey(shop)
        one, other = await signed_in(shop, email), await signed_in(shop, email)
        asked = await shop.execute(AskForPasskey(), one)
        answer = GivePasskey(credential=device.sign(asked.options))
        await is_refused(shop, other, answer, "wrong_code")
        shop.clock.advance(minutes=5)
        await shop.execute(answer, one)
        asked = await shop.execute(AskForPasskey(), (late := await signed_in(shop, email)))
        shop.clock.advance(minutes=9, seconds=59)
        await is_refused(
            shop, late, GivePasskey(credential=device.sign(asked.options, challenge="AAAA")), "wrong_code"
        )

    async def test_an_answer_to_one_question_is_none_to_another(self, shop: Harness) -> None:
        """What was asked for at sign-in registers no passkey, and the other way round."""
        email, device, _ = await with_passkey(shop)
        waiting = await signed_in(shop, email)
        asked = await shop.execute(AskForPasskey(), waiting)
        await sign(shop, waiting, device)
        actor = await self._now(shop, waiting)
        made = AddPasskey(name="x", credential=device_of(shop).register(asked.options))
        await is_refused(shop, actor, made, "wrong_code")

    async def test_somebody_elses_passkey_opens_nothing(self, shop: Harness) -> None:
        email, device, _ = await with_passkey(shop)
        _, other, _ = await with_passkey(shop)
        waiting = await signed_in(shop, email)
        with pytest.raises(Refused) as no:
            await sign(shop, waiting, other)
        assert no.value.code == "wrong_code"
        other.id = device.id
        with pytest.raises(Refused) as no:
            await sign(shop, waiting, other)
        assert no.value.code == "wrong_code"

    async def test_passkeys_are_not_without_number(self, shop: Harness) -> None:
        actor = await signed_in(shop, await staff_with_password(shop))
        asked = await shop.execute(OfferPasskey(password=PASSWORD), actor)
        for n in range(PASSKEYS_MAX):
            shop.clock.advance(minutes=2)
            if n % 2 == 0:
                asked = await shop.execute(OfferPasskey(password=PASSWORD), actor)
            made = device_of(shop).register(asked.options)
            await shop.execute(AddPasskey(name=f"device {n}", credential=made), actor)
        shop.clock.advance(minutes=2)
        one_more = device_of(shop).register(asked.options)
        await is_refused(shop, actor, AddPasskey(name="one more", credential=one_more), "too_many")

    async def test_whoever_has_none_is_asked_for_none(self, shop: Harness) -> None:
        email, _, _ = await with_app(shop)
        await is_refused(shop, await signed_in(shop, email), AskForPasskey(), "passkey_not_found")
        waiting = await signed_in(shop, email)
        for credential in ("{}", "null", json.dumps({"id": "x"})):
            await is_refused(shop, waiting, GivePasskey(credential=credential), "wrong_code")

    # --- taking away ---------------------------------------------------------------------------

    async def test_without_the_last_factor_a_password_is_enough_again(self, shop: Harness) -> None:
        email, secret, codes = await with_app(shop)
        waiting = await signed_in(shop, email)
        await shop.execute(GiveCode(code=code_of(secret, shop.clock.now())), waiting)
        actor, device = await self._now(shop, waiting), device_of(shop)
        assert await add(shop, actor, device) == []
        await is_refused(shop, actor, RemoveApp(password=WRONG), "wrong_password")
        await shop.execute(RemoveApp(password=PASSWORD), actor)
        await is_refused(shop, actor, RemoveApp(password=PASSWORD), "not_found")
        has = await shop.execute(ReadSecondFactor(), actor)
        assert (has.app, has.recovery_codes_left) == (False, RECOVERY_CODES)
        id = has.passkeys[0].id
        await is_refused(
            shop, actor, RemovePasskey(passkey_id="AAAA", password=PASSWORD), "passkey_not_found"
        )
        await is_refused(shop, actor, RemovePasskey(passkey_id=id, password=WRONG), "wrong_password")
        await shop.execute(RemovePasskey(passkey_id=id, password=PASSWORD), actor)
        assert (await shop.execute(ReadSecondFactor(), actor)).recovery_codes_left == 0
        entered = await sign_in(shop, email)
        assert entered.awaited == ()
        await is_refused(shop, await acting(shop, entered.session), GiveCode(code=codes[0]), "forbidden")

    async def test_a_reset_of_the_password_does_not_take_it_away(self, shop: Harness) -> None:
        email, _, _ = await with_app(shop)
        await shop.execute(RequestPasswordReset(email=email), visitor())
        reset = ResetPassword(token=await token_to(shop, email), password=OTHER)
        await shop.execute(reset, visitor())
        assert FactorKind.APP in (await sign_in(shop, email, OTHER)).awaited

    async def test_whoever_has_lost_all_is_helped_by_an_operator(self, shop: Harness) -> None:
        email, secret, _ = await with_app(shop)
        waiting = await signed_in(shop, email)
        whole = await shop.execute(GiveCode(code=code_of(secret, shop.clock.now())), waiting)
        owner = await people.acting(shop, await people.staff(shop, Role.OWNER))
        with pytest.raises(Forbidden):
            await shop.execute(ClearSecondFactor(email=email), owner)
        await shop.execute(ClearSecondFactor(email=email.upper()), Actor.system(None))
        assert await next_request(shop, whole.session) is None
        assert (await sign_in(shop, email)).awaited == ()
        assert "by an operator" in (await mails_to(shop, email))[-1].text
        for nothing, kind in ((email, Refused), ("nobody@example.test", NotFound)):
            with pytest.raises(kind):
                await shop.execute(ClearSecondFactor(email=nothing), Actor.system(None))

    # --- a company that requires it ------------------------------------------------------------

    async def test_a_company_that_requires_it_opens_to_nobody_without(self, shop: Harness) -> None:
        email = await staff_with_password(shop, Role.ADMIN)
        actor = await signed_in(shop, email)
        await shop.execute(EditCompany(require_second_factor=True))
        barred = await self._now(shop, actor)
        await is_refused(shop, barred, ListMembers(), "second_factor_required")
        assert (await shop.execute(ReadAccount(), barred)).email == email
        offered = await shop.execute(OfferApp(password=PASSWORD), barred)
        confirm = ConfirmApp(code=code_of(offered.secret, shop.clock.now()))
        await shop.execute(confirm, barred)
        assert (await shop.execute(ListMembers(), await self._now(shop, barred))).items
        await shop.execute(EditCompany(require_second_factor=False))

    async def test_a_session_from_before_shows_it_again(self, shop: Harness) -> None:
        """Where it is required: what counts is what this session has seen, not what its holder has."""
        email = await staff_with_password(shop)
        before, actor = await signed_in(shop, email), await signed_in(shop, email)
        offered = await shop.execute(OfferApp(password=PASSWORD), actor)
        await shop.execute(ConfirmApp(code=code_of(offered.secret, shop.clock.now())), actor)
        await shop.execute(EditCompany(require_second_factor=True))
        await is_refused(shop, await self._now(shop, before), ListMembers(), "second_factor_required")
        assert (await shop.execute(ListMembers(), await self._now(shop, actor))).items

    async def test_without_a_factor_nobody_has_shown_one(self, shop: Harness) -> None:
        """Where one is required it is not met by one that was there for a moment."""
        email, _, codes = await with_app(shop)
        await shop.execute(EditCompany(require_second_factor=True))
        actor, other = [await whole(shop, email, code) for code in codes[:2]]
        assert (await shop.execute(ListMembers(), await self._now(shop, actor))).items
        await shop.execute(RemoveApp(password=PASSWORD), actor)
        barred = await self._now(shop, actor)
        await is_refused(shop, barred, ListMembers(), "second_factor_required")
        grant = await shop.distribu.ports.directory.staff_session(other.session_id or "")
        assert grant is None or grant.actor(now=shop.clock.now(), ip=None) is None
        await shop.execute(EditCompany(require_second_factor=False))

    # --- who else ------------------------------------------------------------------------------

    async def test_a_stores_contacts_have_none(self, shop: Harness) -> None:
        email = await contact_with_password(shop, await shop.customer())
        actor = await signed_in(shop, email, store=shop)
        for request in (
            OfferApp(password=PASSWORD),
            ConfirmApp(code=NO_CODE),
            OfferPasskey(password=PASSWORD),
            AddPasskey(name="x", credential="{}"),
            RenewRecoveryCodes(password=PASSWORD),
        ):
            await is_refused(shop, actor, request, "not_found")
        has = await shop.execute(ReadSecondFactor(), actor)
        assert (has.app, has.passkeys) == (False, [])

    async def test_two_apps_at_once_leave_one(self, shop: Harness) -> None:
        email = await staff_with_password(shop)
        actor = await signed_in(shop, email)
        offers = await asyncio.gather(*(shop.execute(OfferApp(password=PASSWORD), actor) for _ in range(3)))
        now = shop.clock.now()
        tried = [
            await outcomes(shop.execute(ConfirmApp(code=code_of(one.secret, now)), actor)) for one in offers
        ]
        assert len([one for [one] in tried if one != "wrong_code"]) == 1

    async def test_no_secret_is_kept_in_clear_or_told(self, shop: Harness) -> None:
        email, secret, codes = await with_app(shop)
        actor = await signed_in(shop, email)
        records = await told(shop, "auth.factor_added", ip=None)
        shown = repr(records) + repr(actor)
        async with shop.distribu.ports.store.begin(Scope(REALM), readonly=True) as tx:
            shown += repr(await tx.factors.of(actor.id))
        assert not [one for one in (secret, *codes) if one in shown]

    async def _now(self, shop: Shop, actor: Actor) -> Actor:
        """The same person at the next request."""
        grant = await shop.distribu.ports.directory.staff_session(actor.session_id or "")
        now = grant.actor(now=shop.distribu.ports.clock.now(), ip=actor.ip) if grant is not None else None
        assert now is not None
        return now
