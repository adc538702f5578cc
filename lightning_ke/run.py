"""One run of Knowledge Evolution: what is known of it, how its generations open and close, how it is saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor

from lightning_ke.compatibility import early_stopping_fired, restart_early_stopping
from lightning_ke.endings import FixedLength, GenerationEnd, reached
from lightning_ke.flow.calls import record_calls, replay_calls
from lightning_ke.gathering import ScoreGatherer
from lightning_ke.generations import Clock, Plan
from lightning_ke.history import weight_magnitudes
from lightning_ke.keyed_rng import keyed_generator
from lightning_ke.masks import Mask, is_digest
from lightning_ke.naming import named_parameters
from lightning_ke.phases import PhaseRunner, Scene
from lightning_ke.redrawing import redraw, redrawable
from lightning_ke.report.wandb import GenerationTables, describe_run
from lightning_ke.restart import restart_optimizers, too_long_horizons
from lightning_ke.rng import capture_rng, restore_rng
from lightning_ke.settings import Settings
from lightning_ke.sharding import has_shards, settle
from lightning_ke.splits import Call, SplitContext, check_splittable, draw_checked

if TYPE_CHECKING:
    from lightning_ke.compatibility import LightningModule, Trainer

_STATE_VERSION = 1


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
        mask: Which weights are fit, None until it is drawn.
        calls: How the network is run, as far as that is known.
        history: One record for each generation.
        resumed: True if the run goes on from a checkpoint.
    """

    def __init__(
        self, settings: Settings, policy: GenerationEnd, plan: Plan | None, seed: int, world_size: int, rank: int
    ) -> None:
        self.settings = settings
        self.policy = policy
        self.plan = plan
        self.seed = seed
        self.clock = Clock()
        self.mask: Mask | None = None
        self.calls: tuple[Call, ...] = ()
        self.history: list[dict[str, Any]] = []
        self.resumed = False
        self.phases = PhaseRunner(settings.phases)
        self._survivors: Mask | None = None
        self._data_generation = 0  # for which the data module was last told what its batches are like
        self._gatherer = ScoreGatherer(settings.split.step_score)
        self._tables = GenerationTables()
        self._scores: dict[str, Any] = {}
        self._rates: list[float] = []
        self._world_size = world_size
        self._rank = rank
        self._rng: list[dict[str, Any]] = []
        self._held_rng: dict[str, Any] | None = None  # what a validation or a redraw in progress began with
        self._validating = self._repeats_validation = False
        self._digests: dict[str, str] | None = None

    # The mask -------------------------------------------------------------------------------------------------------

    def check(self, pl_module: LightningModule) -> None:
        """Refuse a network whose weights cannot be split.

        Args:
            pl_module: The module.
        """
        check_splittable(self._context(pl_module))

    def draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the mask, before the first optimizer step.

        Args:
            trainer: The Trainer, its optimizers set up.
            pl_module: The module, its weights initialised.

        Raises:
            ValueError: If there would be nothing to redraw.
        """
        settle(pl_module)
        context = self._context(pl_module)
        mask = draw_checked(self.settings.split, context)
        survivors = self.settings.split.survivors(mask, context)
        free = redrawable(
            pl_module, survivors, self.settings.norm, self.settings.exclude, _optimized(trainer, pl_module)
        )
        if not free:
            raise ValueError(
                f"Expected split {self.settings.split.name!r} to leave something to redraw, but every weight of the "
                "reset hypothesis is frozen, excluded or in no optimizer. Unfreeze weights, or change `target` or "
                "`exclude`."
            )
        # Refuses what cannot be redrawn (a pattern that matches nothing, norms of a split that has none) before the
        # training and not a generation later; the reset that redraws nothing leaves every weight alone.
        redraw(pl_module, survivors, 1, reset="none", norm=self.settings.norm, exclude=self.settings.exclude)
        varies = self.settings.split.last_draw > 1 or self.settings.split.survivors_vary
        self.settings.reset.remember(pl_module, None if varies else survivors)
        self.phases.remember(pl_module)
        self.mask = mask
        rank_zero_info(f"KnowledgeEvolution: {self.settings.split!r}, {mask.fit_share:.1%} of the weights are fit.")

    def take_up_mask(self, pl_module: LightningModule) -> None:
        """Draw the checkpoint's mask again where no rank can hold, or has saved, all bits of it; prove that it is it.

        Args:
            pl_module: The module, its weights in their places.

        Raises:
            ValueError: If another mask is drawn.
        """
        if self.resumed and self._digests is None and self.mask is not None and has_shards(pl_module):
            self._digests = self.mask.digests() or None  # each rank of a sharded network keeps its own part of the bits
        if self._digests is None:
            return
        settle(pl_module)
        split = self.settings.split
        mask = draw_checked(split, self._context(pl_module, int(min(self.clock.generation, split.last_draw))))
        if mask.digests() != self._digests:
            raise ValueError(
                f"Expected split {split.name!r} to draw the checkpoint's mask again from its seed, but it draws "
                "another one. Resume with the versions of torch and lightning_ke that wrote the checkpoint."
            )
        self.mask, self._digests = mask, None

    @property
    def horizon(self) -> int:
        """The most epochs that the generation in progress may last."""
        return self.policy.horizon(self.clock.generation)

    def observe_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Let a split that scores weights by the training's own steps look at one.

        Args:
            trainer: The Trainer.
            pl_module: The module, its gradients reduced over all ranks.
            optimizer: The optimizer that is about to take the step.
        """
        if self.phases:
            self.phases.before_step(self._scene(trainer, pl_module))
        if self.settings.split.step_score is None:
            return  # this runs at every step, for splits that never look, too
        # Only in an epoch that can be the generation's last.
        if not isinstance(self.policy, FixedLength) or self.clock.epochs + 1 >= self.horizon:
            self._gatherer.step(pl_module, optimizer, trainer.current_epoch)

    def after_step(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let phases put back what a step must not have changed.

        Args:
            trainer: The Trainer.
            pl_module: The module.
        """
        if self.phases:
            self.phases.after_step(self._scene(trainer, pl_module))

    def _scene(self, trainer: Trainer, pl_module: LightningModule) -> Scene:
        return Scene(pl_module, trainer.optimizers, self._survivors, self.settings.target, self.clock.generation)

    def set_data(self, trainer: Trainer) -> None:
        """Tell the data module which generation's batches come next.

        Args:
            trainer: The Trainer, its loaders not yet built.
        """
        if self.settings.schedule is not None:
            clock = self.clock
            self._data_generation = clock.closed + 1 if clock.redraw_is_due else clock.generation
            self.settings.schedule.set_data(trainer, self._data_generation)

    # Opening and closing generations --------------------------------------------------------------------------------

    def begin(self, trainer: Trainer) -> None:
        """Start the wall clock; warn of schedules that are longer than a generation.

        Args:
            trainer: The Trainer at the beginning of the training.

        Raises:
            ValueError: If it goes on with a run that was none of this callback's.
        """
        if not self.resumed and trainer.current_epoch > 0:
            raise ValueError(
                "Expected a checkpoint of a run with KnowledgeEvolution, but it holds no state of one. Load its "
                "weights into the module and begin a new run (`load_from_checkpoint`, then `fit` without `ckpt_path`)."
            )
        if self.settings.lr_schedule == "restart" and self.plan is not None and self.plan.generations != 1:
            for schedule in too_long_horizons(trainer, self.horizon):
                rank_zero_warn(
                    f"KnowledgeEvolution: {schedule}. It is restarted as it is written and never reaches its end; "
                    "build it from `trainer.max_epochs` or `trainer.estimated_stepping_batches` to fit the generation."
                )
        if trainer.is_global_zero:
            generations = None if self.plan is None else self.plan.generations
            settings = self.settings
            redrawing = {"reset": settings.reset.name, "norm": settings.norm, "optimizer": settings.optimizer}
            asked = {**self._identity(), "seed": self.seed, "generations": generations, **redrawing}
            describe_run(trainer.loggers, {**asked, "lr_schedule": settings.lr_schedule})
        self.clock.start()

    def begin_epoch(self, trainer: Trainer, pl_module: LightningModule) -> bool:
        """Redraw the reset hypothesis if a generation is closed, and say whether one was opened.

        Args:
            trainer: The Trainer at the beginning of an epoch.
            pl_module: The module.
        """
        # A checkpoint of an epoch's last batch resumes behind that epoch's end, which is made up for here.
        while not self.clock.redraw_is_due and trainer.current_epoch > self.clock.first_epoch + self.clock.epochs:
            self._count_epoch(trainer, pl_module, None)
        opened = self.clock.redraw_is_due
        if opened:
            # A signal of the cluster may ask for a checkpoint in the middle of it, from which all of it is redone.
            self._held_rng = capture_rng()
            self._open_generation(trainer, pl_module)
            self._held_rng = None
        if self.phases:
            self.phases.begin_epoch(self._scene(trainer, pl_module), self.clock.epochs, self.horizon)
        if len(self._rates) <= self.clock.epochs:
            groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
            self._rates.append(max((float(group["lr"]) for group in groups if "lr" in group), default=0.0))
        return opened

    def _open_generation(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self.mask is not None
        settle(pl_module)
        settings, clock = self.settings, self.clock
        generation = clock.closed + 1
        self.phases.end_generation(self._scene(trainer, pl_module))
        _tell(trainer, pl_module, "on_generation_end", clock.closed)
        if settings.schedule is not None and self._data_generation != generation:
            settings.schedule.reload(trainer, generation)
            self._data_generation = generation
        context = self._context(pl_module, generation)
        if generation <= settings.split.last_draw:
            self.mask = draw_checked(settings.split, context)
        survivors = self._survivors = settings.split.survivors(self.mask, context)
        report = redraw(
            pl_module,
            survivors,
            generation,
            seed=self.seed,
            reset=settings.reset,
            norm=settings.norm,
            exclude=settings.exclude,
            only=_optimized(trainer, pl_module),
        )

        def member(name: str) -> Callable[[], Tensor]:
            return lambda: ~survivors[name]

        restart_optimizers(
            trainer,
            {parameter: member(name) for name, parameter in named_parameters(pl_module) if name in report.redrawn},
            optimizer=settings.optimizer,
            lr_schedule=settings.lr_schedule,
            epochs=self.policy.horizon(generation),
        )
        if settings.schedule is not None:
            scaled = clock.generation if settings.lr_schedule == "continue" else None
            settings.schedule.scale(trainer, generation, since=scaled)
        self._gatherer.clear()
        restart_early_stopping(trainer)
        clock.open_next(trainer.current_epoch, trainer.global_step)
        _tell(trainer, pl_module, "on_generation_start", generation)
        self._scores, self._rates = {}, []
        of_all = "" if self.plan is None or self.plan.generations is None else f" of {self.plan.generations}"
        rank_zero_info(f"KnowledgeEvolution: generation {generation}{of_all}, {report.total:,} weights redrawn.")
        if report.kept_bare and generation == 2:
            rank_zero_info(
                "KnowledgeEvolution: never redrawn, because nothing says how their first values were drawn: "
                f"{', '.join(report.kept_bare)}."
            )

    def begin_validation(self) -> None:
        """Note that a checkpoint which is written before this validation ends has to begin it again."""
        if self._repeats_validation:
            self.restore_rng()
            self._repeats_validation = False
        self._held_rng, self._validating = capture_rng(), True

    def remember_scores(self, trainer: Trainer, dense: dict[str, float], fit: dict[str, float]) -> None:
        """Keep the scores of a validation: a checkpoint that is written next must hold them.

        Args:
            trainer: The Trainer.
            dense: Metrics of the dense network.
            fit: Metrics of the fit hypothesis.
        """
        self._scores = {"dense": dense, "fit": fit, "epoch": int(trainer.current_epoch)}
        self._held_rng, self._validating = None, False
        self.remember_metrics(trainer)

    def remember_metrics(self, trainer: Trainer) -> None:
        """Keep what others monitor, which Lightning does not save.

        Args:
            trainer: The Trainer at the end of a validation or of an epoch.
        """
        self._scores["metrics"] = {name: float(value) for name, value in trainer.callback_metrics.items()}

    @property
    def metrics(self) -> dict[str, float]:
        """Every metric as it was at the last end of a validation or of an epoch."""
        return dict(self._scores.get("metrics", {}))

    def end_epoch(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the generation if the policy says that it ends; changes no weight.

        Args:
            trainer: The Trainer at the end of an epoch.
            pl_module: The module.
        """
        self.remember_metrics(trainer)
        self._count_epoch(trainer, pl_module, self.metrics)

    def _count_epoch(self, trainer: Trainer, pl_module: LightningModule, metrics: dict[str, float] | None) -> None:
        """Count an epoch and close the generation if it ends; an epoch that is made up for has lost its metrics."""
        clock, policy = self.clock, self.policy
        clock.epochs += 1
        over = clock.epochs >= self.horizon
        ends = over
        if metrics is not None and not isinstance(policy, FixedLength):
            # The first rank decides for all: metrics that are not reduced differ from rank to rank.
            ends = bool(trainer.strategy.broadcast(policy.ends(clock.generation, clock.epochs, metrics)))
        if not ends:
            return
        clock.closed = clock.generation
        done = bool(self.settings.stop_at) and metrics is not None and reached(self.settings.stop_at, metrics)
        done = bool(trainer.strategy.broadcast(done)) if self.settings.stop_at else False
        record = self.record(trainer, pl_module, "stop_at" if done else "length" if over else policy.reason)
        scores = {f"ke/generation_end/dense/{name}": value for name, value in record["dense"].items()}
        scores |= {f"ke/generation_end/fit/{name}": value for name, value in record["fit"].items()}
        if trainer.is_global_zero:
            self._tables.log(trainer.loggers, self.history, scores)
        for logger in trainer.loggers:
            # One call, so that a logger keeps the scores and the generation that they belong to together.
            logger.log_metrics({**scores, "ke/generation": float(clock.generation)}, step=trainer.global_step)
        last = self.plan is not None and self.plan.generations is not None and clock.closed >= self.plan.generations
        # A run whose length is that of its generations ends by itself.
        shorter = trainer.max_epochs == -1 or not isinstance(policy, FixedLength)
        trainer.should_stop = trainer.should_stop or done or (last and shorter)

    def record(self, trainer: Trainer, pl_module: LightningModule, ended: str) -> dict[str, Any]:
        """Write the generation's record, in place of the one that an interrupted run left of it.

        Args:
            trainer: The Trainer.
            pl_module: The module.
            ended: Why the generation ended.
        """
        assert self.mask is not None
        settle(pl_module)
        clock, rates = self.clock, self._rates
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
            "magnitude": weight_magnitudes(pl_module, self.mask),
        }
        self.history = [old for old in self.history if old["generation"] != clock.generation] + [record]
        return record

    def finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record a generation that the end of the run cut short, and what ended it.

        Args:
            trainer: The Trainer at the end of the training.
            pl_module: The module.
        """
        unfinished = not self.clock.redraw_is_due and trainer.global_step > self.clock.first_step
        if early_stopping_fired(trainer):
            self.record(trainer, pl_module, "early_stopping")
        elif unfinished:
            reached = 0 <= trainer.max_steps <= trainer.global_step
            self.record(trainer, pl_module, "max_steps" if reached else "stopped")

    # State ----------------------------------------------------------------------------------------------------------

    def gather_rng(self) -> None:
        """Collect every rank's generators while all ranks are together: a checkpoint may be asked of one alone."""
        if self._world_size > 1:
            states: list[Any] = [None] * self._world_size
            torch.distributed.all_gather_object(states, capture_rng())
            self._rng = states

    def restore_rng(self) -> None:
        """Go on with this rank's random numbers of the checkpoint."""
        if self._rank < len(self._rng):
            restore_rng(self._rng[self._rank])

    def state_dict(self) -> dict[str, Any]:
        """Everything that is needed to continue the run exactly, in plain types."""
        return {
            "version": _STATE_VERSION,
            "settings": self._identity(),
            "seed": self.seed,
            "clock": self.clock.state_dict(),
            "mask": None if self.mask is None else self.mask.state_dict(),
            "scores": dict(self._scores),
            "rates": list(self._rates),
            "history": [dict(record) for record in self.history],
            "policy": self.policy.state_dict(),
            "reset": self.settings.reset.state_dict(),
            "phases": self.phases.state_dict(),
            "gathered": self._gatherer.state_dict(),
            "calls": list(record_calls(self.calls)) if self.settings.split.needs_calls else [],
            "rng": [self._held_rng or capture_rng()] if self._world_size == 1 else list(self._rng),
            "validating": self._validating,
        }

    def load_state_dict(self, state: Mapping[str, Any], *, seed: int | None) -> None:
        """Go on with the run of a checkpoint.

        Args:
            state: What `state_dict` returned.
            seed: The seed that the user asked for, if any.

        Raises:
            ValueError: If the user's settings contradict the run of the checkpoint.
        """
        if state.get("version") != _STATE_VERSION:
            raise ValueError(
                f"Expected a checkpoint with KnowledgeEvolution state version {_STATE_VERSION}, but got version "
                f"{state.get('version')!r}. Resume it with the version of lightning_ke that wrote it."
            )
        asked = self._identity() | ({} if seed is None else {"seed": seed})
        saved = {**state["settings"], "seed": state["seed"]}
        lengths = [settings["epochs_per_generation"] for settings in (asked, saved)]
        if all(isinstance(length, list) for length in lengths):
            # A longer list goes on with the same run, if it agrees about the generations that there have been.
            begun = state["clock"]["generation"]
            asked["epochs_per_generation"], saved["epochs_per_generation"] = (length[:begun] for length in lengths)
        for name, value in asked.items():
            if saved.get(name) != value:
                raise ValueError(
                    f"Expected `{name}={saved.get(name)!r}` as in the checkpoint, but got `{name}={value!r}`. Resume "
                    "with the checkpoint's value (more generations are allowed), or begin a new run without it."
                )
        self.seed = state["seed"]
        self.clock = Clock.from_state_dict(state["clock"])
        self.mask = self._digests = None
        if state["mask"] is not None and is_digest(state["mask"]):
            entries = state["mask"]["entries"].items()
            self._digests = {name: entry["digest"] for name, entry in entries if "digest" in entry}
        elif state["mask"] is not None:
            self.mask = Mask.from_state_dict(state["mask"])
        self.history = [dict(record) for record in state["history"]]
        self.policy.load_state_dict(state["policy"])
        self.phases.load_state_dict(state["phases"])
        self.settings.reset.load_state_dict(state["reset"])
        self._gatherer.load_state_dict(state["gathered"])
        self.calls = tuple(replay_calls(state["calls"], keyed_generator("calls")))
        self._scores, self._rates = dict(state["scores"]), list(state["rates"])
        self._rng, self.resumed = list(state["rng"]), True
        self._repeats_validation = bool(state.get("validating"))
        if self._rng and len(self._rng) != self._world_size:
            rank_zero_info(
                f"KnowledgeEvolution: the checkpoint is of {len(self._rng)} processes, this one of {self._world_size}: "
                "weights, optimizer, schedule, mask, history and the values of later redraws are those of an "
                "uninterrupted run; the order of the data, augmentation and dropout are not."
            )
        self.restore_rng()

    def check_horizon(self) -> None:
        """Refuse schedules that were built before the checkpoint said how long the generation in progress is.

        Raises:
            ValueError: If they were built for a generation of another length.
        """
        first, now = self.policy.horizon(1), self.horizon
        if self.settings.lr_schedule == "restart" and first != now:
            raise ValueError(
                f"Expected generations of one length to resume with ModelParallelStrategy, but the first has {first} "
                f"epochs and generation {self.clock.generation} has {now}: Lightning builds a sharded network's "
                "schedules before it reads the checkpoint. Use `lr_schedule='continue'`, or resume with "
                "`strategy='ddp'`."
            )

    def _identity(self) -> dict[str, Any]:
        """What must not change within a run."""
        epochs = None if self.plan is None else self.plan.epochs
        length = list(epochs) if isinstance(epochs, tuple) else epochs
        schedule = self.settings.schedule
        return {
            **self.settings.split.identity(),
            "target": self.settings.target,
            "epochs_per_generation": length,
            "schedule": None if schedule is None else schedule.identity(),
            "phases": self.phases.identity(),
        }

    def _context(self, pl_module: LightningModule, generation: int = 1) -> SplitContext:
        scores = self._gatherer.scores if generation > 1 else None
        return SplitContext(pl_module, self.calls, self.settings.target, self.seed, generation, scores)


def _tell(trainer: Trainer, pl_module: LightningModule, hook: str, generation: int) -> None:
    """Tell module and data module, if they ask by a method of that name, of a generation that ends or starts."""
    for listener in (pl_module, trainer.datamodule):
        if hasattr(listener, hook):
            getattr(listener, hook)(generation)


def _optimized(trainer: Trainer, pl_module: LightningModule) -> frozenset[str]:
    """Canonical names of the parameters that an optimizer holds."""
    held = {id(p) for optimizer in trainer.optimizers for group in optimizer.param_groups for p in group["params"]}
    return frozenset(name for name, parameter in named_parameters(pl_module) if id(parameter) in held)
