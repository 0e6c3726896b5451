"""Where the use cases of people stand: at the door, in one's account, in a company, in a store.

A company's staff find the whole API again under ``/account``, by their session instead of a key; a
store's customers find their part of it under ``/store/{slug}``.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from distribu.application import (
    access,
    accounts,
    audit,
    billing,
    catalog,
    contacts,
    customers,
    exports,
    factors,
    inquiries,
    notices,
    ordering,
    plans,
    platform,
    profiles,
    sealing,
    sessions,
    team,
    views,
)
from distribu.application.kernel import Request
from distribu.entrypoints.http.routes import (
    ROUTES,
    edits,
    issues,
    lists,
    makes,
    reads,
    reads_all,
    removes,
    streams,
)
from distribu.entrypoints.http.wire import File, Route

FLOOR_S: Final = 0.25
"""What an answer takes at least that must not tell by its time whether an address is known."""


def _does(path: str, request: type[Request[Any]], tag: str, **more: Any) -> Route:
    """A POST that is answered with nothing."""
    return Route(
        method="POST",
        path=path,
        request=request,
        tag=tag,
        result=None,
        status=204,
        view=lambda _: None,
        **more,
    )


_ENTERS: Final = Route(
    method="POST",
    path="/sign-in",
    request=sessions.SignIn,
    tag="Signing in",
    result=profiles.EnteredView,
    view=sessions.entered,
    enters=True,
    floor_s=FLOOR_S,
)

AUTH: Final = (
    _does("/sign-up", accounts.SignUp, "Signing in", floor_s=FLOOR_S),
    _does("/verify", accounts.VerifyEmail, "Signing in"),
    _does("/resend-verification", accounts.ResendVerification, "Signing in", floor_s=FLOOR_S),
    _ENTERS,
    _does("/request-reset", accounts.RequestPasswordReset, "Signing in", floor_s=FLOOR_S),
    _does("/reset", accounts.ResetPassword, "Signing in"),
    _does("/confirm-email", accounts.ConfirmEmail, "Signing in"),
    _does("/accept-invitation", team.AcceptInvitation, "Signing in"),
    _does("/inquiries", inquiries.SendInquiry, "Forms"),
    edits("/read-invitation", team.ReadInvitation, "Signing in", profiles.OfferView, "POST"),
)
"""Under ``/auth``, for those who are not signed in."""

_OWN: Final = (
    reads("", accounts.ReadAccount, "Account", profiles.AccountView),
    _does("/sign-out", sessions.SignOut, "Account", leaves=True),
    _does("/sign-out-everywhere", sessions.SignOutEverywhere, "Account", leaves=True),
    reads_all("/sessions", sessions.ListSessions, "Account", profiles.SessionView),
    removes("/sessions/{session_id:str}", sessions.EndSession, "Account"),
    _does("/password", accounts.ChangePassword, "Account"),
    _does("/email", accounts.ChangeEmail, "Account"),
)
"""One's own account, for staff and contacts alike."""

_TEAM: Final = "Team"
_member, _invitation = "/members/{member_id:str}", "/invitations/{invitation_id:str}"
_key = "/api-keys/{api_key_id:str}"
_contact = "/contacts/{contact_id:str}"
_customers_contacts = "/customers/{customer_id:str}/contacts"

_CONTACTS: Final = (
    lists(_customers_contacts, contacts.ListContacts, "Contacts", profiles.ContactView),
    makes(_customers_contacts, contacts.InviteContact, "Contacts", profiles.ContactView),
    reads(_contact, contacts.ReadContact, "Contacts", profiles.ContactView),
    edits(_contact, contacts.EditContact, "Contacts", profiles.ContactView),
    _does(f"{_contact}/send-link", contacts.SendContactLink, "Contacts"),
)


def _answers(path: str, request: type[Request[Any]], result: Any, **more: Any) -> Route:
    """A POST that is answered with something that is no entity."""
    return Route(method="POST", path=path, request=request, tag="Second factor", result=result, **more)


def _page(path: str, request: type[Request[Any]]) -> Route:
    """A POST that is answered with where to go on."""
    return Route(method="POST", path=path, request=request, tag="Billing", result=plans.PageView)


_PASSKEYS: Final = "/second-factor/passkeys"
_SECOND_FACTOR: Final = (
    _answers(
        "/second-factor/code", factors.GiveCode, profiles.EnteredView, view=sessions.entered, enters=True
    ),
    _answers("/second-factor/challenge", factors.AskForPasskey, profiles.ChallengeView),
    _answers(
        "/second-factor/passkey",
        factors.GivePasskey,
        profiles.EnteredView,
        view=sessions.entered,
        enters=True,
    ),
    reads("/second-factor", factors.ReadSecondFactor, "Second factor", profiles.SecondFactorView),
    _answers("/second-factor/app", factors.OfferApp, profiles.AppView),
    _answers("/second-factor/app/confirm", factors.ConfirmApp, profiles.RecoveryCodesView),
    _does("/second-factor/app/remove", factors.RemoveApp, "Second factor"),
    _answers(_PASSKEYS + "/challenge", factors.OfferPasskey, profiles.ChallengeView),
    _answers(_PASSKEYS, factors.AddPasskey, profiles.RecoveryCodesView, status=201),
    _does(_PASSKEYS + "/{passkey_id:str}/remove", factors.RemovePasskey, "Second factor"),
    _answers("/second-factor/recovery-codes", factors.RenewRecoveryCodes, profiles.RecoveryCodesView),
)
"""What staff show beside a password; the first three finish signing in."""

