"""The data modules: layouts on disk, refusals, and that test images are left alone until testing."""

import pickle
import shutil
import sys

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image
from torchvision.datasets import ImageFolder

from lightning_ke.data import (
    DataNotFoundError,
    EmbeddedDataModule,
    Flowers102DataModule,
    FolderDataModule,
)
from tests.data.layouts import lay_out_flowers


@pytest.fixture
def folder(tmp_path):
    """Two classes, differently sized images, in the layout of ImageFolder."""
    for part, count in (("train", 3), ("val", 2), ("test", 1)):
        for label, name in enumerate(("daisy", "rose")):
            for number in range(count):
                file = tmp_path / part / name / f"{number}.jpg"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (40 + 10 * number, 50), (255 * label, 0, 0)).save(file)
    return tmp_path


def test_folder_reads_every_part(folder):
    data = FolderDataModule(folder, image_size=16, batch_size=4)
    assert data.num_classes == 2
    assert data.classes == ["daisy", "rose"]
    data.setup("fit")
    images, labels = next(iter(data.val_dataloader()))
    assert images.shape == (4, 3, 16, 16)
    assert labels.tolist() == [0, 0, 1, 1]
    assert images[0, 0].mean() < images[2, 0].mean()
    assert sum(len(labels) for _, labels in data.train_dataloader()) == 6


def test_test_images_are_read_for_testing_only(folder, monkeypatch):
    read = []
    original = FolderDataModule.read
    monkeypatch.setattr(FolderDataModule, "read", lambda self, part: read.append(part) or original(self, part))
    data = FolderDataModule(folder, image_size=16)
    data.setup("fit")
    data.setup("validate")
    assert read == ["train", "val"]
    data.setup("test")
    data.setup("test")
    assert read == ["train", "val", "test"]


def test_missing_part_says_where_to_put_it(folder):
    shutil.rmtree(folder / "val")
    with pytest.raises(DataNotFoundError, match=r"val.CLASS.*Put the val images there"):
        FolderDataModule(folder, image_size=16).setup("fit")


def test_empty_class_says_where_to_put_images(folder):
    shutil.rmtree(folder / "train" / "rose")
    (folder / "train" / "rose").mkdir()
    with pytest.raises(DataNotFoundError, match=r"but 'rose' has none whose .*\.webp\. Put images there, or remove"):
        FolderDataModule(folder, image_size=16).setup("fit")


def test_a_folder_is_read_as_torchvision_reads_it(folder):
    (folder / "train" / "daisy" / "b" / "c").mkdir(parents=True)
    for name in ("b/2.PNG", "b/c/0.jpeg", "a.webp", "10.tiff"):
        Image.new("RGB", (4, 4)).save(folder / "train" / "daisy" / name)
    (folder / "train" / "daisy" / "notes.txt").touch()
    (folder / "train" / "daisy" / "linked").symlink_to(folder / "val" / "rose")
    ours, theirs = FolderDataModule(folder, image_size=16).open("train"), ImageFolder(folder / "train")
    assert [(str(file), label) for file, label in zip(ours.files, ours.targets, strict=True)] == theirs.samples


def test_hidden_files_and_folders_are_no_images(folder):
    (folder / "train" / ".ipynb_checkpoints").mkdir()
    (folder / "train" / "daisy" / ".thumbs").mkdir()
    for name in ("._0.jpg", ".thumbs/0.jpg"):
        (folder / "train" / "daisy" / name).write_bytes(b"no image")
    data = FolderDataModule(folder, image_size=16)
    data.setup("fit")
    assert data.classes == ["daisy", "rose"]
    assert len(data.train_dataloader().dataset) == 6


def test_a_share_beside_a_folder_of_validation_images_is_refused(folder):
    with pytest.raises(ValueError, match=r"Expected argument `val_share` to be None, because '.*val' is there"):
        FolderDataModule(folder, image_size=16, val_share=0.5).setup("fit")
    shutil.rmtree(folder / "val")
    FolderDataModule(folder, image_size=16, val_share=0.5).setup("fit")


@pytest.mark.parametrize("content", [b"", b"no image", "cut"])
def test_a_file_that_cannot_be_read_is_named(folder, content):
    file = folder / "train" / "daisy" / "1.jpg"
    file.write_bytes(file.read_bytes()[:-100] if content == "cut" else content)
    with pytest.raises(DataNotFoundError, match=r"Expected image '.*train.daisy.1\.jpg' to be readable, but"):
        FolderDataModule(folder, image_size=16).setup("fit")


@pytest.mark.parametrize("ending", ["png", "tiff"])
def test_sixteen_bits_keep_their_shades(folder, ending):
    shades = np.array([[0, 100 * 256, 200 * 256, 65535]], np.uint16).repeat(4, 0)
    Image.fromarray(shades).save(folder / "train" / "daisy" / f"0.{ending}")
    (folder / "train" / "daisy" / "0.jpg").unlink()
    images, _ = FolderDataModule(folder, image_size=16).read("train")
    assert images[0][0, :, 1].tolist() == [0, 100, 200, 255]


