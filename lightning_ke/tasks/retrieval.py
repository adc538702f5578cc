"""How well embeddings find their own class: Recall@K, MAP@R, NMI."""

from __future__ import annotations

from collections.abc import Sequence, Sized

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DistributedSampler
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lightning_ke.extras import import_extra

_ROWS = 1024  # queries that are compared with all others at once


def retrieval_scores(embeddings: Tensor, labels: Tensor, ks: Sequence[int] = (1, 2, 4, 8)) -> dict[str, float]:
    """Search each example's nearest others by cosine similarity.

    Examples that are the only one of their class are searched among, but are no queries.

    Args:
        embeddings: Of shape (N, D).
        labels: Class of each, of shape (N,).
        ks: Recall@K counts the queries with at least one example of their class among the nearest K.

    Returns:
        ``recall@K`` for each K, and ``map@r``: with R other examples of the query's class, the mean over the nearest R
        of the precision up to each hit.

    Raises:
        ValueError: If no class has two examples.

    Source:
        MAP@R: "A Metric Learning Reality Check" (ECCV 2020).

    Example:
        >>> points = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
        >>> retrieval_scores(points, torch.tensor([0, 0, 1, 1]), ks=(1,))
        {'recall@1': 1.0, 'map@r': 1.0}
    """
    unit = F.normalize(embeddings.float(), dim=1)
    _, classes, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    others = counts[classes] - 1
    queries = others.nonzero().flatten()
    if len(queries) == 0:
        raise ValueError("Expected at least one class with two examples, but each has one. Score more examples.")
    depth = min(max(*ks, int(others.max())), len(labels) - 1)
    found = dict.fromkeys(ks, 0)
    precision = 0.0
    for rows in torch.split(queries, _ROWS):
        similarity = unit[rows] @ unit.T
        similarity[torch.arange(len(rows)), rows] = -torch.inf
        hits = labels[similarity.topk(depth, dim=1).indices] == labels[rows, None]
        for k in ks:
            found[k] += int(hits[:, :k].any(1).sum())
        rank = torch.arange(1, depth + 1, device=hits.device)
        within = hits & (rank <= others[rows, None])
        precision += float(((within.cumsum(1) / rank * within).sum(1) / others[rows]).sum())
    return {f"recall@{k}": found[k] / len(queries) for k in ks} | {"map@r": precision / len(queries)}


def normalized_mutual_information(embeddings: Tensor, labels: Tensor, seed: int = 0) -> float:
    """How much k-means clusters of the embeddings, as many as there are classes, say of the classes.

    Args:
        embeddings: Of shape (N, D).
        labels: Class of each, of shape (N,).
        seed: Of the clusters' first centres.

    Returns:
        From 0 to 1.
    """
    import_extra("pytorch_metric_learning", "metric")  # whose installation brings scikit-learn
    cluster = import_extra("sklearn.cluster", "metric")
    metrics = import_extra("sklearn.metrics", "metric")
    unit = F.normalize(embeddings.float(), dim=1).cpu().numpy()
    means = cluster.KMeans(len(torch.unique(labels)), n_init=1, random_state=seed).fit(unit)
    return float(metrics.normalized_mutual_info_score(labels.cpu().numpy(), means.labels_))


class Gathered(Metric):
    """All embeddings and labels of a part, of all ranks."""

    full_state_update = False
    embeddings: list[Tensor]
    labels: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("embeddings", [], dist_reduce_fx="cat")
        self.add_state("labels", [], dist_reduce_fx="cat")

    def update(self, embeddings: Tensor, labels: Tensor) -> None:
        """Add a batch.

        Args:
            embeddings: Of shape (N, D).
            labels: Of shape (N,).
        """
        self.embeddings.append(embeddings.detach())
        self.labels.append(labels)

    def leave_out_repeated(self, loader: object) -> None:
        """Forget what a distributed sampler gave this rank so that all have equally many: others have it already.

        Such an example would find itself, the nearest of its class.

        Args:
            loader: What the batches since the last reset came from.
        """
        sampler = getattr(loader, "sampler", None)
        if self.embeddings and isinstance(sampler, DistributedSampler) and isinstance(sampler.dataset, Sized):
            own = len(range(sampler.rank, len(sampler.dataset), sampler.num_replicas))
            self.embeddings = [dim_zero_cat(self.embeddings)[:own]]
            self.labels = [dim_zero_cat(self.labels)[:own]]

    def compute(self) -> tuple[Tensor, Tensor]:
        """All embeddings and labels."""
        # Synchronised states are one tensor each, local ones are lists.
        embeddings, labels = (dim_zero_cat(state) for state in (self.embeddings, self.labels))
        return embeddings, labels
