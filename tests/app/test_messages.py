"""Each mistake is one clear line and exit code 2; what is no mistake of the user's keeps its traceback."""

from importlib.util import find_spec

import pytest
from lightning.pytorch import LightningDataModule, LightningModule
from omegaconf import OmegaConf

from lightning_ke.app.experiment import run
from lightning_ke.app.messages import line_for
from lightning_ke.app.preflight import check_complete
from lightning_ke.app.run_folder import RunFolder
from lightning_ke.app.typed import check_types
from lightning_ke.report import generation_table
from tests.app.commands import composed, python
from tests.app.test_experiment import SHORT
from tests.data.layouts import picture

PLUGINS = {
    "hydra/launcher=joblib": "hydra_plugins.hydra_joblib_launcher",
    "hydra/launcher=submitit_slurm": "hydra_plugins.hydra_submitit_launcher",
    "hydra/sweeper=rates": "hydra_plugins.hydra_optuna_sweeper",
}


@pytest.mark.parametrize("override", PLUGINS)
def test_a_launcher_or_sweeper_that_is_not_installed_is_named_with_its_install_line(override):
    if find_spec("hydra_plugins") is not None and find_spec(PLUGINS[override]) is not None:
        pytest.skip("it is installed")
    done = python("from lightning_ke.app.train import main; main()", "-m", override, "seed=1")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert done.stderr.endswith('to be installed. Run `pip install "lightning-ke[launchers]"`.\n')


def answer(function, *arguments):
    """The line that a failing call is answered with."""
    try:
        function(*arguments)
    except Exception as error:
        return line_for(error)
    return pytest.fail("it did not fail")


TYPING_MISTAKES = {
    "trainer.max_epoch=3": "There is no key 'trainer.max_epoch'. Did you mean 'trainer.max_epochs'?",
    "split.rte=0.3": "There is no key 'split.rte'. Did you mean 'split.rate'?",
    "sede=1": "There is no key 'sede'. Did you mean 'seed'?",
    "experimnt=demo": "There is no key 'experimnt'. Did you mean 'experiment'?",
    "lr=1": "There is no key 'lr'. Did you mean 'optimizer.lr'?",
    "dataset=cifar10": "There is no key 'dataset'. `ke-train --help` shows the known ones.",
    "optimizer.betas=1": "There is no key 'optimizer.betas'. 'optimizer' has lr, momentum, weight_decay, nesterov. (A",
    "genration.count=1": "There is no key 'genration.count'. Did you mean 'generations.count'?",
    "datamodule=cora datamodule.per_class=5": "There is no key 'datamodule.per_class'. 'datamodule' has root, ",
    "logger=none logger.csv=null": "There is no key 'logger.csv'. `ke-train --help` shows",
    "logger=null": "Expected a group to have the name of an option, but got null. Write callbacks=none ",
    "zzz=1": "There is no key 'zzz'. `ke-train --help` shows the known ones.",
    "backbone=resnet50": "The group 'backbone' has no option 'resnet50'; it has ",
    "experiment=smok": "The group 'experiment' has no option 'smok'; it has ",
    "split.mask=sweep/split.rate=0.3/mask.pt": "Expected a value for 'split.mask' that Hydra can read, but got 'sweep/"
    "split.rate=0.3/mask.pt'. One with brackets, `=` or other letters than English ones stands in quotes of its own: "
    "\"split.mask='sweep/split.rate=0.3/mask.pt'\".",
    "datamodule.root=/data/Möwen(1)": "Expected a value for 'datamodule.root' that Hydra can read, but got '/data/M",
    "datamodule.root": "Expected arguments of the form KEY=VALUE, but got 'datamodule.root'.",
    "seed=1,2": "Expected one value for 'seed', but got 1,2. For a sweep add -m; a list is written seed=[1,2].",
}


@pytest.mark.parametrize("override", TYPING_MISTAKES)
def test_a_typing_mistake_is_one_line(override):
    line = answer(composed, *override.split())
    assert line.startswith(TYPING_MISTAKES[override])
    assert "\n" not in line


