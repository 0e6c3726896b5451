"""What people write to those who run the platform: questions, and features they miss."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Self

from distribu.domain.accounts import REALM
from distribu.domain.entity import Entity, Event
from distribu.domain.values import canonical_email


class InquiryKind(StrEnum):
    """Which form it was."""

    CONTACT = "CONTACT"
    FEATURE = "FEATURE"


@dataclass(frozen=True, slots=True, kw_only=True)
class InquiryReceived(Event):
    """What was written, and by whom, is told to nobody here: it can be erased."""

    name: ClassVar[str] = "inquiry.received"
    kind: InquiryKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Inquiry(Entity):
    """One message. Whose it is has not been proven."""

    kind: InquiryKind
    full_name: str
    email: str
    text: str

    @classmethod
    def receive(
        cls, *, id: str, kind: InquiryKind, full_name: str, email: str, text: str, at: datetime
    ) -> Self:
        """A new message. Raises `Invalid` for an address that is none."""
        return cls(
            company_id=REALM,
            id=id,
            kind=kind,
            full_name=full_name,
            email=canonical_email(email),
            text=text,
            created_at=at,
            updated_at=at,
            events=(InquiryReceived(kind=kind),),
        )
