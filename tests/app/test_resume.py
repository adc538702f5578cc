"""A run that was killed goes on as if nothing had happened, and a finished one may be made longer."""

import json
import os
import shutil
import signal
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest
from lightning.pytorch import Callback
from omegaconf import OmegaConf

from lightning_ke.app.resume import absolute, check_same, continue_run
from lightning_ke.app.run_folder import RunFolder
from tests.app.commands import composed
from tests.app.processes import DEATHS, TINY, differences, ke_train, results
from tests.data.layouts import picture


class BlocksTables(Callback):
    """Lets the run fail at its very end, once: a folder lies where the tables go."""

    def on_train_start(self, trainer, *_):
        if trainer.current_epoch == 0:
            Path(trainer.default_root_dir, "tables.md").mkdir()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    code, printed = ke_train(folder, *TINY, "hydra.run.dir=out")
    assert code == 0, printed
    return folder / "out"


@pytest.mark.parametrize("death", DEATHS)
def test_a_killed_run_goes_on_bit_for_bit(whole, tmp_path, death):
    code, _ = ke_train(tmp_path, *TINY, *DEATHS[death], "hydra.run.dir=out")
    assert code == -signal.SIGKILL
    status = RunFolder(tmp_path / "out").status
    assert status["state"] == "running"  # it had no chance to say anything else
    assert not (tmp_path / "out" / "results.json").exists()  # test images are for the end
    before = status["seconds"]
    code, printed = ke_train(tmp_path, "resume=out")
    assert code == 0, printed
    assert differences(whole, tmp_path / "out") == []
    status = RunFolder(tmp_path / "out").status
    assert status["state"] == "finished"
    assert status["seconds"] > before > 0


class Terminates(Callback):
    """A cluster's first, polite signal."""

    def on_train_batch_end(self, trainer, *_):
        if trainer.current_epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_run_that_was_told_to_end_does_not_end_as_if_it_had_finished(tmp_path):
    ends = f"+callbacks.ends._target_={__name__}.Terminates"
    code, printed = ke_train(tmp_path, *TINY, ends, "hydra.run.dir=out")
    assert code == 128 + signal.SIGTERM
    assert printed.endswith(f"It goes on by: ke-train resume={tmp_path / 'out'}\n")
    assert RunFolder(tmp_path / "out").status["state"] == "interrupted"


def test_a_longer_run_is_the_one_that_was_long_from_the_start(whole, tmp_path):
    """The folder has been moved in between, too."""
    code, printed = ke_train(tmp_path, *TINY, "generations.count=1", "hydra.run.dir=out")
    assert code == 0, printed
    shutil.move(tmp_path / "out", tmp_path / "moved")
    first = (tmp_path / "moved" / "results.json").read_bytes()
    code, printed = ke_train(tmp_path, "resume=moved", "generations.count=2")
    assert code == 0, printed
    kept = {"results": ".json", "tables": ".md", "history": ".png"}
    assert (tmp_path / "moved" / "results-1-generations.json").read_bytes() == first
    for path in (tmp_path / "moved").glob("*-1-generations.*"):
        assert path.name in printed
        kept.pop(path.stem.removesuffix("-1-generations"), None)
        path.unlink()
    assert not kept
    assert differences(whole, tmp_path / "moved") == []
    assert not (tmp_path / "out").exists()


def test_a_run_that_has_reached_its_goal_goes_on_to_another(whole, tmp_path):
    code, printed = ke_train(tmp_path, *TINY, "generations.stop_at={val_loss:'>=0'}", "hydra.run.dir=out")
    assert code == 0, printed
    assert [record["generation"] for record in results(tmp_path / "out")["history"]] == [1]
    code, printed = ke_train(tmp_path, "resume=out", "generations.stop_at={val_loss:'>=1000'}")
    assert code == 0, printed
    assert results(tmp_path / "out")["networks"] == results(whole)["networks"]


def test_paths_do_not_depend_on_the_current_folder(tmp_path):
    config = absolute(composed("datamodule=folder", "datamodule.root=images", "backbone.weights='~/resnet.pth'"))
    assert config.datamodule.root == str(tmp_path / "images")
    assert config.backbone.weights == str(Path("~/resnet.pth").expanduser())
    assert absolute(composed()) == composed()
    turned = absolute(composed("experiment=heading", "logger=none", "datamodule.images.root=images"))
    assert turned.datamodule.images.root == str(tmp_path / "images")
    moved = composed("experiment=heading", "logger=none", "datamodule.images.root=elsewhere")
    check_same(turned, moved, tmp_path)  # where the data are is no part of what a run is


def test_epochs_that_would_change_nothing_are_refused(tmp_path):
    """What ends a generation has its most epochs from the configuration with which the run began."""
    for group, refused in (("default", False), ("plateau", True)):
        config = composed(f"generations={group}", "logger=none")
        saved = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
        asked = OmegaConf.merge(saved, {"generations": {"epochs": 300}})
        expected = (
            pytest.raises(ValueError, match=r"Expected `generations\.epochs=200` as in") if refused else nullcontext()
        )
        with expected:
            check_same(saved, asked, tmp_path)


