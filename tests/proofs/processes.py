"""Distribu as processes of its own, and ways to end them without asking."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import psycopg


class Process:
    """``distribu <arguments>`` on a data directory. What it says goes to ``log``."""

    def __init__(self, data_dir: Path, *arguments: str, **settings: object) -> None:
        self.arguments = arguments
        self.log = data_dir / f"{arguments[0]}.log"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DISTRIBU_")}
        given = {f"DISTRIBU_{name.upper()}": str(value) for name, value in settings.items()}
        unlimited = {"DISTRIBU_API_LIMIT_PER_KEY": "0", "DISTRIBU_API_LIMIT_PER_IP": "0"}
        self._environ = kept | unlimited | given | {"DISTRIBU_DATA_DIR": str(data_dir)}
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it is not ready yet."""
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "distribu", *self.arguments],
                env=self._environ,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def child(self) -> "subprocess.Popen[bytes]":
        """The process. Raises `AssertionError` for one that was never started."""
        assert self._child is not None
        return self._child

    def kill(self) -> None:
        """SIGKILL: it gets to do nothing more."""
        self.child.kill()
        self.child.wait()

    async def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.child.terminate()
        return await asyncio.to_thread(self.child.wait, 40)

    def end(self) -> None:
        """Make sure that nothing is left of it."""
        if self._child is not None and self._child.poll() is None:
            self.kill()

    def said(self) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-40:])


class Server(Process):
    """``distribu serve`` on a port that stays the same over restarts."""

    def __init__(self, data_dir: Path, *arguments: str, **settings: object) -> None:
        self.port = free_port()
        super().__init__(data_dir, "serve", *arguments, port=self.port, **settings)
        self.url = f"http://127.0.0.1:{self.port}"

    async def started(self) -> float:
        """Start, and wait until it can be used. Returns the seconds that took."""
        began = time.perf_counter()
        self.start()
        async with aiohttp.ClientSession() as session:
            while True:
                assert self.child.poll() is None, self.said()
                assert time.perf_counter() - began < 60, self.said()
                try:
                    async with session.get(f"{self.url}/readyz") as answer:
                        if answer.status == 200:
                            return time.perf_counter() - began
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.02)


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def superuser(data_dir: Path) -> "psycopg.Connection[Any]":
    """The embedded database, seen by one whom row-level security does not hold back."""
    home = data_dir / "postgres"
    lines = (home / "data/postmaster.pid").read_text().splitlines()
    words = dict(line.split(" ", 1) for line in (home / "passwords").read_text().splitlines())
    return psycopg.connect(
        host=lines[4].strip() or "127.0.0.1",
        port=lines[3].strip(),
        user="postgres",
        password=words["postgres"],
        dbname="distribu",
        autocommit=True,
    )


def kill_postgres(data_dir: Path) -> int:
    """SIGKILL of the embedded server and of every process it has made. Returns how many those were."""
    postmaster = int((data_dir / "postgres/data/postmaster.pid").read_text().split("\n", 1)[0])
    os.kill(postmaster, signal.SIGSTOP)  # or it makes another while they are counted
    family = [postmaster, *_children(postmaster)]
    for pid in family:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue  # it ended by itself when the postmaster was gone
    return len(family)


def _children(parent: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = stat.read_text().rpartition(") ")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(after_name[1]) == parent:
            found.append(int(stat.parent.name))
    return found
