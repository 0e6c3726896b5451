"""The ways Distribu says no, and the one way it admits a bug.

A refusal has a *kind* (its class: who has to do something about it) and a stable *code* (what
exactly, for programs). The doors map the kind to an HTTP status and an exit code, once each;
nothing in here knows about either.
"""

from collections.abc import Mapping
from typing import Final

CODES: Final[Mapping[str, str]] = {
    # malformed input
    "invalid_request": "The request is malformed; `fields` says where and why.",
    "invalid_json": "The body is not JSON.",
    "card_number": "This looks like the number of a payment card, and none is kept here.",
    "unsupported_media_type": "The body must be sent as application/json.",
    "body_too_large": "The body is larger than this route accepts.",
    "request_timeout": "The body did not arrive in time.",
    "invalid_signature": "This was not signed by who it should be from, or too long ago.",
    "method_not_allowed": "This path does not know that method.",
    # who is asking
    "unauthenticated": "No key or session, or one that is wrong, over or revoked.",
    "missing_scope": "The key lacks the scope that is named.",
    "forbidden": "This actor may not do that.",
    "https_required": "Only HTTPS is answered; a key or password sent without it should be replaced.",
    "cross_origin": "What is done by a session cookie has to be asked from a page of this origin.",
    "suspended": "The company is suspended.",
    "second_factor_awaited": "The password was right; now the second factor is to be shown.",
    "second_factor_required": "This company requires a second factor: set one up in your account.",
    "wrong_credentials": "The email address or the password is wrong.",
    "not_verified": "The email address is not verified yet: follow the link that was mailed.",
    "wrong_password": "The password is wrong.",
    "wrong_code": "The code or passkey is wrong, or was used before.",
    "invalid_token": "The link is wrong, used or expired; ask for a new one.",
    # what is asked for
    "not_found": "There is nothing here.",
    "company_not_found": "No such company.",
    "product_not_found": "No such product.",
    "customer_not_found": "No such customer.",
    "address_not_found": "The customer has no such address.",
    "price_override_not_found": "The customer has no price of its own for this product.",
    "order_not_found": "No such order.",
    "api_key_not_found": "No such API key.",
    "session_not_found": "No such session.",
    "user_not_found": "No such user.",
    "member_not_found": "No such member.",
    "invitation_not_found": "No such invitation.",
    "contact_not_found": "No such contact.",
    "passkey_not_found": "No such passkey.",
    "webhook_not_found": "No such webhook.",
    "delivery_not_found": "No such delivery.",
    "job_not_found": "No such job.",
    # somebody else was there first
    "duplicate_slug": "Another company has this slug.",
    "duplicate_sku": "Another product has this SKU; SKUs are compared ignoring case.",
    "duplicate_email": "Somebody else has this email address.",
    "already_member": "This person is a member already.",
    "already_registered": "This passkey is there already.",
    "already_invited": "This address is invited already; send that invitation again, or revoke it.",
    "stale_version": "The record changed since it was read; read it again.",
    "precondition_failed": "If-Match names another version than the current one.",
    "idempotency_key_running": "A request with this Idempotency-Key is still running.",
    "job_running": "The job is running already.",
    # what the plan allows
    "plan_limit": "The plan allows no more of these.",
    "payment_required": "The trial or the subscription is over: what is there can be read, exported and "
    "worked on, and for anything new a plan is to be bought.",
    "not_accepting": "Nothing new is taken here at the moment; whoever runs it knows why.",
    # what is bought
    "nothing_sold": "Nothing is sold here.",
    "nothing_bought": "Nothing was bought yet: there is nothing to change.",
    "subscription_runs": "The subscription runs on and would be charged: have it end at Stripe's portal "
    "first, which opens at /account/billing. Of two that were bought, one has to be over.",
    "payments_refused": "Who takes the payments refused this; its operator has to look why.",
    "payments_away": "Who takes the payments does not answer; try again after the time given.",
    "notice_not_found": "No such event of Stripe's is known.",
    # a rule of the business
    "idempotency_key_reused": "This Idempotency-Key was used for a different request.",
    "insufficient_stock": "There is not enough stock.",
    "stock_out_of_range": "Stock would leave the range of 0 to 1,000,000,000.",
    "product_unavailable": "The product is not active.",
    "customer_blocked": "The customer is not active.",
    "credit_limit_exceeded": "The order would take the customer over its credit limit.",
    "order_below_minimum": "The order is below the company's minimum.",
    "amount_out_of_range": "An amount of money would pass 1,000,000,000,000.",
    "placed_in_future": "An order cannot have been placed in the future.",
    "illegal_transition": "The order cannot go from its status to that one.",
    "overpayment": "The payment is more than what is owed.",
    "order_not_payable": "A cancelled order takes no payments.",
    "currency_fixed": "The currency is fixed once the company has an order.",
    "no_second_factor": "There is no second factor to have recovery codes for.",
    "too_many": "A limit on the number of these is reached.",
    "already_revoked": "The API key is already revoked.",
    "events_gone": "Events after this position are not kept any more.",
    "position_unknown": "There is no such position yet, or none any more: the newest event is before it.",
    "webhook_url_refused": "Webhooks may not be sent to this address.",
    "owner_stays": "A company has exactly one owner: ownership is transferred, not given or taken.",
    "not_oneself": "Nobody removes themselves; leave the company instead.",
    "not_an_admin": "Ownership goes to an admin.",
    "invitation_over": "The invitation was accepted or revoked.",
    "another_address": "The invitation is for another address than the one that is signed in.",
    "sign_in_first": "This address has an account: sign in, then accept.",
    "last_admin": "A customer keeps at least one active ADMIN among its contacts.",
    "already_suspended": "The company is suspended already.",
    "not_suspended": "The company is not suspended.",
    "not_deleted": "The company is not deleted.",
    "purge_too_early": "The rows of a deleted company are kept for 30 days.",
    "admin_first": "The first contact of a customer is an ADMIN.",
    "registration_closed": "This store takes no registrations.",
    "not_supported": "Distribu does not do this.",
    # not now
    "rate_limited": "Too many requests; try again after the time given.",
    "busy": "Too busy; try again after the time given.",
    "job_failed": "The job failed; the log says why.",
    "outcome_unknown": "The answer was lost while this was stored, which may be done or not: look, or repeat "
    "it under the same Idempotency-Key.",
    # ours
    "internal_error": "A mistake of ours; the request id helps us find it.",
}
"""Every code that can leave Distribu, and what it means. A code, once released, keeps its meaning."""


