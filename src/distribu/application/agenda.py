"""What it takes to share jobs: when each is due, who has it, and what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol


class Outcome(StrEnum):
    """How a run ended: STOPPED when whoever ran it was told to stop, and somebody else is to run it."""

    DONE = "DONE"
    FAILED = "FAILED"
    STOPPED = "STOPPED"


@dataclass(frozen=True, slots=True)
class Appointment:
    """When a job is due next, and how it went last: ``ran_at`` is when that ended.

    ``claimed_until`` is in the future while somebody runs it, and in the past when they never came back.
    """

    due_at: datetime
    claimed_until: datetime | None = None
    ran_at: datetime | None = None
    outcome: Outcome | None = None


class Agenda(Protocol):
    """The appointments of jobs, by their names: one agenda for all who run them.

    Raises `Busy` when it cannot be reached.
    """

    async def look(self, due: Mapping[str, datetime]) -> Mapping[str, Appointment]:
        """The appointments of these jobs; one that is not in the agenda yet is entered as ``due`` then."""
        ...

    async def claim(self, name: str, *, claim: str, due_at: datetime, now: datetime, until: datetime) -> bool:
        """Take a job that is still due at ``due_at``, and nobody's, for oneself until then.

        ``claim`` is a UUID of one's own. Of those who come at once with the same ``due_at`` one gets True.
        """
        ...

    async def finish(
        self, name: str, *, claim: str, now: datetime, due_at: datetime, outcome: Outcome
    ) -> bool:
        """Keep how it ended and when it is due next, and release the claim.

        False when the claim ran out and somebody else has taken the job since: then nothing is kept.
        """
        ...
