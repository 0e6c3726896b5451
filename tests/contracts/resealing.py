"""The vault's ring on any store: what is under an old key gets under the newest, and all else stays."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from distribu import Actor, Bug, Harness, Role, Secret
from distribu.adapters.memory.twins import GlassVault
from distribu.application.kernel import Distribu
from distribu.application.ports import NewMail, Vault
from distribu.application.vault import Resealed, ResealSecrets
from distribu.application.webhooks import ReadWebhook, RotateWebhookSecret
from distribu.domain.accounts import REALM
from tests import people
from tests.contracts.asking import log_of, scope_of, sent_to, store_of
from tests.contracts.queue import claim_mails
from tests.contracts.webhooks import URL, hex_signature


class Ring:
    """A new vault in front of the one there was, as a new key is in front of the old ones."""

    def __init__(self, old: Vault) -> None:
        self.old, self.new = old, GlassVault()

    def seal(self, secret: Secret) -> str:
        return self.new.seal(secret)

    def open(self, sealed: str) -> Secret:
        try:
            return self.new.open(sealed)
        except Bug:
            return self.old.open(sealed)

    def anew(self, sealed: str) -> str | None:
        try:
            return self.new.anew(sealed)
        except Bug:
            return self.new.seal(self.old.open(sealed))


class ResealUseCases:
    def on(self, shop: Harness, vault: Vault) -> None:
        """Have the shop seal with this vault."""
        shop.distribu = Distribu(replace(shop.distribu.ports, vault=vault))

    @pytest.fixture
    def ring(self, shop: Harness) -> Iterator[Ring]:
        there = shop.distribu
        yield Ring(there.ports.vault)
        shop.distribu = there

    async def reseal(self, shop: Harness) -> list[Resealed]:
        """All parts of it, one after the other."""
        done, after = [], ""
        while True:
            done.append(await shop.distribu.execute(Actor.system(None), ResealSecrets(after=after)))
            if done[-1].next is None:
                return done
            after = done[-1].next

    async def test_everything_sealed_outlives_the_old_key(self, shop: Harness, ring: Ring) -> None:
        url = URL + shop.company.id
        webhook, first = await shop.webhook(url=url)
        second = (await shop.execute(RotateWebhookSecret(webhook_id=webhook.id))).secret
        member = await people.staff(shop, Role.OWNER)
        realm = Actor.system(REALM)
        await shop.distribu.run(realm, people.PutApp(user_id=member.user.id))
        token = shop.distribu.ports.vault.seal(Secret("token of a link"))
        now = shop.clock.now()
        mail = NewMail(shop.distribu.ports.entropy.uuid(), now, "a@b.example", "{}", token)
        async with store_of(shop).begin(scope_of(shop)) as tx:
            await tx.write([], [], None, [mail])
        before = await shop.execute(ReadWebhook(webhook_id=webhook.id))

        self.on(shop, ring)
        done = await self.reseal(shop)
        assert [one.what for one in done][-1] == "mails"
        vault = ring.new  # and the old key is gone
        self.on(shop, vault)

        after = await shop.execute(ReadWebhook(webhook_id=webhook.id))
        assert after.updated_at == before.updated_at
        assert vault.open(after.secret) == second
        assert vault.open(after.old_secret or "") == first
        with pytest.raises(Bug):
            vault.open(before.secret)
        (waiting,) = await claim_mails(shop)
        assert vault.open(waiting.sealed or "") == Secret("token of a link")
        await shop.product()
        await shop.work()
        one = sent_to(shop, url)[-1]
        assert one.headers["X-Webhook-Signature"] == hex_signature(second, one.body)
        assert one.headers["X-Webhook-Signature-Old"] == hex_signature(first, one.body)
        (told,) = await log_of(shop, "webhook.resealed")
        assert (told.entity_id, told.metadata) == (webhook.id, {})

    async def test_what_is_under_the_newest_key_is_left_alone(self, shop: Harness, ring: Ring) -> None:
        webhook, _ = await shop.webhook()
        before = await shop.execute(ReadWebhook(webhook_id=webhook.id))
        await self.reseal(shop)
        assert await shop.execute(ReadWebhook(webhook_id=webhook.id)) == before

    async def test_it_goes_on_where_it_was_stopped(self, shop: Harness, ring: Ring) -> None:
        """Begun again from the start, it finds those done already and does the rest."""
        webhooks = [(await shop.webhook())[0] for _ in range(3)]
        self.on(shop, ring)
        one = await shop.execute(ReadWebhook(webhook_id=webhooks[1].id))
        await shop.execute(RotateWebhookSecret(webhook_id=one.id, grace=False))  # is under the new key
        await self.reseal(shop)
        again = await self.reseal(shop)
        assert sum(it.resealed for it in again) == 0
        assert len(await log_of(shop, "webhook.resealed")) == 2
