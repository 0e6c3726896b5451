"""Where webhooks do not go: one form for a URL, and a table of networks.

The table is ours. What a library calls global differs between its versions, and says yes to addresses
that carry another one inside. `canonical_url` is asked when a URL is saved and when it is sent to,
`refusal` again for the very address that a connection is about to be made to.
"""

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final
from urllib.parse import quote

from distribu.domain.errors import Refused
from distribu.domain.webhooks import URL_MAX

BLOCKED: Final = {
    # IPv4: all of IANA's special-purpose registry, also what it calls globally reachable (anycast
    # services, at which nobody listens for webhooks), then what is no host's.
    "0.0.0.0/8": "this network (RFC 791)",
    "10.0.0.0/8": "private use (RFC 1918)",
    "100.64.0.0/10": "shared by carriers, and metadata of some clouds (RFC 6598)",
    "127.0.0.0/8": "this machine (RFC 1122)",
    "168.63.129.16/32": "a cloud's own service (Azure's virtual address of every host)",
    "169.254.0.0/16": "link-local, and metadata of clouds (RFC 3927)",
    "172.16.0.0/12": "private use (RFC 1918)",
    "192.0.0.0/24": "protocol assignments, and metadata of some clouds (RFC 6890)",
    "192.0.2.0/24": "documentation (RFC 5737)",
    "192.31.196.0/24": "anycast of AS112 (RFC 7535)",
    "192.52.193.0/24": "anycast of AMT (RFC 7450)",
    "192.88.99.0/24": "relays of 6to4 (RFC 7526)",
    "192.168.0.0/16": "private use (RFC 1918)",
    "192.175.48.0/24": "anycast of AS112 (RFC 7534)",
    "198.18.0.0/15": "benchmarking (RFC 2544)",
    "198.51.100.0/24": "documentation (RFC 5737)",
    "203.0.113.0/24": "documentation (RFC 5737)",
    "224.0.0.0/4": "multicast (RFC 5771)",
    "255.255.255.255/32": "broadcast (RFC 919)",
    "240.0.0.0/4": "reserved (RFC 1112)",
    # IPv6: what carries another address. Who unwraps it, and where that leads, is decided by a machine
    # we do not see; the IPv4 address inside can be had as itself.
    "::/128": "no address (RFC 4291)",
    "::1/128": "this machine (RFC 4291)",
    "::ffff:0:0/96": "an IPv4 address, mapped (RFC 4291)",
    "::ffff:0:0:0/96": "an IPv4 address, translated (RFC 2765)",
    "::/96": "an IPv4 address, in the old form (RFC 4291)",
    "64:ff9b::/96": "an IPv4 address, behind NAT64 (RFC 6052)",
    "64:ff9b:1::/48": "an IPv4 address, behind a local NAT64 (RFC 8215)",
    "2001::/32": "an IPv4 address, behind Teredo (RFC 4380)",
    "2002::/16": "an IPv4 address, behind 6to4 (RFC 3056)",
    # The special ones inside 2000::/3.
    "2001::/23": "protocol assignments (RFC 2928)",
    "2001:db8::/32": "documentation (RFC 3849)",
    "2620:4f:8000::/48": "anycast of AS112 (RFC 7534)",
    "3ffe::/16": "the former test network (RFC 3701)",
    "3fff::/20": "documentation (RFC 9637)",
    # Those outside of it that have a name.
    "100::/64": "discarded (RFC 6666)",
    "100:0:0:1::/64": "a dummy (RFC 9780)",
    "5f00::/16": "segment routing (RFC 9602)",
    "fc00::/7": "private use, and metadata of clouds (RFC 4193)",
    "fe80::/10": "link-local (RFC 4291)",
    "fec0::/10": "site-local (RFC 3879)",
    "ff00::/8": "multicast (RFC 4291)",
    # Only 2000::/3 is given out (IANA's IPv6 address space): the rest of it all.
    "::/3": "not given out (RFC 4291)",
    "4000::/2": "not given out (RFC 4291)",
    "8000::/1": "not given out (RFC 4291)",
}
"""Network and why, the narrower before the wider: the first that fits gives the reason."""

BLOCKED_NAMES: Final = {
    "localhost": "this machine (RFC 6761)",
    "localdomain": "this machine",
    "local": "the local network (RFC 6762)",
    "internal": "private use, and metadata of clouds (reserved by ICANN)",
    "home.arpa": "the local network (RFC 8375)",
    "onion": "another network (RFC 7686)",
    "corp": "private use (RFC 6762, appendix G)",
    "home": "private use (RFC 6762, appendix G)",
    "intranet": "private use (RFC 6762, appendix G)",
    "lan": "private use (RFC 6762, appendix G)",
    "private": "private use (RFC 6762, appendix G)",
    "metadata.goog": "metadata of a cloud",
}
"""Names that lead inside, with everything below them. An answer of DNS is looked at all the same."""

HOST_MAX: Final = 253
PORTS_FROM: Final = 1024
"""The lowest port beside 443: those between belong to services that speak something else."""

_NETWORKS: Final = tuple((ip_network(network), why) for network, why in BLOCKED.items())
_LOOPBACK: Final = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
_ISATAP: Final = 0x5EFE
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)(.*)")
_AUTHORITY = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::(.*))?")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_FOUR = re.compile(r"(0|[1-9][0-9]{0,2})(\.(0|[1-9][0-9]{0,2})){3}")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_AS_IT_IS = "%/?:@!$&'()*+,;=-._~"


