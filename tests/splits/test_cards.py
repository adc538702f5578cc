"""Every split has a card that says what has to be said of it, and whose code runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lightning_ke.splits import list_splits
from tests.app.commands import composed

FOLDER = Path(__file__).parents[2] / "docs" / "methods"
CARDS = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.md")) if path.stem != "index"}


def test_every_split_has_a_card() -> None:
    assert set(list_splits()) | {"edge-popup", "mask", "compose"} <= set(CARDS)


@pytest.mark.parametrize("text", CARDS.values(), ids=CARDS.keys())
def test_a_card_says_all_that_belongs_to_one(text: str) -> None:
    for part in ("**When**", "**Suggested values**", "**Cost**", "**Source**", "## Differences from the authors' code"):
        assert part in text
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (FOLDER / link).exists(), link


@pytest.mark.parametrize("text", CARDS.values(), ids=CARDS.keys())
def test_a_card_s_code_runs(text: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "card", "exec"), {})


@pytest.mark.parametrize("text", [text for text in CARDS.values() if "`ke-train " in text])
def test_a_card_s_command_lines_compose(text: str) -> None:
    for line in re.findall(r"`ke-train ([^`]+)`", text):
        composed(*(word.strip("'") for word in line.split()))
