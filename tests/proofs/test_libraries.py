"""The public libraries of Node, as npm brings them: they accept what we send and refuse what they must.

Where there is no Node, no npm or no registry, there is nothing to run.
"""

import atexit
import json
import shutil
import subprocess
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from distribu import Harness
from distribu.application import views
from distribu.application.receiving import STANDARD
from distribu.entrypoints import vectors
from tests.contracts.receiving import through_a_rotation
from tests.samples import delivery

PACKAGES = ("standardwebhooks", "svix")
PROGRAM = """
const { Webhook } = require(process.argv[2]);
const told = JSON.parse(require("node:fs").readFileSync(process.argv[3]));
console.log(JSON.stringify(told.map((one) => {
  try {
    new Webhook(one.secret).verify(Buffer.from(one.bodyBase64, "base64"), one.headers);
    return "accept";
  } catch { return "refuse"; }
})));
"""


@cache
def installed() -> Path | None:
    """A folder with the packages in it, unmodified; None where they cannot be had."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        return None
    folder = Path(mkdtemp(prefix="distribu-libraries-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    command = [npm, "install", "--no-save", "--no-audit", "--no-fund", "--ignore-scripts", *PACKAGES]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, timeout=180, check=False)
    except subprocess.TimeoutExpired:
        return None
    return folder if done.returncode == 0 else None


def said(package: str, told: list[dict[str, Any]]) -> list[str]:
    """What a library says of each delivery."""
    folder = installed()
    assert folder is not None
    (folder / "program.js").write_text(PROGRAM)
    (folder / "told.json").write_text(json.dumps(told))
    command = ["node", "program.js", package, "told.json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=60, check=True)
    verdicts: list[str] = json.loads(done.stdout)
    return verdicts


__test__ = installed() is not None


@pytest.mark.parametrize("package", PACKAGES)
def test_a_library_of_node_has_the_same_verdict_on_each_vector(package: str) -> None:
    made = vectors.vectors(datetime.now(UTC))
    told = json.loads(views.encode(made))["vectors"]
    wanted = {one["name"]: one["schemes"][STANDARD] for one in told}
    verdicts = said(package, [{**one, "secret": made.secret} for one in told])
    assert dict(zip(wanted, verdicts, strict=True)) == wanted


@pytest.mark.parametrize("package", PACKAGES)
async def test_a_library_of_node_accepts_us_before_during_and_after_a_rotation(package: str) -> None:
    async with Harness() as shop:
        sent = await through_a_rotation(shop)
    told = [{**delivery(it.when, it.one.headers, it.one.body), "secret": it.secret.reveal()} for it in sent]
    assert said(package, told) == ["accept" if it.good else "refuse" for it in sent]
