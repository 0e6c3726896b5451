"""Where webhooks go and where not: every case, with no socket connected.

What a connection would be made to is seen where the system is asked for it. The same cases, with
packets, are in `tests/integration/test_ssrf.py`.
"""

import asyncio
import socket
import threading
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, collapse_addresses, ip_network
from itertools import chain
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings, strategies as st
from yarl import URL

from distribu import Refused
from distribu.adapters import hooks as outgoing
from distribu.adapters.guard import BLOCKED, canonical_url, refusal
from distribu.adapters.hooks import CheckedResolver, HttpHooks
from distribu.domain.webhooks import ATTEMPT_TIMEOUT_S
from tests.integration.ssrf_corpus import (
    BLOCKED_ADDRESSES,
    CASES,
    DEVELOPMENT,
    DOMAIN,
    PUBLIC_ADDRESSES,
    Case,
    End,
    literal,
)

PUBLIC, INSIDE = "93.184.216.34", "10.0.0.1"


def url_of(case: Case) -> str:
    return ascii(case.url)[1:70]


class Connections(list[str]):
    """The addresses that the system was asked to connect a stream to; each is refused by its peer."""

    def connect(self, sock: socket.socket, address: Any) -> None:
        if sock.type == socket.SOCK_STREAM:
            self.append(address[0])
            raise ConnectionRefusedError
        raise OSError("no route: what only asks whether an address is this machine's")


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> Connections:
    seen = Connections()
    monkeypatch.setattr(socket.socket, "connect", lambda sock, address: seen.connect(sock, address))
    return seen


class Dns:
    """What DNS says, in turn; and how often it was asked."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, name: str) -> Sequence[str]:
        self.asked.append(name)
        return self.answers[min(len(self.asked), len(self.answers)) - 1]


async def sent(url: str, look_up: Any, *, production: bool = True) -> str:
    """What was the matter with a delivery; these have no other end here."""
    hooks = HttpHooks(production=production, look_up=look_up)
    reply = await hooks.post(url, headers={}, body=b"{}")
    await hooks.close()
    assert reply.status is None
    assert 0 < len(reply.error) <= 500
    return reply.error


# --- the corpus ------------------------------------------------------------------------------


def test_the_corpus_is_of_a_size() -> None:
    assert len({(case.url, case.answers) for case in CASES}) == len(CASES) >= 500
    for end in End:
        assert sum(case.end is end for case in CASES) > 80


@pytest.mark.parametrize("case", CASES, ids=url_of)
def test_a_url_is_refused_or_has_one_form(case: Case) -> None:
    if case.end is End.REFUSED_AT_SAVE:
        with pytest.raises(Refused) as no:
            canonical_url(case.url, loopback=False)
        assert no.value.code == "webhook_url_refused"
        assert no.value.message.endswith(".")
        return
    canonical = canonical_url(case.url, loopback=False)
    assert canonical == (case.canonical or case.url)
    assert canonical_url(canonical, loopback=False) == canonical


@pytest.mark.parametrize("case", CASES, ids=url_of)
async def test_connections_go_to_public_addresses_alone(case: Case, connections: Connections) -> None:
    dns = Dns(case.answers)
    why = await sent(case.url, dns)
    assert sorted(connections) == sorted(case.reached)
    assert len(dns.asked) == (case.end is not End.REFUSED_AT_SAVE and bool(not case.reached or case.answers))
    if case.end is not End.ALLOWED:
        assert "Error" not in why, "it is explained in words"
        # Whoever registers a webhook need not know what a name leads to in the network of this machine.
        assert not any(address in why for address in case.answers)


@pytest.mark.parametrize(("url", "admitted"), DEVELOPMENT.items())
async def test_development_opens_loopback_and_nothing_else(
    url: str, admitted: bool, connections: Connections
) -> None:
    await sent(url, Dns([PUBLIC]), production=False)
    assert bool(connections) == admitted
    assert {*connections} <= {"127.0.0.1", "::1", "127.8.9.10", PUBLIC}
    del connections[:]
    await sent(url, Dns([PUBLIC]), production=True)
    assert bool(connections) == (url == f"https://a.{DOMAIN}/")


@pytest.mark.parametrize("inside", ["127.0.0.1", "::1", INSIDE, "::ffff:127.0.0.1", "0.0.0.0"])
async def test_a_name_that_dns_leads_to_loopback_is_refused_in_development_too(
    inside: str, connections: Connections
) -> None:
    """Nobody's name but localhost opens a developer's machine."""
    await sent(f"https://a.{DOMAIN}/", Dns([inside]), production=False)
    assert connections == []


# --- each wall alone -------------------------------------------------------------------------


@pytest.mark.parametrize("address", BLOCKED_ADDRESSES)
async def test_the_socket_is_refused_though_the_url_was_let_through(
    address: str, connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No resolver is asked about an address in a URL."""
    monkeypatch.setattr(outgoing, "canonical_url", lambda url, *, loopback: url)
    dns = Dns([PUBLIC])
    why = await sent(f"https://{literal(address)}/", dns)
    assert (connections, dns.asked) == ([], [])
    assert why.startswith("this is where webhooks do not go: ")


