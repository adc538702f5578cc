"""When the mask is drawn: at once if all is known, else when the training has shown what the split needs to know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning_ke.capture import CallRecorder, call_of_example

if TYPE_CHECKING:
    from lightning_ke.compatibility import LightningModule, Trainer
    from lightning_ke.run.evolution import EvolutionRun


class FirstDraw:
    """Draws the mask of a run as early as its split allows, and at the latest before the first step changes a weight.

    A split that follows channels must know how the network is run: an example input says so, else the first real batch
    is listened to. One that scores weights by their gradients waits for those of the first step.

    Args:
        run: The run, its mask not drawn yet or about to be taken up from a checkpoint.
    """

    def __init__(self, run: EvolutionRun) -> None:
        self._run = run
        self._recorder: CallRecorder | None = None

    def begin(self, trainer: Trainer, pl_module: LightningModule, example_input: Any) -> None:
        """Draw the mask, or listen to how the network is run if nothing says so yet.

        Args:
            trainer: The Trainer, its optimizers set up.
            pl_module: The module.
            example_input: What the network is run with; None takes the module's `example_input_array`.

        Raises:
            ValueError: If the network's weights cannot be split.
        """
        run, settings = self._run, self._run.settings
        example = example_input if example_input is not None else pl_module.example_input_array
        if example is not None and settings.split.needs_calls:
            # As Lightning itself hands an example input to a network of any precision, on any device.
            example = trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(example))
            run.split.calls = (call_of_example(pl_module, example, settings.target),)
        run.split.take_up(pl_module, run.clock.generation, resumed=run.resumed)
        if run.split.mask is not None:
            return
        run.split.check(pl_module)
        if settings.split.needs_calls and not run.split.calls:
            self._recorder = CallRecorder(pl_module, settings.target)
        elif settings.split.step_score is None:
            run.draw(trainer, pl_module)

    def hear(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the mask if what has run by now shows how the network is run.

        Args:
            trainer: The Trainer.
            pl_module: The module.
        """
        if self._recorder is not None and self._recorder.calls and self._recorder.target_has_run:
            self._take(self._recorder, trainer, pl_module)

    def _take(self, recorder: CallRecorder, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the mask from what has run, unless the split needs gradients."""
        self._run.split.calls, self._recorder = recorder.close(), None
        if self._run.settings.split.step_score is None:
            self._run.draw(trainer, pl_module)

    def before_step(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the mask if it is not drawn yet.

        Args:
            trainer: The Trainer.
            pl_module: The module, with the gradients of its next step.

        Raises:
            ValueError: If the network has not run before its first optimizer step.
        """
        if self._run.split.mask is not None:
            return
        if self._recorder is not None and self._recorder.calls:
            self._take(self._recorder, trainer, pl_module)  # a target that has not run is refused by the draw
        if self._recorder is not None:
            raise ValueError(
                f"Expected {type(pl_module).__name__} to run its network before the first optimizer step so that it "
                "can be traced, but neither its `forward` nor a submodule with weights was called outside of "
                "`torch.func` (`vmap`, `grad`). Give `KnowledgeEvolution(example_input=...)`."
            )
        if self._run.split.mask is None:
            self._run.draw(trainer, pl_module)  # a split that needs gradients has waited for them

    def check_steps(self, pl_module: LightningModule) -> None:
        """Refuse an epoch whose optimizer steps were hidden from Lightning, if something waits for them.

        Args:
            pl_module: The module at the end of an epoch.

        Raises:
            ValueError: If the mask is not drawn yet, or if a phase changes gradients of manual optimization.
        """
        waiting = "by which the mask is drawn" if self._run.split.mask is None else ""
        if not pl_module.automatic_optimization and (untold := self._run.phases.untold):
            waiting = f"whose gradients {untold[0]!r} changes"
        if waiting:
            raise ValueError(
                f"Expected an epoch of {type(pl_module).__name__} to run its network and to take an optimizer step, "
                f"{waiting}, but Lightning has seen none. With manual optimization step what `self.optimizers()` "
                "returns, not `use_pl_optimizer=False`."
            )

    def close(self) -> None:
        """Listen no longer; also when something fails."""
        if self._recorder is not None:
            self._recorder.close()
            self._recorder = None
