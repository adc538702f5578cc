"""Values, headings, text and a small vision transformer in generations, beside both controls, over seeds.

    python -m benchmarks.tasks ROOT OUT.jsonl [--seeds 3] [--groups value ...] [--collect]

ROOT holds `flowers-102` as torchvision lays it out. OUT gets one line for each run; runs that it has already are not
repeated, so stop it whenever you like. Then (with --collect at once) CSV, page and plot are written to `docs/results/`.
"""

from __future__ import annotations

import pydoc_data.topics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, seed_everything
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR

from benchmarks import paired
from benchmarks.training import fit
from lightning_ke import KnowledgeEvolution, measure_cost
from lightning_ke.app.backbones import torchvision_backbone
from lightning_ke.app.vision_transformer import small_vit
from lightning_ke.data import EmbeddedDataModule, Flowers102DataModule, HeadingDataModule, TextDataModule
from lightning_ke.data.decode import Undecoded
from lightning_ke.tasks import Classification, Heading, NextCharacter, Regression
from lightning_ke.tasks.base import Task
from lightning_ke.tasks.text import CharacterGRU, CharacterTransformer

GENERATIONS, EPOCHS, SIDE, LETTERS = 5, 6, 32, 60_000
RATE, TESTED = 0.003, 1_000
ARMS = ("long", "kels", "slim-sized")

STUDY = paired.Study(
    name="tasks",
    title="Values, headings, text and a vision transformer: generations beside plain training of the same length",
    baseline="long",
    same_size="slim-sized",
    metrics={
        "r2": ("R²", "%"),
        "mae": ("error", "°"),
        "acc": ("accuracy", "%"),
        "perplexity": ("perplexity", ""),
    },
    intro=f"""Small jobs, one for each task that no other study has; {GENERATIONS * EPOCHS} epochs in all, AdamW with
learning rate {RATE} and weight decay 0.01 and half a cosine per generation for every arm (none was tuned).

- **value**: how green a photograph of Flowers-102 is (green minus the mean of red and blue, over all of it), foretold
  from a crop of {SIDE} px; 1,020 photographs to train on, the first {TESTED:,} of the test split; a ResNet18 of a
  quarter of the width.
- **heading**: by how many degrees an embedded image was turned (90 is chance); the same network. **Less is better.**
- **gru**, **transformer**: the next character of {LETTERS:,} characters of Python's own documentation; 64 channels, one
  GRU layer, or two blocks with four heads.
- **vit**: the embedded images (1,000 to train on, 2,500 to test); a vision transformer of three blocks, 64 channels.

The arms:

- **long**: the dense long baseline, {GENERATIONS * EPOCHS} epochs, no redraw.
- **kels**: Knowledge Evolution, KELS, rate 0.5, {GENERATIONS} generations of {EPOCHS} epochs; dense, and slim.
- **slim-sized**: a network of half the channels, trained from scratch for {GENERATIONS * EPOCHS} epochs.

The weights of the last epoch are tested, once; no weights were chosen.""",
    command="python -m benchmarks.tasks ROOT OUT.jsonl --seeds 3",
    findings="""Every task trains, is redrawn, scored and slimmed in generations. At this length that does not pay, as
far as three seeds say: no network is told to be better than the long baseline, and on headings and with the transformer
the dense one is clearly worse; no slim network is better than one of its size from scratch, and on values, headings and
with the vision transformer it stays far behind. Four of the five slim networks still get better in the last generation,
so six epochs with AdamW may be too few for them. Longer generations, and SGD as in the paper, were not tried here.""",
)


class Greenness(Flowers102DataModule):
    """Photographs, and how green each one is: green minus the mean of red and blue, in units of full intensity."""

    @property
    def num_classes(self) -> int:
        """One value."""
        return 1

    def read(self, part: str) -> tuple[Sequence[Tensor], Tensor]:
        """The photographs of one part, and float32 values of shape (N, 1)."""
        images, _ = super().read(part)
        decoded = images.decode() if isinstance(images, Undecoded) else images
        decoded = decoded[:TESTED] if part == "test" else decoded
        colours = torch.stack([image.float().mean((0, 1)) / 255 for image in decoded])
        return decoded, (colours[:, 1] - (colours[:, 0] + colours[:, 2]) / 2).unsqueeze(1)