REFUSALS = {
    "backbone.name=resnet81": "Expected `backbone.name` to be a network that torchvision has, but got 'resnet81'. The",
    "backbone.width=-1": "Expected `backbone.width` to be greater than 0 and finite, but got -1.",
    "split.rate=1.5": "Expected argument `rate` to be in (0, 1), but got 1.5.",
    "redraw.reset=laier": "Expected argument `reset` to be",
    "redraw.norm=keeep": "Expected argument `norm` to be",
    "generations.count=0": "Expected argument `generations` to be",
    "trainer.max_epochs=7": "Expected",  # 7 epochs are no 2 generations of 2
    "datamodule.batch_size=0": "Expected argument `batch_size` to be a whole number of at least 1, but got 0.",
    "warmup=9": "Expected argument `warmup` to be shorter than the schedule, 2, but got 9.",
    "monitor=val_akk": "Expected `monitor` to be one of val_acc, val_acc5, val_loss, but got 'val_akk'.",
    "seed=-1": "Expected `seed` to be a whole number of at least 0, at most 4294967295, but got -1.",
    "seed=5000000000": "Expected `seed` to be a whole number of at least 0, at most 4294967295, but got 5000000000.",
    "warmup=0.5": "Expected `warmup` to be a whole number of at least 0, but got 0.5.",
    "generations.count=null": "Expected the run to have a length, but `generations.count`, `generations.epochs` and",
    "generations.count=null generations.epochs=[0.5,0.5]": "Expected the run to have a length, but",
    "trainer.limit_test_batches=0": "Expected `trainer.limit_test_batches` to be above 0, but got 0: the chosen",
    "+trainer.logger=false": "Expected `trainer.logger` to be left out, because ke-train gives the Trainer its own",
    f"loss=distillation loss.teacher.checkpoint={__file__}": f"Expected {__file__!r} to be a checkpoint of ke",
    "loss=distillation loss.teacher.checkpoint=no.ckpt": "Expected a checkpoint of ke-train, but there is no file",
    "threads=many": "Expected `threads` to be a whole number or null of at least 1, but got 'many'.",
    "channels_last=2": "Expected `channels_last` to be true or false, but got 2.",
    "datamodule.batch_size=many": "Expected `datamodule.batch_size` to be a whole number, but got 'many'.",
    "datamodule.batch_size=true": "Expected `datamodule.batch_size` to be a whole number, but got True.",
    "datamodule.flip=3": "Expected `datamodule.flip` to be true or false, but got 3.",
    "datamodule.crop_scale=[0.1,big]": "Expected `datamodule.crop_scale` to be a list, but got [0.1, 'big'].",
    "+datamodule.per_clas=5": "Expected `datamodule.per_clas` to be an argument of EmbeddedDataModule, but it takes "
    "none of that name. Did you mean 'per_class'?",
    "+datamodule.zoom=5": "Expected `datamodule.zoom` to be an argument of EmbeddedDataModule, but it takes none of "
    "that name. It takes batch_size, ",
    "backbone.stem=smal": "Expected `backbone.stem` to be one of 'imagenet', 'small', but got 'smal'.",
    "trainer.accumulate_grad_batches=0.5": "Expected `trainer.accumulate_grad_batches` to be a whole number, but got",
    "trainer.accelerator=abacus": "Error in call to target 'lightning.pytorch.trainer.trainer.Trainer': ValueError(",
    "trainer.check_val_every_n_epoch=5": "Expected `trainer.check_val_every_n_epoch` to be at most 4, the epochs of",
    "trainer.limit_train_batches=0": "Expected `trainer.limit_train_batches` to be above 0, but got 0: nothing would",
    "trainer.limit_val_batches=0": "Expected `trainer.limit_val_batches` to be above 0, but got 0: no weights could be",
    "trainer.devices=0": "Lightning refuses this: ",
    "optimizer.lr=-1": "Expected `optimizer` to have arguments that SGD takes, but it says: Invalid learning rate: -1",
    "optimizer.lr=fast": "Expected `optimizer.lr` to be a number or Tensor, but got 'fast'.",
    "optimizer.lr=nan": "Expected `optimizer.lr` to be finite, but got nan. Give a number.",
    "optimizer.lr=inf": "Expected `optimizer.lr` to be finite, but got inf. Give a number.",
    "optimizer=adamw +optimizer.betas=[0.9,nan]": "Expected `optimizer.betas` to be finite, but got [0.9, nan].",
    "generations.phases=3": "Expected argument `phases` to be a list of phases, such as `[SlimFirst()]`, but got 3.",
    "generations.phases=[3]": "Expected argument `phases` ",
    f"task._target_={__name__}.NeedsWidth": "Expected a value for `task.width`, which NeedsWidth needs, but it has "
    "none. Add +task.width=VALUE.",
    "+callbacks.own=3": "Expected `callbacks.own` to have a `_target_`, or to be null to leave it out, but got 3.",
    "scheduler.factory=cosine": "Expected `scheduler.factory` to have a `_target_`, or to be null to leave it out",
    f"backbone.weights={__file__}": f"Expected {__file__!r} to hold tensors and plain values only, but it cannot be",
    "loss=mse": "Expected argument `loss` to compare one class for each example, but MSELoss compares a value for each",
    "loss=binary_cross_entropy": "Expected argument `loss` to compare one class for each example, but BCEWithLogits",
    "task._target_=nowhere.Module": "Expected `_target_` to name something that can be imported, but got 'nowhere.Mod",
    "mode=maxi": "Expected `mode` to be one of max, min, but got 'maxi'.",
    "monitor=val_loss": "Expected `mode` to be 'min' for val_loss, but got 'max': the worst weights would be chosen.",
    "mode=min": "Expected `mode` to be 'max' for val_acc, but got 'min': the worst weights would be",
    "loss.label_smoothing=2": "Expected argument `label_smoothing` to be in [0, 1), but got 2.",
}


