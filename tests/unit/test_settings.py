"""What can be set, and what is refused: all at once, and without a word of a secret."""

from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.fernet import Fernet

from distribu import Settings, SettingsUnusable, load
from distribu.application.payments import SOLD
from distribu.settings import Environment

KEY = urlsafe_b64encode(bytes(range(32))).decode()
SEALING_KEY = urlsafe_b64encode(bytes(range(32, 64))).decode()
SAFE = {
    "DISTRIBU_ENV": "production",
    "DISTRIBU_DATABASE_URL": "postgresql://app:Xk29-long@db.example/distribu?sslmode=require",
    "DISTRIBU_VAULT_KEYS": KEY,
    "DISTRIBU_SEALING_KEYS": SEALING_KEY,
    "DISTRIBU_REDIS_URL": "rediss://cache.example",
    "DISTRIBU_PUBLIC_URL": "https://orders.example",
    "DISTRIBU_RESEND_KEY": "re_Xk29_long",
    "DISTRIBU_MAIL_FROM": "orders@mail.example",
    "DISTRIBU_STAFF_SESSION_KEYS": "staff-0123456789-abcdefghijklmnop",
    "DISTRIBU_STORE_SESSION_KEYS": "store-0123456789-abcdefghijklmnop",
}


def problems(environ: dict[str, str]) -> list[str]:
    with pytest.raises(SettingsUnusable) as refused:
        load(environ)
    return refused.value.problems


def test_nothing_has_to_be_set() -> None:
    settings = load({})
    assert settings.env is Environment.DEVELOPMENT
    assert (settings.host, settings.port, settings.database_url) == ("127.0.0.1", 8000, None)


def test_the_environment_is_ours_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTRIBU_PORT", "8123")
    assert load().port == 8123


def test_everything_can_be_set(tmp_path: Path) -> None:
    settings = load(
        {
            **SAFE,
            "DISTRIBU_HOST": "0.0.0.0",
            "DISTRIBU_PORT": "0",
            "DISTRIBU_DATA_DIR": str(tmp_path),
            "DISTRIBU_DATABASE_POOL": "20",
            "DISTRIBU_DATABASE_PREPARE": "false",
            "DISTRIBU_WORKER_CONCURRENCY": "8",
            "DISTRIBU_METRICS_TOKEN": "metrics-0123456789_abcdefghijklmnop",
            "DISTRIBU_OWNER_DATABASE_URL": "postgresql://owner:Xk29-long@db.example/distribu?sslmode=verify-full",
            "DISTRIBU_QUEUE_DATABASE_URL": "postgresql://q:Xk29-long@db.example/distribu?sslmode=verify-ca",
        }
    )
    assert settings.production
    assert (settings.host, settings.port, settings.database_pool) == ("0.0.0.0", 0, 20)
    assert settings.database_prepare is False
    assert settings.data_path == tmp_path
    assert [key.reveal() for key in settings.vault_ring()] == [KEY]


def test_what_is_empty_is_not_set(tmp_path: Path) -> None:
    assert load({"DISTRIBU_PORT": "", "DISTRIBU_VAULT_KEYS_FILE": "", "OTHER": "x"}).port == 8000
    port = tmp_path / "port"
    port.write_text("8123")
    assert load({"DISTRIBU_PORT": "", "DISTRIBU_PORT_FILE": str(port)}).port == 8123


def test_a_file_can_hold_it(tmp_path: Path) -> None:
    kept = tmp_path / "key"
    kept.write_text(f"  {KEY}\n")
    settings = load({"DISTRIBU_VAULT_KEYS_FILE": str(kept)})
    assert [key.reveal() for key in settings.vault_ring()] == [KEY]


