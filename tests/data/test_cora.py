"""The citation graph, on a small copy of Planetoid's files and, with KE_DATA, on the real one."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse
import torch

from lightning_ke.data import (
    CoraDataModule,
    DataNotFoundError,
)
from tests.data.layouts import lay_out_planetoid


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
