"""Where a request comes from: the peer, or what a proxy of ours says of it."""

from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any, Final

from litestar import Request as HttpRequest

Network = IPv4Network | IPv6Network

HOPS_MAX: Final = 50
"""Hops of a forwarded header that are looked at, from our side."""


@lru_cache(maxsize=4096)
def is_one_of(address: str, networks: tuple[Network, ...]) -> bool:
    """Whether an address is in one of the networks; what is no address is in none."""
    try:
        found = ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return any((mapped or found) in network for network in networks)


def client_ip(http: HttpRequest[Any, Any, Any], trusted: tuple[Network, ...]) -> str | None:
    """The client's address, whole.

    It is the peer's, unless the peer is a proxy of ours: then ``X-Forwarded-For`` is walked from the
    right, past those that are proxies of ours too, to the first that is not. What stands left of it was
    written by the client, and is believed by nobody. A hop that is no address ends the walk.
    """
    peer = http.client.host if http.client else None
    if peer is None or not trusted or not is_one_of(peer, trusted):
        return peer
    values = [value for name, value in http.scope["headers"] if name == b"x-forwarded-for"]
    hops = b",".join(values).decode("latin-1").split(",")[-HOPS_MAX:]
    client = peer
    for hop in reversed(hops):
        address = _address(hop)
        if address is None:
            break
        client = address
        if not is_one_of(address, trusted):
            break
    return client


def _address(hop: str) -> str | None:
    """A hop as an address, without the port that some proxies write behind it."""
    text = hop.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ip_address(text))
    except ValueError:
        return None
