"""Processes: starting them, and what they cost in CPU and memory, as the kernel counts it."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
_TICKS: Final = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Seconds of CPU that a process and all its children have used, those that ended included."""
    stats = dict(_stats())
    family = {pid}
    for child in sorted(stats):
        # A child's id may be lower than its parent's after the ids have gone round: then it is missed.
        if stats[child][0] in family:
            family.add(child)
    return sum(stats[member][1] for member in family)


def _stats() -> Iterator[tuple[int, tuple[int, float]]]:
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            # the parent; then utime, stime, cutime and cstime
            yield int(path.parent.name), (int(fields[1]), sum(map(int, fields[11:15])) / _TICKS)


def memory_mib(pid: int) -> float:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")) / 1024


def postmaster(data_dir: Path) -> int:
    """The process id of the embedded PostgreSQL in a data directory."""
    return int((data_dir / "postgres/data/postmaster.pid").read_text().split("\n", 1)[0])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def started(
    module: str, *arguments: str, port: int, path: str, settings: Mapping[str, str] | None = None
) -> Iterator[tuple[int, float]]:
    """A server of ours: its process id and the seconds until ``path`` was first answered."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("DISTRIBU_")}
    environ |= {"DISTRIBU_API_LIMIT_PER_KEY": "0", "DISTRIBU_API_LIMIT_PER_IP": "0"} | dict(settings or {})
    begun = time.monotonic()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments], cwd=ROOT, env=environ, stdout=said, stderr=said
        )
        try:
            if not _answered(f"http://127.0.0.1:{port}{path}", process):
                said.seek(0)
                raise SystemExit(f"{module} never answered:\n{said.read()[-4_000:].decode()}")
            yield process.pid, time.monotonic() - begun
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def _answered(url: str, process: "subprocess.Popen[bytes]") -> bool:
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return True
        time.sleep(0.01)
    return False


def load(**plan: Any) -> Mapping[str, Any]:
    """Run the load generator in a process of its own; see `tests.benchmarks.load`."""
    return told("tests.benchmarks.load", plan)


def told(module: str, plan: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a module of ours says, as a process of its own that reads its plan as JSON and answers in it."""
    done = subprocess.run(
        [sys.executable, "-m", module],
        cwd=ROOT,
        input=json.dumps(plan),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: Mapping[str, Any] = json.loads(done.stdout)
    return found
