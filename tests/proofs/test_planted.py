"""Planted mistakes: each is put into a copy of the source, and the suite has to notice it.

A test that cannot fail proves nothing. What is listed here are mistakes that are easily made, most of
them shipped by somebody once; beside each stand the tests that are to turn red.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COPIED = (
    "src",
    "tests",
    "docs",
    "README.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "Makefile",
    "pyproject.toml",
    "requirements.txt",
    ".ci",
)
ADAPTERS = "src/distribu/adapters"
APPLICATION = "src/distribu/application"
HTTP = "src/distribu/entrypoints/http"
DOMAIN = "src/distribu/domain"
SQL = f"{ADAPTERS}/postgres/migrations/versions/0001_core.sql"
UNIT = "tests/unit"
TWINS = "tests/unit/test_contracts.py"
REAL = "tests/integration/test_contracts.py"
SHAPE = "tests/unit/test_architecture.py"
USES = "tests/unit/test_use_cases.py"
WALLS = "tests/integration/test_walls.py"
CLAIMS = "tests/integration/test_claims.py"
GUARD = "tests/unit/test_guard.py"
TAMPERING = "tests/integration/test_tampering.py"


@dataclass(frozen=True, slots=True)
class Change:
    """A text of a file and what stands there instead: wherever it stands, and it must."""

    file: str
    found: str
    instead: str

    def plant(self, root: Path) -> None:
        path = root / self.file
        text = path.read_text()
        assert self.found in text, f"{self.file} does not hold {self.found!r}"
        path.write_text(text.replace(self.found, self.instead))


@dataclass(frozen=True, slots=True)
class Mistake:
    """``where`` and ``words`` choose the tests that are to notice, as pytest's arguments and its -k."""

    name: str
    changes: tuple[Change, ...]
    where: str
    words: str


_TENANT = "company_id = nullif(current_setting('app.company_id', true), '')::uuid"
_COMPANY_LEFT_OUT = Change(
    f"{ADAPTERS}/postgres/mapping.py", "own = table.c.company_id == COMPANY", "own = sa.true()"
)
_OPEN_PRODUCTS = Change(
    SQL,
    f"CREATE POLICY own ON distribu.products TO distribu_tenant\n    USING ({_TENANT})\n"
    f"    WITH CHECK ({_TENANT});",
    "CREATE POLICY own ON distribu.products TO distribu_tenant\n    USING (true)\n    WITH CHECK (true);",
)
_EXECUTOR_LOOKS_AWAY = Change(
    f"{APPLICATION}/kernel.py", "if entity.company_id != self.company_id:", "if False:"
)