def test_numbers_without_a_range_are_refused(folder):
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(folder / "train" / "daisy" / "0.tiff")
    with pytest.raises(
        DataNotFoundError, match=r"0\.tiff' to be readable, .* \(mode F\) have; save it with 8 or 16 bits"
    ):
        FolderDataModule(folder, image_size=16).setup("fit")


def test_a_module_goes_to_other_processes(folder):
    """With `ddp_spawn`, also one that has found its parts."""
    data = FolderDataModule(folder, image_size=16)
    data.setup("fit")
    again = pickle.loads(pickle.dumps(data))
    assert len(again.val_dataloader().dataset) == 4


def test_parts_with_different_classes_are_refused(folder):
    (folder / "val" / "rose").rename(folder / "val" / "tulip")
    with pytest.raises(ValueError, match=r"but only one of them has 'rose'"):
        FolderDataModule(folder, image_size=16).setup("fit")


def test_missing_flowers_say_where_to_get_them_and_where_to_put_them(tmp_path):
    with pytest.raises(DataNotFoundError, match=r"Expected Flowers-102 in .*flowers-102.*Download .*setid\.mat"):
        Flowers102DataModule(tmp_path, image_size=16).setup("fit")


def test_flowers_are_read_as_torchvision_lays_them_out(tmp_path, monkeypatch):
    """On a tiny copy of the layout."""
    lay_out_flowers(tmp_path, monkeypatch)
    data = Flowers102DataModule(tmp_path, image_size=8, batch_size=2)
    data.setup("fit")
    data.setup("test")
    assert [label.item() for _, labels in data.val_dataloader() for label in labels] == [0, 1]
    assert [label.item() for _, labels in data.test_dataloader() for label in labels] == [101, 101]
    images, _ = next(iter(data.test_dataloader()))
    assert images[0, 1].mean() < images[1, 1].mean()


def test_real_photographs_in_the_real_layout(flowers_mini):
    data = FolderDataModule(flowers_mini, image_size=64)
    data.setup("fit")
    data.setup("test")
    assert data.num_classes == 20
    counts = [
        len(loader.dataset) for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
    ]
    assert counts == [200, 200, 400]
    images = torch.cat([images for images, _ in data.val_dataloader()])
    assert images.shape[1:] == (3, 64, 64)
    # Photographs normalised by ImageNet's statistics: around 0, about 1 wide, red strongest in flowers.
    assert images.mean().abs() < 0.6
    assert 0.6 < images.std() < 1.6


def test_large_images_are_kept_small_in_memory(folder):
    Image.new("RGB", (600, 400)).save(folder / "train" / "daisy" / "large.jpg")
    data = FolderDataModule(folder, image_size=16)
    images, _ = data.read("train")
    assert max(max(image.shape[:2]) for image in images) <= 24 * 1.5


def test_a_last_batch_of_one_is_left_out_in_training_only():
    data = EmbeddedDataModule(batch_size=37)  # 1,000 = 27 x 37 + 1
    data.setup("fit")
    assert len(data.train_dataloader()) == 27
    assert sum(len(labels) for _, labels in data.val_dataloader()) == 500


@pytest.mark.parametrize(("batch_size", "left_out"), [(37, False), (499, True)])
def test_the_last_batch_is_that_of_a_device(batch_size, left_out):
    """Of 1,000 images two devices have 500 each; 37 leave one of 1,000, but not of 500, and 499 the other way round."""
    data = EmbeddedDataModule(batch_size=batch_size)
    data.setup("fit")
    data.trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_checkpointing=False)
    assert data.train_dataloader().drop_last == left_out


def test_embedded_images_are_normalised():
    data = EmbeddedDataModule(batch_size=500)
    data.setup("fit")
    images, _ = next(iter(data.val_dataloader()))
    assert images.shape == (500, 1, 28, 28)
    assert images.mean().abs() < 0.05
    assert 0.9 < images.std() < 1.1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"image_size": 0}, "Expected argument `image_size` to be a whole number of at least 1, but got 0"),
        ({"batch_size": 2.5}, r"Expected argument `batch_size` to be a whole number of at least 1, but got 2\.5"),
        ({"crop_scale": [0.1, 0.5, 1.0]}, "Expected argument `crop_scale` to be two shares"),
        ({"mean": [0.5, 0.5]}, "Expected argument `mean` to be a number for each of 3 channels, or one for all, but"),
        ({"std": [0.0]}, "Expected argument `std` to be .*, greater than 0, but got"),
        ({"eval_resize": 20}, "Expected argument `eval_resize` to be at least `image_size`, 32 px, but got 20"),
        ({"memory_size": 20}, "Expected argument `memory_size` to be at least `image_size`"),
        ({"crop_scale": (0.5, 0.2)}, r"Expected argument `crop_scale` to be two shares"),
        ({"crop_scale": (0.0, 1.0)}, r"Expected argument `crop_scale` to be two shares"),
    ],
)
def test_bad_options_are_refused(tmp_path, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        FolderDataModule(tmp_path, **({"image_size": 32} | options))


def test_missing_torchvision_is_named_with_its_install_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "lightning-ke\[app\]"'):
        Flowers102DataModule(tmp_path, image_size=8).read("train")
