"""Whether a delivery is genuine, and why: the published vectors, what is done to a body, and the command."""

import json
from base64 import b64decode
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, strategies as st
from standardwebhooks import Webhook as StandardWebhook
from svix.webhooks import Webhook as SvixWebhook

from distribu import Invalid, Secret
from distribu.application import delivering, views
from distribu.application.receiving import OWN, STANDARD, judge, secret_of
from distribu.entrypoints import cli, operating, vectors
from distribu.entrypoints.cli_receivers import VARIABLE
from tests.unit.test_cli import signals as signals

PUBLISHED = Path(__file__).parents[2] / "docs" / "webhook-vectors.json"
AT = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
SECRET, OLD, OTHER = vectors.SECRET, vectors.OTHER, vectors.STRANGER
VECTORS = vectors.vectors(AT).vectors


def named(one: vectors.Vector) -> str:
    return one.name


def verdict(genuine: bool) -> str:
    return "accept" if genuine else "refuse"


# the vectors


def test_the_published_vectors_are_those_that_are_made() -> None:
    """`distribu webhook vectors --at 2026-01-31T09:30:00Z` writes them."""
    made = json.loads(views.encode(vectors.vectors(AT)))
    assert json.loads(PUBLISHED.read_text()) == made


def test_there_are_all_kinds_of_vectors() -> None:
    names = [one.name for one in VECTORS]
    assert len(names) == len(set(names)) > 30
    assert {
        "genuine", "rotated_newest", "rotated_not_yet", "rotated_away", "stale", "from_the_future",
        "body_changed", "timestamp_moved", "odd_whitespace", "unicode", "escaped", "escaped_slashes",
        "unsigned", "wrong_key", "other_algorithm", "id_changed",
    } <= set(names)  # fmt: skip
    assert {one.verdict for one in VECTORS} == {"accept", "refuse"}
    assert len({one.why for one in VECTORS}) == len(VECTORS)
    genuine = [one.headers.get("X-Webhook-Id", one.name) for one in VECTORS if one.verdict == "accept"]
    assert len(set(genuine)) == len(genuine), "a receiver that knows an id may leave it alone"


@pytest.mark.parametrize("one", VECTORS, ids=named)
def test_the_verdict_on_each_vector_is_ours(one: vectors.Vector) -> None:
    body = b64decode(one.body_base64)
    assert body.decode() == one.body
    judgement = judge([SECRET], one.headers, body, now=AT)
    assert verdict(judgement.genuine) == one.verdict, judgement.why
    assert {it.name: verdict(it.genuine) for it in judgement.schemes} == one.schemes
    assert judgement.why


def library(kind: Any, one: vectors.Vector, secret: str) -> str:
    """What a public library says, as it is, at this moment."""
    try:
        kind(secret).verify(b64decode(one.body_base64), dict(one.headers))
    except Exception:
        return "refuse"
    return "accept"


@pytest.mark.parametrize("kind", [StandardWebhook, SvixWebhook], ids=["standardwebhooks", "svix"])
def test_the_public_libraries_have_the_same_verdict_on_each_vector(kind: Any) -> None:
    made = vectors.vectors(datetime.now(UTC))
    said = {one.name: library(kind, one, made.secret) for one in made.vectors}
    assert said == {one.name: one.schemes[STANDARD] for one in made.vectors}


# what is said of one delivery


def body_at(at: datetime = AT, **more: Any) -> bytes:
    told = {"id": "ev-1", "event": "order.created", "timestamp": views.time(at), **more}
    return json.dumps(told, separators=(",", ":")).encode()


def signed(body: bytes, *secrets: Secret, at: datetime = AT) -> dict[str, str]:
    """The headers of a body, by default under the receiver's secret."""
    return delivering.headers("ev-1", "order.created", body, list(secrets or [SECRET]), int(at.timestamp()))