MISTAKES = (
    # who sees what
    Mistake(
        "both walls between companies are down",
        (_COMPANY_LEFT_OUT, _OPEN_PRODUCTS),
        REAL,
        "stranger or TestPostgresFinders",
    ),
    Mistake(
        "row-level security is off for one table",
        (Change(SQL, "ALTER TABLE distribu.products FORCE ROW LEVEL SECURITY;\n", ""),),
        REAL,
        "test_twenty_buyers",
    ),
    Mistake(
        "the policy of one table lets everybody in",
        (_OPEN_PRODUCTS,),
        WALLS,
        "wall or apart",
    ),
    Mistake(
        "the application forgets whose rows it asks for",
        (_COMPANY_LEFT_OUT,),
        WALLS,
        "wall or apart",
    ),
    Mistake(
        "an insert for another company is let through by executor and twin",
        (
            _EXECUTOR_LOOKS_AWAY,
            Change(
                f"{ADAPTERS}/memory/store.py",
                "if entity.company_id != self.scope.company_id or not (self.visible(entity) or unseen):",
                "if not (self.visible(entity) or unseen):",
            ),
        ),
        TWINS,
        "another_companys or takes_no_entity",
    ),
    Mistake(
        "an insert for another company is let through by executor and database",
        (_EXECUTOR_LOOKS_AWAY, _OPEN_PRODUCTS),
        REAL,
        "another_companys or takes_no_entity",
    ),
    Mistake(
        "the executor asks for no permission",
        (Change(f"{APPLICATION}/kernel.py", "        actor.require(request.needs)\n", ""),),
        USES,
        "let_in",
    ),
    Mistake(
        "a contact sees every customer's rows",
        (
            Change(
                f"{ADAPTERS}/memory/store.py",
                "if self.scope.customer_id is None or isinstance(entity, (Company, Product)):",
                "if True:",
            ),
        ),
        TWINS,
        "contact",
    ),
    Mistake(
        "a revoked key still opens",
        (
            Change(
                f"{ADAPTERS}/postgres/writing.py", ".values(revoked=sa.true())", ".values(revoked=sa.false())"
            ),
        ),
        "tests/integration",
        "revoked",
    ),
    # races
    Mistake(
        "nothing is locked",
        (
            Change(
                f"{ADAPTERS}/postgres/reading.py",
                "Statement(query.with_for_update(key_share=True))",
                "Statement(query)",
            ),
        ),
        REAL,
        "twenty_buyers",
    ),
    Mistake(
        "a stale version is ignored",
        (Change(f"{ADAPTERS}/postgres/mapping.py", "else_=stale)", "else_=1)"),),
        REAL,
        "version",
    ),
    Mistake(
        "the twin ignores a stale version",
        (
            Change(
                f"{ADAPTERS}/memory/store.py",
                "if (stored.version if stored else 0) != entity.version - 1:",
                "if False:",
            ),
        ),
        TWINS,
        "version",
    ),
    Mistake(
        "If-Match is ignored",
        (Change(f"{DOMAIN}/entity.py", "if version is not None and version != self.version:", "if False:"),),
        UNIT,
        "match or version or precondition",
    ),
    Mistake(
        "a deadlock is not tried again",
        (Change(f"{APPLICATION}/kernel.py", "TRIES: Final = 4", "TRIES: Final = 1"),),
        REAL,
        "opposite_orders or run_again",
    ),
    Mistake(
        "credit is checked by the domain alone",
        (Change(f"{ADAPTERS}/postgres/mapping.py", 'guards={"credit_used": _within_credit},', ""),),
        REAL,
        "credit",
    ),
    Mistake(
        "twins of a request do not wait for each other",
        (
            Change(
                f"{ADAPTERS}/postgres/store.py",
                "pg_advisory_xact_lock(hashtextextended(:twin, 0))",
                "length(:twin)",
            ),
        ),
        REAL,
        "twin",
    ),
    Mistake(
        "two relays give the same positions",
        (
            Change(
                f"{ADAPTERS}/postgres/forgetting.py",
                "ON CONFLICT (company_id) DO UPDATE SET position = feed_heads.position RETURNING position",
                "ON CONFLICT (company_id) DO NOTHING RETURNING position",
            ),
        ),
        REAL,
        "relay or position or numbered",
    ),
    Mistake(
        "a claim holds nothing",
        (
            Change(
                f"{ADAPTERS}/postgres/queue.py",
                "SET claimed_until = %(until)s",
                "SET claimed_until = %(now)s",
            ),
        ),
        REAL,
        "claim",
    ),
    # all or nothing
    Mistake(
        "the twin leaks what is rolled back",
        (Change(f"{ADAPTERS}/memory/store.py", "shelf = self.shelf.copy()", "shelf = self.shelf"),),
        TWINS,
        "leaves",
    ),
    Mistake(
        "the twin spends a number on what is refused",
        (
            Change(
                f"{ADAPTERS}/memory/store.py",
                "number = shelf.last_number = shelf.last_number + 1",
                "number = shelf.last_number = self.shelf.last_number = shelf.last_number + 1",
            ),
        ),
        TWINS,
        "number",
    ),
    Mistake(
        "numbers begin with a gap",
        (Change(f"{ADAPTERS}/postgres/writing.py", "last=FIRST_NUMBER - 1", "last=FIRST_NUMBER"),),
        REAL,
        "number or counts",
    ),
    Mistake(
        "the answer under a key is not kept",
        (
            Change(
                f"{ADAPTERS}/postgres/store.py",
                "calls.append(self._keep(answer, self.once, bool(numbered)))",
                "self._keep(answer, self.once, bool(numbered))",
            ),
        ),
        REAL,
        "key or twin",
    ),
    Mistake(
        "a key answers for another request",
        (Change(f"{APPLICATION}/kernel.py", "if answer.fingerprint != key.fingerprint:", "if False:"),),
        TWINS,
        "reused",
    ),
    Mistake(
        "a change without a record is written",
        (
            Change(
                f"{APPLICATION}/ports.py",
                "if any(id(event) not in told for change in changes for event in change.after.events):",
                "if False:",
            ),
        ),
        TWINS,
        "without_a_record",
    ),
    # what a constraint means
    *(
        Mistake(
            f"the constraint {constraint} is not translated",
            (
                Change(
                    f"{ADAPTERS}/postgres/refusals.py",
                    f'    "{constraint}": lambda:',
                    f'    "{constraint}_": lambda:',
                ),
            ),
            f"{SHAPE} {REAL}",
            words,
        )
        for constraint, words in (
            ("products_stock", "constraint_that_is_named or stock_below"),
            ("customers_email", "email_is_unique"),
            ("products_sku_key", "sku_is_unique"),
            ("customers_credit", "credit_over"),
            ("orders_currency", "currency"),
            ("order_lines_product", "not_found"),
        )
    ),
    # what the world is told
    Mistake(
        "an event is forgotten by the reactions",
        (Change(f"{APPLICATION}/reactions.py", '    ordering.OrderPlaced: ("order.created",),\n', ""),),
        SHAPE,
        "event",
    ),
    Mistake(
        "events are not put into the outbox",
        (Change(f"{ADAPTERS}/postgres/writing.py", "    if messages:\n", "    if not records:\n"),),
        REAL,
        "filled_in or moved_once or event",
    ),
    Mistake(
        "an event tells the state before the change",
        (
            Change(
                f"{APPLICATION}/recording.py",
                "views.encode(views.of(entity))",
                "views.encode(views.of(change.before or entity))",
            ),
        ),
        USES,
        "event or payload or webhook or frozen or told",
    ),
    Mistake(
        "the wrong bytes are signed",
        (
            Change(
                f"{APPLICATION}/delivering.py",
                "signature(secrets[0], body)",
                'signature(secrets[0], body + b"\\n")',
            ),
        ),
        USES,
        "signatures",
    ),
    Mistake(
        "the time is not signed",
        (Change(f"{DOMAIN}/webhooks.py", 'f"{id}.{timestamp_s}.".encode()', 'f"{id}.".encode()'),),
        USES,
        "signatures",
    ),
    Mistake(
        "the old secret is silent during its grace",
        (
            Change(
                f"{APPLICATION}/delivering.py",
                "if parcel.old_secret and parcel.grace_expires_at and now < parcel.grace_expires_at:",
                "if False:",
            ),
        ),
        USES,
        "rotation or both_secrets",
    ),
    Mistake(
        "the old secret signs for ever",
        (Change(f"{APPLICATION}/delivering.py", " and now < parcel.grace_expires_at:", ":"),),
        USES,
        "rotation or both_secrets",
    ),
    Mistake(
        "a redirect is followed",
        (Change(f"{ADAPTERS}/hooks.py", "allow_redirects=False", "allow_redirects=True"),),
        REAL,
        "redirect",
    ),
    # who receives
    Mistake(
        "an event carries less than the order of the API",
        (
            Change(
                f"{APPLICATION}/recording.py",
                "payload = views.encode(views.of(entity)).decode()",
                'payload = views.encode({"id": entity.id}).decode()',
            ),
        ),
        USES,
        "as_published or to_the_byte",
    ),
    Mistake(
        "a field that is published is renamed",
        (
            Change(f"{APPLICATION}/views.py", "tracking_number", "tracking_code"),
            Change(f"{APPLICATION}/views.py", "it.tracking_code", "it.tracking_number"),
        ),
        f"{UNIT}/test_events.py",
        "breaks_no_reader",
    ),
    Mistake(
        "how old a delivery is does not matter",
        (Change(f"{APPLICATION}/receiving.py", "if age > TOLERANCE:", "if False:"),),
        f"{UNIT}/test_receiving.py",
        "verdict_on_each_vector",
    ),
    Mistake(
        "a signature is compared as far as it is given",
        (
            Change(
                f"{APPLICATION}/receiving.py",
                'return compare_digest(made.encode(), given.encode("utf-8", "replace"))',
                "return made.startswith(given) and compare_digest(b'', b'')",
            ),
        ),
        f"{UNIT}/test_receiving.py",
        "verdict_on_each_vector",
    ),
    Mistake(
        "a forged delivery that is taken is no mistake of the receiver's",
        (
            Change(
                "src/distribu/entrypoints/attack.py",
                "return _accepted(status) == case.genuine and not broke",
                "return not case.genuine or _accepted(status)",
            ),
        ),
        "tests/integration/test_attack.py",
        "every_mistake",
    ),
    # the trade
    Mistake(
        "a cancelled order is not restocked",
        (
            Change(
                f"{APPLICATION}/ordering.py",
                "work.save(products[line.product_id].put_back(",
                "str(products[line.product_id].put_back(",
            ),
        ),
        USES,
        "cancel",
    ),
    Mistake(
        "a cancelled order keeps its credit",
        (
            Change(
                f"{APPLICATION}/ordering.py",
                "            if order.balance:\n",
                "            if not order.id:\n",
            ),
        ),
        USES,
        "cancel",
    ),
    Mistake(
        "two lines of one product are checked one by one",
        (
            Change(
                f"{APPLICATION}/ordering.py",
                "wanted[item.product_id] = wanted.get(item.product_id, 0) + item.quantity",
                "wanted[item.product_id] = item.quantity",
            ),
        ),
        USES,
        "line",
    ),
    # the sealed log
    Mistake(
        "a leaf is hashed like a node",
        (Change(f"{DOMAIN}/sealing.py", 'b"\\x00" + text', "text"),),
        "tests/unit/test_merkle.py",
        "rfc_6962",
    ),
    Mistake(
        "a person's label and address are hashed without their lengths",
        (Change(f"{DOMAIN}/audit.py", "len(part).to_bytes(4) + part", "part"),),
        USES,
        "shifted_field",
    ),
    Mistake(
        "a head does not name the one before",
        (
            Change(
                f"{APPLICATION}/sealing.py",
                "previous=hashlib.sha256(signed_text(tip.head)).hexdigest() if tip else NO_HEAD",
                "previous=NO_HEAD",
            ),
        ),
        TWINS,
        "chained",
    ),
    Mistake(
        "the last head of a minute is never told",
        (
            Change(
                f"{ADAPTERS}/postgres/seals.py",
                "greatest(%(now)s, told_at + %(told_every)s)",
                "CASE WHEN coalesce(told_at + %(told_every)s <= %(now)s, true) THEN %(now)s END",
            ),
        ),
        REAL,
        "told_once_a_minute",
    ),
    Mistake(
        "a head that was kept is looked at and forgotten",
        (
            Change(
                f"{ADAPTERS}/verify_export.py",
                "if size > signed or newest < number:",
                "if size < 0:",
            ),
        ),
        TAMPERING,
        "tail",
    ),
    Mistake(
        "the root is not made again",
        (
            Change(
                f"{ADAPTERS}/verify_export.py",
                'self._tree.root() != head["root"]',
                "head is None",
            ),
        ),
        TAMPERING,
        "leaf or seals",
    ),
    Mistake(
        "a signature is not checked",
        (
            Change(
                f"{ADAPTERS}/verify_export.py",
                'key.verify(base64.b64decode(head["signature"], validate=True), text)',
                "pass",
            ),
        ),
        TAMPERING,
        "change",
    ),
    Mistake(
        "a record stands at a place that is no number",
        (
            Change(f"{ADAPTERS}/verify_export.py", ", parse_constant=_no_number)", ")"),
            Change(
                f"{ADAPTERS}/verify_export.py", "if type(value) is not int or value < 0:", "if value < 0:"
            ),
        ),
        USES,
        "that_is_none_proves_nothing",
    ),
    Mistake(
        "a part of the log passes for all of it",
        (Change(f"{ADAPTERS}/verify_export.py", "if self.whole is False:", "if self.whole == 0.5:"),),
        USES,
        "checked_against_no_head",
    ),
    Mistake(
        "a record that is in line twice stops whoever seals",
        (
            Change(
                f"{ADAPTERS}/postgres/seals.py",
                "                if position is None:\n                    new_ones",
                "                if seq:\n                    new_ones",
            ),
            Change(
                f"{ADAPTERS}/postgres/seals.py", "for _, id, body, position in", "for seq, id, body, _ in"
            ),
        ),
        TAMPERING,
        "put_in_line_again",
    ),
    Mistake(
        "sealing goes on from a head that was altered",
        (Change(f"{ADAPTERS}/postgres/seals.py", "tip is not None and not tip.sound", "tip is None and 0"),),
        TAMPERING,
        "goes_on",
    ),
    Mistake(
        "a page begins with the last item of the one before",
        (Change(f"{ADAPTERS}/postgres/reading.py", "by < cursor", "by <= cursor"),),
        REAL,
        "page_by_page or finds_each_item",
    ),
    # people
    Mistake(
        "a session cookie goes along from other sites",
        (Change(f"{HTTP}/cookies.py", "SameSite=Lax", "SameSite=None"),),
        CLAIMS,
        "session_cookies",
    ),
    Mistake(
        "a staff key signs for a store",
        (
            Change(
                f"{HTTP}/sessions.py",
                "self._read(token, self.keys.store, _audience(company_id))",
                "self._read(token, self.keys.store + self.keys.staff, _audience(company_id))",
            ),
        ),
        "tests/unit/test_sessions.py",
        "signature or place",
    ),
    Mistake(
        "nobody asks where a request comes from",
        (
            Change(
                f"{HTTP}/doors.py",
                "            same_origin(http, self.site)\n        return",
                "            pass\n        return",
            ),
        ),
        CLAIMS,
        "csrf",
    ),
    Mistake(
        "an address is let in before it is verified",
        (Change(f"{APPLICATION}/sessions.py", "if login.credentials.verified_at is None:", "if False:"),),
        CLAIMS,
        "email_verification",
    ),
    Mistake(
        "signing in tells an unknown address",
        (
            Change(
                f"{APPLICATION}/sessions.py",
                'raise Unauthenticated("wrong_credentials")\n        if login.cred',
                'raise Unauthenticated("wrong_credentials" if login else "suspended")\n        if login.cred',
            ),
        ),
        "tests/unit/test_sessions.py",
        "alike",
    ),
    Mistake(
        "a link to reset a password is good twice",
        (
            Change(
                f"{DOMAIN}/accounts.py",
                'PasswordChanged(how="reset"),\n            at=at,\n            tickets=(),',
                'PasswordChanged(how="reset"),\n            at=at,\n            tickets=self.tickets,',
            ),
        ),
        CLAIMS,
        "password_reset",
    ),
    Mistake(
        "a reset leaves sessions alone",
        (
            Change(
                f"{DOMAIN}/accounts.py",
                "verified_at=self.verified_at or at,\n            epoch=self.epoch + 1,",
                "verified_at=self.verified_at or at,\n            epoch=self.epoch,",
            ),
        ),
        USES,
        "reset",
    ),
    Mistake(
        "a forwarded header is read from the left",
        (Change(f"{HTTP}/client.py", "for hop in reversed(hops):", "for hop in hops:"),),
        "tests/unit/test_browser.py",
        "forwarded",
    ),
    Mistake(
        "an offer may be above one's own role",
        (
            Change(f"{DOMAIN}/team.py", "if by is not None and _RANK[by.role] < _RANK[role]:", "if False:"),
            Change(
                f"{DOMAIN}/team.py",
                '    if role is Role.OWNER:\n        raise Refused("owner_stays")\n    if False:',
                "    if False:",
            ),
        ),
        "tests/unit/test_privileges.py",
        "four_steps",
    ),
    Mistake(
        "what is not allowed counts as well",
        (
            Change(
                f"{ADAPTERS}/limiter.py",
                "        if allowed:\n            log.append(now)",
                "        log.append(now)",
            ),
        ),
        TWINS,
        "Limiter",
    ),
    Mistake(
        "a code of an app is taken twice",
        (
            Change(
                f"{DOMAIN}/factors.py",
                "if self.app is None or step <= self.app_step:",
                "if self.app is None:",
            ),
        ),
        USES,
        "code_is_taken_twice",
    ),
    Mistake(
        "a suspended company's keys still open",
        (
            Change(
                f"{DOMAIN}/access.py",
                "permissions=frozenset() if barred else self.scopes,",
                "permissions=self.scopes,",
            ),
        ),
        USES,
        "suspended",
    ),
    # where webhooks go
    Mistake(
        "a connection goes to any address",
        (
            Change(
                f"{ADAPTERS}/hooks.py",
                "if why := refusal(str(address[0]), loopback=self._loopback):",
                "if why := None:",
            ),
        ),
        GUARD,
        "socket_is_refused",
    ),
    Mistake(
        "of a name the first address alone is checked",
        (
            Change(f"{ADAPTERS}/hooks.py", "for address in found}", "for address in found[:1]}"),
            Change(
                f"{ADAPTERS}/hooks.py",
                "for address, why in refusals.items() if not why]",
                "for address in found]",
            ),
        ),
        GUARD,
        "public_addresses_alone",
    ),
    Mistake(
        "an address behind NAT64 is called public",
        (
            Change(f"{ADAPTERS}/guard.py", '    "64:ff9b::/96":', '    "64:ff9b:2::/96":'),
            Change(f"{ADAPTERS}/guard.py", '    "::/3":', '    "::/16":'),
        ),
        GUARD,
        "carries_another",
    ),
    Mistake(
        "a name is looked up to be checked, and again to be connected to",
        (
            Change(
                f"{ADAPTERS}/hooks.py",
                "        return [_resolved(host, address, port) for",
                "        refusals = dict.fromkeys(await self._found(host))\n"
                "        return [_resolved(host, address, port) for",
            ),
        ),
        GUARD,
        "what_was_checked",
    ),
    # who is paid
    Mistake(
        "what pays is believed for longer than it is remembered",
        (Change(f"{ADAPTERS}/stripe_words.py", "> TOLERANCE_S", "> TOLERANCE_S * 2"),),
        REAL,
        "TestStripePayments and five_minutes",
    ),
    Mistake(
        "the secret that is being replaced is forgotten",
        (
            Change(
                f"{ADAPTERS}/stripe.py", "for secret in self._secrets)", "for secret in self._secrets[:1])"
            ),
        ),
        REAL,
        "TestStripePayments and each_secret",
    ),
    Mistake(
        "the same checkout is another one each time",
        (Change(f"{ADAPTERS}/stripe.py", '{"idempotency_key": stripe_words.once(once, wanted)},', "{},"),),
        REAL,
        "TestStripePayments and asked_twice",
    ),
    Mistake(
        "who cannot pay for good keeps the plan",
        (
            Change(
                f"{ADAPTERS}/stripe_words.py",
                '"unpaid": SubscriptionStatus.CANCELED',
                '"unpaid": SubscriptionStatus.PAST_DUE',
            ),
        ),
        TWINS,
        "every_status or stays_refused",
    ),
    # jobs
    Mistake(
        "a job is claimed whatever it was due at",
        (
            Change(
                f"{ADAPTERS}/postgres/agenda.py",
                "AND due_at = %(due_at)s ",
                "AND %(due_at)s::timestamptz IS NOT NULL ",
            ),
        ),
        REAL,
        "hour_of_moved_clock",
    ),
    Mistake(
        "a job that somebody has is anybody's",
        (
            Change(
                f"{ADAPTERS}/postgres/agenda.py",
                "AND (claimed_until IS NULL OR claimed_until <= %(now)s)",
                "AND %(now)s::timestamptz IS NOT NULL",
            ),
        ),
        REAL,
        "TestPostgresAgenda and one_claims",
    ),
    Mistake(
        "each time that was missed is made up for",
        (
            Change(
                f"{APPLICATION}/jobs.py",
                "await job.action(distribu), job.after(began))",
                "await job.action(distribu), job.after(due_at))",
            ),
        ),
        TWINS,
        "catches_up_once",
    ),
    # what Stripe tells us
    Mistake(
        "what is kept counts as taken into account",
        (
            Change(
                f"{APPLICATION}/notices.py",
                "return notice is not None and notice.done, turn",
                "return notice is not None, turn",
            ),
        ),
        USES,
        "comes_again or ever_more_seldom",
    ),
    Mistake(
        "the last answer of Stripe counts, however old",
        (
            Change(
                f"{APPLICATION}/notices.py",
                "        if turn != self.turn:\n            return False\n",
                "",
            ),
        ),
        USES,
        "older_answer",
    ),
    Mistake(
        "one invoice is paid as often as Stripe tells of it",
        (
            Change(
                f"{APPLICATION}/notices.py",
                "and await work.notices.paid(told.invoice_ref)",
                "and False",
            ),
        ),
        USES,
        "two_events_of_one_invoice",
    ),
    Mistake(
        "all that waits is asked for while Stripe is away",
        (
            Change(
                f"{APPLICATION}/notices.py",
                "if not through:",
                "if not due:",
            ),
        ),
        USES,
        "a_few_are_asked_for",
    ),
    Mistake(
        "what Stripe told us is tried again without an end",
        (
            Change(
                f"{ADAPTERS}/postgres/queue.py",
                "(%(waits)s::interval[])[tries + 2]",
                "(%(waits)s::interval[])[2]",
            ),
        ),
        REAL,
        "stripe_told",
    ),
)


