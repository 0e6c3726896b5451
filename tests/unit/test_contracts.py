"""The contracts on the twins."""

from base64 import urlsafe_b64encode as b64encode
from collections.abc import Mapping, Sequence

import pytest

from distribu import Distribu, Harness, Secret
from distribu.adapters.authenticators import SiteAuthenticators
from distribu.adapters.limiter import InProcessLimiter
from distribu.adapters.mail import Arrived, Mailbox
from distribu.adapters.memory.store import MemoryStore
from distribu.adapters.memory.stripe import MemoryPayments, PretendStripe
from distribu.adapters.memory.twins import (
    GlassVault,
    MovedClock,
    PlainHasher,
    Receivers,
    SeededEntropy,
    silence,
)
from distribu.adapters.sealing import Ed25519Notary
from distribu.application.ports import Reply
from tests.contracts.authenticators import AuthenticatorsContract
from tests.contracts.finders import FinderContract
from tests.contracts.hashing import HasherContract
from tests.contracts.jobs import AgendaContract, JobsContract
from tests.contracts.limiting import Advance, RateLimiterContract
from tests.contracts.mailing import STATIONERY, MailerContract
from tests.contracts.outside import (
    ClockContract,
    DirectoryContract,
    EntropyContract,
    HooksContract,
    VaultContract,
)
from tests.contracts.paying import FORMER, SECRET_RING, PayingOverTime
from tests.contracts.queue import QueueContract
from tests.contracts.sealing import NotaryContract, SealsContract
from tests.contracts.store import StoreContract


@pytest.fixture
async def impatient(shop: Harness) -> Harness:
    """A shop on a store that waits for nobody for long."""
    store = shop.distribu.ports.store
    assert isinstance(store, MemoryStore)
    store.wait_s = 0.05
    return shop


class TestMemoryStore(StoreContract): ...


class TestMemoryFinders(FinderContract): ...


class TestMemoryDirectory(DirectoryContract): ...


class TestMemoryQueue(QueueContract): ...


class TestMemorySeals(SealsContract): ...


class TestMemoryAgenda(AgendaContract): ...


class TestMemoryJobs(JobsContract):
    @pytest.fixture
    def other(self, shop: Harness) -> Distribu:
        return Distribu(shop.distribu.ports)


class TestEd25519Notary(NotaryContract):
    @pytest.fixture
    def notary(self) -> Ed25519Notary:
        return Ed25519Notary([Secret(b64encode(bytes(range(32))).decode())])

    @pytest.fixture
    def another_notary(self) -> Ed25519Notary:
        return Ed25519Notary([Secret(b64encode(bytes(32)).decode())])


class TestMovedClock(ClockContract):
    @pytest.fixture
    def clock(self) -> MovedClock:
        return MovedClock()

    async def test_it_stands_still_until_it_is_moved(self, clock: MovedClock) -> None:
        before = clock.now()
        assert clock.now() == before
        assert (clock.advance(hours=1, milliseconds=1.5) - before).total_seconds() == 3600.001


class TestSeededEntropy(EntropyContract):
    @pytest.fixture
    def clock(self) -> MovedClock:
        return MovedClock()

    @pytest.fixture
    def entropy(self, clock: MovedClock) -> SeededEntropy:
        return SeededEntropy(clock)

    async def test_it_repeats_itself(self, clock: MovedClock) -> None:
        one, other = SeededEntropy(clock), SeededEntropy(clock)
        assert [one.uuid(), one.bytes(8)] == [other.uuid(), other.bytes(8)]


class TestGlassVault(VaultContract):
    @pytest.fixture
    def vault(self) -> GlassVault:
        return GlassVault()

    @pytest.fixture
    def another_vault(self) -> GlassVault:
        return GlassVault()


class TestPlainHasher(HasherContract):
    @pytest.fixture
    def hasher(self) -> PlainHasher:
        return PlainHasher()

    @pytest.fixture
    def another_hasher(self) -> PlainHasher:
        return PlainHasher(work=2)

    @pytest.fixture
    def full_hasher(self) -> PlainHasher:
        hasher = PlainHasher()
        hasher.full = True
        return hasher


class TwinReceiver:
    """A receiver as the twin plays it."""

    url = "http://localhost:9000/hook"

    def __init__(self, receivers: Receivers) -> None:
        self.receivers = receivers

    @property
    def received(self) -> Sequence[tuple[Mapping[str, str], bytes]]:
        return [(one.headers, one.body) for one in self.receivers.received]

    def answers(self, status: int, body: str = "", **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.receivers.answer = lambda _: Reply(status, named, body, "")

    def hangs_up(self) -> None:
        self.receivers.answer = silence


class TestReceivers(HooksContract):
    @pytest.fixture
    def hooks(self) -> Receivers:
        return Receivers()

    @pytest.fixture
    def receiver(self, hooks: Receivers) -> TwinReceiver:
        return TwinReceiver(hooks)


class TestMailbox(MailerContract):
    @pytest.fixture
    def mailer(self) -> Mailbox:
        return Mailbox(STATIONERY)

    @pytest.fixture
    def letterbox(self, mailer: Mailbox) -> "Kept":
        return Kept(mailer)


class Kept:
    """What a mailbox without a folder holds."""

    def __init__(self, mailbox: Mailbox) -> None:
        self.mailbox = mailbox

    def arrived(self) -> list[Arrived]:
        return self.mailbox.arrived


class TestInProcessLimiter(RateLimiterContract):
    @pytest.fixture
    def clock(self) -> MovedClock:
        return MovedClock()

    @pytest.fixture
    def advance(self, clock: MovedClock) -> Advance:
        return clock.advance

    @pytest.fixture
    def limiter(self, clock: MovedClock) -> InProcessLimiter:
        return InProcessLimiter(clock)


class TestAuthenticators(AuthenticatorsContract):
    """They keep nothing and ask nobody: what runs in memory is the real thing."""

    @pytest.fixture
    def authenticators(self) -> SiteAuthenticators:
        return SiteAuthenticators("http://localhost:8000")


class TestMemoryPayments(PayingOverTime):
    @pytest.fixture
    def clock(self) -> MovedClock:
        return MovedClock()

    @pytest.fixture
    def stripe(self, clock: MovedClock) -> PretendStripe:
        return PretendStripe(clock.now, pages="https://pay.example")

    @pytest.fixture
    def payments(self, stripe: PretendStripe) -> MemoryPayments:
        return MemoryPayments(stripe, SECRET_RING, FORMER)
