"""The command line for those who receive webhooks. None of it needs a Distribu or its data."""

import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
import rich_click as click
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from distribu.application.receiving import Judgement, judge, secret_of
from distribu.container import machine
from distribu.domain.values import Secret
from distribu.domain.webhooks import WireEvent
from distribu.entrypoints import asking, operating, showing, vectors
from distribu.entrypoints.http import events

VARIABLE: Final = "WEBHOOK_SECRET"
_SECRETS_MAX: Final = 4
_FILE_MAX: Final = 4096
_HEAD_MAX: Final = 1 << 16
_BODY_MAX: Final = 1 << 21

_file = click.Path(exists=True, dir_okay=False, allow_dash=True)
_secret_option = click.option(
    "--secret-file",
    type=_file,
    metavar="FILE",
    help=f"Where the secret is: one a line, - for stdin. Without it {VARIABLE} is looked at, then you "
    "are asked.",
)


@click.command()
@click.option(
    "--headers", "head", type=_file, metavar="FILE", help="Its headers: Name: value, or a JSON object."
)
@click.option("-H", "--header", "given", multiple=True, metavar="NAME: VALUE", help="One of them.")
@click.option("--body", "body_file", type=_file, metavar="FILE", help="The body as it came, byte for byte.")
@click.option("--at", type=operating.TIME, help="When it came; by default now.")
@_secret_option
@operating.alone
def verify(
    head: str | None,
    given: tuple[str, ...],
    body_file: str | None,
    at: datetime | None,
    secret_file: str | None,
) -> None:
    """Say whether a delivery is genuine, and why.

    Without --headers, --header and --body the whole of it is read from stdin: headers, an empty line, the
    body. The secret is never an argument: others could read it in the list of processes.

    Example: distribu webhook verify --headers headers.txt --body body.json --secret-file secret.txt
    """
    whole = head is None and body_file is None and not given
    if [head, body_file, secret_file, "-" if whole else None].count("-") > 1:
        raise click.UsageError("only one thing can be read from stdin")
    if whole:
        headers, body = _pasted(_read("-", _HEAD_MAX + _BODY_MAX))
    elif body_file is None or (head is None and not given):
        raise click.UsageError("--body goes with --headers or --header")
    else:
        headers = _headers(_read(head, _HEAD_MAX)) if head else {}
        headers |= _headers("\n".join(given).encode())
        body = _read(body_file, _BODY_MAX)
    clock, _ = machine()
    judgement = judge(_secrets(secret_file), headers, body, now=at or clock.now())
    _show(judgement)
    if not judgement.genuine:
        sys.exit(operating.NOT_GENUINE)


def _show(it: Judgement) -> None:
    if showing.in_json():
        showing.view(it)
        return
    click.echo(f"{'Genuine' if it.genuine else 'Not genuine'}: {it.why}.")
    width = max(len(one.name) for one in it.schemes)
    for one in it.schemes:
        verdict = "genuine" if one.genuine else "not genuine" if one.sent else "not sent"
        click.echo(f"  {one.name:<{width}}  {verdict:<11}  {one.why}")
    for note in it.notes:
        click.echo(f"  {note}")


@click.command()
@click.argument("url")
@click.option(
    "--event",
    type=click.Choice([str(one) for one in WireEvent]),
    default=WireEvent.ORDER_CREATED.value,
    show_default=True,
    help="What the deliveries tell of.",
)
@click.option(
    "--effects",
    metavar="URL",
    help="A page of the receiver's that changes whenever an event had an effect, such as a count of orders.",
)
@click.option("--yes-it-is-mine", "mine", is_flag=True, help="Attack another machine than this one.")
@click.option("--within", type=click.FloatRange(1, 600), help="Seconds that it may take.")
@_secret_option
@operating.alone
def attack(
    url: str, event: str, effects: str | None, mine: bool, within: float | None, secret_file: str | None
) -> None:
    """Send a receiver of yours deliveries, genuine and forged, and say what its answers give away.

    It takes its genuine ones for real: try a copy. Replayed, stale, tampered with, signed with other keys and
    in rotations, odd and large bodies; each is explained where the answer was wrong.

    Example: distribu webhook attack http://127.0.0.1:9000/hook --secret-file secret.txt
    """
    from distribu.entrypoints import attack as attacking  # its HTTP client is slow to load

    for one in filter(None, (url, effects)):
        attacking.admit(one, mine=mine)
    (secret,) = _secrets(secret_file, most=1)
    target = attacking.Target(url=url, secret=secret, event=WireEvent(event), effects=effects)
    with _progress() as progress:
        task = progress.add_task("deliveries")
        report = uvloop.run(
            attacking.attack(
                target,
                *machine(),
                step=lambda done, of: progress.update(task, completed=done, total=of),
                within_s=within or attacking.WITHIN_S,
            )
        )
    if showing.in_json():
        showing.view(report)
    else:
        for finding in report.findings:
            said = "no answer" if finding.status is None else str(finding.status)
            mark = {True: "ok", False: "WRONG", None: "not tried"}[finding.right]
            click.echo(f"{mark:<9}  {finding.name:<24}  wanted: {finding.wanted}, got: {said}")
            if not finding.right:
                click.echo(f"{'':11}{finding.why}\n{'':11}{finding.mend}")
        click.echo(f"\n{report.score} of {report.of} right.")
        if report.reads:
            click.echo(f"It looks at {' and '.join(report.reads)}.")
        for note in report.notes:
            click.echo(note)
    if report.score < report.of:
        sys.exit(operating.RECEIVER_WRONG)


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)


