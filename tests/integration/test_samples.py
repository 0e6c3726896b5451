"""The samples for receivers, as they stand in the document, on the vectors.

Python is always there. Node, Go and PHP are run where they are on the machine: one that is missing is no
case here.
"""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from distribu.application import views
from distribu.entrypoints import vectors
from distribu.entrypoints.http import reference
from tests.samples import LANGUAGES, Language, sample


@pytest.mark.parametrize("language", [one for one in LANGUAGES if one.found], ids=lambda one: one.name)
def test_the_sample_has_the_verdict_on_each_vector(language: Language, tmp_path: Path) -> None:
    made = vectors.vectors(datetime.now(UTC))  # by this machine's clock, which the sample goes by
    deliveries = json.loads(views.encode(made))["vectors"]
    said = language.run(tmp_path, made.secret, deliveries)
    assert said == {one.name: one.verdict for one in made.vectors}


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda one: one.name)
def test_there_is_a_short_sample_in_each_language(language: Language) -> None:
    code = sample(language.name).partition(")\n\n")[2] if language.name == "go" else sample(language.name)
    assert len(code.strip().splitlines()) <= (35 if language.name == "go" else 20)
    for header in ("x-webhook-signature", "x-webhook-signature-old", "webhook-signature", "webhook-id"):
        assert header in code.lower()


def test_the_page_shows_the_sample_of_the_document() -> None:
    assert sample("python") == reference.VERIFY
