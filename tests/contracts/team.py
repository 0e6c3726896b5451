"""Use cases of the company itself, on any store."""

from decimal import Decimal

import pytest

from distribu import Actor, Conflict, Forbidden, Harness, Invalid, Stale, amount
from distribu.application.team import CreateCompany, EditCompany, ReadCompany, ReadMe
from distribu.domain.access import Permission
from distribu.domain.team import Registration
from distribu.domain.values import exact_rate
from tests.contracts.asking import each, key_of, log_of, refused


class CompanyUseCases:
    async def test_a_company_begins_with_the_usual_terms(self, shop: Harness) -> None:
        company = await shop.execute(ReadCompany())
        assert (company.currency, company.time_zone, company.registration) == (
            "USD",
            "UTC",
            Registration.OPEN,
        )
        assert [company.tax_rate, company.shipping, company.order_minimum] == [0, 0, 0]
        assert (company.return_window_days, company.version) == (30, 1)

    async def test_a_slug_is_made_of_the_name(self, shop: Harness) -> None:
        word = shop.company.id[-12:]
        founded = await shop.execute(CreateCompany(name=f"Ünited Acmé {word} Ltd."), Actor.system(None))
        assert founded.slug == f"united-acme-{word}-ltd"
        async with refused(shop, "duplicate_slug", Conflict):
            await shop.execute(CreateCompany(name=f"united ACME {word} ltd"), Actor.system(None))

    async def test_renaming_keeps_the_slug(self, shop: Harness) -> None:
        renamed = await shop.execute(EditCompany(name="Something Else"))
        assert (renamed.name, renamed.slug) == ("Something Else", shop.company.slug)

    @pytest.mark.parametrize("slug", ["", "-a", "a-", "a--b", "a_b", "a b", "ü", "x" * 61])
    async def test_a_slug_is_letters_digits_and_single_hyphens(self, shop: Harness, slug: str) -> None:
        async with refused(shop, "invalid_request", Invalid) as no:
            await shop.execute(EditCompany(slug=slug))
        assert list(no.refused.fields) == ["slug"]

    @pytest.mark.parametrize(
        ("wrong", "field"),
        [
            ({"currency": "XXX"}, "currency"),
            ({"currency": "usd"}, "currency"),
            ({"time_zone": "Mars/Base"}, "timeZone"),
            ({"tax_rate": Decimal("0.31")}, "taxRate"),
            ({"shipping": Decimal("-1")}, "shipping"),
            ({"order_minimum": Decimal("0.001")}, "orderMinimum"),
            ({"return_window_days": -1}, "returnWindowDays"),
            ({"name": ""}, "name"),
            ({"registration": "SHUT"}, "registration"),
        ],
    )
    async def test_settings_outside_their_limits_are_refused(
        self, shop: Harness, wrong: dict[str, object], field: str
    ) -> None:
        async with refused(shop, "invalid_request", Invalid) as no:
            await shop.execute(EditCompany(**wrong))  # type: ignore[arg-type]  # that it is wrong is the point
        assert list(no.refused.fields) == [field]

    async def test_settings_are_changed_and_told_with_before_and_after(self, shop: Harness) -> None:
        await shop.execute(
            EditCompany(
                tax_rate=exact_rate(Decimal("0.0825")),
                shipping=amount("7.50"),
                time_zone="Europe/Lisbon",
                registration=Registration.APPROVAL,
                version=1,
            )
        )
        company = await shop.execute(ReadCompany())
        assert (company.tax_rate, company.shipping) == (Decimal("0.0825"), Decimal("7.50"))
        (told,) = await log_of(shop, "company.updated")
        assert told.metadata["before"] == {
            "taxRate": 0.0,
            "shipping": 0.0,
            "timeZone": "UTC",
            "registration": "OPEN",
        }
        assert told.metadata["after"]["taxRate"] == 0.0825
        async with refused(shop, "precondition_failed", Stale):
            await shop.execute(EditCompany(name="Late", version=1))

    async def test_the_currency_is_fixed_once_there_is_an_order(self, shop: Harness) -> None:
        assert (await shop.execute(EditCompany(currency="EUR"))).currency == "EUR"
        order = await shop.order(await shop.customer(), (await shop.product(), 1))
        assert order.currency == "EUR"
        async with refused(shop, "currency_fixed"):
            await shop.execute(EditCompany(currency="USD"))
        await shop.execute(EditCompany(currency="EUR", name="Same currency"))

    async def test_only_the_platform_founds_companies_and_it_does_nothing_else(self, shop: Harness) -> None:
        for actor in (shop.actor, key_of(shop, *Permission)):
            if Permission.COMPANY_CREATE not in actor.permissions:
                async with refused(shop, "forbidden", Forbidden):
                    await shop.execute(CreateCompany(name="Mine"), actor)
        for request in each(ReadCompany(), EditCompany(name="Mine"), ReadMe()):
            async with refused(shop, "forbidden", Forbidden):
                await shop.distribu.execute(Actor.system(None), request)

    async def test_a_key_reads_whose_it_is(self, shop: Harness) -> None:
        me = await shop.execute(ReadMe(), key_of(shop, Permission.ORDERS_READ))
        assert (me.company_id, me.company_slug, me.key_name) == (shop.company.id, shop.company.slug, "ERP")
        assert me.scopes == [Permission.ORDERS_READ]
