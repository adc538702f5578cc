"""The generations of a run: how they open and close."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor

from lightning_ke.compatibility import early_stopping_fired, restart_neighbours, time_is_up, untoggled
from lightning_ke.endings import FixedLength, GenerationEnd
from lightning_ke.generations import Clock, Plan
from lightning_ke.goals import reached
from lightning_ke.loaders import rebuilds_iterator
from lightning_ke.masks import Mask
from lightning_ke.naming import named_parameters
from lightning_ke.optimizer_state import check_clearable
from lightning_ke.phases import PhaseRunner, Scene
from lightning_ke.redrawing import RedrawReport, redraw_sets, redrawable
from lightning_ke.report.wandb import describe_run
from lightning_ke.resets import NoReset
from lightning_ke.restart import restart_optimizers, too_long_horizons
from lightning_ke.run.drawing import RunMask, optimized
from lightning_ke.run.identity import identity, manner
from lightning_ke.run.randomness import RunRandomness
from lightning_ke.run.records import GenerationRecords
from lightning_ke.settings import Settings
from lightning_ke.sharding import settle
from lightning_ke.signals import deferred_signals
from lightning_ke.splits import RedrawSet

if TYPE_CHECKING:
    from lightning_ke.compatibility import LightningModule, Trainer


class EvolutionRun:
    """The generations of one training run.

    Args:
        settings: What the user asked for.
        policy: What ends a generation.
        plan: How the run is divided, None if no generation can end (`fast_dev_run`).
        seed: Seed of mask and redrawn values, the same on all ranks.
        world_size: Number of ranks.
        rank: Number of this rank.

    Attributes:
        clock: Where in the run we are.
        split: The mask, and what the split has seen.
        records: What is written down of each generation.
        rng: The random numbers of all ranks.
        phases: Which phases hold.
        resumed: True if the run goes on from a checkpoint.
        opening: True in the middle of a generation's opening, where nothing but a failure leaves a checkpoint.
        rank: Number of this rank.
    """

    def __init__(
        self, settings: Settings, policy: GenerationEnd, plan: Plan | None, seed: int, world_size: int, rank: int
    ) -> None:
        self.settings = settings
        self.policy = policy
        self.plan = plan
        self.clock = Clock()
        self.split = RunMask(settings, seed)
        self.records = GenerationRecords()
        self.rng = RunRandomness(world_size, rank)
        self.rank = rank
        self.phases = PhaseRunner(settings.phases)
        self.resumed = False
        self.opening = False
        self._over = False  # True once a goal or the last generation has ended the run; `min_steps` may prolong it
        self._stepped = False  # True once the optimizers of this process have taken a step
        self._data_generation = 0  # for which the data module was last told what its batches are like

    @property
    def horizon(self) -> int:
        """The most epochs that the generation in progress may last."""
        return self.policy.horizon(self.clock.generation)

    def draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the mask, before the first optimizer step.

        Args:
            trainer: The Trainer, its optimizers set up.
            pl_module: The module, its weights initialised.
        """
        with untoggled(pl_module):
            self.split.draw(trainer, pl_module, postponed=self.phases.postpone(2))
        self.phases.remember(pl_module)

    def set_data(self, trainer: Trainer) -> None:
        """Tell the data module which generation's batches come next.

        Args:
            trainer: The Trainer, its loaders not yet built.
        """
        if self.settings.schedule is not None:
            clock = self.clock
            self._data_generation = clock.closed + 1 if clock.redraw_is_due else clock.generation
            self.settings.schedule.set_data(trainer, self._data_generation)

    # Steps ----------------------------------------------------------------------------------------------------------

    def before_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Let phases change the gradients, and a split that scores weights by them look at them.

        Args:
            trainer: The Trainer.
            pl_module: The module, its gradients reduced over all ranks.
            optimizer: The optimizer that is about to take the step.
        """
        if self.phases:
            self.phases.before_step(replace(self._scene(trainer, pl_module), stepping=optimizer))
        # This runs at every step, for splits that never look, too.
        if self.settings.split.step_score is not None and self._may_be_last_epoch:
            self.split.observe_step(pl_module, optimizer, trainer.current_epoch)

    def after_step(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let phases put back what a step must not have changed.

        Args:
            trainer: The Trainer.
            pl_module: The module.

        Raises:
            ValueError: Behind the first step, if optimizers cannot do what a later one would ask of them.
        """
        if not self._stepped and any(optimizer.state for optimizer in trainer.optimizers):
            self._stepped = True
            self._check_optimizers(trainer)
        if self.phases:
            self.phases.after_step(self._scene(trainer, pl_module))

    def _check_optimizers(self, trainer: Trainer) -> None:
        """Refuse state that cannot be cleared as soon as there is any, not when a generation or a phase is over."""
        for optimizer in trainer.optimizers:
            if self.settings.optimizer == "clear" and (self.plan is None or self.plan.generations != 1):
                check_clearable(optimizer)
            for phase in self.settings.phases:
                if phase.forgets:
                    check_clearable(optimizer, phase.name)

    def take_up_phases(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let phases in whose middle a checkpoint was written go on.

        Args:
            trainer: The Trainer.
            pl_module: The module, its weights in their places.
        """
        if self.resumed and self.phases:
            self.phases.take_up(self._scene(trainer, pl_module))

    def begin_batch(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let a split that listens to the network hear how a training batch runs through it.

        Args:
            trainer: The Trainer.
            pl_module: The module.
        """
        if self.settings.split.listens and self._may_be_last_epoch:
            self.split.activity.listen(pl_module, trainer.current_epoch)

    def end_batch(self) -> None:
        """Listen no longer; also when something fails."""
        self.split.activity.close()

    @property
    def _may_be_last_epoch(self) -> bool:
        """True in an epoch that can be the generation's last, in which splits gather what they draw from."""
        return not isinstance(self.policy, FixedLength) or self.clock.epochs + 1 >= self.horizon

    def _scene(self, trainer: Trainer, pl_module: LightningModule) -> Scene:
        settings, generation = self.settings, self.clock.generation

        def changes(mask: Mask) -> Collection[str]:
            return redrawable(pl_module, mask, settings.norm, settings.exclude, optimized(trainer, pl_module))

        def redraw(mask: Mask) -> None:
            self._redraw(trainer, pl_module, (RedrawSet(mask),), generation)

        target, survivors = settings.target, self.split.survivors
        return Scene(pl_module, trainer.optimizers, survivors, target, generation, self.split.mask, changes, redraw)

    # Opening and closing generations --------------------------------------------------------------------------------

    def begin(self, trainer: Trainer) -> None:
        """Start the wall clock; warn of schedules that are longer than a generation.

        Args:
            trainer: The Trainer at the beginning of the training.
        """
        settings = self.settings
        if settings.lr_schedule == "restart" and self.plan is not None and self.plan.generations != 1:
            for schedule in too_long_horizons(trainer, self.horizon):
                rank_zero_warn(
                    f"KnowledgeEvolution: {schedule}. It is restarted as it is written and never reaches its end; "
                    "build it from `trainer.max_epochs` or `trainer.estimated_stepping_batches` to fit the generation."
                )
        if trainer.is_global_zero:
            generations = None if self.plan is None else self.plan.generations
            asked = {**identity(settings, self.policy, self.plan), **manner(settings)}
            describe_run(trainer.loggers, {**asked, "seed": self.split.seed, "generations": generations})
        self.clock.start()

    def begin_epoch(self, trainer: Trainer, pl_module: LightningModule) -> bool:
        """Redraw the reset hypothesis if a generation is closed, and say whether one was opened.

        Args:
            trainer: The Trainer at the beginning of an epoch.
            pl_module: The module.
        """
        # A checkpoint of an epoch's last batch resumes behind that epoch's end, which is made up for here.
        while not self.clock.redraw_is_due and trainer.current_epoch > self.clock.first_epoch + self.clock.epochs:
            self._count_epoch(trainer, pl_module, self.records.metrics)
        # Not `trainer.should_stop`: with `min_epochs` the run goes on, and so do its generations.
        opened = self.clock.redraw_is_due and not self._over
        # A signal of the cluster may ask for a checkpoint at any moment. In the middle of this, some weights are
        # redrawn and some are not, and a reset may build on what was there.
        with deferred_signals():
            if opened:
                self._open_generation(trainer, pl_module)
            if self.phases:
                self.phases.begin_epoch(self._scene(trainer, pl_module), self.clock.epochs, self.horizon)
        self.records.note_rate(trainer, self.clock.epochs)
        return opened

    def _open_generation(self, trainer: Trainer, pl_module: LightningModule) -> None:
        settle(pl_module)
        settings, clock = self.settings, self.clock
        generation, self.opening = clock.closed + 1, True
        self.phases.end_generation(self._scene(trainer, pl_module))
        _tell(trainer, pl_module, "on_generation_end", clock.closed)
        if settings.schedule is not None and self._data_generation != generation:
            if self.resumed and not rebuilds_iterator(trainer):
                self.rng.restore()  # the iterator that was built before the schedule was known has drawn
            settings.schedule.reload(trainer, generation)
            self._data_generation = generation
        survivors, sets = self.split.open_generation(trainer, pl_module, generation)
        postponed = self.phases.postpone(generation)
        if postponed:
            sets = (RedrawSet(survivors, NoReset()),)
        report = self._redraw(trainer, pl_module, sets, generation)

        def member(name: str) -> Callable[[], Tensor]:
            return lambda: ~survivors[name]

        later = restart_optimizers(
            trainer,
            {parameter: member(name) for name, parameter in named_parameters(pl_module) if name in report.redrawn},
            optimizer=settings.optimizer,
            lr_schedule=settings.lr_schedule,
            epochs=self.policy.horizon(generation),
        )
        if settings.schedule is not None:
            scaled = clock.generation if settings.lr_schedule == "continue" else None
            settings.schedule.scale(trainer, generation, since=scaled, later=later)
        self.split.forget_steps()  # not before: a checkpoint in the middle of all this begins it again
        restart_neighbours(trainer)
        clock.open_next(trainer.current_epoch, trainer.global_step)
        self.opening = False
        _tell(trainer, pl_module, "on_generation_start", generation)
        self.records.open_generation()
        of_all = "" if self.plan is None or self.plan.generations is None else f" of {self.plan.generations}"
        redrawn = "its redraw comes later, by a phase" if postponed else f"{report.total:,} weights redrawn"
        rank_zero_info(f"KnowledgeEvolution: generation {generation}{of_all}, {redrawn}.")
        if report.kept_bare and generation == 2:
            rank_zero_info(
                "KnowledgeEvolution: never redrawn, because nothing says how their first values were drawn: "
                f"{', '.join(report.kept_bare)}."
            )

    def _redraw(
        self, trainer: Trainer, pl_module: LightningModule, sets: Sequence[RedrawSet], generation: int
    ) -> RedrawReport:
        settings = self.settings
        return redraw_sets(
            pl_module,
            sets,
            generation,
            seed=self.split.seed,
            reset=settings.reset,
            norm=settings.norm,
            exclude=settings.exclude,
            only=optimized(trainer, pl_module),
        )

    def gather(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Collect what every rank has of its own while all are together: a checkpoint may be asked of one alone.

        Args:
            trainer: The Trainer.
            pl_module: The module.
        """
        if self.settings.split.listens:
            self.split.activity.collect(trainer, pl_module)
        self.rng.gather()

    def end_validation(
        self, trainer: Trainer, pl_module: LightningModule, dense: dict[str, float], fit: dict[str, float]
    ) -> None:
        """Keep the scores of a validation: a checkpoint that is written next must hold them.

        Args:
            trainer: The Trainer.
            pl_module: The module.
            dense: Metrics of the dense network.
            fit: Metrics of the fit hypothesis.
        """
        self.records.remember_scores(trainer, dense, fit)
        self.rng.end_validation()
        self.gather(trainer, pl_module)

    def end_epoch(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the generation if the policy says that it ends; changes no weight.

        Args:
            trainer: The Trainer at the end of an epoch.
            pl_module: The module.
        """
        self.records.end_epoch(trainer)
        self._count_epoch(trainer, pl_module, self.records.metrics)

    def _count_epoch(self, trainer: Trainer, pl_module: LightningModule, metrics: dict[str, float]) -> None:
        """Count an epoch and close the generation if it ends."""
        clock, policy = self.clock, self.policy
        clock.epochs += 1
        over = clock.epochs >= self.horizon
        ends = over
        if not isinstance(policy, FixedLength):
            # The first rank decides for all: metrics that are not reduced differ from rank to rank.
            ends = bool(
                trainer.strategy.broadcast(policy.ends(clock.generation, clock.epochs, self.records.own_metrics))
            )
        if not ends:
            return
        clock.closed = clock.generation
        done = bool(self.settings.stop_at) and reached(self.settings.stop_at, metrics)
        done = bool(trainer.strategy.broadcast(done)) if self.settings.stop_at else False
        self._record(trainer, pl_module, "stop_at" if done else "length" if over else policy.reason)
        self.records.log(trainer)
        last = self.plan is not None and self.plan.generations is not None and clock.closed >= self.plan.generations
        # A run whose length is that of its generations ends by itself.
        shorter = trainer.max_epochs == -1 or not isinstance(policy, FixedLength)
        self._over = done or (last and shorter)
        trainer.should_stop = trainer.should_stop or self._over

    def finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record a generation that the end of the run cut short, and what ended it.

        Args:
            trainer: The Trainer at the end of the training.
            pl_module: The module.
        """
        unfinished = not self.clock.redraw_is_due and trainer.global_step > self.clock.first_step
        if early_stopping_fired(trainer, since=self.clock.first_epoch):
            self._record(trainer, pl_module, "early_stopping")
        elif unfinished:
            cut = 0 <= trainer.max_steps <= trainer.global_step
            ended = "max_steps" if cut else "max_time" if time_is_up(trainer) else "stopped"
            self._record(trainer, pl_module, ended)

    def _record(self, trainer: Trainer, pl_module: LightningModule, ended: str) -> None:
        assert self.split.mask is not None
        self.records.write(trainer, pl_module, self.split.mask, self.clock, ended)


def _tell(trainer: Trainer, pl_module: LightningModule, hook: str, generation: int) -> None:
    """Tell module and data module, if they ask by a method of that name, of a generation that ends or starts."""
    for listener in (pl_module, trainer.datamodule):
        if hasattr(listener, hook):
            getattr(listener, hook)(generation)
