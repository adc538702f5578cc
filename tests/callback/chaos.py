"""Kills a real training process at random moments, again and again, and compares what comes out: `nox -s chaos`.

Each run trains some generations in a process of its own. A parent kills it by SIGKILL at a random moment, another
process takes the newest whole checkpoint up, and so on until the training is done; the final state must then be that
of a training that nobody disturbed, bit for bit. The phase in which a process died is read from a mapped file that it
leaves behind. Saving, redrawing and the moment before are drawn out by short sleeps, so that random moments fall into
them, too.
"""

from __future__ import annotations

import argparse
import io
import itertools
import mmap
import multiprocessing
import random
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torchdata.stateful_dataloader import StatefulDataLoader

from lightning_ke import KnowledgeEvolution
from lightning_ke.resets import get_reset
from tests.callback.modules import Classifier, data, make_trainer, train_loader, val_loader

PHASES = ("batch", "validation", "saving", "closed", "redraw")
EPOCHS, LENGTH = 12, 2

#: What is trained, run after run: arguments of the callback, of the checkpoints, and whether the loader is resumable.
VARIANTS: tuple[tuple[dict[str, Any], dict[str, Any], bool], ...] = (
    ({"split": "kels"}, {"every_n_train_steps": 1}, True),
    ({"split": "wels"}, {"save_on_train_epoch_end": True}, False),
    ({"split": "kels", "optimizer": "clear"}, {"every_n_train_steps": 3}, False),
    ({"split": "random-each-generation"}, {"save_on_train_epoch_end": False}, False),
    ({"split": "kels", "optimizer": "keep", "lr_schedule": "continue"}, {"every_n_train_steps": 2}, True),
)


class Trace:
    """Where a process is, in a file that outlives it."""

    _FORMAT = struct.Struct("<qq")

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(self._FORMAT.size))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), self._FORMAT.size)

    def enter(self, phase: str | None) -> None:
        """Write down that a phase begins, None for all that is none of them."""
        self._map[:] = self._FORMAT.pack(self.moment + 1, -1 if phase is None else PHASES.index(phase))

    @property
    def moment(self) -> int:
        return int(self._FORMAT.unpack(self._map[:])[0])

    @property
    def phase(self) -> str:
        index = self._FORMAT.unpack(self._map[:])[1]
        return "elsewhere" if index < 0 else PHASES[index]


class Traced(Callback):
    """Writes down batches and validations."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace

    def on_train_batch_start(self, *_: Any) -> None:
        self.trace.enter("batch")

    def on_train_batch_end(self, *_: Any) -> None:
        self.trace.enter(None)

    def on_validation_batch_start(self, *_: Any) -> None:
        self.trace.enter("validation")

    def on_validation_end(self, *_: Any) -> None:
        self.trace.enter(None)


class TracedEvolution(KnowledgeEvolution):
    """Writes down that a generation is closed and the next one not open yet."""

    trace: Trace

    @property
    def state_key(self) -> str:
        return "KnowledgeEvolution"

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if any(record["last_epoch"] == trainer.current_epoch - 1 for record in self.history):
            self.trace.enter("closed")
            time.sleep(0.05)
        super().on_train_epoch_start(trainer, pl_module)
        self.trace.enter(None)


def traced_reset(trace: Trace) -> Any:
    """The layer's own reset, slowly."""
    reset = get_reset("layer")
    draw = reset.draw

    def slowly(stand_in: Any) -> None:
        trace.enter("redraw")
        time.sleep(0.02)
        draw(stand_in)
        time.sleep(0.02)

    reset.draw = slowly  # type: ignore[method-assign]
    return reset


class TracedSaving(TorchCheckpointIO):
    """Writes a checkpoint slowly and, as on many a file system, in place."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self.trace = trace

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        content = io.BytesIO()
        torch.save(checkpoint, content)
        size = -(-content.tell() // 4)
        self.trace.enter("saving")
        with Path(path).open("wb") as file:
            for start in range(0, content.tell(), size):
                file.write(content.getvalue()[start : start + size])
                file.flush()
                time.sleep(0.005)
        self.trace.enter(None)


def train(folder: Path, variant: int, seed: int, checkpoint: Path | None) -> None:
    """Train to the end and leave the final state behind."""
    seed_everything(seed, verbose=False)
    arguments, saving, resumable = VARIANTS[variant]
    trace = Trace(folder / "trace")
    callback = TracedEvolution(epochs_per_generation=LENGTH, seed=0, reset=traced_reset(trace), **arguments)
    callback.trace = trace
    saver = ModelCheckpoint(folder, filename="{epoch}-{step}", save_top_k=-1, **saving)
    module = Classifier()
    trainer = make_trainer(
        folder,
        max_epochs=EPOCHS,
        callbacks=[callback, saver, Traced(trace)],
        enable_checkpointing=True,
        plugins=[TracedSaving(trace)],
    )
    loader = StatefulDataLoader(data(), batch_size=8, shuffle=True) if resumable else train_loader()
    trainer.fit(module, loader, val_loader(), ckpt_path=checkpoint)
    assert callback.mask is not None
    final = {
        "weights": module.state_dict(),
        "optimizer": trainer.optimizers[0].state_dict(),
        "schedule": trainer.lr_scheduler_configs[0].scheduler.state_dict(),
        "mask": callback.mask.state_dict(),
        "history": [{key: value for key, value in record.items() if key != "seconds"} for record in callback.history],
        "random": torch.rand(4),
    }
    torch.save(final, folder / "final.pt")


def in_a_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Start a process that has imported everything and trained nothing: a fork of one that has trained would hang."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.callback.chaos"])
    process = context.Process(target=function, args=arguments)
    process.start()
    return process


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that can be read; those that were cut off are moved out of the way."""
    for path in sorted(folder.glob("*.ckpt"), key=lambda p: p.stat().st_mtime_ns, reverse=True):
        try:
            torch.load(path, weights_only=True)
        except (RuntimeError, OSError, EOFError):
            path.rename(path.with_suffix(".cut-off"))
            continue
        return path
    return None


