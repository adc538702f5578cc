"""Every published set, read from a tiny copy of its real layout."""

import pytest
import torch
from PIL import Image
from torchvision import datasets

from lightning_ke import data as package
from lightning_ke.data import (
    CIFAR10DataModule,
    CIFAR100DataModule,
    CUB200DataModule,
    DataNotFoundError,
    EuroSATDataModule,
    FolderDataModule,
    ImageNetDataModule,
    MIT67DataModule,
    OxfordPetsDataModule,
    StanfordDogsDataModule,
)
from lightning_ke.data.images import RandomCrop, ShiftCrop
from tests.data.layouts import LAYOUTS, lay_out_cub, lay_out_eurosat, lay_out_imagenet, picture

MODULES = {
    "flowers102": package.Flowers102DataModule,
    "cub200": CUB200DataModule,
    "aircraft": package.AircraftDataModule,
    "mit67": MIT67DataModule,
    "dogs": StanfordDogsDataModule,
    "imagenet": ImageNetDataModule,
    "cifar10": CIFAR10DataModule,
    "cifar100": CIFAR100DataModule,
    "eurosat": EuroSATDataModule,
    "oxford_pets": OxfordPetsDataModule,
}
# Classes in all; labels of the training, validation and test images of the tiny copy, ascending.
EXPECTED = {
    "flowers102": (102, [0, 0, 1, 1], [0, 1], [101, 101]),
    "cub200": (200, [0] * 3 + [1] * 3 + [199] * 3, [0, 1, 199], [0, 1, 199]),
    "aircraft": (100, [0, 0, 1, 1], [0, 1], [0, 1]),
    "mit67": (67, [0] * 3 + [1] * 3, [0, 1], [0, 1]),
    "dogs": (120, [0] * 3 + [119] * 3, [0, 119], [0, 119]),
    "imagenet": (1000, [0] * 9 + [1] * 9, [0, 1], [0, 1]),
    "cifar10": (10, [0] * 9 + [1] * 9, [0, 1], [0, 0, 1, 1]),
    "cifar100": (100, [0] * 9 + [1] * 9, [0, 1], [0, 0, 1, 1]),
    "eurosat": (10, [0] * 7 + [1] * 7, [0, 1], [0, 0, 1, 1]),
    "oxford_pets": (37, [0] * 3 + [1] * 3, [0, 1], [0, 1]),
}


def opened(name, root, **options):
    data = MODULES[name](root, image_size=16, batch_size=50, **options)
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    return data


def parts(data):
    """Each part's labels and green values, images without their crop."""
    return {
        part: sorted(
            (int(label), int(image.float().mean((0, 1))[1])) for image, label in zip(s.images, s.labels, strict=True)
        )
        for part, s in data._sets.items()
    }


def test_every_module_is_tested_here():
    found = {getattr(package, name) for name in package.__all__}
    ours = {each.__name__ for each in found if isinstance(each, type) and issubclass(each, package.PictureDataModule)}
    ours -= {"PictureDataModule", "FolderDataModule"}  # the base of all, and what has no published layout
    assert ours == {module.__name__ for module in MODULES.values()}
    assert set(MODULES) == set(LAYOUTS) == set(EXPECTED)


@pytest.mark.parametrize("name", MODULES)
def test_a_set_is_read_as_it_is_published(tmp_path, monkeypatch, name):
    LAYOUTS[name](tmp_path, monkeypatch)
    data = opened(name, tmp_path)
    classes, *labels = EXPECTED[name]
    assert data.num_classes == classes
    seen = parts(data)
    for part, expected in zip(("train", "val", "test"), labels, strict=True):
        assert [label for label, _ in seen[part]] == expected, part
    images, _ = next(iter(data.train_dataloader()))
    assert images.shape == (len(labels[0]), 3, 16, 16)
    assert images.dtype is torch.float32


@pytest.mark.parametrize("name", MODULES)
def test_lazily_decoded_images_are_the_same(tmp_path, monkeypatch, name):
    LAYOUTS[name](tmp_path, monkeypatch)
    now, lazy = opened(name, tmp_path, lazy=False), opened(name, tmp_path, lazy=True)
    assert isinstance(now._sets["train"].images, list)
    assert not isinstance(lazy._sets["train"].images, list)
    for part in ("val", "test"):
        for (x, y), (u, v) in zip(
            getattr(now, f"{part}_dataloader")(), getattr(lazy, f"{part}_dataloader")(), strict=True
        ):
            assert torch.equal(x, u)
            assert torch.equal(y, v)


def test_worker_processes_decode_lazily(tmp_path):
    lay_out_cub(tmp_path)
    data = CUB200DataModule(tmp_path, image_size=16, batch_size=3, lazy=True, num_workers=2)
    data.setup("fit")
    assert sorted(label for _, labels in data.train_dataloader() for label in labels.tolist()) == EXPECTED["cub200"][1]


@pytest.mark.parametrize("name", [name for name in MODULES if MODULES[name].held_out is not None])
def test_validation_is_held_out_of_training_and_nothing_else(tmp_path, monkeypatch, name, caplog):
    LAYOUTS[name](tmp_path, monkeypatch)
    data = opened(name, tmp_path, seed=3)
    positions = {part: data._positions(part)[1] for part in ("train", "val")}
    assert not set(positions["train"].tolist()) & set(positions["val"].tolist())
    assert parts(data) == parts(opened(name, tmp_path, seed=3))
    more = opened(name, tmp_path, seed=3, val_share=0.4)
    assert len(more._sets["val"]) > len(data._sets["val"])
    assert parts(more)["test"] == parts(data)["test"]


