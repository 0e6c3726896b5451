"""The embedded server: what belongs to whom, and what is in the way of nobody."""

import os
import stat
from pathlib import Path

from distribu import Settings


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
