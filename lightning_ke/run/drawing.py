"""The mask of a run: drawn before the first step, again when the split says so, and taken up from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lightning_utilities.core.rank_zero import rank_zero_info
from torch import Tensor

from lightning_ke.activity import ActivityGatherer
from lightning_ke.flow.calls import record_calls, replay_calls
from lightning_ke.gathering import ScoreGatherer
from lightning_ke.keyed_rng import keyed_generator
from lightning_ke.masks import Mask, is_digest, saved_digests
from lightning_ke.naming import named_parameters
from lightning_ke.redrawing import redraw_sets, redrawable
from lightning_ke.rehearsal import rehearse
from lightning_ke.settings import Settings
from lightning_ke.sharding import has_shards, settle
from lightning_ke.splits import Call, RedrawSet, SplitContext, check_splittable, draw_checked

if TYPE_CHECKING:
    from lightning_ke.compatibility import LightningModule, Trainer


#: What to say where a mask is wanted and there is none.
NOT_DRAWN = (
    "Expected the mask to be drawn, but this process has not trained. Call `trainer.fit` first. If it has trained in "
    "processes that are gone (`ddp_spawn`, `ddp_notebook`), a checkpoint holds what they knew: `load_mask(path)`, then "
    "`extract_slim(module, mask)`."
)


class RunMask:
    """What is fit in a run, and what its split has seen of the training.

    Args:
        settings: What the user asked for.
        seed: Seed of mask and redrawn values, the same on all ranks.

    Attributes:
        mask: Which weights are fit, None until it is drawn.
        survivors: What the last redraw left alone, None before the first.
        calls: How the network is run, as far as that is known.
        seed: The seed.
        activity: What a split that listens to the network has heard.
    """

    def __init__(self, settings: Settings, seed: int) -> None:
        self.mask: Mask | None = None
        self.survivors: Mask | None = None
        self.calls: tuple[Call, ...] = ()
        self.seed = seed
        self._settings = settings
        self.activity = ActivityGatherer()
        self._gatherer = ScoreGatherer(settings.split.step_score)
        self._digests: dict[str, str] | None = None

    def check(self, pl_module: LightningModule) -> None:
        """Refuse a network whose weights cannot be split.

        Args:
            pl_module: The module.
        """
        check_splittable(self._context(pl_module))

    def draw(self, trainer: Trainer, pl_module: LightningModule, *, postponed: bool = False) -> None:
        """Draw the mask, before the first optimizer step.

        Args:
            trainer: The Trainer, its optimizers set up.
            pl_module: The module, its weights initialised.
            postponed: Whether a phase will put the redraws off.

        Raises:
            ValueError: If there would be nothing to redraw, or if what is put off is redrawn in several ways.
        """
        settle(pl_module)
        settings, split, context = self._settings, self._settings.split, self._context(pl_module)
        mask = draw_checked(split, context)
        survivors, sets = split.survivors(mask, context), split.redraws(mask, context)
        if len(sets) > 1 and postponed:
            raise ValueError(
                f"Expected a split that redraws in one way for a phase that puts the redraw off, but {split.name!r} "
                f"has {len(sets)} ways. Use another split, or leave phase 'dropped' out."
            )
        free = redrawable(pl_module, survivors, settings.norm, settings.exclude, optimized(trainer, pl_module))
        if not free and not split.may_keep_all:
            raise ValueError(
                f"Expected split {split.name!r} to leave something to redraw, but every weight of the reset "
                "hypothesis is frozen, excluded or in no optimizer, or belongs to a module without `reset_parameters`, "
                "of which nothing says how it is drawn. Unfreeze weights, change `target` or `exclude`, or give such a "
                "module a `reset_parameters`."
            )
        # Refuses what cannot be redrawn (a pattern that matches nothing, norms of a split that has none) before the
        # training and not a generation later; the reset that redraws nothing leaves every weight alone.
        redraw_sets(pl_module, sets, 1, reset="none", norm=settings.norm, exclude=settings.exclude)
        varies = split.last_draw > 1 or split.survivors_vary
        settings.reset.remember(pl_module, None if varies else survivors)
        if settings.reset.ready:
            rehearse(pl_module, free, settings.reset)
        self.mask = mask
        rank_zero_info(f"KnowledgeEvolution: {split!r}, {mask.fit_share:.1%} of the weights are fit.")

    def take_up(self, pl_module: LightningModule, generation: int, *, resumed: bool) -> None:
        """Draw the checkpoint's mask again where no rank can hold, or has saved, all bits of it; prove that it is it.

        Args:
            pl_module: The module, its weights in their places.
            generation: Number of the generation in progress.
            resumed: Whether the run goes on from a checkpoint.

        Raises:
            ValueError: If another mask is drawn.
        """
        if resumed and self._digests is None and self.mask is not None and has_shards(pl_module):
            self._digests = self.mask.digests() or None  # each rank of a sharded network keeps its own part of the bits
        if self._digests is None:
            return
        settle(pl_module)
        split = self._settings.split
        mask = draw_checked(split, self._context(pl_module, int(min(generation, split.last_draw))))
        if mask.digests() != self._digests:
            raise ValueError(
                f"Expected split {split.name!r} to draw the checkpoint's mask again from its seed, but it draws "
                "another one. Resume with the versions of torch and lightning_ke that wrote the checkpoint."
            )
        self.mask, self._digests = mask, None

    def observe_step(self, pl_module: LightningModule, optimizer: Any, epoch: int) -> None:
        """Let a split that scores weights by the training's own steps look at one.

        Args:
            pl_module: The module, its gradients reduced over all ranks.
            optimizer: The optimizer that is about to take the step.
            epoch: The Trainer's epoch.
        """
        self._gatherer.step(pl_module, optimizer, epoch)

    def open_generation(
        self, trainer: Trainer, pl_module: LightningModule, generation: int
    ) -> tuple[Mask, Sequence[RedrawSet]]:
        """Draw the mask anew if the split does, and say what survives the redraw that opens a generation.

        Args:
            trainer: The Trainer; all ranks are together.
            pl_module: The module.
            generation: Number of the generation that opens.

        Returns:
            What survives, and what is redrawn in which way.

        Raises:
            ValueError: If the split listens to the network and nothing was heard.
        """
        assert self.mask is not None
        split = self._settings.split
        heard = self.activity.collect(trainer, pl_module) if split.listens else {}
        if split.listens and not heard:
            raise ValueError(
                f"Expected to hear how the layers of {type(pl_module).__name__} are run in training, as split "
                f"{split.name!r} needs it, but none was. Do not compile the network, and call its layers as modules."
            )
        context = self._context(pl_module, generation, heard)
        if generation <= split.last_draw:
            self.mask = draw_checked(split, context)
        self.survivors = split.survivors(self.mask, context)
        return self.survivors, split.redraws(self.mask, context)

    def forget_steps(self) -> None:
        """Forget what the split has seen of the generation before."""
        self._gatherer.clear()
        self.activity.clear()

    def state_dict(self) -> dict[str, Any]:
        """Mask, seed and what the split has seen, in plain types."""
        return {
            "seed": self.seed,
            "mask": None if self.mask is None else self.mask.state_dict(),
            "gathered": self._gatherer.state_dict(),
            "activity": self.activity.state_dict(),
            "calls": list(record_calls(self.calls)) if self._settings.split.needs_calls else [],
        }

    def load_state_dict(self, state: Mapping[str, Any], *, rank: int = 0) -> None:
        """Take up what `state_dict` returned.

        Args:
            state: The state.
            rank: Number of this rank.
        """
        self.seed = state["seed"]
        self.mask = self._digests = None
        if state["mask"] is not None and is_digest(state["mask"]):
            self._digests = saved_digests(state["mask"])
        elif state["mask"] is not None:
            self.mask = Mask.from_state_dict(state["mask"])
        self._gatherer.load_state_dict(state["gathered"])
        self.activity.load_state_dict(state["activity"], rank=rank)
        self.calls = tuple(replay_calls(state["calls"], keyed_generator("calls")))

    def _context(
        self, pl_module: LightningModule, generation: int = 1, heard: Mapping[str, Tensor] | None = None
    ) -> SplitContext:
        scores = self._gatherer.scores if generation > 1 else None
        target, heard = self._settings.target, heard or {}
        return SplitContext(pl_module, self.calls, target, self.seed, generation, scores, heard)


def optimized(trainer: Trainer, pl_module: LightningModule) -> frozenset[str]:
    """Canonical names of the parameters that an optimizer holds.

    Args:
        trainer: The Trainer, its optimizers set up.
        pl_module: The module.
    """
    held = {id(p) for optimizer in trainer.optimizers for group in optimizer.param_groups for p in group["params"]}
    return frozenset(name for name, parameter in named_parameters(pl_module) if id(parameter) in held)