def test_another_seed_validates_others_and_tests_the_same(tmp_path):
    lay_out_eurosat(tmp_path)
    seen = [parts(opened("eurosat", tmp_path, seed=seed, val_share=0.3)) for seed in (0, 1)]
    assert seen[0]["val"] != seen[1]["val"]
    assert seen[0]["test"] == seen[1]["test"]
    everything = [sorted(part["train"] + part["val"] + part["test"]) for part in seen]
    assert everything[0] == everything[1]
    assert len(everything[0]) == 20


def test_cub_lists_belong_together_by_their_numbers(tmp_path):
    """Lines of the three lists are joined by image number, in whatever order they are."""
    lay_out_cub(tmp_path)
    before = parts(opened("cub200", tmp_path))
    file = tmp_path / "CUB_200_2011" / "image_class_labels.txt"
    file.write_text("\n".join(reversed(file.read_text().splitlines())))
    assert parts(opened("cub200", tmp_path)) == before
    assert [shade for _, shade in before["test"]] == pytest.approx([60, 110, 160], abs=2)


@pytest.mark.parametrize("name", MODULES)
def test_missing_images_say_where_to_get_them_and_where_to_put_them(tmp_path, name):
    with pytest.raises(DataNotFoundError) as refused:
        opened(name, tmp_path)
    sentence = str(refused.value)
    assert "\n" not in sentence
    assert "://" in sentence
    assert str(tmp_path / MODULES[name].folder) in sentence
    assert ("download=True" in sentence) == MODULES[name].downloads


@pytest.mark.parametrize("name", [name for name in MODULES if not MODULES[name].downloads])
def test_what_torchvision_cannot_download_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"`download` to be False for .*://"):
        MODULES[name](tmp_path, download=True)


@pytest.mark.parametrize("name", [name for name in MODULES if MODULES[name].downloads])
def test_torchvision_downloads_into_the_root(tmp_path, monkeypatch, name):
    """What is fetched is not tested here, but that torchvision is asked to, for this folder."""
    LAYOUTS[name](tmp_path, monkeypatch)
    asked = []
    for kind in (
        datasets.Flowers102,
        datasets.FGVCAircraft,
        datasets.OxfordIIITPet,
        datasets.EuroSAT,
        datasets.CIFAR10,
    ):
        hook = "download" if hasattr(kind, "download") else "_download"
        monkeypatch.setattr(kind, hook, lambda self: asked.append(self.root))
    opened(name, tmp_path, download=True)
    assert [str(root) for root in asked] == [str(tmp_path)]


def test_a_set_with_a_validation_split_keeps_it(tmp_path):
    with pytest.raises(ValueError, match=r"`val_share` to be None for Flowers-102"):
        package.Flowers102DataModule(tmp_path, val_share=0.1)
    with pytest.raises(ValueError, match=r"`val_share` to be in \(0, 1\), but got 1\.5"):
        CUB200DataModule(tmp_path, val_share=1.5)


def test_an_unreadable_image_is_named(tmp_path):
    lay_out_cub(tmp_path)
    file = next((tmp_path / "CUB_200_2011" / "images").rglob("*_3.jpg"))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DataNotFoundError, match=rf"Expected image .*{file.name}.* to be readable"):
        opened("cub200", tmp_path)
    file.unlink()
    with pytest.raises(DataNotFoundError, match=rf"Expected image .*{file.name}.* to be readable"):
        opened("cub200", tmp_path)


def test_flat_validation_images_of_imagenet_say_how_to_lay_them_out(tmp_path):
    lay_out_imagenet(tmp_path)
    home = tmp_path / "imagenet" / "val"
    for folder in list(home.iterdir()):
        next(folder.iterdir()).rename(home / f"{folder.name}.JPEG")
        folder.rmdir()
    data = ImageNetDataModule(tmp_path, image_size=16)
    data.setup("fit")
    with pytest.raises(DataNotFoundError, match=r"each needs one folder for every class"):
        data.setup("test")


def test_a_large_set_is_decoded_as_it_is_needed(tmp_path):
    """By its number of images, before any is decoded."""
    lay_out_cub(tmp_path)
    data = CUB200DataModule(tmp_path, image_size=224)
    assert data.in_memory("val", 5_000)
    assert not data.in_memory("train", 1_200_000)


def test_a_folder_without_validation_images_can_hold_some_out(tmp_path):
    for part, count in (("train", 10), ("test", 1)):
        for name in ("daisy", "rose"):
            for number in range(count):
                picture(tmp_path / part / name / f"{number}.png", 20 * number)
    with pytest.raises(DataNotFoundError, match=r"Or set `val_share=0\.1`"):
        FolderDataModule(tmp_path, image_size=16).setup("fit")
    data = FolderDataModule(tmp_path, image_size=16, val_share=0.2)
    data.setup("fit")
    assert [len(data._sets[part]) for part in ("train", "val")] == [16, 4]


def test_grey_and_transparent_images_are_read_as_colour(tmp_path):
    for part in ("train", "val"):
        picture(tmp_path / part / "a" / "0.png")
    Image.new("L", (20, 30), 100).save(tmp_path / "train" / "a" / "1.png")
    Image.new("RGBA", (20, 30), (1, 2, 3, 4)).save(tmp_path / "train" / "a" / "2.png")
    images, _ = FolderDataModule(tmp_path, image_size=8).read("train")
    assert [image.shape[2] for image in images] == [3, 3, 3]


def test_cifar_is_shifted_not_cropped(tmp_path):
    assert CIFAR10DataModule(tmp_path).crop("train") == ShiftCrop(32, padding=4)
    assert isinstance(CIFAR10DataModule(tmp_path, padding=None).crop("train"), RandomCrop)