_LINES: Final = "application/x-ndjson"
_EXPORTS: Final = {
    form.value: File(ends=ends, media_type=media_type, example=exports.example(form))
    for form, ends, media_type in (
        (exports.ExportFormat.JSONL, "jsonl", _LINES),
        (exports.ExportFormat.CSV, "csv", "text/csv; charset=utf-8"),
        (exports.ExportFormat.OCSF, "ocsf.jsonl", _LINES),
    )
}

ACCOUNT: Final = (
    *_OWN,
    *_SECOND_FACTOR,
    Route(
        method="PATCH",
        path="",
        request=accounts.EditAccount,
        tag="Account",
        result=None,
        status=204,
        view=lambda _: None,
    ),
    _does("/switch-company", sessions.SwitchCompany, "Account"),
    _does("/open-company", team.OpenCompany, "Account"),
    _does("/accept-invitation", team.AcceptInvitationAs, "Account"),
    reads("/company", team.ReadCompany, "Company", views.CompanyView),
    edits("/company", team.EditCompany, "Company", views.CompanyView),
    _does("/company/delete", team.DeleteCompany, "Company"),
    _does("/company/leave", team.LeaveCompany, "Company"),
    _does("/company/transfer", team.TransferOwnership, "Company"),
    reads("/billing", billing.ReadSubscription, "Billing", plans.SubscriptionView),
    _page("/billing/checkout", billing.StartCheckout),
    _page("/billing/portal", billing.OpenPortal),
    edits("/billing/preview", billing.PreviewPlan, "Billing", plans.PlanPreviewView, "POST"),
    lists("/members", team.ListMembers, _TEAM, profiles.MemberView),
    edits(_member, team.ChangeRole, _TEAM, profiles.MembershipView),
    removes(_member, team.RemoveMember, _TEAM),
    lists("/invitations", team.ListInvitations, _TEAM, profiles.InvitationView),
    makes("/invitations", team.InviteMember, _TEAM, profiles.InvitationView),
    edits(_invitation, team.EditInvitation, _TEAM, profiles.InvitationView),
    _does(f"{_invitation}/send", team.ResendInvitation, _TEAM),
    removes(_invitation, team.RevokeInvitation, _TEAM),
    lists("/api-keys", access.ListApiKeys, "API keys", views.ApiKeyView),
    issues("/api-keys", access.CreateApiKey, "API keys", views.ApiKeyIssuedView, 201),
    reads(_key, access.ReadApiKey, "API keys", views.ApiKeyView),
    edits(_key, access.EditApiKey, "API keys", views.ApiKeyView),
    edits(f"{_key}/revoke", access.RevokeApiKey, "API keys", views.ApiKeyView, "POST"),
    lists("/audit", audit.ListAudit, "Audit log", views.RecordView),
    _does("/audit", audit.RecordAudit, "Audit log"),
    streams("/audit/export", sealing.ExportAudit, "Audit log", _EXPORTS),
    *_CONTACTS,
    *(route for route in ROUTES if route.request is not team.ReadMe),
)
"""Under ``/account``, for staff."""

STORE: Final = (
    *(
        replace(route, path="/auth" + route.path)
        for route in AUTH
        if route.request
        in (
            accounts.VerifyEmail,
            accounts.ResendVerification,
            sessions.SignIn,
            accounts.RequestPasswordReset,
            accounts.ResetPassword,
            accounts.ConfirmEmail,
        )
    ),
    _does("/auth/register", contacts.RegisterCustomer, "Signing in", floor_s=FLOOR_S),
    _does("/auth/welcome", contacts.AcceptContactInvite, "Signing in"),
    *(replace(route, path="/account" + route.path) for route in _OWN),
    Route(
        method="PATCH",
        path="/account",
        request=accounts.EditAccount,
        tag="Account",
        result=None,
        status=204,
        view=lambda _: None,
    ),
    *_CONTACTS,
    *(
        route
        for route in ROUTES
        if route.request
        in (
            catalog.ListProducts,
            catalog.ReadProduct,
            customers.ReadCustomer,
            customers.ListPriceOverrides,
            ordering.ListOrders,
            ordering.ReadOrder,
            ordering.PlaceOrder,
            ordering.PreviewOrder,
        )
    ),
)
"""Under ``/store/{slug}``, for a store's customers."""

ADMIN: Final[Sequence[Route]] = (
    lists("/companies", platform.ListCompanies, "Platform", profiles.CompanyCardView),
    reads("/companies/{company_id:str}/usage", platform.ReadUsage, "Platform", profiles.UsageView),
    _does("/companies/{company_id:str}/suspend", platform.SuspendCompany, "Platform"),
    _does("/companies/{company_id:str}/resume", platform.ResumeCompany, "Platform"),
    _does("/companies/{company_id:str}/limit", platform.SetCompanyLimit, "Platform"),
    reads_all("/billing/events", notices.ListNotices, "Platform", plans.NoticeView),
    edits("/billing/events/replay", notices.ReplayNotice, "Platform", plans.NoticeView, "POST"),
    reads_all("/failed-jobs", platform.ListFailedJobs, "Platform", profiles.FailedJobView),
    lists("/inquiries", inquiries.ListInquiries, "Platform", profiles.InquiryView),
    reads_all("/super-admins", platform.ListSuperAdmins, "Platform", profiles.PersonView),
)
"""Under ``/api/admin``, for super-admins, by their session."""
