"""The studies, and the two settings in which each can be run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from benchmarks.accuracy.family import family
from benchmarks.accuracy.study import Arm, Study

Setting = Literal["small", "paper"]

# half width, 64 px, 200 epochs in all: about ten minutes a run on one core with bfloat16. A job's evaluation is as
# rare as it can be without missing a generation's end, because it costs as much as a third of an epoch's training.
SMALL = (
    "experiment=flowers102",
    "threads=1",
    "trainer.precision=bf16-mixed",
    "channels_last=true",
    "trainer.check_val_every_n_epoch=2",
    "trainer.enable_progress_bar=false",
)
# As published: 224 px, full width, 200 epochs in each of 10 generations; for those who have GPUs.
PAPER = (
    "experiment=flowers102",
    "datamodule.image_size=224",
    "datamodule.num_workers=8",
    "backbone.width=1",
    "trainer.check_val_every_n_epoch=2",
)
SLIM_WIDTH = {"small": 0.25, "paper": 0.5}
EPOCHS = {"small": 200, "paper": 2000}
# The one in the middle first: a study that is stopped early has run every arm at a rate that suits it.
RATES = (0.128, 0.064, 0.256)
CALIBRATION = "+task.calibration=true"
# Without a redraw nobody asks how good the fit hypothesis is, and scoring it costs another validation.
UNSCORED = "generations.score_fit=false"
NOTHING = "redraw=none"
LLF = ("split=layers", "split.start=layer4")


def evolve(epochs: int, generations: int, *more: str) -> list[str]:
    """Overrides of a training in generations, `epochs` in all (what does not divide evenly is left out)."""
    return [f"generations.count={generations}", f"generations.epochs={epochs // generations}", *more]


def pilot(setting: Setting, data: str, seeds: Sequence[int]) -> Study:
    """Does evolving pay at equal length, for the dense and for the slim network?

    Args:
        setting: "small" or "paper".
        data: The folder that holds `flowers-102`.
        seeds: Seeds of the comparison.
    """
    epochs = EPOCHS[setting]
    arms = [
        Arm("long", "the dense long baseline: no redraw, one schedule", evolve(epochs, 1, UNSCORED)),
        Arm(
            "slim-scratch",
            "a network of the slim network's size, trained from scratch as long",
            evolve(epochs, 1, UNSCORED, f"backbone.width={SLIM_WIDTH[setting]}"),
        ),
        Arm("ke-5x40", "Knowledge Evolution, KELS r = 0.5, 5 generations", evolve(epochs, 5)),
        Arm("restarts-5x40", "the same restarts, nothing redrawn", evolve(epochs, 5, NOTHING)),
        Arm("llf-5x40", "later-layer forgetting: layer4 and the classifier redrawn", evolve(epochs, 5, *LLF)),
        Arm(
            "llf-in-kels-5x40",
            "KELS r = 0.5, and layer4 and the classifier redrawn inside the slim network, too",
            evolve(epochs, 5, "split=llf-in-kels"),
        ),
        Arm("ke-10x20", "Knowledge Evolution, KELS r = 0.5, 10 generations", evolve(epochs, 10)),
        Arm("ke-3x66", "Knowledge Evolution, KELS r = 0.5, 3 generations", evolve(epochs, 3)),
    ]
    return _study("pilot", "Pilot: does evolving pay at equal length?", arms, setting, data, seeds)


def cheaper(setting: Setting, data: str, seeds: Sequence[int]) -> Study:
    """What do generations cost at least? Each idea beside plain generations and both controls.

    Args:
        setting: "small" or "paper".
        data: The folder that holds `flowers-102`.
        seeds: Seeds of the comparison.
    """
    epochs = EPOCHS[setting]
    shrinking = [epochs // 2, epochs // 4, epochs * 3 // 20, epochs // 10]
    third = epochs // 3 // 5
    arms = [
        *(arm for arm in pilot(setting, data, seeds).arms if arm.name in ("long", "slim-scratch", "ke-5x40")),
        Arm(
            "ke-shrinking",
            f"4 generations of {', '.join(map(str, shrinking))} epochs",
            ["generations.count=4", f"generations.epochs={shrinking}".replace(" ", "")],
        ),
        Arm("ke-one-cosine", "one cosine over all 5 generations", evolve(epochs, 5, "redraw.lr_schedule=continue")),
        Arm(
            "ke-slim-first-5x40",
            "the slim network alone for 70 % of each generation, then the dense one from there",
            ["generations=slim_first", *evolve(epochs, 5)],
        ),
        Arm(f"ke-5x{third}", "generations of a third of the length", evolve(5 * third, 5)),
        Arm("long-third", "the dense long baseline at a third of the length", evolve(epochs // 3, 1, UNSCORED)),
        Arm(
            "slim-scratch-third",
            "the slim-sized network from scratch at a third of the length",
            evolve(epochs // 3, 1, UNSCORED, f"backbone.width={SLIM_WIDTH[setting]}"),
        ),
    ]
    return _study("cheaper", "Cheaper generations", arms, setting, data, seeds)


def _study(name: str, title: str, arms: Sequence[Arm], setting: Setting, data: str, seeds: Sequence[int]) -> Study:
    base = [*(SMALL if setting == "small" else PAPER), CALIBRATION, f"datamodule.root={data}"]
    where = "flowers102" if setting == "small" else "flowers102-paper"
    return Study(name, title, where, arms, "slim-scratch", base, RATES, seeds)


STUDIES = {"family": family, "pilot": pilot, "cheaper": cheaper}
