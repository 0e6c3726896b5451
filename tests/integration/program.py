"""The real `distribu` program, run as its users run it, on a data directory of its own."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from click.testing import CliRunner

from distribu.entrypoints import cli

WAIT_S = 60


class Done(NamedTuple):
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


class Program:
    """`distribu` on one data directory, with nothing of our own environment's settings."""

    def __init__(self, data: Path, **settings: str) -> None:
        self.data = data
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DISTRIBU_")}
        unlimited = {"DISTRIBU_API_LIMIT_PER_KEY": "0", "DISTRIBU_API_LIMIT_PER_IP": "0"}
        self.environ = {**kept, **unlimited, "DISTRIBU_DATA_DIR": str(data), "NO_COLOR": "1", **settings}

    def run(self, *words: str, **settings: str) -> Done:
        """Run a command to its end, in a process of its own."""
        done = subprocess.run(
            [sys.executable, "-m", "distribu", *words],
            env={**self.environ, **settings},
            capture_output=True,
            text=True,
            timeout=WAIT_S * 3,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def call(self, *words: str) -> Done:
        """Run a command to its end in this process: the same, but for the two seconds of a start."""
        strange = {name: None for name in os.environ if name.startswith("DISTRIBU_")}
        minded = signal.getsignal(signal.SIGTERM)
        try:
            done = CliRunner().invoke(cli.main, words, env={**strange, **self.environ})
        finally:
            signal.signal(signal.SIGTERM, minded)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Done(done.exit_code, done.stdout, done.stderr)

    def json(self, *words: str) -> dict[str, Any]:
        """What a command that succeeds prints with `--json`: one object, alone."""
        done = self.call(*words, "--json")
        assert (done.code, done.err) == (0, ""), done.err
        told = json.loads(done.out)
        assert isinstance(told, dict)
        return told

    def refused(self, *words: str) -> tuple[int, dict[str, Any]]:
        """The exit code of a command that is refused, and what it says on stderr with `--json`."""
        done = self.call(*words, "--json")
        assert done.out == ""
        return done.code, json.loads(done.err)

    def serving(self, *words: str) -> "contextlib.AbstractContextManager[Running]":
        """`distribu serve` on a free port."""
        return self.started("serve", "--port", "0", *words)

    @contextlib.contextmanager
    def started(self, *words: str) -> Iterator["Running"]:
        """A command that goes on, once it is ready; killed at the end if it still runs."""
        process = subprocess.Popen(
            [sys.executable, "-m", "distribu", *words, "--json"],
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            yield Running(process, json.loads(line))
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(WAIT_S)
            process.stdout.close()
            process.stderr.close()

    def postgres(self) -> int | None:
        """The process of the embedded database, while it runs."""
        try:
            pid = int((self.data / "postgres/data/postmaster.pid").read_text().split()[0])
            Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return pid


class Running:
    """A command that goes on and is ready. ``told`` is what it printed then."""

    def __init__(self, process: "subprocess.Popen[str]", told: dict[str, Any]) -> None:
        self.process = process
        self.told = told

    @property
    def url(self) -> str:
        """Where it serves."""
        return str(self.told["url"])

    def stop(self, by: signal.Signals = signal.SIGTERM) -> int:
        """Tell it to stop; its exit code."""
        self.process.send_signal(by)
        return self.process.wait(WAIT_S)
