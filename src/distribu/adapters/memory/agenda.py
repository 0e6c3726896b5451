"""The agenda in memory."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from distribu.application.agenda import Appointment, Outcome


class MemoryAgenda:
    """Implements the port Agenda."""

    def __init__(self) -> None:
        self._kept: dict[str, Appointment] = {}
        self._claims: dict[str, str] = {}

    async def look(self, due: Mapping[str, datetime]) -> Mapping[str, Appointment]:
        return {name: self._kept.setdefault(name, Appointment(due_at)) for name, due_at in due.items()}

    async def claim(self, name: str, *, claim: str, due_at: datetime, now: datetime, until: datetime) -> bool:
        kept = self._kept.get(name)
        if kept is None or kept.due_at != due_at or (kept.claimed_until or now) > now:
            return False
        self._kept[name], self._claims[name] = replace(kept, claimed_until=until), claim
        return True

    async def finish(
        self, name: str, *, claim: str, now: datetime, due_at: datetime, outcome: Outcome
    ) -> bool:
        if self._claims.get(name) != claim:
            return False
        del self._claims[name]
        self._kept[name] = Appointment(due_at, None, now, outcome)
        return True
