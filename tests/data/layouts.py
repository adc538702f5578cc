"""Tiny copies of the layouts of real data sets: their folders, lists and file formats, with images of one colour.

Each function writes below `root`; the shades of the images tell them apart.
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import scipy.sparse
from PIL import Image
from torchvision.datasets import CIFAR10, Flowers102, cifar, flowers102


def picture(file, shade=0, size=(30, 20)):
    """Write an image of one shade of green."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (0, shade % 256, 0)).save(file)


def lay_out_flowers(root, monkeypatch):
    """Four training, two validation and two test images of Flowers-102.

    torchvision compares checksums with those of the real label files; that is replaced.
    """
    home = root / "flowers-102"
    for number in range(1, 9):
        picture(home / "jpg" / f"image_{number:05d}.jpg", 30 * number)
    scipy.io.savemat(home / "imagelabels.mat", {"labels": [[1, 1, 2, 2, 102, 102, 1, 2]]})
    scipy.io.savemat(home / "setid.mat", {"trnid": [[2, 4, 7, 8]], "valid": [[1, 3]], "tstid": [[5, 6]]})
    monkeypatch.setattr(flowers102, "check_integrity", lambda *_: True)
    monkeypatch.setattr(Flowers102, "_check_integrity", lambda self: True)


def lay_out_cub(root, monkeypatch=None):
    """Three classes with four training and one test image each, in the order of the real lists."""
    home = root / "CUB_200_2011"
    names = ["001.Black_footed_Albatross", "002.Laysan_Albatross", "200.Common_Yellowthroat"]
    images, labels, split = [], [], []
    for name in names:
        for number in range(5):
            file = f"{name}/{name.partition('.')[2]}_{number:04d}_{len(images)}.jpg"
            picture(home / "images" / file, 40 + 10 * len(images))
            images.append(f"{len(images) + 1} {file}")
            labels.append(f"{len(images)} {int(name[:3])}")
            split.append(f"{len(images)} {int(number != 2)}")
    for file, lines in (("images", images), ("image_class_labels", labels), ("train_test_split", split)):
        (home / f"{file}.txt").write_text("\n".join(lines) + "\n")


def lay_out_mit67(root, monkeypatch=None):
    """Two rooms with four training images and one test image each; the real lists end without a line break."""
    home = root / "mit67"
    lists = {"Train": [], "Test": []}
    for room in ("kitchen", "airport_inside"):
        for number in range(5):
            name = f"{room}/{room}_{number:04d}.jpg"
            picture(home / "Images" / name, 40 + 10 * number)
            lists["Test" if number == 4 else "Train"].append(name)
    for part, names in lists.items():
        (home / f"{part}Images.txt").write_text("\n".join(names))


def lay_out_dogs(root, monkeypatch=None):
    """Two breeds with four training images and one test image each, listed in MATLAB files of cells."""
    home = root / "stanford-dogs"
    rows = {"train": [], "test": []}
    for label, breed in ((1, "n02085620-Chihuahua"), (120, "n02116738-African_hunting_dog")):
        for number in range(5):
            name = f"{breed}/{breed[:9]}_{number}.jpg"
            picture(home / "Images" / name, 40 + 10 * number)
            rows["test" if number == 4 else "train"].append((name, label))
    for part, listed in rows.items():
        names = np.empty((len(listed), 1), dtype=object)
        names[:, 0] = [name for name, _ in listed]
        labels = np.array([[label] for _, label in listed], dtype=np.uint8)
        scipy.io.savemat(home / f"{part}_list.mat", {"file_list": names, "annotation_list": names, "labels": labels})


def lay_out_aircraft(root, monkeypatch=None):
    """Two variants; an image or two of each in each part, names and classes in the lists separated by one space."""
    home = root / "fgvc-aircraft-2013b" / "data"
    variants = ["Boeing 707-320", "Yak-42"]
    number = 1000000
    for part in ("train", "val", "test"):
        lines = []
        for variant in variants * (2 if part == "train" else 1):
            number += 1
            picture(home / "images" / f"{number}.jpg", 10 * (number % 100))
            lines.append(f"{number} {variant}")
        (home / f"images_variant_{part}.txt").write_text("\n".join(lines) + "\n")
    (home / "variants.txt").write_text("\n".join(variants) + "\n")


def lay_out_pets(root, monkeypatch=None):
    """Two breeds with four images to train on and one to test; lines are name, class, species, breed."""
    home = root / "oxford-iiit-pet"
    (home / "annotations").mkdir(parents=True)
    lines = {"trainval": [], "test": []}
    for label, breed in ((1, "Abyssinian"), (2, "american_bulldog")):
        for number in range(5):
            picture(home / "images" / f"{breed}_{number}.jpg", 40 + 10 * number)
            lines["test" if number == 4 else "trainval"].append(f"{breed}_{number} {label} {label} 1")
    for part, listed in lines.items():
        (home / "annotations" / f"{part}.txt").write_text("\n".join(listed) + "\n")


