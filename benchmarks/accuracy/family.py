"""The whole family on one data set: every split, redraw, phase, trigger and loss beside the same two controls.

    python -m benchmarks.accuracy family --data unused --out DIR [--seeds 0 1 2]
    python -m benchmarks.accuracy.family docs/results/trainings/embedded.csv

The first command trains what is left and writes ledger, page and plot; the second writes what was measured into the
method cards, so that no number in them is typed. The embedded images need no download, and a run takes about a minute
of one quiet core; the learning rate is the same for all arms.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from benchmarks.accuracy.arms import taught
from benchmarks.accuracy.statistics import paired_difference
from benchmarks.accuracy.study import Arm, Study

CARDS = Path(__file__).parents[2] / "docs" / "methods"
RATE = 0.1
GENERATIONS, EPOCHS = 5, 6
BASE = ("experiment=demo", "trainer.precision=bf16-mixed", "trainer.enable_progress_bar=false")
ABOUT = f"""A ResNet18 of half the width; 1,000 of the embedded images (Fashion-MNIST, 28 px) to train on, 500 to
validate, 2,500 to test; {GENERATIONS} generations of {EPOCHS} epochs where there are generations. It is a first look at
everything under one roof, not the setting that any of the methods was made for: the generations are too short to
converge or to overfit, and the last stages of the network see single pixels, so that 62 % of its weights never get a
gradient. Three seeds are a first look; six arms have five."""

FINDINGS = """Nothing here is told to beat plain training of the same length, dense or slim. Of the six arms with five
seeds, Knowledge Evolution as published (kels) ends 2.0 ± 1.2 points below the long baseline, and its slim network
3.9 ± 0.9 points below a network of its size from scratch. Restarts alone (-1.0 ± 1.3), the slim network that is
trained alone for most of each generation (slim-first, -0.6 ± 1.1 dense), and generations that begin with zeros in place
of fresh values (reset-zero, -1.2 ± 1.7 dense) cannot be told from the long baseline; the second of them spends 0.38 of
its operations. A network of the slim size from scratch spends 0.26 of them and cannot be told from it either: these
images do not ask for the dense network's width, so this is no place to learn what slimming costs.

