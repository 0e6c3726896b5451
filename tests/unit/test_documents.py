"""The tables of SECURITY.md and docs/regressions.md name only what there is, and every test of a claim."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from distribu.application.reconciling import Differing
from distribu.domain.billing import PLANS

ROOT = Path(__file__).parents[2]
CLAIMS = "tests/integration/test_claims.py"
NOT_YET = "not yet"


def rows(document: str, heading: str) -> list[list[str]]:
    """The cells of the table below a heading, without its head."""
    _, _, text = (ROOT / document).read_text().partition(heading)
    lines = [line for line in text.partition("\n## ")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


TABLES = {
    "SECURITY.md": rows("SECURITY.md", "## What holds, and what holds it"),
    "docs/regressions.md": rows("docs/regressions.md", "# Mistakes"),
}
ROWS = [pytest.param(row, id=row[0][:50]) for table in TABLES.values() for row in table]


def named_in(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def place(path: str) -> Path:
    """Where a path that is named in a table is: in the repository, or in the product."""
    return next((at for at in (ROOT / path, ROOT / "src/distribu" / path) if at.exists()), ROOT / path)


def defined(tree: ast.AST, prefix: str = "") -> Iterator[str]:
    """Every name that a module or a class gives to something, dotted."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.ClassDef():
                yield prefix + node.name
                yield from defined(node, f"{prefix}{node.name}.")
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield prefix + node.name
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
                yield prefix + name
            case _:
                pass


def missing(reference: str) -> bool:
    path, _, name = reference.partition(": ")
    if not place(path).exists():
        return True
    return bool(name) and name not in defined(ast.parse(place(path).read_text()))


def test_there_are_tables() -> None:
    assert all(len(table) >= 25 and {len(row) for row in table} == {3} for table in TABLES.values())


@pytest.mark.parametrize("row", ROWS)
def test_what_a_row_names_is_there(row: list[str]) -> None:
    *_, held, test = row
    if test == NOT_YET:
        assert not named_in(held)
        return
    references = named_in(held) * (row in TABLES["SECURITY.md"]) + named_in(test)
    assert named_in(test), "a row names its test"
    assert [one for one in references if missing(one)] == []


def test_every_test_of_a_claim_is_in_a_row() -> None:
    told = {one.partition(": ")[2] for row in TABLES["SECURITY.md"] for one in named_in(row[2])}
    tests = {
        name
        for name in defined(ast.parse((ROOT / CLAIMS).read_text()))
        if re.fullmatch(r"Test\w+\.test_\w+", name)
    }
    assert len(tests) >= 25
    assert tests - told == set()


def test_the_plans_are_told_as_they_are() -> None:
    told = {}
    for names, *numbers in rows("docs/billing.md", "# Plans and what they allow"):
        for plan in re.findall(r"[A-Z]{3,}", names):
            told[plan] = [None if one == "any" else int(one.replace(",", "")) for one in numbers]
    assert told == {
        plan: [it.products, it.customers, it.seats, it.orders_a_month] for plan, it in PLANS.items()
    }


def test_what_differs_at_stripe_is_told() -> None:
    told = [row[0] for row in rows("docs/billing.md", "## Looking after it")]
    assert told == [one.value for one in Differing]


def test_what_is_not_there_is_seen() -> None:
    assert not missing("application/kernel.py: Distribu.execute")
    assert missing("application/kernel.py: Distribu.perish")
    assert missing("application/kernels.py")
    assert missing(f"{CLAIMS}: TestAuthentication.test_nothing")
