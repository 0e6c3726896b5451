"""The passwords that are tried first: a list that comes along, from zxcvbn and Django.

What it is made of, and their licences, are beside it in ``common_passwords.LICENSE.txt``. Both count what
leaked passwords have in common. Shorter ones than 8 characters are left out: no rule lets them through.
"""

import gzip
from functools import lru_cache
from importlib.resources import files

from distribu.domain.passwords import canonical_password
from distribu.domain.values import Secret, folded


@lru_cache(maxsize=1)
def common_passwords() -> frozenset[str]:
    """All of them, folded. Read once: some 10 ms, and 2 MB that stay."""
    packed = files("distribu.adapters").joinpath("common_passwords.txt.gz").read_bytes()
    return frozenset(gzip.decompress(packed).decode().splitlines())


def is_common(password: Secret) -> bool:
    """Whether a password is among them, whatever its case."""
    return folded(canonical_password(password).reveal()) in common_passwords()
