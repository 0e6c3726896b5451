"""Use cases of API keys."""

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from distribu.application import fields
from distribu.application.kernel import Command, Issued, Query, Reads, Work
from distribu.application.ports import Page
from distribu.domain.access import API_KEYS_MAX, ApiKey, Permission
from distribu.domain.errors import Refused
from distribu.domain.values import ApiKeyId

_Name = Annotated[str, Meta(min_length=1, max_length=100, examples=["ERP"])]


class CreateApiKey(Command[Issued[ApiKey]], frozen=True, kw_only=True):
    """Make a key with one or more scopes. The key is in the answer and can never be read again."""

    needs = Permission.API_KEYS_MANAGE

    name: _Name
    scopes: fields.Scopes
    expires_at: fields.Moment | None = None

    async def run(self, work: Work) -> Issued[ApiKey]:
        # Counted under the company's lock, so that two at once cannot both be the last.
        _, count = await work.together(work.companies.current(lock=True), work.api_keys.count())
        if count >= API_KEYS_MAX:
            raise Refused("too_many", f"A company has at most {API_KEYS_MAX} keys that are not revoked.")
        key = ApiKey.key_from(work.entropy(32))
        api_key = ApiKey.create(
            company_id=work.company_id,
            id=ApiKeyId(work.new_id()),
            name=self.name,
            key=key,
            scopes=self.scopes,
            expires_at=self.expires_at,
            at=work.now,
        )
        work.save(api_key)
        return Issued(api_key, key)


class EditApiKey(Command[ApiKey], frozen=True, kw_only=True):
    """Change a key's name or when it expires, or take scopes from it. More scopes take a new key."""

    needs = Permission.API_KEYS_MANAGE

    api_key_id: fields.ApiKeyIdInPath
    name: _Name | UnsetType = UNSET
    scopes: fields.Scopes | UnsetType = UNSET
    expires_at: fields.Moment | None | UnsetType = UNSET
    version: fields.IfMatch | None = None

    async def run(self, work: Work) -> ApiKey:
        api_key = (await work.api_keys.get(self.api_key_id)).at(self.version)
        api_key = api_key.edit(self.given("api_key_id", "version"), at=work.now)
        work.save(api_key)
        return api_key


class RevokeApiKey(Command[ApiKey], frozen=True, kw_only=True):
    """End a key at once, everywhere."""

    needs = Permission.API_KEYS_MANAGE

    api_key_id: fields.ApiKeyIdInPath

    async def run(self, work: Work) -> ApiKey:
        api_key = (await work.api_keys.get(self.api_key_id)).revoke(at=work.now)
        work.save(api_key)
        return api_key


class ReadApiKey(Query[ApiKey], frozen=True, kw_only=True):
    """One key: its name, scopes and first eight characters."""

    needs = Permission.API_KEYS_MANAGE

    api_key_id: fields.ApiKeyIdInPath

    async def run(self, reads: Reads) -> ApiKey:
        return await reads.api_keys.get(self.api_key_id)


class ListApiKeys(Query[Page[ApiKey]], frozen=True, kw_only=True):
    """Keys, newest first, revoked ones too."""

    needs = Permission.API_KEYS_MANAGE

    limit: fields.Limit = 50
    cursor: fields.Cursor | None = None

    async def run(self, reads: Reads) -> Page[ApiKey]:
        return await reads.api_keys.page(limit=self.limit, cursor=self.cursor)