def equal(one: Any, other: Any) -> bool:
    """Bit for bit, whatever is nested."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def chaotic_run(folder: Path, variant: int, kills: int, dice: random.Random) -> tuple[Counter[str], list[str]]:
    """Train, killed so many times; return in which phases, and what of the final state is not as it should be."""
    for name in ("whole", "killed"):
        (folder / name).mkdir(parents=True)
    whole = in_a_process(train, folder / "whole", variant, 0, None)
    killed, hits = folder / "killed", Counter[str]()
    while True:
        checkpoint = last_whole_checkpoint(killed)
        if sum(hits.values()) >= kills:
            checkpoint_of_last_attempt = checkpoint
            break
        trace = Trace(killed / "trace")
        # Without a checkpoint the run begins again; with one, nothing but the checkpoint may decide what comes.
        seed = 0 if checkpoint is None else dice.randrange(1, 1000)
        process = in_a_process(train, killed, variant, seed, checkpoint)
        moment = trace.moment + dice.randrange(1, 40)
        while process.is_alive() and trace.moment < moment:
            time.sleep(0.002)
        time.sleep(dice.random() * 0.02)
        if process.is_alive():
            process.kill()
        process.join()
        if process.exitcode == 0:  # it was faster; begin again from an early checkpoint
            for path in sorted(killed.glob("*.ckpt"), key=lambda p: p.stat().st_mtime_ns)[1:]:
                path.unlink()
            continue
        if process.exitcode != -signal.SIGKILL:
            return hits, [f"a process failed with exit code {process.exitcode}"]
        hits[trace.phase] += 1
    last = in_a_process(train, killed, variant, 1000, checkpoint_of_last_attempt)
    for process in (whole, last):
        process.join()
        if process.exitcode != 0:
            return hits, [f"a process failed with exit code {process.exitcode}"]
    expected, final = (torch.load(folder / name / "final.pt", weights_only=True) for name in ("whole", "killed"))
    return hits, [key for key in expected if not equal(expected[key], final[key])]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="nox -s chaos --", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="how many times a process is killed, in all")
    parser.add_argument("--runs", type=int, default=5, help="over how many trainings")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args(arguments)
    dice, hits, wrong, began = random.Random(options.seed), Counter[str](), 0, time.monotonic()
    columns = (*PHASES, "elsewhere")
    print("run  split                   kills  " + "  ".join(columns) + "  final state", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for run in itertools.count():
            # More runs than asked for only if a phase has not been hit by then.
            if run >= options.runs and (all(hits[phase] for phase in PHASES) or run >= 3 * options.runs):
                break
            variant = run % len(VARIANTS)
            found, different = chaotic_run(Path(folder) / str(run), variant, -(-options.kills // options.runs), dice)
            hits += found
            wrong += bool(different)
            counts = "  ".join(f"{found[name]:{len(name)}}" for name in columns)
            verdict = "the same, bit for bit" if not different else f"DIFFERENT: {', '.join(different)}"
            split = VARIANTS[variant][0]["split"]
            print(f"{run + 1:3}  {split:22}  {sum(found.values()):5}  {counts}  {verdict}", flush=True)
    counts = "  ".join(f"{hits[name]:{len(name)}}" for name in columns)
    print(f"all  {'':22}  {sum(hits.values()):5}  {counts}  {wrong} different", flush=True)
    missed = [phase for phase in PHASES if not hits[phase]]
    if missed:
        print(f"Never hit: {', '.join(missed)}.", flush=True)
    print(f"{time.monotonic() - began:.0f} s, seed {options.seed}", flush=True)
    return 1 if wrong or missed else 0


if __name__ == "__main__":
    # As a module of its own name: the processes must not import this file once more as their main program.
    from tests.callback import chaos

    sys.exit(chaos.main())
