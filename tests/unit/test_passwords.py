"""Which passwords are taken, the list of common ones, and what production asks of hashing."""

from pathlib import Path

import pytest

import distribu
from distribu import Secret, Settings, load
from distribu.adapters.common_passwords import common_passwords
from distribu.adapters.memory.twins import PlainHasher
from distribu.application.kernel import Outside
from distribu.container import in_memory
from distribu.domain.access import Actor
from distribu.domain.accounts import REALM
from distribu.domain.errors import Invalid
from distribu.domain.passwords import PASSWORD_MAX, PASSWORD_MIN, acceptable, canonical_password
from distribu.domain.values import folded
from tests.unit.test_settings import problems

ABOUT = ("Orders@Green-Grocer.example", "Zoë O'Hara", "Acme Distributors Ltd.", "acme-distributors", "")


def refused(text: str, *, common: bool = False) -> str:
    with pytest.raises(Invalid) as no:
        acceptable(Secret(text), about=ABOUT, common=common)
    assert no.value.code == "invalid_request"
    assert not text or text not in f"{no.value} {no.value!r} {no.value.fields}"
    ((field, why),) = no.value.fields.items()
    assert field == "password"
    return why


@pytest.mark.parametrize(
    "text",
    [
        "8 chars!",
        "x" * 100,
        "\N{KEY}" * 8,
        "\N{KEY}" * 100,
        "        ",
        "!!!!!!!!",
        "a\u0308" * 100,
        "alllowercaseletters",
        "20260105",
        "Acme Distributors sells oats",
        "my distribu password",
    ],
)
def test_any_composition_will_do(text: str) -> None:
    acceptable(Secret(text), about=ABOUT, common=False)


@pytest.mark.parametrize("text", ["", "7 chars", "x" * 101, "\N{KEY}" * 7, "a\u0308" * 7, "a\u0308" * 101])
def test_a_password_has_8_to_100_characters_however_they_were_typed(text: str) -> None:
    assert (PASSWORD_MIN, PASSWORD_MAX) == (8, 100)
    assert refused(text) == "must have 8 to 100 characters"


def test_a_common_password_is_refused() -> None:
    assert refused("long enough", common=True) == "is one of the passwords that are tried first"


@pytest.mark.parametrize(
    "text",
    [
        "orders@green-grocer.example",
        "ORDERS@GREEN-GROCER.EXAMPLE",
        "orders green grocer example",
        "o.r.d.e.r.s",
        "zoë o'hara",
        "Zoe\u0308 O'Hara",
        "acme distributors ltd",
        "AcmeDistributors",
        "Distribu",
        "d-i-s-t-r-i-b-u!",
    ],
)
def test_what_others_know_is_refused(text: str) -> None:
    assert refused(text) == "must not be a name or an address that others know"


def test_nothing_that_people_tell_apart_is_made_one() -> None:
    assert canonical_password(Secret("e\u0301")).reveal() == "é"
    for text in ("² ﬁ \N{FULLWIDTH LATIN CAPITAL LETTER A}", " spaced  out ", "UPPER", "half \ud800 a pair"):
        canonical = canonical_password(Secret(text))
        assert isinstance(canonical, Secret)
        assert canonical.reveal() == text


def test_the_list_of_common_passwords_is_whole() -> None:
    common = common_passwords()
    assert len(common) == 16_293
    assert {len(one) >= PASSWORD_MIN and folded(one) == one for one in common} == {True}
    assert {"password", "12345678", "qwertyuiop", "1q2w3e4r", "iloveyou1", "football"} <= common


def test_the_list_of_common_passwords_comes_with_its_licences() -> None:
    beside = Path(distribu.__file__).parent / "adapters" / "common_passwords.LICENSE.txt"
    text = beside.read_text()
    for owner in ("Dan Wheeler and Dropbox, Inc.", "Daniel Wolf", "Django Software Foundation"):
        assert owner in text


def test_a_process_can_hash() -> None:
    distribu = in_memory().distribu
    assert isinstance(distribu.ports.hasher, PlainHasher)
    assert Outside(distribu, Actor.system(REALM), distribu.ports).hasher is distribu.ports.hasher


# --- settings --------------------------------------------------------------------------------


def in_production(memory_kib: int, time_cost: int) -> list[str]:
    """What is wrong with these parameters, whatever else is."""
    said = problems(
        {
            "DISTRIBU_ENV": "production",
            "DISTRIBU_ARGON2_MEMORY_KIB": str(memory_kib),
            "DISTRIBU_ARGON2_TIME_COST": str(time_cost),
        }
    )
    return [one for one in said if "ARGON2" in one]


@pytest.mark.parametrize(("memory_kib", "time_cost"), [(19_456, 2), (19_456, 20), (47_104, 1)])
def test_production_takes_what_owasp_names(memory_kib: int, time_cost: int) -> None:
    assert in_production(memory_kib, time_cost) == []


@pytest.mark.parametrize(
    ("memory_kib", "time_cost", "least"),
    [(19_455, 2, 19_456), (1024, 20, 19_456), (47_103, 1, 47_104), (19_456, 1, 47_104)],
)
def test_production_takes_no_weak_parameters(memory_kib: int, time_cost: int, least: int) -> None:
    (said,) = in_production(memory_kib, time_cost)
    assert said == (
        f"DISTRIBU_ARGON2_MEMORY_KIB must be at least {least} in production "
        f"with DISTRIBU_ARGON2_TIME_COST={time_cost}"
    )


def test_development_forgives_weak_parameters() -> None:
    assert load({"DISTRIBU_ARGON2_MEMORY_KIB": "1024"}).argon2_memory_kib == 1024


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ARGON2_MEMORY_KIB", "1023"),
        ("ARGON2_MEMORY_KIB", "1048577"),
        ("ARGON2_TIME_COST", "0"),
        ("ARGON2_TIME_COST", "21"),
        ("ARGON2_PARALLELISM", "0"),
        ("ARGON2_PARALLELISM", "17"),
        ("HASHER_THREADS", "0"),
        ("HASHER_THREADS", "65"),
        ("HASHER_WAITING", "0"),
        ("HASHER_WAITING", "10001"),
    ],
)
def test_hashing_has_limits(name: str, value: str) -> None:
    (said,) = problems({f"DISTRIBU_{name}": value})
    assert said.startswith(f"DISTRIBU_{name} must be a whole number, ")


def test_what_is_decided() -> None:
    settings = Settings()
    assert (settings.argon2_memory_kib, settings.argon2_time_cost) == (19 * 1024, 2)
    assert (settings.argon2_parallelism, settings.hasher_threads, settings.hasher_waiting) == (1, 2, 64)
