"""What changes from generation to generation: learning rate, weight decay, the data's batches, split rate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from torch.optim.lr_scheduler import LRScheduler

from lightning_ke.arguments import as_number
from lightning_ke.compatibility import class_names
from lightning_ke.loaders import rebuilds_iterator, reload_loader
from lightning_ke.masks import Mask
from lightning_ke.rng import capture_rng, restore_rng
from lightning_ke.splits import Split, SplitContext
from lightning_ke.splits.base import RedrawSet, StepScore, check_rate

if TYPE_CHECKING:
    from lightning_ke.compatibility import Trainer

# What a schedule of torch's reads a group's rate from.
_RATES = ("lr", "initial_lr", "max_lr", "min_lr")
# What a data module is asked for: the attribute that is set, the methods that are called.
_OF_DATA = {"batch_size": "batch_size", "augmentation": "augment", "image_size": "resize"}


@dataclass(frozen=True)
class GenerationSchedule:
    """One value for each generation; the last one holds for all further ones.

    Args:
        lr: Factors of the learning rates that the module itself configures.
        weight_decay: Factors of the weight decay that the module itself configures.
        batch_size: What the data module's `batch_size` is set to.
        augmentation: Strengths that the data module's method `augment` is called with; those of this package take 0
            (no augmentation) to 1 (as configured).
        image_size: Sides, in pixels, that the data module's method `resize` is called with: of training images alone in
            those of this package. Small images first make early generations cheaper.
        rate: Split rates; a new mask is drawn for each generation.

    Raises:
        ValueError: If a value is out of range, or nothing changes.

    Example:
        >>> schedule = GenerationSchedule(lr=[1.0, 0.5], batch_size=[32, 32, 64])
        >>> print(*(schedule.value("lr", generation) for generation in (1, 2, 3)))
        1.0 0.5 0.5
    """

    lr: Sequence[float] = ()
    weight_decay: Sequence[float] = ()
    batch_size: Sequence[int] = ()
    augmentation: Sequence[float] = ()
    image_size: Sequence[int] = ()
    rate: Sequence[float] = ()

    def __post_init__(self) -> None:
        for field in fields(self):
            values = getattr(self, field.name)
            if isinstance(values, str) or not isinstance(values, Iterable):
                raise ValueError(
                    f"Expected argument `{field.name}` to hold one value for each generation, but got {values!r}. "
                    f"Write [{values!r}], or configure it without a schedule."
                )
            object.__setattr__(self, field.name, tuple(values))
        if not any(getattr(self, field.name) for field in fields(self)):
            raise ValueError(
                f"Expected a schedule to change one of {', '.join(field.name for field in fields(self))}, but all are "
                "empty. Leave the schedule out, or give for example `lr=[1.0, 0.5]`."
            )
        for name in ("lr", "weight_decay", "augmentation"):
            if not all(0 <= as_number(value) < math.inf for value in getattr(self, name)):
                raise ValueError(
                    f"Expected argument `{name}` to hold numbers of at least 0, but got {getattr(self, name)}."
                )
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))
        for name in ("batch_size", "image_size"):
            if any(not isinstance(size, int) or size < 1 for size in getattr(self, name)):
                raise ValueError(
                    f"Expected argument `{name}` to hold whole numbers from 1, but got {getattr(self, name)}."
                )
        object.__setattr__(self, "rate", tuple(check_rate(rate) for rate in self.rate))

    def value(self, name: str, generation: int) -> Any:
        """The value of a generation, None for what does not change.

        Args:
            name: Name of the argument.
            generation: Number of the generation, from 1.
        """
        values = getattr(self, name)
        return values[min(generation, len(values)) - 1] if values else None

    def identity(self) -> dict[str, Any]:
        """The schedule in plain types."""
        return {field.name: list(getattr(self, field.name)) for field in fields(self)}

    def check(self, trainer: Trainer) -> None:
        """Refuse a schedule of data that nobody can change, and factors that would be lost.

        Args:
            trainer: The Trainer with its data module and callbacks.

        Raises:
            ValueError: If there is no data module, or it has not what the schedule changes; or if a factor of 0 is
                followed by another one although groups will be added to the optimizers.
        """
        if any("BaseFinetuning" in class_names(callback) for callback in trainer.callbacks):
            self._refuse_lost("of a BaseFinetuning, whose groups no `configure_optimizers` builds anew", "leave it out")
        for name, attribute in _OF_DATA.items():
            if getattr(self, name) and not hasattr(trainer.datamodule, attribute):
                raise ValueError(
                    f"Expected a data module with `{attribute}` because the schedule changes {name}, but got "
                    f"{type(trainer.datamodule).__name__}. Put the loaders into a LightningDataModule that reads it."
                )

    def check_continued(self) -> None:
        """Refuse factors that are lost when one schedule goes on: each is then what the last one is multiplied by.

        Raises:
            ValueError: If a factor of 0 is followed by another one.
        """
        self._refuse_lost("of `lr_schedule='continue'`", "use `lr_schedule='restart'`")

    def _refuse_lost(self, cause: str, instead: str) -> None:
        for name in ("lr", "weight_decay"):
            factors = getattr(self, name)
            if any(earlier == 0 < later for earlier, later in pairwise(factors)):
                raise ValueError(
                    f"Expected argument `schedule` to scale `{name}` by more than 0 as long as another factor follows, "
                    f"because {cause}, but got {factors}. Write a small number in place of 0, or {instead}."
                )

    def set_data(self, trainer: Trainer, generation: int) -> None:
        """Tell the data module what the generation's loaders are like.

        Args:
            trainer: The Trainer with its data module.
            generation: Number of the generation.
        """
        for name, attribute in _OF_DATA.items():
            value = self.value(name, generation)
            if value is not None and name == "batch_size":
                trainer.datamodule.batch_size = value
            elif value is not None:
                getattr(trainer.datamodule, attribute)(value)

    def reload(self, trainer: Trainer, generation: int) -> None:
        """Build the training loader of a generation that opens.

        Args:
            trainer: The Trainer at the beginning of an epoch.
            generation: Number of the generation that opens.
        """
        if not any(getattr(self, name) for name in _OF_DATA):
            return
        self.set_data(trainer, generation)
        before = capture_rng()
        reload_loader(trainer)
        if rebuilds_iterator(trainer):
            restore_rng(before)  # the iterator that was just built has drawn, and another one is about to be

    def scale(
        self,
        trainer: Trainer,
        generation: int,
        *,
        since: int | None = None,
        later: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Scale the learning rates and weight decays of the optimizers and schedules that the Trainer holds.

        Args:
            trainer: The Trainer.
            generation: Number of the generation.
            since: The generation by whose factors they are scaled already; None if they are as configured.
            later: Groups that were added in the course of the training: they are as in the generation before.

        Raises:
            ValueError: If rates are to be scaled and a schedule is none of torch's.
        """
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                as_in = generation - 1 if any(group is one for one in later) else since
                for key in (*_RATES, "weight_decay"):
                    if key in group:
                        group[key] = group[key] * self._factor("lr" if key in _RATES else key, generation, as_in)
        for config in trainer.lr_scheduler_configs if self.lr else ():
            _scale_schedule(config.scheduler, self._factor("lr", generation, since))

    def _factor(self, name: str, generation: int, since: int | None) -> float:
        """What a rate is multiplied by that was scaled for an earlier generation, or for none."""
        now = self.value(name, generation)
        earlier = 1.0 if since is None else self.value(name, since)
        return 1.0 if now is None or not earlier else now / earlier


