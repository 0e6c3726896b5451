"""The machine's own clock and randomness."""

import random
import secrets
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime


class SystemClock:
    """UTC in whole milliseconds, as it goes over the wire."""

    def now(self) -> datetime:
        now = datetime.now(UTC)
        return now.replace(microsecond=now.microsecond // 1000 * 1000)

    def elapsed(self) -> float:
        return time.perf_counter()


class Uuid7:
    """UUIDv7 (RFC 9562, 5.7): 48 bits of milliseconds, then a counter begun at random each millisecond.

    The counter (method 1 of section 6.2) makes ids of one process sort as they were made, also when
    the clock stands still or steps back. Python's own uuid7 needs 3.14.
    """

    def __init__(self, milliseconds: Callable[[], int], entropy: Callable[[int], bytes]) -> None:
        self._milliseconds = milliseconds
        self._entropy = entropy
        self._lock = threading.Lock()
        self._last = 0
        self._count = 0

    def __call__(self) -> str:
        drawn = int.from_bytes(self._entropy(9))
        with self._lock:
            now = self._milliseconds()
            if now > self._last:
                self._last = now
                self._count = drawn >> 40 & 0xFF_FFFF  # the top quarter of the counter stays free
            else:
                self._count += 1
                if self._count >> 26:
                    self._last += 1
                    self._count = 0
            stamp, count = self._last, self._count
        # 48 bits of time, version, 12 bits of counter, variant, 14 bits of counter, 48 random bits
        high, low = count >> 14, count & 0x3FFF
        tail = (0x7000 | high) << 64 | (0x8000 | low) << 48 | drawn & 0xFFFF_FFFF_FFFF
        text = f"{stamp << 80 | tail:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


class SystemEntropy:
    """The operating system's randomness."""

    def __init__(self) -> None:
        self._uuid = Uuid7(lambda: time.time_ns() // 1_000_000, secrets.token_bytes)

    def uuid(self) -> str:
        return self._uuid()

    def bytes(self, size: int) -> bytes:
        return secrets.token_bytes(size)

    def fraction(self) -> float:
        return random.random()