@pytest.mark.slow
def test_it_goes_on_from_another_folder(tmp_path):
    """Its data and a callback of the user's lie where the run began, and were named from there."""
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    for part in ("train", "val", "test"):
        for number in range(8):
            picture(home / "images" / part / str(number % 2) / f"{number}.png", 30 * number)
    (home / "mine_alone.py").write_text("from lightning.pytorch import Callback\nclass Note(Callback): ...\n")
    mine = ["datamodule=folder", "datamodule.root=images", "datamodule.image_size=16"]
    more = ["generations.count=1", "hydra.run.dir=out", "+callbacks.note._target_=mine_alone.Note"]
    code, printed = ke_train(home, *TINY, *mine, *more)
    assert code == 0, printed
    elsewhere.mkdir()
    code, printed = ke_train(elsewhere, "resume=../home/out", "generations.count=2")
    assert code == 0, printed
    # Data that have been moved are named from where the user is now.
    shutil.move(home / "images", elsewhere / "moved")
    code, printed = ke_train(elsewhere, "resume=../home/out", "generations.count=3", "datamodule.root=moved")
    assert code == 0, printed
    history = json.loads((home / "out" / "results.json").read_text())["history"]
    assert [record["generation"] for record in history] == [1, 2, 3]


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["resume=out"], 0, "The run in out is finished: see out/tables.md. For more generations: ke-train resume=out"),
        (["resume=nowhere"], 2, "Expected 'nowhere' to hold a run, but it has no config.yaml."),
        (["resume=out", "split.rate=0.3"], 2, "Expected `split.rate=0.5` as in "),
        (["resume=out", "optimizer=adamw"], 2, "Expected `optimizer` as in "),
        (["resume=out", "+split.seed=1"], 2, "Expected no `split.seed` as in "),
        (["resume=out", "experiment=demo"], 2, "Expected nothing but single values beside resume=DIR, but got 'exp"),
        (["resume=out", "generations.count=1"], 2, "Expected `generations.count` to be at least 2, as in "),
        (["resume=out", "generations.cont=3"], 2, "There is no key 'generations.cont'. Did you mean"),
        (["resume=out", "-m"], 2, "Expected nothing but key=value beside resume=DIR, but got '-m'."),
    ],
)
def test_what_cannot_go_on_is_one_line_and_changes_nothing(whole, arguments, code, sentence):
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    answered, printed = ke_train(whole.parent, *arguments)
    assert (answered, len(printed.strip().splitlines())) == (code, 1), printed
    assert printed.removeprefix("ke-train: ").startswith(sentence)
    assert before == {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}


def test_what_the_checkpoint_contradicts_leaves_a_finished_run_as_it_was(whole, tmp_path):
    """Generations of another length are refused when the checkpoint is read, which is late."""
    shutil.copytree(whole, tmp_path / "out")
    notes = {tmp_path / "out" / "ke-train.log"}
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file() and path not in notes}
    code, printed = ke_train(tmp_path, "resume=out", "generations.epochs=3")
    assert code == 2
    assert "Expected `epochs_per_generation=2` as in the checkpoint, but got `epochs_per_generation=3`." in printed
    assert "What was trained is kept" not in printed  # it is finished
    files = {path for path in (tmp_path / "out").rglob("*") if path.is_file()} - notes
    assert {path: path.read_bytes() for path in files} == before
    code, printed = ke_train(tmp_path, "resume=out")
    assert "is finished: see out/tables.md" in printed


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("config.yaml", "to be the configuration of a run, but it"),
        ("status.json", "to hold the state of a run, but it"),
    ],
)
def test_books_that_cannot_be_read_are_named(tmp_path, name, sentence):
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    (tmp_path / name).write_text('{"a": [')
    with pytest.raises(ValueError, match=rf"Expected '{tmp_path / name}' {sentence} cannot be read: "):
        continue_run(tmp_path, [])


def fail(record, epochs, *, resume, train=False):
    """A run that fails, once it has trained or before."""
    with suppress(ZeroDivisionError), record.claimed(OmegaConf.create({"epochs": epochs}), str, resume=resume):
        if train:
            record.checkpoint.parent.mkdir()
            record.checkpoint.touch()
        raise ZeroDivisionError(epochs)


def test_a_run_that_could_not_go_on_keeps_its_configuration(tmp_path):
    record = RunFolder(tmp_path / "out")
    fail(record, 2, resume=False)
    fail(record, 3, resume=True)
    assert (record.config, record.status["state"], record.status["error"]) == ({"epochs": 2}, "failed", "3")
    shutil.move(record.path, tmp_path / "moved")
    moved = RunFolder(tmp_path / "moved")
    fail(moved, 3, resume=True)
    assert (moved.config, moved.status["folder"]) == ({"epochs": 2}, str(record.path))  # where its paths lead to
    fail(moved, 4, resume=True, train=True)
    assert (moved.config, moved.status["folder"]) == ({"epochs": 4}, str(moved.path))


def test_two_processes_do_not_work_in_one_folder(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "out")
    record = RunFolder(tmp_path / "out")
    with record.claimed(record.config, str, resume=True):
        code, printed = ke_train(tmp_path, "resume=out", "generations.count=3")
    assert code == 2
    assert "Expected nobody to be at work in" in printed


def test_a_failed_end_is_made_up_for(whole, tmp_path):
    """No room for the results: the training is not lost, and what is missing comes with the next attempt."""
    code, printed = ke_train(tmp_path, *TINY, "hydra.run.dir=out", f"+callbacks.block._target_={__name__}.BlocksTables")
    assert code != 0
    status = RunFolder(tmp_path / "out").status
    assert status["state"] == "failed"
    assert "tables.md" in status["error"]
    (tmp_path / "out" / "tables.md").rmdir()
    code, printed = ke_train(tmp_path, "resume=out")
    assert code == 0, printed
    assert json.loads((tmp_path / "out" / "status.json").read_text())["error"] is None
    assert differences(whole, tmp_path / "out") == []
