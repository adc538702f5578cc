"""What every loss of a task is, and how an ordinary criterion becomes one."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

#: What a network takes: one tensor, or several.
Inputs = Tensor | Sequence[Tensor]


class Loss(nn.Module, ABC):
    """A loss that runs the network itself, as often and in whatever way it needs.

    Parameters of a loss (the proxies of metric learning, say) are trained with the network's and never redrawn. What it
    must remember beyond them goes into `remembered`, which the tasks keep in their checkpoints.
    """

    #: True if each training batch must hold a second example of the same class for each example (`PairBatchSampler`).
    needs_pairs: ClassVar[bool] = False
    #: Name of the phase that it is made for, without which it would be its criterion alone; empty for none.
    needs_phase: ClassVar[str] = ""

    @abstractmethod
    def forward(self, network: Callable[..., Tensor], inputs: Inputs, targets: Tensor) -> Tensor:
        """Compute the loss of a batch.

        Args:
            network: From inputs to outputs, such as scores.
            inputs: The batch's input, or several of them.
            targets: The batch's targets.

        Returns:
            A scalar.
        """

    def after_step(self, network: nn.Module) -> None:
        """Look at the network after an optimizer step.

        Args:
            network: The network that is trained.
        """

    def on_generation_end(self, network: nn.Module) -> None:
        """Look at the network that a generation has trained, before a part of it is redrawn.

        Args:
            network: The network that is trained.
        """

    def remembered(self) -> dict[str, Any]:
        """What must survive a resume beyond the loss's own parameters, in plain, weights-only types."""
        return {}

    def recall(self, remembered: dict[str, Any], network: nn.Module) -> None:
        """Take up what `remembered` returned.

        Args:
            remembered: The remembered state.
            network: The network that is trained, for its architecture.
        """


class Criterion(Loss):
    """A loss of outputs and targets, such as all of torch's.

    Args:
        criterion: From outputs and targets to a scalar.

    Example:
        >>> import torch
        >>> loss = Criterion(nn.MSELoss())
        >>> float(loss(nn.Identity(), torch.ones(3), torch.zeros(3)))
        1.0
    """

    def __init__(self, criterion: nn.Module) -> None:
        super().__init__()
        self.criterion = criterion

    def forward(self, network: Callable[..., Tensor], inputs: Inputs, targets: Tensor) -> Tensor:
        """Run the network once and compare its outputs with the targets."""
        loss: Tensor = self.criterion(run(network, inputs), targets)
        return loss


def get_loss(loss: nn.Module) -> Loss:
    """Return a loss that runs the network itself.

    Args:
        loss: A `Loss`, which is returned as it is, or a criterion of outputs and targets.

    Raises:
        TypeError: If it is neither.

    Example:
        >>> get_loss(nn.CrossEntropyLoss(label_smoothing=0.1)).criterion.label_smoothing
        0.1
    """
    if isinstance(loss, Loss):
        return loss
    if not isinstance(loss, nn.Module):
        raise TypeError(
            f"Expected argument `loss` to be a module that compares outputs with targets, but got {loss!r}. Give for "
            "example `torch.nn.CrossEntropyLoss()`."
        )
    return Criterion(loss)


def run(network: Callable[..., Tensor], inputs: Inputs) -> Tensor:
    """Run a network on one input, or on several.

    Args:
        network: The network.
        inputs: A tensor, or several.
    """
    return network(inputs) if isinstance(inputs, Tensor) else network(*inputs)


def softened_divergence(scores: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence from a teacher's softened predictions, times the temperature squared.

    The factor keeps the size of the gradients independent of the temperature.

    Args:
        scores: Logits of shape (N, C).
        teacher: Logits of shape (N, C); no gradient flows into them.
        temperature: What both are divided by, greater than 0.

    Returns:
        The mean over the batch.

    Source:
        "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531), section 2.
    """
    predicted = F.log_softmax(scores / temperature, dim=1)
    target = F.log_softmax(teacher.detach() / temperature, dim=1)
    return F.kl_div(predicted, target, reduction="batchmean", log_target=True) * temperature**2


def frozen(network: nn.Module) -> nn.Module:
    """A copy of a network that is evaluated and never trained: a teacher.

    Args:
        network: The network.
    """
    twin = copy.deepcopy(network).eval().requires_grad_(False)
    for parameter in twin.parameters():
        parameter.grad = None
    return twin


def check_temperature(temperature: float) -> float:
    """Refuse a temperature that is not greater than 0.

    Args:
        temperature: What logits are divided by.

    Raises:
        ValueError: If it is out of range.
    """
    if not temperature > 0:
        raise ValueError(f"Expected argument `temperature` to be greater than 0, but got {temperature}. Give 4, say.")
    return temperature


def check_share(name: str, value: float) -> float:
    """Refuse what is no share.

    Args:
        name: Name of the argument.
        value: What was given for it.

    Raises:
        ValueError: If it is not in [0, 1].
    """
    if not 0 <= value <= 1:
        raise ValueError(f"Expected argument `{name}` to be in [0, 1], but got {value}.")
    return value
