"""What ends a generation, in real runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_ke import KnowledgeEvolution
from lightning_ke.endings import FixedLength, GenerationEnd, Overfit, Plateau
from tests.callback.modules import Classifier, make_trainer, named, same, train_loader, val_loader, weights


class Scripted(Classifier):
    """Logs losses that a test has written down, one pair for each epoch."""

    def __init__(self, losses: list[tuple[float, float]]) -> None:
        super().__init__()
        self.losses = losses

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        self.log("scripted_train", self.losses[self.current_epoch][0], on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        self.log("scripted_val", self.losses[self.current_epoch][1])


def run(tmp_path: Path, module: Classifier, max_epochs: int, **arguments: Any) -> KnowledgeEvolution:
    seed_everything(0)
    callback = KnowledgeEvolution(seed=0, **arguments)
    make_trainer(tmp_path, max_epochs=max_epochs, callbacks=[callback]).fit(module, train_loader(), val_loader())
    return callback


def ends(callback: KnowledgeEvolution) -> list[tuple[int, str]]:
    return [(record["epochs"], record["ended"]) for record in callback.history]


def test_lengths_may_differ_and_each_has_a_schedule_of_its_own(tmp_path: Path) -> None:
    module = Classifier()
    callback = run(tmp_path, module, 7, epochs_per_generation=[4, 2, 1])
    assert ends(callback) == [(4, "length"), (2, "length"), (1, "length")]
    # A cosine over 4, 2 and 1 epochs: the last epoch of each begins at another share of the first rate.
    lasts = [record["lr"]["last"] / record["lr"]["first"] for record in callback.history]
    assert lasts == pytest.approx([(1 + 2**-0.5 * -1) / 2, 0.5, 1.0])


def test_shares_of_the_run(tmp_path: Path) -> None:
    callback = run(tmp_path, Classifier(), 8, epochs_per_generation=[0.5, 0.25, 0.25])
    assert ends(callback) == [(4, "length"), (2, "length"), (2, "length")]


def test_a_generation_ends_when_it_overfits(tmp_path: Path) -> None:
    """Validation rises while training falls; when both rise, nothing overfits."""
    losses = [(2.0, 2.0), (1.5, 1.5), (1.2, 1.6), (1.0, 1.7)] * 2
    policy = Overfit("scripted_val", "scripted_train", patience=2, least=1, most=6)
    callback = run(tmp_path, Scripted(losses), 8, end=policy)
    assert ends(callback) == [(4, "overfit"), (4, "overfit")]
    losses = [(2.0, 2.0), (2.5, 2.5), (2.6, 2.6), (2.7, 2.7)] * 2
    policy = Overfit("scripted_val", "scripted_train", patience=2, least=1, most=4)
    callback = run(tmp_path, Scripted(losses), 8, end=policy)
    assert ends(callback) == [(4, "length"), (4, "length")]


def test_a_generation_ends_on_a_plateau_but_not_before_its_least_length(tmp_path: Path) -> None:
    losses = [(0.0, 1.0)] * 9
    callback = run(tmp_path, Scripted(losses), 9, end=Plateau("scripted_val", patience=1, least=3, most=5))
    assert ends(callback) == [(3, "plateau")] * 3


@pytest.mark.parametrize("resumed_behind", [None, 6])
def test_what_the_generation_before_has_scored_does_not_count(tmp_path: Path, resumed_behind: int | None) -> None:
    """Validated in every second epoch: in the first one of generation 2 Lightning still shows the last best loss."""

    def fit(checkpoint: Path | None = None) -> KnowledgeEvolution:
        losses = [(0.0, 0.5)] * 6 + [(0.0, 9.0 - number) for number in range(6)]
        callback = KnowledgeEvolution(end=Plateau("scripted_val", patience=4, least=2, most=6), seed=0, score_fit=False)
        saver = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
        trainer = make_trainer(
            tmp_path,
            max_epochs=12,
            check_val_every_n_epoch=2,
            callbacks=[callback, saver],
            enable_checkpointing=True,
        )
        trainer.fit(Scripted(losses), train_loader(), val_loader(), ckpt_path=checkpoint)
        return callback

    callback = fit()
    if resumed_behind is not None:
        callback = fit(tmp_path / f"epoch={resumed_behind}.ckpt")
    assert ends(callback) == [(6, "length"), (6, "length")]


def test_the_number_of_generations_ends_such_a_run(tmp_path: Path) -> None:
    policy = Plateau("scripted_val", patience=1, least=2, most=5)
    callback = run(tmp_path, Scripted([(0.0, 1.0)] * 20), 20, end=policy, generations=2)
    assert ends(callback) == [(2, "plateau")] * 2


@pytest.mark.parametrize("monitor", ["scripted_val", "scripted_train"])
@pytest.mark.parametrize(
    "options",
    [{}, {"save_on_train_epoch_end": False}, {"every_n_train_steps": 3}],
    ids=["epoch end", "validation end", "last batch"],
)
def test_patience_survives_a_resume(tmp_path: Path, options: dict[str, Any], monitor: str) -> None:
    """Also from checkpoints that were written before Lightning had reduced what the epoch's steps logged."""

    def fit(folder: str, checkpoint: Path | None = None) -> tuple[Classifier, KnowledgeEvolution]:
        seed_everything(0 if checkpoint is None else 9)
        module = Scripted([(0.0, 1.0)] * 9)
        callback = KnowledgeEvolution(end=Plateau(monitor, patience=3, least=1, most=5), seed=0)
        saver = ModelCheckpoint(tmp_path / folder, filename="{epoch}", save_top_k=-1, **options)
        trainer = make_trainer(tmp_path, max_epochs=8, callbacks=[callback, saver], enable_checkpointing=True)
        trainer.fit(module, train_loader(), val_loader(), ckpt_path=checkpoint)
        return module, callback

    whole, expected = fit("whole")
    assert ends(expected) == [(4, "plateau"), (4, "plateau")]
    for epoch in (1, 3, 5):
        again, resumed = fit(f"again-{epoch}", tmp_path / "whole" / f"epoch={epoch}.ckpt")
        assert ends(resumed) == ends(expected)
        assert same(weights(whole), weights(again)) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"end": Plateau("scripted_train", patience=3, least=1, most=5)}, [(4, "plateau"), (4, "plateau")]),
        ({"epochs_per_generation": 3, "stop_at": {"scripted_train": 0.0}}, [(3, "stop_at")]),
    ],
    ids=["policy", "goal"],
)
def test_an_epochs_end_behind_the_checkpoint_counts(
    tmp_path: Path, arguments: dict[str, Any], expected: list[tuple[int, str]]
) -> None:
    """Lightning takes an epoch for done whose last step is in the checkpoint and that needs no validation."""

    def fit(folder: str, checkpoint: Path | None = None) -> tuple[Classifier, KnowledgeEvolution]:
        seed_everything(0 if checkpoint is None else 9)
        module, callback = Scripted([(0.0, 1.0)] * 9), KnowledgeEvolution(**arguments, seed=0)
        saver = ModelCheckpoint(tmp_path / folder, filename="{epoch}", save_top_k=-1, every_n_train_steps=3)
        options: dict[str, Any] = {"callbacks": [callback, saver], "max_epochs": 9 if "stop_at" in arguments else 8}
        trainer = make_trainer(tmp_path, check_val_every_n_epoch=2, enable_checkpointing=True, **options)
        trainer.fit(module, train_loader(), val_loader(), ckpt_path=checkpoint)
        return module, callback

    whole, callback = fit("whole")
    assert ends(callback) == expected
    for epoch in (0, 2):
        again, resumed = fit(f"again-{epoch}", tmp_path / "whole" / f"epoch={epoch}.ckpt")
        assert ends(resumed) == expected
        assert same(weights(whole), weights(again)) == []


