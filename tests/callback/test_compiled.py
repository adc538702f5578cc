"""A compiled LightningModule is trained, redrawn and scored as the plain one, and a boundary compiles nothing anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch._dynamo.testing import CompileCounterWithBackend

from lightning_ke import KnowledgeEvolution
from lightning_ke.naming import canonical_name
from tests.callback.modules import Classifier, make_trainer, train_loader, val_loader, weights


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Count(Callback):
    """How many graphs have been compiled by the end of each epoch."""

    def __init__(self, counter: Any) -> None:
        self.counter = counter
        self.frames: list[int] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.frames.append(self.counter.frame_count)


def compiled(module: Any, way: str, backend: Any) -> Any:
    """A module that is compiled as a whole, or whose network is, in either of torch's two ways."""
    if way == "module":
        return torch.compile(module, backend=backend)
    if way == "network":
        module.model = torch.compile(module.model, backend=backend)
    elif way == "network in place":
        module.model.compile(backend=backend)
    return module


def evolve(folder: Path, way: str, split: str) -> tuple[dict[str, torch.Tensor], list[Any], list[int]]:
    """Three generations of two epochs; how many graphs there were after each epoch."""
    seed_everything(0)
    counter = CompileCounterWithBackend("aot_eager")
    module: Any = Classifier(dropout=0.0)
    count = Count(counter)
    callback = KnowledgeEvolution(split=split, epochs_per_generation=2, seed=0)
    trainer = make_trainer(folder, max_epochs=6, callbacks=[callback, count])
    trainer.fit(compiled(module, way, counter), train_loader(), val_loader(4))
    values = {canonical_name(name): value for name, value in weights(module).items()}
    return values, callback.history, count.frames


COMPAT = "Precision and compilation"
NOTE = "weights and scores as without it; a boundary compiles nothing anew"


@pytest.mark.parametrize(
    ("way", "split"),
    [
        pytest.param(
            way,
            split,
            marks=[pytest.mark.compat(COMPAT, f"`torch.compile` of the {what}", "works", note=NOTE), *speed],
        )
        for way, what, split, speed in [
            ("module", "LightningModule", "kels", []),
            ("module", "LightningModule", "wels", [pytest.mark.slow]),
            ("network", "network", "kels", [pytest.mark.slow]),
            ("network in place", "network", "kels", [pytest.mark.slow]),
            ("network in place", "network", "wels", [pytest.mark.slow]),
        ]
    ],
)
def test_a_compiled_module_is_the_plain_one(tmp_path: Path, way: str, split: str) -> None:
    plain, expected, _ = evolve(tmp_path / "plain", "not at all", split)
    values, records, frames = evolve(tmp_path / "compiled", way, split)
    assert values.keys() == plain.keys()
    for name, value in values.items():
        torch.testing.assert_close(value, plain[name], rtol=1e-4, atol=1e-5)
    for one, other in zip(records, expected, strict=True):
        assert one["dense"] == pytest.approx(other["dense"], rel=1e-3)
        assert one["fit"] == pytest.approx(other["fit"], rel=1e-3)
        assert one["steps"] == other["steps"]
    assert frames[0] > 0, "something is compiled"
    assert frames[1] == frames[-1], "the second and the third generation compile nothing"
