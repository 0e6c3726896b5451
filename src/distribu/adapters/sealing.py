"""A notary on Ed25519 (RFC 8032), with a ring of keys."""

import base64
import binascii
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from distribu.adapters import verify_export
from distribu.application.ports import Examined, SealingKey
from distribu.domain.errors import Invalid
from distribu.domain.values import CompanyId, Secret


class Ed25519Notary:
    """Signs with the first key of the ring and knows heads signed with any: put a new one in front to rotate.

    Each key is 32 random bytes in url-safe base64.
    """

    def __init__(self, ring: Sequence[Secret]) -> None:
        keys = [private_key(secret) for secret in ring]
        self._signing = keys[0]
        self._public = {verify_export.key_id(raw): raw for raw in (_raw(key) for key in keys)}

    @property
    def keys(self) -> Sequence[SealingKey]:
        return [SealingKey(id, base64.b64encode(raw).decode()) for id, raw in self._public.items()]

    def sign(self, text: bytes) -> str:
        return base64.b64encode(self._signing.sign(text)).decode()

    def examine(self, company_id: CompanyId, kept: str | None) -> "_Examination":
        try:
            head = None if kept is None else verify_export.read_head(kept)
        except ValueError as wrong:
            raise Invalid("invalid_request", fields={"head": str(wrong)}) from None
        inspection = verify_export.Inspection(self._public, kept=head, company_id=company_id)
        if inspection.unfit is not None:
            raise Invalid("invalid_request", fields={"head": f"{inspection.unfit}: --company?"})
        return _Examination(inspection)


class _Examination:
    """The offline verifier at work on the store's own export."""

    def __init__(self, inspection: verify_export.Inspection) -> None:
        self._inspection = inspection

    def read(self, line: bytes) -> None:
        self._inspection.read(line)

    def verdict(self) -> Examined:
        inspection = self._inspection
        inspection.finish()
        findings = [(it.kind, it.what) for it in inspection.findings]
        if inspection.more:
            findings.append(("more", f"{inspection.more} findings are not shown"))
        return Examined(inspection.records, inspection.heads, inspection.nameless, findings)


def private_key(secret: Secret) -> Ed25519PrivateKey:
    """A key of the ring. Raises `ValueError` for what is none."""
    try:
        raw = base64.urlsafe_b64decode(secret.reveal())
    except (binascii.Error, UnicodeEncodeError):
        raise ValueError("no base64") from None
    return Ed25519PrivateKey.from_private_bytes(raw)


def _raw(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()
