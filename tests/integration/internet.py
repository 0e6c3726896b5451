"""An internet of our own, in a network namespace beside that of a sender: ``internet`` and ``sender``.

``python -m tests.integration.internet ROLE FOLDER`` inside either; the test sets both up. Every address
there is belongs to the internet's machine, also the blocked ones: a packet to one of them is answered, and
seen. What the sender's machine sends is read off all of its interfaces, loopback included.
"""

import asyncio
import datetime
import json
import os
import socket
import ssl
import struct
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from yarl import URL

from distribu.adapters import hooks as outgoing
from distribu.adapters.guard import canonical_url
from distribu.adapters.hooks import HttpHooks
from distribu.domain.errors import Refused
from tests.integration.ssrf_corpus import BLOCKED_ADDRESSES, CASES, DOMAIN, ODD_URLS, End, literal

DNS_SERVER = "9.9.9.9"
PROXY = "10.99.99.99"
OWN = ("20.0.0.2", "2a0a::2")
PUBLIC, INSIDE = "93.184.216.34", "10.0.0.1"
REBOUND = {
    f"rebound-{where}.{DOMAIN}": (PUBLIC, inside)
    for where, inside in {
        "private": INSIDE,
        "metadata": "169.254.169.254",
        "loopback": "127.0.0.1",
        "pooled": INSIDE,
        "redirect": PUBLIC,
    }.items()
}
"""Names of which DNS says something public when first asked, and something else from then on."""
POOLED, REDIRECTING = f"rebound-pooled.{DOMAIN}", f"rebound-redirect.{DOMAIN}"
OWN_NAME = f"own.{DOMAIN}"


def zone() -> dict[str, list[tuple[str, ...]]]:
    """What DNS says of each name, in turn; the last is said for ever."""
    names: dict[str, list[tuple[str, ...]]] = {}
    for case in CASES:
        if case.end is not End.REFUSED_AT_SAVE:
            host = URL(canonical_url(case.url, loopback=False), encoded=True).raw_host
            assert host
            if "." in host and not host.replace(".", "").isdigit():
                names[host] = [case.answers]
    names |= {name: [(first,), (then,)] for name, (first, then) in REBOUND.items()}
    return names | {OWN_NAME: [OWN]}


# --- the internet ----------------------------------------------------------------------------


class Dns(asyncio.DatagramProtocol):
    """Answers for the zone, over UDP, with a life of 0 s."""

    def __init__(self) -> None:
        self.zone = zone()
        self.asked: Counter[str] = Counter()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        labels, at = [], 12
        while size := data[at]:
            labels.append(data[at + 1 : at + 1 + size].decode())
            at += 1 + size
        name, question = ".".join(labels).lower(), data[12 : at + 5]
        (kind,) = struct.unpack("!H", data[at + 1 : at + 3])
        turns = self.zone.get(name)
        found = turns[min(self.asked[f"{name} {kind}"], len(turns) - 1)] if turns else ()
        self.asked[f"{name} {kind}"] += 1
        records = [ip_address(one).packed for one in found if (28 if ":" in one else 1) == kind]
        head = data[:2] + struct.pack("!5H", 0x8180 if turns else 0x8183, 1, len(records), 0, 0)
        body = (b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 0, len(one)) + one for one in records)
        self.transport.sendto(head + question + b"".join(body), addr)


def certificates(folder: Path) -> None:
    """An authority, and a certificate by it for every name and public address of the corpus."""
    now = datetime.datetime.now(datetime.UTC)
    reached = {address for case in CASES for address in case.reached}
    alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in zone()]
    alternatives += [x509.IPAddress(ip_address(one)) for one in sorted({*reached, *BLOCKED_ADDRESSES})]
    signer = key = ec.generate_private_key(ec.SECP256R1())
    authority = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Authority of a test")])
    for file, ca in (("authority", True), ("server", False)):
        key = signer if ca else ec.generate_private_key(ec.SECP256R1())
        subject = authority if ca else x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, DOMAIN)])
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(authority)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
            )
            .add_extension(x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False), True)
        )
        if not ca:
            made = made.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            made = made.add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
            )
        text = made.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        if not ca:
            text += key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        (folder / f"{file}.pem").write_bytes(text)


