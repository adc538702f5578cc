"""When generations close and open, and what a checkpoint of that moment holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from lightning_ke import KnowledgeEvolution
from tests.callback.modules import Classifier, make_trainer, same, train_loader, val_loader, weights


class Witness(Callback):
    """Writes down the weights at the end of each epoch and before the first batch of the next."""

    def __init__(self) -> None:
        self.at_end: dict[int, dict[str, torch.Tensor]] = {}
        self.at_first_batch: dict[int, dict[str, torch.Tensor]] = {}
        self.generations: dict[int, int] = {}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.at_end[trainer.current_epoch] = weights(pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            self.at_first_batch[trainer.current_epoch] = weights(pl_module)
            callback = next(c for c in trainer.callbacks if isinstance(c, KnowledgeEvolution))
            self.generations[trainer.current_epoch] = callback.generation


def evolve(tmp_path: Path, callback: KnowledgeEvolution, epochs: int, *others: Callback, **kwargs: Any) -> Classifier:
    seed_everything(0)
    module = Classifier()
    ckpt_path = kwargs.pop("ckpt_path", None)
    trainer = make_trainer(tmp_path, max_epochs=epochs, callbacks=[*others, callback], **kwargs)
    trainer.fit(module, train_loader(), val_loader(), ckpt_path=ckpt_path)
    return module


@pytest.mark.parametrize("split", ["kels", "wels"])
def test_exactly_the_reset_hypothesis_changes_and_only_between_generations(tmp_path: Path, split: str) -> None:
    witness = Witness()
    callback = KnowledgeEvolution(split=split, epochs_per_generation=2, seed=0)
    evolve(tmp_path, callback, 6, witness)
    assert witness.generations == {0: 1, 1: 1, 2: 2, 3: 2, 4: 3, 5: 3}
    assert callback.mask is not None
    for epoch in range(1, 6):
        before, after = witness.at_end[epoch - 1], witness.at_first_batch[epoch]
        if epoch in (1, 3, 5):
            assert same(before, after) == []
            continue
        for name, weight in before.items():
            if name.endswith(("0.weight", "3.weight", "9.weight")):
                fit = callback.mask[name]
                assert torch.equal(weight[fit], after[name][fit])
                assert not (weight[~fit] == after[name][~fit]).any()
            elif "model.1." in name or "model.4." in name:
                assert torch.equal(weight, after[name]), "norm='keep' redraws no BatchNorm"


def test_two_redraws_draw_different_values(tmp_path: Path) -> None:
    witness = Witness()
    callback = KnowledgeEvolution(generations=3, seed=0)
    evolve(tmp_path, callback, 3, witness)
    assert callback.mask is not None
    reset = ~callback.mask["model.3.weight"]
    second, third = (witness.at_first_batch[epoch]["model.3.weight"][reset] for epoch in (1, 2))
    assert not (second == third).any()


@pytest.mark.parametrize(
    "options",
    [
        {"save_on_train_epoch_end": True},
        {"save_on_train_epoch_end": False},
        {"every_n_train_steps": 3},
        {"every_n_train_steps": 1},
        {"monitor": "val_loss"},
        {"save_last": True},
    ],
    ids=str,
)
def test_no_checkpoint_holds_a_freshly_redrawn_network(tmp_path: Path, options: dict[str, Any]) -> None:
    """Each checkpoint of a generation's end equals the weights that training left, not those that a redraw made."""
    witness = Witness()
    checkpoint = ModelCheckpoint(tmp_path / "ckpt", filename="{epoch}-{step}", save_top_k=-1, **options)
    callback = KnowledgeEvolution(epochs_per_generation=1, seed=0)
    module = evolve(tmp_path, callback, 3, witness, checkpoint, enable_checkpointing=True)
    at_end = {3 * (epoch + 1): state for epoch, state in witness.at_end.items()}
    saved = sorted((tmp_path / "ckpt").glob("*.ckpt"))
    assert saved
    compared = 0
    for path in saved:
        content = torch.load(path, weights_only=True)
        if content["global_step"] in at_end:
            compared += 1
            assert same(content["state_dict"], at_end[content["global_step"]]) == []
    assert compared >= 3
    assert same(weights(module), at_end[9]) == [], "the final weights are trained ones"


def test_records_tell_what_happened(tmp_path: Path) -> None:
    callback = KnowledgeEvolution(epochs_per_generation=2, seed=0)
    evolve(tmp_path, callback, 6)
    assert [record["generation"] for record in callback.history] == [1, 2, 3]
    for record in callback.history:
        assert record["epochs"] == 2
        assert record["steps"] == 6
        assert record["ended"] == "length"
        assert record["scored_epoch"] == record["last_epoch"]
        assert set(record["dense"]) == set(record["fit"]) == {"val_loss", "val_acc"}
        assert record["lr"]["first"] == 0.05
        assert record["seconds"] > 0
        assert record["magnitude"]["model.3.weight"]["reset"] > 0
    assert callback.generation == 3
    assert len((tmp_path / "ke_history.csv").read_text().splitlines()) == 4


