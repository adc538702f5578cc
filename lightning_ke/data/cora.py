"""Cora, a citation graph, in the files of the Planetoid split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_ke.data.decode import DataNotFoundError
from lightning_ke.data.labels import known_only
from lightning_ke.extras import import_extra

GraphBatch = tuple[tuple[Tensor, Tensor], Tensor]

_FILES = ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")


class CoraDataModule(LightningDataModule):
    """Cora with its public split: 140 nodes are trained on, 500 are for validation, 1,000 for testing.

    A batch is the whole graph, an epoch one batch. Features are scaled to sum to 1 for each node.

    Args:
        root: The folder that holds ``ind.cora.x`` and its siblings, or ``Cora/raw`` (``CiteSeer/raw``, ``PubMed/raw``)
            with them in it, as torch-geometric lays it out. They are pickles: take them from a source that you trust.
        name: Another graph of the same format: "cora", "citeseer" or "pubmed".

    Raises:
        DataNotFoundError: From `setup`, if the files are not there.

    Source:
        "Revisiting Semi-Supervised Learning with Graph Embeddings" (ICML 2016).
    """

    def __init__(self, root: str | Path, name: str = "cora") -> None:
        super().__init__()
        self.root = Path(root)
        self.graph_name = name.lower()
        self._graph: Any = None

    @property
    def graph(self) -> Any:
        """The graph as torch-geometric's data object."""
        if self._graph is None:
            read = import_extra("torch_geometric.io", "graphs").read_planetoid_data
            folder = self._folder()
            graph = read(str(folder), self.graph_name)
            sums = graph.x.sum(1, keepdim=True)
            graph.x = graph.x / sums.clamp(min=1.0)
            self._graph = graph
        return self._graph

    def _folder(self) -> Path:
        # torch-geometric names the folder as its user has written the graph.
        below = sorted(path / "raw" for path in self.root.glob("*") if path.name.lower() == self.graph_name)
        for folder in (self.root, *below):
            if all((folder / f"ind.{self.graph_name}.{file}").exists() for file in _FILES):
                return folder
        raise DataNotFoundError(
            f"Expected ind.{self.graph_name}.x, .tx, .allx, .y, .ty, .ally, .graph and .test.index in "
            f"{str(self.root)!r}, but they are not (all) there. Copy them from the folder data of "
            "https://github.com/kimiyoung/planetoid."
        )

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return int(self.graph.y.max()) + 1

    @property
    def in_channels(self) -> int:
        """Features of a node."""
        return int(self.graph.x.shape[1])

    @property
    def example_input(self) -> tuple[Tensor, Tensor]:
        """Features and edges of the whole graph, for tracing a network."""
        return self.graph.x, self.graph.edge_index

    def train_dataloader(self) -> DataLoader[GraphBatch]:
        """The graph with the labels of the training nodes."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[GraphBatch]:
        """The graph with the labels of the validation nodes."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[GraphBatch]:
        """The graph with the labels of the test nodes."""
        return self._loader("test")

    def setup(self, stage: str) -> None:
        """Read the graph.

        Args:
            stage: Any.
        """
        assert self.graph is not None

    def _loader(self, part: str) -> DataLoader[GraphBatch]:
        labels = known_only(self.graph.y, self.graph[f"{part}_mask"])
        return DataLoader(_OneGraph(((self.graph.x, self.graph.edge_index), labels)), batch_size=None)


class _OneGraph(Dataset[GraphBatch]):
    """A data set of one item, the whole graph."""

    def __init__(self, batch: GraphBatch) -> None:
        self._batch = batch

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> GraphBatch:
        return self._batch
