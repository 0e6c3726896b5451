"""The use cases on PostgreSQL, with the clock and the receivers as twins."""

from collections.abc import AsyncIterator

import pytest

from distribu import Harness, Settings
from tests.contracts.access import AccessUseCases as TestAccess
from tests.contracts.audit import AuditUseCases as TestAudit
from tests.contracts.catalog import CatalogUseCases as TestCatalog
from tests.contracts.customers import CustomerUseCases as TestCustomers
from tests.contracts.mailing import MailUseCases as TestMail
from tests.contracts.ordering import OrderUseCases as TestOrdering
from tests.contracts.postgres import OnPostgres, on_postgres
from tests.contracts.team import CompanyUseCases as TestTeam
from tests.contracts.webhooks import WebhookUseCases as TestWebhooks

__all__ = [
    "TestAccess",
    "TestAudit",
    "TestCatalog",
    "TestCustomers",
    "TestMail",
    "TestOrdering",
    "TestTeam",
    "TestWebhooks",
]


@pytest.fixture(scope="module")
async def harness(settings: Settings) -> AsyncIterator[OnPostgres]:
    async with on_postgres(settings) as harness:
        yield harness


@pytest.fixture
async def shop(harness: OnPostgres) -> AsyncIterator[Harness]:
    async with harness as shop:
        yield shop
