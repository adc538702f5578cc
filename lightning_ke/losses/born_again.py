"""Born-again networks: each generation also learns from the network of the generation before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from lightning_ke.arguments import check_choice
from lightning_ke.losses.base import Inputs, Loss, ask, check_share, check_temperature, frozen, run, softened_divergence


class BornAgain(Loss):
    """A criterion, and from the second generation on the divergence from the previous generation's network.

    The teacher is a frozen copy of the network as the last generation left it. It is no part of the module: no
    optimizer holds it, no mask covers it, nothing redraws it, and a checkpoint's `state_dict` is that of the plain
    network; the tasks keep it beside that.

    Args:
        weight: Share of the teacher in the loss, in [0, 1]: 1 learns from the teacher alone.
        temperature: What scores are divided by before they are compared.
        teacher: "dense" for the network as the generation left it, "ema" for the exponential moving average of its
            weights over the generation.
        decay: Of the average, in [0, 1]: what remains of it with each step.
        criterion: From scores and labels to a scalar; None for the cross-entropy.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        "Born-Again Neural Networks" (ICML 2018).

    Example:
        >>> loss, network = BornAgain(weight=1.0), nn.Linear(5, 2)
        >>> images, labels = torch.randn(4, 5), torch.tensor([0, 1, 0, 1])
        >>> loss.on_generation_end(network)
        >>> round(loss(network, images, labels).item(), 6)  # it agrees with its teacher
        0.0
    """

    compares_classes: ClassVar[bool] = True

    def __init__(
        self,
        weight: float = 0.5,
        temperature: float = 1.0,
        teacher: Literal["dense", "ema"] = "dense",
        decay: float = 0.999,
        criterion: nn.Module | None = None,
    ) -> None:
        super().__init__()
        check_choice("teacher", teacher, ("dense", "ema"))
        self.weight = check_share("weight", weight)
        self.temperature = check_temperature(temperature)
        self.teacher = teacher
        self.decay = check_share("decay", decay)
        self.criterion = nn.CrossEntropyLoss() if criterion is None else criterion
        # In a dict of a plain attribute, so that torch does not take them for parts of the module.
        self._networks: dict[str, nn.Module] = {}

    def forward(self, network: Callable[..., Tensor], inputs: Inputs, targets: Tensor) -> Tensor:
        """Compute the loss of a batch."""
        scores = run(network, inputs)
        loss: Tensor = self.criterion(scores, targets)
        if "teacher" not in self._networks:
            return loss
        taught = ask(self._networks["teacher"], inputs, targets.device)
        divergence = softened_divergence(scores, taught, self.temperature)
        return (1 - self.weight) * loss + self.weight * divergence

    def after_step(self, network: nn.Module) -> None:
        """Let the average follow the network."""
        if self.teacher != "ema":
            return
        if "average" not in self._networks:
            self._networks["average"] = frozen(network)
            return
        with torch.no_grad():
            average = self._networks["average"].state_dict()
            for name, value in network.state_dict().items():
                if value.is_floating_point():
                    average[name].lerp_(value.to(average[name]), 1 - self.decay)
                else:
                    average[name].copy_(value)

    def on_generation_end(self, network: nn.Module) -> None:
        """Keep the network as the next generation's teacher."""
        average = self._networks.get("average")
        self._networks = {"teacher": frozen(network) if average is None else average}

    def remembered(self) -> dict[str, Any]:
        """The weights of the teacher and of the average."""
        return {role: dict(network.state_dict()) for role, network in self._networks.items()}

    def recall(self, remembered: dict[str, Any], network: nn.Module) -> None:
        """Take up the weights of the teacher and of the average."""
        self._networks = {}
        for role, state in remembered.items():
            self._networks[role] = frozen(network)
            self._networks[role].load_state_dict(state)
