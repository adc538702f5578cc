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


def evolve(folder: Path, counter: Any, split: str) -> tuple[dict[str, torch.Tensor], list[Any], list[int]]:
    """Six epochs in three generations; compiled by the counter, or plain if there is none."""
    seed_everything(0)
    module: Any = Classifier(dropout=0.0)
    count = Count(counter)
    callback = KnowledgeEvolution(split=split, epochs_per_generation=2, seed=0)
    trainer = make_trainer(folder, max_epochs=6, callbacks=[callback, *([count] if counter else [])])
    trainer.fit(torch.compile(module, backend=counter) if counter else module, train_loader(), val_loader(4))
    records = [{**record, "seconds": 0} for record in callback.history]
    return weights(module), records, count.frames


@pytest.mark.slow
@pytest.mark.compat(
    "Precision and compilation",
    "`torch.compile` of the LightningModule",
    "works",
    note="weights and scores as without it; a boundary compiles nothing anew",
)
@pytest.mark.parametrize("split", ["kels", "wels"])
def test_a_compiled_module_is_the_plain_one(tmp_path: Path, split: str) -> None:
    plain, expected, _ = evolve(tmp_path / "plain", None, split)
    compiled, records, frames = evolve(tmp_path / "compiled", CompileCounterWithBackend("aot_eager"), split)
    for name, values in compiled.items():
        torch.testing.assert_close(values, plain[name], rtol=1e-4, atol=1e-5)
    for one, other in zip(records, expected, strict=True):
        assert one["dense"] == pytest.approx(other["dense"], rel=1e-4)
        assert one["fit"] == pytest.approx(other["fit"], rel=1e-4)
        assert one["steps"] == other["steps"]
    assert frames[0] > 0, "something is compiled"
    assert frames[1] == frames[-1], "the second and the third generation compile nothing"
