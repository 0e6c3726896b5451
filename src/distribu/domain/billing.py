"""What a company pays Distribu for: its plan, how often it pays, and how that stands."""

from enum import StrEnum


class Plan(StrEnum):
    """What a company may use. UNLIMITED is that of an installation that sells nothing."""

    STARTER = "STARTER"
    GROWTH = "GROWTH"
    ENTERPRISE = "ENTERPRISE"
    UNLIMITED = "UNLIMITED"


class Interval(StrEnum):
    """How often a plan is paid."""

    MONTH = "MONTH"
    YEAR = "YEAR"


class SubscriptionStatus(StrEnum):
    """How a company's subscription stands."""

    TRIALING = "TRIALING"
    ACTIVE = "ACTIVE"
    PAST_DUE = "PAST_DUE"
    CANCELED = "CANCELED"
    EXPIRED = "EXPIRED"
    UNLIMITED = "UNLIMITED"
