"""Which passwords are taken, and what makes two of them the same one.

The rules are those of NIST SP 800-63B-4, 3.1.1.2, and OWASP ASVS 5.0, V6.2: a length and nothing about
which characters (6.2.1, 6.2.5, 6.2.9), not a common one (6.2.4), not a word of the context (6.2.11). The
whole password is compared, never a part of it: a phrase may hold any word.
"""

import unicodedata
from collections.abc import Iterable
from typing import Final

from distribu.domain.errors import Invalid
from distribu.domain.values import Secret, folded

PASSWORD_MIN: Final = 8
PASSWORD_MAX: Final = 100

CONTEXT: Final = ("distribu",)
"""What anybody would try here first (ASVS 6.1.2), beside those about the person."""


def canonical_password(password: Secret) -> Secret:
    """The one form in which a password is measured, hashed and compared: NFC, and otherwise as it was typed.

    NFC as in NIST SP 800-63B-4, 3.1.1.2, and RFC 8265, 4.2: keyboards that write the same letter as other
    code points give the same password, and nothing is folded that people tell apart. No case is changed and
    nothing cut off (ASVS 6.2.8).
    """
    return Secret(unicodedata.normalize("NFC", password.reveal()))


def acceptable(password: Secret, *, about: Iterable[str], common: bool) -> None:
    """Raises `Invalid` (``fields`` says why) unless this may become a password.

    ``about`` is what anybody knows of the person: email address, name, company, its slug. ``common`` is what
    `Hasher.common` says. Characters are code points.
    """
    text = canonical_password(password).reveal()
    if not PASSWORD_MIN <= len(text) <= PASSWORD_MAX:
        raise _refused(f"must have {PASSWORD_MIN} to {PASSWORD_MAX} characters")
    if common:
        raise _refused("is one of the passwords that are tried first")
    told = {_letters(word) for known in (*CONTEXT, *about) for word in (known, known.partition("@")[0])}
    if _letters(text) in told - {""}:
        raise _refused("must not be a name or an address that others know")


def _letters(text: str) -> str:
    """What is left of a text without case, spaces and punctuation: ``Acme Ltd.`` and ``acme-ltd`` are one."""
    return "".join(one for one in folded(text) if one.isalnum())


def _refused(why: str) -> Invalid:
    return Invalid("invalid_request", fields={"password": why})
