"""Data for the other tasks, on small copies of the real layouts and, with KE_DATA, on real data."""

from __future__ import annotations

import math
import os
import pickle
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import scipy.sparse
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from PIL import Image
from torch.utils.data import SequentialSampler

from lightning_ke.data import (
    CarsRetrievalDataModule,
    ClassDisjointDataModule,
    CoraDataModule,
    CUB200RetrievalDataModule,
    DataNotFoundError,
    EmbeddedDataModule,
    FlowersRetrievalDataModule,
    HeadingDataModule,
    ImageValueDataModule,
    MedMNISTDataModule,
    OmniglotDataModule,
    TextDataModule,
)
from lightning_ke.data.class_disjoint import SeveralPerClass
from lightning_ke.losses import ClassWiseDistillation
from tests.data.layouts import lay_out_flowers


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


def real_cora(root: Path) -> None:
    """The real graph in its real files; the pack's nodes are in Planetoid's order."""
    with np.load(Path(os.environ["KE_DATA"]) / "cora_planetoid.npz") as pack:
        shape = tuple(pack["x_shape"])
        features = scipy.sparse.csr_matrix((pack["x_data"], pack["x_indices"], pack["x_indptr"]), shape=shape).toarray()
        labels, split, edges = pack["label"].astype(int), pack["split"], pack["edges"].T
    assert (split[:140] == 0).all()
    assert (split[140:640] == 1).all()
    lay_out_planetoid(root, features, labels, edges, 140, np.flatnonzero(split == 2).tolist())


needs_data = pytest.mark.skipif("KE_DATA" not in os.environ, reason="KE_DATA is not set")


def test_cora_is_read_from_planetoid_s_files(tmp_path: Path) -> None:
    pytest.importorskip("torch_geometric")
    features = np.random.default_rng(0).integers(0, 2, (720, 9)).astype(np.float32)
    labels = np.arange(720) % 3
    test = list(range(700, 720))[::-1]  # Planetoid's test nodes are in no order
    lay_out_planetoid(tmp_path, features, labels, [(0, 1), (1, 700)], 30, test)
    data = CoraDataModule(tmp_path)
    assert (data.num_classes, data.in_channels) == (3, 9)
    (x, edges), known = next(iter(data.test_dataloader()))
    assert (known >= 0).nonzero().flatten().tolist() == list(range(700, 720))
    assert known[700:].tolist() == labels[700:].tolist()
    torch.testing.assert_close(x, torch.from_numpy(features / features.sum(1, keepdims=True).clip(1)))
    assert sorted(map(tuple, edges.T.tolist())) == [(0, 1), (1, 0), (1, 700), (700, 1)]
    parts = [next(iter(loader))[1] >= 0 for loader in (data.train_dataloader(), data.val_dataloader())]
    assert [int(part.sum()) for part in parts] == [30, 500]
    with pytest.raises(DataNotFoundError, match=r"Expected ind\.cora\.x, .*planetoid"):
        CoraDataModule(tmp_path / "empty").setup("fit")


def test_a_graph_lies_where_torch_geometric_has_put_it(tmp_path: Path) -> None:
    """In a folder that is called as its user has called the graph, which torch-geometric's documents call CiteSeer."""
    pytest.importorskip("torch_geometric")
    raw = tmp_path / "CiteSeer" / "raw"
    lay_out_planetoid(raw, np.ones((720, 9), np.float32), np.arange(720) % 3, [(0, 1)], 30, list(range(700, 720)))
    for file in list(raw.iterdir()):
        file.rename(raw / file.name.replace("cora", "citeseer"))
    assert CoraDataModule(tmp_path, "citeseer").num_classes == 3


@needs_data
def test_the_real_cora_has_its_published_split(tmp_path: Path) -> None:
    pytest.importorskip("torch_geometric")
    real_cora(tmp_path / "Cora" / "raw")
    data = CoraDataModule(tmp_path)
    (x, edges), known = next(iter(data.test_dataloader()))
    assert (x.shape, edges.shape[1], data.num_classes) == ((2708, 1433), 2 * 5278, 7)
    assert int((known >= 0).sum()) == 1000


