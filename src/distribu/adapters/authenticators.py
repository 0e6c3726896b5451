"""Implements the port Authenticators with pyotp (RFC 6238) and py_webauthn (WebAuthn level 3)."""

import json
import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from ipaddress import ip_address
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from distribu.domain.errors import Refused
from distribu.domain.factors import Passkey
from distribu.domain.values import Secret

log: Final = logging.getLogger("distribu.authenticators")

T = TypeVar("T")

STEP_S: Final = 30
NAME: Final = "Distribu"


class SiteAuthenticators:
    """Apps and passkeys of one site. The libraries take a tenth of a second, so that they come when needed.

    ``url`` is where people reach it. A passkey belongs to a name and not to an address: on a loopback
    address it is that of ``localhost``.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        host = parts.hostname or "localhost"
        if _is_loopback(host):
            host = "localhost"
        port = f":{parts.port}" if parts.port else ""
        self.site = host
        self.origin = f"{parts.scheme}://{host}{port}"

    def app_link(self, secret: Secret, account: str) -> str:
        import pyotp

        return pyotp.TOTP(secret.reveal()).provisioning_uri(name=account, issuer_name=NAME)

    def app_step(self, secret: Secret, code: str, *, at: datetime) -> int | None:
        import pyotp

        digits = "".join(code.split())
        if len(digits) != 6 or not (digits.isascii() and digits.isdecimal()):
            return None
        totp, now = pyotp.TOTP(secret.reveal()), int(at.timestamp()) // STEP_S
        fitting = [step for step in (now - 1, now, now + 1) if totp.verify(digits, for_time=step * STEP_S)]
        return fitting[-1] if fitting else None

    def registration(
        self, *, user_id: str, account: str, known: Sequence[str], challenge: bytes
    ) -> dict[str, Any]:
        import webauthn
        from webauthn.helpers.structs import PublicKeyCredentialDescriptor

        options = webauthn.generate_registration_options(
            rp_id=self.site,
            rp_name=NAME,
            user_id=user_id.encode(),
            user_name=account,
            challenge=challenge,
            exclude_credentials=[
                PublicKeyCredentialDescriptor(id=webauthn.base64url_to_bytes(one)) for one in known
            ],
        )
        return _decoded(webauthn.options_to_json(options))

    def registered(self, answer: str, *, challenges: Sequence[bytes]) -> tuple[str, bytes, int]:
        import webauthn

        made = _first(
            challenges,
            lambda challenge: webauthn.verify_registration_response(
                credential=answer,
                expected_challenge=challenge,
                expected_rp_id=self.site,
                expected_origin=self.origin,
            ),
        )
        id = webauthn.helpers.bytes_to_base64url(made.credential_id)
        return id, made.credential_public_key, made.sign_count

    def assertion(self, *, known: Sequence[str], challenge: bytes) -> dict[str, Any]:
        import webauthn
        from webauthn.helpers.structs import PublicKeyCredentialDescriptor

        options = webauthn.generate_authentication_options(
            rp_id=self.site,
            challenge=challenge,
            allow_credentials=[
                PublicKeyCredentialDescriptor(id=webauthn.base64url_to_bytes(one)) for one in known
            ],
        )
        return _decoded(webauthn.options_to_json(options))

    def asserted(self, answer: str) -> str | None:
        try:
            id = json.loads(answer)["id"]
        except (ValueError, LookupError, TypeError, RecursionError):
            return None
        return id if isinstance(id, str) else None

    def proven(self, answer: str, passkey: Passkey, *, challenges: Sequence[bytes]) -> int:
        import webauthn

        return _first(
            challenges,
            lambda challenge: webauthn.verify_authentication_response(
                credential=answer,
                expected_challenge=challenge,
                expected_rp_id=self.site,
                expected_origin=self.origin,
                credential_public_key=passkey.public_key,
                credential_current_sign_count=passkey.uses,
            ),
        ).new_sign_count


def _first(challenges: Sequence[bytes], check: Callable[[bytes], T]) -> T:
    """What the check says for the first challenge that it holds for. Raises `Refused` (wrong_code).

    Whatever the library chokes on is a wrong answer: it was made by whoever sent it.
    """
    for challenge in challenges:
        try:
            return check(challenge)
        except Exception as wrong:
            log.debug("a passkey's answer was refused: %s", type(wrong).__name__)
    raise Refused("wrong_code")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback or ip_address(host).is_unspecified
    except ValueError:
        return False


def _decoded(text: str) -> dict[str, Any]:
    options: dict[str, Any] = json.loads(text)
    return options