def test_a_file_and_a_value_are_one_too_many(tmp_path: Path) -> None:
    kept = tmp_path / "port"
    kept.write_text("1")
    said = problems({"DISTRIBU_PORT": "2", "DISTRIBU_PORT_FILE": str(kept)})
    assert said == ["DISTRIBU_PORT_FILE and DISTRIBU_PORT are both set"]


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"], ids=["absent", "no text"])
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    kept = tmp_path / "key"
    if content is not None:
        kept.write_bytes(content)
    (said,) = problems({"DISTRIBU_VAULT_KEYS_FILE": str(kept)})
    assert said.startswith("DISTRIBU_VAULT_KEYS_FILE: ")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (said,) = problems({"DISTRIBU_PORT_FILE": str(tmp_path)})
    assert said == "DISTRIBU_PORT_FILE: Is a directory"


def test_a_secret_given_for_a_file_is_not_repeated() -> None:
    for secret in (KEY, "x" * 5000, "nul\0nul"):
        (said,) = problems({"DISTRIBU_VAULT_KEYS_FILE": secret})
        assert secret not in said


def test_what_is_no_setting() -> None:
    said = problems({"DISTRIBU_PROT": "1", "DISTRIBU_PROT_FILE": "/x", "DISTRIBU_": "x"})
    assert said == [
        "DISTRIBU_ is no setting of Distribu",
        "DISTRIBU_PROT is no setting of Distribu",
        "DISTRIBU_PROT_FILE is no setting of Distribu",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "many"),
        ("PORT", "-1"),
        ("PORT", "65536"),
        ("PORT", "80.5"),
        ("HOST", "x" * 256),
        ("DATABASE_POOL", "0"),
        ("DATABASE_POOL", "1" + "0" * 30),
        ("DATABASE_PREPARE", "maybe"),
        ("ENV", "staging"),
        ("WORKER_CONCURRENCY", "0"),
        ("METRICS_TOKEN", "short-0123456789abcdefghijklmno"),
        ("METRICS_TOKEN", "a" * 40),
        ("METRICS_TOKEN", "two words 0123456789abcdefghijklmnop"),
        ("METRICS_TOKEN", "0123456789abcdefghijklmnopqrst\u00fcv"),
        ("METRICS_TOKEN", "0123456789abcdefghij" * 11),
        ("DATABASE_URL", "mysql://db"),
        ("DATABASE_URL", "postgresql:db"),
        ("DATABASE_URL", "host=db"),
        ("DATABASE_URL", "postgresql://[::1/db"),
        ("OWNER_DATABASE_URL", "http://db"),
        ("QUEUE_DATABASE_URL", "db"),
        ("REDIS_URL", "http://cache"),
        ("REDIS_URL", "redis://[cache"),
        ("PUBLIC_URL", "orders.example"),
        ("PUBLIC_URL", "ftp://orders.example"),
        ("PUBLIC_URL", "https://orders.example/shop"),
        ("PUBLIC_URL", "https://orders.example?x=1"),
        ("PUBLIC_URL", "https://me@orders.example"),
        ("PUBLIC_URL", "https://orders.example:"),
        ("PUBLIC_URL", "https://orders.example:65536"),
        ("PUBLIC_URL", "https://"),
        ("PUBLIC_URL", "https://orders.example\r\nx: y"),
        ("PUBLIC_URL", "https://bestellung\u00fc.example"),
        ("MAIL_FROM", "orders.example"),
        ("MAIL_FROM", "Orders <orders@mail.example>"),
        ("MAIL_FROM", "a@b.example, c@d.example"),
        ("MAIL_FROM", "a@b.example\r\nBcc: c"),
        ("MAIL_FROM", "@mail.example"),
        ("RESEND_KEY", "re_1 2"),
        ("RESEND_KEY", "re_1\n"),
        ("RESEND_KEY", "re_\u00fc"),
        ("RESEND_KEY", "r" * 201),
        ("SECURITY_CONTACT", "security@orders.example"),
        ("SECURITY_CONTACT", "http://orders.example"),
        ("SECURITY_CONTACT", "mailto:a@b\nPolicy: x"),
        ("STAFF_SESSION_KEYS", "short"),
        ("STAFF_SESSION_KEYS", ","),
        ("STORE_SESSION_KEYS", "a" * 40),
        ("VAULT_KEYS", "short"),
        ("VAULT_KEYS", ","),
        ("VAULT_KEYS", f"{KEY},short"),
        ("VAULT_KEYS", "schlüssel"),
        ("SEALING_KEYS", "short"),
        ("SEALING_KEYS", ","),
        ("SEALING_KEYS", f"{KEY},short"),
        ("SEALING_KEYS", "schlüssel"),
    ],
)
def test_what_cannot_be_used_is_named(name: str, value: str) -> None:
    (said,) = problems({f"DISTRIBU_{name}": value})
    assert said.startswith(f"DISTRIBU_{name}")


