"""Not one packet goes where webhooks do not go: in a network namespace, beside an internet of our own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from distribu.adapters.guard import refusal
from tests.integration import internet
from tests.integration.internet import DNS_SERVER, PROXY, PUBLIC
from tests.integration.ssrf_corpus import CASES, PUBLIC_ADDRESSES, End

ROOT = Path(__file__).parents[2]
IP = shutil.which("ip", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or "ip"
INSTEAD = "; the same cases ran without packets in tests/unit/test_guard.py"


def ip(*arguments: str) -> None:
    subprocess.run([IP, *arguments], check=True, capture_output=True, timeout=30)


def _namespace(name: str, stack: ExitStack) -> str:
    ip("netns", "add", name)
    stack.callback(ip, "netns", "del", name)
    ip("-n", name, "link", "set", "lo", "up")
    return name


def _joined(here: str, there: str) -> None:
    """A cable between both; all that is not ``here`` is ``there``."""
    ip("-n", here, "link", "add", "out", "type", "veth", "peer", "name", "in", "netns", there)
    for space, device, four, six in (
        (here, "out", "20.0.0.2", "2a0a::2"),
        (there, "in", "20.0.0.1", "2a0a::1"),
    ):
        ip("-n", space, "address", "add", f"{four}/30", "dev", device)
        ip("-n", space, "address", "add", f"{six}/64", "dev", device, "nodad")
        ip("-n", space, "link", "set", device, "up")
    ip("-n", there, "address", "add", f"{DNS_SERVER}/32", "dev", "lo")
    for family, gateway, hither in (("-4", "20.0.0.1", "20.0.0.2/32"), ("-6", "2a0a::1", "2a0a::2/128")):
        ip("-n", here, family, "route", "add", "default", "via", gateway)
        ip("-n", there, family, "route", "add", hither, "dev", "in", "table", "local")
        ip("-n", there, family, "route", "add", "local", "default", "dev", "lo", "table", "local")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What came of every case, and of some more."""
    if os.geteuid() != 0 or not Path(IP).exists():
        pytest.skip(f"network namespaces take root and iproute2{INSTEAD}")
    folder = tmp_path_factory.mktemp("internet")
    resolver = Path("/etc/netns") / (name := f"distribu-{os.getpid()}")
    with ExitStack() as stack:
        try:
            here, there = _namespace(name, stack), _namespace(f"{name}-net", stack)
            _joined(here, there)
            resolver.mkdir(parents=True)
            stack.callback(shutil.rmtree, resolver)
            (resolver / "resolv.conf").write_text(f"nameserver {DNS_SERVER}\noptions timeout:2 attempts:2\n")
            (resolver / "hosts").write_text("127.0.0.1 localhost\n")
            ip("netns", "exec", here, "true")
        except (subprocess.SubprocessError, OSError) as no:
            said = getattr(no, "stderr", None) or str(no).encode()
            pytest.skip(
                f"no network namespace can be made ({said.decode(errors='replace').strip()}){INSTEAD}"
            )
        internet.certificates(folder)
        proxies = dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY", "https_proxy"), f"http://{PROXY}:3128")
        environment = os.environ | proxies | {"SSL_CERT_FILE": str(folder / "authority.pem")}

        def program(role: str, space: str) -> list[str]:
            return [IP, "netns", "exec", space, sys.executable, "-m", internet.__name__, role, str(folder)]

        with subprocess.Popen(
            program("internet", there), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as outside:
            stack.callback(outside.kill)
            assert outside.stdout
            assert outside.stdout.readline() == b"ready\n"
            subprocess.run(program("sender", here), cwd=ROOT, env=environment, check=True, timeout=240)
            outside.communicate(timeout=30)
        assert outside.returncode == 0
        yield {
            **json.loads((folder / "results.json").read_text()),
            "asked": json.loads((folder / "asked.json").read_text()),
        }


def test_not_one_packet_goes_to_a_blocked_network(results: dict[str, Any]) -> None:
    packets = results["packets"]
    to = {address for address, *_ in packets}
    assert {*PUBLIC_ADDRESSES, DNS_SERVER} <= to, "it is seen what is sent"
    assert [one for one in packets if refusal(one[0], loopback=False)] == []
    reached = {address for case in CASES for address in case.reached}
    assert to <= reached | {DNS_SERVER}
    assert {one[0] for one in packets if one[1] != 6} == {DNS_SERVER}, "TCP, and questions to DNS"
    print(f"{len(CASES)} cases, {sum(one[3] for one in packets)} packets to {len(to)} addresses")


def test_each_case_ends_where_it_has_to(results: dict[str, Any]) -> None:
    for case, admitted, got in zip(CASES, results["admitted"], results["cases"], strict=True):
        assert admitted == (case.end is not End.REFUSED_AT_SAVE), case.url
        if case.end is not End.ALLOWED:
            assert got["status"] is None, case.url
            assert "Error" not in got["error"], case.url
            continue
        assert got["status"] == 200, (case.url, got["error"])
        assert got["local"] in case.reached
        url = URL(case.canonical or case.url, encoded=True)
        assert got["host"] == url.raw_authority
        assert got["sni"] == (None if url.raw_host in case.reached else url.raw_host)
        assert got["line"] == f"POST {url.raw_path_qs} HTTP/1.1"


def test_names_are_asked_for_once_for_each_delivery(results: dict[str, Any]) -> None:
    """Nothing to rebind between the check and the connection."""
    for name, tries in results["rebound"].items():
        first, *then = tries
        assert (first["status"], first["local"]) == (200, PUBLIC)
        assert [one["status"] for one in then] == [None, None]
        assert all("is where webhooks do not go" in one["error"] for one in then)
        assert results["asked"][f"{name} 1"] == 3


def test_a_pooled_connection_stays_where_it_is(results: dict[str, Any]) -> None:
    assert [one["local"] for one in results["pooled"]] == [PUBLIC] * 3
    assert len({one["connection"] for one in results["pooled"]}) == 1
    assert results["asked"][f"{internet.POOLED} 1"] == 1


def test_no_redirect_is_followed(results: dict[str, Any]) -> None:
    assert results["redirect"]["status"] == 307


def test_this_machine_is_not_reached_by_a_public_address_of_its_own(results: dict[str, Any]) -> None:
    for got in results["own"]:
        assert got["error"] == "this is where webhooks do not go: an address of this machine"


def test_the_socket_is_a_wall_of_its_own(results: dict[str, Any]) -> None:
    """URLs with a blocked address in them, with nobody to look at the URL."""
    assert len(results["let through"]) > 250
    assert not any(got["status"] for got in results["let through"] if got.get("local") != PUBLIC)
