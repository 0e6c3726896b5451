"""What people hold in their hands: an app that gives codes, and a device with passkeys (WebAuthn level 3)."""

import hashlib
import json
import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import cbor2
import pyotp
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec


def code_of(secret: str, at: datetime) -> str:
    """What an app shows at a time."""
    return pyotp.TOTP(secret).at(int(at.timestamp()))


def b64(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode().rstrip("=")


def unb64(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass
class Device:
    """An authenticator with one passkey, in a browser that is at a page of ``origin``."""

    origin: str = "http://localhost:8000"
    site: str = "localhost"
    uses: int = 0
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    id: bytes = field(default_factory=lambda: os.urandom(32))

    def register(self, options: dict[str, Any], **instead: Any) -> str:
        """The browser's answer to a question for a new passkey; ``instead`` replaces parts of it."""
        numbers = self.key.public_key().public_numbers()
        public = {1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32, "big"), -3: numbers.y.to_bytes(32, "big")}
        made = bytes(16) + len(self.id).to_bytes(2, "big") + self.id + cbor2.dumps(public)
        data = self._authenticator(0x41, made, instead)
        attested = cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data})
        client = self._client("webauthn.create", options, instead)
        return self._answer({"clientDataJSON": b64(client), "attestationObject": b64(attested)})

    def sign(self, options: dict[str, Any], **instead: Any) -> str:
        """The browser's answer to a question for a passkey; ``instead`` replaces parts of it."""
        self.uses += instead.get("counts", 1)
        data = self._authenticator(0x01, b"", instead)
        client = self._client("webauthn.get", options, instead)
        signed = instead.get("key", self.key).sign(
            data + hashlib.sha256(client).digest(), ec.ECDSA(hashes.SHA256())
        )
        return self._answer(
            {"clientDataJSON": b64(client), "authenticatorData": b64(data), "signature": b64(signed)}
        )

    def _authenticator(self, flags: int, more: bytes, instead: dict[str, Any]) -> bytes:
        site = hashlib.sha256(instead.get("site", self.site).encode()).digest()
        return site + bytes([instead.get("flags", flags)]) + self.uses.to_bytes(4, "big") + more

    def _client(self, kind: str, options: dict[str, Any], instead: dict[str, Any]) -> bytes:
        said = {
            "type": instead.get("type", kind),
            "challenge": instead.get("challenge", options["challenge"]),
            "origin": instead.get("origin", self.origin),
            "crossOrigin": False,
        }
        return json.dumps(said).encode()

    def _answer(self, response: dict[str, str]) -> str:
        id = b64(self.id)
        return json.dumps(
            {"id": id, "rawId": id, "type": "public-key", "response": response, "clientExtensionResults": {}}
        )
