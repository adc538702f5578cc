"""Bad input is refused before the first batch, with a sentence that names the argument."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, ModelPruning, StochasticWeightAveraging
from torch import nn

from lightning_ke import Ascent, KnowledgeEvolution, SlimFirst
from tests.callback.modules import Classifier, make_trainer, named, train_loader, val_loader


@pytest.mark.parametrize("rate", [0, 1, -0.5, 1.5, math.nan, "0.5", True])
def test_rates_outside_of_the_open_interval(rate: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=r"Expected argument `rate` to be .*in \(0, 1\)"):
        KnowledgeEvolution(rate=rate)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "kelz"}, r"Expected argument `split` to be one of .*'kels', .*'wels'"),
        ({"split": "layers", "rate": 0.5}, r"Expected argument `rate` to be None for split 'layers'"),
        ({"generations": 0}, r"Expected argument `generations` to be a whole number of at least 1 or None, but got 0"),
        ({"generations": 2.5}, r"Expected argument `generations` .* but got 2\.5"),
        ({"generations": True}, r"Expected argument `generations` .* but got True"),
        ({"epochs_per_generation": -1}, r"Expected argument `epochs_per_generation` .* but got -1"),
        ({"reset": "layr"}, r"`reset`"),
        ({"norm": "drop"}, r"Expected argument `norm` to be one of 'keep', 'reset', but got 'drop'"),
        ({"optimizer": "old"}, r"Expected argument `optimizer` to be one of 'new', 'keep', 'clear', but got 'old'"),
        ({"lr_schedule": "stop"}, r"Expected argument `lr_schedule` to be one of 'restart', 'continue'"),
        ({"score_fit": True}, r"Expected argument `score_fit` to be one of 'epoch', 'generation', False, but got True"),
        ({"fit_norm": "slim"}, r"Expected argument `fit_norm` to be one of 'dense', 'reestimate'"),
        ({"seed": -1}, r"Expected argument `seed` to be a whole number of at least 0 or None, but got -1"),
        ({"seed": 1.0}, r"Expected argument `seed` .* but got 1\.0"),
        ({"exclude": "model.*"}, r"Write `exclude=\('model\.\*',\)`"),
        ({"exclude": None}, r"Expected argument `exclude` to be a sequence of patterns, but got None"),
        ({"exclude": [5]}, r"Expected argument `exclude` to be a sequence of patterns, but got \[5\]"),
        ({"target": 5}, r"Expected argument `target` to be the name of a submodule, but got 5"),
        ({"stop_at": ["val_acc"]}, r"Expected argument `stop_at` to give metrics goals"),
        ({"schedule": "lr"}, r"Expected argument `schedule` to be a `GenerationSchedule` or a dict"),
        ({"phases": "slim-first"}, r"Expected argument `phases` to be a list of phases"),
        ({"phases": [SlimFirst]}, r"Expected argument `phases` to be a list of phases"),
        ({"phases": SlimFirst()}, r"Expected argument `phases` to be a list of phases"),
    ],
    ids=named,
)
def test_arguments_are_checked_by_the_constructor(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        KnowledgeEvolution(**arguments)


def refused(tmp_path: Path, module: LightningModule, callbacks: list[Any], message: str, **kwargs: Any) -> str:
    """The run fails with the message, and before any batch has been trained on; the whole sentence is returned."""
    seed_everything(0)
    trainer = make_trainer(tmp_path, **{"max_epochs": 2, **kwargs, "callbacks": callbacks})
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        trainer.fit(module, train_loader(), val_loader())
    assert trainer.global_step == 0
    return str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "epochs", "message"),
    [
        ({"generations": 3}, 2, r"at least one epoch for each of 3 generations, but got `max_epochs=2`"),
        ({"generations": 3, "epochs_per_generation": 4}, 10, r"Write `max_epochs=12`"),
        ({"generations": 3}, 10, r"Write `max_epochs=9` or `max_epochs=12`"),
        ({}, 5, r"each of 10 generations \(the default\)"),
        ({}, 0, r"got `max_epochs=0`\. Write `max_epochs=10` or more\.$"),
        ({"target": "modle"}, 10, r"Expected argument `target` to name a submodule, but there is no 'modle'.*'model'"),
        ({"exclude": ("nothing.*",)}, 10, r"`exclude`.*'nothing\.\*'"),
        ({"exclude": ("model.*",)}, 10, r"every weight of the reset hypothesis is frozen, excluded"),
        ({"split": "wels", "norm": "reset"}, 10, r"norm"),
    ],
    ids=named,
)
def test_contradictions_with_module_and_trainer(
    tmp_path: Path, arguments: dict[str, Any], epochs: int, message: str
) -> None:
    refused(tmp_path, Classifier(), [KnowledgeEvolution(**arguments)], message, max_epochs=epochs)


def test_a_trainer_without_epochs_needs_their_number(tmp_path: Path) -> None:
    refused(
        tmp_path,
        Classifier(),
        [KnowledgeEvolution()],
        "`epochs_per_generation` to be given",
        max_epochs=-1,
        max_steps=5,
    )


@pytest.mark.parametrize("lengths", [{"epochs_per_generation": 1}, {"epochs_per_generation": [1, 1]}], ids=named)
def test_a_least_length_beyond_the_last_generation(tmp_path: Path, lengths: dict[str, Any]) -> None:
    callback = KnowledgeEvolution(generations=2, **lengths)
    message = "Expected `min_epochs` to be at most 2, .* but got `min_epochs=3`"
    refused(tmp_path, Classifier(), [callback], message, max_epochs=-1, min_epochs=3)


def test_two_callbacks(tmp_path: Path) -> None:
    callbacks = [KnowledgeEvolution(generations=2), KnowledgeEvolution(split="wels", generations=2)]
    with pytest.raises((ValueError, RuntimeError), match="KnowledgeEvolution"):
        make_trainer(tmp_path, max_epochs=2, callbacks=callbacks).fit(Classifier(), train_loader(), val_loader())


class TakesNoNumber(Classifier):
    def on_generation_start(self) -> None:
        """Be told of a generation, but not of which."""


def test_a_hook_that_takes_no_generation(tmp_path: Path) -> None:
    message = r"`on_generation_start` of TakesNoNumber .* Write `def on_generation_start\(self, generation\)`"
    refused(tmp_path, TakesNoNumber(), [KnowledgeEvolution(generations=2)], message)


def test_a_slim_network_without_a_training_in_this_process() -> None:
    with pytest.raises(ValueError, match=r"this process has not trained.*`ddp_spawn`.*`load_mask\(path\)`"):
        KnowledgeEvolution().slim_network(Classifier())


@pytest.mark.parametrize("score_fit", ["generation", False])
@pytest.mark.parametrize("kind", [ModelCheckpoint, EarlyStopping])
def test_monitoring_what_is_not_scored_in_every_epoch(tmp_path: Path, score_fit: Any, kind: Any) -> None:
    callbacks = [KnowledgeEvolution(generations=2, score_fit=score_fit), kind(monitor="ke/fit/val_acc")]
    message = "monitors `ke/fit/val_acc`, which is not there in every epoch"
    refused(tmp_path, Classifier(), callbacks, message, enable_checkpointing=kind is ModelCheckpoint)


@pytest.mark.parametrize(
    "neighbour",
    [
        pytest.param(
            lambda: StochasticWeightAveraging(1e-2),
            marks=pytest.mark.compat("Callbacks", "StochasticWeightAveraging", "refused"),
            id="swa",
        ),
        pytest.param(
            lambda: ModelPruning("l1_unstructured", amount=0.5),
            marks=pytest.mark.compat("Callbacks", "ModelPruning", "refused"),
            id="pruning",
        ),
    ],
)
def test_callbacks_that_rewrite_the_training(tmp_path: Path, neighbour: Any, record_property: Any) -> None:
    beside = neighbour()
    message = f"does not work beside {type(beside).__name__}"
    sentence = refused(tmp_path, Classifier(), [KnowledgeEvolution(generations=2), beside], message)
    record_property("refusal", sentence)


class Around(Classifier):
    """The classifier around another network."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.model = network


