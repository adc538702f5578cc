"""Every task through the configuration of `ke-train`, from files of the real formats to tables and slim networks."""

import json
import pydoc_data.topics

import numpy as np
import pytest
import torch

from lightning_ke.app import slim
from lightning_ke.app.experiment import run
from lightning_ke.app.slim_file import load_slim_file
from tests.app.commands import composed, ke
from tests.data.layouts import lay_out_flowers, lay_out_medmnist, lay_out_planetoid, shades

QUICK = ("generations.count=2", "generations.epochs=1", "warmup=0", "trainer.enable_progress_bar=false")
SHORT = ("logger=none", "threads=null", *(f"trainer.limit_{part}_batches=2" for part in ("train", "val", "test")))
SMALL = ("backbone.width=0.25", "backbone.stem=small")


def english(folder, monkeypatch=None):
    """Real English, which every Python brings."""
    text = "\n".join(pydoc_data.topics.topics.values())[:20_000]
    (folder / "a.txt").write_text(text, encoding="utf-8")
    return "experiment=text", f"datamodule.file={folder / 'a.txt'}", "datamodule.length=32", "backbone.width=32"


def transformer(folder, monkeypatch=None):
    return *english(folder), "backbone=character_transformer", "backbone.context=32"


def vision_transformer(folder, monkeypatch=None):
    small = ("backbone.patch=7", "backbone.width=32", "backbone.depth=1")
    return "datamodule=embedded", "backbone=small_vit", "optimizer=adamw", *small


def pneumonia(folder, monkeypatch=None):
    lay_out_medmnist(folder, "pneumoniamnist", 1, 1, 2)
    return "experiment=medmnist", f"datamodule.root={folder}", "datamodule.balanced=true", *SMALL


def chest(folder, monkeypatch=None):
    lay_out_medmnist(folder, "chestmnist", 1, 14, 2)
    own = ("datamodule.dataset=chestmnist", "task=multi_label", "loss=binary_cross_entropy")
    return "experiment=medmnist", f"datamodule.root={folder}", *own, *SMALL


def values(folder, monkeypatch=None):
    names = [f"{number}.png" for number in range(40)]
    shades(folder, names)
    for part in ("train", "val", "test"):
        lines = ["file,grey", *(f"{name},{number / 40}" for number, name in enumerate(names))]
        (folder / f"{part}.csv").write_text("\n".join(lines), encoding="utf-8")
    data = ("datamodule=values", f"datamodule.root={folder}", "datamodule.image_size=16")
    return *data, "task=regression", "loss=l1", "monitor=val_mae", "mode=min", "optimizer=adamw", *SMALL


def heading(folder, monkeypatch):
    lay_out_flowers(folder, monkeypatch)
    small = ("datamodule.images.image_size=16", "datamodule.images.batch_size=2")
    return "experiment=heading", f"datamodule.images.root={folder}", *small, *SMALL


def embeddings(folder, monkeypatch=None, loss="proxy-anchor"):
    for part, alphabets in (("images_background", ("Greek", "Latin")), ("images_evaluation", ("Angelic",))):
        names = [f"{a}/character{c:02}/{c:04}_{i:02}.png" for a in alphabets for c in range(1, 6) for i in range(4)]
        shades(folder / "omniglot-py" / part, names, mode="L")
    data = ("datamodule=omniglot", f"datamodule.root={folder}", "datamodule.batch_size=8", "+datamodule.val_classes=3")
    own = ("task=metric_learning", f"task.loss={loss}", "task.embedding_size=8", "monitor=val_recall@1")
    return *data, "+datamodule.train_classes=10", *own, "optimizer=adamw", *SMALL


def triplets(folder, monkeypatch=None):
    return embeddings(folder, loss="triplet")


def margin(folder, monkeypatch=None):
    return embeddings(folder, loss="margin")


def nodes(folder, monkeypatch=None, kind="GCN"):
    generator = np.random.default_rng(0)
    features = generator.integers(0, 2, (720, 9)).astype(np.float32)
    edges = generator.integers(0, 720, (900, 2))
    lay_out_planetoid(folder, features, np.arange(720) % 3, edges, 30, list(range(700, 720)))
    return "experiment=cora", f"datamodule.root={folder}", f"backbone.kind={kind}", "backbone.hidden=16"


def sage(folder, monkeypatch=None):
    return nodes(folder, kind="GraphSAGE")


def attention(folder, monkeypatch=None):
    return nodes(folder, kind="GAT")


@pytest.mark.parametrize(
    ("lay_out", "scores"),
    [
        (english, ("perplexity", "acc")),
        (transformer, ("perplexity", "acc")),
        (vision_transformer, ("acc", "acc5")),
        (pneumonia, ("auc", "acc")),
        (chest, ("auc", "acc")),
        (values, ("mae", "r2")),
        (heading, ("mae", "cos")),
        (embeddings, ("recall@1", "recall@2", "recall@4", "recall@8", "map@r", "nmi")),
        (triplets, ("recall@1", "map@r", "nmi")),
        (margin, ("recall@1", "map@r", "nmi")),
        (nodes, ("acc",)),
        (sage, ("acc",)),
        (attention, ("acc",)),
    ],
)
def test_a_task_is_trained_tested_and_slimmed(tmp_path, monkeypatch, lay_out, scores):
    run(composed(*lay_out(tmp_path, monkeypatch), *QUICK, *SHORT), tmp_path / "out")
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(results["networks"]) == {"dense", "slim"}
    assert all(f"test_{score}" in network for network in results["networks"].values() for score in scores)
    assert results["networks"]["slim"]["parameters"] < results["networks"]["dense"]["parameters"]
    logged = {f"val_{score}" for score in scores} - {"val_nmi"}  # clusters are found when testing only
    for record in results["history"]:
        assert record["dense"].keys() >= logged
        assert record["fit"].keys() >= logged
    assert [record["generation"] for record in results["history"]] == [1, 2]
    # The checkpoint and the slim network's file know how the network is built, whatever the task.
    slim.main([str(tmp_path / "out" / "checkpoints" / "best-fit.ckpt"), str(tmp_path / "again.safetensors")])
    ours, again = (
        load_slim_file(tmp_path / name).state_dict() for name in ("out/slim.safetensors", "again.safetensors")
    )
    assert ours.keys() == again.keys()
    assert all(torch.equal(ours[name], again[name]) for name in ours)


@pytest.mark.slow
def test_a_task_is_trained_by_the_command(tmp_path):
    done = ke("train", *english(tmp_path), *QUICK, f"hydra.run.dir={tmp_path / 'run'}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "test_perplexity" in json.loads((tmp_path / "run" / "results.json").read_text())["networks"]["slim"]
