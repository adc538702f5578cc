"""What is written down of each generation: the scores of its last validation, its learning rates, its record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lightning_ke.compatibility import logged_too_late
from lightning_ke.fit_scoring import FIT_PREFIX
from lightning_ke.generations import Clock
from lightning_ke.history import weight_magnitudes
from lightning_ke.masks import Mask
from lightning_ke.report.wandb import GenerationTables
from lightning_ke.sharding import settle

if TYPE_CHECKING:
    from lightning_ke.compatibility import LightningModule, Trainer


class GenerationRecords:
    """The records of a run's generations, and what the next one is made of.

    Attributes:
        history: One record for each generation.
    """

    def __init__(self) -> None:
        self.history: list[dict[str, Any]] = []
        self._scores: dict[str, Any] = {}
        self._rates: list[float] = []
        self._told: set[str] = set()
        self._tables = GenerationTables()

    def open_generation(self) -> None:
        """Forget the scores and rates of the generation before."""
        validated = [*self._scores.get("dense", ()), *(FIT_PREFIX + name for name in self._scores.get("fit", ()))]
        # Lightning shows a metric until it is logged again: in an epoch without a validation, that of the one before.
        earlier = validated or list(self._scores.get("earlier", ()))
        self._scores, self._rates = {"earlier": earlier}, []

    def note_rate(self, trainer: Trainer, epoch: int) -> None:
        """Note the highest learning rate with which an epoch begins.

        Args:
            trainer: The Trainer.
            epoch: Number of the epoch within the generation, from 0.
        """
        if len(self._rates) <= epoch:
            groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
            self._rates.append(max((float(group["lr"]) for group in groups if "lr" in group), default=0.0))

    def remember_scores(self, trainer: Trainer, dense: dict[str, float], fit: dict[str, float]) -> None:
        """Keep the scores of a validation: a checkpoint that is written next must hold them.

        Args:
            trainer: The Trainer.
            dense: Metrics of the dense network.
            fit: Metrics of the fit hypothesis.
        """
        self._scores |= {"dense": dense, "fit": fit, "epoch": int(trainer.current_epoch), "earlier": []}
        self.remember_metrics(trainer)

    def remember_training(self, trainer: Trainer) -> None:
        """Keep what the steps of an epoch have logged, which Lightning does not save and reduces at its end only.

        Args:
            trainer: The Trainer behind an epoch's last step; all ranks are together.
        """
        self._scores["training"] = self._known(
            trainer, trainer.fit_loop.epoch_loop._results.metrics(on_step=False)["callback"]
        )

    def remember_metrics(self, trainer: Trainer) -> None:
        """Keep what others monitor, which Lightning does not save.

        Args:
            trainer: The Trainer at the end of a validation or of an epoch.
        """
        self._scores["metrics"] = self._known(trainer, trainer.callback_metrics)

    def end_epoch(self, trainer: Trainer) -> None:
        """Keep what others monitor, now that Lightning has reduced what the steps have logged, too.

        Args:
            trainer: The Trainer at the end of an epoch.
        """
        self.remember_metrics(trainer)
        self._scores["metrics"] = {**self._scores.pop("training", {}), **self._scores["metrics"]}

    def _known(self, trainer: Trainer, metrics: Mapping[str, Any]) -> dict[str, float]:
        """Metrics as numbers, without those that are of the epoch before."""
        late = logged_too_late(trainer) - self._told
        return {name: float(value) for name, value in metrics.items() if name not in late}

    def tell(self, pl_module: LightningModule) -> None:
        """Let others monitor the checkpoint's metrics at the end of its epoch, which Lightning does not know.

        Args:
            pl_module: The module at the end of an epoch.
        """
        pl_module.log_dict(self.metrics, logger=False)
        self._told = set(self.metrics)

    @property
    def metrics(self) -> dict[str, float]:
        """Every metric as it was at the last end of a validation or of an epoch, or behind an epoch's last step."""
        return {**self._scores.get("metrics", {}), **self._scores.get("training", {})}

    @property
    def own_metrics(self) -> dict[str, float]:
        """Those of `metrics` that are of this generation, and not what a validation of an earlier one has said."""
        earlier = set(self._scores.get("earlier", ()))
        return {name: value for name, value in self.metrics.items() if name not in earlier}

    def write(self, trainer: Trainer, pl_module: LightningModule, mask: Mask, clock: Clock, ended: str) -> None:
        """Write the generation's record, in place of the one that an interrupted run left of it.

        Args:
            trainer: The Trainer.
            pl_module: The module.
            mask: What is fit.
            clock: Where in the run we are.
            ended: Why the generation ended.
        """
        settle(pl_module)
        rates = self._rates
        record = {
            "generation": clock.generation,
            "epochs": clock.epochs,
            "steps": int(trainer.global_step) - clock.first_step,
            "dense": dict(self._scores.get("dense", {})),
            "fit": dict(self._scores.get("fit", {})),
            "ended": ended,
            "last_epoch": clock.first_epoch + clock.epochs - 1,
            "scored_epoch": self._scores.get("epoch"),
            "lr": {"first": rates[0], "highest": max(rates), "last": rates[-1]} if rates else {},
            "seconds": clock.elapsed(),
            "magnitude": weight_magnitudes(pl_module, mask),
        }
        self.history = [old for old in self.history if old["generation"] != clock.generation] + [record]

    def log(self, trainer: Trainer) -> None:
        """Log the last record's scores to every logger.

        Args:
            trainer: The Trainer.
        """
        record = self.history[-1]
        scores = {f"ke/generation_end/dense/{name}": value for name, value in record["dense"].items()}
        scores |= {f"ke/generation_end/fit/{name}": value for name, value in record["fit"].items()}
        if trainer.is_global_zero:
            self._tables.log(trainer.loggers, self.history, scores)
        for logger in trainer.loggers:
            # One call, so that a logger keeps the scores and the generation that they belong to together.
            logger.log_metrics({**scores, "ke/generation": float(record["generation"])}, step=trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        """The records, and the scores and rates of the generation in progress, in plain types."""
        return {
            "scores": dict(self._scores),
            "rates": list(self._rates),
            "history": [dict(record) for record in self.history],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned.

        Args:
            state: The state.
        """
        self.history = [dict(record) for record in state["history"]]
        self._scores, self._rates = dict(state["scores"]), list(state["rates"])
