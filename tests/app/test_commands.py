"""`ke-train` and `ke-slim` from beginning to end, each in a process of its own."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lightning_ke.app import slim
from lightning_ke.app.backbones import torchvision_backbone
from lightning_ke.app.slim_file import load_slim_file
from lightning_ke.data import EmbeddedDataModule
from tests.app.commands import ke, module

BUILDER = "lightning_ke.app.backbones.torchvision_backbone"
SHORT = ["experiment=smoke", "generations.count=2", "generations.epochs=1", "warmup=0"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("run")
    done = ke("train", *SHORT, "hydra.run.dir=out", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "out", done.stdout


def test_it_says_where_everything_is_and_it_is_there(finished):
    folder, printed = finished
    for name in ("config.yaml", "checkpoints", "slim.safetensors", "tables.md", "results.json", "history.png"):
        assert str(folder / name) in printed or f"out/{name}" in printed
        assert (folder / name).exists()
    assert (folder / "log" / "metrics.csv").is_file()
    assert (folder / "history.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {
        "best-dense.ckpt",
        "best-fit.ckpt",
        "last.ckpt",
    }


def test_the_table_has_a_row_for_each_generation(finished):
    folder, printed = finished
    results = json.loads((folder / "results.json").read_text())
    assert [record["generation"] for record in results["history"]] == [1, 2]
    rows = [line.split() for line in printed.splitlines() if line.startswith(("1 ", "2 "))]
    for row, record in zip(rows, results["history"], strict=True):
        assert row[2] == f"{record['dense']['val_acc']:.4f}"
        assert f"{record['fit']['val_acc']:.4f}" in row


def test_networks_are_chosen_on_validation_and_their_scores_are_true(finished):
    """The numbers of the table, measured again from the files."""
    folder, _ = finished
    networks = json.loads((folder / "results.json").read_text())["networks"]
    dense = torchvision_backbone("resnet18", num_classes=10, in_channels=1, width=0.25)
    content = torch.load(folder / "checkpoints" / "best-dense.ckpt", weights_only=True)
    prefix = "backbone."
    dense.load_state_dict({k.removeprefix(prefix): v for k, v in content["state_dict"].items() if k.startswith(prefix)})
    data = EmbeddedDataModule(batch_size=250)
    data.setup("fit")
    data.setup("test")
    for name, network in (("dense", dense.eval()), ("slim", load_slim_file(folder / "slim.safetensors"))):
        for part, loader in (("val", data.val_dataloader()), ("test", data.test_dataloader())):
            with torch.no_grad():
                right = torch.cat([network(images).argmax(1) == labels for images, labels in loader])
            assert networks[name][f"{part}_acc"] == pytest.approx(right.float().mean().item(), abs=1e-6)
        assert networks[name]["parameters"] == sum(parameter.numel() for parameter in network.parameters())


def test_the_slim_network_is_smaller_and_trains(finished):
    folder, _ = finished
    small = load_slim_file(folder / "slim.safetensors").train()
    dense = torchvision_backbone("resnet18", num_classes=10, in_channels=1, width=0.25)
    share = sum(p.numel() for p in small.parameters()) / sum(p.numel() for p in dense.parameters())
    assert 0.2 < share < 0.3
    small(torch.randn(4, 1, 28, 28)).sum().backward()
    assert all(parameter.grad is not None for parameter in small.parameters())


def test_a_second_run_into_the_same_folder_is_refused(finished):
    folder, _ = finished
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".log"}
    done = ke("train", *SHORT, "seed=1", "hydra.run.dir=out", cwd=folder.parent)
    assert done.returncode == 2
    assert done.stderr.strip().endswith("remove it, or choose another by hydra.run.dir=DIR.")
    assert before == {path: path.read_bytes() for path in before}


@pytest.fixture
def ke_slim(tmp_path, monkeypatch, capsys):
    """Run `ke-slim` in an empty folder; returns its exit code and what it printed on stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = 0
        try:
            slim.main([str(argument) for argument in arguments])
        except SystemExit as stopped:
            code = stopped.code
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run


