"""Values without an identity: ids, money, addresses, and the one canonical form of each name."""

import re
import unicodedata
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from ipaddress import IPv6Network, ip_address
from typing import Final, NewType, Self
from zoneinfo import available_timezones

from distribu.domain.errors import Invalid, Refused

CompanyId = NewType("CompanyId", str)
ProductId = NewType("ProductId", str)
CustomerId = NewType("CustomerId", str)
AddressId = NewType("AddressId", str)
OrderId = NewType("OrderId", str)
ApiKeyId = NewType("ApiKeyId", str)
WebhookId = NewType("WebhookId", str)
DeliveryId = NewType("DeliveryId", str)

Money = NewType("Money", Decimal)
"""An exact amount with two places in the company's currency, within +-10^12. Made by `money` alone."""

Rate = NewType("Rate", Decimal)
"""A tax rate: 0 to 0.3 with at most four places."""

MONEY_MAX: Final = Decimal(10) ** 12
RATE_MAX: Final = Decimal("0.3")
_CENT: Final = Decimal("0.01")
_BASIS_POINT: Final = Decimal("0.0001")
ZERO: Final = Money(Decimal("0.00"))


def money(value: Decimal | int) -> Money:
    """``value`` as money. Raises `Refused` (amount_out_of_range) when it does not fit.

    Not for input: a third decimal place is a `ValueError` in `exact_money`, and rounded here by
    nobody's wish, so arithmetic that can make one says `rounded`.
    """
    if isinstance(value, int):
        value = Decimal(value)
    if not value.is_finite() or abs(value) > MONEY_MAX:
        raise Refused("amount_out_of_range")
    return Money(value.quantize(_CENT))


def rounded(value: Decimal) -> Money:
    """``value`` rounded half up to two places, as tax is. Raises `Refused` (amount_out_of_range)."""
    if not value.is_finite() or abs(value) > MONEY_MAX:
        raise Refused("amount_out_of_range")
    return Money(value.quantize(_CENT, ROUND_HALF_UP))


def exact_money(value: Decimal) -> Money:
    """A caller's amount.

    Raises `ValueError` when no `Decimal`, not finite, negative, too large or finer than 0.01.
    """
    _decimal(value)
    if not value.is_finite() or not 0 <= value <= MONEY_MAX:
        raise ValueError("must be an amount from 0 to 1,000,000,000,000")
    cents = value.quantize(_CENT)
    if cents != value:
        raise ValueError("must have at most two decimal places")
    return Money(abs(cents))  # -0.00 is an amount too, and is not shown


def exact_rate(value: Decimal) -> Rate:
    """A caller's tax rate. Raises `ValueError` when no `Decimal` of 0 to 0.3 with at most four places."""
    _decimal(value)
    if not value.is_finite() or not 0 <= value <= RATE_MAX:
        raise ValueError("must be a rate from 0 to 0.3")
    fine = value.quantize(_BASIS_POINT)
    if fine != value:
        raise ValueError("must have at most four decimal places")
    return Rate(abs(fine))


def _decimal(value: object) -> None:
    if not isinstance(value, Decimal):
        raise ValueError("must be a Decimal")


# Nothing that ends an address in a header, no control characters, and nothing else that cannot be seen.
_LOCAL: Final = re.compile(
    r"[^\s@<>\"(),:;\\\[\]\x00-\x1f\x7f-\x9f\xad\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]{1,64}"
)
_LABEL_MAX: Final = 63
_SLUG: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def canonical_email(value: str) -> str:
    """The one form in which an address is stored and compared: NFKC, trimmed, lower case, NFKC again.

    Lower case can be in need of it: what is canonical stays as it is. Raises `Invalid`.
    """
    email = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", value).strip().lower())
    local, _, domain = email.rpartition("@")
    labels = domain.split(".")
    # "=?" begins an encoded word (RFC 2047), which is something else where it is read.
    fits = len(email) <= 254 and _LOCAL.fullmatch(local) and "=?" not in local and len(labels) > 1
    if not fits or not all(map(_is_label, labels)):
        raise Invalid("invalid_request", fields={"email": "is not an email address"})
    return email


