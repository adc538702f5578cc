"""Node classification: a label for each node of a graph, learnt from a few of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from lightning_ke.arguments import check_choice
from lightning_ke.data.labels import UNKNOWN
from lightning_ke.extras import import_extra
from lightning_ke.tasks.base import MakeOptimizer, MakeScheduler
from lightning_ke.tasks.scored import ScoredTask, refuse_value_loss


class NodeClassification(ScoredTask):
    """Trains a graph network on one graph; logs `train_loss`, `val_loss`, `val_acc` and the same of test.

    A batch is the whole graph: ((features, edges), labels), where the nodes of other parts have the label -100.

    Args:
        backbone: The network: features of shape (nodes, F) and edges of shape (2, E) to scores of shape (nodes,
            `num_classes`).
        num_classes: Number of classes.
        loss: A criterion of scores and labels that ignores the label -100; None for the cross-entropy.
        optimizer: As for every task.
        scheduler: As for every task.
        interval: As for every task.
        config: How the backbone was built, in plain values, to be kept in the checkpoint.

    Raises:
        ValueError: If the loss is one of values.

    Example:
        >>> import torch
        >>> network = graph_network("GCN", num_classes=7, in_channels=10)
        >>> features, edges = torch.zeros(4, 10), torch.tensor([[0, 1], [1, 0]])
        >>> NodeClassification(network, num_classes=7)(features, edges).shape
        torch.Size([4, 7])
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        loss: nn.Module | None = None,
        optimizer: MakeOptimizer | None = None,
        scheduler: MakeScheduler | None = None,
        interval: Literal["epoch", "step"] = "epoch",
        config: Mapping[str, Any] | None = None,
    ) -> None:
        refuse_value_loss(loss, "one class for each node")
        loss = nn.CrossEntropyLoss(ignore_index=UNKNOWN) if loss is None else loss
        metrics = {"acc": MulticlassAccuracy(num_classes, average="micro", ignore_index=UNKNOWN)}
        super().__init__(backbone, loss, metrics, optimizer, scheduler, interval)
        config = dict(config) if config is not None else None
        self.save_hyperparameters("num_classes", "interval", "config")

    def compare(self, batch: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Scores, labels and cross-entropy of the part's nodes."""
        inputs, labels = batch
        scores = self(*inputs)
        return scores, labels, F.cross_entropy(scores, labels, ignore_index=UNKNOWN)


def graph_network(
    kind: Literal["GCN", "GraphSAGE", "GAT"],
    num_classes: int,
    in_channels: int,
    hidden: int = 64,
    layers: int = 2,
    dropout: float = 0.5,
    heads: int = 8,
) -> nn.Module:
    """Build a graph network of torch-geometric's.

    Args:
        kind: "GCN", "GraphSAGE" or "GAT".
        num_classes: Number of classes.
        in_channels: Features of a node.
        hidden: Channels between the layers, of all heads together.
        layers: Number of layers.
        dropout: Share of the hidden values that is dropped in training.
        heads: Attention heads of a hidden layer, for "GAT".

    Raises:
        ValueError: If there is no such network.

    Source:
        GCN: "Semi-Supervised Classification with Graph Convolutional Networks" (ICLR 2017). GraphSAGE: "Inductive
        Representation Learning on Large Graphs" (NeurIPS 2017). GAT: "Graph Attention Networks" (ICLR 2018).
    """
    check_choice("kind", kind, ("GCN", "GraphSAGE", "GAT"))
    models = import_extra("torch_geometric.nn.models", "graphs")
    options = {"heads": heads} if kind == "GAT" else {}
    network: nn.Module = getattr(models, kind)(in_channels, hidden, layers, num_classes, dropout=dropout, **options)
    return network
