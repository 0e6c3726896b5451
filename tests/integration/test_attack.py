"""`distribu webhook attack` on receivers of our own: it finds every mistake, and none where there is none."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from distribu import Invalid
from distribu.container import machine
from distribu.domain.webhooks import WireEvent
from distribu.entrypoints import attack as attacking, operating, vectors
from distribu.entrypoints.attack import Report, Target
from distribu.entrypoints.cli_receivers import VARIABLE
from tests import receivers
from tests.receivers import Receiver
from tests.samples import sample

SECRET = vectors.SECRET


async def attacked(
    receiver: Receiver, *, effects: bool = True, seen_s: float = attacking.SEEN_S, **more: Any
) -> Report:
    async with receiver.listening() as url:
        target = Target(url=url + "/hook", secret=SECRET, effects=url + "/count" if effects else None, **more)
        return await attacking.attack(target, *machine(), seen_s=seen_s, settle_s=0.1)


def wrong(report: Report) -> set[str]:
    """What the receiver did wrong, by name; all of it is explained."""
    assert report.of == len(report.findings)
    found = [one for one in report.findings if one.right is not True]
    assert report.score == report.of - len(found)
    assert all(one.why and one.mend for one in found)
    return {one.name for one in found}


def receiver(kind: type[Receiver], verify: receivers.Verify) -> Receiver:
    return kind(SECRET.reveal(), verify)


NODE = """
let count = 0;
const known = new Set();
const server = require("node:http").createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part)).on("end", () => {
    if (request.method === "GET") return response.end(String(count));
    try {
      const event = verified(Buffer.concat(parts), request.headers, process.env.SECRET);
      if (!known.has(event.id)) count += 1;
      known.add(event.id);
    } catch { response.statusCode = 400; }
    response.end();
  });
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
"""


class OfNode(Receiver):
    """The sample in JavaScript, as a server of its own."""

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        child = await asyncio.create_subprocess_exec(
            "node",
            "-e",
            sample("js") + NODE,
            env={**os.environ, "SECRET": self.secret},
            stdout=subprocess.PIPE,
        )
        try:
            assert child.stdout is not None
            yield f"http://127.0.0.1:{int(await asyncio.wait_for(child.stdout.readline(), 30))}"
        finally:
            child.kill()
            await child.communicate()


BOTH = {"X-Webhook-Signature", "webhook-signature"}
RIGHT = [
    (Receiver, receivers.by_the_sample, BOTH),
    (Receiver, receivers.by_own_header, {"X-Webhook-Signature"}),
    (Receiver, receivers.by_the_library, {"webhook-signature"}),
    (receivers.Late, receivers.by_the_sample, BOTH),
    *[(OfNode, receivers.by_the_sample, BOTH)] * bool(shutil.which("node")),
]


@pytest.mark.parametrize(("kind", "verify", "reads"), RIGHT)
async def test_nothing_is_found_where_nothing_is_wrong(
    kind: type[Receiver], verify: receivers.Verify, reads: set[str]
) -> None:
    report = await attacked(receiver(kind, verify))
    assert wrong(report) == set()
    assert report.of > 30
    assert set(report.reads) == reads
    assert report.notes == []


FORGED = {
    "stale", "from_the_future", "timestamp_header_moved", "timestamp_moved", "rotated_away", "written_again",
    "body_changed", "body_longer", "body_empty", "wrong_key", "wrong_keys", "unsigned", "empty_signatures",
    "part_of_signature", "other_algorithm", "keys_mixed_up", "id_changed", "no_timestamp", "not_json",
}  # fmt: skip
AGAIN = {"same_delivery_twice", "same_event_later"}
MISTAKES: list[tuple[type[Receiver], receivers.Verify, set[str]]] = [
    (
        Receiver,
        receivers.rewrites,
        {*"odd_whitespace line_end escaped escaped_slashes numbers written_again body_longer".split()},
    ),
    (
        Receiver,
        receivers.never_too_old,
        {"stale", "from_the_future", "timestamp_header_moved", "no_timestamp"},
    ),
    (Receiver, receivers.never_too_new, {"from_the_future"}),
    (Receiver, receivers.unsigned_is_fine, {"unsigned", "empty_signatures", "id_changed"}),
    (Receiver, receivers.new_key_alone, {"rotated_not_yet"}),
    (receivers.Cuts, receivers.by_own_header, {"large_body"}),
    (Receiver, receivers.wrong_encoding, {"unicode", "escaped_slashes"}),
    (Receiver, receivers.any_version, {"other_algorithm"}),
    (Receiver, receivers.first_signature_alone, {"rotated_not_yet", "among_others"}),
    (Receiver, receivers.as_far_as_given, {"part_of_signature", "empty_signatures"}),
    (Receiver, receivers.time_of_the_header, {"timestamp_header_moved"}),
    (receivers.Forgets, receivers.by_own_header, AGAIN),
    (receivers.Complains, receivers.by_own_header, AGAIN),
    (receivers.Picky, receivers.by_own_header, {"unknown_event"}),
    (receivers.ParsesFirst, receivers.by_own_header, {"body_empty", "not_json"}),
    (Receiver, receivers.believes_everything, FORGED),
]


@pytest.mark.parametrize(
    ("kind", "verify", "found"),
    MISTAKES,
    ids=[f"{kind.__name__}-{verify.__name__}" for kind, verify, _ in MISTAKES],
)
async def test_every_mistake_is_found_and_nothing_else(
    kind: type[Receiver], verify: receivers.Verify, found: set[str]
) -> None:
    assert wrong(await attacked(receiver(kind, verify))) == found


async def test_what_cannot_be_seen_is_said() -> None:
    for kind in (Receiver, receivers.Forgets):
        report = await attacked(receiver(kind, receivers.by_own_header), effects=False)
        assert wrong(report) == set()
        assert ["--effects names" in note for note in report.notes] == [True]


async def test_a_page_that_never_changes_proves_nothing() -> None:
    class Still(receivers.Forgets):
        async def count(self, _: web.Request) -> web.Response:
            return web.Response(text="fine")

    report = await attacked(receiver(Still, receivers.by_own_header), seen_s=0.1)
    assert wrong(report) == set()
    assert ["did not change for a new one" in note for note in report.notes] == [True]


async def test_other_events_can_be_told_of() -> None:
    for event in WireEvent:
        report = await attacked(receiver(Receiver, receivers.by_the_library), event=event, effects=False)
        assert wrong(report) == set()


class Redirects(Receiver):
    async def take(self, request: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect("/count")


class HangsUp(Receiver):
    async def take(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()


@pytest.mark.parametrize(("kind", "status"), [(Redirects, 307), (HangsUp, None)])
async def test_who_takes_nothing_genuine_is_sent_nothing_else(
    kind: type[Receiver], status: int | None
) -> None:
    report = await attacked(receiver(kind, receivers.by_own_header))
    assert (report.score, report.of) == (0, 1)
    assert report.findings[0].status == status


async def test_a_wrong_secret_is_found_at_once() -> None:
    report = await attacked(Receiver(vectors.OTHER.reveal(), receivers.by_own_header))
    assert wrong(report) == {"genuine"}
    assert "verify" in report.findings[0].mend


async def test_it_ends_in_time_and_says_what_it_did_not_try() -> None:
    async with receiver(Receiver, receivers.by_own_header).listening() as url:
        target = Target(url=url + "/hook", secret=SECRET)
        report = await attacking.attack(target, *machine(), within_s=-1)
    assert report.score == 0
    assert all(one.right is None for one in report.findings)
    assert report.of > 30


async def test_its_progress_is_told() -> None:
    steps: list[tuple[int, int]] = []
    async with receiver(Receiver, receivers.by_own_header).listening() as url:
        target = Target(url=url + "/hook", secret=SECRET)
        await attacking.attack(target, *machine(), step=lambda done, of: steps.append((done, of)))
    of = steps[-1][1]
    assert steps == [(done, of) for done in range(of + 1)]


@pytest.mark.parametrize(
    ("url", "mine", "admitted"),
    [
        ("http://127.0.0.1:9000/hook", False, True),
        ("http://localhost/hook", False, True),
        ("https://[::1]:9/", False, True),
        ("https://erp.example/hook", False, False),
        ("https://erp.example/hook", True, True),
        ("http://127.0.0.1.erp.example/", False, False),
        ("http://localhost.erp.example/", False, False),
        ("http://a.localhost/", False, False),
        ("http://0.0.0.0/", False, False),
        ("http://2130706433/", False, False),
        ("http://10.0.0.1/", False, False),
        ("http://[::ffff:10.0.0.1]/", False, False),
        ("http://127.0.0.1@erp.example/", True, False),
        ("http://u:p@127.0.0.1/", False, False),
        ("ftp://127.0.0.1/", True, False),
        ("file:///etc/hostname", True, False),
        ("127.0.0.1:9000", True, False),
        ("http://[::1", True, False),
        ("http://127.0.0.1:99999/", True, False),
        ("http://127.0.0.1/" + "a" * 2048, True, False),
    ],
)
def test_only_one_s_own_machine_is_attacked_unasked(url: str, mine: bool, admitted: bool) -> None:
    if admitted:
        attacking.admit(url, mine=mine)
        return
    with pytest.raises(Invalid) as refused:
        attacking.admit(url, mine=mine)
    assert list(refused.value.fields) == ["url"]


# the program


async def program(*words: str) -> tuple[int, str, str]:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "distribu", "webhooks", "attack", *words,
        env={**os.environ, VARIABLE: SECRET.reveal()},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(child.communicate(), 120)
    assert SECRET.reveal().encode() not in out + err
    return child.returncode or 0, out.decode(), err.decode()


async def test_the_program_ends_with_what_it_found() -> None:
    async with receiver(Receiver, receivers.by_the_sample).listening() as url:
        code, out, err = await program(url + "/hook")
        assert (code, err) == (0, "")
        assert "It looks at X-Webhook-Signature and webhook-signature." in out
    async with receiver(Receiver, receivers.new_key_alone).listening() as url:
        code, out, _ = await program(url + "/hook")
        assert code == operating.RECEIVER_WRONG == 22
        assert "WRONG      rotated_not_yet" in out
        assert "Look at X-Webhook-Signature-Old too" in out
        code, out, _ = await program(url + "/hook", "--json", "--effects", url + "/count")
        assert code == operating.RECEIVER_WRONG
        said = json.loads(out)
        assert said["of"] - said["score"] == 1
        assert said["notes"] == []
    code, out, err = await program("https://erp.example/hook")
    assert (code, out) == (operating.EXIT[Invalid], "")
    assert "--yes-it-is-mine" in err
