"""URLs and answers of DNS that somebody might try, and what has to become of each in production."""

# ruff: noqa: RUF001 - letters that look like others are what some of these are about

from enum import Enum
from typing import NamedTuple


class End(Enum):
    """Where a URL gets to."""

    REFUSED_AT_SAVE = "refused at save"
    REFUSED_AT_DELIVERY = "refused at delivery"
    ALLOWED = "allowed"


class Case(NamedTuple):
    """``answers`` is what DNS says of the name, ``reached`` where a connection may then go.

    ``canonical`` is the one form of the URL, where that is another.
    """

    url: str
    end: End
    answers: tuple[str, ...] = ()
    reached: tuple[str, ...] = ()
    canonical: str = ""


DOMAIN = "receiver.example"

BLOCKED_ADDRESSES = """
0.0.0.0 0.0.0.1 0.255.255.255
10.0.0.0 10.0.0.1 10.255.255.255
100.64.0.0 100.64.0.1 100.100.100.200 100.127.255.255
127.0.0.1 127.0.0.53 127.1.2.3 127.255.255.255
168.63.129.16
169.254.0.1 169.254.0.23 169.254.169.253 169.254.169.254 169.254.170.2 169.254.255.255
172.16.0.0 172.17.0.1 172.31.255.255
192.0.0.1 192.0.0.9 192.0.0.170 192.0.0.192 192.0.2.1 192.31.196.1 192.52.193.1 192.88.99.1
192.168.0.1 192.168.1.1 192.168.255.255 192.175.48.1
198.18.0.1 198.19.255.255 198.51.100.7 203.0.113.9
224.0.0.1 224.0.0.251 233.252.0.1 239.255.255.250
240.0.0.1 250.1.2.3 255.255.255.254 255.255.255.255
:: ::1 ::2 ::127.0.0.1 ::93.184.216.34 ::a9fe:a9fe
::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:93.184.216.34 ::ffff:0:127.0.0.1
64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 64:ff9b::5db8:d822 64:ff9b:1::a00:1 64:ff9b:1:ffff::5db8:d822
100::1 100:0:0:1::1 200::1 400::1 1000::1
2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:1::1 2001:2::1 2001:3::1 2001:4:112::1 2001:10::1
2001:20::1 2001:30::1 2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff
2001:db8::1 2001:db8:ffff:ffff:ffff:ffff:ffff:ffff 3fff::1 3ffe::1 2620:4f:8000::1
2002:7f00:1:: 2002:a00:1::1 2002:5db8:d822::1
2606:4700::5efe:a00:1 2606:4700::200:5efe:a9fe:a9fe 2606:4700::5efe:5db8:d822
4000::1 5f00::1 8000::1 c000::1 f000::1
fc00::1 fd00::1 fd00:ec2::254 fd20:ce::254 fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff
fe00::1 fe80::1 febf::1 fec0::1 feff::1 ff01::1 ff02::1 ff05::1:3 ff0e::1
""".split()

PUBLIC_ADDRESSES = """
1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 93.184.216.34 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1
168.63.129.15 168.63.129.17 169.253.255.255 169.255.0.1 172.15.255.255 172.32.0.1 191.255.255.255 192.0.1.1
192.0.3.1 192.167.255.255 192.169.0.1 198.17.255.255 198.20.0.1 198.51.99.1 203.0.112.1 203.0.114.1
223.255.255.254
2000::1 2001:200::1 2001:4860:4860::8888 2001:db7:ffff::1 2001:db9::1 2003::1 2606:4700:4700::1111
2606:4700::5eff:a00:1 2606:4700::5efd:a00:1 2a00:1450:4001:81b::200e 2620:4f:8001::1 3ffd::1 3fff:1000::1
""".split()