def refusal(address: str, *, loopback: bool) -> str | None:
    """Why no connection is made to an address; None when it may be. ``loopback`` opens 127/8 and ::1."""
    try:
        given = ip_address(address)
    except ValueError:
        return "not an address"
    if "%" in address:
        return "an address of one network alone (RFC 4007)"
    if loopback and is_loopback(given):
        return None
    for network, why in _NETWORKS:
        if given in network:
            return why
    if given.version == 6 and (int(given) >> 32) & 0xFCFF_FFFF == _ISATAP:
        return "an IPv4 address, behind ISATAP (RFC 5214)"
    return None


def is_loopback(address: IPv4Address | IPv6Address) -> bool:
    """Whether it is this machine, as such: no other address that may lead here counts."""
    return any(address in network for network in _LOOPBACK)


def is_local_name(name: str) -> bool:
    """Whether a canonical name is this machine's by RFC 6761, so that nobody has to be asked."""
    return name == "localhost" or name.endswith(".localhost")


@lru_cache(maxsize=4096)
def canonical_url(url: str, *, loopback: bool) -> str:
    """The one form of a URL that webhooks may go to; it is what is connected to, so it is what is sent to.

    https, to a name or a public address, on port 443 or from 1024 up; with ``loopback`` also http and
    https to this machine, on any port. Raises `Refused` (webhook_url_refused) for anything else, also
    for what some program would understand and another would understand differently.
    """
    if len(url) > URL_MAX:
        raise _no(f"The URL may not be longer than {URL_MAX} characters.")
    if any(ord(char) <= 32 or 127 <= ord(char) <= 160 or char == "\\" for char in url):
        raise _no("The URL may not hold spaces, control characters or backslashes.")
    if any(0xD800 <= ord(char) <= 0xDFFF for char in url):
        raise _no("The URL holds half a character.")
    if (parts := _URL.fullmatch(url)) is None:
        raise _no("This is not a URL.")
    scheme, authority, rest = parts[1].lower(), parts[2], parts[3]
    if "#" in rest:
        raise _no("The URL may not hold a fragment (#): nobody would be sent it.")
    if "@" in authority:
        raise _no("The URL may not carry a user or password.")
    if (where := _AUTHORITY.fullmatch(authority)) is None or not where[1]:
        raise _no("The URL needs a host.")
    host, local = _host(where[1], loopback=loopback)
    if scheme != "https" and not (scheme == "http" and local):
        raise _no("Webhooks go out by https.")
    port = _port(where[2], scheme, local=local)
    path, _, query = rest.partition("?")
    asked = f"{path or '/'}?{query}" if query else path or "/"
    return f"{scheme}://{host}{port}{quote(asked, safe=_AS_IT_IS)}"


def _host(given: str, *, loopback: bool) -> tuple[str, bool]:
    """The host in its one form, and whether it is this machine."""
    if not given.isascii():
        raise _no("The host has to be in ASCII: an international name is written as xn--.")
    host = given.lower()
    if host.startswith("["):
        if not re.fullmatch(r"\[[0-9a-f:.]*\]", host):
            raise _no("An IPv6 address is hexadecimal digits and colons in brackets, without a zone.")
        try:
            return _address(IPv6Address(host[1:-1]), loopback=loopback)
        except ValueError:
            raise _no("This is not an IPv6 address.") from None
    if _NUMBER.fullmatch(host.removesuffix(".").rpartition(".")[2]):
        if not _FOUR.fullmatch(host):
            raise _no("An IPv4 address is four decimal numbers with dots between, and nothing else.")
        try:
            return _address(IPv4Address(host), loopback=loopback)
        except ValueError:
            raise _no("This is not an IPv4 address.") from None
    return _name(host.removesuffix("."), loopback=loopback)


def _address(address: IPv4Address | IPv6Address, *, loopback: bool) -> tuple[str, bool]:
    if why := refusal(address.compressed, loopback=loopback):
        raise _no(f"Webhooks do not go there: {why}.")
    text = address.compressed if address.version == 4 else f"[{address.compressed}]"
    return text, is_loopback(address)


def _name(name: str, *, loopback: bool) -> tuple[str, bool]:
    if len(name) > HOST_MAX or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise _no("The host is not a name: letters, digits and hyphens, 63 between dots and 253 in all.")
    if loopback and is_local_name(name):
        return name, True
    for blocked, why in BLOCKED_NAMES.items():
        if name == blocked or name.endswith("." + blocked):
            raise _no(f"Webhooks do not go there: {why}.")
    if "." not in name:
        raise _no("The host needs a dot: a name without one leads to another machine in each network.")
    return name, False


def _port(given: str | None, scheme: str, *, local: bool) -> str:
    """Its text with the colon; nothing for the scheme's own."""
    if given is None:
        return ""
    if not (_PORT.fullmatch(given) and int(given) <= 65_535):
        raise _no("The port is a number from 1 to 65535.")
    port = int(given)
    if not (local or port == 443 or port >= PORTS_FROM):
        raise _no(f"Webhooks go to port 443, or to one from {PORTS_FROM} up.")
    return "" if port == (443 if scheme == "https" else 80) else f":{port}"


def _no(why: str) -> Refused:
    return Refused("webhook_url_refused", why)