def _is_label(text: str) -> bool:
    """Whether this is a part of a host's name (RFC 1123, 2.1), in any script (RFC 5890, 2.3.2.1)."""
    if not 0 < len(text) <= _LABEL_MAX or "-" in (text[0], text[-1]):
        return False
    if text.isascii():
        return text.replace("-", "").isalnum()
    kinds = [unicodedata.category(one) for one in text.replace("-", "")]
    return kinds[0][0] != "M" and all(kind[0] in "LM" or kind == "Nd" for kind in kinds)


def canonical_sku(value: str | None) -> str | None:
    """A SKU as kept and shown: NFC and trimmed; None when nothing is left."""
    if value is None:
        return None
    return unicodedata.normalize("NFC", value).strip() or None


def sku_key(sku: str | None) -> str | None:
    """What two SKUs are compared by: they are the same when they differ in case alone."""
    return None if sku is None else unicodedata.normalize("NFC", sku.casefold())


def folded(*parts: str | None) -> str:
    """Text to search in, and to search for, ignoring case."""
    return unicodedata.normalize("NFC", "\n".join(part or "" for part in parts).casefold())


def slug_of(name: str) -> str:
    """``Acme Distributors`` -> ``acme-distributors``; ``company`` when no letter or digit survives."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", ascii_name.lower()).strip("-")[:60].strip("-") or "company"


def canonical_slug(value: str) -> str:
    """A slug as given by a person. Raises `Invalid`."""
    slug = value.strip().lower()
    if len(slug) > 60 or not _SLUG.fullmatch(slug):
        raise Invalid("invalid_request", fields={"slug": "must be letters, digits and single hyphens"})
    return slug


def currency(code: str) -> str:
    """An ISO 4217 code. Raises `Invalid`."""
    if code not in _CURRENCIES:
        raise Invalid("invalid_request", fields={"currency": "is not an ISO 4217 code"})
    return code


def time_zone(name: str) -> str:
    """A name of the IANA time zone database. Raises `Invalid`."""
    if name not in _time_zones():
        raise Invalid("invalid_request", fields={"timeZone": "is not an IANA time zone"})
    return name


@lru_cache(maxsize=1)
def _time_zones() -> frozenset[str]:
    return frozenset(available_timezones())


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where goods go. ``country`` is ISO 3166-1 alpha-2. One of a customer's is its default."""

    id: AddressId
    name: str = ""
    line1: str
    line2: str = ""
    city: str
    region: str = ""
    postal_code: str = ""
    country: str
    phone: str = ""
    is_default: bool = False

    def __post_init__(self) -> None:
        if self.country not in _COUNTRIES:
            raise Invalid("invalid_request", fields={"country": "is not an ISO 3166-1 alpha-2 code"})


class Secret(str):
    """A string that no log, event, error or repr may show; a door hands it over once, by name."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """A secret of a text, or of a secret: `str` of one would be what it shows."""
        return super().__new__(cls, "".join(text))

    def __repr__(self) -> str:
        return "Secret('...')"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def reveal(self) -> str:
        """The text itself."""
        return str.__str__(self)


_CURRENCIES: Final = frozenset(
    """AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD
    CDF CHF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF
    GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK
    LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD
    OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN
    SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VED VES VND VUV WST XAF XCD XOF
    XPF YER ZAR ZMW ZWG""".split()
)

_COUNTRIES: Final = frozenset(
    """AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT
    BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH
    ER ES ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT
    HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS
    LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI
    NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG
    SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG
    UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW""".split()
)


def limited_as(address: str) -> str:
    """What a limit counts an address as: one customer of a provider has the whole /64 of IPv6 (RFC 6177)."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if found.version == 4:
        return str(found)
    mapped = getattr(found, "ipv4_mapped", None)
    return str(mapped) if mapped else str(IPv6Network((int(found) >> 64 << 64, 64)))