class Refused(Exception):
    """A rule of the business said no; nothing was changed.

    ``code`` is one of `CODES`. ``message`` is for people. ``fields`` maps a wire path such as
    ``items[2].quantity`` to what is wrong there. ``retry_after_s`` is in seconds.
    """

    def __init__(
        self,
        code: str,
        message: str | None = None,
        *,
        fields: Mapping[str, str] | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        if code not in CODES:
            raise Bug(f"the refusal code {code!r} is not in CODES")
        self.code = code
        self.message = message or CODES[code]
        self.fields = dict(fields or {})
        self.retry_after_s = retry_after_s
        super().__init__(self.message)


class Unauthenticated(Refused):
    """Nobody we know; one text for every reason (an absent, wrong, expired or revoked key)."""


class PaymentRequired(Refused):
    """The plan does not reach that far."""


class Forbidden(Refused):
    """We know who it is, and they may not. ``lacks`` is the permission that is missing, where it is one.

    ``noted`` is set once the audit log had its say.
    """

    def __init__(
        self,
        code: str,
        message: str | None = None,
        *,
        fields: Mapping[str, str] | None = None,
        retry_after_s: int | None = None,
        lacks: str | None = None,
    ) -> None:
        super().__init__(code, message, fields=fields, retry_after_s=retry_after_s)
        self.lacks = lacks
        self.noted = False


class NotFound(Refused):
    """Absent, or another company's, or another customer's: the same answer to the byte."""


class Conflict(Refused):
    """Somebody else holds the name, or is still at it."""


class Stale(Conflict):
    """The caller said which version it meant, and that is no longer the current one (RFC 9110, 13.1.1)."""


class Invalid(Refused):
    """The request itself is wrong, whatever the state of the business."""


class RateLimited(Refused):
    """More than the limit lets through. ``retry_after_s`` is always given."""


class Busy(Refused):
    """A bounded wait ran out. ``retry_after_s`` is always given."""


class InDoubt(Exception):
    """The database was lost while it was committing: no refusal, since it may have been carried out.

    Sent again under the same idempotency key, the request has its effect once.
    """


class Bug(Exception):
    """An invariant of ours is broken. Never the caller's fault, and never mapped to a refusal."""
