"""KnowledgeEvolution: the hooks that turn an ordinary training into generations, and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from lightning_utilities.core.rank_zero import rank_zero_info

from lightning_ke.arguments import check_choice, whole_or_none
from lightning_ke.compatibility import (
    AnyNamespaceCallback,
    LightningModule,
    Trainer,
    builds_later,
    check_sharding,
    check_trainer,
    choose_seed,
    metrics_of_loaders,
)
from lightning_ke.endings import GenerationEnd, get_ending, plan_run
from lightning_ke.fit_scoring import FitValidations, metrics_of_validation, prove
from lightning_ke.goals import check_fit_goals
from lightning_ke.history import free_path, write_history_csv
from lightning_ke.lost_ranks import advice_on
from lightning_ke.masks import Mask
from lightning_ke.phases import Phase
from lightning_ke.recalibration import recalibrate_norm
from lightning_ke.report.wandb import log_files
from lightning_ke.resets import Reset
from lightning_ke.restart import install_horizon
from lightning_ke.resume import Resumption
from lightning_ke.run import NOT_DRAWN, EvolutionRun, FirstDraw, state_of, take_up
from lightning_ke.schedule import GenerationSchedule
from lightning_ke.settings import Settings
from lightning_ke.sharding import settle
from lightning_ke.slim import extract_slim
from lightning_ke.splits import Split
from lightning_ke.unreadable import explain_nonsense, explain_unreadable

_log = logging.getLogger(__name__)


class KnowledgeEvolution(AnyNamespaceCallback):
    r"""Trains a network in generations: after each, the reset hypothesis is drawn afresh and the training goes on.

    The network's weights are split once by a binary mask into a fit and a reset hypothesis. The module itself, its
    state_dict and its training step stay what they are. A module or data module that defines
    ``on_generation_end(generation)`` sees what the generation has trained just before it is redrawn, one that defines
    ``on_generation_start(generation)`` is told when weights, optimizer and schedule of the next are in place.

    Args:
        split: How the mask is drawn: a name from `list_splits` or a `Split`.
        rate: Share that is fit, in (0, 1): of the channels for "kels" (so about `rate` squared of the weights), of the
            weights for "wels". None takes the split's default (0.5, or 0.8 for "snip" and "fisher") where it has one.
        generations: Number of generations. Any two of this, `epochs_per_generation` and the Trainer's `max_epochs` give
            the third; with neither, 10 generations.
        epochs_per_generation: Epochs of each generation; or a list of them, or of their shares of the whole run.
        reset: How redrawn values are drawn: a name from `list_resets` or a `Reset`.
        norm: "keep" redraws no normalisation layer (as the authors released it), "reset" starts the norm parameters and
            statistics of the reset hypothesis over.
        optimizer: "new" begins each generation with a new optimizer, "keep" carries its state over, "clear" all of it
            but the state of redrawn weights.
        lr_schedule: "restart" starts the schedule over in each generation, with one generation as its horizon;
            "continue" lets one schedule run over all of them.
        target: Canonical name of the submodule to which cutting and redrawing is limited.
        exclude: Patterns (as for `fnmatch`) of parameters that are never redrawn.
        score_fit: "epoch" scores the fit hypothesis in every validation, "generation" in the last one of each
            generation (in all where nobody knows which one that is), False never.
        fit_norm: "dense" scores it with the dense network's BatchNorm statistics, "reestimate" with statistics
            re-estimated on the epoch's last training batches, of which up to 16 are kept in memory for it.
        example_input: What the network is traced with: a tensor for ``model(x)``, a tuple for ``model(*x)``, a dict for
            ``model(**x)``. None takes the module's `example_input_array`, else the first real batch.
        seed: Seed of mask and redrawn values. None takes the global seed (`seed_everything`) if one was set, else draws
            one that is recorded and the same on all ranks.
        end: What ends a generation: "length", "plateau", "overfit" (with their defaults) or a `GenerationEnd`.
        stop_at: Metrics that end the whole run once the end of a generation reaches all of them: a number that a metric
            must come up to, or a string such as ``"<=0.3"``.
        ops: In place of `rate`, for "kels" and "importance": the share of the network's operations that the slim
            network may need, in (0, 1); the rate is solved for.
        schedule: What changes from generation to generation: a `GenerationSchedule`, or a dict of its arguments.
        phases: Parts of each generation in which training is different (`lightning_ke.phases`).

    Raises:
        ValueError: If an argument is out of range, or (in `setup`) if arguments, module and Trainer do not fit.
        TypeError: If an argument is of the wrong type.

    Attributes:
        history: One record of plain types for each generation.

    Source:
        Ahmed Taha, Abhinav Shrivastava, Larry Davis: "Knowledge Evolution in Neural Networks", CVPR 2021.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(max_epochs=2000, callbacks=[KnowledgeEvolution(split="kels", rate=0.5)], logger=False)
    """

    def __init__(
        self,
        split: str | Split = "kels",
        rate: float | None = None,
        generations: int | None = None,
        epochs_per_generation: int | Sequence[float] | None = None,
        reset: str | Reset = "layer",
        norm: Literal["keep", "reset"] = "keep",
        optimizer: Literal["new", "keep", "clear"] = "new",
        lr_schedule: Literal["restart", "continue"] = "restart",
        target: str | None = None,
        exclude: Sequence[str] = (),
        score_fit: Literal["epoch", "generation", False] = "epoch",
        fit_norm: Literal["dense", "reestimate"] = "dense",
        example_input: Any = None,
        seed: int | None = None,
        end: str | GenerationEnd = "length",
        stop_at: Mapping[str, float | str] | None = None,
        ops: float | None = None,
        schedule: GenerationSchedule | Mapping[str, Sequence[float]] | None = None,
        phases: Sequence[Phase] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(epochs_per_generation, (list, tuple)):
            epochs_per_generation = whole_or_none("epochs_per_generation", epochs_per_generation, least=1)
        check_choice("score_fit", score_fit, ("epoch", "generation", False))
        check_choice("fit_norm", fit_norm, ("dense", "reestimate"))
        self._settings = Settings.of(
            split,
            rate,
            ops,
            reset,
            norm=norm,
            optimizer=optimizer,
            lr_schedule=lr_schedule,
            target=target,
            exclude=exclude,
            stop_at=stop_at,
            schedule=schedule,
            phases=phases,
        )
        self._end = get_ending(end)
        check_fit_goals(self._settings.stop_at, self._end, score_fit)
        self.generations = whole_or_none("generations", generations, least=1)
        self.epochs_per_generation = epochs_per_generation
        self.score_fit = score_fit
        self.fit_norm = fit_norm
        self.example_input = example_input
        self.seed = whole_or_none("seed", seed, least=0)
        self._run: EvolutionRun | None = None
        self._first_draw: FirstDraw | None = None
        self._resumption: Resumption | None = None
        self._validations = FitValidations(score_fit, fit_norm)
        self._fitting = False
        self._epoch_begins = True  # until the first batch of an epoch
        self._csv: Path | None = None
        self._set_data: Callable[[], None] | None = None
        self._installed = ExitStack()  # what takes our wrappers off module and Trainer again

    # What a user reads ----------------------------------------------------------------------------------------------

    @property
    def mask(self) -> Mask | None:
        """Which weights are fit, by canonical name; None until the mask is drawn."""
        return None if self._run is None else self._run.split.mask

    @property
    def phases(self) -> list[str]:
        """Names of the phases of the generation that hold now (`lightning_ke.phases`)."""
        return [] if self._run is None else self._run.phases.held

    def has_phase(self, name: str) -> bool:
        """Whether each generation has a phase of a name, be it over or still to come.

        Args:
            name: Its name, such as ``"slimmable"``.
        """
        return any(phase.name == name for phase in self._settings.phases)

    @property
    def generation(self) -> int:
        """Number of the generation in progress, or of the last one once the run is over; from 1."""
        return 1 if self._run is None else self._run.clock.generation

    @property
    def history(self) -> list[dict[str, Any]]:
        """One record of plain types for each generation."""
        return [] if self._run is None else self._run.records.history

    def slim_network(self, pl_module: LightningModule, recalibrate: Iterable[Any] | None = None) -> LightningModule:
        """Cut the fit hypothesis out as a LightningModule of its own, ready for `trainer.validate`.

        Args:
            pl_module: The trained dense module; it stays as it is.
            recalibrate: Batches of training data on which BatchNorm statistics are re-estimated for the slim network.

        Of a sharded module all ranks must ask for it together; its parameters are gathered one by one.

        Raises:
            ValueError: If the mask is not drawn yet, or the split has no slim network.
        """
        if self.mask is None:
            raise ValueError(NOT_DRAWN)
        settle(pl_module)
        slim: LightningModule = extract_slim(pl_module, self.mask, verify=False)
        prove(slim, pl_module, self.mask)
        if recalibrate is not None:
            recalibrate_norm(slim, recalibrate, pl_module)
        return slim

    # Before training ------------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that module, Trainer and arguments fit together; draws nothing."""
        self._fitting = stage == "fit"
        if not self._fitting:
            return
        settings = self._settings
        self._installed.callback(explain_unreadable(trainer))
        check_trainer(trainer, pl_module, self.score_fit)
        check_sharding(trainer, settings.split, settings.reset, settings.phases, self.score_fit)
        if trainer.fast_dev_run:
            rank_zero_info("KnowledgeEvolution: no generation ends in a `fast_dev_run`, so nothing will be redrawn.")
        # Trainer() without a length has 1000 epochs, one with `max_steps` or `max_time` has -1.
        epochs = int(-1 if trainer.max_epochs is None else trainer.max_epochs)
        lengths = self.generations, self.epochs_per_generation, epochs
        policy, plan = plan_run(self._end, *lengths, trainer.fast_dev_run, trainer.min_epochs)
        run = EvolutionRun(
            settings, policy, plan, choose_seed(self.seed, trainer), trainer.world_size, trainer.global_rank
        )
        if self._run is not None and trainer.fit_loop.epoch_progress.current.processed > 0:
            take_up(run, state_of(self._run), seed=self.seed)
        elif self._run is not None:  # a checkpoint, if there is one, is read later
            rank_zero_info("KnowledgeEvolution: mask and history of this callback's earlier run are forgotten.")
        self._run, self._first_draw, self._resumption = run, FirstDraw(run), Resumption(trainer, run)
        self._validations.forget()
        if settings.schedule is not None:
            settings.schedule.check(trainer)
            self._set_data = lambda: run.set_data(trainer)
            self._set_data()
        if not builds_later(pl_module):
            run.split.check(pl_module)
        if settings.lr_schedule == "restart" and plan is not None:
            self._installed.callback(install_horizon(trainer, pl_module, lambda: run.horizon))
        # First of all callbacks, so that each of the others sees a generation's new weights, optimizer and schedule.
        trainer.callbacks = [self, *(callback for callback in trainer.callbacks if callback is not self)]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the mask, or listen to how the network is run if nothing says so yet."""
        self._installed.close()
        run = self._require_run()
        if self._settings.schedule is not None:
            self._settings.schedule.scale(trainer, run.clock.generation)  # a checkpoint's rates are read later
        self._require_resumption().before_first_sampler(trainer)
        folder = str(trainer.log_dir or trainer.default_root_dir)
        self._csv = None if "://" in folder else free_path(Path(folder) / "ke_history.csv")
        if self._csv is None:
            rank_zero_info(
                f"KnowledgeEvolution: no `ke_history.csv` is written, because {folder!r} is no folder of this machine. "
                "`write_history_csv(callback.history, path)` writes one."
            )
        self._require_first_draw().begin(trainer, pl_module, self.example_input)
        self._validations.check(pl_module)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Draw the mask at the latest before the first step changes a weight; let a split look at the gradients."""
        self._require_first_draw().before_step(trainer, pl_module)
        self._require_run().before_step(trainer, pl_module, optimizer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the wall clock and warn of schedules that are longer than a generation."""
        run = self._require_run()
        self._epoch_begins = True
        self._require_resumption().begin(trainer, pl_module)
        run.split.take_up(pl_module, run.clock.generation, resumed=run.resumed)
        run.begin(trainer)
        run.take_up_phases(trainer, pl_module)
        self._installed.callback(run.phases.release, pl_module)

    # Generations ----------------------------------------------------------------------------------------------------

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Redraw the reset hypothesis if the last epoch closed a generation."""
        self._require_resumption().begin_epoch(trainer)
        self._begin_epoch(trainer, pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Redraw, too, in an epoch that Lightning resumes without telling that it begins; show the generation."""
        if self._epoch_begins:
            self._begin_epoch(trainer, pl_module)
            self._validations.forget_batches()
            self._epoch_begins = self._require_resumption().idle = False
            self._require_run().rng.release()
            pl_module.log("generation", float(self.generation), prog_bar=True, logger=False, on_step=True)
        self._require_run().begin_batch(trainer, pl_module)

    def _begin_epoch(self, trainer: Trainer, pl_module: LightningModule) -> None:
        run = self._require_run()
        if run.begin_epoch(trainer, pl_module) and run.clock.generation <= self._settings.split.last_draw:
            self._validations.forget()  # what scores was cut by the old mask

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Let phases put weights back; remember the batch if statistics are to be re-estimated on the last ones."""
        if not pl_module.automatic_optimization:
            self._require_first_draw().hear(trainer, pl_module)  # an optimizer behind Lightning's back tells of no step
        run = self._require_run()
        run.end_batch()
        run.after_step(trainer, pl_module)
        if trainer.is_last_batch:
            run.records.remember_training(trainer)
        self._validations.remember(batch)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the generation if this was its last epoch; changes no weight."""
        run = self._require_run()
        self._require_resumption().end_epoch(pl_module)
        run.rng.release()
        if not trainer.fast_dev_run:
            self._require_first_draw().check_steps(pl_module)
        # Lightning also ends an epoch that `max_steps`, `max_time` or a stop cut short: the generation is not over.
        over = trainer.should_stop or 0 <= trainer.max_steps <= trainer.global_step
        if trainer.is_last_batch or not over:
            run.end_epoch(trainer, pl_module)
        run.gather(trainer, pl_module)
        self._epoch_begins = True
        self._write_history(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record a generation that the end of the run cut short, and say what ended it."""
        if self.mask is not None and not trainer.fast_dev_run:
            self._require_run().finish(trainer, pl_module)
            self._write_history(trainer)
            if trainer.is_global_zero and self._csv is not None:
                log_files(trainer.loggers, "history", "history", [self._csv])

    def _write_history(self, trainer: Trainer) -> None:
        if trainer.is_global_zero and self.history and self._csv is not None:
            write_history_csv(self.history, self._csv)

    # Scoring the fit hypothesis -------------------------------------------------------------------------------------

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Decide whether this validation scores the fit hypothesis, and build what does."""
        self._validations.active = None
        if self._fitting and not trainer.sanity_checking:
            run = self._require_run()
            run.rng.begin_validation()
            self._require_resumption().idle = False
            self._validations.begin(trainer, pl_module, run)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the copy that is the fit hypothesis begin its own validation."""
        if self._validations.active is not None:
            self._validations.active.begin_epoch(trainer, pl_module)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Put the batch aside before the module may change it."""
        if self._validations.active is not None:
            self._validations.active.begin_batch(pl_module, batch)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Score the fit hypothesis on the batch."""
        if self._first_draw is not None:  # in a validation before any training there is none
            self._first_draw.hear(trainer, pl_module)
        if self._validations.active is not None:
            self._validations.active.score_batch(trainer, pl_module, batch_idx, dataloader_idx)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the fit hypothesis log what the module logs at the end of a validation."""
        if self._validations.active is not None:
            self._validations.active.end_epoch(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep this validation's scores: a checkpoint that is written next must hold them."""
        if self._fitting and not trainer.sanity_checking:
            scores = metrics_of_validation(metrics_of_loaders(trainer))
            if self._validations.active is not None:
                self._validations.active.end(trainer, pl_module)
            self._require_run().end_validation(trainer, pl_module, *scores)

    # State ----------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that is needed to continue the run exactly, in plain types."""
        return {} if self._run is None else state_of(self._run)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Let Lightning go on exactly where the checkpoint was written."""
        if self._fitting:
            with explain_nonsense():
                self._require_resumption().read(trainer, checkpoint, checkpoint["callbacks"].get(self.state_key, {}))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the run of a checkpoint.

        Args:
            state_dict: What `state_dict` returned.

        Raises:
            ValueError: If this callback's arguments contradict the run of the checkpoint.
        """
        if self._fitting:  # else a checkpoint is only tested or validated: there is no run to continue
            with explain_nonsense():
                take_up(self._require_run(), state_dict, seed=self.seed)
            if self._set_data is not None:
                self._set_data()
            self._require_resumption().check()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave module and Trainer without a trace of this callback."""
        self._installed.close()
        self._stop_listening()
        self._validations.forget()
        self._fitting, self._set_data = False, None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the module without a trace of this callback when something fails; say so if a process is lost."""
        self._installed.close()
        self._stop_listening()
        advice = advice_on(exception, trainer.world_size, self.generation)
        if advice is not None:
            _log.error(advice)  # on every rank: each is cut off from the others

    def _stop_listening(self) -> None:
        if self._first_draw is not None:
            self._first_draw.close()
        if self._run is not None:
            self._run.end_batch()

    def _require_run(self) -> EvolutionRun:
        assert self._run is not None, "`setup` has not been called"
        return self._run

    def _require_first_draw(self) -> FirstDraw:
        assert self._first_draw is not None, "`setup` has not been called"
        return self._first_draw

    def _require_resumption(self) -> Resumption:
        assert self._resumption is not None, "`setup` has not been called"
        return self._resumption


#: The same class under its long name.
KnowledgeEvolutionCallback = KnowledgeEvolution
