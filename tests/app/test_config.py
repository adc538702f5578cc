"""Every file of the configuration composes, and what it describes can be built."""

import inspect
import re
from pathlib import Path

import pytest
from hydra.utils import get_class, get_object
from omegaconf import OmegaConf

from lightning_ke.app.build import build
from lightning_ke.app.train import config_dir
from lightning_ke.app.typed import check_types
from lightning_ke.callback import KnowledgeEvolution
from lightning_ke.resets import list_resets
from lightning_ke.splits import list_splits
from tests.app.commands import composed, need_averages

# Launchers and sweepers are composed with Hydra's own configuration, which tests of the launchers do.
GROUPS = sorted(path.name for path in config_dir().iterdir() if path.is_dir() and path.name != "hydra")
OPTIONS = [
    (group, path.relative_to(config_dir() / group).with_suffix("").as_posix())
    for group in GROUPS
    for path in sorted((config_dir() / group).rglob("*.yaml"))
]


def targets(node):
    """Every mapping with a `_target_`."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield node
        for value in node.values():
            yield from targets(value)


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_and_its_keys_are_arguments(group, option):
    need_averages(option)
    config = OmegaConf.to_container(composed(f"{group}={option}"), resolve=False)
    for node in targets(config):
        target = get_object(node["_target_"])
        parameters = inspect.signature(target).parameters
        given = {key for key in node if not key.startswith("_")}
        takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        if takes_any and inspect.isclass(target):
            for base in get_class(node["_target_"]).__mro__:
                parameters = {**inspect.signature(base.__init__).parameters, **parameters}
        elif takes_any:
            continue  # a function that hands the rest to a library which need not be installed
        assert given <= set(parameters), f"{node['_target_']} takes no {given - set(parameters)}"


BUILT = {"callbacks", "datamodule", "generations", "loss", "optimizer", "redraw", "scheduler", "split", "task"}


@pytest.mark.parametrize(("group", "option"), [(group, option) for group, option in OPTIONS if group != "logger"])
def test_every_option_has_values_of_the_right_types_and_is_built(group, option):
    need_averages(option)
    config = composed(f"{group}={option}", "logger=none")  # loggers write where only Hydra knows
    for key in OmegaConf.missing_keys(config):
        OmegaConf.update(config, key, "here")
    check_types(config)
    files = {("loss", "distillation"), ("split", "mask")}  # a teacher, a mask
    if group in BUILT and (group, option) not in files:
        build(config[group])


def test_the_page_about_the_app_names_every_option():
    page = (Path(__file__).parents[2] / "docs" / "app.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| `")]
    named = {(row[1].strip(" `"), option) for row in rows for option in re.findall(r"`([^`]+)`", row[3])}
    assert named == set(OPTIONS), "docs/app.md and conf/ differ"


def test_the_callback_s_options_are_all_there():
    options = set(composed().generations) - {"count", "epochs"} | set(composed().redraw)
    elsewhere = {"self", "split", "rate", "ops", "generations", "epochs_per_generation", "example_input", "seed"}
    assert options == set(inspect.signature(KnowledgeEvolution.__init__).parameters) - elsewhere


def test_every_split_has_its_file():
    assert {option for group, option in OPTIONS if group == "split"} >= set(list_splits())


def test_every_reset_has_its_file():
    assert {option for group, option in OPTIONS if group == "redraw"} == set(list_resets())


def test_defaults_are_those_of_the_callback():
    options = {**composed().generations, **composed().redraw}
    parameters = inspect.signature(KnowledgeEvolution.__init__).parameters
    for name in set(options) - {"count", "epochs", "exclude"}:
        assert options[name] == parameters[name].default, name
