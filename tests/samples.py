"""The samples of `docs/receiving-webhooks.md`, run as they stand in each language that is on the machine."""

import json
import os
import re
import shutil
import subprocess
import sys
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

DOCUMENT: Final = Path(__file__).parents[1] / "docs" / "receiving-webhooks.md"


def sample(language: str) -> str:
    """The code that the document has in a language."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    return str(found)


def in_python() -> Any:
    """The Python sample's function."""
    there: dict[str, Any] = {}
    exec(sample("python"), there)
    return there["verified"]


@dataclass(frozen=True, slots=True)
class Language:
    """A way to run a sample: ``program`` starts it, ``files`` are what it takes beside the sample.

    Run with the name of a JSON file of deliveries, it prints each one's name and verdict, as JSON.
    """

    name: str
    program: tuple[str, ...]
    sample: str
    before: str
    after: str
    files: Mapping[str, str]

    @property
    def found(self) -> str | None:
        """Where the program is, if it is on this machine."""
        return sys.executable if self.name == "python" else shutil.which(self.program[0])

    def run(self, folder: Path, secret: str, deliveries: list[dict[str, Any]]) -> dict[str, str]:
        """The verdict of the sample on each of these, by name."""
        (folder / self.sample).write_text(self.before + sample(self.name) + self.after)
        for name, text in self.files.items():
            (folder / name).write_text(text)
        (folder / "deliveries.json").write_text(json.dumps({"secret": secret, "vectors": deliveries}))
        caches = {
            "GOCACHE": str(folder / "cache"),
            "GOPATH": str(folder),
            "GO111MODULE": "off",
            "HOME": str(folder),
        }
        done = subprocess.run(
            [str(self.found), *self.program[1:], "deliveries.json"],
            cwd=folder,
            env={**os.environ, **caches},
            capture_output=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        said: dict[str, str] = json.loads(done.stdout)
        return said


_PYTHON: Final = """
import sys
from email.message import Message

told, said = json.load(open(sys.argv[1])), {}
for one in told["vectors"]:
    headers = Message()  # whose names are found in any case, as a framework's are
    for name, value in one["headers"].items():
        headers[name] = value
    try:
        verified(base64.b64decode(one["bodyBase64"]), headers, told["secret"])
        said[one["name"]] = "accept"
    except ValueError:
        said[one["name"]] = "refuse"
print(json.dumps(said))
"""
_NODE: Final = """
const told = JSON.parse(require("node:fs").readFileSync(process.argv[2]));
const said = {};
for (const one of told.vectors) {
  const headers = Object.fromEntries(Object.entries(one.headers).map(([k, v]) => [k.toLowerCase(), v]));
  try {
    verified(Buffer.from(one.bodyBase64, "base64"), headers, told.secret);
    said[one.name] = "accept";
  } catch { said[one.name] = "refuse"; }
}
console.log(JSON.stringify(said));
"""
_GO: Final = """package main

import (
	"encoding/json"
	"net/http"
	"os"
)

func main() {
	var told struct {
		Secret  string
		Vectors []struct {
			Name       string
			Headers    map[string]string
			BodyBase64 []byte
		}
	}
	text, err := os.ReadFile(os.Args[1])
	if err == nil {
		err = json.Unmarshal(text, &told)
	}
	if err != nil {
		panic(err)
	}
	said := map[string]string{}
	for _, one := range told.Vectors {
		headers := http.Header{}
		for name, value := range one.Headers {
			headers.Set(name, value)
		}
		said[one.Name] = "accept"
		if _, err := Verified(one.BodyBase64, headers, told.Secret); err != nil {
			said[one.Name] = "refuse"
		}
	}
	json.NewEncoder(os.Stdout).Encode(said)
}
"""
_PHP: Final = """
$told = json_decode(file_get_contents($argv[1]), true);
$said = [];
foreach ($told["vectors"] as $one) {
    try {
        verified(base64_decode($one["bodyBase64"]), array_change_key_case($one["headers"]), $told["secret"]);
        $said[$one["name"]] = "accept";
    } catch (RuntimeException | JsonException) {
        $said[$one["name"]] = "refuse";
    }
}
echo json_encode($said);
"""

LANGUAGES: Final = (
    Language("python", ("python", "receiver.py"), "receiver.py", "", _PYTHON, {}),
    Language("js", ("node", "receiver.js"), "receiver.js", "", _NODE, {}),
    Language(
        "go", ("go", "run", "receiver.go", "main.go"), "receiver.go", "package main\n\n", "", {"main.go": _GO}
    ),
    Language("php", ("php", "receiver.php"), "receiver.php", "<?php\n", _PHP, {}),
)


def delivery(name: str, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """A delivery as a sample's program reads it."""
    return {"name": name, "headers": dict(headers), "bodyBase64": b64encode(body).decode()}
