"""What the site shows works: every block of Python runs, every command line is understood, every page is linked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.app.commands import composed, python

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
#: The method cards have a test of their own.
PAGES = [page for page in sorted(DOCS.rglob("*.md")) if page.parent.name != "methods" or page.stem == "index"]


def blocks(page, language):
    """The code blocks of a page; what is included from an example is tested with the examples."""
    found = re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [block for block in found if "--8<--" not in block]


def pages_with(language):
    return [pytest.param(page, id=str(page.relative_to(DOCS))) for page in PAGES if blocks(page, language)]


@pytest.mark.parametrize("page", pages_with("python"))
def test_python_of_a_page_runs(page, tmp_path):
    """All blocks of a page in their order, as a reader would type them in."""
    done = python("\n".join(blocks(page, "python")), cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_yaml_is_read():
    for page in PAGES:
        for block in blocks(page, "yaml"):
            assert OmegaConf.create(block), page


def ke_train_lines():
    """Command lines of all pages that ke-train is to compose, each once."""
    lines = [line.strip() for page in PAGES for block in blocks(page, "console") for line in block.splitlines()]
    return sorted({line for line in lines if line.startswith("ke-train ") and "resume=" not in line})


@pytest.mark.parametrize("line", ke_train_lines())
def test_command_lines_compose(line):
    overrides = [word for word in line.split()[1:] if word != "-m" and not word.startswith("--")]
    assert composed(*(word.partition(",")[0] for word in overrides)).seed == 0


def test_every_page_is_in_the_navigation():
    settings = (ROOT / "zensical.toml").read_text(encoding="utf-8")
    in_navigation = re.findall(r'"([\w/.-]+\.md)"', settings)
    assert sorted(in_navigation) == sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))


@pytest.mark.parametrize("name", ["mask", "clock"])
def test_drawings_are_what_is_drawn(name, tmp_path):
    """The pictures on the concepts page follow the code that they show."""
    done = python((DOCS / "drawings" / "draw.py").read_text(encoding="utf-8"), tmp_path)
    assert done.returncode == 0, done.stderr
    drawn, kept = ((folder / f"{name}.svg").read_text() for folder in (tmp_path, DOCS / "drawings"))
    colours = re.compile(r"fill: (#\w{6})")
    assert colours.findall(drawn) == colours.findall(kept)
    assert len(colours.findall(kept)) > 2
