"""What mails need from outside."""

from dataclasses import dataclass
from typing import Protocol

import msgspec

from distribu.domain.values import Secret


class Letter(msgspec.Struct, frozen=True, kw_only=True, tag=True, rename="camel"):
    """What a mail says: the facts its templates are filled with.

    The templates are named like its class (``order_received.html`` and ``.txt``).
    """

    @property
    def page(self) -> str:
        """The path its link leads to, for a letter that comes with a token."""
        return ""


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail to be sent. ``token`` completes its link."""

    id: str
    to: str
    letter: Letter
    token: Secret | None = None


class MailNotSent(Exception):
    """A mail was not taken: for good (``final``), or to be tried again."""

    def __init__(self, why: str, *, final: bool = False, retry_after_s: int | None = None) -> None:
        self.final = final
        self.retry_after_s = retry_after_s
        super().__init__(why)


class Mailer(Protocol):
    """Takes mails to people."""

    async def send(self, mail: Mail) -> None:
        """Hand a mail over, within ten seconds; sent again under its ``id``, it arrives once.

        Raises `MailNotSent`, whose text names neither the address nor the token.
        """
        ...
