"""The README tells the truth: its examples run, its settings and links exist."""

import ast
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

import distribu
from distribu import Harness, Settings
from distribu.application.webhooks import RotateWebhookSecret

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("name", ["test_our_erp_hears_of_an_order", "test_a_member_cannot_see_the_log"])
async def test_the_harness_example_runs(shop: Harness, name: str) -> None:
    example: dict[str, Any] = {}
    exec(next(block for block in PYTHON if "Harness" in block), example)
    await example[name](shop)


async def test_the_example_of_paying_runs() -> None:
    example: dict[str, Any] = {"pytest": pytest}
    exec(next(block for block in PYTHON if "sells=True" in block), example)
    await example["test_a_trial_ends_and_a_card_is_refused"]()


def test_the_embedding_example_names_what_there_is() -> None:
    tree = ast.parse(next(block for block in PYTHON if "connect()" in block))
    imported = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert imported
    for node in imported:
        module = distribu if node.module == "distribu" else __import__(str(node.module), fromlist=["*"])
        assert all(hasattr(module, name.name) for name in node.names)


def test_every_setting_is_told_and_no_other() -> None:
    told = set(re.findall(r"`DISTRIBU_([A-Z0-9_]+)`", README))
    there = {field.name.upper() for field in msgspec.structs.fields(Settings)}
    assert told == there


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_what_is_pointed_at_is_there(document: str) -> None:
    text = (ROOT / document).read_text()
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / link).exists(), link
    for path in re.findall(r"`((?:tests|src|docs)/[^`:*<>]+)`", text):
        assert (ROOT / path).exists(), path


def test_every_make_target_is_told_by_make() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):.*##", makefile, re.MULTILINE))
    for target in re.findall(r"`make ([a-z]+)`", README + (ROOT / "CONTRIBUTING.md").read_text()):
        assert target in targets


async def test_the_receiver_s_example_tells_ours_from_forged(shop: Harness) -> None:
    example: dict[str, Any] = {}
    exec(next(block for block in PYTHON if "genuine" in block), example)
    genuine = example["genuine"]
    webhook, secret = await shop.webhook()
    await shop.product()
    await shop.execute(RotateWebhookSecret(webhook_id=webhook.id))
    await shop.work()
    for one in shop.received:
        assert genuine(secret.reveal(), one.body, one.headers)
        assert not genuine(secret.reveal(), one.body + b" ", one.headers)
        assert not genuine("whsec_" + "A" * 32, one.body, one.headers)
    assert shop.received
