"""The package as a whole: its public names, what naming it loads, and what it says about itself."""

import ast
import importlib.metadata
import importlib.util
import re
import sys
from pathlib import Path

import pytest

import lightning_ke as ke
from tests.app.commands import python

ROOT = Path(__file__).parents[1]


def test_every_public_name_is_there_and_documented():
    for name in ke.__all__:
        assert getattr(ke, name).__doc__, name
    assert set(ke.__all__) <= set(dir(ke))


def test_the_contract_s_names_are_public():
    contract = {"draw_mask", "redraw", "extract_slim", "measure_cost", "list_splits", "load_mask", "KnowledgeEvolution"}
    assert contract | {"KnowledgeEvolutionCallback", "Cost", "Mask"} <= set(ke.__all__)


def test_both_names_are_the_same_callback():
    assert ke.KnowledgeEvolutionCallback is ke.KnowledgeEvolution


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'lightning_ke' has no attribute 'no_such_name'"):
        _ = ke.no_such_name


def test_type_checkers_see_the_same_names_as_users():
    text = (ROOT / "lightning_ke" / "__init__.py").read_text()
    imported = re.search(r"if TYPE_CHECKING:\n(.*?)\n\n", text, re.DOTALL)[1]
    names = {name.strip() for line in imported.splitlines() for name in line.partition(" import ")[2].split(",")}
    assert names == set(ke.__all__)


def test_a_public_name_is_no_submodule():
    """Importing a submodule of a public name's name would hide it."""
    for name in ke.__all__:
        assert importlib.util.find_spec(f"lightning_ke.{name}") is None, name


def test_naming_the_package_loads_nothing():
    done = python("import sys; before = set(sys.modules); import lightning_ke; print(set(sys.modules) - before)")
    loaded = {name.partition(".")[0] for name in ast.literal_eval(done.stdout)}
    assert loaded <= {"lightning_ke"} | sys.stdlib_module_names


def test_the_core_loads_no_library_that_lightning_does_not():
    done = python(
        "import sys, lightning.pytorch, torchmetrics; before = set(sys.modules)\n"
        "import lightning_ke as ke\n"
        "for name in ke.__all__: getattr(ke, name)\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new - set(sys.stdlib_module_names) - {'lightning_ke'}))"
    )
    # The other namespace of the same library: a callback must work in the Trainers of both.
    assert set(ast.literal_eval(done.stdout)) <= {"pytorch_lightning", "lightning_fabric"}


def test_versions_agree():
    declared = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    assert ke.__version__ == declared
    try:
        installed = importlib.metadata.version("lightning-ke")
    except importlib.metadata.PackageNotFoundError:
        return
    assert installed == declared


def test_the_malicious_releases_are_excluded():
    text = (ROOT / "pyproject.toml").read_text()
    for name in ("lightning", "pytorch-lightning"):
        assert re.search(rf'"{name}>=[\d.]+,!=2\.6\.2,!=2\.6\.3"', text)