ODD_URLS = [
    # IPv4 as only some programs read it
    "https://0177.0.0.1/", "https://0177.0.0.01/", "https://00.0.0.0/", "https://010.0.0.1/",
    "https://0x7f.0.0.1/", "https://0x7f.1/", "https://0x7f000001/", "https://0X7F000001/",
    "https://0xa9.0xfe.0xa9.0xfe/", "https://0xa9fea9fe/", "https://2130706433/", "https://2852039166/",
    "https://017700000001/", "https://127.1/", "https://127.0.1/", "https://10.1/", "https://0/", "https://0x/",
    "https://127.0.0.1./", "https://127.0.0.1../", "https://93.184.216.34./", "https://093.184.216.34/",
    "https://256.1.1.1/", "https://1.2.3.4.5/", "https://1.2.3/", "https://4294967297/", "https://999.999.999.999/",
    "https://erp.example.0x1/", "https://erp.example.1/", "https://127.0.0.1%00.example/",
    "https://%31%32%37.0.0.1/", "https://127。0。0。1/", "https://127．0．0．1/", "https://１２７.０.０.１/",
    "https://①②⑦.⓪.⓪.①/", "https://१२७.०.०.१/", "https://169.254.169.254:443/latest/meta-data/",
    "https://[127.0.0.1]/", "https://[93.184.216.34]/",
    # IPv6 and brackets
    "https://[::ffff:7f00:1]/", "https://[0:0:0:0:0:ffff:127.0.0.1]/", "https://[0000::1]/",
    "https://[fe80::1%25eth0]/", "https://[fe80::1%eth0]/", "https://[::1%251]/", "https://[2606:4700::1%25lo]/",
    "https://[2606:4700::1111/", "https://2606:4700::1111/", "https://[]/", "https://[:]/", "https://[::1]::443/",
    "https://[v1.fe80]/", "https://[2606:4700::1111]x/", "https://x[2606:4700::1111]/", "https://[[::1]]/",
    "https://[2606:4700:0:0:0:0:0:0:1]/", "https://[12345::1]/", "https://[２606:4700::1111]/",
    # names that lead inside, and what is no name
    "https://localhost/", "https://LOCALHOST/", "https://localhost./", "https://a.localhost/",
    "https://localhost.localdomain/", "https://printer.local/", "https://db.internal/", "https://router.home.arpa/",
    "https://metadata.google.internal/computeMetadata/v1/", "https://METADATA.Google.Internal./",
    "https://metadata/", "https://metadata.goog/", "https://instance-data/",
    "https://kubernetes.default.svc.cluster.local/", "https://host.docker.internal/", "https://x.onion/",
    "https://wiki.corp/", "https://nas.lan/", "https://intranet/", "https://erp/", "https://a/",
    "https://erp..example/", "https://.erp.example/", "https://erp.example../", "https://./", "https://../",
    "https://-erp.example/", "https://erp-.example/", "https://erp.example-/", f"https://{'a' * 64}.example/",
    f"https://{'a.' * 130}example/", "https://erp,example/", "https://erp!.example/", "https://erp%2eexample/",
    "https://erp.example%00.internal/", "https://erp.example%2f@localhost/", "https://*.example/",
    "https://${host}.example/", "https://bücher.example/", "https://ⓔrp.example/", "https://erp。example/",
    "https://erp．example/", "https://еrp.example/", "https://erp\N{SOFT HYPHEN}.example/",
    "https://erp\N{ZERO WIDTH SPACE}.example/", "https://locaLhost\N{KELVIN SIGN}/", "https://ﬁ.example/",
    # users, ports, fragments and what cannot be seen
    "https://user@erp.example/", "https://user:word@erp.example/", "https://@erp.example/", "https://:@erp.example/",
    "https://erp.example@127.0.0.1/", "https://127.0.0.1@erp.example/", "https://erp.example:443@10.0.0.1/",
    "https://erp.example:0/", "https://erp.example:22/", "https://erp.example:25/", "https://erp.example:80/",
    "https://erp.example:444/", "https://erp.example:1023/", "https://erp.example:65536/",
    "https://erp.example:99999999999999999999/", "https://erp.example:/", "https://erp.example:+443/",
    "https://erp.example:0443/", "https://erp.example:443:443/", "https://erp.example:４４３/",
    "https://erp.example:-1/", "https://erp.example:0x1bb/", "https://erp.example:44 3/", "https://erp.example:a/",
    "https://erp.example/#", "https://erp.example/#fragment", "https://erp.example#@127.0.0.1/",
    "https://erp.example\\@127.0.0.1/", "https://erp.example\\.internal/", "https:\\\\erp.example\\",
    "https:/\\127.0.0.1/", "https://erp.example/a\\b", "https://erp.example/a b", " https://erp.example/",
    "https://erp.example/ ", "https://erp.example/\t", "https://erp\t.example/", "https://127.0.0.1\n.example/",
    "https://erp.example/\r\nHost: 127.0.0.1", "https://erp.example/\0", "https://erp.example/\x7f",
    "https://erp.example/\x85", "https://erp.example/\N{NO-BREAK SPACE}", "\N{ZERO WIDTH NO-BREAK SPACE}https://x.example/",
    "https://erp.example/\ud800", f"https://erp.example/{'x' * 2048}",
    # schemes and no URL at all
    "", "x", "erp.example", "//erp.example/", "/hook", "https:", "https:erp.example", "https:/erp.example",
    "https://", "https:///", "https:///erp.example", "https://?x", "https://:443/", "https:////127.0.0.1/",
    "http://erp.example/", "http://erp.example:443/", "http://93.184.216.34/", "http://127.0.0.1/", "http://localhost/",
    "HTTP://erp.example/", "ftp://erp.example/", "file:///etc/passwd", "gopher://127.0.0.1:6379/_x",
    "ws://erp.example/", "wss://erp.example/", "unix:///run/x.sock", "data:text/plain,x",
    "javascript:alert(1)",
    "dict://127.0.0.1:11211/", "ldap://127.0.0.1/", "jar:https://erp.example!/", "https+unix://erp.example/",
    "httpſ://erp.example/", "url:https://127.0.0.1/",
]  # fmt: skip


def literal(address: str) -> str:
    """An address as the host of a URL."""
    return f"[{address}]" if ":" in address else address


def _at(address: str) -> str:
    """A name for each address, so that DNS can answer."""
    return "at-" + address.replace(".", "-").replace(":", "x") + "." + DOMAIN


