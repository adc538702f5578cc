"""What all trainings of a study have in common: data, network, length."""

from __future__ import annotations

from dataclasses import dataclass

_FLOWERS = 6_149  # images of its test split

# Half width, 64 px: 11 minutes and more for 200 epochs of 1,020 images on one core that multiplies bfloat16 itself; one
# that does not takes about 40, and its steps 1.4 times what they take in float32. All the same the precision is one
# everywhere, because the rows of a ledger are compared. A job's evaluation is as rare as it can be without missing a
# generation's end, because it costs as much as a third of an epoch's training.
# The photographs' shorter sides are 109 px or more: memory holds 96 px of them, and crops of 64 px are seldom enlarged.
_SMALL = (
    "experiment=flowers102",
    "threads=1",
    "trainer.precision=bf16-mixed",
    "channels_last=true",
    "trainer.check_val_every_n_epoch=2",
    "trainer.enable_progress_bar=false",
    "+task.calibration=true",
)
# As published: 224 px, full width, 200 epochs in each of 10 generations; for those who have GPUs.
_PAPER = (
    "experiment=flowers102",
    "datamodule.num_workers=8",
    "backbone.width=1",
    "trainer.check_val_every_n_epoch=2",
    "+task.calibration=true",
)


@dataclass(frozen=True)
class Setting:
    """Data, network and length of a study's trainings; its name is that of the ledger.

    Args:
        name: Its name.
        about: What the pages call it.
        base: Overrides of every job.
        test_images: Number of test images.
        folder: Folder below `--data` that holds an image folder; empty for Flowers-102 as torchvision lays it out.
        epochs: Epochs of a training.
        width: Width of the dense network; the slim one's is half of it.
        image_size: Side of the images, in pixels.
    """

    name: str
    about: str
    base: tuple[str, ...]
    test_images: int
    folder: str = ""
    epochs: int = 200
    width: float = 0.5
    image_size: int = 64

    def overrides(self, data: str) -> list[str]:
        """Overrides of every job.

        Args:
            data: The folder that holds all data sets.
        """
        source = [f"datamodule.root={data}"]
        if self.folder:
            source = ["datamodule=folder", f"datamodule.root={data}/{self.folder}"]
        return [*self.base, *source, f"datamodule.image_size={self.image_size}"]


SETTINGS = {
    setting.name: setting
    for setting in (
        Setting("flowers102", "Flowers-102 at 64 px, ResNet18 of half the width", _SMALL, _FLOWERS),
        Setting(
            "flowers102-wide",
            "Flowers-102 at 64 px, ResNet18 of full width",
            (*_SMALL, "backbone.width=1"),
            _FLOWERS,
            width=1.0,
        ),
        Setting(
            "flowers102-paper", "Flowers-102 as published", _PAPER, _FLOWERS, epochs=2000, width=1.0, image_size=224
        ),
        Setting(
            "flowers102-noise20",
            "Flowers-102 at 64 px, 20 % of the training labels wrong",
            (*_SMALL, "datamodule.label_noise=0.2"),
            _FLOWERS,
        ),
        Setting(
            "flowers102-noise40",
            "Flowers-102 at 64 px, 40 % of the training labels wrong",
            (*_SMALL, "datamodule.label_noise=0.4"),
            _FLOWERS,
        ),
        Setting(
            "flowers102-5",
            "Flowers-102 at 64 px, 5 training images a class",
            (*_SMALL, "datamodule.per_class=5"),
            _FLOWERS,
        ),
        Setting(
            "eurosat",
            "EuroSAT, 400 training images of 10 classes of land use, 64 px",
            (*_SMALL, "datamodule.crop_scale=[0.35,1.0]"),
            600,
            folder="eurosat",
        ),
        Setting(
            "dogs-cats",
            "Tiny-ImageNet, 1,100 training images of 6 dogs and 5 cats, 64 px",
            (*_SMALL, "datamodule.crop_scale=[0.35,1.0]"),
            550,
            folder="dogs-cats",
        ),
    )
}