class NeedsWidth(LightningModule):
    def __init__(self, backbone, width, **others):
        """Never called."""


@pytest.mark.parametrize("override", REFUSALS)
def test_a_bad_value_is_one_line(tmp_path, override):
    config = composed(
        "experiment=smoke", "logger=none", "generations.epochs=2", "generations.count=2", *override.split()
    )
    assert answer(run, config, tmp_path).startswith(REFUSALS[override])


FOREIGN = {
    "callbacks=early_stopping callbacks.early_stopping.monitor=val_ac": (
        "Early stopping conditioned on metric `val_ac` which is not available.",
        "Set callbacks.early_stopping.monitor to one of them.",
    ),
    "datamodule.batch_size=1 datamodule.image_size=4": (
        "Expected more than 1 value per channel when training, got input size",
        "raise datamodule.batch_size or datamodule.image_size.",
    ),
}


@pytest.mark.parametrize("override", FOREIGN)
def test_what_other_libraries_refuse_on_the_way_is_one_line(tmp_path, override):
    config = composed("experiment=smoke", "logger=none", "generations.epochs=2", *override.split())
    line, (start, advice) = answer(run, config, tmp_path), FOREIGN[override]
    assert line.startswith(start)
    assert line.endswith(advice)


class AnyLength:
    def __init__(self, length: int | str = 0, width: int = 0, table: dict[str, int] | None = None):
        """Takes more than its subclass."""


class WholeLength(AnyLength):
    def __init__(self, length: int = 0, **others):
        super().__init__(length, **others)


def test_the_type_of_an_argument_is_the_one_that_its_class_gives_it():
    config = composed("logger=none")
    OmegaConf.update(config, "callbacks.own", {"_target_": f"{__name__}.WholeLength", "length": "x"}, force_add=True)
    assert answer(check_types, config).startswith("Expected `callbacks.own.length` to be a whole number, but got 'x'.")
    OmegaConf.update(config, "callbacks.own", {"length": 1, "table": 5}, force_add=True)
    check_types(config)  # tables are left to the class
    OmegaConf.update(config, "callbacks.own", {"length": 1, "width": "x"}, force_add=True)
    assert answer(check_types, config).startswith("Expected `callbacks.own.width` to be a whole number, but got 'x'.")


def test_missing_values_are_named_before_anything_is_imported():
    assert answer(check_complete, composed("datamodule=flowers102", "logger=none")) == (
        "Expected a value for 'datamodule.root', but it has none. Add datamodule.root=VALUE."
    )


class NoTest(LightningModule):
    def training_step(self, batch):
        """Never called."""


class NoTestData(LightningDataModule):
    num_classes, in_channels, image_size = 2, 1, 28