@pytest.mark.compat(
    "Trainer options", "check_val_every_n_epoch", "works", note="a record says in which epoch it was scored"
)
def test_a_record_without_validation_in_its_last_epoch_holds_the_last_one_and_says_when(tmp_path: Path) -> None:
    callback = KnowledgeEvolution(epochs_per_generation=3, seed=0)
    evolve(tmp_path, callback, 6, check_val_every_n_epoch=2)
    assert [(record["last_epoch"], record["scored_epoch"]) for record in callback.history] == [(2, 1), (5, 5)]


def test_an_earlier_history_file_is_kept(tmp_path: Path) -> None:
    evolve(tmp_path, KnowledgeEvolution(generations=1, seed=0), 1)
    first = (tmp_path / "ke_history.csv").read_text()
    evolve(tmp_path, KnowledgeEvolution(generations=2, seed=0), 2)
    assert (tmp_path / "ke_history.csv").read_text() == first
    assert len((tmp_path / "ke_history-2.csv").read_text().splitlines()) == 3


def test_nothing_is_written_beside_a_folder_of_another_machine(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with caplog.at_level("INFO"):
        callback = KnowledgeEvolution(generations=1, seed=0)
        trainer = make_trainer("memory://runs", max_epochs=1, callbacks=[callback])
        trainer.fit(Classifier(), train_loader(), val_loader())
    assert "'memory://runs' is no folder of this machine" in caplog.text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.compat("Callbacks", "EarlyStopping", "works", note="its counters start over with each generation")
def test_early_stopping_starts_over_with_each_generation(tmp_path: Path) -> None:
    """A redraw makes the loss worse; the counters of the generation before would end the run at once."""

    class Worse(EarlyStopping):
        counts: list[int]

        def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            self.counts = [*getattr(self, "counts", []), self.wait_count]

    stopper = Worse("val_loss", patience=100, mode="max", min_delta=1e9)
    evolve(tmp_path, KnowledgeEvolution(epochs_per_generation=3, seed=0), 6, stopper)
    assert stopper.counts == [0, 0, 1, 0, 0, 1]


@pytest.mark.compat("Callbacks", "EarlyStopping", "works", note="its counters start over with each generation")
def test_early_stopping_ends_the_run_and_the_record_says_so(tmp_path: Path) -> None:
    callback = KnowledgeEvolution(epochs_per_generation=4, seed=0)
    evolve(tmp_path, callback, 12, EarlyStopping("val_loss", patience=1, mode="max", min_delta=1e9))
    assert [(record["generation"], record["epochs"], record["ended"]) for record in callback.history] == [
        (1, 2, "early_stopping")
    ]


def test_generations_go_on_where_a_least_length_prolongs_a_run_that_was_to_stop(tmp_path: Path) -> None:
    callback = KnowledgeEvolution(generations=3, seed=0)
    stopper = EarlyStopping("val_loss", patience=1, mode="max", min_delta=1e9)  # fires in the first generation
    evolve(tmp_path, callback, 9, stopper, min_epochs=7)
    ends = [(record["generation"], record["epochs"], record["ended"]) for record in callback.history]
    assert ends == [(1, 3, "length"), (2, 3, "length"), (3, 1, "stopped")]


def test_no_further_generation_opens_where_a_least_length_prolongs_the_last_one(tmp_path: Path) -> None:
    callback = KnowledgeEvolution(generations=2, epochs_per_generation=1, seed=0)
    evolve(tmp_path, callback, -1, min_steps=9)  # 3 steps an epoch
    assert [(record["generation"], record["epochs"]) for record in callback.history] == [(1, 1), (2, 2)]


@pytest.mark.compat("Trainer options", "max_steps", "works", note="a generation that it cuts short is recorded as such")
def test_a_run_limited_by_steps_records_its_unfinished_generation(tmp_path: Path) -> None:
    callback = KnowledgeEvolution(epochs_per_generation=2, seed=0)
    evolve(tmp_path, callback, -1, max_steps=10)
    assert [(r["generation"], r["steps"], r["ended"]) for r in callback.history] == [
        (1, 6, "length"),
        (2, 4, "max_steps"),
    ]


def test_generations_end_a_run_that_has_no_other_end(tmp_path: Path) -> None:
    callback = KnowledgeEvolution(generations=2, epochs_per_generation=2, seed=0)
    evolve(tmp_path, callback, -1)
    assert [record["epochs"] for record in callback.history] == [2, 2]


@pytest.mark.compat("Trainer options", "fast_dev_run", "works", note="says that no generation ends")
def test_fast_dev_run_works_and_says_that_no_generation_ends(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    callback = KnowledgeEvolution(seed=0)
    with caplog.at_level("INFO"):
        evolve(tmp_path, callback, 1, fast_dev_run=True)
    assert "no generation ends in a `fast_dev_run`" in caplog.text
    assert callback.history == []


def test_a_new_run_with_the_same_callback_begins_at_generation_one(tmp_path: Path) -> None:
    callback = KnowledgeEvolution(generations=2, seed=0)
    first = weights(evolve(tmp_path, callback, 2))
    second = weights(evolve(tmp_path, callback, 2))
    assert [record["generation"] for record in callback.history] == [1, 2]
    assert same(first, second) == []


def test_the_progress_bar_shows_the_generation(tmp_path: Path) -> None:
    shown: list[float] = []

    class Bar(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            shown.append(float(trainer.progress_bar_metrics["generation"]))

    evolve(tmp_path, KnowledgeEvolution(generations=2, seed=0), 2, Bar())
    assert shown == [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]
