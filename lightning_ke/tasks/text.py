"""Next-character prediction, and two small networks for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from lightning_ke.tasks.base import MakeOptimizer, MakeScheduler
from lightning_ke.tasks.scored import ScoredTask, refuse_value_loss


class NextCharacter(ScoredTask):
    """Trains a backbone to foretell the next character; logs `val_loss`, `val_perplexity`, `val_acc`, also of test.

    Args:
        backbone: The network: characters of shape (N, L) to scores of shape (N, `num_classes`, L), those at position l
            of the character behind it.
        num_classes: Number of different characters.
        loss: A criterion of scores and characters; None for the cross-entropy.
        optimizer: As for every task.
        scheduler: As for every task.
        interval: As for every task.
        config: How the backbone was built, in plain values, to be kept in the checkpoint.

    Raises:
        ValueError: If the loss is one of values.

    Example:
        >>> task = NextCharacter(CharacterGRU(num_classes=30), num_classes=30)
        >>> task(torch.zeros(2, 16, dtype=torch.long)).shape
        torch.Size([2, 30, 16])
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
        refuse_value_loss(loss, "one character at each position")
        metrics: dict[str, Metric] = {
            "perplexity": _Perplexity(),
            "acc": MulticlassAccuracy(num_classes, average="micro"),
        }
        loss = nn.CrossEntropyLoss() if loss is None else loss
        super().__init__(backbone, loss, metrics, optimizer, scheduler, interval)
        config = dict(config) if config is not None else None
        self.save_hyperparameters("num_classes", "interval", "config")

    @property
    def directions(self) -> dict[str, str]:
        """Whether more ("max") or less ("min") of a metric is better."""
        return {**super().directions, "val_perplexity": "min"}

    def compare(self, batch: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Scores, the next characters and the cross-entropy; every character counts the same."""
        characters, wanted = batch
        scores = self(characters)
        return scores, wanted, F.cross_entropy(scores, wanted)


class _Perplexity(MeanMetric):
    """The exponential of the cross-entropy of all characters."""

    def update(self, scores: Tensor, wanted: Tensor) -> None:  # type: ignore[override]  # it compares two
        super().update(F.cross_entropy(scores, wanted, reduction="none"))

    def compute(self) -> Tensor:
        return super().compute().exp()


class CharacterGRU(nn.Module):
    """Embedding, GRU, linear layer.

    Args:
        num_classes: Number of different characters.
        width: Channels of embedding and GRU.
        layers: Layers of the GRU.
        dropout: Share of the values that is dropped between them.

    Example:
        >>> CharacterGRU(num_classes=30, width=32)(torch.zeros(2, 16, dtype=torch.long)).shape
        torch.Size([2, 30, 16])
    """

    def __init__(self, num_classes: int, width: int = 128, layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_classes, width)
        self.gru = nn.GRU(width, width, layers, batch_first=True, dropout=dropout)
        self.head = nn.Linear(width, num_classes)

    def forward(self, characters: Tensor) -> Tensor:
        """Score the next characters.

        Args:
            characters: int64 tensor of shape (N, L).

        Returns:
            Scores of shape (N, characters, L).
        """
        states, _ = self.gru(self.embedding(characters))
        scores: Tensor = self.head(states).transpose(1, 2)
        return scores


class CharacterTransformer(nn.Module):
    """A causal transformer with learnt positions and norms before attention and feed-forward.

    Args:
        num_classes: Number of different characters.
        width: Channels.
        layers: Number of blocks.
        heads: Attention heads.
        context: The longest sequence.
        dropout: Share of the values that is dropped.

    Example:
        >>> CharacterTransformer(num_classes=30, width=32)(torch.zeros(2, 16, dtype=torch.long)).shape
        torch.Size([2, 30, 16])
    """

    def __init__(
        self,
        num_classes: int,
        width: int = 128,
        layers: int = 2,
        heads: int = 4,
        context: int = 128,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_classes, width)
        self.position = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 4 * width, dropout, batch_first=True, norm_first=True)
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, characters: Tensor) -> Tensor:
        """Score the next characters.

        Args:
            characters: int64 tensor of shape (N, L).

        Returns:
            Scores of shape (N, characters, L).

        Raises:
            ValueError: If there are more characters than learnt positions.
        """
        length, context = characters.shape[1], self.position.num_embeddings
        if length > context:
            raise ValueError(
                f"Expected at most {context} characters (argument `context`), but got {length}. Give the transformer a "
                "longer `context`, or the text shorter windows (`length`)."
            )
        places = torch.arange(length, device=characters.device)
        later = torch.ones(length, length, dtype=torch.bool, device=characters.device).triu(1)
        hidden = self.embedding(characters) + self.position(places)
        for block in self.blocks:
            hidden = block(hidden, src_mask=later)
        scores: Tensor = self.head(self.norm(hidden)).transpose(1, 2)
        return scores
