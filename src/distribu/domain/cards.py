"""Numbers of payment cards in texts: none is to be kept here, wherever somebody types one.

They are told from the other long numbers of the trade by how cards are numbered (ISO/IEC 7812-1): in the
ranges and lengths that are given out, with Luhn's check digit, alone between what is no letter or digit, in
one piece or in groups as they are embossed. docs/decisions/0030 says what that misses, and how often it errs.
"""

import re
from collections.abc import Iterator
from typing import Final

SHORTEST: Final = 15
"""Characters of the shortest there is, an American Express in one piece."""

LONG: Final = 10**19
"""The first whole number that is longer than any there is."""

_MARK: Final = r"[._/\u00b7\u2010-\u2015\u2022\u2212\ufe63\uff0d-\uff0f-]"
_SPACE: Final = r"[^\S\n\r]"  # of one line: numbers below each other are several
_BY: Final = rf"(?=\D){_SPACE}{{0,2}}(?P<by>{_MARK}{{0,2}}){_SPACE}{{0,2}}"  # space, the same marks, or both
_AND: Final = rf"(?=\D){_SPACE}{{0,2}}(?P=by){_SPACE}{{0,2}}"
_LETTER: Final = r"[\dA-Za-z]"  # of the alphabet of ids; what is written without spaces goes on in others
_CARD: Final = re.compile(
    rf"\d(?<!{_LETTER}.)(?:"  # a digit first, then what stands before it: so most of a text is skipped
    r"(?<!\d\..)(?:\d{14,15}|\d{18})"
    rf"|\d{{3}}{_BY}(?:\d{{4}}{_AND}\d{{4}}{_AND}\d{{2,4}}(?P<three>{_AND}\d{{3}})?|\d{{6}}{_AND}\d{{4,5}})"
    rf"|\d{{7}}(?:{_SPACE}{{1,2}}|{_MARK})\d{{8}}"
    rf")(?!{_LETTER})"
)
_HIDDEN: Final = re.compile(
    "(?<![A-Za-z])[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]+(?![A-Za-z])"
)
"""What shows nothing: hyphens that are not needed, marks of direction, spaces of no width. Beside a letter it
stays, where it may be all that parts a number from a word."""

_PARTS: Final = rf"(?:\s|{_MARK})"
_ACCOUNT: Final = re.compile(
    rf"[A-Za-z]{{2}}\d\d(?:{_PARTS}?[A-Za-z0-9]{{4}}){{2,7}}(?:{_PARTS}?[A-Za-z0-9]{{1,3}})?(?![^\W_])"
)
_ACCOUNT_MAX: Final = 42
"""Characters of an account's number: 34, and what parts its groups of four (ISO 13616-1, 5)."""

_GIVEN_OUT: Final = re.compile(
    r"4(?:\d{15}|\d{18})"  # Visa
    r"|5\d(?:\d{14}|\d{17})"  # Mastercard, Maestro
    r"|2(?:[2-6]\d|7[0-2])\d{13}"  # Mastercard, Mir
    r"|6\d(?:\d{14}|\d{17})"  # Discover, UnionPay, Maestro, RuPay
    r"|3[47]\d{13}"  # American Express
    r"|35(?:2[89]|[3-8]\d)\d{12}"  # JCB
    r"|3(?:0[0-5]|09|[689]\d)(?:\d{11}|\d{13})"  # Diners Club
    r"|(?:8[12]\d\d|9792)\d{12}"  # UnionPay, RuPay, Troy
)


def holds_card(text: str) -> bool:
    """Whether the number of a payment card stands in a text."""
    if _shows_card(text):
        return True
    shown = text if text.isascii() else _HIDDEN.sub("", text)
    return len(shown) < len(text) and _shows_card(shown)


def _shows_card(text: str) -> bool:
    at = 0
    while len(text) - at >= SHORTEST and (found := _CARD.search(text, at)):
        at = found.start()
        if any(_is_card(text[at:end]) and not _in_account(text, at, end) for end in _ends(found)):
            return True
        at += 1
    return False


def _ends(found: re.Match[str]) -> Iterator[int]:
    """Where the number may end: three digits more are its last ones, or those of its back."""
    yield found.end()
    if found["three"]:
        yield found.start("three")


def _is_card(number: str) -> bool:
    # Luhn's check digit: ISO/IEC 7812-1, annex B.
    digits = [int(one) for one in number if one.isdecimal()]
    doubled = [sum(divmod(2 * one, 10)) for one in digits[-2::-2]]
    checks = (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0
    return checks and _GIVEN_OUT.fullmatch("".join(map(str, digits))) is not None


def _in_account(text: str, begin: int, end: int) -> bool:
    """Whether what looks like a card's number is a part of an account's (IBAN)."""
    at, most = max(begin - _ACCOUNT_MAX, 0), begin + _ACCOUNT_MAX
    while (found := _ACCOUNT.search(text, at, most)) and found.start() < begin:
        for last in range(found.end(), end - 1, -1):
            parts = not text[last : last + 1].isalnum()
            if parts and _is_account(re.sub(_PARTS, "", text[found.start() : last])):
                return True
        at = found.start() + 1
    return False


def _is_account(plain: str) -> bool:
    # The check digits of an account: ISO 13616-1, 6.
    return int("".join(str(int(one, 36)) for one in plain[4:] + plain[:4])) % 97 == 1
