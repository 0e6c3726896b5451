"""What this process has done, in numbers. Nothing in here was chosen by a caller or names anybody."""

from bisect import bisect_left
from collections import Counter, defaultdict
from typing import Final

BUCKETS_S: Final = (0.005, 0.025, 0.1, 0.5, 2.5)
"""Upper bounds of the histogram of durations, in seconds; one more bucket holds what took longer."""


class Counts:
    """Numbers that only grow. ``requests`` are by name and outcome: "ok", a refusal's code, or "cancelled".

    ``buckets`` and ``seconds`` tell how long requests took, by name. ``answers`` are HTTP's, by class
    ("2xx"); ``deliveries`` and ``mails`` are attempts by what came of them; ``refusals`` are lacks of
    permission, by what the audit log got: "written", "left_out" or "failed". ``notices`` are what Stripe told
    us, by what became of it: a status, "put_off", "refused" when it was not genuine, or "stumbled".
    ``jobs`` are runs by name and outcome, "running" for one that somebody else was at already.
    """

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()
        self.buckets: dict[str, list[int]] = {}
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.retries: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.deliveries: Counter[str] = Counter()
        self.mails: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.notices: Counter[str] = Counter()
        self.jobs: Counter[tuple[str, str]] = Counter()

    def request(self, name: str, outcome: str, took_s: float) -> None:
        """Count a request that is over."""
        self.requests[name, outcome] += 1
        buckets = self.buckets.get(name)
        if buckets is None:
            buckets = self.buckets[name] = [0] * (len(BUCKETS_S) + 1)
        buckets[bisect_left(BUCKETS_S, took_s)] += 1
        self.seconds[name] += took_s
