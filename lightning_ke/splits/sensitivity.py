"""Splits that keep the weights to which the loss is most sensitive, by the gradients of the training's own steps."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lightning_ke.naming import named_parameters
from lightning_ke.splits.base import SplitContext, StepScore
from lightning_ke.splits.ranked import Ranked


@dataclass(frozen=True)
class Sensitivity(Ranked):
    """Keep the weights with the highest `step_score`, summed over the steps of a generation's last epoch.

    Args:
        rate: Share of the weights that is fit, in (0, 1).
    """

    rate: float = 0.8

    across_tensors: ClassVar[bool] = True

    @property
    @abstractmethod
    def step_score(self) -> StepScore:
        """What one step says of every entry of a weight."""

    @torch.no_grad()
    def scores(self, context: SplitContext) -> Mapping[str, Tensor]:
        """What was gathered; before the first generation, what the present gradients say.

        Args:
            context: The network, and what was gathered of it.

        Raises:
            ValueError: If there are no gradients.
        """
        scores = context.scores
        if scores is None:
            named = named_parameters(context.model)
            scores = {
                name: self.step_score(weight, weight.grad.to_dense() if weight.grad.is_sparse else weight.grad)
                for name, weight in named
                if weight.grad is not None
            }
        if not scores:
            raise ValueError(
                f"Expected the network to hold gradients for split {self.name!r}, but no parameter has one. Call "
                "`loss.backward()` for a batch before drawing the mask."
            )
        return scores


@dataclass(frozen=True)
class Snip(Sensitivity):
    """Keep the weights with the highest ``abs(gradient * weight)``; the rest is redrawn, another set every generation.

    The scores of a generation's last epoch are summed over its own optimizer steps, so they cost no pass of their own.
    All weights are ranked together: a layer may lose more of its weights than another. The mask of the first generation
    is the one of its first step's gradients. For `draw_mask`, run ``loss.backward()`` on a batch first.

    Args:
        rate: Share of the weights that is fit, in (0, 1).

    Raises:
        ValueError: If the rate lies outside (0, 1).

    Source:
        "SNIP: Single-shot Network Pruning" (ICLR 2019) for the score; "Dynamic Neural Regeneration" (NeurIPS 2024) and
        "Learn, Unlearn and Relearn" (TMLR 2023), which redraw the 20 % with the lowest. The authors of both score on
        a part of the data set aside for it, after training, and redraw no shortcut convolution.

    Example:
        >>> import torch
        >>> from lightning_ke.splits import draw_mask
        >>> layer = torch.nn.Linear(4, 1)
        >>> with torch.no_grad():
        ...     _ = layer.weight.copy_(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
        >>> layer(torch.tensor([[4.0, 3.0, 0.5, 0.1]])).sum().backward()
        >>> draw_mask(layer, Snip(0.5))["weight"]
        tensor([[ True,  True, False, False]])
    """

    name: ClassVar[str] = "snip"

    @property
    def step_score(self) -> StepScore:
        """What a step says of a weight: ``abs(gradient * weight)``."""
        return lambda weight, gradient: (gradient.float() * weight.float()).abs()


@dataclass(frozen=True)
class Fisher(Sensitivity):
    """Keep the weights with the highest mean squared gradient; the rest is redrawn, another set every generation.

    The squared gradients are the diagonal of the empirical Fisher information, taken over batches as the training's
    own steps see them. Otherwise as `Snip`.

    Args:
        rate: Share of the weights that is fit, in (0, 1).

    Raises:
        ValueError: If the rate lies outside (0, 1).

    Source:
        The Fisher information as in "Overcoming catastrophic forgetting in neural networks" (PNAS 2017), which takes it
        example by example; as a criterion for what to redraw, "Dynamic Neural Regeneration" (NeurIPS 2024).

    Example:
        >>> import torch
        >>> from lightning_ke.splits import draw_mask
        >>> layer = torch.nn.Linear(4, 1)
        >>> layer(torch.tensor([[4.0, 3.0, 0.5, 0.1]])).sum().backward()
        >>> draw_mask(layer, Fisher(0.25))["weight"]
        tensor([[ True, False, False, False]])
    """

    name: ClassVar[str] = "fisher"

    @property
    def step_score(self) -> StepScore:
        """What a step says of a weight: its squared gradient."""
        return lambda weight, gradient: gradient.float().square()
