"""What is promised of apps and passkeys."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from distribu import Refused, Secret
from distribu.application.ports import Authenticators
from distribu.domain.factors import Passkey
from tests.authenticator import Device, b64, code_of

NOW = datetime(2026, 1, 5, 9, 0, 7, tzinfo=UTC)
CHALLENGE = bytes(range(32))
USER = "019b8d62-7a80-72d3-a65e-24ec636a8a1e"

# RFC 6238, appendix B: the secret "12345678901234567890" and the last six of its eight digits.
SECRET = Secret("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ")
VECTORS = [(59, "287082"), (1111111109, "081804"), (1111111111, "050471"), (1234567890, "005924")]


class AuthenticatorsContract:
    """Fixture ``authenticators``, for a site at http://localhost:8000."""

    # --- apps ----------------------------------------------------------------------------------

    @pytest.mark.parametrize(("at", "code"), VECTORS)
    def test_a_code_is_that_of_its_step(self, authenticators: Authenticators, at: int, code: str) -> None:
        moment = datetime.fromtimestamp(at, UTC)
        assert authenticators.app_step(SECRET, code, at=moment) == at // 30
        assert authenticators.app_step(SECRET, f" {code[:3]} {code[3:]} ", at=moment) == at // 30

    def test_a_code_is_right_one_step_before_and_after_and_no_longer(
        self, authenticators: Authenticators
    ) -> None:
        code, step = code_of(SECRET.reveal(), NOW), int(NOW.timestamp()) // 30
        steps = {
            away: authenticators.app_step(SECRET, code, at=NOW + timedelta(seconds=30 * away))
            for away in (-2, -1, 0, 1, 2)
        }
        assert steps == {-2: None, -1: step, 0: step, 1: step, 2: None}

    @pytest.mark.parametrize(
        "code", ["", "12345", "1234567", "28708\uff12", "abcdef", "-87082", "+87082", "2 8 7"]
    )
    def test_what_is_no_code_is_wrong(self, authenticators: Authenticators, code: str) -> None:
        assert authenticators.app_step(SECRET, code, at=datetime.fromtimestamp(59, UTC)) is None

    def test_the_link_says_whose_secret_it_is(self, authenticators: Authenticators) -> None:
        link = urlsplit(authenticators.app_link(SECRET, "ada+x@acme.example"))
        assert (link.scheme, link.netloc) == ("otpauth", "totp")
        assert parse_qs(link.query) == {"secret": [SECRET.reveal()], "issuer": ["Distribu"]}

    # --- passkeys ------------------------------------------------------------------------------

    def asked(self, authenticators: Authenticators) -> dict[str, Any]:
        return authenticators.registration(user_id=USER, account="a@b.example", known=(), challenge=CHALLENGE)

    def registered(self, authenticators: Authenticators, device: Device) -> Passkey:
        asked = authenticators.registration(
            user_id=USER, account="a@b.example", known=(), challenge=CHALLENGE
        )
        id, public_key, uses = authenticators.registered(device.register(asked), challenges=[CHALLENGE])
        return Passkey(id=id, public_key=public_key, uses=uses, name="x", added_at=NOW)

    def test_a_passkey_is_registered_and_signs(self, authenticators: Authenticators) -> None:
        device = Device()
        passkey = self.registered(authenticators, device)
        assert (passkey.id, passkey.uses) == (b64(device.id), 0)
        asked = authenticators.assertion(known=[passkey.id], challenge=CHALLENGE)
        answer = device.sign(asked)
        assert authenticators.asserted(answer) == passkey.id
        assert authenticators.proven(answer, passkey, challenges=[b"x" * 32, CHALLENGE]) == 1

    def test_the_questions_are_those_of_the_standard(self, authenticators: Authenticators) -> None:
        asked = authenticators.registration(
            user_id=USER, account="a@b.example", known=["aGVsbG8"], challenge=CHALLENGE
        )
        assert asked["rp"] == {"id": "localhost", "name": "Distribu"}
        assert asked["user"]["name"] == "a@b.example"
        assert asked["challenge"] == b64(CHALLENGE)
        assert [one["id"] for one in asked["excludeCredentials"]] == ["aGVsbG8"]
        assert {one["alg"] for one in asked["pubKeyCredParams"]} >= {-7, -257}
        asked = authenticators.assertion(known=["aGVsbG8"], challenge=CHALLENGE)
        assert (asked["rpId"], asked["challenge"]) == ("localhost", b64(CHALLENGE))
        assert [one["id"] for one in asked["allowCredentials"]] == ["aGVsbG8"]

    @pytest.mark.parametrize(
        "instead",
        [
            {"origin": "http://localhost:8001"},
            {"origin": "https://evil.example"},
            {"site": "evil.example"},
            {"challenge": b64(b"another" * 4)},
            {"type": "webauthn.create"},
            {"key": ec.generate_private_key(ec.SECP256R1())},
            {"flags": 0x00},
            {"counts": 0},
        ],
        ids=lambda instead: "another key" if "key" in instead else str(instead),
    )
    def test_what_was_signed_elsewhere_or_by_another_is_refused(
        self, authenticators: Authenticators, instead: dict[str, Any]
    ) -> None:
        device = Device(uses=7)
        passkey = self.registered(authenticators, device)
        asked = authenticators.assertion(known=[passkey.id], challenge=CHALLENGE)
        with pytest.raises(Refused) as no:
            authenticators.proven(device.sign(asked, **instead), passkey, challenges=[CHALLENGE])
        assert no.value.code == "wrong_code"

    @pytest.mark.parametrize(
        "instead",
        [
            {"origin": "http://localhost:8001"},
            {"site": "evil.example"},
            {"challenge": b64(b"another" * 4)},
            {"type": "webauthn.get"},
            {"flags": 0x40},
        ],
        ids=str,
    )
    def test_a_passkey_of_another_site_or_question_is_not_registered(
        self, authenticators: Authenticators, instead: dict[str, Any]
    ) -> None:
        asked = authenticators.registration(
            user_id=USER, account="a@b.example", known=(), challenge=CHALLENGE
        )
        with pytest.raises(Refused) as no:
            authenticators.registered(Device().register(asked, **instead), challenges=[CHALLENGE])
        assert no.value.code == "wrong_code"

    @pytest.mark.parametrize(
        "answer",
        ["", "{}", "[]", "null", "7", '"x"', "[" * 9000, '{"id":7}', '{"id":"x","rawId":"é","response":{}}'],
    )
    def test_whatever_a_browser_sends_it_is_refused_and_no_bug(
        self, authenticators: Authenticators, answer: str
    ) -> None:
        passkey = self.registered(authenticators, Device())
        assert authenticators.asserted(answer) in (None, "x")
        for attempt in (
            lambda: authenticators.registered(answer, challenges=[CHALLENGE]),
            lambda: authenticators.proven(answer, passkey, challenges=[CHALLENGE]),
        ):
            with pytest.raises(Refused) as no:
                attempt()
            assert no.value.code == "wrong_code"

    def test_an_altered_answer_is_refused(self, authenticators: Authenticators) -> None:
        device = Device()
        passkey = self.registered(authenticators, device)
        asked = authenticators.assertion(known=[passkey.id], challenge=CHALLENGE)
        answer = json.loads(device.sign(asked))
        for part, text in answer["response"].items():
            wrong = {**answer, "response": {**answer["response"], part: text[:20] + "AAAA" + text[24:]}}
            with pytest.raises(Refused):
                authenticators.proven(json.dumps(wrong), passkey, challenges=[CHALLENGE])