The other arms have three seeds, and only large differences say anything. At this length dense networks lose most by
redrawing overlapping filters (repr, 7.8 ± 2.7 points below the long baseline), by redrawing everything with a teacher
(born-again, 5.1 ± 3.5) and by endings at a plateau (4.2 ± 3.1). Slim networks are furthest below it where late layers
are redrawn inside them (llf-in-kels, 15.7 ± 11.4), where the same values as ever are put back (reset-rewind, 11.1 ±
10.1) and where redrawn weights are 2.4 times as wide (reset-normal, 8.5 ± 7.8): these have not met their dense ones
yet. Endings by overfitting differ too much from seed to seed to say anything (3.0 ± 8.0 in the dense network, 10.5 ±
27.7 in the slim one)."""

# One training without a redraw, as long as all generations together.
ONCE = (
    "generations.count=1",
    f"generations.epochs={GENERATIONS * EPOCHS}",
    "redraw=none",
    "generations.score_fit=false",
)

SLIM_SIZED = "backbone.width=0.25"
# Name of the arm: the card that it belongs to, what it is, and what distinguishes its `ke-train`.
ARMS = {
    "kels": ("kels", "the first half of each layer's channels is fit", ["split=kels"]),
    "wels": ("wels", "a random half of the weights is fit", ["split=wels"]),
    "importance": ("importance", "the strongest half of each layer's channels is fit", ["split=importance"]),
    "random": (
        "random-each-generation",
        "a random half of the weights, another one each time",
        ["split=random-each-generation"],
    ),
    "magnitude": ("magnitude", "the larger half of the weights", ["split=magnitude"]),
    # On images of 28 px the last stages see single pixels, and 62 % of the weights never get a gradient; of the others
    # these redraw a fifth, as their authors do.
    "snip": ("snip", "the 30 % of the weights that matter most for the loss", ["split=snip", "split.rate=0.3"]),
    "fisher": (
        "fisher",
        "the 30 % of the weights with the largest squared gradients",
        ["split=fisher", "split.rate=0.3"],
    ),
    "edge-popup": (
        "edge-popup",
        "fit is the half of the untrained weights that solves the task best (a search as long as the training)",
        ["split=mask"],
    ),
    "layers": ("layers", "later-layer forgetting: layer4 and up is redrawn", ["split=layers", "split.start=layer4"]),
    "llf-in-kels": ("compose", "later-layer forgetting inside a slim structure", ["split=llf-in-kels"]),
    "last-layer": ("last-layer", "the last layer is redrawn", ["split=last-layer"]),
    "shrink-perturb": (
        "everything",
        "all weights shrink and are perturbed",
        ["split=everything", "redraw=shrink_perturb"],
    ),
    # Of this small network hardly any channel is below the 0.1 of the authors.
    "dormant": (
        "dormant",
        "channels that say less than half of their layer's mean are recycled",
        ["split=dormant", "split.tau=0.5"],
    ),
    "lw": ("bottom-up", "one block more survives each time, rescaled", ["split=bottom-up", "generations=lw"]),
    "repr": ("overlap", "overlapping filters", ["split=overlap", "redraw=orthogonal", "generations=repr"]),
    "dsd": (
        "sparse",
        "dense-sparse-dense",
        ["redraw=none", "generations=dsd", "generations.count=1", f"generations.epochs={GENERATIONS * EPOCHS}"],
    ),
    "acdc": (
        "sparse",
        "sparse and dense in turn",
        ["redraw=none", "generations=acdc", "redraw.optimizer=keep", "redraw.lr_schedule=continue"],
    ),
    "seal": (
        "ascent",
        "early layers climb the loss first, from the second generation on",
        ["redraw=none", "generations=seal"],
    ),
    "slim-first": (
        "slim-first",
        "KELS, the slim network alone for the first five of each generation's six epochs",
        ["generations=slim_first"],
    ),
    # What they were trained with: of six epochs 0.667 leaves one, where two thirds would leave two.
    "slimmable": (
        "slimmable",
        "KELS; both networks learn together in the last of each generation's six epochs",
        ["generations=slimmable", "generations.phases.0.begin=0.667"],
    ),
    "in-place": (
        "in-place",
        "KELS; in the last of each generation's six epochs both learn together, the slim network from the dense one",
        ["generations=slimmable", "loss=in_place", "generations.phases.0.begin=0.667"],
    ),
    "distilled": (
        "distillation",
        "a network of the slim network's size, taught by the long baseline",
        [*ONCE, SLIM_SIZED, "loss=distillation"],
    ),
    "born-again": (
        "born-again",
        "everything is redrawn; the last generation teaches",
        ["split=everything", "loss=born_again"],
    ),
    "cs-kd": ("cs-kd", "KELS with class-wise self-distillation", ["loss=cs_kd", "loss.weight=1"]),
    "cross-entropy": ("kels", "KELS without label smoothing", ["loss=cross_entropy"]),
    "lr-schedule": (
        "schedule",
        "KELS, each generation at a lower learning rate",
        ["generations.schedule={lr: [1, 0.8, 0.6, 0.4, 0.2]}"],
    ),
    "reset-initial": ("kels", "KELS, redrawn weights begin as they first were", ["redraw=initial"]),
    "reset-rewind": ("kels", "KELS, the same values as ever are put back", ["redraw=rewind"]),
    "reset-normal": ("kels", "KELS, redrawn by kaiming_normal", ["redraw=kaiming_normal"]),
    "reset-zero": ("kels", "KELS, redrawn weights are zero", ["redraw=zero"]),
    "plateau": ("schedule", "KELS, a generation ends when nothing gets better", ["generations=plateau"]),
    "overfit": ("schedule", "KELS, a generation ends when it overfits", ["generations=overfit"]),
}


def popped(folder: Path) -> Sequence[str]:
    """Search a mask in the weights that a training began with, for as long as it took: its cost is that of the search.

    Args:
        folder: The training's folder.
    """
    from benchmarks.accuracy.supermask import search  # torch is imported where it is needed

    return [f"split.mask={search(folder, folder / 'supermask.pt')}"]


# What begins with something of the long baseline at the same seed.
TAKES = {"edge-popup": popped, "distilled": taught}


def family(setting: str, data: str, seeds: Sequence[int]) -> Study:
    """Every method once, in one cheap setting.

    Args:
        setting: Unused: there is one setting.
        data: Unused: the images come with the package.
        seeds: Seeds of the comparison.
    """
    arms = [
        Arm("long", "the dense long baseline: no redraw, one schedule", ONCE),
        Arm("slim-scratch", "a network of the slim network's size, trained from scratch", [*ONCE, SLIM_SIZED]),
        Arm("restarts", "the same restarts, nothing redrawn", ["redraw=none"]),
    ]
    for name, (_, meaning, overrides) in ARMS.items():
        more = []
        if name in ("plateau", "overfit"):
            more = ["generations.count=null", "generations.epochs=null", f"trainer.max_epochs={GENERATIONS * EPOCHS}"]
            more += ["generations.end.least=3", "generations.end.most=12", "generations.end.patience=2"]
        after = {"after": "long", "take": TAKES[name]} if name in TAKES else {}
        arms.append(Arm(name, meaning, [*overrides, *more], **after))
    title = "The whole family on one small data set"
    return Study(
        "family",
        title,
        "embedded",
        arms,
        "slim-scratch",
        BASE,
        (RATE,),
        seeds,
        test_images=2_500,
        about=ABOUT,
        findings=FINDINGS,
    )


def write_cards(table: pd.DataFrame, folder: Path = CARDS) -> list[str]:
    """Write what was measured into the row "Measured" of each card's table.

    Args:
        table: The ledger's rows.
        folder: The cards.

    Returns:
        Names of the cards that have a row.
    """
    written = []
    for card in dict.fromkeys(card for card, _, _ in ARMS.values()):
        sentences = [
            sentence
            for name, (of_card, meaning, _) in ARMS.items()
            if of_card == card and (sentence := _measured(table, name, meaning))
        ]
        path = folder / f"{card}.md"
        text = re.sub(r"\| \*\*Measured\*\* \|.*\n", "", path.read_text(encoding="utf-8"))
        if sentences:
            row = f"| **Measured** | {'<br>'.join(sentences)}<br>[All methods](../results/family.md). |\n"
            before, source, behind = text.partition("| **Source** |")
            text = before + row + source + behind
            written.append(card)
        path.write_text(text, encoding="utf-8")
    return written


def _measured(table: pd.DataFrame, arm: str, meaning: str) -> str:
    """One sentence on an arm; empty if it was not run."""

    def scores(name: str, network: str = "dense") -> pd.Series[float]:
        rows = table[(table["arm"] == name) & (table["network"] == network)]
        return 100 * rows.set_index("seed")["test_acc"]

    own, long, scratch = scores(arm), scores("long"), scores("slim-scratch")
    slim = scores(arm, "slim") if Arm(arm, meaning, ARMS[arm][2]).trains_slim else own[:0]
    paired = own.index.intersection(long.index)
    own, slim, long, scratch = (each[each.index.isin(paired)] for each in (own, slim, long, scratch))
    if own.empty:
        return ""
    against = paired_difference(own, long)
    versus = f"long baseline {long.mean():.1f} %"
    if against is not None:
        versus += f", difference {against.mean:+.1f} ± {against.half_width:.1f}"
    if len(scratch) == len(own) and (len(slim) or SLIM_SIZED in ARMS[arm][2]):
        versus += f", slim from scratch {scratch.mean():.1f} %"
    slimmed = f", slim {slim.mean():.1f} %" if len(slim) else ""
    seeds = "one seed" if len(own) == 1 else f"{len(own)} seeds"
    return f"{meaning[0].upper()}{meaning[1:]}: {own.mean():.1f} %{slimmed} ({versus}; {seeds})."


def main() -> None:
    """Write the cards' rows."""
    parser = argparse.ArgumentParser(description="Write what was measured into the method cards.")
    parser.add_argument("csv", type=Path)
    print("\n".join(write_cards(pd.read_csv(parser.parse_args().csv))))


if __name__ == "__main__":
    main()