def test_a_policy_remembers_nothing_of_an_earlier_run(tmp_path: Path) -> None:
    """Also if the same callback, or the same policy in another callback, trains the next network."""
    policy = Plateau("scripted_val", patience=2, least=1, most=6)
    scripts = ([(0.0, 0.5), *[(0.0, 1.0)] * 5], [(0.0, 6.0 - epoch) for epoch in range(6)])
    found = [ends(run(tmp_path, Scripted(losses), -1, end=policy, generations=1)) for losses in scripts]
    assert found == [[(3, "plateau")], [(6, "length")]]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Overfit(least=1, most=4), r"Expected `end=\{'end': 'plateau'.* but got `end=\{'end': 'overfit'"),
        (Plateau("train_loss", least=1, most=4), r"'monitor': 'val_loss'.* but got .*'monitor': 'train_loss'"),
        (Plateau(mode="max", least=1, most=4), r"'mode': 'min'.* but got .*'mode': 'max'"),
        ("length", r"Expected `end=\{'end': 'plateau'.* as in the checkpoint, but got `end='length'`"),
    ],
    ids=["another policy", "another metric", "another mode", "a length"],
)
def test_another_policy_contradicts_a_checkpoint(tmp_path: Path, other: Any, message: str) -> None:
    saver = ModelCheckpoint(tmp_path, filename="{epoch}")
    callback = KnowledgeEvolution(end=Plateau(least=1, most=4), seed=0)
    trainer = make_trainer(tmp_path, max_epochs=1, callbacks=[callback, saver], enable_checkpointing=True)
    trainer.fit(Classifier(), train_loader(), val_loader())
    again = make_trainer(tmp_path, max_epochs=20, callbacks=[KnowledgeEvolution(end=other, seed=0)])
    with pytest.raises(ValueError, match=message):
        again.fit(Classifier(), train_loader(), val_loader(), ckpt_path=tmp_path / "epoch=0.ckpt")


