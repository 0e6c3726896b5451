"""No secret is in the repository: every file of it is read for what keys look like.

Known scanners miss ours: a `dk_` key in a command to paste, or a `whsec_` one, is nothing to them.
"""

import random
import re
import string
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

KEYS = {
    "API key of ours": r"\bdk_[A-Za-z0-9_-]{43}",
    "webhook secret, ours or Stripe's": r"\bwhsec_[A-Za-z0-9+/]{32}",
    "Stripe key": r"\b[sr]k_(?:live|test)_[A-Za-z0-9]{24}",
    "Resend key": r"\bre_[A-Za-z0-9]{8}_[A-Za-z0-9]{20}",
    "vault key": r"(?<![\w+/-])(?<!\bv1,)(?<!\bv1a,)[A-Za-z0-9_-]{43}=(?![\w=+/-])",  # no webhook's signature
    "JWT": r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{20,}",
    "AWS key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60})",
    "Slack token": r"\bxox[abprs]-[A-Za-z0-9-]{20}",
    "private key": r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY( BLOCK)?-----\s+[A-Za-z0-9+/=:, -]{20}",
}
PLAIN = 10
"""What has fewer different characters than this stands for a key and is none: ``dk_xxx…``."""


def found_in(text: str) -> Iterator[tuple[str, int]]:
    """What kind of key is in a text, and in which line. The key itself is not told: this ends in a log."""
    for kind, pattern in KEYS.items():
        for found in re.finditer(pattern, text):
            if len(set(found[0])) >= PLAIN:
                yield kind, text.count("\n", 0, found.start()) + 1


def files() -> list[Path]:
    """What is in the repository or would be with the next commit."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout")
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout.decode()
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def test_no_secret_is_in_the_repository() -> None:
    read = files()
    assert len(read) > 100
    found = [
        f"{path.relative_to(ROOT)}:{line} holds a {kind}"
        for path in read
        for kind, line in found_in(path.read_bytes().decode("latin-1"))
    ]
    assert found == []


def drawn(letters: str, length: int) -> str:
    return "".join(random.Random(length).choices(letters, k=length))


ALNUM = string.ascii_letters + string.digits
PLANTED = {
    "API key of ours": "dk_" + drawn(ALNUM + "_-", 43),
    "webhook secret, ours or Stripe's": "whsec_" + drawn(ALNUM, 32),
    "Stripe key": "rk_live_" + drawn(ALNUM, 99),
    "Resend key": f"re_{drawn(ALNUM, 8)}_{drawn(ALNUM, 24)}",
    "vault key": drawn(ALNUM + "_-", 43) + "=",
    "JWT": ".".join(["eyJ" + drawn(ALNUM, 33), "eyJ" + drawn(ALNUM, 40), drawn(ALNUM, 43)]),
    "AWS key": "AKIA" + drawn(string.ascii_uppercase + string.digits, 16),
    "GitHub token": "ghp_" + drawn(ALNUM, 36),
    "Slack token": "xoxb-" + drawn(string.digits, 30),
    "private key": "-----BEGIN " + "RSA PRIVATE KEY-----\n" + drawn(ALNUM, 64),
}
PLACES = [
    'KEY = "{}"\n',
    "export KEY={}\n",
    'curl https://distribu.example -H "Authorization: Bearer {}"\n',
    "database:\n  password: {} # rotate\n",
    "x={}&y=2",
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", KEYS)
def test_a_secret_is_seen_wherever_it_stands(kind: str, place: str) -> None:
    assert (kind, 3) in found_in("# a file\n\n" + place.replace("\n  ", " ").format(PLANTED[kind]))


def test_what_stands_for_a_key_is_none() -> None:
    told = ["dk_…", "dk_" + "x" * 43, "sk_test_123", "whsec_" + "A" * 32, "a" * 64, "re_compiled_pattern"]
    assert [*found_in("\n".join(told))] == []
