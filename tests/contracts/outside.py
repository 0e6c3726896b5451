"""What the clock, randomness, the vault, the directory and the way out promise."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, timedelta
from typing import Protocol

import pytest

from distribu import Bug, Harness, Refused, Secret
from distribu.application.access import CreateApiKey, RevokeApiKey
from distribu.application.ports import Clock, Entropy, Hooks, Vault
from distribu.application.team import EditCompany
from distribu.domain.access import SCOPES, ApiKey, Permission
from distribu.domain.webhooks import BODY_KEPT


class ClockContract:
    """A fixture ``clock`` gives the adapter."""

    async def test_it_is_utc_in_whole_milliseconds(self, clock: Clock) -> None:
        for _ in range(50):
            now = clock.now()
            assert now.utcoffset() == timedelta(0)
            assert now.tzinfo is UTC
            assert now.microsecond % 1000 == 0

    async def test_it_does_not_run_backwards(self, clock: Clock) -> None:
        times = [clock.now() for _ in range(200)]
        assert times == sorted(times)

    async def test_what_has_elapsed_only_grows(self, clock: Clock) -> None:
        spans = [clock.elapsed() for _ in range(200)]
        assert spans == sorted(spans)


class EntropyContract:
    """A fixture ``entropy`` gives the adapter."""

    async def test_a_uuid_is_of_version_7_in_lower_case(self, entropy: Entropy) -> None:
        form = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
        assert all(form.fullmatch(entropy.uuid()) for _ in range(500))

    async def test_a_later_uuid_sorts_later(self, entropy: Entropy) -> None:
        ids = [entropy.uuid() for _ in range(5_000)]
        assert ids == sorted(ids)
        assert len(set(ids)) == len(ids)

    async def test_a_uuid_begins_with_the_time(self, entropy: Entropy, clock: Clock) -> None:
        stamp = int(entropy.uuid().replace("-", "")[:12], 16) / 1000
        assert abs(stamp - clock.now().timestamp()) < 5

    @pytest.mark.parametrize("size", [1, 16, 24, 32])
    async def test_bytes_are_as_many_as_asked_for_and_differ(self, entropy: Entropy, size: int) -> None:
        assert len(entropy.bytes(size)) == size
        assert len({entropy.bytes(16) for _ in range(200)}) == 200

    async def test_a_fraction_is_from_0_to_below_1(self, entropy: Entropy) -> None:
        drawn = [entropy.fraction() for _ in range(500)]
        assert all(0 <= one < 1 for one in drawn)
        assert min(drawn) < 0.2 < 0.8 < max(drawn)


class VaultContract:
    """Fixtures ``vault`` and ``another_vault`` give two adapters that share no key."""

    @pytest.mark.parametrize("text", ["whsec_abc", "", "ünïcödé \N{KEY}", "a" * 5_000, "line\nbreak\0"])
    async def test_what_was_sealed_opens_again(self, vault: Vault, text: str) -> None:
        opened = vault.open(vault.seal(Secret(text)))
        assert isinstance(opened, Secret)
        assert opened.reveal() == text

    async def test_ciphertext_does_not_tell_that_two_secrets_are_equal(self, vault: Vault) -> None:
        assert vault.seal(Secret("same")) != vault.seal(Secret("same"))

    async def test_ciphertext_does_not_show_the_secret(self, vault: Vault) -> None:
        assert "whsec_topsecret" not in vault.seal(Secret("whsec_topsecret"))

    async def test_what_was_altered_does_not_open(self, vault: Vault) -> None:
        sealed = vault.seal(Secret("whsec_topsecret"))
        for place in range(0, len(sealed.rstrip("=")) - 1, 7):
            other = "A" if sealed[place] != "A" else "B"
            with pytest.raises(Bug):
                vault.open(sealed[:place] + other + sealed[place + 1 :])

    @pytest.mark.parametrize("text", ["", "whsec_topsecret", "....", "ünï"])
    async def test_what_was_never_sealed_does_not_open(self, vault: Vault, text: str) -> None:
        with pytest.raises(Bug):
            vault.open(text)

    async def test_what_another_vault_sealed_does_not_open(self, vault: Vault, another_vault: Vault) -> None:
        another_vault.seal(Secret("one"))
        with pytest.raises(Bug):
            another_vault.open(vault.seal(Secret("other")))

    async def test_what_is_under_the_newest_key_is_left_as_it_is(self, vault: Vault) -> None:
        assert vault.anew(vault.seal(Secret("whsec_topsecret"))) is None

    async def test_what_does_not_open_is_not_sealed_anew(self, vault: Vault) -> None:
        with pytest.raises(Bug):
            vault.anew("whsec_topsecret")


class DirectoryContract:
    """Look-ups before a company is known."""

    async def test_a_key_is_found_by_its_digest_alone(self, shop: Harness) -> None:
        directory = shop.distribu.ports.directory
        until = shop.clock.now() + timedelta(days=1)
        scopes = (Permission.ORDERS_READ, Permission.PRODUCTS_READ)
        issued = await shop.execute(CreateApiKey(name="ERP", scopes=scopes, expires_at=until))
        grant = await directory.key(ApiKey.digest_of(issued.secret.reveal()))
        assert grant is not None
        assert (grant.company_id, grant.key_id, grant.name) == (shop.company.id, issued.what.id, "ERP")
        assert (grant.scopes, grant.expires_at, grant.revoked) == (frozenset(scopes), until, False)
        assert await directory.key(ApiKey.digest_of(issued.secret.reveal() + "x")) is None
        assert await directory.key(b"") is None

    async def test_a_revoked_key_is_known_as_revoked_at_once(self, shop: Harness) -> None:
        issued = await shop.execute(CreateApiKey(name="ERP", scopes=SCOPES))
        await shop.execute(RevokeApiKey(api_key_id=issued.what.id))
        grant = await shop.distribu.ports.directory.key(issued.what.digest)
        assert grant is not None
        assert grant.revoked

    async def test_an_expired_key_is_known_still(self, shop: Harness) -> None:
        until = shop.clock.now() + timedelta(seconds=1)
        issued = await shop.execute(CreateApiKey(name="ERP", scopes=SCOPES, expires_at=until))
        shop.clock.advance(days=400)
        grant = await shop.distribu.ports.directory.key(issued.what.digest)
        assert grant is not None
        assert grant.expires_at == until

    async def test_a_company_is_found_by_its_slug_and_by_its_old_ones(self, shop: Harness) -> None:
        directory = shop.distribu.ports.directory
        old = shop.company.slug
        await shop.execute(EditCompany(slug=f"new-{shop.company.id}"))
        assert await directory.company(f"new-{shop.company.id}") == shop.company.id
        assert await directory.company(old) == shop.company.id
        assert await directory.company("no-such-slug") is None

    async def test_a_company_can_take_its_old_slug_back(self, shop: Harness) -> None:
        old = shop.company.slug
        await shop.execute(EditCompany(slug=f"new-{shop.company.id}"))
        await shop.execute(EditCompany(slug=old))
        assert await shop.distribu.ports.directory.company(old) == shop.company.id


class Receiver(Protocol):
    """A machine of somebody else's."""

    url: str

    @property
    def received(self) -> Sequence[tuple[Mapping[str, str], bytes]]:
        """Headers and body of each request, in order."""
        ...

    def answers(self, status: int, body: str = "", **headers: str) -> None:
        """What it says from now on; ``retry_after`` is ``Retry-After``."""
        ...

    def hangs_up(self) -> None:
        """It closes the connection instead of answering."""
        ...


