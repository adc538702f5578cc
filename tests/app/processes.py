"""`ke-train` in processes that may be killed, forked from one that has imported everything."""

import csv
import json
import multiprocessing
import os
import signal
import sys
from pathlib import Path

import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger

from lightning_ke.app.train import main

# Two epochs of three batches in each of two generations, none of them like another.
TINY = [
    "experiment=smoke",
    "generations.count=2",
    "generations.epochs=2",
    "scheduler.factory.warmup=0",
    "datamodule.batch_size=16",
    "trainer.limit_train_batches=3",
    "trainer.limit_val_batches=2",
    "trainer.limit_test_batches=2",
    "trainer.enable_progress_bar=false",
]


def die_once(folder):
    """Be killed as a cluster kills, but only the first time."""
    mark = Path(folder) / "died"
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


class DiesInBatch(Callback):
    """Dies in the middle of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, trainer, *_):
        if trainer.current_epoch == self.epoch and trainer.global_step % 3 == 2:
            die_once(trainer.default_root_dir)


class DiesInRow(CSVLogger):
    """Dies with the epoch's checkpoint written and the epoch's own row not yet."""

    def log_metrics(self, metrics, step=None):
        if "train_loss" in metrics and metrics["epoch"] == 1:
            die_once(self.save_dir)
        super().log_metrics(metrics, step)


DEATHS = {
    "batch": [f"+callbacks.die._target_={__name__}.DiesInBatch", "+callbacks.die.epoch=2"],
    "row": [f"logger.csv._target_={__name__}.DiesInRow"],
}


def ke_train(folder, *arguments):
    """Run `ke-train` in a folder; returns its exit code, negative for a signal, and what it printed."""
    # Forked from a server that has imported all this and trained nothing: autograd does not survive a plain fork.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "lightning_ke.app.experiment"])
    log = Path(folder) / "printed.txt"
    process = context.Process(target=_run, args=(folder, arguments, log))
    process.start()
    process.join()
    return process.exitcode, log.read_text()


def _run(folder, arguments, log):
    os.chdir(folder)
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    sys.argv = ["ke-train", *arguments]
    main()


def results(folder):
    """What a run came to, without the times."""
    content = json.loads((folder / "results.json").read_text())
    del content["seconds"]
    for record in content["history"]:
        del record["seconds"]
    return content


def history_rows(folder):
    """The rows of the history's file, without the times."""
    with (folder / "log" / "ke_history.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def differences(one, other):
    """What is not the same in two finished runs that should be equal bit for bit."""
    found = [
        name for name in ("tables.md", "log/metrics.csv") if (one / name).read_text() != (other / name).read_text()
    ]
    if results(one) != results(other):
        found.append("results.json")
    if history_rows(one) != history_rows(other):
        found.append("ke_history.csv")
    for name in ("last", "best-dense", "best-fit"):
        a, b = (torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True) for run in (one, other))
        same = all(torch.equal(value, b["state_dict"][key]) for key, value in a["state_dict"].items())
        if not same or a["global_step"] != b["global_step"]:
            found.append(f"{name}.ckpt")
    files = [{path.relative_to(run) for path in run.rglob("*")} - {Path("died")} for run in (one, other)]
    return found + [str(path) for path in files[0] ^ files[1]]