def why(headers: Mapping[str, str], body: bytes, *secrets: Secret, now: datetime = AT) -> str:
    said = judge(list(secrets or [SECRET]), headers, body, now=now)
    assert not said.genuine
    return said.why


@pytest.mark.parametrize(
    ("age", "genuine"),
    [
        (timedelta(0), True),
        (timedelta(minutes=5), True),
        (timedelta(minutes=5, seconds=1), False),
        (-timedelta(minutes=5), True),
        (-timedelta(minutes=5, seconds=1), False),
        (timedelta(days=400), False),
    ],
)
def test_five_minutes_are_the_limit_in_either_direction(age: timedelta, genuine: bool) -> None:
    at = AT - age
    body = body_at(at)
    said = judge([SECRET], signed(body, at=at), body, now=AT)
    assert [one.genuine for one in said.schemes] == [genuine, genuine]


def test_each_way_of_signing_is_told_by_itself() -> None:
    body = body_at()
    said = judge([SECRET], signed(body) | {"webhook-id": "ev-2"}, body, now=AT)
    assert not said.genuine
    assert [(one.name, one.genuine) for one in said.schemes] == [(OWN, True), (STANDARD, False)]
    assert "webhook-id" in said.why


@pytest.mark.parametrize(
    ("known", "genuine"),
    [([SECRET], True), ([OLD], True), ([OTHER], False), ([OTHER, OLD], True)],
)
def test_either_secret_of_a_rotation_will_do(known: list[Secret], genuine: bool) -> None:
    body = body_at()
    said = judge(known, signed(body, SECRET, OLD), body, now=AT)
    assert said.genuine == genuine
    assert ("before a rotation" in said.why) == (OLD in known)


def test_what_was_done_to_a_body_is_found_out() -> None:
    body = body_at(notes="Crème brûlée", total=12.50)
    headers = signed(views.encode(json.loads(body)))
    sent = views.encode(json.loads(body))
    assert "line end was added" in why(headers, sent + b"\n")
    assert "line end was added" in why(headers, sent + b"\r\n")
    assert "has lost the line end" in why(signed(sent + b"\n"), sent)
    assert "line ends were changed" in why(signed(b"{\n}\n"), b"{\r\n}\r\n")
    for rewritten in (json.dumps(json.loads(sent)), json.dumps(json.loads(sent), indent=2)):
        assert "written again" in why(headers, rewritten.encode())
    assert "this secret or this body is another one" in why(headers, sent.replace(b"12.5", b"13.5"))
    assert "this secret or this body is another one" in why(headers, sent, OTHER)
    for only in (OWN, STANDARD):
        alone = {name: value for name, value in headers.items() if name not in {OWN, STANDARD} - {only}}
        assert "line end was added" in why(alone, sent + b"\n")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"webhook-timestamp": ""}, "no whole number of seconds"),
        ({"webhook-timestamp": "1e9"}, "no whole number of seconds"),
        ({"webhook-timestamp": "١٢٣"}, "no whole number of seconds"),
        ({"webhook-timestamp": "99999999999"}, "webhook-timestamp"),
        ({"webhook-id": ""}, "webhook-id is missing"),
        ({STANDARD: "v2,abc"}, "no signature of version v1"),
        ({STANDARD: "v1,"}, "this secret or this body"),
        ({STANDARD: "v1,\udcff"}, "this secret or this body"),
        ({STANDARD: "v1,a " * 9000}, "this secret or this body"),
    ],
)
def test_odd_headers_are_told_and_break_nothing(change: dict[str, str], told: str) -> None:
    body = body_at()
    headers = {name: value for name, value in signed(body).items() if name != OWN}
    assert told in why(headers | change, body)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"7", b'{"timestamp":7}', b'{"timestamp":"2026-01-31T09:30:00"}', b'{"timestamp":"x"}',
     b"[" * 100_000, b"\xff\xfe", b'{"timestamp":"0001-01-01T00:00:00+14:00"}'],
    ids=repr,
)  # fmt: skip
def test_a_body_without_a_time_is_refused_though_its_signature_is_right(body: bytes) -> None:
    headers = {OWN: signed(body)[OWN]}
    told = why(headers, body)
    assert "nobody can tell how old" in told or "old:" in told


