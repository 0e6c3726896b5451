"""How much of who is refused goes into the audit log: enough to see it, not enough to fill it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from distribu.application.counts import Counts
from distribu.application.ports import Limit, RateLimiter
from distribu.domain.access import Actor
from distribu.domain.accounts import REALM
from distribu.domain.audit import AccessRefused, Entry
from distribu.domain.errors import Forbidden
from distribu.domain.values import CompanyId

PER_ACTOR: Final = 10
"""Refusals of one kind of request to one actor that are recorded in a minute."""

PER_COMPANY: Final = 100
"""Refusals that are recorded of one company in a minute, by this process."""

WINDOW_S: Final = 60.0

COMPANIES_MAX: Final = 10_000
"""Companies for which it is remembered how many were left out."""

NOTE_S: Final = 2.0
"""How long somebody who is refused waits at most for that to be recorded."""

_OF_PERMISSION: Final = frozenset({"forbidden", "missing_scope"})
"""The codes of a permission that is lacking; the others of their kind keep somebody out for now."""


class Refusals:
    """Has the audit log know of lacks of permission, as far as that can be done at once.

    ``limiter`` counts in this process; ``record`` writes an entry in a transaction of its own.
    """

    def __init__(
        self, limiter: RateLimiter, counts: Counts, record: Callable[[Actor, Entry], Awaitable[None]]
    ) -> None:
        self._limiter = limiter
        self._counts = counts
        self._record = record
        self._left_out: dict[CompanyId, int] = {}

    async def note(self, actor: Actor, request: str, refusal: Forbidden) -> None:
        """Record that somebody known was refused a request, once, where they tried it.

        Without a company that is the platform's realm. Raises nothing: whatever comes of it, the answer is
        the refusal.
        """
        if not actor.id or refusal.noted or refusal.code not in _OF_PERMISSION:
            return
        refusal.noted = True
        company_id = actor.company_id or REALM
        if not await self._place(actor, company_id, request):
            self._leave_out(company_id, 1, "left_out")
            return
        left_out = self._left_out.pop(company_id, 0)
        entry = AccessRefused(request=request, code=refusal.code, permission=refusal.lacks, left_out=left_out)
        try:
            async with asyncio.timeout(NOTE_S):
                await self._record(replace(actor, company_id=company_id), entry)
        except Exception:  # whatever it was; how often it happens can be seen
            self._leave_out(company_id, left_out + 1, "failed")
        else:
            self._counts.refusals["written"] += 1

    async def _place(self, actor: Actor, company_id: CompanyId, request: str) -> bool:
        whose = f"{company_id} {actor.id} {request}"
        if not (await self._limiter.take(Limit(f"refused {whose}", PER_ACTOR, WINDOW_S))).allowed:
            return False
        return (await self._limiter.take(Limit(f"refused {company_id}", PER_COMPANY, WINDOW_S))).allowed

    def _leave_out(self, company_id: CompanyId, more: int, why: str) -> None:
        self._counts.refusals[why] += 1
        if company_id not in self._left_out and len(self._left_out) >= COMPANIES_MAX:
            del self._left_out[next(iter(self._left_out))]
        self._left_out[company_id] = self._left_out.get(company_id, 0) + more