def get_schedule(schedule: GenerationSchedule | Mapping[str, Any] | None) -> GenerationSchedule | None:
    """Build a schedule from its arguments.

    Args:
        schedule: A schedule or None, which are returned as they are, or the arguments of one.

    Raises:
        TypeError: If it is something else.
        ValueError: If there is an argument of no schedule.

    Example:
        >>> get_schedule({"lr": [1, 0.5]}).lr
        (1.0, 0.5)
    """
    if schedule is None or isinstance(schedule, GenerationSchedule):
        return schedule
    if not isinstance(schedule, Mapping):
        raise TypeError(
            "Expected argument `schedule` to be a `GenerationSchedule` or a dict of its arguments, such as "
            f"{{'lr': [1.0, 0.5]}}, but got {schedule!r}."
        )
    known = [field.name for field in fields(GenerationSchedule)]
    if unknown := sorted(set(schedule) - set(known)):
        raise ValueError(
            f"Expected argument `schedule` to change {', '.join(known)}, but got {unknown[0]!r}. Remove it, or write "
            "one of these."
        )
    return GenerationSchedule(**{name: () if values is None else values for name, values in schedule.items()})


def _scale_schedule(scheduler: Any, factor: float) -> None:
    if not isinstance(scheduler, LRScheduler):
        raise ValueError(
            f"Expected learning-rate schedules of torch's because the schedule changes lr, but got a "
            f"{type(scheduler).__name__}, which keeps rates of its own. Leave `lr` out of the schedule, or build a "
            "`torch.optim.lr_scheduler.LRScheduler`."
        )
    for key in ("base_lrs", "max_lrs", "_last_lr"):
        if hasattr(scheduler, key):
            setattr(scheduler, key, [rate * factor for rate in getattr(scheduler, key)])
    for part in getattr(scheduler, "_schedulers", ()):
        _scale_schedule(part, factor)


