"""The use cases in memory."""

from tests.contracts.access import AccessUseCases as TestAccess
from tests.contracts.audit import AuditUseCases as TestAudit
from tests.contracts.catalog import CatalogUseCases as TestCatalog
from tests.contracts.customers import CustomerUseCases as TestCustomers
from tests.contracts.mailing import MailUseCases as TestMail
from tests.contracts.ordering import OrderUseCases as TestOrdering
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
