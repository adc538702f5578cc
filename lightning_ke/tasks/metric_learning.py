"""Metric learning: embeddings in which examples of one class lie together, scored on classes never trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from torch import Tensor, nn

from lightning_ke.arguments import check_choice
from lightning_ke.extras import import_extra
from lightning_ke.losses.base import Inputs, Loss, get_loss, run
from lightning_ke.tasks.base import MakeOptimizer, MakeScheduler, Task
from lightning_ke.tasks.retrieval import Gathered, normalized_mutual_information, retrieval_scores
from lightning_ke.tasks.scored import refuse_class_loss

EmbeddingLoss = Literal["triplet", "proxy-anchor", "margin"]


class MetricLearning(Task):
    """Trains a backbone to embed; logs `val_recall@1` (2, 4, 8), `val_map@r`, the same of test, and `test_nmi`.

    Args:
        backbone: The network: inputs to embeddings of shape (N, `embedding_size`).
        num_classes: Number of training classes; "proxy-anchor" has a proxy for each.
        embedding_size: Width of an embedding.
        loss: "triplet" (semi-hard triplets, margin 0.1), "proxy-anchor", "margin" (distance-weighted sampling), a
            criterion of embeddings and labels such as all of pytorch-metric-learning's, or a `Loss`.
        nmi: "test" clusters the embeddings when testing, "always" in each validation, too.
        optimizer: As for every task.
        scheduler: As for every task.
        interval: As for every task.
        config: How the backbone was built, in plain values, to be kept in the checkpoint.

    Raises:
        ValueError: If there is no loss of that name, or if the loss compares classes.

    Source:
        Semi-hard triplets: "FaceNet" (CVPR 2015). "Proxy Anchor Loss for Deep Metric Learning" (CVPR 2020). Margin:
        "Sampling Matters in Deep Embedding Learning" (ICCV 2017).

    Example:
        >>> import torch
        >>> task = MetricLearning(nn.Linear(6, 16), num_classes=4, embedding_size=16, loss="triplet")
        >>> task(torch.zeros(2, 6)).shape
        torch.Size([2, 16])
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        embedding_size: int = 128,
        loss: EmbeddingLoss | nn.Module = "proxy-anchor",
        nmi: Literal["test", "always"] = "test",
        optimizer: MakeOptimizer | None = None,
        scheduler: MakeScheduler | None = None,
        interval: Literal["epoch", "step"] = "epoch",
        config: Mapping[str, Any] | None = None,
    ) -> None:
        check_choice("nmi", nmi, ("test", "always"))
        named = isinstance(loss, str)
        built = embedding_loss(loss, num_classes, embedding_size) if isinstance(loss, str) else get_loss(loss)
        refuse_class_loss(built, "embeddings", '"proxy-anchor", "triplet" or "margin"')
        super().__init__(backbone, built, optimizer, scheduler, interval)
        config, loss_name = dict(config) if config is not None else None, loss if named else None
        self.save_hyperparameters("num_classes", "embedding_size", "nmi", "interval", "config")
        self.hparams["loss"] = loss_name
        self.nmi = nmi
        self.gathered = nn.ModuleDict({"val": Gathered(), "test": Gathered()})

    @classmethod
    def outputs(cls, num_classes: int, *, embedding_size: int = 128, **options: Any) -> int:
        """The width of an embedding."""
        return embedding_size

    @property
    def monitors(self) -> tuple[str, ...]:
        """What is logged in every validation."""
        nmi = ("nmi",) if self.nmi == "always" else ()
        return tuple(f"val_{name}" for name in ("recall@1", "recall@2", "recall@4", "recall@8", "map@r", *nmi))

    @property
    def directions(self) -> dict[str, str]:
        """More is better of all of them."""
        return dict.fromkeys(self.monitors, "max")

    def evaluate(self, part: str, batch: Any) -> None:
        """Gather the embeddings of a batch."""
        images, labels = batch
        gathered = self.gathered[part]
        assert isinstance(gathered, Gathered)
        gathered.update(self(images), labels)

    def on_validation_epoch_end(self) -> None:
        """Score the validation images, each searched among all others."""
        self._score("val", nmi=self.nmi == "always")

    def on_test_epoch_end(self) -> None:
        """Score the test images, each searched among all others."""
        self._score("test", nmi=True)

    def _score(self, part: str, *, nmi: bool) -> None:
        gathered = self.gathered[part]
        assert isinstance(gathered, Gathered)
        gathered.leave_out_repeated(getattr(self.trainer, f"{part}_dataloaders"))
        embeddings, labels = gathered.compute()
        gathered.reset()
        scores = retrieval_scores(embeddings, labels)
        if nmi:
            scores["nmi"] = normalized_mutual_information(embeddings, labels)
        for name, value in scores.items():
            # Every rank has computed it of all ranks' embeddings.
            self.log(f"{part}_{name}", value, prog_bar=name == "recall@1", rank_zero_only=False)


class _Mined(Loss):
    """A criterion of embeddings and labels, and what chooses the tuples that it compares."""

    def __init__(self, criterion: nn.Module, miner: nn.Module) -> None:
        super().__init__()
        self.criterion = criterion
        self.miner = miner

    def forward(self, network: Callable[..., Tensor], inputs: Inputs, targets: Tensor) -> Tensor:
        """Embed a batch, choose tuples, compare them."""
        embeddings = run(network, inputs)
        loss: Tensor = self.criterion(embeddings, targets, self.miner(embeddings, targets))
        return loss


def embedding_loss(name: str, num_classes: int, embedding_size: int) -> Loss:
    """Build one of pytorch-metric-learning's losses with the settings of its paper.

    Args:
        name: "triplet", "proxy-anchor" or "margin".
        num_classes: Number of training classes.
        embedding_size: Width of an embedding.

    Raises:
        ValueError: If there is no loss of that name.

    Example:
        >>> embedding_loss("proxy-anchor", 4, 16).criterion.proxies.shape
        torch.Size([4, 16])
    """
    check_choice("loss", name, ("triplet", "proxy-anchor", "margin"))
    losses = import_extra("pytorch_metric_learning.losses", "metric")
    miners = import_extra("pytorch_metric_learning.miners", "metric")
    if name == "proxy-anchor":
        return get_loss(losses.ProxyAnchorLoss(num_classes, embedding_size, margin=0.1, alpha=32))
    if name == "margin":
        return _Mined(losses.MarginLoss(margin=0.2, beta=1.2), miners.DistanceWeightedMiner())
    return _Mined(losses.TripletMarginLoss(margin=0.1), miners.TripletMarginMiner(0.1, type_of_triplets="semihard"))