@click.command("vectors")
@click.option("--at", type=operating.TIME, help="When the receiver looks at them; by default now.")
@operating.alone
def signed_vectors(at: datetime | None) -> None:
    """Print deliveries to try a receiver's code on, with the verdict on each, as JSON.

    Example: distribu webhook vectors --at 2026-01-31T09:30:00Z
    """
    clock, _ = machine()
    _json(vectors.vectors(at or clock.now()))


@click.command("schemas")
@click.argument("directory", required=False, type=click.Path(file_okay=False, path_type=Path))
@operating.alone
def schemas(directory: Path | None) -> None:
    """Write the JSON Schema of every event into a directory; without one, print them all as JSON.

    A file that is there is replaced by one that breaks no program written against it, and by no other.

    Example: distribu webhook schemas docs/events
    """
    if directory is None:
        _json({event.value: events.schema(event) for event in WireEvent})
        return
    written = events.publish(directory)
    if showing.in_json():
        showing.view({"written": written})
    else:
        click.echo("\n".join(written) or "Nothing to do.")


COMMANDS: Final = (verify, attack, signed_vectors, schemas)


def _json(it: Any) -> None:
    text = msgspec.json.encode(it)
    click.echo(text if showing.in_json() else msgspec.json.format(text, indent=2))


# what is given


def _read(name: str, most: int) -> bytes:
    """A file, or stdin for ``-``. Raises `asking.NotUnderstood` when it is larger than ``most``."""
    if name == "-":
        return _bounded(sys.stdin.buffer, name, most)
    with Path(name).open("rb") as file:
        return _bounded(file, name, most)


def _bounded(file: BinaryIO, name: str, most: int) -> bytes:
    read = file.read(most + 1)
    if len(read) > most:
        raise asking.NotUnderstood(f"{name} holds more than {most} bytes.")
    return read


def _pasted(whole: bytes) -> tuple[dict[str, str], bytes]:
    """Headers and body, with an empty line between them."""
    ends = [(whole.find(end), len(end)) for end in (b"\r\n\r\n", b"\n\n") if end in whole]
    if not ends:
        raise asking.NotUnderstood("there is no empty line between headers and body.")
    at, length = min(ends)
    return _headers(whole[:at]), whole[at + length :]


def _headers(text: bytes) -> dict[str, str]:
    """Headers by name, from lines or from a JSON object; the request line is left alone."""
    try:
        lines = text.decode().strip()
        if lines.startswith("{"):
            return msgspec.json.decode(lines, type=dict[str, str])
    except (UnicodeDecodeError, msgspec.MsgspecError):
        raise asking.NotUnderstood(
            "the headers are neither lines of Name: value nor a JSON object."
        ) from None
    pairs = (line.partition(":") for line in lines.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, _, value in pairs if " " not in name.strip()}


def _secrets(file: str | None, most: int = _SECRETS_MAX) -> list[Secret]:
    """The secrets, from a file, the environment or whoever is asked. Raises `Invalid`."""
    if file is not None:
        text = _read(file, _FILE_MAX).decode("utf-8", "replace")
    elif os.environ.get(VARIABLE):
        text = os.environ[VARIABLE]
    elif operating.at_terminal():
        text = click.prompt("Secret of the webhook", hide_input=True, err=True)
    else:
        raise asking.NotUnderstood(f"there is no secret: say --secret-file, or set {VARIABLE}.")
    words = text.split()
    if not 0 < len(words) <= most:
        raise asking.NotUnderstood(
            f"of secrets there have to be 1 to {most}." if most > 1 else "one secret, please."
        )
    return [secret_of(word) for word in words]
