"""Use cases of the company itself."""

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from distribu.application import fields, views
from distribu.application.kernel import Command, Query, Reads, Work
from distribu.domain.access import Permission
from distribu.domain.team import Company, Registration

_Name = Annotated[str, Meta(min_length=1, max_length=100, examples=["Acme Distributors"])]
_Slug = Annotated[str, Meta(min_length=1, max_length=60, examples=["acme-distributors"])]
_Currency = Annotated[str, Meta(pattern="^[A-Z]{3}$", max_length=3, examples=["USD"])]
_TimeZone = Annotated[str, Meta(min_length=1, max_length=64, examples=["Europe/Lisbon"])]


class CreateCompany(Command[Company], frozen=True, kw_only=True):
    """Found a company. Without a slug it gets one made of its name; a taken one is refused."""

    needs = Permission.COMPANY_CREATE
    founds = True

    name: _Name
    slug: _Slug | None = None
    currency: _Currency = "USD"

    async def run(self, work: Work) -> Company:
        company = Company.found(
            id=work.company_id, name=self.name, slug=self.slug, currency_code=self.currency, at=work.now
        )
        work.save(company)
        return company


class EditCompany(Command[Company], frozen=True, kw_only=True):
    """Change the company's settings. The currency is fixed once there is an order."""

    needs = Permission.COMPANY_MANAGE

    name: _Name | UnsetType = UNSET
    slug: _Slug | UnsetType = UNSET
    currency: _Currency | UnsetType = UNSET
    time_zone: _TimeZone | UnsetType = UNSET
    tax_rate: fields.TaxRate | UnsetType = UNSET
    shipping: fields.Amount | UnsetType = UNSET
    order_minimum: fields.Amount | UnsetType = UNSET
    return_window_days: Annotated[int, Meta(ge=0, le=3650)] | UnsetType = UNSET
    registration: Registration | UnsetType = UNSET
    version: fields.IfMatch | None = None

    async def run(self, work: Work) -> Company:
        company, has_orders = await work.together(work.companies.current(lock=True), work.orders.any())
        company = company.at(self.version).edit(self.given("version"), has_orders=has_orders, at=work.now)
        work.save(company)
        return company


class ReadCompany(Query[Company], frozen=True, kw_only=True):
    """The company and its settings."""

    needs = Permission.COMPANY_READ

    async def run(self, reads: Reads) -> Company:
        return await reads.companies.current()


class ReadMe(Query[views.MeView], frozen=True, kw_only=True):
    """Whose key this is, and what it may do."""

    needs = None

    async def run(self, reads: Reads) -> views.MeView:
        return views.me(await reads.companies.current(), reads.actor)