def test_classes_for_testing_are_none_of_those_trained_on(tmp_path: Path) -> None:
    names = [f"{number:03}.Bird_{number}/{image}.jpg" for number in range(1, 201) for image in range(2)]
    shades(tmp_path / "CUB_200_2011" / "images", names)
    data = CUB200RetrievalDataModule(tmp_path, image_size=8, batch_size=8)
    data.setup("fit")
    data.setup("test")
    seen = {part: sorted(set(data._sets[part].labels.tolist())) for part in ("train", "val", "test")}
    assert seen == {"train": list(range(80)), "val": list(range(80, 100)), "test": list(range(100, 200))}
    assert data.num_classes == 80
    images, labels = next(iter(data.train_dataloader()))
    assert images.shape == (8, 3, 8, 8)
    assert sorted(torch.bincount(labels).tolist())[-2:] == [4, 4]
    with pytest.raises(DataNotFoundError, match="CUB-200-2011"):
        CUB200RetrievalDataModule(tmp_path / "empty", image_size=8).setup("fit")
    shutil.rmtree(tmp_path / "CUB_200_2011" / "images" / "007.Bird_7")  # those behind it would change their places
    with pytest.raises(DataNotFoundError, match=r"not \(completely\) there"):
        CUB200RetrievalDataModule(tmp_path, image_size=8).setup("fit")


def test_cars_are_read_from_their_annotations(tmp_path: Path) -> None:
    names = [f"car_ims/{number:06}.jpg" for number in range(1, 393)]
    shades(tmp_path, names)
    kind = [("relative_im_path", "O"), ("class", "O")]
    rows = np.array([(name, number % 196 + 1) for number, name in enumerate(names)], dtype=kind)
    scipy.io.savemat(tmp_path / "cars_annos.mat", {"annotations": rows})
    data = CarsRetrievalDataModule(tmp_path, image_size=8)
    data.setup("test")
    labels = data._sets["test"].labels
    assert (int(labels.min()), int(labels.max()), len(labels)) == (98, 195, 196)
    with pytest.raises(DataNotFoundError, match="Stanford Cars"):
        CarsRetrievalDataModule(tmp_path / "empty", image_size=8).setup("fit")


def test_omniglot_s_evaluation_alphabets_are_for_testing(tmp_path: Path) -> None:
    for part, alphabets in (("images_background", ("Greek", "Latin")), ("images_evaluation", ("Angelic",))):
        names = [f"{a}/character{c:02}/{c:04}_{i:02}.png" for a in alphabets for c in range(1, 6) for i in range(3)]
        shades(tmp_path / "omniglot-py" / part, names, mode="L")
    OmniglotDataModule.total_classes, whole = 15, OmniglotDataModule.total_classes
    try:
        data = OmniglotDataModule(tmp_path, train_classes=10, val_classes=2, images_per_class=2, batch_size=4)
        data.setup("fit")
        data.setup("test")
        with pytest.raises(ValueError, match="Give `train_classes=10`"):
            OmniglotDataModule(tmp_path, train_classes=9, batch_size=4).setup("fit")
    finally:
        OmniglotDataModule.total_classes = whole
    assert [len(data._sets[part]) for part in ("train", "val", "test")] == [24, 6, 15]
    assert data.num_classes == 8


def test_flowers_for_retrieval_come_from_all_three_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out_flowers(tmp_path, monkeypatch)
    data = FlowersRetrievalDataModule(tmp_path, image_size=16, batch_size=4)
    data.setup("test")
    assert data._sets["test"].labels.tolist() == [101, 101]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_classes": 200}, "`val_classes` < `train_classes` < 200"),
        ({"images_per_class": 3}, "to divide `batch_size`, 32"),
    ],
)
def test_class_numbers_that_do_not_fit_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CUB200RetrievalDataModule("nowhere", image_size=8, **options)


def test_batches_hold_several_examples_of_several_classes() -> None:
    labels = torch.cat([torch.arange(6).repeat(5), torch.tensor([6])])
    batches = SeveralPerClass(SequentialSampler(labels), labels, per_class=3, batch_size=12)
    assert [len(batch) for batch in batches] == [12, 12]
    assert len(batches) == 2
    for batch in batches:
        assert sorted(torch.bincount(labels[batch])[torch.bincount(labels[batch]) > 0].tolist()) == [3, 3, 3, 3]
    with pytest.raises(ValueError, match="at least 9 training classes"):
        SeveralPerClass(SequentialSampler(labels), labels, per_class=2, batch_size=18)


class Alphabet(ClassDisjointDataModule):
    """Ten images of each of eight letters; a batch is four of each of two."""

    total_classes = 8

    def __init__(self) -> None:
        super().__init__(image_size=4, batch_size=8, train_classes=6, val_classes=2, flip=False)

    def read_all(self, side: int) -> tuple[Sequence[torch.Tensor], torch.Tensor]:
        shades = torch.arange(80)
        return [torch.full((4, 4, 3), int(shade), dtype=torch.uint8) for shade in shades], shades // 10


