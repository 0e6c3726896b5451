"""What can be set, where it comes from, and the refusal to start with what is not usable.

Every setting is an environment variable ``DISTRIBU_<NAME>``; ``DISTRIBU_<NAME>_FILE`` names a file
that holds its value instead, as container platforms hand over secrets.
"""

import base64
import hashlib
import os
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

import msgspec
from cryptography.fernet import Fernet
from msgspec import Meta

from distribu.application.payments import SOLD, Prices
from distribu.application.ports import DELIVERIES_KEPT
from distribu.application.wrong import told
from distribu.domain.values import Secret

PREFIX: Final = "DISTRIBU_"


class SettingsUnusable(Exception):
    """What is wrong with the settings, one line each."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(["the settings cannot be used:", *(f"  - {one}" for one in problems)]))


class Environment(StrEnum):
    """Where it runs: production refuses what development forgives."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


def _default_data_dir() -> str:
    if os.geteuid() == 0:
        return "/var/lib/distribu"
    share = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return str(Path(share).expanduser() / "distribu")


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All there is to set. A field's description is its documentation."""

    env: Annotated[Environment, Meta(description="development or production")] = Environment.DEVELOPMENT
    host: Annotated[str, Meta(min_length=1, max_length=255, description="address to serve on")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="port to serve on; 0 takes a free one")] = 8000
    data_dir: Annotated[str, Meta(min_length=1, max_length=1024, description="where files are kept")] = (
        msgspec.field(default_factory=_default_data_dir)
    )
    database_url: Annotated[
        str | None,
        Meta(description="PostgreSQL, as the application's role; without it the embedded one is used"),
    ] = None
    owner_database_url: Annotated[
        str | None, Meta(description="PostgreSQL, as the owner of the tables; to migrate and purge alone")
    ] = None
    queue_database_url: Annotated[
        str | None,
        Meta(description="PostgreSQL, as the worker's role; by default database_url as <user>_queue"),
    ] = None
    database_pool: Annotated[int, Meta(ge=1, le=500, description="connections for requests")] = 10
    database_prepare: Annotated[
        bool, Meta(description="prepare statements; off for PgBouncer before 1.21")
    ] = True
    vault_keys: Annotated[
        str | None,
        Meta(description="Fernet keys that seal secrets, newest first, with commas between"),
    ] = None
    sealing_keys: Annotated[
        str | None,
        Meta(description="keys that sign the audit log, newest first, with commas between"),
    ] = None
    api_limit_per_key: Annotated[
        int, Meta(ge=0, le=1_000_000, description="API requests a minute for a key; 0 switches it off")
    ] = 60
    api_limit_per_ip: Annotated[
        int, Meta(ge=0, le=1_000_000, description="API requests a minute for an address; 0 switches it off")
    ] = 120
    public_url: Annotated[
        str | None,
        Meta(description="where people reach this, such as https://orders.example; required in production"),
    ] = None
    security_contact: Annotated[
        str, Meta(max_length=254, description="mailto: or https: of whoever hears of holes in the security")
    ] = "mailto:security@distribu.app"
    trusted_proxies: Annotated[
        str,
        Meta(description="addresses or networks of the proxies in front, with commas between"),
    ] = ""
    redis_url: Annotated[str | None, Meta(description="Redis for rate limits; required in production")] = None
    staff_session_keys: Annotated[
        str | None,
        Meta(description="keys that sign the sessions of staff, newest first, with commas between"),
    ] = None
    store_session_keys: Annotated[
        str | None,
        Meta(description="keys that sign the sessions at stores; none of them a staff key"),
    ] = None
    mail_from: Annotated[
        str, Meta(min_length=3, max_length=254, description="the address that mails come from")
    ] = "no-reply@distribu.localhost"
    resend_key: Annotated[
        str | None,
        Meta(description="API key of Resend; without it mails go to the mailbox at /_mail and to the log"),
    ] = None
    stripe_key: Annotated[
        str | None,
        Meta(description="secret or restricted key of Stripe; without it nothing is sold, nothing limited"),
    ] = None
    stripe_webhook_secrets: Annotated[
        str | None, Meta(description="secrets of Stripe's webhook, newest first, with commas between")
    ] = None
    stripe_price_starter_month: Annotated[
        str | None, Meta(description="id of the price of Starter by the month, and of those it had")
    ] = None
    stripe_price_starter_year: Annotated[
        str | None, Meta(description="id of the price of Starter by the year, and of those it had")
    ] = None
    stripe_price_growth_month: Annotated[
        str | None, Meta(description="id of the price of Growth by the month, and of those it had")
    ] = None
    stripe_price_growth_year: Annotated[
        str | None, Meta(description="id of the price of Growth by the year, and of those it had")
    ] = None
    stripe_price_enterprise_month: Annotated[
        str | None, Meta(description="id of the price of Enterprise by the month, and of those it had")
    ] = None
    stripe_price_enterprise_year: Annotated[
        str | None, Meta(description="id of the price of Enterprise by the year, and of those it had")
    ] = None
    stripe_api_base: Annotated[
        str | None, Meta(description="where Stripe's API is, if not at Stripe; not in production")
    ] = None
    stripe_stub: Annotated[
        bool, Meta(description="sell by a Stripe that is none, at /_stripe; not in production")
    ] = False
    argon2_memory_kib: Annotated[
        int, Meta(ge=1024, le=1_048_576, description="KiB of memory to hash a password")
    ] = 19_456
    argon2_time_cost: Annotated[int, Meta(ge=1, le=20, description="passes to hash a password")] = 2
    argon2_parallelism: Annotated[int, Meta(ge=1, le=16, description="lanes to hash a password")] = 1
    hasher_threads: Annotated[int, Meta(ge=1, le=64, description="passwords hashed at once")] = 2
    hasher_waiting: Annotated[
        int, Meta(ge=1, le=10_000, description="passwords that may wait to be hashed; more is busy")
    ] = 64
    metrics_token: Annotated[
        str | None,
        Meta(description="what a monitor shows to read /metrics; in production there are none without it"),
    ] = None
    cron_token: Annotated[
        str | None,
        Meta(description="what a scheduler shows to run jobs by POST /cron/JOB; without it there is none"),
    ] = None
    worker_concurrency: Annotated[int, Meta(ge=1, le=1000, description="webhooks on their way at once")] = 512
    deliveries_kept_days: Annotated[
        int, Meta(ge=1, le=3650, description="days that events and their deliveries are kept")
    ] = DELIVERIES_KEPT.days

    @property
    def deliveries_kept(self) -> timedelta:
        """How long events and their deliveries are kept."""
        return timedelta(days=self.deliveries_kept_days)

    def __repr__(self) -> str:
        """What is set, but for the secrets."""
        shown = (
            f"{name}={'...' if name in _SECRET and value is not None else repr(value)}"
            for name, value in msgspec.structs.asdict(self).items()
        )
        return f"Settings({', '.join(shown)})"

    @property
    def data_path(self) -> Path:
        """Where files are kept."""
        return Path(self.data_dir).expanduser().absolute()

    @property
    def mail_path(self) -> Path:
        """Where mails are kept that are not sent."""
        return self.data_path / "mail"

    @property
    def links_begin(self) -> str:
        """What the links in mails begin with."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.public_url or f"http://{host}:{self.port}"

    @property
    def loopback(self) -> str:
        """Where this process reaches itself, when it serves: not through whatever is in front of it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104  # compared
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def production(self) -> bool:
        """Whether it is for real."""
        return self.env is Environment.PRODUCTION

    def proxies(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """The networks whose forwarded headers are believed. Raises `ValueError` for what is none."""
        return tuple(ip_network(one.strip()) for one in self.trusted_proxies.split(",") if one.strip())

    def vault_ring(self) -> list[Secret]:
        """The keys that seal secrets; in development made once and kept in the data directory."""
        return self._ring(self.vault_keys, "vault-key")

    def sealing_ring(self) -> list[Secret]:
        """The keys that sign the audit log; in development made once and kept in the data directory."""
        return self._ring(self.sealing_keys, "sealing-key")

    def session_keys(self) -> tuple[list[Secret], list[Secret]]:
        """The keys that sign sessions, of staff and of stores; in development made once and kept."""
        return (
            self._ring(self.staff_session_keys, "staff-session-key"),
            self._ring(self.store_session_keys, "store-session-key"),
        )

    def _ring(self, given: str | None, name: str) -> list[Secret]:
        if given:
            return [Secret(key.strip()) for key in given.split(",") if key.strip()]
        kept = self.data_path / name
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            making = kept.with_name(f"{name}.{secrets.token_hex(4)}")
            making.touch(mode=0o600)
            making.write_text(Fernet.generate_key().decode())
            with suppress(FileExistsError):
                os.link(making, kept)
            making.unlink()
        return [Secret(kept.read_text().strip())]

    def stripe_secrets(self) -> list[Secret]:
        """The secrets that Stripe signs with."""
        given = (self.stripe_webhook_secrets or "").split(",")
        return [Secret(one.strip()) for one in given if one.strip()]

    def stripe_prices(self) -> Prices:
        """The ids of the prices of all that is sold; of what is not set there are none."""
        return {
            kind: [one.strip() for one in (getattr(self, name) or "").split(",") if one.strip()]
            for name, kind in _PRICES.items()
        }

    def stripe_stub_secret(self) -> Secret:
        """What the Stripe that is none signs with, and is asked with: other in every data directory."""
        return Secret("whsec_" + hashlib.sha256(b"stripe" + self.fingerprint_key()).hexdigest())

    def fingerprint_key(self) -> bytes:
        """What keys the fingerprints of requests under an idempotency key: the oldest key, which a rotation
        keeps longest."""
        return hashlib.sha256(b"fingerprint" + self.vault_ring()[-1].reveal().encode()).digest()


_SECRET: Final = frozenset(
    {"database_url", "owner_database_url", "queue_database_url", "vault_keys", "redis_url", "resend_key"}
    | {"staff_session_keys", "store_session_keys", "sealing_keys", "metrics_token", "cron_token"}
    | {"stripe_key", "stripe_webhook_secrets"}
)
_PRICES: Final = {f"stripe_price_{plan}_{interval}".lower(): (plan, interval) for plan, interval in SOLD}
_STRIPE_KEY: Final = re.compile(r"[rs]k_(test|live)_[A-Za-z0-9]{10,250}")
_STRIPE_SECRET: Final = re.compile(r"whsec_[A-Za-z0-9+/=_-]{16,250}")
_STRIPE_PRICE: Final = re.compile(r"price_[A-Za-z0-9_]{1,100}")
_POSTGRES: Final = ("postgresql://", "postgres://")
_SCHEMES: Final = {
    "database_url": _POSTGRES,
    "owner_database_url": _POSTGRES,
    "queue_database_url": _POSTGRES,
    "redis_url": ("redis://", "rediss://", "unix://"),
}
_ORIGIN: Final = re.compile(
    r"(?i:https?)://(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?/?"
)
"""A URL of a host alone; its port."""

_ADDRESS: Final = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,188})")
_RESEND_KEY: Final = re.compile(r"[!-~]{1,200}")
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/=-]{32,200}")
"""As RFC 6750 (2.1) writes what comes after "Bearer", and long enough not to be found by trying."""