async def internet(folder: Path) -> None:
    """DNS, and a receiver on every address that says how it was addressed. Until somebody closes stdin."""
    loop, dns = asyncio.get_running_loop(), Dns()
    await loop.create_datagram_endpoint(lambda: dns, local_addr=(DNS_SERVER, 53))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    names: dict[Any, str | None] = {}
    context.sni_callback = lambda tls, name, _: names.__setitem__(tls, name)
    connections = iter(range(1_000_000))

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = next(connections)
        tls = writer.get_extra_info("ssl_object")
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                line, *fields = head.split("\r\n")
                headers = dict(one.lower().split(": ", 1) for one in fields if one)
                await reader.readexactly(int(headers["content-length"]))
                answer = {
                    "line": line,
                    "host": headers["host"],
                    "sni": names.get(tls),
                    "local": writer.get_extra_info("sockname")[0].removeprefix("::ffff:"),
                    "connection": number,
                }
                body = json.dumps(answer).encode()
                status = "307 Elsewhere" if headers["host"] == REDIRECTING else "200 OK"
                to = "http://169.254.169.254/latest/meta-data/"
                writer.write(
                    f"HTTP/1.1 {status}\r\nlocation: {to}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
                )
                writer.write(body)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    ports = {URL(case.canonical or case.url).port for case in CASES if case.reached}
    for port in ports:
        await asyncio.start_server(receive, ["0.0.0.0", "::"], port, ssl=context, backlog=512)
    for port in (80, 3128):  # a redirect and a proxy would be answered, and seen
        await asyncio.start_server(lambda _, writer: writer.close(), ["0.0.0.0", "::"], port)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    (folder / "asked.json").write_text(json.dumps(dns.asked))


# --- the sender ------------------------------------------------------------------------------


class Packet(NamedTuple):
    """Where something was sent. ``protocol`` 6 is TCP, 17 UDP."""

    to: str
    protocol: int
    port: int


class Sent:
    """Everything that leaves this network namespace, or stays on its loopback.

    What the kernel says to its neighbours of its own accord is left out: ARP, ICMPv6 and IGMP.
    """

    def __init__(self) -> None:
        self.packets: Counter[Packet] = Counter()
        everything = 3
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(everything))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 20)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        outgoing_packet, v4, v6 = 4, 0x0800, 0x86DD
        while True:
            data, (_, kind, way, *_) = self._socket.recvfrom(2048)
            if way != outgoing_packet or kind not in (v4, v6):
                continue
            if kind == v4:
                to, protocol, rest = str(IPv4Address(data[16:20])), data[9], data[(data[0] & 15) * 4 :]
            else:
                to, protocol, rest = str(IPv6Address(data[24:40])), data[6], data[40:]
            if protocol in (58, 2, 0):
                continue
            port = struct.unpack("!H", rest[2:4])[0] if protocol in (6, 17) and len(rest) >= 4 else 0
            self.packets[Packet(to, protocol, port)] += 1
            if port == 9:  # the end: what was sent before it has been read
                return

    def all(self) -> Iterator[tuple[Packet, int]]:
        """Destination and number of packets. Ends the reading with a datagram of its own."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", (DNS_SERVER, 9))
        self._thread.join(20)
        lost = struct.unpack("II", self._socket.getsockopt(263, 6, 8))[1]  # SOL_PACKET, PACKET_STATISTICS
        assert not self._thread.is_alive()
        assert not lost, f"{lost} packets were not seen"
        yield from ((packet, count) for packet, count in self.packets.items() if packet.port != 9)


async def sender(folder: Path) -> None:
    """Try everything, and write down what came of it."""
    sent, turn = Sent(), asyncio.Semaphore(16)

    async def post(hooks: HttpHooks, url: str) -> dict[str, Any]:
        async with turn:
            reply = await hooks.post(url, headers={"X-Webhook-Id": "1"}, body=b"{}")
        answer = json.loads(reply.body) if reply.body else {}
        return {"status": reply.status, "error": reply.error, **answer}

    def admitted(hooks: HttpHooks, url: str) -> bool:
        try:
            hooks.admit(url)
        except Refused:
            return False
        return True

    hooks = HttpHooks(production=True)
    results: dict[str, Any] = {
        "admitted": [admitted(hooks, case.url) for case in CASES],
        "cases": await asyncio.gather(*(post(hooks, case.url) for case in CASES)),
        "own": [await post(hooks, f"https://{host}/") for host in (OWN_NAME, *map(literal, OWN))],
        "pooled": [await post(hooks, f"https://{POOLED}/") for _ in range(3)],
        "redirect": await post(hooks, f"https://{REDIRECTING}/"),
    }
    await hooks.close()
    results["rebound"] = {}
    for name in REBOUND:
        if name in (POOLED, REDIRECTING):
            continue
        tries = results["rebound"][name] = []
        for _ in range(3):  # each with nothing in a pool or a cache
            fresh = HttpHooks(production=True)
            tries.append(await post(fresh, f"https://{name}/"))
            await fresh.close()
    # As if they had been saved when less was known: the wall at the socket alone.
    vars(outgoing)["canonical_url"] = lambda url, *, loopback: url
    bare = HttpHooks(production=True)
    urls = [f"https://{literal(it)}/" for it in BLOCKED_ADDRESSES]
    urls += [url.replace("http://", "https://") for url in ODD_URLS if "ud800" not in ascii(url)]
    tried = await asyncio.gather(*(post(bare, url) for url in urls), return_exceptions=True)
    results["let through"] = [got if isinstance(got, dict) else {"status": None} for got in tried]
    await bare.close()
    results["packets"] = [[*packet, count] for packet, count in sent.all()]
    (folder / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    role = {"internet": internet, "sender": sender}[sys.argv[1]]
    os.umask(0o077)
    asyncio.run(role(Path(sys.argv[2])))
