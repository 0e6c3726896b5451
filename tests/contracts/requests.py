"""One of every request that a door can pass on, and all kinds of requests there are."""

from datetime import UTC, datetime
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, Final

import distribu.application
from distribu import ContactRole, Role, amount
from distribu.application import (
    access,
    accounts,
    audit,
    billing,
    catalog,
    contacts,
    customers,
    factors,
    inquiries,
    notices,
    ordering,
    platform,
    reconciling,
    sealing,
    sessions,
    team,
    vault,
    webhooks,
)
from distribu.application.kernel import Request
from distribu.domain.access import SCOPES
from distribu.domain.billing import Interval, Plan
from distribu.domain.inquiries import InquiryKind
from distribu.domain.ordering import OrderStatus, PaymentMethod
from distribu.domain.values import (
    ApiKeyId,
    CompanyId,
    CustomerId,
    DeliveryId,
    OrderId,
    ProductId,
    WebhookId,
)
from distribu.domain.webhooks import WireEvent

_ID: Final = "00000000-0000-7000-8000-000000000000"
_P, _C, _O = ProductId(_ID), CustomerId(_ID), OrderId(_ID)
_K, _W, _D = ApiKeyId(_ID), WebhookId(_ID), DeliveryId(_ID)
_COMPANY: Final = CompanyId(_ID)
_EMAIL: Final = "new@example.test"
_PASSWORD: Final = "correct horse battery"
_ITEMS: Final = (ordering.Wanted(product_id=_P, quantity=1),)
_URL: Final = "https://erp.example/hook"

READING: Final[tuple[Request[Any], ...]] = (
    catalog.ReadProduct(product_id=_P),
    catalog.ListProducts(),
    catalog.ListMovements(product_id=_P),
    customers.ReadCustomer(customer_id=_C),
    customers.ListCustomers(),
    customers.ListPriceOverrides(customer_id=_C),
    ordering.ReadOrder(order_id=_O),
    ordering.ListOrders(),
    ordering.ListPayments(order_id=_O),
    access.ReadApiKey(api_key_id=_K),
    access.ListApiKeys(),
    webhooks.ReadWebhook(webhook_id=_W),
    webhooks.ListWebhooks(),
    webhooks.ReadDelivery(delivery_id=_D),
    webhooks.ListDeliveries(webhook_id=_W),
    webhooks.ListEvents(),
    audit.ListAudit(),
    sealing.VerifyAudit(),
    billing.ReadSubscription(),
    billing.PreviewPlan(plan=Plan.STARTER),
    team.ReadCompany(),
    team.ReadMe(),
    team.ListMembers(),
    team.ReadMember(email=_EMAIL),
    team.ListInvitations(),
    contacts.ListContacts(customer_id=_C),
    contacts.ReadContact(contact_id=_ID),
    accounts.ReadAccount(),
    sessions.ListSessions(),
    factors.ReadSecondFactor(),
    platform.ListCompanies(),
    platform.ReadUsage(company_id=_COMPANY),
    platform.ListFailedJobs(),
    notices.ListNotices(),
    platform.ListUsers(),
    platform.ListSuperAdmins(),
    inquiries.ListInquiries(),
)
"""Whatever only looks, for anybody who is somebody."""