def _cases() -> list[Case]:
    save, delivery, allowed = End
    first, second, inside = "93.184.216.34", "2606:4700:4700::1111", "10.0.0.1"
    named = f"https://a.{DOMAIN}"
    return [
        *(Case(url, save) for url in ODD_URLS),
        *(Case(f"https://{literal(it)}/", save) for it in BLOCKED_ADDRESSES),
        *(Case(f"https://{_at(it)}/", delivery, (it,)) for it in BLOCKED_ADDRESSES),
        *(Case(f"https://{literal(it)}/", allowed, (), (it,)) for it in PUBLIC_ADDRESSES),
        *(Case(f"https://{_at(it)}/", allowed, (it,), (it,)) for it in PUBLIC_ADDRESSES),
        # other ways to write what is allowed
        Case(f"{named}:8443/", allowed, (first,), (first,)),
        Case(f"{named}:1024/", allowed, (first,), (first,)),
        Case(f"{named}:65535/", allowed, (first,), (first,)),
        Case(f"{named}:443/", allowed, (first,), (first,), f"{named}/"),
        Case(named, allowed, (first,), (first,), f"{named}/"),
        Case(f"{named}/?", allowed, (first,), (first,), f"{named}/"),
        Case(f"{named}?token=1", allowed, (first,), (first,), f"{named}/?token=1"),
        Case(f"HTTPS://A.{DOMAIN.upper()}/Hook", allowed, (first,), (first,), f"{named}/Hook"),
        Case(f"https://a.{DOMAIN}./x", allowed, (first,), (first,), f"{named}/x"),
        Case(f"{named}/ünï?ö=[1]", allowed, (first,), (first,), f"{named}/%C3%BCn%C3%AF?%C3%B6=%5B1%5D"),
        Case(f"{named}/a%20b/%zz/../c//d;e=f?g=h&i=%2F@:!$'()*+,", allowed, (first,), (first,)),
        Case(f"{named}/https://127.0.0.1/?u=http://10.0.0.1:80/@x", allowed, (first,), (first,)),
        Case(f"https://xn--bcher-kva.{DOMAIN}/", allowed, (first,), (first,)),
        Case(f"https://a_b.{DOMAIN}/", allowed, (first,), (first,)),
        Case(f"https://{'a' * 63}.{DOMAIN}/", allowed, (first,), (first,)),
        Case("https://[2606:4700:4700:0:0:0:0:1111]:8443/", allowed, (), (second,), f"https://[{second}]:8443/"),
        Case("https://[2606:4700:4700::0011]/", allowed, (), ("2606:4700:4700::11",), "https://[2606:4700:4700::11]/"),
        # names with several addresses: the public ones are used, and no other
        Case(f"https://both.{DOMAIN}/", allowed, (first, second), (first, second)),
        Case(f"https://mixed.{DOMAIN}/", allowed, (inside, first), (first,)),
        Case(f"https://mixed-first.{DOMAIN}/", allowed, (first, inside), (first,)),
        Case(f"https://mixed-ula.{DOMAIN}/", allowed, ("fd00::1", first), (first,)),
        Case(f"https://mixed-nat64.{DOMAIN}/", allowed, ("64:ff9b::5db8:d822", first), (first,)),
        Case(f"https://mixed-mapped.{DOMAIN}/", allowed, ("::ffff:127.0.0.1", second), (second,)),
        Case(f"https://all-inside.{DOMAIN}/", delivery, (inside, "169.254.169.254", "fd00::1", "127.0.0.1")),
        Case(f"https://only-translated.{DOMAIN}/", delivery, ("64:ff9b::5db8:d822", "2002:5db8:d822::1")),
        Case(f"https://nothing.{DOMAIN}/", delivery, ()),
    ]  # fmt: skip


CASES = _cases()

DEVELOPMENT = {
    "http://localhost:9000/hook": True,
    "http://LOCALHOST:9000/": True,
    "http://shop.localhost/": True,
    "http://localhost./": True,
    "http://127.0.0.1:1/": True,
    "http://127.8.9.10/": True,
    "http://[::1]:9000/": True,
    "https://localhost:22/": True,
    f"https://a.{DOMAIN}/": True,
    f"http://a.{DOMAIN}/": False,
    "http://93.184.216.34/": False,
    f"https://a.{DOMAIN}:22/": False,
    "http://0.0.0.0/": False,
    "http://[::]/": False,
    "http://[::ffff:127.0.0.1]/": False,
    "http://[::127.0.0.1]/": False,
    "http://[64:ff9b::7f00:1]/": False,
    "http://127.1/": False,
    "http://2130706433/": False,
    "http://0x7f.0.0.1/": False,
    "http://user@localhost/": False,
    "http://localhost.localdomain/": False,
    "http://127.0.0.1.nip.io/": False,
    "http://[::1%25lo]/": False,
    "ftp://localhost/": False,
    "https://10.0.0.1/": False,
    "https://169.254.169.254/": False,
    "https://printer.local/": False,
}
"""What development admits; in production all but the public name is refused."""
