"""Text, headings and values, on small copies of the real layouts."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch

from lightning_ke.data import (
    DataNotFoundError,
    EmbeddedDataModule,
    HeadingDataModule,
    ImageValueDataModule,
    TextDataModule,
)
from tests.data.layouts import shades


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