def test_ke_slim_makes_the_same_network_from_the_checkpoint(finished, tmp_path, monkeypatch):
    folder, _ = finished
    done = module("slim", folder / "checkpoints" / "best-fit.ckpt", "again.safetensors", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "again.safetensors" in done.stdout
    monkeypatch.chdir(tmp_path)
    exec(done.stdout.splitlines()[-1].removeprefix("Read it by: "), {})
    ours, again = load_slim_file(folder / "slim.safetensors"), load_slim_file(tmp_path / "again.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), again.state_dict().values(), strict=True))


def test_ke_slim_with_a_factory_for_other_modules(finished, tmp_path, ke_slim, monkeypatch):
    folder, _ = finished
    (tmp_path / "nets_of_a_stranger.py").write_text(
        "from lightning_ke.app.backbones import torchvision_backbone\n"
        "from lightning_ke.tasks import Classification\n"
        "def make():\n"
        "    return Classification(torchvision_backbone('resnet18', 10, in_channels=1, width=0.25), 10)\n"
    )
    code, printed = ke_slim(
        folder / "checkpoints" / "best-fit.ckpt", "mine.safetensors", "--factory", "nets_of_a_stranger:make"
    )
    assert code == 0
    state = load_file(tmp_path / "mine.safetensors")
    ours = load_slim_file(folder / "slim.safetensors").state_dict()
    assert all(torch.equal(state[f"backbone.{name}"], value) for name, value in ours.items())
    with pytest.raises(ValueError, match=r"only your code knows that. Read it by `lightning_ke\.load_slim"):
        load_slim_file("mine.safetensors")
    monkeypatch.syspath_prepend(tmp_path)
    exec(printed.splitlines()[-1].removeprefix("Read it by: "), {})  # what it prints can be copied into Python


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["missing.ckpt", "out.safetensors"], "there is no checkpoint 'missing.ckpt'"),
        (["plain.ckpt", "old.safetensors"], "'old.safetensors' exists; choose another name"),
        (["plain.ckpt", "out.onnx"], "'out.onnx' would hold safetensors; write those, load them and call torch"),
        (
            ["folder", "out.safetensors"],
            "'folder' is a folder; name a checkpoint, such as DIR/checkpoints/best-fit.ckpt",
        ),
        (["plain.ckpt", "no/out.safetensors"], "no' to write to; make it first"),
        (["plain.ckpt", "out.safetensors"], "it holds none"),
        (["plain.ckpt", "out.safetensors", "--factory", "nets"], "to be module:function, but got 'nets'"),
        (["plain.ckpt", "out.safetensors", "--factory", "no_such_module:make"], "No module named 'no_such_module'"),
        (["plain.ckpt", "out.safetensors", "--factory", "json:make"], "'json' has no function 'make'"),
        (["plain.ckpt", "out.safetensors", "--factory", "torch.nn:Sigmoid"], "Draw the mask with a structured split."),
        (["foreign.ckpt", "out.safetensors"], "one is built. Name a function without arguments"),
        (["mask.ckpt", "out.safetensors"], "it holds a mask alone. Give the checkpoint of the run"),
        (["cut.ckpt", "out.safetensors"], "It may be truncated; use an earlier checkpoint."),
    ],
)
def test_ke_slim_refuses_in_one_line(tmp_path, ke_slim, arguments, sentence):
    mask = {"version": 1, "entries": {"w": {"shape": [2], "fit": True}}, "structure": None}
    held = {"KnowledgeEvolution": {"mask": mask}} if "--factory" in arguments else {}
    torch.save({"state_dict": {}, "callbacks": held}, tmp_path / "plain.ckpt")
    torch.save({"state_dict": {}, "callbacks": {"KnowledgeEvolution": {"mask": mask}}}, tmp_path / "foreign.ckpt")
    (tmp_path / "folder").mkdir()
    (tmp_path / "old.safetensors").touch()
    torch.save(mask, tmp_path / "mask.ckpt")
    (tmp_path / "cut.ckpt").write_bytes((tmp_path / "plain.ckpt").read_bytes()[:-100])
    code, printed = ke_slim(*arguments)
    assert code == 2
    assert sentence in printed.splitlines()[-1]
    assert not (tmp_path / "out.safetensors").exists()


def test_ke_slim_refuses_a_factory_of_another_network(finished, tmp_path, ke_slim):
    folder, _ = finished
    code, printed = ke_slim(folder / "checkpoints" / "last.ckpt", "out.safetensors", "--factory", "torch.nn:Sigmoid")
    assert code == 2
    assert "what was built has other weights" in printed
    assert printed.strip().endswith("Let the factory build the module that was trained.")
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(
    "config",
    [
        {"_target_": "os.mkdir", "path": "made"},
        {"_target_": BUILDER, "name": {"_target_": "os.mkdir", "path": "made"}, "num_classes": 10},
        ["os.mkdir"],
    ],
)
def test_a_slim_file_cannot_name_what_is_called(finished, tmp_path, monkeypatch, config):
    """A file may come from anybody: it must not choose the function that builds its network."""
    folder, _ = finished
    monkeypatch.chdir(tmp_path)
    with safe_open(folder / "slim.safetensors", "pt") as file:
        strings = file.metadata() | {"lightning_ke.backbone": json.dumps(config)}
    save_file(load_file(folder / "slim.safetensors"), "evil.safetensors", strings)
    with pytest.raises(ValueError, match="only your code knows"):
        load_slim_file("evil.safetensors")
    assert not (tmp_path / "made").exists()