class Functional(Classifier):
    """Has weights, but no network that could be watched or traced."""

    def __init__(self) -> None:
        super().__init__()
        del self.model
        self.weight = nn.Parameter(torch.zeros(4, 108))
        self.example_input_array = None

    forward = LightningModule.forward


def frozen() -> LightningModule:
    module = Classifier()
    module.model.requires_grad_(False)
    module.extra = nn.Parameter(torch.zeros(1))
    return module


def half_frozen_by_optimizer() -> LightningModule:
    class NormsOnly(Classifier):
        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.model[1].parameters(), lr=0.1)

    return NormsOnly()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (frozen, r"every weight of the reset hypothesis is frozen, excluded or in no optimizer"),
        (half_frozen_by_optimizer, r"every weight of the reset hypothesis is frozen, excluded or in no optimizer"),
        (lambda: Around(nn.Sequential(nn.Flatten(), nn.Linear(108, 4))), r"all of it would be fit"),
        (lambda: Around(nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.Linear(8, 4))), r"`model\.1\.weight` .*lazy"),
        (
            lambda: Around(nn.Sequential(nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(108, 8)))),
            r"parametrised",
        ),
        (lambda: Around(nn.Sequential(nn.Flatten(), nn.Linear(108, 8, dtype=torch.complex64))), r"complex64"),
        (Functional, r"no `forward`|nothing|network"),
    ],
    ids=["frozen", "no optimizer", "nothing to split", "lazy", "weight norm", "complex", "no network"],
)
def test_networks_that_cannot_be_split(tmp_path: Path, build: Any, message: str) -> None:
    refused(tmp_path, build(), [KnowledgeEvolution(generations=2)], message)


