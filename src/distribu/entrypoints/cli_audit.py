"""The audit log from the command line: look into it, prove it, take it out, and let a person be forgotten."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import rich_click as click

from distribu.application.audit import ListAudit, RecordAudit
from distribu.application.sealing import (
    PAGE,
    ErasePerson,
    ExportAudit,
    ExportFormat,
    VerifyAudit,
    WaitingView,
)
from distribu.container import sealing_keys, verifier
from distribu.domain.access import ActorKind
from distribu.domain.accounts import REALM
from distribu.entrypoints import asking, operating, showing

NOT_AS_SEALED: Final = 20
"""The exit code when the log is not as it was sealed."""

NOBODY_SEALS: Final = 24
"""The exit code when what was sealed is as it was, and new records wait for too long."""

HEAD_MAX: Final = 10_000
"""Bytes of a file with a head in it, if it is no export."""

EXPORT: Final = b'"distribu.audit.export"'
HEAD: Final = b'{"type":"distribu.audit.head"'

_of_company = click.option("--company", metavar="SLUG", help="Which company; without it the platform.")


@click.group()
def audit() -> None:
    """The audit log: who did what, and when."""


@audit.command("list")
@operating.company_option
@click.option("--action", help="Exactly this, or what begins with it and a dot.")
@click.option("--actor-type", type=click.Choice([str(one) for one in ActorKind]), help="Who acted.")
@click.option("--entity-type", help="What was changed: Order, Product ...")
@click.option("--entity-id", metavar="ID", help="Which one.")
@click.option("--since", type=operating.TIME, help="From this time on.")
@click.option("--until", type=operating.TIME, help="Before this time.")
@click.option("--search", metavar="TEXT", help="Somewhere in a record, whatever the case.")
@operating.limit_option
@operating.cursor_option
@operating.command
def audit_list(company: str, actor_type: str | None, data_dir: str | None, **given: Any) -> None:
    """Entries, newest first.

    Example: distribu audit list --company acme --action order --since 2027-01-31
    """
    kind = ActorKind(actor_type) if actor_type else None
    page = operating.execute(data_dir, company, ListAudit(actor_type=kind, **given))
    showing.result(page, "at", "action", "entityType", "entityId", "actorType", "actorLabel", "id")


@audit.command("record")
@click.argument("action")
@click.argument("metadata", nargs=-1, metavar="[NAME=VALUE]...")
@operating.company_option
@click.option("--entity-type", default="", help="What it is about.")
@click.option("--entity-id", default="", metavar="ID", help="Which one.")
@operating.command
def audit_record(
    action: str,
    metadata: tuple[str, ...],
    company: str,
    entity_type: str,
    entity_id: str,
    data_dir: str | None,
) -> None:
    """Write an entry of your own; its action becomes custom.ACTION.

    Example: distribu audit record report.sent to=board@acme.example pages=4 --company acme
    """
    told = asking.metadata(metadata)
    entry = RecordAudit(action=action, entity_type=entity_type, entity_id=entity_id, metadata=told)
    showing.result(operating.execute(data_dir, company, entry))


@audit.command("verify")
@_of_company
@click.option(
    "--head",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="A head that was kept elsewhere: a webhook's body, a weekly mail's text, an earlier export.",
)
@operating.command
def audit_verify(company: str | None, head: Path | None, data_dir: str | None) -> None:
    """Examine the whole sealed log, and name what was edited, removed, inserted or reordered.

    Only with a head kept elsewhere it shows that the end was cut off, or that all of it was made anew.
    What is wrong ends it with 20. What waits to be sealed is told, and is nothing wrong; waiting for more
    than five minutes ends it with 24: no worker runs, or it cannot go on.

    Example: distribu audit verify --company acme --head kept.json
    """
    kept = None
    if head is not None:
        try:
            kept = _kept(head)
        except UnicodeDecodeError:
            raise asking.NotUnderstood(f"{head} holds no text.") from None
    verdict = operating.operate(
        data_dir, company, lambda operator: operator.execute(VerifyAudit(head=kept)), realm=REALM
    )
    if showing.in_json():
        showing.view(verdict)
    else:
        for one in verdict.findings:
            click.echo(f"{one.kind}: {one.what}")
        state = "as they were sealed" if verdict.sound else "NOT as they were sealed"
        click.echo(
            f"{verdict.records} records, {verdict.heads} heads, {verdict.nameless} records that name nobody"
            f" any more: {state}"
        )
        if verdict.head is not None:
            of, number, at = verdict.head.company_id, verdict.head.number, verdict.head.at
            click.echo(f"Company {of}; the newest head is number {number}, of {at}.")
        if verdict.waiting is not None:
            click.echo(_waits(verdict.waiting))
        if kept is None:
            click.echo("Without a head kept elsewhere a cut-off end would not show: --head FILE.")
    if not verdict.sound:
        sys.exit(NOT_AS_SEALED)
    if verdict.waiting is not None and verdict.waiting.overdue:
        sys.exit(NOBODY_SEALS)


def _waits(it: WaitingView) -> str:
    count = f"{PAGE} or more records wait" if it.records == PAGE else f"{it.records} records wait"
    if it.records == 1:
        count = "1 record waits"
    if not it.overdue:
        return f"{count} to be sealed, since {it.since}: a worker does that within seconds."
    return (
        f"{count} to be sealed, since {it.since} (the first is record {it.first}): a change of them would not"
        " show yet. Does a worker run (`distribu serve` or `worker`), and what does it log?"
    )


def _kept(file: Path) -> str:
    """What of a file may be a head: of an export its last one, otherwise all of it."""
    with file.open("rb") as lines:
        text = lines.read(HEAD_MAX + 1)
        if EXPORT in text.partition(b"\n")[0]:
            lines.seek(0)
            for line in lines:
                text = line if line.startswith(HEAD) else text
    return text.decode() or " "


@audit.command("export")
@_of_company
@click.option(
    "--format",
    "form",
    type=click.Choice([str(one) for one in ExportFormat], case_sensitive=False),
    default="JSONL",
    show_default=True,
    help="JSONL can be checked offline, CSV is for a spreadsheet, OCSF for a SIEM.",
)
@click.option("--action", help="Exactly this, or what begins with it and a dot.")
@click.option("--actor-type", type=click.Choice([str(one) for one in ActorKind]), help="Who acted.")
@click.option("--entity-type", help="What was changed: Order, Product ...")
@click.option("--entity-id", metavar="ID", help="Which one.")
@click.option("--since", type=operating.TIME, help="From this time on.")
@click.option("--until", type=operating.TIME, help="Before this time.")
@click.option("--search", metavar="TEXT", help="Somewhere in a record, whatever the case.")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Instead of stdout."
)
@operating.command
def audit_export(
    company: str | None,
    form: str,
    actor_type: str | None,
    out: Path | None,
    data_dir: str | None,
    **given: Any,
) -> None:
    """Take the log out, oldest first, however long it is. The log keeps that it was.

    Example: distribu audit export --company acme --out audit.jsonl
    """
    if out is None and showing.in_json():
        raise asking.NotUnderstood("--json goes with --out FILE: an export is no one JSON object.")
    kind = ActorKind(actor_type) if actor_type else None
    request = ExportAudit(format=ExportFormat(form.upper()), actor_type=kind, **given)

    async def run(operator: operating.Operator) -> int:
        pieces: AsyncIterator[bytes] = await operator.execute(request)
        if out is None:
            return await _written(pieces, sys.stdout.buffer)
        with out.open("wb") as file:
            return await _written(pieces, file)

    size = operating.operate(data_dir, company, run, realm=REALM)
    if out is not None:
        if showing.in_json():
            showing.view({"file": str(out), "bytes": size})
        else:
            click.echo(f"Wrote {size} bytes to {out}.")


async def _written(pieces: AsyncIterator[bytes], file: Any) -> int:
    size = 0
    async for piece in pieces:
        file.write(piece)
        size += len(piece)
    file.flush()
    return size


@audit.command("keys")
@operating.command
def audit_keys(data_dir: str | None) -> None:
    """The public keys of those that sign the log, the one that signs now first.

    Give them to whoever is to check an export: they prove nothing while they come from the same place.

    Example: distribu audit keys
    """
    keys = sealing_keys(operating.settings(data_dir=data_dir))
    showing.view({"data": [{"id": key.id, "public": key.public} for key in keys]}, "id", "public")


@audit.command("verifier")
@operating.command
def audit_verifier(data_dir: str | None) -> None:
    """The one file that checks an export: with Python, the package cryptography and the public key, offline.

    Example: distribu audit verifier > verify_export.py
    """
    click.echo(verifier(), nl=False)


@audit.command("erase-person")
@click.argument("label")
@_of_company
@operating.yes_option
@operating.command
def audit_erase_person(label: str, company: str | None, yes: bool, data_dir: str | None) -> None:
    """Take a person out of the log: what it calls them (LABEL), and the addresses they came from.

    The entries stay and can be proven as before; they name nobody any more. This cannot be undone.

    Where they signed in from goes too, if their account is still there or has acted in this log under that
    name. Of a contact's sign-in it does while the session is kept.

    Example: distribu audit erase-person bo@corner-shop.example --company acme
    """
    operating.sure("Erase this person from the log? It cannot be undone.", yes=yes)
    request = ErasePerson(label=label)
    showing.result(
        operating.operate(data_dir, company, lambda operator: operator.execute(request), realm=REALM)
    )