def test_what_cannot_be_used_is_told_plainly() -> None:
    given = {
        "ENV": "staging",
        "PORT": "65536",
        "DATABASE_POOL": "x",
        "DATABASE_PREPARE": "maybe",
        "HOST": "x" * 256,
    }
    said = problems({f"DISTRIBU_{name}": value for name, value in given.items()})
    assert [line.partition(" (it is ")[0] for line in said] == [
        "DISTRIBU_DATABASE_POOL must be a whole number, 1 to 500",
        "DISTRIBU_DATABASE_PREPARE must be true or false",
        "DISTRIBU_ENV must be one of development, production",
        "DISTRIBU_HOST must be text of 1 to 255 characters",
        "DISTRIBU_PORT must be a whole number, 0 to 65535",
    ]


def test_all_that_is_wrong_is_said_at_once() -> None:
    said = problems(
        {
            "DISTRIBU_PORT": "many",
            "DISTRIBU_ENV": "production",
            "DISTRIBU_NOTHING": "1",
            "DISTRIBU_DATABASE_URL": "mysql://db",
            "DISTRIBU_VAULT_KEYS": "short",
        }
    )
    assert [line.split()[0].rstrip(":") for line in said] == [
        "DISTRIBU_NOTHING",
        "DISTRIBU_PORT",
        "DISTRIBU_DATABASE_URL",
        "DISTRIBU_VAULT_KEYS",
        "DISTRIBU_DATABASE_URL",
        "DISTRIBU_DATABASE_URL",
        "DISTRIBU_VAULT_KEYS",
        "DISTRIBU_SEALING_KEYS",
        "DISTRIBU_REDIS_URL",
        "DISTRIBU_STAFF_SESSION_KEYS",
        "DISTRIBU_STORE_SESSION_KEYS",
        "DISTRIBU_PUBLIC_URL",
        "DISTRIBU_RESEND_KEY",
        "DISTRIBU_MAIL_FROM",
    ]
    assert str(SettingsUnusable(said)).count("\n") == len(said)


# --- production ------------------------------------------------------------------------------


def test_production_takes_what_is_safe() -> None:
    assert load(SAFE).production


def test_production_refuses_to_start_on_nothing() -> None:
    assert problems({"DISTRIBU_ENV": "production"}) == [
        "DISTRIBU_DATABASE_URL is required in production",
        "DISTRIBU_VAULT_KEYS is required in production",
        "DISTRIBU_SEALING_KEYS is required in production",
        "DISTRIBU_REDIS_URL is required in production",
        "DISTRIBU_STAFF_SESSION_KEYS is required in production",
        "DISTRIBU_STORE_SESSION_KEYS is required in production",
        "DISTRIBU_PUBLIC_URL is required in production",
        "DISTRIBU_RESEND_KEY is required in production",
        "DISTRIBU_MAIL_FROM is required in production",
    ]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://app:Xk29-long@db.example/distribu",
        "postgresql://app:Xk29-long@db.example/distribu?sslmode=prefer",
        "postgresql://app:Xk29-long@db.example/distribu?sslmode=allow",
        "postgresql://app:Xk29-long@db.example/distribu?sslmode=disable",
        "postgresql://app:Xk29-long@db.example/distribu?sslmode=require&sslmode=disable",
        "postgresql://app:Xk29-long@127.0.0.1/distribu",
        "postgresql://app:Xk29-long@/distribu?host=db.example",
        "postgresql://app:Xk29-long@/distribu?host=/run/postgresql,db.example",
        "postgresql://app:Xk29-long@%2Frun%2Fpostgresql:5432,db.example:5432/distribu",
        "postgresql://app:Xk29-long@/distribu?hostaddr=192.0.2.1",
        "postgresql://app:Xk29-long@/distribu?service=elsewhere",
    ],
)
def test_production_speaks_to_its_database_over_tls(url: str) -> None:
    (said,) = problems(SAFE | {"DISTRIBU_DATABASE_URL": url})
    assert said == "DISTRIBU_DATABASE_URL must use TLS in production (sslmode=require) or a socket"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:///distribu",
        "postgresql://app@/distribu?host=/run/postgresql",
        "postgresql://app@%2Frun%2Fpostgresql/distribu",
        "postgres://app:Xk29-long@db.example/distribu?sslmode=verify-full",
    ],
)
def test_a_local_socket_needs_no_tls_and_no_password(url: str) -> None:
    assert load(SAFE | {"DISTRIBU_DATABASE_URL": url}).database_url == url