class HooksContract:
    """Fixtures ``hooks`` and ``receiver`` give the adapter and somebody to send to."""

    async def test_a_post_arrives_byte_for_byte(self, hooks: Hooks, receiver: Receiver) -> None:
        body = '{ "odd" :\t"whitespace",\r\n "ünïcödé":"\\u00e9" }'.encode()
        reply = await hooks.post(receiver.url, headers={"X-Webhook-Id": "1"}, body=body)
        assert (reply.status, reply.error) == (200, "")
        ((headers, arrived),) = receiver.received
        assert headers["X-Webhook-Id"] == "1"
        assert arrived == body

    @pytest.mark.parametrize("status", [200, 204, 400, 410, 429, 500, 503])
    async def test_any_answer_is_a_reply(self, hooks: Hooks, receiver: Receiver, status: int) -> None:
        receiver.answers(status, "" if status == 204 else "so it is", retry_after="7")
        reply = await hooks.post(receiver.url, headers={}, body=b"{}")
        assert (reply.status, reply.error) == (status, "")
        assert reply.body == ("" if status == 204 else "so it is")
        assert {name.lower(): value for name, value in reply.headers.items()}["retry-after"] == "7"

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_no_redirect_is_followed(self, hooks: Hooks, receiver: Receiver, status: int) -> None:
        receiver.answers(status, location=receiver.url)
        reply = await hooks.post(receiver.url, headers={}, body=b"{}")
        assert reply.status == status
        assert len(receiver.received) == 1

    async def test_a_receiver_that_hangs_up_is_told_and_not_raised(
        self, hooks: Hooks, receiver: Receiver
    ) -> None:
        receiver.hangs_up()
        reply = await hooks.post(receiver.url, headers={}, body=b"{}")
        assert (reply.status, reply.body) == (None, "")
        assert 0 < len(reply.error) <= 500

    async def test_of_a_long_answer_the_beginning_is_kept(self, hooks: Hooks, receiver: Receiver) -> None:
        receiver.answers(500, "ü" * 50_000)
        reply = await hooks.post(receiver.url, headers={}, body=b"{}")
        assert reply.status == 500
        assert reply.body == "ü" * BODY_KEPT

    async def test_many_go_out_at_once(self, hooks: Hooks, receiver: Receiver) -> None:
        replies = await asyncio.gather(
            *(hooks.post(receiver.url, headers={}, body=b"%d" % n) for n in range(20))
        )
        assert [reply.status for reply in replies] == [200] * 20
        assert sorted(int(body) for _, body in receiver.received) == list(range(20))

    async def test_https_to_a_name_is_admitted(self, hooks: Hooks) -> None:
        hooks.admit("https://erp.corner-shop.example/distribu?token=1")
        hooks.admit("https://93.184.216.34:8443/")
        hooks.admit("http://localhost:9000/hook")

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "erp.example",
            "ftp://erp.example/",
            "http://erp.example/",
            "https://",
            "https:///path",
            "https://user:word@erp.example/",
            "https://erp.example:0/",
            "https://erp.example:99999/",
            "https://erp.example/a b",
            "https://erp.example/\n",
            "https://10.0.0.1/",
            "https://169.254.169.254/latest/meta-data",
            "https://192.168.1.1/",
            "https://[fd00::1]/",
            "https://[fe80::1]/",
            "https://0.0.0.0/",
        ],
    )
    async def test_anything_else_is_refused(self, hooks: Hooks, url: str) -> None:
        with pytest.raises(Refused) as no:
            hooks.admit(url)
        assert no.value.code == "webhook_url_refused"
