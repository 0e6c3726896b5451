"""What follows from an event: which names it goes out under. Every event is here or audit-only."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from distribu.domain import (
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
    sealing,
    team,
    webhooks,
)
from distribu.domain.entity import Event
from distribu.domain.ordering import OrderMoved, OrderStatus

_MOVED: Final[Mapping[OrderStatus, tuple[str, ...]]] = {
    OrderStatus.SHIPPED: ("order.status_changed", "order.shipped"),
    OrderStatus.DELIVERED: ("order.status_changed", "order.delivered"),
    OrderStatus.CANCELLED: ("order.status_changed", "order.cancelled"),
}


def _moved(event: OrderMoved) -> tuple[str, ...]:
    return _MOVED.get(event.after, ("order.status_changed",))


WIRE: Final[Mapping[type[Event], tuple[str, ...] | Callable[[Any], tuple[str, ...]]]] = {
    ordering.OrderPlaced: ("order.created",),
    ordering.OrderMoved: _moved,
    customers.CustomerCreated: ("customer.created",),
    customers.CustomerEdited: ("customer.updated",),
    catalog.ProductCreated: ("product.created",),
    catalog.ProductEdited: ("product.updated",),
    catalog.ProductArchived: ("product.deleted",),
    catalog.LowStockReached: ("product.low_stock",),
    notices.InvoicePaid: ("invoice.paid",),
}
"""Events that leave the house, and their names out there. The payload is the entity's view."""

AUDIT_ONLY: Final[frozenset[type[Event]]] = frozenset(
    {
        access.ApiKeyCreated,
        access.ApiKeyEdited,
        access.ApiKeyRevoked,
        accounts.CompanySwitched,
        accounts.CredentialsCreated,
        accounts.EmailChanged,
        accounts.EmailVerified,
        accounts.FactorShown,
        accounts.LinkIssued,
        accounts.PasswordChanged,
        accounts.PasswordRehashed,
        accounts.PlatformUsed,
        accounts.SessionRenewed,
        accounts.SessionsEnded,
        accounts.SignInFailed,
        accounts.SignInNoted,
        accounts.SignedIn,
        accounts.SignedOut,
        accounts.SuperAdminGranted,
        accounts.SuperAdminRevoked,
        accounts.UserCreated,
        accounts.UserEdited,
        audit.AccessRefused,
        audit.CustomEntry,
        billing.PlanSet,
        billing.SubscribedTwice,
        billing.SubscriptionCanceled,
        billing.SubscriptionPastDue,
        billing.SubscriptionRecovered,
        billing.SubscriptionStarted,
        billing.SubscriptionUpdated,
        billing.TrialEnded,
        billing.TrialEnding,
        catalog.StockReceived,
        catalog.StockAdjusted,
        catalog.StockOrdered,
        catalog.StockRestocked,
        customers.CreditTaken,
        customers.CreditReleased,
        customers.PriceOverrideSet,
        customers.PriceOverrideRemoved,
        ordering.PaymentRecorded,
        sealing.LogExported,
        sealing.PersonErased,
        contacts.ContactAdded,
        contacts.ContactEdited,
        factors.AppOffered,
        factors.FactorAdded,
        factors.FactorRemoved,
        factors.FactorResealed,
        factors.FactorUsed,
        factors.FactorsCleared,
        factors.RecoveryCodesRenewed,
        inquiries.InquiryReceived,
        notices.InvoiceFailed,
        notices.NoticeApplied,
        notices.NoticeIgnored,
        notices.NoticePutOff,
        notices.PayerDeleted,
        team.CompanyCreated,
        team.CompanyDeleted,
        team.CompanyEdited,
        team.CompanyPurged,
        team.CompanyResumed,
        team.CompanySuspended,
        team.InvitationAccepted,
        team.InvitationEdited,
        team.InvitationRevoked,
        team.InvitationSentAgain,
        team.MemberInvited,
        team.MemberJoined,
        team.MemberRemoved,
        team.MemberRoleChanged,
        webhooks.DeliveriesReplayed,
        webhooks.WebhookDisabled,
        webhooks.WebhookRegistered,
        webhooks.WebhookEdited,
        webhooks.WebhookRemoved,
        webhooks.WebhookResealed,
        webhooks.WebhookSecretRotated,
        webhooks.WebhookTested,
    }
)
"""Events that end in the audit log."""

OF_THE_LOG: Final = frozenset({"audit.sealed", "audit.recorded"})
"""A new head of the audit log, and a record of it: they follow from sealing, and from no event."""

WIRE_NAMES: Final = (
    frozenset(name for names in WIRE.values() if isinstance(names, tuple) for name in names)
    | frozenset(name for names in _MOVED.values() for name in names)
    | OF_THE_LOG
)


def wire(event: Event) -> tuple[str, ...]:
    """The names under which an event goes out; none for one that is audit-only."""
    names = WIRE.get(type(event), ())
    return names if isinstance(names, tuple) else names(event)