def test_production_is_reached_by_https() -> None:
    (said,) = problems(SAFE | {"DISTRIBU_PUBLIC_URL": "http://orders.example"})
    assert said == "DISTRIBU_PUBLIC_URL must begin with https:// in production"
    for url in ("https://orders.example/", "HTTPS://Orders.Example:8443", "https://[2001:db8::1]:8443"):
        assert load(SAFE | {"DISTRIBU_PUBLIC_URL": url}).public_url == url


@pytest.mark.parametrize("address", ["a@localhost", "no-reply@distribu.localhost", "a@B.LOCALHOST"])
def test_production_mails_from_an_address_that_can_be_answered(address: str) -> None:
    (said,) = problems(SAFE | {"DISTRIBU_MAIL_FROM": address})
    assert said == "DISTRIBU_MAIL_FROM is required in production"


@pytest.mark.parametrize(
    ("host", "begin"), [("127.0.0.1", "http://127.0.0.1:80"), ("::1", "http://[::1]:80")]
)
def test_links_begin_where_people_reach_it(host: str, begin: str) -> None:
    assert Settings(host=host, port=80).links_begin == begin
    assert Settings(host=host, public_url="https://orders.example").links_begin == "https://orders.example"


@pytest.mark.parametrize("password", ["", ":", ":postgres", ":password", ":distribu", ":changeme", ":secret"])
def test_production_takes_no_default_password(password: str) -> None:
    for name in ("DATABASE_URL", "OWNER_DATABASE_URL", "QUEUE_DATABASE_URL"):
        url = f"postgresql://app{password}@db.example/distribu?sslmode=require"
        (said,) = problems(SAFE | {f"DISTRIBU_{name}": url})
        assert said == f"DISTRIBU_{name} has no password, or a default one"


def test_production_takes_no_key_that_anybody_could_guess() -> None:
    (said,) = problems(SAFE | {"DISTRIBU_VAULT_KEYS": "A" * 43 + "="})
    assert said == "DISTRIBU_VAULT_KEYS holds a key that anybody could guess"
    (said,) = problems(SAFE | {"DISTRIBU_SEALING_KEYS": "A" * 43 + "="})
    assert said == "DISTRIBU_SEALING_KEYS holds a key that anybody could guess"


def test_no_key_seals_secrets_and_signs_the_log() -> None:
    (said,) = problems({"DISTRIBU_VAULT_KEYS": KEY, "DISTRIBU_SEALING_KEYS": f"{SEALING_KEY}, {KEY}"})
    assert said == "DISTRIBU_SEALING_KEYS holds a key of DISTRIBU_VAULT_KEYS"


# --- secrets ---------------------------------------------------------------------------------

SECRETS = {
    "DISTRIBU_DATABASE_URL": "postgresql://app:hunter2@[::1/db",
    "DISTRIBU_OWNER_DATABASE_URL": "mysql://app:hunter2@db",
    "DISTRIBU_QUEUE_DATABASE_URL": "postgresql://app:hunter2@exa\u2100mple/db",
    "DISTRIBU_REDIS_URL": "http://:hunter2@cache",
    "DISTRIBU_VAULT_KEYS": "hunter2",
    "DISTRIBU_METRICS_TOKEN": "hunter2",
    "DISTRIBU_SEALING_KEYS": "of-hunter2",
}