def test_what_nothing_signs_and_says_something_else_is_told() -> None:
    body = body_at()
    said = judge([SECRET], signed(body) | {"X-Webhook-Event": "order.deleted"}, body, now=AT)
    assert said.genuine
    assert said.notes == ["x-webhook-event is not the body's event: go by the body"]


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=80), max_size=6), st.binary(max_size=200))
def test_nothing_that_is_not_signed_is_ever_genuine(headers: dict[str, str], body: bytes) -> None:
    sent = signed(body, OTHER) | headers
    assert not judge([SECRET], sent, body, now=AT).genuine


@pytest.mark.parametrize(
    "text", ["", "whsec_", "test" * 8, "whsec_" + "a" * 21, "whsec_" + "!" * 32, "WHSEC_" + "test" * 8]
)
def test_what_is_no_secret_is_refused_without_being_told(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        secret_of(text)
    assert len(text) < 7 or text not in str(refused.value.fields)


# the command


def run(*words: str, stdin: bytes | None = None, secret: str | None = SECRET.reveal()) -> Result:
    env = {"NO_COLOR": "1", "COLUMNS": "400", VARIABLE: secret}
    return CliRunner().invoke(cli.main, words, input=stdin, env=env)


@pytest.fixture
def sent(tmp_path: Path) -> tuple[str, str]:
    """A genuine delivery, as two files."""
    body = body_at()
    lines = "".join(f"{name}: {value}\n" for name, value in signed(body).items())
    (tmp_path / "headers.txt").write_text("POST /hook HTTP/1.1\n" + lines)
    (tmp_path / "body.json").write_bytes(body)
    return str(tmp_path / "headers.txt"), str(tmp_path / "body.json")


@pytest.mark.parametrize("group", ["webhook", "webhooks"])
def test_it_says_that_a_delivery_is_genuine(sent: tuple[str, str], group: str) -> None:
    done = run(group, "verify", "--headers", sent[0], "--body", sent[1], "--at", views.time(AT))
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("Genuine: X-Webhook-Signature is right.\n")
    assert "webhook-signature    genuine" in done.stdout


def test_it_says_why_one_is_not(sent: tuple[str, str]) -> None:
    done = run("webhook", "verify", "--headers", sent[0], "--body", sent[1])
    assert done.exit_code == operating.NOT_GENUINE == 21
    assert done.stdout.startswith("Not genuine: the body's timestamp is ")
    Path(sent[1]).write_bytes(body_at() + b"\n")
    words = ("webhook", "verify", "--headers", sent[0], "--body", sent[1], "--at", views.time(AT), "--json")
    done = run(*words)
    assert done.exit_code == operating.NOT_GENUINE
    said = json.loads(done.stdout)
    assert said["genuine"] is False
    assert "line end was added" in said["why"]
    assert [one["name"] for one in said["schemes"]] == [OWN, STANDARD]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_whole_delivery_is_pasted(end: str) -> None:
    body = body_at()
    head = end.join(f"{name}: {value}" for name, value in signed(body, OLD, SECRET).items())
    pasted = (head + end * 2).encode() + body
    done = run("webhook", "verify", "--at", views.time(AT), stdin=pasted)
    assert done.exit_code == 0, done.output
    assert "X-Webhook-Signature-Old is right" in done.stdout


@pytest.mark.parametrize("one", VECTORS, ids=named)
def test_the_command_has_the_verdict_on_each_vector(one: vectors.Vector, tmp_path: Path) -> None:
    (tmp_path / "headers.json").write_text(json.dumps(dict(one.headers)))
    body, secret = tmp_path / "body", tmp_path / "secret"
    body.write_bytes(b64decode(one.body_base64))
    secret.write_text(SECRET.reveal() + "\n")
    words = ["--headers", str(tmp_path / "headers.json"), "--body", str(body), "--secret-file", str(secret)]
    done = run("webhook", "verify", *words, "--at", views.time(AT), secret=None)
    assert done.exit_code == (0 if one.verdict == "accept" else operating.NOT_GENUINE), done.output


def test_headers_can_be_given_one_by_one(sent: tuple[str, str]) -> None:
    given = [word for name, value in signed(body_at()).items() for word in ("-H", f"{name}: {value}")]
    done = run("webhook", "verify", *given, "--body", sent[1], "--at", views.time(AT))
    assert done.exit_code == 0, done.output


def test_the_secret_is_read_from_stdin_too_and_is_never_shown(sent: tuple[str, str]) -> None:
    words = ["webhook", "verify", "--headers", sent[0], "--body", sent[1], "--at", views.time(AT)]
    both = f"{OTHER.reveal()}\n{SECRET.reveal()}\n".encode()
    done = run(*words, "--secret-file", "-", stdin=both, secret=None)
    assert done.exit_code == 0, done.output
    wrong = run(*words, "--secret-file", "-", stdin=b"whsec_short", secret=None)
    assert wrong.exit_code == operating.EXIT[Invalid]
    for one in (done, wrong):
        assert "whsec_s" not in one.output
        assert SECRET.reveal() not in one.output


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--body", "-"], "--body goes with"),
        (["-H", "a: b"], "--body goes with"),
        (["--headers", "-", "--body", "-"], "only one thing"),
        (["--secret-file", "-"], "only one thing"),
        (["--body", "no-such-file", "-H", "a: b"], "no-such-file"),
    ],
)
def test_what_cannot_be_is_explained(words: list[str], told: str) -> None:
    done = run("webhook", "verify", *words, stdin=b"")
    assert done.exit_code == operating.NOT_UNDERSTOOD
    assert told in " ".join(done.stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    ("stdin", "secret", "told"),
    [
        (b"no empty line", SECRET.reveal(), "no empty line"),
        (b"{not json\n\n{}", SECRET.reveal(), "neither lines"),
        (b"a: \xff\n\n{}", SECRET.reveal(), "neither lines"),
        (b"a: b\n\n" + b"x" * 3_000_000, SECRET.reveal(), "more than"),
        (b"a: b\n\n{}", None, "there is no secret"),
        (b"a: b\n\n{}", " ".join([SECRET.reveal()] * 5), "1 to 4"),
    ],
)
def test_what_is_given_and_unusable_is_explained(stdin: bytes, secret: str | None, told: str) -> None:
    done = run("webhook", "verify", stdin=stdin, secret=secret)
    assert done.exit_code == operating.NOT_UNDERSTOOD
    assert told in " ".join(done.stderr.replace("│", " ").split())


def test_the_vectors_are_printed() -> None:
    done = run("webhook", "vectors", "--at", views.time(AT))
    assert json.loads(done.stdout) == json.loads(PUBLISHED.read_text())
    assert json.loads(run("webhook", "vectors", "--json").stdout)["atSeconds"] > AT.timestamp()


def test_the_schemas_are_printed_or_written(tmp_path: Path) -> None:
    printed = json.loads(run("webhook", "schemas").stdout)
    assert printed["order.created"]["title"] == "order.created"
    written = json.loads(run("webhook", "schemas", str(tmp_path), "--json").stdout)["written"]
    assert len(written) == len(printed)
    assert run("webhook", "schemas", str(tmp_path)).stdout == "Nothing to do.\n"
    (tmp_path / "order.vanished.json").write_text("{}")
    refused = run("webhook", "schemas", str(tmp_path))
    assert refused.exit_code == operating.EXIT[Invalid]
    assert "order.vanished.json: the event is gone" in refused.stderr