def lay_out_eurosat(root, monkeypatch=None):
    """Two kinds of land use with ten images each."""
    for kind in ("AnnualCrop", "SeaLake"):
        for number in range(1, 11):
            picture(root / "eurosat" / "2750" / kind / f"{kind}_{number}.jpg", 20 * number, size=(64, 64))


def _lay_out_cifar(home, monkeypatch, files, key, classes):
    home.mkdir(parents=True)
    for name, count in files.items():
        labels = [number % classes for number in range(count)]
        pixels = np.zeros((count, 3, 32, 32), dtype=np.uint8)
        pixels[:, 1] = 10 * np.arange(count)[:, None, None]
        content = {"data": pixels.reshape(count, -1), key: labels, "filenames": [f"{n}.png" for n in range(count)]}
        (home / name).write_bytes(pickle.dumps(content, protocol=2))
    names = [f"class {number}" for number in range(classes)]
    meta = "batches.meta" if key == "labels" else "meta"
    (home / meta).write_bytes(pickle.dumps({"label_names": names, "fine_label_names": names}, protocol=2))
    # torchvision compares checksums with those of the real files.
    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(cifar, "check_integrity", lambda *_: True)


def lay_out_cifar10(root, monkeypatch):
    """Five training batches of four images, and one of four to test."""
    files = {f"data_batch_{number}": 4 for number in range(1, 6)} | {"test_batch": 4}
    _lay_out_cifar(root / "cifar-10-batches-py", monkeypatch, files, "labels", 2)


def lay_out_cifar100(root, monkeypatch):
    """Twenty images to train on, four to test."""
    _lay_out_cifar(root / "cifar-100-python", monkeypatch, {"train": 20, "test": 4}, "fine_labels", 2)


def lay_out_imagenet(root, monkeypatch=None):
    """Two classes; validation images, which are tested, in folders of their classes."""
    for synset in ("n01440764", "n15075141"):
        for number in range(10):
            picture(root / "imagenet" / "train" / synset / f"{synset}_{number}.JPEG", 20 * number, size=(90, 60))
        picture(root / "imagenet" / "val" / synset / f"ILSVRC2012_val_0000{synset[-4:]}.JPEG", 200)


LAYOUTS = {
    "flowers102": lay_out_flowers,
    "cub200": lay_out_cub,
    "aircraft": lay_out_aircraft,
    "mit67": lay_out_mit67,
    "dogs": lay_out_dogs,
    "imagenet": lay_out_imagenet,
    "cifar10": lay_out_cifar10,
    "cifar100": lay_out_cifar100,
    "eurosat": lay_out_eurosat,
    "oxford_pets": lay_out_pets,
}


def shades(folder: Path, names: list[str], mode: str = "RGB") -> None:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        grey = number % 256
        Image.new(mode, (12, 10), grey if mode == "L" else (grey, grey, grey)).save(path)


def lay_out_planetoid(root: Path, features: Any, labels: Any, edges: Any, train: int, test: list[int]) -> None:
    """Write a graph as Planetoid does: `test` are the last nodes, in the order of the file."""
    rest = len(labels) - len(test)
    one_hot = np.eye(int(labels.max()) + 1, dtype=np.int32)[labels]
    graph: dict[int, list[int]] = {node: [] for node in range(len(labels))}
    for a, b in edges:
        graph[int(a)].append(int(b))
        graph[int(b)].append(int(a))
    parts = {
        "x": scipy.sparse.csr_matrix(features[:train]),
        "allx": scipy.sparse.csr_matrix(features[:rest]),
        "tx": scipy.sparse.csr_matrix(features[test]),
        "y": one_hot[:train],
        "ally": one_hot[:rest],
        "ty": one_hot[test],
        "graph": graph,
    }
    root.mkdir(parents=True, exist_ok=True)
    for name, part in parts.items():
        (root / f"ind.cora.{name}").write_bytes(pickle.dumps(part, protocol=2))
    (root / "ind.cora.test.index").write_text("\n".join(map(str, test)) + "\n", encoding="utf-8")


def lay_out_medmnist(root: Path, name: str, channels: int, labels: int, classes: int, count: int = 60) -> None:
    generator = np.random.default_rng(0)
    arrays = {}
    for part in ("train", "val", "test"):
        shape = (count, 28, 28) if channels == 1 else (count, 28, 28, channels)
        arrays[f"{part}_images"] = generator.integers(0, 256, shape, dtype=np.uint8)
        wanted = generator.integers(0, classes, (count, labels))
        arrays[f"{part}_labels"] = np.where(generator.random((count, labels)) < 0.5, 0, wanted).astype(np.uint8)
    np.savez_compressed(root / f"{name}.npz", **arrays)