def test_no_error_repeats_a_secret() -> None:
    with pytest.raises(SettingsUnusable) as refused:
        load(SECRETS)
    assert len(refused.value.problems) == len(SECRETS)
    for shown in (str(refused.value), repr(refused.value), repr(refused.value.problems)):
        assert "hunter2" not in shown


def test_settings_do_not_show_their_secrets() -> None:
    settings = load(SAFE)
    for shown in (repr(settings), str(settings), f"{settings}"):
        assert "Xk29-long" not in shown
        assert KEY not in shown
        assert SEALING_KEY not in shown
        assert "cache.example" not in shown
        assert "port=8000" in shown
    assert repr(settings.vault_ring()) == "[Secret('...')]"


def test_whatever_can_hold_a_secret_is_hidden() -> None:
    telling = {"url", "key", "keys", "secret", "secrets", "password", "token"}
    names = [one.name for one in msgspec.structs.fields(Settings) if one.name != "public_url"]
    secret: dict[str, Any] = {name: "hunter2" for name in names if name.rpartition("_")[2] in telling}
    assert len(secret) >= 5
    strings = {name: value for name, value in secret.items() if "limit" not in name}
    assert "hunter2" not in repr(Settings(**strings))


# --- the key of a development machine --------------------------------------------------------


def test_a_development_machine_makes_its_own_key_and_keeps_it(tmp_path: Path) -> None:
    settings = Settings(data_dir=str(tmp_path / "new"))
    (key,) = settings.vault_ring()
    Fernet(key.reveal())
    assert settings.vault_ring() == [key]
    kept = tmp_path / "new" / "vault-key"
    assert kept.stat().st_mode & 0o077 == 0
    assert [one.name for one in kept.parent.iterdir()] == ["vault-key"]


def test_fingerprints_are_keyed_by_the_oldest_key() -> None:
    other = Fernet.generate_key().decode()
    first = Settings(vault_keys=KEY).fingerprint_key()
    assert first == Settings(vault_keys=f"{other},{KEY}").fingerprint_key()
    assert first != Settings(vault_keys=other).fingerprint_key()
    assert KEY.encode() not in first


def test_every_setting_says_what_it_is() -> None:
    for one in msgspec.structs.fields(Settings):
        (meta,) = one.type.__metadata__
        assert meta.description, one.name


# --- Stripe ----------------------------------------------------------------------------------

STRIPE = {
    "DISTRIBU_STRIPE_KEY": "sk_test_0123456789abcdef",
    "DISTRIBU_STRIPE_WEBHOOK_SECRETS": "whsec_0123456789abcdef, whsec_fedcba9876543210",
    "DISTRIBU_STRIPE_PRICE_STARTER_MONTH": "price_1",
    "DISTRIBU_STRIPE_PRICE_STARTER_YEAR": "price_2",
    "DISTRIBU_STRIPE_PRICE_GROWTH_MONTH": "price_3 , price_0",
    "DISTRIBU_STRIPE_PRICE_GROWTH_YEAR": "price_4",
    "DISTRIBU_STRIPE_PRICE_ENTERPRISE_MONTH": "price_5",
    "DISTRIBU_STRIPE_PRICE_ENTERPRISE_YEAR": "price_6",
}
LIVE = {**SAFE, **STRIPE, "DISTRIBU_STRIPE_KEY": "rk_live_0123456789abcdef"}


def test_what_is_sold_has_its_prices_and_those_before() -> None:
    settings = load(STRIPE)
    assert list(settings.stripe_prices()) == list(SOLD)
    assert list(settings.stripe_prices().values())[2] == ["price_3", "price_0"]
    assert [one.reveal() for one in settings.stripe_secrets()] == [
        "whsec_0123456789abcdef",
        "whsec_fedcba9876543210",
    ]
    for shown in (repr(settings), str(settings)):
        assert "sk_test" not in shown
        assert "whsec" not in shown
    assert load(LIVE).production