CHANGING: Final[tuple[Request[Any], ...]] = (
    catalog.CreateProduct(name="Oat", price=amount("1")),
    catalog.EditProduct(product_id=_P, name="Oat"),
    catalog.ArchiveProduct(product_id=_P),
    catalog.AdjustStock(product_id=_P, quantity=1, reason=catalog.MoveReason.RECEIVED),
    customers.CreateCustomer(email="new@example.test"),
    customers.EditCustomer(customer_id=_C, name="New"),
    customers.SetPriceOverride(customer_id=_C, product_id=_P, price=amount("1")),
    customers.RemovePriceOverride(customer_id=_C, product_id=_P),
    ordering.PlaceOrder(customer_id=_C, items=_ITEMS),
    ordering.PreviewOrder(customer_id=_C, items=_ITEMS),
    ordering.MoveOrder(order_id=_O, status=OrderStatus.CONFIRMED),
    ordering.RecordPayment(order_id=_O, amount=amount("1"), method=PaymentMethod.CASH),
    access.CreateApiKey(name="ERP", scopes=SCOPES),
    access.EditApiKey(api_key_id=_K, name="ERP"),
    access.RevokeApiKey(api_key_id=_K),
    webhooks.RegisterWebhook(url=_URL, events=(WireEvent.ORDER_CREATED,)),
    webhooks.EditWebhook(webhook_id=_W, is_active=False),
    webhooks.RotateWebhookSecret(webhook_id=_W),
    webhooks.SendTest(webhook_id=_W),
    webhooks.ReplayDelivery(delivery_id=_D),
    webhooks.ReplayDeliveries(webhook_id=_W, since=datetime(2026, 1, 5, tzinfo=UTC)),
    webhooks.RemoveWebhook(webhook_id=_W),
    audit.RecordAudit(action="hello"),
    sealing.ExportAudit(),
    sealing.ErasePerson(label=_EMAIL),
    team.CreateCompany(name="Mine"),
    billing.StartCheckout(plan=Plan.GROWTH, interval=Interval.MONTH),
    billing.OpenPortal(),
    notices.ReplayNotice(ref="evt_1"),
    reconciling.SyncBilling(apply=True),
    team.EditCompany(name="Mine"),
    team.OpenCompany(company_name="Mine"),
    team.DeleteCompany(name="Mine", password=_PASSWORD),
    team.TransferOwnership(member_id=_ID, password=_PASSWORD),
    team.ChangeRole(member_id=_ID, role=Role.ADMIN),
    team.RemoveMember(member_id=_ID),
    team.LeaveCompany(),
    team.InviteMember(email=_EMAIL, role=Role.MEMBER),
    team.EditInvitation(invitation_id=_ID, role=Role.ADMIN),
    team.ResendInvitation(invitation_id=_ID),
    team.RevokeInvitation(invitation_id=_ID),
    team.AcceptInvitationAs(token="no token"),
    contacts.InviteContact(customer_id=_C, email=_EMAIL, full_name="New", role=ContactRole.ADMIN),
    contacts.EditContact(contact_id=_ID, role=ContactRole.ADMIN),
    contacts.SendContactLink(contact_id=_ID),
    accounts.EditAccount(full_name="New"),
    accounts.ChangePassword(password=_PASSWORD, new_password=_PASSWORD),
    accounts.ChangeEmail(new_email=_EMAIL, password=_PASSWORD),
    sessions.SignOut(),
    sessions.SignOutEverywhere(),
    sessions.EndSession(session_id=_ID),
    sessions.SwitchCompany(company_id=_COMPANY),
    factors.OfferApp(password=_PASSWORD),
    factors.ConfirmApp(code="123456"),
    factors.RemoveApp(password=_PASSWORD),
    factors.OfferPasskey(password=_PASSWORD),
    factors.AddPasskey(name="laptop", credential="{}"),
    factors.RemovePasskey(passkey_id="aGVsbG8", password=_PASSWORD),
    factors.RenewRecoveryCodes(password=_PASSWORD),
    factors.GiveCode(code="123456"),
    factors.AskForPasskey(),
    factors.GivePasskey(credential="{}"),
    factors.ClearSecondFactor(email=_EMAIL),
    platform.SuspendCompany(company_id=_COMPANY, reason="unpaid"),
    vault.ResealSecrets(),
    platform.ResumeCompany(company_id=_COMPANY),
    platform.SetCompanyLimit(company_id=_COMPANY),
    platform.SetPlan(company_id=_COMPANY, plan=Plan.GROWTH),
    platform.AddMember(company_id=_COMPANY, email=_EMAIL, role=Role.MEMBER),
    platform.CreateUser(email=_EMAIL, full_name="New"),
    platform.SendPasswordLink(email=_EMAIL),
    platform.EndUserSessions(email=_EMAIL),
    platform.GrantSuperAdmin(email=_EMAIL),
    platform.RevokeSuperAdmin(email=_EMAIL),
)
"""Whatever changes something, for anybody who is somebody."""

VISITING: Final[tuple[Request[Any], ...]] = (
    accounts.SignUp(company_name="Mine", full_name="New", email=_EMAIL, password=_PASSWORD),
    accounts.ResendVerification(email=_EMAIL),
    accounts.VerifyEmail(token="no token", password=_PASSWORD),
    accounts.RequestPasswordReset(email=_EMAIL),
    accounts.ResetPassword(token="no token", password=_PASSWORD),
    accounts.ConfirmEmail(token="no token"),
    sessions.SignIn(email=_EMAIL, password=_PASSWORD),
    team.ReadInvitation(token="no token"),
    team.AcceptInvitation(token="no token", full_name="New", password=_PASSWORD),
    contacts.RegisterCustomer(name="New", email=_EMAIL, password=_PASSWORD),
    contacts.AcceptContactInvite(token="no token", password=_PASSWORD),
    inquiries.SendInquiry(kind=InquiryKind.CONTACT, full_name="New", email=_EMAIL, text="Norway?"),
)
"""What is done before signing in."""


def kinds(cls: type[Request[Any]] = Request) -> set[type[Request[Any]]]:
    """Every kind of request there is in the application."""
    contexts = {f"distribu.application.{it.name}" for it in iter_modules(distribu.application.__path__)}
    for name in contexts:
        import_module(name)
    found: set[type[Request[Any]]] = set()
    for below in cls.__subclasses__():
        found |= {below} | kinds(below)
    return {it for it in found if it.__module__ in contexts and it.__module__ != Request.__module__}
