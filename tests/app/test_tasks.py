"""Tasks beyond image classification through `ke-train`, from files of the real formats to tables and slim networks."""

import json
import pydoc_data.topics

import pytest

from tests.app.commands import ke
from tests.data.test_other_modules import lay_out_medmnist, shades

QUICK = ("generations.count=2", "generations.epochs=1", "warmup=0", "trainer.enable_progress_bar=false")
SMALL = ("backbone.width=0.25", "backbone.stem=small")


def text(folder):
    """Real English, which every Python brings."""
    english = "\n".join(pydoc_data.topics.topics.values())[:20_000]
    (folder / "a.txt").write_text(english, encoding="utf-8")
    return "experiment=text", f"datamodule.file={folder / 'a.txt'}", "datamodule.length=32", "backbone.width=32"


def medmnist(folder):
    lay_out_medmnist(folder, "pneumoniamnist", 1, 1, 2)
    return "experiment=medmnist", f"datamodule.root={folder}", *SMALL


def values(folder):
    names = [f"{number}.png" for number in range(40)]
    shades(folder, names)
    for part in ("train", "val", "test"):
        lines = ["file,grey", *(f"{name},{number / 40}" for number, name in enumerate(names))]
        (folder / f"{part}.csv").write_text("\n".join(lines), encoding="utf-8")
    data = ("datamodule=values", f"datamodule.root={folder}", "datamodule.image_size=16")
    return *data, "task=regression", "loss=l1", "monitor=val_mae", "mode=min", "optimizer=adamw", *SMALL


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lay_out", "score"), [(text, "test_perplexity"), (medmnist, "test_auc"), (values, "test_mae")]
)
def test_a_task_is_trained_tested_and_slimmed(tmp_path, lay_out, score):
    done = ke("train", *lay_out(tmp_path), *QUICK, f"hydra.run.dir={tmp_path / 'run'}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert set(results["networks"]) == {"dense", "slim"}
    assert all(score in network for network in results["networks"].values())
    assert results["networks"]["slim"]["parameters"] < results["networks"]["dense"]["parameters"]
    assert all(record["fit"].keys() >= {results["monitor"]} for record in results["history"])
