"""Numbers of payment cards in texts: none is to be kept here, wherever somebody types one.

They are told from the other long numbers of the trade by how cards are numbered (ISO/IEC 7812-1): in the
ranges and lengths that are given out, with Luhn's check digit, alone between what is no letter or digit, in
one piece or in groups as they are embossed. docs/decisions/0030 says what that misses, and how often it errs.
"""

import re
from typing import Final

SHORTEST: Final = 15
"""Characters of the shortest there is, an American Express in one piece."""

_BY: Final = "[ .\u00a0\u2009\u202f\u2010-\u2013-]"
_CARD: Final = re.compile(
    r"\d(?<![^\W_].)(?<!\d\..)(?:"  # a digit first, then what stands before it: so most of a text is skipped
    r"\d{14,15}|\d{18}"
    rf"|\d{{3}}(?P<four>{_BY})\d{{4}}(?P=four)\d{{4}}(?P=four)\d{{4}}(?:(?P=four)\d{{3}})?"
    rf"|\d{{3}}(?P<six>{_BY})\d{{6}}(?P=six)\d{{4,5}}"
    r")(?![^\W_])"
)
_ACCOUNT: Final = re.compile(
    rf"[A-Za-z]{{2}}\d\d(?:{_BY}?[A-Za-z0-9]{{4}}){{2,7}}(?:{_BY}?[A-Za-z0-9]{{1,3}})?(?![^\W_])"
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
    at = 0
    while len(text) - at >= SHORTEST and (found := _CARD.search(text, at)):
        if _is_card([int(one) for one in found[0] if one.isdecimal()]) and not _in_account(text, found):
            return True
        at = found.start() + 1
    return False


def _is_card(digits: list[int]) -> bool:
    # Luhn's check digit: ISO/IEC 7812-1, annex B.
    doubled = [sum(divmod(2 * one, 10)) for one in digits[-2::-2]]
    checks = (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0
    return checks and _GIVEN_OUT.fullmatch("".join(map(str, digits))) is not None


def _in_account(text: str, card: re.Match[str]) -> bool:
    """Whether what looks like a card's number is a part of an account's (IBAN)."""
    at, most = max(card.start() - _ACCOUNT_MAX, 0), card.start() + _ACCOUNT_MAX
    while (found := _ACCOUNT.search(text, at, most)) and found.start() < card.start():
        for end in range(found.end(), card.end() - 1, -1):
            if not text[end : end + 1].isalnum() and _is_account(re.sub(_BY, "", text[found.start() : end])):
                return True
        at = found.start() + 1
    return False


def _is_account(plain: str) -> bool:
    # The check digits of an account: ISO 13616-1, 6.
    return int("".join(str(int(one, 36)) for one in plain[4:] + plain[:4])) % 97 == 1
