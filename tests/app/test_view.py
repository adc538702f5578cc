"""What a terminal shows, in a terminal (a pseudo-terminal) and in a file."""

import fcntl
import os
import pty
import re
import struct
import termios
from contextlib import suppress
from types import SimpleNamespace

import pytest

from lightning_ke.app import view
from lightning_ke.callback import KnowledgeEvolution
from tests.app.processes import TINY, ke_train


def test_a_file_gets_a_line_for_each_generation(tmp_path):
    code, printed = ke_train(tmp_path, *TINY, "trainer.enable_progress_bar=true", "hydra.run.dir=out")
    assert code == 0, printed
    lines = [line for line in printed.splitlines() if line.startswith("Generation ")]
    score = r"val_acc dense 0\.\d{4}, fit 0\.\d{4}"
    assert re.fullmatch(rf"Generation 1 of 2: {score}; \d+:\d\d min left", lines[0])
    assert re.fullmatch(rf"Generation 2 of 2: {score}", lines[1])
    assert len(lines) == 2
    assert "\r" not in printed
    assert "\x1b" not in printed
    assert [line for line in (tmp_path / "out" / "ke-train.log").read_text().splitlines() if line in lines] == lines


@pytest.fixture
def terminal(monkeypatch):
    """A pseudo-terminal in the place of stderr; returns what reads it."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as stderr:
        monkeypatch.setattr(view, "sys", SimpleNamespace(stderr=stderr))  # pytest has its own way with sys.stderr
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 120, 0, 0))
        os.set_blocking(ours, False)

        def shown():
            stderr.flush()
            parts = []
            with suppress(BlockingIOError):
                while True:
                    parts.append(os.read(ours, 65536))
            return b"".join(parts).decode()

        yield shown
    os.close(ours)


def test_a_terminal_gets_one_bar_for_the_whole_run(terminal, monkeypatch):
    """Two generations of two epochs of three batches, taken up after the first generation."""
    evolution = KnowledgeEvolution(generations=2, epochs_per_generation=2)
    record = {"generation": 1, "last_epoch": 1, "dense": {"val_acc": 0.5}, "fit": {"val_acc": 0.25}}
    monkeypatch.setattr(KnowledgeEvolution, "history", [record])
    monkeypatch.setattr(KnowledgeEvolution, "generation", 2)
    trainer = SimpleNamespace(is_global_zero=True, max_epochs=4, num_training_batches=3, current_epoch=2)
    shows = view.RunView(evolution, "val_acc")
    shows.on_train_start(trainer, None)
    shows.on_train_epoch_start(trainer, None)
    first = terminal().split("\r")[-1]
    assert first.startswith("generation 2 of 2, epoch 1 of 2 ")
    assert " 50 %" in first
    assert first.rstrip().endswith(", last: val_acc dense 0.5000, fit 0.2500")
    for _ in range(3):
        shows.on_train_batch_end(trainer, None)
    trainer.current_epoch = 3
    shows.on_train_epoch_start(trainer, None)
    second = terminal().split("\r")[-1]
    assert second.startswith("generation 2 of 2, epoch 2 of 2 ")
    assert " 75 %" in second
    assert re.search(r"\d\d:\d\d left", second)
    shows.on_exception(trainer, None, RuntimeError())
    assert shows._bar is None


def test_no_bar_where_none_is_wanted(terminal):
    evolution = KnowledgeEvolution(generations=2, epochs_per_generation=2)
    trainer = SimpleNamespace(is_global_zero=True, max_epochs=4, num_training_batches=3, current_epoch=0)
    shows = view.RunView(evolution, "val_acc", bar=False)
    shows.on_train_start(trainer, None)
    assert shows._bar is None
