"""A resumed run is the uninterrupted one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_ke import KnowledgeEvolution, load_mask
from tests.callback.modules import Classifier, make_trainer, same, train_loader, val_loader, weights


def run(
    tmp_path: Path, epochs: int, checkpoint: Path | None = None, global_seed: int = 0, **arguments: Any
) -> tuple[Classifier, KnowledgeEvolution, list[Path]]:
    seed_everything(global_seed)
    module = Classifier()
    folder = tmp_path / f"run-{epochs}-{checkpoint is not None}"
    options = arguments.pop("options", {})
    saver = ModelCheckpoint(folder, filename="{epoch}-{step}", save_top_k=-1, **options)
    callback = KnowledgeEvolution(**{"epochs_per_generation": 2, "seed": 0, **arguments})
    trainer = make_trainer(tmp_path, max_epochs=epochs, callbacks=[callback, saver], enable_checkpointing=True)
    trainer.fit(module, train_loader(), val_loader(), ckpt_path=checkpoint)
    return (
        module,
        callback,
        sorted(folder.glob("*.ckpt"), key=lambda p: torch.load(p, weights_only=True)["global_step"]),
    )


def comparable(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in record.items() if name != "seconds"} for record in history]


@pytest.mark.parametrize("split", ["kels", "wels", "random-each-generation"])
@pytest.mark.parametrize("options", [{}, {"save_on_train_epoch_end": False}], ids=["epoch end", "validation end"])
def test_every_epoch_end_resumes_bit_for_bit(tmp_path: Path, split: str, options: dict[str, Any]) -> None:
    """Shuffling, dropout, momentum, schedule, mask, redrawn values, scores: all of it."""
    whole, callback, checkpoints = run(tmp_path, 6, split=split, options=options)
    assert len(checkpoints) == 6
    for checkpoint in checkpoints[:5]:
        # Another seed: whatever the resumed run needs must come out of the checkpoint.
        again, resumed, _ = run(tmp_path, 6, checkpoint, global_seed=99, split=split, options=options)
        assert same(weights(whole), weights(again)) == []
        assert comparable(resumed.history) == comparable(callback.history)
        assert resumed.mask == callback.mask


def test_reestimated_scores_resume_exactly(tmp_path: Path) -> None:
    _, callback, checkpoints = run(tmp_path, 4, fit_norm="reestimate")
    _, resumed, _ = run(tmp_path, 4, checkpoints[2], global_seed=99, fit_norm="reestimate")
    assert comparable(resumed.history) == comparable(callback.history)


def test_a_finished_run_continues_for_more_generations(tmp_path: Path) -> None:
    whole, callback, _ = run(tmp_path, 10)
    _, _, checkpoints = run(tmp_path, 6)
    again, resumed, _ = run(tmp_path, 10, checkpoints[-1], global_seed=99)
    assert same(weights(whole), weights(again)) == []
    assert comparable(resumed.history) == comparable(callback.history)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"split": "wels"}, r"Expected `split='kels'` as in the checkpoint, but got `split='wels'`"),
        ({"rate": 0.3}, r"Expected `rate=0\.5` as in the checkpoint, but got `rate=0\.3`"),
        ({"seed": 1}, r"Expected `seed=0` as in the checkpoint, but got `seed=1`"),
        ({"epochs_per_generation": 3}, r"Expected `epochs_per_generation=2` as in the checkpoint, but got `.*=3`"),
        (
            {"epochs_per_generation": None, "end": "plateau"},
            r"Expected `end='length'` as .*, but got `end=\{'end': 'plat",
        ),
        ({"epochs_per_generation": [2, 3, 7]}, r"Expected `epochs_per_generation=2` as|Expected `.*=\[2, 2\]` as"),
        ({"target": "model"}, r"Expected `target=None` as in the checkpoint, but got `target='model'`"),
    ],
)
def test_contradicting_a_checkpoint_is_refused_with_both_values(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    _, _, checkpoints = run(tmp_path, 6)
    with pytest.raises(ValueError, match=message):
        run(tmp_path, 12, checkpoints[3], **changed)


def test_a_list_that_says_the_same_of_the_past_goes_on(tmp_path: Path) -> None:
    _, _, checkpoints = run(tmp_path, 6)
    _, callback, _ = run(tmp_path, 7, checkpoints[3], epochs_per_generation=[2, 2, 3])
    assert [record["epochs"] for record in callback.history] == [2, 2, 3]


def test_the_drawn_seed_is_recorded_and_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)

    def fit(epochs: int, checkpoint: Path | None) -> dict[str, Any]:
        torch.manual_seed(0)
        saver = ModelCheckpoint(tmp_path / str(epochs), save_last=True)
        callback = KnowledgeEvolution(split="wels", epochs_per_generation=1)
        trainer = make_trainer(tmp_path, max_epochs=epochs, callbacks=[callback, saver], enable_checkpointing=True)
        trainer.fit(Classifier(), train_loader(), val_loader(), ckpt_path=checkpoint)
        state: dict[str, Any] = torch.load(tmp_path / str(epochs) / "last.ckpt", weights_only=True)
        return state["callbacks"]["KnowledgeEvolution"]

    first, other = fit(2, None), fit(1, None)
    assert first["seed"] != other["seed"], "two runs without a seed draw different ones"
    assert fit(3, tmp_path / "2" / "last.ckpt")["seed"] == first["seed"]


def test_the_mask_can_be_read_from_a_checkpoint_and_the_network_loads_without_this_package(tmp_path: Path) -> None:
    module, callback, checkpoints = run(tmp_path, 2)
    assert load_mask(checkpoints[-1]) == callback.mask
    state = torch.load(checkpoints[-1], weights_only=True)["state_dict"]
    assert state.keys() == module.state_dict().keys()
    Classifier().load_state_dict(state)


def test_a_checkpoint_can_be_validated_without_touching_the_random_numbers(tmp_path: Path) -> None:
    module, _, checkpoints = run(tmp_path, 2)
    trainer = make_trainer(tmp_path, callbacks=[KnowledgeEvolution(epochs_per_generation=2)])
    torch.manual_seed(3)
    trainer.validate(module, val_loader(), ckpt_path=checkpoints[-1], verbose=False)
    drawn = torch.rand(1)
    torch.manual_seed(3)
    trainer = make_trainer(tmp_path)
    trainer.validate(module, val_loader(), ckpt_path=checkpoints[-1], verbose=False)
    assert torch.equal(torch.rand(1), drawn)


def test_a_checkpoint_of_a_run_without_the_callback_is_refused(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path / "plain", save_last=True)
    trainer = make_trainer(tmp_path, max_epochs=2, callbacks=[saver], enable_checkpointing=True)
    trainer.fit(Classifier(), train_loader(), val_loader())
    with pytest.raises(ValueError, match="holds no state of one"):
        run(tmp_path, 4, tmp_path / "plain" / "last.ckpt")


def test_so_is_one_from_within_the_first_epoch(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    plain = make_trainer(tmp_path, max_epochs=1, callbacks=[saver], enable_checkpointing=True)
    plain.fit(Classifier(), train_loader(), val_loader())
    trainer = make_trainer(tmp_path, max_epochs=2, callbacks=[KnowledgeEvolution(generations=2)])
    with pytest.raises(ValueError, match="Expected a checkpoint of a run with KnowledgeEvolution"):
        trainer.fit(Classifier(), train_loader(), val_loader(), ckpt_path=tmp_path / "step=1.ckpt")


def test_a_trainer_that_is_made_longer_goes_on(tmp_path: Path) -> None:
    _, callback, _ = run(tmp_path, 4)
    seed_everything(0)
    module, again = Classifier(), KnowledgeEvolution(epochs_per_generation=2, seed=0)
    trainer = make_trainer(tmp_path, max_epochs=2, callbacks=[again])
    trainer.fit(module, train_loader(), val_loader())
    trainer.fit_loop.max_epochs = 4
    trainer.fit(module, train_loader(), val_loader())
    assert [record["generation"] for record in again.history] == [1, 2]
    assert again.mask == callback.mask
    fit = again.history[0]["fit"]
    assert fit == callback.history[0]["fit"]