class PerSample(Around):
    """Runs a network for single samples, on all of a batch at once."""

    def __init__(self) -> None:
        super().__init__(nn.Sequential(nn.Flatten(0), nn.Linear(108, 8), nn.ReLU(), nn.Linear(8, 4)))
        self.example_input_array = None

    forward = LightningModule.forward

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return nn.functional.cross_entropy(torch.func.vmap(self.model)(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.training_step(batch, batch_idx))


def test_a_network_that_runs_only_inside_of_vmap_needs_an_example(tmp_path: Path) -> None:
    message = r"outside of `torch\.func` .*`KnowledgeEvolution\(example_input=\.\.\.\)`"
    refused(tmp_path, PerSample(), [KnowledgeEvolution(generations=2)], message)
    callback = KnowledgeEvolution(generations=2, example_input=torch.zeros(3, 6, 6))
    make_trainer(tmp_path, max_epochs=2, callbacks=[callback]).fit(PerSample(), train_loader(), val_loader())
    assert all(record["fit"] for record in callback.history)


class StepsByItself(Classifier):
    """Steps an optimizer of which Lightning hears nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.example_input_array = None

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        optimizer: Any = self.optimizers(use_pl_optimizer=False)
        optimizer.zero_grad()
        self.manual_backward(nn.functional.cross_entropy(self(batch[0]), batch[1]))
        optimizer.step()


def test_steps_behind_the_back_of_lightning(tmp_path: Path) -> None:
    """They do where nothing depends on them; a split or phase that needs them says so after the first epoch."""
    callback = KnowledgeEvolution(generations=2)
    make_trainer(tmp_path, max_epochs=2, callbacks=[callback]).fit(StepsByItself(), train_loader(), val_loader())
    assert all(record["fit"] for record in callback.history)
    for arguments, why in (
        ({"split": "snip"}, "by which the mask is drawn"),
        ({"phases": [Ascent(["model.0.*"])]}, "whose gradients 'ascent' changes"),
    ):
        trainer = make_trainer(tmp_path, max_epochs=4, callbacks=[KnowledgeEvolution(generations=2, **arguments)])
        with pytest.raises(ValueError, match=rf"{why}.* step what `self\.optimizers\(\)` returns"):
            trainer.fit(StepsByItself(), train_loader(), val_loader())
        assert trainer.current_epoch == 0


def test_the_module_is_left_clean_if_its_first_batch_fails(tmp_path: Path) -> None:
    class Fails(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self(batch[0])
            raise RuntimeError("no such loss")

    module = Fails()
    module.example_input_array = None
    trainer = make_trainer(tmp_path, max_epochs=2, callbacks=[KnowledgeEvolution(generations=2)])
    with pytest.raises(RuntimeError, match="no such loss"):
        trainer.fit(module, train_loader(), val_loader())
    assert not any(each._forward_pre_hooks or each._forward_hooks for each in module.modules())


def test_the_module_is_left_clean_after_a_refusal(tmp_path: Path) -> None:
    module = Classifier()
    refused(tmp_path, module, [KnowledgeEvolution(generations=2, target="nowhere")], "target")
    assert "configure_optimizers" not in vars(module)
    make_trainer(tmp_path, max_epochs=1).fit(module, train_loader(), val_loader())