@pytest.mark.parametrize("address", BLOCKED_ADDRESSES)
async def test_the_socket_is_refused_though_the_resolver_lets_through(
    address: str, connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolve(self: Any, host: str, port: int = 0, family: Any = None) -> Any:
        return [outgoing._resolved(host, one, port) for one in (address, "169.254.169.254")]

    monkeypatch.setattr(CheckedResolver, "resolve", resolve)
    await sent(f"https://a.{DOMAIN}/", Dns([]))
    assert connections == []


@pytest.mark.parametrize("address", BLOCKED_ADDRESSES)
async def test_the_resolver_refuses_though_the_socket_lets_through(
    address: str, connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HttpHooks, "guarded_socket", lambda _, info: socket.socket(*info[:3]))
    why = await sent(f"https://a.{DOMAIN}/", Dns([address]))
    assert connections == []
    assert why.startswith(f"a.{DOMAIN} is where webhooks do not go: ")


async def test_an_address_of_this_machine_is_refused(
    connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A public one, at which this machine would be talking to itself."""
    monkeypatch.setattr(outgoing, "_is_own", lambda family, address: address[0] == PUBLIC)
    for url in (f"https://{PUBLIC}/", f"https://a.{DOMAIN}/"):
        why = await sent(url, Dns([PUBLIC]))
        assert why == "this is where webhooks do not go: an address of this machine"
    assert connections == []


# --- DNS -------------------------------------------------------------------------------------


async def test_what_was_checked_is_what_is_connected_to(connections: Connections) -> None:
    """DNS that says something public first and something inside from then on is asked once."""
    dns = Dns([PUBLIC], [INSIDE])
    await sent(f"https://a.{DOMAIN}/", dns)
    assert (connections, len(dns.asked)) == ([PUBLIC], 1)
    why = await sent(f"https://a.{DOMAIN}/", dns)
    assert (connections, len(dns.asked)) == ([PUBLIC], 2)
    assert "private use (RFC 1918)" in why


async def test_a_name_that_is_looked_up_for_too_long_is_given_up_and_not_asked_for_twice(
    connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "LOOKUP_TIMEOUT_S", 0.05)
    monkeypatch.setattr(outgoing, "ATTEMPT_TIMEOUT_S", 8)
    monkeypatch.setattr(outgoing, "LOOKUPS_MAX", 2)
    go_on, asked = threading.Event(), []

    def silent(name: str) -> list[str]:
        asked.append(name)
        go_on.wait(30)
        return [PUBLIC]

    hooks = HttpHooks(production=True, look_up=silent)

    async def error(name: str) -> str:
        return (await hooks.post(f"https://{name}.{DOMAIN}/", headers={}, body=b"{}")).error

    for name in ("a", "a", "b"):
        assert await error(name) == f"DNS did not answer for {name}.{DOMAIN} within 0.05 s"
    assert asked == [f"a.{DOMAIN}", f"b.{DOMAIN}"]
    assert await error("c") == f"DNS did not answer for c.{DOMAIN} within 0.05 s"
    assert len(asked) == 2, "two is the most at once"
    monkeypatch.setattr(outgoing, "LOOKUP_TIMEOUT_S", 30)
    waiting = asyncio.create_task(error("c"))
    await asyncio.sleep(0.05)
    assert len(asked) == 2
    go_on.set()
    assert "ConnectorError" in await waiting, "it had its turn when another was through"
    assert connections == [PUBLIC]
    await hooks.close()


async def test_dns_has_less_time_than_an_attempt() -> None:
    assert 2 * outgoing.LOOKUP_TIMEOUT_S < ATTEMPT_TIMEOUT_S


@pytest.mark.parametrize(
    "wrong",
    [
        socket.gaierror(-2, "Name or service not known"),
        OSError("nobody there"),
        UnicodeError("label too long"),
    ],
)
async def test_a_name_that_cannot_be_looked_up_is_explained(wrong: Exception) -> None:
    def fails(name: str) -> list[str]:
        raise wrong

    why = await sent(f"https://a.{DOMAIN}/", fails)
    assert why.startswith(f"DNS knows no address of a.{DOMAIN}: ")


async def test_an_answer_that_is_no_address_is_refused(connections: Connections) -> None:
    for answer in ("", "a.example", "1.2.3", "0x7f.1", "2606:4700::1%eth0", "93.184.216.34 "):
        await sent(f"https://a.{DOMAIN}/", Dns([answer]))
    assert connections == []


async def test_names_are_looked_up_as_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a dot at the end: a search list would make another name of it."""
    asked = []

    def getaddrinfo(host: str, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        return [(2, 1, 6, "", (PUBLIC, 0)), (2, 1, 6, "", (PUBLIC, 0)), (10, 1, 6, "", ("fd00::1", 0, 0, 0))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert outgoing.addresses_of("a.example") == [PUBLIC, "fd00::1"]
    assert asked == ["a.example."]


async def test_proxies_of_the_environment_are_ignored(
    connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://11.11.11.11:3128")
    await sent(f"https://a.{DOMAIN}/", Dns([PUBLIC]))
    await sent(f"https://{PUBLIC}/", Dns([PUBLIC]))
    assert connections == [PUBLIC, PUBLIC]


# --- the table -------------------------------------------------------------------------------


@pytest.mark.parametrize("network", BLOCKED)
def test_a_network_is_blocked_from_its_first_address_to_its_last(network: str) -> None:
    whole = ip_network(network)
    some = (whole[0], whole[-1], whole[whole.num_addresses // 2])
    reasons = {refusal(str(address), loopback=False) for address in some}
    assert None not in reasons
    assert BLOCKED[network] in reasons


def test_every_network_says_why() -> None:
    assert all(why for why in BLOCKED.values())
    assert all(refusal(address, loopback=False) for address in BLOCKED_ADDRESSES)
    assert not any(refusal(address, loopback=False) for address in PUBLIC_ADDRESSES)


def test_of_ipv6_only_what_is_given_out_is_open() -> None:
    given_out = IPv6Network("2000::/3")
    all_there_is = IPv6Network("::/0")
    blocked = (ip_network(network) for network in BLOCKED if ":" in network)
    outside = [it for it in blocked if isinstance(it, IPv6Network) and not it.subnet_of(given_out)]
    assert set(collapse_addresses(outside)) == set(
        collapse_addresses(all_there_is.address_exclude(given_out))
    )


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=1000, deadline=None)
def test_python_calls_nothing_private_that_is_open(number: int) -> None:
    address = IPv4Address(number)
    why = refusal(str(address), loopback=False)
    if not address.is_global or address.is_multicast or address.is_reserved:
        assert why
    elif why:
        assert "anycast" in why or "6to4" in why or "cloud" in why


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**128 - 1))
@settings(max_examples=500, deadline=None)
def test_an_address_that_carries_another_is_refused_whichever(inside: int, number: int) -> None:
    free = number & ~0xFFFF_FFFF
    carrying = [
        inside,
        0xFFFF << 32 | inside,
        0xFFFF << 48 | inside,
        0x0064_FF9B << 96 | inside,
        0x0064_FF9B_0001 << 80 | number & (1 << 80) - 1,
        0x2001_0000 << 96 | number & (1 << 96) - 1,
        0x2002 << 112 | inside << 80 | number & (1 << 80) - 1,
        0x2606_4700 << 96 | free & (1 << 32) - 1 << 64 | 0x0000_5EFE << 32 | inside,
        0x2606_4700 << 96 | 0x0200_5EFE << 32 | inside,
    ]
    for one in carrying:
        assert refusal(str(IPv6Address(one)), loopback=False)
        assert one == 1 or refusal(str(IPv6Address(one)), loopback=True)


# --- any text --------------------------------------------------------------------------------

PIECES = list(
    chain(
        ("https", "http", "://", ":", "/", "//", "?", "#", "@", "[", "]", ".", "..", "%", "%2e", "%00", "\\"),
        ("127.0.0.1", "10.0.0.1", "0x7f", "1", "::1", "fe80", "localhost", "internal", "erp", "example", "-"),
        (
            "443",
            "22",
            "8443",
            "。",
            "ß",
            "\N{LATIN SMALL LETTER LONG S}",
            "\N{KELVIN SIGN}",
            "\u2028",
            "\ud800",
            " ",
            "\t",
            "\n",
            "\0",
            "_",
            "~",
        ),
    )
)


@given(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(PIECES), max_size=14).map("".join)))
@settings(max_examples=1500, deadline=None)
def test_any_text_is_refused_or_means_the_same_to_everybody(text: str) -> None:
    for url in (text, "https://" + text, "https://erp.example" + text, "https://erp.example/" + text):
        try:
            canonical = canonical_url(url, loopback=False)
        except Refused:
            continue
        assert canonical.isascii()
        assert canonical_url(canonical, loopback=False) == canonical
        parsed, plain = URL(canonical, encoded=True), urlsplit(canonical)
        assert str(parsed) == canonical
        assert (parsed.raw_host, parsed.port) == (plain.hostname, plain.port or 443)
        assert parsed.scheme == plain.scheme == "https"
        assert (parsed.raw_fragment, parsed.user, parsed.password) == ("", None, None)
        assert parsed.port is not None
        assert parsed.port == 443 or parsed.port >= 1024
