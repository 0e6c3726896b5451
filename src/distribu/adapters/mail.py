"""Mails as they arrive: letters put into their templates, and the mailbox that keeps them in development."""

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP
from functools import cache
from pathlib import Path
from typing import Any, Final, Self

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from distribu.application.ports import Letter, Mail, MailNotSent

log: Final = logging.getLogger("distribu.mail")

MAILBOX_MAX: Final = 500
"""Mails a development mailbox keeps; the oldest goes first."""

SUBJECT_MAX: Final = 200
"""Characters of a subject."""

_TEMPLATES: Final = Path(__file__).parent / "letters"
_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
"""What ends a line somewhere, or is no text."""

WRITTEN: Final = SMTP.clone(max_line_length=998)
"""How a mail is written down: each header on a line as long as one may be (RFC 5322, 2.1.1), since the way
that Python 3.13.0 folds encoded words loses the spaces between them."""

_ID: Final = re.compile(r"[0-9a-f-]{36}")
_WORD: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """A mail as its reader sees it; ``link`` is the one it asks to follow ("" in one read from a file)."""

    id: str
    sender: str
    to: str
    subject: str
    text: str
    html: str
    link: str

    def message(self) -> EmailMessage:
        """The same as a MIME message (RFC 5322)."""
        message = EmailMessage(policy=WRITTEN)
        message["From"], message["To"], message["Subject"] = self.sender, self.to, self.subject
        message["Message-ID"] = f"<{self.id}@distribu>"
        message.set_content(self.text)
        message.add_alternative(self.html, subtype="html")
        return message

    @classmethod
    def read(cls, id: str, message: EmailMessage) -> Self:
        """A mail from what `message` made of it."""
        text, html = (
            str(part.get_content()).replace("\r\n", "\n") if part is not None else ""
            for part in (message.get_body(("plain",)), message.get_body(("html",)))
        )
        (sender,) = message["From"].addresses
        return cls(
            id=id,
            sender=_from(sender.display_name, sender.addr_spec),
            to=str(message["To"]),
            subject=str(message["Subject"]).strip(),
            text=text,
            html=html,
            link="",
        )


@dataclass(frozen=True, slots=True)
class Stationery:
    """What makes a mail of a letter: the templates, who it is from, and where its links begin.

    ``sender`` is an address; people see the company's name before it.
    """

    sender: str
    public_url: str

    def write(self, mail: Mail) -> Arrived:
        """The mail as it will arrive. What people have named cannot break out of a header or a tag."""
        link = ""
        if mail.letter.page:
            token = mail.token.reveal() if mail.token is not None else ""
            # After the #, which no browser sends: the token stays out of every log on the way.
            link = f"{self.public_url.rstrip('/')}{mail.letter.page}#{token}"
        name = _template_name(type(mail.letter))
        facts = {"letter": mail.letter, "link": link, "to": mail.to}
        subject, _, text = _templates().get_template(f"{name}.txt").render(facts).partition("\n")
        subject = _header(subject.strip())[:SUBJECT_MAX]
        return Arrived(
            id=mail.id,
            sender=_from(getattr(mail.letter, "company", "") or "Distribu", self.sender),
            to=mail.to,
            subject=subject,
            text=text.strip() + "\n",
            html=_templates().get_template(f"{name}.html").render(facts, subject=subject).strip() + "\n",
            link=link,
        )


def _template_name(kind: type[Letter]) -> str:
    return _WORD.sub("_", kind.__name__).lower()


def _from(name: str, address: str) -> str:
    """An address behind its display name, which is a quoted string (RFC 5322, 3.2.4)."""
    quoted = _header(_flat(name)).replace("\\", "").replace('"', "'")
    return f'"{quoted}" <{address}>'


def _header(text: str) -> str:
    """Text for a header, in which nothing is an encoded word (RFC 2047) that was not encoded by us."""
    return text.replace("=?", "= ?")


def _flat(text: str) -> str:
    return _UNSAFE.sub(" ", text)


def _line(fact: Any) -> Any:
    """A fact on one line, when it is text: no name of a thing begins another line of a mail."""
    return _flat(fact) if type(fact) is str else fact


@cache
def _templates() -> Environment:
    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        finalize=_line,
        trim_blocks=True,
        lstrip_blocks=True,
    )


class Mailbox:
    """Implements the port Mailer by keeping what it is given; in ``folder``, when there is one, as files.

    For development and tests: several processes may share a folder. Nothing leaves the machine.
    """

    def __init__(self, stationery: Stationery, folder: Path | None = None) -> None:
        self.stationery = stationery
        self.folder = folder
        self.arrived: list[Arrived] = []

    async def send(self, mail: Mail) -> None:
        arrived = self.stationery.write(mail)
        if self.folder is None:
            if all(one.id != mail.id for one in self.arrived):
                self.arrived.append(arrived)
                del self.arrived[:-MAILBOX_MAX]
            return
        kept = self.folder / f"{mail.id}.eml"
        if not kept.exists():
            try:
                _keep(kept, arrived.message().as_bytes())
            except OSError as error:
                raise MailNotSent(f"the mailbox cannot be written to: {error.strerror}") from None
            log.info("mail to %s: %s", _masked(arrived.to), arrived.subject)

    async def close(self) -> None:
        """Nothing to give back."""

    def ids(self) -> Sequence[str]:
        """The ids of what the folder holds, newest first."""
        kept = self.folder.glob("*.eml") if self.folder is not None else ()
        return sorted((path.stem for path in kept if _ID.fullmatch(path.stem)), reverse=True)

    def read(self, id: str) -> Arrived | None:
        """One mail from the folder, None when it is not there."""
        if self.folder is None or not _ID.fullmatch(id):
            return None
        try:
            written = (self.folder / f"{id}.eml").read_bytes()
        except FileNotFoundError:
            return None
        return Arrived.read(id, message_from_bytes(written, EmailMessage, policy=WRITTEN))


def _keep(kept: Path, written: bytes) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    making = kept.with_suffix(f".{os.getpid()}")
    making.touch(mode=0o600)
    making.write_bytes(written)
    making.replace(kept)
    for old in sorted(kept.parent.glob("*.eml"))[:-MAILBOX_MAX]:
        old.unlink(missing_ok=True)


def _masked(address: str) -> str:
    """``b***@example.test``"""
    name, _, domain = address.rpartition("@")
    return f"{name[:1]}***@{domain}"
