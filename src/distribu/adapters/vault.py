"""A vault on Fernet (AES-128-CBC and HMAC-SHA256) with a ring of keys."""

from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from distribu.domain.errors import Bug
from distribu.domain.values import Secret


class FernetVault:
    """Seals with the first key of the ring and opens with any: put a new one in front to rotate."""

    def __init__(self, keys: Sequence[Secret]) -> None:
        self._ring = MultiFernet([Fernet(key.reveal()) for key in keys])

    def seal(self, secret: Secret) -> str:
        return self._ring.encrypt(secret.reveal().encode()).decode()

    def open(self, sealed: str) -> Secret:
        try:
            return Secret(self._ring.decrypt(sealed.encode()).decode())
        except InvalidToken:
            raise Bug("this was not sealed under a key of the ring, or was altered") from None
