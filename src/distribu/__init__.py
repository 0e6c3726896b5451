"""Distribu: the wholesale ordering core.

``connect`` embeds it, ``Harness`` is it in memory for tests, ``http_app`` is its API as an ASGI
application, and ``inside`` runs it in a transaction of yours. Use cases are in
``distribu.application``, one module per context.
"""

from distribu.application.kernel import Distribu, Issued
from distribu.application.ports import Page
from distribu.domain.access import Actor, ContactRole, Permission, Role
from distribu.domain.billing import Interval, Plan
from distribu.domain.errors import (
    Bug,
    Busy,
    Conflict,
    Forbidden,
    InDoubt,
    Invalid,
    NotFound,
    PaymentRequired,
    Refused,
    Stale,
    Unauthenticated,
)
from distribu.domain.values import Secret
from distribu.entrypoints.embed import connect, inside
from distribu.entrypoints.harness import Harness, Shop, amount
from distribu.entrypoints.http.app import http_app
from distribu.entrypoints.http.limits import ApiLimits
from distribu.entrypoints.worker import Worker
from distribu.settings import Settings, SettingsUnusable, load

__all__ = [
    "Actor",
    "ApiLimits",
    "Bug",
    "Busy",
    "Conflict",
    "ContactRole",
    "Distribu",
    "Forbidden",
    "Harness",
    "InDoubt",
    "Interval",
    "Invalid",
    "Issued",
    "NotFound",
    "Page",
    "PaymentRequired",
    "Permission",
    "Plan",
    "Refused",
    "Role",
    "Secret",
    "Settings",
    "SettingsUnusable",
    "Shop",
    "Stale",
    "Unauthenticated",
    "Worker",
    "amount",
    "connect",
    "http_app",
    "inside",
    "load",
]