class LogsLate(Classifier):
    def on_train_epoch_end(self) -> None:
        self.log("late", float(self.current_epoch))


@pytest.mark.parametrize(
    "arguments",
    [
        {"epochs_per_generation": 2, "stop_at": {"late": 1}},
        {"end": Plateau("late", patience=1, least=2, most=4)},
    ],
    ids=["goal", "policy"],
)
def test_a_metric_that_comes_too_late_is_not_taken_for_that_of_the_epoch_before(
    tmp_path: Path, arguments: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"metric `late` .*what `on_train_epoch_end` logs comes behind"):
        run(tmp_path, LogsLate(), 4, **arguments)


def test_a_reached_goal_ends_the_run_with_its_generation(tmp_path: Path) -> None:
    losses = [(0.0, value) for value in (3.0, 0.1, 2.0, 0.5, 0.2, 0.3, 0.1, 0.1)]
    callback = run(tmp_path, Scripted(losses), 8, epochs_per_generation=2, stop_at={"scripted_val": "<=0.3"})
    assert ends(callback) == [(2, "stop_at")]
    callback = run(tmp_path, Scripted(losses), 8, epochs_per_generation=4, stop_at={"ke/fit/val_acc": 0.0})
    assert ends(callback) == [(4, "stop_at")]
    callback = run(tmp_path, Scripted(losses), 8, epochs_per_generation=4, stop_at={"ke/fit/val_acc": 1.1})
    assert ends(callback) == [(4, "length"), (4, "length")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"end": "never"}, r"Expected argument `end` to be one of 'length', 'plateau', 'overfit'"),
        ({"stop_at": {"val_acc": "soon"}}, r"Expected argument `stop_at` to give `val_acc` a number"),
        ({"stop_at": {"ke/fit/val_acc": 0.5}, "score_fit": False}, r"`score_fit` .* but got False"),
        ({"end": Plateau("ke/fit/val_loss"), "score_fit": False}, r"`score_fit` .* because `end` waits for"),
        ({"end": Overfit(train_monitor="ke/fit/loss"), "score_fit": False}, r"because `end` waits for `ke/fit/loss`"),
        (
            {"end": "plateau", "score_fit": "generation"},
            r"`score_fit` to be 'epoch' for generations that end by plateau",
        ),
    ],
    ids=named,
)
def test_wrong_arguments_are_refused_by_the_constructor(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KnowledgeEvolution(**arguments)


@pytest.mark.parametrize("kind", [Plateau, Overfit])
@pytest.mark.parametrize("name", ["patience", "least", "most"])
def test_policies_count_in_whole_numbers(kind: Any, name: str) -> None:
    with pytest.raises(
        ValueError, match=rf"Expected argument `{name}` to be a whole number of at least \d, but got None"
    ):
        kind(**{name: None})


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Plateau(monitor=None), "`monitor` to be a name, but got None"),  # type: ignore[arg-type]
        (lambda: Overfit(train_monitor=3), "`train_monitor` to be a name, but got 3"),  # type: ignore[arg-type]
        (lambda: Plateau(min_delta="0.1"), "`min_delta` to be a number of at least 0, but got '0"),  # type: ignore[arg-type]
        (lambda: Plateau(min_delta=-1.0), "`min_delta` to be a number of at least 0, but got -1"),
        (lambda: FixedLength(()), "`epochs` to be a whole number of at least 1, but got None"),
        (lambda: FixedLength([3, 0]), "`epochs` to be a whole number of at least 1, but got 0"),
        (lambda: FixedLength(2.5), "`epochs` to be a whole number of at least 1, but got 2"),  # type: ignore[arg-type]
    ],
    ids=named,
)
def test_policies_refuse_what_they_would_stumble_over_later(build: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        build()


def test_lengths_and_a_policy_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`epochs_per_generation` to be None for generations that end by plateau"):
        run(tmp_path, Classifier(), 4, end="plateau", epochs_per_generation=2)


def test_a_metric_that_nobody_logs_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Expected the metric `val_f1` to be logged .* Logged are .*val_loss"):
        run(tmp_path, Classifier(), 4, end=Plateau("val_f1", least=1, most=2))


def test_other_lengths_contradict_a_checkpoint_and_further_ones_do_not(tmp_path: Path) -> None:
    def fit(lengths: list[int], checkpoint: Path | None = None) -> KnowledgeEvolution:
        seed_everything(0)
        callback = KnowledgeEvolution(epochs_per_generation=lengths, seed=0)
        saver = ModelCheckpoint(tmp_path / "list", save_last=True)
        trainer = make_trainer(
            tmp_path, max_epochs=sum(lengths), callbacks=[callback, saver], enable_checkpointing=True
        )
        trainer.fit(Classifier(), train_loader(), val_loader(), ckpt_path=checkpoint)
        return callback

    fit([2, 1])
    last = tmp_path / "list" / "last.ckpt"
    with pytest.raises(ValueError, match=r"Expected `epochs_per_generation=\[2, 1\]` as in the checkpoint, but got"):
        fit([1, 2, 1], last)
    assert ends(fit([2, 1, 2], last)) == [(2, "length"), (1, "length"), (2, "length")]
    assert torch.load(last, weights_only=True)["epoch"] == 4


def test_a_run_shorter_than_a_generation_may_be_is_named(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"ends by plateau may last 200 epochs, .* but the run has 1\. Let `most`"):
        run(tmp_path, Classifier(), 1, end="plateau")


class Nameless(GenerationEnd):
    def horizon(self, generation: int) -> Any:
        return 2

    def ends(self, generation: int, epochs: int, metrics: Mapping[str, float]) -> bool:
        return epochs == 2


class Endless(Nameless):
    reason = "own"

    def horizon(self, generation: int) -> Any:
        return None


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (Nameless(), r'Expected argument `end` to have a name .* class Nameless has none\. Write `reason = "\.\.\."`'),
        (Endless(), r"Expected argument `end\.horizon\(1\)` to be a whole number of at least 1, but got None"),
    ],
    ids=["no reason", "no length"],
)
def test_policies_of_one_s_own_are_looked_at(policy: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KnowledgeEvolution(end=policy)


class Remembers(Nameless):
    reason = "own"

    def state_dict(self) -> dict[str, Any]:
        return {"best": [np.float32(0.5)]}


def test_what_no_resumed_run_could_read_is_refused_with_the_first_checkpoint(tmp_path: Path) -> None:
    callback = KnowledgeEvolution(end=Remembers(), seed=0)
    saver = ModelCheckpoint(tmp_path)
    trainer = make_trainer(tmp_path, max_epochs=2, callbacks=[callback, saver], enable_checkpointing=True)
    with pytest.raises(
        TypeError, match=r"`state_dict` of argument `end` .* it holds a numpy\.float32, .*float\(value\)"
    ):
        trainer.fit(Classifier(), train_loader(), val_loader())
    assert trainer.current_epoch == 0
