"""A vault on Fernet (AES-128-CBC and HMAC-SHA256) with a ring of keys."""

from collections.abc import Sequence
from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from distribu.domain.errors import Bug
from distribu.domain.values import Secret


class FernetVault:
    """Seals with the first key of the ring and opens with any: put a new one in front to rotate."""

    def __init__(self, keys: Sequence[Secret]) -> None:
        ring = [Fernet(key.reveal()) for key in keys]
        self._newest, self._ring = ring[0], MultiFernet(ring)
        # What is sent signs with the same few secrets; whoever can read this memory has the keys as well.
        self.open = lru_cache(maxsize=256)(self._open)

    def seal(self, secret: Secret) -> str:
        return self._ring.encrypt(secret.reveal().encode()).decode()

    def _open(self, sealed: str) -> Secret:
        try:
            return Secret(self._ring.decrypt(sealed.encode()).decode())
        except InvalidToken:
            raise Bug("this was not sealed under a key of the ring, or was altered") from None

    def anew(self, sealed: str) -> str | None:
        secret = self.open(sealed)
        try:
            self._newest.decrypt(sealed.encode())
        except InvalidToken:
            return self.seal(secret)
        return None
