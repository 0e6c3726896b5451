"""The use cases on PostgreSQL, with the clock and the receivers as twins."""

from collections.abc import AsyncIterator

import pytest

from distribu import Harness, Settings
from tests.contracts.access import AccessUseCases as TestAccess
from tests.contracts.accounts import AccountUseCases as TestAccounts
from tests.contracts.audit import AuditUseCases as TestAudit
from tests.contracts.billing import BillingUseCases as TestBilling
from tests.contracts.catalog import CatalogUseCases as TestCatalog
from tests.contracts.contacts import ContactUseCases as TestContacts
from tests.contracts.customers import CustomerUseCases as TestCustomers
from tests.contracts.deliveries import DeliveryUseCases as TestDeliveries
from tests.contracts.factors import FactorUseCases as TestFactors
from tests.contracts.mailing import MailUseCases as TestMail
from tests.contracts.members import MemberUseCases as TestMembers
from tests.contracts.notices import NoticeUseCases as TestNotices
from tests.contracts.operators import OperatorUseCases as TestOperators
from tests.contracts.ordering import OrderUseCases as TestOrdering
from tests.contracts.platform import PlatformUseCases as TestPlatform
from tests.contracts.postgres import OnPostgres, on_postgres
from tests.contracts.receiving import ReceivingUseCases as TestReceiving
from tests.contracts.reconciling import ReconcilingUseCases as TestReconciling
from tests.contracts.refusals import RefusalUseCases as TestRefusals
from tests.contracts.resealing import ResealUseCases as TestResealing
from tests.contracts.sealing import SealingUseCases as TestSealing
from tests.contracts.sessions import SessionUseCases as TestSessions
from tests.contracts.team import CompanyUseCases as TestTeam
from tests.contracts.webhooks import WebhookUseCases as TestWebhooks

__all__ = [
    "TestAccess",
    "TestAccounts",
    "TestAudit",
    "TestBilling",
    "TestCatalog",
    "TestContacts",
    "TestCustomers",
    "TestDeliveries",
    "TestFactors",
    "TestMail",
    "TestMembers",
    "TestNotices",
    "TestOperators",
    "TestOrdering",
    "TestPlatform",
    "TestReceiving",
    "TestReconciling",
    "TestRefusals",
    "TestResealing",
    "TestSealing",
    "TestSessions",
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