_CONTACT: Final = re.compile(r"mailto:[!-~]+@[!-~]+|https://[!-~]+")
SESSION_KEY_MIN: Final = 32
"""Characters of a key that signs sessions (RFC 7518, 3.2)."""

_DEFAULT_PASSWORDS: Final = frozenset({"", "postgres", "password", "distribu", "changeme", "secret"})


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of an environment (by default ours). Raises `SettingsUnusable` with all that is wrong."""
    environ = os.environ if environ is None else environ
    problems: list[str] = []
    given: dict[str, Any] = {}
    known = {field.name for field in msgspec.structs.fields(Settings)}
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or not environ[variable]:
            continue
        name, value = variable[len(PREFIX) :].lower(), environ[variable]
        if name.endswith("_file") and name.removesuffix("_file") in known:
            name = name.removesuffix("_file")
            if environ.get(PREFIX + name.upper()):
                problems.append(f"{variable} and {PREFIX}{name.upper()} are both set")
                continue
            try:
                value = Path(value).read_text().strip()
            except OSError as error:
                # Not the path: it may be the secret itself, given by the wrong name.
                problems.append(f"{variable}: {error.strerror}")
                continue
            except ValueError:
                problems.append(f"{variable}: the file holds no text")
                continue
        if name not in known:
            problems.append(f"{variable} is no setting of Distribu")
            continue
        field = next(one for one in msgspec.structs.fields(Settings) if one.name == name)
        try:
            given[name] = msgspec.convert(value, field.type, strict=False)
        except msgspec.ValidationError as error:
            shown = "" if name in _SECRET else f" (it is {value!r})"
            problems.append(f"{variable} {told(error, field.type)[1]}{shown}")
    settings = Settings(**given)
    problems += _wrong(settings)
    if settings.production and environ.get("STRIPE_LOG"):
        problems.append("STRIPE_LOG is not for production: it has Stripe's SDK write addresses to stderr")
    if problems:
        raise SettingsUnusable(problems)
    return settings


def _wrong(settings: Settings) -> list[str]:
    problems = []
    for name, url in _urls(settings):
        if not url.startswith(_SCHEMES[name]):
            problems.append(f"{PREFIX}{name.upper()} must begin with {' or '.join(_SCHEMES[name])}")
        elif _split(url) is None:
            problems.append(f"{PREFIX}{name.upper()} is no URL")
    if settings.vault_keys is not None:
        for place, key in enumerate(settings.vault_ring(), 1):
            try:
                Fernet(key.reveal())
            except ValueError:
                problems.append(
                    f"{PREFIX}VAULT_KEYS: key {place} is no Fernet key (32 bytes as url-safe base64)"
                )
        if not settings.vault_ring():
            problems.append(f"{PREFIX}VAULT_KEYS holds no key")
    if settings.sealing_keys is not None:
        for place, key in enumerate(settings.sealing_ring(), 1):
            if not _is_seed(key.reveal()):
                problems.append(
                    f"{PREFIX}SEALING_KEYS: key {place} is no Ed25519 key (32 bytes as url-safe base64)"
                )
        if not settings.sealing_ring():
            problems.append(f"{PREFIX}SEALING_KEYS holds no key")
        vault = (settings.vault_keys or "").split(",")
        if {key.reveal() for key in settings.sealing_ring()} & {key.strip() for key in vault}:
            problems.append(f"{PREFIX}SEALING_KEYS holds a key of {PREFIX}VAULT_KEYS")
    try:
        settings.proxies()
    except ValueError as wrong:
        problems.append(f"{PREFIX}TRUSTED_PROXIES: {wrong}")
    problems += _wrong_session_keys(settings)
    if settings.public_url is not None and not _is_origin(settings.public_url):
        problems.append(f"{PREFIX}PUBLIC_URL must be http:// or https://, a host and no path")
    if not _CONTACT.fullmatch(settings.security_contact):
        problems.append(f"{PREFIX}SECURITY_CONTACT must be mailto: and an address, or a URL of https:")
    if not _ADDRESS.fullmatch(settings.mail_from):
        problems.append(f"{PREFIX}MAIL_FROM must be one plain address, such as orders@orders.example")
    if settings.resend_key is not None and not _RESEND_KEY.fullmatch(settings.resend_key):
        problems.append(f"{PREFIX}RESEND_KEY is no key of Resend")
    problems += _wrong_stripe(settings)
    for name in ("metrics_token", "cron_token"):
        token = getattr(settings, name)
        if token is not None and (not _TOKEN.fullmatch(token) or len(set(token)) < 12):
            problems.append(
                f"{PREFIX}{name.upper()} must have 32 to 200 letters, digits and -._~+/=,"
                " and be hard to guess"
            )
    if settings.cron_token is not None and settings.cron_token == settings.metrics_token:
        problems.append(f"{PREFIX}CRON_TOKEN is {PREFIX}METRICS_TOKEN: who reads the one could run jobs")
    return problems + (_wrong_in_production(settings) if settings.production else [])


def _wrong_session_keys(settings: Settings) -> list[str]:
    problems = []
    rings = {}
    for name in ("staff_session_keys", "store_session_keys"):
        given = getattr(settings, name)
        rings[name] = {key.strip() for key in (given or "").split(",") if key.strip()}
        if given is not None and (not rings[name] or any(len(set(key)) < 12 for key in rings[name])):
            problems.append(f"{PREFIX}{name.upper()} holds no key, or one that anybody could guess")
        elif any(len(key) < SESSION_KEY_MIN for key in rings[name]):
            problems.append(f"{PREFIX}{name.upper()}: a key must have {SESSION_KEY_MIN} characters or more")
    if rings["staff_session_keys"] & rings["store_session_keys"]:
        problems.append(f"{PREFIX}STORE_SESSION_KEYS holds a key of {PREFIX}STAFF_SESSION_KEYS")
    return problems


def _wrong_stripe(settings: Settings) -> list[str]:
    given = [
        name for name in ("stripe_webhook_secrets", *_PRICES, "stripe_api_base") if getattr(settings, name)
    ]
    if settings.stripe_key is None:
        # Left out by mistake it would give everything to everybody.
        return [f"{PREFIX}{name.upper()} is set, and {PREFIX}STRIPE_KEY is not" for name in given]
    problems = []
    if not _STRIPE_KEY.fullmatch(settings.stripe_key):
        problems.append(f"{PREFIX}STRIPE_KEY is no secret or restricted key of Stripe (sk_..., rk_...)")
    if settings.stripe_stub:
        problems.append(f"{PREFIX}STRIPE_STUB and {PREFIX}STRIPE_KEY are both set")
    secrets = settings.stripe_secrets()
    if not secrets:
        problems.append(f"{PREFIX}STRIPE_WEBHOOK_SECRETS is required with {PREFIX}STRIPE_KEY")
    for place, secret in enumerate(secrets, 1):
        if not _STRIPE_SECRET.fullmatch(secret.reveal()):
            problems.append(f"{PREFIX}STRIPE_WEBHOOK_SECRETS: secret {place} is none of Stripe (whsec_...)")
    seen: set[str] = set()
    for name, refs in zip(_PRICES, settings.stripe_prices().values(), strict=True):
        if not refs:
            problems.append(f"{PREFIX}{name.upper()} is required with {PREFIX}STRIPE_KEY")
        elif not all(map(_STRIPE_PRICE.fullmatch, refs)):
            problems.append(f"{PREFIX}{name.upper()} must be the id of a price of Stripe (price_...)")
        elif seen & {*refs} or len(refs) != len({*refs}):
            problems.append(f"{PREFIX}{name.upper()} names a price that is named already")
        seen |= {*refs}
    base = settings.stripe_api_base
    if base is not None and not re.fullmatch(rf"{_ORIGIN.pattern}(?:[A-Za-z0-9_/-]{{0,100}})", base):
        problems.append(f"{PREFIX}STRIPE_API_BASE must be http:// or https://, a host, and perhaps a path")
    return problems


def _wrong_in_production(settings: Settings) -> list[str]:
    problems = []
    if settings.database_url is None:
        problems.append(f"{PREFIX}DATABASE_URL is required in production")
    for name, url in _urls(settings):
        parts = _split(url)
        if parts is None or name == "redis_url":
            continue
        if not _private_way(parts):
            problems.append(
                f"{PREFIX}{name.upper()} must use TLS in production (sslmode=require) or a socket"
            )
        if not _by_socket(parts) and (parts.password or "") in _DEFAULT_PASSWORDS:
            problems.append(f"{PREFIX}{name.upper()} has no password, or a default one")
    if settings.vault_keys is None:
        problems.append(f"{PREFIX}VAULT_KEYS is required in production")
    elif any(len(set(key.reveal())) < 12 for key in settings.vault_ring()):
        problems.append(f"{PREFIX}VAULT_KEYS holds a key that anybody could guess")
    if settings.sealing_keys is None:
        problems.append(f"{PREFIX}SEALING_KEYS is required in production")
    elif any(len(set(key.reveal())) < 12 for key in settings.sealing_ring()):
        problems.append(f"{PREFIX}SEALING_KEYS holds a key that anybody could guess")
    if settings.redis_url is None:
        problems.append(f"{PREFIX}REDIS_URL is required in production")
    least = 19_456 if settings.argon2_time_cost > 1 else 47_104  # OWASP's Password Storage Cheat Sheet
    if settings.argon2_memory_kib < least:
        passes = f"{PREFIX}ARGON2_TIME_COST={settings.argon2_time_cost}"
        problems.append(f"{PREFIX}ARGON2_MEMORY_KIB must be at least {least} in production with {passes}")
    problems += [
        f"{PREFIX}{name.upper()} is required in production"
        for name in ("staff_session_keys", "store_session_keys")
        if getattr(settings, name) is None
    ]
    if settings.public_url is None:
        problems.append(f"{PREFIX}PUBLIC_URL is required in production")
    elif not settings.public_url.lower().startswith("https://"):
        problems.append(f"{PREFIX}PUBLIC_URL must begin with https:// in production")
    if settings.resend_key is None:
        problems.append(f"{PREFIX}RESEND_KEY is required in production")
    if (settings.stripe_key or "")[2:].startswith("_test_"):
        problems.append(f"{PREFIX}STRIPE_KEY is a key for tests, which takes no money")
    problems += [
        f"{PREFIX}{name.upper()} is not for production"
        for name in ("stripe_api_base", "stripe_stub")
        if getattr(settings, name)
    ]
    if settings.mail_from.lower().endswith((".localhost", "@localhost")):
        problems.append(f"{PREFIX}MAIL_FROM is required in production")
    return problems


def _is_seed(key: str) -> bool:
    try:
        return len(base64.b64decode(key, altchars=b"-_", validate=True)) == 32
    except ValueError:
        return False


def _urls(settings: Settings) -> list[tuple[str, str]]:
    return [(name, url) for name in _SCHEMES if (url := getattr(settings, name)) is not None]


def _split(url: str) -> SplitResult | None:
    """A URL's parts. What `urlsplit` says of one that is wrong can quote the password."""
    try:
        return urlsplit(url)
    except ValueError:
        return None


def _is_origin(url: str) -> bool:
    found = _ORIGIN.fullmatch(url)
    return found is not None and 0 < int(found[1] or 443) <= 65535


def _private_way(parts: SplitResult) -> bool:
    mode = parse_qs(parts.query).get("sslmode", ["prefer"])[-1]
    return mode in ("require", "verify-ca", "verify-full") or _by_socket(parts)


def _by_socket(parts: SplitResult) -> bool:
    """Whether every host is a local socket; no host at all is one too."""
    query = parse_qs(parts.query)
    if "hostaddr" in query or "service" in query:
        return False
    hosts = query.get("host", [unquote(parts.netloc.rpartition("@")[2])])[-1].split(",")
    return all(host.startswith("/") or host == "" for host in hosts)