class Watching(LightningModule):
    """Writes down what a rank is trained on."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.layer = folder, torch.nn.Linear(1, 1)
        self.seen: list[tuple[list[int], list[float]]] = []

    def training_step(self, batch: Any) -> torch.Tensor:
        images, labels = batch
        self.seen.append((labels.tolist(), images[:, 0, 0, 0].tolist()))
        torch.save(self.seen, self.folder / f"rank{self.global_rank}.pt")
        loss: torch.Tensor = self.layer(images.mean((1, 2, 3))[:, None]).sum()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


@pytest.mark.slow
def test_under_ddp_each_rank_s_batches_hold_several_of_a_class_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "NODE_RANK", "LOCAL_RANK"):  # the launcher leaves them
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    seed_everything(0, verbose=False)
    options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    Trainer(accelerator="cpu", devices=2, strategy="ddp_spawn", max_epochs=2, **options).fit(
        Watching(tmp_path), Alphabet()
    )
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    assert len(first) == len(second) == 4  # 40 training images, 8 in a batch, two ranks, two epochs
    for labels, _ in first + second:
        assert sorted(Counter(labels).values()) == [4, 4]
    assert [labels for labels, _ in first] != [labels for labels, _ in second]
    for epoch in (slice(0, 2), slice(2, 4)):  # each image is one rank's in an epoch
        shown = [{value for _, values in seen[epoch] for value in values} for seen in (first, second)]
        assert not shown[0] & shown[1]


def test_text_is_cut_into_windows_and_the_next_characters(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abcd" * 500 + "é" + "abcd" * 50, encoding="utf-8")
    data = TextDataModule(tmp_path / "a.txt", length=16, batch_size=4)
    assert data.alphabet == ["\N{REPLACEMENT CHARACTER}", "a", "b", "c", "d"]
    x, y = next(iter(data.train_dataloader()))
    assert x.shape == y.shape == (4, 16)
    assert torch.equal(x[:, 1:], y[:, :-1])
    val = torch.cat([x.flatten() for x, _ in data.val_dataloader()])
    assert len(val) == 16 * (110 // 16)
    assert torch.equal(*(next(iter(data.val_dataloader()))[0] for _ in range(2)))
    everything = data._parts[1]
    assert sum(len(part) for part in everything.values()) == 2201
    assert int((everything["val"] == 0).sum() + (everything["test"] == 0).sum()) == 1
    with pytest.raises(ValueError, match="longer than a window of 500 characters"):
        TextDataModule(tmp_path / "a.txt", length=500).setup("fit")
    with pytest.raises(ValueError, match=r"comes 9000 times .* but there is none"):
        TextDataModule(tmp_path / "a.txt", least_count=9000).setup("fit")
    (tmp_path / "old.txt").write_bytes("é".encode("latin-1") * 500)
    with pytest.raises(ValueError, match=r"old\.txt' to be a UTF-8 text, but it is not"):
        TextDataModule(tmp_path / "old.txt").setup("fit")
    for options in ({"length": 0}, {"batch_size": 0}, {"least_count": 0}, {"num_workers": -1}, {"shares": [0.5]}):
        with pytest.raises(ValueError, match=f"Expected argument `{next(iter(options))}` to be"):
            TextDataModule(tmp_path / "a.txt", **options)  # type: ignore[arg-type]  # or out of range
    with pytest.raises(DataNotFoundError, match="no such file"):
        TextDataModule(tmp_path / "b.txt").setup("fit")


def test_headings_turn_each_image_by_its_own_angle() -> None:
    images = EmbeddedDataModule(batch_size=20, flip=False, crop_scale=(1.0, 1.0))
    data = HeadingDataModule(images)
    data.setup("fit")
    first, second = (next(iter(data.train_dataloader()))[1] for _ in range(2))
    assert first.shape == (20,)
    assert not torch.equal(first, second)
    assert 0 <= float(first.min()) < float(first.max()) <= 2 * math.pi
    (x, angles), (again, same) = (next(iter(data.val_dataloader())) for _ in range(2))
    assert torch.equal(angles, same)
    assert torch.equal(x, again)
    assert x[:, :, 0, 0].abs().max() == 0, "the corners are black, whatever the angle"
    with pytest.raises(ValueError, match="not to mirror"):
        HeadingDataModule(EmbeddedDataModule())
    with pytest.raises(ValueError, match=r"no wrong labels, .* but its `label_noise` is 0\.1"):
        HeadingDataModule(EmbeddedDataModule(flip=False, label_noise=0.1))


def test_values_are_read_from_tables(tmp_path: Path) -> None:
    shades(tmp_path, [f"img/{number}.png" for number in range(4)])
    for part in ("train", "val", "test"):
        lines = ["file,age,weight", *(f"img/{number}.png,{number},{number * 2.5}" for number in range(4))]
        (tmp_path / f"{part}.csv").write_text("\n".join(lines), encoding="utf-8")
    data = ImageValueDataModule(tmp_path, columns=["weight"], image_size=8, batch_size=4)
    data.setup("test")
    images, values = next(iter(data.test_dataloader()))
    assert (images.shape, values.flatten().tolist()) == ((4, 3, 8, 8), [0.0, 2.5, 5.0, 7.5])
    assert ImageValueDataModule(tmp_path, image_size=8).num_classes == 2
    with pytest.raises(DataNotFoundError, match="Expected a table"):
        ImageValueDataModule(tmp_path / "empty", image_size=8).setup("fit")


def test_values_are_found_by_their_names(tmp_path: Path) -> None:
    shades(tmp_path, ["0.png"])
    for part, table in (("train", "file,a,b\n0.png,1,2"), ("val", "file,b,a\n0.png,2,1\n\n"), ("test", "file,a\n")):
        (tmp_path / f"{part}.csv").write_text(f"\ufeff{table}", encoding="utf-8")
    data = ImageValueDataModule(tmp_path, image_size=8)
    data.setup("fit")
    (_, values), *_ = data.val_dataloader()
    assert values.tolist() == [[1.0, 2.0]]
    with pytest.raises(ValueError, match="to have the column 'b', but it has a"):
        data.setup("test")


def test_ranks_that_share_a_random_state_draw_other_windows(tmp_path: Path) -> None:
    """Each has its own positions, but all are seeded alike."""
    (tmp_path / "text.txt").write_text("abcdefghij" * 40, encoding="utf-8")
    windows = TextDataModule(tmp_path / "text.txt", length=7).train_dataloader().dataset
    starts: list[list[int]] = []
    for rank in (0, 1):
        torch.manual_seed(0)
        starts.append([int(windows[index][0][0]) for index in range(rank, 40, 2)])
    assert all(one != other for one, other in zip(*starts, strict=True))
    assert len(set(starts[0])) > 5  # anywhere, as without ranks


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("file,tall\n0.png,1", "to have the column 'age', but it has tall"),
        ("file,age\n0.png,1\n0.png,old", "but line 3 is '0.png,old'. Fill it in"),
        ("file,age\n0.png,nan", "but line 2 is '0.png,nan'"),
        ("file,age\n\n0.png,", "but line 3 is '0.png,'"),
        ("file,age\n0.png", "but line 2 is '0.png'"),
        ("file,age", "to have a line for each image, but it has a header only"),
        ("", "to name its columns in the first line, but it is empty"),
        ("file,age\nimg/9.png,1", "9.png' to be readable, but it is not: No such file"),
        ("file,age\nval.csv,1", "val.csv' to be readable, but it is not: cannot identify"),
    ],
)
def test_tables_that_say_too_little_are_refused(tmp_path: Path, table: str, sentence: str) -> None:
    shades(tmp_path, ["0.png"])
    (tmp_path / "train.csv").write_text("file,age\n0.png,1", encoding="utf-8")
    (tmp_path / "val.csv").write_text(table, encoding="utf-8")
    with pytest.raises((ValueError, DataNotFoundError), match=re.escape(sentence)):
        ImageValueDataModule(tmp_path, image_size=8).setup("fit")


def test_a_table_of_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_bytes("file,größe\n0.png,1".encode("latin-1"))
    with pytest.raises(ValueError, match=r"train\.csv' to be a UTF-8 text, but it is not: .*Save it as UTF-8"):
        ImageValueDataModule(tmp_path).setup("fit")


def test_tables_whose_values_cannot_be_told_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("file;age\n0.png;1", encoding="utf-8")
    with pytest.raises(ValueError, match="separated by commas, but its first line is 'file;age'"):
        ImageValueDataModule(tmp_path).setup("fit")
    for columns in ("age", []):
        with pytest.raises(ValueError, match="Expected argument `columns` to be a list of names or None"):
            ImageValueDataModule(tmp_path, columns=columns)
    for options in ({"per_class": 1}, {"label_noise": 0.1}):
        with pytest.raises(ValueError, match="to be left out, because values are no classes"):
            ImageValueDataModule(tmp_path, **options)


def lay_out_medmnist(root: Path, name: str, channels: int, labels: int, classes: int, count: int = 60) -> None:
    generator = np.random.default_rng(0)
    arrays = {}
    for part in ("train", "val", "test"):
        shape = (count, 28, 28) if channels == 1 else (count, 28, 28, channels)
        arrays[f"{part}_images"] = generator.integers(0, 256, shape, dtype=np.uint8)
        wanted = generator.integers(0, classes, (count, labels))
        arrays[f"{part}_labels"] = np.where(generator.random((count, labels)) < 0.5, 0, wanted).astype(np.uint8)
    np.savez_compressed(root / f"{name}.npz", **arrays)


@pytest.mark.parametrize(
    ("name", "channels", "labels", "classes"),
    [("bloodmnist", 3, 1, 8), ("pneumoniamnist", 1, 1, 2), ("retinamnist", 3, 1, 5), ("chestmnist", 1, 14, 2)],
)
def test_auc_and_accuracy_are_those_of_medmnist_s_own_evaluator(
    tmp_path: Path, name: str, channels: int, labels: int, classes: int
) -> None:
    evaluator = pytest.importorskip("medmnist.evaluator")
    from torch import nn

    from lightning_ke.tasks import Classification, MultiLabel

    lay_out_medmnist(tmp_path, name, channels, labels, classes)
    data = MedMNISTDataModule(tmp_path, name, batch_size=25)
    assert (data.in_channels, data.num_classes) == (channels, labels if labels > 1 else classes)
    net = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * channels, data.num_classes))
    task = MultiLabel(net, 14) if labels > 1 else Classification(net, classes, auc=True)
    trainer = Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
    (scores,) = trainer.test(task, data, verbose=False)
    with torch.no_grad():
        outputs = torch.cat([net(images) for images, _ in data.test_dataloader()])
    predicted = (outputs.sigmoid() if labels > 1 else outputs.softmax(1)).numpy()
    with np.load(tmp_path / f"{name}.npz") as stored:
        wanted, pixels = stored["test_labels"], torch.from_numpy(stored["test_images"]).view(60, 28, 28, channels)
    images = torch.cat([images for images, _ in data.test_dataloader()])
    torch.testing.assert_close((images + 1) * 127.5, pixels.permute(0, 3, 1, 2).float())  # whole, as the authors test
    assert scores["test_auc"] == pytest.approx(evaluator.getAUC(wanted, predicted, data.info["task"]), abs=1e-6)
    assert scores["test_acc"] == pytest.approx(evaluator.getACC(wanted, predicted, data.info["task"]), abs=1e-6)


def test_rare_findings_come_as_often_as_the_others(tmp_path: Path) -> None:
    pytest.importorskip("medmnist")
    arrays = {f"{part}_images": np.zeros((400, 28, 28), np.uint8) for part in ("train", "val", "test")}
    arrays |= {f"{part}_labels": (np.arange(400)[:, None] < 20).astype(np.uint8) for part in ("train", "val", "test")}
    np.savez(tmp_path / "pneumoniamnist.npz", **arrays)
    for balanced, low, high in ((False, 20, 20), (True, 150, 250)):
        data = MedMNISTDataModule(tmp_path, "pneumoniamnist", balanced=balanced, batch_size=50)
        data.setup("fit")
        rare = sum(int(labels.sum()) for _, labels in data.train_dataloader())
        assert low <= rare <= high
    data.trainer = Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
    data.trainer.strategy._lightning_module = LightningModule()
    data.trainer.strategy._lightning_module.loss = ClassWiseDistillation()
    _, labels = next(iter(data.train_dataloader()))
    assert torch.equal(labels[:50], labels[50:])  # pairs, balanced all the same
    assert 10 < int(labels[:50].sum()) < 40
    with pytest.raises(ValueError, match="pos_weight"):
        MedMNISTDataModule(tmp_path, "chestmnist", balanced=True)
    with pytest.raises(ValueError, match="an image of 'chestmnist' has several labels"):
        MedMNISTDataModule(tmp_path, "chestmnist", label_noise=0.1)
    with pytest.raises(ValueError, match="`dataset` to be one of 'pathmnist'"):
        MedMNISTDataModule(tmp_path, "organmnist3d")
    with pytest.raises(DataNotFoundError, match="bloodmnist_64"):
        MedMNISTDataModule(tmp_path, "bloodmnist", size=64).setup("fit")