@pytest.mark.parametrize(
    ("own", "sentence"),
    [
        (f"task._target_={__name__}.NoTest", "Expected NoTest to have a method `test_step`"),
        (f"datamodule._target_={__name__}.NoTestData", "Expected NoTestData to have a method `test_dataloader`"),
    ],
)
def test_what_cannot_be_tested_is_not_trained(tmp_path, own, sentence):
    config = composed("logger=none", "experiment=smoke")
    if own.startswith("datamodule"):
        config.datamodule = {}
    OmegaConf.update(config, *own.split("="), force_add=True)
    assert answer(run, config, tmp_path / "out").startswith(sentence)
    assert not (tmp_path / "out").exists()


def test_missing_test_images_are_missed_before_the_training(tmp_path):
    for part in ("train", "val"):
        for name in ("daisy", "rose"):
            picture(tmp_path / part / name / "0.png")
    config = composed("datamodule=folder", f"datamodule.root={tmp_path}", "datamodule.image_size=32", "logger=none")
    assert "Put the test images there" in answer(run, config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_data_says_where_to_get_it(tmp_path):
    config = composed("experiment=flowers102", f"datamodule.root={tmp_path}", "logger=none")
    assert "Download 102flowers.tgz" in answer(run, config, tmp_path / "out")


def test_a_folder_that_holds_a_run_is_refused(tmp_path):
    run(composed("experiment=smoke", *SHORT), tmp_path / "out")
    before = (tmp_path / "out" / "config.yaml").read_text()
    assert "to be new, but it holds a run" in answer(
        run, composed("experiment=smoke", *SHORT, "seed=5"), tmp_path / "out"
    )
    assert (tmp_path / "out" / "config.yaml").read_text() == before


def test_a_refused_run_does_not_claim_its_folder(tmp_path):
    short = ["experiment=smoke", "logger=none"]
    assert answer(run, composed(*short, "split.rate=7"), tmp_path / "out") is not None
    RunFolder(tmp_path / "out").check_new()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("trained", [False, True])
def test_what_was_trained_is_kept_if_anything_was(tmp_path, capsys, trained):
    record = RunFolder(tmp_path / "out")
    if trained:
        record.checkpoint.parent.mkdir(parents=True)
        record.checkpoint.touch()
    with pytest.raises(ValueError, match="no data"), record.kept():
        raise ValueError("no data")
    hint = f"What was trained is kept. It goes on by: ke-train resume={tmp_path / 'out'}\n"
    assert capsys.readouterr().err == (hint if trained else "")


def test_an_image_that_a_worker_process_cannot_read_is_one_line(tmp_path):
    for part in ("train", "val", "test"):
        for name in ("daisy", "rose"):
            picture(tmp_path / part / name / "0.png")
    broken = tmp_path / "train" / "rose" / "0.png"
    broken.write_bytes(broken.read_bytes()[:40])
    lazy = ["datamodule.lazy=true", "datamodule.num_workers=1", "datamodule.image_size=32"]
    config = composed("datamodule=folder", f"datamodule.root={tmp_path}", *lazy, *SHORT, "backbone.width=0.125")
    assert answer(run, config, tmp_path / "out").startswith(f"Expected image {str(broken)!r} to be readable, but it is")


def test_a_bug_keeps_its_traceback():
    assert answer(lambda: [][1]) is None
    assert answer(int, "x") is None
    assert answer(generation_table, None, "val_acc") is None  # in this package, but not by a `raise`


@pytest.mark.parametrize("arguments", [["trainer.max_epoch=3"], ["--help"], ["datamodule=folder"]])
def test_it_answers_before_torch_and_lightning_are_imported(arguments, tmp_path):
    code = (
        "import sys\n"
        "from lightning_ke.app.train import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    slow = ('torch', 'lightning', 'torchvision', 'pandas')\n"
        "    print('imported:', [name for name in slow if name in sys.modules])\n"
    )
    elsewhere = [] if arguments == ["--help"] else [f"hydra.run.dir={tmp_path / 'out'}"]
    done = python(code, *arguments, *elsewhere)
    assert "imported: []" in done.stdout
    if arguments == ["--help"]:
        assert done.returncode == 0
        assert "experiment=smoke" in done.stdout
    else:
        assert done.returncode == 2
        assert len(done.stderr.strip().splitlines()) == 1
        assert done.stderr.startswith("ke-train: ")