@pytest.mark.parametrize("name", sorted(STRIPE.keys() - {"DISTRIBU_STRIPE_KEY"}))
def test_whoever_sells_leaves_nothing_out(name: str) -> None:
    assert problems({**STRIPE, name: ""}) == [f"{name} is required with DISTRIBU_STRIPE_KEY"]


def test_a_key_that_is_left_out_by_mistake_does_not_give_everything_to_everybody() -> None:
    rest = {name: value for name, value in STRIPE.items() if name != "DISTRIBU_STRIPE_KEY"}
    said = problems({**rest, "DISTRIBU_STRIPE_API_BASE": "http://127.0.0.1:1"})
    assert said == [
        f"{name} is set, and DISTRIBU_STRIPE_KEY is not" for name in [*rest, "DISTRIBU_STRIPE_API_BASE"]
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KEY", "pk_test_0123456789abcdef"),
        ("KEY", "sk_test_"),
        ("KEY", "sk_test_0123456789abcdef\u00e9"),
        ("KEY", "whsec_0123456789abcdef"),
        ("WEBHOOK_SECRETS", "whsec_0123456789abcdef,sk_test_0123456789abcdef"),
        ("WEBHOOK_SECRETS", "whsec_short"),
        ("PRICE_GROWTH_YEAR", "prod_4"),
        ("PRICE_GROWTH_YEAR", "price_4;price_7"),
        ("PRICE_GROWTH_YEAR", "price_4,price_4"),
        ("PRICE_GROWTH_YEAR", "price_1"),
        ("API_BASE", "stripe.example"),
        ("API_BASE", "ftp://stripe.example"),
        ("API_BASE", "http://me@stripe.example"),
        ("API_BASE", "http://stripe.example/v1?x"),
        ("STUB", "true"),
        ("STUB", "perhaps"),
    ],
)
def test_what_stripe_would_not_know_is_named(name: str, value: str) -> None:
    (said,) = problems({**STRIPE, f"DISTRIBU_STRIPE_{name}": value})
    assert said.startswith(f"DISTRIBU_STRIPE_{name}")
    assert "0123456789abcdef" not in said


@pytest.mark.parametrize("key", ["sk_test_0123456789abcdef", "rk_test_0123456789abcdef"])
def test_production_takes_no_key_for_tests(key: str) -> None:
    assert problems({**LIVE, "DISTRIBU_STRIPE_KEY": key}) == [
        "DISTRIBU_STRIPE_KEY is a key for tests, which takes no money"
    ]


def test_production_does_not_let_the_sdk_of_stripe_write_down_what_it_posts() -> None:
    assert problems({**LIVE, "STRIPE_LOG": "debug"}) == [
        "STRIPE_LOG is not for production: it has Stripe's SDK write addresses to stderr"
    ]
    assert load({**LIVE, "STRIPE_LOG": ""}).production
    assert not load({**STRIPE, "STRIPE_LOG": "debug"}).production


def test_production_asks_stripe_alone() -> None:
    assert problems({**LIVE, "DISTRIBU_STRIPE_API_BASE": "https://stripe.example"}) == [
        "DISTRIBU_STRIPE_API_BASE is not for production"
    ]
    assert problems({**SAFE, "DISTRIBU_STRIPE_STUB": "true"}) == [
        "DISTRIBU_STRIPE_STUB is not for production"
    ]


def test_the_stripe_that_is_none_signs_by_a_secret_of_its_own(tmp_path: Path) -> None:
    mine, yours = (Settings(data_dir=str(tmp_path / name)) for name in "ab")
    assert mine.stripe_stub_secret() == mine.stripe_stub_secret()
    assert mine.stripe_stub_secret().reveal() != yours.stripe_stub_secret().reveal()


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("10.0.0.7", "http://10.0.0.7:8000"),
    ],
)
def test_a_process_reaches_itself(host: str, url: str) -> None:
    assert Settings(host=host, public_url="https://orders.example").loopback == url
