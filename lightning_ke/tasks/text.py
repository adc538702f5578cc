"""Next-character prediction, and two small networks for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric

from lightning_ke.tasks.base import MakeOptimizer, MakeScheduler, Task, parts


class NextCharacter(Task):
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
        super().__init__(backbone, nn.CrossEntropyLoss() if loss is None else loss, optimizer, scheduler, interval)
        config = dict(config) if config is not None else None
        self.save_hyperparameters("num_classes", "interval", "config")
        self.losses = parts({"loss": MeanMetric(), "acc": MeanMetric()})

    @property
    def monitors(self) -> tuple[str, ...]:
        """What is logged in every validation."""
        return ("val_perplexity", "val_loss", "val_acc")

    def evaluate(self, part: str, batch: Any) -> None:
        """Gather cross-entropy and hits of a batch; every character counts the same."""
        characters, wanted = batch
        scores = self(characters)
        self._mean(part, "loss").update(F.cross_entropy(scores, wanted, reduction="none"))
        self._mean(part, "acc").update((scores.argmax(1) == wanted).float())

    def on_validation_epoch_end(self) -> None:
        """Score the validation text."""
        self._score("val")

    def on_test_epoch_end(self) -> None:
        """Score the test text."""
        self._score("test")

    def _score(self, part: str) -> None:
        loss, acc = (self._mean(part, name).compute() for name in ("loss", "acc"))
        for name, value in (("loss", loss), ("perplexity", loss.exp()), ("acc", acc)):
            self.log(f"{part}_{name}", value, prog_bar=name == "perplexity")
        self._mean(part, "loss").reset()
        self._mean(part, "acc").reset()

    def _mean(self, part: str, name: str) -> MeanMetric:
        of_part = self.losses[part]
        assert isinstance(of_part, nn.ModuleDict)
        metric = of_part[name]
        assert isinstance(metric, MeanMetric)
        return metric


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
        """
        length = characters.shape[1]
        places = torch.arange(length, device=characters.device)
        later = torch.ones(length, length, dtype=torch.bool, device=characters.device).triu(1)
        hidden = self.embedding(characters) + self.position(places)
        for block in self.blocks:
            hidden = block(hidden, src_mask=later)
        scores: Tensor = self.head(self.norm(hidden)).transpose(1, 2)
        return scores
