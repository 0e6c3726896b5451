"""The embedded server: what belongs to whom, and what is in the way of nobody."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

from distribu import Settings
from tests.proofs.processes import kill_postgres


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_only_data_and_socket_belong_to_the_server(settings: Settings) -> None:
    """As root the server is another user: what root writes must not lie where that user could move it."""
    home = settings.data_path / "postgres"
    for name in ("", "log", "passwords", "postgresql.conf", "in-use", "starting"):
        assert (home / name).stat().st_uid == os.geteuid()
    assert mode(home) == 0o755
    assert mode(home / "passwords") == 0o600
    assert mode(home / "log") == 0o640
    assert mode(home / "data") == mode(home / "run") == 0o700
    assert (home / "data").stat().st_uid == (home / "run").stat().st_uid
    if os.geteuid() == 0:
        assert (home / "data").stat().st_uid != 0


def test_no_directory_of_the_server_holds_a_file_of_root_s(settings: Settings) -> None:
    home = settings.data_path / "postgres"
    server = (home / "data").stat().st_uid
    found = {path.stat().st_uid for part in ("data", "run") for path in (home / part).rglob("*")}
    assert found == {server}


def test_who_starts_it_may_be_killed_meanwhile(tmp_path: Path) -> None:
    """Also while the server recovers: the next one waits for that server, and takes its place from nobody."""
    start = (
        "import sys; from pathlib import Path; from distribu.adapters.postgres.embedded import embedded\n"
        "with embedded(Path(sys.argv[1])) as server:\n    print(server.app_url, flush=True); sys.stdin.read()"
    )

    def begun() -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-c", start, str(tmp_path)],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def living() -> str | None:
        found = pid.read_text().split()[:1] if pid.exists() else []
        command = Path("/proc", *found, "cmdline")
        return found[0] if found and command.exists() and command.read_bytes() else None

    pid = tmp_path / "postgres/data/postmaster.pid"
    first = begun()
    assert first.stdout is not None
    assert first.stdout.readline()
    kill_postgres(tmp_path)
    first.kill()
    first.communicate()
    starter = begun()
    end = time.monotonic() + 30
    while (recovering := living()) is None:
        assert time.monotonic() < end
        time.sleep(0.001)
    os.kill(int(recovering), signal.SIGSTOP)  # recovering may take this long, too
    starter.kill()
    starter.communicate()
    last = begun()
    time.sleep(3)
    assert living() == recovering, "another server was started beside one that lives"
    os.kill(int(recovering), signal.SIGCONT)
    assert last.stdout is not None
    assert last.stdout.readline().startswith("postgresql://")
    assert living() == recovering
    last.communicate("")
    assert last.returncode == 0
    assert not pid.exists()