def _copy(root: Path) -> Path:
    root.mkdir(exist_ok=True)
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, root / name)
    return root


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of a run of tests. ``failed`` are their names."""

    code: int
    said: str
    seconds: float

    @property
    def failed(self) -> list[str]:
        return re.findall(r"^FAILED \S*?(\w+(?:\[.*?\])?)(?: - .*)?$", self.said, re.MULTILINE)

    @property
    def passed(self) -> int:
        found = re.search(r"(\d+) passed", self.said)
        return int(found[1]) if found else 0


def _run(root: Path, *arguments: str) -> Ran:
    began = time.perf_counter()
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("DISTRIBU_", "PYTEST_"))
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=root,
        env=kept | {"PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    return Ran(done.returncode, done.stdout[-20_000:] + done.stderr[-4_000:], time.perf_counter() - began)


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Path]:
    """A copy of the tree, to spoil."""
    root = _copy(tmp_path / "copy")
    yield root
    shutil.rmtree(root)


def test_without_a_mistake_all_of_it_is_green(copy: Path) -> None:
    """Every test that is to notice anything below passes in a copy that is left alone."""
    passed, took = 0, 0.0
    for where in sorted({mistake.where for mistake in MISTAKES}):
        words = " or ".join(sorted({f"({one.words})" for one in MISTAKES if one.where == where}))
        ran = _run(copy, *where.split(), "-k", words)
        assert ran.code == 0, ran.said
        passed, took = passed + ran.passed, took + ran.seconds
    print(f"\n{passed} tests green in {took:.0f} s")


def test_the_copy_is_what_is_run(copy: Path) -> None:
    (copy / "src/distribu/__init__.py").write_text("raise ZeroDivisionError\n")
    ran = _run(copy, UNIT, "-x")
    assert ran.code != 0
    assert "ZeroDivisionError" in ran.said


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name.replace(" ", "-"))
def test_a_mistake_is_noticed(mistake: Mistake, copy: Path) -> None:
    for change in mistake.changes:
        change.plant(copy)
    ran = _run(copy, *mistake.where.split(), "-k", mistake.words, "-x")
    refused = "refused to start" if "UnsafeRole" in ran.said else "not noticed"
    noticed = f"noticed by {ran.failed[0]}" if ran.failed else refused
    print(f"\n{mistake.name}: {noticed}, {ran.seconds:.1f} s")
    assert ran.code == 1, ran.said
    assert noticed != "not noticed", ran.said