class RateByGeneration(Split):
    """A split whose rate changes: a new mask is drawn for each generation that has another rate.

    Args:
        split: A split with a rate.
        rates: The rate of each generation; the last one holds for all further ones.

    Raises:
        ValueError: If the split has no rate, or is no dataclass, of which a copy with another rate can be made.

    Example:
        >>> from lightning_ke.splits import Kels
        >>> RateByGeneration(Kels(0.5), [0.8, 0.6, 0.5]).last_draw
        3
    """

    name = "rate-by-generation"

    def __init__(self, split: Split, rates: Sequence[float]) -> None:
        has_rate: bool = getattr(split, "rate", None) is not None and is_dataclass(split)
        if not has_rate:
            raise ValueError(
                f"Expected a split with a rate because the schedule changes `rate`, but {split.name!r} has none "
                "that can be replaced. Use 'kels' or 'wels', say, let a split of your own be a dataclass with a field "
                "`rate`, or leave `rate` out of the schedule."
            )
        self.split = split
        self.rates = tuple(rates)
        self.structured = split.structured
        self.needs_calls = split.needs_calls
        self.survivors_vary = split.survivors_vary
        self.reads_values = split.reads_values
        self.listens = split.listens
        self.may_keep_all = split.may_keep_all
        self.last_draw = max(split.last_draw, len(self.rates))

    @property
    def step_score(self) -> StepScore | None:
        """That of the split."""
        return self.split.step_score

    def draw(self, context: SplitContext) -> Mask:
        """Draw the mask at the generation's rate.

        Args:
            context: The network and how it is run.
        """
        return self._at(context.generation).draw(context)

    def survivors(self, mask: Mask, context: SplitContext) -> Mask:
        """Return what the split leaves alone at the generation's rate."""
        return self._at(context.generation).survivors(mask, context)

    def redraws(self, mask: Mask, context: SplitContext) -> Sequence[RedrawSet]:
        """Return what the split does at the generation's rate."""
        return self._at(context.generation).redraws(mask, context)

    def identity(self) -> dict[str, Any]:
        """The split at its first rate, and all rates."""
        return {**self._at(1).identity(), "rates": list(self.rates)}

    def _at(self, generation: int) -> Split:
        rate = self.rates[min(generation, len(self.rates)) - 1]
        split: Any = self.split  # a frozen dataclass, as all splits with a rate
        at: Split = replace(split, rate=rate)
        return at

    def __repr__(self) -> str:
        return f"{self.split!r} at rates {list(self.rates)}"