@dataclass(frozen=True)
class Group:
    """A task with its data.

    Args:
        data: The data, read once.
        build: From the factor of the widths, 1 or 0.5, to the task.
        scores: What is tested.
    """

    data: LightningDataModule
    build: Callable[[float, dict[str, Any]], Task]
    scores: tuple[str, ...]


def groups(root: Path, text: Path) -> dict[str, Group]:
    """All groups by name.

    Args:
        root: Folder that holds `flowers-102`.
        text: A text file.
    """
    green = Greenness(root, image_size=SIDE, batch_size=32, crop_scale=(0.7, 1.0))
    turned = HeadingDataModule(EmbeddedDataModule(batch_size=50, crop_scale=(0.7, 1.0), flip=False))
    letters = TextDataModule(text, length=64, shares=(0.8, 0.1))
    embedded = EmbeddedDataModule(batch_size=50)

    def resnet(outputs: int, share: float, channels: int = 3) -> nn.Module:
        return torchvision_backbone("resnet18", outputs, channels, width=0.25 * share)

    def transformer(share: float) -> nn.Module:
        width, heads = round(64 * share), round(4 * share)
        return CharacterTransformer(letters.num_classes, width, heads=heads, context=letters.length)

    def vit(share: float) -> nn.Module:
        return small_vit(10, 28, 1, patch=7, width=round(64 * share), depth=3, heads=round(4 * share))

    return {
        # The standard deviation of the training images, about.
        "value": Group(green, lambda share, how: Regression(resnet(1, share), std=0.1, **how), ("r2",)),
        "heading": Group(turned, lambda share, how: Heading(resnet(2, share, channels=1), **how), ("mae",)),
        "gru": Group(
            letters,
            lambda share, how: NextCharacter(
                CharacterGRU(letters.num_classes, round(64 * share)), letters.num_classes, **how
            ),
            ("acc", "perplexity"),
        ),
        "transformer": Group(
            letters,
            lambda share, how: NextCharacter(transformer(share), letters.num_classes, **how),
            ("acc", "perplexity"),
        ),
        "vit": Group(embedded, lambda share, how: Classification(vit(share), 10, **how), ("acc",)),
    }


def run(group: Group, name: str, arm: str, seed: int) -> dict[str, Any]:
    """Train one arm and test it.

    Args:
        group: The task.
        name: Its name.
        arm: One of `ARMS`.
        seed: Seed of weights, data order, mask and redraws.
    """
    seed_everything(seed, verbose=False)
    how = {"optimizer": lambda p: AdamW(p, lr=RATE, weight_decay=0.01), "scheduler": CosineAnnealingLR}
    task = group.build(0.5 if arm == "slim-sized" else 1.0, how)
    example = getattr(group.data, "example_input", None)
    if example is None:
        example = torch.zeros(2, group.data.in_channels, group.data.image_size, group.data.image_size)
    task.example_input_array = example
    evolution = KnowledgeEvolution(
        rate=0.5,
        generations=GENERATIONS if arm == "kels" else 1,
        seed=seed,
        score_fit="generation" if arm == "kels" else False,
    )
    trainer, seconds = fit(task, group.data, GENERATIONS * EPOCHS, [evolution], validate_every=EPOCHS)
    row: dict[str, Any] = {"group": name, "arm": arm, "seed": seed, "seconds": seconds}

    def test(network: nn.Module) -> dict[str, float]:
        (scores,) = trainer.test(network, group.data, verbose=False)
        cost = measure_cost(network.backbone, example)
        tested = {score: scores[f"test_{score}"] for score in group.scores}
        return {**tested, "operations": cost.ops, "parameters": cost.params}

    row["networks"] = {"dense": test(task)}
    if arm == "kels":
        row["networks"]["slim"] = test(evolution.slim_network(task))
        name = f"val_{group.scores[0]}"
        row["history"] = [[record["dense"][name], record["fit"][name]] for record in evolution.history]
    return row


def prepare(root: Path) -> paired.Run:
    """Read everything once.

    Args:
        root: Folder that holds `flowers-102`.
    """
    # English that every Python brings; the same for all runs of a version.
    english = "\n".join(text for _, text in sorted(pydoc_data.topics.topics.items()))[:LETTERS]
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "english.txt"
        text.write_text(english, encoding="utf-8")
        known = groups(root, text)
        for group in known.values():
            group.data.setup("fit")
    return lambda name, arm, seed: run(known[name], name, arm, seed)


if __name__ == "__main__":
    paired.command_line(STUDY, ("value", "heading", "gru", "transformer", "vit"), ARMS, 3, prepare)
